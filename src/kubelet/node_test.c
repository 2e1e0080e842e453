/* The kubelet on real containers: the local engine, a small API server on loopback, the node API over TLS. Root only; in process, mount and network
 * namespaces of its own, so that nothing stays on the machine. */
#include <fcntl.h>

#include "gen/types.h"
#include "kubelet/test_api.h"

#define ROOT "/tmp/skiff-node-test"
#include "engine/root_testing.h"
#define POD "/api/v1/namespaces/default/pods/"

static struct test_api api;
static struct loop *loop;
static struct engine *engine;
static struct kubelet *k;
static struct arena *arena;
static struct tls_context *tls;
static struct http_client *node, *stranger;

/* ---- set up ---- */

static void open_engine(void)
{
	struct engine_local_config c = { .root = ROOT "/engine",
		.run = ROOT "/run",
		.pod_cidr = "10.198.7.0/24",
		.bridge = "skifft1",
		.cluster_cidr = "10.198.0.0/16" };

	must(engine_local_new(&c, &engine, &err));
}

static void make_certs(struct buf *client_cert, struct buf *client_key, struct buf *ca_cert)
{
	struct buf ca_key = { 0 }, key = { 0 }, cert = { 0 };
	const struct cert_request ca = {
		.common_name = "ca", .valid_seconds = 3600, .is_ca = true
	};
	const struct cert_request server = { .common_name = "system:node:n1",
		.ip_addresses = (const char *const[]){ "127.0.0.1", NULL },
		.valid_seconds = 3600,
		.server_auth = true };
	const struct cert_request client = { .common_name = "kube-apiserver-kubelet-client",
		.valid_seconds = 3600,
		.client_auth = true };

	must(cert_new_key(&ca_key, &err));
	must(cert_new_key(&key, &err));
	must(cert_new_key(client_key, &err));
	must(cert_issue(&ca, buf_str(&ca_key), STR_NONE, STR_NONE, ca_cert, &err));
	must(cert_issue(&server, buf_str(&key), buf_str(ca_cert), buf_str(&ca_key), &cert, &err));
	must(cert_issue(&client, buf_str(client_key), buf_str(ca_cert), buf_str(&ca_key),
		client_cert, &err));
	struct tls_server_config c = { .cert_pem = buf_str(&cert),
		.key_pem = buf_str(&key),
		.client_ca_pem = buf_str(ca_cert) };
	must(tls_server_new(&c, &tls, &err));
	buf_deinit(&ca_key);
	buf_deinit(&key);
	buf_deinit(&cert);
}

static void start_kubelet(void)
{
	struct kubelet_config c = { .client = api.client,
		.engine = engine,
		.loop = loop,
		.clock = &clock_real,
		.node_name = "n1",
		.node_ip = "127.0.0.1",
		.root_dir = ROOT "/kubelet",
		.pod_log_dir = ROOT "/logs",
		.node_log_dir = ROOT "/varlog",
		.cluster_dns = "10.43.0.10",
		.cluster_domain = "cluster.local",
		.serving_tls = tls,
		.port = -1,
		.address = "127.0.0.1" };

	must(kubelet_new(&c, &k, &err));
	must(kubelet_start(k, &err));
}

static void connect_node(struct buf *cert, struct buf *key, struct buf *ca)
{
	struct tls_client_config c = { .ca_pem = buf_str(ca),
		.cert_pem = buf_str(cert),
		.key_pem = buf_str(key) },
				 no = { .ca_pem = buf_str(ca) };
	struct tls_context *with, *without;
	char url[64];

	must(tls_client_new(&c, &with, &err));
	must(tls_client_new(&no, &without, &err));
	snprintf(url, sizeof(url), "https://127.0.0.1:%d", node_server_port(k));
	must(http_client_new(url, with, &node, &err));
	must(http_client_new(url, without, &stranger, &err));
	tls_context_free(with);
	tls_context_free(without);
}

static struct buf client_cert, client_key, ca_cert;
static bool had_groups; /* of a cluster on this machine: not ours to remove */

static int setup(void **state)
{
	struct engine_image image;
	const char *find[] = { "sh", "-c", "find /sys/fs/cgroup -type d -name kubepods | grep -q .",
		NULL };
	struct process_result found = { 0 };

	must(process_run(find, STR_NONE, 0, &found, &err));
	had_groups = !found.status;
	process_result_deinit(&found);
	arena = arena_new(0);
	make_image("root:x:0:0::/:/bin/sh\\n", "");
	open_engine();
	must(engine->v->image_import(
		engine, ROOT "/busybox.tar", "busybox:1", arena, &image, &err));
	test_api_start(&api);
	must(loop_new("node", &loop, &err));
	must(loop_start(loop, &err));
	make_certs(&client_cert, &client_key, &ca_cert);
	start_kubelet();
	connect_node(&client_cert, &client_key, &ca_cert);
	return 0;
}

static int teardown(void **state)
{
	http_client_free(node);
	http_client_free(stranger);
	kubelet_stop(k);
	kubelet_free(k);
	loop_stop(loop);
	loop_join(loop);
	loop_free(loop);
	test_api_stop(&api);
	engine->v->free(engine);
	if (!had_groups)
		sh("find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true");
	tls_context_free(tls);
	buf_deinit(&client_cert);
	buf_deinit(&client_key);
	buf_deinit(&ca_cert);
	arena_free(arena);
	return 0;
}

/* ---- helpers ---- */

static void put_pod(const char *name, const char *spec)
{
	CLEAN_FREE char *path = xasprintf(POD "%s", name);

	test_put(&api, path,
		arena_fmt(arena,
			"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"%s\","
			"\"namespace\":\"default\",\"labels\":{\"app\":\"%s\"}},"
			"\"spec\":{\"nodeName\":\"n1\",\"restartPolicy\":\"Never\",\"terminationGracePeriodSeconds\":5,\"enableServiceLinks\":false,"
			"%s}}",
			name, name, spec)
			.p);
}

static bool is_phase(const struct value *v, const void *phase)
{
	return !strcmp(test_text(v, "status.phase"), phase);
}

static bool is_ready(const struct value *v, const void *arg)
{
	return test_at(v, "status.containerStatuses[0]") &&
		test_at(v, "status.containerStatuses[0].ready")->boolean;
}

static struct value await_pod(const char *name, test_pred fn, const void *arg, const char *what)
{
	CLEAN_FREE char *path = xasprintf(POD "%s", name);

	return test_await(&api, path, fn, arg, arena, what);
}

static struct str ask(struct http_client *c, const char *method, const char *target, int want)
{
	struct http_call call = { .method = str_of(method), .target = str_of(target) };
	struct http_reply reply;

	must(http_client_call(c, &call, arena, &reply, &err));
	if (reply.status != want)
		fail_msg("%s %s: %d: " STR_FMT, method, target, reply.status, STR_ARG(reply.body));
	return reply.body;
}

static struct str logs_of(const char *pod)
{
	return ask(node, "GET", arena_fmt(arena, "/containerLogs/default/%s/c", pod).p, 200);
}

#define assert_has(text, part) \
	do { \
		if (str_find_str(text, STR(part)) < 0) \
			fail_msg("\"%s\" is not in:\n" STR_FMT, part, STR_ARG(text)); \
	} while (0)

/* The mark that the API puts on what is to be deleted. */
static void mark_deleted(const char *path, int grace)
{
	CLEAN_BUF struct buf b = { 0 };

	pthread_mutex_lock(&api.lock);
	struct value v = test_tree(arena, arena_strz(arena, map_get(&api.objects, str_of(path))).p);
	pthread_mutex_unlock(&api.lock);
	struct value *m = value_get(&v, STR("metadata"));
	*value_set(arena, m, STR("deletionTimestamp")) =
		(struct value){ .kind = VALUE_TEXT, .text = STR("2026-01-01T00:00:00Z") };
	*value_set(arena, m, STR("deletionGracePeriodSeconds")) =
		(struct value){ .kind = VALUE_INT, .integer = grace };
	json_write(&v, &b);
	test_put(&api, path, b.p);
}

/* Deletes as the API does it: a mark first, the object once the kubelet says so. */
static void delete_pod(const char *name, int grace)
{
	CLEAN_FREE char *path = xasprintf(POD "%s", name);

	mark_deleted(path, grace);
	test_await(&api, path, NULL, NULL, arena, "object gone");
}

/* ---- tests ---- */

static void test_volumes_and_env(void **state)
{
	test_put(&api, "/api/v1/namespaces/default/configmaps/m",
		"{\"metadata\":{\"name\":\"m\"},\"data\":{\"k\":\"from-map\","
		"\"f\":\"file-of-map\"}}");
	test_put(&api, "/api/v1/namespaces/default/secrets/s",
		"{\"metadata\":{\"name\":\"s\"},\"data\":{\"k\":\"aHVzaA==\"}}");
	put_pod("v",
		"\"securityContext\":{\"fsGroup\":4321},\"hostAliases\":[{\"ip\":\"192.0.2.9\",\"hostnames\":[\"alias\"]}],"
		"\"volumes\":[{\"name\":\"m\",\"configMap\":{\"name\":\"m\",\"items\":[{\"key\":\"f\",\"path\":\"deep/f\"}]}},"
		"{\"name\":\"s\",\"secret\":{\"secretName\":\"s\",\"defaultMode\":256}},"
		"{\"name\":\"e\",\"emptyDir\":{}},{\"name\":\"t\",\"emptyDir\":{\"medium\":\"Memory\",\"sizeLimit\":\"1Mi\"}},"
		"{\"name\":\"d\",\"downwardAPI\":{\"items\":[{\"path\":\"n\",\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}]}},"
		"{\"name\":\"p\",\"projected\":{\"sources\":[{\"serviceAccountToken\":{\"path\":\"token\"}},"
		"{\"downwardAPI\":{\"items\":[{\"path\":\"labels\",\"fieldRef\":{\"fieldPath\":\"metadata.labels\"}}]}}]}}],"
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sh\",\"-c\",\"echo map=$A secret=$B ip=$IP $(WHO) "
		"$X; cat /m/deep/f; cat /s/k; echo; cat /p/labels; "
		"head -c 2 /p/token; echo; for i in m s p d; do touch /$i/x 2>&1 | grep -c Read-only; done; "
		"echo x > /e/f; stat -c %g /e; df /t | grep -c tmpfs; df /s | grep -c tmpfs; ls /sub; grep alias "
		"/etc/hosts; grep nameserver /etc/resolv.conf; hostname\"],"
		"\"env\":[{\"name\":\"A\",\"valueFrom\":{\"configMapKeyRef\":{\"name\":\"m\",\"key\":\"k\"}}},{\"name\":\"B\","
		"\"valueFrom\":{\"secretKeyRef\":{\"name\":\"s\",\"key\":\"k\"}}},"
		"{\"name\":\"IP\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"status.podIP\"}}},{\"name\":\"WHO\",\"value\":\"me\"},"
		"{\"name\":\"X\",\"value\":\"$(A)!\"}],"
		"\"volumeMounts\":[{\"name\":\"m\",\"mountPath\":\"/m\"},{\"name\":\"s\",\"mountPath\":\"/s\"},{\"name\":\"e\","
		"\"mountPath\":\"/e\"},{\"name\":\"t\",\"mountPath\":\"/t\"},"
		"{\"name\":\"d\",\"mountPath\":\"/d\"},{\"name\":\"p\",\"mountPath\":\"/p\"},{\"name\":\"e\",\"mountPath\":\"/sub\",\"subPath\":\"in/side\"}]}]");
	struct value v = await_pod("v", is_phase, "Succeeded", "Succeeded");
	struct str log = logs_of("v");
	assert_has(log, "map=from-map secret=hush ip=10.198.7.");
	assert_has(log, "me from-map!\n");
	assert_has(log, "file-of-map");
	assert_has(log, "hush\n");
	assert_has(log,
		"app=\"v\"h.\n1\n1\n1\n1\n4321\n1\n1\n"); /* what the kubelet keeps is read only */
	assert_has(log, "192.0.2.9\talias");
	assert_has(log, "nameserver 10.43.0.10");
	assert_has(log, "\nv\n");
	/* an ended pod holds no mount; a deleted one no folder */
	const char *uid = arena_strz(arena, test_text(&v, "metadata.uid")).p;
	sh("! grep " ROOT "/kubelet/pods /proc/self/mountinfo");
	delete_pod("v", 1);
	CLEAN_FREE char *gone = xasprintf("for i in 1 2 3 4 5 6 7 8 9 10; do [ -e " ROOT
					  "/kubelet/pods/%s ] || exit 0; sleep 0.1; done; "
					  "exit 1",
		uid);
	sh(gone);
}

static void test_end_of_containers(void **state)
{
	put_pod("x",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"terminationMessagePath\":\"/dev/termination-log\","
		"\"command\":[\"sh\",\"-c\",\"echo last words > /dev/termination-log; exit 7\"]}]");
	struct value v = await_pod("x", is_phase, "Failed", "Failed");
	assert_int_equal(test_int(&v, "status.containerStatuses[0].state.terminated.exitCode"), 7);
	assert_string_equal(test_text(&v, "status.containerStatuses[0].state.terminated.message"),
		"last words\n");
	assert_string_equal(
		test_text(&v, "status.containerStatuses[0].state.terminated.reason"), "Error");
	delete_pod("x", 1);
	put_pod("y",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"terminationMessagePolicy\":\"FallbackToLogsOnError\","
		"\"terminationMessagePath\":\"/dev/termination-log\",\"command\":[\"sh\",\"-c\",\"echo in the log; exit 1\"]}]");
	v = await_pod("y", is_phase, "Failed", "Failed");
	assert_string_equal(test_text(&v, "status.containerStatuses[0].state.terminated.message"),
		"in the log\n");
	delete_pod("y", 1);
	put_pod("z",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"/no/such/program\"]}]");
	v = await_pod("z", is_phase, "Failed", "Failed");
	assert_int_equal(
		test_int(&v, "status.containerStatuses[0].state.terminated.exitCode"), 128);
	assert_string_equal(
		test_text(&v, "status.containerStatuses[0].state.terminated.reason"), "StartError");
	delete_pod("z", 1);
}

static void test_security(void **state)
{
	put_pod("n",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"securityContext\":{\"runAsNonRoot\":true},\"command\":[\"true\"]}]");
	CLEAN_FREE char *path = xstrdup(POD "n");
	for (int i = 0;; i++) {
		struct value v = await_pod("n", is_phase, "Pending", "Pending");
		if (!strcmp(test_text(&v, "status.containerStatuses[0].state.waiting.reason"),
			    "CreateContainerConfigError")) {
			assert_has(str_of(test_text(&v,
					   "status.containerStatuses[0].state.waiting.message")),
				"container has runAsNonRoot and image will run as root (pod: \"n_default(");
			break;
		}
		assert_true(i < 500);
		usleep(10000);
	}
	delete_pod("n", 1);
	put_pod("u",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"securityContext\":{\"runAsUser\":1234,\"runAsGroup\":99,"
		"\"readOnlyRootFilesystem\":true,\"allowPrivilegeEscalation\":false,\"capabilities\":{\"drop\":[\"ALL\"]}},"
		"\"command\":[\"sh\",\"-c\",\"id -u; id -g; touch /x || echo read-only; grep -E 'NoNewPrivs|CapEff' /proc/self/status\"]}]");
	await_pod("u", is_phase, "Succeeded", "Succeeded");
	struct str log = logs_of("u");
	assert_has(log, "1234\n99\n");
	assert_has(log, "read-only\n");
	assert_has(log, "NoNewPrivs:\t1");
	assert_has(log, "CapEff:\t0000000000000000");
	delete_pod("u", 1);
}

static void test_grace(void **state)
{
	put_pod("g",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"lifecycle\":{\"postStart\":{\"exec\":{\"command\":[\"sh\","
		"\"-c\",\"echo hooked > /tmp/h\"]}},\"preStop\":{\"exec\":{\"command\":[\"sh\",\"-c\",\"echo stopping > /proc/1/fd/1\"]}}},"
		"\"command\":[\"sh\",\"-c\",\"trap 'echo got TERM; exit 0' TERM; while :; do sleep 0.05; done\"]}]");
	struct value v = await_pod("g", is_ready, NULL, "ready");
	struct str out = ask(node, "POST", "/run/default/g/c?cmd=cat+/tmp/h", 200);
	assert_has(out, "hooked");
	CLEAN_FREE char *log =
		xasprintf(ROOT "/logs/default_g_%s/c/0.log", test_text(&v, "metadata.uid"));
	CLEAN_FD int fd = open(log, O_RDONLY);
	uint64_t begin = mono_now_ns();
	delete_pod("g", 5);
	assert_true(mono_now_ns() - begin < 3 * NS_PER_S);
	char text[512] = "";
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, "stopping"));
	assert_non_null(strstr(text, "got TERM"));
}

/* A second word with less time cuts the first short. */
static void test_shorter_grace(void **state)
{
	put_pod("s",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sh\",\"-c\",\"trap : TERM; while :; do sleep "
		"0.1; done\"]}]");
	await_pod("s", is_ready, NULL, "ready");
	uint64_t begin = mono_now_ns();
	mark_deleted(POD "s", 60);
	delete_pod("s", 1);
	assert_true(mono_now_ns() - begin < 5 * NS_PER_S);
}

static void test_probes(void **state)
{
	put_pod("h",
		"\"restartPolicy\":\"Always\",\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"ports\":[{\"name\":\"web\","
		"\"containerPort\":8080}],"
		"\"readinessProbe\":{\"httpGet\":{\"path\":\"/ok\",\"port\":\"web\"},\"periodSeconds\":1},"
		"\"livenessProbe\":{\"tcpSocket\":{\"port\":8080},\"periodSeconds\":1,\"initialDelaySeconds\":1},"
		"\"command\":[\"sh\",\"-c\",\"mkdir /www; echo fine > /www/ok; exec httpd -f -p 8080 -h /www\"]}]");
	struct value v = await_pod("h", is_ready, NULL, "ready by httpGet");
	assert_int_equal(test_int(&v, "status.containerStatuses[0].restartCount"), 0);
	struct str why = ask(node, "GET", "/skiff/v1/why/default/h", 200);
	assert_has(why, "\"state\":\"Syncing\"");
	assert_has(why, "\"readiness\":{\"holds\":\"success\"");
	delete_pod("h", 1);
}

static void test_node_api(void **state)
{
	put_pod("a",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sh\",\"-c\",\"for i in 1 2 3 4 5; do echo line "
		"$i; done; sleep 1000\"]}]");
	await_pod("a", is_ready, NULL, "ready");
	ask(stranger, "GET", "/pods", 401);
	ask(stranger, "GET", "/containerLogs/default/a/c", 401);
	assert_has(ask(node, "GET", "/healthz", 200), "ok");
	assert_has(ask(node, "GET", "/pods", 200), "\"name\":\"a\"");
	assert_has(ask(node, "GET", "/containerLogs/default/nope/c", 404), "not found");
	assert_has(ask(node, "GET", "/containerLogs/default/a/nope", 404),
		"container \"nope\" not found in pod \"a\"");
	assert_has(ask(node, "GET", "/containerLogs/default/a/c?previous=true", 400),
		"previous terminated container \"c\" in pod \"a\" not found");
	assert_has(ask(node, "GET", "/containerLogs/default/a/c?tailLines=x", 400), "log option");
	ask(node, "GET", "/nothing", 404);
	for (int i = 0; i < 200 && str_find_str(logs_of("a"), STR("line 5")) < 0; i++)
		usleep(10000);
	struct str tail = ask(node, "GET", "/containerLogs/default/a/c?tailLines=2", 200);
	assert_true(str_eqz(tail, "line 4\nline 5\n"));
	struct str limited = ask(node, "GET", "/containerLogs/default/a/c?limitBytes=8", 200);
	assert_true(str_eqz(limited, "line 1\nl"));
	assert_has(ask(node, "GET", "/stats/summary", 200), "\"workingSetBytes\"");
	assert_has(ask(node, "GET", "/metrics/resource", 200),
		"container_cpu_usage_seconds_total{container=\"c\",namespace=\"default\",pod=\"a\"}");
	delete_pod("a", 1);
}

static void test_node_logs(void **state)
{
	static const struct {
		const char *path;
		int status;
		const char *part;
	} rows[] = {
		{ "/logs/", 200,
			"<a href=\"a%3Ab%26%3C.log\">a:b&amp;&lt;.log</a>\n<a href=\"big\">big</a>\n" },
		{ "/logs/", 200, "<a href=\"sub/\">sub/</a>\n" },
		{ "/logs/sub/", 200, "<a href=\"x.log\">x.log</a>" },
		{ "/logs/sub/x.log", 200, "inside\n" },
		{ "/logs//sub/./x.log", 200, "inside\n" },
		{ "/logs/sub/..%2fsub/x.log", 200, "inside\n" },
		{ "/logs/sub/near", 200, "inside\n" }, /* a link that stays inside */
		{ "/logs/a%3Ab%26%3C.log", 200, "odd\n" },
		{ "/logs", 301, "" },
		{ "/logs/sub", 301, "" },
		{ "/logs/sub/x.log/", 301, "" },
		{ "/logs/none", 404, "404 page not found" },
		{ "/logs/sub/x.log/y", 404, "" },
		{ "/logs/sub%00/x.log", 404, "" },
		{ "/logs/out", 403, "leads out of /var/log" },
		{ "/logs/whole", 403, "leads out of" },
		{ "/logs/whole/etc/passwd", 403, "leads out of" },
		{ "/logs/far/x.log", 403,
			"leads out of" }, /* from the root, although it comes back */
		{ "/logs/loop", 403, "" },
		{ "/logs/../secret", 403, "" },
		{ "/logs/..%2fsecret", 403, "" },
		{ "/logs/sub/../../secret", 403, "" },
		{ "/logs/%2fetc%2fpasswd", 403, "" },
		{ "/logs/pipe", 403, "neither a file nor a folder" },
		{ "/logs/null", 403, "neither a file nor a folder" },
		{ "/logs/?query=kubelet", 501, "not served" },
		{ "/logs/sub/x.log?tailLines=3", 501, "not served" },
	};
	const size_t big = 20 << 20;

	sh("mkdir -p " ROOT "/varlog/sub && cd " ROOT
	   "/varlog && echo secret > ../secret && echo inside > sub/x.log && ln -s x.log sub/near && "
	   "ln -s ../secret out && ln -s / whole && ln -s " ROOT
	   "/varlog/sub far && ln -s loop loop && mkfifo pipe && mknod null c 1 3 && "
	   "echo odd > 'a:b&<.log' && yes 0123456 | head -c 20971520 > big");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct str text = ask(node, "GET", rows[i].path, rows[i].status);

		if (str_find_str(text, str_of(rows[i].part)) < 0)
			fail_msg("%s: %s in " STR_FMT, rows[i].path, rows[i].part, STR_ARG(text));
	}
	ask(stranger, "GET", "/logs/", 401);
	ask(node, "POST", "/logs/", 405);
	assert_int_equal(ask(node, "HEAD", "/logs/big", 200).len, 0);
	struct str all = ask(node, "GET", "/logs/big", 200);
	assert_int_equal(all.len, big);
	for (size_t i = 0; i + 8 <= all.len; i += 4096)
		assert_memory_equal(all.p + i, "0123456\n", 8);
}

static void test_follow(void **state)
{
	put_pod("f",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sh\",\"-c\",\"for i in 1 2 3 4 5; do echo line "
		"$i; sleep 0.1; done\"]}]");
	await_pod("f", is_ready, NULL, "running");
	struct http_call call = { .method = STR("GET"),
		.target = STR("/containerLogs/default/f/c?follow=true") };
	struct http_reply head;
	struct http_reader *r;
	CLEAN_BUF struct buf all = { 0 };
	char chunk[256];
	ssize_t n;

	must(http_client_open(node, &call, arena, &head, &r, &err));
	assert_int_equal(head.status, 200);
	while ((n = http_reader_read(r, chunk, sizeof(chunk), &err)) > 0)
		buf_add(&all, chunk, (size_t)n);
	http_reader_free(r);
	assert_int_equal(n, 0); /* it ends with the container */
	assert_string_equal(all.p, "line 1\nline 2\nline 3\nline 4\nline 5\n");
	await_pod("f", is_phase, "Succeeded", "Succeeded");
	delete_pod("f", 1);
}

static void test_restart(void **state)
{
	put_pod("k",
		"\"restartPolicy\":\"Always\",\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sleep\",\"1000\"]}]");
	struct value before = await_pod("k", is_ready, NULL, "ready");
	http_client_free(node);
	http_client_free(stranger);
	kubelet_stop(k);
	kubelet_free(k);
	engine->v->free(engine);
	open_engine();
	start_kubelet();
	connect_node(&client_cert, &client_key, &ca_cert);
	put_pod("l",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"true\"]}]");
	await_pod("l", is_phase, "Succeeded", "Succeeded");
	struct value after = await_pod("k", is_ready, NULL, "ready");
	assert_string_equal(test_text(&before, "status.containerStatuses[0].containerID"),
		test_text(&after, "status.containerStatuses[0].containerID"));
	assert_int_equal(test_int(&after, "status.containerStatuses[0].restartCount"), 0);
	/* killed from outside: started again, in the same sandbox */
	sh("kill -9 $(pgrep -f '^sleep 1000')");
	for (int i = 0;
		i < 500 && test_int(&after, "status.containerStatuses[0].restartCount") != 1; i++) {
		after = await_pod("k", is_phase, "Running", "Running");
		usleep(10000);
	}
	assert_int_equal(test_int(&after, "status.containerStatuses[0].restartCount"), 1);
	assert_string_equal(test_text(&before, "status.podIP"), test_text(&after, "status.podIP"));
	assert_int_equal(
		test_int(&after, "status.containerStatuses[0].lastState.terminated.exitCode"), 137);
	delete_pod("k", 1);
	delete_pod("l", 1);
}

static void test_config_follows(void **state)
{
	test_put(&api, "/api/v1/namespaces/default/configmaps/w",
		"{\"metadata\":{\"name\":\"w\"},\"data\":{\"k\":\"old\"}}");
	put_pod("w",
		"\"volumes\":[{\"name\":\"m\",\"configMap\":{\"name\":\"w\"}}],\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\","
		"\"command\":[\"sleep\",\"1000\"],"
		"\"volumeMounts\":[{\"name\":\"m\",\"mountPath\":\"/m\"}]}]");
	await_pod("w", is_ready, NULL, "ready");
	assert_has(ask(node, "POST", "/run/default/w/c?cmd=cat+/m/k", 200), "old");
	test_put(&api, "/api/v1/namespaces/default/configmaps/w",
		"{\"metadata\":{\"name\":\"w\"},\"data\":{\"k\":\"new\"}}");
	struct pod_worker *w = pods_find_name(k, STR("default"), STR("w"));
	keeper_ask_volumes(w); /* as the keeper's round does */
	worker_unref(w);
	struct str got = STR_NONE;
	for (int i = 0; i < 100 && str_find_str(got, STR("new")) < 0; i++)
		got = ask(node, "POST", "/run/default/w/c?cmd=cat+/m/k", 200);
	assert_has(got, "new");
	delete_pod("w", 1);
}

/* On disk the one that outgrows its limit goes; in memory there is no more than the pod may have. */
static void test_empty_dir_limits(void **state)
{
	put_pod("e",
		"\"volumes\":[{\"name\":\"d\",\"emptyDir\":{\"sizeLimit\":\"1Mi\"}},{\"name\":\"t\",\"emptyDir\":{\"medium\":\"Memory\"}}],"
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sleep\",\"1000\"],"
		"\"resources\":{\"limits\":{\"memory\":\"32Mi\"}},"
		"\"volumeMounts\":[{\"name\":\"d\",\"mountPath\":\"/d\"},{\"name\":\"t\",\"mountPath\":\"/t\"}]}]");
	struct value v = await_pod("e", is_ready, NULL, "ready");
	assert_has(ask(node, "POST", "/run/default/e/c?cmd=df+-k+/t", 200), " 32768 ");
	CLEANUP(worker_unrefp) struct pod_worker *w = pods_find_name(k, STR("default"), STR("e"));
	ask(node, "POST", "/run/default/e/c?cmd=dd+if=/dev/zero+of=/d/a+bs=1k+count=900", 200);
	empty_dirs_check(w, w->desired->pod); /* as the keeper does */
	assert_null(w->evict_reason);
	ask(node, "POST", "/run/default/e/c?cmd=dd+if=/dev/zero+of=/d/b+bs=1k+count=900", 200);
	empty_dirs_check(w, w->desired->pod);
	v = await_pod("e", is_phase, "Failed", "Failed");
	assert_string_equal(test_text(&v, "status.reason"), "Evicted");
	assert_has(
		str_of(test_text(&v, "status.message")), "Usage of EmptyDir volume \"d\" exceeds");
	delete_pod("e", 1);
}

static void test_storage_limits(void **state)
{
	/* What a container writes and says is its own; what is in emptyDirs is the pod's. */
	static const struct {
		const char *command, *message;
	} over[] = {
		{ "dd+if=/dev/zero+of=/root.bin+bs=1k+count=600",
			"Container c exceeded its local ephemeral storage limit \"1Mi\". " },
		{ "dd+if=/dev/zero+of=/d/b+bs=1k+count=3000",
			"Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. " },
	};

	for (size_t i = 0; i < ARRAY_LEN(over); i++) {
		CLEAN_FREE char *write = xasprintf("/run/default/s/c?cmd=%s", over[i].command);

		put_pod("s",
			"\"volumes\":[{\"name\":\"d\",\"emptyDir\":{}}],\"containers\":["
			"{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sleep\",\"1000\"],"
			"\"resources\":{\"limits\":{\"ephemeral-storage\":\"1Mi\"}},\"volumeMounts\":[{\"name\":\"d\",\"mountPath\":\"/d\"}]},"
			"{\"name\":\"more\",\"image\":\"busybox:1\",\"command\":[\"sleep\",\"1000\"],"
			"\"resources\":{\"limits\":{\"ephemeral-storage\":\"1Mi\"}}}]");
		await_pod("s", is_ready, NULL, "ready");
		CLEANUP(worker_unrefp)
		struct pod_worker *w = pods_find_name(k, STR("default"), STR("s"));
		ask(node, "POST", "/run/default/s/c?cmd=dd+if=/dev/zero+of=/a+bs=1k+count=500",
			200);
		ask(node, "POST", "/run/default/s/c?cmd=dd+if=/dev/zero+of=/d/a+bs=1k+count=500",
			200);
		storage_limits_check(w, w->desired->pod); /* as the keeper does */
		assert_null(w->evict_reason);
		ask(node, "POST", write, 200);
		storage_limits_check(w, w->desired->pod);
		struct value v = await_pod("s", is_phase, "Failed", "Failed");
		assert_string_equal(test_text(&v, "status.reason"), "Evicted");
		assert_string_equal(test_text(&v, "status.message"), over[i].message);
		delete_pod("s", 1);
	}
}

/* Not a test of correctness alone: how long from the word to Running. */
static void test_latency(void **state)
{
	uint64_t begin = mono_now_ns();

	put_pod("q",
		"\"containers\":[{\"name\":\"c\",\"image\":\"busybox:1\",\"command\":[\"sleep\",\"1000\"]}]");
	await_pod("q", is_ready, NULL, "ready");
	printf("# bound to Running: %.1f ms\n", (double)(mono_now_ns() - begin) / 1e6);
	begin = mono_now_ns();
	delete_pod("q", 1);
	printf("# deleted with a grace of 1 s (sleep ignores TERM): %.1f ms\n",
		(double)(mono_now_ns() - begin) / 1e6);
}

static void test_nothing_is_left(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_sandbox *list;
	size_t n = 1;

	for (int i = 0; i < 200 && n; i++) {
		must(engine->v->sandbox_list(engine, a, &list, &n, &err));
		usleep(10000);
	}
	assert_int_equal(n, 0);
	sh("[ -z \"$(ls " ROOT "/kubelet/pods " ROOT "/logs | grep -v : )\" ] || { ls -R " ROOT
	   "/kubelet/pods " ROOT "/logs >&2; exit 1; }");
	sh("! grep " ROOT "/kubelet /proc/self/mountinfo");
}

/* ---- the program ---- */

static int run_group(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_latency),
		cmocka_unit_test(test_volumes_and_env),
		cmocka_unit_test(test_end_of_containers),
		cmocka_unit_test(test_security),
		cmocka_unit_test(test_grace),
		cmocka_unit_test(test_shorter_grace),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_node_api),
		cmocka_unit_test(test_node_logs),
		cmocka_unit_test(test_follow),
		cmocka_unit_test(test_config_follows),
		cmocka_unit_test(test_empty_dir_limits),
		cmocka_unit_test(test_storage_limits),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_nothing_is_left),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

int main(int argc, char **argv)
{
	int status;

	if (geteuid() != 0) {
		fprintf(stderr, "skipped: pods on real containers need root\n");
		return 0;
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	pid_t between = fork();
	if (between == 0)
		_exit(run_namespaced(run_group));
	waitpid(between, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
