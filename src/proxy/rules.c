/* See internal.h. A packet to a service looks its address, protocol and port up in one map, goes to the chain for as many endpoints as there are,
 * draws a number there, and finds the endpoint of that number in a second map: two look-ups, whatever the number of services. */
#include "proxy/internal.h"

#include <stdio.h>

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

void chain_kind_name(uint32_t count, struct buf *out)
{
	buf_addf(out, "%s%s", count & CHAIN_NODE ? "node_" : "",
		count & CHAIN_OUT             ? "out_"
			: count & CHAIN_LOCAL ? "local_"
					      : "");
}

void chain_name(uint32_t count, struct buf *out)
{
	chain_kind_name(count, out);
	buf_addf(out, "pick_%u", count & CHAIN_COUNT);
}

uint32_t mark_of(uint32_t kind)
{
	return kind & CHAIN_OUT ? MARK_MASQUERADE : kind & CHAIN_LOCAL ? MARK_LOCAL : 0;
}

void chain_write(uint32_t count, struct buf *out)
{
	bool node = count & CHAIN_NODE;
	CLEAN_BUF struct buf name = { 0 };

	chain_name(count, &name);
	buf_addf(out, "add chain " PROXY_TABLE " %s\n", name.p);
	buf_addf(out, "add rule " PROXY_TABLE " %s meta mark set numgen random mod %u offset %u\n",
		name.p, count & CHAIN_COUNT, mark_of(count));
	buf_addf(out, "add rule " PROXY_TABLE " %s dnat ip to %s . th dport . meta mark map @%s\n",
		name.p, node ? "meta l4proto" : "ip daddr . meta l4proto",
		node ? "node_port_endpoints" : "endpoints");
}

/* Who is of the cluster comes to all endpoints also where a policy keeps those from outside on this node. */
static void write_hooks(const struct table_config *c, struct buf *out)
{
	buf_addz(out,
		"chain prerouting { type nat hook prerouting priority dstnat; policy accept;\n");
	if (c->cluster_cidr)
		buf_addf(out, "ip saddr %s jump dispatch_inside\n", c->cluster_cidr);
	buf_addz(out,
		"jump dispatch\n}\n"
		"chain output { type nat hook output priority -100; policy accept;\n"
		"jump dispatch_inside\njump dispatch\n}\n"
		"chain postrouting { type nat hook postrouting priority srcnat - 1; policy accept;\n"
		"ct status & dnat == 0 return\n"
		"ip saddr . ip daddr @hairpin masquerade\n"
		"meta mark & 0x10000 != 0 masquerade\n");
	/* A machine outside that has a route to service addresses. */
	if (c->cluster_cidr && c->service_cidr)
		buf_addf(out,
			"ct original ip daddr %s ip saddr != %s fib saddr type != local masquerade\n",
			c->service_cidr, c->cluster_cidr);
	buf_addz(out, "}\n");
}

static const struct {
	const char *kind, *name, *type;
} sets[] = {
	/* clang-format off */
	{ "map", "services",                "ipv4_addr . inet_proto . inet_service : verdict" },
	{ "map", "services_inside",         "ipv4_addr . inet_proto . inet_service : verdict" },
	{ "map", "node_ports",              "inet_proto . inet_service : verdict" },
	{ "map", "node_ports_inside",       "inet_proto . inet_service : verdict" },
	{ "map", "restricted",              "ipv4_addr . inet_proto . inet_service : verdict" },
	{ "map", "endpoints",               "ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service" },
	{ "map", "node_port_endpoints",     "inet_proto . inet_service . mark : ipv4_addr . inet_service" },
	{ "map", "choices",                 "ipv4_addr . inet_proto . inet_service . mark : mark" },
	{ "map", "node_port_choices",       "inet_proto . inet_service . mark : mark" },
	{ "set", "no_endpoints",            "ipv4_addr . inet_proto . inet_service" },
	{ "set", "no_endpoints_node_ports", "inet_proto . inet_service" },
	{ "set", "hairpin",                 "ipv4_addr . ipv4_addr" },
	/* clang-format on */
};

/* What is there is emptied piece by piece: with the table the memory of clients would go. */
static void write_sets(const struct str_list *chains, struct buf *out)
{
	if (!chains)
		buf_addz(out, "table " PROXY_TABLE "\ndelete table " PROXY_TABLE "\n");
	buf_addz(out, "table " PROXY_TABLE " {\n");
	for (size_t i = 0; i < ARRAY_LEN(sets); i++)
		buf_addf(out, "%s %s { type %s; }\n", sets[i].kind, sets[i].name, sets[i].type);
	buf_addz(out, "}\n");
	if (!chains)
		return;
	buf_addz(out, "flush table " PROXY_TABLE "\n");
	for (size_t i = 0; i < ARRAY_LEN(sets); i++)
		buf_addf(out, "flush %s " PROXY_TABLE " %s\n", sets[i].kind, sets[i].name);
	LIST_EACH(chain, chains)
		buf_addf(out, "delete chain " PROXY_TABLE " " STR_FMT "\n", STR_ARG(*chain));
}

void table_write(const struct table_config *c, const struct str_list *chains, struct buf *out)
{
	CLEAN_FREE char *keep_dns =
		c->dns_address ? xasprintf("ip daddr %s return\n", c->dns_address) : xstrdup("");

	write_sets(chains, out);
	buf_addf(out,
		"table " PROXY_TABLE " {\n"
		"chain dispatch {\n%s"
		"ip daddr . meta l4proto . th dport vmap @services\n"
		"ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node_ports\n"
		"}\n"
		"chain dispatch_inside {\n%s"
		"ip daddr . meta l4proto . th dport vmap @services_inside\n"
		"ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node_ports_inside\n"
		"}\n",
		keep_dns, keep_dns);
	write_hooks(c, out);
	buf_addf(out,
		"chain refuse {\n%s"
		"ip daddr . meta l4proto . th dport @no_endpoints reject\n"
		"fib daddr type local meta l4proto . th dport @no_endpoints_node_ports reject\n"
		"}\n"
		"}\n",
		keep_dns);
}

/* ---- elements ---- */

/* How one place (address or node port) leads to endpoints. */
struct way {
	const char *verdicts; /* the map that leads to the chain */
	uint32_t kind;        /* CHAIN_… */
	struct targets to;    /* none: packets vanish, since other nodes have some */
};
struct place {
	struct str key;
	enum front_rank rank;
	bool node_port;
	uint32_t timeout; /* of affinity; 0: none */
};

static struct str need_shared(struct rules *r, uint32_t count, uint32_t timeout)
{
	CLEAN_BUF struct buf name = { 0 }, text = { 0 };

	affinity_chain_name(count, timeout, &name);
	affinity_chain_write(count, timeout, &text);
	*ARENA_ADD(r->arena, r->shared, r->n_shared) =
		(struct shared_chain){ arena_str(r->arena, buf_str(&name)),
			arena_str(r->arena, buf_str(&text)) };
	return arena_fmt(r->arena, "goto " STR_FMT, STR_ARG(buf_str(&name)));
}

/* One that is drawn has its place in the order of all as its number; one that is remembered has its own, and the draw leads to that. */
static size_t add_endpoints(
	struct rules *r, size_t front, const struct place *p, const struct way *w)
{
	uint32_t mark = mark_of(w->kind);
	size_t n = 0;

	for (size_t i = 0; i < w->to.len; i++) {
		const struct target *t = &w->to.items[i];
		size_t number = mark + (p->timeout ? t->number : n);

		if (p->timeout && !t->number)
			continue;
		if (p->timeout)
			add(r, front, p->node_port ? "node_port_choices" : "choices",
				arena_fmt(r->arena, STR_FMT " . %zu", STR_ARG(p->key), mark + n),
				arena_fmt(r->arena, "%zu", number));
		add(r, front, p->node_port ? "node_port_endpoints" : "endpoints",
			arena_fmt(r->arena, STR_FMT " . %zu", STR_ARG(p->key), number),
			arena_fmt(r->arena, STR_FMT " . %d", STR_ARG(t->ip), t->port));
		n++;
	}
	return n;
}

static void add_way(struct rules *r, size_t front, const struct place *p, const struct way *w)
{
	uint32_t kind = w->kind | (p->node_port ? CHAIN_NODE : 0);
	uint32_t n = (uint32_t)add_endpoints(r, front, p, w);

	add(r, front, w->verdicts, p->key,
		!n                   ? STR("drop")
			: p->timeout ? need_shared(r, n | kind, p->timeout)
				     : need_chain(r, n | kind));
}

/* false: it is not this service's, or has nowhere to lead to. */
static bool add_place(struct rules *r, const struct place *p, const struct port_targets *t,
	const struct way *ways, size_t n_ways, size_t *ret_front)
{
	size_t n = 1;

	for (size_t i = 0; i < n_ways; i++)
		n += 1 + ways[i].to.len * (p->timeout ? 2 : 1);
	if (!add_front(r, p->key, p->rank, n, ret_front))
		return false;
	if (!t->everywhere.len)
		add(r, *ret_front, p->node_port ? "no_endpoints_node_ports" : "no_endpoints",
			p->key, STR_NONE);
	for (size_t i = 0; i < n_ways && t->everywhere.len; i++)
		add_way(r, *ret_front, p, &ways[i]);
	return true;
}

struct port {
	struct rules *r;
	const struct core_v1_service *s;
	const struct core_v1_service_port *p;
	struct port_targets t;
	uint32_t timeout;
};

static struct str key_of(const struct port *x, struct str ip)
{
	return arena_fmt(x->r->arena, STR_FMT " . %s . %d", STR_ARG(ip),
		protocol_text(x->p->protocol), x->p->port);
}

static void add_cluster_ip(const struct port *x, struct str ip)
{
	bool local = str_eqz(x->s->spec.internal_traffic_policy, "Local");
	struct place p = { key_of(x, ip), FRONT_CLUSTER_IP, false, x->timeout };
	struct way w = { "services", 0, local ? x->t.local : x->t.cluster };
	size_t front;

	add_place(x->r, &p, &x->t, &w, 1, &front);
}

/* A place at which the world outside asks. */
static bool add_outside(const struct port *x, const struct place *p, size_t *ret_front)
{
	const char *verdicts = p->node_port ? "node_ports" : "services",
		   *inside = p->node_port ? "node_ports_inside" : "services_inside";
	struct way any[] = { { verdicts, CHAIN_OUT, x->t.cluster } },
		   local[] = { { verdicts, CHAIN_LOCAL, x->t.local }, { inside, 0, x->t.cluster } };

	return str_eqz(x->s->spec.external_traffic_policy, "Local")
		? add_place(x->r, p, &x->t, local, ARRAY_LEN(local), ret_front)
		: add_place(x->r, p, &x->t, any, ARRAY_LEN(any), ret_front);
}

static void add_external(const struct port *x, struct str ip, struct str sources)
{
	struct place p = { key_of(x, ip), FRONT_OTHER, false, x->timeout };
	size_t front;

	if (add_outside(x, &p, &front) && sources.len)
		add(x->r, front, "restricted", p.key,
			arena_fmt(x->r->arena, "jump " STR_FMT, STR_ARG(sources)));
}

static void add_node_port(const struct port *x)
{
	struct place p = { arena_fmt(x->r->arena, "%s . %d", protocol_text(x->p->protocol),
				   x->p->node_port),
		FRONT_OTHER, true, x->timeout };
	size_t front;

	add_outside(x, &p, &front);
}

/* ---- loadBalancerSourceRanges ---- */

/* As nft has it; empty: not a range of IPv4. */
static struct str range_text(struct arena *a, struct str range)
{
	struct str ip, bits;
	uint32_t address;
	int64_t n;

	range = str_trim(range);
	if (!str_cut(range, '/', &ip, &bits) || str_to_i64(bits, &n) < 0 || n < 0 || n > 32)
		return STR_NONE;
	if (n == 0)
		return STR("0.0.0.0/0");
	return may_be_sent_to(ip, &address) ? arena_fmt(a, STR_FMT "/%d", STR_ARG(ip), (int)n)
					    : STR_NONE;
}

/* The chain that lets a service's clients through and drops all others; its name. Empty: everybody is one. */
static struct str source_chain(struct rules *r, const struct core_v1_service *s)
{
	CLEAN_BUF struct buf rules = { 0 }, text = { 0 };
	struct str name;

	if (!s->spec.load_balancer_source_ranges.len)
		return STR_NONE;
	LIST_EACH(range, &s->spec.load_balancer_source_ranges) {
		struct str t = range_text(r->arena, *range);

		if (str_eqz(t, "0.0.0.0/0"))
			return STR_NONE;
		if (t.len)
			buf_addf(&rules, "ip saddr " STR_FMT " return\n", STR_ARG(t));
	}
	buf_addz(&rules, "drop\n");
	name = arena_fmt(
		r->arena, "sources_%016llx", (unsigned long long)hash_bytes(rules.p, rules.len, 0));
	buf_addf(&text, "add chain " PROXY_TABLE " " STR_FMT "\n", STR_ARG(name));
	for (struct str rest = buf_str(&rules), line; rest.len;) {
		str_cut(rest, '\n', &line, &rest);
		buf_addf(&text, "add rule " PROXY_TABLE " " STR_FMT " " STR_FMT "\n", STR_ARG(name),
			STR_ARG(line));
	}
	*ARENA_ADD(r->arena, r->shared, r->n_shared) =
		(struct shared_chain){ name, arena_str(r->arena, buf_str(&text)) };
	return name;
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

static void add_port(const struct port *x, struct str sources)
{
	const struct core_v1_service *s = x->s;

	if (is_ipv4(s->spec.cluster_ip))
		add_cluster_ip(x, s->spec.cluster_ip);
	LIST_EACH(ip, &s->spec.external_ips) {
		if (is_ipv4(*ip))
			add_external(x, *ip, STR_NONE);
	}
	/* In mode Proxy the balancer wants to see every packet itself. */
	LIST_EACH(in, &s->status.load_balancer.ingress) {
		if (is_ipv4(in->ip) && !str_eqz(in->ip_mode, "Proxy"))
			add_external(x, in->ip, sources);
	}
	if (x->p->node_port)
		add_node_port(x);
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

/* Upstream's labels by which services and slices are kept from kube-proxy. */
static bool for_others(const struct str_map *labels)
{
	return str_map_has(labels, STR("service.kubernetes.io/service-proxy-name")) ||
		str_map_has(labels, STR("service.kubernetes.io/headless"));
}

static const struct discovery_v1_endpoint_slice **for_us(struct arena *a,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n, size_t *ret_n)
{
	const struct discovery_v1_endpoint_slice **ours = arena_alloc(a, (n + 1) * sizeof(*ours));

	*ret_n = 0;
	for (size_t i = 0; i < n; i++)
		if (!for_others(&slices[i]->metadata.labels))
			ours[(*ret_n)++] = slices[i];
	return ours;
}

void rules_build(struct rules *r, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n_slices,
	const struct proxy_node *node, const struct rules *was)
{
	if (str_eqz(s->spec.type, "ExternalName") || str_eqz(s->spec.cluster_ip, "None") ||
		!s->spec.cluster_ip.len)
		return;
	if (str_map_has(&s->metadata.annotations, STR(PROXY_SKIP_ANNOTATION)) ||
		for_others(&s->metadata.labels))
		return;
	slices = for_us(r->arena, slices, n_slices, &n_slices);
	bool api = str_eqz(s->metadata.namespace, "default") &&
		str_eqz(s->metadata.name, "kubernetes");
	struct map local = { 0 }, known = { 0 };

	r->known = &known;
	r->created = s->metadata.creation_timestamp;
	struct str sources = source_chain(r, s);

	if (str_eqz(s->spec.external_traffic_policy, "Local"))
		r->health_port = s->spec.health_check_node_port;

	LIST_EACH(p, &s->spec.ports) {
		struct port x = { .r = r,
			.s = s,
			.p = p,
			.t = targets_find(r->arena, slices, n_slices, p, node),
			.timeout = affinity_timeout(s) };

		if (x.timeout)
			affinity_number(r, was, p, &x.t);
		add_port(&x, sources);
		r->ready_local = MAX(r->ready_local, x.t.ready_local);
		add_hairpin(r, x.t.everywhere, &local);
		add_hairpin(r, x.t.local, &local);
		if (api)
			keep_api_servers(r, p, x.t.everywhere);
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

/* Chains that see every packet, not only the first of a connection as those that translate do: there while a map that they look into has elements. */
static const struct {
	const char *sets; /* prefix of their names */
	const char *add, *drop;
} costly[N_COSTLY] = {
	{ "no_endpoints",
		"add chain " PROXY_TABLE
		" input { type filter hook input priority filter - 1; policy accept; }\n"
		"add chain " PROXY_TABLE
		" forward { type filter hook forward priority filter - 1; policy accept; }\n"
		"add chain " PROXY_TABLE
		" filter_output { type filter hook output priority filter - 1; policy accept; }\n"
		"add rule " PROXY_TABLE " input ct state new jump refuse\n"
		"add rule " PROXY_TABLE " forward ct state new jump refuse\n"
		"add rule " PROXY_TABLE " filter_output ct state new jump refuse\n",
		"flush chain " PROXY_TABLE " input\ndelete chain " PROXY_TABLE " input\n"
		"flush chain " PROXY_TABLE " forward\ndelete chain " PROXY_TABLE " forward\n"
		"flush chain " PROXY_TABLE " filter_output\ndelete chain " PROXY_TABLE
		" filter_output\n" },
	/* Before service addresses are replaced; packets of the node itself, too. */
	{ "restricted",
		"add chain " PROXY_TABLE
		" sources { type filter hook prerouting priority dstnat - 5; policy accept; }\n"
		"add rule " PROXY_TABLE
		" sources ct state new ip daddr . meta l4proto . th dport vmap @restricted\n"
		"add chain " PROXY_TABLE
		" sources_output { type filter hook output priority -105; policy accept; }\n"
		"add rule " PROXY_TABLE
		" sources_output ct state new ip daddr . meta l4proto . th dport vmap @restricted\n",
		"flush chain " PROXY_TABLE " sources\ndelete chain " PROXY_TABLE " sources\n"
		"flush chain " PROXY_TABLE " sources_output\ndelete chain " PROXY_TABLE
		" sources_output\n" },
};
static void count_costly(struct applied *a, const struct element *e, int change, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(costly); i++) {
		bool was = a->costly[i] > 0;

		if (!str_has_prefix(str_of(e->set), str_of(costly[i].sets)))
			continue;
		a->costly[i] += (size_t)change;
		if (was != (a->costly[i] > 0))
			buf_addz(out, was ? costly[i].drop : costly[i].add);
	}
}

static void element_drop(
	struct applied *a, const struct element *e, struct buf *name, struct buf *out)
{
	struct applied_element *have = map_get(&a->elements, name_of(e, name));

	if (!have || --have->services > 0)
		return;
	write_element(out, "delete", e, false);
	map_remove(&a->elements, buf_str(name));
	count_costly(a, e, -1, out);
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
		count_costly(a, e, 1, out);
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

/* Shared chains live as long as a service that names them. */
static void take_shared(struct applied *a, const struct rules *r, struct buf *out)
{
	for (size_t i = 0; r && i < r->n_shared; i++) {
		size_t n = (size_t)(uintptr_t)map_get(&a->shared, r->shared[i].name);

		if (!n)
			buf_add_str(out, r->shared[i].text);
		map_set(&a->shared, r->shared[i].name, (void *)(uintptr_t)(n + 1));
	}
}

static void drop_shared(struct applied *a, const struct rules *r, struct buf *out)
{
	for (size_t i = 0; r && i < r->n_shared; i++) {
		struct str name = r->shared[i].name;
		size_t n = (size_t)(uintptr_t)map_get(&a->shared, name);

		if (n > 1) {
			map_set(&a->shared, name, (void *)(uintptr_t)(n - 1));
			continue;
		}
		buf_addf(out,
			"flush chain " PROXY_TABLE " " STR_FMT "\ndelete chain " PROXY_TABLE
			" " STR_FMT "\n",
			STR_ARG(name), STR_ARG(name));
		map_remove(&a->shared, name);
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
	take_shared(a, now, out);
	for (size_t i = 0; was && i < was->len; i++)
		if (is_held(was, &was->items[i]) && !has_element(&after, &was->items[i], &name))
			element_drop(a, &was->items[i], &name, out);
	for (size_t i = 0; now && i < now->len; i++)
		if (is_held(now, &now->items[i]) && !has_element(&before, &now->items[i], &name))
			element_put(a, &now->items[i], &name, out);
	drop_shared(a, was, out);
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
	map_deinit(&a->shared, NULL);
}
