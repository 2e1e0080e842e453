/* Many threads at once: counters raised through conditional updates end exact; every snapshot is of one revision; every
 * watcher sees each revision once and in order. Also built with ThreadSanitizer (HACKING.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

#include "store/store.h"
#include "store/store_test.h"

enum { COUNTERS = 4, WRITERS = 4, READERS = 2, WATCHERS = 3, RAISES = 400 };

static struct store *s;
static uint64_t first_revision; /* of the world where all counters are 0 */
static _Atomic bool done;
static _Atomic int wrong; /* cmocka's assertions are for the main thread */

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
			wrong++; \
		} \
	} while (0)

static uint64_t value_of(const struct object *o)
{
	return strtoull(strchr(o->json.p, ':') + 1, NULL, 10);
}

static int write_counter(int verb, int i, uint64_t value, uint64_t expect)
{
	char key[32], head[64];
	snprintf(key, sizeof(key), "/counters/%d", i);
	snprintf(head, sizeof(head), "{\"v\":%llu,\"rv\":\"", (unsigned long long)value);
	struct store_op op = { .verb = (__typeof__(op.verb))verb,
		.key = str_of(key),
		.expect = expect,
		.json_head = str_of(head),
		.json_tail = STR("\"}") };
	return store_write(s, &op, NULL);
}

static void *raise_counters(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	for (int n = 0; n < RAISES;) {
		int i = rand_r(&seed) % COUNTERS;
		char key[32];
		snprintf(key, sizeof(key), "/counters/%d", i);
		CLEAN_OBJECT struct object *o = NULL;
		CHECK(store_get(s, str_of(key), &o) == 0);
		int r = write_counter(STORE_UPDATE, i, value_of(o) + 1, o->revision);
		CHECK(r == 0 || r == STORE_CONFLICT);
		n += r == 0;
	}
	return NULL;
}

static bool add_value(void *arg, struct object *o)
{
	*(uint64_t *)arg += value_of(o);
	return true;
}

static void *read_snapshots(void *arg)
{
	while (!atomic_load(&done)) {
		struct store_snapshot *sn = store_snapshot(s);
		for (int i = 0; i < 2; i++) {
			uint64_t sum = 0;
			store_snapshot_each(sn, STR("/counters/"), STR_NONE, add_value, &sum);
			CHECK(sum == store_snapshot_revision(sn) - first_revision);
		}
		if (store_snapshot_revision(sn) % 7 == 0)
			store_snapshot_keep(sn);
		store_snapshot_free(sn);
	}
	return NULL;
}

static void post(void *arg)
{
	sem_post(arg);
}

static void *watch_counters(void *arg)
{
	sem_t sem;
	sem_init(&sem, 0, 0);
	uint64_t last = first_revision, end = first_revision + WRITERS * RAISES, sum = 0;
	struct store_watch *w;
	CHECK(store_watch(s, STR("/counters/"), last, post, &sem, &w) == 0);
	while (last < end) {
		struct store_event *ev;
		int r = store_watch_next(w, &ev);
		if (r == STORE_NOT_FOUND) {
			sem_wait(&sem);
			continue;
		}
		CHECK(r == 0);
		if (r)
			break;
		CHECK(ev->revision == last + 1);
		CHECK(value_of(ev->object) == value_of(ev->prev) + 1);
		sum += value_of(ev->object) - value_of(ev->prev);
		last = ev->revision;
		CHECK(store_revision(s) >= last);
	}
	CHECK(sum == WRITERS * RAISES);
	store_watch_close(w);
	sem_destroy(&sem);
	return NULL;
}

static void counters_end_exact(void **state)
{
	pthread_t writers[WRITERS], readers[READERS], watchers[WATCHERS];
	s = test_open(*state, 0);
	done = false;
	for (int i = 0; i < COUNTERS; i++)
		assert_int_equal(write_counter(STORE_CREATE, i, 0, 0), 0);
	first_revision = store_revision(s);
	for (int i = 0; i < WATCHERS; i++)
		pthread_create(&watchers[i], NULL, watch_counters, NULL);
	for (int i = 0; i < READERS; i++)
		pthread_create(&readers[i], NULL, read_snapshots, NULL);
	for (int i = 0; i < WRITERS; i++)
		pthread_create(&writers[i], NULL, raise_counters, (void *)(uintptr_t)i);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	for (int i = 0; i < WATCHERS; i++)
		pthread_join(watchers[i], NULL);
	done = true;
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(wrong, 0);
	struct store_snapshot *sn = store_snapshot(s);
	uint64_t sum = 0;
	store_snapshot_each(sn, STR("/"), STR_NONE, add_value, &sum);
	assert_int_equal(sum, WRITERS * RAISES);
	store_snapshot_free(sn);
	store_close(s);
}

int main(void)
{
	struct store_config memory = { .backend = "memory" }, sqlite = { .backend = "sqlite" };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate_setup_teardown(
			counters_end_exact, test_folder, test_folder_remove, &memory),
		cmocka_unit_test_prestate_setup_teardown(
			counters_end_exact, test_folder, test_folder_remove, &sqlite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
