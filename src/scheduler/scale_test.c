/* Costs at 5,000 nodes: what grows with nodes times pods, or pods times pods, shows here. The bounds are wide: they tell a wrong order of growth
 * from a slow machine. SKIFF_FIGURES=1 prints what was measured. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "scheduler/internal.h"

#define NODES 5000

struct fixture {
	struct arena *a;
	struct nodes nodes;
	uint64_t seed;
};

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(const char *what, size_t n, double seconds)
{
	if (getenv("SKIFF_FIGURES"))
		print_message("%s: %zu in %.3f s, %.1f us each\n", what, n, seconds,
			seconds * 1e6 / (double)n);
}

static struct cached *cached_of(
	struct fixture *f, const struct type *t, void *obj, struct meta_v1_object_meta *m)
{
	struct cached *c = arena_alloc(f->a, sizeof(*c));

	*c = (struct cached){
		.refs = 1u << 30, .type = t, .obj = obj, .meta = m, .key = m->name, .arena = f->a
	};
	return c;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->a = arena_new(0);
	f->seed = 42;
	nodes_init(&f->nodes);
	for (int i = 0; i < NODES; i++) {
		struct core_v1_node *n = model_new(&core_v1_node_type, f->a);

		n->metadata.name = arena_fmt(f->a, "node-%d", i);
		str_map_set(
			f->a, &n->metadata.labels, STR("kubernetes.io/hostname"), n->metadata.name);
		str_map_set(f->a, &n->metadata.labels, STR("topology.kubernetes.io/zone"),
			arena_fmt(f->a, "zone-%d", i % 3));
		str_map_set(f->a, &n->status.allocatable, STR("cpu"), STR("4"));
		str_map_set(f->a, &n->status.allocatable, STR("memory"), STR("32Gi"));
		str_map_set(f->a, &n->status.allocatable, STR("pods"), STR("110"));
		nodes_set(&f->nodes, nodes_find_or_add(&f->nodes, n->metadata.name),
			cached_of(f, &core_v1_node_type, n, &n->metadata));
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	nodes_deinit(&f->nodes);
	arena_free(f->a);
	free(f);
	return 0;
}

static struct core_v1_pod *new_pod(
	struct fixture *f, const char *ns, const char *app, const char *cpu)
{
	struct core_v1_pod *p = model_new(&core_v1_pod_type, f->a);

	p->metadata.namespace = arena_strz(f->a, ns);
	p->metadata.name = STR("p");
	str_map_set(f->a, &p->metadata.labels, STR("app"), arena_strz(f->a, app));
	str_map_set(f->a, &LIST_ADD(f->a, &p->spec.containers)->resources.requests, STR("cpu"),
		arena_strz(f->a, cpu));
	return p;
}

static struct meta_v1_label_selector *selects(struct fixture *f, const struct core_v1_pod *p)
{
	struct meta_v1_label_selector *s = arena_alloc(f->a, sizeof(*s));

	str_map_set(
		f->a, &s->match_labels, STR("app"), str_map_get(&p->metadata.labels, STR("app")));
	return s;
}

static void spread(struct fixture *f, struct core_v1_pod *p)
{
	struct core_v1_topology_spread_constraint *c =
		LIST_ADD(f->a, &p->spec.topology_spread_constraints);

	c->topology_key = STR("topology.kubernetes.io/zone");
	c->max_skew = 1;
	c->when_unsatisfiable = STR("DoNotSchedule");
	c->label_selector = selects(f, p);
}

static void keep_apart(struct fixture *f, struct core_v1_pod *p)
{
	struct core_v1_pod_affinity_term *t;

	p->spec.affinity = arena_alloc(f->a, sizeof(*p->spec.affinity));
	p->spec.affinity->pod_anti_affinity =
		arena_alloc(f->a, sizeof(*p->spec.affinity->pod_anti_affinity));
	t = LIST_ADD(f->a,
		&p->spec.affinity->pod_anti_affinity
			 ->required_during_scheduling_ignored_during_execution);
	t->topology_key = STR("kubernetes.io/hostname");
	t->label_selector = selects(f, p);
}

/* Decides and places. */
static struct sched_pod *schedule(struct fixture *f, struct core_v1_pod *p)
{
	struct sched_pod *s = arena_alloc(f->a, sizeof(*s));
	struct verdict v;

	s->object = cached_of(f, &core_v1_pod_type, p, &p->metadata);
	s->priority = p->spec.priority.value;
	s->terms = terms_take(&f->nodes, p);
	nodes_requests(&f->nodes, p, &s->requests);
	decide(&f->nodes, p, &s->requests, s->terms, &f->seed, &v);
	if (v.node == NO_NODE)
		fail_msg("%s", v.message);
	s->node = v.node;
	nodes_place(&f->nodes, s, v.node, 1);
	return s;
}

static void remove_pod(struct fixture *f, struct sched_pod *s)
{
	nodes_place(&f->nodes, s, s->node, -1);
	terms_drop(&f->nodes, s->terms);
}

static void plain_pods(void **state)
{
	struct fixture *f = *state;
	double began = cpu_s();

	for (int i = 0; i < 10000; i++)
		schedule(f, new_pod(f, "default", "web", "10m"));
	tell("plain pods", 10000, cpu_s() - began);
	assert_true(cpu_s() - began < 60);
}

/* A thousand applications, each in a namespace of its own, that say only of themselves: none pays for the others. */
static void many_applications(void **state)
{
	struct fixture *f = *state;
	struct sched_pod **all = arena_alloc(f->a, 4000 * sizeof(struct sched_pod *));
	double began = cpu_s();

	for (int i = 0; i < 4000; i++) {
		struct core_v1_pod *p = new_pod(f, arena_fmt(f->a, "ns-%d", i % 1000).p,
			arena_fmt(f->a, "app-%d", i % 1000).p, "10m");

		spread(f, p);
		keep_apart(f, p);
		all[i] = schedule(f, p);
	}
	tell("pods of 1,000 applications", 4000, cpu_s() - began);
	assert_true(cpu_s() - began < 120);
	for (int i = 0; i < 4000; i++)
		remove_pod(f, all[i]);
	assert_int_equal(f->nodes.matchers.len, 0);
	assert_int_equal(f->nodes.holdings.len, 0);
}

/* A full cluster, and a pod that is more important than the others. */
static void preemption(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, "default", "urgent", "3");
	struct sched_pod s = { .priority = 1000 }, **victims;
	struct preempting w = { &f->nodes, p, 1000, &s.requests, NULL, NULL, 0 };
	double began;
	size_t n;

	for (int i = 0; i < NODES * 4; i++)
		schedule(f, new_pod(f, "default", "web", "950m"));
	nodes_requests(&f->nodes, p, &s.requests);
	began = cpu_s();
	for (int i = 0; i < 5; i++) {
		assert_true(preempt(&w, &f->seed, &victims, &n) != NO_NODE);
		assert_int_equal(n, 3);
		free(victims);
	}
	tell("preemptions", 5, cpu_s() - began);
	assert_true(cpu_s() - began < 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(plain_pods, setup, teardown),
		cmocka_unit_test_setup_teardown(many_applications, setup, teardown),
		cmocka_unit_test_setup_teardown(preemption, setup, teardown),
	};

	return cmocka_run_group_tests_name("scheduler at scale", tests, NULL, NULL);
}
