/* Which endpoints of a service's port get its packets: ready ones, else those that end but still serve; near ones where the slices' hints say so; and of this
 * node alone. Upstream: pkg/proxy/topology.go (KEP-1669, KEP-2433, KEP-3015). */
#include "proxy/internal.h"

#include <arpa/inet.h>

enum readiness { READY, SERVING_TERMINATING };

const char *protocol_text(struct str p)
{
	return str_eqz(p, "UDP") ? "udp" : str_eqz(p, "SCTP") ? "sctp" : "tcp";
}

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

bool may_be_sent_to(struct str ip, uint32_t *ret)
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

/* Whom an endpoint is for, as its hints say. */
enum { FOR_NODES = 1, FOR_THIS_NODE = 2, FOR_ZONES = 4, FOR_THIS_ZONE = 8 };

static unsigned hints_of(const struct discovery_v1_endpoint *e, const struct proxy_node *node)
{
	unsigned bits = 0;

	if (!e->hints)
		return 0;
	LIST_EACH(n, &e->hints->for_nodes)
		bits |= FOR_NODES | (str_eqz(n->name, node->name) ? FOR_THIS_NODE : 0);
	LIST_EACH(z, &e->hints->for_zones)
		bits |= FOR_ZONES |
			(node->zone.len && str_eq(z->name, node->zone) ? FOR_THIS_ZONE : 0);
	return bits;
}

/* known: which are among them already. */
static void collect(struct arena *a, const struct discovery_v1_endpoint_slice *s,
	const struct core_v1_service_port *p, enum readiness want, const struct proxy_node *node,
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

		if (to->len >= TARGETS_MOST || !e->addresses.len || !counts_as(e, want) ||
			!may_be_sent_to(e->addresses.items[0], &key.ip) ||
			map_set(known, str_n((char *)&key, sizeof(key)), to))
			continue;
		*ARENA_ADD(a, to->items, to->len) =
			(struct target){ .ip = arena_str(a, e->addresses.items[0]),
				.address = key.ip,
				.port = port,
				.hints = hints_of(e, node),
				.local = str_eqz(e->node_name, node->name) };
	}
}

static struct targets gather(struct arena *a,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n,
	const struct core_v1_service_port *p, enum readiness want, const struct proxy_node *node)
{
	struct map known = { 0 };
	struct targets t = { 0 };

	for (size_t i = 0; i < n; i++)
		collect(a, slices[i], p, want, node, &known, &t);
	map_deinit(&known, NULL);
	return t;
}

static struct targets only_local(struct arena *a, struct targets all)
{
	struct targets t = { 0 };

	for (size_t i = 0; i < all.len; i++)
		if (all.items[i].local)
			*ARENA_ADD(a, t.items, t.len) = all.items[i];
	return t;
}

/* All must have a hint and one must be near: a slice half written, or a zone without endpoints, falls back to all. */
static struct targets only_near(struct arena *a, struct targets all)
{
	static const struct {
		unsigned has, near;
	} ways[] = { { FOR_NODES, FOR_THIS_NODE }, { FOR_ZONES, FOR_THIS_ZONE } };

	for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
		struct targets t = { 0 };
		bool whole = true;

		for (size_t i = 0; i < all.len; i++) {
			whole &= (all.items[i].hints & ways[w].has) != 0;
			if (all.items[i].hints & ways[w].near)
				*ARENA_ADD(a, t.items, t.len) = all.items[i];
		}
		if (whole && t.len)
			return t;
	}
	return all;
}

struct port_targets targets_find(struct arena *a,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n,
	const struct core_v1_service_port *p, const struct proxy_node *node)
{
	struct targets ready = gather(a, slices, n, p, READY, node),
		       ending = gather(a, slices, n, p, SERVING_TERMINATING, node);
	struct port_targets t = { .everywhere = ready.len ? ready : ending };

	t.cluster = ready.len ? only_near(a, ready) : ending;
	t.local = only_local(a, ready);
	t.ready_local = t.local.len;
	if (!t.local.len)
		t.local = only_local(a, ending);
	return t;
}
