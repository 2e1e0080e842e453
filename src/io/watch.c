/* What a loop can wait for: timers, descriptors, signals, changes in a folder.
 * libuv frees handles only after a turn, so each is memory of its own, freed by the close callback. */
#include "io/internal.h"

#include <sys/inotify.h>

static void free_closed(uv_handle_t *h)
{
	free(h->data);
}

/* ---- timers ---- */

struct timer {
	uv_timer_t uv;
	task_fn fn;
	void *arg;
};

static void on_timer(uv_timer_t *uv)
{
	struct timer *t = uv->data;

	t->fn(t->arg);
}

struct timer *timer_new(struct loop *l, task_fn fn, void *arg)
{
	struct timer *t = xcalloc(1, sizeof(*t));

	uv_timer_init(loop_uv(l), &t->uv);
	t->uv.data = t;
	t->fn = fn;
	t->arg = arg;
	return t;
}

void timer_start(struct timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
	/* The loop's idea of now is as old as its turn; counting from it would fire early. */
	uv_update_time(t->uv.loop);
	uv_timer_start(&t->uv, on_timer, after_ms, repeat_ms);
}

void timer_stop(struct timer *t)
{
	uv_timer_stop(&t->uv);
}

void timer_free(struct timer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->uv, free_closed);
}

/* ---- descriptors ---- */

struct fd_watch {
	uv_poll_t uv;
	int events;
	fd_fn fn;
	void *arg;
};

static void on_fd(uv_poll_t *uv, int status, int events)
{
	struct fd_watch *w = uv->data;

	/* An error shows when the owner reads or writes. */
	if (status < 0)
		w->fn(w->arg, w->events);
	else
		w->fn(w->arg,
			(events & UV_READABLE ? IO_READ : 0) |
				(events & UV_WRITABLE ? IO_WRITE : 0));
}

int fd_watch_new(struct loop *l, int fd, int events, fd_fn fn, void *arg, struct fd_watch **ret,
	struct err *err)
{
	struct fd_watch *w = xcalloc(1, sizeof(*w));
	int r = uv_poll_init(loop_uv(l), &w->uv, fd);

	if (r < 0) {
		free(w);
		return err_set(err, r, "cannot watch descriptor %d: %s", fd, uv_strerror(r));
	}
	w->uv.data = w;
	w->fn = fn;
	w->arg = arg;
	fd_watch_set(w, events);
	*ret = w;
	return 0;
}

void fd_watch_set(struct fd_watch *w, int events)
{
	if (events == w->events)
		return;
	w->events = events;
	if (!events)
		uv_poll_stop(&w->uv);
	else
		uv_poll_start(&w->uv,
			(events & IO_READ ? UV_READABLE : 0) |
				(events & IO_WRITE ? UV_WRITABLE : 0),
			on_fd);
}

void fd_watch_free(struct fd_watch *w)
{
	if (w)
		uv_close((uv_handle_t *)&w->uv, free_closed);
}

/* ---- signals ---- */

struct signal_watch {
	uv_signal_t uv;
	task_fn fn;
	void *arg;
};

static void on_signal(uv_signal_t *uv, int signo)
{
	struct signal_watch *w = uv->data;

	w->fn(w->arg);
}

int signal_watch_new(struct loop *l, int signo, task_fn fn, void *arg, struct signal_watch **ret,
	struct err *err)
{
	struct signal_watch *w = xcalloc(1, sizeof(*w));
	int r = uv_signal_init(loop_uv(l), &w->uv);

	if (r < 0) {
		free(w);
		return err_set(err, r, "cannot watch signals: %s", uv_strerror(r));
	}
	w->uv.data = w;
	w->fn = fn;
	w->arg = arg;
	r = uv_signal_start(&w->uv, on_signal, signo);
	if (r < 0) {
		signal_watch_free(w);
		return err_set(err, r, "cannot watch signal %d: %s", signo, uv_strerror(r));
	}
	*ret = w;
	return 0;
}

void signal_watch_free(struct signal_watch *w)
{
	if (w)
		uv_close((uv_handle_t *)&w->uv, free_closed);
}

/* ---- folders ---- */

struct dir_watch {
	int fd;
	struct fd_watch *watch;
	dir_fn fn;
	void *arg;
	bool *gone; /* set while fn runs, so that fn may free the watch */
};

static void on_inotify(void *arg, int events)
{
	struct dir_watch *w = arg;
	_Alignas(struct inotify_event) char buf[4096];
	bool gone = false;
	ssize_t n;

	w->gone = &gone;
	while ((n = read(w->fd, buf, sizeof(buf))) > 0) {
		const struct inotify_event *e;

		for (char *p = buf; p < buf + n; p += sizeof(*e) + e->len) {
			e = (const struct inotify_event *)p;
			if (e->mask & IN_IGNORED)
				continue;
			w->fn(w->arg, e->mask & IN_Q_OVERFLOW || !e->len ? NULL : e->name);
			if (gone)
				return;
		}
	}
	w->gone = NULL;
}

int dir_watch_new(struct loop *l, const char *dir, dir_fn fn, void *arg, struct dir_watch **ret,
	struct err *err)
{
	const uint32_t mask = IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE |
		IN_DELETE_SELF | IN_ONLYDIR;
	CLEAN_FD int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0)
		return err_errno(err, -errno,
			"cannot watch folder %s (raise fs.inotify.max_user_instances?)", dir);
	if (inotify_add_watch(fd, dir, mask) < 0)
		return err_errno(err, -errno, "cannot watch folder %s", dir);
	struct dir_watch *w = xcalloc(1, sizeof(*w));

	w->fd = fd;
	w->fn = fn;
	w->arg = arg;
	int r = fd_watch_new(l, fd, IO_READ, on_inotify, w, &w->watch, err);

	if (r < 0) {
		free(w);
		return r;
	}
	(void)TAKE_FD(fd);
	*ret = w;
	return 0;
}

void dir_watch_free(struct dir_watch *w)
{
	if (!w)
		return;
	if (w->gone)
		*w->gone = true;
	fd_watch_free(w->watch);
	close(w->fd);
	free(w);
}
