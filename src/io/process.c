/* Child processes by posix_spawn, waited for by pidfd: SIGCHLD and its handler stay free. */
#include "io/internal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define KEEP_MAX (1024 * 1024)

extern char **environ;

void process_result_deinit(struct process_result *r)
{
	buf_deinit(&r->out);
	buf_deinit(&r->err);
}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* Duplicates above every target, so that no dup2 in the child overwrites one that is still to come. */
static int lift_fds(const struct process_spec *s, int *lifted)
{
	size_t n = 3 + s->n_extra_fds;

	for (size_t i = 0; i < n; i++) {
		int fd = i < 3 ? s->stdio[i] : s->extra_fds[i - 3];
		CLEAN_FD int null = fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;

		lifted[i] = fcntl(fd < 0 ? null : fd, F_DUPFD_CLOEXEC, (int)n);
		if (lifted[i] < 0) {
			int r = -errno;

			close_all(lifted, i);
			return r;
		}
	}
	return 0;
}

static int spawn(const struct process_spec *s, const int *lifted, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
		(s->new_session ? POSIX_SPAWN_SETSID : 0);

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setflags(&attr, flags);
	for (size_t i = 0; i < 3 + s->n_extra_fds; i++)
		posix_spawn_file_actions_adddup2(&actions, lifted[i], (int)i);
	if (s->cwd)
		posix_spawn_file_actions_addchdir_np(&actions, s->cwd);
	int r = posix_spawnp(ret_pid, s->argv[0], &actions, &attr, (char *const *)s->argv,
		s->env ? (char *const *)s->env : environ);

	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return -r;
}

int process_spawn(const struct process_spec *s, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
	CLEAN_FREE int *lifted = xcalloc(3 + s->n_extra_fds, sizeof(*lifted));
	pid_t pid;
	int r = lift_fds(s, lifted);

	if (r < 0)
		return err_errno(err, r, "cannot start %s: descriptors", s->argv[0]);
	r = spawn(s, lifted, &pid);
	close_all(lifted, 3 + s->n_extra_fds);
	if (r < 0)
		return err_errno(err, r, "cannot start %s", s->argv[0]);
	if (ret_pidfd) {
		int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

		if (pidfd < 0) {
			r = -errno;
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			return err_errno(err, r, "cannot watch %s (pid %d)", s->argv[0], (int)pid);
		}
		*ret_pidfd = pidfd;
	}
	*ret_pid = pid;
	return 0;
}

/* One running process_run. Descriptors that are done are -1, which poll passes over. */
struct run {
	struct pollfd fds[4]; /* stdin, stdout, stderr, pidfd */
	struct str in;
	struct buf *kept[3];
};

/* write() that reports EPIPE without the signal, whatever the process does with SIGPIPE. */
static ssize_t write_quietly(int fd, struct str bytes)
{
	sigset_t pipe_only, before;

	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
	ssize_t n = write(fd, bytes.p, bytes.len);
	int saved = errno;

	if (n < 0 && saved == EPIPE && !sigismember(&before, SIGPIPE))
		sigtimedwait(&pipe_only, NULL, &(struct timespec){ 0 });
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return n;
}

static void feed_stdin(struct run *r)
{
	ssize_t n = r->in.len ? write_quietly(r->fds[0].fd, r->in) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	r->in = n < 0 ? STR_NONE
		      : str_from(r->in, (size_t)n); /* it stopped reading: not our failure */
	if (!r->in.len) {
		close(r->fds[0].fd);
		r->fds[0].fd = -1;
	}
}

static void keep_output(struct run *r, int i)
{
	char chunk[4096];
	ssize_t n = read(r->fds[i].fd, chunk, sizeof(chunk));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(r->fds[i].fd);
		r->fds[i].fd = -1;
		return;
	}
	if (r->kept[i]->len < KEEP_MAX)
		buf_add(r->kept[i], chunk, MIN((size_t)n, KEEP_MAX - r->kept[i]->len));
}

/* Until the process ended; its output is then read as far as it is there, even when a grandchild holds the pipe open. */
static int run_to_end(struct run *r, unsigned timeout_ms)
{
	uint64_t deadline = mono_now_ns() / 1000000 + timeout_ms;
	bool ended = false;

	for (;;) {
		int64_t left = timeout_ms ? (int64_t)(deadline - mono_now_ns() / 1000000) : -1;

		if (timeout_ms && left < 0)
			return -ETIMEDOUT;
		int n = poll(r->fds, 4, ended ? 0 : (int)MIN(left, (int64_t)INT32_MAX));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (ended && n <= 0)
			return 0;
		if (n <= 0)
			continue;
		if (r->fds[0].fd >= 0 && r->fds[0].revents)
			feed_stdin(r);
		for (int i = 1; i <= 2; i++)
			if (r->fds[i].fd >= 0 && r->fds[i].revents)
				keep_output(r, i);
		if (r->fds[3].fd >= 0 && r->fds[3].revents) {
			ended = true;
			close(r->fds[3].fd);
			r->fds[3].fd = -1;
		}
		if (ended && r->fds[1].fd < 0 && r->fds[2].fd < 0)
			return 0;
	}
}

static int make_stdio(int ours[3], int theirs[3])
{
	for (int i = 0; i < 3; i++) {
		int pair[2];

		if (pipe2(pair, O_CLOEXEC) < 0) {
			int r = -errno;

			close_all(ours, (size_t)i);
			close_all(theirs, (size_t)i);
			return r;
		}
		ours[i] = pair[i == 0];
		theirs[i] = pair[i != 0];
		if (i == 0)
			fcntl(ours[0], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

int process_run(const char *const *argv, struct str in, unsigned timeout_ms,
	struct process_result *ret, struct err *err)
{
	return process_run_env(argv, NULL, in, timeout_ms, ret, err);
}

int process_run_env(const char *const *argv, const char *const *env, struct str in,
	unsigned timeout_ms, struct process_result *ret, struct err *err)
{
	int ours[3], theirs[3], pidfd, wait_status;
	pid_t pid;
	int r = make_stdio(ours, theirs);

	if (r < 0)
		return err_errno(err, r, "cannot run %s", argv[0]);
	struct process_spec spec = {
		.argv = argv, .env = env, .stdio = { theirs[0], theirs[1], theirs[2] }
	};

	r = process_spawn(&spec, &pid, &pidfd, err);
	close_all(theirs, 3);
	if (r < 0) {
		close_all(ours, 3);
		return r;
	}
	struct process_result result = { 0 };
	struct run run = {
		.fds = { { ours[0], POLLOUT, 0 }, { ours[1], POLLIN, 0 }, { ours[2], POLLIN, 0 },
			{ pidfd, POLLIN, 0 } },
		.in = in,
		.kept = { NULL, &result.out, &result.err },
	};

	if (!in.len)
		feed_stdin(&run);
	r = run_to_end(&run, timeout_ms);
	if (r < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
		;
	for (size_t i = 0; i < ARRAY_LEN(run.fds); i++)
		close_all(&run.fds[i].fd, 1);
	if (r < 0) {
		process_result_deinit(&result);
		if (r == -ETIMEDOUT)
			return err_set(err, r, "%s did not end within %u ms and was killed",
				argv[0], timeout_ms);
		return err_errno(err, r, "cannot wait for %s", argv[0]);
	}
	result.status =
		WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
	*ret = result;
	return 0;
}
