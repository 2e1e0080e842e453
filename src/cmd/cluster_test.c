/* What users rely on, end to end: replication, rollouts, endpoints, namespaces, owners, dead nodes. */
#include "cmd/cluster_fixture.h"

/* ---- replication ---- */
static bool rc_is_3(void *arg)
{
	const struct core_v1_replication_controller *rc =
		get(&core_v1_replication_controller_type, "rc", "web");

	return rc && rc->status.ready_replicas == 3 && rc->status.available_replicas == 3 &&
		rc->status.observed_generation == rc->metadata.generation &&
		count(&core_v1_pod_type, "rc") == 3;
}

static bool rc_is_1(void *arg)
{
	const struct core_v1_replication_controller *rc =
		get(&core_v1_replication_controller_type, "rc", "web");

	return rc->status.replicas == 1 && count(&core_v1_pod_type, "rc") == 1;
}

static bool rc_events(void *arg)
{
	return has_event("rc", "SuccessfulCreate", "Created pod: web-") &&
		has_event("rc", "SuccessfulDelete", "Deleted pod: web-");
}

static bool rc_pods_gone(void *arg)
{
	return !count(&core_v1_pod_type, "rc");
}

static bool replaced(void *lost)
{
	struct cached *c =
		informer_get(informers_get(the.informers, &core_v1_pod_type), *(struct str *)lost);
	bool gone = !c;

	cached_unref(c);
	return gone && rc_is_3(NULL);
}

static bool released(void *name)
{
	const struct core_v1_pod *p = get(&core_v1_pod_type, "rc", ((struct str *)name)->p);
	const struct core_v1_replication_controller *rc =
		get(&core_v1_replication_controller_type, "rc", "web");

	return p && !p->metadata.owner_references.len && rc->status.ready_replicas == 3 &&
		count(&core_v1_pod_type, "rc") == 4;
}

static void test_replication(void **state)
{
	struct cached_list l;

	new_namespace("rc");
	make(&core_v1_replication_controller_type,
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"rc\"},\"spec\":{\"replicas\":3,"
		"\"selector\":{\"app\":\"web\"}," TEMPLATE("web", "i:1") "}}");
	wait_for("3 ready pods", rc_is_3, NULL);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("rc"), &l);
	delete (&core_v1_pod_type, "rc", l.items[0]->meta->name.p, NULL);
	struct str lost = arena_str(memory, l.items[0]->key);

	cached_list_deinit(&l);
	wait_for("a replacement", replaced, &lost);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("rc"), &l);
	struct str let_go = arena_str(memory, l.items[0]->meta->name);

	cached_list_deinit(&l);
	patch(&core_v1_pod_type, "rc", let_go.p, "{\"metadata\":{\"labels\":{\"app\":\"mine\"}}}");
	wait_for("a pod that matches no more is released and replaced", released, &let_go);
	delete (&core_v1_pod_type, "rc", let_go.p, NULL);
	patch(&core_v1_replication_controller_type, "rc", "web", "{\"spec\":{\"replicas\":1}}");
	wait_for("1 pod", rc_is_1, NULL);
	wait_for("events", rc_events, NULL);
	delete (&core_v1_replication_controller_type, "rc", "web", "Background");
	wait_for("the owner's pods go", rc_pods_gone, NULL);
}

/* ---- deployments ---- */
static const struct apps_v1_deployment *deployment(void)
{
	return get(&apps_v1_deployment_type, "dep", "web");
}

static const struct apps_v1_deployment_condition *deployment_has(
	const struct apps_v1_deployment *d, const char *type)
{
	LIST_EACH(c, &d->status.conditions)
		if (str_eqz(c->type, type))
			return c;
	return NULL;
}

/* Rolled out: `image` on 3 available pods, nothing older. */
static bool rolled_out(void *image)
{
	const struct apps_v1_deployment *d = deployment();
	struct cached_list l;
	size_t right = 0, other = 0;

	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("dep"), &l);
	for (size_t i = 0; i < l.len; i++) {
		const struct core_v1_pod *p = l.items[i]->obj;

		if (str_eqz(p->spec.containers.items[0].image, image))
			right++;
		else
			other++;
	}
	cached_list_deinit(&l);
	const struct apps_v1_deployment_condition *c = deployment_has(d, "Progressing");

	return right == 3 && !other && d->status.updated_replicas == 3 &&
		d->status.available_replicas == 3 && d->status.replicas == 3 &&
		d->status.observed_generation == d->metadata.generation && c &&
		str_eqz(c->reason, "NewReplicaSetAvailable");
}

static void expect_revision(const char *revision)
{
	struct str r = str_map_get(
		&deployment()->metadata.annotations, STR("deployment.kubernetes.io/revision"));

	if (!str_eqz(r, revision))
		fail_msg("revision " STR_FMT ", wanted %s", STR_ARG(r), revision);
}

static bool paused_noted(void *arg)
{
	const struct apps_v1_deployment_condition *c = deployment_has(deployment(), "Progressing");

	return c && str_eqz(c->reason, "DeploymentPaused");
}

static bool scaled_to_5(void *arg)
{
	return deployment()->status.available_replicas == 5;
}

static bool deployment_all_gone(void *arg)
{
	return !count(&core_v1_pod_type, "dep") && !count(&apps_v1_replica_set_type, "dep");
}

static void test_deployment(void **state)
{
	new_namespace("dep");
	make(&apps_v1_deployment_type,
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"dep\"},\"spec\":{\"replicas\":3,"
		"\"selector\":{\"matchLabels\":{\"app\":\"web\"}}," TEMPLATE("web", "i:1") "}}");
	wait_for("the first rollout", rolled_out, "i:1");
	expect_revision("1");
	assert_true(str_eqz(
		deployment_has(deployment(), "Available")->reason, "MinimumReplicasAvailable"));
	patch(&apps_v1_deployment_type, "dep", "web", IMAGE("i:2"));
	wait_for("the second rollout", rolled_out, "i:2");
	expect_revision("2");
	assert_int_equal(count(&apps_v1_replica_set_type, "dep"), 2);
	patch(&apps_v1_deployment_type, "dep", "web", IMAGE("i:1"));
	wait_for("back to the first", rolled_out, "i:1");
	expect_revision("3");
	assert_int_equal(count(&apps_v1_replica_set_type, "dep"), 2); /* the old set serves again */
	patch(&apps_v1_deployment_type, "dep", "web",
		"{\"spec\":{\"paused\":true,\"replicas\":5}}");
	wait_for("paused", paused_noted, NULL);
	wait_for("scaled while paused", scaled_to_5, NULL);
	patch(&apps_v1_deployment_type, "dep", "web", IMAGE("i:3"));
	patch(&apps_v1_deployment_type, "dep", "web",
		"{\"spec\":{\"paused\":false,\"replicas\":3,\"strategy\":{\"type\":\"Recreate\",\"rollingUpdate\":null}}}");
	wait_for("recreated", rolled_out, "i:3");
	expect_revision("4");
	delete (&apps_v1_deployment_type, "dep", "web", "Foreground");
	wait_for("foreground deletion", deployment_all_gone, NULL);
}

static bool out_of_time(void *arg)
{
	const struct apps_v1_deployment *d = get(&apps_v1_deployment_type, "late", "web");
	const struct apps_v1_deployment_condition *c = deployment_has(d, "Progressing");

	return c && str_eqz(c->reason, "ProgressDeadlineExceeded") && str_eqz(c->status, "False") &&
		d->status.unavailable_replicas == 1;
}

static bool quota_refusal_shown(void *arg)
{
	const struct apps_v1_deployment *d = get(&apps_v1_deployment_type, "late", "refused");
	const struct apps_v1_deployment_condition *c = deployment_has(d, "ReplicaFailure");

	return c && str_eqz(c->reason, "FailedCreate") &&
		str_find_str(c->message, STR("exceeded quota")) >= 0 &&
		has_event("late", "FailedCreate", "Error creating: ");
}

static bool refusal_forgotten(void *arg)
{
	return !deployment_has(get(&apps_v1_deployment_type, "late", "refused"), "ReplicaFailure");
}

static void test_deployment_in_trouble(void **state)
{
	new_namespace("late");
	make(&apps_v1_deployment_type,
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"late\"},\"spec\":{\"progressDeadlineSeconds\":1,"
		"\"selector\":{\"matchLabels\":{\"hold\":\"on\"}},\"template\":{\"metadata\":{\"labels\":{\"hold\":\"on\"}},"
		"\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
	wait_for("its time ran out", out_of_time, NULL);
	make(&core_v1_resource_quota_type,
		"{\"metadata\":{\"name\":\"q\",\"namespace\":\"late\"},\"spec\":{\"hard\":{\"pods\":\"1\"}}}");
	make(&apps_v1_deployment_type,
		"{\"metadata\":{\"name\":\"refused\",\"namespace\":\"late\"},\"spec\":{\"replicas\":2,"
		"\"selector\":{\"matchLabels\":{\"app\":\"r\"}}," TEMPLATE("r", "i:1") "}}");
	wait_for("what refuses its pods is shown", quota_refusal_shown, NULL);
	patch(&apps_v1_deployment_type, "late", "refused", "{\"spec\":{\"replicas\":0}}");
	wait_for("and forgotten", refusal_forgotten, NULL);
}

/* ---- endpoints ---- */
static bool endpoints_ready(void *arg)
{
	const struct core_v1_endpoints *e = get(&core_v1_endpoints_type, "ep", "web");
	struct cached_list l;
	size_t ready = 0;

	informer_list(
		informers_get(the.informers, &discovery_v1_endpoint_slice_type), STR("ep"), &l);
	for (size_t i = 0; i < l.len; i++) {
		const struct discovery_v1_endpoint_slice *s = l.items[i]->obj;

		LIST_EACH(x, &s->endpoints)
			ready += x->conditions.ready.value && x->addresses.len == 1 &&
				x->target_ref && x->node_name.len;
		assert_true(
			str_eqz(str_map_get(&s->metadata.labels, STR("kubernetes.io/service-name")),
				"web"));
		assert_true(str_eqz(str_map_get(&s->metadata.labels,
					    STR("endpointslice.kubernetes.io/managed-by")),
			"endpointslice-controller.k8s.io"));
	}
	bool one = l.len == 1;

	cached_list_deinit(&l);
	return e && one && ready == 3 && e->subsets.len == 1 &&
		e->subsets.items[0].addresses.len == 3 &&
		!e->subsets.items[0].not_ready_addresses.len && e->subsets.items[0].ports.len == 2;
}

static bool endpoints_hint(void *arg)
{
	struct cached_list l;
	size_t hinted = 0;

	informer_list(
		informers_get(the.informers, &discovery_v1_endpoint_slice_type), STR("ep"), &l);
	for (size_t i = 0; i < l.len; i++)
		LIST_EACH(x,
			&((const struct discovery_v1_endpoint_slice *)l.items[i]->obj)->endpoints)
			hinted += x->hints && x->hints->for_nodes.len == 1 &&
				str_eq(x->hints->for_nodes.items[0].name, x->node_name);
	cached_list_deinit(&l);
	return hinted == 3;
}

static bool endpoints_empty(void *arg)
{
	const struct core_v1_endpoints *e = get(&core_v1_endpoints_type, "ep", "web");

	return e && !e->subsets.len;
}

static bool endpoints_gone(void *arg)
{
	return !get(&core_v1_endpoints_type, "ep", "web") &&
		!count(&discovery_v1_endpoint_slice_type, "ep");
}

static void test_endpoints(void **state)
{
	new_namespace("ep");
	make(&core_v1_service_type,
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"ep\"},\"spec\":{\"selector\":{\"app\":\"web\"},"
		"\"ports\":[{\"name\":\"a\",\"port\":80,\"targetPort\":\"http\"},{\"name\":\"b\",\"port\":81,\"targetPort\":8081}]}}");
	make(&apps_v1_replica_set_type,
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"ep\"},\"spec\":{\"replicas\":3,"
		"\"selector\":{\"matchLabels\":{\"app\":\"web\"}},\"template\":{\"metadata\":{\"labels\":{\"app\":\"web\"}},"
		"\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"ports\":[{\"name\":\"http\",\"containerPort\":8080}]}]}}}}");
	wait_for("three endpoints", endpoints_ready, NULL);
	const struct core_v1_endpoints *e = get(&core_v1_endpoints_type, "ep", "web");
	const struct core_v1_endpoint_port *p = e->subsets.items[0].ports.items;

	assert_int_equal(p[0].port + p[1].port, 8080 + 8081);
	patch(&core_v1_service_type, "ep", "web",
		"{\"spec\":{\"trafficDistribution\":\"PreferSameNode\"}}");
	wait_for("endpoints say whom they are for", endpoints_hint, NULL);
	patch(&apps_v1_replica_set_type, "ep", "web", "{\"spec\":{\"replicas\":0}}");
	wait_for("no endpoints", endpoints_empty, NULL);
	assert_int_equal(
		count(&discovery_v1_endpoint_slice_type, "ep"), 1); /* an empty one stays */
	delete (&core_v1_service_type, "ep", "web", NULL);
	wait_for("endpoints go with their service", endpoints_gone, NULL);
	delete (&apps_v1_replica_set_type, "ep", "web", NULL);
}

/* ---- namespaces ---- */
static bool namespace_gone(void *name)
{
	return !get(&core_v1_namespace_type, "", name);
}

static void test_namespace_deletion(void **state)
{
	new_namespace("doomed");
	make(&core_v1_config_map_type,
		"{\"metadata\":{\"name\":\"c\",\"namespace\":\"doomed\"},\"data\":{\"a\":\"b\"}}");
	make(&apps_v1_deployment_type,
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"doomed\"},\"spec\":{\"replicas\":2,"
		"\"selector\":{\"matchLabels\":{\"app\":\"web\"}}," TEMPLATE("web", "i:1") "}}");
	delete (&core_v1_namespace_type, "", "doomed", NULL);
	wait_for("the namespace goes", namespace_gone, "doomed");
	assert_int_equal(count(&core_v1_pod_type, "doomed"), 0);
	assert_null(get(&core_v1_config_map_type, "doomed", "c"));
}

/* ---- owners ---- */
static bool pods_are_orphans(void *arg)
{
	struct cached_list l;
	bool yes = true;

	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("own"), &l);
	for (size_t i = 0; i < l.len; i++)
		yes &= !l.items[i]->meta->owner_references.len;
	yes &= l.len == 2 && !get(&apps_v1_replica_set_type, "own", "web");
	cached_list_deinit(&l);
	return yes;
}

static bool two_ready(void *arg)
{
	const struct apps_v1_replica_set *rs = get(&apps_v1_replica_set_type, "own", "web");

	return rs && rs->status.ready_replicas == 2;
}

static bool two_adopted(void *arg)
{
	return two_ready(NULL) && count(&core_v1_pod_type, "own") == 2;
}

static bool map_gone(void *name)
{
	return !get(&core_v1_config_map_type, "own", name);
}

static void test_owners(void **state)
{
	static const char set[] =
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"own\"},\"spec\":{\"replicas\":2,"
		"\"selector\":{\"matchLabels\":{\"app\":\"web\"}}," TEMPLATE("web", "i:1") "}}";

	new_namespace("own");
	make(&apps_v1_replica_set_type, set);
	wait_for("two pods", two_ready, NULL);
	delete (&apps_v1_replica_set_type, "own", "web", "Orphan");
	wait_for("pods stay without an owner", pods_are_orphans, NULL);
	make(&apps_v1_replica_set_type, set);
	wait_for("the same pods are adopted", two_adopted, NULL);

	/* An owner that never was. */
	make(&core_v1_config_map_type,
		"{\"metadata\":{\"name\":\"stray\",\"namespace\":\"own\",\"ownerReferences\":[{\"apiVersion\":\"v1\","
		"\"kind\":\"ConfigMap\",\"name\":\"none\",\"uid\":\"00000000-0000-0000-0000-000000000001\"}]}}");
	wait_for("a dependent of nobody goes", map_gone, "stray");
	/* A kind that the server does not know. */
	make(&core_v1_config_map_type,
		"{\"metadata\":{\"name\":\"kept\",\"namespace\":\"own\",\"ownerReferences\":[{\"apiVersion\":\"none.example/v1\","
		"\"kind\":\"Thing\",\"name\":\"x\",\"uid\":\"00000000-0000-0000-0000-000000000002\"}]}}");
	const struct core_v1_config_map *a = make(
		&core_v1_config_map_type, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"own\"}}");

	make(&core_v1_config_map_type,
		arena_fmt(memory,
			"{\"metadata\":{\"name\":\"b\",\"namespace\":\"own\",\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"a\","
			"\"uid\":\"" STR_FMT "\"}]}}",
			STR_ARG(a->metadata.uid))
			.p);
	delete (&core_v1_config_map_type, "own", "a", "Background");
	wait_for("the dependent goes", map_gone, "b");
	assert_non_null(get(&core_v1_config_map_type, "own", "kept"));
	delete (&apps_v1_replica_set_type, "own", "web", "Background");
}

/* ---- foreground deletion ---- */
static const struct core_v1_config_map *make_map(const char *name)
{
	return make(&core_v1_config_map_type,
		arena_fmt(memory, "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"fore\"}}", name)
			.p);
}

static struct str owner_json(const struct core_v1_config_map *o)
{
	return arena_fmt(memory,
		"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"" STR_FMT
		"\",\"uid\":\"" STR_FMT "\",\"blockOwnerDeletion\":true}",
		STR_ARG(o->metadata.name), STR_ARG(o->metadata.uid));
}

static void own(const char *name, struct str owners)
{
	patch(&core_v1_config_map_type, "fore", name,
		arena_fmt(memory, "{\"metadata\":{\"ownerReferences\":[" STR_FMT "]}}",
			STR_ARG(owners))
			.p);
}

static bool maps_gone(void *names)
{
	for (const char *n = names; *n; n++)
		if (get(&core_v1_config_map_type, "fore", (char[]){ *n, 0 }))
			return false;
	return true;
}

static bool waits(void *arg)
{
	const struct core_v1_config_map *o = get(&core_v1_config_map_type, "fore", "o"),
					*d = get(&core_v1_config_map_type, "fore", "d");

	return o && d && !time_is_zero(o->metadata.deletion_timestamp) &&
		!time_is_zero(d->metadata.deletion_timestamp);
}

static bool kept_by_the_other(void *arg)
{
	const struct core_v1_config_map *y = get(&core_v1_config_map_type, "fore", "y");

	return !get(&core_v1_config_map_type, "fore", "w") && y &&
		y->metadata.owner_references.len == 1 &&
		str_eqz(y->metadata.owner_references.items[0].name, "v") &&
		time_is_zero(y->metadata.deletion_timestamp);
}

static void test_foreground(void **state)
{
	new_namespace("fore");
	/* A circle: each waits for the next. */
	const struct core_v1_config_map *a = make_map("a"), *b = make_map("b"), *c = make_map("c");

	own("a", owner_json(c));
	own("b", owner_json(a));
	own("c", owner_json(b));
	delete (&core_v1_config_map_type, "fore", "a", "Foreground");
	wait_for("the circle goes", maps_gone, "abc");
	/* Two owners, one of them going: the dependent stays with the other. */
	const struct core_v1_config_map *w = make_map("w"), *v = make_map("v");

	make_map("y");
	own("y",
		arena_fmt(memory, STR_FMT "," STR_FMT, STR_ARG(owner_json(w)),
			STR_ARG(owner_json(v))));
	delete (&core_v1_config_map_type, "fore", "w", "Foreground");
	wait_for("the dependent keeps its other owner", kept_by_the_other, NULL);
	/* The owner stays as long as a finalizer holds its dependent. */
	const struct core_v1_config_map *o = make_map("o");

	make_map("d");
	own("d", owner_json(o));
	patch(&core_v1_config_map_type, "fore", "d",
		"{\"metadata\":{\"finalizers\":[\"test.example/hold\"]}}");
	delete (&core_v1_config_map_type, "fore", "o", "Foreground");
	wait_for("both wait", waits, NULL);
	patch(&core_v1_config_map_type, "fore", "d", "{\"metadata\":{\"finalizers\":null}}");
	wait_for("both go", maps_gone, "od");
}

/* ---- a dead node ---- */
static bool has_taint(const char *node, const char *key, const char *effect)
{
	const struct core_v1_node *n = get(&core_v1_node_type, "", node);

	LIST_EACH(t, &n->spec.taints)
		if (str_eqz(t->key, key) && str_eqz(t->effect, effect))
			return true;
	return false;
}

static bool node_given_up(void *arg)
{
	return has_taint("n1", "node.kubernetes.io/unreachable", "NoSchedule") &&
		has_taint("n1", "node.kubernetes.io/unreachable", "NoExecute") &&
		!get(&core_v1_pod_type, "dead", "leaves") &&
		get(&core_v1_pod_type, "dead", "stays");
}

static void test_dead_node(void **state)
{
	const struct core_v1_node *n = get(&core_v1_node_type, "", "n1");

	assert_true(str_has_prefix(n->spec.pod_cidr, STR("10.42.")));
	new_namespace("dead");
	make(&core_v1_pod_type,
		"{\"metadata\":{\"name\":\"leaves\",\"namespace\":\"dead\"},\"spec\":{\"nodeName\":\"n1\",\"containers\":"
		"[{\"name\":\"c\",\"image\":\"i\"}],\"tolerations\":[{\"key\":\"node.kubernetes.io/unreachable\",\"operator\":\"Exists\","
		"\"effect\":\"NoExecute\",\"tolerationSeconds\":0}]}}");
	make(&core_v1_pod_type,
		"{\"metadata\":{\"name\":\"stays\",\"namespace\":\"dead\"},\"spec\":{\"nodeName\":\"n1\",\"containers\":"
		"[{\"name\":\"c\",\"image\":\"i\"}],\"tolerations\":[{\"operator\":\"Exists\"}]}}");
	the.dead_node = "n1";
	wait_for("n1 is given up and its pod evicted", node_given_up, NULL);
	n = get(&core_v1_node_type, "", "n1");
	LIST_EACH(c, &n->status.conditions)
		assert_true(str_eqz(c->status, "Unknown"));
	n = get(&core_v1_node_type, "", "n2");
	LIST_EACH(c, &n->status.conditions)
		assert_true(str_eqz(c->status, "True"));
}

/* Both silent: it is us who are cut off, and nobody is evicted. Then n2 is heard again. */
static bool all_unknown(void *arg)
{
	return has_taint("n1", "node.kubernetes.io/unreachable", "NoSchedule") &&
		has_taint("n2", "node.kubernetes.io/unreachable", "NoSchedule");
}

static bool nobody_evicted(void *arg)
{
	return all_unknown(NULL) &&
		!has_taint("n1", "node.kubernetes.io/unreachable", "NoExecute") &&
		!has_taint("n2", "node.kubernetes.io/unreachable", "NoExecute");
}

static bool one_back(void *arg)
{
	return !has_taint("n2", "node.kubernetes.io/unreachable", "NoSchedule");
}

static void test_cut_off(void **state)
{
	the.dead_node = "n1 n2";
	wait_for("all nodes are silent", all_unknown, NULL);
	wait_for("taints that evict are taken back", nobody_evicted, NULL);
	assert_non_null(get(&core_v1_pod_type, "dead", "stays"));
	the.dead_node = "n1";
	wait_for("one is heard again", one_back, NULL);
	assert_false(has_taint(
		"n1", "node.kubernetes.io/unreachable", "NoExecute")); /* it gets time to follow */
	the.dead_node = NULL;
	bool back = false;

	while (!back)
		back = !has_taint("n1", "node.kubernetes.io/unreachable", "NoSchedule");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replication),
		cmocka_unit_test(test_deployment),
		cmocka_unit_test(test_deployment_in_trouble),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_namespace_deletion),
		cmocka_unit_test(test_owners),
		cmocka_unit_test(test_foreground),
		cmocka_unit_test(test_dead_node),
		cmocka_unit_test(test_cut_off),
	};

	memory = arena_new(0);
	int r = cmocka_run_group_tests(tests, start, end);

	arena_free(memory);
	return r;
}
