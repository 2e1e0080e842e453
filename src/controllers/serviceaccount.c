/* What each namespace gets when it begins: ServiceAccount default, and ConfigMap kube-root-ca.crt with the cluster's CA. Upstream:
 * serviceaccounts_controller and rootcacertpublisher. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define ROOT_CA "kube-root-ca.crt"

static bool namespace_lives(struct run *r, struct str name)
{
	const struct core_v1_namespace *ns = cache_object(r, &core_v1_namespace_type, name);

	return ns && time_is_zero(ns->metadata.deletion_timestamp) &&
		!str_eqz(ns->status.phase, "Terminating");
}

static int create_quietly(
	struct run *r, const struct type *t, struct str ns, const void *obj, struct err *err)
{
	int ret = client_create(r->client, t, ns, obj, r->arena, NULL, err);

	if (namespace_ends(ret, err))
		return 0;
	return ret == CLIENT_EXISTS || ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static int reconcile_account(struct run *r, struct str ns, struct err *err)
{
	struct core_v1_service_account *sa;

	if (!namespace_lives(r, ns) ||
		cache_object(
			r, &core_v1_service_account_type, key_of(r->arena, ns, STR("default"))))
		return 0;
	sa = model_new(&core_v1_service_account_type, r->arena);
	sa->metadata.name = STR("default");
	sa->metadata.namespace = ns;
	return create_quietly(r, &core_v1_service_account_type, ns, sa, err);
}

static void map_account(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (ev == INFORMER_DELETED && str_eqz(old->meta->name, "default"))
		enqueue(r, old->meta->namespace);
}

/* Only new namespaces, and those that the cache shows first. */
static void map_new_namespace(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (ev != INFORMER_DELETED)
		enqueue(r, now->key);
}

const struct controller serviceaccount_controller = {
	.name = "serviceaccount",
	.component = "serviceaccount-controller",
	.watches = {
		{ &core_v1_namespace_type, map_new_namespace },
		{ &core_v1_service_account_type, map_account },
	},
	.reconcile = reconcile_account,
};

static int reconcile_ca(struct run *r, struct str ns, struct err *err)
{
	const struct type *t = &core_v1_config_map_type;
	struct core_v1_config_map *cm;

	if (!namespace_lives(r, ns))
		return 0;
	/* The cache knows ConfigMaps by metadata only: the content is asked for. */
	int ret = client_get(r->client, t, ns, STR(ROOT_CA), r->arena, (void **)&cm, err);

	if (ret && ret != CLIENT_NOT_FOUND)
		return ret;
	if (!ret && cm->data.len == 1 &&
		str_eq(str_map_get(&cm->data, STR("ca.crt")), r->config->ca_pem))
		return 0;
	bool there = !ret;

	if (!there) {
		cm = model_new(t, r->arena);
		cm->metadata.name = STR(ROOT_CA);
		cm->metadata.namespace = ns;
		str_map_set(r->arena, &cm->metadata.annotations, STR("kubernetes.io/description"),
			STR("The certificates that the API server's own can be verified with, from inside this cluster."));
	}
	cm->data = (struct str_map){ 0 };
	str_map_set(r->arena, &cm->data, STR("ca.crt"), r->config->ca_pem);
	return there ? client_update(r->client, t, NULL, cm, r->arena, NULL, err)
		     : create_quietly(r, t, ns, cm, err);
}

static void map_ca(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;

	if (ev != INFORMER_ADDED && str_eqz(c->meta->name, ROOT_CA))
		enqueue(r, c->meta->namespace);
}

static bool has_ca(const struct controllers_config *c)
{
	return c->ca_pem.len > 0;
}

const struct controller root_ca_controller = {
	.name = "root-ca-certificate-publisher",
	.watches = {
		{ &core_v1_namespace_type, map_new_namespace },
		{ &core_v1_config_map_type, map_ca, .meta_only = true },
	},
	.enabled = has_ca,
	.reconcile = reconcile_ca,
};
