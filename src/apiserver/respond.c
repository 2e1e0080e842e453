/* Answers that are whole: a Status, an object, a text. What is stored goes out as it is, by reference; only other forms are built. */
#include "apiserver/internal.h"

void request_warn(struct request *q, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	*LIST_ADD(q->arena, &q->warnings) = arena_vfmt(q->arena, fmt, ap);
	va_end(ap);
}

void request_finish(struct request *q, int code)
{
	if (q->finished)
		return;
	q->finished = true;
	seat_leave(q);
	metrics_request(q->server->metrics, q, code, mono_now_ns() - q->started_ns);
}

/* 299 - "text", quoted as RFC 7230 wants it. */
static struct str warning_header(struct arena *a, struct str text)
{
	CLEAN_BUF struct buf b = { 0 };
	buf_addz(&b, "299 - \"");
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];
		if (c == '"' || c == '\\')
			buf_addc(&b, '\\');
		buf_addc(&b, c < 0x20 || c == 0x7f ? ' ' : (char)c);
	}
	buf_addc(&b, '"');
	return arena_str(a, buf_str(&b));
}

size_t response_headers(struct request *q, const char *content_type, struct http_header **ret)
{
	size_t n = 2 + q->warnings.len + q->reg.warnings.len, i = 0;
	struct http_header *h =
		arena_alloc(q->arena, (n + 4) * sizeof(*h)); /* room for the caller's own */
	h[i++] = (struct http_header){ STR("content-type"), str_of(content_type) };
	h[i++] = (struct http_header){ STR("cache-control"), STR("no-cache, private") };
	for (size_t w = 0; w < q->warnings.len; w++)
		h[i++] = (struct http_header){ STR("warning"),
			warning_header(q->arena, q->warnings.items[w]) };
	for (size_t w = 0; w < q->reg.warnings.len; w++)
		h[i++] = (struct http_header){ STR("warning"),
			warning_header(q->arena, q->reg.warnings.items[w]) };
	*ret = h;
	return i;
}

void respond_text(struct request *q, int code, const char *content_type, struct str body)
{
	struct http_header *h;
	size_t n = response_headers(q, content_type, &h);
	http_respond(q->stream, code, h, n, body, NULL, NULL);
	request_finish(q, code);
}

void respond_buf(struct request *q, int code, const char *content_type, struct buf *body)
{
	struct http_header *h;
	size_t n = response_headers(q, content_type, &h), len = body->len;
	char *bytes = buf_take(body);
	http_respond(q->stream, code, h, n, str_n(bytes, len), free, bytes);
	request_finish(q, code);
}

void respond_struct(struct request *q, int code, const struct type *t, const void *obj)
{
	struct buf out = { 0 };
	render_struct(&q->accept, t, obj, &out);
	respond_buf(q, code, content_types[q->accept.format], &out);
}

void respond_status(struct request *q, struct meta_v1_status *st)
{
	if (!st->api_version.len)
		st->api_version = STR("v1");
	if (!st->kind.len)
		st->kind = STR("Status");
	int code = st->code ? st->code : 200;
	struct buf out = { 0 };
	struct accept ac = { .format = q->accept.format, .pretty = q->accept.pretty };
	render_struct(&ac, &meta_v1_status_type, st, &out);
	struct http_header *h;
	size_t n = response_headers(q, content_types[ac.format], &h), len = out.len;
	if (code == 429 || (st->details && st->details->retry_after_seconds > 0))
		h[n++] = (struct http_header){ STR("retry-after"),
			arena_fmt(q->arena, "%d",
				st->details && st->details->retry_after_seconds > 0
					? st->details->retry_after_seconds
					: 1) };
	if (code == 401)
		h[n++] = (struct http_header){ STR("www-authenticate"),
			STR("Bearer realm=\"kubernetes\"") };
	char *bytes = buf_take(&out);
	http_respond(q->stream, code, h, n, str_n(bytes, len), free, bytes);
	request_finish(q, code);
}

void respond_reason(struct request *q, enum status_reason reason, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct str text = arena_vfmt(q->arena, fmt, ap);
	va_end(ap);
	respond_status(q, status_new(q->arena, reason, STR_FMT, STR_ARG(text)));
}

void respond_not_found(struct request *q)
{
	respond_reason(q, REASON_NOT_FOUND, "the server could not find the requested resource");
}

static void object_release(void *o)
{
	object_unref(o);
}

void respond_object(struct request *q, int code, struct object *o)
{
	bool as_stored =
		q->accept.view == VIEW_OBJECT && q->accept.format == OUT_JSON && !q->accept.pretty;
	if (as_stored) {
		struct http_header *h;
		size_t n = response_headers(q, "application/json", &h);
		http_respond(q->stream, code, h, n, o->json, object_release, o);
		request_finish(q, code);
		return;
	}
	struct buf out = { 0 };
	render_object(q, o, q->arena, &out);
	object_unref(o);
	respond_buf(q, code, content_types[q->accept.format], &out);
}
