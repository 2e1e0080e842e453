/* Gives services of type LoadBalancer the nodes' own addresses, where no cloud has others: the nodes' proxies answer at them. What k3s calls servicelb;
 * upstream leaves it to a cloud's controller (pkg/controller service).
 *
 * 1. A service with a loadBalancerClass is somebody else's, and is never touched.
 * 2. Ready nodes without the label that excludes them from load balancers; with externalTrafficPolicy Local those with a ready endpoint.
 * 3. A port of the nodes is one service's: the older one has it, as in the proxies. Ports of the API server and of kubelets are nobody's.
 * 4. Which addresses are due depends on all services and nodes, so a change of one may lead to others being looked at. */
#include "controllers/endpoint.h"

#include "controllers/table.h"

#define EXCLUDE_LABEL "node.kubernetes.io/exclude-from-external-load-balancers"

static bool is_ours(const struct core_v1_service *s)
{
	return str_eqz(s->spec.type, "LoadBalancer") && !s->spec.load_balancer_class.len &&
		time_is_zero(s->metadata.deletion_timestamp);
}

/* ---- nodes ---- */

static bool is_ready(const struct core_v1_node *n)
{
	LIST_EACH(c, &n->status.conditions) {
		if (str_eqz(c->type, "Ready"))
			return str_eqz(c->status, "True");
	}
	return false;
}

static bool may_balance(const struct core_v1_node *n)
{
	return is_ready(n) && time_is_zero(n->metadata.deletion_timestamp) &&
		!str_map_has(&n->metadata.labels, STR(EXCLUDE_LABEL));
}

/* The one that the world outside knows, else the one inside. IPv4. */
static struct str address_of(const struct core_v1_node *n)
{
	static const char *const types[] = { "ExternalIP", "InternalIP" };

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		LIST_EACH(a, &n->status.addresses) {
			if (str_eqz(a->type, types[i]) && str_find(a->address, ':') < 0)
				return a->address;
		}
	return STR_NONE;
}

static bool has_endpoint(const struct objects *slices, struct str node)
{
	OBJECT_EACH(const struct discovery_v1_endpoint_slice, s, *slices) {
		LIST_EACH(e, &s->endpoints) {
			if (str_eq(e->node_name, node) &&
				(!e->conditions.ready.set || e->conditions.ready.value))
				return true;
		}
	}
	return false;
}

/* ---- ports ---- */

static bool is_older(const struct core_v1_service *a, const struct core_v1_service *b)
{
	int r = time_cmp(a->metadata.creation_timestamp, b->metadata.creation_timestamp);

	if (!r)
		r = str_cmp(a->metadata.namespace, b->metadata.namespace);
	return r ? r < 0 : str_cmp(a->metadata.name, b->metadata.name) < 0;
}

static bool same_port(const struct core_v1_service_port *a, const struct core_v1_service_port *b)
{
	return a->port == b->port &&
		str_eq(a->protocol.len ? a->protocol : STR("TCP"),
			b->protocol.len ? b->protocol : STR("TCP"));
}

static bool is_of_the_node(struct run *r, const struct core_v1_service_port *p)
{
	const struct core_v1_service *api =
		cache_object(r, &core_v1_service_type, STR("default/kubernetes"));
	struct objects nodes = cache_objects(r, &core_v1_node_type, STR_NONE);

	if (p->protocol.len && !str_eqz(p->protocol, "TCP"))
		return false;
	if (api)
		LIST_EACH(q, &api->spec.ports) {
			if (q->target_port.kind == IOS_INT && q->target_port.num == p->port)
				return true;
		}
	OBJECT_EACH(const struct core_v1_node, n, nodes)
		if (n->status.daemon_endpoints.kubelet_endpoint.port == p->port)
			return true;
	return false;
}

/* Why the service gets no address; empty: it may. */
static struct str obstacle(struct run *r, const struct core_v1_service *s)
{
	struct objects all = cache_objects(r, &core_v1_service_type, STR_NONE);

	LIST_EACH(p, &s->spec.ports) {
		if (is_of_the_node(r, p))
			return arena_fmt(r->arena,
				"port %d of the nodes is the API server's or the kubelets' own",
				p->port);
		OBJECT_EACH(const struct core_v1_service, o, all) {
			if (o == s || !is_ours(o) || !is_older(o, s))
				continue;
			LIST_EACH(q, &o->spec.ports) {
				if (same_port(p, q))
					return arena_fmt(r->arena,
						"port %d of the nodes is held by service " STR_FMT
						"/" STR_FMT,
						p->port, STR_ARG(o->metadata.namespace),
						STR_ARG(o->metadata.name));
			}
		}
	}
	return STR_NONE;
}

/* ---- one service ---- */

static int by_text(const void *x, const void *y)
{
	return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

static void wanted(
	struct run *r, const struct core_v1_service *s, struct str key, struct str_list *ret)
{
	struct objects nodes = cache_objects(r, &core_v1_node_type, STR_NONE),
		       slices =
			       cache_indexed(r, &discovery_v1_endpoint_slice_type, "service:", key);
	bool local = str_eqz(s->spec.external_traffic_policy, "Local");

	OBJECT_EACH(const struct core_v1_node, n, nodes) {
		struct str ip = address_of(n);

		if (ip.len && may_balance(n) && (!local || has_endpoint(&slices, n->metadata.name)))
			*LIST_ADD(r->arena, ret) = ip;
	}
	if (ret->len)
		qsort(ret->items, ret->len, sizeof(*ret->items), by_text);
}

static bool has_already(const struct core_v1_service *s, const struct str_list *ips)
{
	const struct core_v1_load_balancer_status *now = &s->status.load_balancer;
	bool same = now->ingress.len == ips->len;

	for (size_t i = 0; same && i < ips->len; i++)
		same = str_eq(now->ingress.items[i].ip, ips->items[i]);
	return same;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_service *s = cache_object(r, &core_v1_service_type, key);
	struct str_list ips = { 0 };
	struct core_v1_service *now;
	struct str why;

	if (!s || !is_ours(s))
		return 0;
	why = obstacle(r, s);
	if (!why.len)
		wanted(r, s, key, &ips);
	else
		event_record(r->events, &core_v1_service_type, s, "Warning",
			"SyncLoadBalancerFailed", "Error syncing load balancer: " STR_FMT,
			STR_ARG(why));
	if (has_already(s, &ips))
		return 0;
	now = model_copy(&core_v1_service_type, s, r->arena);
	now->status.load_balancer.ingress.len = 0;
	LIST_EACH(ip, &ips)
		LIST_ADD(r->arena, &now->status.load_balancer.ingress)->ip = *ip;
	int ret =
		client_update(r->client, &core_v1_service_type, "status", now, r->arena, NULL, err);
	if (!ret && ips.len)
		event_record(r->events, &core_v1_service_type, s, "Normal", "EnsuredLoadBalancer",
			"Ensured load balancer");
	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

/* ---- what leads to whom ---- */

static void enqueue_ours(struct run *r)
{
	struct cached_list services;

	informer_list(run_informer(r, &core_v1_service_type), STR_NONE, &services);
	for (size_t i = 0; i < services.len; i++)
		if (is_ours(services.items[i]->obj))
			enqueue(r, services.items[i]->key);
	cached_list_deinit(&services);
}

static void map_service(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	bool was = old && is_ours(old->obj), is = now && is_ours(now->obj);

	if (is)
		enqueue(r, now->key);
	/* A port was given back, perhaps. */
	if (was && (!is || old->meta->generation != now->meta->generation))
		enqueue_ours(r);
}

static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_node *a = old ? old->obj : NULL, *b = now ? now->obj : NULL;

	if (!a || !b || may_balance(a) != may_balance(b) || !str_eq(address_of(a), address_of(b)))
		enqueue_ours(r);
}

static void map_slice(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	struct str service = str_map_get(&c->meta->labels, STR(SERVICE_NAME_LABEL));
	CLEAN_ARENA struct arena *a = arena_new(256);

	if (service.len)
		enqueue(r, key_of(a, c->meta->namespace, service));
}

static bool enabled(const struct controllers_config *c)
{
	return c->node_load_balancers;
}

const struct controller service_lb_controller = {
	.name = "service-lb",
	.component = "service-controller",
	.watches = {
		{ &core_v1_service_type, map_service },
		{ &core_v1_node_type, map_node },
		{ &discovery_v1_endpoint_slice_type, map_slice },
	},
	.enabled = enabled,
	.reconcile = reconcile,
};
