/* The store as its users see it: outcomes, lists, snapshots, restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/store_test.h"

static int put(struct store *s, int verb, const char *key, uint64_t expect, const char *text,
	struct object **ret)
{
	CLEAN_FREE char *tail = xasprintf("\",\"x\":\"%s\"}", text);
	struct store_op op = { .verb = verb,
		.key = str_of(key),
		.expect = expect,
		.json_head = STR("{\"rv\":\""),
		.json_tail = str_of(tail) };
	return store_write(s, &op, ret);
}

static void outcomes(void **state)
{
	struct store *s = test_open(*state, 0);
	CLEAN_OBJECT struct object *a = NULL, *b = NULL, *c = NULL, *d = NULL, *e = NULL, *f = NULL,
				   *got = NULL;
	assert_int_equal(store_revision(s), 1);
	assert_int_equal(put(s, STORE_CREATE, "/a/x", 0, "1", &a), 0);
	assert_string_equal(a->json.p, "{\"rv\":\"2\",\"x\":\"1\"}");
	assert_int_equal(put(s, STORE_CREATE, "/a/x", 0, "2", &b), STORE_EXISTS);
	assert_ptr_equal(a, b);
	assert_int_equal(put(s, STORE_UPDATE, "/a/x", 7, "3", &c), STORE_CONFLICT);
	assert_ptr_equal(c, a);
	assert_int_equal(put(s, STORE_UPDATE, "/a/y", 0, "3", NULL), STORE_NOT_FOUND);
	assert_int_equal(put(s, STORE_DELETE, "/a/y", 0, "3", NULL), STORE_NOT_FOUND);
	assert_int_equal(put(s, STORE_UPDATE, "/a/x", 2, "4", &d), 0);
	assert_int_equal(d->revision, 3);
	assert_int_equal(d->create_revision, 2);
	assert_int_equal(store_get(s, STR("/a/x"), &got), 0);
	assert_ptr_equal(got, d);
	assert_int_equal(put(s, STORE_DELETE, "/a/x", 2, "5", NULL), STORE_CONFLICT);
	assert_int_equal(put(s, STORE_DELETE, "/a/x", 3, "5", &e), 0);
	assert_string_equal(e->json.p, "{\"rv\":\"4\",\"x\":\"5\"}");
	assert_int_equal(e->create_revision, 2);
	assert_int_equal(store_get(s, STR("/a/x"), &f), STORE_NOT_FOUND);
	assert_int_equal(store_revision(s), 4);
	struct store_stats st;
	store_stats(s, &st);
	assert_int_equal(st.objects, 0);
	assert_int_equal(st.bytes, 0);
	assert_int_equal(st.writes, 3);
	store_close(s);
}

static bool collect(void *arg, struct object *o)
{
	buf_add_str(arg, o->key);
	buf_addc(arg, ' ');
	return true;
}

static bool collect_versions(void *arg, struct object *o)
{
	buf_addf(arg, STR_FMT "@%llu ", STR_ARG(o->key), (unsigned long long)o->revision);
	return true;
}

static void lists_by_prefix(void **state)
{
	struct store *s = test_open(*state, 0);
	static const char *const keys[] = { "/b/2", "/a/1", "/b/1", "/c/1", "/b/3", "/bb/1" };
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_int_equal(put(s, STORE_CREATE, keys[i], 0, "", NULL), 0);
	struct store_snapshot *sn = store_snapshot(s);
	assert_int_equal(put(s, STORE_DELETE, "/b/2", 0, "", NULL), 0);
	assert_int_equal(put(s, STORE_CREATE, "/b/4", 0, "", NULL), 0);
	CLEAN_BUF struct buf all = { 0 }, from = { 0 }, now = { 0 };
	store_snapshot_each(sn, STR("/b/"), STR_NONE, collect, &all);
	assert_string_equal(all.p, "/b/1 /b/2 /b/3 ");
	store_snapshot_each(sn, STR("/b/"), STR("/b/2"), collect, &from);
	assert_string_equal(from.p, "/b/2 /b/3 ");
	assert_int_equal(store_snapshot_count(sn, STR("/b/"), STR_NONE), 3);
	assert_int_equal(store_snapshot_count(sn, STR("/b/"), STR("/b/2")), 2);
	assert_int_equal(store_snapshot_count(sn, STR(""), STR_NONE), 6);
	assert_int_equal(store_snapshot_count(sn, STR("/z/"), STR_NONE), 0);
	assert_int_equal(store_snapshot_revision(sn), 7);
	assert_non_null(store_snapshot_get(sn, STR("/b/2")));
	store_snapshot_keep(sn);
	struct store_snapshot *kept = store_snapshot_at(s, 7);
	assert_ptr_equal(kept, sn);
	store_snapshot_free(kept);
	store_snapshot_free(sn);
	sn = store_snapshot_at(s, store_revision(s));
	store_snapshot_each(sn, STR("/b/"), STR_NONE, collect, &now);
	assert_string_equal(now.p, "/b/1 /b/3 /b/4 ");
	store_snapshot_free(sn);
	store_close(s);
}

/* Kept snapshots outlive the log; others are rebuilt from it while it reaches back. */
static void older_revisions(void **state)
{
	enum { HISTORY = 100 };
	struct store *s = test_open(*state, HISTORY);
	struct store_snapshot *was[HISTORY + 1] = { 0 };
	uint64_t seed = 3;
	for (int i = 0; i < 2000; i++) {
		char key[32];
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		snprintf(key, sizeof(key), "/k/%d", (int)(seed >> 58));
		if (put(s, STORE_CREATE, key, 0, "", NULL) == STORE_EXISTS)
			assert_int_equal(put(s, seed >> 40 & 1 ? STORE_UPDATE : STORE_DELETE, key,
						 0, "", NULL),
				0);
		struct store_snapshot **slot = &was[store_revision(s) % (HISTORY + 1)];
		store_snapshot_free(*slot);
		*slot = store_snapshot(s);
		if (i % 20 != 0 || i < HISTORY)
			continue;
		for (uint64_t v = store_revision(s) - HISTORY; v <= store_revision(s); v++) {
			CLEAN_BUF struct buf expected = { 0 }, rebuilt = { 0 };
			struct store_snapshot *sn = store_snapshot_at(s, v);
			assert_int_equal(store_snapshot_revision(sn), v);
			store_snapshot_each(was[v % (HISTORY + 1)], STR("/"), STR_NONE,
				collect_versions, &expected);
			store_snapshot_each(sn, STR("/"), STR_NONE, collect_versions, &rebuilt);
			assert_true(str_eq(buf_str(&expected), buf_str(&rebuilt)));
			store_snapshot_free(sn);
		}
		assert_null(store_snapshot_at(s, store_revision(s) - HISTORY - 1));
		assert_null(store_snapshot_at(s, store_revision(s) + 1));
	}
	uint64_t oldest = store_revision(s) - HISTORY;
	store_snapshot_keep(was[oldest % (HISTORY + 1)]);
	struct store_snapshot *rebuilt = store_snapshot_at(s, oldest + 1);
	store_snapshot_keep(rebuilt);
	store_snapshot_free(rebuilt);
	for (size_t i = 0; i < ARRAY_LEN(was); i++)
		store_snapshot_free(was[i]);
	for (int i = 0; i < HISTORY; i++)
		put(s, STORE_CREATE, "/other", 0, "", NULL),
			put(s, STORE_DELETE, "/other", 0, "", NULL);
	for (uint64_t v = oldest; v <= oldest + 1; v++) {
		struct store_snapshot *sn = store_snapshot_at(s, v);
		assert_int_equal(store_snapshot_revision(sn), v);
		store_snapshot_free(sn);
	}
	assert_null(store_snapshot_at(s, oldest + 2));
	store_close(s);
}

static void restart(void **state)
{
	struct store *s = test_open(*state, 0);
	struct object_pair label = { STR("app"), STR("web") },
			   field = { STR("spec.nodeName"), STR("n1") };
	struct store_op op = { .verb = STORE_CREATE,
		.key = STR("/p/a"),
		.json_head = STR("{\"rv\":\""),
		.json_tail = STR("\"}"),
		.labels = &label,
		.n_labels = 1,
		.fields = &field,
		.n_fields = 1 };
	assert_int_equal(store_write(s, &op, NULL), 0);
	assert_int_equal(put(s, STORE_CREATE, "/p/b", 0, "b", NULL), 0);
	assert_int_equal(put(s, STORE_UPDATE, "/p/b", 0, "bb", NULL), 0);
	assert_int_equal(put(s, STORE_DELETE, "/p/b", 0, "bbb", NULL), 0);
	store_close(s);
	s = test_open(*state, 0);
	if (!strcmp(((struct store_config *)*state)->backend, "memory")) {
		store_close(s);
		return;
	}
	assert_int_equal(store_revision(s), 5);
	CLEAN_OBJECT struct object *a = NULL, *b = NULL;
	assert_int_equal(store_get(s, STR("/p/a"), &a), 0);
	assert_string_equal(a->json.p, "{\"rv\":\"2\"}");
	assert_string_equal(a->labels[0].value.p, "web");
	assert_string_equal(a->fields[0].key.p, "spec.nodeName");
	assert_int_equal(a->create_revision, 2);
	assert_int_equal(store_get(s, STR("/p/b"), &b), STORE_NOT_FOUND);
	struct store_watch *w;
	assert_int_equal(store_watch(s, STR("/p/"), 3, test_wake_nothing, NULL, &w), 0);
	struct store_event *ev;
	assert_int_equal(store_watch_next(w, &ev), 0);
	assert_int_equal(ev->type, STORE_MODIFIED);
	assert_int_equal(ev->prev->revision, 3);
	assert_int_equal(store_watch_next(w, &ev), 0);
	assert_int_equal(ev->type, STORE_DELETED);
	assert_string_equal(ev->object->json.p, "{\"rv\":\"5\",\"x\":\"bbb\"}");
	assert_int_equal(store_watch_next(w, &ev), STORE_NOT_FOUND);
	assert_int_equal(store_watch_revision(w), 5);
	store_watch_close(w);
	store_close(s);
}

int main(void)
{
	struct store_config memory = { .backend = "memory" }, sqlite = { .backend = "sqlite" };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate_setup_teardown(
			outcomes, test_folder, test_folder_remove, &memory),
		cmocka_unit_test_prestate_setup_teardown(
			outcomes, test_folder, test_folder_remove, &sqlite),
		cmocka_unit_test_prestate_setup_teardown(
			lists_by_prefix, test_folder, test_folder_remove, &memory),
		cmocka_unit_test_prestate_setup_teardown(
			lists_by_prefix, test_folder, test_folder_remove, &sqlite),
		cmocka_unit_test_prestate_setup_teardown(
			older_revisions, test_folder, test_folder_remove, &memory),
		cmocka_unit_test_prestate_setup_teardown(
			restart, test_folder, test_folder_remove, &memory),
		cmocka_unit_test_prestate_setup_teardown(
			restart, test_folder, test_folder_remove, &sqlite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
