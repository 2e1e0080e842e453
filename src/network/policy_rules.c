/* One direction of a NetworkPolicy as nft rules: each peer by each port, every one ending in accept.
 * Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/ */
#include "network/internal.h"

#include <stdio.h>

const char *protocol_name(struct str p)
{
	return str_eqz(p, "UDP") ? "udp" : str_eqz(p, "SCTP") ? "sctp" : "tcp";
}

/* ---- ranges of numbers (addresses, ports): added, cut out, merged ---- */

struct range {
	uint32_t first, last;
};
struct ranges {
	struct arena *arena;
	struct range *items;
	size_t len;
};

static void range_add(struct ranges *r, uint32_t first, uint32_t last)
{
	*ARENA_ADD(r->arena, r->items, r->len) = (struct range){ first, last };
}

static int by_first(const void *x, const void *y)
{
	const struct range *a = x, *b = y;

	return a->first < b->first ? -1 : a->first > b->first;
}

/* nft refuses a set whose intervals overlap. */
static void ranges_merge(struct ranges *r)
{
	size_t n = 0;

	if (r->len)
		qsort(r->items, r->len, sizeof(*r->items), by_first);
	for (size_t i = 0; i < r->len; i++) {
		struct range x = r->items[i];

		if (n && (x.first <= r->items[n - 1].last || x.first == r->items[n - 1].last + 1))
			r->items[n - 1].last = MAX(x.last, r->items[n - 1].last);
		else
			r->items[n++] = x;
	}
	r->len = n;
}

/* What is left of `from` without `but`: both are merged, and gone through once, however many there are. */
static void ranges_cut(struct ranges *from, struct ranges *but)
{
	struct ranges left = { .arena = from->arena };
	size_t k = 0;

	ranges_merge(from);
	ranges_merge(but);
	for (size_t i = 0; i < from->len; i++) {
		uint64_t first = from->items[i].first;
		uint32_t last = from->items[i].last;

		while (k < but->len && but->items[k].last < first)
			k++;
		for (size_t j = k; j < but->len && but->items[j].first <= last && first <= last;
			j++) {
			if (but->items[j].first > first)
				range_add(&left, (uint32_t)first, but->items[j].first - 1);
			first = MAX(first, (uint64_t)but->items[j].last + 1);
			k = j;
		}
		if (first <= last)
			range_add(&left, (uint32_t)first, last);
	}
	*from = left;
}

static void write_address(struct buf *out, uint32_t ip)
{
	buf_addf(out, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

/* ---- what a rule is made of: texts, one of which must match ---- */

struct texts {
	struct arena *arena;
	struct str *items;
	size_t len;
};

static void text_add(struct texts *t, struct str s)
{
	*ARENA_ADD(t->arena, t->items, t->len) = s;
}

/* ---- peers ---- */

static uint32_t last_of(uint32_t ip, int prefix)
{
	return ip | (prefix ? (prefix == 32 ? 0 : ~(uint32_t)0 >> prefix) : ~(uint32_t)0);
}

static void block_add(struct ranges *to, const struct networking_v1_ip_block *b)
{
	struct ranges own = { .arena = to->arena }, but = own;
	uint32_t ip;
	int prefix;

	if (cidr_read(b->cidr, &ip, &prefix) < 0)
		return; /* IPv6: pods have none */
	range_add(&own, ip, last_of(ip, prefix));
	LIST_EACH(x, &b->except) {
		if (cidr_read(*x, &ip, &prefix) == 0)
			range_add(&but, ip, last_of(ip, prefix));
	}
	ranges_cut(&own, &but);
	for (size_t i = 0; i < own.len; i++)
		range_add(to, own.items[i].first, own.items[i].last);
}

static void blocks_text(struct ranges *r, const char *side, struct texts *ret)
{
	CLEAN_BUF struct buf b = { 0 };

	ranges_merge(r);
	if (!r->len)
		return;
	buf_addf(&b, "ip %s { ", side);
	for (size_t i = 0; i < r->len; i++) {
		buf_addz(&b, i ? ", " : "");
		write_address(&b, r->items[i].first);
		if (r->items[i].last != r->items[i].first) {
			buf_addc(&b, '-');
			write_address(&b, r->items[i].last);
		}
	}
	buf_addz(&b, " } ");
	text_add(ret, arena_str(ret->arena, buf_str(&b)));
}

static struct texts peers_text(const struct networking_v1_network_policy_peer_items *peers,
	struct str ns, const char *side, const struct rule_sets *sets, struct arena *a)
{
	struct texts t = { .arena = a };
	struct ranges blocks = { .arena = a };
	struct map known = { 0 };

	if (!peers->len) /* anybody */
		text_add(&t, arena_fmt(a, "meta nfproto ipv4 "));
	LIST_EACH(p, peers) {
		if (p->ip_block) {
			block_add(&blocks, p->ip_block);
			continue;
		}
		const char *set = sets->pods(sets->arg, ns, p->namespace_selector, p->pod_selector);

		if (!map_set(&known, str_of(set), &known))
			text_add(&t, arena_fmt(a, "ip %s @%s ", side, set));
	}
	map_deinit(&known, NULL);
	blocks_text(&blocks, side, &t);
	return t;
}

/* ---- ports ---- */

static void numbers_text(struct ranges *r, const char *protocol, struct texts *ret)
{
	CLEAN_BUF struct buf b = { 0 };

	ranges_merge(r);
	if (!r->len)
		return;
	if (r->items[0].first == 0 && r->items[0].last == 65535) {
		text_add(ret, arena_fmt(ret->arena, "meta l4proto %s ", protocol));
		return;
	}
	buf_addf(&b, "%s dport { ", protocol);
	for (size_t i = 0; i < r->len; i++) {
		buf_addf(&b, "%s%u", i ? ", " : "", r->items[i].first);
		if (r->items[i].last != r->items[i].first)
			buf_addf(&b, "-%u", r->items[i].last);
	}
	buf_addz(&b, " } ");
	text_add(ret, arena_str(ret->arena, buf_str(&b)));
}

static struct texts ports_text(const struct networking_v1_network_policy_port_items *ports,
	const struct rule_sets *sets, struct arena *a)
{
	static const char *const protocols[] = { "tcp", "udp", "sctp" };
	struct texts t = { .arena = a };

	if (!ports->len)
		text_add(&t, STR(""));
	for (size_t i = 0; i < ARRAY_LEN(protocols); i++) {
		struct ranges numbers = { .arena = a };
		CLEAN_BUF struct buf names = { 0 };

		LIST_EACH(p, ports) {
			if (strcmp(protocol_name(p->protocol), protocols[i]) != 0)
				continue;
			if (p->port.kind == IOS_NONE)
				range_add(&numbers, 0, 65535);
			else if (p->port.kind == IOS_INT)
				range_add(&numbers, (uint32_t)p->port.num,
					(uint32_t)(p->end_port.set ? p->end_port.value
								   : p->port.num));
			else
				buf_addf(&names, "%s" STR_FMT, names.len ? "," : "",
					STR_ARG(p->port.text));
		}
		if (names.len)
			text_add(&t,
				arena_fmt(a, "ip daddr . meta l4proto . th dport @%s ",
					sets->ports(sets->arg, buf_str(&names), protocols[i])));
		numbers_text(&numbers, protocols[i], &t);
	}
	return t;
}

/* ---- rules ---- */

static void cross(struct texts peers, struct texts ports, const char *chain, struct buf *out)
{
	for (size_t i = 0; i < peers.len; i++)
		for (size_t j = 0; j < ports.len; j++)
			buf_addf(out, "add rule " POLICY_TABLE " %s " STR_FMT STR_FMT "accept\n",
				chain, STR_ARG(peers.items[i]), STR_ARG(ports.items[j]));
}

void policy_ingress_rules(const struct networking_v1_network_policy *o,
	const struct rule_sets *sets, const char *chain, struct buf *out)
{
	CLEAN_ARENA struct arena *a = arena_new(0);

	LIST_EACH(r, &o->spec.ingress)
		cross(peers_text(&r->from, o->metadata.namespace, "saddr", sets, a),
			ports_text(&r->ports, sets, a), chain, out);
}

void policy_egress_rules(const struct networking_v1_network_policy *o, const struct rule_sets *sets,
	const char *chain, struct buf *out)
{
	CLEAN_ARENA struct arena *a = arena_new(0);

	LIST_EACH(r, &o->spec.egress)
		cross(peers_text(&r->to, o->metadata.namespace, "daddr", sets, a),
			ports_text(&r->ports, sets, a), chain, out);
}
