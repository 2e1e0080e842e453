/* Containers of the local engine over stops, deaths and restarts: of theirs, of conmon, of the engine, of the machine. */
#include "engine/local_testing.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

static void test_stop(void **state)
{
	struct engine_sandbox s = run_sandbox("stop");
	struct engine_container_config c = shell(
		"polite", "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.02; done");
	struct engine_container_config d =
		shell("stubborn", "trap '' TERM; echo up; while true; do sleep 0.02; done");
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
	assert_int_equal(
		engine->v->container_stop(engine, stubborn, 0, 300, &err), ENGINE_NOT_FOUND);
	remove_sandbox(&s);
	must(engine->v->sandbox_remove(engine, s.id, &err));
}

static void test_restart_of_engine(void **state)
{
	struct engine_sandbox s = run_sandbox("restart"), *sandboxes;
	struct engine_container_config c =
		shell("lives", "trap 'exit 5' TERM; while true; do sleep 0.05; done");
	struct engine_container_config d = shell("ends", "read x < /tmp/gate; exit 9");
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
	print_message("engine opened with 2 containers there: %.1f ms\n",
		(double)(mono_now_ns() - t) / 1e6);
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
	sh("cd " ROOT
	   "; for i in run/ns/*; do umount $i; done; umount run/ns; rm -rf run; sed -i 's/\"bootId\":\"/&other-/' "
	   "root/*/*/record; umount root/sandboxes/*/shm root/sandboxes");
	sh(arena_fmt(arena,
		": > " ROOT "/root/sandboxes/%s/record; echo '{\"id\":3}' > " ROOT
		"/root/containers/%s/record",
		torn.id, lost)
			.p);
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
	assert_int_equal(
		engine->v->container_status(engine, lost, arena, &k, &err), ENGINE_NOT_FOUND);
	assert_int_equal(engine->v->container_create(engine, s.id, &c, id, &err), -ESHUTDOWN);
	remove_sandbox(&s);
	must(cgroup_remove(
		local_of(engine)->cgroups, arena_fmt(arena, "%s", dirname(cgroup[1])).p, &err));
}

/* What the watcher was told of a descriptor may be old when it gets to look: the number can be another conmon's by then. */
static void test_old_news(void **state)
{
	struct local *l = local_of(engine);
	struct engine_sandbox s = run_sandbox("news");
	struct engine_container_config c = shell("news", "sleep 1000"), d = shell("end", "true");
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT };
	char id[ENGINE_ID];
	int fd = eventfd(1, EFD_CLOEXEC);

	start(&s, &c, id);
	pthread_mutex_lock(&l->lock);
	ev.data.fd = container_find(l, id)->conmon_fd;
	pthread_mutex_unlock(&l->lock);
	assert_int_equal(epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev), 0);
	run_to_end(&s, &d, 0);
	struct engine_container k;
	must(engine->v->container_status(engine, id, arena, &k, &err));
	assert_int_equal(k.state, CONTAINER_RUNNING);
	close(fd);
	remove_sandbox(&s);
}

/* Killed between the start and the note of it, while the container ran to its end: how it ended counts. */
static void test_ended_unnoted(void **state)
{
	struct engine_sandbox s = run_sandbox("unnoted");
	struct engine_container_config c = shell("unnoted", "exit 3");
	struct engine_container k;
	char id[ENGINE_ID];

	start(&s, &c, id);
	wait_exit(id);
	pthread_mutex_lock(&local_of(engine)->lock);
	struct container *r = container_find(local_of(engine), id);
	r->started = r->exited = false;
	r->starting = true;
	must(container_save(local_of(engine), r, &err));
	r->exited = true; /* hands off, until it is forgotten */
	pthread_mutex_unlock(&local_of(engine)->lock);
	close_engine();
	open_engine();
	must(engine->v->container_status(engine, id, arena, &k, &err));
	assert_int_equal(k.state, CONTAINER_EXITED);
	assert_int_equal(k.exit_code, 3);
	assert_string_equal(k.reason.p, "Error");
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
				struct engine_container_config c =
					shell(i ? "half-b" : "half-a", "sleep 1000");
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

/* One pod's life, many times, beside others. Returns what failed, or NULL. */
static void *pod_thread(void *arg)
{
	int number = (int)(intptr_t)arg;
	struct engine_container list[1], *all;
	struct engine_stats stats;
	struct err own = { 0 };
	size_t n;

	for (int round = 0; round < 4; round++) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct str script[3] = { STR("/bin/sh"), STR("-c"), STR("echo x; exit 3") };
		struct engine_sandbox_config sc = { .name = "many",
			.namespace_ = "default",
			.uid = arena_fmt(a, "many-%d-%d", number, round).p,
			.hostname = "many",
			.log_directory = ROOT "/logs",
			.cgroup_parent = arena_fmt(a, "%s/many-%d", cgroup_name, number).p };
		struct engine_container_config c = { .name = "c",
			.image_id = image_id,
			.command = { script, 3 },
			.run_as_user = -1,
			.run_as_group = -1,
			.log_path = arena_fmt(a, "many-%d-%d.log", number, round).p };
		struct engine_sandbox s;
		char id[ENGINE_ID];

		if (engine->v->sandbox_run(engine, &sc, a, &s, &own) ||
			engine->v->container_create(engine, s.id, &c, id, &own) ||
			engine->v->container_start(engine, id, &own))
			return xstrdup(own.text);
		engine->v->container_stats(engine, id, &stats, NULL);
		if (engine->v->container_list(engine, NULL, a, &all, &n, &own) ||
			engine->v->container_stop(engine, id, 0, 5000, &own) ||
			engine->v->container_status(engine, id, a, list, &own))
			return xstrdup(own.text);
		if (list[0].state != CONTAINER_EXITED ||
			(list[0].exit_code != 3 && list[0].exit_code != 143 &&
				list[0].exit_code != 137))
			return xasprintf("state %d, code %d", list[0].state, list[0].exit_code);
		if (engine->v->sandbox_stop(engine, s.id, &own) ||
			engine->v->sandbox_remove(engine, s.id, &own))
			return xstrdup(own.text);
	}
	return NULL;
}

static void test_pods_at_once(void **state)
{
	pthread_t threads[8];
	void *failed;

	uint64_t t = mono_now_ns();
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(
			thread_start(&threads[i], "pod", pod_thread, (void *)(intptr_t)i), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		pthread_join(threads[i], &failed);
		if (failed)
			fail_msg("thread %zu: %s", i, (char *)failed);
	}
	print_message("32 pods from start to removal on 8 threads: %.1f ms each\n",
		(double)(mono_now_ns() - t) / 32e6);
}

/* What cannot be opened says why, and what to do. */
static void test_refused(void **state)
{
	static const struct {
		const char *root, *cidr, *path;
		int code;
		const char *says;
	} rows[] = {
		{ ROOT "/root", "10.1.0.0/24", NULL, -EBUSY, "another skiff agent" },
		{ ROOT "/other", "10.1.0.0/24", "/nowhere", -ENOENT, "install the package conmon" },
		{ ROOT "/other", "10.1.0.0", NULL, -EINVAL, "no address range" },
		{ ROOT "/other", "fd00::/64", NULL, -EINVAL, "IPv6" },
		{ ROOT "/other", "10.1.0.0/30", NULL, -EINVAL, "between /8 and /29" },
		{ ROOT "/busybox.tar/x", "10.1.0.0/24", NULL, -ENOTDIR, "busybox.tar" },
	};
	int status;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		pid_t child = fork(); /* the lock is a process's */
		if (child == 0) {
			struct engine_local_config c = { .root = rows[i].root,
				.run = ROOT "/other-run",
				.pod_cidr = rows[i].cidr,
				.bridge = "skifft1" };
			struct engine *e;
			struct err own = { 0 };
			if (rows[i].path)
				setenv("PATH", rows[i].path, 1);
			int r = engine_local_new(&c, &e, &own);
			if (r != rows[i].code || !strstr(own.text, rows[i].says)) {
				fprintf(stderr, "row %zu: %d, \"%s\"\n", i, r, own.text);
				_exit(1);
			}
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
	sh("umount " ROOT "/other-run/ns " ROOT
	   "/other/sandboxes; ip link del skifft1 2>/dev/null || true");
}

static void test_addresses_run_out(void **state)
{
	struct engine_sandbox s[6];
	struct engine_sandbox_config c = { .name = "full",
		.namespace_ = "default",
		.uid = "full",
		.cgroup_parent = arena_fmt(arena, "%s/full", cgroup_name).p };
	struct engine_sandbox none;

	must(engine_local_set_pod_cidr(engine, "10.199.8.0/29", &err));
	for (size_t i = 0; i < 5; i++)
		s[i] = run_sandbox("few");
	assert_int_equal(engine->v->sandbox_run(engine, &c, arena, &none, &err), -EADDRNOTAVAIL);
	assert_has(str_of(err.text), "10.199.8.0/29");
	remove_sandbox(&s[2]);
	s[5] = run_sandbox("few");
	assert_string_equal(s[5].ip.p, s[2].ip.p);
	for (size_t i = 0; i < 6; i++)
		if (i != 2)
			remove_sandbox(&s[i]);
	must(engine_local_set_pod_cidr(engine, "10.199.7.0/24", &err));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_stop),
	cmocka_unit_test(test_restart_of_engine),
	cmocka_unit_test(test_reboot),
	cmocka_unit_test(test_conmon_dies),
	cmocka_unit_test(test_old_news),
	cmocka_unit_test(test_ended_unnoted),
	cmocka_unit_test(test_killed_half_way),
	cmocka_unit_test(test_pods_at_once),
	cmocka_unit_test(test_refused),
	cmocka_unit_test(test_addresses_run_out),
	cmocka_unit_test(test_nothing_is_left),
};

RUN(tests)
