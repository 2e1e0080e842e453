/* Start and stop, in their order. What runs is found in the engine first, then static pods are read, then the API is asked; only when the
 * API has told all that it wants here is anything stopped that nobody names. */
#include <stdatomic.h>
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define POD_THREADS 8
#define PRESSURE_TRANSITION_S 300
#define SLOW_THREADS 256
/* Pods decide how long these take: far more than a node's pods have on a good day, and apart, so that who hangs holds up nobody's end. */
#define TASK_THREADS 2048
#define ASK_THREADS 2048

static const char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static void config_copy(struct kubelet *k, const struct kubelet_config *c)
{
	k->c = *c;
	k->c.node_name = copy(c->node_name);
	k->c.node_ip = copy(c->node_ip);
	k->c.root_dir = copy(c->root_dir);
	k->c.pod_log_dir = copy(c->pod_log_dir ? c->pod_log_dir : "/var/log/pods");
	k->c.static_pod_dir = copy(c->static_pod_dir);
	k->c.cluster_dns = copy(c->cluster_dns);
	k->c.cluster_domain = copy(c->cluster_domain ? c->cluster_domain : "cluster.local");
	k->c.address = copy(c->address ? c->address : "0.0.0.0");
	k->c.version = copy(c->version ? c->version : "v1.36.3");
	k->c.provider_id = copy(c->provider_id);
	k->c.labels = copy(c->labels);
	if (!k->c.clock)
		k->c.clock = &clock_real;
	if (k->c.max_pods <= 0)
		k->c.max_pods = KUBELET_MAX_PODS;
	if (!k->c.pressure_transition_s)
		k->c.pressure_transition_s = PRESSURE_TRANSITION_S;
	if (!k->c.port)
		k->c.port = KUBELET_PORT;
}

int kubelet_new(const struct kubelet_config *c, struct kubelet **ret, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct str name, version;

	if (!c->engine || !c->node_name || !c->node_ip || !c->root_dir)
		return err_set(err, -EINVAL,
			"kubelet: engine, node name, node address and root folder are needed");
	int r = c->engine->v->version(c->engine, a, &name, &version, err);
	if (r)
		return r < 0 ? r : -EIO;
	struct kubelet *k = xcalloc(1, sizeof(*k));
	config_copy(k, c);
	pthread_mutex_init(&k->lock, NULL);
	k->runtime_version = xasprintf(STR_FMT "://" STR_FMT, STR_ARG(name), STR_ARG(version));
	k->n_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	wakes_init(&k->wakes, c->loop, k->c.clock);
	*ret = k;
	return 0;
}

static int start_informers(struct kubelet *k, struct err *err)
{
	CLEAN_FREE char *on_node = xasprintf("spec.nodeName=%s", k->c.node_name);
	struct informer_config pods = {
		.client = k->c.client, .type = &core_v1_pod_type, .field_selector = on_node
	};
	struct informer_config services = { .client = k->c.client, .type = &core_v1_service_type };

	k->services = k->c.services ? k->c.services : informer_new(&services);
	k->pods = informer_new(&pods);
	informer_add_handler(k->pods, pods_on_api, k);
	int r = k->c.services ? 0 : informer_start(k->services, err);
	return r ? r : informer_start(k->pods, err);
}

/* The API has told what it wants: now what nobody wants can go, and mirror pods can be made. A server that is away is waited for. */
static void *wait_for_api(void *arg)
{
	struct kubelet *k = arg;
	struct pod_worker **all;
	size_t n;

	while (!k->stopping && !informer_wait_synced(k->pods, 1000))
		;
	if (k->stopping)
		return NULL;
	k->api_synced = true;
	pods_reap_orphans(k);
	pods_list(k, &all, &n);
	for (size_t i = 0; i < n; i++) {
		mirror_sync(all[i]);
		worker_unref(all[i]);
	}
	free(all);
	return NULL;
}

int kubelet_start(struct kubelet *k, struct err *err)
{
	k->pool = pool_new("kubelet", POD_THREADS);
	k->talk = pool_new("kubelet-talk", POD_THREADS);
	k->slow = pool_new("kubelet-slow", SLOW_THREADS);
	k->tasks = pool_new("kubelet-task", TASK_THREADS);
	k->asking = pool_new("kubelet-probe", ASK_THREADS);
	if (k->c.client)
		k->events = event_recorder_new(k->c.client, "kubelet", k->c.node_name);
	int r = dir_make(k->c.root_dir, 0750, err);
	if (!r)
		r = dir_make(k->c.pod_log_dir, 0755, err);
	if (!r)
		r = pods_boot(k, err);
	if (!r)
		r = qos_start(k, err);
	k->memory_bytes = node_memory(k).total; /* now that its cgroup is known */
	if (r)
		return err_prefix(err, r, "kubelet");
	pods_listen(k, true);
	if (k->c.serving_tls)
		r = node_server_start(k, err); /* first: its port is told of the node */
	if (!r)
		r = evictor_start(k, err); /* whose word the node's conditions need */
	if (!r && k->c.client)
		r = node_agent_start(k, err);
	if (!r)
		r = shutdown_start(k, err);
	if (!r && k->c.static_pod_dir)
		r = static_source_start(k, err);
	if (!r && k->c.client)
		r = start_informers(k, err);
	else if (!r)
		pods_reap_orphans(k); /* nobody else will name a pod */
	if (!r)
		r = keeper_start(k, err);
	if (!r && k->c.client && thread_start(&k->api_waiter, "kubelet-api", wait_for_api, k) == 0)
		k->api_waiter_runs = true;
	return r ? err_prefix(err, r, "kubelet") : 0;
}

void kubelet_stop(struct kubelet *k)
{
	if (atomic_exchange(&k->stopping, true))
		return;
	node_server_stop(k);
	if (k->api_waiter_runs)
		pthread_join(k->api_waiter, NULL);
	if (k->pods)
		informer_stop(k->pods);
	if (k->services && !k->c.services)
		informer_stop(k->services);
	static_source_stop(k);
	shutdown_stop(k);
	evictor_stop(k);
	keeper_stop(k);
	node_agent_stop(k);
	pods_listen(k, false);
	wakes_close(&k->wakes);
}

struct barrier {
	pthread_mutex_t lock;
	pthread_cond_t passed;
	bool done;
};

static void pass(void *arg)
{
	struct barrier *b = arg;

	pthread_mutex_lock(&b->lock);
	b->done = true;
	pthread_cond_signal(&b->passed);
	pthread_mutex_unlock(&b->lock);
}

/* What was posted to the loop has run. */
static void loop_settle(struct loop *l)
{
	struct barrier b = { .lock = PTHREAD_MUTEX_INITIALIZER,
		.passed = PTHREAD_COND_INITIALIZER };

	if (!l || loop_is_current(l))
		return;
	loop_post(l, pass, &b);
	pthread_mutex_lock(&b.lock);
	while (!b.done)
		pthread_cond_wait(&b.passed, &b.lock);
	pthread_mutex_unlock(&b.lock);
}

static void free_object(void *o)
{
	pod_object_unref(o);
}

static void free_worker(void *p)
{
	struct pod_worker *w = p;

	/* Its own entries hold references. */
	wake_cancel(&w->k->wakes, &w->wake) ? worker_unref(w) : (void)0;
	wake_cancel(&w->k->wakes, &w->status_wake) ? worker_unref(w) : (void)0;
	probes_stop(w);
	worker_unref(w);
}

static void config_free(struct kubelet *k)
{
	const char *texts[] = { k->c.node_name, k->c.node_ip, k->c.root_dir, k->c.pod_log_dir,
		k->c.static_pod_dir, k->c.cluster_dns, k->c.cluster_domain, k->c.address,
		k->c.version, k->c.provider_id, k->c.labels };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		free((char *)texts[i]);
}

void kubelet_free(struct kubelet *k)
{
	if (!k)
		return;
	kubelet_stop(k);
	pool_free(k->asking);
	pool_free(k->tasks);
	if (k->slow)
		pool_free(k->slow);
	if (k->pool)
		pool_free(k->pool);
	if (k->talk)
		pool_free(k->talk);
	loop_settle(k->c.loop);
	free(k->server);
	node_agent_free(k);
	keeper_free(k);
	evictor_free(k);
	shutdown_free(k);
	qos_stop(k);
	map_deinit(&k->workers, free_worker);
	map_deinit(&k->by_sandbox, NULL);
	map_deinit(&k->mirrors, free_object);
	map_deinit(&k->statics, free_object);
	if (k->pods)
		informer_free(k->pods);
	if (k->services && !k->c.services)
		informer_free(k->services);
	event_recorder_free(k->events);
	for (struct engine_sandbox *b = k->boot_sandboxes; b && b->id[0]; b++) {
		free((char *)b->uid.p);
		free((char *)b->name.p);
		free((char *)b->namespace_.p);
		free((char *)b->ip.p);
	}
	free(k->boot_sandboxes);
	wakes_deinit(&k->wakes);
	free(k->runtime_version);
	config_free(k);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
