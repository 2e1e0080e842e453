/* The gRPC client. nghttp2 keeps the protocol; this gives it bytes on a thread of its own, one connection at a time.
 *
 * 1. Everything but the inbox (queue of new calls and posts, under lock) belongs to the thread.
 * 2. A call ends exactly once. It ends as `sent` when its stream was opened and the server did not say that it ignored it: only
 *    then may the server have acted.
 * 3. nghttp2's functions are never called from its own callbacks: ended calls are collected and told afterwards.
 * 4. A server that says nothing for PING_MS while calls run is asked by a PING; one that does not answer is left.
 * 5. A hurried client connects no more, so a call that finds no connection ends at once. */
#include "net/client_internal.h"

#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>

#define CONNECT_MS 2000
#define PING_MS 10000 /* servers take more frequent ones for abuse */
#define PONG_MS 3000
#define RETRY_MS 50
#define RETRY_MAX_MS 1000
#define STREAM_WINDOW (4 * 1024 * 1024)
#define CONN_WINDOW (16 * 1024 * 1024)
#define MESSAGE_MAX ((size_t)512 * 1024 * 1024)
#define UNSENT_MAX ((size_t)256 * 1024)

struct grpc_call {
	struct grpc_client *client;
	struct list link; /* inbox, waiting, running or ended */
	struct heap_node due;
	uint64_t deadline_ns; /* 0: none */
	char *path;
	struct buf out; /* framed messages not taken by nghttp2 yet */
	size_t out_taken;
	bool more; /* further messages may follow */
	bool deferred;
	int32_t stream;          /* 0: not started */
	struct buf in;           /* a message not yet whole */
	int http_status, status; /* status -1: not told */
	struct buf text;
	bool refused, ended;
	struct grpc_events events;
	void *arg;
};

struct post {
	struct list link;
	task_fn fn;
	void *arg;
};

struct grpc_client {
	struct grpc_client_config config;
	struct http_client **servers;
	size_t at; /* server in use, or to be tried next */
	pthread_t thread;
	int wake_fd, stop_fd;
	pthread_mutex_t lock; /* guards what follows up to the blank line */
	struct list calls, posts;
	bool stopping;
	char *rotate;
	uint64_t end_ns; /* no call lasts longer; 0: not hurried */

	struct list waiting, running, ended;
	struct heap due;
	struct client_conn *conn;
	nghttp2_session *session;
	bool hurried;
	bool draining;                /* the server wants no more calls on this connection */
	uint64_t heard_ns, pinged_ns; /* pinged 0: none is out */
	uint64_t retry_ns;
	unsigned retry_ms, failures;
	char *why; /* the last failure */
	char *in;  /* TLS_RECORD */
};

static uint64_t ms(uint64_t n)
{
	return n * 1000000;
}

/* ---- ends of calls ---- */

static void call_free(struct grpc_call *call)
{
	buf_deinit(&call->out);
	buf_deinit(&call->in);
	buf_deinit(&call->text);
	free(call->path);
	free(call);
}

/* From now on the call only waits to be told. */
static void call_end(struct grpc_call *call, int status, const char *text)
{
	if (call->ended)
		return;
	call->ended = true;
	if (call->status < 0 || status) {
		call->status = status;
		if (text) {
			buf_clear(&call->text);
			buf_addz(&call->text, text);
		}
	}
	if (call->stream && call->client->session)
		nghttp2_session_set_stream_user_data(call->client->session, call->stream, NULL);
	heap_remove(&call->client->due, &call->due);
	list_remove(&call->link);
	list_insert(&call->client->ended, &call->link);
}

static void tell_ended(struct grpc_client *c)
{
	while (!list_empty(&c->ended)) {
		struct grpc_call *call = list_entry(c->ended.next, struct grpc_call, link);

		list_remove(&call->link);
		call->events.on_end(call->arg, call->status, buf_str(&call->text),
			call->stream && !call->refused);
		call_free(call);
	}
}

/* ---- nghttp2's callbacks ---- */

static struct grpc_call *call_of(nghttp2_session *s, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(s, stream);
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t n_name,
	const uint8_t *value, size_t n_value, uint8_t flags, void *arg)
{
	struct grpc_call *call = call_of(s, f->hd.stream_id);
	struct str k = str_n((const char *)name, n_name), v = str_n((const char *)value, n_value);
	int64_t number;

	if (!call || call->ended)
		return 0;
	if (str_eqz(k, ":status") && str_to_i64(v, &number) == 0)
		call->http_status = (int)number;
	if (str_eqz(k, "grpc-status") && str_to_i64(v, &number) == 0)
		call->status = (int)number;
	if (str_eqz(k, "grpc-message")) {
		CLEAN_ARENA struct arena *a = arena_new(0);

		buf_clear(&call->text);
		buf_add_str(&call->text, url_decode(v, false, a, &v) == 0 ? v : k);
	}
	return 0;
}

/* Hands out the messages that are whole. -EFBIG, -EPROTO. */
static int take_messages(struct grpc_call *call)
{
	size_t at = 0;

	while (!call->ended && call->in.len - at >= 5) {
		const unsigned char *h = (const unsigned char *)call->in.p + at;
		size_t n = (size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4];

		if (h[0])
			return -EPROTO; /* compressed: we never said that we can */
		if (n > MESSAGE_MAX)
			return -EFBIG;
		if (call->in.len - at - 5 < n)
			break;
		call->events.on_message(call->arg, str_n(call->in.p + at + 5, n));
		at += 5 + n;
	}
	memmove(call->in.p, call->in.p + at, call->in.len - at);
	call->in.len -= at;
	if (!call->in.len && call->in.cap > 64 * 1024)
		buf_deinit(&call->in);
	return 0;
}

static int on_data(
	nghttp2_session *s, uint8_t flags, int32_t stream, const uint8_t *p, size_t n, void *arg)
{
	struct grpc_call *call = call_of(s, stream);

	if (!call || call->ended)
		return 0;
	buf_add(&call->in, p, n);
	if (take_messages(call) < 0)
		call_end(call, GRPC_INTERNAL, "the server's message is compressed or too large");
	return 0;
}

static int on_close(nghttp2_session *s, int32_t stream, uint32_t code, void *arg)
{
	struct grpc_call *call = call_of(s, stream);
	char text[80];

	if (!call || call->ended)
		return 0;
	call->refused = code == NGHTTP2_REFUSED_STREAM;
	if (call->status >= 0) {
		call_end(call, call->status, NULL);
	} else {
		snprintf(text, sizeof(text), "the stream ended without a status (HTTP %d, %s)",
			call->http_status, nghttp2_http2_strerror(code));
		call_end(call, GRPC_UNAVAILABLE, text);
	}
	return 0;
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct grpc_client *c = arg;

	if (f->hd.type == NGHTTP2_GOAWAY)
		c->draining = true;
	return 0;
}

static ssize_t give_data(nghttp2_session *s, int32_t stream, uint8_t *to, size_t n, uint32_t *flags,
	nghttp2_data_source *source, void *arg)
{
	struct grpc_call *call = call_of(s, stream);

	if (!call || call->ended) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		return 0;
	}
	size_t left = call->out.len - call->out_taken, take = MIN(left, n);

	if (!left && call->more) {
		call->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	memcpy(to, call->out.p + call->out_taken, take);
	call->out_taken += take;
	if (call->out_taken == call->out.len) {
		buf_deinit(&call->out);
		call->out_taken = 0;
		if (!call->more)
			*flags |= NGHTTP2_DATA_FLAG_EOF;
	}
	return (ssize_t)take;
}

/* ---- calls ---- */

static nghttp2_nv nv(struct str name, struct str value)
{
	return (nghttp2_nv){ (uint8_t *)name.p, (uint8_t *)value.p, name.len, value.len,
		NGHTTP2_NV_FLAG_NONE };
}

static void call_submit(struct grpc_client *c, struct grpc_call *call)
{
	struct http_client *server = c->servers[c->at];
	nghttp2_nv h[16];
	size_t n = 0;
	char timeout[24];

	h[n++] = nv(STR(":method"), STR("POST"));
	h[n++] = nv(STR(":scheme"), server->tls ? STR("https") : STR("http"));
	h[n++] = nv(STR(":path"), str_of(call->path));
	h[n++] = nv(STR(":authority"), str_of(server->host_header));
	h[n++] = nv(STR("content-type"), STR("application/grpc"));
	h[n++] = nv(STR("te"), STR("trailers"));
	if (call->deadline_ns) {
		uint64_t now = mono_now_ns();

		snprintf(timeout, sizeof(timeout), "%llum",
			(unsigned long long)(call->deadline_ns > now
					? (call->deadline_ns - now) / 1000000
					: 0) +
				1);
		h[n++] = nv(STR("grpc-timeout"), str_of(timeout));
	}
	for (size_t i = 0; i < c->config.n_metadata && n < ARRAY_LEN(h); i++)
		h[n++] = nv(c->config.metadata[i].name, c->config.metadata[i].value);
	nghttp2_data_provider body = { .read_callback = give_data };
	int32_t stream = nghttp2_submit_request(c->session, NULL, h, n, &body, call);

	if (stream < 0) {
		call_end(call, GRPC_INTERNAL, nghttp2_strerror(stream));
		return;
	}
	call->stream = stream;
	list_remove(&call->link);
	list_insert(&c->running, &call->link);
}

static void frame_message(struct buf *out, struct str message)
{
	uint32_t n = (uint32_t)message.len;
	unsigned char head[5] = { 0, (unsigned char)(n >> 24), (unsigned char)(n >> 16),
		(unsigned char)(n >> 8), (unsigned char)n };

	buf_reserve(out, sizeof(head) + message.len);
	buf_add(out, head, sizeof(head));
	buf_add_str(out, message);
}

static void wake(struct grpc_client *c)
{
	eventfd_write(c->wake_fd, 1);
}

struct grpc_call *grpc_call_start(struct grpc_client *c, const char *path, struct str message,
	unsigned timeout_ms, bool more, const struct grpc_events *events, void *arg)
{
	struct grpc_call *call = xcalloc(1, sizeof(*call));

	call->client = c;
	call->path = xstrdup(path);
	call->more = more;
	call->status = -1;
	call->events = *events;
	call->arg = arg;
	call->deadline_ns = timeout_ms ? mono_now_ns() + ms(timeout_ms) : 0;
	frame_message(&call->out, message);
	pthread_mutex_lock(&c->lock);
	bool first = list_empty(&c->calls);

	list_insert(&c->calls, &call->link);
	pthread_mutex_unlock(&c->lock);
	if (first)
		wake(c);
	return call;
}

void grpc_call_send(struct grpc_call *call, struct str message)
{
	if (call->ended)
		return;
	frame_message(&call->out, message);
	if (call->deferred && call->client->session) {
		call->deferred = false;
		nghttp2_session_resume_data(call->client->session, call->stream);
	}
}

void grpc_call_cancel(struct grpc_call *call)
{
	if (call->ended)
		return;
	if (call->stream && call->client->session)
		nghttp2_submit_rst_stream(
			call->client->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
	call_end(call, GRPC_CANCELLED, "cancelled");
}

void grpc_client_post(struct grpc_client *c, task_fn fn, void *arg)
{
	struct post *p = xcalloc(1, sizeof(*p));

	p->fn = fn;
	p->arg = arg;
	pthread_mutex_lock(&c->lock);
	list_insert(&c->posts, &p->link);
	pthread_mutex_unlock(&c->lock);
	wake(c);
}

void grpc_client_rotate(struct grpc_client *c, const char *why)
{
	pthread_mutex_lock(&c->lock);
	free(c->rotate);
	c->rotate = xstrdup(why);
	pthread_mutex_unlock(&c->lock);
	wake(c);
}

void grpc_client_hurry(struct grpc_client *c, unsigned within_ms)
{
	pthread_mutex_lock(&c->lock);
	c->end_ns = mono_now_ns() + ms(within_ms);
	pthread_mutex_unlock(&c->lock);
	eventfd_write(c->stop_fd, 1); /* nor is a connection waited for that is being made */
	wake(c);
}

/* ---- the connection ---- */

static void tell_state(struct grpc_client *c, bool up, const char *text)
{
	if (c->config.on_state)
		c->config.on_state(c->config.arg, up, c->servers[c->at]->url, text);
}

/* Calls that run end; the next server is tried, at once for as long as there is one that did not fail just now. */
static void conn_fail(struct grpc_client *c, const char *text)
{
	CLEAN_FREE char *why = xasprintf("%s: %s", c->servers[c->at]->url, text);

	tell_state(c, false, text);
	while (!list_empty(&c->running))
		call_end(
			list_entry(c->running.next, struct grpc_call, link), GRPC_UNAVAILABLE, why);
	nghttp2_session_del(TAKE(c->session));
	client_conn_free(TAKE(c->conn));
	free(c->why);
	c->why = TAKE(why);
	c->at = (c->at + 1) % c->config.n_urls;
	c->retry_ns = 0;
	if (++c->failures % c->config.n_urls == 0) {
		c->retry_ms = c->retry_ms ? MIN(c->retry_ms * 2, RETRY_MAX_MS) : RETRY_MS;
		c->retry_ns = mono_now_ns() + ms(c->retry_ms);
	}
}

static void session_begin(struct grpc_client *c)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
	};
	nghttp2_session_callbacks *cb;

	if (nghttp2_session_callbacks_new(&cb))
		abort();
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	if (nghttp2_session_client_new(&c->session, cb, c))
		abort();
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
	nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW);
	c->draining = false;
	c->heard_ns = mono_now_ns();
	c->pinged_ns = 0;
}

static void try_connect(struct grpc_client *c)
{
	struct err err = { 0 };
	struct patience p = { CONNECT_MS, c->stop_fd };
	int r = client_connect(c->servers[c->at], true, p, &c->conn, &err);

	if (r == 0 && c->conn->secure && !tls_chose_http2(&c->conn->tls))
		r = err_set(&err, -EPROTO, "the server does not speak HTTP/2");
	if (r < 0) {
		conn_fail(c, err.text);
		return;
	}
	session_begin(c);
	tell_state(c, true, "");
}

/* What the kernel has for us, through TLS into nghttp2. */
static int receive(struct grpc_client *c, const char **ret_why)
{
	for (;;) {
		ssize_t n = client_try_read(c->conn, c->in, TLS_RECORD);

		if (n == -EAGAIN)
			return 0;
		if (n <= 0) {
			*ret_why = n ? strerror((int)-n) : "the server closed the connection";
			return -EPIPE;
		}
		c->heard_ns = mono_now_ns();
		c->pinged_ns = 0;
		c->failures = 0;
		c->retry_ms = 0;
		n = nghttp2_session_mem_recv(c->session, (const uint8_t *)c->in, (size_t)n);
		if (n < 0) {
			*ret_why = nghttp2_strerror((int)n);
			return -EPROTO;
		}
	}
}

static size_t unsent(const struct grpc_client *c)
{
	return c->conn->out.len - c->conn->out_sent;
}

static int flush(struct grpc_client *c, const char **ret_why)
{
	const uint8_t *p;
	ssize_t n = 0;
	int r;

	while (unsent(c) < UNSENT_MAX && (n = nghttp2_session_mem_send(c->session, &p)) > 0)
		client_queue(c->conn, p, (size_t)n);
	r = client_try_send(c->conn);
	if (n < 0 || (r < 0 && r != -EAGAIN)) {
		*ret_why = n < 0 ? nghttp2_strerror((int)n) : strerror(-r);
		return -EPIPE;
	}
	return 0;
}

/* ---- the thread ---- */

static bool due_earlier(const struct heap_node *a, const struct heap_node *b)
{
	return container_of(a, struct grpc_call, due)->deadline_ns <
		container_of(b, struct grpc_call, due)->deadline_ns;
}

/* Calls with a deadline have this one at the latest. */
static void shorten(struct grpc_client *c, struct list *calls, uint64_t end_ns)
{
	list_for_each(l, calls) {
		struct grpc_call *call = list_entry(l, struct grpc_call, link);

		if (call->deadline_ns <= end_ns)
			continue;
		call->deadline_ns = end_ns;
		heap_update(&c->due, &call->due);
	}
}

static void take_inbox(struct grpc_client *c, bool *ret_stop)
{
	struct list posts;

	list_init(&posts);
	pthread_mutex_lock(&c->lock);
	while (!list_empty(&c->calls)) {
		struct grpc_call *call = list_entry(c->calls.next, struct grpc_call, link);

		list_remove(&call->link);
		list_insert(&c->waiting, &call->link);
		if (call->deadline_ns)
			heap_push(&c->due, &call->due);
	}
	while (!list_empty(&c->posts)) {
		struct list *it = c->posts.next;

		list_remove(it);
		list_insert(&posts, it);
	}
	char *rotate CLEAN_FREE = TAKE(c->rotate);

	*ret_stop = c->stopping;
	uint64_t end_ns = c->end_ns;

	pthread_mutex_unlock(&c->lock);
	if (end_ns) {
		shorten(c, &c->waiting, end_ns);
		shorten(c, &c->running, end_ns);
	}
	c->hurried = end_ns != 0;
	while (!list_empty(&posts)) {
		struct post *p = list_entry(posts.next, struct post, link);

		list_remove(&p->link);
		p->fn(p->arg);
		free(p);
	}
	if (rotate && c->session)
		conn_fail(c, rotate);
}

static void expire(struct grpc_client *c)
{
	uint64_t now = mono_now_ns();
	struct heap_node *n;
	bool silent = false;

	while ((n = heap_peek(&c->due))) {
		struct grpc_call *call = container_of(n, struct grpc_call, due);
		CLEAN_FREE char *text = NULL;

		if (call->deadline_ns > now)
			break;
		if (call->stream) {
			text = xasprintf("%s does not answer", c->servers[c->at]->url);
			nghttp2_submit_rst_stream(
				c->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
			silent = true;
		} else {
			text = xasprintf(
				"no server answers; %s", c->why ? c->why : "not connected yet");
		}
		call_end(call, call->stream ? GRPC_DEADLINE_EXCEEDED : GRPC_UNAVAILABLE, text);
	}
	if (silent && c->config.n_urls > 1)
		conn_fail(c, "a call was not answered in time");
}

/* Is the server there? false: the connection was given up. */
static void check_alive(struct grpc_client *c)
{
	uint64_t now = mono_now_ns();

	if (!c->session || list_empty(&c->running))
		return;
	if (c->pinged_ns && now - c->pinged_ns >= ms(PONG_MS)) {
		conn_fail(c, "the server does not answer a ping");
	} else if (!c->pinged_ns && now - c->heard_ns >= ms(PING_MS)) {
		nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
		c->pinged_ns = now;
	}
}

static int wait_ms(const struct grpc_client *c)
{
	uint64_t now = mono_now_ns(), until = UINT64_MAX;
	const struct heap_node *n = heap_peek((struct heap *)&c->due);

	if (n)
		until = container_of(n, struct grpc_call, due)->deadline_ns;
	if (!c->session && !list_empty(&c->waiting))
		until = MIN(until, c->retry_ns);
	if (c->session && !list_empty(&c->running))
		until = MIN(until,
			c->pinged_ns ? c->pinged_ns + ms(PONG_MS) : c->heard_ns + ms(PING_MS));
	if (until == UINT64_MAX)
		return -1;
	return until <= now ? 0 : (int)MIN((until - now) / 1000000 + 1, 60000);
}

static void turn(struct grpc_client *c)
{
	const char *why = "";

	if (c->session && c->draining && list_empty(&c->running))
		conn_fail(c, "the server asked us to leave");
	if (c->hurried && !c->session)
		while (!list_empty(&c->waiting))
			call_end(list_entry(c->waiting.next, struct grpc_call, link),
				GRPC_UNAVAILABLE, "no server is connected, and the client ends");
	if (!c->session && !list_empty(&c->waiting) && mono_now_ns() >= c->retry_ns)
		try_connect(c);
	while (c->session && !c->draining && !list_empty(&c->waiting))
		call_submit(c, list_entry(c->waiting.next, struct grpc_call, link));
	expire(c);
	check_alive(c);
	if (c->session && flush(c, &why) < 0)
		conn_fail(c, why);
	tell_ended(c);
}

static void wait_for_events(struct grpc_client *c)
{
	struct pollfd fds[2] = { { c->wake_fd, POLLIN, 0 },
		{ c->conn ? c->conn->fd : -1, POLLIN, 0 } };
	eventfd_t count;
	const char *why = "";

	if (c->conn && unsent(c))
		fds[1].events |= POLLOUT;
	if (poll(fds, 2, wait_ms(c)) <= 0)
		return;
	if (fds[0].revents)
		eventfd_read(c->wake_fd, &count);
	if (fds[1].revents && receive(c, &why) < 0)
		conn_fail(c, why);
	tell_ended(c);
}

static void *run(void *arg)
{
	struct grpc_client *c = arg;
	bool stop = false;

	for (;;) {
		take_inbox(c, &stop);
		if (stop)
			break;
		turn(c);
		pthread_mutex_lock(&c->lock);
		bool more = !list_empty(&c->calls) || !list_empty(&c->posts);

		pthread_mutex_unlock(&c->lock);
		if (!more)
			wait_for_events(c);
	}
	while (!list_empty(&c->running))
		call_end(list_entry(c->running.next, struct grpc_call, link), GRPC_CANCELLED,
			"the client ends");
	while (!list_empty(&c->waiting))
		call_end(list_entry(c->waiting.next, struct grpc_call, link), GRPC_CANCELLED,
			"the client ends");
	tell_ended(c);
	return NULL;
}

int grpc_client_new(
	const struct grpc_client_config *config, struct grpc_client **ret, struct err *err)
{
	struct grpc_client *c = xcalloc(1, sizeof(*c));
	int r = config->n_urls ? 0 : err_set(err, -EINVAL, "no server is named");

	c->config = *config;
	c->servers = xcalloc(config->n_urls + 1, sizeof(*c->servers));
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->in = xmalloc(TLS_RECORD);
	c->due.less = due_earlier;
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->calls);
	list_init(&c->posts);
	list_init(&c->waiting);
	list_init(&c->running);
	list_init(&c->ended);
	for (size_t i = 0; r == 0 && i < config->n_urls; i++)
		r = http_client_new(config->urls[i], config->tls, &c->servers[i], err);
	if (r == 0 && (c->wake_fd < 0 || c->stop_fd < 0))
		r = err_errno(err, -errno, "make an eventfd");
	if (r == 0) {
		r = thread_start(&c->thread, config->name ? config->name : "grpc", run, c);
		if (r < 0)
			err_errno(err, r, "start a thread");
	}
	if (r < 0) {
		c->thread = 0;
		grpc_client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void grpc_client_free(struct grpc_client *c)
{
	if (!c)
		return;
	if (c->thread) {
		pthread_mutex_lock(&c->lock);
		c->stopping = true;
		pthread_mutex_unlock(&c->lock);
		eventfd_write(c->stop_fd, 1);
		wake(c);
		pthread_join(c->thread, NULL);
	}
	nghttp2_session_del(c->session);
	client_conn_free(c->conn);
	for (size_t i = 0; i < c->config.n_urls; i++)
		http_client_free(c->servers[i]);
	free(c->servers);
	heap_deinit(&c->due);
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	if (c->stop_fd >= 0)
		close(c->stop_fd);
	pthread_mutex_destroy(&c->lock);
	free(c->rotate);
	free(c->why);
	free(c->in);
	free(c);
}

/* ---- waiting for one answer ---- */

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
	int status;
	struct buf message, text;
};

static void waiter_message(void *arg, struct str message)
{
	struct waiter *w = arg;

	buf_clear(&w->message);
	buf_add_str(&w->message, message);
}

static void waiter_end(void *arg, int status, struct str text, bool sent)
{
	struct waiter *w = arg;

	pthread_mutex_lock(&w->lock);
	w->status = status;
	buf_add_str(&w->text, text);
	w->done = true;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
}

int grpc_call_wait(struct grpc_client *c, const char *path, struct str message, unsigned timeout_ms,
	struct buf *ret_message, int *ret_status, struct err *err)
{
	static const struct grpc_events events = { waiter_message, waiter_end };
	struct waiter w = { .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };
	int r = 0;

	grpc_call_start(c, path, message, timeout_ms, false, &events, &w);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.ended, &w.lock);
	pthread_mutex_unlock(&w.lock);
	if (ret_status)
		*ret_status = w.status;
	if (w.status == GRPC_OK) {
		buf_deinit(ret_message);
		*ret_message = w.message;
	} else {
		r = w.status == GRPC_DEADLINE_EXCEEDED ? -ETIMEDOUT
			: w.status == GRPC_UNAVAILABLE ? -EHOSTUNREACH
						       : -EIO;
		err_set(err, r, STR_FMT, STR_ARG(buf_str(&w.text)));
		buf_deinit(&w.message);
	}
	buf_deinit(&w.text);
	return r;
}
