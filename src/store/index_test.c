/* The index and its versions against a plain model: random edits, some undone, while old versions are held and let go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "store/internal.h"

enum { KEYS = 3000, HELD = 12, PREFIXES = 7 };

static uint64_t seed = 42;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(seed >> 33) % n;
}

/* Keys sort as their numbers do. Key i has the prefix "/i % PREFIXES…" of its own group. */
static void key_text(int i, char out[32])
{
	snprintf(out, 32, "/%d/%06d", i / (KEYS / PREFIXES + 1), i);
}

struct model {
	uint64_t revision[KEYS]; /* 0: not there */
};

static struct object *object_at(int i, uint64_t revision)
{
	char key[32];
	key_text(i, key);
	struct object_parts parts = {
		.key = str_of(key), .json_head = STR("{"), .json_tail = STR("}")
	};
	return object_new(&parts, revision);
}

struct expect {
	const struct model *m;
	int at;
};

static bool check_next(void *arg, struct object *o)
{
	struct expect *e = arg;
	char key[32];
	while (e->m->revision[e->at] == 0)
		e->at++;
	key_text(e->at, key);
	assert_string_equal(o->key.p, key);
	assert_int_equal(o->revision, e->m->revision[e->at]);
	e->at++;
	return true;
}

static void check(const struct store_snapshot *v, const struct model *m)
{
	struct expect e = { m, 0 };
	size_t all = 0;
	store_snapshot_each(v, STR("/"), STR_NONE, check_next, &e);
	for (int i = 0; i < KEYS; i++) {
		all += m->revision[i] != 0;
		assert_true(i < e.at || m->revision[i] == 0);
	}
	assert_int_equal(store_snapshot_count(v, STR("/"), STR_NONE), all);
	/* From a random start inside a random group. */
	int start = (int)rnd(KEYS), group = KEYS / PREFIXES + 1,
	    end = MIN((start / group + 1) * group, KEYS);
	char key[32], prefix[16];
	key_text(start, key);
	snprintf(prefix, sizeof(prefix), "/%d/", start / group);
	e.at = start;
	store_snapshot_each(v, str_of(prefix), str_of(key), check_next, &e);
	size_t some = 0;
	for (int i = start; i < end; i++)
		some += m->revision[i] != 0;
	for (int i = e.at; i < end; i++)
		assert_int_equal(m->revision[i], 0);
	assert_int_equal(store_snapshot_count(v, str_of(prefix), str_of(key)), some);
	struct object *o = store_snapshot_get(v, str_of(key));
	assert_int_equal(o ? o->revision : 0, m->revision[start]);
}

/* `grow` in percent: how often a key that is not there is created, and one that is there stays. */
static void edit_randomly(
	struct index_edit *e, struct model *m, uint32_t n, uint32_t grow, uint64_t *revision)
{
	char key[32];
	for (uint32_t k = 0; k < n; k++) {
		int i = (int)rnd(KEYS);
		key_text(i, key);
		if (m->revision[i] == 0 && rnd(100) < grow) {
			index_insert(e, object_at(i, *revision));
			m->revision[i] = (*revision)++;
		} else if (m->revision[i] && rnd(100) < grow / 2) {
			index_replace(e, object_at(i, *revision));
			m->revision[i] = (*revision)++;
		} else if (m->revision[i]) {
			index_remove(e, str_of(key));
			m->revision[i] = 0;
			(*revision)++;
		}
	}
}

static void random_edits(void **state)
{
	struct store s = { 0 };
	pthread_mutex_init(&s.versions_lock, NULL);
	versions_init(&s, NULL, 1);
	static struct model now, next, held_model[HELD];
	struct store_snapshot *held[HELD] = { 0 };
	for (int round = 0; round < 3000; round++) {
		uint64_t first = store_revision(&s) + 1, revision = first;
		struct index_edit e = { .root = s.current->root, .birth = first };
		next = now;
		edit_randomly(&e, &next, 1 + rnd(round % 50 == 0 ? 500 : 8),
			round / 500 % 2 ? 20 : 90, &revision);
		if (rnd(10) == 0) {
			index_edit_undo(&e);
		} else if (revision > first) {
			now = next;
			versions_publish(&s, &e, revision - 1);
		}
		uint32_t h = rnd(HELD);
		if (rnd(4) == 0) {
			if (held[h])
				check(held[h], &held_model[h]);
			store_snapshot_free(held[h]);
			held[h] = rnd(2) ? store_snapshot(&s) : NULL;
			held_model[h] = now;
		}
		if (round % 20 == 0)
			check(s.current, &now);
	}
	for (int h = 0; h < HELD; h++) {
		if (held[h])
			check(held[h], &held_model[h]);
		store_snapshot_free(held[h]);
	}
	/* Nothing is held: no garbage may be left. */
	assert_int_equal(s.current->dead.len, 0);
	assert_ptr_equal(s.versions.next, s.versions.prev);
	versions_deinit(&s);
}

static void emptied_and_filled_again(void **state)
{
	struct store s = { 0 };
	char key[32];
	pthread_mutex_init(&s.versions_lock, NULL);
	versions_init(&s, NULL, 1);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < KEYS; i++) {
			struct index_edit e = { .root = s.current->root,
				.birth = store_revision(&s) + 1 };
			index_insert(&e, object_at(round == 1 ? KEYS - 1 - i : i, e.birth));
			versions_publish(&s, &e, e.birth);
		}
		assert_int_equal(store_snapshot_count(s.current, STR(""), STR_NONE), KEYS);
		for (int i = 0; i < KEYS; i++) {
			struct index_edit e = { .root = s.current->root,
				.birth = store_revision(&s) + 1 };
			key_text(round == 2 ? KEYS - 1 - i : i, key);
			index_remove(&e, str_of(key));
			versions_publish(&s, &e, e.birth);
		}
		assert_null(s.current->root);
	}
	versions_deinit(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_edits),
		cmocka_unit_test(emptied_and_filled_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
