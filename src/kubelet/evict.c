/* Pressure on the node: memory below 100 MiB, disk below 10 %, inodes below 5 %, hardly any process ids left. Looked at every ten seconds by one
 * reading of the node's memory and statvfs; under pressure one pod at a time is ended: those that use more than they asked for first, then by
 * priority, then by use over request. Source: the concept page on node-pressure eviction. */
#include <stdio.h>
#include <sys/statvfs.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define LOOK_NS (10 * NS_PER_S)
#define HOLD_NS (300 * NS_PER_S) /* a condition stays this long after the last sign of it */
#define MEMORY_MIN (100ull << 20)
#define PIDS_MIN 100

struct evictor {
	struct kubelet *k;
	struct wake wake;
	_Atomic bool pressure[N_PRESSURES];
	uint64_t seen_ns[N_PRESSURES];
};

static bool memory_short(struct kubelet *k)
{
	struct node_memory m = node_memory(k);

	return m.total && m.available < MEMORY_MIN;
}

static bool disk_short(const char *path)
{
	struct statvfs v;

	if (statvfs(path, &v) || !v.f_blocks)
		return false;
	return v.f_bavail * 10 < v.f_blocks || (v.f_files && v.f_favail * 20 < v.f_files);
}

static bool pids_short(void)
{
	CLEAN_BUF struct buf b = { 0 }, m = { 0 };
	struct err err;

	if (file_read("/proc/loadavg", 256, &b, &err) ||
		file_read("/proc/sys/kernel/pid_max", 64, &m, &err))
		return false;
	const char *slash = strchr(b.p, '/');
	return slash && atoll(m.p) - atoll(slash + 1) < PIDS_MIN;
}

/* ---- whom ---- */

struct candidate {
	struct pod_worker *w;
	int32_t priority;
	int64_t over; /* use over request, bytes */
};

static int64_t memory_used(struct kubelet *k, struct pod_worker *w, struct arena *a)
{
	struct engine_container *list;
	struct engine_stats stats;
	struct err err;
	size_t n;
	int64_t sum = 0;

	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	struct str id = arena_strz(a, b ? b->id : "");
	pthread_mutex_unlock(&w->lock);
	if (!id.len || k->c.engine->v->container_list(k->c.engine, id.p, a, &list, &n, &err))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (list[i].state == CONTAINER_RUNNING &&
			!k->c.engine->v->container_stats(k->c.engine, list[i].id, &stats, &err))
			sum += (int64_t)stats.memory_working_set;
	return sum;
}

static bool goes_first(const struct candidate *a, const struct candidate *b)
{
	if ((a->over > 0) != (b->over > 0))
		return a->over > 0;
	if (a->priority != b->priority)
		return a->priority < b->priority;
	return a->over > b->over;
}

static void evict_one(struct kubelet *k, const char *resource)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct candidate best = { 0 };
	struct pod_worker **all;
	size_t n;

	pods_list(k, &all, &n);
	for (size_t i = 0; i < n; i++) {
		struct quantity request;
		pthread_mutex_lock(&k->lock);
		struct pod_object *o = pod_object_ref(all[i]->desired);
		pthread_mutex_unlock(&k->lock);
		pod_requests(o->pod, "memory", &request);
		struct candidate c = { all[i], o->pod->spec.priority.value, 0 };
		bool spared = o->is_static || c.priority >= PRIORITY_CRITICAL ||
			all[i]->state != POD_SYNCING;
		pod_object_unref(o);
		if (spared)
			continue;
		c.over = memory_used(k, all[i], a) - quantity_value(request);
		if (!best.w || goes_first(&c, &best))
			best = c;
	}
	if (best.w) {
		struct str text = arena_fmt(a, "The node was low on resource: %s.", resource);
		log_warn("kubelet", "evicting pod %s/%s: %s", best.w->ns, best.w->name, text.p);
		worker_evict(best.w, "Evicted", text.p, 0);
	}
	for (size_t i = 0; i < n; i++)
		worker_unref(all[i]);
	free(all);
}

/* ---- the look ---- */

static void look(void *arg)
{
	struct evictor *e = arg;
	struct kubelet *k = e->k;
	static const char *const resource[N_PRESSURES] = { "memory", "ephemeral-storage", "pids" };
	bool now_short[N_PRESSURES] = { memory_short(k), disk_short(k->c.root_dir), pids_short() };
	uint64_t now = now_ns(k);

	for (int i = 0; i < N_PRESSURES; i++) {
		if (now_short[i])
			e->seen_ns[i] = now;
		bool hold = now_short[i] || (e->pressure[i] && now - e->seen_ns[i] < HOLD_NS);
		if (hold != e->pressure[i]) {
			e->pressure[i] = hold;
			node_status_changed(k);
		}
		if (now_short[i])
			evict_one(k, resource[i]);
	}
	if (!k->stopping)
		wake_set(&k->wakes, &e->wake, now + LOOK_NS);
}

static void on_time(void *arg)
{
	struct evictor *e = arg;

	if (!e->k->stopping)
		pool_submit(e->k->slow, look, e);
}

bool evictor_pressure(struct kubelet *k, enum pressure p)
{
	return k->evictor && k->evictor->pressure[p];
}

int evictor_start(struct kubelet *k, struct err *err)
{
	struct evictor *e = xcalloc(1, sizeof(*e));

	e->k = k;
	e->wake = (struct wake){ .fn = on_time, .arg = e };
	k->evictor = e;
	wake_set(&k->wakes, &e->wake, now_ns(k) + LOOK_NS);
	return 0;
}

void evictor_stop(struct kubelet *k)
{
	if (k->evictor)
		wake_cancel(&k->wakes, &k->evictor->wake);
}

void evictor_free(struct kubelet *k)
{
	if (k->evictor)
		wake_cancel(&k->wakes, &k->evictor->wake);
	free(k->evictor);
	k->evictor = NULL;
}
