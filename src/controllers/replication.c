/* Keeps as many pods alive as a ReplicationController or a ReplicaSet asks for. Upstream: pkg/controller/replicaset.
 *
 * 1. Creates and deletes are counted as expectations until the cache shows them: a slow cache never doubles pods.
 * 2. Matching orphans are adopted, pods that match no more released; owner references decide, labels only propose.
 * 3. Which pod goes first when scaling down: the table victim_order of pods.c.
 *
 * One engine: a ReplicationController is looked at as a ReplicaSet (`struct replicated`); only reading it and writing its status
 * differ. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define BURST 500
#define GATHER_MS 5 /* events about pods within this time make one reconcile */

struct replicated {
	const struct type *type; /* what it really is … */
	const void *object;
	struct apps_v1_replica_set rs; /* … and how the engine sees it; shares memory */
	struct selector *selector;
	struct str key;
};

static const struct type *type_of(const struct run *r)
{
	return r->row == &replicaset_controller ? &apps_v1_replica_set_type
						: &core_v1_replication_controller_type;
}

static int view_controller(
	struct replicated *x, const struct core_v1_replication_controller *rc, struct arena *a)
{
	const struct core_v1_replication_controller_status *st = &rc->status;

	x->rs.metadata = rc->metadata;
	x->rs.spec.replicas = rc->spec.replicas;
	x->rs.spec.min_ready_seconds = rc->spec.min_ready_seconds;
	if (rc->spec.template)
		x->rs.spec.template = *rc->spec.template;
	x->rs.status = (struct apps_v1_replica_set_status){ .replicas = st->replicas,
		.fully_labeled_replicas = st->fully_labeled_replicas,
		.ready_replicas = st->ready_replicas,
		.available_replicas = st->available_replicas,
		.observed_generation = st->observed_generation };
	LIST_EACH(c, &st->conditions)
		*LIST_ADD(a, &x->rs.status.conditions) =
			(struct apps_v1_replica_set_condition){ c->type, c->status,
				c->last_transition_time, c->reason, c->message };
	/* An empty selector of a ReplicationController selects nothing; so does selector_from_map. */
	x->selector = selector_from_map(&rc->spec.selector, a);
	return 0;
}

static int view(struct replicated *x, const struct type *t, const void *object, struct arena *a,
	struct err *err)
{
	*x = (struct replicated){ .type = t, .object = object };
	x->key = key_of(a, model_meta(t, object)->namespace, model_meta(t, object)->name);
	if (t == &core_v1_replication_controller_type)
		return view_controller(x, object, a);
	x->rs = *(const struct apps_v1_replica_set *)object;
	return selector_from_label_selector(x->rs.spec.selector, a, &x->selector, err);
}

/* ---- events ---- */
static bool resolve_owner(struct run *r, const struct cached *pod, struct buf *ret_key)
{
	const struct meta_v1_owner_reference *o = client_controller_of(pod->meta);
	const struct type *t = type_of(r);

	if (!o || !str_eqz(o->kind, t->name))
		return false;
	buf_clear(ret_key);
	buf_addf(ret_key, STR_FMT "/" STR_FMT, STR_ARG(pod->meta->namespace), STR_ARG(o->name));
	struct cached *owner = informer_get(run_informer(r, t), buf_str(ret_key));
	bool same = owner && str_eq(owner->meta->uid, o->uid);

	cached_unref(owner);
	return same;
}

/* An orphan may be adopted by whoever selects it. */
static void enqueue_matching(struct run *r, const struct cached *pod)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct cached_list all;

	informer_list(run_informer(r, type_of(r)), pod->meta->namespace, &all);
	for (size_t i = 0; i < all.len; i++) {
		struct replicated x;

		if (!view(&x, all.items[i]->type, all.items[i]->obj, a, NULL) &&
			selector_matches(x.selector, &pod->meta->labels))
			enqueue(r, all.items[i]->key);
	}
	cached_list_deinit(&all);
}

static void pod_gone(struct run *r, const struct cached *pod)
{
	struct buf key CLEAN_BUF = { 0 };

	if (!resolve_owner(r, pod, &key))
		return;
	deletion_observed(r->state, buf_str(&key), pod->meta->uid);
	enqueue_after(r, buf_str(&key), GATHER_MS);
}

static void pod_added(struct run *r, const struct cached *pod)
{
	struct buf key CLEAN_BUF = { 0 };

	if (!time_is_zero(pod->meta->deletion_timestamp))
		return pod_gone(r, pod); /* seen first while it goes: after a restart */
	if (!client_controller_of(pod->meta))
		return enqueue_matching(r, pod);
	if (!resolve_owner(r, pod, &key))
		return;
	creation_observed(r->state, buf_str(&key));
	enqueue_after(r, buf_str(&key), GATHER_MS);
}

static void pod_changed(struct run *r, const struct cached *old, const struct cached *now)
{
	const struct meta_v1_owner_reference *was = client_controller_of(old->meta);
	const struct meta_v1_owner_reference *is = client_controller_of(now->meta);
	struct buf key CLEAN_BUF = { 0 };
	bool moved = !was != !is || (was && is && !str_eq(was->uid, is->uid));

	if (!time_is_zero(now->meta->deletion_timestamp))
		return pod_gone(r, now);
	if (moved && resolve_owner(r, old, &key))
		enqueue(r, buf_str(&key));
	if (is) {
		if (resolve_owner(r, now, &key))
			enqueue_after(r, buf_str(&key), GATHER_MS);
	} else if (moved ||
		!model_equal(&meta_v1_object_meta_type,
			&(struct meta_v1_object_meta){ .labels = old->meta->labels },
			&(struct meta_v1_object_meta){ .labels = now->meta->labels })) {
		enqueue_matching(r, now);
	}
}

static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (ev == INFORMER_ADDED)
		pod_added(r, now);
	else if (ev == INFORMER_MODIFIED)
		pod_changed(r, old, now);
	else
		pod_gone(r, old);
}

/* ---- more pods, fewer pods ---- */
struct change {
	struct run *r;
	struct replicated *x;
	const struct core_v1_pod *pod; /* to create: what every new one looks like */
	const struct core_v1_pod **victims;
	_Atomic size_t tried;
};

static int create_one(void *arg, size_t i, struct err *err)
{
	struct change *c = arg;

	c->tried++;
	int r = pod_create(c->r, c->pod, c->x->type, c->x->object, err);

	if (r)
		creation_observed(c->r->state, c->x->key);
	if (namespace_ends(r, err))
		return 0; /* the namespace goes: its deletion ends this too */
	return r;
}

static int delete_one(void *arg, size_t i, struct err *err)
{
	struct change *c = arg;
	int r = pod_delete(c->r, c->victims[i], c->x->type, c->x->object, err);

	if (r)
		deletion_observed(c->r->state, c->x->key, c->victims[i]->metadata.uid);
	return r == CLIENT_NOT_FOUND ? 0 : r;
}

static int scale_up(struct run *r, struct replicated *x, size_t n, struct err *err)
{
	struct change c = { .r = r, .x = x };
	int failure;

	c.pod = pod_from_template(&x->rs.spec.template, x->type, x->object, r->arena);
	expect_creations(r->state, x->key, n);
	run_slow_start(r, n, create_one, &c, &failure, err);
	for (size_t i = c.tried; i < n; i++)
		creation_observed(r->state, x->key); /* of batches that never began */
	return failure;
}

/* How many pods of the same family (all replica sets of one deployment) share a node: crowded nodes lose pods first. */
static void count_family(struct run *r, const struct replicated *x, struct map *counts)
{
	const struct meta_v1_owner_reference *parent = client_controller_of(&x->rs.metadata);
	struct objects sets = { 0 };

	if (parent && x->type == &apps_v1_replica_set_type)
		sets = cache_indexed(r, x->type, "uid:", parent->uid);
	for (size_t i = 0; i < MAX(sets.len, (size_t)1); i++) {
		struct str uid =
			sets.len ? model_meta(x->type, sets.items[i])->uid : x->rs.metadata.uid;
		struct objects pods = cache_indexed(r, &core_v1_pod_type, "uid:", uid);

		OBJECT_EACH(const struct core_v1_pod, p, pods)
			if (pod_active(p) && p->spec.node_name.len)
				map_set(counts, p->spec.node_name,
					(void *)((uintptr_t)map_get(counts, p->spec.node_name) +
						1));
	}
}

struct ranked {
	const struct core_v1_pod *pod;
	size_t rank;
	struct timestamp now;
};

static int cmp_ranked(const void *pa, const void *pb)
{
	const struct ranked *a = pa, *b = pb;

	return pod_victim_cmp(a->pod, a->rank, b->pod, b->rank, a->now);
}

static int scale_down(struct run *r, struct replicated *x, const struct objects *active, size_t n,
	struct err *err)
{
	struct change c = { .r = r, .x = x };
	struct ranked *ranked = arena_alloc(r->arena, active->len * sizeof(*ranked));
	struct map counts = { 0 };
	int failure;

	if (n < active->len)
		count_family(r, x, &counts);
	for (size_t i = 0; i < active->len; i++) {
		const struct core_v1_pod *p = active->items[i];

		ranked[i] = (struct ranked){ p,
			(size_t)(uintptr_t)map_get(&counts, p->spec.node_name), r->now };
	}
	map_deinit(&counts, NULL);
	if (n < active->len)
		qsort(ranked, active->len, sizeof(*ranked), cmp_ranked);
	c.victims = arena_alloc(r->arena, n * sizeof(struct core_v1_pod *));
	for (size_t i = 0; i < n; i++) {
		c.victims[i] = ranked[i].pod;
		expect_deletion(r->state, x->key, ranked[i].pod->metadata.uid);
	}
	run_parallel(r, n, delete_one, &c, &failure, err);
	return failure;
}

static int manage(
	struct run *r, struct replicated *x, const struct objects *active, struct err *err)
{
	int64_t diff = (int64_t)active->len - int32_or(&x->rs.spec.replicas, 1);

	if (diff < 0)
		return scale_up(r, x, (size_t)MIN(-diff, BURST), err);
	return diff ? scale_down(r, x, active, (size_t)MIN(diff, BURST), err) : 0;
}

/* ---- status ---- */
static bool has_all_labels(const struct core_v1_pod *p, const struct str_map *labels)
{
	LIST_EACH(l, labels)
		if (!str_eq(str_map_get(&p->metadata.labels, l->key), l->value))
			return false;
	return true;
}

static void set_failure(struct run *r, struct replicated *x, struct apps_v1_replica_set_status *st,
	int failure, int64_t diff, const struct err *why)
{
	struct apps_v1_replica_set_condition *present = NULL;

	LIST_EACH(c, &st->conditions)
		if (str_eqz(c->type, "ReplicaFailure"))
			present = c;
	if (failure && !present) {
		*LIST_ADD(r->arena, &st->conditions) =
			(struct apps_v1_replica_set_condition){ .type = STR("ReplicaFailure"),
				.status = STR("True"),
				.last_transition_time = r->now,
				.reason = diff < 0 ? STR("FailedCreate") : STR("FailedDelete"),
				.message = arena_strz(r->arena, why->text) };
	} else if (!failure && present) {
		*present = st->conditions.items[st->conditions.len - 1];
		st->conditions.len--;
	}
}

static void compute_status(struct run *r, struct replicated *x, const struct objects *active,
	int32_t terminating, int failure, const struct err *why,
	struct apps_v1_replica_set_status *st)
{
	const struct apps_v1_replica_set_status *old =
		model_copy(&apps_v1_replica_set_status_type, &x->rs.status, r->arena);

	*st = *old;
	st->replicas = (int32_t)active->len;
	st->fully_labeled_replicas = st->ready_replicas = st->available_replicas = 0;
	OBJECT_EACH(const struct core_v1_pod, p, *active) {
		uint64_t wait = 0;

		st->fully_labeled_replicas +=
			has_all_labels(p, &x->rs.spec.template.metadata.labels);
		if (!pod_ready(p))
			continue;
		st->ready_replicas++;
		st->available_replicas +=
			pod_available(p, x->rs.spec.min_ready_seconds, r->now, &wait);
		if (wait)
			requeue_within(r, wait);
	}
	if (x->type == &apps_v1_replica_set_type)
		st->terminating_replicas = (struct opt_int32)SOME(terminating);
	set_failure(
		r, x, st, failure, (int64_t)active->len - int32_or(&x->rs.spec.replicas, 1), why);
	st->observed_generation = x->rs.metadata.generation;
}

static int write_status(struct run *r, struct replicated *x,
	const struct apps_v1_replica_set_status *st, struct err *err)
{
	if (model_equal(&apps_v1_replica_set_status_type, st, &x->rs.status))
		return 0;
	if (x->type == &apps_v1_replica_set_type) {
		x->rs.status = *st;
		return client_update(r->client, x->type, "status", &x->rs, r->arena, NULL, err);
	}
	struct core_v1_replication_controller rc =
		*(const struct core_v1_replication_controller *)x->object;

	rc.status = (struct core_v1_replication_controller_status){ .replicas = st->replicas,
		.fully_labeled_replicas = st->fully_labeled_replicas,
		.ready_replicas = st->ready_replicas,
		.available_replicas = st->available_replicas,
		.observed_generation = st->observed_generation };
	LIST_EACH(c, &st->conditions)
		*LIST_ADD(r->arena, &rc.status.conditions) =
			(struct core_v1_replication_controller_condition){ c->type, c->status,
				c->last_transition_time, c->reason, c->message };
	return client_update(r->client, x->type, "status", &rc, r->arena, NULL, err);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const void *object = cache_object(r, type_of(r), key);
	struct apps_v1_replica_set_status st;
	struct objects pods, active;
	struct replicated x;
	struct err why = { "" };
	int32_t terminating = 0;

	if (!object) {
		expectations_forget(r->state, key);
		return 0;
	}
	int ret = view(&x, type_of(r), object, r->arena, err);

	if (ret)
		return ret;
	bool act = may_act(r, key);
	const struct claim claim = { .owner_type = x.type,
		.owner = object,
		.selector = x.selector,
		.type = &core_v1_pod_type };

	ret = claim_objects(r, &claim, &pods, err);
	if (ret)
		return ret;
	active = (struct objects){ arena_alloc(r->arena, (pods.len + 1) * sizeof(void *)), 0 };
	OBJECT_EACH(const struct core_v1_pod, p, pods) {
		if (pod_active(p))
			active.items[active.len++] = p;
		else if (!pod_ended(p))
			terminating++;
	}
	int failure = 0;

	if (act && time_is_zero(x.rs.metadata.deletion_timestamp))
		failure = manage(r, &x, &active, &why);
	compute_status(r, &x, &active, terminating, failure, &why, &st);
	ret = write_status(r, &x, &st, err);
	if (ret && ret != CLIENT_NOT_FOUND)
		return ret;
	if (failure && err)
		*err = why;
	return failure;
}

static int init(struct run *r, struct err *err)
{
	r->state = expectations_new();
	return 0;
}

static void deinit(struct run *r)
{
	expectations_free(r->state);
}

const struct controller replicaset_controller = {
	.name = "replicaset",
	.bulk = true,
	.component = "replicaset-controller",
	.watches = { { &apps_v1_replica_set_type, map_self }, { &core_v1_pod_type, map_pod } },
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};

const struct controller replication_controller = {
	.name = "replication",
	.bulk = true,
	.component = "replication-controller",
	.watches = { { &core_v1_replication_controller_type, map_self },
		{ &core_v1_pod_type, map_pod } },
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
