/* The blocking client: calls, and responses that are read piece by piece.
 *
 * A kept connection may have died unnoticed. When it did, and no byte of an answer came, the call is made once more on a new
 * connection, provided that doing it twice is harmless or that the request cannot have arrived. */
#include "net/client_internal.h"

#include <sys/eventfd.h>

#define DEFAULT_TIMEOUT_MS 30000
#define REPLY_MAX ((size_t)1 << 40)

/* ---- the client ---- */

static int parse_url(struct http_client *c, struct str url, bool *ret_secure, struct err *err)
{
	struct str rest, authority, base = STR_NONE, host, port;
	bool secure = str_has_prefix(url, STR("https://"));

	if (!secure && !str_has_prefix(url, STR("http://")))
		return err_set(
			err, -EINVAL, STR_FMT ": not a URL of http:// or https://", STR_ARG(url));
	rest = str_from(url, secure ? 8 : 7);
	ssize_t slash = str_find(rest, '/');

	authority = slash < 0 ? rest : str_n(rest.p, (size_t)slash);
	base = slash < 0 ? base : str_from(rest, (size_t)slash);
	while (base.len && base.p[base.len - 1] == '/')
		base.len--;
	if (authority.len && authority.p[0] == '[') {
		ssize_t end = str_find(authority, ']');

		if (end < 0)
			return err_set(err, -EINVAL, STR_FMT ": the address has no closing ]",
				STR_ARG(url));
		host = str_n(authority.p + 1, (size_t)end - 1);
		port = str_from(authority, (size_t)end + 1);
		port = str_from(port, port.len && port.p[0] == ':');
	} else {
		str_cut(authority, ':', &host, &port);
	}
	if (!host.len || str_find(authority, '@') >= 0)
		return err_set(err, -EINVAL, STR_FMT ": the URL names no host", STR_ARG(url));
	c->host = str_dup(host);
	c->port = port.len ? str_dup(port) : xstrdup(secure ? "443" : "80");
	c->base = str_dup(base);
	c->host_header = str_dup(authority);
	*ret_secure = secure;
	return 0;
}

int http_client_new(
	const char *url, struct tls_context *tls, struct http_client **ret, struct err *err)
{
	struct http_client *c = xcalloc(1, sizeof(*c));
	struct tls_client_config system = { 0 };
	bool secure = false;
	int r = parse_url(c, str_of(url), &secure, err);

	if (r == 0 && secure)
		r = tls ? (c->tls = tls_context_ref(tls), 0)
			: tls_client_new(&system, &c->tls, err);
	c->url = xstrdup(url);
	atomic_init(&c->refs, 1);
	pthread_mutex_init(&c->lock, NULL);
	if (r < 0) {
		http_client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct http_client *http_client_ref(struct http_client *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

static void places_free(struct server_place *places, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(places[i].host);
		free(places[i].port);
	}
	free(places);
}

void http_client_free(struct http_client *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	for (struct client_conn *conn; (conn = c->idle); client_conn_free(conn))
		c->idle = conn->next;
	local_free(c->local);
	tls_context_free(c->tls);
	pthread_mutex_destroy(&c->lock);
	places_free(c->places, c->n_places);
	free(c->url);
	free(c->host);
	free(c->port);
	free(c->base);
	free(c->host_header);
	free(c->bearer);
	free(c);
}

void http_client_set_alternatives(struct http_client *c, const struct str *host_ports, size_t n)
{
	struct server_place *places = xcalloc(n + 1, sizeof(*places));
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		ssize_t colon = -1;

		for (size_t k = 0; k < host_ports[i].len; k++)
			if (host_ports[i].p[k] == ':')
				colon = (ssize_t)k;
		if (colon <= 0 || str_eqz(host_ports[i], c->host_header))
			continue;
		places[kept].host = str_dup(str_n(host_ports[i].p, (size_t)colon));
		places[kept++].port = str_dup(str_from(host_ports[i], (size_t)colon + 1));
	}
	pthread_mutex_lock(&c->lock);
	struct server_place *former = c->places;
	size_t n_former = c->n_places;

	c->places = places;
	c->n_places = kept;
	if (c->preferred > kept)
		c->preferred = 0;
	pthread_mutex_unlock(&c->lock);
	places_free(former, n_former);
}

void http_client_set_bearer(struct http_client *c, struct str token)
{
	char *bearer = token.len ? str_dup(str_trim(token)) : NULL;

	pthread_mutex_lock(&c->lock);
	char *former = c->bearer;

	c->bearer = bearer;
	pthread_mutex_unlock(&c->lock);
	free(former);
}

/* ---- requests ---- */

static void put_header(struct buf *out, const char *name, struct str value)
{
	buf_addf(out, "%s: " STR_FMT "\r\n", name, STR_ARG(value));
}

/* Host and User-Agent are the caller's to say (probes do); twice would be malformed. */
static bool call_names(const struct http_call *call, const char *name)
{
	for (size_t i = 0; i < call->n_headers; i++)
		if (call->headers[i].name.len == strlen(name) &&
			!strncasecmp(call->headers[i].name.p, name, strlen(name)))
			return true;
	return false;
}

void client_put_head(
	struct http_client *c, struct buf *out, const struct http_call *call, int64_t length)
{
	buf_addf(out, STR_FMT " %s" STR_FMT " HTTP/1.1\r\n", STR_ARG(call->method), c->base,
		STR_ARG(call->target));
	if (!call_names(call, "host"))
		buf_addf(out, "host: %s\r\n", c->host_header);
	if (!call_names(call, "user-agent"))
		buf_addz(out, "user-agent: skiff\r\n");
	pthread_mutex_lock(&c->lock);
	if (c->bearer)
		buf_addf(out, "authorization: Bearer %s\r\n", c->bearer);
	pthread_mutex_unlock(&c->lock);
	if (call->accept.len)
		put_header(out, "accept", call->accept);
	if (call->content_type.len)
		put_header(out, "content-type", call->content_type);
	for (size_t i = 0; i < call->n_headers; i++) {
		buf_add_str(out, call->headers[i].name);
		buf_addz(out, ": ");
		buf_add_str(out, call->headers[i].value);
		buf_addz(out, "\r\n");
	}
	if (length >= 0)
		buf_addf(out, "content-length: %lld\r\n", (long long)length);
	buf_addz(out, "\r\n");
}

int client_read_head(struct client_conn *conn, struct patience p, struct http1 *h,
	struct buf *ret_rest, struct err *err)
{
	char bytes[CLIENT_READ_SIZE];

	while (!h->head_done) {
		ssize_t n = client_read(conn, p, bytes, sizeof(bytes), err);
		size_t taken = 0;

		if (n == 0)
			return err_set(err, -ECONNRESET,
				"the server closed the connection before it answered");
		if (n < 0)
			return (int)n;
		conn->reused = false; /* it lives */
		int r = http1_feed(h, bytes, (size_t)n, &taken);

		if (r < 0)
			return err_set(err, -EPROTO, "the answer is not HTTP: %s", h->error_text);
		if (taken < (size_t)n)
			buf_add(ret_rest, bytes + taken, (size_t)n - taken);
	}
	return 0;
}

static bool is_harmless_twice(struct str method)
{
	return !str_eqz(method, "POST") && !str_eqz(method, "PATCH");
}

struct exchange {
	struct http_client *client;
	const struct http_call *call;
	struct client_conn *conn;
	struct message m;
	struct http1 h;
	struct buf rest;
};

static int try_once(struct exchange *x, bool fresh, struct patience p, struct arena *a,
	struct err *err, bool *ret_again)
{
	const struct http_call *call = x->call;
	CLEAN_BUF struct buf out = { 0 };
	bool has_body =
		call->body.len || !(str_eqz(call->method, "GET") || str_eqz(call->method, "HEAD"));
	int r = client_connect(x->client, fresh, p, &x->conn, err);

	*ret_again = false;
	if (r < 0)
		return r;
	client_put_head(x->client, &out, call, has_body ? (int64_t)call->body.len : -1);
	buf_add_str(&out, call->body);
	message_init(&x->m, a, REPLY_MAX);
	http1_start(&x->h, &x->m);
	buf_clear(&x->rest);
	r = client_write(x->conn, p, out.p, out.len, err);
	if (r < 0 && r != -ETIMEDOUT && r != -ECANCELED)
		*ret_again = x->conn->reused;
	if (r == 0) {
		r = client_read_head(x->conn, p, &x->h, &x->rest, err);
		if (r == -ECONNRESET || r == -EPIPE)
			*ret_again = x->conn->reused && is_harmless_twice(call->method);
	}
	if (r < 0) {
		client_conn_free(x->conn);
		x->conn = NULL;
	}
	return r;
}

/* A target that leads out of its line would be headers, or requests, of its own. */
static bool fits_a_line(struct str target)
{
	for (size_t i = 0; i < target.len; i++)
		if ((unsigned char)target.p[i] <= ' ' || target.p[i] == 0x7f)
			return false;
	return true;
}

static bool headers_fit_lines(const struct http_call *call)
{
	for (size_t i = 0; i < call->n_headers; i++)
		if (str_find(call->headers[i].value, '\n') >= 0 ||
			str_find(call->headers[i].value, '\r') >= 0 ||
			str_find(call->headers[i].name, '\n') >= 0)
			return false;
	return true;
}

/* Sends the request and reads the answer's head. */
/* Probes send what pods say; a value with a line break would be more headers, or a request of another kind. */
static bool headers_fit(const struct http_call *call)
{
	for (size_t i = 0; i < call->n_headers; i++) {
		struct str value = call->headers[i].value;

		if (!call->headers[i].name.len || !fits_a_line(call->headers[i].name) ||
			str_find(call->headers[i].name, ':') >= 0)
			return false;
		for (size_t k = 0; k < value.len; k++)
			if (value.p[k] == '\r' || value.p[k] == '\n' || !value.p[k])
				return false;
	}
	return true;
}

/* A peer that did not answer and answers now may have died in between: what waits on it should know soon. */
static void note_peer(struct http_client *c, int r)
{
	bool failed = r < 0 && r != -ECANCELED;

	if (atomic_exchange(&c->failed, failed) && !failed)
		client_doubt();
}

static int start_exchange(struct exchange *x, struct patience p, struct arena *a, struct err *err)
{
	bool again;
	void (*on_body)(struct http1 * h, const char *bytes, size_t n) = x->h.on_body;
	void *arg = x->h.arg;
	int r;

	if (!fits_a_line(x->call->target))
		return err_set(err, -EINVAL,
			"a request's path holds spaces or control characters: they need escaping");
	if (!headers_fit_lines(x->call))
		return err_set(err, -EINVAL, "a header of a request holds a line break");
	if (!headers_fit(x->call))
		return err_set(err, -EINVAL,
			"a request's header has no name, or holds a line break or an odd character");
	for (int attempt = 0; attempt < 2; attempt++) {
		http1_init(&x->h, true);
		x->h.bodyless = str_eqz(x->call->method, "HEAD");
		x->h.on_body = on_body;
		x->h.arg = arg;
		r = try_once(x, attempt > 0, p, a, err, &again);
		note_peer(x->client, r);
		if (r == 0 || !again)
			break;
	}
	if (r < 0)
		return err_prefix(err, r, STR_FMT " %s" STR_FMT, STR_ARG(x->call->method),
			x->client->url, STR_ARG(x->call->target));
	return 0;
}

/* Takes the next bytes of the body. 0: more will come; HTTP1_DONE. */
static int read_more(struct exchange *x, struct patience p, struct err *err)
{
	char bytes[CLIENT_READ_SIZE];
	size_t taken = 0;
	ssize_t n;
	int r;

	if (x->rest.len) {
		r = http1_feed(&x->h, x->rest.p, x->rest.len, &taken);
		buf_deinit(&x->rest);
	} else {
		n = client_read(x->conn, p, bytes, sizeof(bytes), err);
		if (n < 0)
			return (int)n;
		r = http1_feed(&x->h, bytes, (size_t)n, &taken);
		if (n == 0 && r != HTTP1_DONE)
			return err_set(err, -ECONNRESET,
				"the server closed the connection in the middle of its answer");
	}
	if (r < 0)
		return err_set(err, -EPROTO, "the answer is not HTTP: %s",
			x->h.error_text ? x->h.error_text : "unknown reason");
	return r;
}

static void end_exchange(struct exchange *x)
{
	if (x->conn && x->h.done && !x->rest.len && http1_keep_alive(&x->h) && !x->h.parser.upgrade)
		client_keep(x->client, x->conn);
	else
		client_conn_free(x->conn);
	x->conn = NULL;
	buf_deinit(&x->rest);
}

static void fill_reply(const struct exchange *x, struct http_reply *ret)
{
	*ret = (struct http_reply){
		.status = x->m.status,
		.headers = x->m.headers,
		.n_headers = x->m.n_headers,
		.body = { x->m.body ? x->m.body : "", x->m.body_len },
	};
}

int http_client_call(struct http_client *c, const struct http_call *call, struct arena *a,
	struct http_reply *ret, struct err *err)
{
	struct exchange x = { .client = c, .call = call };
	struct patience p = { (int)(call->timeout_ms ? call->timeout_ms : DEFAULT_TIMEOUT_MS), -1,
		call->deadline_ms ? mono_now_ns() / 1000000 + call->deadline_ms : 0,
		(int)call->connect_ms };
	int r = start_exchange(&x, p, a, err);

	if (r < 0)
		return r;
	while (r == 0 && !x.h.done && (!call->enough || x.m.body_len < call->enough))
		r = read_more(&x, p, err);
	if (r >= 0)
		fill_reply(&x, ret);
	else
		err_prefix(err, r, STR_FMT " %s" STR_FMT, STR_ARG(call->method), c->url,
			STR_ARG(call->target));
	end_exchange(&x);
	return MIN(r, 0);
}

/* ---- readers ---- */

struct http_reader {
	struct exchange x;
	struct patience patience;
	struct buf body; /* decoded, not read yet */
	size_t body_read;
	char *method, *target;
};

static void keep_body(struct http1 *h, const char *p, size_t n)
{
	struct http_reader *r = h->arg;

	buf_add(&r->body, p, n);
}

int reader_new(struct http_client *c, const struct http_call *call, struct http_reader **ret,
	struct err *err)
{
	int cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (cancel_fd < 0)
		return err_errno(err, -errno, "cannot read from %s", c->url);
	struct http_reader *r = xcalloc(1, sizeof(*r));

	r->method = str_dup(call->method);
	r->target = str_dup(call->target);
	r->x.client = http_client_ref(c);
	r->x.h.on_body = keep_body;
	r->x.h.arg = r;
	r->patience =
		(struct patience){ (int)(call->timeout_ms ? call->timeout_ms : DEFAULT_TIMEOUT_MS),
			cancel_fd, 0, (int)call->connect_ms };
	*ret = r;
	return 0;
}

int reader_start(struct http_reader *r, const struct http_call *call, struct arena *a,
	struct http_reply *ret_head, struct err *err)
{
	r->x.call = call;
	int e = start_exchange(&r->x, r->patience, a, err);

	r->x.call = NULL;
	if (e < 0)
		return e;
	client_watch(r->x.conn);
	/* What is read now is a stream that may be silent for hours, unless the caller said otherwise. */
	if (!call->timeout_ms)
		r->patience.timeout_ms = -1;
	fill_reply(&r->x, ret_head);
	return 0;
}

int http_client_open(struct http_client *c, const struct http_call *call, struct arena *a,
	struct http_reply *ret_head, struct http_reader **ret, struct err *err)
{
	struct http_reader *r;
	int e = reader_new(c, call, &r, err);

	if (e < 0)
		return e;
	e = reader_start(r, call, a, ret_head, err);
	if (e < 0)
		http_reader_free(r);
	else
		*ret = r;
	return e;
}

static ssize_t reader_read(
	struct http_reader *r, struct patience patience, void *p, size_t n, struct err *err)
{
	while (r->body_read == r->body.len) {
		buf_clear(&r->body);
		r->body_read = 0;
		if (r->x.h.done)
			return 0;
		int e = read_more(&r->x, patience, err);

		if (e == -EAGAIN)
			buf_deinit(&r->body);
		if (e == -ECONNRESET || e == -ETIMEDOUT)
			client_doubt();
		if (e < 0)
			return e == -EAGAIN ? e
					    : err_prefix(err, e, "%s %s%s", r->method,
						      r->x.client->url, r->target);
	}
	size_t take = MIN(n, r->body.len - r->body_read);

	memcpy(p, r->body.p + r->body_read, take);
	r->body_read += take;
	if (r->body_read == r->body.len) {
		r->body_read = 0;
		if (r->body.cap > CLIENT_READ_SIZE)
			buf_deinit(&r->body);
		buf_clear(&r->body);
	}
	return (ssize_t)take;
}

ssize_t http_reader_read(struct http_reader *r, void *p, size_t n, struct err *err)
{
	return reader_read(r, r->patience, p, n, err);
}

ssize_t http_reader_try_read(struct http_reader *r, void *p, size_t n, struct err *err)
{
	struct patience patience = r->patience;

	patience.at_once = true;
	return reader_read(r, patience, p, n, err);
}

int http_reader_fd(const struct http_reader *r)
{
	return r->x.conn->fd;
}

void http_reader_cancel(struct http_reader *r)
{
	eventfd_write(r->patience.cancel_fd, 1);
}

void http_reader_free(struct http_reader *r)
{
	if (!r)
		return;
	if (r->x.conn)
		client_unwatch(r->x.conn);
	end_exchange(&r->x);
	close(r->patience.cancel_fd);
	buf_deinit(&r->body);
	http_client_free(r->x.client);
	free(r->method);
	free(r->target);
	free(r);
}
