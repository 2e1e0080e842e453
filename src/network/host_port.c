/* Host ports: a map from the node's port to the pod's address and port, for packets that come in, that leave other pods, and that the node itself sends,
 * to 127.0.0.1 too. Upstream's counterpart: the portmap plugin.
 *
 * 1. A pod that asks its own host port would see its own packet come back: its source is hidden (hairpin).
 * 2. For 127.0.0.1 the link of a pod with host ports is allowed to carry loopback addresses (network.c sets route_localnet on it); what comes in from
 *    elsewhere for a loopback address is dropped, so that no pod reaches what listens on the node's loopback alone.
 * 3. That guard looks at each packet, so it is there only from the first host port on. */
#include "network/internal.h"

struct host_ports {
	struct map pods; /* key -> struct mapped */
	struct buf changes;
	bool guarded;
};
struct mapped {
	struct arena *arena;
	struct str ip;
	struct mapping {
		const char *map;
		struct str key, value;
	} * items;
	size_t len;
};

static void mapped_free(void *v)
{
	if (v)
		arena_free(((struct mapped *)v)->arena);
}

static void add_ports(struct mapped *m, const struct core_v1_container_items *containers, bool all)
{
	LIST_EACH(c, containers) {
		if (!all && !str_eqz(c->restart_policy, "Always"))
			continue;
		LIST_EACH(p, &c->ports) {
			bool any = !p->host_ip.len || str_eqz(p->host_ip, "0.0.0.0");
			uint32_t ip;

			if (!p->host_port || (!any && ip_read(p->host_ip, &ip) < 0))
				continue;
			m->items = arena_grow(m->arena, m->items, m->len * sizeof(*m->items),
				(m->len + 1) * sizeof(*m->items));
			m->items[m->len++] = (struct mapping){
				.map = any ? "ports" : "address_ports",
				.key = arena_fmt(m->arena, STR_FMT "%s%s . %d",
					STR_ARG(any ? STR_NONE : p->host_ip), any ? "" : " . ",
					protocol_name(p->protocol), p->host_port),
				.value = arena_fmt(m->arena, STR_FMT " . %d", STR_ARG(m->ip),
					p->container_port),
			};
		}
	}
}

static void write_elements(const struct mapped *m, const char *verb, struct buf *out)
{
	bool adding = verb[0] == 'a';

	for (size_t i = 0; i < m->len; i++)
		buf_addf(out, "%s element " HOST_PORT_TABLE " %s { " STR_FMT "%s" STR_FMT " }\n",
			verb, m->items[i].map, STR_ARG(m->items[i].key), adding ? " : " : "",
			STR_ARG(adding ? m->items[i].value : STR_NONE));
	if (m->len)
		buf_addf(out,
			"%s element " HOST_PORT_TABLE " hairpin { " STR_FMT " . " STR_FMT " }\n",
			verb, STR_ARG(m->ip), STR_ARG(m->ip));
}

/* Two pods never hold one port for long: the scheduler and the kubelet see to that. The one that came first keeps it. */
static bool is_taken(const struct host_ports *h, const struct mapping *want)
{
	size_t i = 0;
	void *v;

	while (map_next(&h->pods, &i, NULL, &v)) {
		const struct mapped *m = v;

		for (size_t k = 0; k < m->len; k++)
			if (!strcmp(m->items[k].map, want->map) &&
				str_eq(m->items[k].key, want->key))
				return true;
	}
	return false;
}

static bool same(const struct mapped *a, const struct mapped *b)
{
	if (!a || !b || a->len != b->len)
		return (!a || !a->len) && (!b || !b->len);
	for (size_t i = 0; i < a->len; i++)
		if (!str_eq(a->items[i].key, b->items[i].key) ||
			!str_eq(a->items[i].value, b->items[i].value))
			return false;
	return true;
}

void host_ports_remove(struct host_ports *h, struct str key)
{
	struct mapped *old = map_remove(&h->pods, key);

	if (old)
		write_elements(old, "delete", &h->changes);
	mapped_free(old);
}

static void guard(struct host_ports *h, struct buf *out)
{
	if (!h->guarded)
		buf_addz(out,
			"add chain " HOST_PORT_TABLE
			" guard { type filter hook prerouting priority raw; policy accept; }\n"
			"add rule " HOST_PORT_TABLE
			" guard ip daddr 127.0.0.0/8 iifname != \"lo\" drop\n");
	h->guarded = true;
}

bool host_ports_put(struct host_ports *h, const struct core_v1_pod *pod, struct str ip)
{
	struct arena *a = arena_new(256);
	struct str key = arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(pod->metadata.namespace),
		STR_ARG(pod->metadata.name));
	struct mapped *now = arena_alloc(a, sizeof(*now));
	size_t n = 0;

	now->arena = a;
	now->ip = arena_str(a, ip);
	if (ip.len) {
		add_ports(now, &pod->spec.containers, true);
		add_ports(now, &pod->spec.init_containers, false);
	}
	if (same(map_get(&h->pods, key), now)) {
		n = now->len;
		mapped_free(now);
		return n > 0;
	}
	host_ports_remove(h, key);
	for (size_t i = 0; i < now->len; i++)
		if (!is_taken(h, &now->items[i]))
			now->items[n++] = now->items[i];
	now->len = n;
	if (!n) {
		mapped_free(now);
		return false;
	}
	map_set(&h->pods, key, now);
	guard(h, &h->changes);
	write_elements(now, "add", &h->changes);
	return true;
}

void host_ports_change(struct host_ports *h, struct buf *out)
{
	buf_add_str(out, buf_str(&h->changes));
	buf_clear(&h->changes);
}

void host_ports_write(struct host_ports *h, struct buf *out)
{
	size_t i = 0;
	void *m;

	buf_clear(&h->changes);
	buf_addz(out,
		"table " HOST_PORT_TABLE "\ndelete table " HOST_PORT_TABLE
		"\ntable " HOST_PORT_TABLE " {\n"
		"map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
		"map address_ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }\n"
		"set hairpin { type ipv4_addr . ipv4_addr; }\n"
		"chain dispatch {\n"
		"dnat ip to ip daddr . meta l4proto . th dport map @address_ports\n"
		"dnat ip to meta l4proto . th dport map @ports\n"
		"}\n");
	buf_addz(out,
		"chain prerouting { type nat hook prerouting priority dstnat; policy accept;\n"
		"ip daddr != 127.0.0.0/8 fib daddr type local jump dispatch\n}\n"
		"chain output { type nat hook output priority -100; policy accept;\n"
		"fib daddr type local jump dispatch\n}\n"
		"chain postrouting { type nat hook postrouting priority srcnat - 1; policy accept;\n"
		"ct status & dnat == 0 return\n"
		"ip saddr . ip daddr @hairpin masquerade\n"
		"ip saddr 127.0.0.0/8 oifname != \"lo\" masquerade\n}\n}\n");
	h->guarded = false;
	if (h->pods.len)
		guard(h, out);
	while (map_next(&h->pods, &i, NULL, &m))
		write_elements(m, "add", out);
}

struct host_ports *host_ports_new(void)
{
	return xcalloc(1, sizeof(struct host_ports));
}

void host_ports_free(struct host_ports *h)
{
	if (!h)
		return;
	map_deinit(&h->pods, mapped_free);
	buf_deinit(&h->changes);
	free(h);
}
