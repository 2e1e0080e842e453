/* Sockets of the cluster DNS: UDP and TCP on one address. All on one loop.
 *
 * Bounds: 64 TCP connections, 16 of one address; the oldest one that waits for nothing makes room for a new one. Each has 5 s for a whole query. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "dns/internal.h"
#include "linux/linux.h"

#define TCP_MAX 64
#define TCP_EACH 16
#define TIMEOUT_MS 5000

struct connection {
	struct list all; /* the oldest first */
	struct dns *d;
	struct sockaddr_in peer;
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

void dns_hold(struct connection *c)
{
	if (c)
		c->waiting++;
}

void dns_release(struct connection *c)
{
	if (!c)
		return;
	c->waiting--;
	connection_unref(c);
}

void dns_send(struct dns *d, const struct asker *to, const knot_pkt_t *reply)
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

knot_pkt_t *dns_begin_reply(const knot_pkt_t *query, uint16_t limit)
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

void dns_send_rcode(struct dns *d, const struct asker *to, const knot_pkt_t *query, uint8_t rcode)
{
	knot_pkt_t *r = dns_begin_reply(query, to->limit);

	if (!r)
		return;
	knot_wire_set_rcode(r->wire, rcode);
	dns_send(d, to, r);
	knot_pkt_free(r);
}

/* ---- queries ---- */

/* Before that, "there is no such name" would be a guess, and is what clients believe at once. */
static bool is_synced(struct dns *d)
{
	if (!d->synced)
		d->synced = service_view_wait_synced(d->c.view, 0);
	return d->synced;
}

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
			dns_send_rcode(d, from, query, KNOT_RCODE_FORMERR);
		knot_pkt_free(query);
		return;
	}
	if (!from->connection && knot_pkt_has_edns(query)) {
		from->takes = MAX(knot_edns_get_payload(query->opt_rr), 512);
		from->limit = MIN(from->takes, DNS_UDP_MAX);
	}
	reply = dns_begin_reply(query, from->limit);
	if (!reply) {
		knot_pkt_free(query);
		return;
	}
	switch (dns_answer(&d->source, d->c.domain, query, reply, alias)) {
	case DNS_ANSWERED:
		if (is_synced(d))
			dns_send(d, from, reply);
		else
			dns_send_rcode(d, from, query, KNOT_RCODE_SERVFAIL);
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
		struct asker from = { .limit = 512, .takes = 512 };
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
	struct asker from = { .address = c->peer, .connection = c, .limit = 65535, .takes = 65535 };
	uint8_t bytes[4096];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		connection_close(c);
		return;
	}
	buf_add(&c->in, bytes, (size_t)n);
	while (!c->closed && c->in.len >= 2) {
		size_t len = (size_t)((uint8_t)c->in.p[0] << 8 | (uint8_t)c->in.p[1]);

		if (c->in.len < len + 2)
			return;
		if (len < KNOT_WIRE_HEADER_SIZE) {
			connection_close(c);
			return;
		}
		timer_start(c->timer, TIMEOUT_MS, 0); /* bytes alone win no time */
		dns_hold(c);
		handle(c->d, &from, (uint8_t *)c->in.p + 2, len);
		bool closed = c->closed;

		dns_release(c);
		if (closed)
			return;
		memmove(c->in.p, c->in.p + len + 2, c->in.len - len - 2);
		c->in.len -= len + 2;
	}
}

static void on_tcp_timeout(void *arg)
{
	connection_close(arg);
}

/* false: there is no room for one more of this address. */
static bool make_room(struct dns *d, const struct sockaddr_in *peer)
{
	struct connection *oldest = NULL;
	size_t of_peer = 0;

	list_for_each(it, &d->connections) {
		struct connection *c = list_entry(it, struct connection, all);

		of_peer += c->peer.sin_addr.s_addr == peer->sin_addr.s_addr;
		if (!oldest && !c->waiting)
			oldest = c;
	}
	if (of_peer >= TCP_EACH)
		return false;
	if (d->n_connections < TCP_MAX)
		return true;
	if (oldest)
		connection_close(oldest);
	return oldest;
}

static void on_tcp(void *arg, int events)
{
	struct dns *d = arg;
	struct sockaddr_in peer = { 0 };
	socklen_t size = sizeof(peer);
	int fd = accept4(d->tcp, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct connection *c;
	struct err err;

	if (fd < 0)
		return;
	if (!make_room(d, &peer)) {
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	*c = (struct connection){ .d = d, .fd = fd, .peer = peer };
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

static void view_at_address(void *arg, struct str ip, struct cached_list *ret)
{
	informer_by_index(((struct service_view *)arg)->services, ip, ret);
}

static void view_headless(void *arg, struct cached_list *ret)
{
	informer_by_index(((struct service_view *)arg)->services, STR("None"), ret);
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
		if (str_has_prefix(line, STR("nameserver ")) ||
			str_has_prefix(line, STR("nameserver\t")))
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
	d->source = (struct dns_source){ view_service, view_slices, view_at_address, view_headless,
		c->view };
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
	forwards_free(d);
	list_for_each(it, &d->connections)
		connection_close(list_entry(it, struct connection, all));
	close_sockets(d);
	if (d->loop)
		loop_free(d->loop);
	free(d);
}
