/* Namespaces: made on a thread of their own, pinned by a bind mount, entered by descriptor.
 * A thread, since namespaces belong to threads: the rest of the process stays where it is, and children of the thread inherit them. */
#include "linux/linux.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <linux/magic.h>

const char *const ns_names[NS_KINDS] = { [NS_NET] = "net", [NS_UTS] = "uts", [NS_IPC] = "ipc" };
static const int ns_flags[NS_KINDS] = {
	[NS_NET] = CLONE_NEWNET, [NS_UTS] = CLONE_NEWUTS, [NS_IPC] = CLONE_NEWIPC
};

#define CGROUP2_HYBRID "/sys/fs/cgroup/unified"
#define NS_STACK (1024 * 1024)

struct ns_call {
	int (*fn)(struct ns_call *c);
	const struct ns_where *where;
	const char *const *paths;
	ns_fn user_fn;
	void *user_arg;
	struct err *err;
	int result;
};

static void *call_main(void *p)
{
	struct ns_call *c = p;

	c->result = c->fn(c);
	return NULL;
}

static int call_on_thread(struct ns_call *c)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, NS_STACK);
	int r = pthread_create(&thread, &attr, call_main, c);
	pthread_attr_destroy(&attr);
	if (r)
		return err_errno(c->err, -r, "cannot start a thread for a namespace");
	pthread_join(thread, NULL);
	return c->result;
}

static int pin(enum ns_kind kind, const char *path, struct err *err)
{
	char own[64];
	CLEAN_FD int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);

	if (fd < 0)
		return err_errno(err, -errno, "cannot create %s to pin a namespace", path);
	snprintf(own, sizeof(own), "/proc/self/task/%d/ns/%s", gettid(), ns_names[kind]);
	if (mount(own, path, NULL, MS_BIND, NULL) < 0)
		return err_errno(
			err, -errno, "cannot bind a %s namespace to %s", ns_names[kind], path);
	return 0;
}

static int create_in_thread(struct ns_call *c)
{
	int flags = 0, r = 0;

	for (int k = 0; k < NS_KINDS; k++)
		if (c->paths[k])
			flags |= ns_flags[k];
	if (unshare(flags) < 0)
		return err_errno(c->err, -errno,
			"cannot make a namespace (root is needed, and a kernel with CONFIG_NET_NS, UTS_NS, IPC_NS)");
	if (c->user_fn)
		r = c->user_fn(c->user_arg, c->err);
	for (int k = 0; k < NS_KINDS && r == 0; k++)
		if (c->paths[k])
			r = pin(k, c->paths[k], c->err);
	for (int k = 0; k < NS_KINDS && r != 0; k++)
		if (c->paths[k])
			ns_unpin(c->paths[k], NULL);
	return r;
}

int ns_create(const char *const paths[NS_KINDS], ns_fn fn, void *arg, struct err *err)
{
	struct ns_call c = {
		.fn = create_in_thread, .paths = paths, .user_fn = fn, .user_arg = arg, .err = err
	};

	return call_on_thread(&c);
}

int ns_unpin(const char *path, struct err *err)
{
	int r = mount_remove(path, err);

	if (r < 0)
		return r;
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(err, -errno, "cannot remove %s", path);
	return 0;
}

bool ns_is_pinned(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

int ns_open(const char *path, int *ret_fd, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0)
		return err_errno(err, -errno, "cannot open the namespace %s", path);
	if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC) {
		close(fd);
		return err_set(err, -ESTALE,
			"no namespace is bound to %s any more (the machine was restarted)", path);
	}
	*ret_fd = fd;
	return 0;
}

/* Under a hybrid setup crun looks at the magic number of the unified mount and refuses; where that is not mounted, it takes the bare folder for one and writes
 * into it. A tmpfs over it, seen here alone, makes it take the v1 hierarchies; what it writes there goes with the namespace. */
static int cover_cgroup2(struct err *err)
{
	if (access(CGROUP2_HYBRID, F_OK) < 0)
		return 0;
	if (mount("tmpfs", CGROUP2_HYBRID, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		    "size=1m,mode=755") < 0)
		return err_errno(err, -errno, "cannot cover %s for crun", CGROUP2_HYBRID);
	return 0;
}

static int run_in_thread(struct ns_call *c)
{
	int r;

	if (c->where->net_fd >= 0 && setns(c->where->net_fd, CLONE_NEWNET) < 0)
		return err_errno(c->err, -errno, "cannot enter a network namespace");
	if (c->where->private_mounts) {
		if (unshare(CLONE_NEWNS) < 0)
			return err_errno(
				c->err, -errno, "cannot make a mount namespace (root is needed)");
		if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
			return err_errno(
				c->err, -errno, "cannot make the mounts of a new namespace slaves");
		if (c->where->hide_cgroup2 && (r = cover_cgroup2(c->err)) < 0)
			return r;
	}
	return c->user_fn(c->user_arg, c->err);
}

int ns_run(const struct ns_where *where, ns_fn fn, void *arg, struct err *err)
{
	struct ns_call c = {
		.fn = run_in_thread, .where = where, .user_fn = fn, .user_arg = arg, .err = err
	};

	return call_on_thread(&c);
}
