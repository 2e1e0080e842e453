/* What handlers see of a request and call to answer it. Works the same over HTTP/1.1 and HTTP/2. */
#include "net/internal.h"

#define FREE_STREAMS_MAX 64
#define SMALL_ARENA (32 * 1024)

struct posted {
	struct http_stream *stream;
	void (*fn)(struct http_stream *s, void *arg);
	void *arg;
};

struct http_stream *stream_new(struct http_conn *c)
{
	struct net_loop *nl = c->nl;
	struct http_stream *s = nl->free_streams;
	struct arena *arena;

	if (s) {
		nl->free_streams = s->next;
		nl->n_free_streams--;
		arena = s->arena;
	} else {
		s = xmalloc(sizeof(*s));
		arena = arena_new(0);
	}
	memset(s, 0, sizeof(*s));
	atomic_init(&s->refs, 1);
	s->arena = arena;
	s->conn = c;
	s->loop = nl->loop;
	sendq_init(&s->q);
	message_init(&s->in, arena, nl->server->config.body_max);
	s->in.all = &nl->server->bodies;
	s->in.all_max = nl->server->config.bodies_max;
	return s;
}

static void stream_free(struct http_stream *s)
{
	sendq_deinit(&s->q);
	arena_free(s->arena);
	free(s);
}

void stream_free_spares(struct net_loop *nl)
{
	for (struct http_stream *s; (s = nl->free_streams); stream_free(s))
		nl->free_streams = s->next;
	nl->n_free_streams = 0;
}

struct http_stream *http_stream_ref(struct http_stream *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void http_stream_unref(struct http_stream *s)
{
	if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
		stream_free(s);
}

static void unref_arg(void *arg)
{
	http_stream_unref(arg);
}

void stream_finish(struct http_stream *s)
{
	struct net_loop *nl = s->conn->nl;

	sendq_deinit(&s->q);
	message_uncount(&s->in); /* while the server is still there */
	s->conn = NULL;
	atomic_store(&s->closed, true);
	if (s->on_close)
		s->on_close(s, s->on_close_arg);
	if (atomic_load(&s->refs) == 1 && nl->n_free_streams < FREE_STREAMS_MAX &&
		arena_used(s->arena) < SMALL_ARENA) {
		arena_reset(s->arena);
		s->next = nl->free_streams;
		nl->free_streams = s;
		nl->n_free_streams++;
		return;
	}
	http_stream_unref(s);
}

static void make_request(struct http_stream *s)
{
	struct http_conn *c = s->conn;
	struct http_request *r = &s->request;
	struct message *m = &s->in;

	/* A connection outlives the certificate that it was opened with. */
	bool over = c->peer && c->peer->not_after_s && c->peer->not_after_s <= time_now().sec;

	*r = (struct http_request){
		.method = m->method,
		.headers = m->headers,
		.n_headers = m->n_headers,
		.body = { m->body ? m->body : "", m->body_len },
		.peer = over ? NULL : c->peer,
		.peer_refused = over || c->peer_refused,
		.remote_addr = str_of(c->remote),
		.http_major = c->h2 ? 2 : 1,
		.upgrade = !c->h2 && c->h1.parser.upgrade,
	};
	/* Proxies may send the whole URL; only its path counts here. */
	struct str target = m->target;

	if (target.len && target.p[0] != '/' && str_find_str(target, STR("://")) > 0) {
		struct str after = str_from(target, (size_t)str_find_str(target, STR("://")) + 3);
		ssize_t slash = str_find(after, '/');

		target = slash < 0 ? STR("/") : str_from(after, (size_t)slash);
	}
	str_cut(target, '?', &r->path, &r->query);
}

void stream_dispatch(struct http_stream *s)
{
	const struct http_handler *h = &s->conn->nl->server->config.handler;

	make_request(s);
	s->dispatched = true;
	h->on_request(h->arg, s);
}

void stream_refuse(struct http_stream *s, int status, const char *text)
{
	const struct http_handler *h = &s->conn->nl->server->config.handler;

	make_request(s);
	s->request.upgrade = false;
	s->dispatched = true;
	if (h->on_refused) {
		h->on_refused(h->arg, s, status, text);
		return;
	}
	struct str body = arena_fmt(s->arena, "%s\n", text);

	http_respond(s, status,
		&(struct http_header){ STR("content-type"), STR("text/plain; charset=utf-8") }, 1,
		body, NULL, NULL);
}

const struct http_request *http_stream_request(const struct http_stream *s)
{
	return &s->request;
}

struct arena *http_stream_arena(const struct http_stream *s)
{
	return s->arena;
}

struct loop *http_stream_loop(const struct http_stream *s)
{
	return s->loop;
}

static void run_posted(void *arg)
{
	struct posted p = *(struct posted *)arg;

	free(arg);
	p.fn(p.stream, p.arg);
	http_stream_unref(p.stream);
}

void http_stream_post(
	struct http_stream *s, void (*fn)(struct http_stream *s, void *arg), void *arg)
{
	struct posted *p = xmalloc(sizeof(*p));

	*p = (struct posted){ http_stream_ref(s), fn, arg };
	loop_post(s->loop, run_posted, p);
}

bool http_stream_closed(const struct http_stream *s)
{
	return atomic_load(&((struct http_stream *)s)->closed);
}

void http_stream_on_close(
	struct http_stream *s, void (*fn)(struct http_stream *s, void *arg), void *arg)
{
	if (!s->conn) {
		/* Not from here: the caller may not be ready for it. */
		if (fn)
			http_stream_post(s, fn, arg);
		return;
	}
	s->on_close = fn;
	s->on_close_arg = arg;
}

void http_stream_on_drain(
	struct http_stream *s, void (*fn)(struct http_stream *s, void *arg), void *arg)
{
	s->on_drain = fn;
	s->on_drain_arg = arg;
}

static bool is_live(const struct http_stream *s)
{
	return s->conn && !s->conn->dead;
}

static void begin(struct http_stream *s, int status, const struct http_header *headers, size_t n,
	int64_t length)
{
	s->begun = true;
	s->bodyless = str_eqz(s->request.method, "HEAD") || status / 100 == 1 || status == 204 ||
		status == 304;
	(s->conn->h2 ? http2_begin : http1_begin)(s, status, headers, n, length);
}

static void add_body(struct http_stream *s, struct str bytes, release_fn release, void *arg)
{
	if (s->bodyless || !bytes.len) {
		if (release)
			release(arg);
		return;
	}
	/* Borrowed bytes without an owner may live in the arena, which then must outlive them. */
	if (!release && bytes.len > COPY_MAX) {
		release = unref_arg;
		arg = http_stream_ref(s);
	}
	(s->conn->h2 ? http2_body : http1_body)(s, bytes, release, arg);
}

static void end(struct http_stream *s)
{
	s->ended = true;
	(s->conn->h2 ? http2_end : http1_end)(s);
}

void http_respond(struct http_stream *s, int status, const struct http_header *headers,
	size_t n_headers, struct str body, release_fn release, void *release_arg)
{
	if (!is_live(s) || s->begun) {
		if (release)
			release(release_arg);
		return;
	}
	begin(s, status, headers, n_headers, (int64_t)body.len);
	add_body(s, body, release, release_arg);
	end(s);
}

void http_stream_begin(
	struct http_stream *s, int status, const struct http_header *headers, size_t n_headers)
{
	if (is_live(s) && !s->begun)
		begin(s, status, headers, n_headers, -1);
}

void http_stream_write(
	struct http_stream *s, struct str bytes, release_fn release, void *release_arg)
{
	if (!is_live(s) || !s->begun || s->ended) {
		if (release)
			release(release_arg);
		return;
	}
	add_body(s, bytes, release, release_arg);
}

void http_stream_flush(struct http_stream *s)
{
	if (is_live(s))
		conn_flush(s->conn);
}

void http_stream_end(struct http_stream *s)
{
	if (is_live(s) && s->begun && !s->ended)
		end(s);
}

void http_stream_abort(struct http_stream *s)
{
	if (!is_live(s))
		return;
	if (s->conn->h2)
		http2_abort(s);
	else
		conn_kill(s->conn);
}

size_t http_stream_pending(const struct http_stream *s)
{
	if (!is_live(s))
		return 0;
	return s->conn->h2 ? http2_pending(s) : conn_pending(s->conn);
}
