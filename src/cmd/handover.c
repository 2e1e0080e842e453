/* How another build takes over while the work goes on: told to by SIGHUP, a process becomes its successor by execve, under the same process id. What waits at
 * its doors is not lost: sockets that listen go with it, and connections and questions that come meanwhile wait in them.
 *
 * 1. The successor is the file that lies where this process was started from. It must be able to say its version; otherwise all stays as it is.
 * 2. Processes that this one started are the successor's children, and it alone can reap them.
 * 3. What is handed over stands in one environment variable, as name=number,…; it is gone from the environment before anything else is started. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "io/io.h"

#define VARIABLE "SKIFF_HANDOVER"
#define CHECK_MS 10000
#define GONE " (deleted)" /* what the kernel puts behind the name of a file that was replaced */

static struct {
	char **argv;
	char *program, *inherited;
} self;

void handover_begin(char **argv)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	size_t gone = strlen(GONE);

	if (n > (ssize_t)gone && !memcmp(path + n - gone, GONE, gone))
		n -= (ssize_t)gone;
	self.argv = argv;
	self.program = n > 0 ? xasprintf("%.*s", (int)n, path) : xstrdup(argv[0]);
	if (getenv(VARIABLE))
		self.inherited = xstrdup(getenv(VARIABLE));
	unsetenv(VARIABLE);
}

int handover_number(const char *name)
{
	struct str rest = str_of(self.inherited), pair, key, value;
	int64_t n;

	while (rest.len) {
		str_cut(rest, ',', &pair, &rest);
		if (str_cut(pair, '=', &key, &value) && str_eqz(key, name) &&
			str_to_i64(value, &n) == 0)
			return (int)n;
	}
	return 0;
}

int handover_fd(const char *name)
{
	int fd = handover_number(name);

	if (fd > 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		fd = 0;
	return fd;
}

/* Runs on a thread of its own until the last of them has ended. */
static void *reap(void *arg)
{
	pid_t *pids = arg;

	for (size_t i = 0; pids[i]; i++)
		while (waitpid(pids[i], NULL, 0) < 0 && errno == EINTR)
			;
	free(pids);
	return NULL;
}

void handover_reap(void)
{
	CLEAN_FREE char *path = xasprintf("/proc/self/task/%d/children", getpid());
	CLEAN_BUF struct buf text = { 0 };
	struct str rest, word;
	struct err err;
	pid_t *pids;
	pthread_t thread;
	size_t n = 0;

	if (!self.inherited || file_read(path, 1 << 20, &text, &err) < 0)
		return;
	pids = xcalloc(text.len / 2 + 2, sizeof(*pids));
	rest = str_trim(buf_str(&text));
	while (rest.len) {
		int64_t pid;

		str_cut(rest, ' ', &word, &rest);
		if (str_to_i64(word, &pid) == 0)
			pids[n++] = (pid_t)pid;
	}
	if (n && thread_start(&thread, "reaper", reap, pids) == 0)
		pthread_detach(thread);
	else
		free(pids);
}

int handover_check(char **ret_version, struct err *err)
{
	const char *argv[] = { self.program, "version", NULL };
	CLEANUP(process_result_deinit) struct process_result out = { 0 };
	int r = process_run(argv, STR_NONE, CHECK_MS, &out, err);

	if (r == 0 && (out.status || !out.out.len))
		r = err_set(err, -ENOEXEC, "%s cannot tell its version (status %d): " STR_FMT,
			self.program, out.status, STR_ARG(str_trim(buf_str(&out.err))));
	if (r == 0)
		*ret_version = str_dup(str_trim(buf_str(&out.out)));
	return r;
}

void handover_pass(const struct handover *h, size_t n)
{
	CLEAN_BUF struct buf text = { 0 };

	for (size_t i = 0; i < n; i++) {
		if (h[i].number <= 0)
			continue;
		if (!h[i].is_pid)
			fcntl(h[i].number, F_SETFD, 0);
		buf_addf(&text, "%s%s=%d", text.len ? "," : "", h[i].name, h[i].number);
	}
	setenv(VARIABLE, buf_str(&text).len ? text.p : "", 1);
}

int handover_exec(const struct handover *h, size_t n, struct err *err)
{
	handover_pass(h, n);
	execv(self.program, self.argv);
	int r = -errno;

	unsetenv(VARIABLE);
	for (size_t i = 0; i < n; i++)
		if (h[i].number > 0 && !h[i].is_pid)
			fcntl(h[i].number, F_SETFD, FD_CLOEXEC);
	return err_errno(err, r, "cannot start %s", self.program);
}
