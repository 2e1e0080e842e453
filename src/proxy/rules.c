/* See internal.h. A packet to a service looks its address, protocol and port up in one map, goes to the chain for as many endpoints as there are,
 * draws a number there, and finds the endpoint of that number in a second map: two look-ups, whatever the number of services. */
#include "proxy/internal.h"

#include <arpa/inet.h>
#include <stdio.h>

static const char *protocol_text(struct str p)
{
	return str_eqz(p, "UDP") ? "udp" : str_eqz(p, "SCTP") ? "sctp" : "tcp";
}

static void add(struct rules *r, size_t front, const char *set, struct str key, struct str value)
{
	*ARENA_ADD(r->arena, r->items, r->len) = (struct element){ set, key, value, front };
}

/* false: there already, or more than a service may have. */
static bool add_front(
	struct rules *r, struct str key, enum front_rank rank, size_t n_elements, size_t *ret_front)
{
	if (map_set(r->known, key, r))
		return false;
	if (r->len + r->n_fronts + n_elements > RULES_MOST) {
		r->cut = true;
		return false;
	}
	*ret_front = r->n_fronts;
	*ARENA_ADD(r->arena, r->fronts, r->n_fronts) = (struct front){ key, rank, true };
	return true;
}

static struct str need_chain(struct rules *r, uint32_t count)
{
	CLEAN_BUF struct buf name = { 0 };

	*ARENA_ADD(r->arena, r->counts, r->n_counts) = count;
	buf_addz(&name, "goto ");
	chain_name(count, &name);
	return arena_str(r->arena, buf_str(&name));
}

void chain_name(uint32_t count, struct buf *out)
{
	buf_addf(out, "%s%s%u",
		count & CHAIN_NODE                 ? "node_"
			: count & CHAIN_NODE_LOCAL ? "local_"
						   : "",
		count & CHAIN_STICKY ? "sticky_" : "pick_", count & CHAIN_COUNT);
}

void chain_write(uint32_t count, struct buf *out)
{
	bool node = count & (CHAIN_NODE | CHAIN_NODE_LOCAL);
	CLEAN_BUF struct buf name = { 0 };

	chain_name(count, &name);
	buf_addf(out, "add chain " PROXY_TABLE " %s\n", name.p);
	buf_addf(out, "add rule " PROXY_TABLE " %s meta mark set %s mod %u offset %u\n", name.p,
		count & CHAIN_STICKY ? "jhash ip saddr" : "numgen random", count & CHAIN_COUNT,
		count & CHAIN_NODE ? MARK_MASQUERADE : 0);
	buf_addf(out, "add rule " PROXY_TABLE " %s dnat ip to %s . th dport . meta mark map @%s\n",
		name.p, node ? "meta l4proto" : "ip daddr . meta l4proto",
		node ? "node_port_endpoints" : "endpoints");
}

void table_write(const char *dns_address, struct buf *out)
{
	CLEAN_FREE char *keep_dns =
		dns_address ? xasprintf("ip daddr %s return\n", dns_address) : xstrdup("");

	buf_addz(out,
		"table " PROXY_TABLE " {\n"
		"map services { type ipv4_addr . inet_proto . inet_service : verdict; }\n"
		"map node_ports { type inet_proto . inet_service : verdict; }\n"
		"map endpoints { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }\n"
		"map node_port_endpoints { type inet_proto . inet_service . mark : ipv4_addr . inet_service; }\n"
		"set no_endpoints { type ipv4_addr . inet_proto . inet_service; }\n"
		"set no_endpoints_node_ports { type inet_proto . inet_service; }\n"
		"set hairpin { type ipv4_addr . ipv4_addr; }\n"
		"chain dispatch {\n");
	buf_addz(out, keep_dns);
	buf_addz(out,
		"ip daddr . meta l4proto . th dport vmap @services\n"
		"ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node_ports\n"
		"}\n"
		"chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump dispatch; }\n"
		"chain output { type nat hook output priority -100; policy accept; jump dispatch; }\n"
		"chain postrouting { type nat hook postrouting priority srcnat - 1; policy accept;\n"
		"ct status & dnat == 0 return\n"
		"ip saddr . ip daddr @hairpin masquerade\n"
		"meta mark & 0x10000 != 0 masquerade\n"
		"}\n"
		"chain refuse {\n");
	buf_addz(out, keep_dns);
	buf_addz(out,
		"ip daddr . meta l4proto . th dport @no_endpoints reject\n"
		"fib daddr type local meta l4proto . th dport @no_endpoints_node_ports reject\n"
		"}\n"
		"chain input { type filter hook input priority filter - 1; policy accept; ct state new jump refuse; }\n"
		"chain forward { type filter hook forward priority filter - 1; policy accept; ct state new jump refuse; }\n"
		"chain filter_output { type filter hook output priority filter - 1; policy accept; ct state new jump refuse; }\n"
		"}\n");
}

/* ---- endpoints of one port ---- */

struct target {
	struct str ip;
	int32_t port;
	bool local;
};
struct targets {
	struct target *items;
	size_t len;
};

enum readiness { READY, SERVING_TERMINATING };

static bool counts_as(const struct discovery_v1_endpoint *e, enum readiness want)
{
	const struct discovery_v1_endpoint_conditions *c = &e->conditions;

	if (want == READY)
		return !c->ready.set || c->ready.value;
	return c->serving.set && c->serving.value && c->terminating.set && c->terminating.value;
}

static int32_t port_of(
	const struct discovery_v1_endpoint_slice *s, const struct core_v1_service_port *want)
{
	LIST_EACH(p, &s->ports) {
		if (str_eq(p->name, want->name) &&
			!strcmp(protocol_text(p->protocol), protocol_text(want->protocol)) &&
			p->port.set)
			return p->port.value;
	}
	return 0;
}

/* Slices are written by hand too, and the API server may be of another make: one element that nftables refuses would be the end of all rules, and a
 * packet sent to a loopback address ends at what listens on the node alone. */
static bool may_be_sent_to(struct str ip, uint32_t *ret)
{
	char z[INET_ADDRSTRLEN];
	struct in_addr in;

	if (!ip.len || ip.len >= sizeof(z))
		return false;
	memcpy(z, ip.p, ip.len);
	z[ip.len] = 0;
	if (inet_pton(AF_INET, z, &in) != 1)
		return false;
	*ret = ntohl(in.s_addr);
	return *ret >> 24 != 0 && *ret >> 24 != 127 && *ret >> 16 != 0xa9fe && *ret >> 28 < 14;
}

/* known: which are among them already. */
static void collect(struct rules *r, const struct discovery_v1_endpoint_slice *s,
	const struct core_v1_service_port *p, enum readiness want, const char *node_name,
	struct map *known, struct targets *to)
{
	int32_t port = port_of(s, p);

	if (port <= 0 || port > 65535 || !str_eqz(s->address_type, "IPv4"))
		return;
	LIST_EACH(e, &s->endpoints) {
		struct {
			uint32_t ip;
			int32_t port;
		} key = { .port = port };

		if (!e->addresses.len || !counts_as(e, want) ||
			!may_be_sent_to(e->addresses.items[0], &key.ip) ||
			map_set(known, str_n((char *)&key, sizeof(key)), to))
			continue;
		*ARENA_ADD(r->arena, to->items, to->len) =
			(struct target){ arena_str(r->arena, e->addresses.items[0]), port,
				str_eqz(e->node_name, node_name) };
	}
}

static struct targets find_targets(struct rules *r,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n,
	const struct core_v1_service_port *p, const char *node_name)
{
	struct targets t = { 0 };

	for (int want = READY; want <= SERVING_TERMINATING && !t.len; want++) {
		struct map known = { 0 };

		for (size_t i = 0; i < n; i++)
			collect(r, slices[i], p, (enum readiness)want, node_name, &known, &t);
		map_deinit(&known, NULL);
	}
	return t;
}

static struct targets only_local(struct rules *r, struct targets all)
{
	struct targets t = { arena_alloc(r->arena, (all.len + 1) * sizeof(*t.items)), 0 };

	for (size_t i = 0; i < all.len; i++)
		if (all.items[i].local)
			t.items[t.len++] = all.items[i];
	return t;
}

/* ---- elements ---- */

static void add_address(struct rules *r, struct str ip, enum front_rank rank,
	const struct core_v1_service_port *p, struct targets t, bool sticky)
{
	struct str key = arena_fmt(
		r->arena, STR_FMT " . %s . %d", STR_ARG(ip), protocol_text(p->protocol), p->port);
	size_t front;

	if (!add_front(r, key, rank, t.len + 1, &front))
		return;
	if (!t.len) {
		add(r, front, "no_endpoints", key, STR_NONE);
		return;
	}
	add(r, front, "services", key,
		need_chain(r, (uint32_t)t.len | (sticky ? CHAIN_STICKY : 0)));
	for (size_t i = 0; i < t.len; i++)
		add(r, front, "endpoints", arena_fmt(r->arena, STR_FMT " . %zu", STR_ARG(key), i),
			arena_fmt(r->arena, STR_FMT " . %d", STR_ARG(t.items[i].ip),
				t.items[i].port));
}

static void add_node_port(struct rules *r, const struct core_v1_service_port *p, struct targets t,
	bool sticky, bool local)
{
	struct str key = arena_fmt(r->arena, "%s . %d", protocol_text(p->protocol), p->node_port);
	uint32_t kind = (local ? CHAIN_NODE_LOCAL : CHAIN_NODE) | (sticky ? CHAIN_STICKY : 0);
	size_t front;

	if (!add_front(r, key, FRONT_OTHER, t.len + 1, &front))
		return;
	if (!t.len) {
		add(r, front, "no_endpoints_node_ports", key, STR_NONE);
		return;
	}
	add(r, front, "node_ports", key, need_chain(r, (uint32_t)t.len | kind));
	for (size_t i = 0; i < t.len; i++)
		add(r, front, "node_port_endpoints",
			arena_fmt(r->arena, STR_FMT " . %zu", STR_ARG(key),
				i + (local ? 0 : MARK_MASQUERADE)),
			arena_fmt(r->arena, STR_FMT " . %d", STR_ARG(t.items[i].ip),
				t.items[i].port));
}

/* known: of the service's other ports. */
static void add_hairpin(struct rules *r, struct targets t, struct map *known)
{
	for (size_t i = 0; i < t.len; i++)
		if (t.items[i].local && !map_set(known, t.items[i].ip, known))
			add(r, NO_FRONT, "hairpin",
				arena_fmt(r->arena, STR_FMT " . " STR_FMT, STR_ARG(t.items[i].ip),
					STR_ARG(t.items[i].ip)),
				STR_NONE);
}

static bool is_ipv4(struct str ip)
{
	uint32_t v4;

	return may_be_sent_to(ip, &v4);
}

static void add_port(struct rules *r, const struct core_v1_service *s,
	const struct core_v1_service_port *p, struct targets all)
{
	bool sticky = str_eqz(s->spec.session_affinity, "ClientIP"),
	     external_local = str_eqz(s->spec.external_traffic_policy, "Local");
	struct targets inside =
		str_eqz(s->spec.internal_traffic_policy, "Local") ? only_local(r, all) : all;
	struct targets outside = external_local ? only_local(r, all) : all;

	if (is_ipv4(s->spec.cluster_ip))
		add_address(r, s->spec.cluster_ip, FRONT_CLUSTER_IP, p, inside, sticky);
	LIST_EACH(ip, &s->spec.external_ips) {
		if (is_ipv4(*ip))
			add_address(r, *ip, FRONT_OTHER, p, outside, sticky);
	}
	LIST_EACH(in, &s->status.load_balancer.ingress) {
		if (is_ipv4(in->ip))
			add_address(r, in->ip, FRONT_OTHER, p, outside, sticky);
	}
	if (p->node_port)
		add_node_port(r, p, outside, sticky, external_local);
}

/* Nobody takes the API servers' own addresses from those who ask them. */
static void keep_api_servers(
	struct rules *r, const struct core_v1_service_port *p, struct targets all)
{
	size_t front;

	for (size_t i = 0; i < all.len; i++)
		add_front(r,
			arena_fmt(r->arena, STR_FMT " . %s . %d", STR_ARG(all.items[i].ip),
				protocol_text(p->protocol), all.items[i].port),
			FRONT_API_SERVER, 0, &front);
}

void rules_build(struct rules *r, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n_slices,
	const char *node_name)
{
	if (str_eqz(s->spec.type, "ExternalName") || str_eqz(s->spec.cluster_ip, "None") ||
		!s->spec.cluster_ip.len)
		return;
	if (str_map_has(&s->metadata.annotations, STR(PROXY_SKIP_ANNOTATION)))
		return;
	bool api = str_eqz(s->metadata.namespace, "default") &&
		str_eqz(s->metadata.name, "kubernetes");
	struct map local = { 0 }, known = { 0 };

	r->known = &known;
	r->created = s->metadata.creation_timestamp;
	LIST_EACH(p, &s->spec.ports) {
		struct targets all = find_targets(r, slices, n_slices, p, node_name);

		add_port(r, s, p, all);
		add_hairpin(r, all, &local);
		if (api)
			keep_api_servers(r, p, all);
	}
	map_deinit(&local, NULL);
	map_deinit(&known, NULL);
	r->known = NULL;
}

/* ---- the difference ---- */

struct applied_element {
	char *value;
	unsigned services;
};

static struct str name_of(const struct element *e, struct buf *b)
{
	buf_clear(b);
	buf_addf(b, "%s " STR_FMT, e->set, STR_ARG(e->key));
	return buf_str(b);
}

static bool is_held(const struct rules *r, const struct element *e)
{
	return e->front == NO_FRONT || r->fronts[e->front].held;
}

static void write_element(
	struct buf *out, const char *verb, const struct element *e, bool with_value)
{
	buf_addf(out, "%s element " PROXY_TABLE " %s { " STR_FMT, verb, e->set, STR_ARG(e->key));
	if (with_value && e->value.len)
		buf_addf(out, " : " STR_FMT, STR_ARG(e->value));
	buf_addz(out, " }\n");
}

static void element_drop(
	struct applied *a, const struct element *e, struct buf *name, struct buf *out)
{
	struct applied_element *have = map_get(&a->elements, name_of(e, name));

	if (!have || --have->services > 0)
		return;
	write_element(out, "delete", e, false);
	map_remove(&a->elements, buf_str(name));
	free(have->value);
	free(have);
}

static void element_put(
	struct applied *a, const struct element *e, struct buf *name, struct buf *out)
{
	struct applied_element *have = map_get(&a->elements, name_of(e, name));

	if (have && str_eqz(e->value, have->value)) {
		have->services++;
		return;
	}
	if (have) {
		write_element(out, "delete", e, false);
		free(have->value);
	} else {
		have = xcalloc(1, sizeof(*have));
		map_set(&a->elements, buf_str(name), have);
	}
	have->value = str_dup(e->value);
	have->services++;
	write_element(out, "add", e, true);
}

/* The elements that are the kernel's, by name. */
static struct map index_of(const struct rules *r, struct buf *name)
{
	struct map m = { 0 };

	for (size_t i = 0; r && i < r->len; i++)
		if (is_held(r, &r->items[i]))
			map_set(&m, name_of(&r->items[i], name), &r->items[i]);
	return m;
}

static bool has_element(const struct map *index, const struct element *e, struct buf *name)
{
	const struct element *there = map_get(index, name_of(e, name));

	return there && str_eq(there->value, e->value);
}

static void put_chains(struct applied *a, const struct rules *r, struct buf *name, struct buf *out)
{
	for (size_t i = 0; i < r->n_counts; i++) {
		buf_clear(name);
		chain_name(r->counts[i], name);
		if (!map_get(&a->chains, buf_str(name))) {
			map_set(&a->chains, buf_str(name), a);
			chain_write(r->counts[i], out);
		}
	}
}

void rules_change(
	struct applied *a, const struct rules *was, const struct rules *now, struct buf *out)
{
	CLEAN_BUF struct buf name = { 0 };
	struct map before = index_of(now ? was : NULL, &name),
		   after = index_of(was ? now : NULL, &name);

	if (now)
		put_chains(a, now, &name, out);
	for (size_t i = 0; was && i < was->len; i++)
		if (is_held(was, &was->items[i]) && !has_element(&after, &was->items[i], &name))
			element_drop(a, &was->items[i], &name, out);
	for (size_t i = 0; now && i < now->len; i++)
		if (is_held(now, &now->items[i]) && !has_element(&before, &now->items[i], &name))
			element_put(a, &now->items[i], &name, out);
	map_deinit(&before, NULL);
	map_deinit(&after, NULL);
}

static void element_free(void *v)
{
	struct applied_element *e = v;

	free(e->value);
	free(e);
}

void applied_deinit(struct applied *a)
{
	map_deinit(&a->elements, element_free);
	map_deinit(&a->chains, NULL);
}
