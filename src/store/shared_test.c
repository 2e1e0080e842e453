/* The shared store over a remote in memory that the test steps: answers and events come when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "base/map.h"
#include "base/values.h"
#include "store/store_test.h"

/* ---- a remote: what was written stands in a list by revision; nothing is told until asked for ---- */

struct written {
	void *token;
	int verb;
	char *key, *value;
	uint64_t expect;
};
struct remote {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct store *store;
	struct written writes[64];
	size_t n_writes;
	unsigned asks, follows;
	uint64_t followed, load_revision;
	struct store_remote_kv load[8];
	size_t n_load;
};

static int remote_load(void *arg, store_remote_each_fn each, void *each_arg, uint64_t *ret_revision,
	struct err *err)
{
	struct remote *r = arg;
	for (size_t i = 0; i < r->n_load; i++)
		each(each_arg, &r->load[i], err);
	*ret_revision = r->load_revision;
	return 0;
}

static void remote_follow(void *arg, struct store *s, uint64_t revision)
{
	struct remote *r = arg;
	pthread_mutex_lock(&r->lock);
	r->store = s;
	r->follows++;
	r->followed = revision;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static void remote_write(void *arg, struct store *s, const struct store_remote_write *w)
{
	struct remote *r = arg;
	pthread_mutex_lock(&r->lock);
	r->writes[r->n_writes++] = (struct written){ w->token, w->verb, str_dup(w->key),
		str_dup(w->value), w->expect };
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static void remote_ask(void *arg, struct store *s)
{
	struct remote *r = arg;
	pthread_mutex_lock(&r->lock);
	r->asks++;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static uint64_t remote_size(void *arg)
{
	return 0;
}

static unsigned hurried_ms;

static void remote_hurry(void *arg, unsigned within_ms)
{
	hurried_ms = within_ms;
}

static void remote_close(void *arg) {}

static const struct store_remote_type type = { remote_load, remote_follow, remote_write, remote_ask,
	remote_hurry, remote_size, remote_close };

/* "/a/x" <-> "/r/a/x"; the value is the JSON with "_" for the revision. */
static int decoded;

static bool key_out(void *arg, struct str key, struct buf *out)
{
	buf_addz(out, "/r");
	buf_add_str(out, key);
	return true;
}

static bool key_in(void *arg, struct str key, struct buf *out)
{
	if (!str_has_prefix(key, STR("/r/")))
		return false;
	buf_add_str(out, str_from(key, 2));
	return true;
}

static void cut(struct str json, struct str *ret_head, struct str *ret_tail)
{
	ssize_t at = str_find(json, ':'), end = str_find(json, ',');
	*ret_head = str_n(json.p, (size_t)at + 1);
	*ret_tail = str_from(json, (size_t)end);
}

static int value_out(void *arg, struct str key, struct str json, struct buf *out, struct err *err)
{
	struct str head, tail;
	cut(json, &head, &tail);
	buf_add_str(out, head);
	buf_addc(out, '_');
	buf_add_str(out, tail);
	return 0;
}

static int value_in(void *arg, struct str key, struct str value, struct arena *a,
	struct store_op *ret, struct err *err)
{
	struct str copy = arena_str(a, value);
	decoded++;
	if (str_find(value, '_') < 0)
		return err_set(err, -EBADMSG, "damaged");
	cut(copy, &ret->json_head, &ret->json_tail);
	return 0;
}

/* ---- the test's side ---- */

struct outcome {
	atomic_int done;
	int result;
	char json[64];
};

static void done(void *arg, int result, struct object *o)
{
	struct outcome *out = arg;
	out->result = result;
	if (o)
		snprintf(out->json, sizeof(out->json), STR_FMT, STR_ARG(o->json));
	atomic_store(&out->done, 1);
}

static void waited(void *arg, int result)
{
	done(arg, result, NULL);
}

static void until_done(struct outcome *o)
{
	for (int i = 0; i < 50000 && !atomic_load(&o->done); i++)
		usleep(100);
	assert_true(atomic_load(&o->done));
}

static struct store *open_on(struct remote *r, struct store_shared_config *shared)
{
	struct store_config c = { .backend = "shared", .shared = shared };
	struct store *s;
	struct err err = { 0 };
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	*shared = (struct store_shared_config){ &type, r,
		{ key_out, key_in, value_out, value_in, cut, NULL } };
	assert_int_equal(store_open(&c, &s, &err), 0);
	return s;
}

static void end(struct remote *r, struct store *s)
{
	store_close(s);
	for (size_t i = 0; i < r->n_writes; i++) {
		free(r->writes[i].key);
		free(r->writes[i].value);
	}
}

static struct store_op op(int verb, const char *key, uint64_t expect, const char *tail)
{
	return (struct store_op){ .verb = verb,
		.key = str_of(key),
		.expect = expect,
		.json_head = STR("{rv:"),
		.json_tail = str_of(tail) };
}

static void tell(
	struct store *s, const char *key, const char *value, uint64_t revision, uint64_t create)
{
	struct store_remote_kv kv = { .deleted = !value,
		.key = str_of(key),
		.value = str_of(value),
		.revision = revision,
		.create_revision = create };
	store_remote_events(s, &kv, 1, revision);
}

static void reach(struct store *s, uint64_t revision)
{
	struct outcome o = { 0 };
	store_wait(s, revision, 5000, waited, &o);
	until_done(&o);
	assert_int_equal(o.result, 0);
}

static void loads_and_follows(void **state)
{
	struct remote r = { .load_revision = 40,
		.n_load = 3,
		.load = { { .key = STR("/r/a/x"),
				  .value = STR("{rv:_,1}"),
				  .revision = 7,
				  .create_revision = 3 },
			{ .key = STR("/other/y"), .value = STR("?"), .revision = 8 },
			{ .key = STR("/r/a/bad"), .value = STR("?"), .revision = 9 } } };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	CLEAN_OBJECT struct object *o = NULL;
	assert_int_equal(store_revision(s), 40);
	assert_int_equal(store_get(s, STR("/a/x"), &o), 0);
	assert_string_equal(o->json.p, "{rv:7,1}");
	assert_int_equal(o->create_revision, 3);
	object_unref(TAKE(o));
	assert_int_equal(store_get(s, STR("/a/bad"), &o), STORE_NOT_FOUND);
	tell(s, "/r/a/x", "{rv:_,2}", 41, 3);
	tell(s, "/r/a/x", "{rv:_,again}", 41, 3); /* told twice: after a reconnect */
	reach(s, 41);
	assert_int_equal(store_get(s, STR("/a/x"), &o), 0);
	assert_string_equal(o->json.p, "{rv:41,2}");
	assert_int_equal(r.followed, 40);
	end(&r, s);
}

static void a_write_is_answered_when_its_event_came(void **state)
{
	for (int event_first = 0; event_first < 2; event_first++) {
		struct remote r = { .load_revision = 10 };
		struct store_shared_config shared;
		struct store *s = open_on(&r, &shared);
		struct outcome out = { 0 };
		struct store_op create = op(STORE_CREATE, "/a/x", 0, ",1}");
		decoded = 0;
		store_submit(s, &create, done, &out);
		assert_int_equal(r.n_writes, 1);
		assert_string_equal(r.writes[0].key, "/r/a/x");
		assert_string_equal(r.writes[0].value, "{rv:_,1}");
		if (event_first) {
			tell(s, "/r/a/x", "{rv:_,1}", 15, 15);
			reach(s, 15);
		} else {
			store_remote_answer(s, r.writes[0].token, 0, 15);
			tell(s, "/r/b", "{rv:_,0}", 14, 14);
			reach(s, 14);
		}
		assert_false(atomic_load(&out.done));
		if (event_first)
			store_remote_answer(s, r.writes[0].token, 0, 15);
		else
			tell(s, "/r/a/x", "{rv:_,1}", 15, 15);
		until_done(&out);
		assert_int_equal(out.result, 0);
		assert_string_equal(out.json, "{rv:15,1}");
		assert_int_equal(decoded, event_first ? 0 : 1); /* ours was not decoded */
		CLEAN_OBJECT struct object *o = NULL;
		assert_int_equal(store_get(s, STR("/a/x"), &o), 0);
		assert_string_equal(o->json.p, "{rv:15,1}");
		end(&r, s);
	}
}

static void a_refusal_waits_for_what_it_rests_on(void **state)
{
	struct remote r = { .load_revision = 10 };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct outcome out = { 0 };
	struct store_op update = op(STORE_UPDATE, "/a/x", 9, ",2}");
	store_submit(s, &update, done, &out);
	assert_int_equal(r.writes[0].expect, 9);
	store_remote_answer(s, r.writes[0].token, STORE_CONFLICT, 12);
	tell(s, "/r/b", "{rv:_,0}", 11, 11);
	reach(s, 11);
	assert_false(atomic_load(&out.done));
	tell(s, "/r/a/x", "{rv:_,theirs}", 12, 5);
	until_done(&out);
	assert_int_equal(out.result, STORE_CONFLICT);
	assert_string_equal(out.json, "{rv:12,theirs}");
	end(&r, s);
}

static void a_failure_is_answered_at_once(void **state)
{
	struct remote r = { .load_revision = 10 };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct outcome out = { 0 };
	struct store_op create = op(STORE_CREATE, "/a/x", 0, ",1}");
	store_submit(s, &create, done, &out);
	store_remote_answer(s, r.writes[0].token, -ETIMEDOUT, 0);
	until_done(&out);
	assert_int_equal(out.result, -ETIMEDOUT);
	/* it happened all the same: its bytes are nobody's now, and are decoded */
	tell(s, "/r/a/x", "{rv:_,1}", 11, 11);
	reach(s, 11);
	CLEAN_OBJECT struct object *o = NULL;
	assert_int_equal(store_get(s, STR("/a/x"), &o), 0);
	end(&r, s);
}

static void deletes_tell_the_last_state(void **state)
{
	struct remote r = { .load_revision = 10,
		.n_load = 1,
		.load = { { .key = STR("/r/a/x"),
			.value = STR("{rv:_,1}"),
			.revision = 7,
			.create_revision = 7 } } };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct outcome out = { 0 };
	struct store_watch *w;
	struct store_event *ev;
	assert_int_equal(store_watch(s, STR("/a/"), 10, test_wake_nothing, NULL, &w), 0);
	struct store_op del = { .verb = STORE_DELETE, .key = STR("/a/x"), .expect = 7 };
	store_submit(s, &del, done, &out);
	tell(s, "/r/a/x", NULL, 11, 0);
	store_remote_answer(s, r.writes[0].token, 0, 11);
	until_done(&out);
	assert_string_equal(out.json, "{rv:11,1}");
	assert_int_equal(store_watch_next(w, &ev), 0);
	assert_int_equal(ev->type, STORE_DELETED);
	assert_string_equal(ev->object->json.p, "{rv:11,1}");
	assert_int_equal(ev->revision, 11);
	store_watch_close(w);
	end(&r, s);
}

static void now_is_asked_for_after_the_question(void **state)
{
	struct remote r = { .load_revision = 10 };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct outcome first = { 0 }, second = { 0 };
	store_wait(s, 0, 5000, waited, &first);
	pthread_mutex_lock(&r.lock);
	while (r.asks < 1)
		pthread_cond_wait(&r.changed, &r.lock);
	pthread_mutex_unlock(&r.lock);
	store_wait(s, 0, 5000, waited, &second); /* the running question is too old for it */
	store_remote_now(s, 0, 12);
	pthread_mutex_lock(&r.lock);
	while (r.asks < 2)
		pthread_cond_wait(&r.changed, &r.lock);
	pthread_mutex_unlock(&r.lock);
	assert_false(atomic_load(&first.done)); /* the index is behind */
	store_remote_events(s, NULL, 0, 12);    /* somebody else's keys */
	until_done(&first);
	assert_int_equal(first.result, 0);
	assert_false(atomic_load(&second.done));
	store_remote_now(s, 0, 12);
	until_done(&second);
	struct outcome late = { 0 };
	store_wait(s, 99, 20, waited, &late);
	until_done(&late);
	assert_int_equal(late.result, -ETIMEDOUT);
	end(&r, s);
}

static void what_was_lost_is_loaded_anew(void **state)
{
	struct remote r = { .load_revision = 10,
		.n_load = 3,
		.load = { { .key = STR("/r/a/same"),
				  .value = STR("{rv:_,1}"),
				  .revision = 7,
				  .create_revision = 7 },
			{ .key = STR("/r/a/changed"),
				.value = STR("{rv:_,1}"),
				.revision = 8,
				.create_revision = 8 },
			{ .key = STR("/r/a/gone"),
				.value = STR("{rv:_,1}"),
				.revision = 9,
				.create_revision = 9 } } };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct store_watch *w;
	struct store_event *ev;
	assert_int_equal(store_watch(s, STR("/a/"), 10, test_wake_nothing, NULL, &w), 0);
	struct store_snapshot *before = store_snapshot(s);
	r.load_revision = 90;
	r.n_load = 2;
	r.load[1].value = STR("{rv:_,2}");
	r.load[1].revision = 80;
	store_remote_lost(s);
	reach(s, 90);
	pthread_mutex_lock(&r.lock);
	while (r.follows < 2)
		pthread_cond_wait(&r.changed, &r.lock);
	assert_int_equal(r.followed, 90);
	pthread_mutex_unlock(&r.lock);
	struct store_snapshot *sn = store_snapshot(s);
	assert_int_equal(store_snapshot_count(sn, STR("/a/"), STR_NONE), 2);
	assert_string_equal(store_snapshot_get(sn, STR("/a/changed"))->json.p, "{rv:80,2}");
	assert_string_equal(store_snapshot_get(before, STR("/a/gone"))->json.p, "{rv:9,1}");
	assert_int_equal(store_watch_next(w, &ev), STORE_COMPACTED);
	store_watch_close(w);
	assert_int_equal(
		store_watch(s, STR("/a/"), 50, test_wake_nothing, NULL, &w), STORE_COMPACTED);
	store_snapshot_free(sn);
	store_snapshot_free(before);
	end(&r, s);
}

/* A lease takes several keys with it in one revision: all of them, and nobody sees a part. */
static void one_revision_may_hold_several(void **state)
{
	struct remote r = { .load_revision = 10,
		.n_load = 2,
		.load = { { .key = STR("/r/a/x"), .value = STR("{rv:_,1}"), .revision = 7 },
			{ .key = STR("/r/a/y"), .value = STR("{rv:_,1}"), .revision = 8 } } };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct store_watch *w;
	struct store_event *ev;
	assert_int_equal(store_watch(s, STR("/a/"), 10, test_wake_nothing, NULL, &w), 0);
	struct store_remote_kv both[] = { { .deleted = true, .key = STR("/r/a/x"), .revision = 11 },
		{ .deleted = true, .key = STR("/r/a/y"), .revision = 11 } };
	store_remote_events(s, both, 2, 11);
	reach(s, 11);
	assert_int_equal(store_watch_next(w, &ev), 0);
	assert_int_equal(store_watch_next(w, &ev), 0);
	assert_string_equal(ev->object->key.p, "/a/y");
	assert_int_equal(store_watch_next(w, &ev), STORE_NOT_FOUND);
	assert_int_equal(store_watch_revision(w), 11);
	store_watch_close(w);
	end(&r, s);
}

/* What the remote answered and does not show, and what it does not answer at all, when the store is about to close. */
static void nothing_waits_in_a_hurry(void **state)
{
	struct remote r = { .load_revision = 10 };
	struct store_shared_config shared;
	struct store *s = open_on(&r, &shared);
	struct outcome write = { 0 }, known = { 0 }, fresh = { 0 };
	struct store_op create = op(STORE_CREATE, "/a/x", 0, ",1}");
	store_submit(s, &create, done, &write);
	store_remote_answer(s, r.writes[0].token, 0, 15);
	store_wait(s, 15, 60000, waited, &known);
	store_wait(s, 0, 60000, waited, &fresh);
	store_hurry(s, 50);
	assert_int_equal(hurried_ms, 50);
	until_done(&write);
	until_done(&known);
	until_done(&fresh);
	assert_int_equal(write.result, -ETIMEDOUT);
	assert_int_equal(known.result, -ETIMEDOUT);
	assert_int_equal(fresh.result, -ETIMEDOUT);
	end(&r, s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_and_follows),
		cmocka_unit_test(a_write_is_answered_when_its_event_came),
		cmocka_unit_test(a_refusal_waits_for_what_it_rests_on),
		cmocka_unit_test(a_failure_is_answered_at_once),
		cmocka_unit_test(deletes_tell_the_last_state),
		cmocka_unit_test(now_is_asked_for_after_the_question),
		cmocka_unit_test(what_was_lost_is_loaded_anew),
		cmocka_unit_test(one_revision_may_hold_several),
		cmocka_unit_test(nothing_waits_in_a_hurry),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
