/* A control plane in one process without disk or network: memory store, registry, API server, controllers; a kubelet and a scheduler that only
 * say so. What users rely on, end to end: replication, rollouts, endpoints, namespaces, owners, dead nodes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "apiserver/apiserver.h"
#include "client/client.h"
#include "controllers/controllers.h"

#define WAIT_MS 30000

/* ---- the cluster ---- */
struct cluster {
	struct loop *loops[1];
	struct store *store;
	struct registry *registry;
	struct tls_context *tls;
	struct apiserver *apiserver;
	struct client *client;          /* as system:masters */
	struct informers *informers;
	struct controllers *controllers;
	/* the pretended kubelet */
	struct workqueue *pods;
	pthread_t kubelets[2], heart;
	_Atomic bool over;
	const char *_Atomic dead_node;  /* its heart stopped */
	_Atomic uint32_t next_ip;
	pthread_mutex_t lock;           /* news: something in the cluster changed */
	pthread_cond_t changed;
	uint64_t news;
};

static struct cluster the;

static void on_news(void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	pthread_mutex_lock(&the.lock);
	the.news++;
	pthread_cond_broadcast(&the.changed);
	pthread_mutex_unlock(&the.lock);
}

static void on_pod(void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (now)
		workqueue_add(the.pods, now->key);
}

/* ---- the pretended kubelet: binds, reports Running, removes ---- */
/* Daemon pods name their node. */
static struct str wanted_node(const struct core_v1_pod *p)
{
	const struct core_v1_node_affinity *na = p->spec.affinity ? p->spec.affinity->node_affinity : NULL;

	if (na && na->required_during_scheduling_ignored_during_execution)
		return na->required_during_scheduling_ignored_during_execution->node_selector_terms.items[0].match_fields.items[0].values.items[0];
	return p->metadata.name.len % 2 ? STR("n1") : STR("n2");
}

static int bind_pod(const struct core_v1_pod *p, struct arena *a)
{
	struct core_v1_binding *b = model_new(&core_v1_binding_type, a);

	b->metadata.name = p->metadata.name;
	b->metadata.namespace = p->metadata.namespace;
	b->target.kind = STR("Node");
	b->target.name = wanted_node(p);
	return client_create_sub(the.client, &core_v1_pod_type, p->metadata.namespace, p->metadata.name, "binding", &core_v1_binding_type,
		b, a, NULL, NULL);
}

static int report_running(const struct core_v1_pod *p, struct arena *a)
{
	struct core_v1_pod *c = model_copy(&core_v1_pod_type, p, a);
	struct core_v1_pod_condition *ready = LIST_ADD(a, &c->status.conditions);

	c->status.phase = STR("Running");
	c->status.pod_ip = arena_fmt(a, "10.42.1.%u", ++the.next_ip);
	LIST_ADD(a, &c->status.pod_ips)->ip = c->status.pod_ip;
	ready->type = STR("Ready");
	ready->status = STR("True");
	ready->last_transition_time = time_now();
	return client_update(the.client, &core_v1_pod_type, "status", c, a, NULL, NULL);
}

/* A pod labelled end=… ends so once it runs. */
static int report_end(const struct core_v1_pod *p, struct str phase, struct arena *a)
{
	struct core_v1_pod *c = model_copy(&core_v1_pod_type, p, a);

	c->status.phase = phase;
	LIST_EACH(k, &c->status.conditions)
		k->status = STR("False");
	return client_update(the.client, &core_v1_pod_type, "status", c, a, NULL, NULL);
}

static void tend(struct str key, struct arena *a)
{
	const struct client_delete now = { .grace_seconds = 0 };
	struct cached *c = informer_get(informers_get(the.informers, &core_v1_pod_type), key);
	struct err err = { "" };
	int r = 0;

	if (!c)
		return;
	const struct core_v1_pod *p = c->obj;

	if (!time_is_zero(p->metadata.deletion_timestamp))
		r = client_delete(the.client, &core_v1_pod_type, p->metadata.namespace, p->metadata.name, &now, &err);
	else if (!p->spec.node_name.len)
		r = bind_pod(p, a);
	else if (!p->status.phase.len || str_eqz(p->status.phase, "Pending"))
		r = report_running(p, a);
	else if (str_eqz(p->status.phase, "Running") && str_map_has(&p->metadata.labels, STR("end")))
		r = report_end(p, str_map_get(&p->metadata.labels, STR("end")), a);
	if (r && r != CLIENT_CONFLICT && r != CLIENT_NOT_FOUND)
		printf("# kubelet: %s\n", err.text);
	cached_unref(c);
}

static void *kubelet(void *arg)
{
	char *key;

	while ((key = workqueue_get(the.pods))) {
		struct arena *a CLEAN_ARENA = arena_new(0);

		tend(str_of(key), a);
		workqueue_done(the.pods, key);
		free(key);
	}
	return NULL;
}

static void *beat(void *arg)
{
	static const char *const nodes[] = { "n1", "n2" };

	while (!the.over) {
		char when[TIME_TEXT_MAX];
		struct arena *a CLEAN_ARENA = arena_new(0);

		time_format(time_now(), when);
		struct str patch = arena_fmt(a, "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"lastHeartbeatTime\":\"%s\"}]}}", when);

		for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
			if (!the.dead_node || strcmp(the.dead_node, nodes[i]))
				client_patch(the.client, &core_v1_node_type, STR_NONE, str_of(nodes[i]), "status", CLIENT_PATCH_STRATEGIC, patch, a, NULL,
					NULL);
		usleep(300000);
	}
	return NULL;
}

/* ---- start and end ---- */
static const struct type *const watched[] = {
	&core_v1_pod_type, &apps_v1_replica_set_type, &apps_v1_deployment_type, &core_v1_replication_controller_type, &core_v1_endpoints_type,
	&discovery_v1_endpoint_slice_type, &core_v1_namespace_type, &core_v1_service_account_type, &core_v1_config_map_type, &core_v1_node_type,
	&core_v1_event_type, &core_v1_service_type, &apps_v1_daemon_set_type, &apps_v1_stateful_set_type, &apps_v1_controller_revision_type,
	&policy_v1_pod_disruption_budget_type, &batch_v1_job_type, &batch_v1_cron_job_type, &core_v1_resource_quota_type,
	&rbac_v1_cluster_role_type, &core_v1_secret_type, &core_v1_persistent_volume_claim_type,
};

static void start_api(void)
{
	const struct cert_request ca = { .common_name = "test-ca", .valid_seconds = 3600, .is_ca = true };
	const char *const ips[] = { "127.0.0.1", NULL };
	const struct cert_request server = { .common_name = "server", .valid_seconds = 3600, .server_auth = true, .ip_addresses = ips };
	struct buf key CLEAN_BUF = { 0 }, cert CLEAN_BUF = { 0 }, skey CLEAN_BUF = { 0 }, scert CLEAN_BUF = { 0 };
	const struct store_config sc = { .backend = "memory" };
	const struct registry_config rc = { .clock = &clock_real, .service_cidr = "10.43.0.0/16", .node_port_first = 30000,
		.node_port_last = 32767 };
	struct registry_config with = rc;
	struct err err = { "" };

	assert_int_equal(cert_new_key(&key, NULL) | cert_new_key(&skey, NULL), 0);
	assert_int_equal(cert_issue(&ca, buf_str(&key), STR_NONE, STR_NONE, &cert, NULL), 0);
	assert_int_equal(cert_issue(&server, buf_str(&skey), buf_str(&cert), buf_str(&key), &scert, NULL), 0);
	const struct tls_server_config tc = { .cert_pem = buf_str(&scert), .key_pem = buf_str(&skey), .client_ca_pem = buf_str(&cert) };

	assert_int_equal(tls_server_new(&tc, &the.tls, &err), 0);
	assert_int_equal(loop_new("api", &the.loops[0], NULL), 0);
	assert_int_equal(loop_start(the.loops[0], NULL), 0);
	assert_int_equal(store_open(&sc, &the.store, &err), 0);
	with.store = the.store;
	assert_int_equal(registry_new(&with, &the.registry, &err), 0);
	const struct apiserver_config ac = { .loops = the.loops, .n_loops = 1, .address = "127.0.0.1", .tls = the.tls,
		.registry = the.registry, .service_account_key = buf_str(&skey), .issuer = "https://kubernetes.default.svc.cluster.local",
		.ca_pem = buf_str(&cert), .git_version = "v1.36.3" };

	assert_int_equal(apiserver_new(&ac, &the.apiserver, &err), 0);
	if (registry_bootstrap(the.registry, &err))
		fail_msg("bootstrap: %s", err.text);
	assert_int_equal(apiserver_start(the.apiserver, &err), 0);
}

static void make_node(const char *name)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_node *n = model_new(&core_v1_node_type, a);
	struct err err = { "" };

	n->metadata.name = str_of(name);
	if (client_create(the.client, &core_v1_node_type, STR_NONE, n, a, (void **)&n, &err))
		fail_msg("node: %s", err.text);
	if (client_patch(the.client, &core_v1_node_type, STR_NONE, str_of(name), "status", CLIENT_PATCH_STRATEGIC,
		    STR("{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}"), a, NULL, &err))
		fail_msg("node status: %s", err.text);
}

static int start(void **state)
{
	const struct tls_identity who = { .common_name = STR("admin"), .organizations = { STR("system:masters") }, .n_organizations = 1 };
	struct client_config cc = { .user_agent = "test" };
	struct controllers_config c = { .clock = &clock_real, .ca_pem = STR("-----CA-----\n"), .cluster_cidr = "10.42.0.0/16",
		.node_monitor_grace_s = 4 };
	struct err err = { "" };

	log_set_level(getenv("SKIFF_LOG") ? LOG_DEBUG : LOG_WARN);
	pthread_mutex_init(&the.lock, NULL);
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&the.changed, &attr);
	start_api();
	const struct http_handler h = apiserver_handler(the.apiserver);

	assert_int_equal(http_client_new_local(the.loops[0], &h, &who, &cc.http), 0);
	the.client = client_new(&cc);
	the.pods = workqueue_new("pods");
	the.informers = informers_new(the.client);
	c.client = the.client;
	c.informers = the.informers;
	if (controllers_new(&c, &the.controllers, &err))
		fail_msg("controllers: %s", err.text);
	for (size_t i = 0; i < ARRAY_LEN(watched); i++)
		informer_add_handler(informers_get(the.informers, watched[i]), on_news, NULL);
	informer_add_handler(informers_get(the.informers, &core_v1_pod_type), on_pod, NULL);
	if (informers_start(the.informers, &err) || controllers_start(the.controllers, &err))
		fail_msg("start: %s", err.text);
	for (size_t i = 0; i < ARRAY_LEN(the.kubelets); i++)
		assert_int_equal(thread_start(&the.kubelets[i], "kubelet", kubelet, NULL), 0);
	make_node("n1");
	make_node("n2");
	assert_int_equal(thread_start(&the.heart, "heart", beat, NULL), 0);
	return 0;
}

static int end(void **state)
{
	the.over = true;
	pthread_join(the.heart, NULL);
	controllers_stop(the.controllers);
	workqueue_stop(the.pods);
	for (size_t i = 0; i < ARRAY_LEN(the.kubelets); i++)
		pthread_join(the.kubelets[i], NULL);
	informers_free(the.informers);
	controllers_free(the.controllers);
	workqueue_free(the.pods);
	client_free(the.client);
	apiserver_stop(the.apiserver);
	loop_stop(the.loops[0]);
	loop_join(the.loops[0]);
	apiserver_free(the.apiserver);
	registry_free(the.registry);
	store_close(the.store);
	loop_free(the.loops[0]);
	tls_context_free(the.tls);
	return 0;
}

/* ---- asking ---- */
/* Waits until ask(arg) is true; it is asked again whenever the cluster changed. */
static void wait_for(const char *what, bool (*ask)(void *arg), void *arg)
{
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	for (;;) {
		pthread_mutex_lock(&the.lock);
		uint64_t seen = the.news;
		pthread_mutex_unlock(&the.lock);
		if (ask(arg))
			return;
		pthread_mutex_lock(&the.lock);
		while (the.news == seen) {
			const struct timespec t = { .tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000) };

			if (pthread_cond_timedwait(&the.changed, &the.lock, &t) == ETIMEDOUT) {
				pthread_mutex_unlock(&the.lock);
				fail_msg("did not come: %s", what);
			}
		}
		pthread_mutex_unlock(&the.lock);
	}
}

/* A live object, or NULL; in the arena that lives as long as the test. */
static struct arena *memory;

static void *get(const struct type *t, const char *ns, const char *name)
{
	void *obj;

	return client_get(the.client, t, str_of(ns), str_of(name), memory, &obj, NULL) ? NULL : obj;
}

static void *make(const struct type *t, const char *json)
{
	void *obj, *made;
	struct err err = { "" };

	if (json_decode(t, str_of(json), memory, NULL, &obj, &err))
		fail_msg("test object: %s", err.text);
	if (client_create(the.client, t, model_meta(t, obj)->namespace, obj, memory, &made, &err))
		fail_msg("create %s: %s", t->name, err.text);
	return made;
}

static void patch(const struct type *t, const char *ns, const char *name, const char *json)
{
	struct err err = { "" };

	if (client_patch(the.client, t, str_of(ns), str_of(name), NULL, CLIENT_PATCH_MERGE, str_of(json), memory, NULL, &err))
		fail_msg("patch %s: %s", name, err.text);
}

static void delete(const struct type *t, const char *ns, const char *name, const char *propagation)
{
	const struct client_delete o = { .grace_seconds = -1, .propagation = propagation };
	struct err err = { "" };

	if (client_delete(the.client, t, str_of(ns), str_of(name), &o, &err))
		fail_msg("delete %s: %s", name, err.text);
}

static size_t count(const struct type *t, const char *ns)
{
	struct cached_list l;

	informer_list(informers_get(the.informers, t), str_of(ns), &l);
	size_t n = l.len;

	cached_list_deinit(&l);
	return n;
}

static bool has_event(const char *ns, const char *reason, const char *text)
{
	struct cached_list l;
	bool found = false;

	informer_list(informers_get(the.informers, &core_v1_event_type), str_of(ns), &l);
	for (size_t i = 0; i < l.len; i++) {
		const struct core_v1_event *e = l.items[i]->obj;

		found |= str_eqz(e->reason, reason) && str_find_str(e->message, str_of(text)) >= 0;
	}
	cached_list_deinit(&l);
	return found;
}

#define TEMPLATE(app, image) \
	"\"template\":{\"metadata\":{\"labels\":{\"app\":\"" app "\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" image "\"}]}}"

static bool namespace_ready(void *name)
{
	return get(&core_v1_service_account_type, name, "default") && get(&core_v1_config_map_type, name, "kube-root-ca.crt");
}

static void new_namespace(const char *name)
{
	make(&core_v1_namespace_type, arena_fmt(memory, "{\"metadata\":{\"name\":\"%s\"}}", name).p);
	wait_for("service account and root CA", namespace_ready, (void *)name);
}

/* ---- replication ---- */
static bool rc_is_3(void *arg)
{
	const struct core_v1_replication_controller *rc = get(&core_v1_replication_controller_type, "rc", "web");

	return rc && rc->status.ready_replicas == 3 && rc->status.available_replicas == 3 &&
		rc->status.observed_generation == rc->metadata.generation && count(&core_v1_pod_type, "rc") == 3;
}

static bool rc_is_1(void *arg)
{
	const struct core_v1_replication_controller *rc = get(&core_v1_replication_controller_type, "rc", "web");

	return rc->status.replicas == 1 && count(&core_v1_pod_type, "rc") == 1;
}

static bool rc_events(void *arg)
{
	return has_event("rc", "SuccessfulCreate", "Created pod: web-") && has_event("rc", "SuccessfulDelete", "Deleted pod: web-");
}

static bool rc_pods_gone(void *arg)
{
	return !count(&core_v1_pod_type, "rc");
}

static bool replaced(void *lost)
{
	struct cached *c = informer_get(informers_get(the.informers, &core_v1_pod_type), *(struct str *)lost);
	bool gone = !c;

	cached_unref(c);
	return gone && rc_is_3(NULL);
}

static void test_replication(void **state)
{
	struct cached_list l;

	new_namespace("rc");
	make(&core_v1_replication_controller_type, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"rc\"},\"spec\":{\"replicas\":3,"
						   "\"selector\":{\"app\":\"web\"}," TEMPLATE("web", "i:1") "}}");
	wait_for("3 ready pods", rc_is_3, NULL);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("rc"), &l);
	delete(&core_v1_pod_type, "rc", l.items[0]->meta->name.p, NULL);
	struct str lost = arena_str(memory, l.items[0]->key);

	cached_list_deinit(&l);
	wait_for("a replacement", replaced, &lost);
	patch(&core_v1_replication_controller_type, "rc", "web", "{\"spec\":{\"replicas\":1}}");
	wait_for("1 pod", rc_is_1, NULL);
	wait_for("events", rc_events, NULL);
	delete(&core_v1_replication_controller_type, "rc", "web", "Background");
	wait_for("the owner's pods go", rc_pods_gone, NULL);
}

/* ---- deployments ---- */
static const struct apps_v1_deployment *deployment(void)
{
	return get(&apps_v1_deployment_type, "dep", "web");
}

static const struct apps_v1_deployment_condition *deployment_has(const struct apps_v1_deployment *d, const char *type)
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

	return right == 3 && !other && d->status.updated_replicas == 3 && d->status.available_replicas == 3 && d->status.replicas == 3 &&
		d->status.observed_generation == d->metadata.generation && c && str_eqz(c->reason, "NewReplicaSetAvailable");
}

static void expect_revision(const char *revision)
{
	struct str r = str_map_get(&deployment()->metadata.annotations, STR("deployment.kubernetes.io/revision"));

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

#define IMAGE(i) "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" i "\"}]}}}}"

static void test_deployment(void **state)
{
	new_namespace("dep");
	make(&apps_v1_deployment_type, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"dep\"},\"spec\":{\"replicas\":3,"
				       "\"selector\":{\"matchLabels\":{\"app\":\"web\"}}," TEMPLATE("web", "i:1") "}}");
	wait_for("the first rollout", rolled_out, "i:1");
	expect_revision("1");
	assert_true(str_eqz(deployment_has(deployment(), "Available")->reason, "MinimumReplicasAvailable"));
	patch(&apps_v1_deployment_type, "dep", "web", IMAGE("i:2"));
	wait_for("the second rollout", rolled_out, "i:2");
	expect_revision("2");
	assert_int_equal(count(&apps_v1_replica_set_type, "dep"), 2);
	patch(&apps_v1_deployment_type, "dep", "web", IMAGE("i:1"));
	wait_for("back to the first", rolled_out, "i:1");
	expect_revision("3");
	assert_int_equal(count(&apps_v1_replica_set_type, "dep"), 2); /* the old set serves again */
	patch(&apps_v1_deployment_type, "dep", "web", "{\"spec\":{\"paused\":true,\"replicas\":5}}");
	wait_for("paused", paused_noted, NULL);
	wait_for("scaled while paused", scaled_to_5, NULL);
	patch(&apps_v1_deployment_type, "dep", "web", IMAGE("i:3"));
	patch(&apps_v1_deployment_type, "dep", "web", "{\"spec\":{\"paused\":false,\"replicas\":3,\"strategy\":{\"type\":\"Recreate\",\"rollingUpdate\":null}}}");
	wait_for("recreated", rolled_out, "i:3");
	expect_revision("4");
	delete(&apps_v1_deployment_type, "dep", "web", "Foreground");
	wait_for("foreground deletion", deployment_all_gone, NULL);
}

/* ---- endpoints ---- */
static bool endpoints_ready(void *arg)
{
	const struct core_v1_endpoints *e = get(&core_v1_endpoints_type, "ep", "web");
	struct cached_list l;
	size_t ready = 0;

	informer_list(informers_get(the.informers, &discovery_v1_endpoint_slice_type), STR("ep"), &l);
	for (size_t i = 0; i < l.len; i++) {
		const struct discovery_v1_endpoint_slice *s = l.items[i]->obj;

		LIST_EACH(x, &s->endpoints)
			ready += x->conditions.ready.value && x->addresses.len == 1 && x->target_ref && x->node_name.len;
		assert_true(str_eqz(str_map_get(&s->metadata.labels, STR("kubernetes.io/service-name")), "web"));
		assert_true(str_eqz(str_map_get(&s->metadata.labels, STR("endpointslice.kubernetes.io/managed-by")),
			"endpointslice-controller.k8s.io"));
	}
	bool one = l.len == 1;

	cached_list_deinit(&l);
	return e && one && ready == 3 && e->subsets.len == 1 && e->subsets.items[0].addresses.len == 3 &&
		!e->subsets.items[0].not_ready_addresses.len && e->subsets.items[0].ports.len == 2;
}

static bool endpoints_empty(void *arg)
{
	const struct core_v1_endpoints *e = get(&core_v1_endpoints_type, "ep", "web");

	return e && !e->subsets.len;
}

static bool endpoints_gone(void *arg)
{
	return !get(&core_v1_endpoints_type, "ep", "web") && !count(&discovery_v1_endpoint_slice_type, "ep");
}

static void test_endpoints(void **state)
{
	new_namespace("ep");
	make(&core_v1_service_type, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"ep\"},\"spec\":{\"selector\":{\"app\":\"web\"},"
				    "\"ports\":[{\"name\":\"a\",\"port\":80,\"targetPort\":\"http\"},{\"name\":\"b\",\"port\":81,\"targetPort\":8081}]}}");
	make(&apps_v1_replica_set_type, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"ep\"},\"spec\":{\"replicas\":3,"
					"\"selector\":{\"matchLabels\":{\"app\":\"web\"}},\"template\":{\"metadata\":{\"labels\":{\"app\":\"web\"}},"
					"\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"ports\":[{\"name\":\"http\",\"containerPort\":8080}]}]}}}}");
	wait_for("three endpoints", endpoints_ready, NULL);
	const struct core_v1_endpoints *e = get(&core_v1_endpoints_type, "ep", "web");
	const struct core_v1_endpoint_port *p = e->subsets.items[0].ports.items;

	assert_int_equal(p[0].port + p[1].port, 8080 + 8081);
	patch(&apps_v1_replica_set_type, "ep", "web", "{\"spec\":{\"replicas\":0}}");
	wait_for("no endpoints", endpoints_empty, NULL);
	assert_int_equal(count(&discovery_v1_endpoint_slice_type, "ep"), 1); /* an empty one stays */
	delete(&core_v1_service_type, "ep", "web", NULL);
	wait_for("endpoints go with their service", endpoints_gone, NULL);
	delete(&apps_v1_replica_set_type, "ep", "web", NULL);
}

/* ---- namespaces ---- */
static bool namespace_gone(void *name)
{
	return !get(&core_v1_namespace_type, "", name);
}

static void test_namespace_deletion(void **state)
{
	new_namespace("doomed");
	make(&core_v1_config_map_type, "{\"metadata\":{\"name\":\"c\",\"namespace\":\"doomed\"},\"data\":{\"a\":\"b\"}}");
	make(&apps_v1_deployment_type, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"doomed\"},\"spec\":{\"replicas\":2,"
				       "\"selector\":{\"matchLabels\":{\"app\":\"web\"}}," TEMPLATE("web", "i:1") "}}");
	delete(&core_v1_namespace_type, "", "doomed", NULL);
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
	static const char set[] = "{\"metadata\":{\"name\":\"web\",\"namespace\":\"own\"},\"spec\":{\"replicas\":2,"
				  "\"selector\":{\"matchLabels\":{\"app\":\"web\"}}," TEMPLATE("web", "i:1") "}}";

	new_namespace("own");
	make(&apps_v1_replica_set_type, set);
	wait_for("two pods", two_ready, NULL);
	delete(&apps_v1_replica_set_type, "own", "web", "Orphan");
	wait_for("pods stay without an owner", pods_are_orphans, NULL);
	make(&apps_v1_replica_set_type, set);
	wait_for("the same pods are adopted", two_adopted, NULL);

	/* An owner that never was. */
	make(&core_v1_config_map_type, "{\"metadata\":{\"name\":\"stray\",\"namespace\":\"own\",\"ownerReferences\":[{\"apiVersion\":\"v1\","
				       "\"kind\":\"ConfigMap\",\"name\":\"none\",\"uid\":\"00000000-0000-0000-0000-000000000001\"}]}}");
	wait_for("a dependent of nobody goes", map_gone, "stray");
	/* A kind that the server does not know. */
	make(&core_v1_config_map_type, "{\"metadata\":{\"name\":\"kept\",\"namespace\":\"own\",\"ownerReferences\":[{\"apiVersion\":\"none.example/v1\","
				       "\"kind\":\"Thing\",\"name\":\"x\",\"uid\":\"00000000-0000-0000-0000-000000000002\"}]}}");
	const struct core_v1_config_map *a = make(&core_v1_config_map_type, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"own\"}}");

	make(&core_v1_config_map_type, arena_fmt(memory,
		"{\"metadata\":{\"name\":\"b\",\"namespace\":\"own\",\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"a\","
		"\"uid\":\"" STR_FMT "\"}]}}", STR_ARG(a->metadata.uid)).p);
	delete(&core_v1_config_map_type, "own", "a", "Background");
	wait_for("the dependent goes", map_gone, "b");
	assert_non_null(get(&core_v1_config_map_type, "own", "kept"));
	delete(&apps_v1_replica_set_type, "own", "web", "Background");
}

/* ---- daemon sets ---- */
static bool daemon_says(void *arg)
{
	const struct apps_v1_daemon_set_status *want = arg;
	const struct apps_v1_daemon_set *d = get(&apps_v1_daemon_set_type, "ds", "agent");

	return d->status.desired_number_scheduled == want->desired_number_scheduled && d->status.number_available == want->number_available &&
		d->status.updated_number_scheduled == want->updated_number_scheduled && d->status.observed_generation == d->metadata.generation;
}

static void test_daemon_set(void **state)
{
	struct apps_v1_daemon_set_status two = { .desired_number_scheduled = 2, .number_available = 2, .updated_number_scheduled = 2 };
	struct apps_v1_daemon_set_status one = { .desired_number_scheduled = 1, .number_available = 1, .updated_number_scheduled = 1 };
	struct cached_list l;
	bool on[2] = { false, false };

	new_namespace("ds");
	make(&apps_v1_daemon_set_type, "{\"metadata\":{\"name\":\"agent\",\"namespace\":\"ds\"},\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"a\"}},"
		TEMPLATE("a", "i:1") "}}");
	wait_for("a pod on each node", daemon_says, &two);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("ds"), &l);
	for (size_t i = 0; i < l.len; i++)
		on[str_eqz(((struct core_v1_pod *)l.items[i]->obj)->spec.node_name, "n2")] = true;
	cached_list_deinit(&l);
	assert_true(on[0] && on[1]);
	assert_int_equal(count(&apps_v1_controller_revision_type, "ds"), 1);
	patch(&apps_v1_daemon_set_type, "ds", "agent", IMAGE("i:2"));
	wait_for("the update", daemon_says, &two);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("ds"), &l);
	for (size_t i = 0; i < l.len; i++)
		assert_true(str_eqz(((struct core_v1_pod *)l.items[i]->obj)->spec.containers.items[0].image, "i:2"));
	cached_list_deinit(&l);
	assert_int_equal(count(&apps_v1_controller_revision_type, "ds"), 2);
	patch(&core_v1_node_type, "", "n2", "{\"metadata\":{\"labels\":{\"pick\":\"me\"}}}");
	patch(&apps_v1_daemon_set_type, "ds", "agent", "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"pick\":\"me\"}}}}}");
	wait_for("only the selected node", daemon_says, &one);
	delete(&apps_v1_daemon_set_type, "ds", "agent", "Background");
}

/* ---- stateful sets and disruption budgets ---- */
static bool stateful_says(void *arg)
{
	const char *image = arg;
	const struct apps_v1_stateful_set *s = get(&apps_v1_stateful_set_type, "sts", "db");
	int want = s->spec.replicas.value;

	for (int i = 0; i < want; i++) {
		const struct core_v1_pod *p = get(&core_v1_pod_type, "sts", arena_fmt(memory, "db-%d", i).p);

		if (!p || !str_eqz(p->spec.containers.items[0].image, image) || !str_eqz(p->spec.hostname, p->metadata.name.p))
			return false;
	}
	return s->status.available_replicas == want && s->status.replicas == want && s->status.observed_generation == s->metadata.generation &&
		str_eq(s->status.current_revision, s->status.update_revision) && (int)count(&core_v1_pod_type, "sts") == want;
}

static bool partitioned(void *arg)
{
	const struct core_v1_pod *p0 = get(&core_v1_pod_type, "sts", "db-0"), *p2 = get(&core_v1_pod_type, "sts", "db-2");
	const struct apps_v1_stateful_set *s = get(&apps_v1_stateful_set_type, "sts", "db");

	return p0 && p2 && str_eqz(p0->spec.containers.items[0].image, "i:1") && str_eqz(p2->spec.containers.items[0].image, "i:2") &&
		s->status.updated_replicas == 1 && s->status.available_replicas == 3;
}

static bool budget_allows(void *n)
{
	const struct policy_v1_pod_disruption_budget *b = get(&policy_v1_pod_disruption_budget_type, "sts", "db");

	return b->status.disruptions_allowed == *(int *)n && b->status.observed_generation == b->metadata.generation;
}

static void test_stateful_set(void **state)
{
	int one = 1, none = 0;

	new_namespace("sts");
	make(&apps_v1_stateful_set_type, "{\"metadata\":{\"name\":\"db\",\"namespace\":\"sts\"},\"spec\":{\"replicas\":3,\"serviceName\":\"db\","
		"\"selector\":{\"matchLabels\":{\"app\":\"db\"}}," TEMPLATE("db", "i:1") ",\"volumeClaimTemplates\":[{\"metadata\":{\"name\":\"d\"},"
		"\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}]}}");
	wait_for("three in order", stateful_says, "i:1");
	assert_non_null(get(&core_v1_persistent_volume_claim_type, "sts", "d-db-2"));
	make(&policy_v1_pod_disruption_budget_type, "{\"metadata\":{\"name\":\"db\",\"namespace\":\"sts\"},\"spec\":{\"maxUnavailable\":1,"
		"\"selector\":{\"matchLabels\":{\"app\":\"db\"}}}}");
	wait_for("one may go", budget_allows, &one);
	patch(&policy_v1_pod_disruption_budget_type, "sts", "db", "{\"spec\":{\"maxUnavailable\":0}}");
	wait_for("none may go", budget_allows, &none);
	patch(&apps_v1_stateful_set_type, "sts", "db", "{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":2}}}}");
	patch(&apps_v1_stateful_set_type, "sts", "db", IMAGE("i:2"));
	wait_for("only the highest is updated", partitioned, NULL);
	delete(&core_v1_pod_type, "sts", "db-0", NULL);
	wait_for("the lowest comes back as it was", partitioned, NULL);
	patch(&apps_v1_stateful_set_type, "sts", "db", "{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":0}}}}");
	wait_for("all updated", stateful_says, "i:2");
	patch(&apps_v1_stateful_set_type, "sts", "db", "{\"spec\":{\"replicas\":1}}");
	wait_for("scaled down from the top", stateful_says, "i:2");
	assert_non_null(get(&core_v1_persistent_volume_claim_type, "sts", "d-db-2")); /* claims stay */
	delete(&apps_v1_stateful_set_type, "sts", "db", "Background");
}

/* ---- jobs ---- */
#define JOB(name, end, more) \
	"{\"metadata\":{\"name\":\"" name "\",\"namespace\":\"jobs\"},\"spec\":{" more \
	"\"template\":{\"metadata\":{\"labels\":{\"end\":\"" end "\"}},\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}"

static const struct batch_v1_job_condition *job_is(const char *name, const char *type)
{
	const struct batch_v1_job *j = get(&batch_v1_job_type, "jobs", name);

	if (j)
		LIST_EACH(c, &j->status.conditions)
			if (str_eqz(c->type, type) && str_eqz(c->status, "True"))
				return c;
	return NULL;
}

static bool job_complete(void *name)
{
	return job_is(name, "Complete");
}

static bool job_failed(void *name)
{
	return job_is(name, "Failed");
}

static bool job_gone(void *name)
{
	return !get(&batch_v1_job_type, "jobs", name);
}

static bool no_tracked_pods(void *arg)
{
	struct cached_list l;
	bool none = true;

	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("jobs"), &l);
	for (size_t i = 0; i < l.len; i++)
		none &= !l.items[i]->meta->finalizers.len;
	cached_list_deinit(&l);
	return none;
}

static bool cron_ran(void *arg)
{
	const struct batch_v1_cron_job *c = get(&batch_v1_cron_job_type, "jobs", "tick");

	return !time_is_zero(c->status.last_schedule_time) && !time_is_zero(c->status.last_successful_time);
}

static void test_jobs(void **state)
{
	new_namespace("jobs");
	make(&batch_v1_job_type, JOB("three", "Succeeded", "\"completions\":3,\"parallelism\":2,"));
	wait_for("three pods succeed", job_complete, "three");
	const struct batch_v1_job *j = get(&batch_v1_job_type, "jobs", "three");

	assert_int_equal(j->status.succeeded, 3);
	assert_int_equal(j->status.active + j->status.failed, 0);
	assert_false(time_is_zero(j->status.completion_time));
	make(&batch_v1_job_type, JOB("indexed", "Succeeded", "\"completions\":3,\"parallelism\":3,\"completionMode\":\"Indexed\","));
	wait_for("each index once", job_complete, "indexed");
	j = get(&batch_v1_job_type, "jobs", "indexed");
	assert_string_equal(j->status.completed_indexes.p, "0-2");
	make(&batch_v1_job_type, JOB("bad", "Failed", "\"backoffLimit\":0,"));
	wait_for("failure is final", job_failed, "bad");
	assert_true(str_eqz(job_is("bad", "Failed")->reason, "BackoffLimitExceeded"));
	make(&batch_v1_job_type, JOB("fleeting", "Succeeded", "\"ttlSecondsAfterFinished\":0,"));
	wait_for("it cleans itself up", job_gone, "fleeting");
	wait_for("no pod keeps the finalizer", no_tracked_pods, NULL);
	make(&batch_v1_cron_job_type, "{\"metadata\":{\"name\":\"tick\",\"namespace\":\"jobs\"},\"spec\":{\"schedule\":\"@every 1s\",\"jobTemplate\":"
		JOB("x", "Succeeded", "") "}}");
	wait_for("the schedule ran", cron_ran, NULL);
	delete(&batch_v1_cron_job_type, "jobs", "tick", NULL);
}

/* ---- what the smaller controllers do ---- */
static bool quota_says(void *pods)
{
	const struct core_v1_resource_quota *q = get(&core_v1_resource_quota_type, "small", "q");

	return str_eqz(str_map_get(&q->status.used, STR("pods")), pods) &&
		str_eqz(str_map_get(&q->status.used, STR("requests.cpu")), strcmp(pods, "0") ? "1500m" : "0") &&
		str_eqz(str_map_get(&q->status.used, STR("count/deployments.apps")), "0") &&
		str_eqz(str_map_get(&q->status.hard, STR("pods")), "5");
}

static bool mirrored(void *arg)
{
	struct cached_list l;
	bool yes = false;

	informer_list(informers_get(the.informers, &discovery_v1_endpoint_slice_type), STR("small"), &l);
	for (size_t i = 0; i < l.len; i++) {
		const struct discovery_v1_endpoint_slice *s = l.items[i]->obj;

		yes |= s->endpoints.len == 1 && str_eqz(s->endpoints.items[0].addresses.items[0], "192.0.2.7") &&
			str_eqz(str_map_get(&s->metadata.labels, STR("kubernetes.io/service-name")), "outside") && s->ports.len == 1 &&
			s->ports.items[0].port.value == 9999;
	}
	cached_list_deinit(&l);
	return yes;
}

static bool no_slices(void *arg)
{
	return !count(&discovery_v1_endpoint_slice_type, "small");
}

static bool aggregated(void *arg)
{
	const struct rbac_v1_cluster_role *r = get(&rbac_v1_cluster_role_type, "", "admin");

	LIST_EACH(rule, &r->rules)
		if (str_list_has(&rule->resources, STR("gadgets")))
			return true;
	return false;
}

static bool signed_info(void *arg)
{
	const struct core_v1_config_map *cm = get(&core_v1_config_map_type, "kube-public", "cluster-info");

	return str_map_has(&cm->data, STR("jws-kubeconfig-abcdef"));
}

static bool token_gone(void *arg)
{
	return !get(&core_v1_secret_type, "kube-system", "bootstrap-token-aaaaaa");
}

static bool claim_held(void *arg)
{
	const struct core_v1_persistent_volume_claim *c = get(&core_v1_persistent_volume_claim_type, "small", "c");

	return c && str_list_has(&c->metadata.finalizers, STR("kubernetes.io/pvc-protection"));
}

static bool claim_gone(void *arg)
{
	return !get(&core_v1_persistent_volume_claim_type, "small", "c");
}

static void test_small_ones(void **state)
{
	new_namespace("small");
	make(&core_v1_resource_quota_type, "{\"metadata\":{\"name\":\"q\",\"namespace\":\"small\"},\"spec\":{\"hard\":{\"pods\":\"5\",\"requests.cpu\":\"3\","
					   "\"count/deployments.apps\":\"1\"}}}");
	wait_for("nothing used", quota_says, "0");
	make(&core_v1_pod_type, "{\"metadata\":{\"name\":\"p\",\"namespace\":\"small\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\","
				"\"resources\":{\"requests\":{\"cpu\":\"1500m\"}}}],\"volumes\":[{\"name\":\"v\",\"persistentVolumeClaim\":{\"claimName\":\"c\"}}]}}");
	wait_for("one used", quota_says, "1");

	make(&core_v1_persistent_volume_claim_type, "{\"metadata\":{\"name\":\"c\",\"namespace\":\"small\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],"
						    "\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}");
	wait_for("the claim is protected", claim_held, NULL);
	delete(&core_v1_persistent_volume_claim_type, "small", "c", NULL);
	assert_true(claim_held(NULL));
	delete(&core_v1_pod_type, "small", "p", NULL);
	wait_for("none used again", quota_says, "0");
	wait_for("the claim goes after its last user", claim_gone, NULL);

	make(&core_v1_service_type, "{\"metadata\":{\"name\":\"outside\",\"namespace\":\"small\"},\"spec\":{\"ports\":[{\"port\":80}]}}");
	make(&core_v1_endpoints_type, "{\"metadata\":{\"name\":\"outside\",\"namespace\":\"small\"},\"subsets\":[{\"addresses\":[{\"ip\":\"192.0.2.7\"}],"
				      "\"ports\":[{\"port\":9999}]}]}");
	wait_for("mirrored", mirrored, NULL);
	delete(&core_v1_endpoints_type, "small", "outside", NULL);
	wait_for("the mirror image goes too", no_slices, NULL);

	make(&rbac_v1_cluster_role_type, "{\"metadata\":{\"name\":\"gadgets\",\"labels\":{\"rbac.authorization.k8s.io/aggregate-to-admin\":\"true\"}},"
					 "\"rules\":[{\"apiGroups\":[\"x.example\"],\"resources\":[\"gadgets\"],\"verbs\":[\"get\"]}]}");
	wait_for("admin gathers it", aggregated, NULL);

	make(&core_v1_config_map_type, "{\"metadata\":{\"name\":\"cluster-info\",\"namespace\":\"kube-public\"},\"data\":{\"kubeconfig\":\"abc\"}}");
	make(&core_v1_secret_type, "{\"metadata\":{\"name\":\"bootstrap-token-abcdef\",\"namespace\":\"kube-system\"},\"type\":\"bootstrap.kubernetes.io/token\","
				   "\"stringData\":{\"token-id\":\"abcdef\",\"token-secret\":\"0123456789abcdef\",\"usage-bootstrap-signing\":\"true\"}}");
	wait_for("cluster-info is signed", signed_info, NULL);
	make(&core_v1_secret_type, "{\"metadata\":{\"name\":\"bootstrap-token-aaaaaa\",\"namespace\":\"kube-system\"},\"type\":\"bootstrap.kubernetes.io/token\","
				   "\"stringData\":{\"token-id\":\"aaaaaa\",\"token-secret\":\"0123456789abcdef\",\"expiration\":\"2020-01-01T00:00:00Z\"}}");
	wait_for("an expired token goes", token_gone, NULL);
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
		has_taint("n1", "node.kubernetes.io/unreachable", "NoExecute") && !get(&core_v1_pod_type, "dead", "leaves") &&
		get(&core_v1_pod_type, "dead", "stays");
}

static void test_dead_node(void **state)
{
	const struct core_v1_node *n = get(&core_v1_node_type, "", "n1");

	assert_true(str_has_prefix(n->spec.pod_cidr, STR("10.42.")));
	new_namespace("dead");
	make(&core_v1_pod_type, "{\"metadata\":{\"name\":\"leaves\",\"namespace\":\"dead\"},\"spec\":{\"nodeName\":\"n1\",\"containers\":"
				"[{\"name\":\"c\",\"image\":\"i\"}],\"tolerations\":[{\"key\":\"node.kubernetes.io/unreachable\",\"operator\":\"Exists\","
				"\"effect\":\"NoExecute\",\"tolerationSeconds\":0}]}}");
	make(&core_v1_pod_type, "{\"metadata\":{\"name\":\"stays\",\"namespace\":\"dead\"},\"spec\":{\"nodeName\":\"n1\",\"containers\":"
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replication),
		cmocka_unit_test(test_deployment),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_namespace_deletion),
		cmocka_unit_test(test_owners),
		cmocka_unit_test(test_daemon_set),
		cmocka_unit_test(test_stateful_set),
		cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_small_ones),
		cmocka_unit_test(test_dead_node),
	};

	memory = arena_new(0);
	int r = cmocka_run_group_tests(tests, start, end);

	arena_free(memory);
	return r;
}
