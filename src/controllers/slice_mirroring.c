/* Mirrors Endpoints that people wrote (of services without a selector) into EndpointSlices, since proxies read only those. Upstream:
 * pkg/controller/endpointslicemirroring. A subset and address family makes one slice, of at most 1,000 addresses. */
#include "controllers/endpoint.h"

#include "controllers/table.h"

#define OUR_NAME "endpointslicemirroring-controller.k8s.io"
#define SKIP_LABEL "endpointslice.kubernetes.io/skip-mirror"
#define LEADER_ANNOTATION "control-plane.alpha.kubernetes.io/leader"
#define ADDRESSES_MOST 1000

struct mirror {
	struct run *r;
	const struct core_v1_endpoints *e;
	struct wanted {
		struct discovery_v1_endpoint_slice *slice; /* NULL: a present one took it */
		struct wanted *next;                       /* with the same ports */
	} * wanted;
	size_t n_wanted;
};

static bool mirrored(const struct core_v1_endpoints *e, const struct core_v1_service *s)
{
	return e && s && !s->spec.selector.len && time_is_zero(e->metadata.deletion_timestamp) &&
		!str_eqz(str_map_get(&e->metadata.labels, STR(SKIP_LABEL)), "true") &&
		!str_map_has(&e->metadata.annotations, STR(LEADER_ANNOTATION));
}

static void add_addresses(struct mirror *m, struct discovery_v1_endpoint_slice *s,
	const struct core_v1_endpoint_address_items *l, bool ready)
{
	struct arena *a = m->r->arena;
	bool v6 = str_eqz(s->address_type, "IPv6");

	LIST_EACH(x, l) {
		if ((memchr(x->ip.p, ':', x->ip.len) != NULL) != v6 ||
			s->endpoints.len >= ADDRESSES_MOST)
			continue;
		struct discovery_v1_endpoint *e = LIST_ADD(a, &s->endpoints);

		*LIST_ADD(a, &e->addresses) = x->ip;
		e->conditions.ready = (struct opt_bool)SOME(ready);
		e->hostname = x->hostname.len ? x->hostname : STR_NONE;
		e->node_name = x->node_name.len ? x->node_name : STR_NONE;
		e->target_ref = x->target_ref;
	}
}

static void add_slice(
	struct mirror *m, const struct core_v1_endpoint_subset *sub, const char *family)
{
	struct arena *a = m->r->arena;
	struct discovery_v1_endpoint_slice *s = model_new(&discovery_v1_endpoint_slice_type, a);

	s->address_type = str_of(family);
	add_addresses(m, s, &sub->addresses, true);
	add_addresses(m, s, &sub->not_ready_addresses, false);
	if (!s->endpoints.len)
		return;
	LIST_EACH(p, &sub->ports)
		*LIST_ADD(a, &s->ports) =
			(struct discovery_v1_endpoint_port){ .name = p->name.len ? p->name
										 : STR(""),
				.protocol = p->protocol,
				.port = SOME(p->port),
				.app_protocol = p->app_protocol };
	s->metadata.generate_name = arena_fmt(a, STR_FMT "-", STR_ARG(m->e->metadata.name));
	s->metadata.namespace = m->e->metadata.namespace;
	LIST_EACH(l, &m->e->metadata.labels)
		if (!str_eqz(l->key, "endpoints.kubernetes.io/managed-by"))
			str_map_set(a, &s->metadata.labels, l->key, l->value);
	str_map_set(a, &s->metadata.labels, STR(SERVICE_NAME_LABEL), m->e->metadata.name);
	str_map_set(a, &s->metadata.labels, STR(MANAGED_BY_SLICES), STR(OUR_NAME));
	*LIST_ADD(a, &s->metadata.owner_references) =
		controller_reference(&core_v1_endpoints_type, m->e, a);
	*ARENA_ADD(a, m->wanted, m->n_wanted) = (struct wanted){ s, NULL };
}

/* Family and ports as text: by it a present slice finds the wanted one, however many subsets there are. */
static struct str ports_key(const struct discovery_v1_endpoint_slice *s, struct arena *a)
{
	const struct discovery_v1_endpoint_slice bare = { .address_type = s->address_type,
		.ports = s->ports };
	struct buf b CLEAN_BUF = { 0 };

	json_encode(&discovery_v1_endpoint_slice_type, &bare, &b);
	return arena_str(a, buf_str(&b));
}

static bool same_slice(
	const struct discovery_v1_endpoint_slice *a, const struct discovery_v1_endpoint_slice *b)
{
	const struct discovery_v1_endpoint_slice x = { .metadata.labels = a->metadata.labels,
		.endpoints = a->endpoints },
						 y = { .metadata.labels = b->metadata.labels,
							 .endpoints = b->endpoints };

	return model_equal(&discovery_v1_endpoint_slice_type, &x, &y);
}

static int drop(struct run *r, const struct discovery_v1_endpoint_slice *s, struct err *err)
{
	const struct client_delete o = { .grace_seconds = -1, .uid = s->metadata.uid };
	int ret = client_delete(r->client, &discovery_v1_endpoint_slice_type, s->metadata.namespace,
		s->metadata.name, &o, err);

	return ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT ? 0 : ret;
}

static int adjust(struct mirror *m, const struct discovery_v1_endpoint_slice *s,
	struct discovery_v1_endpoint_slice *w, struct err *err)
{
	struct str_map labels = w->metadata.labels;

	if (same_slice(s, w))
		return 0;
	w->metadata = s->metadata;
	w->metadata.labels = labels;
	return client_update(
		m->r->client, &discovery_v1_endpoint_slice_type, NULL, w, m->r->arena, NULL, err);
}

static int make(struct mirror *m, const struct discovery_v1_endpoint_slice *s, struct str key,
	struct err *err)
{
	expect_creations(m->r->state, key, 1);
	int ret = client_create(m->r->client, &discovery_v1_endpoint_slice_type,
		s->metadata.namespace, s, m->r->arena, NULL, err);

	if (ret)
		creation_observed(m->r->state, key);
	return ret;
}

/* Each present slice takes the wanted one with its ports; what finds none is made or goes. */
static int put(struct mirror *m, const struct objects *present, struct str key, struct err *err)
{
	struct map by_ports = { 0 };
	int ret = 0;

	for (size_t i = m->n_wanted; i-- > 0;)
		m->wanted[i].next = map_set(
			&by_ports, ports_key(m->wanted[i].slice, m->r->arena), &m->wanted[i]);
	OBJECT_EACH(const struct discovery_v1_endpoint_slice, s, *present) {
		struct str ports = ports_key(s, m->r->arena);
		struct wanted *w = ret ? NULL : map_get(&by_ports, ports);

		if (ret)
			continue;
		if (!w) {
			ret = drop(m->r, s, err);
			continue;
		}
		if (w->next)
			map_set(&by_ports, ports, w->next);
		else
			map_remove(&by_ports, ports);
		ret = adjust(m, s, TAKE(w->slice), err);
	}
	map_deinit(&by_ports, NULL);
	for (size_t i = 0; i < m->n_wanted && !ret; i++)
		if (m->wanted[i].slice)
			ret = make(m, m->wanted[i].slice, key, err);
	return namespace_ends(ret, err) ? 0 : ret;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_endpoints *e = cache_object(r, &core_v1_endpoints_type, key);
	const struct core_v1_service *s = cache_object(r, &core_v1_service_type, key);
	struct mirror m = { .r = r, .e = e };

	if (!may_act(r, key))
		return 0;
	struct objects present = service_slices(r, key, OUR_NAME);

	if (mirrored(e, s))
		LIST_EACH(sub, &e->subsets) {
			add_slice(&m, sub, "IPv4");
			add_slice(&m, sub, "IPv6");
		}
	return put(&m, &present, key, err);
}

static void map_slice(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	map_own_slice(r, ev, old, now, OUR_NAME);
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

const struct controller slice_mirroring_controller = {
	.name = "endpointslicemirroring",
	.bulk = true, /* an Endpoints object of thousands of subsets is as many slices */
	.component = "endpoint-slice-mirroring-controller",
	.watches = {
		{ &core_v1_endpoints_type, map_self },
		{ &core_v1_service_type, map_self },
		{ &discovery_v1_endpoint_slice_type, map_slice },
	},
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
