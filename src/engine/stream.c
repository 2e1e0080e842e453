/* What talks to a running container: exec through crun, attach through conmon's socket, port-forward through its network namespace.
 * A session's descriptors are the caller's; a thread of ours sits behind it only where something must be translated (attach's packets, the size of a
 * terminal), and ends when the caller has closed its ends. */
#include "engine/internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define OUTPUT_MAX (16 * 1024)
#define CONFIG_MAX (8 * 1024 * 1024)

/* The files of one exec below run: attach/ID.pid and the like. */
struct exec_files {
	char process[PATH_MAX], pid[PATH_MAX], console[PATH_MAX];
};

struct session {
	struct local *l;
	char id[ENGINE_ID];
	pid_t pid;               /* crun exec; 0: attach */
	struct exec_files files; /* of crun exec */
	bool has_resizer, has_pump;
	bool ends_with_input; /* attach: whoever has nothing more to say hears no more either */
	pthread_t resizer, pump;
	int control,
		terminal; /* resizer: reads control, sets terminal's size; attach: writes to conmon's fifo */
	int socket, in, out, err; /* pump */
	int ended;                /* eventfd that the pump sets last; the caller has a duplicate */
};

static int running(struct local *l, const char *id, pid_t *ret_pid, struct err *err)
{
	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	bool runs = c && c->started && !c->exited && !container_refresh(l, c);
	if (c)
		*ret_pid = (pid_t)c->pid;
	pthread_mutex_unlock(&l->lock);
	if (!c)
		return container_missing(id, err);
	return runs ? 0 : err_set(err, -ESRCH, "container %s is not running", id);
}

static int make_pipe(int *ret_read, int *ret_write, struct err *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "cannot make a pipe");
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

/* The process to run: the container's own (user, environment, folder, capabilities) with another command. */
static int write_process(struct local *l, const char *id, const char *const *argv, bool tty,
	const char *path, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf config = { 0 }, out = { 0 };
	char bundle[PATH_MAX];
	struct value root;

	path_fmt(bundle, "%s/containers/%s/config.json", l->root, id);
	int r = file_read(bundle, CONFIG_MAX, &config, err);
	if (r < 0)
		return r;
	struct value *process = json_parse(buf_str(&config), a, &root, err) == 0
		? value_get(&root, STR("process"))
		: NULL;
	if (!process)
		return err_set(err, -EBADMSG, "%s is damaged", bundle);
	value_set(a, process, STR("terminal"))->kind = VALUE_BOOL;
	value_get(process, STR("terminal"))->boolean = tty;
	struct value *args = value_set(a, process, STR("args"));
	*args = (struct value){ .kind = VALUE_LIST };
	for (size_t i = 0; argv[i]; i++)
		*value_append(a, args) =
			(struct value){ .kind = VALUE_TEXT, .text = str_of(argv[i]) };
	json_write(process, &out);
	return file_write_atomic(path, buf_str(&out), 0600, false, err);
}

static int exec_prepare(struct local *l, const char *id, const char *const *argv, bool tty,
	struct exec_files *ret, struct err *err)
{
	char name[ENGINE_ID];

	if (!argv[0])
		return err_set(err, -EINVAL, "no command to run in container %s", id);
	new_id(name);
	path_fmt(ret->process, "%s/attach/%.16s.process", l->run, name);
	path_fmt(ret->pid, "%s/attach/%.16s.pid", l->run, name);
	path_fmt(ret->console, "%s/attach/%.16s.tty", l->run, name);
	return write_process(l, id, argv, tty, ret->process, err);
}

static void exec_cleanup(const struct exec_files *f)
{
	unlink(f->process);
	unlink(f->pid);
	unlink(f->console);
}

/* The process inside, with its children: killing crun alone would leave them running. */
static void kill_exec(const char *pid_file, pid_t crun)
{
	CLEAN_BUF struct buf text = { 0 };
	int64_t pid;

	if (file_read(pid_file, 64, &text, NULL) == 0 &&
		str_to_i64(str_trim(buf_str(&text)), &pid) == 0 && pid > 1)
		process_kill_tree((pid_t)pid);
	kill(crun, SIGKILL);
}

static int reap(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- exec_sync ---- */
/* Reads what is there; false: end or nothing more to come. */
static bool read_some(int fd, struct buf *out)
{
	char chunk[4096];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n > 0 && out->len < OUTPUT_MAX)
		buf_add(out, chunk, MIN((size_t)n, OUTPUT_MAX - out->len));
	return n > 0 || (n < 0 && errno == EINTR);
}

/* 0: crun ended; -ETIMEDOUT. */
static int collect(int pidfd, int out_fd, int64_t timeout_ms, struct buf *out)
{
	uint64_t until = mono_now_ns() / 1000000 + (uint64_t)timeout_ms;
	struct pollfd p[2] = { { pidfd, POLLIN, 0 }, { out_fd, POLLIN, 0 } };

	fcntl(out_fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		int64_t left =
			timeout_ms > 0 ? (int64_t)(until - mono_now_ns() / 1000000) : INT32_MAX;
		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(p, 2, (int)MIN(left, (int64_t)INT32_MAX)) < 0 && errno != EINTR)
			return -errno;
		if (p[1].revents && !read_some(out_fd, out))
			p[1].fd = -1;
		if (p[0].revents) {
			/* A child left behind may hold the pipe, or fill it without end: only what is there already, and no more than is kept. */
			while (p[1].fd >= 0 && out->len < OUTPUT_MAX && read_some(out_fd, out))
				;
			return 0;
		}
	}
}

int local_exec_sync(struct engine *e, const char *id, const char *const *argv, int64_t timeout_ms,
	struct buf *ret_output, int *ret_code, struct err *err)
{
	struct local *l = local_of(e);
	CLEAN_FD int out = -1, out_write = -1, pidfd = -1;
	CLEAN_BUF struct buf output = { 0 };
	struct exec_files files;
	pid_t pid;
	int r = running(l, id, &pid, err);

	if (r == 0)
		r = make_pipe(&out, &out_write, err);
	if (r == 0)
		r = exec_prepare(l, id, argv, false, &files, err);
	if (r)
		return r;
	const char *args[] = { "exec", "--pid-file", files.pid, "--process", files.process, id,
		NULL };
	r = runtime_spawn(l, args, (int[3]){ -1, out_write, out_write }, &pid, &pidfd, err);
	if (r < 0) {
		exec_cleanup(&files);
		return r;
	}
	close(TAKE_FD(out_write));
	r = collect(pidfd, out, timeout_ms, &output);
	if (r < 0)
		kill_exec(files.pid, pid);
	int code = reap(pid);
	exec_cleanup(&files);
	if (r < 0)
		return err_set(err, r,
			"the command \"%s\" did not end within %lld ms and was killed", argv[0],
			(long long)timeout_ms);
	buf_add_str(ret_output, buf_str(&output));
	*ret_code = code;
	return 0;
}

/* ---- sessions ---- */
/* "W H\n" each, until the caller closes its end. */
static void *resize_main(void *arg)
{
	struct session *s = arg;
	char text[64], fifo[PATH_MAX];
	size_t len = 0;
	unsigned w, h;
	ssize_t n;

	while ((n = read(s->control, text + len, sizeof(text) - 1 - len)) > 0 ||
		(n < 0 && errno == EINTR)) {
		len += n > 0 ? (size_t)n : 0;
		text[len] = '\0';
		char *end = strrchr(text, '\n');
		if (!end && len < sizeof(text) - 1)
			continue;
		len = 0;
		if (!end || sscanf(text, "%u %u", &w, &h) != 2)
			continue;
		if (s->terminal >= 0) {
			ioctl(s->terminal, TIOCSWINSZ,
				&(struct winsize){
					.ws_col = (unsigned short)w, .ws_row = (unsigned short)h });
			continue;
		}
		path_fmt(fifo, "%s/containers/%s/ctl", s->l->root, s->id);
		CLEAN_FD int fd = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		int size = snprintf(text, sizeof(text), "1 %u %u\n", h, w);
		if (fd >= 0 && write(fd, text, (size_t)size) < 0)
			log_debug("engine", "cannot resize the terminal of container %s", s->id);
	}
	return NULL;
}

static int start_resizer(struct session *s, int *ret_control, struct err *err)
{
	CLEAN_FD int write_end = -1;
	int r = make_pipe(&s->control, &write_end, err);

	if (r == 0)
		r = thread_start(&s->resizer, "engine-resize", resize_main, s);
	if (r < 0)
		return r;
	s->has_resizer = true;
	*ret_control = TAKE_FD(write_end);
	return 0;
}

static void session_free(struct session *s)
{
	if (s->has_pump)
		pthread_join(s->pump, NULL);
	if (s->has_resizer)
		pthread_join(s->resizer, NULL);
	if (s->files.pid[0])
		exec_cleanup(&s->files);
	for (size_t i = 0; i < 7; i++)
		clean_fd((int *[]){ &s->control, &s->terminal, &s->socket, &s->in, &s->out, &s->err,
			&s->ended }[i]);
	free(s);
}

static struct session *session_new(struct local *l, const char *id)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->l = l;
	snprintf(s->id, sizeof(s->id), "%s", id);
	s->control = s->terminal = s->socket = s->in = s->out = s->err = s->ended = -1;
	return s;
}

static const struct engine_session no_session = {
	.in = -1, .out = -1, .err = -1, .control = -1, .pidfd = -1
};

static void close_session(struct engine_session *s)
{
	for (size_t i = 0; i < 5; i++)
		clean_fd((int *[]){ &s->in, &s->out, &s->err, &s->control, &s->pidfd }[i]);
}

static int exec_pipes(struct session *s, bool in, bool out, bool err_stream,
	struct engine_session *ret, struct err *err)
{
	CLEAN_FD int child_in = -1, child_out = -1, child_err = -1;
	const char *args[] = { "exec", "--pid-file", s->files.pid, "--process", s->files.process,
		s->id, NULL };
	int r = in ? make_pipe(&child_in, &ret->in, err) : 0;

	if (r == 0 && out)
		r = make_pipe(&ret->out, &child_out, err);
	if (r == 0 && err_stream)
		r = make_pipe(&ret->err, &child_err, err);
	return r < 0 ? r
		     : runtime_spawn(s->l, args, (int[3]){ child_in, child_out, child_err },
			       &s->pid, &ret->pidfd, err);
}

static int listen_console(const char *path, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		return err_set(err, -ENAMETOOLONG,
			"the path of the socket %s is too long: choose a shorter run folder", path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0) {
		int r = -errno;
		clean_fd(&fd);
		return err_errno(err, r, "cannot listen on %s", path);
	}
	return fd;
}

/* Puts crun's own words into the error; false: it said none. */
static bool crun_said(int fd, struct err *err)
{
	CLEAN_BUF struct buf said = { 0 };

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (read_some(fd, &said))
		;
	if (said.len)
		err_set(err, -EIO, "crun exec: " STR_FMT, STR_ARG(str_trim(buf_str(&said))));
	return said.len > 0;
}

/* crun sends the terminal's master end, or ends without. */
static int receive_terminal(int listener, int pidfd, int said_fd, int *ret_fd, struct err *err)
{
	struct pollfd p[2] = { { listener, POLLIN, 0 }, { pidfd, POLLIN, 0 } };
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte[64];
	struct iovec iov = { byte, sizeof(byte) };
	struct msghdr m = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space) };

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return err_errno(err, -errno, "cannot wait for a terminal");
	if (!p[0].revents)
		return crun_said(said_fd, err)
			? -EIO
			: err_set(err, -EIO, "crun exec ended without a terminal");
	CLEAN_FD int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0 || recvmsg(fd, &m, MSG_CMSG_CLOEXEC) < 0)
		return err_errno(err, -errno, "cannot receive a terminal from crun");
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return err_set(err, -EIO, "crun sent no terminal");
	memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return 0;
}

static int exec_terminal(struct session *s, struct engine_session *ret, struct err *err)
{
	const char *args[] = { "exec", "--pid-file", s->files.pid, "--console-socket",
		s->files.console, "--process", s->files.process, s->id, NULL };
	CLEAN_FD int listener = listen_console(s->files.console, err), terminal = -1, said = -1,
		     said_write = -1;
	if (listener < 0)
		return listener;
	int r = make_pipe(&said, &said_write, err);
	if (r == 0)
		r = runtime_spawn(
			s->l, args, (int[3]){ -1, -1, said_write }, &s->pid, &ret->pidfd, err);
	if (r == 0)
		r = receive_terminal(listener, ret->pidfd, said, &terminal, err);
	if (r < 0)
		return r;
	ret->in = fcntl(terminal, F_DUPFD_CLOEXEC, 0);
	ret->out = fcntl(terminal, F_DUPFD_CLOEXEC, 0);
	s->terminal = TAKE_FD(terminal);
	return start_resizer(s, &ret->control, err);
}

int local_exec(struct engine *e, const char *id, const char *const *argv, bool in, bool out,
	bool err_stream, bool tty, struct engine_session *ret, struct err *err)
{
	struct local *l = local_of(e);
	struct engine_session session = no_session;
	pid_t pid;
	int r = running(l, id, &pid, err);

	if (r)
		return r;
	struct session *s = session_new(l, id);
	r = exec_prepare(l, id, argv, tty, &s->files, err);
	if (r == 0)
		r = tty ? exec_terminal(s, &session, err)
			: exec_pipes(s, in, out, err_stream, &session, err);
	if (r < 0) {
		close_session(&session);
		if (s->pid > 0) {
			kill_exec(s->files.pid, s->pid);
			reap(s->pid);
		}
		session_free(s);
		return r;
	}
	session.private_ = s;
	*ret = session;
	return 0;
}

int local_session_wait(
	struct engine *e, struct engine_session *session, int *ret_code, struct err *err)
{
	struct local *l = local_of(e);
	struct session *s = session->private_;
	int code = 0;

	if (!s)
		return err_set(err, -EINVAL, "this session was waited for already");
	if (s->pid > 0) {
		code = reap(s->pid);
	} else {
		pthread_join(s->pump, NULL);
		s->has_pump = false;
		pthread_mutex_lock(&l->lock);
		struct container *c = container_find(l, s->id);
		if (c && (c->exited || container_refresh(l, c)))
			code = (int)c->exit_code;
		pthread_mutex_unlock(&l->lock);
	}
	/* The resizer ends when no writer is left. */
	clean_fd(&session->control);
	clean_fd(&session->pidfd);
	session->control = session->pidfd = -1;
	session->private_ = NULL;
	session_free(s);
	*ret_code = code;
	return 0;
}

/* ---- attach ---- */
enum { CONMON_STDOUT = 2, CONMON_STDERR = 3 };

static bool write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno != EINTR)
			return false;
		p += w > 0 ? w : 0;
		n -= w > 0 ? (size_t)w : 0;
	}
	return true;
}

/* One packet of conmon: a byte that names the stream, then data. */
static bool pump_out(struct session *s)
{
	char packet[16384];
	ssize_t n = recv(s->socket, packet, sizeof(packet), 0);

	if (n <= 0)
		return n < 0 && errno == EINTR;
	int fd = packet[0] == CONMON_STDERR ? s->err : packet[0] == CONMON_STDOUT ? s->out : -1;
	return fd < 0 || write_all(fd, packet + 1, (size_t)n - 1);
}

static bool pump_in(struct session *s)
{
	char chunk[4096];
	ssize_t n = read(s->in, chunk, sizeof(chunk));

	if (n > 0 && send(s->socket, chunk, (size_t)n, MSG_NOSIGNAL) >= 0)
		return true;
	if (n < 0 && errno == EINTR)
		return true;
	if (s->ends_with_input)
		return false;
	shutdown(s->socket, SHUT_WR);
	close(TAKE_FD(s->in));
	return true;
}

static void *pump_main(void *arg)
{
	struct session *s = arg;

	for (;;) {
		struct pollfd p[4] = { { s->socket, POLLIN, 0 }, { s->in, POLLIN, 0 },
			{ s->out, 0, 0 }, { s->err, 0, 0 } };
		if (poll(p, 4, -1) < 0 && errno != EINTR)
			break;
		/* The caller has closed what we write to: it has gone. */
		if ((p[2].revents | p[3].revents) & POLLERR)
			break;
		if (p[0].revents && !pump_out(s))
			break;
		if (p[1].revents && !pump_in(s))
			break;
	}
	clean_fd(&s->out);
	clean_fd(&s->err);
	clean_fd(&s->in);
	s->out = s->err = s->in = -1;
	/* Only now is all of the container's output in the caller's pipes. */
	eventfd_write(s->ended, 1);
	return NULL;
}

/* Through the folder's descriptor: the path itself may be longer than a socket's address. */
static int connect_attach(struct local *l, const char *id, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char path[PATH_MAX];

	path_fmt(path, "%s/containers/%s", l->root, id);
	CLEAN_FD int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/attach", dir);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int r = -errno;
		clean_fd(&fd);
		return err_errno(
			err, r, "cannot attach to container %s: conmon does not answer", id);
	}
	return fd;
}

static int attach_streams(struct session *s, bool in, bool out, bool err_stream, bool tty,
	struct engine_session *ret, struct err *err)
{
	int r = 0;

	if (in)
		r = make_pipe(&s->in, &ret->in, err);
	if (r == 0 && out)
		r = make_pipe(&ret->out, &s->out, err);
	if (r == 0 && err_stream && !tty)
		r = make_pipe(&ret->err, &s->err, err);
	if (r == 0 && tty)
		r = start_resizer(s, &ret->control, err);
	if (r < 0)
		return r;
	r = thread_start(&s->pump, "engine-attach", pump_main, s);
	s->has_pump = r == 0;
	return r < 0 ? err_errno(err, r, "cannot start a thread to attach with") : 0;
}

int local_attach(struct engine *e, const char *id, bool in, bool out, bool err_stream,
	struct engine_session *ret, struct err *err)
{
	struct local *l = local_of(e);
	struct engine_session session = no_session;
	pid_t pid;
	int r = running(l, id, &pid, err);

	if (r)
		return r;
	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	bool tty = c && c->tty, open_stdin = c && c->stdin_open,
	     once = c && c->stdin_once && !c->tty;
	pthread_mutex_unlock(&l->lock);
	struct session *s = session_new(l, id);
	/* The container's stdin stays open: its end would never come, nor that of such a session. As containerd has it. */
	s->ends_with_input = !once;
	s->socket = connect_attach(l, id, err);
	r = s->socket < 0 ? s->socket : 0;
	if (r == 0) {
		s->ended = eventfd(0, EFD_CLOEXEC);
		session.pidfd = s->ended < 0 ? -1 : fcntl(s->ended, F_DUPFD_CLOEXEC, 0);
		if (session.pidfd < 0)
			r = err_errno(err, -errno, "cannot watch an attached session");
	}
	if (r == 0)
		r = attach_streams(s, in && open_stdin, out, err_stream, tty, &session, err);
	if (r < 0) {
		close_session(&session);
		session_free(s);
		return r;
	}
	session.private_ = s;
	*ret = session;
	return 0;
}

/* ---- port-forward ---- */
struct forward {
	int port, fd;
};

static int try_connect(int family, const void *address, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, address, len) == 0)
		return fd;
	int r = -errno;
	clean_fd(&fd);
	return r;
}

static int connect_inside(void *arg, struct err *err)
{
	struct forward *f = arg;
	struct sockaddr_in v4 = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)f->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
		.sin6_port = htons((uint16_t)f->port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT };

	f->fd = try_connect(AF_INET, &v4, sizeof(v4));
	if (f->fd == -ECONNREFUSED) {
		int fd = try_connect(AF_INET6, &v6, sizeof(v6));
		f->fd = fd >= 0 ? fd : f->fd;
	}
	return f->fd < 0
		? err_errno(err, f->fd, "cannot connect to port %d inside the pod", f->port)
		: 0;
}

int local_port_forward(
	struct engine *e, const char *sandbox_id, int port, int *ret_fd, struct err *err)
{
	struct local *l = local_of(e);
	struct forward f = { .port = port, .fd = -1 };
	struct ns_where where = { .net_fd = -1 };
	char path[PATH_MAX] = "";
	CLEAN_FD int netns = -1;

	pthread_mutex_lock(&l->lock);
	struct sandbox *s = sandbox_find(l, sandbox_id);
	bool ready = s && s->ready;
	if (ready && !s->host_network)
		sandbox_ns_path(l, s, NS_NET, path);
	pthread_mutex_unlock(&l->lock);
	if (!s)
		return sandbox_missing(sandbox_id, err);
	if (!ready)
		return err_set(err, -ESRCH, "sandbox %s is stopped", sandbox_id);
	int r = path[0] ? ns_open(path, &netns, err) : 0;
	where.net_fd = netns;
	if (r == 0)
		r = ns_run(&where, connect_inside, &f, err);
	if (r == 0)
		*ret_fd = f.fd;
	return r;
}
