/* Which pods stand behind a service. Upstream: endpoints controller's and endpointslice's utilities. */
#include "controllers/endpoint.h"

#define GATHER_MS 3 /* events within this time make one reconcile of a service */

bool service_headless(const struct core_v1_service *s)
{
	return str_eqz(s->spec.cluster_ip, "None");
}

static bool is_ipv6(struct str ip)
{
	return ip.len && memchr(ip.p, ':', ip.len);
}

size_t service_families(const struct core_v1_service *s, struct str ret_families[2])
{
	size_t n = 0;

	LIST_EACH(f, &s->spec.ip_families)
		if (n < 2)
			ret_families[n++] = *f;
	if (!n)
		ret_families[n++] = is_ipv6(s->spec.cluster_ip) ? STR("IPv6") : STR("IPv4");
	return n;
}

static struct str pod_address(const struct core_v1_pod *p, bool v6)
{
	LIST_EACH(i, &p->status.pod_ips)
		if (i->ip.len && is_ipv6(i->ip) == v6)
			return i->ip;
	return p->status.pod_ip.len && is_ipv6(p->status.pod_ip) == v6 ? p->status.pod_ip
								       : STR_NONE;
}

static int32_t port_in(const struct core_v1_container_items *containers, bool sidecars,
	struct str name, struct str protocol)
{
	LIST_EACH(c, containers) {
		if (sidecars && !str_eqz(c->restart_policy, "Always"))
			continue;
		LIST_EACH(p, &c->ports)
			if (str_eq(p->name, name) &&
				str_eq(p->protocol.len ? p->protocol : STR("TCP"), protocol))
				return p->container_port;
	}
	return 0;
}

/* 0: the pod has no port of that name. */
static int32_t target_port(const struct core_v1_pod *p, const struct core_v1_service_port *sp)
{
	if (sp->target_port.kind == IOS_INT)
		return sp->target_port.num ? sp->target_port.num : sp->port;
	if (sp->target_port.kind == IOS_NONE)
		return sp->port;
	struct str protocol = sp->protocol.len ? sp->protocol : STR("TCP");
	int32_t n = port_in(&p->spec.containers, false, sp->target_port.text, protocol);

	return n ? n : port_in(&p->spec.init_containers, true, sp->target_port.text, protocol);
}

static struct endpoint_ports ports_of(
	struct run *r, const struct core_v1_service *s, const struct core_v1_pod *p)
{
	struct endpoint_ports ps = {
		arena_alloc(r->arena, (s->spec.ports.len + 1) * sizeof(*ps.items)), 0
	};

	LIST_EACH(sp, &s->spec.ports) {
		int32_t n = target_port(p, sp);

		if (n)
			ps.items[ps.len++] = (struct endpoint_port){ sp->name,
				sp->protocol.len ? sp->protocol : STR("TCP"), sp->app_protocol, n };
	}
	return ps;
}

static int ports_cmp(const struct endpoint_ports *a, const struct endpoint_ports *b)
{
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	for (size_t i = 0; i < a->len; i++) {
		const struct endpoint_port *x = &a->items[i], *y = &b->items[i];
		int r = str_cmp(x->name, y->name);

		r = r ? r : str_cmp(x->protocol, y->protocol);
		r = r ? r : str_cmp(x->app_protocol, y->app_protocol);
		if (r || x->port != y->port)
			return r ? r : x->port < y->port ? -1 : 1;
	}
	return 0;
}

bool endpoint_ports_equal(const struct endpoint_ports *a, const struct endpoint_ports *b)
{
	return !ports_cmp(a, b);
}

static int endpoint_cmp(const void *pa, const void *pb)
{
	const struct endpoint *a = pa, *b = pb;
	int r = ports_cmp(&a->ports, &b->ports);

	return r ? r : str_cmp(a->pod->metadata.name, b->pod->metadata.name);
}

static bool selects(const struct core_v1_service *s, const struct str_map *labels)
{
	if (!s->spec.selector.len)
		return false;
	LIST_EACH(p, &s->spec.selector) {
		struct str v = str_map_get(labels, p->key);

		if (!v.p || !str_eq(v, p->value))
			return false;
	}
	return true;
}

static bool belongs(const struct core_v1_pod *p, bool with_terminating)
{
	return !pod_ended(p) && (with_terminating || time_is_zero(p->metadata.deletion_timestamp));
}

struct endpoint_list service_endpoints(
	struct run *r, const struct core_v1_service *s, struct str family, bool with_terminating)
{
	struct objects pods = cache_objects(r, &core_v1_pod_type, s->metadata.namespace);
	bool v6 = str_eqz(family, "IPv6"), unready_too = s->spec.publish_not_ready_addresses;
	struct endpoint_list l = { 0 };

	for (size_t i = 0; i < pods.len; i++) {
		const struct core_v1_pod *p = pods.items[i];
		struct str ip = pod_address(p, v6);

		if (!ip.len || !selects(s, &p->metadata.labels) || !belongs(p, with_terminating))
			continue;
		bool going = !time_is_zero(p->metadata.deletion_timestamp), serving = pod_ready(p);
		struct endpoint *e = LIST_ADD(r->arena, &l);

		*e = (struct endpoint){ .pod = p,
			.ip = ip,
			.ports = ports_of(r, s, p),
			.serving = serving,
			.terminating = going,
			.ready = unready_too || (serving && !going) };
		if (p->spec.hostname.len && str_eq(p->spec.subdomain, s->metadata.name))
			e->hostname = p->spec.hostname;
	}
	if (l.len)
		qsort(l.items, l.len, sizeof(*l.items), endpoint_cmp);
	return l;
}

struct core_v1_object_reference *pod_reference(const struct core_v1_pod *p, struct arena *a)
{
	struct core_v1_object_reference *ref = arena_alloc(a, sizeof(*ref));

	*ref = (struct core_v1_object_reference){ .kind = STR("Pod"),
		.namespace = p->metadata.namespace,
		.name = p->metadata.name,
		.uid = p->metadata.uid };
	return ref;
}

struct objects service_slices(struct run *r, struct str key, const char *managed_by)
{
	struct objects all = cache_indexed(r, &discovery_v1_endpoint_slice_type, "service:", key),
		       ours = all;

	ours.len = 0;
	for (size_t i = 0; i < all.len; i++)
		if (str_eqz(str_map_get(&model_meta(&discovery_v1_endpoint_slice_type, all.items[i])
						 ->labels,
				    STR(MANAGED_BY_SLICES)),
			    managed_by))
			ours.items[ours.len++] = all.items[i];
	return ours;
}

void map_own_slice(struct run *r, enum informer_event ev, const struct cached *old,
	const struct cached *now, const char *managed_by)
{
	const struct cached *c = now ? now : old;
	struct str service = str_map_get(&c->meta->labels, STR(SERVICE_NAME_LABEL));
	struct buf key CLEAN_BUF = { 0 };

	if (!service.len ||
		!str_eqz(str_map_get(&c->meta->labels, STR(MANAGED_BY_SLICES)), managed_by))
		return;
	buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(c->meta->namespace), STR_ARG(service));
	if (ev == INFORMER_ADDED)
		creation_observed(r->state, buf_str(&key));
	else if (ev == INFORMER_DELETED)
		deletion_observed(r->state, buf_str(&key), c->meta->uid);
	enqueue_after(r, buf_str(&key), GATHER_MS);
}

struct str_map service_object_labels(const struct core_v1_service *s, struct arena *a)
{
	struct str_map m = { 0 };

	LIST_EACH(l, &s->metadata.labels)
		str_map_set(a, &m, l->key, l->value);
	str_map_remove(&m, STR(HEADLESS_LABEL));
	if (service_headless(s))
		str_map_set(a, &m, STR(HEADLESS_LABEL), STR(""));
	return m;
}

/* Does a change of the pod change what an endpoint says? */
static bool matters(const struct core_v1_pod *a, const struct core_v1_pod *b)
{
	return pod_ready(a) != pod_ready(b) || pod_ended(a) != pod_ended(b) ||
		time_is_zero(a->metadata.deletion_timestamp) !=
		time_is_zero(b->metadata.deletion_timestamp) ||
		!str_eq(pod_address(a, false), pod_address(b, false)) ||
		!str_eq(pod_address(a, true), pod_address(b, true)) ||
		!str_eq(a->spec.node_name, b->spec.node_name) ||
		!str_eq(a->spec.hostname, b->spec.hostname) ||
		!str_eq(a->spec.subdomain, b->spec.subdomain);
}

static bool same_labels(const struct str_map *a, const struct str_map *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!str_eq(a->items[i].key, b->items[i].key) ||
			!str_eq(a->items[i].value, b->items[i].value))
			return false;
	return true;
}

static void enqueue_selecting(struct run *r, const struct cached *pod)
{
	LIST_EACH(l, &pod->meta->labels) {
		struct buf value CLEAN_BUF = { 0 };
		struct cached_list services;

		buf_addf(&value, "selects:" STR_FMT "/" STR_FMT "=" STR_FMT,
			STR_ARG(pod->meta->namespace), STR_ARG(l->key), STR_ARG(l->value));
		informer_by_index(
			run_informer(r, &core_v1_service_type), buf_str(&value), &services);
		for (size_t i = 0; i < services.len; i++)
			if (selects(services.items[i]->obj, &pod->meta->labels))
				enqueue_after(r, services.items[i]->key, GATHER_MS);
		cached_list_deinit(&services);
	}
}

void map_pod_services(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	bool relabelled = old && now && !same_labels(&old->meta->labels, &now->meta->labels);

	if (old && now && !relabelled && !matters(old->obj, now->obj))
		return;
	enqueue_selecting(r, now ? now : old);
	if (relabelled)
		enqueue_selecting(r, old);
}
