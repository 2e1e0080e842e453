/* What of its quotas a namespace uses: the status of ResourceQuotas. Upstream: pkg/controller/resourcequota and pkg/quota. Admission counts for
 * itself; this tells people. Extended resources are counted by name like cpu and memory. */
#include "controllers/internal.h"

#include "controllers/table.h"
#include "model/quota.h"

#define GATHER_MS 100

struct counting {
	struct run *r;
	const struct core_v1_resource_quota *q;
	struct str ns;
};

/* Of all objects of one type that are not over. */
static struct quantity sum_of(
	struct counting *c, struct str name, const struct type *t, const char *group_resource)
{
	struct objects os = cache_objects(c->r, t, c->ns);
	struct quantity sum = { 0, 'D' };

	OBJECT_EACH(const void, x, os) {
		struct quantity one;

		if ((t == &core_v1_pod_type && pod_ended(x)) ||
			!quota_speaks_of(&c->q->spec, t, x) ||
			!quota_takes(name, str_of(group_resource), t, x, &one))
			continue;
		sum = sum.nano ? quantity_add(sum, one) : one;
	}
	return sum;
}

static const struct resource_row *row_named(struct str plural, struct str group)
{
	for (size_t i = 0; i < n_resource_rows; i++)
		if (str_eqz(plural, resource_rows[i].plural) &&
			str_eqz(group, resource_rows[i].group) && resource_rows[i].list_type)
			return &resource_rows[i];
	return NULL;
}

/* count/deployments.apps, or configmaps. Every kind has an informer: the garbage collector's. */
static bool count_objects(struct counting *c, struct str name, struct quantity *ret)
{
	struct str plural = str_has_prefix(name, STR("count/")) ? str_from(name, 6) : name,
		   group = STR_NONE, head, tail;
	struct cached_list l;

	if (str_cut(plural, '.', &head, &tail)) {
		plural = head;
		group = tail;
	}
	const struct resource_row *row = row_named(plural, group);

	if (!row || !row->namespaced)
		return false;
	informer_list(run_informer(c->r, row->type), c->ns, &l);
	*ret = (struct quantity){ .nano = (__int128)l.len * 1000000000, .format = 'D' };
	cached_list_deinit(&l);
	return true;
}

static bool used(struct counting *c, struct str name, struct quantity *ret)
{
	static const char *const by_count[] = { "configmaps", "secrets", "replicationcontrollers",
		"resourcequotas" };

	for (size_t i = 0; i < ARRAY_LEN(by_count); i++)
		if (str_eqz(name, by_count[i]))
			return count_objects(c, name, ret);
	if (str_has_prefix(name, STR("count/")))
		return count_objects(c, name, ret);
	if (str_has_prefix(name, STR("services")))
		*ret = sum_of(c, name, &core_v1_service_type, "services");
	else if (str_has_suffix(name, STR("persistentvolumeclaims")) ||
		str_has_suffix(name, STR("requests.storage")))
		*ret = sum_of(
			c, name, &core_v1_persistent_volume_claim_type, "persistentvolumeclaims");
	else
		*ret = sum_of(c, name, &core_v1_pod_type, "pods");
	return true;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_resource_quota *cached =
		cache_object(r, &core_v1_resource_quota_type, key);

	if (!cached || !time_is_zero(cached->metadata.deletion_timestamp))
		return 0;
	struct core_v1_resource_quota *q =
		model_copy(&core_v1_resource_quota_type, cached, r->arena);
	struct counting c = { .r = r, .q = cached, .ns = cached->metadata.namespace };
	struct str_map now = { 0 };

	LIST_EACH(h, &cached->spec.hard) {
		struct quantity n;
		char text[QUANTITY_TEXT_MAX];

		if (!used(&c, h->key, &n))
			continue;
		quantity_format(n, text);
		str_map_set(r->arena, &now, h->key, arena_strz(r->arena, text));
	}
	q->status.hard = q->spec.hard;
	q->status.used = now;
	if (model_equal(&core_v1_resource_quota_status_type, &q->status, &cached->status))
		return 0;
	int ret = client_update(
		r->client, &core_v1_resource_quota_type, "status", q, r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static void enqueue_quotas(struct run *r, struct str ns)
{
	struct cached_list all;

	informer_list(run_informer(r, &core_v1_resource_quota_type), ns, &all);
	for (size_t i = 0; i < all.len; i++)
		enqueue_after(r, all.items[i]->key, GATHER_MS);
	cached_list_deinit(&all);
}

/* Whatever comes or goes; of changes only those that free or take something. */
static void on_event(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	bool matters = ev != INFORMER_MODIFIED || c->type == &core_v1_service_type ||
		c->type == &core_v1_persistent_volume_claim_type;

	if (ev == INFORMER_MODIFIED && c->type == &core_v1_pod_type)
		matters = pod_ended(old->obj) != pod_ended(now->obj) ||
			old->meta->generation != now->meta->generation;
	if (matters)
		enqueue_quotas(arg, c->meta->namespace);
}

static int init(struct run *r, struct err *err)
{
	for (size_t i = 0; i < n_resource_rows; i++) {
		const struct resource_row *row = &resource_rows[i];

		if (!row->namespaced || !row->list_type || !(row->verbs & VERB_WATCH) ||
			!strcmp(row->plural, "events") || !strcmp(row->plural, "leases") ||
			row_named(str_of(row->plural), str_of(row->group)) != row)
			continue;
		informer_add_handler(
			informers_get_meta(r->config->informers, row->type), on_event, r);
	}
	return 0;
}

const struct controller quota_controller = {
	.name = "resourcequota",
	.bulk = true,
	.component = "resourcequota-controller",
	.watches = {
		{ &core_v1_resource_quota_type, map_self },
		{ &core_v1_pod_type, NULL },
		{ &core_v1_service_type, NULL },
		{ &core_v1_persistent_volume_claim_type, NULL },
	},
	.init = init,
	.reconcile = reconcile,
};
