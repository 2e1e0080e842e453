/* Services: addresses and node ports are claimed before the commit and given back after a delete. Upstream: pkg/registry/core/service.
 * Single-stack IPv4. */
#include "registry/kinds/claims.h"

static const struct at root = { NULL, "spec", -1, { NULL, 0 } };

enum { PORTS_MAX = 5000 }; /* they are compared with each other */

static bool is_type(const struct core_v1_service *s, const char *type)
{
	return str_eqz(s->spec.type, type);
}

static bool headless(const struct core_v1_service *s)
{
	return str_eqz(s->spec.cluster_ip, "None");
}

static bool wants_address(const struct core_v1_service *s)
{
	return !is_type(s, "ExternalName") && !headless(s);
}

static bool wants_ports(const struct core_v1_service *s)
{
	if (is_type(s, "LoadBalancer"))
		return !s->spec.allocate_load_balancer_node_ports.set ||
			s->spec.allocate_load_balancer_node_ports.value;
	return is_type(s, "NodePort");
}

static bool wants_health_port(const struct core_v1_service *s)
{
	return is_type(s, "LoadBalancer") && str_eqz(s->spec.external_traffic_policy, "Local");
}

static bool reachable_from_outside(const struct core_v1_service *s)
{
	return is_type(s, "NodePort") || is_type(s, "LoadBalancer") ||
		(is_type(s, "ClusterIP") && s->spec.external_ips.len);
}

/* ---- defaults ---- */

static void fill(struct write *w, void *obj)
{
	struct core_v1_service *s = obj;
	struct core_v1_service_spec *sp = &s->spec;
	LIST_EACH(p, &sp->ports) {
		if (p->target_port.kind == IOS_NONE ||
			(p->target_port.kind == IOS_INT && !p->target_port.num) ||
			(p->target_port.kind == IOS_STR && !p->target_port.text.len))
			p->target_port = (struct int_or_str){ .kind = IOS_INT, .num = p->port };
	}
	if (str_eqz(sp->session_affinity, "ClientIP")) {
		if (!sp->session_affinity_config)
			sp->session_affinity_config =
				arena_alloc(w->arena, sizeof(*sp->session_affinity_config));
		if (!sp->session_affinity_config->client_ip)
			sp->session_affinity_config->client_ip = arena_alloc(
				w->arena, sizeof(*sp->session_affinity_config->client_ip));
		if (!sp->session_affinity_config->client_ip->timeout_seconds.set)
			sp->session_affinity_config->client_ip->timeout_seconds =
				(struct opt_int32)SOME(10800);
	} else {
		sp->session_affinity_config = NULL;
	}
	if (reachable_from_outside(s) && !sp->external_traffic_policy.len)
		sp->external_traffic_policy = STR("Cluster");
	if (!is_type(s, "ExternalName") && !sp->internal_traffic_policy.p)
		sp->internal_traffic_policy = STR("Cluster");
	if (is_type(s, "LoadBalancer") && !sp->allocate_load_balancer_node_ports.set)
		sp->allocate_load_balancer_node_ports = (struct opt_bool)SOME(true);
}

static void set_families(struct write *w, struct core_v1_service *s)
{
	if (is_type(s, "ExternalName"))
		return;
	if (!s->spec.ip_families.len)
		*LIST_ADD(w->arena, &s->spec.ip_families) = STR("IPv4");
	if (!s->spec.ip_family_policy.p)
		s->spec.ip_family_policy = STR("SingleStack");
}

static void set_address(struct write *w, struct core_v1_service *s, struct str ip)
{
	s->spec.cluster_ip = ip;
	s->spec.cluster_ips = (struct str_list){ 0 };
	if (ip.len)
		*LIST_ADD(w->arena, &s->spec.cluster_ips) = ip;
}

/* clusterIP and clusterIPs[0] say the same; either may be given. */
static void even_addresses(struct write *w, struct core_v1_service *s)
{
	if (s->spec.cluster_ip.len && !s->spec.cluster_ips.len)
		set_address(w, s, s->spec.cluster_ip);
	else if (!s->spec.cluster_ip.len && s->spec.cluster_ips.len)
		s->spec.cluster_ip = s->spec.cluster_ips.items[0];
}

static void prepare_create(struct write *w)
{
	even_addresses(w, w->obj);
	set_families(w, w->obj);
}

/* What the client left out of an update and the service has already. */
static void keep_claimed(
	struct write *w, struct core_v1_service *s, const struct core_v1_service *old)
{
	if (wants_address(old) && wants_address(s) && !s->spec.cluster_ip.len &&
		!s->spec.cluster_ips.len)
		set_address(w, s, old->spec.cluster_ip);
	if (wants_ports(old) && wants_ports(s) && s->spec.ports.len <= PORTS_MAX)
		LIST_EACH(p, &s->spec.ports) {
			if (p->node_port)
				continue;
			LIST_EACH(o, &old->spec.ports) {
				bool used = !str_eq(o->name, p->name);
				if (used)
					continue;
				LIST_EACH(q, &s->spec.ports)
					used |= q->node_port == o->node_port &&
						str_eq(q->protocol, o->protocol);
				if (!used)
					p->node_port = o->node_port;
			}
		}
	if (wants_health_port(old) && wants_health_port(s) && !s->spec.health_check_node_port)
		s->spec.health_check_node_port = old->spec.health_check_node_port;
}

/* What a change of type makes meaningless, unless the client changed it too. */
static void drop_unfit(
	struct write *w, struct core_v1_service *s, const struct core_v1_service *old)
{
	if (!is_type(old, "ExternalName") && is_type(s, "ExternalName")) {
		if (str_eq(s->spec.cluster_ip, old->spec.cluster_ip))
			set_address(w, s, STR_NONE);
		s->spec.ip_families = (struct str_list){ 0 };
		s->spec.ip_family_policy = STR_NONE;
		s->spec.internal_traffic_policy = STR_NONE;
	}
	if (wants_ports(old) && !wants_ports(s) && s->spec.ports.len <= PORTS_MAX)
		LIST_EACH(p, &s->spec.ports) {
			LIST_EACH(o, &old->spec.ports) {
				if (o->node_port == p->node_port &&
					str_eq(o->protocol, p->protocol)) {
					p->node_port = 0;
					break;
				}
			}
		}
	if (wants_health_port(old) && !wants_health_port(s) &&
		s->spec.health_check_node_port == old->spec.health_check_node_port)
		s->spec.health_check_node_port = 0;
	if (reachable_from_outside(old) && !reachable_from_outside(s) &&
		str_eq(s->spec.external_traffic_policy, old->spec.external_traffic_policy))
		s->spec.external_traffic_policy = STR_NONE;
	if (is_type(old, "LoadBalancer") && !is_type(s, "LoadBalancer")) {
		s->spec.allocate_load_balancer_node_ports = (struct opt_bool){ 0 };
		s->spec.load_balancer_class = STR_NONE;
		s->status.load_balancer = (struct core_v1_load_balancer_status){ 0 };
	}
}

static void prepare_update(struct write *w)
{
	struct core_v1_service *s = w->obj, *old = w->old;
	keep_claimed(w, s, old);
	drop_unfit(w, s, old);
	even_addresses(w, s);
	if (!s->spec.ip_families.len && !is_type(s, "ExternalName"))
		s->spec.ip_families = old->spec.ip_families;
	if (!s->spec.ip_family_policy.p && !is_type(s, "ExternalName"))
		s->spec.ip_family_policy = old->spec.ip_family_policy;
	set_families(w, s);
}

/* ---- validation ---- */

static void check_port(const struct core_v1_service *s, const struct core_v1_service_port *p,
	size_t i, struct causes *cs)
{
	const struct at *at = AT_I(&root, "ports", i);
	const char *bad;
	if (!p->name.len && s->spec.ports.len > 1)
		REQUIRED(cs, AT(at, "name"), "");
	if (p->name.len && (bad = valid_dns_label(p->name)))
		INVALID(cs, AT(at, "name"), p->name, bad);
	if (p->target_port.kind == IOS_STR
			? !!(bad = valid_port_name(p->target_port.text))
			: (bad = NULL, p->target_port.num < 1 || p->target_port.num > 65535))
		refuse_port(cs, AT(at, "targetPort"), p->target_port, bad);
	if (p->node_port && is_type(s, "ClusterIP"))
		FORBIDDEN(cs, AT(at, "nodePort"), "may not be used when `type` is 'ClusterIP'");
	for (const struct core_v1_service_port *q = s->spec.ports.items; q < p; q++) {
		bool same_protocol = str_eq(q->protocol, p->protocol);
		if (p->name.len && str_eq(q->name, p->name))
			DUPLICATE(cs, AT(at, "name"), p->name);
		if (q->port == p->port && same_protocol)
			cause_at(cs, CAUSE_DUPLICATE, at, STR_NONE,
				"{\"protocol\":\"" STR_FMT "\",\"port\":%d}", STR_ARG(p->protocol),
				p->port);
		if (p->node_port && q->node_port == p->node_port && same_protocol)
			cause_at(cs, CAUSE_DUPLICATE, AT(at, "nodePort"), STR_NONE, "%d",
				p->node_port);
	}
}

static void check_addresses(const struct core_v1_service *s, struct causes *cs)
{
	const struct at *at = AT_I(&root, "clusterIPs", 0);
	struct str ip = s->spec.cluster_ip;
	if (is_type(s, "ExternalName")) {
		if (ip.len)
			FORBIDDEN(cs, AT(&root, "clusterIPs"),
				"may not be set for ExternalName services");
		return;
	}
	if (!ip.len)
		return;
	if (headless(s)) {
		if (!is_type(s, "ClusterIP"))
			cause_at(cs, CAUSE_INVALID, at, ip,
				"may not be set to 'None' for " STR_FMT " services",
				STR_ARG(s->spec.type));
		return;
	}
	if (valid_ip(ip))
		INVALID(cs, at, ip, valid_ip(ip));
	if (s->spec.cluster_ips.len && !str_eq(s->spec.cluster_ips.items[0], ip))
		INVALID(cs, AT(&root, "clusterIP"), ip,
			"first value of `clusterIPs` must match `clusterIP`");
	if (s->spec.cluster_ips.len > 1)
		INVALID(cs, AT(&root, "clusterIPs"), ip,
			"may not contain more than one address: this cluster is single-stack");
	LIST_EACH(f, &s->spec.ip_families) {
		if (!str_eqz(*f, "IPv4"))
			INVALID(cs, AT_I(&root, "ipFamilies", f - s->spec.ip_families.items), *f,
				"not configured on this cluster");
	}
}

static void validate(struct write *w, struct causes *cs)
{
	struct core_v1_service *s = w->obj;
	const char *bad;
	if (s->spec.ports.len > PORTS_MAX) {
		cause_at(cs, CAUSE_TOO_MANY, AT(&root, "ports"), STR_NONE,
			"%zu: must have at most %d items", s->spec.ports.len, PORTS_MAX);
		return;
	}
	if (!s->spec.ports.len && !headless(s) && !is_type(s, "ExternalName"))
		REQUIRED(cs, AT(&root, "ports"), "");
	for (size_t i = 0; i < s->spec.ports.len; i++)
		check_port(s, &s->spec.ports.items[i], i, cs);
	check_addresses(s, cs);
	if (s->spec.selector.len)
		meta_validate_labels(&s->spec.selector, STR("spec.selector"), cs);
	if (is_type(s, "ExternalName")) {
		if (!s->spec.external_name.len)
			REQUIRED(cs, AT(&root, "externalName"), "");
		else if ((bad = valid_dns_subdomain(s->spec.external_name)))
			INVALID(cs, AT(&root, "externalName"), s->spec.external_name, bad);
	}
	if (s->spec.external_traffic_policy.len && !reachable_from_outside(s))
		INVALID(cs, AT(&root, "externalTrafficPolicy"), s->spec.external_traffic_policy,
			"may only be set for externally-accessible services");
	size_t i = 0;
	LIST_EACH(ip, &s->spec.external_ips) {
		if ((bad = valid_ip(*ip)) || (bad = special_ip(*ip)))
			INVALID(cs, AT_I(&root, "externalIPs", i), *ip, bad);
		i++;
	}
}

static void validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_service *s = w->obj, *old = w->old;
	if (is_type(old, "ExternalName") || is_type(s, "ExternalName") || !old->spec.cluster_ip.len)
		return;
	if (!str_eq(s->spec.cluster_ip, old->spec.cluster_ip))
		INVALID(cs, AT_I(&root, "clusterIPs", 0), shown(s->spec.cluster_ip),
			"may not change once set");
}

/* ---- claims ---- */

struct held_port {
	struct str protocol;
	int port;
};
struct held {
	struct str address;
	struct held_port *ports;
	size_t n;
};
struct service_write {
	struct held taken, given_up; /* undone when refused; dropped when committed */
	/* what the object said before something was chosen for it: a write that is run again must not ask for the former choice */
	struct str asked_ip, *asked_ips;
	size_t n_asked_ips;
	int32_t *asked_ports, asked_health_port;
};

static void remember_asked(
	struct service_write *sw, const struct core_v1_service *s, struct arena *a)
{
	sw->asked_ip = s->spec.cluster_ip;
	sw->asked_ips = s->spec.cluster_ips.items;
	sw->n_asked_ips = s->spec.cluster_ips.len;
	sw->asked_health_port = s->spec.health_check_node_port;
	sw->asked_ports = arena_alloc(a, (s->spec.ports.len + 1) * sizeof(*sw->asked_ports));
	for (size_t i = 0; i < s->spec.ports.len; i++)
		sw->asked_ports[i] = s->spec.ports.items[i].node_port;
}

static void restore_asked(const struct service_write *sw, struct core_v1_service *s)
{
	s->spec.cluster_ip = sw->asked_ip;
	s->spec.cluster_ips.items = sw->asked_ips;
	s->spec.cluster_ips.len = sw->n_asked_ips;
	s->spec.health_check_node_port = sw->asked_health_port;
	for (size_t i = 0; i < s->spec.ports.len; i++)
		s->spec.ports.items[i].node_port = sw->asked_ports[i];
}

static void hold_port(struct held *h, struct arena *a, struct str protocol, int port)
{
	h->ports =
		arena_grow(a, h->ports, h->n * sizeof(*h->ports), (h->n + 1) * sizeof(*h->ports));
	h->ports[h->n++] = (struct held_port){ protocol, port };
}

/* Everything that a stored service holds. */
static struct held held_by(const struct core_v1_service *s, struct arena *a)
{
	struct held h = { 0 };
	if (wants_address(s))
		h.address = s->spec.cluster_ip;
	LIST_EACH(p, &s->spec.ports) {
		if (p->node_port)
			hold_port(&h, a, p->protocol, p->node_port);
	}
	if (s->spec.health_check_node_port)
		hold_port(&h, a, STR("TCP"), s->spec.health_check_node_port);
	return h;
}

static bool holds(const struct held *h, struct str protocol, int port)
{
	for (size_t i = 0; i < h->n; i++)
		if (h->ports[i].port == port && str_eq(h->ports[i].protocol, protocol))
			return true;
	return false;
}

static void drop(struct service_claims *c, const struct held *h)
{
	if (h->address.len)
		claims_drop_address(c, h->address);
	for (size_t i = 0; i < h->n; i++)
		claims_drop_port(c, h->ports[i].protocol, h->ports[i].port);
}

static struct meta_v1_status *invalid(
	struct write *w, const struct at *at, struct str value, struct str why)
{
	struct causes cs = { .arena = w->arena };
	cause_at(&cs, CAUSE_INVALID, at, value, STR_FMT, STR_ARG(why));
	return status_invalid(w->arena, w->res, write_meta(w)->name, &cs);
}

static struct meta_v1_status *claim_address(struct write *w, struct core_v1_service *s,
	const struct held *old, struct service_write *sw)
{
	struct service_claims *c = w->r->services;
	struct str ip = s->spec.cluster_ip;
	struct arena *a = w->arena;
	if (!wants_address(s) || (ip.len && str_eq(ip, old->address)))
		return NULL;
	if (!ip.len) {
		if (claims_choose_address(c, a, &ip))
			return status_new(a, REASON_INTERNAL,
				"Internal error occurred: failed to allocate a serviceIP: range is full");
		set_address(w, s, ip);
	} else if (claims_is_dns(c, ip) && !str_eqz(s->metadata.namespace, "kube-system")) {
		return invalid(w, AT_I(&root, "clusterIPs", 0), ip,
			arena_fmt(a,
				"failed to allocate IP " STR_FMT
				": the address of the cluster's DNS is for services of kube-system",
				STR_ARG(ip)));
	} else {
		int rc = claims_take_address(c, ip);
		if (rc)
			return invalid(w, AT_I(&root, "clusterIPs", 0), ip,
				rc == CLAIM_TAKEN
					? arena_fmt(a,
						  "failed to allocate IP " STR_FMT
						  ": provided IP is already allocated",
						  STR_ARG(ip))
					: arena_fmt(a,
						  "failed to allocate IP " STR_FMT
						  ": the provided IP (" STR_FMT
						  ") is not in the valid range. The range of valid IPs is %s",
						  STR_ARG(ip), STR_ARG(ip), claims_cidr(c)));
	}
	sw->taken.address = ip;
	return NULL;
}

static struct meta_v1_status *claim_port(struct write *w, int32_t *port, struct str protocol,
	const struct held *old, struct service_write *sw, const struct at *at)
{
	struct service_claims *c = w->r->services;
	int chosen, rc;
	if (*port && holds(old, protocol, *port))
		return NULL;
	if (!*port) {
		if (claims_choose_port(c, protocol, &chosen))
			return status_new(w->arena, REASON_INTERNAL,
				"Internal error occurred: failed to allocate a nodePort: range is full");
		*port = chosen;
	} else if ((rc = claims_take_port(c, protocol, *port))) {
		return invalid(w, at, STR_NONE,
			rc == CLAIM_TAKEN
				? arena_fmt(
					  w->arena, "%d: provided port is already allocated", *port)
				: arena_fmt(w->arena,
					  "%d: provided port is not in the valid range. The range of valid ports is %d-%d",
					  *port, w->r->config.node_port_first,
					  w->r->config.node_port_last));
	}
	hold_port(&sw->taken, w->arena, protocol, *port);
	return NULL;
}

/* A port whose number another protocol of the same service port has: the same number is tried first. */
static void pair_protocols(struct core_v1_service *s, struct core_v1_service_port *p)
{
	LIST_EACH(q, &s->spec.ports) {
		if (!p->node_port && q != p && q->port == p->port && q->node_port &&
			!str_eq(q->protocol, p->protocol))
			p->node_port = q->node_port;
	}
}

static struct meta_v1_status *claim_ports(struct write *w, struct core_v1_service *s,
	const struct held *old, struct service_write *sw)
{
	struct meta_v1_status *st = NULL;
	size_t i = 0;
	/* first those that were asked for, so that none of them is chosen for another */
	LIST_EACH(p, &s->spec.ports) {
		if (p->node_port && !st)
			st = claim_port(w, &p->node_port, p->protocol, old, sw,
				AT(AT_I(&root, "ports", i), "nodePort"));
		i++;
	}
	LIST_EACH(p, &s->spec.ports) {
		if (st || p->node_port || !wants_ports(s))
			continue;
		pair_protocols(s, p);
		if (p->node_port && !claim_port(w, &p->node_port, p->protocol, old, sw, &root))
			continue;
		p->node_port = 0;
		st = claim_port(w, &p->node_port, p->protocol, old, sw, &root);
	}
	if (!st && wants_health_port(s))
		st = claim_port(w, &s->spec.health_check_node_port, STR("TCP"), old, sw,
			AT(&root, "healthCheckNodePort"));
	return st;
}

/* ---- others' services, in a shared store: read from its log before each claim ----
 * A write that claims is stored only if no other claiming write was stored after the revision up to which the log was read (its guard), so no
 * two servers give the same. */

static void tell_stored(struct registry *r, const struct object *o, bool held)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	void *obj;
	if (json_decode(&core_v1_service_type, o->json, a, NULL, &obj, NULL))
		return;
	struct held h = held_by(obj, a);
	if (h.address.len)
		claims_stored_address(r->services, h.address, held);
	for (size_t i = 0; i < h.n; i++)
		claims_stored_port(r->services, h.ports[i].protocol, h.ports[i].port, held);
}

static bool tell_one(void *arg, struct object *o)
{
	tell_stored(arg, o, true);
	return true;
}

static void wake_nothing(void *arg) {}

static void follow_from_start(struct registry *r)
{
	store_watch_close(TAKE(r->services_log));
	claims_stored_none(r->services);
	while (!r->services_log) {
		struct store_snapshot *sn = store_snapshot(r->store);
		store_snapshot_each(sn, STR("/services/"), STR_NONE, tell_one, r);
		store_watch(r->store, STR("/services/"), store_snapshot_revision(sn), wake_nothing,
			NULL, &r->services_log);
		store_snapshot_free(sn);
	}
}

/* Returns the revision up to which every service is known. */
static uint64_t catch_up(struct registry *r)
{
	struct store_event *ev;
	int rc;
	pthread_mutex_lock(&r->services_lock);
	while ((rc = store_watch_next(r->services_log, &ev)) != STORE_NOT_FOUND) {
		if (rc) {
			follow_from_start(r);
			continue;
		}
		if (ev->prev)
			tell_stored(r, ev->prev, false);
		if (ev->type != STORE_DELETED)
			tell_stored(r, ev->object, true);
	}
	uint64_t revision = store_watch_revision(r->services_log);
	pthread_mutex_unlock(&r->services_lock);
	return revision;
}

static struct meta_v1_status *claim(struct write *w)
{
	struct core_v1_service *s = w->obj;
	struct service_write *sw = arena_alloc(w->arena, sizeof(*sw));
	bool shared = store_is_shared(w->r->store);
	uint64_t known = shared && !w->remove ? catch_up(w->r) : 0;
	struct held old = w->old ? held_by(w->old, w->arena) : (struct held){ 0 };
	w->claims = sw;
	remember_asked(sw, s, w->arena);
	if (w->remove) /* the last finalizer went: deleted() gives back what is held */
		return NULL;
	struct meta_v1_status *st = claim_address(w, s, &old, sw);
	st = st ? st : claim_ports(w, s, &old, sw);
	if (st)
		return st;
	w->guard_revision = sw->taken.address.len || sw->taken.n ? known : 0;
	struct held now = held_by(s, w->arena);
	if (old.address.len && !str_eq(old.address, now.address))
		sw->given_up.address = old.address;
	for (size_t i = 0; i < old.n; i++)
		if (!holds(&now, old.ports[i].protocol, old.ports[i].port))
			hold_port(
				&sw->given_up, w->arena, old.ports[i].protocol, old.ports[i].port);
	return NULL;
}

static void settle(struct write *w, bool committed)
{
	struct service_write *sw = w->claims;
	w->guard_revision = 0;
	if (!committed && !w->req->dry_run)
		restore_asked(sw, w->obj);
	/* of a shared store, what is stored shows in its log */
	drop(w->r->services,
		committed && !store_is_shared(w->r->store) ? &sw->given_up : &sw->taken);
}

static void deleted(struct registry *r, const struct object *o)
{
	if (store_is_shared(r->store))
		return;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct err err;
	void *obj;
	if (json_decode(&core_v1_service_type, o->json, a, NULL, &obj, &err)) {
		log_error("registry",
			"what service " STR_FMT " held is not given back before the next start: %s",
			STR_ARG(o->key), err.text);
		return;
	}
	struct held h = held_by(obj, a);
	drop(r->services, &h);
}

/* ---- at start ---- */

static bool restore(void *arg, struct object *o)
{
	struct registry *r = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct err err;
	void *obj;
	if (json_decode(&core_v1_service_type, o->json, a, NULL, &obj, &err)) {
		log_error("registry",
			"stored service " STR_FMT " is damaged, what it holds is not known: %s",
			STR_ARG(o->key), err.text);
		return true;
	}
	struct held h = held_by(obj, a);
	if (h.address.len && claims_take_address(r->services, h.address))
		log_warn("registry",
			"service " STR_FMT " has address " STR_FMT
			", which is not in %s or another's",
			STR_ARG(o->key), STR_ARG(h.address), claims_cidr(r->services));
	for (size_t i = 0; i < h.n; i++)
		claims_take_port(r->services, h.ports[i].protocol, h.ports[i].port);
	return true;
}

int services_init(struct registry *r, struct err *err)
{
	int rc = claims_new(r->config.service_cidr, r->config.node_port_first,
		r->config.node_port_last, &r->services, err);
	if (rc)
		return rc;
	pthread_mutex_init(&r->services_lock, NULL);
	if (store_is_shared(r->store)) {
		follow_from_start(r);
		return 0;
	}
	struct store_snapshot *sn = store_snapshot(r->store);
	store_snapshot_each(sn, STR("/services/"), STR_NONE, restore, r);
	store_snapshot_free(sn);
	return 0;
}

struct str services_first_address(const struct registry *r, struct arena *a)
{
	return claims_first_address(r->services, a);
}

void services_free(struct registry *r)
{
	store_watch_close(r->services_log);
	claims_free(r->services);
}

const struct kind service_kind = {
	.resource = "services",
	.flags = KIND_STATUS_META | KIND_RETURN_DELETED,
	.name_rule = NAME_LABEL, /* RelaxedServiceNameValidation */
	.fill = fill,
	.prepare_create = prepare_create,
	.prepare_update = prepare_update,
	.validate = validate,
	.validate_update = validate_update,
	.claim = claim,
	.settle = settle,
	.deleted = deleted,
};
