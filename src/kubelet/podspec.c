/* Looking at a pod's object: shared ownership, its containers in one list, how messages name it. */
#include "gen/types.h"
#include "kubelet/internal.h"

struct pod_object *pod_object_from_cached(const struct cached *c)
{
	struct pod_object *o = xcalloc(1, sizeof(*o));

	o->refs = 1;
	o->cached = cached_ref((struct cached *)c);
	o->pod = c->obj;
	return o;
}

struct pod_object *pod_object_from_arena(struct arena *a, const struct core_v1_pod *pod)
{
	struct pod_object *o = xcalloc(1, sizeof(*o));

	o->refs = 1;
	o->arena = a;
	o->pod = pod;
	o->is_static = true;
	return o;
}

struct pod_object *pod_object_ref(struct pod_object *o)
{
	o->refs++;
	return o;
}

void pod_object_unref(struct pod_object *o)
{
	if (!o || --o->refs)
		return;
	if (o->cached)
		cached_unref(o->cached);
	arena_free(o->arena);
	free(o);
}

/* The common part of an ephemeral container has the members of a container under the same names. */
static struct core_v1_container *from_ephemeral(
	const struct core_v1_ephemeral_container *e, struct arena *a)
{
	struct core_v1_container *c = arena_alloc(a, sizeof(*c));
	const struct core_v1_ephemeral_container_common *m = &e->ephemeral_container_common;

	c->name = m->name;
	c->image = m->image;
	c->command = m->command;
	c->args = m->args;
	c->working_dir = m->working_dir;
	c->env_from = m->env_from;
	c->env = m->env;
	c->volume_mounts = m->volume_mounts;
	c->termination_message_path = m->termination_message_path;
	c->termination_message_policy = m->termination_message_policy;
	c->image_pull_policy = m->image_pull_policy;
	c->security_context = m->security_context;
	c->stdin = m->stdin;
	c->stdin_once = m->stdin_once;
	c->tty = m->tty;
	return c;
}

struct container_specs pod_containers(const struct core_v1_pod *pod, struct arena *a)
{
	const struct core_v1_pod_spec *spec = &pod->spec;
	struct container_specs r = { 0 };

	r.items = arena_alloc(a,
		(spec->init_containers.len + spec->containers.len +
			spec->ephemeral_containers.len) *
			sizeof(*r.items));
	LIST_EACH(c, &spec->init_containers)
		r.items[r.len++] = (struct container_spec){ KIND_INIT,
			str_eqz(c->restart_policy, "Always"), c, NULL };
	LIST_EACH(c, &spec->containers)
		r.items[r.len++] = (struct container_spec){ KIND_APP, false, c, NULL };
	LIST_EACH(e, &spec->ephemeral_containers)
		r.items[r.len++] = (struct container_spec){ KIND_EPHEMERAL, false,
			from_ephemeral(e, a), e->target_container_name.p };
	return r;
}

const struct container_spec *container_specs_find(const struct container_specs *s, struct str name)
{
	for (size_t i = 0; i < s->len; i++)
		if (str_eq(s->items[i].c->name, name))
			return &s->items[i];
	return NULL;
}

bool pod_is_mirror(const struct core_v1_pod *pod)
{
	return str_map_has(&pod->metadata.annotations, STR("kubernetes.io/config.mirror"));
}

bool pod_is_terminal(const struct core_v1_pod *pod)
{
	return str_eqz(pod->status.phase, "Succeeded") || str_eqz(pod->status.phase, "Failed");
}

bool pod_host_network(const struct core_v1_pod *pod)
{
	return pod->spec.host_network;
}

struct str pod_full_name(const struct core_v1_pod *pod, struct arena *a)
{
	return arena_fmt(a, STR_FMT "_" STR_FMT, STR_ARG(pod->metadata.name),
		STR_ARG(pod->metadata.namespace));
}

struct str pod_format(const struct core_v1_pod *pod, struct arena *a)
{
	return arena_fmt(a, STR_FMT "_" STR_FMT "(" STR_FMT ")", STR_ARG(pod->metadata.name),
		STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.uid));
}
