/* Watches as clients read them: frames, order, bookmarks, selectors, tables, protobuf, old versions, ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "apiserver/fixture.h"

static struct fixture f;

static int setup(void **state)
{
	fixture_start(&f);
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(&f);
	return 0;
}

#define CM "/api/v1/namespaces/default/configmaps"

struct reader {
	struct http_reader *r;
	struct http_reply head;
	struct buf got;
};

static struct reader open_watch(const char *target, const char *accept)
{
	struct reader w = { 0 };
	struct err err = { 0 };
	struct http_call call = { .method = STR("GET"),
		.target = str_of(target),
		.accept = str_of(accept ? accept : "application/json"),
		.timeout_ms = 20000 };
	if (http_client_open(f.admin, &call, f.arena, &w.head, &w.r, &err) < 0)
		fail_msg("%s: %s", target, err.text);
	return w;
}

static void close_watch(struct reader *w)
{
	http_reader_cancel(w->r);
	http_reader_free(w->r);
	buf_deinit(&w->got);
}

static bool more(struct reader *w)
{
	char chunk[8192];
	struct err err = { 0 };
	ssize_t n = http_reader_read(w->r, chunk, sizeof(chunk), &err);
	if (n < 0)
		fail_msg("watch broke: %s", err.text);
	buf_add(&w->got, chunk, (size_t)n);
	return n > 0;
}

/* The next line; p NULL: the stream ended. */
static struct str next_line(struct reader *w)
{
	ssize_t at;
	while ((at = str_find(buf_str(&w->got), '\n')) < 0)
		if (!more(w))
			return STR_NONE;
	struct str line = arena_str(f.arena, str_n(w->got.p, (size_t)at));
	memmove(w->got.p, w->got.p + at + 1, w->got.len - (size_t)at - 1);
	w->got.len -= (size_t)at + 1;
	return line;
}

static void expect_line(struct reader *w, const char *a, const char *b)
{
	struct str line = next_line(w);
	if (!has(line, a) || !has(line, b))
		fail_msg("%s and %s in " STR_FMT, a, b, STR_ARG(line));
}

static void test_order(void **state)
{
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"a\"}}");
	struct reader w = open_watch(CM "?watch=1", NULL);
	assert_int_equal(w.head.status, 200);
	expect_line(&w, "{\"type\":\"ADDED\",\"object\":{\"kind\":\"ConfigMap\"", "\"name\":\"a\"");
	for (int i = 0; i < 200; i++) {
		CLEAN_FREE char *body =
			xasprintf("{\"metadata\":{\"name\":\"a\"},\"data\":{\"i\":\"%d\"}}", i);
		expect(&f, 200, "PUT", CM "/a", body);
	}
	for (int i = 0; i < 200; i++) {
		CLEAN_FREE char *want = xasprintf("{\"i\":\"%d\"}", i);
		expect_line(&w, "{\"type\":\"MODIFIED\"", want);
	}
	expect(&f, 200, "DELETE", CM "/a", NULL);
	expect_line(&w, "{\"type\":\"DELETED\"", "\"name\":\"a\"");
	close_watch(&w);
}

static struct str version_now(void)
{
	struct answer a = expect(&f, 200, "GET", CM, NULL);
	struct str rv = json_member(json_member(a.body, STR("metadata")), STR("resourceVersion"));
	return str_n(rv.p + 1, rv.len - 2);
}

static void test_from_version(void **state)
{
	struct str rv = version_now();
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"b\",\"labels\":{\"x\":\"1\"}}}");
	struct reader w = open_watch(
		arena_fmt(f.arena, CM "?watch=true&labelSelector=x&resourceVersion=" STR_FMT,
			STR_ARG(rv))
			.p,
		NULL);
	expect_line(&w, "ADDED", "\"name\":\"b\"");
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"unlabelled\"}}");
	expect(&f, 200, "PUT", CM "/b", "{\"metadata\":{\"name\":\"b\"}}");
	expect_line(&w, "DELETED", "\"name\":\"b\""); /* left the selector */
	close_watch(&w);
	expect(&f, 200, "DELETE", CM, NULL);
}

static void test_initial_events(void **state)
{
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"i1\"}}");
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"i2\"}}");
	struct reader w = open_watch(CM
		"?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion=",
		NULL);
	expect_line(&w, "ADDED", "\"i1\"");
	expect_line(&w, "ADDED", "\"i2\"");
	expect_line(&w, "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"ConfigMap\"",
		"\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}");
	expect(&f, 200, "DELETE", CM "/i1", NULL);
	expect_line(&w, "DELETED", "\"i1\"");
	close_watch(&w);
	w = open_watch("/api/v1/watch/namespaces/default/configmaps/i2",
		NULL); /* the old way to watch one */
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"i1\"}}");
	expect(&f, 200, "DELETE", CM "/i1", NULL);
	expect(&f, 200, "PUT", CM "/i2", "{\"metadata\":{\"name\":\"i2\"},\"data\":{\"a\":\"b\"}}");
	expect_line(&w, "ADDED", "\"i2\"");
	expect_line(&w, "MODIFIED", "\"i2\"");
	close_watch(&w);
	/* nothing there: the bookmark comes all the same */
	w = open_watch(
		"/api/v1/namespaces/default/secrets?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan",
		NULL);
	expect_line(&w, "BOOKMARK", "initial-events-end");
	close_watch(&w);
	struct answer a = expect(&f, 422, "GET", CM "?watch=1&sendInitialEvents=true", NULL);
	assert_true(has(a.body, "resourceVersionMatch"));
}

/* More than a turn's worth, more than a slow reader takes at once: all of it comes, in order, then the mark. */
static void test_many_initial_events(void **state)
{
	CLEAN_FREE char *pad = xcalloc(1, 20001);
	memset(pad, 'x', 20000);
	for (int i = 0; i < 150; i++) {
		CLEAN_FREE char *body = xasprintf(
			"{\"metadata\":{\"name\":\"big-%03d\"},\"data\":{\"k\":\"%s\"}}", i, pad);
		expect(&f, 201, "POST", "/api/v1/namespaces/kube-public/configmaps", body);
	}
	struct reader w = open_watch(
		"/api/v1/namespaces/kube-public/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&"
		"resourceVersionMatch=NotOlderThan",
		NULL);
	for (int i = 0; i < 150; i++) {
		CLEAN_FREE char *name = xasprintf("\"name\":\"big-%03d\"", i);
		expect_line(&w, "{\"type\":\"ADDED\"", name);
	}
	expect_line(&w, "BOOKMARK", "initial-events-end");
	close_watch(&w);
	expect(&f, 200, "DELETE", "/api/v1/namespaces/kube-public/configmaps", NULL);
}

static void test_views(void **state)
{
	struct reader w = open_watch(CM "?watch=1", "application/json;as=Table;v=v1;g=meta.k8s.io");
	expect_line(&w, "\"columnDefinitions\":[{\"name\":\"Name\"", "\"cells\":[\"i2\"");
	expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"i3\"}}");
	expect_line(&w, "\"columnDefinitions\":null", "\"cells\":[\"i3\"");
	close_watch(&w);
	w = open_watch(CM "?watch=1&fieldSelector=metadata.name%3Di3",
		"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
	expect_line(&w, "{\"type\":\"ADDED\",\"object\":{\"kind\":\"PartialObjectMetadata\"", "i3");
	close_watch(&w);
}

static void test_protobuf(void **state)
{
	struct reader w = open_watch(CM "?watch=1&fieldSelector=metadata.name%3Di3",
		"application/vnd.kubernetes.protobuf");
	struct err err = { 0 };
	void *decoded;
	while (w.got.len < 4)
		more(&w);
	size_t n = (size_t)(unsigned char)w.got.p[2] << 8 | (unsigned char)w.got.p[3];
	while (w.got.len < 4 + n)
		more(&w);
	assert_int_equal(w.got.len, 4 + n);
	/* WatchEvent bare, the object in it with its envelope */
	assert_memory_equal(w.got.p + 4,
		"\x0a\x05"
		"ADDED",
		7);
	ssize_t at = str_find_str(buf_str(&w.got), str_n("k8s\0", 4));
	assert_true(at > 0);
	struct proto_envelope e;
	assert_int_equal(proto_open(str_from(buf_str(&w.got), (size_t)at), &e, &err), 0);
	assert_int_equal(proto_decode(&core_v1_config_map_type, e.raw, f.arena, &decoded, &err), 0);
	assert_true(str_eqz(((struct core_v1_config_map *)decoded)->metadata.name, "i3"));
	close_watch(&w);
}

static void test_too_old_and_too_new(void **state)
{
	struct reader w = open_watch(CM "?watch=1&resourceVersion=1&timeoutSeconds=1", NULL);
	assert_int_equal(
		w.head.status, 200); /* the log still holds it, or says so inside the stream */
	close_watch(&w);
	struct answer a = ask(&f, "GET", CM "?watch=1&resourceVersion=99999999", NULL);
	assert_int_equal(a.code, 504);
	assert_true(has(a.body, "Too large resource version"));
	a = ask(&f, "GET", CM "?watch=1&resourceVersion=abc", NULL);
	assert_int_equal(a.code, 422);
}

/* A watch ends by itself when its time is up. */
static void test_timeout(void **state)
{
	struct reader w = open_watch(
		"/api/v1/namespaces/default/secrets?watch=1&timeoutSeconds=1&resourceVersion=0",
		NULL);
	assert_null(next_line(&w).p);
	close_watch(&w);
}

/* Stopping the server ends watches at once. */
static void test_stop(void **state)
{
	struct fixture g;
	fixture_start(&g);
	struct http_reader *r;
	struct http_reply head;
	struct err err = { 0 };
	struct http_call call = {
		.method = STR("GET"), .target = STR("/api/v1/secrets?watch=1"), .timeout_ms = 20000
	};
	assert_int_equal(http_client_open(g.admin, &call, g.arena, &head, &r, &err), 0);
	uint64_t before = mono_now_ns();
	apiserver_stop(g.server);
	char c;
	assert_int_equal(http_reader_read(r, &c, 1, &err), 0);
	assert_true(mono_now_ns() - before < 3000000000ull);
	http_reader_free(r);
	fixture_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_from_version),
		cmocka_unit_test(test_initial_events),
		cmocka_unit_test(test_many_initial_events),
		cmocka_unit_test(test_views),
		cmocka_unit_test(test_protobuf),
		cmocka_unit_test(test_too_old_and_too_new),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_stop),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
