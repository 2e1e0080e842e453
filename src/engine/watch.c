/* The thread that notices ends: conmon's exit files by inotify, conmon itself by pidfd; and that of our nftables. Sleeps otherwise. */
#include "engine/cni.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

/* Lock held. An exit file holds the code, as text. */
bool container_refresh(struct local *l, struct container *c)
{
	CLEAN_BUF struct buf text = { 0 };
	char path[PATH_MAX];
	struct stat st;
	int64_t code;

	if (!c->started || c->exited)
		return false;
	path_fmt(path, "%s/exits/%s", l->root, c->id);
	if (stat(path, &st) < 0 || file_read(path, 64, &text, NULL) < 0 ||
		str_to_i64(str_trim(buf_str(&text)), &code) < 0)
		return false;
	/* Before the cgroup goes: which of its processes the kernel had to kill is only counted there. */
	c->oom_killed = cgroup_oom_kills(l->cgroups, c->cgroup) > 0;
	container_set_exit(l, c, code,
		(struct timestamp){ st.st_mtim.tv_sec, (int32_t)st.st_mtim.tv_nsec },
		c->oom_killed  ? "OOMKilled"
			: code ? "Error"
			       : "Completed",
		"");
	return true;
}

void watch_container(struct local *l, struct container *c)
{
	struct epoll_event ev = { .events = EPOLLIN };

	if (c->conmon_fd >= 0 || c->conmon_pid <= 0)
		return;
	c->conmon_fd = pidfd_of((pid_t)c->conmon_pid);
	ev.data.fd = c->conmon_fd;
	if (c->conmon_fd >= 0)
		epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->conmon_fd, &ev);
}

void watch_forget(struct local *l, struct container *c)
{
	if (c->conmon_fd < 0)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, c->conmon_fd, NULL);
	close(c->conmon_fd);
	c->conmon_fd = -1;
}

/* Without conmon nobody reads the container's output or learns its exit code: it is ended. Lock not held: processes may take their time to die. */
bool conmon_gone(struct local *l, const char *id)
{
	char cgroup[PATH_MAX];

	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	bool orphan = c && c->started && !c->exited, over = orphan && container_refresh(l, c);
	if (c) {
		watch_forget(l, c);
		c->conmon_lost = c->starting;
		path_fmt(cgroup, "%s", c->cgroup);
	}
	if (orphan && !over)
		log_warn("engine", "conmon of container %s (%s) is gone: the container is killed",
			c->name, id);
	pthread_mutex_unlock(&l->lock);
	if (!orphan || over)
		return over;
	cgroup_kill(l->cgroups, cgroup, NULL);
	pthread_mutex_lock(&l->lock);
	c = container_find(l, id);
	over = c && !c->exited;
	if (over && !container_refresh(l, c))
		container_set_exit(
			l, c, 137, time_now(), "Error", "conmon, which held the container, died");
	pthread_mutex_unlock(&l->lock);
	return over;
}

static const char nobody[ENGINE_ID] = ""; /* the news is of the engine itself */

struct event {
	char sandbox[ENGINE_ID], container[ENGINE_ID];
};

void watch_tell(struct local *l, const char *sandbox_id, const char *container_id)
{
	pthread_mutex_lock(&l->lock);
	engine_event_fn fn = l->event_fn;
	void *arg = l->event_arg;
	pthread_mutex_unlock(&l->lock);
	if (fn)
		fn(arg, sandbox_id, container_id);
}

static void note(struct event *ev, const struct container *c)
{
	memcpy(ev->sandbox, c->sandbox_id, ENGINE_ID);
	memcpy(ev->container, c->id, ENGINE_ID);
}

static void on_exit_file(struct local *l, const char *name)
{
	struct event ev;

	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, name);
	if (c) {
		container_refresh(
			l, c); /* somebody who asked may have been first: told all the same */
		note(&ev, c);
	}
	pthread_mutex_unlock(&l->lock);
	if (c)
		watch_tell(l, ev.sandbox, ev.container);
}

/* The queue ran over: look at all of them. */
static void on_overflow(struct local *l)
{
	size_t i = 0, n = 0;
	struct str id;
	void *p;

	pthread_mutex_lock(&l->lock);
	CLEAN_FREE struct event *events = xcalloc(l->containers.len + 1, sizeof(*events));
	while (map_next(&l->containers, &i, &id, &p))
		if (container_refresh(l, p))
			note(&events[n++], p);
	pthread_mutex_unlock(&l->lock);
	for (i = 0; i < n; i++)
		watch_tell(l, events[i].sandbox, events[i].container);
	if (l->cni)
		watch_tell(l, nobody, nobody);
}

static void on_inotify(struct local *l)
{
	char space[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(l->inotify_fd, space, sizeof(space));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const void *)(space + at);
		if (ev->mask & IN_Q_OVERFLOW)
			on_overflow(l);
		else if (ev->wd == l->cni_watch)
			watch_tell(l, nobody, nobody);
		else if (ev->len)
			on_exit_file(l, ev->name);
		at += (ssize_t)(sizeof(*ev) + ev->len);
	}
}

static void on_conmon(struct local *l, int fd)
{
	struct event ev;
	bool found = false;
	size_t i = 0;
	struct str id;
	void *p;

	pthread_mutex_lock(&l->lock);
	while (!found && map_next(&l->containers, &i, &id, &p)) {
		struct container *c = p;
		if (c->conmon_fd != fd)
			continue;
		found = true;
		note(&ev, c);
	}
	/* Since the event was fetched the descriptor may have been closed, and be that of another conmon by now, which lives. */
	found = found && pidfd_wait(fd, 0) == 0;
	pthread_mutex_unlock(&l->lock);
	if (found && conmon_gone(l, ev.container))
		watch_tell(l, ev.sandbox, ev.container);
}

/* A firewall's reload (nft flush ruleset) takes everybody's tables: pods would reach nobody outside until somebody thought of it. */
static void on_nftables(struct local *l)
{
	struct err err;

	if (nft_monitor_lost(l->nft_fd) && network_restore(l, &err) < 0)
		log_warn("engine", "pods' addresses are not masqueraded: %s", err.text);
}

static void *watch_main(void *arg)
{
	struct local *l = arg;
	struct epoll_event events[16];

	for (;;) {
		int n = epoll_wait(l->epoll_fd, events, ARRAY_LEN(events), -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == l->stop_fd)
				return NULL;
			if (events[i].data.fd == l->inotify_fd)
				on_inotify(l);
			else if (events[i].data.fd == l->nft_fd)
				on_nftables(l);
			else
				on_conmon(l, events[i].data.fd);
		}
	}
}

int watch_open(struct local *l, struct err *err)
{
	char path[PATH_MAX];
	struct epoll_event ev = { .events = EPOLLIN };

	path_fmt(path, "%s/exits", l->root);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->stop_fd = eventfd(0, EFD_CLOEXEC);
	l->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (l->epoll_fd < 0 || l->stop_fd < 0 || l->inotify_fd < 0)
		return err_errno(err, -errno,
			"cannot watch for containers that end (fs.inotify.max_user_instances?)");
	if (inotify_add_watch(l->inotify_fd, path, IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR) < 0)
		return err_errno(err, -errno, "cannot watch %s", path);
	if (l->cni)
		l->cni_watch = inotify_add_watch(l->inotify_fd, l->cni->conf_dir,
			IN_CREATE | IN_DELETE | IN_MOVE | IN_CLOSE_WRITE | IN_ONLYDIR);
	if (l->cni && l->cni_watch < 0)
		return err_errno(err, -errno, "cannot watch %s", l->cni->conf_dir);
	ev.data.fd = l->stop_fd;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->stop_fd, &ev);
	ev.data.fd = l->inotify_fd;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->inotify_fd, &ev);
	int r = l->cni ? 0 : nft_monitor(&l->nft_fd, err);
	if (l->cni || r < 0)
		return r;
	ev.data.fd = l->nft_fd;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->nft_fd, &ev);
	return 0;
}

int watch_start(struct local *l, struct err *err)
{
	int r = thread_start(&l->watcher, "engine-watch", watch_main, l);

	l->watching = r == 0;
	return r < 0 ? err_errno(err, r, "cannot start the engine's thread") : 0;
}

void watch_stop(struct local *l)
{
	uint64_t one = 1;

	if (l->watching && write(l->stop_fd, &one, sizeof(one)) > 0)
		pthread_join(l->watcher, NULL);
	l->watching = false;
	clean_fd(&l->inotify_fd);
	clean_fd(&l->nft_fd);
	clean_fd(&l->stop_fd);
	clean_fd(&l->epoll_fd);
}
