/* Says that a node is dead when it stops saying anything, and taints nodes by their conditions. Upstream: pkg/controller/nodelifecycle.
 *
 * 1. A node is alive while its Lease or its Ready heartbeat changes, as this process sees it: clocks of machines differ, so the times written
 *    in them are never compared with ours.
 * 2. NoSchedule taints follow the conditions at once. NoExecute taints (which evict) are limited: one node each 10 s a zone; none when a small
 *    cluster's zone is mostly dead; none while no node at all was heard of lately: then we are the ones who are cut off. When all are dead, the
 *    taints there are taken back; when the first one is heard again, the others get a grace period to follow. The node beside this control plane
 *    is heard over a cut link too, so where there are two others or more, its word does not count here. (Upstream knows no such node and evicts.)
 * 3. Pods of a node that stops being ready are marked not ready: endpoints drop them. Not while we may be the ones who are cut off: those pods go on
 *    serving, and a service would be empty for a moment when the link is back.
 * 4. An idle cluster wakes this once a grace period a node. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define STARTUP_GRACE_S 60
#define MONITOR_GRACE_S 50
#define EVICT_EVERY_MS 10000
#define DOUBT_MS 1000
#define ZONES_KEY STR("*") /* no node has this name */
#define ZONES_MS 50
#define UNHEALTHY_ZONE 0.55
#define LARGE_CLUSTER 50
#define LEASE_NAMESPACE "kube-node-lease"
#define NOT_READY "node.kubernetes.io/not-ready"
#define UNREACHABLE "node.kubernetes.io/unreachable"
#define UNSCHEDULABLE "node.kubernetes.io/unschedulable"

struct health {
	uint64_t seen_ns; /* the last sign of life; monotonic */
	struct timestamp renew, heartbeat;
	bool registered, pods_marked, was_ready;
};

struct state {
	pthread_mutex_t lock; /* guards the maps */
	struct map health;    /* node -> struct health */
	struct map zone_next; /* zone -> uint64_t *: when its next node may be evicted */
	bool cut_off;         /* every node was dead when last looked at */
	uint64_t back_ns;     /* when that ended; 0: never was */
};

/* Conditions that become taints: the status that taints, and with what. */
static const struct {
	const char *condition, *status, *taint;
} condition_taints[] = {
	{ "Ready", "False", NOT_READY },
	{ "Ready", "Unknown", UNREACHABLE },
	{ "MemoryPressure", "True", "node.kubernetes.io/memory-pressure" },
	{ "DiskPressure", "True", "node.kubernetes.io/disk-pressure" },
	{ "NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable" },
	{ "PIDPressure", "True", "node.kubernetes.io/pid-pressure" },
};

static struct core_v1_node_condition *condition(const struct core_v1_node *n, const char *type)
{
	LIST_EACH(c, &n->status.conditions)
		if (str_eqz(c->type, type))
			return (struct core_v1_node_condition *)c;
	return NULL;
}

static bool has_status(const struct core_v1_node *n, const char *type, const char *status)
{
	const struct core_v1_node_condition *c = condition(n, type);

	return c && str_eqz(c->status, status);
}

static struct health *health_of(struct state *st, struct str node)
{
	struct health *h = map_get(&st->health, node);

	if (!h) {
		h = xcalloc(1, sizeof(*h));
		map_set(&st->health, node, h);
	}
	return h;
}

/* ---- signs of life ---- */
static uint64_t mono(const struct run *r)
{
	return r->config->clock->mono_ns(r->config->clock);
}

static void map_lease(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct state *st = r->state;

	if (!now || !str_eqz(now->meta->namespace, LEASE_NAMESPACE))
		return;
	const struct coordination_v1_lease *l = now->obj;

	pthread_mutex_lock(&st->lock);
	struct health *h = health_of(st, now->meta->name);

	if (time_cmp(h->renew, l->spec.renew_time)) {
		h->renew = l->spec.renew_time;
		h->seen_ns = mono(r);
	}
	pthread_mutex_unlock(&st->lock);
}

static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct state *st = r->state;

	if (now) {
		const struct core_v1_node_condition *c = condition(now->obj, "Ready");

		pthread_mutex_lock(&st->lock);
		struct health *h = health_of(st, now->meta->name);

		if (!h->seen_ns || (c && time_cmp(h->heartbeat, c->last_heartbeat_time))) {
			h->heartbeat = c ? c->last_heartbeat_time : h->heartbeat;
			/* Our own "Unknown" keeps the heartbeat: only the kubelet moves it. */
			h->seen_ns = mono(r);
		}
		pthread_mutex_unlock(&st->lock);
	}
	enqueue(r, (now ? now : old)->key);
	if (!old || !now ||
		has_status(old->obj, "Ready", "True") != has_status(now->obj, "Ready", "True"))
		enqueue_after(r, ZONES_KEY, ZONES_MS);
}

/* What is right for a dead node depends on how many others are alive: when that changes, each of them is looked at again. */
static int look_at_dead_nodes(struct run *r)
{
	struct objects nodes = cache_objects(r, &core_v1_node_type, STR_NONE);

	OBJECT_EACH(const struct core_v1_node, n, nodes)
		if (!has_status(n, "Ready", "True"))
			enqueue(r, n->metadata.name);
	return 0;
}

/* ---- silence ---- */
static int64_t grace_s(const struct run *r, const struct core_v1_node *n)
{
	if (!condition(n, "Ready"))
		return STARTUP_GRACE_S;
	return r->config->node_monitor_grace_s ? r->config->node_monitor_grace_s : MONITOR_GRACE_S;
}

static bool set_unknown(struct run *r, struct core_v1_node *n)
{
	static const char *const types[] = { "Ready", "MemoryPressure", "DiskPressure",
		"PIDPressure" };
	bool changed = false;

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct core_v1_node_condition *c = condition(n, types[i]);

		if (!c) {
			*LIST_ADD(r->arena, &n->status.conditions) =
				(struct core_v1_node_condition){ .type = str_of(types[i]),
					.status = STR("Unknown"),
					.reason = STR("NodeStatusNeverUpdated"),
					.message = STR("Kubelet never posted node status."),
					.last_heartbeat_time = n->metadata.creation_timestamp,
					.last_transition_time = r->now };
		} else if (!str_eqz(c->status, "Unknown")) {
			c->status = STR("Unknown");
			c->reason = STR("NodeStatusUnknown");
			c->message = STR("Kubelet stopped posting node status.");
			c->last_transition_time = r->now;
		} else {
			continue;
		}
		changed = true;
	}
	return changed;
}

/* Writes Unknown conditions when the node was silent for too long; else comes back when it may have been. */
static int check_silence(struct run *r, struct core_v1_node **n, uint64_t seen_ns, struct err *err)
{
	uint64_t grace_ms = (uint64_t)grace_s(r, *n) * 1000,
		 silent_ms = (mono(r) - seen_ns) / 1000000;

	if (silent_ms < grace_ms) {
		requeue_within(r, grace_ms - silent_ms + 10);
		return 0;
	}
	if (!set_unknown(r, *n))
		return 0;
	log_warn("node-lifecycle",
		"node " STR_FMT " said nothing for %llu s: its conditions become Unknown",
		STR_ARG((*n)->metadata.name), (unsigned long long)(silent_ms / 1000));
	return client_update(
		r->client, &core_v1_node_type, "status", *n, r->arena, (void **)n, err);
}

/* ---- pods of a node that is not ready ---- */
static int mark_pods(struct run *r, const struct core_v1_node *n, struct err *err)
{
	struct objects pods = cache_indexed(r, &core_v1_pod_type, "node:", n->metadata.name);

	OBJECT_EACH(const struct core_v1_pod, cached, pods) {
		if (!pod_ready(cached))
			continue;
		struct core_v1_pod *p = model_copy(&core_v1_pod_type, cached, r->arena);

		LIST_EACH(c, &p->status.conditions)
			if (str_eqz(c->type, "Ready")) {
				c->status = STR("False");
				c->last_transition_time = r->now;
			}
		event_record(r->events, &core_v1_pod_type, p, "Warning", "NodeNotReady",
			"Node is not ready");
		int ret = client_update(
			r->client, &core_v1_pod_type, "status", p, r->arena, NULL, err);

		if (ret && ret != CLIENT_NOT_FOUND)
			return ret;
	}
	return 0;
}

static void record_node(struct run *r, struct str name, const char *type, const char *reason,
	const char *fmt, ...) PRINTF_LIKE(5, 6);
static void record_node(
	struct run *r, struct str name, const char *type, const char *reason, const char *fmt, ...)
{
	/* Node events name the node as uid too: that is what kubectl describe looks for. */
	const struct core_v1_object_reference ref = {
		.kind = STR("Node"), .name = name, .uid = name, .api_version = STR("v1")
	};
	va_list ap;

	va_start(ap, fmt);
	struct str text = arena_vfmt(r->arena, fmt, ap);
	va_end(ap);
	event_record_ref(r->events, &ref, type, reason, "%s", text.p);
}

/* ---- zones ---- */
static struct str zone_of(const struct core_v1_node *n, struct arena *a)
{
	return arena_fmt(a, STR_FMT ":" STR_FMT,
		STR_ARG(str_map_get(&n->metadata.labels, STR("topology.kubernetes.io/region"))),
		STR_ARG(str_map_get(&n->metadata.labels, STR("topology.kubernetes.io/zone"))));
}

/* Without a text for each: thousands of dead nodes each look at all. */
static bool in_zone(const struct core_v1_node *n, struct str zone)
{
	struct str region = str_map_get(&n->metadata.labels, STR("topology.kubernetes.io/region")),
		   name = str_map_get(&n->metadata.labels, STR("topology.kubernetes.io/zone"));

	return zone.len == region.len + 1 + name.len && str_eq(str_n(zone.p, region.len), region) &&
		str_eq(str_from(zone, region.len + 1), name);
}

struct zones {
	size_t nodes, bad; /* of the zone asked for */
	size_t total;
	size_t others;  /* not beside this control plane */
	bool any_ready; /* a node anywhere says so */
	bool any_heard; /* and was heard of within half a grace period: what it says is true */
};

static bool is_own(const struct run *r, const struct core_v1_node *n)
{
	return r->config->own_node && str_eqz(n->metadata.name, r->config->own_node);
}

static struct zones count_zones(struct run *r, struct str zone)
{
	struct objects nodes = cache_objects(r, &core_v1_node_type, STR_NONE);
	struct state *st = r->state;
	struct zones z = { .total = nodes.len };

	OBJECT_EACH(const struct core_v1_node, n, nodes)
		z.others += !is_own(r, n);
	OBJECT_EACH(const struct core_v1_node, n, nodes) {
		bool ready = has_status(n, "Ready", "True"),
		     witness = ready && (z.others < 2 || !is_own(r, n));

		if (witness && !z.any_heard) {
			pthread_mutex_lock(&st->lock);
			uint64_t seen_ns = health_of(st, n->metadata.name)->seen_ns;
			pthread_mutex_unlock(&st->lock);
			z.any_heard = (mono(r) - seen_ns) / 1000000 < (uint64_t)grace_s(r, n) * 500;
		}
		z.any_ready |= witness;
		if (!in_zone(n, zone))
			continue;
		z.nodes++;
		z.bad += !ready;
	}
	return z;
}

/* All nodes were dead and one is back: the others get as long as it takes to be called dead. */
static bool just_back(struct run *r, const struct core_v1_node *n)
{
	struct state *st = r->state;
	uint64_t now = mono(r), grace_ms = (uint64_t)grace_s(r, n) * 1000;

	pthread_mutex_lock(&st->lock);
	if (st->cut_off)
		st->back_ns = now;
	st->cut_off = false;
	uint64_t since_ms = st->back_ns ? (now - st->back_ns) / 1000000 : grace_ms;

	pthread_mutex_unlock(&st->lock);
	if (since_ms < grace_ms)
		requeue_within(r, grace_ms - since_ms + 1);
	return since_ms < grace_ms;
}

/* Are we the ones who are cut off, or were until now? Two or more others, and none of them was heard of lately. Asked again soon. */
static bool maybe_cut_off(struct run *r, const struct core_v1_node *n)
{
	struct zones z = count_zones(r, zone_of(n, r->arena));

	if (!has_status(n, "Ready", "Unknown") || is_own(r, n) || z.others < 2)
		return false;
	if (z.any_heard)
		return just_back(r, n);
	requeue_within(r, z.any_ready ? DOUBT_MS : EVICT_EVERY_MS);
	return true;
}

static int follow_readiness(struct run *r, const struct core_v1_node *n, struct err *err)
{
	struct state *st = r->state;

	pthread_mutex_lock(&st->lock);
	struct health *h = health_of(st, n->metadata.name);
	bool ready = has_status(n, "Ready", "True"), marked = h->pods_marked,
	     was_ready = h->was_ready;
	pthread_mutex_unlock(&st->lock);

	if (ready == !marked && ready == was_ready)
		return 0;
	if (!ready && maybe_cut_off(r, n))
		return 0;
	if (!ready) {
		int ret = mark_pods(r, n, err);

		if (ret)
			return ret;
		if (was_ready)
			record_node(r, n->metadata.name, "Normal", "NodeNotReady",
				"Node " STR_FMT " status is now: NodeNotReady",
				STR_ARG(n->metadata.name));
	}
	pthread_mutex_lock(&st->lock);
	h = health_of(st, n->metadata.name);
	h->pods_marked = !ready;
	h->was_ready = ready;
	pthread_mutex_unlock(&st->lock);
	return 0;
}

/* May this node's pods be evicted now? Asked for again later when not. */
static bool may_evict(
	struct run *r, const struct core_v1_node *n, struct str zone, const struct zones *z)
{
	struct state *st = r->state;
	bool partial = z->bad > 2 && z->bad < z->nodes &&
		(double)z->bad / (double)z->nodes >= UNHEALTHY_ZONE;

	if (just_back(r, n))
		return false;
	if (partial && z->total <= LARGE_CLUSTER) {
		requeue_within(r, EVICT_EVERY_MS);
		return false;
	}
	uint64_t now = mono(r), every = (uint64_t)EVICT_EVERY_MS * (partial ? 10 : 1) * 1000000;
	bool yes;

	pthread_mutex_lock(&st->lock);
	uint64_t *next = map_get(&st->zone_next, zone);

	if (!next) {
		next = xcalloc(1, sizeof(*next));
		map_set(&st->zone_next, zone, next);
	}
	yes = now >= *next;
	if (yes)
		*next = now + every;
	else
		requeue_within(r, (*next - now) / 1000000 + 1);
	pthread_mutex_unlock(&st->lock);
	return yes;
}

/* ---- taints ---- */
static bool is_ours(const struct core_v1_taint *t)
{
	for (size_t i = 0; i < ARRAY_LEN(condition_taints); i++)
		if (str_eqz(t->key, condition_taints[i].taint))
			return true;
	return str_eqz(t->key, UNSCHEDULABLE);
}

static const struct core_v1_taint *find_taint(
	const struct core_v1_node *n, const char *key, const char *effect)
{
	LIST_EACH(t, &n->spec.taints)
		if (str_eqz(t->key, key) && str_eqz(t->effect, effect))
			return t;
	return NULL;
}

static void want_taint(struct run *r, const struct core_v1_node *n,
	struct core_v1_taint_items *wanted, const char *key, const char *effect)
{
	const struct core_v1_taint *t = find_taint(n, key, effect);

	*LIST_ADD(r->arena, wanted) = t ? *t
					: (struct core_v1_taint){ .key = str_of(key),
						  .effect = str_of(effect),
						  .time_added = r->now };
}

static void want_no_execute(
	struct run *r, const struct core_v1_node *n, struct core_v1_taint_items *wanted)
{
	const char *key = has_status(n, "Ready", "False") ? NOT_READY
		: has_status(n, "Ready", "Unknown")       ? UNREACHABLE
							  : NULL;
	bool has = find_taint(n, NOT_READY, "NoExecute") || find_taint(n, UNREACHABLE, "NoExecute");
	struct state *st = r->state;

	if (!key)
		return;
	struct str zone = zone_of(n, r->arena);
	struct zones z = count_zones(r, zone);

	if (!z.any_ready) {
		pthread_mutex_lock(&st->lock);
		st->cut_off = true;
		pthread_mutex_unlock(&st->lock);
		requeue_within(r, EVICT_EVERY_MS);
		return;
	}
	if (!z.any_heard && !has) {
		requeue_within(
			r, DOUBT_MS); /* are we cut off? Soon the others are heard, or dead too */
		return;
	}
	if (has || may_evict(r, n, zone, &z))
		want_taint(r, n, wanted, key, "NoExecute");
}

static bool same_taints(const struct core_v1_taint_items *a, const struct core_v1_taint_items *b)
{
	if (a->len != b->len)
		return false;
	LIST_EACH(x, a) {
		bool found = false;

		LIST_EACH(y, b)
			found |= str_eq(x->key, y->key) && str_eq(x->effect, y->effect);
		if (!found)
			return false;
	}
	return true;
}

static int write_taints(struct run *r, const struct core_v1_node *n,
	const struct core_v1_taint_items *wanted, struct err *err)
{
	struct buf b CLEAN_BUF = { 0 };

	buf_addf(&b, "{\"metadata\":{\"resourceVersion\":\"" STR_FMT "\"},\"spec\":{\"taints\":[",
		STR_ARG(n->metadata.resource_version));
	LIST_EACH(t, wanted) {
		if (t != wanted->items)
			buf_addc(&b, ',');
		json_encode(&core_v1_taint_type, t, &b);
	}
	buf_addz(&b, "]}}");
	return client_patch(r->client, &core_v1_node_type, STR_NONE, n->metadata.name, NULL,
		CLIENT_PATCH_MERGE, buf_str(&b), r->arena, NULL, err);
}

static int follow_taints(struct run *r, const struct core_v1_node *n, struct err *err)
{
	struct core_v1_taint_items wanted = { 0 };

	LIST_EACH(t, &n->spec.taints)
		if (!is_ours(t))
			*LIST_ADD(r->arena, &wanted) = *t;
	for (size_t i = 0; i < ARRAY_LEN(condition_taints); i++)
		if (has_status(n, condition_taints[i].condition, condition_taints[i].status))
			want_taint(r, n, &wanted, condition_taints[i].taint, "NoSchedule");
	if (n->spec.unschedulable)
		want_taint(r, n, &wanted, UNSCHEDULABLE, "NoSchedule");
	want_no_execute(r, n, &wanted);
	return same_taints(&wanted, &n->spec.taints) ? 0 : write_taints(r, n, &wanted, err);
}

/* ---- reconcile ---- */
static void forget(struct run *r, struct str name)
{
	struct state *st = r->state;

	pthread_mutex_lock(&st->lock);
	free(map_remove(&st->health, name));
	pthread_mutex_unlock(&st->lock);
	record_node(r, name, "Normal", "RemovingNode",
		"Node " STR_FMT " event: Removing Node " STR_FMT " from Controller", STR_ARG(name),
		STR_ARG(name));
}

static int reconcile(struct run *r, struct str name, struct err *err)
{
	const struct core_v1_node *cached = cache_object(r, &core_v1_node_type, name);
	struct state *st = r->state;

	if (str_eq(name, ZONES_KEY))
		return look_at_dead_nodes(r);
	if (!cached) {
		forget(r, name);
		return 0;
	}
	struct core_v1_node *n = model_copy(&core_v1_node_type, cached, r->arena);

	pthread_mutex_lock(&st->lock);
	struct health *h = health_of(st, name);
	uint64_t seen_ns = h->seen_ns;
	bool is_new = !h->registered;

	h->registered = true;
	pthread_mutex_unlock(&st->lock);
	if (is_new)
		record_node(r, name, "Normal", "RegisteredNode",
			"Node " STR_FMT " event: Registered Node " STR_FMT " in Controller",
			STR_ARG(name), STR_ARG(name));
	int ret = check_silence(r, &n, seen_ns, err);

	if (!ret)
		ret = follow_readiness(r, n, err);
	if (!ret)
		ret = follow_taints(r, n, err);
	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static int init(struct run *r, struct err *err)
{
	struct state *st = xcalloc(1, sizeof(*st));

	pthread_mutex_init(&st->lock, NULL);
	r->state = st;
	return 0;
}

static void deinit(struct run *r)
{
	struct state *st = r->state;

	map_deinit(&st->health, free);
	map_deinit(&st->zone_next, free);
	pthread_mutex_destroy(&st->lock);
	free(st);
}

const struct controller node_lifecycle_controller = {
	.name = "node-lifecycle",
	.component = "node-controller",
	.watches = {
		{ &core_v1_node_type, map_node },
		{ &coordination_v1_lease_type, map_lease },
		{ &core_v1_pod_type, NULL },
	},
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
