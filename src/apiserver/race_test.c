/* Many at once: clients on both loops that write, list, watch and change roles, while each sees what it must. For TSan more than for itself. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "apiserver/fixture.h"

static struct fixture f;

#define ROUNDS 60
#define WRITERS 4
#define CM "/api/v1/namespaces/default/configmaps"
#define BINDINGS "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"

static int call(struct http_client *c, const char *method, const char *target, const char *body,
	struct arena *a, struct str *ret_body)
{
	struct err err = { 0 };
	struct http_reply r;
	struct http_call k = { .method = str_of(method),
		.target = str_of(target),
		.body = str_of(body ? body : ""),
		.content_type = body ? STR("application/json") : STR_NONE,
		.accept = STR("application/json") };
	if (http_client_call(c, &k, a, &r, &err) < 0)
		return -1;
	if (ret_body)
		*ret_body = r.body;
	return r.status;
}

struct worker {
	pthread_t thread;
	int number, failures;
	_Atomic bool open; /* a watcher's */
};

/* Creates, lists, deletes its own object: it is in the list exactly while it is there. */
static void *writer(void *arg)
{
	struct worker *w = arg;
	struct arena *a = arena_new(0);
	struct http_client *c = f.admin;
	for (int i = 0; i < ROUNDS; i++) {
		arena_reset(a);
		struct str body, name = arena_fmt(a, "\"name\":\"w-%d-%d\"", w->number, i);
		w->failures +=
			call(c, "POST", CM,
				arena_fmt(a, "{\"metadata\":{" STR_FMT "}}", STR_ARG(name)).p, a,
				NULL) != 201;
		w->failures +=
			call(c, "GET", CM, NULL, a, &body) != 200 || str_find_str(body, name) < 0;
		w->failures += call(c, "DELETE", arena_fmt(a, CM "/w-%d-%d", w->number, i).p, NULL,
				       a, NULL) != 200;
		w->failures +=
			call(c, "GET", CM, NULL, a, &body) != 200 || str_find_str(body, name) >= 0;
	}
	arena_free(a);
	return NULL;
}

/* Grants and takes back: each holds for the request after it. */
static void *granter(void *arg)
{
	struct worker *w = arg;
	struct arena *a = arena_new(0);
	struct http_client *eve = fixture_client(&f, "eve", "");
	for (int i = 0; i < ROUNDS; i++) {
		arena_reset(a);
		w->failures +=
			call(f.admin, "POST", BINDINGS,
				"{\"metadata\":{\"name\":\"eve\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\","
				"\"kind\":\"ClusterRole\",\"name\":\"view\"},\"subjects\":[{\"kind\":\"User\",\"apiGroup\":\"rbac.authorization.k8s.io\","
				"\"name\":\"eve\"}]}",
				a, NULL) != 201;
		w->failures += call(eve, "GET", CM, NULL, a, NULL) != 200;
		w->failures += call(f.admin, "DELETE", BINDINGS "/eve", NULL, a, NULL) != 200;
		w->failures += call(eve, "GET", CM, NULL, a, NULL) != 403;
	}
	http_client_free(eve);
	arena_free(a);
	return NULL;
}

/* Reads a watch until every writer's last object was deleted; counts the events. */
static void *watcher(void *arg)
{
	struct worker *w = arg;
	struct arena *a = arena_new(0);
	struct err err = { 0 };
	struct http_reply head;
	struct http_reader *r;
	struct http_call k = { .method = STR("GET"),
		.target = STR(CM "?watch=1"),
		.accept = STR("application/json"),
		.timeout_ms = 30000 };
	int lines = 0, want = WRITERS * ROUNDS * 2;
	if (http_client_open(f.admin, &k, a, &head, &r, &err) < 0 || head.status != 200) {
		w->failures++;
		atomic_store(&w->open, true);
		return NULL;
	}
	atomic_store(&w->open, true);
	char chunk[4096];
	ssize_t n;
	while (lines < want && (n = http_reader_read(r, chunk, sizeof(chunk), &err)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += chunk[i] == '\n';
	w->failures += lines != want;
	http_reader_cancel(r);
	http_reader_free(r);
	arena_free(a);
	return NULL;
}

static void test_all_at_once(void **state)
{
	struct worker writers[WRITERS] = { 0 }, watchers[3] = { 0 }, grant = { 0 };
	int failures = 0;
	for (size_t i = 0; i < ARRAY_LEN(watchers); i++) {
		pthread_create(&watchers[i].thread, NULL, watcher, &watchers[i]);
		while (!atomic_load(&watchers[i].open))
			sched_yield();
	}
	pthread_create(&grant.thread, NULL, granter, &grant);
	for (int i = 0; i < WRITERS; i++) {
		writers[i].number = i;
		pthread_create(&writers[i].thread, NULL, writer, &writers[i]);
	}
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		failures += writers[i].failures;
	}
	pthread_join(grant.thread, NULL);
	for (size_t i = 0; i < ARRAY_LEN(watchers); i++) {
		pthread_join(watchers[i].thread, NULL);
		failures += watchers[i].failures;
	}
	assert_int_equal(grant.failures, 0);
	assert_int_equal(failures, 0);
}

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

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_all_at_once) };
	return cmocka_run_group_tests(tests, setup, teardown);
}
