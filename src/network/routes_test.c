/* Who counts as another node; and, as root, that routes and VXLAN entries follow the nodes while everything else stays as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>

#include "network/internal.h"

static struct network_config config = { .node_name = "me",
	.node_ip = "192.0.2.10",
	.pod_cidr = "10.42.0.0/24",
	.service_cidr = "10.43.0.0/16" };

static struct cached *node(
	struct arena *a, const char *name, const char *ip, const char *cidr, int64_t age)
{
	struct cached *c = arena_alloc(a, sizeof(*c));
	struct core_v1_node *n = model_new(&core_v1_node_type, a);
	struct core_v1_node_address *address = LIST_ADD(a, &n->status.addresses);

	n->metadata.name = str_of(name);
	n->metadata.creation_timestamp.sec = 1000 - age;
	n->spec.pod_cidr = str_of(cidr);
	address->type = STR("InternalIP");
	address->address = str_of(ip);
	*c = (struct cached){
		.type = &core_v1_node_type, .obj = n, .meta = &n->metadata, .key = n->metadata.name
	};
	return c;
}

static int n_warnings;
static void warn(void *arg, const char *text)
{
	n_warnings++;
}

static void clashes_are_left_out(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct cached *items[] = {
		node(a, "me", "192.0.2.10", "10.42.0.0/24", 9),
		node(a, "twin", "192.0.2.10", "10.42.9.0/24", 8),
		node(a, "greedy", "192.0.2.13", "10.42.0.0/16", 7),
		node(a, "young", "192.0.2.12", "10.42.1.0/25", 1),
		node(a, "good", "192.0.2.11", "10.42.1.0/24", 5),
		node(a, "none", "192.0.2.14", "", 4),
		node(a, "six", "fd00::1", "10.42.6.0/24", 3),
		node(a, "odd", "192.0.2.15", "10.42.7.300/24", 2),
		node(a, "servant", "192.0.2.16", "10.43.5.0/24", 2),
		node(a, "thief", "192.0.2.17", "192.0.2.0/28", 2),
		node(a, "robber", "192.0.2.18", "192.0.2.11/32", 2),
	};
	struct cached_list nodes = { items, ARRAY_LEN(items) };
	struct peers p;

	n_warnings = 0;
	p = peers_of(&config, &nodes, a, warn, NULL);
	assert_int_equal(p.len, 1);
	assert_string_equal(p.items[0].name, "good");
	assert_int_equal(p.items[0].ip, 0xc000020b);
	assert_int_equal(p.items[0].pods, 0x0a2a0100);
	assert_int_equal(n_warnings, 6);
}

static void modes(void **state)
{
	enum network_mode m;
	struct err err;
	bool cni;

	assert_int_equal(network_mode_parse("cni", &m, &cni, &err), 0);
	assert_true(m == NETWORK_NONE && cni);
	assert_int_equal(network_mode_parse("cni+routes", &m, &cni, &err), 0);
	assert_true(m == NETWORK_ROUTES && cni);
	assert_int_equal(network_mode_parse("cni+cni", &m, &cni, &err), -EINVAL);
	assert_int_equal(network_mode_parse("vxlan", &m, &cni, &err), 0);
	assert_false(cni);
	assert_int_equal(m, NETWORK_VXLAN);
	assert_int_equal(network_mode_parse("tunnel", &m, &cni, &err), -EINVAL);
	assert_non_null(strstr(err.text, "expected auto, routes, vxlan, cni, or cni+"));
}

/* ---- on a kernel ---- */

struct seen {
	struct route items[8];
	size_t len;
};

static void see(void *arg, const struct route *r)
{
	struct seen *s = arg;

	if (s->len < ARRAY_LEN(s->items))
		s->items[s->len++] = *r;
}

static struct seen routes(struct netlink *n, uint8_t protocol)
{
	struct seen s = { 0 };

	assert_int_equal(route_each(n, protocol, see, &s, NULL), 0);
	return s;
}

static void count_fdb(void *arg, const uint8_t mac[6], uint32_t remote)
{
	++*(int *)arg;
}

static void count_neighbor(void *arg, uint32_t ip, const uint8_t mac[6])
{
	++*(int *)arg;
}

static void must(int r, const struct err *err)
{
	if (r < 0)
		fail_msg("%s", err->text);
}

static void the_kernel_follows(void **state)
{
	struct peer both[] = { { "near", 0xc000020b, 0x0a2a0100, 24 },
		{ "far", 0xc633640c, 0x0a2a0200, 24 } }; /* 192.0.2.11, 198.51.100.12 */
	struct peers two = { both, 2 }, one = { both, 1 }, none = { 0 };
	struct link_veth v = { .name = "eth0", .peer = "wire" };
	struct err err = { 0 };
	struct netlink *n;
	struct seen s;
	int link, fdb = 0, neighbors = 0;

	if (getuid() != 0)
		skip(); /* routes need root */
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(ns_open("/proc/thread-self/ns/net", &v.peer_netns_fd, &err), 0);
	must(netlink_open(&n, &err), &err);
	must(link_add_veth(n, &v, &err), &err);
	close(v.peer_netns_fd);
	must(link_set_up(n, "wire", &err), &err);
	must(link_set_up(n, "eth0", &err), &err);
	must(address_add(n, "eth0", inet_addr("192.0.2.10"), 24, &err), &err);
	must(route_set(n, 0, 0, inet_addr("192.0.2.1"), "eth0", &err), &err);
	must(route_set(n, inet_addr("10.99.0.0"), 16, inet_addr("192.0.2.99"), NULL, &err), &err);
	assert_int_equal(network_pod_mtu(NETWORK_AUTO, "192.0.2.10"), 1450);
	assert_int_equal(network_pod_mtu(NETWORK_ROUTES, "192.0.2.10"), 1500);

	for (int again = 0; again < 2; again++) {
		must(routes_apply(n, &config, &two, &err), &err);
		must(link_find(n, VXLAN_LINK, &link), &err);
		s = routes(n, ROUTE_PROTOCOL);
		assert_int_equal(s.len, 2);
		assert_int_equal(s.items[0].gateway, inet_addr("192.0.2.11"));
		assert_int_equal(s.items[1].gateway, inet_addr("10.42.2.0"));
		assert_int_equal(s.items[1].link, link);
	}
	must(fdb_each(n, link, count_fdb, &fdb, &err), &err);
	must(neighbor_each(n, link, count_neighbor, &neighbors, &err), &err);
	assert_int_equal(fdb, 1);
	assert_int_equal(neighbors, 1);

	/* Nothing to do is nothing told. */
	int monitor;
	char byte;
	must(netlink_monitor(&monitor, &err), &err);
	must(routes_apply(n, &config, &two, &err), &err);
	assert_int_equal(read(monitor, &byte, 1), -1);
	close(monitor);

	both[0].ip = 0xc0000214; /* another address */
	must(routes_apply(n, &config, &one, &err), &err);
	s = routes(n, ROUTE_PROTOCOL);
	assert_int_equal(s.len, 1);
	assert_int_equal(s.items[0].gateway, inet_addr("192.0.2.20"));
	assert_int_equal(link_find(n, VXLAN_LINK, &link), -ENODEV);
	must(routes_apply(n, &config, &none, &err), &err);
	assert_int_equal(routes(n, ROUTE_PROTOCOL).len, 0);
	assert_int_equal(routes(n, 4).len, 2); /* RTPROT_STATIC: not ours */
	netlink_close(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clashes_are_left_out),
		cmocka_unit_test(modes),
		cmocka_unit_test(the_kernel_follows),
	};

	return cmocka_run_group_tests_name("network routes", tests, NULL, NULL);
}
