/* What the tests of the local engine share: real containers, root only. Each test program runs in process, mount and network namespaces of its own, so nothing
 * that fails there stays on the machine; its last test checks that nothing stays inside either: mounts, cgroups, links, files, processes. */
#ifndef SKIFF_ENGINE_LOCAL_TESTING_H
#define SKIFF_ENGINE_LOCAL_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine/internal.h"

#define ROOT "/tmp/skiff-engine-test"
#include "engine/root_testing.h"

static char cgroup_name[64]; /* after the process: cgroups know no namespace */

static struct engine *engine;
static struct arena *arena;
static char image_id[80];

static pthread_mutex_t event_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t event_cond = PTHREAD_COND_INITIALIZER;
static char last_events[64][ENGINE_ID];
static size_t n_events;

static void on_event(void *arg, const char *sandbox, const char *container)
{
	pthread_mutex_lock(&event_lock);
	memcpy(last_events[n_events++ % ARRAY_LEN(last_events)], container, ENGINE_ID);
	pthread_cond_broadcast(&event_cond);
	pthread_mutex_unlock(&event_lock);
}

static struct engine_local_config engine_config = { .root = ROOT "/root",
	.run = ROOT "/run",
	.pod_cidr = "10.199.7.0/24",
	.bridge = "skifft0",
	.cluster_cidr = "10.199.0.0/16" };

UNUSED static void open_engine(void)
{
	must(engine_local_new(&engine_config, &engine, &err));
	engine->v->set_event_handler(engine, on_event, NULL);
}

UNUSED static void close_engine(void)
{
	engine->v->free(engine);
	engine = NULL;
}

/* Its texts live until the next one is made. */
UNUSED static struct engine_sandbox_config sandbox_config(const char *name)
{
	static int counter;
	static char uid[64], cgroup[192];
	snprintf(uid, sizeof(uid), "uid-%d", ++counter);
	snprintf(cgroup, sizeof(cgroup), "%s/pod%s", cgroup_name, uid);
	return (struct engine_sandbox_config){ .name = name,
		.namespace_ = "default",
		.uid = uid,
		.hostname = name,
		.log_directory = ROOT "/logs",
		.cgroup_parent = cgroup,
		.resolv_conf = "nameserver 10.43.0.10\n" };
}

UNUSED static struct engine_sandbox run_sandbox(const char *name)
{
	struct engine_sandbox_config c = sandbox_config(name);
	struct engine_sandbox s;

	must(engine->v->sandbox_run(engine, &c, arena, &s, &err));
	return s;
}

UNUSED static struct engine_container_config shell(const char *name, const char *script)
{
	static struct str args[8][3];
	static int next;
	struct str *a = args[next++ % 8];

	a[0] = STR("/bin/sh");
	a[1] = STR("-c");
	a[2] = str_of(script);
	return (struct engine_container_config){ .name = name,
		.image_id = image_id,
		.image = "test/busybox",
		.command = { a, 3 },
		.run_as_user = -1,
		.run_as_group = -1,
		.log_path = arena_fmt(arena, "%s-%d.log", name, next).p };
}

UNUSED static void start(
	const struct engine_sandbox *s, const struct engine_container_config *c, char id[ENGINE_ID])
{
	must(engine->v->container_create(engine, s->id, c, id, &err));
	must(engine->v->container_start(engine, id, &err));
}

/* Waits for the event of its end, never by looking again and again. */
UNUSED static struct engine_container wait_exit(const char *id)
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

UNUSED static struct str read_log(const struct engine_container *c)
{
	struct buf b = { 0 };

	must(file_read(c->log_path.p, 1 << 20, &b, &err));
	struct str s = arena_str(arena, buf_str(&b));
	buf_deinit(&b);
	return s;
}

UNUSED static void remove_sandbox(const struct engine_sandbox *s)
{
	must(engine->v->sandbox_stop(engine, s->id, &err));
	must(engine->v->sandbox_remove(engine, s->id, &err));
}

#define assert_has(text, part) \
	do { \
		if (str_find_str(text, str_of(part)) < 0) \
			fail_msg("\"%s\" is not in:\n" STR_FMT, part, STR_ARG(text)); \
	} while (0)
#define assert_lacks(text, part) \
	do { \
		if (str_find_str(text, str_of(part)) >= 0) \
			fail_msg("\"%s\" is in:\n" STR_FMT, part, STR_ARG(text)); \
	} while (0)

UNUSED static struct str run_to_end(
	const struct engine_sandbox *s, struct engine_container_config *c, int code)
{
	char id[ENGINE_ID];

	start(s, c, id);
	struct engine_container k = wait_exit(id);
	struct str log = read_log(&k);
	if (k.exit_code != code)
		fail_msg("%s ended with %d (%s): %s", k.name.p, k.exit_code, k.reason.p, log.p);
	return log;
}

UNUSED static struct str read_all(int fd)
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

UNUSED static void read_until(int fd, const char *text)
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

/* Last: all that the tests made is gone. */
static void test_nothing_is_left(void **state)
{
	struct local *l = local_of(engine);

	assert_int_equal(l->sandboxes.len, 0);
	assert_int_equal(l->containers.len, 0);
	must(engine->v->image_remove(engine, STR("test/busybox"), &err));
	/* Bound over themselves to be shared, for good. */
	sh("umount " ROOT "/run/ns " ROOT "/root/sandboxes");
	sh("! grep -E '" ROOT "/' /proc/self/mountinfo");
	sh(arena_fmt(arena, "! find /sys/fs/cgroup -type d -path '*%s/*' | grep .", cgroup_name).p);
	sh("! ip -o link | grep skv");
	sh("cd " ROOT
	   "/root; ! find sandboxes containers exits layers addresses images ../run/ns ../run/crun ../run/attach -mindepth 1 "
	   "-not -name .last | grep .");
	sh("! pgrep conmon");
	assert_int_equal(cgroup_remove(l->cgroups, cgroup_name, &err), 0);
	sh(arena_fmt(arena, "! find /sys/fs/cgroup -type d -name %s | grep .", cgroup_name).p);
}

/* ---- the program ---- */
static int setup(void **state)
{
	struct engine_image image;

	arena = arena_new(0);
	make_image("root:x:0:0::/:/bin/sh\\nuser:x:1000:1001::/:/bin/sh\\n",
		"root:x:0:\\nuser:x:1001:\\nextra:x:1005:user\\n");
	open_engine();
	must(engine->v->image_import(
		engine, ROOT "/busybox.tar", "test/busybox", arena, &image, &err));
	snprintf(image_id, sizeof(image_id), "%s", image.id.p);
	return 0;
}

static int teardown(void **state)
{
	close_engine();
	arena_free(arena);
	return 0;
}

/* RUN(tests): the program's main. With an argument only the tests whose names fit it (test_st*). */
#define RUN(tests) \
	static int run_group(void) \
	{ \
		return cmocka_run_group_tests(tests, setup, teardown); \
	} \
	int main(int argc, char **argv) \
	{ \
		if (argc > 1) \
			cmocka_set_test_filter(argv[1]); \
		return run_main(run_group); \
	}

static int run_main(int (*group)(void))
{
	struct cgroups *cgroups;
	int status;

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
		_exit(run_namespaced(group));
	waitpid(between, &status, 0);
	/* After a failure; cgroups know no namespace that would take them along. */
	cgroup_remove(cgroups, cgroup_name, NULL);
	cgroup_close(cgroups);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

#endif
