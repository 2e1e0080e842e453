/* WebSocket and SPDY frames without sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "net/internal.h"

static struct buf heard;

static int forget(void **state)
{
	buf_deinit(&heard);
	return 0;
}

/* ---- WebSocket ---- */

static int on_message(void *arg, int opcode, struct str payload)
{
	if (payload.len > 100)
		buf_addf(&heard, "%d:%zu ", opcode, payload.len);
	else
		buf_addf(&heard, "%d:" STR_FMT " ", opcode, STR_ARG(payload));
	return str_eqz(payload, "stop") ? -ECANCELED : 0;
}

/* The error, or 0; what was heard is in `heard`. */
static int hear(bool client, struct str bytes, size_t step, uint16_t *ret_close)
{
	struct websocket w;
	struct err err;
	int r = 0;

	buf_clear(&heard);
	websocket_init(&w, client, 70000);
	w.on_message = on_message;
	for (size_t at = 0; r == 0 && at < bytes.len; at += step)
		r = websocket_feed(&w, bytes.p + at, MIN(step, bytes.len - at), &err);
	if (ret_close)
		*ret_close = w.close_code;
	websocket_deinit(&w);
	return r;
}

static void put_frame(struct buf *out, unsigned char first, const char *text)
{
	CLEAN_BUF struct buf b = { 0 };

	websocket_frame(&b, true, WS_TEXT, str_of(text));
	b.p[0] = (char)first;
	buf_add_str(out, buf_str(&b));
}

static void fragments(void **state)
{
	CLEAN_BUF struct buf b = { 0 };

	put_frame(&b, 0x02, "one ");
	put_frame(&b, 0x89, "ping");
	put_frame(&b, 0x00, "two ");
	put_frame(&b, 0x00, "");
	put_frame(&b, 0x80, "three");
	put_frame(&b, 0x81, "next");
	put_frame(&b, 0x82, "");
	put_frame(&b, 0x88, "");
	for (size_t step = 1; step <= b.len; step++) {
		assert_int_equal(hear(false, buf_str(&b), step, NULL), 0);
		assert_string_equal(heard.p, "9:ping 2:one two three 1:next 2: 8: ");
	}
}

static void lengths(void **state)
{
	static const size_t sizes[] = { 0, 1, 125, 126, 127, 65535, 65536, 70000 };
	CLEAN_FREE char *text = xcalloc(1, 70001);
	char want[32];
	uint16_t close_code;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (int client = 0; client < 2; client++) {
			CLEAN_BUF struct buf b = { 0 };

			memset(text, 'x', 70001);
			websocket_frame(&b, client, WS_BINARY, str_n(text, sizes[i]));
			assert_int_equal(hear(!client, buf_str(&b), 1000, NULL), 0);
			if (sizes[i] <= 100)
				snprintf(want, sizeof(want), "2:%.*s ", (int)sizes[i], text);
			else
				snprintf(want, sizeof(want), "2:%zu ", sizes[i]);
			assert_string_equal(heard.p, want);
		}
	CLEAN_BUF struct buf large = { 0 }, pieces = { 0 };

	websocket_frame(&large, true, WS_BINARY, str_n(text, 70001));
	assert_int_equal(hear(false, buf_str(&large), 1000, &close_code), -EFBIG);
	assert_int_equal(close_code, 1009);
	/* Also when it comes in fragments that are small enough. */
	for (int i = 0; i < 3; i++) {
		size_t start = pieces.len;

		websocket_frame(&pieces, true, WS_BINARY, str_n(text, 30000));
		pieces.p[start] = i ? 0x00 : 0x02;
	}
	assert_int_equal(hear(false, buf_str(&pieces), 1000, &close_code), -EFBIG);
}

static void violations(void **state)
{
	/* clang-format off */
	static const struct { bool client; struct str bytes; } rows[] = {
		{ false, STR("\x81\x01x") },              /* not masked */
		{ true, STR("\x81\x81\1\2\3\4x") },       /* masked by a server */
		{ false, STR("\xc1\x80\1\2\3\4") },       /* reserved bit */
		{ false, STR("\x83\x80\1\2\3\4") },       /* unknown opcode */
		{ false, STR("\x8b\x80\1\2\3\4") },       /* unknown control */
		{ false, STR("\x09\x80\1\2\3\4") },       /* fragmented ping */
		{ false, STR("\x89\xfe\x00\x7e\1\2\3\4") }, /* long ping */
		{ false, STR("\x80\x80\1\2\3\4") },       /* continuation of nothing */
		{ false, STR("\x02\x80\1\2\3\4\x82\x80\1\2\3\4") }, /* new message inside another */
	};
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint16_t close_code;

		assert_int_equal(hear(rows[i].client, rows[i].bytes, 100, &close_code), -EPROTO);
		assert_int_equal(close_code, 1002);
	}
	uint16_t close_code;

	assert_int_equal(hear(false, STR("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\2\3\4"), 1,
				 &close_code),
		-EFBIG);
	CLEAN_BUF struct buf b = { 0 };

	put_frame(&b, 0x81, "stop");
	put_frame(&b, 0x81, "unheard");
	assert_int_equal(hear(false, buf_str(&b), 1000, NULL), -ECANCELED);
	assert_string_equal(heard.p, "1:stop ");
}

static void accept_key(void **state)
{
	char out[29];

	/* The example of RFC 6455, 1.3. */
	websocket_accept_key(STR("dGhlIHNhbXBsZSBub25jZQ=="), out);
	assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/* ---- SPDY ---- */

static void note_headers(
	const char *what, uint32_t id, bool fin, const struct http_header *headers, size_t n)
{
	buf_addf(&heard, "%s%u%s", what, id, fin ? "!" : "");
	for (size_t i = 0; i < n; i++)
		buf_addf(&heard, " " STR_FMT "=" STR_FMT, STR_ARG(headers[i].name),
			STR_ARG(headers[i].value));
	buf_addz(&heard, "\n");
}

static int on_syn(void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n)
{
	note_headers("syn", id, fin, headers, n);
	return 0;
}

static int on_reply(void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n)
{
	note_headers("reply", id, fin, headers, n);
	return 0;
}

static int on_data(void *arg, uint32_t id, bool fin, struct str bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		buf_addf(&heard, "%u%c", id, bytes.p[i]);
	buf_addz(&heard, fin ? "!\n" : "");
	return 0;
}

static int on_rst(void *arg, uint32_t id, uint32_t status)
{
	buf_addf(&heard, "rst%u,%u\n", id, status);
	return 0;
}

static int on_ping(void *arg, uint32_t id)
{
	buf_addf(&heard, "ping%u\n", id);
	return 0;
}

static int on_goaway(void *arg, uint32_t last)
{
	buf_addf(&heard, "goaway%u\n", last);
	return 0;
}

static const struct spdy_events events = { .on_syn_stream = on_syn,
	.on_syn_reply = on_reply,
	.on_data = on_data,
	.on_rst = on_rst,
	.on_ping = on_ping,
	.on_goaway = on_goaway };

static void spdy_frames(void **state)
{
	const struct http_header stdin_type[] = { { STR("streamtype"), STR("stdin") },
		{ STR("x-empty"), STR("") } };
	struct spdy *out = spdy_new(&events, NULL);
	CLEAN_BUF struct buf b = { 0 };

	spdy_put_headers(out, &b, SPDY_SYN_STREAM, 1, false, stdin_type, 2);
	spdy_put_headers(out, &b, SPDY_HEADERS, 1, false, stdin_type,
		1); /* nobody listens, yet it must be unpacked */
	spdy_put_headers(out, &b, SPDY_SYN_REPLY, 1, false, NULL, 0);
	spdy_put_headers(out, &b, SPDY_SYN_STREAM, 3, true, stdin_type, 1);
	spdy_put_data(&b, 1, false, STR("ab"));
	spdy_put_data(&b, 1, true, STR("c"));
	spdy_put_data(&b, 3, true, STR_NONE);
	buf_add(&b, "\x80\x03\x00\x09\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x10\x00",
		16); /* window update */
	spdy_put_ping(&b, 7);
	spdy_put_rst(&b, 3, 5);
	spdy_put_goaway(&b, 3);
	for (size_t step = 1; step <= b.len; step++) {
		struct spdy *in = spdy_new(&events, NULL);
		struct err err = { "" };

		buf_clear(&heard);
		for (size_t at = 0; at < b.len; at += step)
			if (spdy_feed(in, b.p + at, MIN(step, b.len - at), &err) < 0)
				fail_msg("%s", err.text);
		assert_string_equal(heard.p,
			"syn1 streamtype=stdin x-empty=\nreply1\nsyn3! streamtype=stdin\n1a1b1c!\n!\n"
			"ping7\nrst3,5\ngoaway3\n");
		spdy_free(in);
	}
	spdy_free(out);
}

static void spdy_violations(void **state)
{
	/* clang-format off */
	static const struct { struct str bytes; int code; } rows[] = {
		{ STR("\x80\x02\x00\x01\x00\x00\x00\x00"), -EPROTO },          /* version 2 */
		{ STR("\x80\x03\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01"), -EPROTO }, /* too short */
		{ STR("\x80\x03\x00\x02\x00\x01\x00\x01"), -EFBIG },           /* too long */
		{ STR("\x80\x03\x00\x02\x00\x00\x00\x08\x00\x00\x00\x01junk"), -EPROTO }, /* not zlib */
	};
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct spdy *s = spdy_new(&events, NULL);
		struct err err = { "" };

		assert_int_equal(
			spdy_feed(s, rows[i].bytes.p, rows[i].bytes.len, &err), rows[i].code);
		assert_true(err.text[0]);
		spdy_free(s);
	}
	/* Headers that grow when unpacked. */
	struct spdy *out = spdy_new(&events, NULL), *in = spdy_new(&events, NULL);
	CLEAN_FREE char *zeros = xcalloc(1, 1000000);
	const struct http_header huge = { STR("x"), { zeros, 1000000 } };
	CLEAN_BUF struct buf b = { 0 };
	struct err err = { "" };

	spdy_put_headers(out, &b, SPDY_SYN_STREAM, 1, false, &huge, 1);
	assert_true(b.len < 20000);
	assert_int_equal(spdy_feed(in, b.p, b.len, &err), -EFBIG);
	spdy_free(in);
	spdy_free(out);
}

int main(void)
{
#define HEARD_TEST(f) cmocka_unit_test_teardown(f, forget)
	const struct CMUnitTest tests[] = {
		HEARD_TEST(fragments),
		HEARD_TEST(lengths),
		HEARD_TEST(violations),
		HEARD_TEST(accept_key),
		HEARD_TEST(spdy_frames),
		HEARD_TEST(spdy_violations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
