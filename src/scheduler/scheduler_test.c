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

static struct core_v1_node *add_node(
	struct fixture *f, const char *name, const char *cpu, const char *memory)
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
	struct pod_terms *terms = terms_take(&f->nodes, p);
	struct requests q;
	struct verdict v;

	nodes_requests(&f->nodes, p, &q);
	decide(&f->nodes, p, &q, terms, &f->seed, &v);
	terms_drop(&f->nodes, terms);
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

/* Pods that ask for next to nothing score alike everywhere: the emptier node takes the next one. */
static void small_pods_spread(void **state)
{
	struct fixture *f = *state;

	add_node(f, "a", "64", "512Gi");
	add_node(f, "b", "64", "512Gi");
	f->nodes.pods[0] = 1;
	for (int i = 0; i < 20; i++)
		expect_node(f, new_pod(f, "1m"), "b");
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
	expect_refusal(f, p,
		"0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: db}. Refused by TaintToleration: 1.");
	tol->value = STR("db");
	expect_node(f, p, "tainted");
	*tol = (struct core_v1_toleration){ .operator= STR("Exists") };
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
	expect_refusal(f, p,
		"0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. Refused by NodeAffinity: 2.");
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
	expect_refusal(f, new_pod(f, NULL),
		"0/1 nodes are available: 1 Too many pods. Refused by NodeResourcesFit: 1.");
}

static void extended_resource(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, NULL);
	struct core_v1_node *n = add_node(f, "a", "8", "8Gi");

	str_map_set(f->a, &p->spec.containers.items[0].resources.requests, STR("example.com/gpu"),
		STR("2"));
	expect_refusal(f, p,
		"0/1 nodes are available: 1 Insufficient example.com/gpu. Refused by NodeResourcesFit: 1.");
	str_map_set(f->nodes.object[0]->arena, &n->status.allocatable, STR("example.com/gpu"),
		STR("2"));
	refresh(f, "a");
	expect_node(f, p, "a");
}

/* ---- pods and other pods ---- */

static void label_node(struct fixture *f, const char *node, const char *key, const char *value)
{
	size_t i = nodes_find(&f->nodes, str_of(node));
	struct core_v1_node *n = f->nodes.object[i]->obj;

	str_map_set(f->a, &n->metadata.labels, str_of(key), str_of(value));
	refresh(f, node);
}

static struct core_v1_pod *app_pod(struct fixture *f, const char *app, const char *cpu)
{
	struct core_v1_pod *p = new_pod(f, cpu);

	p->metadata.namespace = STR("ns");
	p->metadata.name = str_of(app);
	str_map_set(f->a, &p->metadata.labels, STR("app"), str_of(app));
	return p;
}

static struct sched_pod *place_pod(
	struct fixture *f, struct core_v1_pod *pod, const char *node, int32_t priority)
{
	struct sched_pod *p = arena_alloc(f->a, sizeof(*p));
	struct cached *c = arena_alloc(f->a, sizeof(*c));

	*c = (struct cached){ .refs = 1000, .obj = pod, .meta = &pod->metadata };
	p->object = c;
	p->priority = priority;
	p->terms = terms_take(&f->nodes, pod);
	nodes_requests(&f->nodes, pod, &p->requests);
	nodes_place(&f->nodes, p, nodes_find(&f->nodes, str_of(node)), 1);
	return p;
}

static void unplace_pod(struct fixture *f, struct sched_pod *p, const char *node)
{
	nodes_place(&f->nodes, p, nodes_find(&f->nodes, str_of(node)), -1);
	terms_drop(&f->nodes, p->terms);
}

static struct meta_v1_label_selector *select_app(struct fixture *f, const char *app)
{
	struct meta_v1_label_selector *s = model_new(&meta_v1_label_selector_type, f->a);

	str_map_set(f->a, &s->match_labels, STR("app"), str_of(app));
	return s;
}

static struct core_v1_pod_affinity_term *require(
	struct fixture *f, struct core_v1_pod *p, bool near, const char *app, const char *key)
{
	struct core_v1_affinity *a = p->spec.affinity;
	struct core_v1_pod_affinity_term *t;

	if (!a)
		a = p->spec.affinity = model_new(&core_v1_affinity_type, f->a);
	if (near && !a->pod_affinity)
		a->pod_affinity = model_new(&core_v1_pod_affinity_type, f->a);
	if (!near && !a->pod_anti_affinity)
		a->pod_anti_affinity = model_new(&core_v1_pod_anti_affinity_type, f->a);
	t = near ? LIST_ADD(f->a,
			   &a->pod_affinity->required_during_scheduling_ignored_during_execution)
		 : LIST_ADD(f->a,
			   &a->pod_anti_affinity
				    ->required_during_scheduling_ignored_during_execution);
	t->label_selector = select_app(f, app);
	t->topology_key = str_of(key);
	return t;
}

static void pods_near_and_far(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *web = app_pod(f, "web", "1"), *shy = app_pod(f, "shy", "1");
	struct sched_pod *db;

	add_node(f, "a", "8", "8Gi");
	add_node(f, "b", "8", "8Gi");
	add_node(f, "c", "8", "8Gi");
	label_node(f, "a", "zone", "x");
	label_node(f, "b", "zone", "y");
	require(f, web, true, "db", "zone");
	expect_refusal(f, web,
		"0/3 nodes are available: 3 node(s) didn't match pod affinity rules. Refused by InterPodAffinity: 3.");
	db = place_pod(f, app_pod(f, "db", "1"), "b", 0);
	expect_node(f, web, "b");
	/* the other way round, and a pod that is kept away by one that stands there */
	require(f, shy, false, "db", "zone");
	for (int i = 0; i < 10; i++)
		assert_true(strcmp(f->nodes.name[try(f, shy).node], "b") != 0);
	unplace_pod(f, db, "b");
	struct sched_pod *stands = place_pod(f, shy, "a", 0);

	for (int i = 0; i < 10; i++)
		assert_true(strcmp(f->nodes.name[try(f, app_pod(f, "db", "1")).node], "a") != 0);
	unplace_pod(f, stands, "a");
	/* the first of a group that wants its own kind */
	web->spec.affinity = NULL;
	require(f, web, true, "web", "zone");
	assert_true(strcmp(f->nodes.name[try(f, web).node], "c") != 0);
	assert_int_equal(f->nodes.matchers.len, 0);
	assert_int_equal(f->nodes.holdings.len, 0);
}

static void spread_over_zones(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = app_pod(f, "web", NULL);
	struct core_v1_topology_spread_constraint *c =
		LIST_ADD(f->a, &p->spec.topology_spread_constraints);
	struct sched_pod *one, *two;

	*c = (struct core_v1_topology_spread_constraint){ .max_skew = 1,
		.topology_key = STR("zone"),
		.when_unsatisfiable = STR("DoNotSchedule"),
		.label_selector = select_app(f, "web") };
	add_node(f, "a", "8", "8Gi");
	add_node(f, "b", "8", "8Gi");
	add_node(f, "none", "8", "8Gi");
	label_node(f, "a", "zone", "x");
	label_node(f, "b", "zone", "y");
	one = place_pod(f, p, "a", 0);
	expect_node(f, p, "b");
	two = place_pod(f, p, "b", 0);
	assert_int_not_equal(try(f, p).node, nodes_find(&f->nodes, STR("none")));
	unplace_pod(f, two, "b");
	f->nodes.unschedulable[1] = 1;
	expect_refusal(f, p,
		"0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology "
		"spread constraints (missing required label), 1 node(s) were unschedulable. Refused by NodeUnschedulable: 1, PodTopologySpread: 2.");
	f->nodes.unschedulable[1] = 0;
	c->when_unsatisfiable = STR("ScheduleAnyway");
	for (int i = 0; i < 10; i++)
		expect_node(f, p, "b");
	unplace_pod(f, one, "a");
}

static size_t preempt_for(struct fixture *f, const struct core_v1_pod *pod, int32_t priority,
	struct budget *budgets, size_t n_budgets, struct sched_pod ***victims, size_t *n)
{
	struct requests q;
	struct preempting w = { &f->nodes, pod, priority, &q, NULL, budgets, n_budgets };

	nodes_requests(&f->nodes, pod, &q);
	return preempt(&w, &f->seed, victims, n);
}

static void lower_priorities_make_room(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *big = new_pod(f, "2");
	struct sched_pod **v, *low, *mid;
	size_t n;

	add_node(f, "a", "4", "8Gi");
	add_node(f, "b", "4", "8Gi");
	low = place_pod(f, app_pod(f, "low", "3"), "a", 1);
	place_pod(f, app_pod(f, "tiny", "1"), "a", 1);
	mid = place_pod(f, app_pod(f, "mid", "4"), "b", 5);
	/* only what must: the small one comes back; the node with the lower victim */
	assert_int_equal(preempt_for(f, big, 10, NULL, 0, &v, &n), 0);
	assert_int_equal(n, 1);
	assert_ptr_equal(v[0], low);
	assert_int_equal(f->nodes.used[RES_CPU][0], 4000);
	assert_int_equal(f->nodes.placed[0].len, 2);
	free(v);
	/* a budget that would break counts for more than the priority */
	struct policy_v1_pod_disruption_budget *pdb =
		model_new(&policy_v1_pod_disruption_budget_type, f->a);
	struct budget b = { .pdb = pdb };

	pdb->metadata.namespace = STR("ns");
	assert_int_equal(
		selector_from_label_selector(select_app(f, "low"), f->a, &b.selector, NULL), 0);
	assert_int_equal(preempt_for(f, big, 10, &b, 1, &v, &n), 1);
	assert_ptr_equal(v[0], mid);
	free(v);
	/* nobody goes for an equal */
	assert_true(preempt_for(f, big, 1, NULL, 0, &v, &n) == NO_NODE);
	/* nor where it would not help */
	assert_true(preempt_for(f, new_pod(f, "5"), 10, NULL, 0, &v, &n) == NO_NODE);
	f->nodes.unschedulable[0] = f->nodes.unschedulable[1] = 1;
	assert_true(preempt_for(f, big, 10, NULL, 0, &v, &n) == NO_NODE);
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

static bool refused(struct fixture *f, const struct core_v1_pod *p)
{
	struct verdict v = try(f, p);

	free(v.message);
	return v.node == NO_NODE;
}

/* ---- what users write must not stay, nor spoil what others get ---- */

static void ask(struct fixture *f, struct core_v1_pod *p, const char *resource, const char *n)
{
	str_map_set(f->a, &p->spec.containers.items[0].resources.requests,
		arena_strz(f->a, resource), str_of(n));
}

/* Names of resources that nobody has use nothing up, and are never there. */
static void bogus_resources(void **state)
{
	struct fixture *f = *state;
	struct core_v1_node *n = add_node(f, "a", "8", "8Gi");
	struct core_v1_pod *gpu = new_pod(f, "1"), *other = new_pod(f, "1");

	for (int i = 0; i < 100; i++) {
		struct core_v1_pod *p = new_pod(f, "1");

		ask(f, p, arena_fmt(f->a, "foe.example/r%d", i).p, "1");
		assert_true(refused(f, p));
	}
	ask(f, gpu, "example.com/gpu", "1");
	place_pod(f, gpu, "a", 0); /* by somebody, before the node told of it */
	str_map_set(f->a, &n->status.allocatable, STR("example.com/gpu"), STR("1"));
	refresh(f, "a");
	ask(f, other, "example.com/gpu", "1");
	expect_refusal(f, other,
		"0/1 nodes are available: 1 Insufficient example.com/gpu. Refused by NodeResourcesFit: 1.");
	ask(f, other, "example.com/gpu", "0");
	expect_node(f, other, "a");
}

/* Two containers that each ask for nearly all that a number holds do not ask for less than nothing. */
static void large_requests(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, "1");

	add_node(f, "a", "8", "8Gi");
	for (int i = 0; i < 3; i++)
		str_map_set(f->a, &LIST_ADD(f->a, &p->spec.containers)->resources.requests,
			STR("memory"), STR("7Ei"));
	assert_true(refused(f, p));
	place_pod(f, p, "a", 0);
	assert_true(f->nodes.used[RES_MEMORY][0] > 0);
	expect_refusal(f, new_pod(f, "100"),
		"0/1 nodes are available: 1 Insufficient cpu. Refused by NodeResourcesFit: 1.");
}

/* Pods bound by hand may name any node. */
static void names_of_nodes_go(void **state)
{
	struct fixture *f = *state;

	add_node(f, "a", "8", "8Gi");
	for (int i = 0; i < 1000; i++) {
		const char *name = arena_fmt(f->a, "nowhere-%d", i).p;

		nodes_find_or_add(&f->nodes, str_of(name));
		struct sched_pod *p = place_pod(f, new_pod(f, "1"), name, 0);

		unplace_pod(f, p, name);
	}
	assert_int_equal(f->nodes.n, 2);
	add_node(f, "b", "8", "8Gi");
	assert_int_equal(f->nodes.n, 2);
	nodes_set(&f->nodes, nodes_find(&f->nodes, STR("a")), NULL);
	assert_true(nodes_find(&f->nodes, STR("a")) == NO_NODE);
	expect_node(f, new_pod(f, "1"), "b");
}

static void keys_of_topologies_go(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *many = app_pod(f, "many", "1");

	add_node(f, "a", "8", "8Gi");
	for (int i = 0; i < 1000; i++) {
		struct core_v1_pod *p = app_pod(f, "web", "1");

		require(f, p, false, "web", arena_fmt(f->a, "key-%d", i).p);
		expect_node(f, p, "a");
		require(f, many, false, "web", arena_fmt(f->a, "key-%d", i).p);
	}
	assert_int_equal(f->nodes.n_topologies, 1);
	assert_int_equal(f->nodes.topology_ids.len, 0);
	assert_int_equal(f->nodes.by_namespace.len, 0);
	expect_refusal(f, many,
		"0/1 nodes are available: 1 Pod has too many affinity terms and spread constraints. Refused by InterPodAffinity: 1.");
}

static const char *tier;

static bool labels_of_tier(void *arg, struct str ns, struct arena *a, struct str_map *ret)
{
	str_map_set(a, ret, STR("tier"), str_of(tier));
	return true;
}

/* A namespace that gets other labels while its pods run. */
static void namespaces_change(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *shy = app_pod(f, "shy", "1");
	struct core_v1_pod_affinity_term *t;
	struct sched_pod *db, *held;

	f->nodes.namespace_labels = labels_of_tier;
	add_node(f, "a", "8", "8Gi");
	label_node(f, "a", "zone", "x");
	t = require(f, shy, false, "db", "zone");
	t->namespace_selector = model_new(&meta_v1_label_selector_type, f->a);
	str_map_set(f->a, &t->namespace_selector->match_labels, STR("tier"), STR("data"));
	tier = "data";
	held = place_pod(f, shy, "a", 0); /* its term is counted from here on */
	db = place_pod(f, app_pod(f, "db", "1"), "a", 0);
	assert_true(refused(f, shy));
	tier = "other";
	matchers_namespace_changed(&f->nodes);
	expect_node(f, shy, "a");
	unplace_pod(f, db, "a");
	tier = "data";
	matchers_namespace_changed(&f->nodes);
	expect_node(f, shy, "a");
	unplace_pod(f, held, "a");
}

/* One that runs beside the others holds its ports as they do. */
static void host_ports_of_sidecars(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *p = new_pod(f, "1"), *q = new_pod(f, "1");
	struct core_v1_container *c = LIST_ADD(f->a, &p->spec.init_containers);

	add_node(f, "a", "8", "8Gi");
	c->restart_policy = STR("Always");
	LIST_ADD(f->a, &c->ports)->host_port = 80;
	LIST_ADD(f->a, &q->spec.containers.items[0].ports)->host_port = 80;
	place_pod(f, p, "a", 0);
	assert_true(refused(f, q));
	assert_true(refused(f, p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_nodes, setup, teardown),
		cmocka_unit_test_setup_teardown(least_allocated_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(small_pods_spread, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(tolerations, setup, teardown),
		cmocka_unit_test_setup_teardown(node_selector_and_affinity, setup, teardown),
		cmocka_unit_test_setup_teardown(host_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_pods, setup, teardown),
		cmocka_unit_test_setup_teardown(extended_resource, setup, teardown),
		cmocka_unit_test_setup_teardown(pods_near_and_far, setup, teardown),
		cmocka_unit_test_setup_teardown(spread_over_zones, setup, teardown),
		cmocka_unit_test_setup_teardown(lower_priorities_make_room, setup, teardown),
		cmocka_unit_test_setup_teardown(bogus_resources, setup, teardown),
		cmocka_unit_test_setup_teardown(large_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(names_of_nodes_go, setup, teardown),
		cmocka_unit_test_setup_teardown(keys_of_topologies_go, setup, teardown),
		cmocka_unit_test_setup_teardown(namespaces_change, setup, teardown),
		cmocka_unit_test_setup_teardown(host_ports_of_sidecars, setup, teardown),
		cmocka_unit_test(queue_order_and_waking),
		cmocka_unit_test(backoff_doubles_to_ten_seconds),
	};

	return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
