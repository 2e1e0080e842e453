/* The sockets of DNS, in a network namespace of this process alone, with a name server beside it that answers as told by the name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>

#include "dns/internal.h"
#include "linux/linux.h"

#define ADDRESS "10.43.0.10"

static struct sockaddr_in at(const char *ip)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = inet_addr(ip)
	};
}

static int socket_to(const char *ip, int type)
{
	struct sockaddr_in a = at(ip);
	struct timeval patience = { .tv_sec = 4 };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* ---- the other server ---- */

static size_t answer_to(const uint8_t *wire, size_t len, bool tcp, uint8_t *out, const char *name)
{
	knot_pkt_t *q = knot_pkt_new((void *)wire, (uint16_t)len, NULL),
		   *r = knot_pkt_new(NULL, 65535, NULL);
	knot_dname_storage_t other;
	size_t n;

	assert_int_equal(knot_pkt_parse(q, 0), KNOT_EOK);
	if (name) { /* of another question, under the right id */
		knot_wire_set_id(r->wire, knot_wire_get_id(q->wire));
		knot_wire_set_qr(r->wire);
		knot_dname_from_str(other, name, sizeof(other));
		knot_pkt_put_question(r, other, KNOT_CLASS_IN, KNOT_RRTYPE_A);
	} else {
		knot_pkt_init_response(r, q);
	}
	knot_pkt_begin(r, KNOT_ANSWER);
	for (uint32_t i = 0; i < (tcp ? 300 : 1); i++) {
		uint32_t ip = htonl(0xc0000200 + i);
		knot_rrset_t rr;

		knot_rrset_init(&rr, knot_dname_copy(knot_pkt_qname(r), NULL), KNOT_RRTYPE_A,
			KNOT_CLASS_IN, 5);
		knot_rrset_add_rdata(&rr, (uint8_t *)&ip, 4, NULL);
		knot_pkt_put(r, KNOT_COMPR_HINT_QNAME, &rr, KNOT_PF_FREE);
	}
	n = r->size;
	memcpy(out, r->wire, n);
	knot_pkt_free(r);
	knot_pkt_free(q);
	return n;
}

static bool asks_for(const uint8_t *wire, const char *label)
{
	return !memcmp(wire + 13, label, strlen(label));
}

static void serve_udp(int fd)
{
	static uint8_t wire[4096], out[65535];
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	ssize_t n = recvfrom(fd, wire, sizeof(wire), 0, (struct sockaddr *)&from, &size);
	size_t len;

	if (n < KNOT_WIRE_HEADER_SIZE || asks_for(wire, "slow"))
		return;
	if (asks_for(wire, "spoof")) {
		len = answer_to(wire, (size_t)n, false, out, "bank.example");
		sendto(fd, out, len, 0, (struct sockaddr *)&from, size);
	}
	len = answer_to(wire, (size_t)n, false, out, NULL);
	if (asks_for(wire, "big"))
		knot_wire_set_tc(out);
	sendto(fd, out, len, 0, (struct sockaddr *)&from, size);
}

static void serve_tcp(int listener)
{
	static uint8_t wire[4096], out[65535];
	int fd = accept(listener, NULL, NULL);
	ssize_t n = recv(fd, wire, sizeof(wire), 0);
	size_t len = n > 2 ? answer_to(wire + 2, (size_t)n - 2, true, out, NULL) : 0;
	uint8_t head[2] = { (uint8_t)(len >> 8), (uint8_t)len };

	send(fd, head, 2, MSG_NOSIGNAL);
	for (size_t sent = 0; sent < len; sent += 1000) /* in pieces */
		send(fd, out + sent, MIN(len - sent, (size_t)1000), MSG_NOSIGNAL);
	close(fd);
}

struct server {
	int udp, tcp, end;
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct server *s = arg;

	for (;;) {
		struct pollfd fds[] = { { s->udp, POLLIN, 0 }, { s->tcp, POLLIN, 0 },
			{ s->end, POLLIN | POLLHUP, 0 } };

		poll(fds, 3, -1);
		if (fds[2].revents)
			return NULL;
		if (fds[0].revents)
			serve_udp(s->udp);
		if (fds[1].revents)
			serve_tcp(s->tcp);
	}
}

/* ---- asking ---- */

static size_t question(const char *name, uint16_t id, uint8_t out[512])
{
	knot_pkt_t *q = knot_pkt_new(NULL, 512, NULL);
	knot_dname_storage_t qname;
	size_t n;

	knot_wire_set_id(q->wire, id);
	knot_wire_set_rd(q->wire);
	knot_dname_from_str(qname, name, sizeof(qname));
	knot_pkt_put_question(q, qname, KNOT_CLASS_IN, KNOT_RRTYPE_A);
	n = q->size;
	memcpy(out, q->wire, n);
	knot_pkt_free(q);
	return n;
}

struct answer {
	uint8_t rcode;
	bool truncated;
	uint16_t records;
};

static struct answer read_answer(const uint8_t *wire, ssize_t n, uint16_t id)
{
	assert_true(n >= KNOT_WIRE_HEADER_SIZE);
	assert_int_equal(knot_wire_get_id(wire), id);
	return (struct answer){ knot_wire_get_rcode(wire), knot_wire_get_tc(wire),
		knot_wire_get_ancount(wire) };
}

static struct answer ask_udp(const char *name)
{
	uint8_t q[512], wire[65535];
	int fd = socket_to(ADDRESS, SOCK_DGRAM);
	size_t n = question(name, 7, q);

	assert_int_equal(send(fd, q, n, 0), n);
	struct answer a = read_answer(wire, recv(fd, wire, sizeof(wire), 0), 7);

	close(fd);
	return a;
}

static struct answer ask_tcp(const char *name)
{
	static uint8_t wire[65537];
	uint8_t q[514];
	int fd = socket_to(ADDRESS, SOCK_STREAM);
	size_t n = question(name, 8, q + 2), got = 0;

	q[0] = (uint8_t)(n >> 8);
	q[1] = (uint8_t)n;
	assert_int_equal(send(fd, q, n + 2, 0), n + 2);
	while (got < 2 || got < 2 + (size_t)(wire[0] << 8 | wire[1])) {
		ssize_t r = recv(fd, wire + got, sizeof(wire) - got, 0);

		assert_true(r > 0);
		got += (size_t)r;
	}
	close(fd);
	return read_answer(wire + 2, (ssize_t)got - 2, 8);
}

struct fixture {
	struct server server;
	int end[2];
	struct service_view view;
	struct dns *dns;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_in a = at("127.0.0.1");
	struct dns_config c = { .view = &f->view,
		.address = ADDRESS,
		.port = 53,
		.domain = "cluster.local",
		.upstreams = "127.0.0.9,127.0.0.1" /* nobody listens at the first */ };
	struct netlink *n;
	struct err err;

	if (getuid() != 0)
		skip();
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(netlink_open(&n, &err), 0);
	assert_int_equal(link_set_up(n, "lo", &err), 0);
	netlink_close(n);
	f->server.udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	f->server.tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->server.udp, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(bind(f->server.tcp, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(f->server.tcp, 8), 0);
	assert_int_equal(pipe2(f->end, O_CLOEXEC), 0);
	f->server.end = f->end[0];
	pthread_create(&f->server.thread, NULL, serve, &f->server);
	service_view_init(&f->view, NULL); /* never started: what the cluster has is not known */
	assert_int_equal(dns_new(&c, &f->dns, &err), 0);
	if (dns_start(f->dns, &err) < 0)
		fail_msg("%s", err.text);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (!f)
		return 0;
	dns_stop(f->dns);
	dns_free(f->dns);
	service_view_deinit(&f->view);
	close(f->end[1]);
	pthread_join(f->server.thread, NULL);
	close(f->end[0]);
	close(f->server.udp);
	close(f->server.tcp);
	free(f);
	return 0;
}

static void what_is_not_known_is_not_denied(void **state)
{
	assert_int_equal(ask_udp("web.shop.svc.cluster.local").rcode, KNOT_RCODE_SERVFAIL);
}

static void other_names(void **state)
{
	struct answer a = ask_udp("plain.example");

	assert_int_equal(a.rcode, KNOT_RCODE_NOERROR);
	assert_int_equal(a.records, 1);
	assert_int_equal(ask_udp("spoof.example").records, 1);
}

/* What does not fit UDP is there over TCP. */
static void large_answers(void **state)
{
	assert_true(ask_udp("big.example").truncated);
	struct answer a = ask_tcp("big.example");

	assert_false(a.truncated);
	assert_int_equal(a.records, 300);
}

/* One asker whose questions nobody answers leaves room for the others. */
static void one_asker_does_not_take_all(void **state)
{
	int fd = socket_to(ADDRESS, SOCK_DGRAM);
	uint8_t q[512], wire[512];
	size_t refused = 0;

	for (uint16_t i = 0; i < 100; i++)
		send(fd, q, question("slow.example", i, q), 0);
	while (refused < 36 && recv(fd, wire, sizeof(wire), 0) > 0)
		refused += knot_wire_get_rcode(wire) == KNOT_RCODE_SERVFAIL;
	assert_int_equal(refused, 36);
	close(fd);
}

/* Neither connections that say nothing, nor one that says a byte now and then, keep others out. */
static void idle_connections(void **state)
{
	int fds[16], one_more, slow;
	char byte = 0;

	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = socket_to(ADDRESS, SOCK_STREAM);
	one_more = socket_to(ADDRESS, SOCK_STREAM);
	assert_int_equal(recv(one_more, &byte, 1, 0), 0);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	slow = socket_to(ADDRESS, SOCK_STREAM);
	send(slow, &byte, 1, MSG_NOSIGNAL);
	for (int i = 0; i < 8; i++) {
		struct pollfd p = { slow, POLLIN, 0 };

		if (poll(&p, 1, 1000) > 0)
			break;
		byte = 100;
		send(slow, &byte, 1, MSG_NOSIGNAL);
	}
	assert_true(recv(slow, &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET);
	close(slow);
	close(one_more);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_known_is_not_denied),
		cmocka_unit_test(other_names),
		cmocka_unit_test(large_answers),
		cmocka_unit_test(one_asker_does_not_take_all),
		cmocka_unit_test(idle_connections),
	};

	if (getuid() != 0)
		return 0; /* namespaces need root */
	return cmocka_run_group_tests_name("dns sockets", tests, setup, teardown);
}
