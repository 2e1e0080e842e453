/* The flow cache between two namespaces: what passes by the kernel's rules arrives whole, translated, one hop older and no larger than the link out takes,
 * and a rule that changes holds for connections under way. As root. */
#include "network/flow_testing.h"

static char got[CHUNK];

struct offload {
	const char *link;
	bool on;
};

static int set_offload(void *arg, struct err *err)
{
	const struct offload *o = arg;
	struct ethtool_value v = { .cmd = ETHTOOL_STXCSUM, .data = o->on };
	struct ifreq q = { .ifr_data = (char *)&v };
	CLEAN_FD int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", o->link);
	return ioctl(s, SIOCETHTOOL, &q) < 0 ? err_errno(err, -errno, "ethtool") : 0;
}

/* Whether links complete checksums themselves, as they say of veth pairs: nobody does, and nobody checks. */
static void set_offloads(bool ends, bool middle)
{
	struct offload e = { "eth0", ends }, m[] = { { "eth0", middle }, { "skvpod", middle } };

	inside(pod_ns, set_offload, &e);
	inside(host_ns, set_offload, &e);
	inside(-1, set_offload, &m[0]);
	inside(-1, set_offload, &m[1]);
}

static int set_mtu(void *arg, struct err *err)
{
	struct ifreq q = { .ifr_name = "eth0", .ifr_mtu = *(int *)arg };
	CLEAN_FD int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return ioctl(s, SIOCSIFMTU, &q) < 0 ? err_errno(err, -errno, "mtu") : 0;
}

/* false: nothing came for `ms`. */
static bool arrives(int to, size_t n, int ms)
{
	for (size_t have = 0; have < n;) {
		struct pollfd f = { .fd = to, .events = POLLIN };

		if (poll(&f, 1, ms) != 1)
			return false;
		ssize_t r = read(to, got + have, n - have);
		assert_true(r > 0);
		have += (size_t)r;
	}
	return true;
}

static void pass(int from, int to, size_t bytes)
{
	for (size_t sent = 0; sent < bytes; sent += CHUNK) {
		assert_int_equal(write(from, data, CHUNK), CHUNK);
		assert_true(arrives(to, CHUNK, 10000));
		assert_memory_equal(got, data, CHUNK);
	}
}

static void pass_both_ways(const struct pair *p)
{
	pass(p->client, p->server, 2 * MEGABYTE);
	pass(p->server, p->client, 2 * MEGABYTE);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Packets that took the way through the kernel's rules. */
static long counted(void)
{
	CLEAN_BUF struct buf text = { 0 };
	struct err err = { 0 };

	must(nft_read("list chain ip test count", false, &text, &err), &err);
	const char *at = strstr(text.p, "packets ");
	assert_non_null(at);
	return strtol(at + 8, NULL, 10);
}

static long counted_while_passing(const struct pair *p)
{
	long before = counted();

	pass_both_ways(p);
	return counted() - before;
}

/* How many that may be: `quickly`, and in each life of an entry the first of data and of acknowledgments, or twice as many. A busy
 * machine takes several lives. */
static long most(long quickly, int64_t begin)
{
	return quickly + 4 * (long)((now_ms() - begin) / FLOW_LIFE_MS);
}

/* ---- tests ---- */

static struct flow_cache *cache;

static int switch_on(void **state)
{
	if (getuid() == 0)
		cache = switched_on();
	return 0;
}

static int switch_off(void **state)
{
	struct err err = { 0 };

	if (getuid() == 0)
		must(flow_cache_remove(router, &err), &err);
	flow_cache_free(cache);
	cache = NULL;
	return 0;
}

#define NEEDS_ROOT() \
	if (getuid() != 0) \
	skip() /* links and programs need root */

static void few_packets_see_the_rules(void **state)
{
	struct err err = { 0 };

	NEEDS_ROOT();
	struct pair p = connected(HOST, PORT);
	long without = counted_while_passing(&p);
	assert_in_range(without, 2 * 2 * MEGABYTE / 65536, 100000);
	flow_cache_free(switched_on()); /* the programs go on */
	int64_t begin = now_ms();
	long with = counted_while_passing(&p);
	assert_in_range(with, 1, most(without / 3, begin));
	must(flow_cache_remove(router, &err), &err);
	assert_in_range(counted_while_passing(&p), without / 2, 100000);
	close_pair(&p);
}

static void translated_ones_arrive_whole(void **state)
{
	NEEDS_ROOT();
	/* Checksums are complete from the start, are completed on the way out, or by nobody. */
	for (int who = 0; who < 3; who++) {
		set_offloads(who > 0, who > 1);
		struct pair p = connected(SERVICE, 80);

		assert_int_equal(p.from.sin_addr.s_addr, inet_addr("192.0.2.10"));
		int64_t begin = now_ms();
		long n = counted_while_passing(&p);
		assert_in_range(n, 1, most(who ? 40 : 400, begin));
		close_pair(&p);
	}
}

static void a_rule_holds_for_what_is_under_way(void **state)
{
	struct err err = { 0 };

	NEEDS_ROOT();
	struct pair p = connected(HOST, PORT);

	pass_both_ways(&p);
	must(nft_apply("add chain ip test stop { type filter hook forward priority 20; }\n"
		       "add rule ip test stop tcp dport 9000 drop",
		     &err),
		&err);
	/* What is sent within the life of an entry may still pass. */
	int64_t begin = now_ms(), last = begin;
	while (write(p.client, data, 1000) == 1000 && arrives(p.server, 1000, STALL_MS))
		last = now_ms();
	assert_in_range(last - begin, 0, 10 * FLOW_LIFE_MS);
	must(nft_apply("delete chain ip test stop", &err), &err);
	assert_true(arrives(p.server, 1000, 10000)); /* by TCP's repetition */
	pass_both_ways(&p);
	close_pair(&p);
}

static void set_ip_option(int fd, int option, int value)
{
	assert_int_equal(setsockopt(fd, IPPROTO_IP, option, &value, sizeof(value)), 0);
}

static void a_hop_is_a_hop(void **state)
{
	NEEDS_ROOT();
	struct pair p = connected(HOST, PORT);

	pass_both_ways(&p);
	set_ip_option(p.client, IP_TTL, 1); /* ends at the router */
	assert_int_equal(write(p.client, data, 1000), 1000);
	assert_false(arrives(p.server, 1000, STALL_MS));
	set_ip_option(p.client, IP_TTL, 64);
	assert_true(arrives(p.server, 1000, 10000));
	pass_both_ways(&p);
	set_ip_option(p.server, IP_MINTTL, 64); /* would come in at 64 were it not routed */
	assert_int_equal(write(p.client, data, 1000), 1000);
	assert_false(arrives(p.server, 1000, STALL_MS));
	set_ip_option(p.server, IP_MINTTL, 63);
	assert_true(arrives(p.server, 1000, 10000));
	pass_both_ways(&p);
	close_pair(&p);
}

/* Rules and routes may tell packets of one connection apart by their class. */
static void each_class_is_asked_for(void **state)
{
	struct err err = { 0 };

	NEEDS_ROOT();
	struct pair p = connected(HOST, PORT);

	must(nft_apply("add chain ip test stop { type filter hook forward priority 20; }\n"
		       "add rule ip test stop ip dscp ef drop",
		     &err),
		&err);
	pass_both_ways(&p);
	set_ip_option(p.client, IP_TOS, 0xb8); /* ef */
	assert_int_equal(write(p.client, data, 1000), 1000);
	assert_false(arrives(p.server, 1000, STALL_MS));
	set_ip_option(p.client, IP_TOS, 0);
	assert_true(arrives(p.server, 1000, 10000));
	must(nft_apply("delete chain ip test stop", &err), &err);
	close_pair(&p);
}

/* As a route may that takes less than its link. */
static void a_larger_one_is_asked_for(void **state)
{
	struct err err = { 0 };

	NEEDS_ROOT();
	struct pair p = connected(HOST, PORT);

	must(nft_apply("add chain ip test stop { type filter hook forward priority 20; }\n"
		       "add rule ip test stop meta length > 600 drop",
		     &err),
		&err);
	assert_int_equal(write(p.client, data, 100), 100);
	assert_true(arrives(p.server, 100, 10000));
	assert_int_equal(write(p.client, data, 1000), 1000);
	assert_false(arrives(p.server, 1000, STALL_MS));
	must(nft_apply("delete chain ip test stop", &err), &err);
	assert_true(arrives(p.server, 1000, 10000));
	pass_both_ways(&p);
	close_pair(&p);
}

static uint32_t largest_segment(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_rcv_mss;
}

/* Both ends have larger links than the one between. */
static void a_smaller_link_is_told(void **state)
{
	int small = 1000, large = 1500;
	struct err err = { 0 };

	NEEDS_ROOT();
	for (int gather = 0; gather < 2;
		gather++) { /* single packets, and those that are parted on their way out */
		set_offloads(gather, true);
		must(set_mtu(&small, &err), &err);
		struct pair p = connected(gather ? HOST : HOST_AGAIN, PORT);

		pass(p.client, p.server, MEGABYTE);
		assert_in_range(largest_segment(p.server), 500, (uintmax_t)small);
		close_pair(&p);
		must(set_mtu(&large, &err), &err);
	}
}

/* New connections to the service go there. */
static void aim_service(const char *host)
{
	CLEAN_FREE char *text =
		xasprintf("flush chain ip test to\n"
			  "add rule ip test to ip daddr " SERVICE " tcp dport 80 dnat to %s:9000",
			host);
	struct err err = { 0 };

	must(nft_apply(text, &err), &err);
}

/* What the kernel is set to, the cache must change. */
static int switch_on_impatient(void **state)
{
	struct err err = { 0 };

	if (getuid() == 0)
		must(sysctl_set("net.netfilter.nf_conntrack_tcp_timeout_unacknowledged", "1", &err),
			&err);
	return switch_on(state);
}

/* The kernel sees data of which it does not see that they arrived, and has a shorter patience with such connections. */
static void an_idle_one_stays_known(void **state)
{
	NEEDS_ROOT();
	struct pair p = connected(SERVICE, 80);

	assert_int_equal(write(p.server, data, 1000), 1000);
	assert_true(arrives(p.client, 1000, 10000));
	assert_false(arrives(p.client, 1, 2500));
	aim_service(HOST_AGAIN);
	assert_int_equal(write(p.client, data, 1000), 1000);
	assert_true(arrives(p.server, 1000, 10000));
	pass_both_ways(&p);
	close_pair(&p);
	aim_service(HOST);
}

static int tcp_state(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_state;
}

/* The server first. */
static void end_pair(struct pair *p)
{
	shutdown(p->server, SHUT_WR);
	assert_int_equal(read(p->client, got, 1), 0);
	shutdown(p->client, SHUT_WR);
	for (int64_t begin = now_ms(); tcp_state(p->client) != TCP_CLOSE; poll(NULL, 0, 1))
		assert_in_range(now_ms() - begin, 0, 10000);
	close_pair(p);
}

/* With the same ports within a moment, and for as long as the kernel keeps the one that ended. */
static void the_next_one_begins_anew(void **state)
{
	struct sockaddr_in at;
	NEEDS_ROOT();
	for (int again = 0; again < 4; again++) {
		const char *host = again % 2 ? HOST_AGAIN : HOST;
		socklen_t len = sizeof(at);

		aim_service(host);
		struct pair p = connected_from(1234, SERVICE, 80);
		assert_int_equal(getsockname(p.server, (struct sockaddr *)&at, &len), 0);
		assert_int_equal(at.sin_addr.s_addr, inet_addr(host));
		pass_both_ways(&p);
		end_pair(&p);
	}
	aim_service(HOST);
}

/* arg: whether the pod takes another machine for its gateway. */
static int mistake_gateway(void *arg, struct err *err)
{
	static const uint8_t another[6] = { 2, 0, 0, 0, 0, 9 };
	uint32_t gateway = inet_addr("10.42.0.1");
	struct netlink *n;
	int r = netlink_open(&n, err);

	if (r < 0)
		return r;
	r = *(bool *)arg ? neighbor_set(n, "eth0", gateway, another, err)
			 : neighbor_delete(n, "eth0", gateway, err);
	netlink_close(n);
	return r;
}

static void frames_for_others_stay(void **state)
{
	bool yes = true, no = false;
	NEEDS_ROOT();
	struct pair p = connected(HOST, PORT);
	pass_both_ways(&p);
	inside(pod_ns, mistake_gateway, &yes);
	assert_int_equal(write(p.client, data, 1000), 1000);
	assert_false(arrives(p.server, 1000, STALL_MS));
	inside(pod_ns, mistake_gateway, &no);
	assert_true(arrives(p.server, 1000, 10000));
	close_pair(&p);
}

/* ---- packets that wait ---- */

#define WAITING "10.42.0.6" /* a pod whose hardware address is not known yet */

struct wire { /* a socket for frames, and the address of its link */
	int fd;
	uint8_t mac[6];
};

static int open_wire(void *arg, struct err *err)
{
	struct wire *w = arg;
	struct ifreq q = { .ifr_name = "eth0" };
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = (int)if_nametoindex("eth0") };

	w->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_IP));
	if (bind(w->fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
		ioctl(w->fd, SIOCGIFHWADDR, &q) < 0)
		return err_errno(err, -errno, "packet socket");
	memcpy(w->mac, q.ifr_hwaddr.sa_data, 6);
	return 0;
}

struct frame {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

static void send_frame(const struct wire *from, const struct wire *to, const char *ip,
	in_port_t port, bool is_whole)
{
	struct frame f = { .ethernet = { .h_proto = htons(ETH_P_IP) },
		.ip = { .version = 4,
			.ihl = 5,
			.tot_len = htons(40),
			.id = htons(77),
			.ttl = 64,
			.protocol = IPPROTO_TCP,
			.saddr = inet_addr(HOST),
			.daddr = inet_addr(ip) },
		.tcp = { .source = htons(PORT), .dest = port, .doff = 5, .ack = 1 } };
	const uint8_t *p = (const uint8_t *)&f.ip;
	uint32_t sum = !is_whole;

	memcpy(f.ethernet.h_dest, to->mac, 6);
	for (size_t i = 0; i < 20; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	f.ip.check = htons((uint16_t) ~(sum + (sum >> 16)));
	assert_int_equal(send(from->fd, &f, sizeof(f), 0), sizeof(f));
}

/* Whether frames for the other pod came since the last time. */
static bool came_astray(const struct wire *w)
{
	struct frame f;
	bool came = false;

	while (recv(w->fd, &f, sizeof(f), 0) > 0)
		came |= f.ip.daddr == inet_addr(WAITING);
	return came;
}

/* A packet waits for a hardware address. Another one that looks the same, but for its addresses, comes meanwhile and gets no further; then the first leaves.
 * What became of it says nothing of the other's connection. */
static void a_packet_that_waited_is_no_other(void **state)
{
	struct wire host, pod, gateway;
	struct err err = { 0 };
	cpu_set_t one, before;

	NEEDS_ROOT();
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	sched_getaffinity(0, sizeof(before), &before);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	inside(host_ns, open_wire, &host);
	inside(pod_ns, open_wire, &pod);
	inside(-1, open_wire, &gateway);
	must(route_set(router, inet_addr(WAITING), 32, 0, "skvpod", &err), &err);
	struct pair p = connected(HOST, PORT);

	send_frame(&host, &gateway, WAITING, p.from.sin_port, true);
	send_frame(&host, &gateway, POD, p.from.sin_port, false);
	must(neighbor_set(router, "skvpod", inet_addr(WAITING), pod.mac, &err), &err);
	assert_true(came_astray(&pod));
	assert_int_equal(write(p.server, data, 1000), 1000);
	assert_true(arrives(p.client, 1000, 10000));
	assert_false(came_astray(&pod));
	close_pair(&p);
	close(host.fd);
	close(pod.fd);
	close(gateway.fd);
	sched_setaffinity(0, sizeof(before), &before);
}

#define WITH_CACHE(fn) cmocka_unit_test_setup_teardown(fn, switch_on, switch_off)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_packets_see_the_rules),
		WITH_CACHE(translated_ones_arrive_whole),
		WITH_CACHE(a_rule_holds_for_what_is_under_way),
		WITH_CACHE(a_hop_is_a_hop),
		WITH_CACHE(each_class_is_asked_for),
		WITH_CACHE(a_larger_one_is_asked_for),
		WITH_CACHE(a_smaller_link_is_told),
		cmocka_unit_test_setup_teardown(
			an_idle_one_stays_known, switch_on_impatient, switch_off),
		WITH_CACHE(the_next_one_begins_anew),
		WITH_CACHE(frames_for_others_stay),
		WITH_CACHE(a_packet_that_waited_is_no_other),
	};

	return cmocka_run_group_tests_name("flow cache", tests, set_up, NULL);
}
