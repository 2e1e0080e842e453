/* What a container of the local engine sees and is given. */
#include "engine/local_testing.h"

static void test_exit_codes_and_logs(void **state)
{
	struct engine_sandbox s = run_sandbox("codes");
	struct engine_container_config c =
		shell("codes", "echo out; echo err >&2; printf partial; exit 7");
	char id[ENGINE_ID];

	uint64_t t0 = mono_now_ns();
	start(&s, &c, id);
	uint64_t t1 = mono_now_ns();
	struct engine_container k = wait_exit(id);
	print_message("create and start: %.1f ms, to its end noticed: %.1f ms\n",
		(double)(t1 - t0) / 1e6, (double)(mono_now_ns() - t1) / 1e6);
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

static void test_surroundings(void **state)
{
	struct engine_sandbox s = run_sandbox("around");
	struct engine_container_config c = shell("around",
		"hostname; cat /etc/hostname /etc/resolv.conf; env; id; pwd; ip addr show eth0; ip route; ls -ld /; "
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
	struct engine_container_config c =
		shell("named", "id; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status");

	c.run_as_username = "user";
	c.supplemental_groups = more;
	c.n_supplemental_groups = 1;
	c.no_new_privs = true;
	struct str log = run_to_end(&s, &c, 0);
	assert_has(log, "uid=1000(user) gid=1001(user) groups=77,1001(user),1005(extra)");
	assert_has(log, "CapEff:\t0000000000000000\n");
	assert_has(log, "NoNewPrivs:\t1\n");
	c.name = "strict";
	c.only_given_groups = true;
	log = run_to_end(&s, &c, 0);
	assert_has(log, "uid=1000(user) gid=1001(user) groups=77,1001(user)\n");

	c = shell("numbered",
		"id; grep -E 'CapEff|CapBnd' /proc/self/status; touch /x || echo read-only");
	c.run_as_user = 0;
	c.run_as_group = 5;
	c.drop_capabilities = drop;
	c.add_capabilities = add;
	c.read_only_rootfs = true;
	log = run_to_end(&s, &c, 0);
	assert_has(log, "uid=0(root) gid=5");
	assert_has(log, "CapBnd:\t0000000000001000\n");
	assert_has(log, "read-only");

	c = shell("privileged",
		"grep CapEff /proc/self/status; ls -l /dev/kmsg; mount -t tmpfs none /tmp && echo mounted");
	c.privileged = true;
	log = run_to_end(&s, &c, 0);
	sh(arena_fmt(arena, "grep -q \"$(grep CapBnd /proc/self/status | cut -f2)\" %s",
		ROOT "/logs/privileged-*.log")
			.p);
	assert_has(log, "mounted");

	c = shell("nobody", "true");
	c.run_as_username = "ghost";
	char id[ENGINE_ID];
	assert_int_equal(engine->v->container_create(engine, s.id, &c, id, &err), -EINVAL);
	assert_has(str_of(err.text), "/etc/passwd knows no user \"ghost\"");
	/* 2^32 is no user but what is left of it in 32 bits: root */
	static const char *const large[] = { "4294967296", "4294967295", "-1", "1000:4294967296" };
	for (size_t i = 0; i < ARRAY_LEN(large); i++) {
		c.run_as_username = large[i];
		assert_int_equal(engine->v->container_create(engine, s.id, &c, id, &err), -EINVAL);
		assert_has(str_of(err.text), "between 0 and 2147483647");
	}
	/* What the pod says of its environment wins. */
	struct engine_env env = { STR("HOSTNAME"), STR("mine") };
	c = shell("env", "env | grep HOSTNAME");
	c.env = &env;
	c.n_env = 1;
	log = run_to_end(&s, &c, 0);
	assert_has(log, "F HOSTNAME=mine\n");
	assert_lacks(log, "HOSTNAME=users");
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
	struct engine_container_config c =
		shell("serve", "while true; do echo hello | nc -l -p 8080; done");
	char id[ENGINE_ID];
	int fd;

	start(&s, &c, id);
	/* The listener is there when it answers; nc tries until then. */
	const char *fetch = arena_fmt(arena,
		"i=0; until nc -w 2 %s 8080; do i=$((i+1)); [ $i -lt 200 ] || exit 1; usleep 10000; done",
		s.ip.p)
				    .p;
	c = shell("local",
		"i=0; until nc -w 2 127.0.0.1 8080; do i=$((i+1)); [ $i -lt 200 ] || exit 1; usleep 10000; done");
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

	if (r == 0 && (r = link_add_veth(n, &v, e)) == 0 &&
		(r = address_add(n, "eth0", inet_addr("192.0.2.2"), 24, e)) == 0)
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
	/* A firewall is reloaded: ours comes back by itself. */
	sh("nft list table ip skiff_engine; nft flush ruleset; i=0; "
	   "until nft list table ip skiff_engine 2>/dev/null | grep -q masquerade; do "
	   "i=$((i + 1)); [ $i -lt 500 ]; sleep 0.01; done");
}

static void test_mounts(void **state)
{
	struct engine_sandbox s = run_sandbox("mounts");
	struct engine_container_config c = shell("mounts",
		"cat /in/file; echo new > /out/file; echo x > /in/file || echo refused; cat "
		"/one; read x < /in/gate; cat /prop/late/file");
	struct engine_mount m[] = {
		{ "/in", ROOT "/m/in", true, 0 },
		{ "/out", ROOT "/m/out", false, 0 },
		{ "/one", ROOT "/m/in/file", true, 0 },
		{ "/prop", ROOT "/m/prop", false, 1 },
		{ "/etc/hosts", ROOT "/m/in/file", true, 0 },
	};
	char id[ENGINE_ID];

	sh("mkdir -p " ROOT "/m/in " ROOT "/m/out " ROOT "/m/prop; echo content > " ROOT
	   "/m/in/file; mkfifo " ROOT "/m/in/gate; "
	   "mount --bind " ROOT "/m/prop " ROOT "/m/prop; mount --make-shared " ROOT
	   "/m/prop; mkdir " ROOT "/m/prop/late");
	c.mounts = m;
	c.n_mounts = ARRAY_LEN(m);
	start(&s, &c, id);
	/* Mounted after the container was made: propagates into it. */
	sh("mount -t tmpfs none " ROOT "/m/prop/late; echo late > " ROOT
	   "/m/prop/late/file; echo go > " ROOT "/m/in/gate");
	struct engine_container k = wait_exit(id);
	struct str log = read_log(&k);
	assert_has(log, "F content\n");
	assert_has(log, "F refused\n");
	assert_has(log, "F late\n");
	sh("grep -q new " ROOT "/m/out/file");

	/* Both ways: what it mounts is seen outside. */
	c = shell("both",
		"mount -t tmpfs none /prop/back && echo in > /prop/back/file && read x < /in/gate");
	c.mounts = m;
	c.n_mounts = 5;
	m[3].propagation = 2;
	m[4] = (struct engine_mount){ "/again", ROOT "/m/prop", false,
		2 }; /* the same at two places */
	c.privileged = true;
	sh("mkdir " ROOT "/m/prop/back");
	start(&s, &c, id);
	sh("while ! grep -q in " ROOT "/m/prop/back/file; do sleep 0.005; done; echo go > " ROOT
	   "/m/in/gate");
	assert_int_equal(wait_exit(id).exit_code, 0);
	sh("umount " ROOT "/m/prop/back; umount " ROOT "/m/prop/late; umount " ROOT
	   "/m/prop; rm -r " ROOT "/m");
	remove_sandbox(&s);
}

/* Of the node itself: network, processes, shared memory. */
static void test_host_namespaces(void **state)
{
	struct engine_sandbox_config sc = { .name = "host",
		.namespace_ = "default",
		.uid = "host",
		.hostname = "ignored",
		.log_directory = ROOT "/logs",
		.cgroup_parent = arena_fmt(arena, "%s/podhost", cgroup_name).p,
		.host_network = true,
		.host_pid = true,
		.host_ipc = true };
	struct engine_container_config c = shell("host",
		"hostname; ip -o link; readlink /proc/1/ns/pid /proc/self/ns/pid; ls /dev/shm; "
		"(setsid sleep 986 >/dev/null 2>&1 &)");
	struct engine_sandbox s;
	char host[64];

	gethostname(host, sizeof(host));
	must(engine->v->sandbox_run(engine, &sc, arena, &s, &err));
	assert_int_equal(s.ip.len, 0);
	assert_true(s.host_network);
	struct str log = run_to_end(&s, &c, 0);
	assert_true(str_find_str(log, str_of(host)) >= 0);
	assert_has(log, "skifft0");
	remove_sandbox(&s);
	sh("! pgrep -f 'sleep 98[6]'"); /* it had left its container's main process behind, not its cgroup */
}

static void test_sysctls(void **state)
{
	struct engine_sandbox_config sc = { .name = "sysctls",
		.namespace_ = "default",
		.uid = "sysctls",
		.hostname = "sysctls",
		.log_directory = ROOT "/logs",
		.cgroup_parent = arena_fmt(arena, "%s/podsysctls", cgroup_name).p };
	__typeof__(*sc.sysctls) list[] = { { "net.ipv4.ip_unprivileged_port_start", "80" },
		{ "kernel.shm_rmid_forced", "1" } };
	__typeof__(*sc.sysctls) bad[] = { { "net.ipv4.no_such_thing", "1" } };
	struct engine_container_config c = shell("sysctls",
		"cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced");
	struct engine_sandbox s;

	sc.sysctls = (void *)list;
	sc.n_sysctls = 2;
	must(engine->v->sandbox_run(engine, &sc, arena, &s, &err));
	struct str log = run_to_end(&s, &c, 0);
	assert_has(log, "F 80\n");
	assert_has(log, "F 1\n");
	remove_sandbox(&s);
	sc.sysctls = (void *)bad;
	sc.n_sysctls = 1;
	assert_int_equal(engine->v->sandbox_run(engine, &sc, arena, &s, &err), -ENOENT);
	assert_has(str_of(err.text), "net.ipv4.no_such_thing");
	/* the machine's own are not within reach, nor those of a namespace that is shared with it */
	__typeof__(*sc.sysctls) machine[] = { { "kernel.panic_on_oops", "1" } };
	sc.sysctls = (void *)machine;
	assert_int_equal(engine->v->sandbox_run(engine, &sc, arena, &s, &err), -EPERM);
	sc.sysctls = (void *)list;
	sc.host_network = true;
	assert_int_equal(engine->v->sandbox_run(engine, &sc, arena, &s, &err), -EPERM);
	assert_has(str_of(err.text), "net.ipv4.ip_unprivileged_port_start");
}

/* A neighbour's copy of the mounts does not keep a pod's network namespace alive. */
static void test_neighbours_let_go(void **state)
{
	struct engine_sandbox first = run_sandbox("first"), second = run_sandbox("second");
	struct engine_container_config c = shell("neighbour", "sleep 1000");
	char id[ENGINE_ID];

	start(&second, &c, id);
	int conmon = (int)container_find(local_of(engine), id)->conmon_pid;
	sh(arena_fmt(arena, "grep -q %s /proc/%d/mountinfo", first.id, conmon).p);
	must(engine->v->sandbox_stop(engine, first.id, &err));
	sh(arena_fmt(arena, "! grep %s /proc/%d/mountinfo", first.id, conmon).p);
	remove_sandbox(&first);
	remove_sandbox(&second);
}

static void test_seccomp(void **state)
{
	struct engine_sandbox s = run_sandbox("seccomp");
	struct engine_container_config c = shell("default",
		"grep Seccomp: /proc/self/status; unshare -U true || echo no-unshare; chroot / "
		"/bin/true && echo chroot; "
		"(sleep 0.01 & wait); nc -h 2>&1 | head -1; date; ping -c 1 127.0.0.1 >/dev/null && echo ping; reboot -f || echo no-reboot");
	static const char *const add[] = { "SYS_ADMIN", NULL };

	c.seccomp_profile = "RuntimeDefault";
	uint64_t t = mono_now_ns();
	struct str log = run_to_end(&s, &c, 0);
	print_message("with the default seccomp profile, start to end: %.1f ms\n",
		(double)(mono_now_ns() - t) / 1e6);
	assert_has(log, "Seccomp:\t2");
	assert_has(log, "no-unshare");
	assert_has(log, "F chroot\n");
	assert_has(log, "F ping\n");
	assert_has(log, "no-reboot");
	c = shell("admin",
		"unshare -m true && echo unshared; mount -t tmpfs none /tmp && echo mounted");
	c.seccomp_profile = "RuntimeDefault";
	c.add_capabilities = add;
	log = run_to_end(&s, &c, 0);
	assert_has(log, "unshared");
	assert_has(log, "mounted");
	sh("printf '{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\"],\"action\":\"SCMP_ACT_ERRNO\"}]}' > " ROOT
	   "/profile");
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
	struct engine_sandbox_config sc = { .name = "shared",
		.namespace_ = "default",
		.uid = "shared",
		.hostname = "shared",
		.log_directory = ROOT "/logs",
		.cgroup_parent = arena_fmt(arena, "%s/podshared", cgroup_name).p,
		.share_process_namespace = true };
	struct engine_sandbox s;
	struct engine_container_config
		c = shell("first", "sleep 987"),
		d = shell("second",
			"ps; (sleep 0.01 &) ; sleep 0.1; grep -l "
			"'State:.Z' /proc/[0-9]*/status | wc -l; "
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
	/* Without it the sandbox is lost, and says so. */
	struct engine_sandbox *list;
	size_t n;
	sh("pkill -9 -x pause; while pgrep -x pause; do sleep 0.005; done");
	must(engine->v->sandbox_list(engine, arena, &list, &n, &err));
	assert_int_equal(n, 1);
	assert_int_equal(list[0].state, SANDBOX_NOT_READY);
	/* and no container is made in what the number of its process may name by now */
	d = shell("third", "true");
	assert_int_equal(engine->v->container_create(engine, s.id, &d, id, &err), -ESHUTDOWN);
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
	assert_int_equal(engine->v->image_status(engine, STR("test/other"), arena, &image, &err),
		ENGINE_NOT_FOUND);
	assert_true(engine->v->image_pull(engine, STR("test/other"), arena, &image, &err) < 0);
	assert_has(str_of(err.text), "skiff image import FILE test/other");
	must(engine->v->image_pull(
		engine, STR("docker.io/test/busybox:latest"), arena, &image, &err));
	start(&s, &c, id);
	assert_int_equal(engine->v->image_remove(engine, STR("test/busybox"), &err), -EBUSY);
	assert_has(str_of(err.text), "in use by the container \"images\"");
	remove_sandbox(&s);
}

static void test_many_at_once(void **state)
{
	struct engine_sandbox s = run_sandbox("many");
	uint64_t t = mono_now_ns(), create = 0, begin;
	char ids[20][ENGINE_ID];

	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		struct engine_container_config c =
			shell(arena_fmt(arena, "many%zu", i).p, "exit 0");
		begin = mono_now_ns();
		must(engine->v->container_create(engine, s.id, &c, ids[i], &err));
		create += mono_now_ns() - begin;
		must(engine->v->container_start(engine, ids[i], &err));
	}
	print_message("20 containers one after the other: %.1f ms each (create %.2f ms)\n",
		(double)(mono_now_ns() - t) / 20e6, (double)create / 20e6);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		assert_int_equal(wait_exit(ids[i]).exit_code, 0);
	t = mono_now_ns();
	remove_sandbox(&s);
	print_message("sandbox with 20 ended containers removed: %.1f ms\n",
		(double)(mono_now_ns() - t) / 1e6);
	t = mono_now_ns();
	struct engine_sandbox e[10];
	for (size_t i = 0; i < 10; i++)
		e[i] = run_sandbox("empty");
	print_message("10 sandboxes: %.1f ms each\n", (double)(mono_now_ns() - t) / 10e6);
	for (size_t i = 0; i < 10; i++)
		remove_sandbox(&e[i]);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_exit_codes_and_logs),
	cmocka_unit_test(test_surroundings),
	cmocka_unit_test(test_users),
	cmocka_unit_test(test_start_error),
	cmocka_unit_test(test_oom),
	cmocka_unit_test(test_network),
	cmocka_unit_test(test_masquerade),
	cmocka_unit_test(test_mounts),
	cmocka_unit_test(test_host_namespaces),
	cmocka_unit_test(test_sysctls),
	cmocka_unit_test(test_neighbours_let_go),
	cmocka_unit_test(test_seccomp),
	cmocka_unit_test(test_shared_processes),
	cmocka_unit_test(test_images),
	cmocka_unit_test(test_many_at_once),
	cmocka_unit_test(test_nothing_is_left),
};

RUN(tests)
