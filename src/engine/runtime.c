/* crun and conmon. conmon holds a container's terminal or pipes, writes its log and its exit code, and outlives us.
 * 1. A container's overlay is mounted in a mount namespace that only its conmon and crun see: nothing stays mounted when they are gone, whoever
 *    dies first, and the machine's mount table does not grow with the containers.
 * 2. Under hybrid cgroups crun refuses to work while it sees the unified hierarchy; it is covered in that namespace (see ns_run). */
#include "engine/internal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CREATE_TIMEOUT_MS 120000
#define CRUN_TIMEOUT_MS 120000

extern char **environ;

struct creating {
	struct local *l;
	const struct container *c;
	const struct sandbox *s;
	int *clones; /* of mounts that are shared with the host, taken before the new namespace */
	pid_t pid, conmon;
};

static int mount_rootfs(struct creating *k, struct err *err)
{
	CLEAN_FREE char *upper = xasprintf("%s/containers/%s/upper", k->l->root, k->c->id);
	CLEAN_FREE char *work = xasprintf("%s/containers/%s/work", k->l->root, k->c->id);
	CLEAN_FREE char *target = xasprintf("%s/containers/%s/rootfs", k->l->root, k->c->id);
	CLEAN_FREE char *layers = xasprintf("%s/layers", k->l->root);
	size_t n = texts_len(k->c->layers);
	CLEAN_FREE const char **lower = xcalloc(n + 1, sizeof(*lower));

	for (size_t i = 0; i < n; i++)
		lower[i] = k->c->layers[n - 1 - i];
	struct mount_overlay o = {
		.lower_dir = layers, .lower = lower, .n_lower = n, .upper = upper, .work = work
	};
	return mount_overlay(&o, target, err);
}

static int attach_shared(struct creating *k, struct err *err)
{
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; k->clones && k->c->shared_mounts && k->c->shared_mounts[i] && r == 0;
		i++) {
		path_fmt(path, "%s/containers/%s/shared/%zu", k->l->root, k->c->id, i);
		r = dir_make(path, 0700, err);
		if (r == 0)
			r = mount_attach(k->clones[i], path, err);
	}
	return r;
}

/* conmon says on its pipe: {"data": PID}, or {"data": -1, "message": "…"} with what crun said. */
static int read_answer(int fd, pid_t *ret_pid, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf text = { 0 };
	uint64_t until = mono_now_ns() / 1000000 + CREATE_TIMEOUT_MS;
	char chunk[4096];
	struct value v;

	while (text.len == 0 || text.p[text.len - 1] != '\n') {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = (int64_t)(until - mono_now_ns() / 1000000);
		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return err_set(err, -ETIMEDOUT, "conmon did not answer within %d s",
				CREATE_TIMEOUT_MS / 1000);
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		buf_add(&text, chunk, (size_t)n);
	}
	if (!text.len || json_parse(buf_str(&text), a, &v, NULL) < 0 || v.kind != VALUE_OBJECT)
		return err_set(err, -EIO, "conmon died without an answer: " STR_FMT,
			STR_ARG(buf_str(&text)));
	const struct value *data = value_get(&v, STR("data")),
			   *message = value_get(&v, STR("message"));
	if (!data || data->kind != VALUE_INT || data->integer <= 0) {
		struct str said = message && message->kind == VALUE_TEXT
			? str_trim(message->text)
			: STR("crun failed and did not say why");
		return err_set(err, -EIO, STR_FMT, STR_ARG(said));
	}
	*ret_pid = (pid_t)data->integer;
	return 0;
}

static int read_pid(const char *path, pid_t *ret, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	int64_t n;
	int r = file_read(path, 64, &text, err);

	if (r < 0)
		return r;
	if (str_to_i64(str_trim(buf_str(&text)), &n) < 0 || n <= 0)
		return err_set(err, -EBADMSG, "%s holds no process number", path);
	*ret = (pid_t)n;
	return 0;
}

/* This process's environment with conmon's pipe in it. */
static const char **conmon_env(void)
{
	size_t n = 0, out = 0;

	while (environ[n])
		n++;
	const char **env = xcalloc(n + 2, sizeof(*env));
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "_OCI_", 5) != 0 &&
			strncmp(environ[i], "NOTIFY_SOCKET=", 14) != 0)
			env[out++] = environ[i];
	env[out] = "_OCI_SYNCPIPE=3";
	return env;
}

static int spawn_conmon(struct creating *k, int answer_fd, struct err *err)
{
	const struct container *c = k->c;
	CLEAN_FREE char *bundle = xasprintf("%s/containers/%s", k->l->root, c->id);
	CLEAN_FREE char *pid_file = xasprintf("%s/pid", bundle);
	CLEAN_FREE char *conmon_pid_file = xasprintf("%s/conmon.pid", bundle);
	CLEAN_FREE char *exits = xasprintf("%s/exits", k->l->root);
	CLEAN_FREE char *log = xasprintf("k8s-file:%s", c->log_path);
	CLEAN_FREE char *sockets = xasprintf("%s/attach", k->l->run);
	CLEAN_FREE char *root = xasprintf("--runtime-arg=--root=%s/crun", k->l->run);
	CLEAN_FREE const char **env = conmon_env();
	const char *argv[40] = {
		"conmon",
		"--api-version",
		"1",
		"--cid",
		c->id,
		"--cuuid",
		c->id,
		"--name",
		c->name,
		"--runtime",
		k->l->crun,
		"--bundle",
		bundle,
		"--container-pidfile",
		pid_file,
		"--conmon-pidfile",
		conmon_pid_file,
		"--exit-dir",
		exits,
		"--persist-dir",
		bundle,
		"--log-path",
		log,
		"--log-level",
		"error",
		"--socket-dir-path",
		sockets,
		"--full-attach",
		"--no-sync-log",
		root,
	};
	size_t n = 0;
	pid_t pid;
	int pidfd, status;

	while (argv[n])
		n++;
	if (c->tty)
		argv[n++] = "--terminal";
	if (c->stdin_open)
		argv[n++] = "--stdin";
	if (c->stdin_open && !c->stdin_once)
		argv[n++] = "--leave-stdin-open";
	struct process_spec p = { .argv = argv,
		.env = env,
		.cwd = bundle,
		.stdio = { -1, -1, -1 },
		.extra_fds = &answer_fd,
		.n_extra_fds = 1 };
	int r = process_spawn(&p, &pid, &pidfd, err);
	if (r < 0)
		return r;
	/* It forks into the background at once. */
	r = pidfd_wait(pidfd, CREATE_TIMEOUT_MS);
	close(pidfd);
	if (r < 0)
		return err_errno(err, r, "conmon did not go into the background");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, -EIO, "conmon ended with status %d",
			WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}

static int create_inside(void *arg, struct err *err)
{
	struct creating *k = arg;
	char path[PATH_MAX];
	int pipe_fds[2];
	int r = mount_rootfs(k, err);

	if (r == 0)
		r = attach_shared(k, err);
	if (r < 0)
		return r;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "cannot make a pipe");
	CLEAN_FD int answer = pipe_fds[0];
	r = spawn_conmon(k, pipe_fds[1], err);
	close(pipe_fds[1]);
	if (r == 0)
		r = read_answer(answer, &k->pid, err);
	path_fmt(path, "%s/containers/%s/conmon.pid", k->l->root, k->c->id);
	return r < 0 ? r : read_pid(path, &k->conmon, err);
}

int runtime_create(struct local *l, const struct container *c, const struct sandbox *s,
	pid_t *ret_pid, pid_t *ret_conmon, struct err *err)
{
	struct creating k = { .l = l, .c = c, .s = s };
	struct ns_where where = { .net_fd = -1,
		.private_mounts = true,
		.hide_cgroup2 = cgroup_mode(l->cgroups) != CGROUP_V2 };
	size_t n = texts_len(c->shared_mounts), made = 0;
	CLEAN_FREE int *clones = xcalloc(n + 1, sizeof(*clones));
	int r = 0;

	for (k.clones = clones; made < n && r == 0; made += r == 0) {
		if (!mount_is_shared(c->shared_mounts[made]))
			r = err_set(err, -EINVAL,
				"%s is not on a shared mount, so mounts in it cannot propagate both ways: mount --make-rshared it",
				c->shared_mounts[made]);
		else
			r = mount_clone(c->shared_mounts[made], &clones[made], err);
	}
	if (r == 0)
		r = ns_run(&where, create_inside, &k, err);
	for (size_t i = 0; i < made; i++)
		close(clones[i]);
	if (r < 0)
		return r;
	*ret_pid = k.pid;
	*ret_conmon = k.conmon;
	return 0;
}

/* ---- crun's other commands ---- */
struct crun_call {
	const char **argv;
	const int *stdio;
	struct process_result *result;
	pid_t pid;
	int pidfd;
};

static int run_inside(void *arg, struct err *err)
{
	struct crun_call *call = arg;

	return process_run(call->argv, STR_NONE, CRUN_TIMEOUT_MS, call->result, err);
}

static int spawn_inside(void *arg, struct err *err)
{
	struct crun_call *call = arg;
	struct process_spec p = { .argv = call->argv,
		.stdio = { call->stdio[0], call->stdio[1], call->stdio[2] } };

	return process_spawn(&p, &call->pid, &call->pidfd, err);
}

static const char **crun_argv(const struct local *l, const char *const *args, const char *root)
{
	size_t n = 0;

	while (args[n])
		n++;
	const char **argv = xcalloc(n + 4, sizeof(*argv));
	argv[0] = l->crun;
	argv[1] = "--root";
	argv[2] = root;
	memcpy(argv + 3, args, n * sizeof(*argv));
	return argv;
}

static int crun_in_namespace(struct local *l, struct crun_call *call, ns_fn fn, struct err *err)
{
	struct ns_where where = { .net_fd = -1, .private_mounts = true, .hide_cgroup2 = true };

	if (cgroup_mode(l->cgroups) == CGROUP_V2)
		return fn(call, err);
	return ns_run(&where, fn, call, err);
}

int runtime_crun(struct local *l, const char *const *args, struct err *err)
{
	CLEAN_FREE char *root = xasprintf("%s/crun", l->run);
	CLEAN_FREE const char **argv = crun_argv(l, args, root);
	struct process_result result = { 0 };
	struct crun_call call = { .argv = argv, .result = &result };
	int r = crun_in_namespace(l, &call, run_inside, err);

	if (r == 0 && result.status != 0)
		r = err_set(err, -EIO, "crun %s: " STR_FMT, args[0],
			STR_ARG(str_trim(buf_str(&result.err))));
	process_result_deinit(&result);
	return r;
}

int runtime_spawn(struct local *l, const char *const *args, const int stdio[3], pid_t *ret_pid,
	int *ret_pidfd, struct err *err)
{
	CLEAN_FREE char *root = xasprintf("%s/crun", l->run);
	CLEAN_FREE const char **argv = crun_argv(l, args, root);
	struct crun_call call = { .argv = argv, .stdio = stdio };
	int r = crun_in_namespace(l, &call, spawn_inside, err);

	if (r < 0)
		return r;
	*ret_pid = call.pid;
	*ret_pidfd = call.pidfd;
	return 0;
}

/* "crun version 1.8.1", "conmon version 2.1.6": the last word of the first line. */
int runtime_version(const char *program, struct arena *a, struct str *ret, struct err *err)
{
	const char *argv[] = { program, "--version", NULL };
	struct process_result result = { 0 };
	struct str line, rest, word;
	int r = process_run(argv, STR_NONE, 10000, &result, err);

	if (r < 0)
		return err_prefix(err, r, "%s is needed to run containers: install the package %s",
			program, program);
	str_cut(buf_str(&result.out), '\n', &line, &rest);
	while (str_cut(line, ' ', &word, &rest))
		line = rest;
	if (result.status != 0 || !line.len)
		r = err_set(
			err, -EIO, "%s --version failed with status %d", program, result.status);
	else
		*ret = arena_str(a, line);
	process_result_deinit(&result);
	return r;
}
