/* HTTP/2 on a server's connection. nghttp2 keeps the protocol; this maps its streams to http_stream.
 *
 * 1. nghttp2's functions are never called from its own callbacks: requests are handed out, and streams finished, after the
 *    call that completed them has returned.
 * 2. A stream's bytes wait in s->q and are pulled when the connection has room, so that flow control reaches the writer.
 * 3. All bodies being received over one connection hold BODIES_MAX at most; past it the peer gets no more window. */
#include "net/internal.h"

#include <nghttp2/nghttp2.h>

#define STREAMS_MAX 250
#define STREAM_WINDOW (256 * 1024)
#define CONN_WINDOW (1024 * 1024)
#define BODIES_MAX ((size_t)8 * 1024 * 1024)
#define DISCARD_MAX ((size_t)16 * 1024 * 1024)
#define PULL_SIZE TLS_RECORD
#define HEADER_OVERHEAD 32

struct http2 {
	nghttp2_session *session;
	struct http_stream *streams; /* open ones */
	struct http_stream *ready;   /* whole requests not handed out yet, newest first */
	struct http_stream *done;    /* closed, not finished yet */
	size_t bodies;               /* bytes of all bodies held in open streams */
	size_t withheld;             /* window of the connection not given back yet */
	bool stopping;
};

static struct http_stream *stream_of(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

static void link_stream(struct http_stream **head, struct http_stream *s)
{
	s->prev = NULL;
	s->next = *head;
	if (*head)
		(*head)->prev = s;
	*head = s;
}

static void unlink_stream(struct http_stream **head, struct http_stream *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		*head = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->prev = s->next = NULL;
}

/* ---- receiving ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct http_conn *c = arg;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	struct http_stream *s = stream_new(c);

	s->h2_id = frame->hd.stream_id;
	link_stream(&c->h2->streams, s);
	nghttp2_session_set_stream_user_data(session, s->h2_id, s);
	return 0;
}

static void put_header(struct http_stream *s, struct str name, struct str value)
{
	struct message *m = &s->in;

	if (str_eqz(name, ":method")) {
		m->method = value;
	} else if (str_eqz(name, ":path")) {
		m->target = value;
	} else if (name.len && name.p[0] == ':') {
		if (str_eqz(name, ":authority"))
			*message_add_header(m) = (struct http_header){ STR("host"), value };
	} else {
		*message_add_header(m) = (struct http_header){ name, value };
	}
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct http_stream *s = stream_of(session, frame->hd.stream_id);

	if (!s || frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST ||
		s->refused)
		return 0;
	s->in.head_bytes += name_len + value_len + HEADER_OVERHEAD;
	if (s->in.head_bytes > NET_HEADER_MAX) {
		s->refused = 431;
		return 0;
	}
	put_header(s, arena_str(s->arena, str_n((const char *)name, name_len)),
		arena_str(s->arena, str_n((const char *)value, value_len)));
	return 0;
}

/* Once for each stream: when its request is whole, or when it is clear that it will be refused. */
static void make_ready(struct http_conn *c, struct http_stream *s)
{
	if (s->queued)
		return;
	s->queued = true;
	s->next_ready = c->h2->ready;
	c->h2->ready = s;
}

static void give_window(struct http_conn *c)
{
	struct http2 *h = c->h2;

	if (!h->withheld || h->bodies >= BODIES_MAX)
		return;
	nghttp2_session_consume_connection(h->session, h->withheld);
	h->withheld = 0;
}

/* The rest of a request that was refused. Some clients read the answer only when they have sent all: a while they may. */
static void discard(nghttp2_session *session, struct http_stream *s, size_t n)
{
	bool before = s->discarded <= DISCARD_MAX;

	s->discarded += n;
	if (s->discarded <= DISCARD_MAX)
		nghttp2_session_consume_stream(session, s->h2_id, n);
	else if (before)
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->h2_id, NGHTTP2_NO_ERROR);
}

static int on_data(
	nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
	struct http_conn *c = arg;
	struct http_stream *s = stream_of(session, id);

	c->h2->withheld += n;
	if (s && s->refused) {
		discard(session, s, n);
	} else if (s) {
		int r = message_add_body(&s->in, p, n);

		if (r < 0) {
			s->refused = r == -ENOBUFS ? 503 : 413;
			discard(session, s, n);
			make_ready(c, s);
		} else {
			c->h2->bodies += n;
			nghttp2_session_consume_stream(session, id, n);
		}
	}
	give_window(c);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct http_conn *c = arg;
	struct http_stream *s;

	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	s = stream_of(session, frame->hd.stream_id);
	if (s && (s->refused || frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		make_ready(c, s);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct http_conn *c = arg;
	struct http_stream *s = stream_of(session, id);

	if (!s)
		return 0;
	nghttp2_session_set_stream_user_data(session, id, NULL);
	unlink_stream(&c->h2->streams, s);
	link_stream(&c->h2->done, s);
	s->gone = true;
	atomic_store(&s->closed, true);
	c->h2->bodies -= MIN(c->h2->bodies, s->in.body_len);
	return 0;
}

static void hand_out(struct http_conn *c)
{
	struct http_stream *ready = NULL, *s;

	/* Oldest first. */
	while ((s = c->h2->ready)) {
		c->h2->ready = s->next_ready;
		s->next_ready = ready;
		ready = s;
	}
	while ((s = ready)) {
		ready = s->next_ready;
		if (s->gone || c->dead)
			continue;
		if (s->refused)
			stream_refuse(s, s->refused,
				s->refused == 503
					? "too many large requests arrive at once; try again later"
					: s->refused == 413
					? "the request's body is too large"
					: "the request's headers are larger than 64 KiB");
		else
			stream_dispatch(s);
	}
}

/* Requests that are still arriving have the time that one over HTTP/1.1 has, all together. */
static enum conn_state state_now(const struct http2 *h)
{
	for (const struct http_stream *s = h->streams; s; s = s->next)
		if (s->queued)
			return CONN_BUSY;
	return h->streams ? CONN_READING : CONN_IDLE;
}

static void finish_done(struct http_conn *c)
{
	struct http2 *h = c->h2;
	struct http_stream *s;

	while ((s = h->done)) {
		unlink_stream(&h->done, s);
		stream_finish(s);
	}
	give_window(c);
	enum conn_state state = state_now(h);

	if (c->state ==
		CONN_STALLED) /* that time is begun anew by what the client takes, not by what it sends */
		c->state_before_stall = state;
	else if (c->state != CONN_LINGER && (c->state != state || state == CONN_IDLE))
		conn_set_state(c, state);
	bool over =
		!nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session);

	if ((over || (h->stopping && !h->streams)) && !c->closing)
		conn_close_when_sent(c);
}

static size_t http2_feed(struct http_conn *c, const char *p, size_t n)
{
	ssize_t taken = nghttp2_session_mem_recv(c->h2->session, (const uint8_t *)p, n);

	if (taken < 0) {
		conn_close_when_sent(c);
		return n;
	}
	hand_out(c);
	finish_done(c);
	return (size_t)taken;
}

/* ---- sending ---- */

static void http2_pull(struct http_conn *c)
{
	const uint8_t *p;
	ssize_t n;

	while (c->q.len < PULL_SIZE && (n = nghttp2_session_mem_send(c->h2->session, &p)) > 0)
		sendq_copy(&c->q, p, (size_t)n);
}

static void http2_flushed(struct http_conn *c)
{
	/* After an error of the protocol the session wants no more input, but its last word must go out first. */
	if (c->h2->done || c->h2->stopping || !nghttp2_session_want_read(c->h2->session))
		finish_done(c);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *out, size_t room,
	uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct http_conn *c = arg;
	struct http_stream *s = source->ptr;
	size_t n = 0;

	while (n < room && s->q.len) {
		struct str bytes = sendq_peek(&s->q);
		size_t take = MIN(bytes.len, room - n);

		memcpy(out + n, bytes.p, take);
		sendq_take(&s->q, take);
		n += take;
	}
	if (s->was_high && s->q.len < PENDING_HIGH)
		conn_schedule(c, DUE_DRAIN);
	if (!s->q.len && s->ended) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	} else if (!n) {
		s->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static bool is_of_connection(struct str name)
{
	return str_eqz(name, "connection") || str_eqz(name, "transfer-encoding") ||
		str_eqz(name, "keep-alive") || str_eqz(name, "upgrade");
}

static nghttp2_nv nv(struct str name, struct str value)
{
	return (nghttp2_nv){ (uint8_t *)name.p, (uint8_t *)(value.p ? value.p : ""), name.len,
		value.len, NGHTTP2_NV_FLAG_NONE };
}

void http2_begin(struct http_stream *s, int status, const struct http_header *headers, size_t n,
	int64_t content_length)
{
	struct http_conn *c = s->conn;
	struct str date = str_of(net_loop_date(c->nl));
	nghttp2_nv *nvs = arena_alloc(s->arena, (n + 3) * sizeof(*nvs));
	char digits[24], code[12];
	size_t k = 0;

	snprintf(code, sizeof(code), "%d", status);
	nvs[k++] = nv(STR(":status"), str_of(code));
	nvs[k++] = nv(STR("date"), str_n(date.p + 6, date.len - 8));
	for (size_t i = 0; i < n; i++)
		if (!is_of_connection(headers[i].name))
			nvs[k++] = nv(headers[i].name, headers[i].value);
	if (content_length >= 0 && status != 204 && status != 304) {
		snprintf(digits, sizeof(digits), "%lld", (long long)content_length);
		nvs[k++] = nv(STR("content-length"), str_of(digits));
	}
	nghttp2_data_provider body = { { .ptr = s }, read_body };

	s->no_data = s->bodyless || content_length == 0;
	nghttp2_submit_response(c->h2->session, s->h2_id, nvs, k, s->no_data ? NULL : &body);
	conn_schedule(c, DUE_FLUSH);
}

static void wake(struct http_stream *s)
{
	if (s->deferred && !s->gone) {
		s->deferred = false;
		nghttp2_session_resume_data(s->conn->h2->session, s->h2_id);
	}
	conn_schedule(s->conn, DUE_FLUSH);
}

void http2_body(struct http_stream *s, struct str bytes, release_fn release, void *arg)
{
	if (s->no_data || s->gone) {
		if (release)
			release(arg);
		return;
	}
	sendq_add(&s->q, bytes, release, arg);
	s->was_high = s->was_high || s->q.len >= PENDING_HIGH;
	wake(s);
}

void http2_end(struct http_stream *s)
{
	if (!s->no_data)
		wake(s);
}

void http2_abort(struct http_stream *s)
{
	if (s->gone)
		return;
	nghttp2_submit_rst_stream(
		s->conn->h2->session, NGHTTP2_FLAG_NONE, s->h2_id, NGHTTP2_INTERNAL_ERROR);
	conn_schedule(s->conn, DUE_FLUSH);
}

size_t http2_pending(const struct http_stream *s)
{
	size_t n = s->q.len + conn_pending(s->conn);

	/* Whoever saw this much will wait for on_drain. */
	if (n >= PENDING_HIGH)
		((struct http_stream *)s)->was_high = true;
	return n;
}

static void http2_drained(struct http_conn *c)
{
	struct http_stream *next;

	for (struct http_stream *s = c->h2->streams; s; s = next) {
		next = s->next;
		if (!s->was_high || s->q.len + conn_pending(c) >= PENDING_HIGH)
			continue;
		s->was_high = false;
		if (s->on_drain)
			s->on_drain(s, s->on_drain_arg);
	}
}

/* ---- beginning and end ---- */

static void http2_stop(struct http_conn *c)
{
	c->h2->stopping = true;
	nghttp2_submit_goaway(c->h2->session, NGHTTP2_FLAG_NONE,
		nghttp2_session_get_last_proc_stream_id(c->h2->session), NGHTTP2_NO_ERROR, NULL, 0);
	conn_schedule(c, DUE_FLUSH);
}

static void http2_closed(struct http_conn *c)
{
	struct http2 *h = c->h2;
	struct http_stream *s;

	while ((s = h->streams)) {
		unlink_stream(&h->streams, s);
		stream_finish(s);
	}
	while ((s = h->done)) {
		unlink_stream(&h->done, s);
		stream_finish(s);
	}
	nghttp2_session_del(h->session);
	free(h);
	c->h2 = NULL;
}

const struct conn_protocol http2_protocol = {
	.feed = http2_feed,
	.pull = http2_pull,
	.flushed = http2_flushed,
	.drained = http2_drained,
	.stop = http2_stop,
	.closed = http2_closed,
};

int http2_start(struct http_conn *c)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, NET_HEADER_MAX },
	};
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	struct http2 *h = xcalloc(1, sizeof(*h));

	if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option))
		abort();
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	c->h2 = h;
	int r = nghttp2_session_server_new2(&h->session, callbacks, c, option);

	nghttp2_session_callbacks_del(callbacks);
	nghttp2_option_del(option);
	if (r < 0)
		abort(); /* only for want of memory */
	nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
	nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW);
	conn_set_state(c, CONN_IDLE);
	conn_schedule(c, DUE_FLUSH);
	return 0;
}
