/* Loops, timers, watches, pools, processes and files. Waiting is always for an event; the alarm ends a test that hangs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "io/io.h"

static struct loop *loop;
static int order[64], n_order;
static char *dir;

static int begin(void **state)
{
	char template[] = "/tmp/io-test-XXXXXX";

	alarm(60);
	n_order = 0;
	dir = xstrdup(mkdtemp(template));
	return loop_new("test", &loop, NULL);
}

static int end(void **state)
{
	struct err err = { "" };

	loop_free(loop);
	if (dir_remove_tree(dir, &err) < 0)
		fail_msg("%s", err.text);
	free(dir);
	return 0;
}

static void note(void *arg)
{
	order[n_order++] = (int)(intptr_t)arg;
}

static void stop(void *arg)
{
	loop_stop(loop);
}

/* ---- loop ---- */

static void turn_end(void *arg)
{
	note((void *)100);
}

static void post_more(void *arg)
{
	loop_at_turn_end(loop, turn_end, NULL);
	loop_post(loop, note, (void *)3);
	loop_post(loop, stop, NULL);
	loop_post(loop, note, (void *)4);
	note((void *)1);
}

static void posts_in_order(void **state)
{
	loop_post(loop, post_more, NULL);
	loop_post(loop, note, (void *)2);
	assert_false(loop_is_current(loop));
	loop_run(loop);
	/* What was posted before the stop ran, and the end of the first turn came before the second turn's posts. */
	const int want[] = { 1, 2, 100, 3, 4 };

	assert_int_equal(n_order, 5);
	assert_memory_equal(order, want, sizeof(want));
}

static atomic_int counted;

static void count(void *arg)
{
	assert_true(loop_is_current(loop));
	if (atomic_fetch_add(&counted, 1) == 3999)
		loop_stop(loop);
}

static void *post_many(void *arg)
{
	for (int i = 0; i < 1000; i++)
		loop_post(loop, count, NULL);
	return NULL;
}

static void posts_from_threads(void **state)
{
	pthread_t threads[4];

	assert_int_equal(loop_start(loop, NULL), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(thread_start(&threads[i], "poster", post_many, NULL), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	loop_join(loop);
	assert_int_equal(counted, 4000);
}

static struct timer *ticking;

#define DEEP (128 * 1024)

static __attribute__((noinline)) void go_deep(void)
{
	char b[DEEP];

	memset(b, 1, sizeof(b));
	__asm__ volatile("" : : "r"(b) : "memory"); /* as if they were read */
}

static bool resident(uintptr_t at)
{
	unsigned char page = 0;

	at &= ~((uintptr_t)getpagesize() - 1);
	return mincore((void *)at, 1, &page) == 0 && page & 1;
}

static void *deep_thread(void *arg)
{
	uintptr_t middle = (uintptr_t)__builtin_frame_address(0) - DEEP / 2;
	bool *kept = arg, before;
	char mine[] = "mine";

	go_deep();
	before = resident(middle);
	thread_release_stack();
	*kept = !before || resident(middle) || strcmp(mine, "mine") != 0;
	go_deep(); /* there again when it is used */
	return NULL;
}

static void stacks_are_given_back(void **state)
{
	pthread_t thread;
	bool kept = true;

	assert_int_equal(thread_start(&thread, "deep", deep_thread, &kept), 0);
	pthread_join(thread, NULL);
	assert_false(kept);
}

static void tick(void *arg)
{
	note((void *)7);
	if (n_order == 3) {
		timer_stop(ticking);
		loop_stop(loop);
	}
}

static void timers(void **state)
{
	struct timer *never = timer_new(loop, stop, NULL);
	uint64_t start = mono_now_ns();

	ticking = timer_new(loop, tick, NULL);
	timer_start(never, 1, 0);
	timer_stop(never);
	timer_start(ticking, 5, 10);
	loop_run(loop);
	assert_int_equal(n_order, 3);
	assert_true(mono_now_ns() - start >= 24000000);
	timer_free(never);
	timer_free(ticking);
}

static int pipe_fds[2];
static struct fd_watch *watched;

static void readable(void *arg, int events)
{
	char byte;

	assert_int_equal(events, IO_READ);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	fd_watch_free(watched);
	loop_stop(loop);
}

static void write_byte(void *arg)
{
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	fd_watch_set(watched, IO_READ);
}

static void descriptors(void **state)
{
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(fd_watch_new(loop, pipe_fds[0], 0, readable, NULL, &watched, NULL), 0);
	loop_post(loop, write_byte, NULL);
	loop_run(loop);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void raise_it(void *arg)
{
	kill(getpid(), SIGUSR1);
}

static void signals(void **state)
{
	struct signal_watch *w;

	assert_int_equal(signal_watch_new(loop, SIGUSR1, stop, NULL, &w, NULL), 0);
	loop_post(loop, raise_it, NULL);
	loop_run(loop);
	signal_watch_free(w);
}

static struct buf seen;

static void on_change(void *arg, const char *name)
{
	buf_addf(&seen, "%s ", name ? name : "?");
	if (name && !strcmp(name, "last"))
		loop_stop(loop);
}

static void change_files(void *arg)
{
	CLEAN_FREE char *a = xasprintf("%s/a", dir), *last = xasprintf("%s/last", dir);

	assert_int_equal(file_write_atomic(a, STR("1"), 0600, false, NULL), 0);
	unlink(a);
	assert_int_equal(mkdir(last, 0700), 0);
}

static void folders(void **state)
{
	struct dir_watch *w;
	struct err err;

	assert_int_equal(
		dir_watch_new(loop, "/no/such/folder", on_change, NULL, &w, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/no/such/folder"));
	assert_int_equal(dir_watch_new(loop, dir, on_change, NULL, &w, NULL), 0);
	loop_post(loop, change_files, NULL);
	loop_run(loop);
	/* Created beside, renamed into place, deleted. */
	assert_non_null(strstr(seen.p, "a.new-"));
	assert_non_null(strstr(seen.p, " a a last"));
	dir_watch_free(w);
	buf_deinit(&seen);
}

/* ---- pool ---- */

static atomic_int together, done;
static pthread_barrier_t barrier;

static void meet(void *arg)
{
	/* Passes only when four jobs run at once. */
	pthread_barrier_wait(&barrier);
	atomic_fetch_add(&together, 1);
}

static void one(void *arg)
{
	atomic_fetch_add(&done, 1);
}

static void pools(void **state)
{
	struct pool *p = pool_new("test", 4);

	pthread_barrier_init(&barrier, NULL, 4);
	for (int i = 0; i < 8; i++)
		pool_submit(p, meet, NULL);
	for (int i = 0; i < 1000; i++)
		pool_submit(p, one, NULL);
	pool_free(p);
	assert_int_equal(together, 8);
	assert_int_equal(done, 1000);
	pthread_barrier_destroy(&barrier);
}

/* ---- processes ---- */

static int run(const char *script, struct str in, unsigned timeout, struct process_result *ret,
	struct err *err)
{
	return process_run(
		(const char *const[]){ "sh", "-c", script, NULL }, in, timeout, ret, err);
}

static void processes(void **state)
{
	struct process_result r;
	struct err err;

	assert_int_equal(run("cat; echo oops >&2; exit 3", STR("hello"), 0, &r, &err), 0);
	assert_int_equal(r.status, 3);
	assert_string_equal(r.out.p, "hello");
	assert_string_equal(r.err.p, "oops\n");
	process_result_deinit(&r);
	assert_int_equal(run("kill -9 $$", STR_NONE, 0, &r, &err), 0);
	assert_int_equal(r.status, 137);
	process_result_deinit(&r);
	assert_int_equal(run("exec sleep 60", STR_NONE, 50, &r, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "sh did not end"));
	assert_int_equal(process_run((const char *const[]){ "no-such-program", NULL }, STR_NONE, 0,
				 &r, &err),
		-ENOENT);
	assert_non_null(strstr(err.text, "no-such-program"));
	/* More than is kept, and a child that does not read what it is given. */
	CLEAN_FREE char *large = xcalloc(1, 3000000);

	assert_int_equal(run("head -c 2000000 /dev/zero", str_n(large, 3000000), 0, &r, &err), 0);
	assert_int_equal(r.out.len, 1024 * 1024);
	process_result_deinit(&r);
	/* A grandchild that keeps the output open is not waited for. */
	assert_int_equal(run("sleep 30 & echo quick", STR_NONE, 20000, &r, &err), 0);
	assert_true(str_has_prefix(buf_str(&r.out), STR("quick")));
	process_result_deinit(&r);
}

static void spawning(void **state)
{
	int out[2], extra[2], pidfd, status;
	char text[64] = "";
	pid_t pid;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(extra, O_CLOEXEC), 0);
	assert_int_equal(write(extra[1], "extra\n", 6), 6);
	close(extra[1]);
	const struct process_spec spec = {
		.argv = (const char *const[]){ "sh", "-c",
			"read x <&3; echo $x $V $(pwd) $(cat | wc -c); exit 5", NULL },
		.env = (const char *const[]){ "V=env", "PATH=/usr/bin:/bin", NULL },
		.cwd = "/",
		.stdio = { -1, out[1], -1 },
		.extra_fds = &extra[0],
		.n_extra_fds = 1,
		.new_session = true,
	};

	assert_int_equal(process_spawn(&spec, &pid, &pidfd, NULL), 0);
	close(out[1]);
	close(extra[0]);
	struct pollfd p = { pidfd, POLLIN, 0 };

	assert_int_equal(poll(&p, 1, -1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 5);
	assert_true(read(out[0], text, sizeof(text) - 1) > 0);
	assert_string_equal(text, "extra env / 0\n");
	close(out[0]);
	close(pidfd);
}

/* ---- files ---- */

static void files(void **state)
{
	CLEAN_FREE char *path = xasprintf("%s/x/y/file", dir), *parent = xasprintf("%s/x/y", dir);
	CLEAN_BUF struct buf b = { 0 };
	struct stat st;
	struct err err;

	assert_int_equal(file_write_atomic(path, STR("1"), 0640, true, &err), -ENOENT);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(dir_make(parent, 0700, &err), 0);
	assert_int_equal(dir_make(parent, 0700, &err), 0);
	assert_int_equal(file_write_atomic(path, STR("first"), 0640, true, &err), 0);
	assert_int_equal(file_write_atomic(path, STR("second"), 0666, true, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(file_read(path, 6, &b, &err), 0);
	assert_string_equal(b.p, "second");
	assert_int_equal(file_read(path, 5, &b, &err), -EFBIG);
	assert_string_equal(b.p, "second");
	assert_int_equal(dir_make(path, 0700, &err), -ENOTDIR);
	assert_int_equal(file_read("/proc/self/status", 100000, &b, &err), 0);
	assert_non_null(strstr(b.p, "Name:"));
}

/* More files than it has threads; a pipe is passed by. */
static void a_folder_is_made_durable(void **state)
{
	CLEAN_FREE char *folder = xasprintf("%s/durable", dir),
			*fifo = xasprintf("%s/fifo", folder);
	struct err err;

	assert_int_equal(dir_sync(folder, &err), -ENOENT);
	assert_non_null(strstr(err.text, folder));
	assert_int_equal(dir_make(folder, 0700, &err), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	for (int i = 0; i < 40; i++) {
		CLEAN_FREE char *path = xasprintf("%s/%d", folder, i);

		assert_int_equal(file_write_atomic(path, STR("x"), 0600, false, &err), 0);
	}
	int before = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(before);
	assert_int_equal(dir_sync(folder, &err), 0);
	int after = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(after);
	assert_int_equal(after, before); /* no descriptor stays open */
}

static void make_deep(const char *top, int depth)
{
	CLEAN_FD int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (int i = 0; i < depth; i++) {
		assert_int_equal(mkdirat(fd, "d", 0700), 0);
		int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		CLEAN_FD int file = openat(fd, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		assert_true(next >= 0 && file >= 0);
		close(fd);
		fd = next;
	}
}

static void removing(void **state)
{
	CLEAN_FREE char *tree = xasprintf("%s/tree", dir), *outside = xasprintf("%s/outside", dir);
	CLEAN_FREE char *link_path = xasprintf("%s/tree/link", dir),
			*kept = xasprintf("%s/outside/kept", dir);
	struct err err = { "" };
	struct stat st;

	assert_int_equal(dir_remove_tree(tree, &err), 0);
	assert_int_equal(mkdir(tree, 0700), 0);
	assert_int_equal(mkdir(outside, 0700), 0);
	assert_int_equal(file_write_atomic(kept, STR("x"), 0600, false, &err), 0);
	assert_int_equal(symlink(outside, link_path), 0);
	make_deep(tree, 3000);
	int r = dir_remove_tree(tree, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(lstat(tree, &st), -1);
	assert_int_equal(stat(kept, &st), 0);
	/* A link as the top goes itself. */
	assert_int_equal(symlink(outside, tree), 0);
	assert_int_equal(dir_remove_tree(tree, &err), 0);
	assert_int_equal(stat(kept, &st), 0);
}

/* In a mount namespace of its own, which ends with the process. */
static int remove_with_mount(const char *tree)
{
	CLEAN_FREE char *inner = xasprintf("%s/inner", tree),
			*file = xasprintf("%s/inner/file", tree);
	struct err err = { "" };

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	if (dir_make(inner, 0700, &err) < 0 || mount("tmpfs", inner, "tmpfs", 0, "size=64k") < 0)
		return 1;
	if (file_write_atomic(file, STR("x"), 0600, false, &err) < 0)
		return 2;
	if (dir_remove_tree(tree, &err) != -EBUSY || !strstr(err.text, "mounted"))
		return 3;
	return access(file, F_OK) == 0 ? 0 : 4;
}

static void mounts_are_kept(void **state)
{
	CLEAN_FREE char *tree = xasprintf("%s/tree", dir);
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(remove_with_mount(tree));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WEXITSTATUS(status) == 77)
		skip(); /* only root may mount */
	assert_int_equal(status, 0);
}

int main(void)
{
#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		LOOP_TEST(posts_in_order),
		LOOP_TEST(posts_from_threads),
		cmocka_unit_test(stacks_are_given_back),
		LOOP_TEST(timers),
		LOOP_TEST(descriptors),
		LOOP_TEST(signals),
		LOOP_TEST(folders),
		LOOP_TEST(pools),
		LOOP_TEST(processes),
		LOOP_TEST(spawning),
		LOOP_TEST(files),
		LOOP_TEST(removing),
		LOOP_TEST(mounts_are_kept),
		LOOP_TEST(a_folder_is_made_durable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
