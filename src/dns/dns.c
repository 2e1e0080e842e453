/* Sockets of the cluster DNS: UDP and TCP on one address, and queries for other names forwarded to the node's own servers. All on one loop.
 *
 * Bounds: 256 forwarded queries at once (more get SERVFAIL), 64 TCP connections, 5 s for each. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/map.h"
#include "dns/internal.h"
#include "io/io.h"
#include "linux/linux.h"

#define FORWARDS_MAX 256
#define TCP_MAX 64
#define TIMEOUT_MS 5000
#define UPSTREAM_TIMEOUT_MS 2000
#define UPSTREAMS_MAX 3

struct dns {
	struct dns_config c;
	struct dns_source source;
	struct loop *loop;
	int udp, tcp;
	struct fd_watch *udp_watch, *tcp_watch;
	struct sockaddr_in upstreams[UPSTREAMS_MAX];
	size_t n_upstreams;
	struct list forwards, connections;
	size_t n_forwards, n_connections;
};

/* Where an answer goes: back over UDP, or into a connection. */
struct connection;
struct asker {
	struct sockaddr_in address;
	struct connection *connection; /* NULL: UDP */
	uint16_t limit;                /* bytes that it takes */
};

struct forward {
	struct list all;
	struct dns *d;
	struct asker asker;
	knot_pkt_t *query; /* the asker's, parsed; owns its bytes */
	bool alias;        /* asked for the target of a CNAME */
	knot_dname_storage_t target;
	size_t upstream;
	uint16_t id;
	int fd;
	struct fd_watch *watch;
	struct timer *timer;
};

struct connection {
	struct list all;
	struct dns *d;
	int fd;
	struct fd_watch *watch;
	struct timer *timer;
	struct buf in;
	size_t waiting; /* forwards that will answer here */
	bool closed;
};

/* ---- answers ---- */

static void connection_unref(struct connection *c)
{
	if (c->waiting || !c->closed)
		return;
	free(c);
}

static void connection_close(struct connection *c)
{
	if (c->closed)
		return;
	c->closed = true;
	fd_watch_free(c->watch);
	timer_free(c->timer);
	close(c->fd);
	buf_deinit(&c->in);
	list_remove(&c->all);
	c->d->n_connections--;
	connection_unref(c);
}

static void send_reply(struct dns *d, const struct asker *to, const knot_pkt_t *reply)
{
	if (!to->connection) {
		sendto(d->udp, reply->wire, reply->size, MSG_DONTWAIT,
			(const struct sockaddr *)&to->address, sizeof(to->address));
		return;
	}
	if (to->connection->closed)
		return;
	uint8_t head[2] = { (uint8_t)(reply->size >> 8), (uint8_t)reply->size };
	struct iovec parts[] = { { head, 2 }, { reply->wire, reply->size } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };

	/* One answer fits a socket's buffer; a peer that does not read loses its connection by the timer. */
	if (sendmsg(to->connection->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) !=
		(ssize_t)reply->size + 2)
		connection_close(to->connection);
}

static knot_pkt_t *begin_reply(const knot_pkt_t *query, uint16_t limit)
{
	knot_pkt_t *r = knot_pkt_new(NULL, limit, NULL);

	if (r && knot_pkt_init_response(r, query) != KNOT_EOK) {
		knot_pkt_free(r);
		return NULL;
	}
	if (r)
		knot_wire_set_ra(r->wire);
	return r;
}

static void send_rcode(
	struct dns *d, const struct asker *to, const knot_pkt_t *query, uint8_t rcode)
{
	knot_pkt_t *r = begin_reply(query, to->limit);

	if (!r)
		return;
	knot_wire_set_rcode(r->wire, rcode);
	send_reply(d, to, r);
	knot_pkt_free(r);
}

/* ---- forwarding ---- */

static void forward_free(struct forward *f)
{
	struct connection *c = f->asker.connection;

	fd_watch_free(f->watch);
	timer_free(f->timer);
	if (f->fd >= 0)
		close(f->fd);
	knot_pkt_free(f->query);
	list_remove(&f->all);
	f->d->n_forwards--;
	if (c) {
		c->waiting--;
		connection_unref(c);
	}
	free(f);
}

/* The upstream's answer goes out as it is under the asker's id; behind an alias, its records follow the CNAME. */
static void forward_answer(struct forward *f, uint8_t *wire, size_t len)
{
	knot_pkt_t *got = knot_pkt_new(wire, (uint16_t)len, NULL), *reply;
	knot_dname_storage_t alias;

	if (!got || knot_pkt_parse(got, 0) != KNOT_EOK) {
		knot_pkt_free(got);
		send_rcode(f->d, &f->asker, f->query, KNOT_RCODE_SERVFAIL);
		return;
	}
	if (!f->alias) {
		knot_wire_set_id(got->wire, knot_wire_get_id(f->query->wire));
		if (got->size > f->asker.limit) {
			send_rcode(f->d, &f->asker, f->query, KNOT_RCODE_SERVFAIL);
		} else {
			send_reply(f->d, &f->asker, got);
		}
		knot_pkt_free(got);
		return;
	}
	reply = begin_reply(f->query, f->asker.limit);
	if (reply &&
		dns_answer(&f->d->source, f->d->c.domain, f->query, reply, alias) ==
			DNS_FORWARD_ALIAS) {
		const knot_pktsection_t *answers = knot_pkt_section(got, KNOT_ANSWER);

		for (uint16_t i = 0; i < answers->count; i++)
			knot_pkt_put(reply, KNOT_COMPR_HINT_NONE, knot_pkt_rr(answers, i), 0);
		send_reply(f->d, &f->asker, reply);
	}
	knot_pkt_free(reply);
	knot_pkt_free(got);
}

static void on_upstream(void *arg, int events)
{
	struct forward *f = arg;
	uint8_t wire[4096];
	ssize_t n = recv(f->fd, wire, sizeof(wire), MSG_DONTWAIT);

	if (n < KNOT_WIRE_HEADER_SIZE || knot_wire_get_id(wire) != f->id)
		return; /* not ours, or a refusal by ICMP: the timer asks the next one */
	forward_answer(f, wire, (size_t)n);
	forward_free(f);
}

static void forward_send(struct forward *f);

static void on_upstream_timeout(void *arg)
{
	struct forward *f = arg;

	f->upstream++;
	forward_send(f);
}

/* Asks the upstream whose turn it is; when none is left the asker is told. */
static void forward_send(struct forward *f)
{
	CLEAN_BUF struct buf wire = { 0 };
	struct err err;

	fd_watch_free(f->watch);
	f->watch = NULL;
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	if (f->upstream >= f->d->n_upstreams) {
		send_rcode(f->d, &f->asker, f->query, KNOT_RCODE_SERVFAIL);
		forward_free(f);
		return;
	}
	f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	random_bytes(&f->id, sizeof(f->id));
	if (f->alias) {
		knot_pkt_t *q = knot_pkt_new(NULL, DNS_UDP_MAX, NULL);

		knot_wire_set_rd(q->wire);
		knot_pkt_put_question(q, f->target, KNOT_CLASS_IN, knot_pkt_qtype(f->query));
		buf_add(&wire, q->wire, q->size);
		knot_pkt_free(q);
	} else {
		buf_add(&wire, f->query->wire, f->query->size);
	}
	knot_wire_set_id((uint8_t *)wire.p, f->id);
	if (f->fd < 0 ||
		connect(f->fd, (struct sockaddr *)&f->d->upstreams[f->upstream],
			sizeof(struct sockaddr_in)) < 0 ||
		send(f->fd, wire.p, wire.len, 0) < 0 ||
		fd_watch_new(f->d->loop, f->fd, IO_READ, on_upstream, f, &f->watch, &err) < 0) {
		timer_start(f->timer, 0, 0); /* the next one, from the loop */
		return;
	}
	timer_start(f->timer, UPSTREAM_TIMEOUT_MS, 0);
}

/* Takes query over. */
static void forward_start(
	struct dns *d, const struct asker *to, knot_pkt_t *query, const knot_dname_t *target)
{
	struct forward *f;

	if (d->n_forwards >= FORWARDS_MAX || !d->n_upstreams) {
		send_rcode(d, to, query, KNOT_RCODE_SERVFAIL);
		knot_pkt_free(query);
		return;
	}
	f = xcalloc(1, sizeof(*f));
	*f = (struct forward){
		.d = d, .asker = *to, .query = query, .fd = -1, .alias = target != NULL
	};
	if (target)
		memcpy(f->target, target, knot_dname_size(target));
	list_insert(&d->forwards, &f->all);
	d->n_forwards++;
	if (to->connection)
		to->connection->waiting++;
	f->timer = timer_new(d->loop, on_upstream_timeout, f);
	forward_send(f);
}

/* ---- queries ---- */

static void handle(struct dns *d, struct asker *from, const uint8_t *wire, size_t len)
{
	knot_pkt_t *query = knot_pkt_new(NULL, (uint16_t)len, NULL), *reply;
	knot_dname_storage_t alias;

	if (!query)
		return;
	memcpy(query->wire, wire, len);
	query->size = len;
	if (knot_pkt_parse(query, 0) != KNOT_EOK || knot_wire_get_qr(query->wire) ||
		knot_wire_get_opcode(query->wire) != KNOT_OPCODE_QUERY || !knot_pkt_qname(query)) {
		if (len >= KNOT_WIRE_HEADER_SIZE && !knot_wire_get_qr(query->wire))
			send_rcode(d, from, query, KNOT_RCODE_FORMERR);
		knot_pkt_free(query);
		return;
	}
	if (!from->connection && knot_pkt_has_edns(query))
		from->limit = MIN(MAX(knot_edns_get_payload(query->opt_rr), 512), DNS_UDP_MAX);
	reply = begin_reply(query, from->limit);
	if (!reply) {
		knot_pkt_free(query);
		return;
	}
	switch (dns_answer(&d->source, d->c.domain, query, reply, alias)) {
	case DNS_ANSWERED:
		send_reply(d, from, reply);
		break;
	case DNS_FORWARD:
		forward_start(d, from, TAKE(query), NULL);
		break;
	case DNS_FORWARD_ALIAS:
		forward_start(d, from, TAKE(query), alias);
		break;
	}
	knot_pkt_free(reply);
	knot_pkt_free(query);
}

static void on_udp(void *arg, int events)
{
	struct dns *d = arg;

	for (int i = 0; i < 64; i++) {
		struct asker from = { .limit = 512 };
		socklen_t size = sizeof(from.address);
		uint8_t wire[4096];
		ssize_t n = recvfrom(d->udp, wire, sizeof(wire), MSG_DONTWAIT,
			(struct sockaddr *)&from.address, &size);

		if (n < 0)
			return;
		if (n >= KNOT_WIRE_HEADER_SIZE)
			handle(d, &from, wire, (size_t)n);
	}
}

static void on_tcp_data(void *arg, int events)
{
	struct connection *c = arg;
	struct asker from = { .connection = c, .limit = 65535 };
	uint8_t bytes[4096];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		connection_close(c);
		return;
	}
	buf_add(&c->in, bytes, (size_t)n);
	timer_start(c->timer, TIMEOUT_MS, 0);
	while (!c->closed && c->in.len >= 2) {
		size_t len = (size_t)((uint8_t)c->in.p[0] << 8 | (uint8_t)c->in.p[1]);

		if (c->in.len < len + 2)
			return;
		if (len < KNOT_WIRE_HEADER_SIZE) {
			connection_close(c);
			return;
		}
		c->waiting++; /* keeps c while it is answered */
		handle(c->d, &from, (uint8_t *)c->in.p + 2, len);
		c->waiting--;
		if (c->closed) {
			connection_unref(c);
			return;
		}
		memmove(c->in.p, c->in.p + len + 2, c->in.len - len - 2);
		c->in.len -= len + 2;
	}
}

static void on_tcp_timeout(void *arg)
{
	connection_close(arg);
}

static void on_tcp(void *arg, int events)
{
	struct dns *d = arg;
	int fd = accept4(d->tcp, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct connection *c;
	struct err err;

	if (fd < 0)
		return;
	if (d->n_connections >= TCP_MAX) {
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	*c = (struct connection){ .d = d, .fd = fd };
	list_insert(&d->connections, &c->all);
	d->n_connections++;
	c->timer = timer_new(d->loop, on_tcp_timeout, c);
	timer_start(c->timer, TIMEOUT_MS, 0);
	if (fd_watch_new(d->loop, fd, IO_READ, on_tcp_data, c, &c->watch, &err) < 0)
		connection_close(c);
}

/* ---- the source: caches of the process ---- */

static struct cached *view_service(void *arg, struct str key)
{
	return informer_get(((struct service_view *)arg)->services, key);
}

static void view_slices(void *arg, struct str key, struct cached_list *ret)
{
	informer_by_index(((struct service_view *)arg)->slices, key, ret);
}

static void view_services(void *arg, struct cached_list *ret)
{
	informer_list(((struct service_view *)arg)->services, STR_NONE, ret);
}

/* ---- life ---- */

static void add_upstream(struct dns *d, struct str text)
{
	CLEAN_FREE char *z = str_dup(text);
	struct sockaddr_in *to = &d->upstreams[d->n_upstreams];

	/* Our own address would be a loop. */
	if (d->n_upstreams == UPSTREAMS_MAX || !strcmp(z, d->c.address))
		return;
	*to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(53) };
	if (inet_pton(AF_INET, z, &to->sin_addr) == 1)
		d->n_upstreams++;
}

static void find_upstreams(struct dns *d)
{
	CLEAN_BUF struct buf text = { 0 };
	struct str rest, part, line;
	struct err err;

	if (d->c.upstreams) {
		rest = str_of(d->c.upstreams);
		while (rest.len) {
			str_cut(rest, ',', &part, &rest);
			add_upstream(d, str_trim(part));
		}
		return;
	}
	if (file_read("/etc/resolv.conf", 1 << 16, &text, &err) < 0)
		return;
	rest = buf_str(&text);
	while (rest.len) {
		str_cut(rest, '\n', &line, &rest);
		line = str_trim(line);
		if (str_has_prefix(line, STR("nameserver ")))
			add_upstream(d, str_trim(str_from(line, 11)));
	}
}

/* The cluster DNS address is the node's own, on its loopback link: pods reach it through their gateway. */
static int add_address(const char *ip, struct err *err)
{
	struct netlink *n;
	int r = netlink_open(&n, err);

	if (r < 0)
		return r;
	r = link_set_up(n, "lo", err);
	if (r == 0)
		r = address_add(n, "lo", inet_addr(ip), 32, err);
	netlink_close(n);
	return r;
}

static int listen_on(const struct dns *d, int type, int *ret_fd, struct err *err)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d->c.port) };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	if (fd < 0)
		return err_errno(err, -errno, "cannot make a socket for DNS");
	inet_pton(AF_INET, d->c.address, &at.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
		(type == SOCK_STREAM && listen(fd, 64) < 0)) {
		int e = -errno;

		close(fd);
		return err_errno(err, e, "cannot listen for DNS on %s:%d", d->c.address, d->c.port);
	}
	*ret_fd = fd;
	return 0;
}

/* A predecessor's, when it is of the same address. */
static int take_or_listen(
	const struct dns *d, int inherited, int type, int *ret_fd, struct err *err)
{
	struct sockaddr_in at = { 0 };
	socklen_t size = sizeof(at);

	if (inherited <= 0)
		return listen_on(d, type, ret_fd, err);
	if (getsockname(inherited, (struct sockaddr *)&at, &size) == 0 &&
		at.sin_addr.s_addr == inet_addr(d->c.address) && ntohs(at.sin_port) == d->c.port) {
		*ret_fd = inherited;
		return 0;
	}
	close(inherited);
	return listen_on(d, type, ret_fd, err);
}

int dns_new(const struct dns_config *c, struct dns **ret, struct err *err)
{
	struct dns *d = xcalloc(1, sizeof(*d));

	d->c = *c;
	d->udp = d->tcp = -1;
	d->source = (struct dns_source){ view_service, view_slices, view_services, c->view };
	list_init(&d->forwards);
	list_init(&d->connections);
	find_upstreams(d);
	*ret = d;
	return 0;
}

int dns_start(struct dns *d, struct err *err)
{
	int r = add_address(d->c.address, err);

	if (r == 0)
		r = loop_new("dns", &d->loop, err);
	if (r == 0)
		r = take_or_listen(d, d->c.udp_fd, SOCK_DGRAM, &d->udp, err);
	if (r == 0)
		r = take_or_listen(d, d->c.tcp_fd, SOCK_STREAM, &d->tcp, err);
	if (r == 0)
		r = fd_watch_new(d->loop, d->udp, IO_READ, on_udp, d, &d->udp_watch, err);
	if (r == 0)
		r = fd_watch_new(d->loop, d->tcp, IO_READ, on_tcp, d, &d->tcp_watch, err);
	return r < 0 ? r : loop_start(d->loop, err);
}

void dns_sockets(const struct dns *d, int *ret_udp, int *ret_tcp)
{
	*ret_udp = d->udp;
	*ret_tcp = d->tcp;
}

static void close_sockets(struct dns *d)
{
	fd_watch_free(TAKE(d->udp_watch));
	fd_watch_free(TAKE(d->tcp_watch));
	if (d->udp >= 0)
		close(d->udp);
	if (d->tcp >= 0)
		close(d->tcp);
	d->udp = d->tcp = -1;
}

void dns_stop(struct dns *d)
{
	if (!d->loop)
		return;
	loop_stop(d->loop);
	loop_join(d->loop);
	close_sockets(d);
}

void dns_free(struct dns *d)
{
	if (!d)
		return;
	list_for_each(it, &d->forwards)
		forward_free(list_entry(it, struct forward, all));
	list_for_each(it, &d->connections)
		connection_close(list_entry(it, struct connection, all));
	close_sockets(d);
	if (d->loop)
		loop_free(d->loop);
	free(d);
}
