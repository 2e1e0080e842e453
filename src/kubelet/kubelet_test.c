/* Pods from the API's word to the engine's deed and back, on the fake engine and a clock that the test moves. */
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/test_api.h"

#define POD "/api/v1/namespaces/default/pods/"

/* ---- the clock ---- */
struct test_clock {
	struct clock base;
	_Atomic uint64_t ns;
};

static uint64_t clock_mono(const struct clock *c)
{
	return container_of((struct clock *)c, struct test_clock, base)->ns;
}

static struct timestamp clock_wall(const struct clock *c)
{
	uint64_t ns = clock_mono(c);

	return (struct timestamp){ 1700000000 + (int64_t)(ns / NS_PER_S),
		(int32_t)(ns % NS_PER_S) };
}

struct fixture {
	struct test_api api;
	struct test_clock clock;
	struct loop *loop;
	struct engine *engine;
	struct kubelet *k;
	char dir[64];
	struct arena *a;
};

static void start_kubelet(struct fixture *f, bool with_api)
{
	CLEAN_FREE char *root = xasprintf("%s/root", f->dir), *logs = xasprintf("%s/logs", f->dir),
			*statics = xasprintf("%s/static", f->dir);
	struct kubelet_config c = { .client = with_api ? f->api.client : NULL,
		.engine = f->engine,
		.loop = f->loop,
		.clock = &f->clock.base,
		.node_name = "n1",
		.node_ip = "192.0.2.1",
		.root_dir = root,
		.pod_log_dir = logs,
		.static_pod_dir = statics,
		.cluster_dns = "10.43.0.10",
		.cluster_domain = "cluster.local",
		.no_cgroups = true };
	struct err err = { "" };

	mkdir(statics, 0755);
	if (kubelet_new(&c, &f->k, &err) || kubelet_start(f->k, &err))
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct err err;

	f->clock.base = (struct clock){ clock_wall, clock_mono };
	f->clock.ns = 1000 * NS_PER_S;
	strcpy(f->dir, "/tmp/skiff-kubelet-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->a = arena_new(0);
	test_api_start(&f->api);
	assert_int_equal(loop_new("kubelet", &f->loop, &err), 0);
	assert_int_equal(loop_start(f->loop, &err), 0);
	f->engine = engine_fake_new(&f->clock.base);
	*state = f;
	return 0;
}

static void stop_kubelet(struct fixture *f)
{
	kubelet_stop(f->k);
	kubelet_free(f->k);
	f->k = NULL;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct err err;

	if (f->k)
		stop_kubelet(f);
	loop_stop(f->loop);
	loop_join(f->loop);
	loop_free(f->loop);
	test_api_stop(&f->api);
	f->engine->v->free(f->engine);
	dir_remove_tree(f->dir, &err);
	arena_free(f->a);
	free(f);
	return 0;
}

static void fire(void *arg)
{
	wakes_fire(arg);
}

static void advance(struct fixture *f, unsigned seconds)
{
	f->clock.ns += seconds * NS_PER_S;
	loop_post(f->loop, fire, &f->k->wakes);
}

/* ---- objects ---- */
static const char *pod_json(struct fixture *f, const char *name, const char *spec_more,
	const char *containers, const char *meta_more)
{
	return arena_fmt(f->a,
		"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\",\"generation\":1%s},"
		"\"spec\":{\"nodeName\":\"n1\",\"restartPolicy\":\"Always\",\"terminationGracePeriodSeconds\":30,"
		"\"enableServiceLinks\":false%s,\"containers\":[%s]},"
		"\"status\":{\"phase\":\"Pending\"}}",
		name, meta_more, spec_more, containers)
		.p;
}

#define C1 "{\"name\":\"c\",\"image\":\"busybox:1\"}"

static bool is_phase(const struct value *v, const void *phase)
{
	return !strcmp(test_text(v, "status.phase"), phase);
}

static const char *condition(const struct value *v, const char *type)
{
	const struct value *list = test_at(v, "status.conditions");

	for (size_t i = 0; list && i < list->list.len; i++)
		if (!strcmp(test_text(&list->list.items[i], "type"), type))
			return test_text(&list->list.items[i], "status");
	return "";
}

static bool is_ready(const struct value *v, const void *arg)
{
	return !strcmp(condition(v, "Ready"), "True");
}

static bool is_unready(const struct value *v, const void *arg)
{
	return is_phase(v, "Running") && !strcmp(condition(v, "Ready"), "False");
}

static bool waits_for(const struct value *v, const void *reason)
{
	return !strcmp(test_text(v, "status.containerStatuses[0].state.waiting.reason"), reason);
}

static bool restarted(const struct value *v, const void *count)
{
	return test_int(v, "status.containerStatuses[0].restartCount") == *(const int *)count &&
		test_at(v, "status.containerStatuses[0].state.running");
}

static char *container_of_pod(struct fixture *f, const struct value *v)
{
	const char *id = test_text(v, "status.containerStatuses[0].containerID");

	assert_int_equal(strncmp(id, "fake://", 7), 0);
	return xstrdup(id + 7);
}

static struct value run_pod(struct fixture *f, const char *name, const char *json)
{
	char path[128];

	snprintf(path, sizeof(path), POD "%s", name);
	test_put(&f->api, path, json);
	return test_await(&f->api, path, is_phase, "Running", f->a, "phase Running");
}

/* ---- tests ---- */

static bool node_ready(const struct value *v, const void *arg)
{
	return !strcmp(condition(v, "Ready"), "True");
}

static bool has_renew_time(const struct value *v, const void *arg)
{
	return test_at(v, "spec.renewTime");
}

static void test_node(void **state)
{
	struct fixture *f = *state;

	start_kubelet(f, true);
	struct value v =
		test_await(&f->api, "/api/v1/nodes/n1", node_ready, NULL, f->a, "node Ready");
	assert_string_equal(test_text(&v, "metadata.labels.kubernetes"), "");
	assert_string_equal(test_text(&v, "status.nodeInfo.containerRuntimeVersion"), "fake://1.0");
	assert_string_equal(test_text(&v, "status.capacity.pods"), "110");
	test_await(&f->api, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
		has_renew_time, NULL, f->a, "lease");
	/* deleted: registered again */
	const char *uid = arena_strz(f->a, test_text(&v, "metadata.uid")).p;
	test_put(&f->api, "/api/v1/nodes/n1", NULL);
	v = test_await(&f->api, "/api/v1/nodes/n1", node_ready, NULL, f->a, "node back");
	assert_string_not_equal(test_text(&v, "metadata.uid"), uid);
}

static void test_run_and_delete(void **state)
{
	struct fixture *f = *state;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_sandbox *list;
	struct err err;
	size_t n;

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	struct value v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	assert_true(*test_text(&v, "status.podIP") != 0);
	assert_string_equal(test_text(&v, "status.podIP"), test_text(&v, "status.podIPs[0].ip"));
	assert_string_equal(test_text(&v, "status.hostIP"), "192.0.2.1");
	assert_string_equal(test_text(&v, "status.qosClass"), "BestEffort");
	assert_string_equal(condition(&v, "PodReadyToStartContainers"), "True");
	assert_true(*test_text(&v, "status.startTime") != 0);
	assert_int_equal(test_int(&v, "status.observedGeneration"), 1);
	const char *uid = arena_strz(f->a, test_text(&v, "metadata.uid")).p;
	test_put(&f->api, POD "p",
		pod_json(f, "p", "", C1,
			arena_fmt(f->a,
				",\"uid\":\"%s\",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",\"deletionGracePeriodSeconds\":30",
				uid)
				.p));
	test_await(&f->api, POD "p", NULL, NULL, f->a, "object gone");
	struct pod_worker *w;
	/* the table lets go once the watch has told the end */
	while ((w = pods_find_uid(f->k, str_of(uid)))) {
		worker_unref(w);
		sched_yield();
	}
	assert_int_equal(f->engine->v->sandbox_list(f->engine, a, &list, &n, &err), 0);
	assert_int_equal(n, 0);
	CLEAN_FREE char *dir = xasprintf("%s/root/pods/%s", f->dir, uid);
	assert_int_not_equal(access(dir, F_OK), 0);
}

static void test_back_off(void **state)
{
	struct fixture *f = *state;
	int one = 1, two = 2;

	start_kubelet(f, true);
	struct value v = run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	CLEAN_FREE char *first = container_of_pod(f, &v);
	engine_fake_exit(f->engine, first, 1, false);
	v = test_await(&f->api, POD "p", restarted, &one, f->a, "first restart at once");
	assert_int_equal(
		test_int(&v, "status.containerStatuses[0].lastState.terminated.exitCode"), 1);
	CLEAN_FREE char *second = container_of_pod(f, &v);
	engine_fake_exit(f->engine, second, 137, true);
	v = test_await(&f->api, POD "p", waits_for, "CrashLoopBackOff", f->a, "back-off");
	assert_string_equal(
		test_text(&v, "status.containerStatuses[0].lastState.terminated.reason"),
		"OOMKilled");
	assert_non_null(strstr(test_text(&v, "status.containerStatuses[0].state.waiting.message"),
		"back-off 10s restarting failed container=c pod=p_default("));
	assert_string_equal(test_text(&v, "status.phase"), "Running");
	advance(f, 9);
	advance(f, 2);
	test_await(&f->api, POD "p", restarted, &two, f->a, "restart after the back-off");
}

static void test_policies(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *name, *policy;
		int code;
		const char *phase, *reason;
	} rows[] = {
		{ "a", "Never", 0, "Succeeded", "Completed" },
		{ "b", "Never", 3, "Failed", "Error" },
		{ "d", "OnFailure", 0, "Succeeded", "Completed" },
	};

	start_kubelet(f, true);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char path[64];
		snprintf(path, sizeof(path), POD "%s", rows[i].name);
		struct value v = run_pod(f, rows[i].name,
			pod_json(f, rows[i].name,
				arena_fmt(f->a, ",\"restartPolicy\":\"%s\"", rows[i].policy).p, C1,
				""));
		CLEAN_FREE char *id = container_of_pod(f, &v);
		engine_fake_exit(f->engine, id, rows[i].code, false);
		v = test_await(&f->api, path, is_phase, rows[i].phase, f->a, rows[i].phase);
		assert_int_equal(
			test_int(&v, "status.containerStatuses[0].state.terminated.exitCode"),
			rows[i].code);
		assert_string_equal(
			test_text(&v, "status.containerStatuses[0].state.terminated.reason"),
			rows[i].reason);
		assert_string_equal(condition(&v, "Ready"), "False");
	}
}

static bool init_runs(const struct value *v, const void *arg)
{
	return test_at(v, "status.initContainerStatuses[0].state.running") != NULL;
}

static char *init_id(const struct value *v)
{
	return xstrdup(test_text(v, "status.initContainerStatuses[0].containerID") + 7);
}

static void test_init(void **state)
{
	struct fixture *f = *state;
	const char *init =
		",\"restartPolicy\":\"Never\",\"initContainers\":[{\"name\":\"i\",\"image\":\"busybox:1\"}]";

	start_kubelet(f, true);
	test_put(&f->api, POD "p", pod_json(f, "p", init, C1, ""));
	struct value v = test_await(&f->api, POD "p", init_runs, NULL, f->a, "init container");
	assert_string_equal(test_text(&v, "status.phase"), "Pending");
	assert_string_equal(test_text(&v, "status.containerStatuses[0].state.waiting.reason"),
		"PodInitializing");
	assert_string_equal(condition(&v, "Initialized"), "False");
	CLEAN_FREE char *id = init_id(&v);
	engine_fake_exit(f->engine, id, 0, false);
	v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready after init");
	assert_string_equal(condition(&v, "Initialized"), "True");

	test_put(&f->api, POD "q", pod_json(f, "q", init, C1, ""));
	v = test_await(&f->api, POD "q", init_runs, NULL, f->a, "init container");
	CLEAN_FREE char *bad = init_id(&v);
	engine_fake_exit(f->engine, bad, 2, false);
	test_await(&f->api, POD "q", is_phase, "Failed", f->a, "failed init fails the pod");

	const char *two =
		",\"initContainers\":[{\"name\":\"i\",\"image\":\"busybox:1\"},{\"name\":\"j\",\"image\":\"busybox:1\"}]";
	test_put(&f->api, POD "r", pod_json(f, "r", two, C1, ""));
	v = test_await(&f->api, POD "r", init_runs, NULL, f->a, "the first of two");
	assert_string_equal(test_text(&v, "status.initContainerStatuses[1].state.waiting.reason"),
		"PodInitializing");
}

static void test_sidecar(void **state)
{
	struct fixture *f = *state;
	const char *init =
		",\"restartPolicy\":\"Never\",\"initContainers\":[{\"name\":\"s\",\"image\":\"busybox:1\",\"restartPolicy\":\"Always\"}]";

	start_kubelet(f, true);
	struct value v = run_pod(f, "p", pod_json(f, "p", init, C1, ""));
	v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	assert_non_null(test_at(&v, "status.initContainerStatuses[0].state.running"));
	CLEAN_FREE char *id = container_of_pod(f, &v);
	engine_fake_exit(f->engine, id, 0, false);
	v = test_await(&f->api, POD "p", is_phase, "Succeeded", f->a, "Succeeded");
	assert_non_null(test_at(&v, "status.initContainerStatuses[0].state.terminated"));
}

static void test_pull(void **state)
{
	struct fixture *f = *state;

	engine_fake_fail(f->engine, "image_pull", 1, "no such image at the registry");
	start_kubelet(f, true);
	test_put(&f->api, POD "p", pod_json(f, "p", "", C1, ""));
	struct value v =
		test_await(&f->api, POD "p", waits_for, "ErrImagePull", f->a, "ErrImagePull");
	assert_string_equal(test_text(&v, "status.containerStatuses[0].state.waiting.message"),
		"no such image at the registry");
	advance(f, 2);
	v = test_await(&f->api, POD "p", waits_for, "ImagePullBackOff", f->a, "ImagePullBackOff");
	assert_string_equal(test_text(&v, "status.containerStatuses[0].state.waiting.message"),
		"Back-off pulling image \"busybox:1\": ErrImagePull: no such image at the registry");
	advance(f, 10);
	test_await(&f->api, POD "p", is_phase, "Running", f->a, "Running");

	test_put(&f->api, POD "q",
		pod_json(f, "q", "",
			"{\"name\":\"c\",\"image\":\"other:1\",\"imagePullPolicy\":\"Never\"}",
			""));
	test_await(&f->api, POD "q", waits_for, "ErrImageNeverPull", f->a, "ErrImageNeverPull");
}

static _Atomic int exec_code, exec_failures;

static int exec_answer(void *arg, const char *container_id, const char *const *argv,
	struct buf *ret_output, int *ret_code, struct err *err)
{
	buf_addz(ret_output, "said no");
	*ret_code = strcmp(argv[0], "false") ? exec_code : exec_failures > 0 ? exec_failures-- : 0;
	return 0;
}

static void test_probes(void **state)
{
	struct fixture *f = *state;
	int one = 1;
	const char *c =
		"{\"name\":\"c\",\"image\":\"busybox:1\",\"readinessProbe\":{\"exec\":{\"command\":[\"true\"]},\"periodSeconds\":5,"
		"\"failureThreshold\":1}}";

	exec_code = 1;
	engine_fake_set_exec(f->engine, exec_answer, NULL);
	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", c, ""));
	struct value v = test_await(&f->api, POD "p", is_unready, NULL, f->a, "not ready");
	exec_code = 0;
	for (int i = 0; i < 40;
		i++) { /* the probe may be asking just now: its next time is five seconds later */
		advance(f, 5);
		pthread_mutex_lock(&f->api.lock);
		v = test_tree(f->a, map_get(&f->api.objects, STR(POD "p")));
		pthread_mutex_unlock(&f->api.lock);
		if (is_ready(&v, NULL))
			break;
		usleep(10000);
	}
	test_await(&f->api, POD "p", is_ready, NULL, f->a, "ready");

	exec_failures = 1; /* and then well: one restart it stays */
	c = "{\"name\":\"c\",\"image\":\"busybox:1\",\"livenessProbe\":{\"exec\":{\"command\":[\"false\"]},\"periodSeconds\":5,"
	    "\"failureThreshold\":1}}";
	test_put(&f->api, POD "q", pod_json(f, "q", "", c, ""));
	v = test_await(&f->api, POD "q", restarted, &one, f->a, "restart by liveness");
	assert_int_equal(
		test_int(&v, "status.containerStatuses[0].lastState.terminated.exitCode"), 143);
}

/* Answers once it is let, but for containers other than the first that asked. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char first[ENGINE_ID];
	unsigned waiting;
	bool only_first, let;
} hang = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER };

static int exec_hangs(void *arg, const char *container_id, const char *const *argv,
	struct buf *ret_output, int *ret_code, struct err *err)
{
	pthread_mutex_lock(&hang.lock);
	if (!hang.first[0])
		memcpy(hang.first, container_id, ENGINE_ID);
	hang.waiting++;
	pthread_cond_broadcast(&hang.changed);
	while (!hang.let && (!hang.only_first || !strcmp(hang.first, container_id)))
		pthread_cond_wait(&hang.changed, &hang.lock);
	hang.waiting--;
	pthread_mutex_unlock(&hang.lock);
	*ret_code = 0;
	return 0;
}

static void hang_begin(struct fixture *f, bool only_first)
{
	hang.first[0] = 0;
	hang.waiting = 0;
	hang.let = false;
	hang.only_first = only_first;
	engine_fake_set_exec(f->engine, exec_hangs, NULL);
}

static void hang_await(unsigned n)
{
	pthread_mutex_lock(&hang.lock);
	while (hang.waiting < n)
		pthread_cond_wait(&hang.changed, &hang.lock);
	pthread_mutex_unlock(&hang.lock);
}

static void hang_end(void)
{
	pthread_mutex_lock(&hang.lock);
	hang.let = true;
	pthread_cond_broadcast(&hang.changed);
	pthread_mutex_unlock(&hang.lock);
}

#define ASKED \
	"\"image\":\"busybox:1\",\"readinessProbe\":{\"exec\":{\"command\":[\"x\"]},\"timeoutSeconds\":3600}}"

/* The answer for a container that is no more comes late: the next one is asked all the same. */
static void test_probe_of_the_last_run(void **state)
{
	struct fixture *f = *state;
	int one = 1;

	hang_begin(f, true);
	start_kubelet(f, true);
	struct value v = run_pod(f, "p", pod_json(f, "p", "", "{\"name\":\"c\"," ASKED, ""));
	hang_await(1);
	CLEAN_FREE char *id = container_of_pod(f, &v);
	engine_fake_exit(f->engine, id, 1, false);
	test_await(&f->api, POD "p", restarted, &one, f->a, "another run");
	hang_end();
	for (int i = 0; i < 40; i++) {
		advance(f, 10);
		usleep(5000);
	}
	test_await(&f->api, POD "p", is_ready, NULL, f->a, "ready");
}

/* Hundreds of probes that hang are their pods' trouble alone. */
static void test_probes_hang(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf many = { 0 };

	hang_begin(f, false);
	start_kubelet(f, true);
	for (int i = 0; i < 300; i++)
		buf_addf(&many, "%s{\"name\":\"c%d\"," ASKED, i ? "," : "", i);
	run_pod(f, "p", pod_json(f, "p", "", many.p, ""));
	hang_await(290);
	run_pod(f, "q", pod_json(f, "q", "", C1, ""));
	test_put(&f->api, POD "q",
		pod_json(f, "q", "", C1,
			",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",\"deletionGracePeriodSeconds\":1"));
	test_await(&f->api, POD "q", NULL, NULL, f->a, "gone");
	hang_end();
}

static void test_restart_of_the_kubelet(void **state)
{
	struct fixture *f = *state;

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	struct value before = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	size_t starts = engine_fake_calls(f->engine, "container_start"),
	       stops = engine_fake_calls(f->engine, "container_stop");
	stop_kubelet(f);
	unsigned patches = f->api.patches;
	start_kubelet(f, true);
	run_pod(f, "q", pod_json(f, "q", "", C1, "")); /* by then the first has been looked at */
	assert_int_equal(engine_fake_calls(f->engine, "container_start"), starts + 1);
	assert_int_equal(engine_fake_calls(f->engine, "container_stop"), stops);
	struct value after = test_await(&f->api, POD "p", is_ready, NULL, f->a, "still Ready");
	assert_string_equal(test_text(&before, "status.containerStatuses[0].containerID"),
		test_text(&after, "status.containerStatuses[0].containerID"));
	assert_string_equal(
		test_text(&before, "status.startTime"), test_text(&after, "status.startTime"));
	assert_true(f->api.patches >= patches);
}

static bool other_ip(const struct value *v, const void *ip)
{
	return is_ready(v, NULL) && strcmp(test_text(v, "status.podIP"), ip) &&
		test_int(v, "status.containerStatuses[0].restartCount") == 1;
}

static void test_lost_sandbox(void **state)
{
	struct fixture *f = *state;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_sandbox *list;
	struct err err;
	size_t n;

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	struct value v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	f->engine->v->sandbox_list(f->engine, a, &list, &n, &err);
	assert_int_equal(n, 1);
	engine_fake_lose_sandbox(f->engine, list[0].id);
	v = test_await(&f->api, POD "p", other_ip,
		arena_strz(f->a, test_text(&v, "status.podIP")).p, f->a, "a new sandbox");
	assert_int_equal(test_at(&v, "status.podIPs")->list.len, 1);
}

static void test_admission(void **state)
{
	struct fixture *f = *state;
	const char *big =
		"{\"name\":\"c\",\"image\":\"busybox:1\",\"resources\":{\"requests\":{\"cpu\":\"1000\"}}}";
	const char *port =
		"{\"name\":\"c\",\"image\":\"busybox:1\",\"ports\":[{\"containerPort\":80,\"hostPort\":8080}]}";

	start_kubelet(f, true);
	test_put(&f->api, POD "p", pod_json(f, "p", "", big, ""));
	struct value v = test_await(&f->api, POD "p", is_phase, "Failed", f->a, "Failed");
	assert_string_equal(test_text(&v, "status.reason"), "OutOfcpu");
	assert_non_null(strstr(test_text(&v, "status.message"),
		"Pod was rejected: Node didn't have enough resource: cpu, requested: "
		"1000000, used: 0"));
	run_pod(f, "q", pod_json(f, "q", "", port, ""));
	test_put(&f->api, POD "r", pod_json(f, "r", "", port, ""));
	v = test_await(&f->api, POD "r", is_phase, "Failed", f->a, "Failed");
	assert_string_equal(test_text(&v, "status.reason"), "NodePorts");
}

/* The node's own settings are no pod's to change. */
static void test_sysctls(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *name, *host, *word;
	} rows[] = {
		{ "kernel.core_pattern", "", "\"kernel.core_pattern\" not allowlisted" },
		{ "kernel/core_pattern", "", "\"kernel.core_pattern\" not allowlisted" },
		{ "vm.panic_on_oom", "", "not allowlisted" },
		{ "net.ipv4.ip_forward", "", "not allowlisted" },
		{ "net.ipv4.tcp_syncookies", ",\"hostNetwork\":true",
			"\"net.ipv4.tcp_syncookies\" not allowed with host Net enabled" },
		{ "kernel.shm_rmid_forced", ",\"hostIPC\":true",
			"not allowed with host IPC enabled" },
	};
	char name[8], path[80];

	start_kubelet(f, true);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(name, sizeof(name), "p%zu", i);
		snprintf(path, sizeof(path), POD "%s", name);
		test_put(&f->api, path,
			pod_json(f, name,
				arena_fmt(f->a,
					",\"securityContext\":{\"sysctls\":[{\"name\":\"%s\",\"value\":\"1\"}]}%s",
					rows[i].name, rows[i].host)
					.p,
				C1, ""));
		struct value v = test_await(&f->api, path, is_phase, "Failed", f->a, "Failed");
		assert_string_equal(test_text(&v, "status.reason"), "SysctlForbidden");
		if (!strstr(test_text(&v, "status.message"), rows[i].word))
			fail_msg("%s: %s", rows[i].name, test_text(&v, "status.message"));
	}
	run_pod(f, "q",
		pod_json(f, "q",
			",\"securityContext\":{\"sysctls\":[{\"name\":\"net/ipv4/tcp_syncookies\",\"value\":\"1\"}]}",
			C1, ""));
}

static bool is_down_and_failed(const struct value *v, const void *arg)
{
	return is_phase(v, "Failed") && test_at(v, "status.containerStatuses[0].state.terminated");
}

/* Somebody says that a running pod has failed: so it has, and what runs of it ends. */
static void test_failed_by_others(void **state)
{
	struct fixture *f = *state;

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	pthread_mutex_lock(&f->api.lock);
	struct value v =
		test_tree(f->a, arena_strz(f->a, map_get(&f->api.objects, STR(POD "p"))).p);
	pthread_mutex_unlock(&f->api.lock);
	CLEAN_BUF struct buf b = { 0 };
	struct value *st = value_get(&v, STR("status"));
	value_set(f->a, st, STR("phase"))->text = STR("Failed");
	*value_set(f->a, st, STR("reason")) =
		(struct value){ .kind = VALUE_TEXT, .text = STR("Because") };
	json_write(&v, &b);
	unsigned before = f->api.patches;
	test_put(&f->api, POD "p", b.p);
	v = test_await(&f->api, POD "p", is_down_and_failed, NULL, f->a, "down and Failed");
	assert_string_equal(test_text(&v, "status.reason"), "Because");
	assert_true(f->api.patches > before);
}

static void test_deadline(void **state)
{
	struct fixture *f = *state;

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", ",\"activeDeadlineSeconds\":60", C1, ""));
	advance(f, 61);
	struct value v = test_await(&f->api, POD "p", is_phase, "Failed", f->a, "Failed");
	assert_string_equal(test_text(&v, "status.reason"), "DeadlineExceeded");
}

static bool is_mirror(const struct value *v, const void *arg)
{
	const struct value *notes = test_at(v, "metadata.annotations");

	return notes && value_get(notes, STR("kubernetes.io/config.mirror")) && is_ready(v, NULL);
}

#define MANIFEST \
	"apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: default\nspec:\n  containers:\n  - name: c\n    image: busybox:1\n"

static void test_static_pod(void **state)
{
	struct fixture *f = *state;
	CLEAN_FREE char *file = xasprintf("%s/static/web.yaml", f->dir);
	struct err err;

	start_kubelet(f, true);
	assert_int_equal(file_write_atomic(file, STR(MANIFEST), 0644, false, &err), 0);
	struct value v =
		test_await(&f->api, POD "web-n1", is_mirror, NULL, f->a, "mirror pod, Ready");
	assert_string_equal(test_text(&v, "spec.nodeName"), "n1");
	const char *uid = arena_strz(f->a, test_text(&v, "metadata.uid")).p;
	/* whoever deletes the mirror gets another one; the pod goes on */
	size_t starts = engine_fake_calls(f->engine, "container_start");
	test_put(&f->api, POD "web-n1", NULL);
	v = test_await(&f->api, POD "web-n1", is_mirror, NULL, f->a, "mirror pod again");
	assert_string_not_equal(test_text(&v, "metadata.uid"), uid);
	assert_int_equal(engine_fake_calls(f->engine, "container_start"), starts);
	unlink(file);
	test_await(&f->api, POD "web-n1", NULL, NULL, f->a, "mirror gone with its file");
}

static void test_static_pod_alone(void **state)
{
	struct fixture *f = *state;
	CLEAN_FREE char *dir = xasprintf("%s/static", f->dir),
			*file = xasprintf("%s/web.yaml", dir);
	struct err err;

	mkdir(dir, 0755);
	assert_int_equal(file_write_atomic(file, STR(MANIFEST), 0644, false, &err), 0);
	start_kubelet(f, false);
	for (int i = 0; i < 500 && !engine_fake_calls(f->engine, "container_start"); i++)
		usleep(10000);
	assert_int_equal(engine_fake_calls(f->engine, "container_start"), 1);
}

static void test_orphan(void **state)
{
	struct fixture *f = *state;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_sandbox made, *list;
	struct engine_sandbox_config c = {
		.name = "old", .namespace_ = "default", .uid = "gone", .log_directory = "/nowhere"
	};
	struct err err;
	size_t n = 1;

	assert_int_equal(f->engine->v->sandbox_run(f->engine, &c, a, &made, &err), 0);
	CLEAN_FREE char *logs = xasprintf("%s/logs/default_old_gone", f->dir);
	assert_int_equal(dir_make(logs, 0755, &err), 0);
	start_kubelet(f, true);
	for (int i = 0; i < 500 && n; i++) {
		f->engine->v->sandbox_list(f->engine, a, &list, &n, &err);
		usleep(10000);
	}
	assert_int_equal(n, 0);
	for (int i = 0; i < 500 && access(logs, F_OK) == 0; i++)
		usleep(10000);
	assert_int_not_equal(
		access(logs, F_OK), 0); /* its logs go with it: nobody else knows of them */
}

static bool runs_image(const struct value *v, const void *image)
{
	return !strcmp(test_text(v, "status.containerStatuses[0].image"), image) &&
		is_ready(v, NULL);
}

/* A new image is a new container in the same sandbox. */
static void test_image_change(void **state)
{
	struct fixture *f = *state;

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	struct value v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	const char *uid = arena_fmt(f->a, ",\"uid\":\"%s\"", test_text(&v, "metadata.uid")).p;
	const char *ip = arena_strz(f->a, test_text(&v, "status.podIP")).p;
	test_put(&f->api, POD "p",
		pod_json(f, "p", "", "{\"name\":\"c\",\"image\":\"busybox:2\"}", uid));
	v = test_await(&f->api, POD "p", runs_image, "busybox:2", f->a, "the new image");
	assert_int_equal(test_int(&v, "status.containerStatuses[0].restartCount"), 1);
	assert_string_equal(test_text(&v, "status.podIP"), ip);
	assert_int_equal(engine_fake_calls(f->engine, "sandbox_run"), 1);
}

static bool was_restarted(const struct value *v, const void *type)
{
	/* what is told of the run is what it has: the larger request comes with the next one */
	if (test_int(v, "status.containerStatuses[0].restartCount") == 0)
		assert_string_equal(
			test_text(v, "status.containerStatuses[0].resources.requests.memory"),
			"10Mi");
	const struct value *list = test_at(v, "status.conditions");
	for (size_t i = 0; list && i < list->list.len; i++)
		if (!strcmp(test_text(&list->list.items[i], "type"), "PodResizeInProgress"))
			return false;
	return is_ready(v, NULL) && test_int(v, "status.containerStatuses[0].restartCount") == 1;
}

/* A resize ends the run where the container's policy for that resource says so, also where a run that ended well has no successor. */
static void test_resize_restart(void **state)
{
	struct fixture *f = *state;
	static const char c[] =
		"{\"name\":\"c\",\"image\":\"busybox:1\",\"resources\":{\"requests\":{\"cpu\":\"%s\",\"memory\":\"%s\"}},\"resizePolicy\":["
		"{\"resourceName\":\"cpu\",\"restartPolicy\":\"NotRequired\"},{\"resourceName\":\"memory\",\"restartPolicy\":\"RestartContainer\"}]}";

	start_kubelet(f, true);
	run_pod(f, "p",
		pod_json(f, "p", ",\"restartPolicy\":\"OnFailure\"",
			arena_fmt(f->a, c, "100m", "10Mi").p, ""));
	struct value v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	const char *uid = arena_fmt(f->a, ",\"uid\":\"%s\"", test_text(&v, "metadata.uid")).p;
	test_put(&f->api, POD "p",
		pod_json(f, "p", ",\"restartPolicy\":\"OnFailure\"",
			arena_fmt(f->a, c, "200m", "10Mi").p, uid));
	while (!engine_fake_calls(f->engine, "container_update"))
		usleep(1000);
	test_put(&f->api, POD "p",
		pod_json(f, "p", ",\"restartPolicy\":\"OnFailure\"",
			arena_fmt(f->a, c, "200m", "20Mi").p, uid));
	test_await(&f->api, POD "p", was_restarted, NULL, f->a, "Ready again");
	assert_int_equal(engine_fake_calls(f->engine, "container_update"), 1);
	assert_int_equal(engine_fake_calls(f->engine, "sandbox_run"), 1);
}

static bool has_condition_false(const struct value *v, const void *type)
{
	return !strcmp(condition(v, type), "False");
}

/* What another writer put over our word is put right. */
static void test_drift(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf b = { 0 };

	start_kubelet(f, true);
	run_pod(f, "p", pod_json(f, "p", "", C1, ""));
	struct value v = test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready");
	const struct value *list = test_at(&v, "status.conditions");
	for (size_t i = 0; i < list->list.len; i++)
		if (!strcmp(test_text(&list->list.items[i], "type"), "Ready"))
			value_get(&list->list.items[i], STR("status"))->text = STR("False");
	assert_true(has_condition_false(&v, "Ready"));
	json_write(&v, &b);
	test_put(&f->api, POD "p", b.p);
	test_await(&f->api, POD "p", is_ready, NULL, f->a, "Ready again");
}

/* A file that went while no kubelet looked: its pod goes with the next one, with or without an API server; the pods of files that stay do not. */
static void test_static_orphan(void **state)
{
	struct fixture *f = *state;
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_FREE char *dir = xasprintf("%s/static", f->dir),
			*file = xasprintf("%s/web.yaml", dir), *other = xasprintf("%s/b.yaml", dir);
	struct engine_sandbox *list;
	struct err err;
	size_t n = 0;

	mkdir(dir, 0755);
	assert_int_equal(file_write_atomic(file, STR(MANIFEST), 0644, false, &err), 0);
	assert_int_equal(
		file_write_atomic(other,
			STR("apiVersion: v1\nkind: Pod\nmetadata: {name: stays}\nspec: {containers: [{name: c, image: "
			    "'busybox:1'}]}\n"),
			0644, false, &err),
		0);
	start_kubelet(f, false);
	for (int i = 0; i < 500 && engine_fake_calls(f->engine, "container_start") < 2; i++)
		usleep(10000);
	stop_kubelet(f);
	unlink(file);
	start_kubelet(f, true);
	for (int i = 0; i < 500 && n != 1; i++) {
		assert_int_equal(f->engine->v->sandbox_list(f->engine, a, &list, &n, &err), 0);
		usleep(10000);
	}
	assert_int_equal(n, 1);
	assert_true(str_eqz(list[0].name, "stays-n1"));
	test_await(&f->api, POD "stays-n1", is_mirror, NULL, f->a, "mirror of the one that stays");
	assert_int_equal(engine_fake_calls(f->engine, "container_start"), 2);
}

static void test_config_error(void **state)
{
	struct fixture *f = *state;
	const char *c = "{\"name\":\"c\",\"image\":\"busybox:1\",\"env\":[{\"name\":\"A\","
			"\"valueFrom\":{\"configMapKeyRef\":{\"name\":\"m\",\"key\":\"k\"}}}]}";

	start_kubelet(f, true);
	test_put(&f->api, POD "p", pod_json(f, "p", "", c, ""));
	struct value v = test_await(&f->api, POD "p", waits_for, "CreateContainerConfigError", f->a,
		"CreateContainerConfigError");
	assert_string_equal(test_text(&v, "status.containerStatuses[0].state.waiting.message"),
		"configmap \"m\" not found");
	test_put(&f->api, "/api/v1/namespaces/default/configmaps/m",
		"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\","
		"\"metadata\":{\"name\":\"m\"},\"data\":{\"k\":\"v\"}}");
	advance(f, 11);
	test_await(
		&f->api, POD "p", is_phase, "Running", f->a, "Running once the ConfigMap is there");
}

static bool network_missing(const struct value *v, const void *arg)
{
	const struct value *list = test_at(v, "status.conditions");

	for (size_t i = 0; list && i < list->list.len; i++)
		if (!strcmp(test_text(&list->list.items[i], "type"), "Ready"))
			return !strcmp(test_text(&list->list.items[i], "reason"),
				       "KubeletNotReady") &&
				strstr(test_text(&list->list.items[i], "message"),
					"NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: none there");
	return false;
}

/* Without a pod network only pods of the host's run; the others as soon as it comes. */
static void test_no_network(void **state)
{
	struct fixture *f = *state;

	engine_fake_fail(f->engine, "network_status", -1, "none there");
	start_kubelet(f, true);
	test_await(&f->api, "/api/v1/nodes/n1", network_missing, NULL, f->a, "NotReady");
	test_put(&f->api, POD "p", pod_json(f, "p", "", C1, ""));
	run_pod(f, "host", pod_json(f, "host", ",\"hostNetwork\":true", C1, ""));
	assert_int_equal(engine_fake_calls(f->engine, "sandbox_run"), 1);
	engine_fake_fail(f->engine, "network_status", 0, NULL);
	test_await(&f->api, POD "p", is_phase, "Running", f->a, "Running with a network");
	test_await(&f->api, "/api/v1/nodes/n1", node_ready, NULL, f->a, "Ready");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	const struct CMUnitTest tests[] = {
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		T(test_node),
		T(test_run_and_delete),
		T(test_back_off),
		T(test_policies),
		T(test_init),
		T(test_sidecar),
		T(test_pull),
		T(test_probes),
		T(test_probe_of_the_last_run),
		T(test_probes_hang),
		T(test_restart_of_the_kubelet),
		T(test_lost_sandbox),
		T(test_admission),
		T(test_sysctls),
		T(test_failed_by_others),
		T(test_deadline),
		T(test_static_pod),
		T(test_static_pod_alone),
		T(test_orphan),
		T(test_static_orphan),
		T(test_image_change),
		T(test_resize_restart),
		T(test_drift),
		T(test_config_error),
		T(test_no_network),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
