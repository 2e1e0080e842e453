/* Sysctls, pidfds, and what /proc says about a process. */
#include "linux/linux.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define TREE_DEPTH 32

#define MODPROBE "/sbin/modprobe"

/* What brings a sysctl that is not there: a module, which no use of the kernel loads by itself, or a setting. */
static const struct remedy {
	const char *prefix, *module, *remedy;
} sysctl_remedies[] = {
	{ "net/bridge/", "br_netfilter", "load the module br_netfilter (modprobe br_netfilter)" },
	{ "net/netfilter/", "nf_conntrack",
		"load the module nf_conntrack (modprobe nf_conntrack)" },
	{ "net/ipv6/", NULL, "IPv6 is switched off in this kernel" },
};

static int sysctl_path(const char *name, char path[PATH_MAX], struct err *err)
{
	if (strstr(name, "..") || name[0] == '/' || strlen(name) > 256)
		return err_set(err, -EINVAL, "\"%s\" is not the name of a sysctl", name);
	/* A name with slashes may hold dots (net/ipv4/conf/eth0.1/forwarding); one without uses them as separators. */
	snprintf(path, PATH_MAX, "/proc/sys/%s", name);
	if (!strchr(name, '/'))
		for (char *p = path + strlen("/proc/sys/"); *p; p++)
			if (*p == '.')
				*p = '/';
	return 0;
}

static const struct remedy *sysctl_remedy(const char *path)
{
	for (size_t i = 0; i < ARRAY_LEN(sysctl_remedies); i++)
		if (str_has_prefix(
			    str_of(path + strlen("/proc/sys/")), str_of(sysctl_remedies[i].prefix)))
			return &sysctl_remedies[i];
	return NULL;
}

/* Whether it worked shows in what the module brings; without kmod or the right to load, nothing happens. */
static void load_module(const char *name)
{
	char *argv[] = { (char *)MODPROBE, (char *)"-q", (char *)"--", (char *)name, NULL };
	pid_t pid;

	if (posix_spawn(&pid, MODPROBE, NULL, NULL, argv, environ) != 0)
		return;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int sysctl_open(const char *name, int flags, int *ret_fd, struct err *err)
{
	char path[PATH_MAX];
	int r = sysctl_path(name, path, err);

	if (r < 0)
		return r;
	*ret_fd = open(path, flags | O_CLOEXEC);
	if (*ret_fd >= 0)
		return 0;
	r = -errno;
	const struct remedy *rem = r == -ENOENT ? sysctl_remedy(path) : NULL;
	/* Only who sets it needs it: asking changes nothing about the machine. */
	if (rem && rem->module && (flags & O_ACCMODE) == O_WRONLY) {
		load_module(rem->module);
		*ret_fd = open(path, flags | O_CLOEXEC);
		if (*ret_fd >= 0)
			return 0;
	}
	if (rem)
		return err_set(err, r, "sysctl %s is not there: %s", name, rem->remedy);
	return err_errno(err, r, "cannot open sysctl %s", name);
}

int sysctl_get(const char *name, struct buf *ret, struct err *err)
{
	char text[4096];
	CLEAN_FD int fd = -1;
	int r = sysctl_open(name, O_RDONLY, &fd, err);

	if (r < 0)
		return r;
	ssize_t n = read(fd, text, sizeof(text));
	if (n < 0)
		return err_errno(err, -errno, "cannot read sysctl %s", name);
	buf_add_str(ret, str_trim(str_n(text, (size_t)n)));
	return 0;
}

int sysctl_set(const char *name, const char *value, struct err *err)
{
	CLEAN_BUF struct buf now = { 0 };
	CLEAN_FD int fd = -1;
	int r;

	/* Already so: no need for a writable /proc/sys, which containers seldom have. */
	if (sysctl_get(name, &now, NULL) == 0 && str_eqz(buf_str(&now), value))
		return 0;
	r = sysctl_open(name, O_WRONLY, &fd, err);
	if (r < 0)
		return r;
	if (write(fd, value, strlen(value)) < 0)
		return err_errno(err, -errno, "cannot set sysctl %s to \"%s\"", name, value);
	return 0;
}

int pidfd_of(pid_t pid)
{
	int fd = pidfd_open(pid, 0);

	return fd < 0 ? -errno : fd;
}

int pidfd_signal(int pidfd, int signo)
{
	return pidfd_send_signal(pidfd, signo, NULL, 0) < 0 ? -errno : 0;
}

int pidfd_wait(int pidfd, int64_t timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	struct timespec now, end = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t until =
		(int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 + MIN(timeout_ms, INT64_MAX / 2);
	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &end);
		int64_t left = until - ((int64_t)end.tv_sec * 1000 + end.tv_nsec / 1000000);
		int n = poll(&p, 1, timeout_ms < 0 ? -1 : (int)MAX(0, MIN(left, (int64_t)INT_MAX)));
		if (n > 0)
			return 0;
		if (n == 0 && left <= INT_MAX)
			return -ETIMEDOUT;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static int process_stat(pid_t pid, char *ret_state, uint64_t *ret_start)
{
	char path[64], text[1024];
	unsigned long long start;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	CLEAN_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -ESRCH;
	text[n] = '\0';
	/* The name stands in parentheses and may hold anything; what follows the last one is plain. */
	char *p = strrchr(text, ')');
	if (!p ||
		sscanf(p + 1,
			" %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
			ret_state, &start) != 2)
		return -ESRCH;
	*ret_start = start;
	return 0;
}

int process_start_time(pid_t pid, uint64_t *ret)
{
	char state;

	return process_stat(pid, &state, ret);
}

bool process_alive(pid_t pid, uint64_t start_time)
{
	uint64_t start;
	char state;

	return pid > 0 && process_stat(pid, &state, &start) == 0 && start == start_time &&
		state != 'Z' && state != 'X';
}

static void kill_tree(pid_t pid, int depth);

/* What one thread has for children. A number is one only when its end was read too: half of one is somebody else's. */
static void kill_children(const char *children, int depth)
{
	CLEAN_BUF struct buf text = { 0 };
	char chunk[4096];
	ssize_t n;
	CLEAN_FD int fd = open(children, O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)))
		buf_add(&text, chunk, (size_t)MAX(n, 0));
	for (struct str rest = buf_str(&text), word; str_cut(rest, ' ', &word, &rest);) {
		int64_t child;
		if (str_to_i64(word, &child) == 0 && child > 1)
			kill_tree((pid_t)child, depth + 1);
	}
}

/* Stopped first, so that none forks away while its children are counted. */
static void kill_tree(pid_t pid, int depth)
{
	char path[80];

	kill(pid, SIGSTOP);
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *d = depth < TREE_DEPTH ? opendir(path) : NULL;
	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, e->d_name);
		kill_children(path, depth);
	}
	if (d)
		closedir(d);
	kill(pid, SIGKILL);
}

void process_kill_tree(pid_t pid)
{
	if (pid > 1)
		kill_tree(pid, 0);
}

/* file: cmdline or environ */
static bool has_text(pid_t pid, const char *file, const char *text)
{
	char path[64], bytes[16384];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	CLEAN_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
	return n > 0 && memmem(bytes, (size_t)n, text, strlen(text));
}

/* How many there were. */
static size_t kill_by_text(DIR *proc, const char *file, const char *text)
{
	size_t n = 0;

	for (struct dirent *e; (e = readdir(proc));) {
		pid_t pid = atoi(e->d_name);
		if (pid <= 1 || pid == getpid())
			continue;
		/* Once the descriptor is open the number names one process only: then look. */
		CLEAN_FD int fd = pidfd_of(pid);
		if (fd < 0 || !has_text(pid, file, text))
			continue;
		n++;
		pidfd_signal(fd, SIGKILL);
		pidfd_wait(fd, 2000);
	}
	return n;
}

static int kill_all_by_text(const char *file, const char *text, struct err *err)
{
	for (int round = 0; round < 100; round++) {
		DIR *proc = opendir("/proc");
		if (!proc)
			return err_errno(err, -errno, "cannot open /proc");
		size_t n = kill_by_text(proc, file, text);
		closedir(proc);
		if (!n)
			return 0;
	}
	return err_set(err, -EBUSY, "processes with \"%s\" in /proc/PID/%s do not die", text, file);
}

int process_kill_by_argument(const char *text, struct err *err)
{
	return kill_all_by_text("cmdline", text, err);
}

int process_kill_by_environment(const char *text, struct err *err)
{
	return kill_all_by_text("environ", text, err);
}

int boot_id(char ret[37], struct err *err)
{
	CLEAN_BUF struct buf b = { 0 };
	int r = sysctl_get("kernel/random/boot_id", &b, err);

	if (r < 0)
		return r;
	if (b.len != 36)
		return err_set(err, -EBADMSG, "/proc/sys/kernel/random/boot_id holds no boot id");
	memcpy(ret, b.p, 37);
	return 0;
}
