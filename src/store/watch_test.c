/* Cursors over the log: each event once and in order, quiet cursors never fall off, wakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "base/values.h"
#include "store/internal.h"
#include "store/store_test.h"

static uint64_t seed = 7;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(seed >> 33) % n;
}

static struct store *open_memory(uint64_t history)
{
	struct store_config c = { .backend = "memory" };
	return test_open(&c, history);
}

static int write_on(struct store *s, int verb, const char *key, const char *node)
{
	struct object_pair field = { STR("spec.nodeName"), str_of(node) };
	struct store_op op = { .verb = (__typeof__(op.verb))verb,
		.key = str_of(key),
		.json_head = STR("{\""),
		.json_tail = STR("\"}"),
		.fields = &field,
		.n_fields = 1 };
	return store_write(s, &op, NULL);
}

static void count_wake(void *arg)
{
	atomic_fetch_add((_Atomic int *)arg, 1);
}

static void assert_next(struct store_watch *w, uint64_t revision, enum store_event_type type)
{
	struct store_event *ev;
	assert_int_equal(store_watch_next(w, &ev), 0);
	assert_int_equal(ev->revision, revision);
	assert_int_equal(ev->type, type);
}

static void assert_end(struct store_watch *w)
{
	struct store_event *ev;
	assert_int_equal(store_watch_next(w, &ev), STORE_NOT_FOUND);
}

static void wakes_once_for_what_it_wants(void **state)
{
	struct store *s = open_memory(0);
	_Atomic int wakes = 0;
	struct store_watch *w;
	assert_int_equal(store_watch(s, STR("/a/"), 0, count_wake, &wakes, &w), 0);
	write_on(s, STORE_CREATE, "/b/1", "n");
	assert_int_equal(wakes, 0);
	assert_end(w);
	assert_int_equal(store_watch_revision(w), 2);
	write_on(s, STORE_CREATE, "/a/1", "n");
	write_on(s, STORE_CREATE, "/a/2", "n");
	assert_int_equal(wakes, 1);
	assert_int_equal(store_watch_revision(w), 2);
	assert_next(w, 3, STORE_ADDED);
	assert_int_equal(store_watch_revision(w), 3);
	assert_next(w, 4, STORE_ADDED);
	assert_end(w);
	write_on(s, STORE_UPDATE, "/b/1", "n");
	assert_int_equal(wakes, 1);
	write_on(s, STORE_DELETE, "/a/1", "n");
	assert_int_equal(wakes, 2);
	assert_next(w, 6, STORE_DELETED);
	assert_end(w);
	store_watch_close(w);
	write_on(s, STORE_UPDATE, "/a/2", "n");
	assert_int_equal(wakes, 2);
	assert_int_equal(s->log.groups.len, 0);
	store_close(s);
}

static void by_field_sees_arrival_and_departure(void **state)
{
	struct store *s = open_memory(0);
	_Atomic int wakes = 0;
	struct store_watch *w;
	struct object_pair n1 = { STR("spec.nodeName"), STR("n1") };
	assert_int_equal(store_watch_field(s, STR("/pods/"), n1, 0, count_wake, &wakes, &w), 0);
	write_on(s, STORE_CREATE, "/pods/d/a", "");
	write_on(s, STORE_CREATE, "/pods/d/b", "n2");
	write_on(s, STORE_CREATE, "/other/d/b", "n1");
	assert_int_equal(wakes, 0);
	assert_end(w);
	write_on(s, STORE_UPDATE, "/pods/d/a", "n1");
	assert_int_equal(wakes, 1);
	write_on(s, STORE_UPDATE, "/pods/d/a", "n3");
	write_on(s, STORE_UPDATE, "/pods/d/a", "n4");
	write_on(s, STORE_CREATE, "/pods/e/c", "n1");
	assert_next(w, 5, STORE_MODIFIED);
	assert_next(w, 6, STORE_MODIFIED);
	assert_next(w, 8, STORE_ADDED);
	assert_end(w);
	store_watch_close(w);
	assert_int_equal(s->log.groups.len, 0);
	store_close(s);
}

static void falls_off_only_when_it_missed_something(void **state)
{
	struct store *s = open_memory(50);
	struct store_watch *quiet, *slow, *late;
	char key[32];
	assert_int_equal(store_watch(s, STR("/quiet/"), 0, test_wake_nothing, NULL, &quiet), 0);
	assert_int_equal(store_watch(s, STR("/busy/"), 0, test_wake_nothing, NULL, &slow), 0);
	assert_end(quiet);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "/busy/%d", i);
		write_on(s, STORE_CREATE, key, "n");
	}
	struct store_event *ev;
	assert_int_equal(store_watch_next(slow, &ev), STORE_COMPACTED);
	assert_int_equal(store_watch_next(slow, &ev), STORE_COMPACTED);
	assert_end(quiet);
	assert_int_equal(store_watch_revision(quiet), 201);
	write_on(s, STORE_CREATE, "/quiet/1", "n");
	assert_next(quiet, 202, STORE_ADDED);
	assert_end(quiet);

	struct store_stats st;
	store_stats(s, &st);
	assert_int_equal(st.oldest_event, 202 - 50 + 1);
	assert_int_equal(
		store_watch(s, STR("/"), st.oldest_event - 2, test_wake_nothing, NULL, &late),
		STORE_COMPACTED);
	assert_int_equal(store_watch(s, STR("/"), st.revision + 1, test_wake_nothing, NULL, &late),
		STORE_COMPACTED);
	assert_int_equal(
		store_watch(s, STR("/"), st.oldest_event - 1, test_wake_nothing, NULL, &late), 0);
	for (uint64_t r = st.oldest_event; r <= st.revision; r++)
		assert_next(late, r, STORE_ADDED);
	assert_end(late);
	store_watch_close(late);
	store_watch_close(slow);
	store_watch_close(quiet);
	store_close(s);
}

static uint64_t held(struct store *s)
{
	struct store_stats st;
	store_stats(s, &st);
	return st.revision - st.oldest_event + 1;
}

/* All but the newest `but`. */
static void make_older(struct store *s, size_t but, uint32_t seconds)
{
	pthread_mutex_lock(&s->log.lock);
	for (uint64_t i = s->log.first; i + but < s->log.end; i++)
		s->log.ring[i % s->log.cap]->age_s -= seconds;
	pthread_mutex_unlock(&s->log.lock);
}

/* A client that pages on for minutes is told that its list is of long ago, also where hardly anything happens. */
static void what_was_replaced_long_ago_is_gone(void **state)
{
	struct store *s = open_memory(1000);

	write_on(s, STORE_CREATE, "/a/1", "n");
	uint64_t first = store_revision(s);
	write_on(s, STORE_CREATE, "/a/2", "n");
	struct store_snapshot *sn = store_snapshot_at(s, first);
	assert_int_equal(store_snapshot_count(sn, STR("/a/"), STR_NONE), 1);
	store_snapshot_free(sn);
	make_older(s, 0, 301);
	assert_null(store_snapshot_at(s, first));
	sn = store_snapshot_at(s, store_revision(s));
	assert_int_equal(store_snapshot_count(sn, STR("/a/"), STR_NONE), 2);
	store_snapshot_free(sn);
	store_close(s);
}

static void old_and_heavy_events_go_early(void **state)
{
	struct store *s = open_memory(1000);
	char key[32];
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "/a/%d", i);
		write_on(s, STORE_CREATE, key, "n");
	}
	assert_int_equal(held(s), 200);
	make_older(s, 10, 301);
	write_on(s, STORE_CREATE, "/a/x", "n");
	assert_int_equal(held(s), 1000 / 50);

	CLEAN_FREE char *megabyte = xcalloc(1, (1 << 20) + 1);
	memset(megabyte, ' ', 1 << 20);
	struct store_op op = { .verb = STORE_UPDATE,
		.key = STR("/a/x"),
		.json_head = STR("{\""),
		.json_tail = str_of(megabyte) };
	for (int i = 0; i < 100; i++)
		assert_int_equal(store_write(s, &op, NULL), 0);
	assert_in_range(held(s), 101, 121); /* all fresh */
	make_older(s, 50, 76);
	assert_int_equal(store_write(s, &op, NULL), 0);
	assert_int_equal(
		held(s), 51); /* more than the 32 MB of those that are not, and all that are */
	make_older(s, 10, 76);
	assert_int_equal(store_write(s, &op, NULL), 0);
	assert_in_range(held(s), 28, 33);
	for (int i = 0; i < 250; i++)
		assert_int_equal(store_write(s, &op, NULL), 0);
	assert_in_range(held(s), 185, 192);
	store_close(s);
}

static struct store_form *form(const char *text)
{
	size_t len = strlen(text);
	struct store_form *f = xmalloc(sizeof(*f) + len + 1);
	f->len = len;
	memcpy(f->bytes, text, len + 1);
	return f;
}

/* Before an event goes, or can be asked for no more, its encoded form does, unless somebody reads it. */
static void what_was_sent_goes_first(void **state)
{
	struct store *s = open_memory(1000);
	struct store_watch *w;
	struct store_event *ev, *read = NULL;

	for (int i = 0; i < 40; i++)
		write_on(s, i ? STORE_UPDATE : STORE_CREATE, "/a", "n");
	assert_int_equal(store_watch(s, STR("/"), 1, test_wake_nothing, NULL, &w), 0);
	size_t bare = s->log.bytes;
	for (int i = 0; store_watch_next(w, &ev) == 0; i++) {
		struct store_form *f = xmalloc(sizeof(*f) + (1 << 20));
		f->len = 1 << 20;
		store_event_keep_proto(ev, f);
		read = i == 20 ? store_event_ref(ev) : read;
	}
	store_watch_close(w);
	write_on(s, STORE_UPDATE, "/a", "n");
	assert_in_range(s->log.bytes, 40 << 20, 41 << 20); /* just sent */
	make_older(s, 0, 6);
	write_on(s, STORE_UPDATE, "/a", "n");
	assert_in_range(s->log.bytes, 31 << 20, 32 << 20);
	for (int i = 0; i < 32; i++) {
		struct store_op op = { .verb = STORE_UPDATE, .key = STR("/b") };
		op.verb = i ? STORE_UPDATE : STORE_CREATE;
		CLEAN_FREE char *megabyte = xcalloc(1, (1 << 20) + 1);
		memset(megabyte, ' ', 1 << 20);
		op.json_head = STR("{\"");
		op.json_tail = str_of(megabyte);
		assert_int_equal(store_write(s, &op, NULL), 0);
	}
	assert_int_equal(held(s), 74);
	assert_in_range(s->log.bytes, (32 << 20) + bare, 33 << 20);
	assert_int_equal(read->proto->len, 1 << 20);
	assert_null(s->log.ring[(s->log.end - 40) % s->log.cap]->proto);
	store_event_unref(read);
	store_close(s);
}

/* Also when nothing is written any more. */
static void old_events_go_by_themselves(void **state)
{
	struct store *s = open_memory(1000);
	struct store_watch *w;
	struct store_event *ev;
	struct revisions dropped = { 0 };
	uint64_t now_s = mono_now_ns() / 1000000000;
	char key[32];

	assert_int_equal(store_watch(s, STR("/"), 0, test_wake_nothing, NULL, &w), 0);
	assert_int_equal(log_expire(&s->log, now_s + 301, &dropped), 0);
	for (int i = 0; i < 18; i++) {
		snprintf(key, sizeof(key), "/a/%d", i);
		write_on(s, STORE_CREATE, key, "n");
	}
	write_on(s, STORE_UPDATE, "/a/0", "n");
	write_on(s, STORE_DELETE, "/a/1", "n");
	assert_int_equal(log_expire(&s->log, now_s + 302, &dropped), 0);
	assert_int_equal(held(s), 1000 / 50);
	/* What watchers were sent counts too. */
	while (store_watch_next(w, &ev) == 0) {
		struct store_form *f = xmalloc(sizeof(*f) + 200000);
		f->len = 200000;
		store_event_keep_proto(ev, f);
	}
	assert_in_range(s->log.bytes, 4000000, 4100000);
	assert_in_range(log_expire(&s->log, now_s, &dropped), 300, 302);
	assert_int_equal(held(s), 20);
	assert_in_range(log_expire(&s->log, now_s + 295, &dropped), 10, 11);
	assert_int_equal(log_expire(&s->log, now_s + 303, &dropped), 0);
	assert_int_equal(held(s), 10);
	assert_in_range(s->log.bytes, 2000000, 2 << 20);
	assert_int_equal(dropped.len, 0);
	store_watch_close(w);
	revisions_clear(&dropped);
	store_close(s);
}

/* Clients that page slowly keep no more of what was replaced than is bearable. */
static void kept_snapshots_are_bounded_by_what_they_hold(void **state)
{
	struct store *s = open_memory(1);
	CLEAN_FREE char *megabyte = xcalloc(1, (1 << 20) + 1);
	uint64_t revision = 0;

	memset(megabyte, ' ', 1 << 20);
	struct store_op op = { .verb = STORE_CREATE,
		.key = STR("/a"),
		.json_head = STR("{\""),
		.json_tail = str_of(megabyte) };
	for (int i = 0; i < 50; i++) {
		assert_int_equal(store_write(s, &op, NULL), 0);
		op.verb = STORE_UPDATE;
		struct store_snapshot *sn = store_snapshot(s);
		store_snapshot_keep(sn);
		revision = i == 49 - 29 ? store_snapshot_revision(sn) : revision;
		store_snapshot_free(sn);
	}
	assert_in_range(s->n_kept, 30, 33);
	assert_in_range(s->garbage_bytes, 29 << 20, 32 << 20);
	struct store_snapshot *sn = store_snapshot_at(s, revision);
	assert_non_null(sn);
	store_snapshot_free(sn);
	assert_null(store_snapshot_at(s, revision - 10));
	store_close(s);
}

static void an_event_outlives_its_cursor(void **state)
{
	struct store *s = open_memory(1);
	struct store_watch *w;
	struct store_event *ev;
	assert_int_equal(store_watch(s, STR(""), 0, test_wake_nothing, NULL, &w), 0);
	write_on(s, STORE_CREATE, "/a", "n");
	assert_int_equal(store_watch_next(w, &ev), 0);
	store_event_ref(ev);
	struct store_form *first = form("first");
	assert_ptr_equal(store_event_keep_proto(ev, first), first);
	assert_ptr_equal(store_event_keep_proto(ev, form("second")), first);
	store_watch_close(w);
	write_on(s, STORE_UPDATE, "/a", "n");
	write_on(s, STORE_UPDATE, "/a", "n");
	store_close(s);
	assert_string_equal(ev->proto->bytes, "first");
	assert_string_equal(ev->object->key.p, "/a");
	store_event_unref(ev);
}

/* Random writes over folders of differing depth; random cursors, drained at random times, against the list of all writes. */
enum { WRITES = 20000, CURSORS = 40 };
struct written {
	char key[24], node[4], before[4];
};
static struct written all[WRITES + 2];

static bool model_wants(const struct written *x, const char *prefix, const char *node)
{
	return !strncmp(x->key, prefix, strlen(prefix)) &&
		(!*node || !strcmp(x->node, node) || !strcmp(x->before, node));
}

struct cursor {
	struct store_watch *w;
	const char *prefix, *node;
	uint64_t at; /* all up to this revision were checked */
};

static void cursor_drain(struct cursor *c, uint64_t upto, int limit)
{
	struct store_event *ev;
	while (limit-- > 0) {
		int r = store_watch_next(c->w, &ev);
		uint64_t next = r ? upto + 1 : ev->revision;
		for (uint64_t v = c->at + 1; v < next; v++)
			assert_false(model_wants(&all[v], c->prefix, c->node));
		c->at = MIN(next, upto);
		if (r) {
			assert_int_equal(r, STORE_NOT_FOUND);
			return;
		}
		assert_true(model_wants(&all[next], c->prefix, c->node));
		assert_string_equal(ev->object->key.p, all[next].key);
		assert_int_equal(store_watch_revision(c->w), next);
	}
}

static void random_cursors(void **state)
{
	static const char *const prefixes[] = { "", "/", "/a/", "/a/b/", "/a/b/3", "/c/b/",
		"/c/b/1", "/zz/" };
	static const char *const nodes[] = { "", "", "n1", "n2" };
	struct store *s = open_memory(WRITES);
	struct cursor cursors[CURSORS] = { 0 };
	for (uint64_t v = 2; v < WRITES + 2; v++) {
		struct written *x = &all[v];
		snprintf(x->key, sizeof(x->key), "/%c/%c/%u", "ac"[rnd(2)], "bd"[rnd(2)], rnd(20));
		snprintf(x->node, sizeof(x->node), "n%u", rnd(4));
		CLEAN_OBJECT struct object *was = NULL;
		bool there = store_get(s, str_of(x->key), &was) == 0;
		int verb = !there ? STORE_CREATE : rnd(3) ? STORE_UPDATE : STORE_DELETE;
		if (was)
			strcpy(x->before, was->fields[0].value.p);
		assert_int_equal(write_on(s, verb, x->key, x->node), 0);
		struct cursor *c = &cursors[rnd(CURSORS)];
		if (rnd(50) == 0 || !c->w) {
			store_watch_close(c->w);
			c->prefix = prefixes[rnd(ARRAY_LEN(prefixes))];
			c->node = nodes[rnd(ARRAY_LEN(nodes))];
			c->at = rnd(2) ? v : 1 + rnd((uint32_t)v);
			struct object_pair f = { *c->node ? STR("spec.nodeName") : STR_NONE,
				str_of(c->node) };
			assert_int_equal(store_watch_field(s, str_of(c->prefix), f, c->at,
						 test_wake_nothing, NULL, &c->w),
				0);
		}
		cursor_drain(c, v, rnd(3) ? 1000000 : (int)rnd(30));
	}
	for (int i = 0; i < CURSORS; i++) {
		cursor_drain(&cursors[i], WRITES + 1, 1000000);
		store_watch_close(cursors[i].w);
	}
	assert_int_equal(s->log.groups.len, 0);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wakes_once_for_what_it_wants),
		cmocka_unit_test(by_field_sees_arrival_and_departure),
		cmocka_unit_test(falls_off_only_when_it_missed_something),
		cmocka_unit_test(what_was_replaced_long_ago_is_gone),
		cmocka_unit_test(old_and_heavy_events_go_early),
		cmocka_unit_test(what_was_sent_goes_first),
		cmocka_unit_test(old_events_go_by_themselves),
		cmocka_unit_test(kept_snapshots_are_bounded_by_what_they_hold),
		cmocka_unit_test(an_event_outlives_its_cursor),
		cmocka_unit_test(random_cursors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
