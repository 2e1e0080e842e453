/* The local engine on real containers. Root only; in process, mount and network namespaces of its own, so nothing that fails here stays on the machine,
 * and the group's end checks that nothing stays inside either: mounts, cgroups, links, tables, processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine/internal.h"

#define ROOT "/tmp/skiff-engine-test"

static char cgroup_name[64]; /* after the process: cgroups know no namespace */

static struct engine *engine;
static struct arena *arena;
static char image_id[80];
static struct err err;

static pthread_mutex_t event_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t event_cond = PTHREAD_COND_INITIALIZER;
static char last_events[64][ENGINE_ID];
static size_t n_events;

#define must(call) do { int r_ = (call); if (r_ != 0) fail_msg("%s: %d: %s", #call, r_, err.text); } while (0)

static void on_event(void *arg, const char *sandbox, const char *container)
{
	pthread_mutex_lock(&event_lock);
	memcpy(last_events[n_events++ % ARRAY_LEN(last_events)], container, ENGINE_ID);
	pthread_cond_broadcast(&event_cond);
	pthread_mutex_unlock(&event_lock);
}

static void open_engine(void)
{
	struct engine_local_config c = { .root = ROOT "/root", .run = ROOT "/run", .pod_cidr = "10.199.7.0/24", .bridge = "skifft0",
		.cluster_cidr = "10.199.0.0/16" };

	must(engine_local_new(&c, &engine, &err));
	engine->v->set_event_handler(engine, on_event, NULL);
}

static void close_engine(void)
{
	engine->v->free(engine);
	engine = NULL;
}

static void sh(const char *command)
{
	const char *argv[] = { "sh", "-ec", command, NULL };
	struct process_result r = { 0 };

	must(process_run(argv, STR_NONE, 0, &r, &err));
	if (r.status)
		fail_msg("%s: status %d: " STR_FMT, command, r.status, STR_ARG(buf_str(&r.err)));
	process_result_deinit(&r);
}

static struct engine_sandbox run_sandbox(const char *name)
{
	static int counter;
	char uid[64], cgroup[192];
	snprintf(uid, sizeof(uid), "uid-%d", ++counter);
	snprintf(cgroup, sizeof(cgroup), "%s/pod%s", cgroup_name, uid);
	struct engine_sandbox_config c = { .name = name, .namespace_ = "default", .uid = uid, .hostname = name, .log_directory = ROOT "/logs",
		.cgroup_parent = cgroup, .resolv_conf = "nameserver 10.43.0.10\n" };
	struct engine_sandbox s;

	must(engine->v->sandbox_run(engine, &c, arena, &s, &err));
	return s;
}

static struct engine_container_config shell(const char *name, const char *script)
{
	static struct str args[8][3];
	static int next;
	struct str *a = args[next++ % 8];

	a[0] = STR("/bin/sh");
	a[1] = STR("-c");
	a[2] = str_of(script);
	return (struct engine_container_config){ .name = name, .image_id = image_id, .image = "test/busybox", .command = { a, 3 }, .run_as_user = -1,
		.run_as_group = -1, .log_path = arena_fmt(arena, "%s-%d.log", name, next).p };
}

static void start(const struct engine_sandbox *s, const struct engine_container_config *c, char id[ENGINE_ID])
{
	must(engine->v->container_create(engine, s->id, c, id, &err));
	must(engine->v->container_start(engine, id, &err));
}

/* Waits for the event of its end, never by looking again and again. */
static struct engine_container wait_exit(const char *id)
{
	struct engine_container c;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	pthread_mutex_lock(&event_lock);
	for (;;) {
		must(engine->v->container_status(engine, id, arena, &c, &err));
		if (c.state == CONTAINER_EXITED)
			break;
		if (pthread_cond_timedwait(&event_cond, &event_lock, &until))
			fail_msg("container %s did not end", c.name.p);
	}
	pthread_mutex_unlock(&event_lock);
	return c;
}

static struct str read_log(const struct engine_container *c)
{
	struct buf b = { 0 };

	must(file_read(c->log_path.p, 1 << 20, &b, &err));
	struct str s = arena_str(arena, buf_str(&b));
	buf_deinit(&b);
	return s;
}

static void remove_sandbox(const struct engine_sandbox *s)
{
	must(engine->v->sandbox_stop(engine, s->id, &err));
	must(engine->v->sandbox_remove(engine, s->id, &err));
}

static void test_exit_codes_and_logs(void **state)
{
	struct engine_sandbox s = run_sandbox("codes");
	struct engine_container_config c = shell("codes", "echo out; echo err >&2; printf partial; exit 7");
	char id[ENGINE_ID];

	uint64_t t0 = mono_now_ns();
	start(&s, &c, id);
	uint64_t t1 = mono_now_ns();
	struct engine_container k = wait_exit(id);
	print_message("create and start: %.1f ms, to its end noticed: %.1f ms\n", (double)(t1 - t0) / 1e6, (double)(mono_now_ns() - t1) / 1e6);
	assert_int_equal(k.exit_code, 7);
	assert_string_equal(k.reason.p, "Error");
	assert_true(k.started_at.sec > 0 && time_cmp(k.finished_at, k.created_at) > 0);
	struct str log = read_log(&k);
	print_message("%s", log.p);
	assert_true(str_find_str(log, STR(" stdout F out\n")) > 0);
	assert_true(str_find_str(log, STR(" stderr F err\n")) > 0);
	assert_true(str_find_str(log, STR(" stdout P partial\n")) > 0);
	remove_sandbox(&s);
}

static struct str run_to_end(const struct engine_sandbox *s, struct engine_container_config *c, int code)
{
	char id[ENGINE_ID];

	start(s, c, id);
	struct engine_container k = wait_exit(id);
	struct str log = read_log(&k);
	if (k.exit_code != code)
		fail_msg("%s ended with %d (%s): %s", k.name.p, k.exit_code, k.reason.p, log.p);
	return log;
}

#define assert_has(text, part) do { if (str_find_str(text, STR(part)) < 0) fail_msg("\"%s\" is not in:\n" STR_FMT, part, STR_ARG(text)); } while (0)
#define assert_lacks(text, part) do { if (str_find_str(text, STR(part)) >= 0) fail_msg("\"%s\" is in:\n" STR_FMT, part, STR_ARG(text)); } while (0)

static void test_surroundings(void **state)
{
	struct engine_sandbox s = run_sandbox("around");
	struct engine_container_config c = shell("around", "hostname; cat /etc/hostname /etc/resolv.conf; env; id; pwd; ip addr show eth0; ip route; ls -ld /; "
		"grep -c . /proc/self/mountinfo; grep CapEff /proc/self/status; mount | grep -E ' /(proc|dev/mqueue|sys/fs/cgroup/memory|sys/fs/cgroup) '; "
		"echo x > /proc/sys/kernel/hostname || echo ro-sysctl; cat /proc/kcore | wc -c; cat /proc/1/oom_score_adj");
	struct engine_env env[] = { { STR("A"), STR("b c\"d") }, { STR("PATH"), STR("/bin") } };

	c.env = env;
	c.n_env = 2;
	c.working_dir = "/made/for/it";
	c.resources.oom_score_adj = 123;
	struct str log = run_to_end(&s, &c, 0);
	assert_has(log, "F around\n");
	assert_has(log, "nameserver 10.43.0.10");
	assert_has(log, "F A=b c\"d\n");
	assert_has(log, "F PATH=/bin\n");
	assert_has(log, "F HOSTNAME=around\n");
	assert_has(log, "uid=0(root) gid=0(root)");
	assert_has(log, "F /made/for/it\n");
	assert_has(log, "CapEff:\t00000000a80425fb\n");
	assert_has(log, "ro-sysctl");
	assert_has(log, "F 123\n");
	assert_has(log, "default via 10.199.7.1 dev eth0");
	assert_true(str_find_str(log, s.ip) > 0);
	assert_has(log, "on /proc type proc");
	remove_sandbox(&s);
}

static void test_users(void **state)
{
	struct engine_sandbox s = run_sandbox("users");
	static const char *const drop[] = { "ALL", NULL }, *const add[] = { "NET_ADMIN", NULL };
	const int64_t more[] = { 77 };
	struct engine_container_config c = shell("named", "id; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status");

	c.run_as_username = "user";
	c.supplemental_groups = more;
	c.n_supplemental_groups = 1;
	c.no_new_privs = true;
	struct str log = run_to_end(&s, &c, 0);
	assert_has(log, "uid=1000(user) gid=1001(user) groups=77,1001(user),1005(extra)");
	assert_has(log, "CapEff:\t0000000000000000\n");
	assert_has(log, "NoNewPrivs:\t1\n");

	c = shell("numbered", "id; grep -E 'CapEff|CapBnd' /proc/self/status; touch /x || echo read-only");
	c.run_as_user = 0;
	c.run_as_group = 5;
	c.drop_capabilities = drop;
	c.add_capabilities = add;
	c.read_only_rootfs = true;
	log = run_to_end(&s, &c, 0);
	assert_has(log, "uid=0(root) gid=5");
	assert_has(log, "CapBnd:\t0000000000001000\n");
	assert_has(log, "read-only");

	c = shell("privileged", "grep CapEff /proc/self/status; ls -l /dev/kmsg; mount -t tmpfs none /tmp && echo mounted");
	c.privileged = true;
	log = run_to_end(&s, &c, 0);
	sh(arena_fmt(arena, "grep -q \"$(grep CapBnd /proc/self/status | cut -f2)\" %s", ROOT "/logs/privileged-*.log").p);
	assert_has(log, "mounted");

	c = shell("nobody", "true");
	c.run_as_username = "ghost";
	char id[ENGINE_ID];
	assert_int_equal(engine->v->container_create(engine, s.id, &c, id, &err), -EINVAL);
	assert_has(str_of(err.text), "/etc/passwd knows no user \"ghost\"");
	remove_sandbox(&s);
}

static void test_start_error(void **state)
{
	struct engine_sandbox s = run_sandbox("nostart");
	struct engine_container_config c = shell("nostart", "true");
	struct str nothing = STR("/no/such/program");
	struct engine_container k;
	char id[ENGINE_ID];

	c.command = (struct engine_strs){ &nothing, 1 };
	must(engine->v->container_create(engine, s.id, &c, id, &err));
	assert_true(engine->v->container_start(engine, id, &err) < 0);
	assert_has(str_of(err.text), "/no/such/program");
	must(engine->v->container_status(engine, id, arena, &k, &err));
	assert_int_equal(k.state, CONTAINER_EXITED);
	assert_int_equal(k.exit_code, 128);
	assert_string_equal(k.reason.p, "StartError");
	print_message("%s\n", err.text);
	must(engine->v->container_remove(engine, id, &err));
	remove_sandbox(&s);
}

static void test_oom(void **state)
{
	struct engine_sandbox s = run_sandbox("oom");
	struct engine_container_config c = shell("oom", "x=a; while true; do x=$x$x; done");
	char id[ENGINE_ID];

	c.resources.memory_limit = 16 << 20;
	start(&s, &c, id);
	struct engine_container k = wait_exit(id);
	assert_true(k.oom_killed);
	assert_string_equal(k.reason.p, "OOMKilled");
	assert_int_equal(k.exit_code, 137);
	remove_sandbox(&s);
}

/* In one sandbox over localhost, and between two by address; the hairpin to itself through its own address. */
static void test_network(void **state)
{
	struct engine_sandbox s = run_sandbox("server"), other = run_sandbox("client");
	struct engine_container_config c = shell("serve", "while true; do echo hello | nc -l -p 8080; done");
	char id[ENGINE_ID];
	int fd;

	start(&s, &c, id);
	/* The listener is there when it answers; nc tries until then. */
	const char *fetch = arena_fmt(arena, "i=0; until nc -w 2 %s 8080; do i=$((i+1)); [ $i -lt 200 ] || exit 1; usleep 10000; done", s.ip.p).p;
	c = shell("local", "i=0; until nc -w 2 127.0.0.1 8080; do i=$((i+1)); [ $i -lt 200 ] || exit 1; usleep 10000; done");
	assert_has(run_to_end(&s, &c, 0), "hello");
	c = shell("remote", fetch);
	assert_has(run_to_end(&other, &c, 0), "hello");
	c = shell("shm", "echo shared > /dev/shm/x");
	run_to_end(&s, &c, 0);
	c = shell("shm2", "cat /dev/shm/x; hostname");
	assert_has(run_to_end(&s, &c, 0), "F shared\n");
	must(engine->v->port_forward(engine, s.id, 8080, &fd, &err));
	char text[16] = "";
	assert_int_equal(read(fd, text, sizeof(text)), 6);
	assert_string_equal(text, "hello\n");
	close(fd);
	assert_true(engine->v->port_forward(engine, s.id, 8081, &fd, &err) < 0);
	assert_string_not_equal(s.ip.p, other.ip.p);
	struct str used = s.ip;
	remove_sandbox(&s);
	remove_sandbox(&other);
	struct engine_sandbox next = run_sandbox("next");
	assert_string_not_equal(next.ip.p, used.p);
	remove_sandbox(&next);
}

/* The world outside: a host in a namespace of its own that knows no way back to pods. */
static int make_far(void *arg, struct err *e)
{
	struct netlink *n;
	struct link_veth v = { .name = "eth0", .peer = "far0", .peer_netns_fd = *(int *)arg };
	int r = netlink_open(&n, e);

	if (r == 0 && (r = link_add_veth(n, &v, e)) == 0 && (r = address_add(n, "eth0", inet_addr("192.0.2.2"), 24, e)) == 0)
		r = link_set_up(n, "eth0", e);
	netlink_close(n);
	return r;
}

static int far_listen(void *arg, struct err *e)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(7777) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
		return err_errno(e, -errno, "listen");
	*(int *)arg = fd;
	return 0;
}

static void test_masquerade(void **state)
{
	struct engine_sandbox s = run_sandbox("masq");
	struct engine_container_config c = shell("masq", "echo hi | nc -w 5 192.0.2.2 7777");
	const char *paths[NS_KINDS] = { ROOT "/far" };
	struct ns_where where = { .net_fd = -1 };
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char id[ENGINE_ID];
	int listener;

	must(ns_create(paths, make_far, &local_of(engine)->host_netns_fd, &err));
	sh("ip addr add 192.0.2.1/24 dev far0; ip link set far0 up");
	must(ns_open(paths[NS_NET], &where.net_fd, &err));
	must(ns_run(&where, far_listen, &listener, &err));
	start(&s, &c, id);
	int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(from.sin_addr.s_addr, inet_addr("192.0.2.1"));
	close(fd);
	wait_exit(id);
	close(listener);
	close(where.net_fd);
	must(ns_unpin(paths[NS_NET], &err));
	sh("ip link del far0 2>/dev/null || true");
	remove_sandbox(&s);
}

/* As after a power cut: processes and namespaces are gone, records are of another boot, one is torn. */
static void test_reboot(void **state)
{
	struct engine_sandbox s = run_sandbox("reboot"), torn = run_sandbox("torn"), *sandboxes;
	struct engine_container_config c = shell("reboot", "sleep 1000");
	struct engine_container k;
	char id[ENGINE_ID], ended[ENGINE_ID], lost[ENGINE_ID];
	size_t n;

	start(&s, &c, id);
	start(&torn, &c, lost);
	c = shell("ended", "exit 4");
	start(&s, &c, ended);
	wait_exit(ended);
	struct local *l = local_of(engine);
	char cgroup[2][PATH_MAX];
	path_fmt(cgroup[0], "%s", container_find(l, id)->cgroup);
	path_fmt(cgroup[1], "%s", container_find(l, lost)->cgroup);
	close_engine();
	struct cgroups *cgroups;
	must(cgroup_open(&cgroups, &err));
	sh("pkill -9 conmon; while pgrep conmon; do sleep 0.005; done");
	must(cgroup_kill(cgroups, cgroup[0], &err));
	must(cgroup_kill(cgroups, cgroup[1], &err));
	cgroup_close(cgroups);
	sh("cd " ROOT "; for i in run/ns/*; do umount $i; done; rm -rf run; sed -i 's/\"bootId\":\"/&other-/' root/*/*/record; umount root/sandboxes/*/shm");
	sh(arena_fmt(arena, ": > " ROOT "/root/sandboxes/%s/record; echo '{\"id\":3}' > " ROOT "/root/containers/%s/record", torn.id, lost).p);
	open_engine();
	must(engine->v->sandbox_list(engine, arena, &sandboxes, &n, &err));
	assert_int_equal(n, 1);
	assert_int_equal(sandboxes[0].state, SANDBOX_NOT_READY);
	must(engine->v->container_status(engine, id, arena, &k, &err));
	assert_int_equal(k.state, CONTAINER_EXITED);
	assert_int_equal(k.exit_code, 255);
	assert_has(k.message, "restarted");
	must(engine->v->container_status(engine, ended, arena, &k, &err));
	assert_int_equal(k.exit_code, 4);
	assert_int_equal(engine->v->container_status(engine, lost, arena, &k, &err), ENGINE_NOT_FOUND);
	assert_int_equal(engine->v->container_create(engine, s.id, &c, id, &err), -ESHUTDOWN);
	remove_sandbox(&s);
	must(cgroup_remove(local_of(engine)->cgroups, arena_fmt(arena, "%s", dirname(cgroup[1])).p, &err));
}

static void test_restart_of_engine(void **state)
{
	struct engine_sandbox s = run_sandbox("restart"), *sandboxes;
	struct engine_container_config c = shell("lives", "trap 'exit 5' TERM; while true; do sleep 0.05; done"), d = shell("ends", "read x < /tmp/gate; exit 9");
	struct engine_container before, after, ended;
	char lives[ENGINE_ID], ends[ENGINE_ID], gate[256];
	size_t n;

	snprintf(gate, sizeof(gate), ROOT "/gate");
	must(dir_make(gate, 0777, &err));
	sh("mkfifo " ROOT "/gate/gate");
	struct engine_mount m = { .container_path = "/tmp", .host_path = gate };
	d.mounts = &m;
	d.n_mounts = 1;
	start(&s, &c, lives);
	start(&s, &d, ends);
	must(engine->v->container_status(engine, lives, arena, &before, &err));
	close_engine();
	sh("echo go > " ROOT "/gate/gate");
	/* The exit file comes while no engine looks; its conmon ends after that. */
	sh("while ! ls " ROOT "/root/exits | grep -q .; do sleep 0.005; done");
	uint64_t t = mono_now_ns();
	open_engine();
	print_message("engine opened with 2 containers there: %.1f ms\n", (double)(mono_now_ns() - t) / 1e6);
	must(engine->v->container_status(engine, lives, arena, &after, &err));
	assert_int_equal(after.state, CONTAINER_RUNNING);
	assert_int_equal(after.pid, before.pid);
	must(engine->v->container_status(engine, ends, arena, &ended, &err));
	assert_int_equal(ended.state, CONTAINER_EXITED);
	assert_int_equal(ended.exit_code, 9);
	must(engine->v->sandbox_list(engine, arena, &sandboxes, &n, &err));
	assert_int_equal(n, 1);
	assert_int_equal(sandboxes[0].state, SANDBOX_READY);
	assert_string_equal(sandboxes[0].ip.p, s.ip.p);
	must(engine->v->container_stop(engine, lives, 0, 10000, &err));
	assert_int_equal(wait_exit(lives).exit_code, 5);
	remove_sandbox(&s);
	must(dir_remove_tree(gate, &err));
}

static void test_stop(void **state)
{
	struct engine_sandbox s = run_sandbox("stop");
	struct engine_container_config c = shell("polite", "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.02; done");
	struct engine_container_config d = shell("stubborn", "trap '' TERM; echo up; while true; do sleep 0.02; done");
	char polite[ENGINE_ID], stubborn[ENGINE_ID];
	const char *ready[] = { "/bin/sh", "-c", "kill -0 1", NULL };
	CLEAN_BUF struct buf out = { 0 };
	int code;

	start(&s, &c, polite);
	start(&s, &d, stubborn);
	/* The shell has set its traps once its first line is in the log. */
	struct engine_container k;
	for (int i = 0; i < 2; i++) {
		must(engine->v->container_status(engine, i ? stubborn : polite, arena, &k, &err));
		sh(arena_fmt(arena, "while ! grep -q up %s; do sleep 0.005; done", k.log_path.p).p);
	}
	must(engine->v->exec_sync(engine, polite, ready, 5000, &out, &code, &err));
	uint64_t t = mono_now_ns();
	must(engine->v->container_stop(engine, polite, 0, 10000, &err));
	assert_true(mono_now_ns() - t < 5000000000ull);
	k = wait_exit(polite);
	assert_int_equal(k.exit_code, 3);
	assert_has(read_log(&k), "bye");
	t = mono_now_ns();
	must(engine->v->container_stop(engine, stubborn, 0, 300, &err));
	uint64_t took = (mono_now_ns() - t) / 1000000;
	assert_true(took >= 300 && took < 5000);
	assert_int_equal(wait_exit(stubborn).exit_code, 137);
	must(engine->v->container_stop(engine, stubborn, 0, 300, &err));
	must(engine->v->container_remove(engine, stubborn, &err));
	must(engine->v->container_remove(engine, stubborn, &err));
	assert_int_equal(engine->v->container_stop(engine, stubborn, 0, 300, &err), ENGINE_NOT_FOUND);
	remove_sandbox(&s);
	must(engine->v->sandbox_remove(engine, s.id, &err));
}

static void test_exec(void **state)
{
	struct engine_sandbox s = run_sandbox("exec");
	struct engine_container_config c = shell("exec", "sleep 1000");
	const char *talk[] = { "/bin/sh", "-c", "echo out; echo err >&2; pwd; id -u; echo $A; exit 4", NULL };
	const char *dash[] = { "echo", "-n", "--help-me", "-c", NULL };
	const char *slow[] = { "/bin/sh", "-c", "echo begun; sleep 1000", NULL };
	const char *none[] = { "/nope", NULL };
	const char *count[] = { "/bin/sh", "-c", "ps | grep -c 'sleep 1000'", NULL };
	struct engine_env env = { STR("A"), STR("from env") };
	CLEAN_BUF struct buf out = { 0 };
	char id[ENGINE_ID];
	int code;

	c.env = &env;
	c.n_env = 1;
	c.working_dir = "/tmp";
	start(&s, &c, id);
	uint64_t t = mono_now_ns();
	must(engine->v->exec_sync(engine, id, talk, 10000, &out, &code, &err));
	print_message("exec_sync: %.1f ms\n", (double)(mono_now_ns() - t) / 1e6);
	assert_int_equal(code, 4);
	assert_has(buf_str(&out), "out\n");
	assert_has(buf_str(&out), "err\n");
	assert_has(buf_str(&out), "/tmp\n0\nfrom env\n");
	buf_clear(&out);
	must(engine->v->exec_sync(engine, id, dash, 10000, &out, &code, &err));
	assert_int_equal(code, 0);
	assert_has(buf_str(&out), "--help-me -c");
	buf_clear(&out);
	assert_int_equal(engine->v->exec_sync(engine, id, slow, 300, &out, &code, &err), -ETIMEDOUT);
	must(engine->v->exec_sync(engine, id, count, 10000, &out, &code, &err));
	print_message("left: %s", out.p);
	must(engine->v->exec_sync(engine, id, none, 10000, &out, &code, &err));
	assert_int_not_equal(code, 0);
	must(engine->v->container_stop(engine, id, 0, 0, &err));
	assert_int_equal(engine->v->exec_sync(engine, id, talk, 10000, &out, &code, &err), -ESRCH);
	remove_sandbox(&s);
}

static struct str read_all(int fd)
{
	struct buf b = { 0 };
	char chunk[1024];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) > 0)
		buf_add(&b, chunk, (size_t)n);
	struct str s = arena_str(arena, buf_str(&b));
	buf_deinit(&b);
	return s;
}

static void read_until(int fd, const char *text)
{
	CLEAN_BUF struct buf b = { 0 };
	char chunk[256];
	ssize_t n;

	while (str_find_str(buf_str(&b), str_of(text)) < 0) {
		if ((n = read(fd, chunk, sizeof(chunk))) <= 0)
			fail_msg("\"%s\" did not come, only \"%s\"", text, b.p ? b.p : "");
		buf_add(&b, chunk, (size_t)n);
	}
}

static void test_seccomp(void **state)
{
	struct engine_sandbox s = run_sandbox("seccomp");
	struct engine_container_config c = shell("default", "grep Seccomp: /proc/self/status; unshare -U true || echo no-unshare; chroot / /bin/true && echo chroot; "
		"(sleep 0.01 & wait); nc -h 2>&1 | head -1; date; ping -c 1 127.0.0.1 >/dev/null && echo ping; reboot -f || echo no-reboot");
	static const char *const add[] = { "SYS_ADMIN", NULL };

	c.seccomp_profile = "RuntimeDefault";
	uint64_t t = mono_now_ns();
	struct str log = run_to_end(&s, &c, 0);
	print_message("with the default seccomp profile, start to end: %.1f ms\n", (double)(mono_now_ns() - t) / 1e6);
	assert_has(log, "Seccomp:\t2");
	assert_has(log, "no-unshare");
	assert_has(log, "F chroot\n");
	assert_has(log, "F ping\n");
	assert_has(log, "no-reboot");
	c = shell("admin", "unshare -m true && echo unshared; mount -t tmpfs none /tmp && echo mounted");
	c.seccomp_profile = "RuntimeDefault";
	c.add_capabilities = add;
	log = run_to_end(&s, &c, 0);
	assert_has(log, "unshared");
	assert_has(log, "mounted");
	sh("printf '{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_ERRNO\"}]}' > " ROOT "/profile");
	c = shell("own", "mkdir /x || echo no-mkdir");
	c.seccomp_profile = ROOT "/profile";
	assert_has(run_to_end(&s, &c, 0), "no-mkdir");
	c.seccomp_profile = ROOT "/nowhere";
	c.name = "nowhere";
	char id[ENGINE_ID];
	assert_int_equal(engine->v->container_create(engine, s.id, &c, id, &err), -ENOENT);
	remove_sandbox(&s);
}

/* One process namespace: containers see each other; who is orphaned is reaped; the one that holds it gives nothing away. */
static void test_shared_processes(void **state)
{
	struct engine_sandbox_config sc = { .name = "shared", .namespace_ = "default", .uid = "shared", .hostname = "shared", .log_directory = ROOT "/logs",
		.cgroup_parent = arena_fmt(arena, "%s/podshared", cgroup_name).p, .share_process_namespace = true };
	struct engine_sandbox s;
	struct engine_container_config c = shell("first", "sleep 987"), d = shell("second", "ps; (sleep 0.01 &) ; sleep 0.1; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l; "
		"cat /proc/1/comm; ls /proc/1/root/; cat /proc/1/status | grep -E 'Uid|CapBnd'");
	char id[ENGINE_ID];

	must(engine->v->sandbox_run(engine, &sc, arena, &s, &err));
	start(&s, &c, id);
	start(&s, &d, id);
	struct engine_container k = wait_exit(id);
	struct str log = read_log(&k);
	assert_has(log, "sleep 987");
	assert_has(log, "stdout F 0\n");
	assert_has(log, "stdout F pause\n");
	assert_has(log, "Uid:\t65534");
	assert_lacks(log, "stdout F usr\n");
	remove_sandbox(&s);
}

static void test_exec_session(void **state)
{
	struct engine_sandbox s = run_sandbox("session");
	struct engine_container_config c = shell("session", "sleep 1000");
	const char *cat[] = { "/bin/sh", "-c", "cat; echo done >&2; exit 6", NULL }, *tty[] = { "/bin/sh", NULL };
	struct engine_session x;
	char id[ENGINE_ID];
	int code;

	start(&s, &c, id);
	must(engine->v->exec(engine, id, cat, true, true, true, false, &x, &err));
	assert_int_equal(write(x.in, "echo\n", 5), 5);
	read_until(x.out, "echo\n");
	close(x.in);
	assert_has(read_all(x.err), "done");
	must(engine->v->session_wait(engine, &x, &code, &err));
	assert_int_equal(code, 6);
	close(x.out);
	close(x.err);

	must(engine->v->exec(engine, id, tty, true, true, false, true, &x, &err));
	assert_true(x.control >= 0);
	assert_int_equal(write(x.control, "93 41\n", 6), 6);
	/* The size is set by another thread: asked for until it is there. */
	const char *ask = "until stty size | grep '41 93'; do sleep 0.005; done; tty; exit 8\n";
	assert_int_equal(write(x.in, ask, strlen(ask)), (int)strlen(ask));
	read_until(x.out, "\n41 93");
	struct pollfd p = { x.pidfd, POLLIN, 0 };
	assert_int_equal(poll(&p, 1, 10000), 1);
	close(x.in);
	close(x.out);
	must(engine->v->session_wait(engine, &x, &code, &err));
	assert_int_equal(code, 8);
	remove_sandbox(&s);
}

static void test_attach(void **state)
{
	struct engine_sandbox s = run_sandbox("attach");
	struct engine_container_config c = shell("attach", "while read x; do echo got $x; echo also >&2; done; exit 2"), t = shell("tty", "read x; echo got $x; stty size");
	struct engine_session x;
	char id[ENGINE_ID];
	int code;

	c.stdin_open = c.stdin_once = true;
	start(&s, &c, id);
	must(engine->v->attach(engine, id, true, true, true, &x, &err));
	assert_int_equal(write(x.in, "one\n", 4), 4);
	read_until(x.out, "got one\n");
	read_until(x.err, "also\n");
	close(x.in);
	struct pollfd p = { x.pidfd, POLLIN, 0 };
	assert_int_equal(poll(&p, 1, 10000), 1);
	must(engine->v->session_wait(engine, &x, &code, &err));
	close(x.out);
	close(x.err);
	assert_int_equal(wait_exit(id).exit_code, 2);

	/* Who only leaves again is let go at once, and the container stays. */
	struct engine_container_config stays = shell("stays", "while true; do sleep 0.05; done");
	char other[ENGINE_ID];
	start(&s, &stays, other);
	must(engine->v->attach(engine, other, false, true, true, &x, &err));
	close(x.out);
	p.fd = x.pidfd;
	assert_int_equal(poll(&p, 1, 10000), 1);
	must(engine->v->session_wait(engine, &x, &code, &err));
	close(x.err);
	struct engine_container k;
	must(engine->v->container_status(engine, other, arena, &k, &err));
	assert_int_equal(k.state, CONTAINER_RUNNING);

	t.stdin_open = t.tty = true;
	start(&s, &t, id);
	must(engine->v->attach(engine, id, true, true, false, &x, &err));
	assert_int_equal(write(x.control, "81 25\n", 6), 6);
	assert_int_equal(write(x.in, "two\n", 4), 4);
	read_until(x.out, "got two");
	close(x.in);
	close(x.out);
	must(engine->v->session_wait(engine, &x, &code, &err));
	wait_exit(id);
	remove_sandbox(&s);
}

static void test_mounts(void **state)
{
	struct engine_sandbox s = run_sandbox("mounts");
	struct engine_container_config c = shell("mounts", "cat /in/file; echo new > /out/file; echo x > /in/file || echo refused; cat /one; read x < /in/gate; cat /prop/late/file");
	struct engine_mount m[] = {
		{ "/in", ROOT "/m/in", true, 0 }, { "/out", ROOT "/m/out", false, 0 }, { "/one", ROOT "/m/in/file", true, 0 },
		{ "/prop", ROOT "/m/prop", false, 1 }, { "/etc/hosts", ROOT "/m/in/file", true, 0 },
	};
	char id[ENGINE_ID];

	sh("mkdir -p " ROOT "/m/in " ROOT "/m/out " ROOT "/m/prop; echo content > " ROOT "/m/in/file; mkfifo " ROOT "/m/in/gate; "
	   "mount --bind " ROOT "/m/prop " ROOT "/m/prop; mount --make-shared " ROOT "/m/prop; mkdir " ROOT "/m/prop/late");
	c.mounts = m;
	c.n_mounts = ARRAY_LEN(m);
	start(&s, &c, id);
	/* Mounted after the container was made: propagates into it. */
	sh("mount -t tmpfs none " ROOT "/m/prop/late; echo late > " ROOT "/m/prop/late/file; echo go > " ROOT "/m/in/gate");
	struct engine_container k = wait_exit(id);
	struct str log = read_log(&k);
	assert_has(log, "F content\n");
	assert_has(log, "F refused\n");
	assert_has(log, "F late\n");
	sh("grep -q new " ROOT "/m/out/file");

	/* Both ways: what it mounts is seen outside. */
	c = shell("both", "mount -t tmpfs none /prop/back && echo in > /prop/back/file && read x < /in/gate");
	c.mounts = m;
	c.n_mounts = 4;
	m[3].propagation = 2;
	c.privileged = true;
	sh("mkdir " ROOT "/m/prop/back");
	start(&s, &c, id);
	sh("while ! grep -q in " ROOT "/m/prop/back/file; do sleep 0.005; done; echo go > " ROOT "/m/in/gate");
	assert_int_equal(wait_exit(id).exit_code, 0);
	sh("umount " ROOT "/m/prop/back; umount " ROOT "/m/prop/late; umount " ROOT "/m/prop; rm -r " ROOT "/m");
	remove_sandbox(&s);
}

static void test_log_reopen_stats_update(void **state)
{
	struct engine_sandbox s = run_sandbox("log");
	struct engine_container_config c = shell("log", "echo first; i=0; while true; do i=$((i+1)); echo line $i; usleep 10000; done");
	struct engine_resources r = { .memory_limit = 64 << 20, .cpu_shares = 512, .cpu_quota_us = 50000, .cpu_period_us = 100000 };
	struct engine_container k;
	struct engine_stats stats;
	char id[ENGINE_ID];

	start(&s, &c, id);
	must(engine->v->container_status(engine, id, arena, &k, &err));
	sh(arena_fmt(arena, "while ! grep -q line %s; do sleep 0.005; done; mv %s %s.1", k.log_path.p, k.log_path.p, k.log_path.p).p);
	must(engine->v->container_reopen_log(engine, id, &err));
	sh(arena_fmt(arena, "while ! grep -q line %s; do sleep 0.005; done; ! grep -q first %s", k.log_path.p, k.log_path.p).p);
	must(engine->v->container_stats(engine, id, &stats, &err));
	assert_true(stats.cpu_ns > 0 && stats.memory_bytes > 0 && stats.memory_working_set <= stats.memory_bytes && stats.pids >= 1);
	must(engine->v->container_update(engine, id, &r, &err));
	struct cgroup_stats ignored;
	struct local *l = local_of(engine);
	char name[PATH_MAX];
	path_fmt(name, "%s", container_find(l, id)->cgroup);
	assert_int_equal(cgroup_stats(l->cgroups, name, &ignored, &err), 0);
	if (cgroup_mode(l->cgroups) != CGROUP_V2)
		sh(arena_fmt(arena, "grep -qx 67108864 /sys/fs/cgroup/memory/%s/memory.limit_in_bytes; grep -qx 50000 /sys/fs/cgroup/cpu/%s/cpu.cfs_quota_us; "
			"grep -qx 512 /sys/fs/cgroup/cpu/%s/cpu.shares", name, name, name).p);
	remove_sandbox(&s);
}

static void test_conmon_dies(void **state)
{
	struct engine_sandbox s = run_sandbox("conmon");
	struct engine_container_config c = shell("conmon", "sleep 1000");
	char id[ENGINE_ID];

	start(&s, &c, id);
	pid_t pid = (pid_t)container_find(local_of(engine), id)->conmon_pid;
	kill(pid, SIGKILL);
	struct engine_container k = wait_exit(id);
	assert_int_equal(k.exit_code, 137);
	assert_has(k.message, "conmon");
	remove_sandbox(&s);
}

static void test_images(void **state)
{
	struct engine_sandbox s = run_sandbox("images");
	struct engine_container_config c = shell("images", "sleep 1000");
	struct engine_image image;
	char id[ENGINE_ID];

	must(engine->v->image_status(engine, STR("test/busybox"), arena, &image, &err));
	assert_string_equal(image.id.p, image_id);
	assert_string_equal(image.repo_tags.items[0].p, "docker.io/test/busybox:latest");
	assert_int_equal(engine->v->image_status(engine, STR("test/other"), arena, &image, &err), ENGINE_NOT_FOUND);
	assert_true(engine->v->image_pull(engine, STR("test/other"), arena, &image, &err) < 0);
	assert_has(str_of(err.text), "skiff image import FILE test/other");
	must(engine->v->image_pull(engine, STR("docker.io/test/busybox:latest"), arena, &image, &err));
	start(&s, &c, id);
	assert_int_equal(engine->v->image_remove(engine, STR("test/busybox"), &err), -EBUSY);
	assert_has(str_of(err.text), "in use by the container \"images\"");
	remove_sandbox(&s);
}

/* A second process makes a sandbox and containers, and is killed with kill -9 a little later each time; the next engine must find or undo all of it. */
static void test_killed_half_way(void **state)
{
	struct engine_sandbox *sandboxes;
	struct engine_container *containers;
	size_t n, found = 0;

	close_engine();
	for (unsigned delay_us = 0; delay_us <= 80000; delay_us += 2500) {
		pid_t child = fork();
		if (child == 0) {
			open_engine();
			struct engine_sandbox s = run_sandbox("half");
			for (int i = 0; i < 2; i++) {
				struct engine_container_config c = shell(i ? "half-b" : "half-a", "sleep 1000");
				char id[ENGINE_ID];
				start(&s, &c, id);
			}
			pause();
		}
		usleep(delay_us);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		open_engine();
		must(engine->v->container_list(engine, NULL, arena, &containers, &n, &err));
		found += n;
		for (size_t i = 0; i < n; i++)
			assert_true(containers[i].state != CONTAINER_UNKNOWN);
		must(engine->v->sandbox_list(engine, arena, &sandboxes, &n, &err));
		assert_true(n <= 1);
		for (size_t i = 0; i < n; i++)
			remove_sandbox(&sandboxes[i]);
		must(engine->v->container_list(engine, NULL, arena, &containers, &n, &err));
		for (size_t i = 0; i < n; i++)
			must(engine->v->container_remove(engine, containers[i].id, &err));
		close_engine();
	}
	print_message("containers found over all rounds: %zu\n", found);
	assert_true(found > 2);
	open_engine();
}

static void test_many_at_once(void **state)
{
	struct engine_sandbox s = run_sandbox("many");
	uint64_t t = mono_now_ns(), create = 0, begin;
	char ids[20][ENGINE_ID];

	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		struct engine_container_config c = shell(arena_fmt(arena, "many%zu", i).p, "exit 0");
		begin = mono_now_ns();
		must(engine->v->container_create(engine, s.id, &c, ids[i], &err));
		create += mono_now_ns() - begin;
		must(engine->v->container_start(engine, ids[i], &err));
	}
	print_message("20 containers one after the other: %.1f ms each (create %.2f ms)\n", (double)(mono_now_ns() - t) / 20e6, (double)create / 20e6);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		assert_int_equal(wait_exit(ids[i]).exit_code, 0);
	t = mono_now_ns();
	remove_sandbox(&s);
	print_message("sandbox with 20 ended containers removed: %.1f ms\n", (double)(mono_now_ns() - t) / 1e6);
	t = mono_now_ns();
	struct engine_sandbox e[10];
	for (size_t i = 0; i < 10; i++)
		e[i] = run_sandbox("empty");
	print_message("10 sandboxes: %.1f ms each\n", (double)(mono_now_ns() - t) / 10e6);
	for (size_t i = 0; i < 10; i++)
		remove_sandbox(&e[i]);
}

/* Last: all that the tests made is gone. */
static void test_nothing_is_left(void **state)
{
	struct local *l = local_of(engine);

	assert_int_equal(l->sandboxes.len, 0);
	assert_int_equal(l->containers.len, 0);
	must(engine->v->image_remove(engine, STR("test/busybox"), &err));
	sh("! grep -E '" ROOT "/' /proc/self/mountinfo");
	sh(arena_fmt(arena, "! find /sys/fs/cgroup -type d -path '*%s/*' | grep .", cgroup_name).p);
	sh("! ip -o link | grep skv");
	sh("cd " ROOT "/root; ! find sandboxes containers exits layers addresses images ../run/ns ../run/crun ../run/attach -mindepth 1 -not -name .last | grep .");
	sh("! pgrep conmon");
	assert_int_equal(cgroup_remove(l->cgroups, cgroup_name, &err), 0);
	sh(arena_fmt(arena, "! find /sys/fs/cgroup -type d -name %s | grep .", cgroup_name).p);
}

/* ---- the group ---- */
static int setup(void **state)
{
	struct engine_image image;

	arena = arena_new(0);
	sh("mkdir -p " ROOT "/fs/bin " ROOT "/fs/etc " ROOT "/fs/tmp && cp /bin/busybox " ROOT "/fs/bin/ && "
	   "for a in $(busybox --list); do [ $a = busybox ] || ln -sf busybox " ROOT "/fs/bin/$a; done && "
	   "printf 'root:x:0:0::/:/bin/sh\\nuser:x:1000:1001::/:/bin/sh\\n' > " ROOT "/fs/etc/passwd && "
	   "printf 'root:x:0:\\nuser:x:1001:\\nextra:x:1005:user\\n' > " ROOT "/fs/etc/group && "
	   "tar -C " ROOT "/fs -cf " ROOT "/busybox.tar . && ip link set lo up");
	open_engine();
	must(engine->v->image_import(engine, ROOT "/busybox.tar", "test/busybox", arena, &image, &err));
	snprintf(image_id, sizeof(image_id), "%s", image.id.p);
	return 0;
}

static int teardown(void **state)
{
	close_engine();
	arena_free(arena);
	return 0;
}

/* With an argument: only the tests whose names fit it (test_st*). */
static const char *only;

static int run_group(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_codes_and_logs),
		cmocka_unit_test(test_surroundings),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_start_error),
		cmocka_unit_test(test_oom),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_masquerade),
		cmocka_unit_test(test_reboot),
		cmocka_unit_test(test_restart_of_engine),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_shared_processes),
		cmocka_unit_test(test_exec_session),
		cmocka_unit_test(test_attach),
		cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_log_reopen_stats_update),
		cmocka_unit_test(test_conmon_dies),
		cmocka_unit_test(test_images),
		cmocka_unit_test(test_killed_half_way),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_nothing_is_left),
	};

	if (only)
		cmocka_set_test_filter(only);
	return cmocka_run_group_tests(tests, setup, teardown);
}

/* Process 1 of the new process namespace: runs the tests in a child and reaps what they orphan. When it ends, the kernel ends all the rest. */
static int init_main(void)
{
	int status, result = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("proc", "/proc", "proc", 0, NULL) ||
		mount("tmpfs", "/tmp", "tmpfs", 0, NULL) || mkdir(ROOT, 0700)) {
		perror("namespaces");
		return 1;
	}
	pid_t tests = fork();
	if (tests == 0)
		exit(run_group());
	for (pid_t p; (p = wait(&status)) > 0;)
		if (p == tests) {
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			break;
		}
	return result;
}

/* Between: a process that has given its children another process namespace can itself start nothing more once that has ended. */
static int run_namespaced(void)
{
	int status;

	if (unshare(CLONE_NEWPID) < 0) {
		perror("unshare");
		return 1;
	}
	pid_t init = fork();
	if (init == 0)
		exit(init_main());
	waitpid(init, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
	struct cgroups *cgroups;
	int status;

	only = argc > 1 ? argv[1] : NULL;
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: the local engine's tests need root\n");
		return 0;
	}
	if (cgroup_open(&cgroups, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	snprintf(cgroup_name, sizeof(cgroup_name), "skiff-engine-test-%d", getpid());
	pid_t between = fork();
	if (between == 0)
		_exit(run_namespaced());
	waitpid(between, &status, 0);
	/* After a failure; cgroups know no namespace that would take them along. */
	cgroup_remove(cgroups, cgroup_name, NULL);
	cgroup_close(cgroups);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
