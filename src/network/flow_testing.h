/* What the tests and the benchmark of the flow cache share: a router (this process' namespace) between a pod's namespace and a host's, connections through it,
 * and how many packets took the way through the kernel's rules. Needs root. */
#ifndef SKIFF_NETWORK_FLOW_TESTING_H
#define SKIFF_NETWORK_FLOW_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <linux/ip.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "network/internal.h"

#define POD "10.42.0.5"
#define HOST "192.0.2.20"       /* beyond the link out */
#define HOST_AGAIN "192.0.2.21" /* so that what is known of the way to the other does not count */
#define SERVICE "10.43.0.1"
#define PORT 9000
#define CHUNK 32768
#define MEGABYTE (1 << 20)
#define STALL_MS 600 /* several times FLOW_LIFE_MS */

static const struct network_config config = {
	.node_name = "me", .node_ip = "192.0.2.10", .pod_cidr = "10.42.0.0/24"
};
static int pod_ns, host_ns, listener;
static struct netlink *router;
static char data[CHUNK];

static void must(int r, const struct err *err)
{
	if (r < 0)
		fail_msg("%s", err->text);
}

/* ---- namespaces ---- */

static int make_ns(void *arg, struct err *err)
{
	int r = unshare(CLONE_NEWNET) < 0 ? -errno : 0;

	return r < 0 ? r : ns_open("/proc/thread-self/ns/net", arg, err);
}

static void inside(int net_fd, ns_fn fn, void *arg)
{
	struct ns_where where = { .net_fd = net_fd };
	struct err err = { 0 };

	must(ns_run(&where, fn, arg, &err), &err);
}

struct end {
	const char *ip, *also, *gateway;
};

static int set_up_end(void *arg, struct err *err)
{
	const struct end *e = arg;
	struct netlink *n;
	int r = netlink_open(&n, err);

	if (r < 0)
		return r;
	if ((r = address_add(n, "eth0", inet_addr(e->ip), 32, err)) == 0 &&
		(!e->also || (r = address_add(n, "eth0", inet_addr(e->also), 32, err)) == 0) &&
		(r = link_set_up(n, "eth0", err)) == 0 &&
		(r = route_set(n, inet_addr(e->gateway), 32, 0, "eth0", err)) == 0)
		r = route_set(n, 0, 0, inet_addr(e->gateway), "eth0", err);
	netlink_close(n);
	return r;
}

static int make_listener(void *arg, struct err *err)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(PORT) };

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 1) < 0)
		return err_errno(err, -errno, "listen");
	return 0;
}

/* The router is this process' namespace: eth0 leads out, skvpod to the pod. */
static int set_up(void **state)
{
	struct link_veth out = { .name = "eth0", .peer = "eth0" },
			 in = { .name = "skvpod", .peer = "eth0" };
	struct end pod = { POD, NULL, "10.42.0.1" }, host = { HOST, HOST_AGAIN, "192.0.2.10" };
	struct err err = { 0 };

	if (getuid() != 0)
		return 0;
	inside(-1, make_ns, &pod_ns);
	inside(-1, make_ns, &host_ns);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	must(netlink_open(&router, &err), &err);
	out.peer_netns_fd = host_ns;
	in.peer_netns_fd = pod_ns;
	must(link_add_veth(router, &out, &err), &err);
	must(link_add_veth(router, &in, &err), &err);
	must(address_add(router, "eth0", inet_addr("192.0.2.10"), 24, &err), &err);
	must(address_add(router, "skvpod", inet_addr("10.42.0.1"), 32, &err), &err);
	must(link_set_up(router, "eth0", &err), &err);
	must(link_set_up(router, "skvpod", &err), &err);
	must(route_set(router, inet_addr(POD), 32, 0, "skvpod", &err), &err);
	must(sysctl_set("net.ipv4.ip_forward", "1", &err), &err);
	inside(pod_ns, set_up_end, &pod);
	inside(host_ns, set_up_end, &host);
	inside(host_ns, make_listener, NULL);
	for (size_t i = 0; i < CHUNK; i++)
		data[i] = (char)(i * 7 + i / 251);
	must(nft_apply("table ip test {\n"
		       "chain count { type filter hook forward priority 10; counter; }\n"
		       "chain to { type nat hook prerouting priority dstnat;\n"
		       "ip daddr " SERVICE " tcp dport 80 dnat to " HOST ":9000\n}\n"
		       "chain from { type nat hook postrouting priority srcnat;\n"
		       "ct original ip daddr " SERVICE " masquerade\n}\n}\n",
		     &err),
		&err);
	return 0;
}

/* ---- connections: sockets stay in the namespace that they were made in ---- */

struct pair {
	const char *ip;
	uint16_t port, own_port; /* own_port: the client's; 0: any */
	int client, server;
	struct sockaddr_in from; /* as the server sees it */
};

static int dial(void *arg, struct err *err)
{
	struct pair *p = arg;
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons(p->port),
		.sin_addr.s_addr = inet_addr(p->ip) },
			   own = { .sin_family = AF_INET, .sin_port = htons(p->own_port) };

	p->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(p->client, (struct sockaddr *)&own, sizeof(own)) < 0)
		return err_errno(err, -errno, "bind");
	return connect(p->client, (struct sockaddr *)&to, sizeof(to)) < 0
		? err_errno(err, -errno, "connect")
		: 0;
}

static struct pair connected_from(uint16_t own_port, const char *ip, uint16_t port)
{
	struct pair p = { .ip = ip, .port = port, .own_port = own_port };
	socklen_t len = sizeof(p.from);

	inside(pod_ns, dial, &p);
	p.server = accept4(listener, (struct sockaddr *)&p.from, &len, SOCK_CLOEXEC);
	assert_true(p.server >= 0);
	return p;
}

static struct pair connected(const char *ip, uint16_t port)
{
	return connected_from(0, ip, port);
}

static void close_pair(struct pair *p)
{
	close(p->client);
	close(p->server);
}

static struct flow_cache *switched_on(void)
{
	struct peers nobody = { 0 };
	struct flow_cache *f;
	struct err err = { 0 };

	must(flow_cache_new(&f, &err), &err);
	must(flow_cache_link(f, router, "skvpod", &err), &err);
	for (int again = 0; again < 2; again++)
		must(flow_cache_apply(f, router, &config, &nobody, &err), &err);
	return f;
}

#endif
