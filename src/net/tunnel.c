/* Forwards an upgraded connection as it is. A thread talks to the upstream server with the blocking client's connection; the
 * stream's side stays on its loop.
 *
 * Bytes from the client wait in to_upstream (at most HIGH, then the client's connection is not fed), bytes to the client are
 * counted in flight (at most HIGH, then the upstream is not read). lock guards what both sides touch; whoever changes
 * something the thread waits for writes to wake_fd. The last of the two sides frees. */
#include "net/client_internal.h"

#include <poll.h>
#include <sys/eventfd.h>

#define HIGH (256 * 1024)
#define CHUNK (16 * 1024)
#define REFUSAL_MAX (1024 * 1024)
#define HEAD_TIMEOUT_MS 30000

struct tunnel {
	atomic_uint refs;
	struct net_loop *nl;        /* lives until it heard that the thread ended */
	struct http_stream *stream; /* a reference */
	struct http_client *client;
	struct forwarded request;
	int wake_fd;
	struct client_conn *conn; /* the thread's */
	struct http1 h1;
	struct message head;
	struct buf rest; /* what came behind the head */
	struct err err;
	pthread_mutex_t lock;
	struct buf to_upstream; /* guarded by lock, as are the next three */
	size_t in_flight;
	bool client_gone,
		starved; /* starved: the client's connection waits for room in to_upstream */
};

static void tunnel_unref(struct tunnel *t)
{
	if (atomic_fetch_sub(&t->refs, 1) != 1)
		return;
	client_conn_free(t->conn);
	http_client_free(t->client);
	http_stream_unref(t->stream);
	arena_free(t->request.arena);
	close(t->wake_fd);
	buf_deinit(&t->rest);
	buf_deinit(&t->to_upstream);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct tunnel *tunnel_ref(struct tunnel *t)
{
	atomic_fetch_add(&t->refs, 1);
	return t;
}

static void wake(struct tunnel *t)
{
	eventfd_write(t->wake_fd, 1);
}

/* -- on the loop -- */

static size_t tunnel_feed(struct http_conn *c, const char *p, size_t n)
{
	struct tunnel *t = c->upgraded;

	pthread_mutex_lock(&t->lock);
	bool room = t->to_upstream.len < HIGH;

	if (room)
		buf_add(&t->to_upstream, p, n);
	t->starved = !room;
	pthread_mutex_unlock(&t->lock);
	wake(t);
	return room ? n : 0;
}

static void set_client_gone(struct tunnel *t)
{
	pthread_mutex_lock(&t->lock);
	t->client_gone = true;
	pthread_mutex_unlock(&t->lock);
	wake(t);
}

static void tunnel_drained(struct http_conn *c) {}

static void tunnel_stop(struct http_conn *c) {}

static void tunnel_closed(struct http_conn *c)
{
	struct tunnel *t = c->upgraded;
	struct http_stream *s = c->stream;

	c->stream = NULL;
	set_client_gone(t);
	stream_finish(s);
	tunnel_unref(t);
}

const struct conn_protocol tunnel_protocol = {
	.feed = tunnel_feed,
	.drained = tunnel_drained,
	.stop = tunnel_stop,
	.closed = tunnel_closed,
};

/* The client went away before the upstream answered. */
static void on_early_close(struct http_stream *s, void *arg)
{
	struct tunnel *t = arg;

	set_client_gone(t);
	tunnel_unref(t);
}

static void put_switching_head(struct buf *out, const struct message *m)
{
	buf_addz(out, "HTTP/1.1 101 Switching Protocols\r\n");
	for (size_t i = 0; i < m->n_headers; i++)
		buf_addf(out, STR_FMT ": " STR_FMT "\r\n", STR_ARG(m->headers[i].name),
			STR_ARG(m->headers[i].value));
	buf_addz(out, "\r\n");
}

static void on_switched(struct http_stream *s, void *arg)
{
	struct tunnel *t = arg;
	struct http_conn *c = s->conn;
	CLEAN_BUF struct buf out = { 0 };

	if (c && !c->dead) {
		put_switching_head(&out, &t->head);
		buf_add_str(&out, buf_str(&t->rest));
		s->begun = true;
		/* The reference that on_close held is the connection's now. */
		s->on_close = NULL;
		c->protocol = &tunnel_protocol;
		c->upgraded = t;
		conn_send(c, out.p, out.len);
		conn_schedule(c, DUE_RESUME);
	}
	tunnel_unref(t);
}

static void on_refused(struct http_stream *s, void *arg)
{
	struct tunnel *t = arg;
	struct arena *a = http_stream_arena(s);

	if (t->err.text[0]) {
		forward_bad_gateway(s, &t->err);
	} else {
		size_t n;
		struct http_header *headers =
			forward_headers(a, t->head.headers, t->head.n_headers, &n);

		http_respond(s, t->head.status, headers, n,
			arena_str(a, str_n(t->head.body, t->head.body_len)), NULL, NULL);
	}
	tunnel_unref(t);
}

struct chunk {
	struct tunnel *tunnel;
	size_t len;
	char bytes[];
};

static void chunk_sent(void *arg)
{
	struct chunk *k = arg;
	struct tunnel *t = k->tunnel;

	pthread_mutex_lock(&t->lock);
	bool was_high = t->in_flight >= HIGH;

	t->in_flight -= k->len;
	bool low = t->in_flight < HIGH;

	pthread_mutex_unlock(&t->lock);
	if (was_high && low)
		wake(t);
	tunnel_unref(t);
	free(k);
}

static void deliver(struct http_stream *s, void *arg)
{
	struct chunk *k = arg;

	if (!s->conn || s->conn->dead) {
		chunk_sent(k);
		return;
	}
	sendq_add(&s->conn->q, str_n(k->bytes, k->len), chunk_sent, k);
	conn_schedule(s->conn, DUE_FLUSH);
}

static void on_upstream_end(struct http_stream *s, void *arg)
{
	if (s->conn)
		conn_close_when_sent(s->conn);
}

static void feed_again(struct http_stream *s, void *arg)
{
	if (s->conn && !s->conn->dead)
		conn_schedule(s->conn, DUE_RESUME);
}

/* -- on the thread -- */

/* Moves what the client sent into the connection, when that has nothing left to send. */
static int send_to_upstream(struct tunnel *t)
{
	struct buf bytes = { 0 };
	bool starved = false;
	int r = client_try_send(t->conn);

	if (r < 0)
		return r == -EAGAIN ? 0 : r;
	pthread_mutex_lock(&t->lock);
	bytes = t->to_upstream;
	t->to_upstream = (struct buf){ 0 };
	starved = t->starved;
	t->starved = false;
	pthread_mutex_unlock(&t->lock);
	r = bytes.len ? client_queue(t->conn, bytes.p, bytes.len) : 0;
	buf_deinit(&bytes);
	if (starved)
		http_stream_post(t->stream, feed_again, NULL);
	if (r == 0)
		r = client_try_send(t->conn);
	return r == -EAGAIN ? 0 : r;
}

/* 0: nothing more for now; 1: the upstream ended. */
static int read_from_upstream(struct tunnel *t)
{
	for (;;) {
		pthread_mutex_lock(&t->lock);
		bool full = t->in_flight >= HIGH;

		pthread_mutex_unlock(&t->lock);
		if (full)
			return 0;
		struct chunk *k = xmalloc(sizeof(*k) + CHUNK);
		ssize_t n = client_try_read(t->conn, k->bytes, CHUNK);

		if (n <= 0) {
			free(k);
			return n == -EAGAIN ? 0 : 1;
		}
		k = xrealloc(k, sizeof(*k) + (size_t)n);
		k->tunnel = tunnel_ref(t);
		k->len = (size_t)n;
		pthread_mutex_lock(&t->lock);
		t->in_flight += k->len;
		pthread_mutex_unlock(&t->lock);
		http_stream_post(t->stream, deliver, k);
	}
}

static void pump(struct tunnel *t)
{
	eventfd_t ignored;

	for (;;) {
		pthread_mutex_lock(&t->lock);
		bool full = t->in_flight >= HIGH, gone = t->client_gone && !t->to_upstream.len;

		pthread_mutex_unlock(&t->lock);
		if (gone && !t->conn->out.len)
			return;
		short events = (short)((full ? 0 : POLLIN) | (t->conn->out.len ? POLLOUT : 0));
		/* Asked for nothing, poll would still report a hang-up, again and again. */
		struct pollfd fds[2] = {
			{ events ? t->conn->fd : -1, events, 0 },
			{ t->wake_fd, POLLIN, 0 },
		};

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return;
		if (fds[1].revents)
			eventfd_read(t->wake_fd, &ignored);
		/* Waking may mean that there is room again for what TLS holds already. */
		if (send_to_upstream(t) < 0 || read_from_upstream(t))
			return;
	}
}

static int open_upstream(struct tunnel *t)
{
	/* The wake descriptor doubles as the end of patience: before the answer only a client that leaves writes to it. */
	struct patience p = { HEAD_TIMEOUT_MS, t->wake_fd };
	CLEAN_BUF struct buf out = { 0 };
	char bytes[4096];
	int r = client_connect(t->client, true, p, &t->conn, &t->err);

	if (r < 0)
		return r;
	client_put_head(t->client, &out, &t->request.call, (int64_t)t->request.call.body.len);
	buf_add_str(&out, t->request.call.body);
	http1_init(&t->h1, true);
	message_init(&t->head, t->request.arena, REFUSAL_MAX);
	http1_start(&t->h1, &t->head);
	r = client_write(t->conn, p, out.p, out.len, &t->err);
	if (r == 0)
		r = client_read_head(t->conn, p, &t->h1, &t->rest, &t->err);
	/* A refusal has a body. */
	while (r == 0 && !t->h1.done) {
		size_t taken;
		ssize_t n = client_read(t->conn, p, bytes, sizeof(bytes), &t->err);

		if (n < 0)
			return (int)n;
		r = http1_feed(&t->h1, bytes, (size_t)n, &taken);
		if (r < 0 || (n == 0 && !t->h1.done))
			return err_set(
				&t->err, -EPROTO, "the answer is cut short, or larger than 1 MiB");
	}
	return MIN(r, 0);
}

static void *tunnel_thread(void *arg)
{
	struct tunnel *t = arg;
	struct net_loop *nl = t->nl;
	int r = open_upstream(t);

	if (r < 0)
		err_prefix(
			&t->err, r, "%s" STR_FMT, t->client->url, STR_ARG(t->request.call.target));
	else
		t->err.text[0] = '\0';
	tunnel_ref(t);
	if (r < 0 || t->head.status != 101) {
		http_stream_post(t->stream, on_refused, t);
	} else {
		http_stream_post(t->stream, on_switched, t);
		pump(t);
		http_stream_post(t->stream, on_upstream_end, NULL);
	}
	tunnel_unref(t);
	loop_post(nl->loop, net_loop_thread_gone, nl);
	return NULL;
}

void http_tunnel(struct http_stream *s, struct http_client *c, struct str target,
	const struct http_header *extra_headers, size_t n_extra)
{
	if (!s->conn || forward_too_many(s))
		return;
	struct tunnel *t = xcalloc(1, sizeof(*t));
	struct err err;
	pthread_t thread;

	/* One for the thread, one for on_close and then the connection. */
	atomic_init(&t->refs, 2);
	t->stream = http_stream_ref(s);
	t->nl = s->conn->nl;
	t->client = http_client_ref(c);
	t->request = forward_copy(s, target, extra_headers, n_extra, true);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&t->lock, NULL);
	http_stream_on_close(s, on_early_close, t);
	int r = t->wake_fd < 0 ? -errno : thread_start(&thread, "tunnel", tunnel_thread, t);

	if (r == 0)
		t->nl->n_threads++; /* only this loop counts it down */
	if (r < 0) {
		err_errno(&err, r, "cannot start a tunnel");
		forward_bad_gateway(s, &err);
		tunnel_unref(t);
		return;
	}
	pthread_detach(thread);
}
