/* Server and client over loopback: TLS, identities, keep-alive, bodies, streams, refusals, stopping. */
#include "net/test_server.h"

#include <stdio.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>

static void write_rest(struct http_stream *s, void *arg)
{
	http_stream_write(s, STR("second\n"), NULL, NULL);
	http_stream_end(s);
}

static void fill_up(struct http_stream *s, void *arg)
{
	size_t *left = arg;
	static const char chunk[10000] = { [0 ... 9999] = 'z' };

	while (*left && http_stream_pending(s) < 64 * 1024) {
		size_t n = MIN(*left, sizeof(chunk));

		http_stream_write(s, str_n(chunk, n), NULL, NULL);
		*left -= n;
	}
	if (!*left)
		http_stream_end(s);
}

static int closes;

static void count_close(struct http_stream *s, void *arg)
{
	__atomic_add_fetch(&closes, 1, __ATOMIC_SEQ_CST);
}

static void handle(void *arg, struct http_stream *s)
{
	const struct http_request *r = http_stream_request(s);
	struct arena *a = http_stream_arena(s);

	if (str_eqz(r->path, "/who")) {
		struct str who = r->peer
			? arena_fmt(a, "%s %zu %s %s", r->peer->common_name.p,
				  r->peer->n_organizations, r->peer->organizations[0].p,
				  r->peer->organizations[1].p)
			: STR("nobody");
		http_respond(s, 200, NULL, 0, who, NULL, NULL);
	} else if (str_eqz(r->path, "/inject")) {
		http_respond(s, 200, &(struct http_header){ STR("x-text"), STR("a\r\nx-evil: 1") },
			1, STR_NONE, NULL, NULL);
	} else if (str_eqz(r->path, "/big")) {
		char *p = arena_alloc(a, 1000000);

		memset(p, 'b', 1000000);
		http_respond(s, 200, NULL, 0, str_n(p, 1000000), NULL, NULL);
	} else if (str_eqz(r->path, "/stream")) {
		http_stream_begin(s, 200, NULL, 0);
		http_stream_write(s, STR("first\n"), NULL, NULL);
		http_stream_post(s, write_rest, NULL);
	} else if (str_eqz(r->path, "/flood")) {
		size_t *left = arena_alloc(a, sizeof(*left));

		*left = 20000000;
		http_stream_begin(s, 200, NULL, 0);
		http_stream_on_drain(s, fill_up, left);
		fill_up(s, left);
	} else if (str_eqz(r->path, "/hang")) {
		http_stream_on_close(s, count_close, NULL);
		http_stream_begin(s, 200, NULL, 0);
		http_stream_write(s, STR("hello"), NULL, NULL);
	} else if (str_eqz(r->path, "/abort")) {
		http_stream_begin(s, 200, NULL, 0);
		http_stream_write(s, STR("half"), NULL, NULL);
		http_stream_flush(s);
		http_stream_abort(s);
	} else {
		struct http_header h = { STR("x-method"), r->method };

		http_respond(s, 201, &h, 1, r->body, NULL, NULL);
	}
}

static int call(struct http_client *c, const char *method, const char *target, struct str body,
	struct arena *a, struct http_reply *ret)
{
	struct err err = { "" };
	struct http_call k = { .method = str_of(method), .target = str_of(target), .body = body };
	int r = http_client_call(c, &k, a, ret, &err);

	if (r < 0)
		printf("%s\n", err.text);
	return r;
}

static struct str reply_header(const struct http_reply *r, const char *name)
{
	for (size_t i = 0; i < r->n_headers; i++)
		if (str_eqz(r->headers[i].name, name))
			return r->headers[i].value;
	return STR_NONE;
}

static void basics(void **state, bool secure)
{
	struct test_server t;
	struct http_reply r;
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, secure, (struct http_handler){ .on_request = handle });
	struct http_client *c = test_client(&t, false);

	for (int i = 0; i < 20; i++) {
		assert_int_equal(call(c, "POST", "/echo", STR("payload"), a, &r), 0);
		assert_int_equal(r.status, 201);
		assert_true(str_eqz(r.body, "payload"));
		assert_true(str_eqz(reply_header(&r, "x-method"), "POST"));
		assert_true(str_eqz(reply_header(&r, "content-length"), "7"));
	}
	assert_int_equal(call(c, "HEAD", "/echo", STR_NONE, a, &r), 0);
	assert_int_equal(r.body.len, 0);
	assert_int_equal(call(c, "GET", "/big", STR_NONE, a, &r), 0);
	assert_int_equal(r.body.len, 1000000);
	assert_int_equal(r.body.p[999999], 'b');
	assert_int_equal(call(c, "GET", "/stream", STR_NONE, a, &r), 0);
	assert_true(str_eqz(r.body, "first\nsecond\n"));
	assert_int_equal(call(c, "GET", "/flood", STR_NONE, a, &r), 0);
	assert_int_equal(r.body.len, 20000000);
	assert_int_equal(call(c, "GET", "/abort", STR_NONE, a, &r), -ECONNRESET);
	CLEAN_FREE char *large = xcalloc(1, NET_BODY_MAX + 1);

	assert_int_equal(call(c, "PUT", "/echo", str_n(large, NET_BODY_MAX), a, &r), 0);
	assert_int_equal(r.body.len, NET_BODY_MAX);
	assert_int_equal(call(c, "PUT", "/echo", str_n(large, NET_BODY_MAX + 1), a, &r), 0);
	assert_int_equal(r.status, 413);
	http_client_free(c);
	test_server_stop(&t);
}

static void plain(void **state)
{
	basics(state, false);
}

static void secure(void **state)
{
	basics(state, true);
}

static void identities(void **state)
{
	struct test_server t, other;
	struct http_reply r;
	struct err err = { "" };
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, true, (struct http_handler){ .on_request = handle });
	struct http_client *known = test_client(&t, true), *stranger = test_client(&t, false);

	assert_int_equal(call(known, "GET", "/who", STR_NONE, a, &r), 0);
	assert_true(str_eqz(r.body, "alice 2 system:masters team"));
	assert_int_equal(call(stranger, "GET", "/who", STR_NONE, a, &r), 0);
	assert_true(str_eqz(r.body, "nobody"));
	http_client_free(known);
	http_client_free(stranger);

	/* Another CA: its server is refused; its client is a stranger. */
	test_server_start(&other, true, (struct http_handler){ .on_request = handle });
	memcpy(other.url, t.url, sizeof(t.url));
	struct http_client *c = test_client(&other, true);
	struct http_call k = { .method = STR("GET"), .target = STR("/who") };

	assert_int_equal(http_client_call(c, &k, a, &r, &err), -EACCES);
	assert_non_null(strstr(err.text, "not trusted"));
	assert_non_null(strstr(err.text, t.url));
	http_client_free(c);
	const struct tls_client_config lax = { .cert_pem = buf_str(&other.client_cert),
		.key_pem = buf_str(&other.client_key),
		.insecure_skip_verify = true };
	struct tls_context *tls;

	assert_int_equal(tls_client_new(&lax, &tls, &err), 0);
	assert_int_equal(http_client_new(t.url, tls, &c, &err), 0);
	tls_context_free(tls);
	assert_int_equal(call(c, "GET", "/who", STR_NONE, a, &r), 0);
	assert_true(str_eqz(r.body, "nobody"));
	http_client_free(c);
	test_server_stop(&other);
	test_server_stop(&t);
}

static void *cancel_soon(void *arg)
{
	http_reader_cancel(arg);
	return NULL;
}

static void readers(void **state)
{
	struct test_server t;
	struct http_reply r;
	struct http_reader *reader;
	struct err err = { "" };
	char bytes[64];
	pthread_t thread;
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, true, (struct http_handler){ .on_request = handle });
	struct http_client *c = test_client(&t, true);
	struct http_call k = { .method = STR("GET"), .target = STR("/hang") };

	assert_int_equal(http_client_open(c, &k, a, &r, &reader, &err), 0);
	assert_int_equal(r.status, 200);
	assert_int_equal(http_reader_read(reader, bytes, 3, &err), 3);
	assert_int_equal(http_reader_read(reader, bytes + 3, 60, &err), 2);
	assert_memory_equal(bytes, "hello", 5);
	assert_int_equal(thread_start(&thread, "cancel", cancel_soon, reader), 0);
	assert_int_equal(http_reader_read(reader, bytes, 60, &err), -ECANCELED);
	pthread_join(thread, NULL);
	http_reader_free(reader);
	k.target = STR("/stream");
	assert_int_equal(http_client_open(c, &k, a, &r, &reader, &err), 0);
	size_t n = 0;

	for (ssize_t got; (got = http_reader_read(reader, bytes + n, sizeof(bytes) - n, &err)) > 0;)
		n += (size_t)got;
	assert_true(str_eqz(str_n(bytes, n), "first\nsecond\n"));
	http_reader_free(reader);
	k.timeout_ms = 50;
	k.target = STR("/hang");
	assert_int_equal(http_client_open(c, &k, a, &r, &reader, &err), 0);
	assert_int_equal(http_reader_read(reader, bytes, 60, &err), 5);
	assert_int_equal(http_reader_read(reader, bytes, 60, &err), -ETIMEDOUT);
	http_reader_free(reader);
	http_client_free(c);
	test_server_stop(&t);
	/* Both clients of /hang went away, and each was noticed once. */
	assert_int_equal(closes, 2);
}

/* A server whose queue is full drops what comes, as a link does that was cut. */
static void connecting_has_a_bound_of_its_own(void **state)
{
	CLEAN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
		     first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct http_call k = {
		.method = STR("GET"), .target = STR("/"), .timeout_ms = 60000, .connect_ms = 100
	};
	CLEAN_ARENA struct arena *a = arena_new(0);
	socklen_t n = sizeof(in);
	struct http_client *c;
	struct http_reader *reader;
	struct http_reply r;
	struct err err = { "" };
	char url[64];

	assert_int_equal(bind(fd, (struct sockaddr *)&in, n), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	assert_int_equal(connect(first, (struct sockaddr *)&in, n), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(in.sin_port));
	assert_int_equal(http_client_new(url, NULL, &c, NULL), 0);
	uint64_t began = mono_now_ns();

	assert_int_equal(http_client_call(c, &k, a, &r, &err), -ETIMEDOUT);
	assert_int_equal(http_client_open(c, &k, a, &r, &reader, &err), -ETIMEDOUT);
	assert_true(mono_now_ns() - began < 30000000000ull);
	http_client_free(c);
}

/* The peer's socket is gone as with its machine: nobody says so. */
static bool vanish(int fd)
{
	int one = 1;
	bool done = !setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &one, sizeof(one));

	close(fd);
	return done;
}

static int accept_answering(int fd, const char *answer)
{
	char bytes[2048];
	int peer = accept(fd, NULL, NULL);

	assert_true(peer >= 0);
	assert_true(read(peer, bytes, sizeof(bytes)) > 0);
	assert_int_equal(write(peer, answer, strlen(answer)), strlen(answer));
	return peer;
}

struct raw_call {
	struct http_client *c;
	struct http_reader *reader;
	int r;
};

static void *open_reader(void *arg)
{
	struct raw_call *x = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	const struct http_call k = { .method = STR("GET"), .target = STR("/watch") };
	struct http_reply head;

	x->r = http_client_open(x->c, &k, a, &head, &x->reader, NULL);
	return NULL;
}

static void *call_once(void *arg)
{
	struct raw_call *x = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	const struct http_call k = { .method = STR("GET"), .target = STR("/") };
	struct http_reply head;

	x->r = http_client_call(x->c, &k, a, &head, NULL);
	return NULL;
}

/* A machine dies and comes back between two bytes of a watch. Who asks it for something else finds out; the watch must not sit there until its time comes. */
static void a_reborn_server_is_noticed(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	CLEAN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t n = sizeof(in);
	struct raw_call x = { 0 };
	struct err err = { "" };
	char url[64], byte;
	pthread_t thread;

	assert_int_equal(bind(fd, (struct sockaddr *)&in, n), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(in.sin_port));
	assert_int_equal(http_client_new(url, NULL, &x.c, NULL), 0);
	assert_int_equal(thread_start(&thread, "open", open_reader, &x), 0);
	int peer = accept_answering(fd, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");

	pthread_join(thread, NULL);
	assert_int_equal(x.r, 0);
	if (!vanish(peer)) {
		http_reader_free(x.reader);
		http_client_free(x.c);
		skip(); /* needs CAP_NET_ADMIN */
	}
	assert_int_equal(thread_start(&thread, "call", call_once, &x), 0);
	close(accept(fd, NULL, NULL)); /* it is starting: no answer … */
	pthread_join(thread, NULL);
	assert_true(x.r < 0);
	assert_int_equal(thread_start(&thread, "call", call_once, &x), 0);
	close(accept_answering(
		fd, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")); /* … and is there */
	pthread_join(thread, NULL);
	assert_int_equal(x.r, 0);
	uint64_t began = mono_now_ns();

	assert_int_equal(http_reader_read(x.reader, &byte, 1, &err), -ECONNRESET);
	assert_true(mono_now_ns() - began < 10000000000ull);
	http_reader_free(x.reader);
	http_client_free(x.c);
}

static int raw_connect(struct test_server *t)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)http_server_port(t->server)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

static char *read_to_end(int fd)
{
	struct buf b = { 0 };
	ssize_t n;

	do {
		buf_reserve(&b, 4096);
		n = recv(fd, b.p + b.len, 4096, 0);
		b.len += (size_t)MAX(n, (ssize_t)0);
	} while (n > 0);
	b.p[b.len] = '\0';
	return buf_take(&b);
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

static void pipelining(void **state)
{
	static const char bytes[] =
		"GET /stream HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
		"GET /stream HTTP/1.1\r\n\r\nGET /last HTTP/1.1\r\nConnection: close\r\n\r\n";
	struct test_server t;

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	for (size_t step = 1; step <= sizeof(bytes); step += 37) {
		int fd = raw_connect(&t);

		for (size_t at = 0; at < sizeof(bytes) - 1; at += step)
			assert_true(send(fd, bytes + at, MIN(step, sizeof(bytes) - 1 - at),
					    MSG_NOSIGNAL) > 0);
		CLEAN_FREE char *answer = read_to_end(fd);

		close(fd);
		assert_int_equal(count(answer, "HTTP/1.1 200 OK\r\n"), 2);
		assert_int_equal(count(answer, "HTTP/1.1 201 Created\r\n"), 2);
		assert_true(strstr(answer, "second") < strstr(answer, "\r\n\r\nabcHTTP/1.1"));
		assert_int_equal(count(answer, "connection: close\r\n"), 1);
	}
	test_server_stop(&t);
}

static void bad_requests(void **state)
{
	/* clang-format off */
	static const struct { const char *bytes, *answer; } rows[] = {
		{ "nonsense\r\n\r\n", "HTTP/1.1 501 " },
		{ "GET / HTTP/1.1\r\nbad header\r\n\r\n", "HTTP/1.1 400 " },
		{ "GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 " },
		{ "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400 " },
		{ "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 413 " },
		{ "CONNECT host:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 405 " },
		{ "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 201 " },
	};
	/* clang-format on */
	struct test_server t;

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int fd = raw_connect(&t);

		assert_true(send(fd, rows[i].bytes, strlen(rows[i].bytes), MSG_NOSIGNAL) > 0);
		CLEAN_FREE char *answer = read_to_end(fd);

		close(fd);
		if (strncmp(answer, rows[i].answer, strlen(rows[i].answer)))
			fail_msg("%s\ngave\n%s", rows[i].bytes, answer);
	}
	int fd = raw_connect(&t);
	CLEAN_BUF struct buf big = { 0 };

	buf_addz(&big, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 2000; i++)
		buf_addf(&big, "x-header-%d: some value that takes room\r\n", i);
	send(fd, big.p, big.len, MSG_NOSIGNAL);
	CLEAN_FREE char *answer = read_to_end(fd);

	close(fd);
	assert_int_equal(strncmp(answer, "HTTP/1.1 431 ", 13), 0);
	test_server_stop(&t);
}

static void line_breaks_in_headers(void **state)
{
	struct test_server t;
	struct http_reply r;
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	struct http_client *c = test_client(&t, false);

	assert_int_equal(call(c, "GET", "/inject", STR_NONE, a, &r), 0);
	assert_true(str_eqz(reply_header(&r, "x-text"), "a  x-evil: 1"));
	assert_null(reply_header(&r, "x-evil").p);
	http_client_free(c);
	test_server_stop(&t);
}

static void idle_connections_end(void **state)
{
	struct test_server t;
	struct http_server *quick;
	struct err err;

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	const struct http_server_config config = { .loops = &t.loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.handler = { .on_request = handle },
		.idle_timeout_ms = 30 };

	assert_int_equal(http_server_start(&config, &quick, &err), 0);
	struct http_server *slow = t.server;

	t.server = quick;
	int fd = raw_connect(&t);

	assert_true(send(fd, "GET /who HTTP/1.1\r\n\r\n", 21, MSG_NOSIGNAL) > 0);
	/* Ends, though nobody asked for it. */
	CLEAN_FREE char *answer = read_to_end(fd);

	assert_non_null(strstr(answer, "nobody"));
	close(fd);
	http_server_stop(quick);
	t.server = slow;
	test_server_stop(&t);
}

static void new_certificates(void **state)
{
	struct test_server t, other;
	struct http_reply r;
	struct err err;
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, true, (struct http_handler){ .on_request = handle });
	test_server_start(&other, true, (struct http_handler){ .on_request = handle });
	struct http_client *c = test_client(&t, false);

	assert_int_equal(call(c, "GET", "/who", STR_NONE, a, &r), 0);
	const struct tls_server_config config = { .cert_pem = buf_str(&other.cert),
		.key_pem = buf_str(&other.key) };

	assert_int_equal(tls_server_update(t.tls, &config, &err), 0);
	/* The kept connection goes on; new ones see the new certificate. */
	assert_int_equal(call(c, "GET", "/who", STR_NONE, a, &r), 0);
	struct http_client *late = test_client(&t, false);

	assert_int_equal(call(late, "GET", "/who", STR_NONE, a, &r), -EACCES);
	/* A client that learns the new CA goes on under its name. */
	struct tls_context *tls;
	const struct tls_client_config before = { .ca_pem = buf_str(&t.ca_cert) },
				       after = { .ca_pem = buf_str(&other.ca_cert) };

	http_client_free(late);
	assert_int_equal(tls_client_new(&before, &tls, &err), 0);
	assert_int_equal(http_client_new(t.url, tls, &late, &err), 0);
	assert_int_equal(tls_client_update(tls, &after, &err), 0);
	assert_int_equal(call(late, "GET", "/who", STR_NONE, a, &r), 0);
	tls_context_free(tls);
	http_client_free(c);
	http_client_free(late);
	test_server_stop(&other);
	test_server_stop(&t);
}

static void port_in_use(void **state)
{
	struct test_server t;
	struct http_server *second;
	struct err err = { "" };

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	const struct http_server_config config = { .loops = &t.loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.port = http_server_port(t.server) };

	assert_int_equal(http_server_start(&config, &second, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "another process uses it"));
	test_server_stop(&t);
}

/* However often it is told to refuse, the next server takes connections as the first one did. */
static void refused_until_served(void **state)
{
	struct test_server t;
	struct http_server *second;
	struct http_client *c;
	struct http_reply r;
	struct err err = { "" };
	int fd;
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	assert_int_equal(http_listen("127.0.0.1", 0, &fd, &err), 0);
	for (int round = 0; round < 2; round++) {
		struct http_server_config config = { .loops = &t.loop,
			.n_loops = 1,
			.listen_fd = dup(fd),
			.handler = { .on_request = handle } };

		assert_int_equal(http_server_start(&config, &second, &err), 0);
		struct str url = arena_fmt(a, "http://127.0.0.1:%d", http_server_port(second));

		assert_int_equal(http_client_new(url.p, NULL, &c, &err), 0);
		assert_int_equal(call(c, "GET", "/echo", STR_NONE, a, &r), 0);
		http_server_stop(second);
		http_refuse(fd);
		http_refuse(fd);
		assert_int_equal(call(c, "GET", "/echo", STR_NONE, a, &r), -ECONNREFUSED);
		http_client_free(c);
	}
	close(fd);
	test_server_stop(&t);
}

/* The server of the URL is not there: another one of the list answers, and is asked first from then on. */
static void alternatives(void **state)
{
	struct test_server t;
	struct http_client *c;
	struct http_reply r;
	struct err err = { "" };
	CLEAN_ARENA struct arena *a = arena_new(0);

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	assert_int_equal(http_client_new("http://127.0.0.1:1", NULL, &c, &err), 0);
	assert_true(call(c, "GET", "/echo", STR_NONE, a, &r) < 0);
	struct str places[] = { STR("nonsense"), STR("127.0.0.1:2"),
		arena_fmt(a, "127.0.0.1:%d", http_server_port(t.server)) };

	http_client_set_alternatives(c, places, ARRAY_LEN(places));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(call(c, "GET", "/echo", STR_NONE, a, &r), 0);
		assert_int_equal(r.status, 201);
	}
	http_client_set_alternatives(c, NULL, 0);
	http_client_free(c);
	test_server_stop(&t);
}

/* All bodies together are bounded, before anybody knows who sends them; what is answered counts no more. */
static void bodies_together(void **state)
{
	struct test_server t;
	struct http_server *small;
	struct http_client *c;
	struct http_reply r;
	struct err err = { "" };
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_FREE char *body = xcalloc(1, 2000);

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	const struct http_server_config config = { .loops = &t.loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.handler = { .on_request = handle },
		.bodies_max = 1500 };

	assert_int_equal(http_server_start(&config, &small, &err), 0);
	assert_int_equal(
		http_client_new(arena_fmt(a, "http://127.0.0.1:%d", http_server_port(small)).p,
			NULL, &c, &err),
		0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(call(c, "POST", "/echo", str_n(body, 1000), a, &r), 0);
		assert_int_equal(r.status, 201);
		assert_int_equal(call(c, "POST", "/echo", str_n(body, 2000), a, &r), 0);
		assert_int_equal(r.status, 503);
	}
	http_client_free(c);
	http_server_stop(small);
	test_server_stop(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain),
		cmocka_unit_test(secure),
		cmocka_unit_test(identities),
		cmocka_unit_test(readers),
		cmocka_unit_test(connecting_has_a_bound_of_its_own),
		cmocka_unit_test(a_reborn_server_is_noticed),
		cmocka_unit_test(pipelining),
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(port_in_use),
		cmocka_unit_test(refused_until_served),
		cmocka_unit_test(line_breaks_in_headers),
		cmocka_unit_test(idle_connections_end),
		cmocka_unit_test(new_certificates),
		cmocka_unit_test(alternatives),
		cmocka_unit_test(bodies_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
