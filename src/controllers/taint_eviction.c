/* Deletes pods from nodes with NoExecute taints that they do not tolerate, or tolerate only for a time. Upstream: pkg/controller/tainteviction.
 * The time counts from when the taint was set, where it says so: a restart of this process forgets nothing. People's taints do not say; theirs
 * counts from when the pod was first seen under one. */
#include "controllers/internal.h"

#include "controllers/table.h"
#include "model/placement.h"

struct since {
	char *uid;
	uint64_t at_ns; /* monotonic */
};
struct state {
	pthread_mutex_t lock;
	struct map since; /* pod's key -> struct since */
};

static void since_free(void *arg)
{
	struct since *s = arg;

	if (s)
		free(s->uid);
	free(s);
}

/* Seconds since the pod was first seen under the taint, by this process. */
static double seen_s(struct run *r, struct str key, struct str uid)
{
	struct state *st = r->state;
	uint64_t now = r->config->clock->mono_ns(r->config->clock);

	pthread_mutex_lock(&st->lock);
	struct since *s = map_get(&st->since, key);

	if (!s || !str_eqz(uid, s->uid)) {
		since_free(map_remove(&st->since, key));
		s = xcalloc(1, sizeof(*s));
		*s = (struct since){ str_dup(uid), now };
		map_set(&st->since, key, s);
	}
	double seconds = (double)(now - s->at_ns) / 1e9;

	pthread_mutex_unlock(&st->lock);
	return seconds;
}

static void forget(struct run *r, struct str key)
{
	struct state *st = r->state;

	pthread_mutex_lock(&st->lock);
	since_free(map_remove(&st->since, key));
	pthread_mutex_unlock(&st->lock);
}

static bool has_no_execute(const struct core_v1_node *n)
{
	LIST_EACH(t, &n->spec.taints)
		if (str_eqz(t->effect, "NoExecute"))
			return true;
	return false;
}

/* The taint says since when; where it does not, or says a time to come because the clock was set back, what this process saw counts. */
static double under_taint_s(struct run *r, struct str key, const struct core_v1_pod *p,
	const struct core_v1_taint *taint)
{
	double seen = seen_s(r, key, p->metadata.uid),
	       said = time_is_zero(taint->time_added) ? -1 : time_diff_s(r->now, taint->time_added);

	return said < 0 ? seen : said;
}

/* false: never. *ret_left_s: seconds until the pod must go, <= 0: now. */
static bool must_go(struct run *r, struct str key, const struct core_v1_pod *p,
	const struct core_v1_node *n, double *ret_left_s)
{
	bool any = false;

	LIST_EACH(taint, &n->spec.taints) {
		bool tolerated = false;
		int64_t least = INT64_MAX;

		if (!str_eqz(taint->effect, "NoExecute"))
			continue;
		LIST_EACH(t, &p->spec.tolerations) {
			if (!toleration_tolerates(t, taint))
				continue;
			tolerated = true;
			if (t->toleration_seconds.set)
				least = MIN(least, MAX(t->toleration_seconds.value, (int64_t)0));
		}
		if (tolerated && least == INT64_MAX)
			continue; /* without a limit */
		double left = 0;

		if (tolerated)
			left = (double)least - under_taint_s(r, key, p, taint);
		if (!any || left < *ret_left_s)
			*ret_left_s = left;
		any = true;
	}
	return any;
}

static int evict(struct run *r, const struct core_v1_pod *cached, struct err *err)
{
	struct core_v1_pod *p = model_copy(&core_v1_pod_type, cached, r->arena);
	const struct client_delete o = { .grace_seconds = -1, .uid = p->metadata.uid };
	struct core_v1_pod_condition *c =
		(struct core_v1_pod_condition *)pod_condition(p, "DisruptionTarget");

	event_record(r->events, &core_v1_pod_type, p, "Normal", "TaintManagerEviction",
		"Marking for deletion Pod " STR_FMT "/" STR_FMT, STR_ARG(p->metadata.namespace),
		STR_ARG(p->metadata.name));
	if (!c || !str_eqz(c->status, "True")) {
		c = c ? c : LIST_ADD(r->arena, &p->status.conditions);
		*c = (struct core_v1_pod_condition){ .type = STR("DisruptionTarget"),
			.status = STR("True"),
			.reason = STR("DeletionByTaintManager"),
			.message = STR("Taint manager: deleting due to NoExecute taint"),
			.last_transition_time = r->now,
			.observed_generation = p->metadata.generation };
		int ret = client_update(
			r->client, &core_v1_pod_type, "status", p, r->arena, NULL, err);

		if (ret)
			return ret == CLIENT_NOT_FOUND ? 0 : ret;
	}
	int ret = client_delete(
		r->client, &core_v1_pod_type, p->metadata.namespace, p->metadata.name, &o, err);

	return ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT ? 0 : ret;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_pod *p = cache_object(r, &core_v1_pod_type, key);
	const struct core_v1_node *n;
	double left = 0;

	if (!p || !p->spec.node_name.len || !time_is_zero(p->metadata.deletion_timestamp) ||
		pod_ended(p)) {
		forget(r, key);
		return 0;
	}
	n = cache_object(r, &core_v1_node_type, p->spec.node_name);
	if (!n || !must_go(r, key, p, n, &left)) {
		forget(r, key);
		return 0;
	}
	if (left <= 0)
		return evict(r, p, err);
	requeue_within(r, ms_of(left) + 1);
	return 0;
}

static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct buf value CLEAN_BUF = { 0 };
	struct cached_list pods;

	if (!now || (!has_no_execute(now->obj) && !(old && has_no_execute(old->obj))))
		return;
	if (old) {
		const struct core_v1_node *a = old->obj, *b = now->obj;
		const struct core_v1_node_spec x = { .taints = a->spec.taints },
					       y = { .taints = b->spec.taints };

		if (model_equal(&core_v1_node_spec_type, &x, &y))
			return;
	}
	buf_addf(&value, "node:" STR_FMT, STR_ARG(now->meta->name));
	informer_by_index(run_informer(r, &core_v1_pod_type), buf_str(&value), &pods);
	for (size_t i = 0; i < pods.len; i++)
		enqueue(r, pods.items[i]->key);
	cached_list_deinit(&pods);
}

/* A pod that just came to a node, or whose tolerations changed. */
static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_pod *p = now ? now->obj : NULL, *was = old ? old->obj : NULL;

	if (!p)
		forget(r, old->key);
	if (!p || !p->spec.node_name.len ||
		(was && was->spec.node_name.len &&
			was->spec.tolerations.len == p->spec.tolerations.len))
		return;
	struct cached *n = informer_get(run_informer(r, &core_v1_node_type), p->spec.node_name);

	if (n && has_no_execute(n->obj))
		enqueue(r, now->key);
	cached_unref(n);
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

	map_deinit(&st->since, since_free);
	pthread_mutex_destroy(&st->lock);
	free(st);
}

const struct controller taint_eviction_controller = {
	.init = init,
	.deinit = deinit,
	.name = "taint-eviction",
	.component = "taint-eviction-controller",
	.watches = { { &core_v1_node_type, map_node }, { &core_v1_pod_type, map_pod } },
	.reconcile = reconcile,
};
