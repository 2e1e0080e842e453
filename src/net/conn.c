/* A server's connection: socket, TLS, deadlines, and the order in which things happen.
 *
 * 1. Bytes go: read() -> tls_read() -> protocol->feed -> (handler) -> c->q -> tls_write() -> one send().
 * 2. A connection that failed is marked dead at once and freed at the end of the turn, when no function of it runs.
 * 3. What others queue is flushed at the end of the turn; what a request answers at once is flushed when its bytes are fed.
 * 4. Ciphertext is made only while less than OUT_LIMIT of it waits: a slow client holds no more than that.
 *
 * An idle connection keeps its SSL, its http_conn, and no buffers. */
#include "net/internal.h"

#include <sys/socket.h>

#define OUT_LIMIT (64 * 1024)
#define SPARE_MAX (64 * 1024)
#define STASH_LIMIT (64 * 1024)
#define READING_MS 60000
#define LINGER_MS 2000
#define STALLED_MS 120000

static void on_ready(void *arg, int events);

/* ---- deadlines: one list per state, all of whose connections have the same time to live ---- */

static uint64_t state_ms(const struct net_loop *nl, enum conn_state state)
{
	switch (state) {
	case CONN_READING:
		return READING_MS;
	case CONN_IDLE:
		return nl->server->config.idle_timeout_ms;
	case CONN_LINGER:
		return LINGER_MS;
	case CONN_STALLED:
		return STALLED_MS;
	default:
		return 0;
	}
}

static void sweep_at(struct net_loop *nl, uint64_t at_ms)
{
	nl->sweep_at_ms = at_ms;
	timer_start(nl->sweep, at_ms - loop_now_ms(nl->loop), 0);
}

static void sweep(void *arg)
{
	struct net_loop *nl = arg;
	uint64_t now = loop_now_ms(nl->loop), next = UINT64_MAX;

	nl->sweep_at_ms = UINT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(nl->states); i++) {
		if (!state_ms(nl, (enum conn_state)i))
			continue;
		list_for_each(it, &nl->states[i]) {
			struct http_conn *c = list_entry(it, struct http_conn, link);

			if (c->dead)
				continue;
			if (c->deadline_ms > now) {
				next = MIN(next, c->deadline_ms);
				break;
			}
			conn_kill(c);
		}
	}
	if (next != UINT64_MAX)
		sweep_at(nl, next);
}

void net_loop_start(void *arg)
{
	struct net_loop *nl = arg;

	nl->sweep_at_ms = UINT64_MAX;
	nl->sweep = timer_new(nl->loop, sweep, nl);
}

void conn_set_state(struct http_conn *c, enum conn_state state)
{
	struct net_loop *nl = c->nl;
	uint64_t ms = state_ms(nl, state);

	list_remove(&c->link);
	list_insert(&nl->states[state], &c->link);
	c->state = state;
	c->deadline_ms = loop_now_ms(nl->loop) + ms;
	if (ms && c->deadline_ms < nl->sweep_at_ms)
		sweep_at(nl, c->deadline_ms);
}

/* ---- the end ---- */

static void conn_destroy(struct http_conn *c)
{
	struct net_loop *nl = c->nl;

	if (c->protocol)
		c->protocol->closed(c);
	list_remove(&c->link);
	tls_conn_deinit(&c->tls);
	sendq_deinit(&c->q);
	buf_deinit(&c->out);
	buf_deinit(&c->stash);
	free(c->peer);
	free(c);
	nl->n_conns--;
	net_loop_conn_gone(nl);
}

void conn_kill(struct http_conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	fd_watch_free(c->watch);
	close(c->fd);
	c->fd = -1;
	conn_schedule(c, DUE_DESTROY);
}

void conn_close_when_sent(struct http_conn *c)
{
	c->closing = true;
	conn_schedule(c, DUE_FLUSH);
}

/* All was sent. The client may still be sending: closing now could reset the connection under the answer. */
static void begin_linger(struct http_conn *c)
{
	if (c->state == CONN_LINGER)
		return;
	shutdown(c->fd, SHUT_WR);
	conn_set_state(c, CONN_LINGER);
	fd_watch_set(c->watch, IO_READ);
}

/* ---- sending ---- */

size_t conn_pending(const struct http_conn *c)
{
	return c->q.len + c->out.len - c->out_sent;
}

void conn_take_spare(struct http_conn *c)
{
	struct net_loop *nl = c->nl;

	if (c->q.copied.p || !nl->spare.p)
		return;
	c->q.copied = nl->spare;
	nl->spare = (struct buf){ 0 };
}

void conn_send(struct http_conn *c, const void *p, size_t n)
{
	conn_take_spare(c);
	sendq_copy(&c->q, p, n);
	conn_schedule(c, DUE_FLUSH);
}

static int fill(struct http_conn *c, struct buf *out, size_t sent)
{
	while (out->len - sent < OUT_LIMIT) {
		if (!c->q.len && c->protocol && c->protocol->pull)
			c->protocol->pull(c);
		if (!c->q.len)
			break;
		struct str bytes = sendq_peek(&c->q);

		bytes.len = MIN(bytes.len, (size_t)TLS_RECORD);
		if (!c->tls.ssl) {
			buf_add_str(out, bytes);
		} else {
			c->tls.out = out;
			int r = tls_write(&c->tls, bytes.p, bytes.len);

			c->tls.out = &c->out;
			if (r < 0)
				return r;
		}
		sendq_take(&c->q, bytes.len);
	}
	return 0;
}

/* Until all is sent or the kernel takes no more. What is left over goes to c->out. */
static int send_all(struct http_conn *c, struct buf *out, size_t *sent)
{
	for (;;) {
		if (fill(c, out, *sent) < 0)
			return -EPROTO;
		if (*sent == out->len)
			return 0;
		ssize_t n = send(c->fd, out->p + *sent, out->len - *sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		*sent += (size_t)n;
		if (*sent == out->len)
			*sent = out->len = 0;
	}
}

static void give_back_buffers(struct http_conn *c)
{
	struct net_loop *nl = c->nl;

	if (!c->out.len && c->out.p)
		buf_deinit(&c->out);
	if (c->q.len || !c->q.copied.p)
		return;
	if (!nl->spare.p && c->q.copied.cap <= SPARE_MAX) {
		nl->spare = c->q.copied;
		nl->spare.len = 0;
		c->q.copied = (struct buf){ 0 };
	} else {
		buf_deinit(&c->q.copied);
	}
}

/* A client that takes nothing for STALLED_MS is given up; each byte it takes begins the time anew. */
static void note_progress(struct http_conn *c, size_t pending_before)
{
	size_t pending = conn_pending(c);

	if (!pending && c->state == CONN_STALLED)
		conn_set_state(c, c->state_before_stall);
	if (!pending || (c->state == CONN_STALLED && pending >= pending_before))
		return;
	if (c->state != CONN_STALLED)
		c->state_before_stall = c->state;
	conn_set_state(c, CONN_STALLED);
}

static void update_watch(struct http_conn *c)
{
	bool read = c->stash.len < STASH_LIMIT;

	fd_watch_set(c->watch, (read ? IO_READ : 0) | (conn_pending(c) ? IO_WRITE : 0));
}

/* The loop's buffer serves whoever is being flushed; what the kernel does not take is moved to the connection. */
static int flush_bytes(struct http_conn *c)
{
	struct net_loop *nl = c->nl;

	if (c->out.len)
		return send_all(c, &c->out, &c->out_sent);
	size_t sent = 0;

	nl->out.len = 0;
	int r = send_all(c, &nl->out, &sent);

	if (r == -EAGAIN)
		buf_add(&c->out, nl->out.p + sent, nl->out.len - sent);
	return r;
}

void conn_flush(struct http_conn *c)
{
	struct net_loop *nl = c->nl;

	if (c->dead || c->state == CONN_LINGER)
		return;
	if (nl->flushing || c->feeding) {
		conn_schedule(c, DUE_FLUSH);
		return;
	}
	c->due &= (uint8_t)~DUE_FLUSH;
	size_t pending = conn_pending(c);

	c->was_high = c->was_high || pending >= PENDING_HIGH;
	nl->flushing = true;
	int r = flush_bytes(c);

	nl->flushing = false;
	if (r < 0 && r != -EAGAIN) {
		conn_kill(c);
		return;
	}
	give_back_buffers(c);
	note_progress(c, pending);
	if (c->was_high && conn_pending(c) < PENDING_HIGH) {
		c->was_high = false;
		conn_schedule(c, DUE_DRAIN);
	}
	if (c->protocol && c->protocol->flushed)
		c->protocol->flushed(c);
	if (c->dead)
		return;
	if (c->closing && !conn_pending(c))
		conn_schedule(c, DUE_CLOSE);
	update_watch(c);
}

/* Says goodbye over TLS, then waits for the client to close. */
static void conn_close(struct http_conn *c)
{
	if (conn_pending(c) || c->state == CONN_LINGER)
		return;
	if (c->tls.ssl) {
		tls_shutdown(&c->tls);
		if (c->out.len && send(c->fd, c->out.p, c->out.len, MSG_NOSIGNAL) < 0)
			c->out.len = 0;
		buf_deinit(&c->out);
		c->out_sent = 0;
	}
	begin_linger(c);
}

/* ---- what is due at the end of a turn ---- */

static void resume(struct http_conn *c);

static void conn_turn(void *arg)
{
	struct http_conn *c = arg;
	uint8_t due = c->due;

	c->due = 0;
	c->scheduled = false;
	if (c->dead) {
		/* A destroy that was asked for by this very turn's work is the last task of this connection. */
		if (due & DUE_DESTROY)
			conn_destroy(c);
		return;
	}
	if (due & DUE_RESUME)
		resume(c);
	if (!c->dead && due & (DUE_FLUSH | DUE_RESUME))
		conn_flush(c);
	if (!c->dead && due & DUE_DRAIN && c->protocol)
		c->protocol->drained(c);
	if (!c->dead && due & DUE_CLOSE)
		conn_close(c);
}

void conn_schedule(struct http_conn *c, uint8_t due)
{
	c->due |= due;
	/* What a request's own bytes cause is flushed when they were fed. */
	if (c->scheduled || (c->feeding && !(c->due & ~DUE_FLUSH)))
		return;
	c->scheduled = true;
	loop_at_turn_end(c->nl->loop, conn_turn, c);
}

/* ---- receiving ---- */

static const struct conn_protocol *sniff(const char *p, size_t n)
{
	static const char preface[] = "PRI ";

	if (n < 4 && !memcmp(p, preface, n))
		return NULL;
	return memcmp(p, preface, MIN(n, (size_t)4)) ? &http1_protocol : &http2_protocol;
}

static bool choose_protocol(struct http_conn *c, const struct conn_protocol *protocol)
{
	if (protocol == &http2_protocol && http2_start(c) < 0) {
		conn_kill(c);
		return false;
	}
	if (protocol == &http1_protocol)
		http1_init(&c->h1, false);
	c->protocol = protocol;
	return true;
}

static size_t feed(struct http_conn *c, const char *p, size_t n)
{
	size_t taken = 0;

	if (!c->protocol) {
		const struct conn_protocol *protocol = sniff(p, n);

		if (!protocol || !choose_protocol(c, protocol))
			return 0;
	}
	c->feeding = true;
	while (taken < n && !c->dead) {
		const struct conn_protocol *before = c->protocol;
		size_t t = before->feed(c, p + taken, n - taken);

		taken += t;
		/* An upgrade lets another protocol take the rest. */
		if (t == 0 && c->protocol == before)
			break;
	}
	c->feeding = false;
	return taken;
}

static void resume(struct http_conn *c)
{
	if (!c->stash.len)
		return;
	/* The protocol may stash more while it is fed. */
	struct buf bytes = c->stash;

	c->stash = (struct buf){ 0 };
	size_t taken = feed(c, bytes.p, bytes.len);

	if (taken < bytes.len && !c->dead)
		buf_add(&c->stash, bytes.p + taken, bytes.len - taken);
	buf_deinit(&bytes);
}

static void take_plain(struct http_conn *c, const char *p, size_t n)
{
	if (c->closing)
		return;
	if (c->stash.len) {
		buf_add(&c->stash, p, n);
		resume(c);
		return;
	}
	size_t taken = feed(c, p, n);

	if (taken < n && !c->dead && !c->closing)
		buf_add(&c->stash, p + taken, n - taken);
}

static bool handshake(struct http_conn *c)
{
	int r = tls_handshake(&c->tls, NULL);

	if (r == -EAGAIN)
		return false;
	if (r < 0) {
		/* The alert says why. */
		if (c->out.len && send(c->fd, c->out.p, c->out.len, MSG_NOSIGNAL) < 0)
			c->out.len = 0;
		conn_kill(c);
		return false;
	}
	c->handshaken = true;
	c->peer = tls_peer_identity(&c->tls);
	c->peer_refused = !c->peer && tls_peer_shows_certificate(&c->tls);
	return choose_protocol(c, tls_chose_http2(&c->tls) ? &http2_protocol : &http1_protocol);
}

static void take_cipher(struct http_conn *c, const char *p, size_t n)
{
	struct net_loop *nl = c->nl;

	c->tls.in = str_n(p, n);
	if (!c->handshaken && !handshake(c))
		return;
	while (!c->dead) {
		ssize_t r = tls_read(&c->tls, nl->plain, TLS_RECORD, NULL);

		if (r == -EAGAIN)
			break;
		if (r <= 0) {
			conn_flush(c);
			conn_kill(c);
			break;
		}
		take_plain(c, nl->plain, (size_t)r);
	}
	c->tls.in = STR_NONE;
}

static void read_some(struct http_conn *c)
{
	struct net_loop *nl = c->nl;
	ssize_t n = recv(c->fd, nl->in, READ_SIZE, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_kill(c);
		return;
	}
	if (c->state == CONN_LINGER)
		return;
	if (c->tls.ssl)
		take_cipher(c, nl->in, (size_t)n);
	else
		take_plain(c, nl->in, (size_t)n);
	conn_flush(c);
}

static void on_ready(void *arg, int events)
{
	struct http_conn *c = arg;

	if (!c->dead && events & IO_WRITE)
		conn_flush(c);
	if (!c->dead && events & IO_READ)
		read_some(c);
}

/* ---- the beginning ---- */

struct http_conn *conn_new(struct net_loop *nl, int fd, const char *remote)
{
	struct http_server *s = nl->server;
	struct http_conn *c = xcalloc(1, sizeof(*c));

	c->nl = nl;
	c->fd = fd;
	memcpy(c->remote, remote, strnlen(remote, sizeof(c->remote) - 1));
	sendq_init(&c->q);
	list_init(&c->link);
	c->tls.out = &c->out;
	if ((s->config.tls && tls_conn_init(&c->tls, s->config.tls, true, NULL) < 0) ||
		fd_watch_new(nl->loop, fd, IO_READ, on_ready, c, &c->watch, NULL) < 0) {
		tls_conn_deinit(&c->tls);
		close(fd);
		free(c);
		atomic_fetch_sub(&s->n_conns, 1);
		return NULL;
	}
	nl->n_conns++;
	conn_set_state(c, CONN_READING);
	return c;
}

void conn_stop(struct http_conn *c)
{
	if (c->dead || c->closing)
		return;
	if (c->protocol)
		c->protocol->stop(c);
	else
		conn_kill(c);
}
