/* The endpoints of service default/kubernetes, which has no selector: the API servers' addresses. Upstream: the apiserver's reconcilers. */
#include "controllers/internal.h"

#define NAME "kubernetes"

static int put(struct client *c, const struct type *t, void *present, const void *wanted,
	struct arena *a, struct err *err)
{
	if (present)
		return client_update(c, t, NULL, wanted, a, NULL, err);
	return client_create(c, t, STR("default"), wanted, a, NULL, err);
}

static void fill_meta(
	struct meta_v1_object_meta *m, const struct meta_v1_object_meta *present, struct arena *a)
{
	if (present)
		*m = *present;
	m->name = STR(NAME);
	m->namespace = STR("default");
	str_map_set(a, &m->labels, STR("endpointslice.kubernetes.io/skip-mirror"), STR("true"));
}

static int publish_endpoints(struct client *c, const char *const *ips, size_t n, int port,
	struct arena *a, struct err *err)
{
	const struct type *t = &core_v1_endpoints_type;
	struct core_v1_endpoints *present = NULL, *e = model_new(t, a);
	int r = client_get(c, t, STR("default"), STR(NAME), a, (void **)&present, err);

	if (r && r != CLIENT_NOT_FOUND)
		return r;
	fill_meta(&e->metadata, present ? &present->metadata : NULL, a);
	struct core_v1_endpoint_subset *s = LIST_ADD(a, &e->subsets);

	for (size_t i = 0; i < n; i++)
		LIST_ADD(a, &s->addresses)->ip = str_of(ips[i]);
	*LIST_ADD(a, &s->ports) =
		(struct core_v1_endpoint_port){ STR("https"), port, STR("TCP"), STR_NONE };
	if (present && model_equal(t, present, e))
		return 0;
	return put(c, t, present, e, a, err);
}

static int publish_slice(struct client *c, const char *const *ips, size_t n, int port,
	struct arena *a, struct err *err)
{
	const struct type *t = &discovery_v1_endpoint_slice_type;
	struct discovery_v1_endpoint_slice *present = NULL, *s = model_new(t, a);
	int r = client_get(c, t, STR("default"), STR(NAME), a, (void **)&present, err);

	if (r && r != CLIENT_NOT_FOUND)
		return r;
	fill_meta(&s->metadata, present ? &present->metadata : NULL, a);
	str_map_remove(&s->metadata.labels, STR("endpointslice.kubernetes.io/skip-mirror"));
	str_map_set(a, &s->metadata.labels, STR("kubernetes.io/service-name"), STR(NAME));
	s->address_type = n && strchr(ips[0], ':') ? STR("IPv6") : STR("IPv4");
	for (size_t i = 0; i < n; i++) {
		struct discovery_v1_endpoint *e = LIST_ADD(a, &s->endpoints);

		*LIST_ADD(a, &e->addresses) = str_of(ips[i]);
		e->conditions.ready = (struct opt_bool)SOME(true);
	}
	*LIST_ADD(a, &s->ports) = (struct discovery_v1_endpoint_port){
		.name = STR("https"), .protocol = STR("TCP"), .port = SOME(port)
	};
	if (present && model_equal(t, present, s))
		return 0;
	return put(c, t, present, s, a, err);
}

int controllers_publish_apiservers(
	struct client *c, const char *const *ips, size_t n, int port, struct err *err)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	int r = publish_endpoints(c, ips, n, port, a, err);

	return r ? r : publish_slice(c, ips, n, port, a, err);
}
