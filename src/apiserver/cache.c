/* Large documents (OpenAPI): made when first asked for, on a pool's thread, kept while they are asked for, forgotten after a minute of
 * rest so that an idle server does not carry them. */
#include <malloc.h>
#include <zlib.h>

#include "apiserver/internal.h"

#define REST_NS (60ull * 1000000000u)
#define SWEEP_MS 20000

struct doc_body {
	_Atomic int refs;
	size_t len;
	char bytes[];
};
struct waiter {
	struct waiter *next;
	struct request *q;
};
struct doc {
	struct doc_cache *cache;
	char *key;
	doc_make_fn make;
	struct doc_body *plain, *gzip; /* NULL: not made yet */
	struct waiter *waiters;
	const char *content_type;
	struct str etag;
	char *etag_text;
	uint64_t used_ns;
};
struct doc_cache {
	struct apiserver *server;
	pthread_mutex_t lock; /* guards docs and all in them */
	struct map docs;
	struct pool *pool;
	struct timer *timer; /* on the first loop, from first use on */
	bool sweeping;
};

static void body_unref(void *p)
{
	struct doc_body *b = p;
	if (b && atomic_fetch_sub(&b->refs, 1) == 1)
		free(b);
}

static struct doc_body *body_ref(struct doc_body *b)
{
	atomic_fetch_add(&b->refs, 1);
	return b;
}

static struct doc_body *body_new(struct str bytes)
{
	struct doc_body *b = xmalloc(sizeof(*b) + bytes.len);
	atomic_init(&b->refs, 1);
	b->len = bytes.len;
	memcpy(b->bytes, bytes.p, bytes.len);
	return b;
}

static struct doc_body *body_gzip(struct str bytes)
{
	z_stream z = { 0 };
	if (deflateInit2(&z, 4, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return NULL;
	size_t cap = deflateBound(&z, bytes.len);
	CLEAN_FREE char *out = xmalloc(cap);
	z.next_in = (unsigned char *)bytes.p;
	z.avail_in = (unsigned)bytes.len;
	z.next_out = (unsigned char *)out;
	z.avail_out = (unsigned)cap;
	deflate(&z, Z_FINISH);
	size_t len = cap - z.avail_out;
	deflateEnd(&z);
	return body_new(str_n(out, len));
}

static void doc_free(void *p)
{
	struct doc *d = p;
	body_unref(d->plain);
	body_unref(d->gzip);
	free(d->etag_text);
	free(d->key);
	free(d);
}

struct doc_cache *doc_cache_new(struct apiserver *s)
{
	struct doc_cache *c = xcalloc(1, sizeof(*c));
	c->server = s;
	pthread_mutex_init(&c->lock, NULL);
	c->pool = pool_new("openapi", 1);
	return c;
}

void doc_cache_free(struct doc_cache *c)
{
	if (!c)
		return;
	pool_free(c->pool);
	if (c->timer)
		timer_free(c->timer);
	map_deinit(&c->docs, doc_free);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ---- forgetting ---- */

static void sweep(void *arg)
{
	struct doc_cache *c = arg;
	uint64_t now = mono_now_ns();
	size_t i = 0, left = 0;
	struct str key;
	void *p;
	bool freed = false;
	pthread_mutex_lock(&c->lock);
	while (map_next(&c->docs, &i, &key, &p)) {
		struct doc *d = p;
		if (!d->plain || now - d->used_ns < REST_NS) {
			left++;
			continue;
		}
		map_remove(&c->docs, str_of(d->key));
		doc_free(d);
		freed = true;
	}
	c->sweeping = left > 0;
	if (left)
		timer_start(c->timer, SWEEP_MS, 0);
	pthread_mutex_unlock(&c->lock);
	if (freed)
		malloc_trim(0);
}

static void arm(void *arg)
{
	struct doc_cache *c = arg;
	if (!c->timer)
		c->timer = timer_new(c->server->config.loops[0], sweep, c);
	timer_start(c->timer, SWEEP_MS, 0);
}

/* ---- serving ---- */

static void send_doc(struct request *q, struct doc *d, bool gzip)
{
	struct doc_body *b = body_ref(gzip ? d->gzip : d->plain);
	d->used_ns = mono_now_ns();
	struct http_header *h;
	size_t n = response_headers(q, d->content_type, &h);
	h[n++] = (struct http_header){ STR("vary"), STR("Accept-Encoding") };
	if (gzip)
		h[n++] = (struct http_header){ STR("content-encoding"), STR("gzip") };
	if (d->etag.len)
		h[n++] = (struct http_header){ STR("etag"), arena_str(q->arena, d->etag) };
	http_respond(q->stream, 200, h, n, str_n(b->bytes, b->len), body_unref, b);
	request_finish(q, 200);
}

static void deliver(struct http_stream *s, void *arg)
{
	struct request *q = arg;
	struct doc_cache *c = q->server->docs;
	pthread_mutex_lock(&c->lock);
	struct doc *d = map_get(&c->docs, q->info.rest); /* the key was put there while waiting */
	if (d && d->plain)
		send_doc(q, d, d->gzip && accepts_gzip(q->http));
	pthread_mutex_unlock(&c->lock);
	if (!d || !d->plain) /* answered once: a second answer is dropped */
		respond_reason(q, REASON_INTERNAL,
			"the document went away while it was waited for; ask again");
	http_stream_unref(s);
}

static void make(void *arg)
{
	struct doc *d = arg;
	struct doc_cache *c = d->cache;
	CLEAN_BUF struct buf out = { 0 };
	d->make(c->server, str_of(d->key), &out);
	struct doc_body *plain = body_new(buf_str(&out)), *gzip = body_gzip(buf_str(&out));
	pthread_mutex_lock(&c->lock);
	d->plain = plain;
	d->gzip = gzip;
	d->used_ns = mono_now_ns();
	struct waiter *w = d->waiters;
	d->waiters = NULL;
	if (!c->sweeping) {
		c->sweeping = true;
		loop_post(c->server->config.loops[0], arm, c);
	}
	pthread_mutex_unlock(&c->lock);
	while (w) {
		struct waiter *next = w->next;
		struct request *q = w->q;
		free(w);
		http_stream_post(q->stream, deliver, q);
		w = next;
	}
}

static struct doc *doc_begin(struct doc_cache *c, struct str key, doc_make_fn fn,
	const char *content_type, struct str etag)
{
	struct doc *d = xcalloc(1, sizeof(*d));
	d->cache = c;
	d->key = str_dup(key);
	d->make = fn;
	d->content_type = content_type;
	d->etag_text = str_dup(etag);
	d->etag = str_n(d->etag_text, etag.len);
	map_set(&c->docs, key, d);
	return d;
}

void doc_serve(struct request *q, struct str key, doc_make_fn fn, const char *content_type,
	struct str etag)
{
	struct doc_cache *c = q->server->docs;
	if (etag.len && str_eq(http_request_header(q->http, "if-none-match"), etag)) {
		struct http_header *h;
		size_t n = response_headers(q, content_type, &h);
		h[n++] = (struct http_header){ STR("etag"), etag };
		http_respond(q->stream, 304, h, n, STR_NONE, NULL, NULL);
		request_finish(q, 304);
		return;
	}
	pthread_mutex_lock(&c->lock);
	struct doc *d = map_get(&c->docs, key);
	bool begin = !d;
	if (begin)
		d = doc_begin(c, key, fn, content_type, etag);
	if (d->plain) {
		send_doc(q, d, d->gzip && accepts_gzip(q->http));
	} else {
		struct waiter *w = xcalloc(1, sizeof(*w));
		q->info.rest = arena_str(q->arena, key);
		http_stream_ref(q->stream);
		w->q = q;
		w->next = d->waiters;
		d->waiters = w;
	}
	pthread_mutex_unlock(&c->lock);
	if (begin)
		pool_submit(c->pool, make, d);
}
