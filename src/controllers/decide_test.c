/* Decisions without a cluster: victims, rollout arithmetic, schedules, index sets, the owners' graph, expectations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "controllers/cron.h"
#include "controllers/gc.h"
#include "controllers/job.h"
#include "controllers/rollout.h"

/* ---- victims ---- */
static const struct timestamp now = { 1700000000, 0 };

struct looks {
	const char *node, *phase, *cost;
	bool ready;
	int64_t ready_for, restarts, age;
	size_t rank;
};

static struct core_v1_pod pod_like(const struct looks *l, struct arena *a)
{
	struct core_v1_pod p = { .metadata = { .uid = STR("u"),
					 .creation_timestamp = { now.sec - l->age, 0 } },
		.spec.node_name = str_of(l->node),
		.status.phase = str_of(l->phase) };

	if (l->cost)
		str_map_set(a, &p.metadata.annotations,
			STR("controller.kubernetes.io/pod-deletion-cost"), str_of(l->cost));
	*LIST_ADD(a, &p.status.conditions) = (struct core_v1_pod_condition){ .type = STR("Ready"),
		.status = l->ready ? STR("True") : STR("False"),
		.last_transition_time = { now.sec - l->ready_for, 0 } };
	LIST_ADD(a, &p.status.container_statuses)->restart_count = (int32_t)l->restarts;
	return p;
}

static void test_victims(void **state)
{
	/* Each row goes before the next one; neighbours differ in one thing. */
	static const struct looks order[] = {
		{ NULL, "Pending", NULL, false, 0, 0, 100, 0 },
		{ "n", "Pending", NULL, false, 0, 0, 100, 0 },
		{ "n", "Unknown", NULL, false, 0, 0, 100, 0 },
		{ "n", "Running", NULL, false, 50, 0, 100, 0 },
		{ "n", "Running", "-5", true, 50, 0, 100, 0 },
		{ "n", "Running", NULL, true, 50, 0, 100, 3 },
		{ "n", "Running", NULL, true, 50, 0, 100, 1 },
		{ "n", "Running", NULL, true, 5000, 7, 100, 1 },
		{ "n", "Running", NULL, true, 5000, 0, 100, 1 },
		{ "n", "Running", NULL, true, 5000, 0, 9000, 1 },
		{ "n", "Running", "12", true, 1, 9, 1, 9 },
	};
	struct arena *a CLEAN_ARENA = arena_new(0);

	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		for (size_t k = 0; k < ARRAY_LEN(order); k++) {
			struct core_v1_pod x = pod_like(&order[i], a), y = pod_like(&order[k], a);
			int r = pod_victim_cmp(&x, order[i].rank, &y, order[k].rank, now);

			if (i < k ? r >= 0 : i > k ? r <= 0 : r != 0)
				fail_msg("rows %zu and %zu: %d", i, k, r);
		}
}

/* ---- rollouts ---- */
static void test_bounds(void **state)
{
	static const struct {
		int replicas;
		const char *surge, *unavailable;
		int want_surge, want_unavailable;
	} rows[] = {
		{ 10, "25%", "25%", 3, 2 },
		{ 3, "25%", "25%", 1, 0 },
		{ 1, "25%", "25%", 1, 0 },
		{ 10, "0%", "5%", 0, 1 }, /* both round to nothing: one must be let go */
		{ 4, "100%", "0%", 4, 0 },
		{ 3, "0%", "100%", 0, 3 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct apps_v1_rolling_update_deployment u = { .max_surge = { IOS_STR, 0,
								       str_of(rows[i].surge) },
			.max_unavailable = { IOS_STR, 0, str_of(rows[i].unavailable) } };
		const struct apps_v1_deployment d = {
			.spec = { .replicas = SOME(rows[i].replicas),
				.strategy = { STR("RollingUpdate"), &u } }
		};
		int surge, unavailable;

		rollout_bounds(&d, &surge, &unavailable);
		assert_int_equal(surge, rows[i].want_surge);
		assert_int_equal(unavailable, rows[i].want_unavailable);
	}
}

static struct apps_v1_replica_set set_of(int replicas, int available)
{
	return (struct apps_v1_replica_set){ .spec.replicas = SOME(replicas),
		.status.available_replicas = available };
}

/* Upstream's example: 10 replicas, 25 %: how a rollout walks when every new pod becomes available at once. */
static void test_rollout_walk(void **state)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct apps_v1_deployment d = { .spec = { .replicas = SOME(10),
						.strategy = { STR("RollingUpdate"), NULL } } };
	struct apps_v1_replica_set old = set_of(10, 10), new = set_of(0, 0),
				   *all[] = { &old, &new };
	struct run r = { .arena = a };
	const struct rollout o = { .r = &r, .d = &d, .all = all, .n_all = 2, .new_set = &new };
	int steps = 0;

	assert_int_equal(rollout_new_size(&o, &new), 3); /* surge: 13 in all */
	assert_int_equal(rollout_may_go(&o), 2);         /* 8 must stay */
	while (set_replicas(&old) || set_replicas(&new) != 10) {
		new.spec.replicas.value = rollout_new_size(&o, &new);
		assert_true(rollout_total(&o, false) <= 13);
		int go = MIN(rollout_may_go(&o), set_replicas(&old));

		old.spec.replicas.value -= MAX(go, 0);
		old.status.available_replicas = set_replicas(&old);
		assert_true(rollout_available(&o) >= 8);
		new.status.available_replicas = set_replicas(&new);
		assert_true(++steps < 20);
	}
	new.status.available_replicas = 0; /* a broken new version: nothing more may go */
	old.spec.replicas.value = 8;
	old.status.available_replicas = 8;
	new.spec.replicas.value = 5;
	assert_int_equal(rollout_may_go(&o), 0);
}

static void test_proportions(void **state)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct apps_v1_rolling_update_deployment u = { .max_surge = { IOS_INT, 3, STR_NONE },
		.max_unavailable = { IOS_INT, 2, STR_NONE } };
	struct apps_v1_deployment d = { .spec = { .replicas = SOME(15),
						.strategy = { STR("RollingUpdate"), &u } } };
	struct apps_v1_replica_set x = set_of(8, 8), y = set_of(5, 0), *all[] = { &x, &y };
	struct run r = { .arena = a };
	const struct rollout o = { .r = &r, .d = &d, .all = all, .n_all = 2, .new_set = &y };
	int sizes[2];

	str_map_set(a, &x.metadata.annotations, STR(MAX_REPLICAS), STR("13"));
	str_map_set(a, &y.metadata.annotations, STR(MAX_REPLICAS), STR("13"));
	rollout_proportions(&o, sizes); /* the documentation's example: 10 + 3 scaled to 15 + 3 */
	assert_int_equal(sizes[0], 11);
	assert_int_equal(sizes[1], 7);
	d.spec.replicas.value = 0;
	rollout_proportions(&o, sizes);
	assert_int_equal(sizes[0] + sizes[1], 0);
}

static void test_scaled_value(void **state)
{
	const struct int_or_str percent = { IOS_STR, 0, STR("30%") },
				number = { IOS_INT, 7, STR_NONE }, none = { 0 };

	assert_int_equal(scaled_value(&percent, 10, true, -1), 3);
	assert_int_equal(scaled_value(&percent, 11, true, -1), 4);
	assert_int_equal(scaled_value(&percent, 11, false, -1), 3);
	assert_int_equal(scaled_value(&number, 11, false, -1), 7);
	assert_int_equal(scaled_value(&none, 11, false, -1), -1);
	assert_int_equal(scaled_value(NULL, 11, false, -1), -1);
}

/* ---- schedules ---- */
static int64_t at(const char *text)
{
	struct timestamp t;

	assert_int_equal(time_parse(str_of(text), &t), 0);
	return t.sec;
}

static void test_cron(void **state)
{
	static const struct {
		const char *schedule, *after, *next;
	} rows[] = {
		{ "* * * * *", "2024-02-28T23:59:30Z", "2024-02-29T00:00:00Z" },
		{ "*/15 * * * *", "2024-01-01T00:15:00Z", "2024-01-01T00:30:00Z" },
		{ "0 0 29 2 *", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z" },
		{ "30 8-10/2 * jan,feb mon-fri", "2024-01-05T10:30:00Z", "2024-01-08T08:30:00Z" },
		{ "0 12 13 * 5", "2024-01-01T00:00:00Z",
			"2024-01-05T12:00:00Z" }, /* the 13th or a Friday */
		{ "0 0 * * 7", "2024-01-01T00:00:00Z", "2024-01-07T00:00:00Z" },
		{ "@hourly", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z" },
		{ "@every 90s", "2024-01-01T00:00:00Z", "2024-01-01T00:01:30Z" },
	};
	static const char *const wrong[] = { "", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *",
		"a * * * *", "5-1 * * * *", "*/0 * * * *", "* * * * * *", "@sometimes",
		"@every 1ms", "1,,2 * * * *" };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cron c;

		assert_int_equal(cron_parse(str_of(rows[i].schedule), &c, NULL), 0);
		assert_int_equal(cron_next(&c, at(rows[i].after)), at(rows[i].next));
		assert_int_equal(
			cron_last(&c, at(rows[i].after), at(rows[i].next) + 5), at(rows[i].next));
		assert_int_equal(cron_last(&c, at(rows[i].after), at(rows[i].next) - 1), 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct cron c;
		struct err err = { "" };

		assert_int_equal(cron_parse(str_of(wrong[i]), &c, &err), -EINVAL);
		assert_true(err.text[0]);
	}
}

/* Central Europe by its rule alone. */
static const struct zone *central_europe(struct arena *a)
{
	static const char block[] =
		"TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"\0\0\0\1\0\0\0\4\0\0\x0e\x10\0\0CET";
	CLEAN_BUF struct buf b = { 0 };
	const struct zone *z;

	buf_add(&b, block, sizeof(block));
	buf_add(&b, block, sizeof(block));
	buf_add_str(&b, STR("\nCET-1CEST,M3.5.0,M10.5.0/3\n"));
	assert_int_equal(zone_parse(buf_str(&b), a, &z), 0);
	return z;
}

static void test_cron_zone(void **state)
{
	static const struct {
		const char *schedule, *after, *next;
	} rows[] = {
		{ "0 9 * * *", "2026-01-01T00:00:00Z", "2026-01-01T08:00:00Z" },
		{ "0 9 * * *", "2026-07-01T00:00:00Z", "2026-07-01T07:00:00Z" },
		{ "0 0 1 1 *", "2026-01-01T00:00:00Z", "2026-12-31T23:00:00Z" },
		{ "0 1 * * *", "2026-07-01T00:00:00Z", "2026-07-01T23:00:00Z" },
		/* 02:30 is not there on the day of the leap; twice when the hour comes again */
		{ "30 2 * * *", "2026-03-28T02:00:00Z", "2026-03-30T00:30:00Z" },
		{ "30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z" },
		{ "30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z" },
		{ "30 2 * * *", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z" },
		{ "0 3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z" },
		{ "0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-28T23:00:00Z" },
	};
	CLEAN_ARENA struct arena *a = arena_new(0);
	const struct zone *zone = central_europe(a);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cron c;
		int64_t after = at(rows[i].after), next = at(rows[i].next);

		assert_int_equal(cron_parse(str_of(rows[i].schedule), &c, NULL), 0);
		c.zone = zone;
		assert_int_equal(cron_next(&c, after), next);
		assert_int_equal(cron_last(&c, after, next), next);
		assert_int_equal(cron_last(&c, after, next + 5), next);
		assert_int_equal(cron_last(&c, after, next - 1), 0);
	}
}

static void test_indexes(void **state)
{
	static const int add[] = { 5, 1, 3, 4, 0, 9, 8, 2, 5 };
	static const char *const want[] = { "5", "1,5", "1,3,5", "1,3-5", "0,1,3-5", "0,1,3-5,9",
		"0,1,3-5,8,9", "0-5,8,9", "0-5,8,9" };
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct index_set s = { 0 }, odd, some;

	for (size_t i = 0; i < ARRAY_LEN(add); i++) {
		s = indexes_with(&s, &add[i], 1, a);
		assert_string_equal(indexes_text(&s, a).p, want[i]);
		assert_true(indexes_have(&s, add[i]));
		s = indexes_parse(indexes_text(&s, a), a);
	}
	assert_int_equal(indexes_count(&s), 8);
	assert_false(indexes_have(&s, 6));
	some = indexes_parse(STR("1-2,5-8,100-2147483647"), a);
	assert_int_equal(indexes_common(&s, &some, 6), 3);
	assert_int_equal(indexes_common(&s, &some, INT32_MAX), 4);
	/* As people may write a status: what is no index ends it. */
	odd = indexes_parse(STR("7,3-4,2,9999999999,1"), a);
	assert_string_equal(indexes_text(&odd, a).p, "2-4,7");
	odd = indexes_parse(STR_NONE, a);
	assert_int_equal(indexes_count(&odd), 0);
}

/* ---- owners ---- */
static void test_graph(void **state)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct gc_graph *g = gc_graph_new();
	char key[32];

	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "7|u%d|ns/p%d", i, i);
		gc_graph_link(g, STR("owner"), str_of(key));
		gc_graph_link(g, STR("owner"), str_of(key)); /* twice is once */
		gc_graph_link(g, STR("other"), str_of(key));
	}
	assert_int_equal(gc_graph_count(g, STR("owner")), 3000);
	assert_int_equal(gc_graph_dependents(g, STR("owner"), a).len, 3000);
	for (int i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "7|u%d|ns/p%d", i, i);
		gc_graph_unlink(g, STR("owner"), str_of(key));
	}
	assert_int_equal(gc_graph_count(g, STR("owner")), 0);
	assert_int_equal(gc_graph_count(g, STR("other")), 3000);
	assert_false(gc_graph_is_gone(g, STR("owner")));
	gc_graph_set_gone(g, STR("owner"));
	assert_true(gc_graph_is_gone(g, STR("owner")));
	for (int i = 0; i < 1024; i++) { /* the memory of the gone is bounded */
		snprintf(key, sizeof(key), "gone%d", i);
		gc_graph_set_gone(g, str_of(key));
	}
	assert_false(gc_graph_is_gone(g, STR("owner")));
	assert_true(gc_graph_is_gone(g, STR("gone1023")));
	gc_graph_free(g);
}

static void test_expectations(void **state)
{
	struct expectations *e = expectations_new();

	assert_true(expectations_met(e, STR("k")));
	expect_creations(e, STR("k"), 2);
	expect_deletion(e, STR("k"), STR("u1"));
	creation_observed(e, STR("k"));
	assert_false(expectations_met(e, STR("k")));
	creation_observed(e, STR("k"));
	creation_observed(e, STR("k")); /* one too many is no debt */
	assert_false(expectations_met(e, STR("k")));
	deletion_observed(e, STR("k"), STR("u2"));
	assert_false(expectations_met(e, STR("k")));
	assert_true(expectations_met(e, STR("other")));
	deletion_observed(e, STR("k"), STR("u1"));
	assert_true(expectations_met(e, STR("k")));
	expect_creations(e, STR("k"), 1);
	expectations_forget(e, STR("k"));
	assert_true(expectations_met(e, STR("k")));
	expect_version(e, STR("k"), STR("100"));
	assert_false(version_seen(e, STR("k"), STR("99")));
	assert_true(version_seen(e, STR("other"), STR("1")));
	assert_true(version_seen(e, STR("k"), STR("100")));
	assert_true(version_seen(e, STR("k"), STR("99"))); /* once seen, no longer waited for */
	expectations_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_victims),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_rollout_walk),
		cmocka_unit_test(test_proportions),
		cmocka_unit_test(test_scaled_value),
		cmocka_unit_test(test_cron),
		cmocka_unit_test(test_cron_zone),
		cmocka_unit_test(test_indexes),
		cmocka_unit_test(test_graph),
		cmocka_unit_test(test_expectations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
