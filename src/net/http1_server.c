/* HTTP/1.1 on a server's connection: one request at a time; a pipelined one waits until the answer before it is queued. */
#include "net/internal.h"

static void finish_if_ended(struct http_conn *c)
{
	struct http_stream *s = c->stream;

	/* A large answer keeps its place until most of it is gone: pipelining must not pile up answers. */
	if (!c->busy || !s->ended || c->q.len >= PENDING_HIGH)
		return;
	c->busy = false;
	c->stream = NULL;
	stream_finish(s);
	if (!c->keep_alive || c->nl->stopping) {
		conn_close_when_sent(c);
		return;
	}
	conn_set_state(c, CONN_IDLE);
	if (c->stash.len)
		conn_schedule(c, DUE_RESUME);
}

static void refuse(struct http_conn *c)
{
	c->busy = true;
	c->keep_alive = false;
	conn_set_state(c, CONN_BUSY);
	stream_refuse(c->stream, c->h1.error_status, c->h1.error_text);
}

static size_t http1_conn_feed(struct http_conn *c, const char *p, size_t n)
{
	size_t taken = 0;

	while (taken < n && !c->busy && !c->closing && !c->dead) {
		size_t t;

		if (!c->stream) {
			c->stream = stream_new(c);
			http1_start(&c->h1, &c->stream->in);
			conn_set_state(c, CONN_READING);
			c->continued = false;
		}
		int r = http1_feed(&c->h1, p + taken, n - taken, &t);

		taken += t;
		if (r < 0) {
			refuse(c);
			finish_if_ended(c);
			return n;
		}
		if (r == 0) {
			if (!c->continued && http1_wants_continue(&c->h1)) {
				c->continued = true;
				conn_send(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
			}
			continue;
		}
		c->busy = true;
		c->keep_alive = http1_keep_alive(&c->h1) && !c->h1.parser.upgrade;
		conn_set_state(c, CONN_BUSY);
		stream_dispatch(c->stream);
		if (c->protocol != &http1_protocol)
			return taken;
		finish_if_ended(c);
	}
	return c->closing ? n : taken;
}

static void http1_conn_drained(struct http_conn *c)
{
	if (c->stream && c->stream->on_drain)
		c->stream->on_drain(c->stream, c->stream->on_drain_arg);
}

static void http1_conn_stop(struct http_conn *c)
{
	if (!c->busy)
		conn_close_when_sent(c);
}

static void http1_conn_closed(struct http_conn *c)
{
	struct http_stream *s = c->stream;

	c->stream = NULL;
	if (s)
		stream_finish(s);
}

const struct conn_protocol http1_protocol = {
	.feed = http1_conn_feed,
	.flushed = finish_if_ended,
	.drained = http1_conn_drained,
	.stop = http1_conn_stop,
	.closed = http1_conn_closed,
};

static void put(struct buf *b, const char *p, size_t n)
{
	memcpy(b->p + b->len, p, n);
	b->len += n;
}

/* A value may come from elsewhere: a line break in it must not begin a header. */
static void put_value(struct buf *b, struct str value)
{
	if (!value.len)
		return;
	put(b, value.p, value.len);
	for (char *p = b->p + b->len - value.len; p < b->p + b->len; p++)
		if (*p == '\r' || *p == '\n' || *p == '\0')
			*p = ' ';
}

static void put_number(struct buf *b, uint64_t v, unsigned base)
{
	char digits[24];
	size_t n = sizeof(digits);

	do
		digits[--n] = "0123456789abcdef"[v % base];
	while (v /= base);
	put(b, digits + n, sizeof(digits) - n);
}

/* The head is written straight into the connection's buffer. */
void http1_begin(struct http_stream *s, int status, const struct http_header *headers, size_t n,
	int64_t content_length)
{
	struct http_conn *c = s->conn;
	struct buf *b = &c->q.copied;
	const char *text = http_status_text(status), *date = net_loop_date(c->nl);
	size_t before, room = 192 + strlen(text);
	bool no_length = status / 100 == 1 || status == 204 || status == 304;
	bool old_client = c->h1.parser.http_minor == 0;

	for (size_t i = 0; i < n; i++)
		room += headers[i].name.len + headers[i].value.len + 4;
	conn_take_spare(c);
	before = b->len;
	buf_reserve(b, room);
	put(b, "HTTP/1.1 ", 9);
	put_number(b, (uint64_t)status, 10);
	put(b, " ", 1);
	put(b, text, strlen(text));
	put(b, "\r\n", 2);
	put(b, date, strlen(date));
	for (size_t i = 0; i < n; i++) {
		put(b, headers[i].name.p, headers[i].name.len);
		put(b, ": ", 2);
		put_value(b, headers[i].value);
		put(b, "\r\n", 2);
	}
	if (content_length >= 0 && !no_length) {
		put(b, "content-length: ", 16);
		put_number(b, (uint64_t)content_length, 10);
		put(b, "\r\n", 2);
	} else if (content_length < 0 && !s->bodyless) {
		s->chunked = !old_client;
		if (s->chunked)
			put(b, "transfer-encoding: chunked\r\n", 28);
		else
			c->keep_alive = false;
	}
	if (!c->keep_alive || c->nl->stopping)
		put(b, "connection: close\r\n", 19);
	else if (old_client)
		put(b, "connection: keep-alive\r\n", 24);
	put(b, "\r\n", 2);
	b->p[b->len] = '\0';
	c->q.len += b->len - before;
	conn_schedule(c, DUE_FLUSH);
}

void http1_body(struct http_stream *s, struct str bytes, release_fn release, void *arg)
{
	struct http_conn *c = s->conn;

	conn_take_spare(c);
	buf_reserve(&c->q.copied, bytes.len > COPY_MAX ? 32 : bytes.len + 32);
	if (s->chunked) {
		char head[24];
		struct buf b = { head, 0, sizeof(head) };

		put_number(&b, bytes.len, 16);
		put(&b, "\r\n", 2);
		sendq_copy(&c->q, head, b.len);
	}
	sendq_add(&c->q, bytes, release, arg);
	if (s->chunked)
		sendq_copy(&c->q, "\r\n", 2);
	conn_schedule(c, DUE_FLUSH);
}

void http1_end(struct http_stream *s)
{
	if (s->chunked)
		sendq_copy(&s->conn->q, "0\r\n\r\n", 5);
	conn_schedule(s->conn, DUE_FLUSH);
}
