/* Forwards one request and streams its answer back (logs -f, proxies). A thread reads from the upstream server with the blocking
 * client and posts the pieces to the stream's loop; at most HIGH bytes are on their way to the client, then the thread waits.
 * lock guards what both sides touch. The last of the two sides frees. */
#include "net/client_internal.h"

#define HIGH (256 * 1024)
#define CHUNK (16 * 1024)
#define FORWARDS_MAX 1000 /* threads of one loop: tunnels and forwards */

/* ---- what is passed on of a request ---- */

static bool named_in(struct str name, const char *const *names)
{
	for (; *names; names++)
		if (str_eqz(name, *names))
			return true;
	return false;
}

/* Who the client is was settled here; its credentials are not for the next server. */
static const char *const kept_from_upstream[] = { "host", "authorization", "content-length",
	"transfer-encoding", "expect", NULL };
static const char *const of_one_hop[] = { "connection", "keep-alive", "transfer-encoding",
	"upgrade", "te", "trailer", NULL };
static const char *const remade[] = { "content-length", "date", NULL };

/* The list without a token that rides in it (browsers cannot set Authorization on a WebSocket). */
static struct str without_token(struct str protocols, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };
	struct str one;

	while (protocols.len) {
		if (!str_cut(protocols, ',', &one, &protocols))
			protocols = STR_NONE;
		one = str_trim(one);
		if (one.len && !str_has_prefix(one, STR("base64url.bearer.authorization.k8s.io.")))
			buf_addf(&b, "%s" STR_FMT, b.len ? ", " : "", STR_ARG(one));
	}
	return arena_str(a, buf_str(&b));
}

static void ask_for_plain(struct forwarded *f)
{
	struct http_header *headers = (struct http_header *)f->call.headers;
	size_t n = 0;

	for (size_t i = 0; i < f->call.n_headers; i++)
		if (!str_eqz(headers[i].name, "accept-encoding"))
			headers[n++] = headers[i];
	f->call.n_headers = n;
}

static bool is_credential(struct str name)
{
	return named_in(name, kept_from_upstream) || str_has_prefix(name, STR("impersonate-"));
}

struct forwarded forward_copy(struct http_stream *s, struct str target,
	const struct http_header *extra, size_t n_extra, bool upgrade)
{
	const struct http_request *r = http_stream_request(s);
	struct forwarded f = { .arena = arena_new(0) };
	struct http_header *headers =
		arena_alloc(f.arena, (r->n_headers + n_extra) * sizeof(*headers));
	size_t n = 0;

	for (size_t i = 0; i < r->n_headers; i++) {
		const struct http_header *h = &r->headers[i];

		if (is_credential(h->name) || (!upgrade && named_in(h->name, of_one_hop)))
			continue;
		struct str value = str_eqz(h->name, "sec-websocket-protocol")
			? without_token(h->value, f.arena)
			: arena_str(f.arena, h->value);

		if (value.len || !h->value.len)
			headers[n++] = (struct http_header){ arena_str(f.arena, h->name), value };
	}
	for (size_t i = 0; i < n_extra; i++)
		headers[n++] = (struct http_header){ arena_str(f.arena, extra[i].name),
			arena_str(f.arena, extra[i].value) };
	f.call = (struct http_call){
		.method = arena_str(f.arena, r->method),
		.target = arena_str(f.arena, target),
		.headers = headers,
		.n_headers = n,
		.body = arena_str(f.arena, r->body),
	};
	return f;
}

void forward_bad_gateway(struct http_stream *s, const struct err *err)
{
	struct http_header type = { STR("content-type"), STR("text/plain; charset=utf-8") };

	http_respond(
		s, 502, &type, 1, arena_fmt(http_stream_arena(s), "%s\n", err->text), NULL, NULL);
}

struct http_header *forward_headers(
	struct arena *a, const struct http_header *headers, size_t n, size_t *ret_n)
{
	struct http_header *out = arena_alloc(a, (n + 1) * sizeof(*out));
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		if (!named_in(headers[i].name, of_one_hop) && !named_in(headers[i].name, remade))
			out[k++] = (struct http_header){ arena_str(a, headers[i].name),
				arena_str(a, headers[i].value) };
	*ret_n = k;
	return out;
}

bool forward_too_many(struct http_stream *s)
{
	struct http_header type = { STR("content-type"), STR("text/plain; charset=utf-8") };

	if (s->conn->nl->n_threads < FORWARDS_MAX)
		return false;
	http_respond(s, 503, &type, 1,
		STR("too many requests are being forwarded; try again later\n"), NULL, NULL);
	return true;
}

/* ---- one request ---- */

struct forward {
	atomic_uint refs;
	struct net_loop *nl;        /* lives until it heard that the thread ended */
	struct http_stream *stream; /* a reference */
	struct http_client *client;
	struct forwarded request;
	struct http_reply head;
	struct err err;
	pthread_mutex_t lock;
	pthread_cond_t room;
	struct http_reader
		*reader; /* the thread reads from it; guarded by lock, as are the next two */
	size_t in_flight;
	bool client_gone;
	struct channel_conn *
		channels; /* the answer goes out as WebSocket messages; the loop's alone, as is the next */
	struct piece *stuck;         /* sent, not yet taken by a slow client */
	struct http_rewrite rewrite; /* free NULL: none; the thread's alone */
};

struct piece {
	struct forward *forward;
	struct piece *next;
	size_t len;
	char bytes[];
};

static void forward_unref(struct forward *f)
{
	if (atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	http_client_free(f->client);
	http_stream_unref(f->stream);
	if (f->rewrite.free)
		f->rewrite.free(f->rewrite.arg);
	arena_free(f->request.arena);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->room);
	free(f);
}

static void post_forward(struct forward *f, void (*fn)(struct http_stream *s, void *arg))
{
	atomic_fetch_add(&f->refs, 1);
	http_stream_post(f->stream, fn, f);
}

static void take_stuck(void *arg);

static void on_channels_closed(void *arg)
{
	struct forward *f = arg;

	f->channels = NULL;
	pthread_mutex_lock(&f->lock);
	f->client_gone = true;
	if (f->reader)
		http_reader_cancel(f->reader);
	pthread_cond_signal(&f->room);
	pthread_mutex_unlock(&f->lock);
	take_stuck(f);
	forward_unref(f);
}

static void ignore_data(void *arg, int channel, struct str bytes) {}

/* false: not asked for, or not under a protocol that is known. */
static bool begin_messages(struct forward *f, struct http_stream *s)
{
	static const char *const protocols[] = { "binary.k8s.io", "base64.binary.k8s.io", NULL },
				 *const none[] = { NULL };
	const struct channel_events events = {
		.on_data = ignore_data, .on_close = on_channels_closed, .arg = f
	};
	struct str to = http_request_header(http_stream_request(s), "upgrade");
	const char *protocol;
	struct err err;

	if (f->head.status != 200 || to.len != strlen("websocket") ||
		strncasecmp(to.p, "websocket", to.len) ||
		http_upgrade_channels(s, protocols, none, &events, &f->channels, &protocol, &err) <
			0)
		return false;
	atomic_fetch_add(&f->refs, 1);
	return true;
}

static void begin_answer(struct http_stream *s, void *arg)
{
	struct forward *f = arg;
	size_t n;

	if (begin_messages(f, s)) {
		forward_unref(f);
		return;
	}
	struct http_header *headers =
		forward_headers(http_stream_arena(s), f->head.headers, f->head.n_headers, &n);

	http_stream_begin(s, f->head.status, headers, n);
	forward_unref(f);
}

static void piece_sent(void *arg)
{
	struct piece *k = arg;
	struct forward *f = k->forward;

	pthread_mutex_lock(&f->lock);
	f->in_flight -= k->len;
	pthread_cond_signal(&f->room);
	pthread_mutex_unlock(&f->lock);
	forward_unref(f);
	free(k);
}

static void write_piece(struct http_stream *s, void *arg)
{
	struct piece *k = arg;

	struct forward *f = k->forward;

	if (f->channels) {
		channel_write(f->channels, 0, str_n(k->bytes, k->len));
		k->next = f->stuck;
		f->stuck = k;
		if (channel_pending(f->channels) > HIGH)
			channel_on_drain(f->channels, take_stuck, f);
		else
			take_stuck(f);
		return;
	}
	http_stream_write(s, str_n(k->bytes, k->len), piece_sent, k);
}

static void take_stuck(void *arg)
{
	struct forward *f = arg;
	struct piece *k = TAKE(f->stuck);

	while (k) {
		struct piece *next = k->next;

		piece_sent(k);
		k = next;
	}
}

static void end_answer(struct http_stream *s, void *arg)
{
	struct forward *f = arg;

	if (f->channels)
		channel_conn_close(f->channels);
	else if (!f->err.text[0])
		http_stream_end(s);
	else if (s->begun)
		http_stream_abort(s);
	else
		forward_bad_gateway(s, &f->err);
	forward_unref(f);
}

static void on_client_gone(struct http_stream *s, void *arg)
{
	struct forward *f = arg;

	pthread_mutex_lock(&f->lock);
	f->client_gone = true;
	if (f->reader)
		http_reader_cancel(f->reader);
	pthread_cond_signal(&f->room);
	pthread_mutex_unlock(&f->lock);
	forward_unref(f);
}

/* Waits until the client took most of what it was sent; false: it is gone. */
static bool wait_for_room(struct forward *f)
{
	pthread_mutex_lock(&f->lock);
	while (!f->client_gone && f->in_flight >= HIGH)
		pthread_cond_wait(&f->room, &f->lock);
	bool gone = f->client_gone;

	pthread_mutex_unlock(&f->lock);
	return !gone;
}

static void send_piece(struct forward *f, struct str bytes)
{
	struct piece *k = xmalloc(sizeof(*k) + bytes.len);

	memcpy(k->bytes, bytes.p, bytes.len);
	k->forward = f;
	k->len = bytes.len;
	atomic_fetch_add(&f->refs, 1);
	pthread_mutex_lock(&f->lock);
	f->in_flight += k->len;
	pthread_mutex_unlock(&f->lock);
	http_stream_post(f->stream, write_piece, k);
}

static int copy_answer(struct forward *f, struct http_reader *reader, bool rewrite)
{
	CLEAN_BUF struct buf out = { 0 };
	CLEAN_FREE char *chunk = xmalloc(CHUNK);

	while (wait_for_room(f)) {
		ssize_t n = http_reader_read(reader, chunk, CHUNK, &f->err);
		struct str bytes = str_n(chunk, n > 0 ? (size_t)n : 0);

		if (n < 0)
			return (int)n;
		if (rewrite) {
			buf_clear(&out);
			f->rewrite.body(f->rewrite.arg, bytes, n == 0, &out);
			bytes = buf_str(&out);
		}
		if (bytes.len)
			send_piece(f, bytes);
		if (n == 0)
			return 0;
	}
	return -ECANCELED;
}

static void end_reader(struct forward *f)
{
	pthread_mutex_lock(&f->lock);
	struct http_reader *reader = TAKE(f->reader);

	pthread_mutex_unlock(&f->lock);
	http_reader_free(reader);
}

static void *forward_thread(void *arg)
{
	struct forward *f = arg;
	struct net_loop *nl = f->nl;
	int r = reader_start(f->reader, &f->request.call, f->request.arena, &f->head, &f->err);

	if (r == 0) {
		bool rewrite = f->rewrite.free &&
			f->rewrite.head(f->rewrite.arg, &f->head, f->request.arena);

		post_forward(f, begin_answer);
		r = copy_answer(f, f->reader, rewrite);
	}
	end_reader(f);
	if (r == 0)
		f->err.text[0] = '\0';
	else if (!f->err.text[0])
		err_set(&f->err, r, "the client went away");
	post_forward(f, end_answer);
	forward_unref(f);
	loop_post(nl->loop, net_loop_thread_gone, nl);
	return NULL;
}

static void start_forward(struct http_stream *s, struct http_client *c, struct forwarded request,
	const struct http_rewrite *rewrite)
{
	struct forward *f = xcalloc(1, sizeof(*f));
	struct err err;
	pthread_t thread;

	/* One for the thread, one for on_close. */
	atomic_init(&f->refs, 2);
	f->stream = http_stream_ref(s);
	f->nl = s->conn->nl;
	f->client = http_client_ref(c);
	f->request = request;
	if (rewrite)
		f->rewrite = *rewrite;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->room, NULL);
	http_stream_on_close(s, on_client_gone, f);
	int r = reader_new(c, &f->request.call, &f->reader, &err);

	if (r == 0 && (r = thread_start(&thread, "forward", forward_thread, f)) < 0)
		err_errno(&err, r, "cannot forward a request");
	if (r == 0)
		f->nl->n_threads++; /* only this loop counts it down */
	if (r < 0) {
		end_reader(f);
		forward_bad_gateway(s, &err);
		forward_unref(f);
		return;
	}
	pthread_detach(thread);
}

void http_forward(struct http_stream *s, struct http_client *c, struct str target,
	const struct http_header *extra_headers, size_t n_extra)
{
	if (s->conn && !forward_too_many(s))
		start_forward(s, c, forward_copy(s, target, extra_headers, n_extra, false), NULL);
}

void http_forward_rewritten(struct http_stream *s, struct http_client *c, struct str target,
	const struct http_rewrite *rewrite)
{
	if (!s->conn || forward_too_many(s)) {
		rewrite->free(rewrite->arg);
		return;
	}
	struct forwarded request = forward_copy(s, target, NULL, 0, false);
	ask_for_plain(&request);
	start_forward(s, c, request, rewrite);
}
