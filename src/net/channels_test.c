/* Upgraded connections over loopback: WebSocket and SPDY channels, directly and through a tunnel; forwarding. */
#include "net/internal.h"
#include "net/test_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* ---- a server that echoes what comes on stdin to stdout, and says how it ended ---- */

struct session {
	struct channel_conn *cc;
	int in, out, error; /* channels */
};

static void session_open(void *arg, int channel, const struct http_header *headers, size_t n)
{
	struct session *s = arg;

	for (size_t i = 0; i < n; i++) {
		if (!str_eqz(headers[i].name, "streamtype"))
			continue;
		if (str_eqz(headers[i].value, "stdin"))
			s->in = channel;
		else if (str_eqz(headers[i].value, "stdout"))
			s->out = channel;
		else if (str_eqz(headers[i].value, "error"))
			s->error = channel;
	}
}

static void session_data(void *arg, int channel, struct str bytes)
{
	struct session *s = arg;

	assert_int_equal(channel, s->in);
	channel_write(s->cc, s->out, bytes);
	if (channel_pending(s->cc) >= 64 * 1024)
		channel_hold(s->cc, true);
}

static void session_drain(void *arg)
{
	struct session *s = arg;

	channel_hold(s->cc, false);
}

static void session_channel_close(void *arg, int channel)
{
	struct session *s = arg;

	if (channel != s->in)
		return;
	channel_write(s->cc, s->error, STR("{\"status\":\"Success\"}"));
	channel_close(s->cc, s->out);
	channel_conn_close(s->cc);
}

static int session_closes;

static void session_close(void *arg)
{
	__atomic_add_fetch(&session_closes, 1, __ATOMIC_SEQ_CST);
	free(arg);
}

static void exec(struct http_stream *stream)
{
	static const char *const ws[] = { "v5.channel.k8s.io", "v4.channel.k8s.io",
		"base64.channel.k8s.io", "SPDY/3.1+portforward.k8s.io", NULL };
	static const char *const spdy[] = { "v4.channel.k8s.io", "v3.channel.k8s.io", NULL };
	struct session *s = xcalloc(1, sizeof(*s));
	const char *protocol;
	struct err err;
	const struct channel_events events = { session_open, session_data, session_channel_close,
		session_close, s };

	*s = (struct session){ .in = 0, .out = 1, .error = 3 };
	if (http_upgrade_channels(stream, ws, spdy, &events, &s->cc, &protocol, &err) < 0) {
		http_respond(stream, 400, NULL, 0, arena_strz(http_stream_arena(stream), err.text),
			NULL, NULL);
		free(s);
		return;
	}
	channel_on_drain(s->cc, session_drain, s);
}

static void exec_later(struct http_stream *s, void *arg)
{
	exec(s);
}

static void log_more(struct http_stream *s, void *arg)
{
	static const char line[1000] = { [0 ... 998] = 'l', '\n' };
	size_t *left = arg;

	while (*left && http_stream_pending(s) < 64 * 1024) {
		http_stream_write(s, str_n(line, sizeof(line)), NULL, NULL);
		--*left;
	}
	if (!*left)
		http_stream_end(s);
}

static void endless_gone(struct http_stream *s, void *arg)
{
	__atomic_add_fetch(&session_closes, 1, __ATOMIC_SEQ_CST);
}

static void backend(void *arg, struct http_stream *s)
{
	const struct http_request *r = http_stream_request(s);

	if (str_eqz(r->path, "/exec")) {
		/* What the client sends meanwhile must wait. */
		http_stream_post(s, exec_later, NULL);
	} else if (str_eqz(r->path, "/logs")) {
		size_t *left = arena_alloc(http_stream_arena(s), sizeof(*left));
		struct http_header h = { STR("x-from"), http_request_header(r, "x-extra") };

		*left = 5000;
		http_stream_begin(s, 200, &h, 1);
		http_stream_on_drain(s, log_more, left);
		log_more(s, left);
	} else if (str_eqz(r->path, "/endless")) {
		http_stream_on_close(s, endless_gone, NULL);
		http_stream_begin(s, 200, NULL, 0);
		http_stream_write(s, STR("begun"), NULL, NULL);
	} else if (http_request_header(r, "authorization").p) {
		http_respond(
			s, 500, NULL, 0, STR("the client's credentials came through"), NULL, NULL);
	} else {
		http_respond(s, 403, NULL, 0, STR("not for you"), NULL, NULL);
	}
}

static struct http_client *to_backend;

static void frontend(void *arg, struct http_stream *s)
{
	const struct http_request *r = http_stream_request(s);
	const struct http_header extra = { STR("x-extra"), STR("added") };

	if (r->upgrade)
		http_tunnel(s, to_backend, r->path, &extra, 1);
	else
		http_forward(s, to_backend, r->path, &extra, 1);
}

/* ---- a client on a bare socket ---- */

static int dial(struct test_server *t)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)http_server_port(t->server)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

static void send_all(int fd, struct str s)
{
	while (s.len) {
		ssize_t n = send(fd, s.p, s.len, MSG_NOSIGNAL);

		assert_true(n > 0);
		s = str_from(s, (size_t)n);
	}
}

/* Reads up to the end of the head; what lies behind it stays in *rest. */
static char *read_head(int fd, struct buf *rest)
{
	CLEAN_BUF struct buf b = { 0 };
	char *end = NULL;

	while (!end) {
		buf_reserve(&b, 4096);
		ssize_t n = recv(fd, b.p + b.len, 4096, 0);

		assert_true(n > 0);
		b.len += (size_t)n;
		b.p[b.len] = '\0';
		end = strstr(b.p, "\r\n\r\n");
	}
	buf_add(rest, end + 4, b.len - (size_t)(end + 4 - b.p));
	return xstrndup(b.p, (size_t)(end + 4 - b.p));
}

struct echo {
	struct buf out[256];
	int close_code;
	uint32_t fins;
};

static int ws_message(void *arg, int opcode, struct str payload)
{
	struct echo *e = arg;

	if (opcode == WS_CLOSE)
		e->close_code = (unsigned char)payload.p[0] << 8 | (unsigned char)payload.p[1];
	else if (opcode == WS_PONG)
		buf_add_str(&e->out[254], payload);
	else
		buf_add(&e->out[(unsigned char)payload.p[0]], payload.p + 1, payload.len - 1);
	return 0;
}

static void echo_deinit(struct echo *e)
{
	for (size_t i = 0; i < ARRAY_LEN(e->out); i++)
		buf_deinit(&e->out[i]);
}

static void ws_request(int fd, const char *protocols)
{
	CLEAN_FREE char *text = xasprintf(
		"GET /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		"Sec-WebSocket-Protocol: %s\r\n\r\n",
		protocols);

	send_all(fd, str_of(text));
}

static void ws_send(int fd, int opcode, struct str payload)
{
	CLEAN_BUF struct buf b = { 0 };

	websocket_frame(&b, true, opcode, payload);
	send_all(fd, buf_str(&b));
}

static void ws_read_to_end(int fd, struct echo *e, const struct buf *rest)
{
	struct websocket w;
	char bytes[16384];
	struct err err = { "" };
	ssize_t n;

	websocket_init(&w, true, 10000000);
	w.on_message = ws_message;
	w.arg = e;
	assert_int_equal(websocket_feed(&w, rest->p, rest->len, &err), 0);
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		if (websocket_feed(&w, bytes, (size_t)n, &err) < 0)
			fail_msg("%s", err.text);
	assert_int_equal(n, 0);
	websocket_deinit(&w);
}

static void websocket_session(struct test_server *t)
{
	struct echo e = { 0 };
	CLEAN_BUF struct buf rest = { 0 };
	CLEAN_FREE char *large = xcalloc(1, 1000001);
	int fd = dial(t);

	ws_request(fd, "v4.channel.k8s.io, v5.channel.k8s.io");
	/* Before the answer: it must not be lost. */
	ws_send(fd, WS_BINARY, str_n("\0early ", 7));
	CLEAN_FREE char *head = read_head(fd, &rest);

	assert_non_null(strstr(head, "HTTP/1.1 101 "));
	assert_non_null(strcasestr(head, "sec-websocket-protocol: v5.channel.k8s.io\r\n"));
	assert_non_null(strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
	ws_send(fd, WS_PING, STR("are you there"));
	ws_send(fd, WS_BINARY, str_n("\0hello", 6));
	ws_send(fd, WS_BINARY, str_n(large, 1000001));
	ws_send(fd, WS_BINARY, str_n("\xff\0", 2));
	ws_read_to_end(fd, &e, &rest);
	assert_int_equal(e.out[1].len, 11 + 1000000);
	assert_memory_equal(e.out[1].p, "early hello", 11);
	assert_string_equal(e.out[3].p, "{\"status\":\"Success\"}");
	assert_string_equal(e.out[254].p, "are you there");
	assert_memory_equal(e.out[255].p, "\1", 1);
	assert_int_equal(e.close_code, 1000);
	echo_deinit(&e);
	close(fd);
}

static void websocket_direct(void **state)
{
	struct test_server t;

	test_server_start(&t, false, (struct http_handler){ .on_request = backend });
	websocket_session(&t);
	test_server_stop(&t);
}

static void websocket_base64(void **state)
{
	struct test_server t;
	struct echo e = { 0 };
	CLEAN_BUF struct buf rest = { 0 };
	int fd;

	test_server_start(&t, false, (struct http_handler){ .on_request = backend });
	fd = dial(&t);
	ws_request(fd, "base64.channel.k8s.io");
	ws_send(fd, WS_TEXT, STR("0aGVsbG8="));
	ws_send(fd, WS_TEXT, STR("0???"));
	CLEAN_FREE char *head = read_head(fd, &rest);

	ws_read_to_end(fd, &e, &rest);
	assert_string_equal(e.out['1'].p, "aGVsbG8=");
	assert_int_equal(e.close_code, 1003);
	echo_deinit(&e);
	close(fd);
	fd = dial(&t);
	ws_request(fd, "v9.channel.k8s.io");
	CLEAN_FREE char *refusal = read_head(fd, &rest);

	assert_non_null(strstr(refusal, "HTTP/1.1 400 "));
	close(fd);
	test_server_stop(&t);
}

/* ---- SPDY ---- */

static int spdy_reply(void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n)
{
	return 0;
}

static int spdy_data(void *arg, uint32_t id, bool fin, struct str bytes)
{
	struct echo *e = arg;

	buf_add_str(&e->out[id], bytes);
	e->fins += fin;
	return 0;
}

static int spdy_ping(void *arg, uint32_t id)
{
	struct echo *e = arg;

	buf_addf(&e->out[255], "%u", id);
	return 0;
}

static const struct spdy_events spdy_client_events = {
	.on_syn_reply = spdy_reply, .on_data = spdy_data, .on_ping = spdy_ping
};

static int wrapped_message(void *arg, int opcode, struct str payload)
{
	return opcode == WS_BINARY ? spdy_feed(arg, payload.p, payload.len, NULL) : 0;
}

/* SPDY inside of WebSocket messages, which break its frames anywhere. */
static void wrapped_session(void **state)
{
	static const struct http_header types[] = { { STR("streamtype"), STR("error") },
		{ STR("streamtype"), STR("stdin") }, { STR("streamtype"), STR("stdout") } };
	CLEAN_BUF struct buf rest = { 0 }, out = { 0 };
	struct test_server t;
	struct echo e = { 0 };
	struct spdy *s = spdy_new(&spdy_client_events, &e);
	struct websocket w;
	struct err err = { "" };
	char bytes[16384];
	ssize_t n;

	test_server_start(&t, false, (struct http_handler){ .on_request = backend });
	int fd = dial(&t);

	ws_request(fd, "SPDY/3.1+portforward.k8s.io");
	CLEAN_FREE char *head = read_head(fd, &rest);

	assert_non_null(
		strcasestr(head, "sec-websocket-protocol: SPDY/3.1+portforward.k8s.io\r\n"));
	for (uint32_t i = 0; i < 3; i++)
		spdy_put_headers(s, &out, SPDY_SYN_STREAM, i * 2 + 1, false, &types[i], 1);
	spdy_put_data(&out, 3, true, STR("hello"));
	for (size_t at = 0; at < out.len; at += 7)
		ws_send(fd, WS_BINARY, str_n(out.p + at, MIN((size_t)7, out.len - at)));
	websocket_init(&w, true, 100000);
	w.on_message = wrapped_message;
	w.arg = s;
	assert_int_equal(websocket_feed(&w, rest.p, rest.len, &err), 0);
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		assert_int_equal(websocket_feed(&w, bytes, (size_t)n, &err), 0);
	assert_string_equal(e.out[5].p, "hello");
	assert_string_equal(e.out[1].p, "{\"status\":\"Success\"}");
	websocket_deinit(&w);
	spdy_free(s);
	echo_deinit(&e);
	close(fd);
	test_server_stop(&t);
}

static void spdy_session(struct test_server *t)
{
	static const struct http_header types[] = { { STR("streamtype"), STR("error") },
		{ STR("streamtype"), STR("stdin") }, { STR("streamtype"), STR("stdout") } };
	CLEAN_BUF struct buf rest = { 0 }, out = { 0 };
	CLEAN_FREE char *large = xcalloc(1, 1000000);
	struct echo e = { 0 };
	struct spdy *s = spdy_new(&spdy_client_events, &e);
	struct err err = { "" };
	char bytes[16384];
	ssize_t n;
	int fd = dial(t);

	send_all(fd,
		STR("POST /exec HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
		    "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n"));
	CLEAN_FREE char *head = read_head(fd, &rest);

	assert_non_null(strstr(head, "HTTP/1.1 101 "));
	assert_non_null(strcasestr(head, "upgrade: SPDY/3.1\r\n"));
	assert_non_null(strcasestr(head, "x-stream-protocol-version: v4.channel.k8s.io\r\n"));
	for (uint32_t i = 0; i < 3; i++)
		spdy_put_headers(s, &out, SPDY_SYN_STREAM, i * 2 + 1, false, &types[i], 1);
	spdy_put_ping(&out, 1);
	spdy_put_data(&out, 3, false, str_n(large, 1000000));
	spdy_put_data(&out, 3, true, STR("the end"));
	send_all(fd, buf_str(&out));
	assert_int_equal(spdy_feed(s, rest.p, rest.len, &err), 0);
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		if (spdy_feed(s, bytes, (size_t)n, &err) < 0)
			fail_msg("%s", err.text);
	assert_int_equal(n, 0);
	assert_string_equal(e.out[1].p, "{\"status\":\"Success\"}");
	assert_int_equal(e.out[5].len, 1000007);
	assert_string_equal(e.out[5].p + 1000000, "the end");
	assert_string_equal(e.out[255].p, "1");
	assert_int_equal(e.fins, 1);
	spdy_free(s);
	echo_deinit(&e);
	close(fd);
}

static void spdy_direct(void **state)
{
	struct test_server t;

	test_server_start(&t, false, (struct http_handler){ .on_request = backend });
	spdy_session(&t);
	test_server_stop(&t);
}

/* ---- tunnels and forwarding ---- */

struct pair {
	struct test_server front, back;
};

static void pair_start(struct pair *p)
{
	test_server_start(&p->back, true, (struct http_handler){ .on_request = backend });
	to_backend = test_client(&p->back, true);
	test_server_start(&p->front, false, (struct http_handler){ .on_request = frontend });
}

static void pair_stop(struct pair *p)
{
	test_server_stop(&p->front);
	http_client_free(to_backend);
	test_server_stop(&p->back);
}

static void through_a_tunnel(void **state)
{
	struct pair p;
	CLEAN_BUF struct buf rest = { 0 };

	pair_start(&p);
	session_closes = 0;
	websocket_session(&p.front);
	spdy_session(&p.front);
	/* A refusal comes back as it is, and credentials stay here. */
	int fd = dial(&p.front);

	send_all(fd,
		STR("GET /other HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"));
	CLEAN_FREE char *head = read_head(fd, &rest);

	assert_non_null(strstr(head, "HTTP/1.1 403 "));
	while (rest.len < strlen("not for you")) {
		char bytes[64];
		ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

		assert_true(n > 0);
		buf_add(&rest, bytes, (size_t)n);
	}
	assert_string_equal(rest.p, "not for you");
	close(fd);
	/* A client that leaves ends the session behind. */
	fd = dial(&p.front);
	ws_request(fd, "v5.channel.k8s.io");
	CLEAN_FREE char *second = read_head(fd, &rest);

	close(fd);
	pair_stop(&p);
	assert_int_equal(session_closes, 3);
}

static void forwarding(void **state)
{
	struct pair p;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct http_reply r;
	struct http_reader *reader;
	struct err err = { "" };
	char bytes[5];

	pair_start(&p);
	session_closes = 0;
	struct http_client *c = test_client(&p.front, false);
	struct http_call k = { .method = STR("GET"), .target = STR("/logs") };

	assert_int_equal(http_client_call(c, &k, a, &r, &err), 0);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.body.len, 5000000);
	k.method = STR("POST");
	k.target = STR("/other");
	k.body = STR("body");
	assert_int_equal(http_client_call(c, &k, a, &r, &err), 0);
	assert_int_equal(r.status, 403);
	assert_true(str_eqz(r.body, "not for you"));
	k = (struct http_call){ .method = STR("GET"), .target = STR("/endless") };
	assert_int_equal(http_client_open(c, &k, a, &r, &reader, &err), 0);
	assert_int_equal(http_reader_read(reader, bytes, 5, &err), 5);
	http_reader_free(reader);
	http_client_free(c);
	pair_stop(&p);
	assert_int_equal(session_closes, 1);
}

static void nobody_there(void **state)
{
	struct pair p;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct http_reply r;
	struct err err = { "" };

	pair_start(&p);
	http_server_stop(p.back.server);
	p.back.server = NULL;
	struct http_client *c = test_client(&p.front, false);
	struct http_call k = { .method = STR("GET"), .target = STR("/logs") };

	assert_int_equal(http_client_call(c, &k, a, &r, &err), 0);
	assert_int_equal(r.status, 502);
	assert_true(str_find_str(r.body, STR("Connection refused")) > 0);
	assert_true(str_find_str(r.body, str_of(p.back.url)) > 0);
	const struct http_header upgrade[] = { { STR("connection"), STR("upgrade") },
		{ STR("upgrade"), STR("websocket") } };

	k.headers = upgrade;
	k.n_headers = 2;
	assert_int_equal(http_client_call(c, &k, a, &r, &err), 0);
	assert_int_equal(r.status, 502);
	http_client_free(c);
	pair_stop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(websocket_direct),
		cmocka_unit_test(websocket_base64),
		cmocka_unit_test(spdy_direct),
		cmocka_unit_test(wrapped_session),
		cmocka_unit_test(through_a_tunnel),
		cmocka_unit_test(forwarding),
		cmocka_unit_test(nobody_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
