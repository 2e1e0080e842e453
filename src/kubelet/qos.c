/* The groups above the pods: kubepods, and in it one for burstable and one for best-effort pods, so that the processor is shared by class.
 * Shares: all cores for the whole, two for best effort, the sum of requests for burstable. And a resized pod: its own group, then its
 * containers. Off where the engine is not of this machine (kubelet_config.no_cgroups). */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"
#include "linux/linux.h"

static void set_shares(struct cgroups *c, const char *name, int64_t shares)
{
	struct cgroup_limits l = CGROUP_LIMITS_NONE;
	struct err err;

	l.cpu_shares = MAX(shares, 2);
	if (cgroup_create(c, name, &err) || cgroup_set(c, name, &l, &err))
		log_warn("kubelet", "cgroup %s: %s", name, err.text);
}

void qos_update(struct kubelet *k)
{
	struct str key;
	void *value;
	size_t i = 0;
	struct quantity sum = { 0 }, q;

	if (!k->cgroups)
		return;
	pthread_mutex_lock(&k->lock);
	while (map_next(&k->workers, &i, &key, &value)) {
		const struct pod_worker *w = value;
		if (w->state > POD_TERMINATING || kubelet_pod_qos(w->desired->pod) != QOS_BURSTABLE)
			continue;
		pod_requests(w->desired->pod, "cpu", &q);
		sum = quantity_add(sum, q);
	}
	int64_t shares = quantity_milli_value(sum) * 1024 / 1000;
	bool same = shares == k->burstable_shares;
	k->burstable_shares = shares;
	pthread_mutex_unlock(&k->lock);
	if (!same)
		set_shares(k->cgroups, "kubepods/burstable", shares);
}

int qos_start(struct kubelet *k, struct err *err)
{
	if (k->c.no_cgroups)
		return 0;
	int r = cgroup_open(&k->cgroups, err);
	if (r)
		return r;
	set_shares(k->cgroups, "kubepods", (int64_t)k->n_cpus * 1024);
	set_shares(k->cgroups, "kubepods/besteffort", 2);
	k->burstable_shares = -1;
	qos_update(k);
	return 0;
}

void qos_stop(struct kubelet *k)
{
	if (k->cgroups)
		cgroup_close(k->cgroups);
	k->cgroups = NULL;
}

/* ---- resize in place ---- */

static uint64_t resources_hash(const struct engine_resources *r)
{
	return hash_bytes(r, sizeof(*r), 11) | 1;
}

/* The pod's own group is widened before its containers, so that no container is held by what was. */
static void resize_pod(struct sync *s)
{
	struct engine_resources r;
	struct err err;

	pod_resources(s->pod, &r);
	struct cgroup_limits l = { r.cpu_shares, r.cpu_quota_us,
		r.cpu_quota_us ? r.cpu_period_us : -1, r.memory_limit, -1 };
	if (s->k->cgroups && cgroup_set(s->k->cgroups, pod_cgroup(s->pod, s->a).p, &l, &err))
		log_warn("kubelet", "pod %s/%s: %s", s->w->ns, s->w->name, err.text);
}

static const char *const resized[] = { "cpu", "memory" };

static uint64_t amounts_hash(const struct core_v1_container *c, const char *name)
{
	struct quantity q[2] = { 0 };

	if (!resource_quantity(&c->resources.requests, name, &q[0]))
		q[0].nano = -1;
	if (!resource_quantity(&c->resources.limits, name, &q[1]))
		q[1].nano = -1;
	return hash_bytes((__int128[]){ q[0].nano, q[1].nano }, 2 * sizeof(__int128), 13);
}

static bool restarts_for(const struct core_v1_container *c, const char *name)
{
	LIST_EACH(p, &c->resize_policy)
		if (str_eqz(p->resource_name, name))
			return str_eqz(p->restart_policy, "RestartContainer");
	return false;
}

/* What a run was given, as far as this kubelet has seen. A new run was made with what the spec says now. */
static void note_run(struct sync *s, const struct container_spec *spec, struct slot *slot,
	const struct engine_container *c, uint64_t hash)
{
	if (slot->resize_run[0] && strcmp(slot->resize_run, c->id)) {
		slot->resize_run[0] = 0;
		worker_event(s->w, s->pod, "Normal", "ResizeCompleted",
			"Pod resize completed: container " STR_FMT, STR_ARG(spec->c->name));
	}
	slot->not_resized[0] = 0;
	slot->resources_hash = hash;
	memcpy(slot->resources_of, c->id, sizeof(slot->resources_of));
	for (size_t i = 0; i < ARRAY_LEN(resized); i++)
		slot->amounts[i] = amounts_hash(spec->c, resized[i]);
}

static void resize_container(struct sync *s, const struct container_spec *spec, struct slot *slot,
	const struct engine_container *c, const struct engine_resources *r, bool restart)
{
	char text[256];
	struct err err;

	memcpy(slot->not_resized, c->id, sizeof(slot->not_resized));
	if (restart) {
		snprintf(text, sizeof(text), "Container " STR_FMT " resize requires restart",
			STR_ARG(spec->c->name));
		memcpy(slot->resize_run, c->id, sizeof(slot->resize_run));
		kubelet_container_kill(s, spec, c, pod_grace_s(s), text);
		return;
	}
	if (s->k->c.engine->v->container_update(s->k->c.engine, c->id, r, &err)) {
		worker_container_event(
			s->w, s->pod, spec->c->name, "Warning", "ResizeError", "%s", err.text);
		worker_at(s->w, now_ns(s->k) + 10 * NS_PER_S);
		return;
	}
	note_run(s, spec, slot, c, resources_hash(r));
	worker_event(s->w, s->pod, "Normal", "ResizeCompleted",
		"Pod resize completed: container " STR_FMT, STR_ARG(spec->c->name));
}

void qos_resize(struct sync *s)
{
	bool pod_done = false;

	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		const struct engine_container *c = view_current(&s->view, spec->c->name);
		struct slot *slot = worker_slot(s->w, spec->c->name);
		struct engine_resources r;
		bool restart = false;
		container_resources(s->k, s->pod, spec->c, &r);
		uint64_t hash = resources_hash(&r);
		if (!c || c->state != CONTAINER_RUNNING || spec->kind == KIND_EPHEMERAL)
			continue;
		if (!slot->resources_hash || strcmp(slot->resources_of, c->id))
			note_run(s, spec, slot, c, hash);
		for (size_t k = 0; k < ARRAY_LEN(resized); k++)
			restart |= slot->amounts[k] != amounts_hash(spec->c, resized[k]) &&
				restarts_for(spec->c, resized[k]);
		if (slot->resources_hash == hash && !restart)
			continue;
		if (!pod_done)
			resize_pod(s);
		pod_done = true;
		resize_container(s, spec, slot, c, &r, restart);
	}
}
