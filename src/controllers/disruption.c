/* How many pods a PodDisruptionBudget lets go now: its status, which eviction counts down. Upstream: pkg/controller/disruption. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define DISRUPTED_FOR_S 120

/* ---- how many pods there should be: the sum over the controllers of the pods that match ---- */
/* Kinds that say how many they want. */
static const struct {
	const char *kind;
	const struct type *type;
	size_t replicas_offset; /* of struct opt_int32 */
} scalers[] = {
	{ "ReplicaSet", &apps_v1_replica_set_type,
		offsetof(struct apps_v1_replica_set, spec.replicas) },
	{ "ReplicationController", &core_v1_replication_controller_type,
		offsetof(struct core_v1_replication_controller, spec.replicas) },
	{ "StatefulSet", &apps_v1_stateful_set_type,
		offsetof(struct apps_v1_stateful_set, spec.replicas) },
	{ "Deployment", &apps_v1_deployment_type,
		offsetof(struct apps_v1_deployment, spec.replicas) },
};

/* The topmost scaler over an object: a ReplicaSet's Deployment counts, not the set. false: none that we know. */
static bool find_scale(
	struct run *r, const struct meta_v1_object_meta *m, struct str *ret_uid, int *ret_scale)
{
	const struct meta_v1_owner_reference *o = client_controller_of(m);

	for (size_t i = 0; o && i < ARRAY_LEN(scalers); i++) {
		if (!str_eqz(o->kind, scalers[i].kind))
			continue;
		const void *obj =
			cache_object(r, scalers[i].type, key_of(r->arena, m->namespace, o->name));

		if (!obj || !str_eq(model_meta(scalers[i].type, obj)->uid, o->uid))
			return false;
		if (find_scale(r, model_meta(scalers[i].type, obj), ret_uid, ret_scale))
			return true;
		*ret_uid = o->uid;
		*ret_scale = int32_or(
			(const struct opt_int32 *)((const char *)obj + scalers[i].replicas_offset),
			1);
		return true;
	}
	return false;
}

/* Pods that nobody controls have no size to be counted against: they are left out, and told once. */
static int expected_scale(struct run *r, const struct policy_v1_pod_disruption_budget *b,
	const struct objects *pods, int *ret, struct err *err)
{
	struct map seen = { 0 };
	int64_t total = 0;
	int failure = 0;
	size_t alone = 0;

	OBJECT_EACH(const struct core_v1_pod, p, *pods) {
		struct str uid;
		int scale;

		if (!client_controller_of(&p->metadata)) {
			alone++;
			continue;
		}
		if (!find_scale(r, &p->metadata, &uid, &scale)) {
			failure = err_set(err, -ENOENT,
				"found no controllers for pod \"" STR_FMT "\"",
				STR_ARG(p->metadata.name));
			break;
		}
		if (!map_set(&seen, uid, &seen))
			total += scale;
	}
	map_deinit(&seen, NULL);
	if (alone)
		event_record(r->events, &policy_v1_pod_disruption_budget_type, b, "Warning",
			"UnmanagedPods",
			"%zu pods of this budget are controlled by nobody, so they do not count; a number as .spec.minAvailable counts them",
			alone);
	if (!failure)
		*ret = (int)MIN(total, (int64_t)INT32_MAX);
	return failure;
}

static int wanted(struct run *r, const struct policy_v1_pod_disruption_budget *b,
	const struct objects *pods, int *ret_expected, int *ret_desired, struct err *err)
{
	const struct int_or_str *most = &b->spec.max_unavailable, *least = &b->spec.min_available;
	int ret = 0;

	*ret_expected = (int)pods->len;
	if (most->kind != IOS_NONE) {
		ret = expected_scale(r, b, pods, ret_expected, err);
		*ret_desired = ret
			? 0
			: MAX(*ret_expected - scaled_value(most, *ret_expected, true, 0), 0);
	} else if (least->kind == IOS_INT) {
		*ret_desired = least->num;
	} else if (least->kind == IOS_STR) {
		ret = expected_scale(r, b, pods, ret_expected, err);
		*ret_desired = ret ? 0 : scaled_value(least, *ret_expected, true, 0);
	} else {
		*ret_desired = 0;
	}
	return ret;
}

/* ---- pods whose eviction was granted and is not seen yet ---- */
static bool still_disrupted(const struct run *r, const struct policy_v1_pod_disruption_budget *b,
	const struct core_v1_pod *p, struct timestamp *ret_since)
{
	LIST_EACH(d, &b->status.disrupted_pods)
		if (str_eq(d->key, p->metadata.name) &&
			time_diff_s(r->now, d->value) < DISRUPTED_FOR_S) {
			*ret_since = d->value;
			return true;
		}
	return false;
}

static void set_condition(struct run *r, struct policy_v1_pod_disruption_budget *b,
	const char *status, const char *reason, struct str message)
{
	struct meta_v1_condition *c = NULL;

	LIST_EACH(x, &b->status.conditions)
		if (str_eqz(x->type, "DisruptionAllowed"))
			c = x;
	if (!c) {
		c = LIST_ADD(r->arena, &b->status.conditions);
		c->type = STR("DisruptionAllowed");
	}
	if (!str_eqz(c->status, status))
		c->last_transition_time = r->now;
	c->status = str_of(status);
	c->reason = str_of(reason);
	c->message = message.p ? message : STR("");
	c->observed_generation = b->metadata.generation;
}

static int write_status(struct run *r, const struct policy_v1_pod_disruption_budget *cached,
	struct policy_v1_pod_disruption_budget *b, struct err *err)
{
	if (model_equal(&policy_v1_pod_disruption_budget_status_type, &cached->status, &b->status))
		return 0;
	return client_update(
		r->client, &policy_v1_pod_disruption_budget_type, "status", b, r->arena, NULL, err);
}

static void count(
	struct run *r, struct policy_v1_pod_disruption_budget *b, const struct objects *pods)
{
	__typeof__(b->status.disrupted_pods) disrupted = { 0 };
	int healthy = 0;

	OBJECT_EACH(const struct core_v1_pod, p, *pods) {
		struct timestamp since;

		if (!time_is_zero(p->metadata.deletion_timestamp))
			continue;
		if (still_disrupted(r, b, p, &since)) {
			__typeof__(disrupted.items) d = LIST_ADD(r->arena, &disrupted);

			d->key = p->metadata.name;
			d->value = since;
			requeue_within(
				r, ms_of(DISRUPTED_FOR_S - time_diff_s(r->now, since)) + 1000);
		} else {
			healthy += pod_ready(p);
		}
	}
	b->status.disrupted_pods = disrupted;
	b->status.current_healthy = healthy;
}

static int by_name(const void *pa, const void *pb)
{
	const struct core_v1_pod *a = *(void *const *)pa, *b = *(void *const *)pb;

	return str_cmp(a->metadata.name, b->metadata.name);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct policy_v1_pod_disruption_budget *cached =
		cache_object(r, &policy_v1_pod_disruption_budget_type, key);
	struct selector *selector;
	int expected, desired;

	if (!cached)
		return 0;
	struct policy_v1_pod_disruption_budget *b =
		model_copy(&policy_v1_pod_disruption_budget_type, cached, r->arena);
	struct objects pods = cache_objects(r, &core_v1_pod_type, b->metadata.namespace);
	int ret = selector_from_label_selector(b->spec.selector, r->arena, &selector, err);
	size_t n = 0;

	if (ret)
		return ret;
	for (size_t i = 0; i < pods.len; i++) {
		const struct core_v1_pod *p = pods.items[i];

		if (selector_matches(selector, &p->metadata.labels) && !pod_ended(p))
			pods.items[n++] = p;
	}
	pods.len = n;
	if (n)
		qsort(pods.items, n, sizeof(void *), by_name);
	count(r, b, &pods);
	ret = wanted(r, b, &pods, &expected, &desired, err);
	b->status.observed_generation = b->metadata.generation;
	if (ret) { /* fail safe: nothing may be evicted */
		event_record(r->events, &policy_v1_pod_disruption_budget_type, b, "Warning",
			"CalculateExpectedPodCountFailed",
			"Failed to calculate the number of expected pods: %s", err->text);
		b->status.disruptions_allowed = 0;
		set_condition(r, b, "False", "SyncFailed", arena_strz(r->arena, err->text));
		return write_status(r, cached, b, err);
	}
	if (!n && (cached->status.expected_pods || !cached->status.observed_generation))
		event_record(r->events, &policy_v1_pod_disruption_budget_type, b, "Normal",
			"NoPods", "No matching pods found");
	b->status.expected_pods = expected;
	b->status.desired_healthy = desired;
	b->status.disruptions_allowed =
		expected > 0 ? MAX(b->status.current_healthy - desired, 0) : 0;
	if (b->status.disruptions_allowed > 0)
		set_condition(r, b, "True", "SufficientPods", STR(""));
	else
		set_condition(r, b, "False", "InsufficientPods", STR(""));
	return write_status(r, cached, b, err);
}

/* ---- events ---- */
static void enqueue_selecting(
	struct run *r, struct str ns, const struct str_map *a, const struct str_map *b)
{
	struct cached_list all;

	informer_list(run_informer(r, &policy_v1_pod_disruption_budget_type), ns, &all);
	for (size_t i = 0; i < all.len; i++) {
		struct arena *mem CLEAN_ARENA = arena_new(0);
		struct selector *s;

		if (!selector_from_label_selector(
			    ((const struct policy_v1_pod_disruption_budget *)all.items[i]->obj)
				    ->spec.selector,
			    mem, &s, NULL) &&
			((a && selector_matches(s, a)) || (b && selector_matches(s, b))))
			enqueue_after(r, all.items[i]->key, 5);
	}
	cached_list_deinit(&all);
}

static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	enqueue_selecting(r, (now ? now : old)->meta->namespace, old ? &old->meta->labels : NULL,
		now ? &now->meta->labels : NULL);
}

/* A controller's size changes what is expected. */
static void map_scaler(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	struct cached_list all;

	if (old && now && old->meta->generation == now->meta->generation)
		return;
	informer_list(
		run_informer(r, &policy_v1_pod_disruption_budget_type), c->meta->namespace, &all);
	for (size_t i = 0; i < all.len; i++)
		enqueue_after(r, all.items[i]->key, 5);
	cached_list_deinit(&all);
}

const struct controller disruption_controller = {
	.name = "disruption",
	.component = "controllermanager",
	.watches = {
		{ &policy_v1_pod_disruption_budget_type, map_self },
		{ &core_v1_pod_type, map_pod },
		{ &apps_v1_replica_set_type, map_scaler },
		{ &core_v1_replication_controller_type, map_scaler },
		{ &apps_v1_stateful_set_type, map_scaler },
		{ &apps_v1_deployment_type, map_scaler },
	},
	.reconcile = reconcile,
};
