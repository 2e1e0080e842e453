/* A client without sockets keeps the promises of the wire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "net/net.h"

/* Says who asked and what; /stream answers in pieces. */
static void on_request(void *arg, struct http_stream *s)
{
	const struct http_request *r = http_stream_request(s);
	struct arena *a = http_stream_arena(s);

	if (str_eqz(r->path, "/stream")) {
		http_stream_begin(s, 200, NULL, 0);
		for (int i = 0; i < 3; i++)
			http_stream_write(s, arena_fmt(a, "piece %d\n", i), NULL, NULL);
		http_stream_end(s);
		return;
	}
	http_respond(s, 200, NULL, 0,
		arena_fmt(a, STR_FMT " " STR_FMT " %s/%s " STR_FMT, STR_ARG(r->method),
			STR_ARG(r->path), r->peer ? r->peer->common_name.p : "-",
			r->peer && r->peer->n_organizations ? r->peer->organizations[0].p : "-",
			STR_ARG(r->body)),
		NULL, NULL);
}

struct fixture {
	struct loop *loop;
	struct http_client *named, *anonymous;
	struct arena *a;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct http_handler h = { on_request, NULL };
	struct tls_identity who = { .common_name = STR("system:someone"),
		.organizations = { STR("group") },
		.n_organizations = 1 };
	struct err err;

	f->a = arena_new(0);
	assert_int_equal(loop_new("test", &f->loop, &err), 0);
	assert_int_equal(loop_start(f->loop, &err), 0);
	assert_int_equal(http_client_new_local(f->loop, &h, &who, &f->named), 0);
	assert_int_equal(http_client_new_local(f->loop, &h, NULL, &f->anonymous), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_client_free(f->named);
	http_client_free(f->anonymous);
	loop_stop(f->loop);
	loop_join(f->loop);
	loop_free(f->loop);
	arena_free(f->a);
	free(f);
	return 0;
}

static void expect(struct fixture *f, struct http_client *c, const char *body, const char *answer)
{
	struct http_call call = {
		.method = STR("POST"), .target = STR("/x"), .body = str_of(body)
	};
	struct http_reply reply;
	struct err err = { 0 };

	if (http_client_call(c, &call, f->a, &reply, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(reply.status, 200);
	assert_string_equal(arena_str(f->a, reply.body).p, answer);
}

static void calls_carry_who_asks(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++) /* the connection is kept */
		expect(f, f->named, "hello", "POST /x system:someone/group hello");
	expect(f, f->anonymous, "hello", "POST /x -/- hello");
}

static void answers_in_pieces(void **state)
{
	struct fixture *f = *state;
	struct http_call call = { .method = STR("GET"), .target = STR("/stream") };
	CLEAN_BUF struct buf got = { 0 };
	struct http_reader *r;
	struct http_reply head;
	struct err err = { 0 };
	char bytes[5];
	ssize_t n;

	assert_int_equal(http_client_open(f->named, &call, f->a, &head, &r, &err), 0);
	while ((n = http_reader_read(r, bytes, sizeof(bytes), &err)) > 0)
		buf_add(&got, bytes, (size_t)n);
	assert_int_equal(n, 0);
	assert_string_equal(got.p, "piece 0\npiece 1\npiece 2\n");
	http_reader_free(r);
}

static void targets_keep_to_their_line(void **state)
{
	static const char *const bad[] = { "/x HTTP/1.1\r\nhost: a\r\n\r\nGET /y", "/x\n", "/x y" };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct http_call call = { .method = STR("GET"), .target = str_of(bad[i]) };
		struct http_reply reply;
		struct http_reader *r;

		assert_int_equal(http_client_call(f->named, &call, f->a, &reply, NULL), -EINVAL);
		assert_int_equal(
			http_client_open(f->named, &call, f->a, &reply, &r, NULL), -EINVAL);
	}
	const struct http_header odd[] = { { STR("x"), STR("1\r\n\r\nPUT /token HTTP/1.1") },
		{ STR("x: 1\r\ny"), STR("1") }, { STR(""), STR("1") } };

	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		struct http_call call = { .method = STR("GET"),
			.target = STR("/x"),
			.headers = &odd[i],
			.n_headers = 1 };
		struct http_reply reply;

		assert_int_equal(http_client_call(f->named, &call, f->a, &reply, NULL), -EINVAL);
	}
	expect(f, f->named, "hello", "POST /x system:someone/group hello");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(calls_carry_who_asks, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(targets_keep_to_their_line, setup, teardown),
	};

	return cmocka_run_group_tests_name("net local", tests, NULL, NULL);
}
