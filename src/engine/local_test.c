/* The local engine on real containers. Root only; in process, mount and network namespaces of its own, so nothing that fails here stays on the machine,
 * and the group's end checks that nothing stays inside either: mounts, cgroups, links, tables, processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
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
#define CGROUP "skiff-engine-test"

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
	char uid[64], cgroup[128];
	snprintf(uid, sizeof(uid), "uid-%d", ++counter);
	snprintf(cgroup, sizeof(cgroup), CGROUP "/pod%s", uid);
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

static int run_group(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_codes_and_logs),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* Process 1 of the new process namespace: runs the tests in a child and reaps what they orphan. When it ends, the kernel ends all the rest. */
static int init_main(void)
{
	int status, result = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mkdir(ROOT, 0700);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("proc", "/proc", "proc", 0, NULL) ||
		mount("tmpfs", ROOT, "tmpfs", 0, NULL)) {
		perror("private mounts");
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

int main(void)
{
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: the local engine's tests need root\n");
		return 0;
	}
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID) < 0) {
		perror("unshare");
		return 1;
	}
	pid_t init = fork();
	if (init == 0)
		exit(init_main());
	int status;
	waitpid(init, &status, 0);
	rmdir(ROOT);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
