/* HTTP/1.1 messages without sockets: byte at a time, pipelined, chunked, at their bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "net/internal.h"

static struct arena *arena;

static int begin(void **state)
{
	arena = arena_new(0);
	return 0;
}

static int end(void **state)
{
	arena_free(arena);
	return 0;
}

/* Feeds in pieces of `step` bytes until the message ends; returns the bytes taken, or -status. */
static ssize_t feed(
	struct http1 *h, struct message *m, struct str bytes, size_t step, size_t body_max)
{
	size_t at = 0;

	message_init(m, arena, body_max);
	http1_start(h, m);
	while (at < bytes.len) {
		size_t taken;
		int r = http1_feed(h, bytes.p + at, MIN(step, bytes.len - at), &taken);

		at += taken;
		if (r < 0)
			return -h->error_status;
		if (r == HTTP1_DONE)
			return (ssize_t)at;
	}
	return 0;
}

static void any_pieces(void **state)
{
	const struct str bytes = STR(
		"POST /api/v1/pods?limit=5 HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Long:  some value \t\r\n"
		"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: no\r\n\r\nGET");

	for (size_t step = 1; step <= bytes.len; step++) {
		struct message m;
		struct http1 h;

		http1_init(&h, false);
		assert_int_equal(feed(&h, &m, bytes, step, 100), bytes.len - 3);
		assert_string_equal(m.method.p, "POST");
		assert_string_equal(m.target.p, "/api/v1/pods?limit=5");
		assert_int_equal(m.n_headers, 4);
		assert_string_equal(m.headers[2].name.p, "x-long");
		assert_string_equal(m.headers[2].value.p, "some value");
		assert_int_equal(message_header(&m, "x-empty").len, 0);
		assert_non_null(message_header(&m, "x-empty").p);
		assert_null(message_header(&m, "x-none").p);
		assert_int_equal(m.body_len, 11);
		assert_string_equal(m.body, "hello world");
		assert_true(http1_keep_alive(&h));
	}
}

static void pipelined(void **state)
{
	const struct str bytes = STR(
		"GET /1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET /3 HTTP/1.0\r\n\r\n");
	struct str rest = bytes;
	struct message m;
	struct http1 h;
	static const char *const targets[] = { "/1", "/2", "/3" };

	http1_init(&h, false);
	for (size_t i = 0; i < 3; i++) {
		ssize_t n = feed(&h, &m, rest, 1000, 100);

		assert_true(n > 0);
		assert_string_equal(m.target.p, targets[i]);
		assert_int_equal(http1_keep_alive(&h), i < 2);
		rest = str_from(rest, (size_t)n);
	}
	assert_int_equal(rest.len, 0);
}

static void upgrades(void **state)
{
	struct message m;
	struct http1 h;
	struct str ws =
		STR("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nFRAME");
	struct str h2c = STR("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");

	http1_init(&h, false);
	assert_int_equal(feed(&h, &m, ws, 1000, 100), ws.len - 5);
	assert_true(h.parser.upgrade);
	http1_init(&h, false);
	assert_int_equal(feed(&h, &m, h2c, 1000, 100), h2c.len);
	assert_false(h.parser.upgrade);
	assert_true(http1_keep_alive(&h));
}

static void bounds(void **state)
{
	struct message m;
	struct http1 h;
	CLEAN_BUF struct buf big = { 0 };

	http1_init(&h, false);
	assert_int_equal(
		feed(&h, &m, STR("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), 1000, 5), 42);
	http1_init(&h, false);
	assert_int_equal(
		feed(&h, &m, STR("PUT / HTTP/1.1\r\nContent-Length: 6\r\n\r\n"), 1000, 5), -413);
	http1_init(&h, false);
	assert_int_equal(
		feed(&h, &m,
			STR("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n"),
			1000, 5),
		-413);
	http1_init(&h, false);
	assert_int_equal(
		feed(&h, &m,
			STR("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n"),
			1000, 5),
		-400);
	buf_addz(&big, "GET /");
	for (int i = 0; i < 66000; i++)
		buf_addc(&big, 'x');
	http1_init(&h, false);
	assert_int_equal(feed(&h, &m, buf_str(&big), 1000, 5), -431);
	buf_clear(&big);
	/* Many short headers cost more than their bytes. */
	buf_addz(&big, "GET / HTTP/1.1\r\n");
	for (int i = 0; i < 14000; i++)
		buf_addz(&big, "a:\r\n");
	http1_init(&h, false);
	assert_int_equal(feed(&h, &m, buf_str(&big), 1000, 5), -431);
}

static void bad(void **state)
{
	/* clang-format off */
	static const struct { const char *bytes; int status; } rows[] = {
		{ "BREW / HTTP/1.1\r\n\r\n", 501 }, { "GET  HTTP/1.1\r\n\r\n", 400 }, { "GET / HTTP/x.1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nBad Name: v\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400 }, { "GET / HTTP/1.1\r\n: v\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400 }, { "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nA: b\x01\r\n\r\n", 400 }, { "CONNECT a:1 HTTP/1.1\r\n\r\n", 405 },
	};
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (size_t step = 1; step < 100; step += 98) {
			struct message m;
			struct http1 h;

			http1_init(&h, false);
			ssize_t r = feed(&h, &m, str_of(rows[i].bytes), step, 100);

			if (r != -rows[i].status)
				fail_msg("%s: %zd", rows[i].bytes, r);
			assert_non_null(h.error_text);
		}
}

static void answers(void **state)
{
	struct message m;
	struct http1 h;
	size_t taken;
	struct str bytes = STR(
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");

	for (size_t step = 1; step < bytes.len; step++) {
		http1_init(&h, true);
		assert_int_equal(feed(&h, &m, bytes, step, 100), bytes.len);
		assert_int_equal(m.status, 404);
		assert_int_equal(m.n_headers, 1);
		assert_true(str_eqz(m.reason, "Not Found"));
		assert_string_equal(m.body, "no");
	}
	/* Without a length the end of the connection is the end of the body. */
	http1_init(&h, true);
	assert_int_equal(feed(&h, &m, STR("HTTP/1.1 200 OK\r\n\r\nall of it"), 1000, 100), 0);
	assert_int_equal(http1_feed(&h, NULL, 0, &taken), HTTP1_DONE);
	assert_string_equal(m.body, "all of it");
	assert_false(http1_keep_alive(&h));
	/* With one, it is not. */
	http1_init(&h, true);
	assert_int_equal(
		feed(&h, &m, STR("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nall"), 1000, 100), 0);
	assert_true(http1_feed(&h, NULL, 0, &taken) < 0);
	/* An answer to HEAD has none. */
	http1_init(&h, true);
	h.bodyless = true;
	assert_int_equal(
		feed(&h, &m, STR("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), 1000, 100), 38);
	assert_true(http1_keep_alive(&h));
	http1_init(&h, true);
	assert_int_equal(
		feed(&h, &m,
			STR("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nzz"),
			1000, 100),
		59);
}

static void urls(void **state)
{
	struct str out, key, value, rest = STR("a=1&&b=x%20y+z&c&d=%zz&e=%2");
	CLEAN_BUF struct buf encoded = { 0 };

	assert_int_equal(url_decode(STR("/a%2Fb%41+"), false, arena, &out), 0);
	assert_string_equal(out.p, "/a/bA+");
	assert_int_equal(url_decode(STR("a%4"), false, arena, &out), -EBADMSG);
	assert_int_equal(url_decode(STR("%"), false, arena, &out), -EBADMSG);
	assert_int_equal(url_decode(STR("%g0"), false, arena, &out), -EBADMSG);
	assert_true(url_query_next(&rest, arena, &key, &value));
	assert_true(str_eqz(key, "a") && str_eqz(value, "1"));
	assert_true(url_query_next(&rest, arena, &key, &value));
	assert_true(str_eqz(key, "b") && str_eqz(value, "x y z"));
	assert_true(url_query_next(&rest, arena, &key, &value));
	assert_true(str_eqz(key, "c") && value.len == 0);
	assert_false(url_query_next(&rest, arena, &key, &value));
	url_encode(&encoded, STR("a b/c=\xc3\xa9~"));
	assert_string_equal(encoded.p, "a%20b%2Fc%3D%C3%A9~");
}

static int releases;

static void released(void *arg)
{
	releases++;
}

static void queues(void **state)
{
	struct sendq q;
	CLEAN_BUF struct buf want = { 0 }, got = { 0 };
	static char large[20000];

	sendq_init(&q);
	for (int i = 0; i < 300; i++) {
		char c = (char)('a' + i % 26);

		memset(large, 'L', sizeof(large));
		if (i % 3 == 0)
			sendq_add(&q, str_n(large, sizeof(large)), released, NULL);
		else
			sendq_copy(&q, &c, 1);
		buf_add(&want, i % 3 == 0 ? large : &c, i % 3 == 0 ? sizeof(large) : 1);
		/* Taken more slowly than added, then faster. */
		for (int j = 0; j < i / 100; j++) {
			struct str p = sendq_peek(&q);
			size_t n = MIN(p.len, (size_t)7000);

			buf_add(&got, p.p, n);
			if (n)
				sendq_take(&q, n);
		}
	}
	while (q.len) {
		struct str p = sendq_peek(&q);

		buf_add_str(&got, p);
		sendq_take(&q, p.len);
	}
	assert_int_equal(got.len, want.len);
	assert_memory_equal(got.p, want.p, want.len);
	assert_int_equal(releases, 100);
	sendq_add(&q, str_n(large, sizeof(large)), released, NULL);
	sendq_add(&q, STR("small"), released, NULL);
	assert_int_equal(releases, 101);
	sendq_deinit(&q);
	assert_int_equal(releases, 102);
}

int main(void)
{
#define ARENA_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		ARENA_TEST(any_pieces),
		ARENA_TEST(pipelined),
		ARENA_TEST(upgrades),
		ARENA_TEST(bounds),
		ARENA_TEST(bad),
		ARENA_TEST(answers),
		ARENA_TEST(urls),
		ARENA_TEST(queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
