/* HTTP/1.1 messages: bytes in, a struct message out. http-parser does the grammar; this keeps the pieces and the bounds.
 *
 * 1. The head is at most NET_HEADER_MAX bytes, a gathered body at most m->body_max.
 * 2. Parsing stops behind the last byte of a message, so that what follows belongs to the next one or to an upgrade.
 * 3. Header names are lower-cased while they are copied. */
#include "net/internal.h"

static struct http1 *http1_of(http_parser *p)
{
	return p->data;
}

static int fail(struct http1 *h, int status, const char *text)
{
	if (!h->error_status) {
		h->error_status = status;
		h->error_text = text;
	}
	return -1;
}

/* Appends to text that may be cut at any byte; in place while nothing else was allocated. */
static void append(struct arena *a, struct str *s, const char *p, size_t n, bool lower)
{
	char *q = s->len ? arena_grow(a, (char *)s->p, s->len + 1, s->len + n + 1)
			 : arena_alloc(a, n + 1);

	if (lower)
		for (size_t i = 0; i < n; i++)
			q[s->len + i] = p[i] >= 'A' && p[i] <= 'Z' ? (char)(p[i] | 0x20) : p[i];
	else
		memcpy(q + s->len, p, n);
	s->p = q;
	s->len += n;
	q[s->len] = '\0';
}

static int count_head(struct http1 *h, size_t n)
{
	h->m->head_bytes += n;
	if (h->m->head_bytes > NET_HEADER_MAX)
		return fail(h, 431, "the request's headers are larger than 64 KiB");
	return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	struct http1 *h = http1_of(p);

	append(h->m->arena, &h->m->target, at, n, false);
	return count_head(h, n);
}

static int on_status(http_parser *p, const char *at, size_t n)
{
	struct http1 *h = http1_of(p);

	append(h->m->arena, &h->m->reason, at, n, false);
	return count_head(h, n);
}

static int on_header_field(http_parser *p, const char *at, size_t n)
{
	struct http1 *h = http1_of(p);
	struct message *m = h->m;

	if (h->head_done) /* trailers say nothing that anybody here reads */
		return count_head(h, n + 4);
	if (h->in_value || !m->n_headers)
		message_add_header(m);
	h->in_value = false;
	append(m->arena, &m->headers[m->n_headers - 1].name, at, n, true);
	/* What a header costs beside its bytes counts too. */
	return count_head(h, n + 4);
}

static int on_header_value(http_parser *p, const char *at, size_t n)
{
	struct http1 *h = http1_of(p);
	struct message *m = h->m;

	if (h->head_done)
		return count_head(h, n);
	if (!m->n_headers)
		return fail(h, 400, "a header value without a name");
	h->in_value = true;
	append(m->arena, &m->headers[m->n_headers - 1].value, at, n, false);
	return count_head(h, n);
}

/* Spaces at the end of a value are not part of it. In a name (the parser is lenient there) they could make two readers of
 * one message disagree. */
static int check_headers(struct http1 *h)
{
	struct message *m = h->m;

	for (size_t i = 0; i < m->n_headers; i++) {
		struct str *v = &m->headers[i].value;

		if (str_find(m->headers[i].name, ' ') >= 0)
			return fail(h, 400, "a header's name holds a space");
		while (v->len && (v->p[v->len - 1] == ' ' || v->p[v->len - 1] == '\t'))
			((char *)v->p)[--v->len] = '\0';
	}
	return 0;
}

static bool is_known_upgrade(const struct message *m)
{
	struct str to = message_header(m, "upgrade");

	return (to.len == 9 && !strncasecmp(to.p, "websocket", 9)) ||
		(to.len == 8 && !strncasecmp(to.p, "SPDY/3.1", 8));
}

static int on_headers_complete(http_parser *p)
{
	struct http1 *h = http1_of(p);
	struct message *m = h->m;

	h->head_done = true;
	if (check_headers(h) < 0)
		return -1;
	if (p->type == HTTP_RESPONSE) {
		m->status = (int)p->status_code;
		return h->bodyless;
	}
	m->method = str_of(http_method_str((enum http_method)p->method));
	if (p->method == HTTP_CONNECT) {
		fail(h, 405, "CONNECT is not offered");
		return -1;
	}
	/* An upgrade that we do not speak (h2c) is an ordinary request. */
	if (p->upgrade && !is_known_upgrade(m))
		p->upgrade = 0;
	if (p->flags & F_CONTENTLENGTH && message_reserve_body(m, p->content_length) < 0) {
		fail(h, 413, "the request's body is too large");
		return -1;
	}
	return 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct http1 *h = http1_of(p);

	if (h->on_body) {
		h->on_body(h, at, n);
		return 0;
	}
	int r = message_add_body(h->m, at, n);

	if (r == -ENOBUFS)
		return fail(h, 503, "too many large requests arrive at once; try again later");
	return r < 0 ? fail(h, 413, "the request's body is too large") : 0;
}

static int on_message_complete(http_parser *p)
{
	struct http1 *h = http1_of(p);

	h->done = true;
	/* A 1xx answer (but 101) is followed by the real one. */
	if (p->type == HTTP_RESPONSE && p->status_code / 100 == 1 && p->status_code != 101) {
		struct message *m = h->m;
		struct arena *a = m->arena;

		message_init(m, a, m->body_max);
		h->done = h->head_done = h->in_value = false;
		return 0;
	}
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings settings = {
	.on_url = on_url,
	.on_status = on_status,
	.on_header_field = on_header_field,
	.on_header_value = on_header_value,
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

void http1_init(struct http1 *h, bool response)
{
	*h = (struct http1){ 0 };
	http_parser_init(&h->parser, response ? HTTP_RESPONSE : HTTP_REQUEST);
	h->parser.data = h;
}

void http1_start(struct http1 *h, struct message *m)
{
	h->m = m;
	h->head_done = h->done = h->in_value = false;
}

int http1_feed(struct http1 *h, const char *p, size_t n, size_t *ret_taken)
{
	size_t taken = http_parser_execute(&h->parser, &settings, p, n);
	enum http_errno e = HTTP_PARSER_ERRNO(&h->parser);

	*ret_taken = taken;
	if (h->done) {
		if (e == HPE_PAUSED)
			http_parser_pause(&h->parser, 0);
		return HTTP1_DONE;
	}
	if (e == HPE_OK && n == 0 && !h->head_done)
		return -ECONNRESET;
	if (e == HPE_OK)
		return 0;
	if (e == HPE_INVALID_METHOD)
		fail(h, 501, "the request's method is not known");
	else if (e == HPE_HEADER_OVERFLOW)
		fail(h, 431, "the request's headers are too large");
	else
		fail(h, 400, http_errno_description(e));
	return n == 0 ? -ECONNRESET : -EBADMSG;
}

bool http1_keep_alive(const struct http1 *h)
{
	return http_should_keep_alive(&h->parser);
}

bool http1_wants_continue(const struct http1 *h)
{
	struct str expect = message_header(h->m, "expect");

	return h->head_done && !h->done && expect.len == 12 &&
		!strncasecmp(expect.p, "100-continue", 12);
}

const char *http_status_text(int status)
{
	switch (status) {
#define ROW(number, name, text) \
	case number: \
		return #text;
		HTTP_STATUS_MAP(ROW)
#undef ROW
	default:
		return "Unknown";
	}
}
