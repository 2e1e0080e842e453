/* `skiff server`: starts the control plane (as an unprivileged user) and the agent (as root), starts them again when they die, and does
 * nothing else, so that it has nothing to fail at.
 *
 * 1. One supervisor a data directory: a lock file names the one that runs.
 * 2. Children die with it (PR_SET_PDEATHSIG); containers do not.
 * 3. A child that ends with EXIT_FINAL said why; starting it again cannot help, so the supervisor ends.
 * 4. The API's socket is the supervisor's, so that connections wait while the control plane starts anew. A control plane that keeps dying has them
 *    refused. So has one of several that dies, or waits for its etcd: then clients turn to another server. While another build takes over they wait.
 * 5. SIGHUP: the build that lies where this one came from takes over (handover.c). The control plane is ended and started, the agent becomes its
 *    successor in place.
 * Keys are made in a short-lived child: what libraries allocate for it does not stay. */
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/values.h"
#include "cmd/cmd.h"
#include "io/io.h"
#include "net/net.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define STEADY_MS 30000 /* alive this long: the next death starts the back-off anew */
#define STOP_MS 10000
#define HANDOVER_MS 300 /* for an old control plane to end; what takes longer (a stream) is cut */
#define REFUSE_MS 1000  /* away for so long: connections are refused rather than kept waiting */

struct child {
	const char *name;
	char **argv;
	uid_t uid;
	gid_t gid;
	pid_t pid; /* 0: not running */
	uint64_t started_ms, again_ms, backoff_ms;
	uint64_t kill_ms; /* an older build's: killed then; 0: this build's */
	int listen_fd;    /* it gets; 0: none */
	bool wanted;
	bool replaceable; /* other servers do the same: nobody waits for this one */
};

struct supervisor {
	struct child children[2];
	int lock;
};
enum { CONTROL_PLANE, AGENT };

static uint64_t now_ms(void)
{
	return mono_now_ns() / 1000000;
}

static int lock_data_dir(const struct options *o, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/server.lock", o->data_dir);
	int fd = handover_fd("lock");
	struct stat held, there;
	char pid[32] = "";

	if (fd > 0 && fstat(fd, &held) == 0 && stat(path, &there) == 0 &&
		held.st_ino == there.st_ino && held.st_dev == there.st_dev)
		return fd; /* of the same process: its predecessor's */
	if (fd > 0)
		close(fd); /* of another data directory */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_errno(err, -errno, "cannot open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		ssize_t n = read(fd, pid, sizeof(pid) - 1);

		close(fd);
		pid[n > 0 ? n : 0] = 0;
		return err_set(err, -EBUSY,
			"another server (pid %s) uses %s: stop it, or give another --data-dir", pid,
			o->data_dir);
	}
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d", getpid()) < 0)
		return err_errno(err, -errno, "cannot write %s", path);
	return fd; /* held until the process ends */
}

/* Whom the control plane runs as. Started by an ordinary user: that user. */
static int find_user(const struct options *o, uid_t *ret_uid, gid_t *ret_gid, struct err *err)
{
	struct passwd *pw;

	*ret_uid = getuid();
	*ret_gid = getgid();
	if (getuid() != 0)
		return 0;
	pw = getpwnam(o->user);
	if (!pw)
		return err_set(err, -ENOENT,
			"there is no user \"%s\" to run the control plane as: `useradd --system --no-create-home %s`, or give --user",
			o->user, o->user);
	*ret_uid = pw->pw_uid;
	*ret_gid = pw->pw_gid;
	return 0;
}

/* The folders that the control plane writes to. */
static int prepare_dirs(const struct options *o, uid_t uid, gid_t gid, struct err *err)
{
	static const char *const names[] = { "store", "snapshots" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CLEAN_FREE char *dir = xasprintf("%s/%s", o->data_dir, names[i]);
		int r = dir_make(dir, 0700, err);

		if (r < 0)
			return r;
		if (chown(dir, uid, gid) < 0)
			return err_errno(err, -errno, "cannot give %s to uid %u", dir, uid);
	}
	return 0;
}

static int make_credentials(const struct options *o, uid_t uid, gid_t gid, struct err *err)
{
	CLEAN_FREE char *url = xasprintf("https://%s:%d",
		strcmp(o->listen_host, "0.0.0.0") && strcmp(o->listen_host, "::") ? o->listen_host
										  : "127.0.0.1",
		o->listen_port);
	struct pki p = { 0 };
	int r = server_join(o, uid, gid, err);

	if (r == 0)
		r = pki_prepare(o, uid, gid, &p, err);

	if (r == 0 && !o->no_agent)
		r = pki_prepare_agent(o, &p, err);
	if (r == 0)
		r = kubeconfig_write(o->kubeconfig, url, buf_str(&p.ca_cert),
			buf_str(&p.admin_cert), buf_str(&p.admin_key), err);
	pki_deinit(&p);
	return r;
}

/* Runs make_credentials in a child of its own and waits. */
static int make_credentials_apart(const struct options *o, uid_t uid, gid_t gid)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct err err = { 0 };

		_exit(make_credentials(o, uid, gid, &err) < 0 ? cmd_fail("server", &err, 1) : 0);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static void child_main(struct child *c)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (getuid() == 0 && c->uid != 0 &&
		(setgroups(0, NULL) < 0 || setgid(c->gid) < 0 || setuid(c->uid) < 0)) {
		fprintf(stderr, "skiff server: cannot become uid %u: %s\n", c->uid,
			strerror(errno));
		_exit(EXIT_FINAL);
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (c->uid != 0)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	handover_pass(&(struct handover){ "api", c->listen_fd, false }, 1);
	execv("/proc/self/exe", c->argv);
	fprintf(stderr, "skiff server: cannot start %s: %s\n", c->name, strerror(errno));
	_exit(EXIT_FINAL);
}

/* Connections are refused until a child listens again. */
static void shut_door(struct child *c)
{
	if (c->listen_fd)
		http_refuse(c->listen_fd);
}

static void child_start(struct child *c)
{
	c->started_ms = now_ms();
	c->pid = fork();
	if (c->pid == 0)
		child_main(c);
	if (c->pid < 0) {
		log_error("supervisor", "cannot start the %s: %s", c->name, strerror(errno));
		c->pid = 0;
		c->again_ms = now_ms() + BACKOFF_MAX_MS;
	}
}

/* true: the supervisor must end. */
static bool child_ended(struct child *c, int status)
{
	bool is_final = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FINAL;

	c->pid = 0;
	if (!c->wanted) {
		shut_door(c);
		return false;
	}
	if (c->kill_ms) {
		c->kill_ms = c->again_ms = 0;
		return false;
	}
	if (is_final)
		return true;
	if (now_ms() - c->started_ms > STEADY_MS)
		c->backoff_ms = 0;
	c->backoff_ms =
		c->backoff_ms ? MIN(c->backoff_ms * 2, (uint64_t)BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
	c->again_ms = now_ms() + c->backoff_ms;
	if (c->replaceable || c->backoff_ms > REFUSE_MS)
		shut_door(c);
	log_warn("supervisor", "the %s ended by %s %d; started again in %llu ms", c->name,
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
		(unsigned long long)c->backoff_ms);
	return false;
}

static bool reap(struct child *children, size_t n)
{
	bool end = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < n; i++)
			if (children[i].pid == pid)
				end |= child_ended(&children[i], status);
	return end;
}

static void stop_all(struct child *children, size_t n, const sigset_t *signals)
{
	uint64_t deadline = now_ms() + STOP_MS;

	for (size_t i = 0; i < n; i++) {
		children[i].wanted = false;
		if (children[i].pid > 0)
			kill(children[i].pid, SIGTERM);
	}
	for (;;) {
		struct timespec wait = { .tv_sec = 1 };
		bool alive = false;

		reap(children, n);
		for (size_t i = 0; i < n; i++) {
			alive |= children[i].pid > 0;
			if (children[i].pid > 0 && now_ms() > deadline)
				kill(children[i].pid, SIGKILL);
		}
		if (!alive)
			return;
		sigtimedwait(signals, NULL, &wait);
	}
}

/* ---- another build takes over ---- */

static void hand_over(struct supervisor *s)
{
	struct child *c = s->children;
	const struct handover h[] = {
		{ "lock", s->lock, false },
		{ "api", c[CONTROL_PLANE].listen_fd, false },
		{ "control-plane", c[CONTROL_PLANE].pid, true },
		{ "agent", c[AGENT].pid, true },
	};
	CLEAN_FREE char *version = NULL;
	struct err err = { 0 };
	int r = handover_check(&version, &err);

	if (r == 0) {
		log_info("supervisor", "%s takes over", version);
		r = handover_exec(h, ARRAY_LEN(h), &err);
	}
	log_error("supervisor", "no other build takes over: %s", err.text);
}

/* Whether a process was started as this one would be. */
static bool same_argv(pid_t pid, char *const *argv)
{
	CLEAN_FREE char *path = xasprintf("/proc/%d/cmdline", pid);
	CLEAN_BUF struct buf have = { 0 }, want = { 0 };
	struct err err;

	for (; *argv; argv++)
		buf_add(&want, *argv, strlen(*argv) + 1);
	return file_read(path, 1 << 20, &have, &err) == 0 && str_eq(buf_str(&have), buf_str(&want));
}

/* The predecessor's children run on until here, where all that theirs need is there. An agent takes its successor's place itself. */
static void take_over(struct child *c, const char *name, bool in_place)
{
	pid_t pid = handover_number(name);

	if (pid <= 0)
		return;
	c->pid = pid;
	c->started_ms = now_ms();
	if (in_place && c->wanted && same_argv(pid, c->argv)) {
		kill(pid, SIGHUP);
		return;
	}
	c->kill_ms = now_ms() + HANDOVER_MS;
	kill(pid, SIGTERM);
}

/* When the next of them is to be started or killed; 0: nothing waits for its time. */
static uint64_t start_due(struct child *children, size_t n)
{
	uint64_t next = 0, now = now_ms();

	for (size_t i = 0; i < n; i++) {
		struct child *c = &children[i];
		uint64_t at;

		if (!c->wanted)
			continue;
		if (!c->pid && c->again_ms <= now)
			child_start(c);
		if (c->pid && c->kill_ms && c->kill_ms <= now)
			kill(c->pid, SIGKILL);
		at = c->pid ? c->kill_ms : c->again_ms;
		if (at && (!next || at < next))
			next = at;
	}
	return next;
}

static int supervise(struct supervisor *s)
{
	struct child *children = s->children;
	size_t n = ARRAY_LEN(s->children);
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (;;) {
		uint64_t next = start_due(children, n), now = now_ms();
		int got;

		if (next) {
			uint64_t ms = next > now ? next - now : 1;
			struct timespec wait = { .tv_sec = (time_t)(ms / 1000),
				.tv_nsec = (long)(ms % 1000) * 1000000 };

			got = sigtimedwait(&signals, NULL, &wait);
		} else {
			memory_drop_code();
			got = sigwaitinfo(&signals, NULL);
		}
		if (got == SIGTERM || got == SIGINT) {
			stop_all(children, n, &signals);
			return 0;
		}
		if (got == SIGHUP)
			hand_over(s);
		if (reap(children, n)) {
			stop_all(children, n, &signals);
			return EXIT_FINAL;
		}
	}
}

/* The API's socket: a predecessor's, or one of our own. */
static int open_door(const struct options *o, struct child *c, struct err *err)
{
	int fd = handover_fd("api");

	c->replaceable = str_has_prefix(str_of(o->store), STR("etcd="));
	if (fd > 0 && http_listens_on(fd, o->listen_host, o->listen_port)) {
		c->listen_fd = fd;
		return 0;
	}
	if (fd > 0)
		close(fd);
	int r = http_listen(o->listen_host, o->listen_port, &c->listen_fd, err);

	/* Builds that kept no socket for etcd: their control plane has it, and ends soon. Ours makes its own then. */
	if (r == -EADDRINUSE && c->replaceable && handover_number("control-plane") > 0)
		return 0;
	if (r == 0 && c->replaceable)
		shut_door(c);
	return r;
}

int cmd_server(int argc, char **argv)
{
	struct options o;
	struct err err = { 0 };
	struct supervisor s = {
		.children = { [CONTROL_PLANE] = { .name = "control plane", .wanted = true },
			[AGENT] = { .name = "agent" } }
	};
	struct child *children = s.children;
	int r = options_parse(&o, OPT_SERVER, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	if (!o.no_agent && getuid() != 0) {
		err_set(&err, -EPERM, "the agent needs root: run as root, or give --no-agent");
		return cmd_fail("server", &err, EXIT_FINAL);
	}
	if (options_complete(&o, &err) < 0 || networks_check(&o, &err) < 0 ||
		dir_make(o.data_dir, 0755, &err) < 0)
		return cmd_fail("server", &err, EXIT_FINAL);
	s.lock = lock_data_dir(&o, &err);
	if (s.lock < 0 || find_user(&o, &children[0].uid, &children[0].gid, &err) < 0 ||
		prepare_dirs(&o, children[0].uid, children[0].gid, &err) < 0 ||
		open_door(&o, &children[CONTROL_PLANE], &err) < 0)
		return cmd_fail("server", &err, EXIT_FINAL);
	if (make_credentials_apart(&o, children[0].uid, children[0].gid) < 0)
		return EXIT_FINAL;
	o.server = o.token = NULL; /* used, and nobody's business */
	children[0].argv = options_argv(&o, OPT_SERVER, "control-plane");
	if (!o.no_agent) {
		o.server = xasprintf("https://127.0.0.1:%d", o.listen_port);
		children[1].argv = options_argv(&o, OPT_AGENT, "agent");
		children[1].wanted = true;
	}
	log_info("supervisor", "kubeconfig: %s", o.kubeconfig);
	take_over(&children[CONTROL_PLANE], "control-plane", false);
	take_over(&children[AGENT], "agent", true);
	return supervise(&s);
}
