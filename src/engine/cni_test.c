/* The chain of CNI plugins, with plugins that are shell scripts: order, what each is told, what a failure or a sudden end leaves. */
#include "engine/local_testing.h"

#define CNI ROOT "/cni"
#define CONF CNI "/net.d"

/* Each call writes a line to the log and its configuration to NAME.COMMAND. A file NAME.COMMAND.fails is what it says before it fails; NAME.hangs is a pipe
 * that it tells that it began, and then does not end. */
static const char script[] =
	"#!/bin/sh\n"
	"me=$(basename $0)\n"
	"cd " CNI "\n"
	"cat > $me.$CNI_COMMAND\n"
	"echo \"$CNI_COMMAND $me $CNI_CONTAINERID $CNI_IFNAME netns=$CNI_NETNS $CNI_ARGS path=$CNI_PATH\" >> log\n"
	"[ ! -e $me.$CNI_COMMAND.fails ] || { cat $me.$CNI_COMMAND.fails; exit 1; }\n"
	"[ ! -e $me.hangs ] || { echo begun > $me.hangs; sleep 1000; }\n"
	"[ $CNI_COMMAND = ADD ] && cat $me.result || true\n";

static const char list[] = "{\"cniVersion\": \"1.0.0\", \"name\": \"net\", \"plugins\": ["
			   "{\"type\": \"first\", \"ipam\": {\"type\": \"second\"}, \"x\": 1},"
			   "{\"type\": \"second\", \"capabilities\": {\"portMappings\": true}},"
			   "{\"type\": \"third\"}]}";

static void put(const char *name, const char *text)
{
	char path[PATH_MAX];

	path_fmt(path, CNI "/%s", name);
	must(file_write_atomic(path, str_of(text), 0755, false, &err));
}

static struct str get(const char *name)
{
	CLEAN_BUF struct buf b = { 0 };
	char path[PATH_MAX];

	path_fmt(path, CNI "/%s", name);
	if (file_read(path, 1 << 20, &b, NULL) < 0)
		return STR("");
	return arena_str(arena, buf_str(&b));
}

/* The log's commands and plugins alone: "ADD first, ADD second". */
static struct str calls(void)
{
	struct str rest = get("log"), line, command, name;
	CLEAN_BUF struct buf b = { 0 };

	while (rest.len) {
		str_cut(rest, '\n', &line, &rest);
		str_cut(line, ' ', &command, &line);
		str_cut(line, ' ', &name, &line);
		buf_addf(&b, "%s" STR_FMT " " STR_FMT, b.len ? ", " : "", STR_ARG(command),
			STR_ARG(name));
	}
	return arena_str(arena, buf_str(&b));
}

static void fresh(void)
{
	static const char *const plugins[] = { "first", "second", "third" };
	char name[64];

	if (engine)
		close_engine();
	sh("rm -rf " CNI "; mkdir -p " CONF " " CNI "/bin");
	for (size_t i = 0; i < ARRAY_LEN(plugins); i++) {
		snprintf(name, sizeof(name), "bin/%s", plugins[i]);
		put(name, script);
		snprintf(name, sizeof(name), "%s.result", plugins[i]);
		put(name,
			"{\"cniVersion\": \"1.0.0\", \"interfaces\": [{\"name\": \"br\"}, {\"name\": \"eth0\", \"sandbox\": \"/x\"}],"
			"\"ips\": [{\"address\": \"192.0.2.1/24\", \"interface\": 0}, {\"address\": \"fd00::7/64\", \"interface\": 1},"
			"{\"address\": \"10.1.2.3/24\", \"interface\": 1}]}");
	}
	put("third.result",
		"{\"cniVersion\": \"1.0.0\", \"last\": true, \"ips\": [{\"address\": \"fd00::7/64\"}, {\"address\": \"10.1.2.3/24\"}]}");
	put("net.d/10-net.conflist", list);
	engine_config.cni_conf_dir = CONF;
	engine_config.cni_bin_dirs = "/nowhere, " CNI "/bin";
	engine_config.cni_timeout_ms = 300;
	open_engine();
}

static void test_chain(void **state)
{
	fresh();
	struct engine_sandbox_config c = sandbox_config("chain");
	typeof(*c.port_mappings) ports[] = { { 8080, 80, IPPROTO_TCP, "" },
		{ 53, 5353, IPPROTO_UDP, "192.0.2.7" } };
	struct engine_sandbox s;

	c.port_mappings = ports;
	c.n_port_mappings = 2;
	must(engine->v->network_status(engine, &err));
	must(engine->v->sandbox_run(engine, &c, arena, &s, &err));
	/* The bridge's own address, and the order of families, do not matter. */
	assert_string_equal(s.ip.p, "10.1.2.3");
	assert_string_equal(s.second_ip.p, "fd00::7");
	assert_false(s.bypasses_host);
	assert_string_equal(calls().p, "ADD first, ADD second, ADD third");
	assert_has(get("log"),
		arena_fmt(arena,
			"ADD first %s eth0 netns=%s IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=chain;"
			"K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s path=/nowhere:" CNI "/bin\n",
			s.id, s.netns_path.p, s.id, c.uid)
			.p);
	assert_string_equal(get("first.ADD").p,
		"{\"type\":\"first\",\"ipam\":{\"type\":\"second\"},\"x\":1,\"cniVersion\":\"1.0.0\",\"name\":\"net\"}");
	assert_has(get("second.ADD"),
		"\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":8080,\"containerPort\":80,\"protocol\":\"tcp\"},"
		"{\"hostPort\":53,\"containerPort\":5353,\"protocol\":\"udp\",\"hostIP\":\"192.0.2.7\"}]}");
	assert_has(get("second.ADD"), "\"prevResult\":{\"cniVersion\":\"1.0.0\",\"interfaces\":");
	assert_lacks(get("third.ADD"), "runtimeConfig");
	sh(arena_fmt(arena, "nsenter --net=%s ip link show lo | grep -q ,UP", s.netns_path.p).p);

	/* A configuration that changes changes nothing for who is there, nor does another life of the engine. */
	put("net.d/10-net.conflist", "{\"name\": \"net\", \"type\": \"third\"}");
	close_engine();
	open_engine();
	put("log", "");
	remove_sandbox(&s);
	assert_string_equal(calls().p, "DEL third, DEL second, DEL first");
	assert_has(get("first.DEL"), "\"prevResult\":{\"cniVersion\":\"1.0.0\",\"last\":true");
	assert_has(get("second.DEL"), "\"hostPort\":8080");
	assert_has(get("log"), arena_fmt(arena, "netns=%s IgnoreUnknown", s.netns_path.p).p);
}

static void test_failure_is_undone(void **state)
{
	struct engine_sandbox_config c = sandbox_config("fails");
	struct engine_sandbox s, *all;
	size_t n;

	fresh();
	put("second.ADD.fails",
		"{\"cniVersion\": \"1.0.0\", \"code\": 11, \"msg\": \"no address left\", \"details\": \"of 10.1.2.0/24\"}");
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -EIO);
	assert_has(str_of(err.text), "pod default/fails");
	assert_has(str_of(err.text),
		"CNI plugin " CNI "/bin/second (ADD): no address left; of 10.1.2.0/24");
	assert_string_equal(calls().p, "ADD first, ADD second, DEL third, DEL second, DEL first");
	assert_lacks(get("third.DEL"), "prevResult");
	must(engine->v->sandbox_list(engine, arena, &all, &n, &err));
	assert_int_equal(n, 0);

	put("second.ADD.fails", "this is no JSON");
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -EIO);
	assert_has(str_of(err.text), "ended with 1 and said: nothing");
	sh("rm " CNI "/second.ADD.fails; echo '{}' > " CNI "/third.result");
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -EADDRNOTAVAIL);
	assert_has(str_of(err.text), "gave the pod no address");
	put("third.result", "no JSON");
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -EBADMSG);
	assert_has(str_of(err.text), "the answer of CNI plugin " CNI "/bin/third (ADD)");
}

/* What cannot be undone now is not forgotten. */
static void test_failing_delete(void **state)
{
	struct engine_sandbox_config c = sandbox_config("stays");
	struct engine_sandbox s, *all;
	size_t n;

	fresh();
	put("first.DEL.fails", "{\"msg\": \"busy\"}");
	put("third.ADD.fails", "{\"msg\": \"no\"}");
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -EIO);
	assert_has(str_of(err.text), "third (ADD): no");
	must(engine->v->sandbox_list(engine, arena, &all, &n, &err));
	assert_int_equal(n, 1);
	assert_int_equal(all[0].state, SANDBOX_NOT_READY);
	assert_int_equal(engine->v->sandbox_remove(engine, all[0].id, &err), -EIO);
	assert_has(str_of(err.text), "first (DEL): busy");
	sh("rm " CNI "/*.fails");
	put("log", "");
	must(engine->v->sandbox_remove(engine, all[0].id, &err));
	assert_string_equal(calls().p, "DEL third, DEL second, DEL first");
	/* Its namespace went the first time. */
	assert_has(get("log"), "eth0 netns= IgnoreUnknown");
}

static void test_timeout(void **state)
{
	struct engine_sandbox_config c = sandbox_config("slow");
	struct engine_sandbox s;

	fresh();
	sh("mkfifo " CNI "/second.hangs");
	CLEAN_FD int begun = open(CNI "/second.hangs", O_RDWR | O_CLOEXEC);
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -ETIMEDOUT);
	assert_has(
		str_of(err.text), "CNI plugin (ADD): " CNI "/bin/second did not end within 300 ms");
	sh("! pgrep -f '[s]leep 1000'");
	/* DEL hangs too, so that it is still there. */
	struct engine_sandbox *all;
	size_t n;
	must(engine->v->sandbox_list(engine, arena, &all, &n, &err));
	assert_int_equal(n, 1);
	sh("rm " CNI "/second.hangs");
	must(engine->v->sandbox_remove(engine, all[0].id, &err));
}

/* An agent that is killed while a plugin runs: the next one ends the plugin and undoes what was done. */
static void test_killed_halfway(void **state)
{
	char text[16];
	int status;

	fresh();
	close_engine();
	engine_config.cni_timeout_ms = 60000;
	sh("mkfifo " CNI "/second.hangs");
	CLEAN_FD int begun = open(CNI "/second.hangs", O_RDWR | O_CLOEXEC);
	pid_t agent = fork();
	if (agent == 0) {
		open_engine();
		run_sandbox("half");
		_exit(1);
	}
	assert_true(read(begun, text, sizeof(text)) > 0);
	kill(agent, SIGKILL);
	waitpid(agent, &status, 0);
	sh("pgrep -f '[s]leep 1000'; rm " CNI "/second.hangs; > " CNI "/log");
	open_engine();
	sh("! pgrep -f '[s]leep 1000'");
	assert_string_equal(calls().p, "DEL third, DEL second, DEL first");
	sh("! ls " ROOT "/root/sandboxes | grep .");
}

/* Attached one way, detached the same way, whatever the engine does by now. */
static void test_other_mode(void **state)
{
	fresh();
	struct engine_sandbox plugins = run_sandbox("plugins");

	close_engine();
	engine_config.cni_conf_dir = NULL;
	open_engine();
	struct engine_sandbox own = run_sandbox("own");
	assert_true(str_has_prefix(own.ip, STR("10.199.7.")));
	put("log", "");
	remove_sandbox(&plugins);
	assert_string_equal(calls().p, "DEL third, DEL second, DEL first");
	put("log", "");
	fresh();
	remove_sandbox(&own);
	assert_string_equal(calls().p, "");
}

static void wait_news(size_t more_than)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&event_lock);
	while (n_events <= more_than)
		if (pthread_cond_timedwait(&event_cond, &event_lock, &until))
			fail_msg("no word of the new configuration");
	pthread_mutex_unlock(&event_lock);
}

static void test_status(void **state)
{
	static const struct {
		const char *text, *what;
	} bad[] = {
		{ "{", "CNI configuration " CONF "/05-x.conflist" },
		{ "{\"name\": \"n\"}", "needs a \"name\" and a list of \"plugins\"" },
		{ "{\"name\": \"n\", \"plugins\": [{\"type\": \"first\"}, {}]}",
			"plugins[1] has no \"type\"" },
		{ "{\"name\": \"n\", \"plugins\": [{\"type\": \"../first\"}]}",
			"is not the name of a CNI plugin" },
		{ "{\"name\": \"n\", \"plugins\": [{\"type\": \"fourth\"}]}",
			"no CNI plugin \"fourth\" in /nowhere or " CNI "/bin: install it" },
		{ "{\"name\": \"n\", \"plugins\": [{\"type\": \"first\", \"ipam\": {\"type\": \"fifth\"}}]}",
			"no CNI plugin \"fifth\"" },
	};
	struct engine_sandbox_config c = sandbox_config("none");
	struct engine_sandbox s;

	fresh();
	must(engine->v->network_status(engine, &err));
	/* The first by name counts, also when it is of no use. */
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		put("net.d/05-x.conflist", bad[i].text);
		assert_true(engine->v->network_status(engine, &err) < 0);
		if (str_find_str(str_of(err.text), str_of(bad[i].what)) < 0)
			fail_msg("\"%s\" is not in \"%s\"", bad[i].what, err.text);
	}
	size_t before = n_events;
	sh("rm " CONF "/*");
	wait_news(before);
	assert_int_equal(engine->v->network_status(engine, &err), -ENOENT);
	assert_has(str_of(err.text), "there is no network configuration in " CONF);
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -ENOENT);
	/* A single plugin, of the time before lists and versions. */
	before = n_events;
	put("first.result", "{\"ip4\": {\"ip\": \"10.1.2.9/24\"}}");
	put("net.d/99-single.conf", "{\"name\": \"n\", \"type\": \"first\"}");
	put("net.d/.01-hidden.conflist", "{");
	put("net.d/01-readme.txt", "{");
	wait_news(before);
	must(engine->v->network_status(engine, &err));
	s = run_sandbox("single");
	assert_false(s.bypasses_host);
	remove_sandbox(&s);
	put("first.result",
		"{\"interfaces\": [{\"name\": \"eth0\", \"sandbox\": \"/x\"}], \"ip4\": {\"ip\": \"10.1.2.9/24\"}}");
	s = run_sandbox("past the host");
	assert_true(s.bypasses_host);
	assert_string_equal(s.ip.p, "10.1.2.9");
	assert_string_equal(s.second_ip.p, "");
	put("log", "");
	remove_sandbox(&s);
	assert_string_equal(calls().p, "DEL first");
	assert_lacks(get("first.DEL"), "prevResult");
	/* Host ports that nobody would open are refused. */
	typeof(*c.port_mappings) port = { 8080, 80, IPPROTO_TCP, "" };
	c.port_mappings = &port;
	c.n_port_mappings = 1;
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &s, &err), -EOPNOTSUPP);
	assert_has(str_of(err.text), "has the capability portMappings");
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_chain),
	cmocka_unit_test(test_failure_is_undone),
	cmocka_unit_test(test_failing_delete),
	cmocka_unit_test(test_timeout),
	cmocka_unit_test(test_killed_halfway),
	cmocka_unit_test(test_other_mode),
	cmocka_unit_test(test_status),
	cmocka_unit_test(test_nothing_is_left),
};

RUN(tests)
