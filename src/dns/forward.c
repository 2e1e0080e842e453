/* Queries for other names, forwarded to the node's own servers one after the other. Over UDP each from a socket of its own, so that whoever would answer
 * in a server's place must guess a port and an id; and what comes back must be an answer to the very question. Over TCP for those who asked over
 * TCP: what they want did not fit UDP.
 *
 * Bounds: FORWARDS_MAX at once, FORWARDS_EACH of one asker; more get SERVFAIL. */
#include <sys/socket.h>

#include "dns/internal.h"

#define FORWARDS_MAX 256
#define FORWARDS_EACH 64
#define UPSTREAM_TIMEOUT_MS 2000

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
	/* over TCP */
	struct buf out, in;
	size_t sent;
};

static void disconnect(struct forward *f)
{
	fd_watch_free(TAKE(f->watch));
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

static void forward_free(struct forward *f)
{
	disconnect(f);
	timer_free(f->timer);
	knot_pkt_free(f->query);
	buf_deinit(&f->out);
	buf_deinit(&f->in);
	list_remove(&f->all);
	f->d->n_forwards--;
	dns_release(f->asker.connection);
	free(f);
}

void forwards_free(struct dns *d)
{
	list_for_each(it, &d->forwards)
		forward_free(list_entry(it, struct forward, all));
}

static const knot_dname_t *asked_name(const struct forward *f)
{
	return f->alias ? f->target : knot_pkt_qname(f->query);
}

static bool is_answer(const struct forward *f, const knot_pkt_t *got)
{
	const knot_dname_t *name = knot_pkt_qname(got);

	return knot_wire_get_qr(got->wire) && name && knot_dname_is_equal(name, asked_name(f)) &&
		knot_pkt_qtype(got) == knot_pkt_qtype(f->query) &&
		knot_pkt_qclass(got) == knot_pkt_qclass(f->query);
}

static void answer_alias(struct forward *f, const knot_pkt_t *got)
{
	knot_pkt_t *reply = dns_begin_reply(f->query, f->asker.limit);
	knot_dname_storage_t alias;

	if (reply &&
		dns_answer(&f->d->source, f->d->c.domain, f->query, reply, alias) ==
			DNS_FORWARD_ALIAS) {
		const knot_pktsection_t *answers = knot_pkt_section(got, KNOT_ANSWER);

		for (uint16_t i = 0; i < answers->count; i++)
			knot_pkt_put(reply, KNOT_COMPR_HINT_NONE, knot_pkt_rr(answers, i), 0);
		dns_send(f->d, &f->asker, reply);
	}
	knot_pkt_free(reply);
}

/* The upstream's answer goes out as it is under the asker's id; behind an alias, its records follow the CNAME. What the asker cannot take over UDP he is
 * told to ask for over TCP. false: no answer to what was asked. */
static bool forward_answer(struct forward *f, uint8_t *wire, size_t len)
{
	knot_pkt_t *got = knot_pkt_new(wire, (uint16_t)len, NULL);
	bool good = got && knot_pkt_parse(got, 0) == KNOT_EOK && is_answer(f, got);

	if (good && f->alias) {
		answer_alias(f, got);
	} else if (good && got->size > f->asker.takes) {
		knot_pkt_t *r = dns_begin_reply(f->query, f->asker.limit);

		if (r) {
			knot_wire_set_tc(r->wire);
			dns_send(f->d, &f->asker, r);
		}
		knot_pkt_free(r);
	} else if (good) {
		knot_wire_set_id(got->wire, knot_wire_get_id(f->query->wire));
		dns_send(f->d, &f->asker, got);
	}
	knot_pkt_free(got);
	return good;
}

static void forward_send(struct forward *f);

static void next_upstream(void *arg)
{
	struct forward *f = arg;

	f->upstream++;
	forward_send(f);
}

static void on_datagram(void *arg, int events)
{
	struct forward *f = arg;
	uint8_t wire[4096];
	ssize_t n = recv(f->fd, wire, sizeof(wire), MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		next_upstream(f); /* nobody listens there */
		return;
	}
	/* What is not ours changes nothing: the true answer may still come. */
	if (n >= KNOT_WIRE_HEADER_SIZE && knot_wire_get_id(wire) == f->id &&
		forward_answer(f, wire, (size_t)n))
		forward_free(f);
}

static bool stream_write(struct forward *f)
{
	while (f->sent < f->out.len) {
		ssize_t n = send(f->fd, f->out.p + f->sent, f->out.len - f->sent,
			MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINPROGRESS;
		f->sent += (size_t)n;
	}
	fd_watch_set(f->watch, IO_READ);
	return true;
}

static void on_stream(void *arg, int events)
{
	struct forward *f = arg;
	uint8_t bytes[8192];
	ssize_t n;
	size_t len;

	if (f->sent < f->out.len) {
		if (!stream_write(f))
			next_upstream(f);
		return;
	}
	n = recv(f->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		next_upstream(f);
		return;
	}
	buf_add(&f->in, bytes, (size_t)n);
	if (f->in.len < 2)
		return;
	len = (size_t)((uint8_t)f->in.p[0] << 8 | (uint8_t)f->in.p[1]);
	if (f->in.len < len + 2)
		return;
	if (len >= KNOT_WIRE_HEADER_SIZE && knot_wire_get_id((uint8_t *)f->in.p + 2) == f->id &&
		forward_answer(f, (uint8_t *)f->in.p + 2, len))
		forward_free(f);
	else
		next_upstream(f);
}

static void write_query(struct forward *f, struct buf *wire)
{
	if (f->alias) {
		knot_pkt_t *q = knot_pkt_new(NULL, DNS_UDP_MAX, NULL);

		knot_wire_set_rd(q->wire);
		knot_pkt_put_question(
			q, f->target, knot_pkt_qclass(f->query), knot_pkt_qtype(f->query));
		buf_add(wire, q->wire, q->size);
		knot_pkt_free(q);
	} else {
		buf_add(wire, f->query->wire, f->query->size);
	}
	random_bytes(&f->id, sizeof(f->id));
	knot_wire_set_id((uint8_t *)wire->p, f->id);
}

static int start_stream(struct forward *f, const struct sockaddr_in *to, const struct buf *wire)
{
	const uint8_t head[2] = { (uint8_t)(wire->len >> 8), (uint8_t)wire->len };
	struct err err;

	buf_clear(&f->out);
	buf_clear(&f->in);
	buf_add(&f->out, head, sizeof(head));
	buf_add_str(&f->out, buf_str(wire));
	f->sent = 0;
	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->fd < 0 ||
		(connect(f->fd, (const struct sockaddr *)to, sizeof(*to)) < 0 &&
			errno != EINPROGRESS))
		return -errno;
	return fd_watch_new(f->d->loop, f->fd, IO_READ | IO_WRITE, on_stream, f, &f->watch, &err);
}

static int start_datagram(struct forward *f, const struct sockaddr_in *to, const struct buf *wire)
{
	struct err err;

	f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->fd < 0 || connect(f->fd, (const struct sockaddr *)to, sizeof(*to)) < 0 ||
		send(f->fd, wire->p, wire->len, 0) < 0)
		return -errno;
	return fd_watch_new(f->d->loop, f->fd, IO_READ, on_datagram, f, &f->watch, &err);
}

/* Asks the upstream whose turn it is; when none is left the asker is told. */
static void forward_send(struct forward *f)
{
	CLEAN_BUF struct buf wire = { 0 };
	const struct sockaddr_in *to;

	disconnect(f);
	if (f->upstream >= f->d->n_upstreams) {
		dns_send_rcode(f->d, &f->asker, f->query, KNOT_RCODE_SERVFAIL);
		forward_free(f);
		return;
	}
	to = &f->d->upstreams[f->upstream];
	write_query(f, &wire);
	if ((f->asker.connection ? start_stream : start_datagram)(f, to, &wire) < 0)
		timer_start(f->timer, 0, 0); /* the next one, from the loop */
	else
		timer_start(f->timer, UPSTREAM_TIMEOUT_MS, 0);
}

static size_t under_way_for(const struct dns *d, const struct asker *who)
{
	size_t n = 0;

	list_for_each(it, &d->forwards)
		n += list_entry(it, struct forward, all)->asker.address.sin_addr.s_addr ==
			who->address.sin_addr.s_addr;
	return n;
}

void forward_start(
	struct dns *d, const struct asker *to, knot_pkt_t *query, const knot_dname_t *target)
{
	struct forward *f;

	if (d->n_forwards >= FORWARDS_MAX || !d->n_upstreams ||
		under_way_for(d, to) >= FORWARDS_EACH) {
		dns_send_rcode(d, to, query, KNOT_RCODE_SERVFAIL);
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
	dns_hold(to->connection);
	f->timer = timer_new(d->loop, next_upstream, f);
	forward_send(f);
}
