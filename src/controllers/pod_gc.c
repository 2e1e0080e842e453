/* Removes pods that nobody else will: of nodes that are no more, deleted before they got a node, stuck on a node that an administrator
 * declared out of service, and the oldest ended ones when too many are kept. Upstream: pkg/controller/podgc.
 *
 * Keys: pod/NAMESPACE/NAME, node/NAME, ended. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define QUARANTINE_MS 40000
#define ENDED_MOST 12500
#define ENDED_EVERY_MS 20000
#define OUT_OF_SERVICE "node.kubernetes.io/out-of-service"

static int force_delete(struct run *r, const struct core_v1_pod *p, struct err *err)
{
	const struct client_delete o = { .grace_seconds = 0, .uid = p->metadata.uid };
	int ret = client_delete(
		r->client, &core_v1_pod_type, p->metadata.namespace, p->metadata.name, &o, err);

	return ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT ? 0 : ret;
}

/* Failed first, so that whoever counts on its end (a Job) sees one. */
static int fail_and_delete(
	struct run *r, const struct core_v1_pod *cached, const char *message, struct err *err)
{
	struct core_v1_pod *p = model_copy(&core_v1_pod_type, cached, r->arena);

	if (!pod_ended(p)) {
		p->status.phase = STR("Failed");
		if (message && !pod_condition(p, "DisruptionTarget"))
			*LIST_ADD(r->arena, &p->status.conditions) =
				(struct core_v1_pod_condition){ .type = STR("DisruptionTarget"),
					.status = STR("True"),
					.reason = STR("DeletionByPodGC"),
					.message = str_of(message),
					.last_transition_time = r->now,
					.observed_generation = p->metadata.generation };
		int ret = client_update(
			r->client, &core_v1_pod_type, "status", p, r->arena, NULL, err);

		if (ret)
			return ret == CLIENT_NOT_FOUND ? 0 : ret;
	}
	return force_delete(r, p, err);
}

/* 0: there; CLIENT_NOT_FOUND: neither the cache nor the server knows it. */
static int node_there(struct run *r, struct str name, struct err *err)
{
	void *n;

	if (cache_object(r, &core_v1_node_type, name))
		return 0;
	return client_get(r->client, &core_v1_node_type, STR_NONE, name, r->arena, &n, err);
}

static int clear_node(struct run *r, struct str name, struct err *err)
{
	int ret = node_there(r, name, err);

	if (ret != CLIENT_NOT_FOUND)
		return ret;
	struct objects pods = cache_indexed(r, &core_v1_pod_type, "node:", name);

	ret = 0;
	OBJECT_EACH(const struct core_v1_pod, p, pods)
		if (!ret)
			ret = fail_and_delete(r, p, "PodGC: node no longer exists", err);
	return ret;
}

static bool out_of_service(struct run *r, const struct core_v1_pod *p)
{
	const struct core_v1_node *n = p->spec.node_name.len
		? cache_object(r, &core_v1_node_type, p->spec.node_name)
		: NULL;
	bool tainted = false;

	if (!n)
		return false;
	LIST_EACH(t, &n->spec.taints)
		tainted |= str_eqz(t->key, OUT_OF_SERVICE);
	LIST_EACH(c, &n->status.conditions)
		if (str_eqz(c->type, "Ready") && str_eqz(c->status, "True"))
			return false;
	return tainted;
}

static int check_pod(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_pod *p = cache_object(r, &core_v1_pod_type, key);

	if (!p || time_is_zero(p->metadata.deletion_timestamp))
		return 0;
	if (!p->spec.node_name.len)
		return force_delete(r, p, err);
	return out_of_service(r, p) ? fail_and_delete(r, p, NULL, err) : 0;
}

static int older_first(const void *pa, const void *pb)
{
	const struct core_v1_pod *a = *(void *const *)pa, *b = *(void *const *)pb;
	int r = time_cmp(a->metadata.creation_timestamp, b->metadata.creation_timestamp);

	return r ? r : str_cmp(a->metadata.name, b->metadata.name);
}

static int thin_ended(struct run *r, struct err *err)
{
	struct objects pods = cache_objects(r, &core_v1_pod_type, STR_NONE);
	size_t n = 0;

	for (size_t i = 0; i < pods.len; i++)
		if (pod_ended(pods.items[i]))
			pods.items[n++] = pods.items[i];
	if (n <= ENDED_MOST)
		return 0;
	qsort(pods.items, n, sizeof(void *), older_first);
	for (size_t i = 0; i < n - ENDED_MOST; i++) {
		int ret = force_delete(r, pods.items[i], err);

		if (ret)
			return ret;
	}
	return 0;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	if (str_has_prefix(key, STR("node/")))
		return clear_node(r, str_from(key, 5), err);
	if (str_has_prefix(key, STR("pod/")))
		return check_pod(r, str_from(key, 4), err);
	return thin_ended(r, err);
}

static void add(struct run *r, const char *prefix, struct str name, uint64_t after_ms)
{
	struct buf key CLEAN_BUF = { 0 };

	buf_addf(&key, "%s" STR_FMT, prefix, STR_ARG(name));
	enqueue_after(r, buf_str(&key), after_ms);
}

static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (!now) {
		add(r, "node/", old->key, QUARANTINE_MS);
		return;
	}
	const struct core_v1_node *n = now->obj;

	LIST_EACH(t, &n->spec.taints) {
		struct buf value CLEAN_BUF = { 0 };
		struct cached_list pods;

		if (!str_eqz(t->key, OUT_OF_SERVICE))
			continue;
		buf_addf(&value, "node:" STR_FMT, STR_ARG(now->key));
		informer_by_index(run_informer(r, &core_v1_pod_type), buf_str(&value), &pods);
		for (size_t i = 0; i < pods.len; i++)
			if (!time_is_zero(pods.items[i]->meta->deletion_timestamp))
				add(r, "pod/", pods.items[i]->key, 0);
		cached_list_deinit(&pods);
	}
}

static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_pod *p = now ? now->obj : NULL, *was = old ? old->obj : NULL;

	if (!p)
		return;
	if (!time_is_zero(p->metadata.deletion_timestamp))
		add(r, "pod/", now->key, 0);
	if (pod_ended(p) && (!was || !pod_ended(was)))
		add(r, "ended", STR_NONE, ENDED_EVERY_MS);
	if (p->spec.node_name.len && (!was || !was->spec.node_name.len)) {
		struct cached *n =
			informer_get(run_informer(r, &core_v1_node_type), p->spec.node_name);

		if (!n)
			add(r, "node/", p->spec.node_name, QUARANTINE_MS);
		cached_unref(n);
	}
}

const struct controller pod_gc_controller = {
	.name = "pod-garbage-collector",
	.bulk = true,
	.watches = { { &core_v1_pod_type, map_pod }, { &core_v1_node_type, map_node } },
	.reconcile = reconcile,
};
