/* Kernel glue on the real kernel, in mount and network namespaces of its own. Root only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/values.h"
#include "linux/internal.h"

#define DIR "/tmp/skiff linux-test" /* the space: mountinfo escapes it */

static char cgroup[64], pod[80], one[96]; /* named after the process: cgroups know no namespace */

static struct err err;

#define must(call) \
	do { \
		int r_ = (call); \
		if (r_ != 0) \
			fail_msg("%s: %d: %s", #call, r_, err.text); \
	} while (0)

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void assert_file(const char *path, const char *text)
{
	char found[256] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, found, sizeof(found) - 1) < 0)
		fail_msg("cannot read %s", path);
	close(fd);
	assert_string_equal(found, text);
}

/* ---- namespaces ---- */
static int name_host(void *arg, struct err *e)
{
	return sethostname(arg, strlen(arg)) < 0 ? err_errno(e, -errno, "sethostname") : 0;
}

static int read_host(void *arg, struct err *e)
{
	return gethostname(arg, 64);
}

static int refuse(void *arg, struct err *e)
{
	return err_set(e, -EDOM, "refused");
}

static int count_links(void *arg, struct err *e)
{
	struct if_nameindex *n = if_nameindex();

	for (int i = 0; n && n[i].if_index; i++)
		++*(int *)arg;
	if_freenameindex(n);
	return 0;
}

static void test_namespaces(void **state)
{
	const char *paths[NS_KINDS] = { DIR "/net", DIR "/uts", DIR "/ipc" };
	char before[64], after[64];
	int fd, links = 0;

	gethostname(before, sizeof(before));
	must(ns_create(paths, name_host, "inside", &err));
	gethostname(after, sizeof(after));
	assert_string_equal(before, after);
	for (int i = 0; i < NS_KINDS; i++)
		assert_true(ns_is_pinned(paths[i]));
	must(ns_open(paths[NS_NET], &fd, &err));
	struct ns_where where = { .net_fd = fd };
	must(ns_run(&where, count_links, &links, &err));
	assert_int_equal(links, 1);
	close(fd);
	must(ns_open(paths[NS_UTS], &fd, &err));
	close(fd);
	for (int i = 0; i < NS_KINDS; i++) {
		must(ns_unpin(paths[i], &err));
		must(ns_unpin(paths[i], &err));
		assert_int_equal(access(paths[i], F_OK), -1);
	}
	write_text(DIR "/net", "");
	assert_int_equal(ns_open(DIR "/net", &fd, &err), -ESTALE);
	assert_int_equal(ns_create(paths, refuse, NULL, &err), -EDOM);
	assert_string_equal(err.text, "refused");
	assert_int_equal(access(paths[NS_UTS], F_OK), -1);
	where = (struct ns_where){ .net_fd = -1, .private_mounts = true, .hide_cgroup2 = true };
	must(ns_run(&where, read_host, after, &err));
	assert_string_equal(before, after);
}

/* ---- mounts ---- */
static int overlay_inside(void *arg, struct err *e)
{
	const char *const lower[] = { "top", "base" };
	struct mount_overlay o = { .lower_dir = DIR "/layers",
		.lower = lower,
		.n_lower = 2,
		.upper = DIR "/upper",
		.work = DIR "/work" };
	int r = mount_overlay(&o, DIR "/merged", e);

	if (r < 0)
		return r;
	assert_file(DIR "/merged/a", "base");
	assert_file(DIR "/merged/b", "top");
	write_text(DIR "/merged/c", "new");
	return 0;
}

static void test_mounts(void **state)
{
	static const char *const folders[] = { "layers", "layers/top", "layers/base", "upper",
		"work", "merged", "t" };
	struct ns_where where = { .net_fd = -1, .private_mounts = true };

	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		char path[PATH_MAX];
		snprintf(path, sizeof(path), DIR "/%s", folders[i]);
		mkdir(path, 0755);
	}
	write_text(DIR "/layers/base/a", "base");
	write_text(DIR "/layers/base/b", "base");
	write_text(DIR "/layers/top/b", "top");
	must(ns_run(&where, overlay_inside, NULL, &err));
	assert_file(DIR "/upper/c", "new");
	assert_int_equal(access(DIR "/merged/a", F_OK), -1); /* the mount was the thread's alone */
	assert_false(mount_is_point(DIR "/t"));
	must(mount_tmpfs(DIR "/t", 1 << 20, 0700, &err));
	assert_true(mount_is_point(DIR "/t"));
	assert_false(mount_is_shared(DIR "/t"));
	must(mount_propagation(DIR "/t", MS_SHARED, &err));
	assert_true(mount_is_shared(DIR "/t"));
	mkdir(DIR "/t/x", 0755);
	must(mount_bind(DIR "/layers", DIR "/t/x", true, true, &err));
	assert_int_equal(open(DIR "/t/x/new", O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(errno, EROFS);
	must(mount_remove_below(DIR "/t", &err));
	assert_false(mount_is_point(DIR "/t"));
	must(mount_remove(DIR "/t", &err));
	must(mount_remove(DIR "/nowhere", &err));
}

static void test_paths(void **state)
{
	const char *name;
	char text[8];
	int fd;

	mkdir(DIR "/root", 0755);
	mkdir(DIR "/root/etc", 0755);
	write_text(DIR "/outside", "outside");
	write_text(DIR "/root/etc/file", "inside");
	assert_int_equal(symlink("/etc", DIR "/root/absolute"), 0);
	assert_int_equal(symlink("../../../../etc", DIR "/root/relative"), 0);
	int root = open(DIR "/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	static const char *const inside[] = { "etc/file", "/etc/file", "absolute/file",
		"relative/file", "../../etc/file" };
	for (size_t i = 0; i < ARRAY_LEN(inside); i++) {
		fd = path_open_in_root(root, inside[i], O_RDONLY, 0);
		assert_true(fd >= 0 && read(fd, text, 6) == 6 && !memcmp(text, "inside", 6));
		close(fd);
	}
	assert_int_equal(path_open_in_root(root, "../outside", O_RDONLY, 0), -ENOENT);
	must(path_open_parent(root, "absolute/made/here/x", 0755, &fd, &name));
	assert_string_equal(name, "x");
	close(fd);
	assert_int_equal(access(DIR "/root/etc/made/here", F_OK), 0);
	assert_int_equal(path_open_parent(root, "none/x", 0, &fd, &name), -ENOENT);
	assert_int_equal(path_open_parent(root, "a/..", 0755, &fd, &name), -EINVAL);
	assert_int_equal(path_open_parent(root, "/", 0755, &fd, &name), -EINVAL);
	assert_int_equal(path_open_parent(root, "etc/file/x", 0755, &fd, &name), -ENOTDIR);
	close(root);
}

/* ---- cgroups ---- */
static void test_cgroups(void **state)
{
	struct cgroup_limits l = { 512, 50000, 100000, 64 << 20, 100 };
	struct cgroup_stats s;
	struct cgroups *c;

	must(cgroup_open(&c, &err));
	uint64_t limit = cgroup_root_memory(c, &s);
	assert_true(limit < 1ull << 60); /* "none" is no number */
	assert_true(!limit || s.memory_working_set <= s.memory_bytes);
	must(cgroup_create(c, one, &err));
	must(cgroup_create(c, one, &err));
	must(cgroup_set(c, pod, &l, &err));
	l.memory_bytes = 128 << 20; /* up, then down: the swap limit goes before or after */
	must(cgroup_set(c, pod, &l, &err));
	l.memory_bytes = 32 << 20;
	must(cgroup_set(c, pod, &l, &err));
	l = (struct cgroup_limits){ -1, 0, 0, 0, 0 };
	must(cgroup_set(c, pod, &l, &err));
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	must(cgroup_add(c, one, child, &err));
	must(cgroup_stats(c, one, &s, &err));
	assert_int_equal(s.pids, 1);
	assert_int_equal(cgroup_oom_kills(c, one), 0);
	must(cgroup_remove(c, cgroup, &err));
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_false(cgroup_exists(c, cgroup));
	must(cgroup_remove(c, cgroup, &err));
	assert_int_equal(cgroup_stats(c, cgroup, &s, &err), -ENOENT);
	assert_int_equal(cgroup_create(c, "../escape", &err), -EINVAL);
	assert_int_equal(cgroup_create(c, "", &err), -EINVAL);
	cgroup_close(c);
}

/* Whoever dies makes room for another. */
static void run_away(int go)
{
	char c;

	signal(SIGCHLD, SIG_IGN);
	if (read(go, &c, 1) == 1)
		for (;;)
			fork();
}

static void test_runaways(void **state)
{
	struct cgroup_limits l = CGROUP_LIMITS_NONE;
	struct cgroups *c;
	int go[2];

	must(cgroup_open(&c, &err));
	must(cgroup_create(c, one, &err));
	l.pids = 300;
	must(cgroup_set(c, one, &l, &err));
	assert_int_equal(pipe(go), 0);
	/* of a process between, so that the kernel buries them */
	pid_t between = fork();
	if (between == 0) {
		signal(SIGCHLD, SIG_IGN);
		for (int i = 0; i < 20; i++) {
			pid_t p = fork();
			if (p == 0)
				run_away(go[0]);
			if (cgroup_add(c, one, p, &err) < 0)
				_exit(1);
		}
		_exit(write(go[1], "xxxxxxxxxxxxxxxxxxxx", 20) != 20);
	}
	int status;
	waitpid(between, &status, 0);
	assert_int_equal(status, 0);
	uint64_t begin = mono_now_ns();
	must(cgroup_kill(c, one, &err));
	assert_true(mono_now_ns() - begin < 5000000000);
	must(cgroup_remove(c, cgroup, &err));
	cgroup_close(c);
	close(go[0]);
	close(go[1]);
}

/* ---- network ---- */
static void test_links(void **state)
{
	const uint8_t mac[6] = { 0x0a, 0x58, 10, 9, 0, 1 };
	const char *paths[NS_KINDS] = { DIR "/net" };
	struct netlink *n;
	char name[16];
	int fd, index, mtu;
	uint32_t source;

	must(netlink_open(&n, &err));
	assert_int_equal(route_default_link(n, &index, &source), -ENOENT);
	must(link_add_bridge(n, "br0", 1400, mac, &err));
	must(link_add_bridge(n, "br0", 1400, mac, &err));
	must(address_add(n, "br0", inet_addr("10.9.0.1"), 24, &err));
	must(address_add(n, "br0", inet_addr("10.9.0.1"), 24, &err));
	must(link_set_up(n, "br0", &err));
	must(ns_create(paths, NULL, NULL, &err));
	must(ns_open(paths[NS_NET], &fd, &err));
	struct link_veth v = { .name = "v0", .peer = "eth0", .peer_netns_fd = fd, .mtu = 1400 };
	must(link_add_veth(n, &v, &err));
	assert_int_equal(link_add_veth(n, &v, &err), -EEXIST);
	must(link_set_up(n, "v0", &err));
	must(link_find(n, "v0", &index));
	must(link_name_mtu(n, index, name, &mtu, &err));
	assert_string_equal(name, "v0");
	assert_int_equal(mtu, 1400);
	assert_int_equal(link_find(n, "none", &index), -ENODEV);
	assert_int_equal(link_set_up(n, "none", &err), -ENODEV);
	must(route_set(n, inet_addr("10.10.0.0"), 16, inet_addr("10.9.0.7"), NULL, &err));
	must(route_set(n, inet_addr("10.10.0.0"), 16, inet_addr("10.9.0.8"), "br0", &err));
	must(route_set(n, 0, 0, inet_addr("10.9.0.9"), "br0", &err));
	must(route_default_link(n, &index, &source));
	assert_int_equal(index, (int)if_nametoindex("br0"));
	must(route_delete(n, inet_addr("10.10.0.0"), 16, &err));
	must(route_delete(n, inet_addr("10.10.0.0"), 16, &err));
	must(neighbor_set(n, "br0", inet_addr("10.9.0.8"), mac, &err));
	must(neighbor_delete(n, "br0", inet_addr("10.9.0.8"), &err));
	must(neighbor_delete(n, "br0", inet_addr("10.9.0.8"), &err));
	must(address_delete(n, "br0", inet_addr("10.9.0.1"), 24, &err));
	must(address_delete(n, "br0", inet_addr("10.9.0.1"), 24, &err));
	must(link_delete(n, "v0", &err));
	must(link_delete(n, "v0", &err));
	must(link_delete(n, "br0", &err));
	close(fd);
	must(ns_unpin(paths[NS_NET], &err));
	netlink_close(n);
}

static int give_up(const struct nlmsghdr *h, void *arg)
{
	errno = EINTR; /* as libmnl does for a list that changed while it was read */
	return MNL_CB_ERROR;
}

/* One question that fails half-way is not the end of all others. */
static void test_given_up(void **state)
{
	struct netlink *n;
	struct request q;
	char name[16];
	int index;

	must(netlink_open(&n, &err));
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "given-up%d", i);
		must(link_add_bridge(
			n, name, 1400, (const uint8_t[6]){ 2, 0, 0, 0, 0, (uint8_t)i }, &err));
	}
	link_request(&q, RTM_GETLINK, NLM_F_DUMP, 0);
	assert_int_equal(request_run(n, &q, give_up, NULL), -EINTR);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "given-up%d", i);
		must(link_find(n, name, &index));
		must(link_delete(n, name, &err));
	}
	netlink_close(n);
}

static void test_nftables(void **state)
{
	CLEAN_BUF struct buf out = { 0 };

	must(nft_apply(
		"table ip skifft {\nmap m { type ipv4_addr : verdict; }\nchain c { }\n}", &err));
	must(nft_apply(
		"add element ip skifft m { 10.0.0.1 : drop }\nadd element ip skifft m { 10.0.0.2 : accept }",
		&err));
	must(nft_read("list map ip skifft m", false, &out, &err));
	assert_non_null(strstr(out.p, "10.0.0.2 : accept"));
	/* One bad line: nothing of the batch is done. */
	assert_true(
		nft_apply(
			"add element ip skifft m { 10.0.0.3 : drop }\nadd element ip skifft none { 10.0.0.4 : drop }",
			&err) < 0);
	assert_non_null(strstr(err.text, "nftables refused"));
	buf_clear(&out);
	must(nft_read("list map ip skifft m", true, &out, &err));
	assert_null(strstr(out.p, "10.0.0.3"));
	assert_non_null(strstr(out.p, "10.0.0.1"));
	must(nft_apply("delete table ip skifft", &err));
	assert_int_equal(nft_read("list table ip skifft", false, &out, &err), -ENOENT);
}

/* ---- the rest ---- */
static void test_sysctls(void **state)
{
	CLEAN_BUF struct buf b = { 0 };

	must(sysctl_set("net.ipv4.ip_forward", "1", &err));
	must(sysctl_get("net/ipv4/ip_forward", &b, &err));
	assert_string_equal(b.p, "1");
	assert_int_equal(sysctl_set("net.netfilter.nf_conntrack_nothing", "1", &err), -ENOENT);
	assert_non_null(strstr(err.text, "modprobe nf_conntrack"));
	assert_int_equal(sysctl_set("../../etc/passwd", "1", &err), -EINVAL);
	char id[37];
	must(boot_id(id, &err));
	assert_int_equal(strlen(id), 36);
}

static void test_processes(void **state)
{
	uint64_t start, other;
	pid_t child = fork();

	if (child == 0) {
		pause();
		_exit(0);
	}
	int fd = pidfd_of(child);
	assert_true(fd >= 0);
	must(process_start_time(child, &start));
	assert_true(process_alive(child, start));
	assert_false(process_alive(child, start + 1));
	assert_int_equal(pidfd_wait(fd, 10), -ETIMEDOUT);
	must(pidfd_signal(fd, SIGTERM));
	must(pidfd_wait(fd, INT64_MAX)); /* no sum of it becomes "at once" */
	must(pidfd_wait(fd, -1));
	assert_false(process_alive(child, start)); /* a zombie by now */
	waitpid(child, NULL, 0);
	assert_int_equal(pidfd_signal(fd, SIGTERM), -ESRCH);
	assert_int_equal(process_start_time(child, &other), -ESRCH);
	assert_int_equal(pidfd_of(child), -ESRCH);
	close(fd);
}

static void *fork_one(void *arg)
{
	if (fork() == 0)
		for (;;)
			pause();
	if (write(*(int *)arg, "x", 1) == 1)
		pause();
	return NULL;
}

/* Process 1 of a namespace: how many of a tree of 600 live on after it was killed. */
static int kill_many(void)
{
	const struct timespec patience = { .tv_sec = 2 };
	int ready[2];
	sigset_t ended;
	glob_t there;
	char c;

	if (mount("proc", "/proc", "proc", 0, NULL) || pipe(ready))
		return 100;
	pid_t top = fork();
	if (top == 0) {
		for (int i = 0; i < 600; i++)
			if (fork() == 0)
				for (;;)
					pause();
		/* One more, by a thread that is not the first. */
		pthread_t t;
		pthread_create(&t, NULL, fork_one, &ready[1]);
		for (;;)
			pause();
	}
	if (read(ready[0], &c, 1) != 1)
		return 101;
	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ended, NULL);
	process_kill_tree(top);
	/* All are ours once their parent is gone. A kill is only on its way when it returns: who was missed shows by never ending. */
	for (size_t left = 1; left; globfree(&there)) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (glob("/proc/[0-9]*", 0, NULL, &there))
			return 102;
		left = there.gl_pathc - 1; /* we are there too */
		if (left && sigtimedwait(&ended, NULL, &patience) < 0)
			return (int)MIN(left, (size_t)99);
	}
	return 0;
}

/* More children than fit a first look, and none of them by half a number. */
static void test_kill_tree(void **state)
{
	int status;
	pid_t between = fork();

	if (between == 0) {
		if (unshare(CLONE_NEWPID | CLONE_NEWNS))
			_exit(1);
		pid_t init = fork();
		if (init == 0)
			_exit(kill_many());
		waitpid(init, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	}
	waitpid(between, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int setup(void **state)
{
	snprintf(cgroup, sizeof(cgroup), "skiff-linux-test-%d", getpid());
	snprintf(pod, sizeof(pod), "%s/pod", cgroup);
	snprintf(one, sizeof(one), "%s/one", pod);
	return mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0 || mkdir(DIR, 0700) < 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_namespaces),
		cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_cgroups),
		cmocka_unit_test(test_runaways),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_nftables),
		cmocka_unit_test(test_sysctls),
		cmocka_unit_test(test_processes),
		cmocka_unit_test(test_kill_tree),
	};

	if (geteuid() != 0) {
		fprintf(stderr, "skipped: the kernel glue's tests need root\n");
		return 0;
	}
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		perror("unshare");
		return 1;
	}
	return cmocka_run_group_tests(tests, setup, NULL);
}
