/* The node's object and lease. The object is made when it is not there (also when somebody deletes it later), its status is sent when it
 * changed and every five minutes; the lease is renewed every ten seconds by default, which is what tells the cluster that this node lives. One thread
 * of the pool at a time does the object (`busy`), another the lease. Sources: the concept page on nodes; KEP-589. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define LEASE_SECONDS 40
#define LEASE_RENEWALS 4 /* in the time that it lasts */
#define HEARTBEAT_NS (300 * NS_PER_S)
#define UNREADY_NS (10 * NS_PER_S)
#define LISTED_WAIT_MS 1000
#define SETTLE_NS NS_PER_S /* changes within it are told together */

struct node_agent {
	struct kubelet *k;
	pthread_mutex_t lock; /* guards busy, again; sent is swapped under it */
	bool busy, again, lease_busy;
	struct wake heartbeat, lease_wake;
	unsigned failures;

	/* written by the busy thread only */
	struct arena *sent_arena;
	struct core_v1_node_status *sent;
	uint64_t sent_ns;
	bool labels_done, started_told,
		unready; /* unready: what is missing may come without a word */

	struct arena *lease_arena;
	struct coordination_v1_lease *lease;
};

static void kick(struct node_agent *n);

/* ---- what to say ---- */

/* clang-format off */
static const struct {
	const char *type;
	enum pressure pressure;
	const char *good_reason, *good, *bad_reason, *bad;
} pressures[] = {
	{ "MemoryPressure", PRESSURE_MEMORY, "KubeletHasSufficientMemory", "kubelet has sufficient memory available",
	                                     "KubeletHasInsufficientMemory", "kubelet has insufficient memory available" },
	{ "DiskPressure",   PRESSURE_DISK,   "KubeletHasNoDiskPressure", "kubelet has no disk pressure",
	                                     "KubeletHasDiskPressure", "kubelet has disk pressure" },
	{ "PIDPressure",    PRESSURE_PID,    "KubeletHasSufficientPID", "kubelet has sufficient PID available",
	                                     "KubeletHasInsufficientPID", "kubelet has insufficient PID available" },
};
/* clang-format on */

static void condition(struct node_agent *n, struct core_v1_node_status *st,
	const struct core_v1_node_status *old, const char *type, bool value, const char *reason,
	const char *message, struct arena *a)
{
	struct core_v1_node_condition *c = LIST_ADD(a, &st->conditions);

	c->type = str_of(type);
	c->status = value ? STR("True") : STR("False");
	c->reason = str_of(reason);
	c->message = str_of(message);
	c->last_heartbeat_time = now_wall(n->k);
	c->last_heartbeat_time.nsec = 0;
	c->last_transition_time = c->last_heartbeat_time;
	if (old)
		LIST_EACH(o, &old->conditions)
			if (str_eq(o->type, c->type) && str_eq(o->status, c->status) &&
				!time_is_zero(o->last_transition_time))
				c->last_transition_time = o->last_transition_time;
}

int node_network_status(struct kubelet *k, struct arena *a, struct str *ret_why)
{
	struct err err;
	int r = k->c.engine->v->network_status(k->c.engine, &err);

	if (r < 0)
		*ret_why = arena_fmt(a,
			"container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: %s",
			err.text);
	return r;
}

static struct core_v1_node_status *status_now(
	struct node_agent *n, const struct core_v1_node_status *old, struct arena *a)
{
	struct core_v1_node_status *st = arena_alloc(a, sizeof(*st));
	struct str why;

	node_facts(n->k, st, a);
	for (size_t i = 0; i < ARRAY_LEN(pressures); i++) {
		bool bad = evictor_pressure(n->k, pressures[i].pressure);
		condition(n, st, old, pressures[i].type, bad,
			bad ? pressures[i].bad_reason : pressures[i].good_reason,
			bad ? pressures[i].bad : pressures[i].good, a);
	}
	bool network = node_network_status(n->k, a, &why) == 0;
	n->unready = !network;
	bool stays = !shutdown_active(n->k), ready = network && stays;
	condition(n, st, old, "Ready", ready, ready ? "KubeletReady" : "KubeletNotReady",
		ready           ? "kubelet is posting ready status"
			: stays ? why.p
				: "node is shutting down",
		a);
	return st;
}

static void labels_of(struct node_agent *n, const struct core_v1_node_status *st,
	struct str_map *labels, struct arena *a)
{
	struct str rest = str_of(n->k->c.labels), pair, key, value;

	str_map_set(a, labels, STR("beta.kubernetes.io/arch"), st->node_info.architecture);
	str_map_set(a, labels, STR("beta.kubernetes.io/os"), STR("linux"));
	str_map_set(a, labels, STR("kubernetes.io/arch"), st->node_info.architecture);
	str_map_set(a, labels, STR("kubernetes.io/hostname"), str_of(n->k->c.node_name));
	str_map_set(a, labels, STR("kubernetes.io/os"), STR("linux"));
	while (rest.len) {
		str_cut(rest, ',', &pair, &rest);
		if (str_cut(pair, '=', &key, &value))
			str_map_set(a, labels, arena_str(a, str_trim(key)),
				arena_str(a, str_trim(value)));
	}
}

/* ---- the object ---- */

static int create(struct node_agent *n, struct arena *a, struct err *err)
{
	struct core_v1_node *node = model_new(&core_v1_node_type, a);

	node->metadata.name = str_of(n->k->c.node_name);
	node->status = *status_now(n, NULL, a);
	labels_of(n, &node->status, &node->metadata.labels, a);
	str_map_set(a, &node->metadata.annotations,
		STR("volumes.kubernetes.io/controller-managed-attach-detach"), STR("true"));
	if (n->k->c.provider_id)
		node->spec.provider_id = str_of(n->k->c.provider_id);
	int r = client_create(n->k->c.client, &core_v1_node_type, STR_NONE, node, a, NULL, err);
	if (!r) {
		log_info("kubelet", "registered node %s", n->k->c.node_name);
		n->labels_done = true;
	}
	return r;
}

/* An object that somebody else made gets our labels. */
static int fix_labels(struct node_agent *n, const struct core_v1_node *node,
	const struct core_v1_node_status *st, struct arena *a, struct err *err)
{
	struct str_map want = { 0 };
	CLEAN_BUF struct buf b = { 0 };
	bool missing = false;

	labels_of(n, st, &want, a);
	buf_addz(&b, "{\"metadata\":{\"labels\":{");
	LIST_EACH(p, &want) {
		missing |= !str_eq(str_map_get(&node->metadata.labels, p->key), p->value);
		if (p != want.items)
			buf_addc(&b, ',');
		json_write_text(p->key, &b);
		buf_addc(&b, ':');
		json_write_text(p->value, &b);
	}
	buf_addz(&b,
		"},\"annotations\":{\"volumes.kubernetes.io/controller-managed-attach-detach\":\"true\"}}}");
	n->labels_done = true;
	if (!missing)
		return 0;
	return client_patch(n->k->c.client, &core_v1_node_type, STR_NONE, node->metadata.name, NULL,
		CLIENT_PATCH_STRATEGIC, buf_str(&b), a, NULL, err);
}

/* Do they say the same, heartbeats aside? */
static bool same_status(const struct core_v1_node_status *a, const struct core_v1_node_status *b,
	struct arena *arena)
{
	struct core_v1_node_status *x = model_copy(&core_v1_node_status_type, a, arena),
				   *y = model_copy(&core_v1_node_status_type, b, arena);

	LIST_EACH(c, &x->conditions)
		c->last_heartbeat_time = (struct timestamp){ 0 };
	LIST_EACH(c, &y->conditions)
		c->last_heartbeat_time = (struct timestamp){ 0 };
	return model_equal(&core_v1_node_status_type, x, y);
}

/* Somebody (the node life cycle controller) has set one of our conditions to something else. */
static bool overruled(
	const struct core_v1_node_status *ours, const struct core_v1_node_status *theirs)
{
	LIST_EACH(o, &ours->conditions) {
		bool same = false;
		LIST_EACH(t, &theirs->conditions)
			if (str_eq(o->type, t->type))
				same = str_eq(o->status, t->status);
		if (!same)
			return true;
	}
	return false;
}

/* ---- resources that others advertise (example.com/fpga): capacity is theirs, allocatable follows it ---- */

static bool extended_differs(const struct core_v1_node_status *theirs)
{
	LIST_EACH(c, &theirs->capacity)
		if (memchr(c->key.p, '/', c->key.len) &&
			!str_eq(str_map_get(&theirs->allocatable, c->key), c->value))
			return true;
	LIST_EACH(c, &theirs->allocatable)
		if (memchr(c->key.p, '/', c->key.len) && !str_map_has(&theirs->capacity, c->key))
			return true;
	return false;
}

static int follow_extended(
	struct node_agent *n, const struct core_v1_node *node, struct arena *a, struct err *err)
{
	CLEAN_BUF struct buf b = { 0 };
	const char *sep = "";

	if (!extended_differs(&node->status))
		return 0;
	buf_addz(&b, "{\"status\":{\"allocatable\":{");
	LIST_EACH(c, &node->status.allocatable)
		if (memchr(c->key.p, '/', c->key.len) &&
			!str_map_has(&node->status.capacity, c->key)) {
			buf_addf(&b, "%s\"" STR_FMT "\":null", sep, STR_ARG(c->key));
			sep = ",";
		}
	LIST_EACH(c, &node->status.capacity)
		if (memchr(c->key.p, '/', c->key.len)) {
			buf_addf(&b, "%s\"" STR_FMT "\":\"" STR_FMT "\"", sep, STR_ARG(c->key),
				STR_ARG(c->value));
			sep = ",";
		}
	buf_addz(&b, "}}}");
	return client_patch(n->k->c.client, &core_v1_node_type, STR_NONE, node->metadata.name,
		"status", CLIENT_PATCH_MERGE, buf_str(&b), a, NULL, err);
}

static void keep_sent(struct node_agent *n, struct core_v1_node_status *st, struct arena *a)
{
	pthread_mutex_lock(&n->lock);
	struct arena *old = n->sent_arena;
	n->sent = st;
	n->sent_arena = a;
	pthread_mutex_unlock(&n->lock);
	arena_free(old);
}

static int send_status(
	struct node_agent *n, struct core_v1_node *node, struct arena *a, struct err *err)
{
	CLEAN_BUF struct buf b = { 0 };
	struct core_v1_node_status *st = status_now(n, n->sent ? n->sent : &node->status, a);
	uint64_t now = now_ns(n->k);

	if (!n->labels_done) {
		int r = fix_labels(n, node, st, a, err);
		if (r)
			return r;
	}
	if (n->sent && now - n->sent_ns < HEARTBEAT_NS && same_status(st, n->sent, a) &&
		!overruled(st, &node->status))
		return 0;
	buf_addz(&b, "{\"status\":");
	json_encode(&core_v1_node_status_type, st, &b);
	buf_addc(&b, '}');
	int r = client_patch(n->k->c.client, &core_v1_node_type, STR_NONE, node->metadata.name,
		"status", CLIENT_PATCH_STRATEGIC, buf_str(&b), a, NULL, err);
	if (r)
		return r;
	struct arena *keep = arena_new(4096);
	keep_sent(n, model_copy(&core_v1_node_status_type, st, keep), keep);
	n->sent_ns = now;
	if (!n->started_told && n->k->events) {
		event_record(n->k->events, &core_v1_node_type, node, "Normal", "Starting",
			"Starting kubelet.");
		event_record(n->k->events, &core_v1_node_type, node, "Normal", "NodeReady",
			"Node %s status is now: NodeReady", n->k->c.node_name);
		n->started_told = true;
	}
	return 0;
}

static int sync_object(struct node_agent *n, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(16384);
	struct core_v1_node *node;

	int r = client_get(n->k->c.client, &core_v1_node_type, STR_NONE, str_of(n->k->c.node_name),
		a, (void **)&node, err);
	if (r == CLIENT_NOT_FOUND) {
		keep_sent(n, NULL, NULL);
		r = create(n, a, err);
		if (r && r != CLIENT_EXISTS)
			return r;
		r = client_get(n->k->c.client, &core_v1_node_type, STR_NONE,
			str_of(n->k->c.node_name), a, (void **)&node, err);
	}
	if (!r)
		r = follow_extended(n, node, a, err);
	return r ? r : send_status(n, node, a, err);
}

static void at(struct node_agent *n, uint64_t in_ns)
{
	if (!n->k->stopping)
		wake_set_sooner(&n->k->wakes, &n->heartbeat, now_ns(n->k) + in_ns);
}

static void run(void *arg)
{
	struct node_agent *n = arg;
	struct err err = { 0 };
	bool more = true;

	while (more && !n->k->stopping) {
		pthread_mutex_lock(&n->lock);
		n->again = false;
		pthread_mutex_unlock(&n->lock);
		/* Until the informer has its first list nobody tells of a node that is deleted: it comes before the node is made, if the server answers. */
		bool told = informer_wait_synced(n->k->node, n->sent ? 0 : LISTED_WAIT_MS);
		int r = sync_object(n, &err);
		if (r) {
			uint64_t wait = (200 * NS_PER_MS) << MIN(n->failures, 5u);
			if (n->failures++ == 3)
				log_warn("kubelet", "node %s: %s", n->k->c.node_name, err.text);
			at(n, wait);
		} else {
			n->failures = 0;
			at(n, !told ? SETTLE_NS : n->unready ? UNREADY_NS : HEARTBEAT_NS);
		}
		pthread_mutex_lock(&n->lock);
		more = n->again;
		if (!more)
			n->busy = false;
		pthread_mutex_unlock(&n->lock);
	}
	if (n->k->stopping) {
		pthread_mutex_lock(&n->lock);
		n->busy = false;
		pthread_mutex_unlock(&n->lock);
	}
}

static void kick(struct node_agent *n)
{
	pthread_mutex_lock(&n->lock);
	bool start = !n->busy && !n->k->stopping;
	n->again = true;
	n->busy |= start;
	pthread_mutex_unlock(&n->lock);
	if (start)
		pool_submit(n->k->talk, run, n);
}

static void on_heartbeat(void *arg)
{
	kick(arg);
}

void node_status_changed(struct kubelet *k)
{
	if (k->node_agent)
		at(k->node_agent, SETTLE_NS);
}

void node_status_now(struct kubelet *k)
{
	if (k->node_agent)
		kick(k->node_agent);
}

static void on_node(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct node_agent *n = arg;
	const struct core_v1_node *node = now ? now->obj : NULL;

	pthread_mutex_lock(&n->lock);
	bool wrong = !node || (n->sent && overruled(n->sent, &node->status)) ||
		extended_differs(&node->status);
	pthread_mutex_unlock(&n->lock);
	if (wrong)
		kick(n);
}

struct cached *node_cached(struct kubelet *k)
{
	return k->node ? informer_get(k->node, str_of(k->c.node_name)) : NULL;
}

/* ---- lease ---- */

static int lease_seconds(const struct node_agent *n)
{
	return n->k->c.lease_seconds ? n->k->c.lease_seconds : LEASE_SECONDS;
}

/* The lease goes with its node. Again at each renewal, until it is there: the node may not be known yet when the lease is made. */
static void lease_own(struct node_agent *n, struct coordination_v1_lease *l, struct arena *a)
{
	struct cached *node = l->metadata.owner_references.len ? NULL : node_cached(n->k);

	if (!node)
		return;
	struct meta_v1_owner_reference *o = LIST_ADD(a, &l->metadata.owner_references);
	o->api_version = STR("v1");
	o->kind = STR("Node");
	o->name = str_of(n->k->c.node_name);
	o->uid = arena_str(a, node->meta->uid);
	cached_unref(node);
}

static int lease_make(struct node_agent *n, struct err *err)
{
	struct str ns = STR("kube-node-lease"), name = str_of(n->k->c.node_name);
	struct arena *a = arena_new(1024);
	struct coordination_v1_lease *l, *made;

	int r = client_get(
		n->k->c.client, &coordination_v1_lease_type, ns, name, a, (void **)&made, err);
	if (r == CLIENT_NOT_FOUND) {
		l = model_new(&coordination_v1_lease_type, a);
		l->metadata.name = name;
		l->metadata.namespace = ns;
		lease_own(n, l, a);
		l->spec.holder_identity = name;
		l->spec.lease_duration_seconds = (struct opt_int32)SOME(lease_seconds(n));
		l->spec.renew_time = now_wall(n->k);
		r = client_create(
			n->k->c.client, &coordination_v1_lease_type, ns, l, a, (void **)&made, err);
	}
	if (r) {
		arena_free(a);
		return r;
	}
	arena_free(n->lease_arena);
	n->lease_arena = a;
	n->lease = made;
	return 0;
}

static int lease_renew(struct node_agent *n, struct err *err)
{
	struct arena *a = arena_new(1024);
	struct coordination_v1_lease *made;

	n->lease->spec.holder_identity = str_of(n->k->c.node_name);
	n->lease->spec.lease_duration_seconds = (struct opt_int32)SOME(lease_seconds(n));
	n->lease->spec.renew_time = now_wall(n->k);
	lease_own(n, n->lease, n->lease_arena);
	int r = client_update(n->k->c.client, &coordination_v1_lease_type, NULL, n->lease, a,
		(void **)&made, err);
	if (r) {
		arena_free(a);
		return r;
	}
	arena_free(n->lease_arena);
	n->lease_arena = a;
	n->lease = made;
	return 0;
}

static void run_lease(void *arg)
{
	struct node_agent *n = arg;
	struct err err = { 0 };
	uint64_t wait = (uint64_t)lease_seconds(n) * NS_PER_S / LEASE_RENEWALS;
	int r = 0;

	if (!n->lease)
		r = lease_make(n, &err);
	if (!r && n->lease) {
		r = lease_renew(n, &err);
		if (r > 0) { /* gone, or written by somebody else: from the start */
			n->lease = NULL;
			r = lease_make(n, &err);
			if (!r)
				r = lease_renew(n, &err);
		}
	}
	if (r) {
		log_debug("kubelet", "lease of node %s: %s", n->k->c.node_name, err.text);
		n->lease = NULL;
		wait = NS_PER_S;
	}
	if (!n->k->stopping)
		wake_set(&n->k->wakes, &n->lease_wake, now_ns(n->k) + wait);
}

static void on_lease(void *arg)
{
	struct node_agent *n = arg;

	if (!n->k->stopping)
		pool_submit(n->k->talk, run_lease, n);
}

/* ---- life ---- */

int node_agent_start(struct kubelet *k, struct err *err)
{
	CLEAN_FREE char *mine = xasprintf("metadata.name=%s", k->c.node_name);
	struct informer_config c = {
		.client = k->c.client, .type = &core_v1_node_type, .field_selector = mine
	};
	struct node_agent *n = xcalloc(1, sizeof(*n));

	n->k = k;
	pthread_mutex_init(&n->lock, NULL);
	n->heartbeat = (struct wake){ .fn = on_heartbeat, .arg = n };
	n->lease_wake = (struct wake){ .fn = on_lease, .arg = n };
	k->node = informer_new(&c);
	k->node_agent = n;
	informer_add_handler(k->node, on_node, n);
	kick(n);
	on_lease(n);
	return informer_start(k->node, err);
}

void node_agent_stop(struct kubelet *k)
{
	if (!k->node_agent)
		return;
	informer_stop(k->node);
	wake_cancel(&k->wakes, &k->node_agent->heartbeat);
	wake_cancel(&k->wakes, &k->node_agent->lease_wake);
}

void node_agent_free(struct kubelet *k)
{
	struct node_agent *n = k->node_agent;

	if (!n)
		return;
	wake_cancel(&k->wakes, &n->heartbeat);
	wake_cancel(&k->wakes, &n->lease_wake);
	informer_free(k->node);
	arena_free(n->sent_arena);
	arena_free(n->lease_arena);
	pthread_mutex_destroy(&n->lock);
	free(n);
	k->node_agent = NULL;
	k->node = NULL;
}
