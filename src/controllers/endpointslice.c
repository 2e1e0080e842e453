/* The EndpointSlices of each service with a selector. Upstream: pkg/controller/endpointslice and its reconciler.
 *
 * 1. A slice holds at most 100 endpoints of one address family that share their ports.
 * 2. An endpoint stays in the slice where it is; new ones fill slices with room, fullest first, then make new slices: a change
 *    touches as few slices as it can.
 * 3. A service without endpoints has one empty slice a family.
 * 4. Slices that the cache does not show yet are expected: no second one is made for the same endpoints. */
#include "controllers/endpoint.h"

#include "controllers/table.h"

#define SLICE_MOST 100
#define OUR_NAME "endpointslice-controller.k8s.io"
#define ZONE_LABEL "topology.kubernetes.io/zone"

/* A slice as it will be. */
struct plan {
	const struct discovery_v1_endpoint_slice *present; /* NULL: to be made */
	struct endpoint_ports ports;
	const struct endpoint *ends[SLICE_MOST];
	size_t n;
};

struct planning {
	struct run *r;
	const struct core_v1_service *s;
	struct str family;
	struct plan **plans;
	size_t n_plans;
};

static struct plan *add_plan(struct planning *p, const struct discovery_v1_endpoint_slice *present)
{
	struct plan *n = arena_alloc(p->r->arena, sizeof(*n));

	n->present = present;
	return *ARENA_ADD(p->r->arena, p->plans, p->n_plans) = n;
}

/* trafficDistribution: whom an endpoint is for; proxies near it then prefer it. Only ready ones are for somebody. */
static void add_hints(struct run *r, const struct core_v1_service *s, const struct endpoint *e,
	struct discovery_v1_endpoint *d)
{
	struct str how = s->spec.traffic_distribution;
	bool same_node = str_eqz(how, "PreferSameNode");

	if (!e->ready || !how.len)
		return;
	if (!d->zone.len && !(same_node && d->node_name.len))
		return;
	d->hints = arena_alloc(r->arena, sizeof(*d->hints));
	if (d->zone.len)
		LIST_ADD(r->arena, &d->hints->for_zones)->name = d->zone;
	if (same_node && d->node_name.len)
		LIST_ADD(r->arena, &d->hints->for_nodes)->name = d->node_name;
}

static struct discovery_v1_endpoint build_endpoint(
	struct run *r, const struct core_v1_service *s, const struct endpoint *e)
{
	struct discovery_v1_endpoint d = { .target_ref = pod_reference(e->pod, r->arena),
		.node_name = e->pod->spec.node_name };
	const struct core_v1_node *node = e->pod->spec.node_name.len
		? cache_object(r, &core_v1_node_type, e->pod->spec.node_name)
		: NULL;

	*LIST_ADD(r->arena, &d.addresses) = e->ip;
	d.conditions.ready = (struct opt_bool)SOME(e->ready);
	d.conditions.serving = (struct opt_bool)SOME(e->serving);
	d.conditions.terminating = (struct opt_bool)SOME(e->terminating);
	if (e->hostname.len)
		d.hostname = e->hostname;
	if (!d.node_name.len)
		d.node_name = STR_NONE;
	if (node)
		d.zone = str_map_get(&node->metadata.labels, STR(ZONE_LABEL));
	add_hints(r, s, e, &d);
	return d;
}

static struct endpoint_ports ports_of_slice(
	const struct discovery_v1_endpoint_slice *s, struct arena *a)
{
	struct endpoint_ports ps = { arena_alloc(a, (s->ports.len + 1) * sizeof(*ps.items)), 0 };

	LIST_EACH(p, &s->ports)
		ps.items[ps.len++] = (struct endpoint_port){ p->name, p->protocol, p->app_protocol,
			p->port.value };
	return ps;
}

/* Rule 2, first half: endpoints that have a place keep it. placed: uid -> anything. */
static void keep_places(struct planning *p, const struct endpoint_list *l, struct map *placed)
{
	struct map by_uid = { 0 };

	for (size_t i = 0; i < l->len; i++)
		map_set(&by_uid, l->items[i].pod->metadata.uid, &l->items[i]);
	for (size_t i = 0; i < p->n_plans; i++) {
		struct plan *plan = p->plans[i];

		LIST_EACH(d, &plan->present->endpoints) {
			struct str uid = d->target_ref ? d->target_ref->uid : STR_NONE;
			const struct endpoint *e = uid.len ? map_get(&by_uid, uid) : NULL;

			if (e && plan->n < SLICE_MOST && !map_get(placed, uid) &&
				endpoint_ports_equal(&e->ports, &plan->ports)) {
				plan->ends[plan->n++] = e;
				map_set(placed, uid, plan);
			}
		}
	}
	map_deinit(&by_uid, NULL);
}

static struct plan *roomiest(struct planning *p, const struct endpoint_ports *ports)
{
	struct plan *best = NULL;

	for (size_t i = 0; i < p->n_plans; i++) {
		struct plan *c = p->plans[i];

		if (c->n >= SLICE_MOST)
			continue;
		if (!c->n && c->present && !endpoint_ports_equal(&c->ports, ports) && !best)
			best = c; /* an emptied slice may take up other ports */
		if (endpoint_ports_equal(&c->ports, ports) &&
			(!best || !endpoint_ports_equal(&best->ports, ports) || c->n > best->n))
			best = c;
	}
	return best;
}

static void place_rest(struct planning *p, const struct endpoint_list *l, struct map *placed)
{
	struct plan *last = NULL;

	for (size_t i = 0; i < l->len; i++) {
		const struct endpoint *e = &l->items[i];

		if (map_get(placed, e->pod->metadata.uid))
			continue;
		if (!last || last->n >= SLICE_MOST ||
			!endpoint_ports_equal(&last->ports, &e->ports))
			last = roomiest(p, &e->ports);
		if (!last)
			last = add_plan(p, NULL);
		last->ports = e->ports;
		last->ends[last->n++] = e;
	}
}

static struct str_map slice_labels(struct run *r, const struct core_v1_service *s)
{
	struct str_map m = service_object_labels(s, r->arena);

	str_map_set(r->arena, &m, STR(SERVICE_NAME_LABEL), s->metadata.name);
	str_map_set(r->arena, &m, STR(MANAGED_BY_SLICES), STR(OUR_NAME));
	return m;
}

static struct discovery_v1_endpoint_slice *build(struct planning *p, const struct plan *plan)
{
	struct arena *a = p->r->arena;
	struct discovery_v1_endpoint_slice *s = model_new(&discovery_v1_endpoint_slice_type, a);

	if (plan->present) {
		s->metadata = plan->present->metadata;
	} else {
		s->metadata.generate_name = arena_fmt(a, STR_FMT "-", STR_ARG(p->s->metadata.name));
		s->metadata.namespace = p->s->metadata.namespace;
		*LIST_ADD(a, &s->metadata.owner_references) =
			controller_reference(&core_v1_service_type, p->s, a);
	}
	s->metadata.labels = slice_labels(p->r, p->s);
	s->address_type = p->family;
	s->endpoints.items = MODEL_EMPTY;
	for (size_t i = 0; i < plan->n; i++)
		*LIST_ADD(a, &s->endpoints) = build_endpoint(p->r, p->s, plan->ends[i]);
	for (size_t i = 0; i < plan->ports.len; i++) {
		const struct endpoint_port *e = &plan->ports.items[i];

		*LIST_ADD(a, &s->ports) =
			(struct discovery_v1_endpoint_port){ .name = e->name.len ? e->name
										 : STR(""),
				.protocol = e->protocol,
				.port = SOME(e->port),
				.app_protocol = e->app_protocol };
	}
	return s;
}

static int write_plan(struct planning *p, const struct plan *plan, struct str key, struct err *err)
{
	struct run *r = p->r;
	const struct type *t = &discovery_v1_endpoint_slice_type;
	int ret;

	if (plan->present && !plan->n &&
		p->n_plans > 1) { /* rule 3: one stays, the caller sees to it */
		const struct client_delete o = { .grace_seconds = -1,
			.uid = plan->present->metadata.uid };

		expect_deletion(r->state, key, plan->present->metadata.uid);
		ret = client_delete(r->client, t, plan->present->metadata.namespace,
			plan->present->metadata.name, &o, err);
		if (ret)
			deletion_observed(r->state, key, plan->present->metadata.uid);
		return ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT ? 0 : ret;
	}
	struct discovery_v1_endpoint_slice *s = build(p, plan);

	if (!plan->present) {
		expect_creations(r->state, key, 1);
		ret = client_create(r->client, t, s->metadata.namespace, s, r->arena, NULL, err);
		if (ret)
			creation_observed(r->state, key);
		return ret;
	}
	const struct discovery_v1_endpoint_slice old = { .metadata.labels =
								 plan->present->metadata.labels,
		.address_type = plan->present->address_type,
		.endpoints = plan->present->endpoints,
		.ports = plan->present->ports },
						 now = { .metadata.labels = s->metadata.labels,
							 .address_type = s->address_type,
							 .endpoints = s->endpoints,
							 .ports = s->ports };

	if (model_equal(t, &old, &now))
		return 0;
	return client_update(r->client, t, NULL, s, r->arena, NULL, err);
}

static int reconcile_family(
	struct planning *p, const struct objects *slices, struct str key, struct err *err)
{
	struct endpoint_list l = service_endpoints(p->r, p->s, p->family, true);
	struct map placed = { 0 };
	int first = 0;

	OBJECT_EACH(const struct discovery_v1_endpoint_slice, s, *slices)
		if (str_eq(s->address_type, p->family) &&
			time_is_zero(s->metadata.deletion_timestamp))
			add_plan(p, s)->ports = ports_of_slice(s, p->r->arena);
	keep_places(p, &l, &placed);
	place_rest(p, &l, &placed);
	map_deinit(&placed, NULL);
	if (!p->n_plans)
		add_plan(p, NULL);
	size_t used = 0;

	for (size_t i = 0; i < p->n_plans; i++)
		used += p->plans[i]->n > 0;
	for (size_t i = 0; i < p->n_plans; i++) {
		struct err e;

		if (!used && i == 0 && p->n_plans > 1) { /* rule 3: the first empty one stays */
			struct planning only = *p;

			only.n_plans = 1;
			p->plans[0]->ports.len = 0;
			int r = write_plan(&only, p->plans[0], key, &e);

			first = first ? first : r;
			continue;
		}
		if (!used)
			p->plans[i]->ports.len = 0;
		int r = write_plan(p, p->plans[i], key, &e);

		if (r && !first) {
			first = r;
			if (err)
				*err = e;
		}
	}
	return first;
}

/* Families that the service has no more, or all of them when the service is gone. */
static int drop_others(struct run *r, const struct objects *slices, const struct str *families,
	size_t n, struct err *err)
{
	OBJECT_EACH(const struct discovery_v1_endpoint_slice, s, *slices) {
		bool keep = false;

		for (size_t i = 0; i < n; i++)
			keep |= str_eq(families[i], s->address_type);
		if (keep)
			continue;
		const struct client_delete o = { .grace_seconds = -1, .uid = s->metadata.uid };
		int ret = client_delete(r->client, &discovery_v1_endpoint_slice_type,
			s->metadata.namespace, s->metadata.name, &o, err);

		if (ret && ret != CLIENT_NOT_FOUND && ret != CLIENT_CONFLICT)
			return ret;
	}
	return 0;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_service *s = cache_object(r, &core_v1_service_type, key);
	struct str families[2];
	int ret = 0;

	if (!s || !time_is_zero(s->metadata.deletion_timestamp)) {
		struct objects gone = service_slices(r, key, OUR_NAME);

		expectations_forget(r->state, key);
		return drop_others(r, &gone, NULL, 0, err);
	}
	if (!s->spec.selector.len || str_eqz(s->spec.type, "ExternalName") || !may_act(r, key))
		return 0;
	struct objects slices = service_slices(r, key, OUR_NAME);
	size_t n = service_families(s, families);

	for (size_t i = 0; !ret && i < n; i++) {
		struct planning p = { .r = r, .s = s, .family = families[i] };

		ret = reconcile_family(&p, &slices, key, err);
	}
	if (!ret)
		ret = drop_others(r, &slices, families, n, err);
	if (namespace_ends(ret, err))
		return 0;
	if (ret && ret != CLIENT_CONFLICT)
		event_record(r->events, &core_v1_service_type, s, "Warning",
			"FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Service " STR_FMT ": %s", STR_ARG(key),
			err->text);
	return ret;
}

static void map_slice(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	map_own_slice(r, ev, old, now, OUR_NAME);
}

/* Zones are written into endpoints. */
static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct cached_list services;

	if (!old || !now ||
		str_eq(str_map_get(&old->meta->labels, STR(ZONE_LABEL)),
			str_map_get(&now->meta->labels, STR(ZONE_LABEL))))
		return;
	informer_list(run_informer(r, &core_v1_service_type), STR_NONE, &services);
	for (size_t i = 0; i < services.len; i++)
		enqueue(r, services.items[i]->key);
	cached_list_deinit(&services);
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

const struct controller endpointslice_controller = {
	.name = "endpointslice",
	.component = "endpoint-slice-controller",
	.watches = {
		{ &core_v1_service_type, map_self },
		{ &core_v1_pod_type, map_pod_services },
		{ &discovery_v1_endpoint_slice_type, map_slice },
		{ &core_v1_node_type, map_node },
	},
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
