/* Pressure on the node: memory below 100 MiB, disk below 10 %, inodes below 5 %, hardly any process ids left. Looked at every ten seconds by one
 * reading of the node's memory and statvfs; under pressure one pod at a time is ended: those that use more than they asked for first, then by
 * priority, then by use over request. Source: the concept page on node-pressure eviction. */
#include <stdio.h>
#include <sys/statvfs.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define LOOK_NS (10 * NS_PER_S)
#define MEMORY_MIN (100ull << 20)
#define PIDS_MIN 100

static const char *const resources[N_PRESSURES] = { "memory", "ephemeral-storage", "pids" };

struct evictor {
	struct kubelet *k;
	struct wake wake;
	_Atomic bool pressure[N_PRESSURES];
	uint64_t seen_ns[N_PRESSURES];
};

/* Inodes are told of as what they are, a tenth of the bytes for the rest. */
struct room {
	uint64_t free, total, least;
	bool is_short;
	const char *unit;
};

static struct room disk_room(const char *path)
{
	struct room r = { .unit = "Ki" };
	struct statvfs v;

	if (statvfs(path, &v) || !v.f_blocks)
		return r;
	r.free = (uint64_t)v.f_bavail * v.f_frsize / 1024;
	r.total = (uint64_t)v.f_blocks * v.f_frsize / 1024;
	r.least = r.total / 10;
	r.is_short = r.free < r.least;
	if (r.is_short || !v.f_files || v.f_favail * 20 >= v.f_files)
		return r;
	return (struct room){ v.f_favail, v.f_files, v.f_files / 20, true, "" };
}

static struct room memory_room(struct kubelet *k)
{
	struct node_memory m = node_memory(k);

	return (struct room){ m.available / 1024, m.total / 1024, MEMORY_MIN / 1024,
		m.total && m.available < MEMORY_MIN, "Ki" };
}

static struct room pids_room(void)
{
	CLEAN_BUF struct buf b = { 0 }, m = { 0 };
	struct err err;

	if (file_read("/proc/loadavg", 256, &b, &err) ||
		file_read("/proc/sys/kernel/pid_max", 64, &m, &err))
		return (struct room){ 0 };
	const char *slash = strchr(b.p, '/');
	uint64_t total = (uint64_t)atoll(m.p), used = slash ? (uint64_t)atoll(slash + 1) : 0,
		 left = used < total ? total - used : 0;
	return (struct room){ left, total, PIDS_MIN, slash && left < PIDS_MIN, "" };
}

/* ---- whom ---- */

struct candidate {
	struct pod_worker *w;
	int32_t priority;
	int64_t over; /* use over request: bytes, or process ids */
};

/* Of one container: memory, or what its writable layer holds. */
static int64_t used_by(struct kubelet *k, const char *id, enum pressure p)
{
	struct engine_stats stats;
	struct err err;
	uint64_t bytes;

	if (p == PRESSURE_DISK)
		return k->c.engine->v->container_disk(k->c.engine, id, &bytes, &err)
			? 0
			: (int64_t)bytes;
	return k->c.engine->v->container_stats(k->c.engine, id, &stats, &err)
		? 0
		: (int64_t)(p == PRESSURE_PID ? stats.pids : stats.memory_working_set);
}

static int64_t pod_used(struct kubelet *k, struct pod_worker *w, const struct core_v1_pod *pod,
	enum pressure p, struct arena *a)
{
	struct engine_container *list;
	struct err err;
	size_t n;
	int64_t sum = p == PRESSURE_DISK ? (int64_t)(dir_usage(pod_dir(k, w->uid, a).p) +
						   dir_usage(pod_log_folder(k, pod, a).p))
					 : 0;

	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	struct str id = arena_strz(a, b ? b->id : "");
	pthread_mutex_unlock(&w->lock);
	if (!id.len || k->c.engine->v->container_list(k->c.engine, id.p, a, &list, &n, &err))
		return sum;
	for (size_t i = 0; i < n; i++)
		if (list[i].state == CONTAINER_RUNNING || p == PRESSURE_DISK)
			sum += used_by(k, list[i].id, p);
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

/* note: what else there is to know, behind upstream's sentence. */
static void evict_one(struct kubelet *k, enum pressure p, const struct room *room, const char *note)
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
		pod_requests(o->pod, resources[p], &request);
		struct candidate c = { all[i], o->pod->spec.priority.value, 0 };
		bool spared = o->is_static || c.priority >= PRIORITY_CRITICAL ||
			all[i]->state != POD_SYNCING;
		if (!spared)
			c.over = pod_used(k, all[i], o->pod, p, a) - quantity_value(request);
		pod_object_unref(o);
		if (!spared && (!best.w || goes_first(&c, &best)))
			best = c;
	}
	if (best.w) {
		struct str text = arena_fmt(a,
			"The node was low on resource: %s. Threshold quantity: %llu%s, available: %llu%s. %s",
			resources[p], (unsigned long long)room->least, room->unit,
			(unsigned long long)room->free, room->unit, note);
		log_warn("kubelet", "evicting pod %s/%s: %s", best.w->ns, best.w->name, text.p);
		worker_evict(best.w, "Evicted", text.p, 0);
	}
	for (size_t i = 0; i < n; i++)
		worker_unref(all[i]);
	free(all);
}

/* ---- the look ---- */

static void tell(struct evictor *e, enum pressure p, const struct room *room)
{
	/* clang-format off */
	static const struct { const char *bad, *good, *remedy; } words[N_PRESSURES] = {
		[PRESSURE_MEMORY] = { "NodeHasInsufficientMemory", "NodeHasSufficientMemory", "give pods limits, or the machine more memory" },
		[PRESSURE_DISK]   = { "NodeHasDiskPressure", "NodeHasNoDiskPressure", "make room on its disk" },
		[PRESSURE_PID]    = { "NodeHasInsufficientPID", "NodeHasSufficientPID", "end processes, or raise kernel.pid_max" },
	};
	/* clang-format on */
	struct kubelet *k = e->k;
	const char *reason = e->pressure[p] ? words[p].bad : words[p].good;
	struct cached *node = node_cached(k);

	if (e->pressure[p])
		log_warn("kubelet",
			"%s of %s is short: %llu%s of %llu%s are left; no new pods come and pods are evicted, one each %llu s, until %llu%s are: %s",
			resources[p], p == PRESSURE_DISK ? k->c.root_dir : "this node",
			(unsigned long long)room->free, room->unit, (unsigned long long)room->total,
			room->unit, LOOK_NS / NS_PER_S, (unsigned long long)room->least, room->unit,
			words[p].remedy);
	else
		log_info("kubelet", "%s of this node is short no more", resources[p]);
	if (node && k->events)
		event_record(k->events, &core_v1_node_type, node->obj, "Normal", reason,
			"Node %s status is now: %s", k->c.node_name, reason);
	cached_unref(node);
	node_status_changed(k);
}

static void relieve(struct kubelet *k, enum pressure p, struct room *room)
{
	struct cached *node = node_cached(k);
	char note[160] = "";

	if (node && k->events)
		event_record(k->events, &core_v1_node_type, node->obj, "Warning",
			"EvictionThresholdMet", "Attempting to reclaim %s", resources[p]);
	cached_unref(node);
	if (p == PRESSURE_DISK) {
		size_t pinned = keeper_collect_images(k);
		*room = disk_room(k->c.root_dir);
		if (pinned)
			snprintf(note, sizeof(note),
				"Unused images that are left are pinned (%zu): `skiff image unpin` lets them be removed. ",
				pinned);
	}
	if (room->is_short)
		evict_one(k, p, room, note);
}

static void look(void *arg)
{
	struct evictor *e = arg;
	struct kubelet *k = e->k;
	struct room rooms[N_PRESSURES] = { [PRESSURE_MEMORY] = memory_room(k),
		[PRESSURE_DISK] = disk_room(k->c.root_dir),
		[PRESSURE_PID] = pids_room() };
	uint64_t now = now_ns(k), hold_ns = (uint64_t)k->c.pressure_transition_s * NS_PER_S;

	for (int i = 0; i < N_PRESSURES; i++) {
		if (rooms[i].is_short)
			e->seen_ns[i] = now;
		bool hold = rooms[i].is_short || (e->pressure[i] && now - e->seen_ns[i] < hold_ns);
		if (hold != e->pressure[i]) {
			e->pressure[i] = hold;
			tell(e, i, &rooms[i]);
		}
		if (rooms[i].is_short)
			relieve(k, i, &rooms[i]);
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
