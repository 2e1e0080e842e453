/* One informer a type for all components of a process. */
#include "client/internal.h"

struct informers {
	struct client *client;
	struct informer **items;
	const struct type **types;
	size_t len;
	bool started;
};

struct informers *informers_new(struct client *c)
{
	struct informers *f = xcalloc(1, sizeof(*f));

	f->client = c;
	return f;
}

const struct meta_v1_owner_reference *client_controller_of(const struct meta_v1_object_meta *m)
{
	LIST_EACH(o, &m->owner_references)
		if (o->controller.set && o->controller.value)
			return o;
	return NULL;
}

/* A service under the first pair of its selector, a slice under its service. */
static size_t service_values(
	const struct type *t, const void *obj, struct str *ret_values, struct arena *a)
{
	const struct meta_v1_object_meta *m = model_meta(t, obj);
	struct str name = t == &discovery_v1_endpoint_slice_type
		? str_map_get(&m->labels, STR("kubernetes.io/service-name"))
		: STR_NONE;

	if (name.len) {
		*ret_values = arena_fmt(
			a, "service:" STR_FMT "/" STR_FMT, STR_ARG(m->namespace), STR_ARG(name));
		return 1;
	}
	if (t != &core_v1_service_type || !((const struct core_v1_service *)obj)->spec.selector.len)
		return 0;
	const struct str_pair *p = ((const struct core_v1_service *)obj)->spec.selector.items;

	*ret_values = arena_fmt(a, "selects:" STR_FMT "/" STR_FMT "=" STR_FMT,
		STR_ARG(m->namespace), STR_ARG(p->key), STR_ARG(p->value));
	return 1;
}

static size_t index_values(
	const struct type *t, const void *obj, struct str ret_values[8], struct arena *a)
{
	const struct meta_v1_owner_reference *owner = client_controller_of(model_meta(t, obj));
	size_t n = 0;

	if (owner)
		ret_values[n++] = arena_fmt(a, "uid:" STR_FMT, STR_ARG(owner->uid));
	else if (t == &core_v1_pod_type || t == &apps_v1_replica_set_type ||
		t == &batch_v1_job_type || t == &apps_v1_controller_revision_type)
		ret_values[n++] =
			arena_fmt(a, "orphan:" STR_FMT, STR_ARG(model_meta(t, obj)->namespace));
	if (t == &core_v1_pod_type && ((const struct core_v1_pod *)obj)->spec.node_name.len)
		ret_values[n++] = arena_fmt(a, "node:" STR_FMT,
			STR_ARG(((const struct core_v1_pod *)obj)->spec.node_name));
	return n + service_values(t, obj, ret_values + n, a);
}

static struct informer *find(struct informers *f, const struct type *t)
{
	for (size_t k = 0; k < f->len; k++)
		if (f->types[k] == t)
			return f->items[k];
	return NULL;
}

struct informer *informers_get_meta(struct informers *f, const struct type *t)
{
	struct informer *i = find(f, t);

	if (i)
		return i;
	const struct informer_config c = {
		.client = f->client, .type = t, .meta_only = true, .index = index_values
	};

	f->items = xrealloc(f->items, (f->len + 1) * sizeof(struct informer *));
	f->types = xrealloc(f->types, (f->len + 1) * sizeof(struct type *));
	f->types[f->len] = t;
	return f->items[f->len++] = informer_new(&c);
}

struct informer *informers_get(struct informers *f, const struct type *t)
{
	struct informer *i = informers_get_meta(f, t);

	informer_set_meta_only(i, false);
	return i;
}

int informers_start(struct informers *f, struct err *err)
{
	for (size_t k = 0; k < f->len; k++) {
		int r = informer_start(f->items[k], err);

		if (r)
			return r;
	}
	return 0;
}

bool informers_wait_synced(struct informers *f, unsigned timeout_ms)
{
	uint64_t until = mono_now_ns() + (uint64_t)timeout_ms * 1000000;

	for (size_t k = 0; k < f->len; k++) {
		uint64_t now = mono_now_ns();

		if (!informer_wait_synced(
			    f->items[k], now < until ? (unsigned)((until - now) / 1000000) : 0))
			return false;
	}
	return true;
}

void informers_free(struct informers *f)
{
	if (!f)
		return;
	for (size_t k = 0; k < f->len; k++)
		informer_stop(f->items[k]);
	for (size_t k = 0; k < f->len; k++)
		informer_free(f->items[k]);
	free(f->items);
	free(f->types);
	free(f);
}
