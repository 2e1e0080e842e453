/* See network.h. What is wanted is compared with what the kernel has, each time, so that nothing needs to be remembered and whatever anybody removed
 * comes back. The two ends of a VXLAN need no word from each other: a node's link has the hardware address 0a:59 and the node's address. */
#include "network/internal.h"

#include <arpa/inet.h>
#include <stdio.h>

#define VXLAN_PORT 8472

int ip_read(struct str text, uint32_t *ret_ip)
{
	char z[INET_ADDRSTRLEN];
	struct in_addr a;

	if (text.len >= sizeof(z))
		return -EINVAL;
	memcpy(z, text.p ? text.p : "", text.len);
	z[text.len] = 0;
	if (inet_pton(AF_INET, z, &a) != 1)
		return -EINVAL;
	*ret_ip = ntohl(a.s_addr);
	return 0;
}

int cidr_read(struct str text, uint32_t *ret_ip, int *ret_prefix)
{
	struct str ip, bits;
	int64_t n;
	uint32_t at;

	if (!str_cut(text, '/', &ip, &bits) || str_to_i64(bits, &n) < 0 || n < 0 || n > 32 ||
		ip_read(ip, &at) < 0)
		return -EINVAL;
	*ret_ip = n ? at & ~(uint32_t)0 << (32 - n) : 0;
	*ret_prefix = (int)n;
	return 0;
}

int network_mode_parse(const char *text, enum network_mode *ret, bool *ret_cni, struct err *err)
{
	static const char *const names[] = {
		[NETWORK_AUTO] = "auto", [NETWORK_ROUTES] = "routes", [NETWORK_VXLAN] = "vxlan"
	};
	bool cni = !strcmp(text, "cni") || str_has_prefix(str_of(text), STR("cni+"));
	const char *way = cni && text[3] ? text + 4 : text;

	*ret_cni = cni;
	if (!strcmp(text, "cni")) {
		*ret = NETWORK_NONE;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (!strcmp(way, names[i])) {
			*ret = (enum network_mode)i;
			return 0;
		}
	}
	return err_set(err, -EINVAL,
		"--pod-network %s: expected auto, routes, vxlan, cni, or cni+ and one of the first three",
		text);
}

static int link_mtu(struct netlink *n, uint32_t ip)
{
	char name[16];
	int link, mtu;

	return address_find_link(n, htonl(ip), &link) == 0 &&
			link_name_mtu(n, link, name, &mtu, NULL) == 0
		? mtu
		: 0;
}

int network_pod_mtu(enum network_mode mode, const char *node_ip)
{
	struct netlink *n;
	uint32_t ip;
	int mtu = 0;

	if (ip_read(str_of(node_ip), &ip) < 0 || netlink_open(&n, NULL) < 0)
		return 0;
	mtu = link_mtu(n, ip);
	netlink_close(n);
	return mtu && mode != NETWORK_ROUTES ? mtu - VXLAN_OVERHEAD : mtu;
}

/* ---- the other nodes ---- */

static struct str internal_ip(const struct core_v1_node *n)
{
	LIST_EACH(a, &n->status.addresses) {
		if (str_eqz(a->type, "InternalIP") && str_find(a->address, ':') < 0)
			return a->address;
	}
	return STR_NONE;
}

bool node_moved(const struct cached *old, const struct cached *now)
{
	const struct core_v1_node *a = old ? old->obj : NULL, *b = now ? now->obj : NULL;

	return !a || !b || !str_eq(a->spec.pod_cidr, b->spec.pod_cidr) ||
		!str_eq(internal_ip(a), internal_ip(b));
}

static bool overlap(uint32_t a, int a_prefix, uint32_t b, int b_prefix)
{
	int n = MIN(a_prefix, b_prefix);
	uint32_t mask = n ? ~(uint32_t)0 << (32 - n) : 0;

	return (a & mask) == (b & mask);
}

static const char *clash_of(const struct peer *p, uint32_t own_ip, uint32_t own_pods,
	int own_prefix, uint32_t services, int services_prefix, const struct peers *others)
{
	if (services_prefix && overlap(p->pods, p->prefix, services, services_prefix))
		return "has pod addresses that are services'";
	if (overlap(p->pods, p->prefix, own_ip, 32))
		return "has this node's address among its pods'";
	if (p->ip == own_ip)
		return "has this node's address";
	if (own_prefix && overlap(p->pods, p->prefix, own_pods, own_prefix))
		return "has pod addresses of this node";
	for (size_t i = 0; i < others->len; i++) {
		if (overlap(p->pods, p->prefix, others->items[i].pods, others->items[i].prefix))
			return "has pod addresses of another node";
		if (overlap(p->pods, p->prefix, others->items[i].ip, 32))
			return "has another node's address among its pods'";
	}
	return NULL;
}

/* Older nodes first, so that a newcomer which clashes is the one left out. */
static int by_age(const void *x, const void *y)
{
	const struct cached *a = *(const struct cached *const *)x,
			    *b = *(const struct cached *const *)y;
	int r = time_cmp(a->meta->creation_timestamp, b->meta->creation_timestamp);

	return r ? r : str_cmp(a->key, b->key);
}

struct peers peers_of(const struct network_config *c, const struct cached_list *nodes,
	struct arena *a, warn_fn warn, void *arg)
{
	struct cached **sorted = arena_alloc(a, (nodes->len + 1) * sizeof(*sorted));
	struct peers p = { arena_alloc(a, (nodes->len + 1) * sizeof(*p.items)), 0 };
	uint32_t own_ip = 0, own_pods = 0, services = 0;
	int own_prefix = 0, services_prefix = 0;

	if (nodes->len)
		memcpy(sorted, nodes->items, nodes->len * sizeof(*sorted));
	ip_read(str_of(c->node_ip), &own_ip);
	if (c->pod_cidr)
		cidr_read(str_of(c->pod_cidr), &own_pods, &own_prefix);
	if (c->service_cidr)
		cidr_read(str_of(c->service_cidr), &services, &services_prefix);
	qsort(sorted, nodes->len, sizeof(*sorted), by_age);
	for (size_t i = 0; i < nodes->len; i++) {
		const struct core_v1_node *n = sorted[i]->obj;
		struct peer one = { 0 };
		const char *clash;

		if (str_eqz(n->metadata.name, c->node_name) ||
			ip_read(internal_ip(n), &one.ip) < 0 ||
			cidr_read(n->spec.pod_cidr, &one.pods, &one.prefix) < 0 || !one.prefix)
			continue;
		snprintf(one.name, sizeof(one.name), STR_FMT, STR_ARG(n->metadata.name));
		clash = clash_of(&one, own_ip, own_pods, own_prefix, services, services_prefix, &p);
		if (!clash) {
			p.items[p.len++] = one;
		} else if (warn) {
			warn(arg,
				arena_fmt(a,
					"node %s (" STR_FMT ", pods " STR_FMT
					") %s and is left out: delete it and let it join again",
					one.name, STR_ARG(internal_ip(n)),
					STR_ARG(n->spec.pod_cidr), clash)
					.p);
		}
	}
	return p;
}

/* ---- the kernel ---- */

static void mac_of(uint32_t ip, uint8_t ret[6])
{
	ip = htonl(ip);
	ret[0] = 0x0a;
	ret[1] = 0x59;
	memcpy(ret + 2, &ip, 4);
}

struct wanted { /* addresses in network order */
	const struct peer *peer;
	struct route route;
	uint8_t mac[6];
	bool vxlan, unknown; /* unknown: no way to the node now; what is there stays */
	bool have_route, have_fdb, have_neighbor;
};
struct plan {
	struct arena *a;
	struct wanted *items;
	size_t len;
	struct route *stale_routes;
	size_t n_stale_routes;
	struct entry {
		uint32_t ip;
		uint8_t mac[6];
	} * stale_fdb, *stale_neighbors;
	size_t n_stale_fdb, n_stale_neighbors;
};

static void see_route(void *arg, const struct route *r)
{
	struct plan *p = arg;

	for (size_t i = 0; i < p->len; i++) {
		const struct route *w = &p->items[i].route;

		if (w->destination != r->destination || w->prefix != r->prefix)
			continue;
		if (p->items[i].unknown ||
			(w->gateway == r->gateway && (!w->link || w->link == r->link))) {
			p->items[i].have_route = true;
			return;
		}
		break;
	}
	*ARENA_ADD(p->a, p->stale_routes, p->n_stale_routes) = *r;
}

static void entry_add(
	struct arena *a, struct entry **list, size_t *n, uint32_t ip, const uint8_t mac[6])
{
	struct entry *e = ARENA_ADD(a, *list, *n);

	e->ip = ip;
	memcpy(e->mac, mac, 6);
}

static void see_fdb(void *arg, const uint8_t mac[6], uint32_t remote)
{
	struct plan *p = arg;

	for (size_t i = 0; i < p->len; i++) {
		if ((p->items[i].vxlan || p->items[i].unknown) &&
			htonl(p->items[i].peer->ip) == remote && !memcmp(p->items[i].mac, mac, 6)) {
			p->items[i].have_fdb = true;
			return;
		}
	}
	entry_add(p->a, &p->stale_fdb, &p->n_stale_fdb, remote, mac);
}

static void see_neighbor(void *arg, uint32_t ip, const uint8_t mac[6])
{
	struct plan *p = arg;

	for (size_t i = 0; i < p->len; i++) {
		if ((p->items[i].vxlan || p->items[i].unknown) &&
			htonl(p->items[i].peer->pods) == ip && !memcmp(p->items[i].mac, mac, 6)) {
			p->items[i].have_neighbor = true;
			return;
		}
	}
	entry_add(p->a, &p->stale_neighbors, &p->n_stale_neighbors, ip, mac);
}

static int make_link(
	struct netlink *n, const struct network_config *c, int *ret_link, struct err *err)
{
	struct vxlan v = { .name = VXLAN_LINK,
		.vni = VXLAN_VNI,
		.port = c->vxlan_port ? c->vxlan_port : VXLAN_PORT };
	uint32_t own, pods;
	int prefix, with_address, r;

	if (ip_read(str_of(c->node_ip), &own) < 0 ||
		cidr_read(str_of(c->pod_cidr), &pods, &prefix) < 0)
		return err_set(err, -EINVAL,
			"a VXLAN needs this node's IPv4 address and its pod addresses; they are \"%s\" and \"%s\"",
			c->node_ip, c->pod_cidr);
	v.local = htonl(own);
	v.mtu = link_mtu(n, own);
	v.mtu = (v.mtu ? v.mtu : 1500) - VXLAN_OVERHEAD;
	mac_of(own, v.mac);
	r = link_add_vxlan(n, &v, err);
	/* The first address of the pods' range is never a pod's. It is where this node's own packets come from, so that answers come back this way. */
	if (r == 0)
		r = link_find(n, VXLAN_LINK, ret_link);
	if (r == 0 &&
		(address_find_link(n, htonl(pods), &with_address) < 0 || with_address != *ret_link))
		r = address_add(n, VXLAN_LINK, htonl(pods), 32, err);
	return r;
}

/* By a plain route, by VXLAN, or unknown while the link is down that leads to the node. */
static void choose(struct netlink *n, enum network_mode mode, struct wanted *w)
{
	struct route r;

	w->unknown = route_find(n, htonl(w->peer->ip), &r) < 0;
	w->vxlan = !w->unknown && (mode == NETWORK_VXLAN || (mode == NETWORK_AUTO && r.gateway));
}

static int put(struct netlink *n, struct wanted *w, int link, struct err *err)
{
	int r = 0;

	if (w->vxlan && !w->have_neighbor)
		r = neighbor_set(n, VXLAN_LINK, w->route.gateway, w->mac, err);
	if (r == 0 && w->vxlan && !w->have_fdb)
		r = fdb_set(n, link, w->mac, htonl(w->peer->ip), err);
	if (r == 0 && !w->have_route)
		r = route_put(n, &w->route, ROUTE_PROTOCOL, err);
	return r < 0 ? err_prefix(err, r, "node %s", w->peer->name) : 0;
}

static void keep_first(int r, struct err *got, int *first, struct err *err)
{
	if (r < 0 && *first == 0) {
		*first = r;
		if (err)
			*err = *got;
	}
}

static int look(struct netlink *n, struct plan *p, int link, struct err *err)
{
	int r = route_each(n, ROUTE_PROTOCOL, see_route, p, err);

	if (r == 0 && link)
		r = fdb_each(n, link, see_fdb, p, err);
	if (r == 0 && link)
		r = neighbor_each(n, link, see_neighbor, p, err);
	return r;
}

int routes_apply(struct netlink *n, const struct network_config *c, const struct peers *peers,
	struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct plan p = { .a = a, .items = arena_alloc(a, (peers->len + 1) * sizeof(*p.items)) };
	bool need_link = false, keep_link = false;
	int link = 0, first = 0;
	struct err e;

	for (size_t i = 0; i < peers->len && c->mode != NETWORK_NONE; i++) {
		const struct peer *q = &peers->items[i];
		struct wanted *w = &p.items[p.len++];

		*w = (struct wanted){ .peer = q };
		choose(n, c->mode, w);
		need_link |= w->vxlan;
		keep_link |= w->unknown;
		w->route = (struct route){ .destination = htonl(q->pods),
			.prefix = q->prefix,
			.gateway = htonl(w->vxlan ? q->pods : q->ip) };
		mac_of(q->ip, w->mac);
	}
	if (need_link)
		keep_first(make_link(n, c, &link, &e), &e, &first, err);
	else if (link_find(n, VXLAN_LINK, &link) < 0)
		link = 0;
	for (size_t i = 0; i < p.len; i++) {
		p.items[i].route.link = p.items[i].vxlan ? link : 0;
		p.items[i].route.onlink = p.items[i].vxlan;
	}
	keep_first(look(n, &p, link, &e), &e, &first, err);
	for (size_t i = 0; i < p.n_stale_routes; i++)
		keep_first(route_take(n, &p.stale_routes[i], ROUTE_PROTOCOL, &e), &e, &first, err);
	for (size_t i = 0; i < p.n_stale_fdb; i++)
		keep_first(fdb_delete(n, link, p.stale_fdb[i].mac, p.stale_fdb[i].ip, &e), &e,
			&first, err);
	for (size_t i = 0; i < p.n_stale_neighbors; i++)
		keep_first(neighbor_delete(n, VXLAN_LINK, p.stale_neighbors[i].ip, &e), &e, &first,
			err);
	for (size_t i = 0; i < p.len; i++)
		if (!p.items[i].unknown && (!p.items[i].vxlan || link))
			keep_first(put(n, &p.items[i], link, &e), &e, &first, err);
	if (!need_link && !keep_link && link)
		keep_first(link_delete(n, VXLAN_LINK, &e), &e, &first, err);
	return first;
}
