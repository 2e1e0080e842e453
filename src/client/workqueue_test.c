/* The work queue's promises: once, in order, never shared, later, with back-off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "client/internal.h"

static void takes(struct workqueue *q, const char *want)
{
	char *key = workqueue_get(q);

	assert_string_equal(key, want);
	workqueue_done(q, key);
	free(key);
}

static void test_once_in_order(void **state)
{
	struct workqueue *q = workqueue_new("t");

	workqueue_add(q, STR("a"));
	workqueue_add(q, STR("b"));
	workqueue_add(q, STR("a"));
	assert_int_equal(workqueue_len(q), 2);
	takes(q, "a");
	takes(q, "b");
	assert_int_equal(workqueue_len(q), 0);
	workqueue_free(q);
}

static void test_added_while_worked_on(void **state)
{
	struct workqueue *q = workqueue_new("t");

	workqueue_add(q, STR("a"));
	char *key = workqueue_get(q);

	workqueue_add(q, STR("a"));
	assert_int_equal(workqueue_len(q), 0); /* not handed out twice */
	workqueue_done(q, key);
	assert_int_equal(workqueue_len(q), 1);
	free(key);
	takes(q, "a");
	workqueue_free(q);
}

static void test_later_keeps_the_earliest(void **state)
{
	struct workqueue *q = workqueue_new("t");
	uint64_t began = mono_now_ns();

	workqueue_add_after(q, STR("slow"), 60000);
	workqueue_add_after(q, STR("slow"), 40);
	workqueue_add_after(q, STR("fast"), 10);
	workqueue_add_after(q, STR("slow"), 50000);
	takes(q, "fast");
	takes(q, "slow");
	assert_true(mono_now_ns() - began >= 40 * 1000000ull);
	assert_true(mono_now_ns() - began < 20 * 1000000000ull);
	workqueue_free(q);
}

static void test_backoff_doubles_and_is_forgotten(void **state)
{
	struct workqueue *q = workqueue_new("t");
	uint64_t began = mono_now_ns();

	for (int i = 0; i < 4; i++) { /* 5 + 10 + 20 + 40 ms */
		workqueue_add_rate_limited(q, STR("a"));
		takes(q, "a");
	}
	assert_true(mono_now_ns() - began >= 75 * 1000000ull);
	workqueue_forget(q, STR("a"));
	began = mono_now_ns();
	workqueue_add_rate_limited(q, STR("a"));
	takes(q, "a");
	assert_true(mono_now_ns() - began < 75 * 1000000ull);
	workqueue_free(q);
}

struct crowd {
	struct workqueue *q;
	_Atomic int busy[8], clashes, done;
};

static void *crowd_work(void *arg)
{
	struct crowd *c = arg;
	char *key;

	while ((key = workqueue_get(c->q))) {
		int k = key[0] - '0';

		if (c->busy[k]++)
			c->clashes++;
		c->busy[k]--;
		c->done++;
		workqueue_done(c->q, key);
		free(key);
	}
	return NULL;
}

static void test_workers_never_share_a_key(void **state)
{
	struct crowd c = { .q = workqueue_new("t") };
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, crowd_work, &c);
	for (int i = 0; i < 20000; i++) {
		char key[2] = { (char)('0' + i % 8), 0 };

		if (i % 3)
			workqueue_add(c.q, str_of(key));
		else
			workqueue_add_after(c.q, str_of(key), 1);
	}
	workqueue_add_after(c.q, STR("7"), 30);
	while (c.done < 8 || workqueue_len(c.q))
		sched_yield();
	workqueue_stop(c.q);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(c.clashes, 0);
	workqueue_free(c.q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_once_in_order),
		cmocka_unit_test(test_added_while_worked_on),
		cmocka_unit_test(test_later_keeps_the_earliest),
		cmocka_unit_test(test_backoff_doubles_and_is_forgotten),
		cmocka_unit_test(test_workers_never_share_a_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
