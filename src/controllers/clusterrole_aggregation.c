/* Fills the rules of ClusterRoles that gather those of others (admin, edit, view). Upstream: clusterroleaggregation. */
#include "controllers/internal.h"

#include "controllers/table.h"

static bool gathers(struct run *r, const struct rbac_v1_cluster_role *to,
	const struct rbac_v1_cluster_role *from)
{
	if (str_eq(to->metadata.name, from->metadata.name))
		return false;
	LIST_EACH(ls, &to->aggregation_rule->cluster_role_selectors) {
		struct selector *s;

		if (!selector_from_label_selector(ls, r->arena, &s, NULL) &&
			selector_matches(s, &from->metadata.labels))
			return true;
	}
	return false;
}

static int by_name(const void *pa, const void *pb)
{
	const struct rbac_v1_cluster_role *a = *(void *const *)pa, *b = *(void *const *)pb;

	return str_cmp(a->metadata.name, b->metadata.name);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct rbac_v1_cluster_role *role = cache_object(r, &rbac_v1_cluster_role_type, key);
	struct objects all = cache_objects(r, &rbac_v1_cluster_role_type, STR_NONE);

	if (!role || !role->aggregation_rule)
		return 0;
	struct rbac_v1_cluster_role *wanted = model_new(&rbac_v1_cluster_role_type, r->arena);

	wanted->metadata = role->metadata;
	wanted->aggregation_rule = role->aggregation_rule;
	wanted->rules.items = MODEL_EMPTY;
	qsort(all.items, all.len, sizeof(void *), by_name);
	OBJECT_EACH(const struct rbac_v1_cluster_role, from, all) {
		if (!gathers(r, role, from))
			continue;
		LIST_EACH(rule, &from->rules) {
			bool there = false;

			LIST_EACH(x, &wanted->rules)
				there |= model_equal(&rbac_v1_policy_rule_type, x, rule);
			if (!there)
				*LIST_ADD(r->arena, &wanted->rules) = *rule;
		}
	}
	const struct rbac_v1_cluster_role a = { .rules = role->rules },
					  b = { .rules = wanted->rules };

	if (model_equal(&rbac_v1_cluster_role_type, &a, &b))
		return 0;
	int ret = client_update(
		r->client, &rbac_v1_cluster_role_type, NULL, wanted, r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static void map_role(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct cached_list all;

	informer_list(run_informer(r, &rbac_v1_cluster_role_type), STR_NONE, &all);
	for (size_t i = 0; i < all.len; i++)
		if (((const struct rbac_v1_cluster_role *)all.items[i]->obj)->aggregation_rule)
			enqueue_after(r, all.items[i]->key,
				20); /* many come at once when a cluster begins */
	cached_list_deinit(&all);
}

const struct controller clusterrole_aggregation_controller = {
	.name = "clusterrole-aggregation",
	.watches = { { &rbac_v1_cluster_role_type, map_role } },
	.reconcile = reconcile,
};
