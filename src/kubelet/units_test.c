/* The pure parts: back-off, phase, expansion, log lines, the swap of file sets, sub-paths, resolv.conf, quality of service. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/test_api.h"

static struct core_v1_pod *pod_of(struct arena *a, const char *json)
{
	struct core_v1_pod *p;
	struct err err;

	if (json_decode(&core_v1_pod_type, str_of(json), a, NULL, (void **)&p, &err))
		fail_msg("%s", err.text);
	return p;
}

static void test_backoff(void **state)
{
	struct backoff b = { 0 };
	uint64_t t = 1000 * NS_PER_S;
	static const unsigned waits[] = { 10, 20, 40, 80, 160, 300, 300 };

	assert_int_equal(backoff_until(&b, t), 0); /* the first is free */
	for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
		backoff_next(&b, t);
		t += 5 * NS_PER_S;
		assert_int_equal(backoff_until(&b, t), t + waits[i] * NS_PER_S);
		t += waits[i] * NS_PER_S;
	}
	t += 601 * NS_PER_S;
	assert_int_equal(backoff_until(&b, t), 0); /* at peace for ten minutes */
	backoff_next(&b, t);
	assert_int_equal(b.delay_ns, 10 * NS_PER_S);
}

static void test_expand(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_env env[] = { { STR("A"), STR("1") }, { STR("B"), STR("two") },
		{ STR("A"), STR("last") } };
	static const char *const rows[][2] = {
		{ "plain", "plain" },
		{ "$(B)", "two" },
		{ "x$(A)y$(B)", "xlastytwo" },
		{ "$(NONE)", "$(NONE)" },
		{ "$$(B)", "$(B)" },
		{ "$$$(B)", "$two" },
		{ "$(B", "$(B" },
		{ "$", "$" },
		{ "a$b", "a$b" },
		{ "$()", "$()" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(
			env_expand(str_of(rows[i][0]), env, ARRAY_LEN(env), a).p, rows[i][1]);
}

static void test_phase(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
#define RUN "{\"name\":\"c\",\"state\":{\"running\":{}}}"
#define END(code) "{\"name\":\"c\",\"state\":{\"terminated\":{\"exitCode\":" #code "}}}"
#define WAIT "{\"name\":\"c\",\"state\":{\"waiting\":{}}}"
#define LOOP \
	"{\"name\":\"c\",\"state\":{\"waiting\":{}},\"lastState\":{\"terminated\":{\"exitCode\":1}}}"
	static const struct {
		const char *policy, *statuses, *init;
		bool terminal;
		const char *want;
	} rows[] = {
		{ "Always", WAIT, "", false, "Pending" },
		{ "Always", RUN, "", false, "Running" },
		{ "Always", RUN "," WAIT, "", false, "Pending" },
		{ "Always", END(0), "", false, "Running" },
		{ "Always", LOOP, "", false, "Running" },
		{ "OnFailure", END(1), "", false, "Running" },
		{ "OnFailure", END(0), "", false, "Succeeded" },
		{ "Never", END(1), "", false, "Failed" },
		{ "Never", END(0) "," END(0), "", false, "Succeeded" },
		{ "Never", END(0) "," END(2), "", false, "Failed" },
		{ "Never", RUN "," END(2), "", false, "Running" },
		{ "Always", END(1), "", true, "Failed" },
		{ "Always", END(0), "", true, "Succeeded" },
		{ "Always", WAIT, "{\"name\":\"i\",\"state\":{\"running\":{}}}", false, "Pending" },
		{ "Never", WAIT, "{\"name\":\"i\",\"state\":{\"terminated\":{\"exitCode\":1}}}",
			false, "Failed" },
		{ "Always", WAIT, "{\"name\":\"i\",\"state\":{\"terminated\":{\"exitCode\":1}}}",
			false, "Pending" },
		{ "Always", RUN, "{\"name\":\"i\",\"state\":{\"terminated\":{\"exitCode\":0}}}",
			false, "Running" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct core_v1_pod *p = pod_of(a,
			arena_fmt(a,
				"{\"spec\":{\"restartPolicy\":\"%s\",\"containers\":[{\"name\":\"c\"}],"
				"\"initContainers\":[%s]},"
				"\"status\":{\"containerStatuses\":[%s],\"initContainerStatuses\":[%s]}}",
				rows[i].policy, *rows[i].init ? "{\"name\":\"i\"}" : "",
				rows[i].statuses, rows[i].init)
				.p);
		struct str got = phase_of(p, &p->status, rows[i].terminal, false);
		if (!str_eqz(got, rows[i].want))
			fail_msg("row %zu: " STR_FMT " instead of %s", i, STR_ARG(got),
				rows[i].want);
	}
}

static void test_log_lines(void **state)
{
	struct log_line l;
	CLEAN_BUF struct buf out = { 0 };
	size_t used;
	struct log_options o = { .tail = -1, .limit_bytes = -1, .streams = 3 };
	struct str in = STR(
		"2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\nnonsense\n"
		"2026-01-01T00:00:03Z stdout F three\n2026-01-01T00:00:04Z stdout F cut");

	assert_true(log_parse_line(STR("2026-01-01T00:00:01.5+01:00 stdout F a b"), &l));
	assert_true(str_eqz(l.text, "a b") && !l.partial);
	assert_true(log_parse_line(STR("2026-01-01T00:00:01Z stderr P "), &l));
	assert_true(l.partial);
	assert_false(log_parse_line(STR("2026-01-01T00:00:01Z std F x"), &l));
	assert_false(log_parse_line(STR("yesterday stdout F x"), &l));
	assert_false(log_parse_line(STR(""), &l));

	assert_true(log_filter(in, &o, &out, &used));
	assert_string_equal(out.p, "one\ntwo\nthree\n");
	assert_int_equal(in.len - used, strlen("2026-01-01T00:00:04Z stdout F cut"));
	buf_clear(&out);
	time_parse(STR("2026-01-01T00:00:03Z"), &o.since);
	log_filter(in, &o, &out, &used);
	assert_string_equal(out.p, "three\n");
	buf_clear(&out);
	o = (struct log_options){ .tail = -1, .limit_bytes = 6, .streams = 1, .timestamps = false };
	assert_false(log_filter(in, &o, &out, &used));
	assert_string_equal(out.p, "one\nth");
	buf_clear(&out);
	o = (struct log_options){ .tail = -1, .limit_bytes = -1, .streams = 2, .timestamps = true };
	log_filter(in, &o, &out, &used);
	assert_string_equal(out.p, "2026-01-01T00:00:02Z tw2026-01-01T00:00:02Z o\n");
}

static void test_log_open(void **state)
{
	char dir[] = "/tmp/skiff-logs-XXXXXX";
	struct err err = { "" };

	assert_non_null(mkdtemp(dir));
	struct kubelet k = { .c = { .pod_log_dir = dir } };
	CLEAN_FREE char *log = xasprintf("%s/p/c/0.log", dir), *folder = xasprintf("%s/p/c", dir),
			*out = xasprintf("%s/p/out", dir),
			*through = xasprintf("%s/p/out/passwd", dir);
	assert_int_equal(dir_make(folder, 0755, &err), 0);
	assert_int_equal(symlink("/etc/passwd", log), 0);
	assert_true(log_open(&k, log) < 0);
	assert_int_equal(unlink(log), 0);
	assert_int_equal(mkfifo(log, 0600), 0);
	assert_true(log_open(&k, log) < 0);
	assert_int_equal(symlink("/etc", out), 0);
	assert_true(log_open(&k, through) < 0);
	assert_int_equal(unlink(log), 0);
	assert_int_equal(file_write_atomic(log, STR("x"), 0600, false, &err), 0);
	int fd = log_open(&k, log);
	assert_true(fd >= 0);
	close(fd);
	dir_remove_tree(dir, &err);
}

static void test_log_tail(void **state)
{
	char path[] = "/tmp/skiff-tail-XXXXXX";
	CLEAN_FD int fd = mkstemp(path);

	unlink(path);
	assert_int_equal(write(fd, "a\nbb\nccc\n", 9), 9);
	assert_int_equal(log_tail_offset(fd, -1), 0);
	assert_int_equal(log_tail_offset(fd, 0), 9);
	assert_int_equal(log_tail_offset(fd, 1), 5);
	assert_int_equal(log_tail_offset(fd, 2), 2);
	assert_int_equal(log_tail_offset(fd, 3), 0);
	assert_int_equal(log_tail_offset(fd, 9), 0);
	/* across blocks */
	CLEAN_BUF struct buf big = { 0 };
	for (int i = 0; i < 20000; i++)
		buf_addz(&big, "x\n");
	assert_int_equal(pwrite(fd, big.p, big.len, 0), (ssize_t)big.len);
	assert_int_equal(log_tail_offset(fd, 15000), 10000);
}

static char *read_all(const char *path)
{
	struct buf b = { 0 };
	struct err err;

	if (file_read(path, 1 << 20, &b, &err)) {
		buf_deinit(&b);
		return xstrdup("(gone)");
	}
	return buf_take(&b);
}

static void test_files(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	char dir[] = "/tmp/skiff-files-XXXXXX", link1[256] = "", link2[256] = "";
	struct volume_files f = { 0 };
	struct stat st;
	struct err err = { "" };

	assert_non_null(mkdtemp(dir));
	volume_files_add(a, &f, STR("a"), STR("1"), 0644);
	volume_files_add(a, &f, STR("sub/b"), STR("2"), 0400);
	assert_int_equal(files_write(dir, &f, -1, &err), 0);
	CLEAN_FREE char *pa = xasprintf("%s/a", dir), *pb = xasprintf("%s/sub/b", dir),
			*data = xasprintf("%s/..data", dir);
	CLEAN_FREE char *ta = read_all(pa), *tb = read_all(pb);
	assert_string_equal(ta, "1");
	assert_string_equal(tb, "2");
	assert_int_equal(stat(pb, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0400);
	assert_true(lstat(pa, &st) == 0 && S_ISLNK(st.st_mode));
	assert_true(readlink(data, link1, sizeof(link1) - 1) > 0);
	/* the same again: nothing is touched */
	assert_int_equal(files_write(dir, &f, -1, &err), 0);
	assert_true(readlink(data, link2, sizeof(link2) - 1) > 0);
	assert_string_equal(link1, link2);
	/* a new set replaces the old as one, and what is gone is gone */
	struct volume_files g = { 0 };
	volume_files_add(a, &g, STR("a"), STR("new"), 0644);
	assert_int_equal(files_write(dir, &g, -1, &err), 0);
	CLEAN_FREE char *t2 = read_all(pa), *t3 = read_all(pb),
			*old = xasprintf("%s/%s", dir, link1);
	assert_string_equal(t2, "new");
	assert_string_equal(t3, "(gone)");
	assert_int_not_equal(access(old, F_OK), 0);
	/* paths that lead out */
	static const char *const bad[] = { "../x", "/x", "a/../../x", "..x", "" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct volume_files h = { 0 };
		volume_files_add(a, &h, str_of(bad[i]), STR("x"), 0644);
		assert_int_equal(files_write(dir, &h, -1, &err), -EINVAL);
	}
	dir_remove_tree(dir, &err);
}

/* A container that could write to such a volume must not lead the kubelet out of it. */
static void test_files_of_others(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	char top[] = "/tmp/skiff-files-XXXXXX";
	struct volume_files f = { 0 };
	struct err err = { "" };

	assert_non_null(mkdtemp(top));
	CLEAN_FREE char *dir = xasprintf("%s/volume", top), *data = xasprintf("%s/..data", dir),
			*victim = xasprintf("%s/victim", top), *kept = xasprintf("%s/keep", victim),
			*pipe = xasprintf("%s/..data/k", dir), *k = xasprintf("%s/k", dir);
	assert_int_equal(dir_make(victim, 0755, &err), 0);
	assert_int_equal(file_write_atomic(kept, STR("k"), 0644, false, &err), 0);
	volume_files_add(a, &f, STR("k"), STR("1"), 0644);
	assert_int_equal(files_write(dir, &f, -1, &err), 0);
	/* ..data leads out: what it names is not taken for an old set of ours, to be removed */
	assert_int_equal(unlink(data), 0);
	assert_int_equal(symlink("../victim", data), 0);
	assert_int_equal(files_write(dir, &f, -1, &err), 0);
	assert_int_equal(access(kept, F_OK), 0);
	CLEAN_FREE char *now = read_all(k);
	assert_string_equal(now, "1");
	/* a pipe in place of a file: nobody waits for its other end */
	assert_int_equal(unlink(pipe), 0);
	assert_int_equal(mkfifo(pipe, 0644), 0);
	assert_int_equal(files_write(dir, &f, -1, &err), 0);
	CLEAN_FREE char *again = read_all(k);
	assert_string_equal(again, "1");
	dir_remove_tree(top, &err);
}

static void test_subpath(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	char dir[] = "/tmp/skiff-sub-XXXXXX";
	struct err err = { "" };
	struct stat st, again;
	int fd;

	assert_non_null(mkdtemp(dir));
	CLEAN_FREE char *want = xasprintf("%s/x/y", dir), *link = xasprintf("%s/out", dir),
			*inside = xasprintf("%s/in", dir);
	/* what is made is as open as the volume */
	assert_int_equal(chmod(dir, 02777), 0);
	assert_int_equal(subpath_open(dir, STR("x/y"), a, &fd, &err), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 02777);
	close(fd);
	assert_int_equal(stat(want, &again), 0);
	assert_int_equal(st.st_ino, again.st_ino);
	assert_int_equal(symlink("/etc", link), 0);
	static const char *const bad[] = { "out", "out/passwd", "../x", "/etc", "x/../../etc" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_true(subpath_open(dir, str_of(bad[i]), a, &fd, &err) < 0);
	assert_int_equal(symlink("x", inside), 0);
	assert_int_equal(subpath_open(dir, STR("in/y"), a, &fd, &err), 0);
	assert_int_equal(fstat(fd, &again), 0);
	close(fd);
	assert_int_equal(st.st_ino, again.st_ino);
	dir_remove_tree(dir, &err);
}

static void test_grace(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	static const struct {
		const char *spec, *mark;
		int64_t want;
	} rows[] = {
		{ "", "", 30 },
		{ "\"terminationGracePeriodSeconds\":0", "", 1 },
		{ "\"terminationGracePeriodSeconds\":9223372036854775807", "", GRACE_MAX_S },
		{ "", "\"deletionGracePeriodSeconds\":9223372036854775807", GRACE_MAX_S },
		{ "\"terminationGracePeriodSeconds\":9223372036854775807",
			"\"deletionGracePeriodSeconds\":5", 5 },
	};
	struct pod_worker w = { .evict_grace_s = -1 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct sync s = { .w = &w,
			.pod = pod_of(a,
				arena_fmt(a, "{\"metadata\":{%s},\"spec\":{%s}}", rows[i].mark,
					rows[i].spec)
					.p) };
		assert_int_equal(pod_grace_s(&s), rows[i].want);
	}
}

static void test_resolv(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct kubelet k = { .c = { .cluster_dns = "10.43.0.10",
				     .cluster_domain = "cluster.local" } };
	struct str host = STR("nameserver 192.0.2.53\nsearch example.org\noptions timeout:2\n");
	static const struct {
		const char *spec, *want;
	} rows[] = {
		{ "", "search ns.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.43.0.10\noptions ndots:5\n" },
		{ "\"dnsPolicy\":\"Default\"",
			"search example.org\nnameserver 192.0.2.53\noptions timeout:2\n" },
		{ "\"hostNetwork\":true,\"dnsPolicy\":\"ClusterFirst\"",
			"search example.org\nnameserver 192.0.2.53\noptions timeout:2\n" },
		{ "\"hostNetwork\":true,\"dnsPolicy\":\"ClusterFirstWithHostNet\"",
			"search ns.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.43.0.10\noptions ndots:5\n" },
		{ "\"dnsPolicy\":\"None\",\"dnsConfig\":{\"nameservers\":[\"1.1.1.1\"],\"searches\":[\"a.b\"],"
		  "\"options\":[{\"name\":\"ndots\",\"value\":\"2\"},{\"name\":\"edns0\"}]}",
			"search a.b\nnameserver 1.1.1.1\noptions edns0 ndots:2\n" },
		{ "\"dnsConfig\":{\"options\":[{\"name\":\"ndots\",\"value\":\"1\"}]}",
			"search ns.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.43.0.10\noptions ndots:1\n" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct core_v1_pod *p = pod_of(a,
			arena_fmt(a,
				"{\"metadata\":{\"namespace\":\"ns\",\"name\":\"p\"},\"spec\":{%s}}",
				rows[i].spec)
				.p);
		assert_string_equal(pod_resolv_text(p, &k, host, a).p, rows[i].want);
	}
}

static void test_qos(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_resources r;
	struct kubelet k = { .memory_bytes = 1000ull << 20 };
#define RES(x) \
	"{\"metadata\":{\"uid\":\"u\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"resources\":" x \
	"}]}}"
	struct core_v1_pod *best = pod_of(a, RES("{}")),
			   *burst = pod_of(a,
				   RES("{\"requests\":{\"cpu\":\"250m\",\"memory\":\"100Mi\"}}")),
			   *full = pod_of(
				   a, RES("{\"limits\":{\"cpu\":\"500m\",\"memory\":\"64Mi\"}}"));

	assert_int_equal(kubelet_pod_qos(best), QOS_BEST_EFFORT);
	assert_int_equal(kubelet_pod_qos(burst), QOS_BURSTABLE);
	assert_int_equal(kubelet_pod_qos(full), QOS_GUARANTEED);
	assert_string_equal(pod_cgroup(best, a).p, "kubepods/besteffort/podu");
	assert_string_equal(pod_cgroup(burst, a).p, "kubepods/burstable/podu");
	assert_string_equal(pod_cgroup(full, a).p, "kubepods/podu");
	container_resources(&k, best, best->spec.containers.items, &r);
	assert_int_equal(r.cpu_shares, 2);
	assert_int_equal(r.oom_score_adj, 1000);
	container_resources(&k, burst, burst->spec.containers.items, &r);
	assert_int_equal(r.cpu_shares, 256);
	assert_int_equal(r.oom_score_adj, 900);
	container_resources(&k, full, full->spec.containers.items, &r);
	assert_int_equal(r.cpu_quota_us, 50000);
	assert_int_equal(r.memory_limit, 64 << 20);
	assert_int_equal(r.oom_score_adj, -997);
}

static void test_static_parse(void **state)
{
	struct kubelet k = { .c = { .node_name = "n1", .clock = &clock_real } };
	struct pod_object *o, *again;
	struct err err;
	static const char *const bad[] = {
		"kind: Service\nmetadata: {name: x}\n",
		"kind: Pod\nmetadata: {name: x}\n",
		"kind: Pod\nspec: {containers: [{name: c, image: i}]}\n",
		"kind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: i}], volumes: [{name: v, secret: {secretName: s}}]}\n",
		"][",
		"kind: Pod\nmetadata: {name: X_}\nspec: {containers: [{name: c, image: i}]}\n",
		"kind: Pod\nmetadata: {name: x}\nspec: {containerss: [], containers: [{name: c, image: i}]}\n",
	};
	struct str good = STR(
		"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c, image: i}]}\n");

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		err.text[0] = 0;
		assert_true(static_pod_parse(&k, "f.yaml", str_of(bad[i]), &o, &err) < 0);
		assert_non_null(strstr(err.text, "f.yaml"));
	}
	assert_int_equal(static_pod_parse(&k, "f.yaml", good, &o, &err), 0);
	assert_int_equal(static_pod_parse(&k, "f.yaml", good, &again, &err), 0);
	assert_true(str_eqz(o->pod->metadata.name, "x-n1"));
	assert_true(str_eqz(o->pod->metadata.namespace, "default"));
	assert_true(str_eq(o->pod->metadata.uid, again->pod->metadata.uid));
	assert_true(
		str_eq(str_map_get(&o->pod->metadata.annotations, STR("kubernetes.io/config.hash")),
			o->pod->metadata.uid));
	assert_true(str_eqz(o->pod->spec.restart_policy, "Always"));
	pod_object_unref(o);
	pod_object_unref(again);
}

/* ---- probes over the wire ---- */

struct web {
	int hosts, agents;
	char host[64], agent[64];
};

static void on_probe(void *arg, struct http_stream *s)
{
	struct web *w = arg;
	const struct http_request *q = http_stream_request(s);

	w->hosts = w->agents = 0;
	for (size_t i = 0; i < q->n_headers; i++) {
		if (str_eqz(q->headers[i].name, "host") && ++w->hosts)
			snprintf(w->host, sizeof(w->host), STR_FMT, STR_ARG(q->headers[i].value));
		if (str_eqz(q->headers[i].name, "user-agent") && ++w->agents)
			snprintf(w->agent, sizeof(w->agent), STR_FMT, STR_ARG(q->headers[i].value));
	}
	struct str to = str_from(q->path, 4); /* /to/WHERE */
	struct http_header location = { STR("location"), to };
	if (str_has_prefix(q->path, STR("/to/")))
		http_respond(s, 302, &location, 1, STR("moved"), NULL, NULL);
	else
		http_respond(
			s, str_eqz(q->path, "/bad") ? 500 : 200, NULL, 0, STR("x"), NULL, NULL);
}

static enum probe_result ask(struct arena *a, const char *probe, const char *ip, struct buf *out)
{
	struct core_v1_pod *p = pod_of(a,
		arena_fmt(a, "{\"spec\":{\"containers\":[{\"name\":\"c\",\"readinessProbe\":%s}]}}",
			probe)
			.p);
	struct kubelet k = { 0 };

	buf_clear(out);
	return probe_ask(&k, p->spec.containers.items[0].readiness_probe,
		&p->spec.containers.items[0], "", ip, out);
}

static void test_http_probe(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf out = { 0 };
	struct web w = { 0 };
	struct loop *loop;
	struct http_server *server;
	struct err err;

	assert_int_equal(loop_new("web", &loop, &err), 0);
	assert_int_equal(loop_start(loop, &err), 0);
	struct http_server_config c = { .loops = &loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.handler = { .on_request = on_probe, .arg = &w } };
	assert_int_equal(http_server_start(&c, &server, &err), 0);
	int port = http_server_port(server);
	assert_int_equal(
		ask(a, arena_fmt(a, "{\"httpGet\":{\"path\":\"/ok\",\"port\":%d}}", port).p,
			"127.0.0.1", &out),
		PROBE_SUCCESS);
	assert_int_equal(w.hosts, 1);
	assert_int_equal(w.agents, 1);
	assert_string_equal(w.agent, "kube-probe/1.36");
	assert_int_equal(
		ask(a,
			arena_fmt(a,
				"{\"httpGet\":{\"port\":%d,\"httpHeaders\":[{\"name\":\"Host\",\"value\":\"named\"}]}}",
				port)
				.p,
			"127.0.0.1", &out),
		PROBE_SUCCESS);
	assert_int_equal(w.hosts, 1);
	assert_string_equal(w.host, "named");
	assert_int_equal(
		ask(a, arena_fmt(a, "{\"httpGet\":{\"path\":\"/bad\",\"port\":%d}}", port).p,
			"127.0.0.1", &out),
		PROBE_FAILURE);
	assert_string_equal(out.p, "HTTP probe failed with statuscode: 500");
	static const struct {
		const char *path;
		enum probe_result result;
	} rows[] = {
		/* it goes on to where it is sent, but to no other host */
		{ "/to//ok", PROBE_SUCCESS },
		{ "/to//bad", PROBE_FAILURE },
		{ "/to//to//bad", PROBE_FAILURE },
		{ "/to/there", PROBE_FAILURE }, /* in circles */
		{ "/to/http://127.0.0.1:1/", PROBE_FAILURE },
		{ "/to/http://elsewhere.test/bad", PROBE_WARNING },
		{ "/to///elsewhere.test/bad", PROBE_WARNING },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum probe_result got = ask(a,
			arena_fmt(a, "{\"httpGet\":{\"path\":\"%s\",\"port\":%d}}", rows[i].path,
				port)
				.p,
			"127.0.0.1", &out);
		if (got != rows[i].result)
			fail_msg("%s: %d, " STR_FMT, rows[i].path, got, STR_ARG(buf_str(&out)));
	}
	assert_string_equal(out.p, "Probe terminated redirects, Response body: moved");
	assert_int_equal(
		ask(a, "{\"httpGet\":{\"port\":\"nope\"}}", "127.0.0.1", &out), PROBE_UNKNOWN);
	assert_string_equal(out.p, "strconv.Atoi: parsing \"nope\": invalid syntax");
	assert_int_equal(
		ask(a, arena_fmt(a, "{\"tcpSocket\":{\"port\":%d}}", port).p, "127.0.0.1", &out),
		PROBE_SUCCESS);
	http_server_stop(server);
	assert_int_equal(
		ask(a, arena_fmt(a, "{\"tcpSocket\":{\"port\":%d}}", port).p, "127.0.0.1", &out),
		PROBE_FAILURE);
	assert_string_equal(
		out.p, arena_fmt(a, "dial tcp 127.0.0.1:%d: connect: connection refused", port).p);
	assert_int_equal(
		ask(a, arena_fmt(a, "{\"httpGet\":{\"port\":%d}}", port).p, "127.0.0.1", &out),
		PROBE_FAILURE);
	assert_string_equal(out.p,
		arena_fmt(a,
			"Get \"http://127.0.0.1:%d/\": dial tcp 127.0.0.1:%d: connect: connection refused",
			port, port)
			.p);
	loop_stop(loop);
	loop_join(loop);
	loop_free(loop);
}

/* Answers one connection with a head, and then with bytes for as long as somebody takes them: a block at once, or one each 100 ms. */
struct talker {
	int listener, port;
	bool slow;
	char got[512];
	pthread_t thread;
};

static void *talk(void *arg)
{
	struct talker *t = arg;
	static const char head[] = "HTTP/1.1 200 OK\r\n", block[1 << 16] = "x: y\r\n";
	CLEAN_FD int fd = accept4(t->listener, NULL, NULL, SOCK_CLOEXEC);
	const char *p = t->slow ? "x" : block;
	size_t n = t->slow ? 1 : sizeof(block);

	if (read(fd, t->got, sizeof(t->got) - 1) <= 0 || write(fd, head, sizeof(head) - 1) < 0 ||
		(!t->slow && write(fd, "\r\n", 2) < 0))
		return NULL;
	while (send(fd, p, n, MSG_NOSIGNAL) > 0)
		if (t->slow)
			usleep(100000);
	return NULL;
}

static enum probe_result ask_talker(
	struct arena *a, struct talker *t, const char *path, struct buf *out)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);

	t->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(t->listener, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(t->listener, 1), 0);
	assert_int_equal(getsockname(t->listener, (struct sockaddr *)&at, &len), 0);
	assert_int_equal(pthread_create(&t->thread, NULL, talk, t), 0);
	enum probe_result r = ask(a,
		arena_fmt(a, "{\"httpGet\":{\"path\":\"%s\",\"port\":%d},\"timeoutSeconds\":1}",
			path, ntohs(at.sin_port))
			.p,
		"127.0.0.1", out);
	pthread_join(t->thread, NULL);
	close(t->listener);
	return r;
}

/* A server that is probed and means no good. */
static void test_http_probe_of_others(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf out = { 0 };
	struct talker endless = { 0 }, drip = { .slow = true };

	/* no more of a body without end is taken than is of use */
	assert_int_equal(ask_talker(a, &endless, "/a b\\r\\nx: y#z", &out), PROBE_SUCCESS);
	assert_non_null(strstr(endless.got, "GET /a%20b%0D%0Ax:%20y%23z HTTP/1.1\r\n"));
	/* a byte now and then is no answer in time */
	uint64_t begin = mono_now_ns();
	assert_int_equal(ask_talker(a, &drip, "/", &out), PROBE_FAILURE);
	assert_true(mono_now_ns() - begin < 3 * NS_PER_S);
	assert_non_null(strstr(out.p, "context deadline exceeded"));
}

struct grpc {
	int listener;
	const uint8_t *answer;
	size_t len;
	char got[256];
};

/* One connection: reads the first bytes, says what it was told to. */
static void *serve_grpc(void *arg)
{
	struct grpc *g = arg;
	CLEAN_FD int fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC);

	ssize_t n = read(fd, g->got, sizeof(g->got) - 1);
	if (n > 0 && write(fd, g->answer, g->len) < 0)
		return NULL;
	shutdown(fd, SHUT_WR);
	char drop;
	while (read(fd, &drop, 1) > 0) /* until the other side has what it needs */
		;
	return NULL;
}

static enum probe_result ask_grpc(
	struct arena *a, const uint8_t *answer, size_t len, struct buf *out)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(at);
	struct grpc g = { .listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
		.answer = answer,
		.len = len };
	pthread_t thread;

	assert_int_equal(bind(g.listener, (struct sockaddr *)&at, size), 0);
	assert_int_equal(listen(g.listener, 1), 0);
	getsockname(g.listener, (struct sockaddr *)&at, &size);
	assert_int_equal(thread_start(&thread, "grpc", serve_grpc, &g), 0);
	enum probe_result r = ask(a,
		arena_fmt(a, "{\"grpc\":{\"port\":%d,\"service\":\"svc\"}}", ntohs(at.sin_port)).p,
		"127.0.0.1", out);
	pthread_join(thread, NULL);
	close(g.listener);
	assert_int_equal(memcmp(g.got, "PRI * HTTP/2.0", 10), 0);
	return r;
}

static void test_grpc_probe(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf out = { 0 };
#define SETTINGS 0, 0, 0, 4, 0, 0, 0, 0, 0
#define HEADERS 0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88
	static const uint8_t serving[] = { SETTINGS, HEADERS, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
		2, 8, 1 },
			     not_serving[] = { SETTINGS, HEADERS, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0,
				     0, 0, 2, 8, 2 },
			     unknown[] = { SETTINGS, 0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88 },
			     cut[] = { SETTINGS, 0xff, 0xff, 0xff, 0, 0 };

	assert_int_equal(ask_grpc(a, serving, sizeof(serving), &out), PROBE_SUCCESS);
	assert_int_equal(ask_grpc(a, not_serving, sizeof(not_serving), &out), PROBE_FAILURE);
	assert_string_equal(out.p, "service unhealthy (responded with \"NOT_SERVING\")");
	assert_int_equal(ask_grpc(a, unknown, sizeof(unknown), &out), PROBE_FAILURE);
	assert_int_equal(ask_grpc(a, cut, sizeof(cut), &out), PROBE_FAILURE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_expand),
		cmocka_unit_test(test_phase),
		cmocka_unit_test(test_log_lines),
		cmocka_unit_test(test_log_open),
		cmocka_unit_test(test_log_tail),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_files_of_others),
		cmocka_unit_test(test_subpath),
		cmocka_unit_test(test_grace),
		cmocka_unit_test(test_resolv),
		cmocka_unit_test(test_qos),
		cmocka_unit_test(test_static_parse),
		cmocka_unit_test(test_http_probe),
		cmocka_unit_test(test_http_probe_of_others),
		cmocka_unit_test(test_grpc_probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
