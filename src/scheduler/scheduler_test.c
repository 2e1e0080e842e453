/* Decisions and the queue, without an API. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>

#include "scheduler/internal.h"

struct fixture {
	struct arena *a;
	struct nodes nodes;
	uint64_t seed;
};

static struct core_v1_node *add_node(struct fixture *f, const char *name, const char *cpu, const char *memory)
{
	struct cached *c = arena_alloc(f->a, sizeof(*c));
	struct core_v1_node *n;

	c->arena = f->a;
	n = model_new(&core_v1_node_type, c->arena);
	n->metadata.name = arena_strz(c->arena, name);
	str_map_set(c->arena, &n->status.allocatable, STR("cpu"), str_of(cpu));
	str_map_set(c->arena, &n->status.allocatable, STR("memory"), str_of(memory));
	str_map_set(c->arena, &n->status.allocatable, STR("pods"), STR("3"));
	c->refs = 1000; /* never the last: it lives in the fixture's arena */
	c->type = &core_v1_node_type;
	c->obj = n;
	c->meta = &n->metadata;
	c->key = n->metadata.name;
	nodes_set(&f->nodes, nodes_find_or_add(&f->nodes, str_of(name)), c);
	return n;
}

/* What was changed by hand in the node is read again. */
static void refresh(struct fixture *f, const char *name)
{
	size_t i = nodes_find(&f->nodes, str_of(name));

	nodes_set(&f->nodes, i, cached_ref(f->nodes.object[i]));
}

static struct core_v1_pod *new_pod(struct fixture *f, const char *cpu)
{
	struct core_v1_pod *p = model_new(&core_v1_pod_type, f->a);
	struct core_v1_container *c = LIST_ADD(f->a, &p->spec.containers);

	c->name = STR("c");
	if (cpu)
		str_map_set(f->a, &c->resources.requests, STR("cpu"), str_of(cpu));
	return p;
}

static struct verdict try(struct fixture *f, const struct core_v1_pod *p)
{
	struct requests q;
	struct verdict v;

	nodes_requests(&f->nodes, p, &q);
	decide(&f->nodes, p, &q, &f->seed, &v);
	return v;
}

static void expect_node(struct fixture *f, const struct core_v1_pod *p, const char *name)
{
	struct verdict v = try(f, p);

	if (v.message)
		print_message("%s\n", v.message);
	assert_null(v.message);
	assert_string_equal(f->nodes.name[v.node], name);
}

static void expect_refusal(struct fixture *f, const struct core_v1_pod *p, const char *message)
{
	struct verdict v = try(f, p);

	assert_true(v.node == NO_NODE);
	assert_string_equal(v.message, message);
	free(v.message);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->a = arena_new(0);
	f->seed = 42;
	nodes_init(&f->nodes);
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

static void no_nodes(void **state)
{
	expect_refusal(*state, new_pod(*state, "1"), "no nodes available to schedule pods");
}

static void least_allocated_wins(void **state)
{
	struct fixture *f = *state;
	struct cached held = { .refs = 2 };
	struct sched_pod placed = { .object = &held };

	add_node(f, "a", "4", "8Gi");
	add_node(f, "b", "4", "8Gi");
	held.obj = new_pod(f, "2");
	nodes_requests(&f->nodes, held.obj, &placed.requests);
	nodes_place(&f->nodes, &placed, nodes_find(&f->nodes, STR("a")), 1);
	for (int i = 0; i < 20; i++)
		expect_node(f, new_pod(f, "1"), "b");
	nodes_place(&f->nodes, &placed, nodes_find(&f->nodes, STR("a")), -1);
	assert_int_equal(f->nodes.used[RES_CPU][0], 0);
}

static void refusals_are_counted(void **state)
{
	struct fixture *f = *state;
	struct core_v1_node *n;
	struct core_v1_taint *t;

	add_node(f, "small", "1", "1Gi");
	n = add_node(f, "cordoned", "8", "8Gi");
	n->spec.unschedulable = true;
	refresh(f, "cordoned");
	n = add_node(f, "tainted", "8", "8Gi");
	t = LIST_ADD(f->nodes.object[2]->arena, &n->spec.taints);
	t->key = STR("dedicated");
	t->value = STR("db");
	t->effect = STR("NoSchedule");
	refresh(f, "tainted");
	expect_refusal(f, new_pod(f, "2"),
		"0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable. "
		"Refused by NodeUnschedulable: 1, TaintToleration: 1, NodeResourcesFit: 1.");
}

static void tolerations(void **state)
{
	struct fixture *f = *state;
	struct core_v1_node *n = add_node(f, "tainted", "8", "8Gi");
	struct core_v1_taint *t = LIST_ADD(f->nodes.object[0]->arena, &n->spec.taints);
	struct core_v1_pod *p = new_pod(f, "1");
	struct core_v1_toleration *tol = LIST_ADD(f->a, &p->spec.tolerations);

	t->key = STR("dedicated");
	t->value = STR("db");
	t->effect = STR("NoExecute");
	refresh(f, "tainted");
	tol->key = STR("dedicated");
	tol->value = STR("web");
	expect_refusal(f, p, "0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: db}. Refused by TaintToleration: 1.");
	tol->value = STR("db");
	expect_node(f, p, "tainted");
	*tol = (struct core_v1_toleration){ .operator = STR("Exists") };
	expect_node(f, p, "tainted");
}

static void node_selector_and_affinity(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, "1");
	struct core_v1_node *n = add_node(f, "a", "8", "8Gi");

	add_node(f, "b", "8", "8Gi");
	str_map_set(f->nodes.object[0]->arena, &n->metadata.labels, STR("disk"), STR("ssd"));
	str_map_set(f->a, &p->spec.node_selector, STR("disk"), STR("ssd"));
	expect_node(f, p, "a");
	str_map_set(f->a, &p->spec.node_selector, STR("disk"), STR("tape"));
	expect_refusal(f, p, "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. Refused by NodeAffinity: 2.");
}

static void host_ports(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, "1");
	struct core_v1_container_port *port = LIST_ADD(f->a, &p->spec.containers.items[0].ports);
	struct cached held = { .refs = 2, .obj = p };
	struct sched_pod placed = { .object = &held };

	port->container_port = port->host_port = 80;
	port->protocol = STR("TCP");
	add_node(f, "a", "8", "8Gi");
	expect_node(f, p, "a");
	nodes_place(&f->nodes, &placed, 0, 1);
	expect_refusal(f, p,
		"0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. Refused by NodePorts: 1.");
	nodes_place(&f->nodes, &placed, 0, -1);
	expect_node(f, p, "a");
}

static void too_many_pods(void **state)
{
	struct fixture *f = *state;

	add_node(f, "a", "8", "8Gi");
	f->nodes.pods[0] = 3;
	expect_refusal(f, new_pod(f, NULL), "0/1 nodes are available: 1 Too many pods. Refused by NodeResourcesFit: 1.");
}

static void extended_resource(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, NULL);
	struct core_v1_node *n = add_node(f, "a", "8", "8Gi");

	str_map_set(f->a, &p->spec.containers.items[0].resources.requests, STR("example.com/gpu"), STR("2"));
	expect_refusal(f, p, "0/1 nodes are available: 1 Insufficient example.com/gpu. Refused by NodeResourcesFit: 1.");
	str_map_set(f->nodes.object[0]->arena, &n->status.allocatable, STR("example.com/gpu"), STR("2"));
	refresh(f, "a");
	expect_node(f, p, "a");
}

static struct sched_pod *pod_of(int32_t priority)
{
	struct sched_pod *p = xcalloc(1, sizeof(*p));

	p->priority = priority;
	list_init(&p->parked);
	return p;
}

static void queue_order_and_waking(void **state)
{
	struct queue q;
	struct sched_pod *low = pod_of(0), *high = pod_of(10), *late = pod_of(10);

	queue_init(&q);
	queue_add(&q, low);
	queue_add(&q, high);
	queue_add(&q, late);
	assert_ptr_equal(queue_pop(&q), high);
	assert_ptr_equal(queue_pop(&q), late);
	assert_ptr_equal(queue_pop(&q), low);
	assert_null(queue_pop(&q));

	/* Refused by NodeName alone: a pod that ends does not help it, a node does. */
	for (size_t i = 0; i < n_plugins; i++)
		if (plugins[i] == &node_name_plugin)
			queue_park(&q, low, 1U << i);
	low->ready_at_ns = 1000;
	queue_wake_all(&q, EVENT_POD_GONE, 2000);
	assert_null(queue_pop(&q));
	queue_wake_all(&q, EVENT_NODE, 500);
	assert_null(queue_pop(&q)); /* still backing off */
	assert_int_equal(queue_expire(&q, 600), 1000);
	assert_int_equal(queue_expire(&q, 1000), 0);
	assert_ptr_equal(queue_pop(&q), low);
	queue_deinit(&q);
	free(low);
	free(high);
	free(late);
}

static void backoff_doubles_to_ten_seconds(void **state)
{
	assert_int_equal(backoff_ns(1), 1000000000);
	assert_int_equal(backoff_ns(2), 2000000000);
	assert_int_equal(backoff_ns(50), 10000000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_nodes, setup, teardown),
		cmocka_unit_test_setup_teardown(least_allocated_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(tolerations, setup, teardown),
		cmocka_unit_test_setup_teardown(node_selector_and_affinity, setup, teardown),
		cmocka_unit_test_setup_teardown(host_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_pods, setup, teardown),
		cmocka_unit_test_setup_teardown(extended_resource, setup, teardown),
		cmocka_unit_test(queue_order_and_waking),
		cmocka_unit_test(backoff_doubles_to_ten_seconds),
	};

	return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
