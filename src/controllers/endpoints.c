/* The Endpoints of each service with a selector. Upstream: pkg/controller/endpoint. One object a service, at most 1,000 addresses; pods with
 * the same ports share a subset. */
#include "controllers/endpoint.h"

#include "controllers/table.h"

#define ADDRESSES_MOST 1000
#define OVER_CAPACITY "endpoints.kubernetes.io/over-capacity"
#define MANAGED_BY "endpoints.kubernetes.io/managed-by"

static struct core_v1_endpoint_address address(const struct endpoint *e, struct arena *a)
{
	return (struct core_v1_endpoint_address){ .ip = e->ip,
		.hostname = e->hostname,
		.node_name = e->pod->spec.node_name,
		.target_ref = pod_reference(e->pod, a) };
}

static int address_cmp(const void *pa, const void *pb)
{
	const struct core_v1_endpoint_address *a = pa, *b = pb;

	return str_cmp(a->ip, b->ip);
}

static void sort_addresses(struct core_v1_endpoint_address_items *l)
{
	if (l->len)
		qsort(l->items, l->len, sizeof(*l->items), address_cmp);
}

/* Ready ones have room before the others. */
static bool cut_to_capacity(struct endpoint_list *l)
{
	size_t n = 0;

	if (l->len <= ADDRESSES_MOST)
		return false;
	size_t ready = 0;

	for (size_t i = 0; i < l->len; i++)
		ready += l->items[i].ready;
	size_t others = ready >= ADDRESSES_MOST ? 0 : ADDRESSES_MOST - ready;

	ready = MIN(ready, (size_t)ADDRESSES_MOST);
	for (size_t i = 0; i < l->len; i++) {
		size_t *room = l->items[i].ready ? &ready : &others;

		if (*room) {
			--*room;
			l->items[n++] = l->items[i];
		}
	}
	l->len = n;
	return true;
}

static void fill_subsets(struct run *r, const struct core_v1_service *s,
	const struct endpoint_list *l, struct core_v1_endpoint_subset_items *subsets)
{
	const struct endpoint_ports *last = NULL;
	struct core_v1_endpoint_subset *sub = NULL;

	for (size_t i = 0; i < l->len; i++) {
		const struct endpoint *e = &l->items[i];

		if (!e->ports.len && !service_headless(s))
			continue; /* none of the service's named ports is this pod's */
		if (!e->ports.len && s->spec.ports.len)
			continue;
		if (!last || !endpoint_ports_equal(last, &e->ports)) {
			sub = LIST_ADD(r->arena, subsets);
			last = &e->ports;
			for (size_t k = 0; k < e->ports.len; k++) {
				const struct endpoint_port *p = &e->ports.items[k];

				*LIST_ADD(r->arena, &sub->ports) =
					(struct core_v1_endpoint_port){ p->name, p->port,
						p->protocol, p->app_protocol };
			}
		}
		if (e->ready)
			*LIST_ADD(r->arena, &sub->addresses) = address(e, r->arena);
		else
			*LIST_ADD(r->arena, &sub->not_ready_addresses) = address(e, r->arena);
	}
	LIST_EACH(x, subsets) {
		sort_addresses(&x->addresses);
		sort_addresses(&x->not_ready_addresses);
	}
}

static bool same(const struct core_v1_endpoints *a, const struct core_v1_endpoints *b)
{
	const struct core_v1_endpoints x = { .metadata.labels = a->metadata.labels,
		.subsets = a->subsets },
				       y = { .metadata.labels = b->metadata.labels,
					       .subsets = b->subsets };

	return model_equal(&core_v1_endpoints_type, &x, &y) &&
		str_eq(str_map_get(&a->metadata.annotations, STR(OVER_CAPACITY)),
			str_map_get(&b->metadata.annotations, STR(OVER_CAPACITY)));
}

static int drop(struct run *r, const struct core_v1_endpoints *present, struct err *err)
{
	const struct client_delete o = { .grace_seconds = -1, .uid = present->metadata.uid };
	int ret = client_delete(r->client, &core_v1_endpoints_type, present->metadata.namespace,
		present->metadata.name, &o, err);

	return ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT ? 0 : ret;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_service *s = cache_object(r, &core_v1_service_type, key);
	const struct core_v1_endpoints *present = cache_object(r, &core_v1_endpoints_type, key);
	struct core_v1_endpoints *e = model_new(&core_v1_endpoints_type, r->arena);
	struct str families[2];
	int ret;

	if (!s) /* what users wrote for services without selectors goes with its service too */
		return present &&
				!str_map_has(&present->metadata.annotations,
					STR("control-plane.alpha.kubernetes.io/leader"))
			? drop(r, present, err)
			: 0;
	if (!s->spec.selector.len || str_eqz(s->spec.type, "ExternalName"))
		return 0;
	service_families(s, families);
	struct endpoint_list l =
		service_endpoints(r, s, families[0], s->spec.publish_not_ready_addresses);

	if (present)
		e->metadata = *(struct meta_v1_object_meta *)model_copy(
			&meta_v1_object_meta_type, &present->metadata, r->arena);
	e->metadata.namespace = s->metadata.namespace;
	e->metadata.name = s->metadata.name;
	e->metadata.labels = service_object_labels(s, r->arena);
	str_map_set(r->arena, &e->metadata.labels, STR(MANAGED_BY), STR("endpoint-controller"));
	if (cut_to_capacity(&l))
		str_map_set(
			r->arena, &e->metadata.annotations, STR(OVER_CAPACITY), STR("truncated"));
	else
		str_map_remove(&e->metadata.annotations, STR(OVER_CAPACITY));
	fill_subsets(r, s, &l, &e->subsets);
	if (present && same(present, e))
		return 0;
	ret = present
		? client_update(r->client, &core_v1_endpoints_type, NULL, e, r->arena, NULL, err)
		: client_create(r->client, &core_v1_endpoints_type, e->metadata.namespace, e,
			  r->arena, NULL, err);
	if (namespace_ends(ret, err))
		return 0;
	if (ret == CLIENT_EXISTS)
		return CLIENT_CONFLICT; /* the cache is behind */
	if (ret && ret != CLIENT_CONFLICT)
		event_record(r->events, &core_v1_service_type, s, "Warning",
			present ? "FailedToUpdateEndpoint" : "FailedToCreateEndpoint",
			"Failed to %s endpoint " STR_FMT ": %s", present ? "update" : "create",
			STR_ARG(key), err->text);
	return ret;
}

/* An Endpoints object that someone removed is made again; one of ours that outlived its service goes. What users write without a service stays. */
static void map_endpoints(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (ev == INFORMER_DELETED ||
		(ev == INFORMER_ADDED && str_map_has(&now->meta->labels, STR(MANAGED_BY))))
		enqueue(r, (now ? now : old)->key);
}

const struct controller endpoints_controller = {
	.name = "endpoints",
	.component = "endpoint-controller",
	.watches = {
		{ &core_v1_service_type, map_self },
		{ &core_v1_pod_type, map_pod_services },
		{ &core_v1_endpoints_type, map_endpoints },
	},
	.reconcile = reconcile,
};
