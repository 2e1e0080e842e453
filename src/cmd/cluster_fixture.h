/* A control plane in one process without disk or network, for tests: memory store, registry, API server, controllers; a kubelet and a scheduler
 * that only say so. Included once by a test program, which gives start and end to cmocka as its group's fixtures. */
#ifndef SKIFF_CMD_CLUSTER_FIXTURE_H
#define SKIFF_CMD_CLUSTER_FIXTURE_H

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
	struct buf ca_cert, ca_key;
	struct apiserver *apiserver;
	struct client *client; /* as system:masters */
	struct informers *informers;
	struct controllers *controllers;
	/* the pretended kubelet */
	struct workqueue *pods;
	pthread_t kubelets[2], heart;
	_Atomic bool over;
	const char *_Atomic dead_node; /* its heart stopped; more than one: "n1 n2" */
	_Atomic uint32_t next_ip;
	pthread_mutex_t lock; /* news: something in the cluster changed */
	pthread_cond_t changed;
	uint64_t news;
};

static struct cluster the;

static inline void on_news(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	pthread_mutex_lock(&the.lock);
	the.news++;
	pthread_cond_broadcast(&the.changed);
	pthread_mutex_unlock(&the.lock);
}

static inline void on_pod(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (now)
		workqueue_add(the.pods, now->key);
}

/* ---- the pretended kubelet: binds, reports Running, removes ---- */
/* Daemon pods name their node. */
static inline struct str wanted_node(const struct core_v1_pod *p)
{
	const struct core_v1_node_affinity *na =
		p->spec.affinity ? p->spec.affinity->node_affinity : NULL;

	if (na && na->required_during_scheduling_ignored_during_execution)
		return na->required_during_scheduling_ignored_during_execution->node_selector_terms
			.items[0]
			.match_fields.items[0]
			.values.items[0];
	return p->metadata.name.len % 2 ? STR("n1") : STR("n2");
}

static inline int bind_pod(const struct core_v1_pod *p, struct arena *a)
{
	struct core_v1_binding *b = model_new(&core_v1_binding_type, a);

	b->metadata.name = p->metadata.name;
	b->metadata.namespace = p->metadata.namespace;
	b->target.kind = STR("Node");
	b->target.name = wanted_node(p);
	return client_create_sub(the.client, &core_v1_pod_type, p->metadata.namespace,
		p->metadata.name, "binding", &core_v1_binding_type, b, a, NULL, NULL);
}

static inline int report_running(const struct core_v1_pod *p, struct arena *a)
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

/* A pod labelled hold never starts; one labelled end=… ends so once it runs; end=odd: Failed when its completion index is odd. */
static inline int report_end(const struct core_v1_pod *p, struct str phase, struct arena *a)
{
	struct core_v1_pod *c = model_copy(&core_v1_pod_type, p, a);
	struct str index = str_map_get(
		&p->metadata.annotations, STR("batch.kubernetes.io/job-completion-index"));

	if (str_eqz(phase, "odd"))
		phase = index.len && index.p[index.len - 1] % 2 ? STR("Failed") : STR("Succeeded");
	c->status.phase = phase;
	LIST_EACH(k, &c->status.conditions)
		k->status = STR("False");
	return client_update(the.client, &core_v1_pod_type, "status", c, a, NULL, NULL);
}

static inline void tend(struct str key, struct arena *a)
{
	const struct client_delete now = { .grace_seconds = 0 };
	struct cached *c = informer_get(informers_get(the.informers, &core_v1_pod_type), key);
	struct err err = { "" };
	int r = 0;

	if (!c)
		return;
	const struct core_v1_pod *p = c->obj;

	if (!time_is_zero(p->metadata.deletion_timestamp))
		r = client_delete(the.client, &core_v1_pod_type, p->metadata.namespace,
			p->metadata.name, &now, &err);
	else if (!p->spec.node_name.len)
		r = bind_pod(p, a);
	else if (str_map_has(&p->metadata.labels, STR("hold")))
		r = 0;
	else if (!p->status.phase.len || str_eqz(p->status.phase, "Pending"))
		r = report_running(p, a);
	else if (str_eqz(p->status.phase, "Running") &&
		str_map_has(&p->metadata.labels, STR("end")))
		r = report_end(p, str_map_get(&p->metadata.labels, STR("end")), a);
	if (r && r != CLIENT_CONFLICT && r != CLIENT_NOT_FOUND)
		printf("# kubelet: %s\n", err.text);
	cached_unref(c);
}

static inline void *kubelet(void *arg)
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

static inline void *beat(void *arg)
{
	static const char *const nodes[] = { "n1", "n2" };

	while (!the.over) {
		char when[TIME_TEXT_MAX];
		struct arena *a CLEAN_ARENA = arena_new(0);

		time_format(time_now(), when);
		struct str patch = arena_fmt(a,
			"{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"lastHeartbeatTime\":\"%s\"}]}}",
			when);

		for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
			if (!the.dead_node || !strstr(the.dead_node, nodes[i]))
				client_patch(the.client, &core_v1_node_type, STR_NONE,
					str_of(nodes[i]), "status", CLIENT_PATCH_STRATEGIC, patch,
					a, NULL, NULL);
		usleep(300000);
	}
	return NULL;
}

/* ---- start and end ---- */
static const struct type *const watched[] = {
	&core_v1_pod_type,
	&apps_v1_replica_set_type,
	&apps_v1_deployment_type,
	&core_v1_replication_controller_type,
	&core_v1_endpoints_type,
	&discovery_v1_endpoint_slice_type,
	&core_v1_namespace_type,
	&core_v1_service_account_type,
	&core_v1_config_map_type,
	&core_v1_node_type,
	&core_v1_event_type,
	&core_v1_service_type,
	&apps_v1_daemon_set_type,
	&apps_v1_stateful_set_type,
	&apps_v1_controller_revision_type,
	&policy_v1_pod_disruption_budget_type,
	&batch_v1_job_type,
	&batch_v1_cron_job_type,
	&core_v1_resource_quota_type,
	&rbac_v1_cluster_role_type,
	&core_v1_secret_type,
	&core_v1_persistent_volume_claim_type,
	&core_v1_persistent_volume_type,
	&certificates_v1_certificate_signing_request_type,
};

static inline void start_api(void)
{
	const struct cert_request ca = {
		.common_name = "test-ca", .valid_seconds = 3600, .is_ca = true
	};
	const char *const ips[] = { "127.0.0.1", NULL };
	const struct cert_request server = { .common_name = "server",
		.valid_seconds = 3600,
		.server_auth = true,
		.ip_addresses = ips };
	struct buf key CLEAN_BUF = { 0 }, cert CLEAN_BUF = { 0 }, skey CLEAN_BUF = { 0 },
		       scert CLEAN_BUF = { 0 };
	const struct store_config sc = { .backend = "memory" };
	const struct registry_config rc = { .clock = &clock_real,
		.service_cidr = "10.43.0.0/16",
		.node_port_first = 30000,
		.node_port_last = 32767 };
	struct registry_config with = rc;
	struct err err = { "" };

	assert_int_equal(cert_new_key(&key, NULL) | cert_new_key(&skey, NULL), 0);
	assert_int_equal(cert_issue(&ca, buf_str(&key), STR_NONE, STR_NONE, &cert, NULL), 0);
	assert_int_equal(
		cert_issue(&server, buf_str(&skey), buf_str(&cert), buf_str(&key), &scert, NULL),
		0);
	const struct tls_server_config tc = { .cert_pem = buf_str(&scert),
		.key_pem = buf_str(&skey),
		.client_ca_pem = buf_str(&cert) };

	buf_add_str(&the.ca_cert, buf_str(&cert));
	buf_add_str(&the.ca_key, buf_str(&key));
	assert_int_equal(tls_server_new(&tc, &the.tls, &err), 0);
	assert_int_equal(loop_new("api", &the.loops[0], NULL), 0);
	assert_int_equal(loop_start(the.loops[0], NULL), 0);
	assert_int_equal(store_open(&sc, &the.store, &err), 0);
	with.store = the.store;
	assert_int_equal(registry_new(&with, &the.registry, &err), 0);
	const struct apiserver_config ac = { .loops = the.loops,
		.n_loops = 1,
		.address = "127.0.0.1",
		.tls = the.tls,
		.registry = the.registry,
		.service_account_key = buf_str(&skey),
		.issuer = "https://kubernetes.default.svc.cluster.local",
		.ca_pem = buf_str(&cert),
		.git_version = "v1.36.3" };

	assert_int_equal(apiserver_new(&ac, &the.apiserver, &err), 0);
	if (registry_bootstrap(the.registry, &err))
		fail_msg("bootstrap: %s", err.text);
	assert_int_equal(apiserver_start(the.apiserver, &err), 0);
}

static inline void make_node(const char *name)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_node *n = model_new(&core_v1_node_type, a);
	struct err err = { "" };

	n->metadata.name = str_of(name);
	if (client_create(the.client, &core_v1_node_type, STR_NONE, n, a, (void **)&n, &err))
		fail_msg("node: %s", err.text);
	if (client_patch(the.client, &core_v1_node_type, STR_NONE, str_of(name), "status",
		    CLIENT_PATCH_STRATEGIC,
		    STR("{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}"),
		    a, NULL, &err))
		fail_msg("node status: %s", err.text);
}

static inline int start(void **state)
{
	const struct tls_identity who = { .common_name = STR("admin"),
		.organizations = { STR("system:masters") },
		.n_organizations = 1 };
	struct client_config cc = { .user_agent = "test" };
	struct controllers_config c = { .clock = &clock_real,
		.ca_pem = STR("-----CA-----\n"),
		.cluster_cidr = "10.42.0.0/16",
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
	c.signing_ca_cert_pem = buf_str(&the.ca_cert);
	c.signing_ca_key_pem = buf_str(&the.ca_key);
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

static inline int end(void **state)
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
	buf_deinit(&the.ca_cert);
	buf_deinit(&the.ca_key);
	return 0;
}

/* ---- asking ---- */
/* Waits until ask(arg) is true; it is asked again whenever the cluster changed. */
static inline void wait_for(const char *what, bool (*ask)(void *arg), void *arg)
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
			const struct timespec t = { .tv_sec = (time_t)(until / 1000000000),
				.tv_nsec = (long)(until % 1000000000) };

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

static inline void *get(const struct type *t, const char *ns, const char *name)
{
	void *obj;

	return client_get(the.client, t, str_of(ns), str_of(name), memory, &obj, NULL) ? NULL : obj;
}

static inline void *make(const struct type *t, const char *json)
{
	void *obj, *made;
	struct err err = { "" };

	if (json_decode(t, str_of(json), memory, NULL, &obj, &err))
		fail_msg("test object: %s", err.text);
	if (client_create(the.client, t, model_meta(t, obj)->namespace, obj, memory, &made, &err))
		fail_msg("create %s: %s", t->name, err.text);
	return made;
}

static inline void patch(const struct type *t, const char *ns, const char *name, const char *json)
{
	struct err err = { "" };

	if (client_patch(the.client, t, str_of(ns), str_of(name), NULL, CLIENT_PATCH_MERGE,
		    str_of(json), memory, NULL, &err))
		fail_msg("patch %s: %s", name, err.text);
}

static inline void delete (
	const struct type *t, const char *ns, const char *name, const char *propagation)
{
	const struct client_delete o = { .grace_seconds = -1, .propagation = propagation };
	struct err err = { "" };

	if (client_delete(the.client, t, str_of(ns), str_of(name), &o, &err))
		fail_msg("delete %s: %s", name, err.text);
}

static inline size_t count(const struct type *t, const char *ns)
{
	struct cached_list l;

	informer_list(informers_get(the.informers, t), str_of(ns), &l);
	size_t n = l.len;

	cached_list_deinit(&l);
	return n;
}

static inline bool has_event(const char *ns, const char *reason, const char *text)
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

#define IMAGE(i) \
	"{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" i \
	"\"}]}}}}"
#define TEMPLATE(app, image) \
	"\"template\":{\"metadata\":{\"labels\":{\"app\":\"" app \
	"\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" image "\"}]}}"

static inline bool namespace_ready(void *name)
{
	return get(&core_v1_service_account_type, name, "default") &&
		get(&core_v1_config_map_type, name, "kube-root-ca.crt");
}

static inline void new_namespace(const char *name)
{
	make(&core_v1_namespace_type,
		arena_fmt(memory, "{\"metadata\":{\"name\":\"%s\"}}", name).p);
	wait_for("service account and root CA", namespace_ready, (void *)name);
}

#endif
