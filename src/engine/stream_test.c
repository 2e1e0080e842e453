/* Talking to running containers: exec, attach, logs, figures. */
#include "engine/local_testing.h"

static void test_exec(void **state)
{
	struct engine_sandbox s = run_sandbox("exec");
	struct engine_container_config c = shell("exec", "sleep 1000");
	const char *talk[] = { "/bin/sh", "-c",
		"echo out; echo err >&2; pwd; id -u; echo $A; exit 4", NULL };
	const char *dash[] = { "echo", "-n", "--help-me", "-c", NULL };
	const char *slow[] = { "/bin/sh", "-c", "echo begun; (sleep 777); echo over", NULL };
	const char *none[] = { "/nope", NULL };
	const char *endless[] = { "/bin/sh", "-c",
		"for i in 1 2 3 4; do cat /dev/zero & done; exit 5", NULL };
	const char *count[] = { "/bin/sh", "-c", "ps | grep -c '[s]leep 777'", NULL };
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
	assert_int_equal(
		engine->v->exec_sync(engine, id, slow, 300, &out, &code, &err), -ETIMEDOUT);
	must(engine->v->exec_sync(engine, id, count, 10000, &out, &code, &err));
	assert_string_equal(out.p, "0\n");
	must(engine->v->exec_sync(engine, id, none, 10000, &out, &code, &err));
	assert_int_not_equal(code, 0);
	/* what it leaves behind may talk for ever: nobody listens */
	alarm(20);
	must(engine->v->exec_sync(engine, id, endless, 10000, &out, &code, &err));
	alarm(0);
	assert_int_equal(code, 5);
	must(engine->v->container_stop(engine, id, 0, 0, &err));
	assert_int_equal(engine->v->exec_sync(engine, id, talk, 10000, &out, &code, &err), -ESRCH);
	remove_sandbox(&s);
}

static void test_exec_session(void **state)
{
	struct engine_sandbox s = run_sandbox("session");
	struct engine_container_config c = shell("session", "sleep 1000");
	const char *cat[] = { "/bin/sh", "-c", "cat; echo done >&2; exit 6", NULL },
		   *tty[] = { "/bin/sh", NULL };
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
	const char *none[] = { "/nope", NULL };
	int r = engine->v->exec(engine, id, none, true, true, false, true, &x, &err);
	if (r == 0) { /* crun made the terminal first: its words come out of that */
		read_until(x.out, "/nope");
		must(engine->v->session_wait(engine, &x, &code, &err));
		assert_int_not_equal(code, 0);
		close(x.in);
		close(x.out);
	} else {
		assert_has(str_of(err.text), "/nope");
	}
	remove_sandbox(&s);
}

static void test_attach(void **state)
{
	struct engine_sandbox s = run_sandbox("attach");
	struct engine_container_config c =
		shell("attach", "while read x; do echo got $x; echo also >&2; done; exit 2");
	struct engine_container_config t = shell("tty", "read x; echo got $x; stty size");
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

	/* A stdin that outlives its writer: the writer's end is the session's, and another one may come. */
	struct engine_container_config keeps = shell("keeps", "while read x; do echo got $x; done");
	keeps.stdin_open = true;
	start(&s, &keeps, other);
	for (int i = 0; i < 2; i++) {
		must(engine->v->attach(engine, other, true, true, true, &x, &err));
		assert_int_equal(write(x.in, "more\n", 5), 5);
		read_until(x.out, "got more\n");
		close(x.in);
		p.fd = x.pidfd;
		assert_int_equal(poll(&p, 1, 10000), 1);
		must(engine->v->session_wait(engine, &x, &code, &err));
		close(x.out);
		close(x.err);
	}
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

static void test_log_reopen_stats_update(void **state)
{
	struct engine_sandbox s = run_sandbox("log");
	struct engine_container_config c = shell("log",
		"echo first; i=0; while true; do i=$((i+1)); echo line $i; usleep 10000; done");
	struct engine_resources r = { .memory_limit = 64 << 20,
		.cpu_shares = 512,
		.cpu_quota_us = 50000,
		.cpu_period_us = 100000 };
	struct engine_container k;
	struct engine_stats stats;
	char id[ENGINE_ID];

	start(&s, &c, id);
	must(engine->v->container_status(engine, id, arena, &k, &err));
	sh(arena_fmt(arena, "while ! grep -q line %s; do sleep 0.005; done; mv %s %s.1",
		k.log_path.p, k.log_path.p, k.log_path.p)
			.p);
	must(engine->v->container_reopen_log(engine, id, &err));
	sh(arena_fmt(arena, "while ! grep -q line %s; do sleep 0.005; done; ! grep -q first %s",
		k.log_path.p, k.log_path.p)
			.p);
	must(engine->v->container_stats(engine, id, &stats, &err));
	assert_true(stats.cpu_ns > 0 && stats.memory_bytes > 0 &&
		stats.memory_working_set <= stats.memory_bytes && stats.pids >= 1);
	must(engine->v->container_update(engine, id, &r, &err));
	struct cgroup_stats ignored;
	struct local *l = local_of(engine);
	char name[PATH_MAX];
	path_fmt(name, "%s", container_find(l, id)->cgroup);
	assert_int_equal(cgroup_stats(l->cgroups, name, &ignored, &err), 0);
	if (cgroup_mode(l->cgroups) != CGROUP_V2)
		sh(arena_fmt(arena,
			"grep -qx 67108864 /sys/fs/cgroup/memory/%s/memory.limit_in_bytes; grep -qx 50000 /sys/fs/cgroup/cpu/%s/cpu.cfs_quota_us; "
			"grep -qx 512 /sys/fs/cgroup/cpu/%s/cpu.shares",
			name, name, name)
				.p);
	remove_sandbox(&s);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_exec),
	cmocka_unit_test(test_exec_session),
	cmocka_unit_test(test_attach),
	cmocka_unit_test(test_log_reopen_stats_update),
	cmocka_unit_test(test_nothing_is_left),
};

RUN(tests)
