/* The groups above the pods: kubepods, and in it one for burstable and one for best-effort pods, so that the processor is shared by class.
 * Shares: all cores for the whole, two for best effort, the sum of requests for burstable. And a resized pod: its own group, then its
 * containers. Off where the engine is not of this machine (kubelet_config.no_cgroups). */
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

void qos_resize(struct sync *s)
{
	bool pod_done = false;
	struct err err;

	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		const struct engine_container *c = view_current(&s->view, spec->c->name);
		struct slot *slot = worker_slot(s->w, spec->c->name);
		struct engine_resources r;
		container_resources(s->k, s->pod, spec->c, &r);
		uint64_t hash = resources_hash(&r);
		if (!c || c->state != CONTAINER_RUNNING || spec->kind == KIND_EPHEMERAL)
			continue;
		/* A new run was made with what the spec says now. */
		if (!slot->resources_hash || strcmp(slot->resources_of, c->id)) {
			slot->resources_hash = hash;
			memcpy(slot->resources_of, c->id, sizeof(slot->resources_of));
		}
		if (slot->resources_hash == hash)
			continue;
		if (!pod_done)
			resize_pod(s);
		pod_done = true;
		if (s->k->c.engine->v->container_update(s->k->c.engine, c->id, &r, &err)) {
			worker_container_event(s->w, s->pod, spec->c->name, "Warning",
				"ResizeError", "%s", err.text);
			worker_at(s->w, now_ns(s->k) + 10 * NS_PER_S);
			continue;
		}
		slot->resources_hash = hash;
		worker_event(s->w, s->pod, "Normal", "ResizeCompleted",
			"Pod resize completed: container " STR_FMT, STR_ARG(spec->c->name));
	}
}
