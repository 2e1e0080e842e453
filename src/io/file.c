/* Whole files and folders.
 * A folder is removed by descriptor, never by path. Trees deeper than DEPTH_MAX are flattened: what lies deeper is moved to
 * the top and removed from there, so that neither stack nor descriptors grow with the depth. */
#include "io/internal.h"

#include <stdio.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#define DEPTH_MAX 32
#define SYNC_THREADS 24

int file_read(const char *path, size_t max, struct buf *ret, struct err *err)
{
	CLEAN_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEAN_BUF struct buf b = { 0 };
	struct stat st;

	if (fd < 0)
		return err_errno(err, -errno, "cannot open %s", path);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		buf_reserve(&b, MIN((size_t)st.st_size, max));
	for (;;) {
		buf_reserve(&b, 4096);
		ssize_t n = read(fd, b.p + b.len, b.cap - b.len - 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, -errno, "cannot read %s", path);
		if (n == 0)
			break;
		b.len += (size_t)n;
		if (b.len > max)
			return err_set(err, -EFBIG, "%s is larger than %zu bytes", path, max);
	}
	b.p[b.len] = '\0';
	buf_deinit(ret);
	*ret = b;
	b = (struct buf){ 0 };
	return 0;
}

static int write_all(int fd, struct str bytes)
{
	while (bytes.len) {
		ssize_t n = write(fd, bytes.p, bytes.len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			bytes = str_from(bytes, (size_t)n);
	}
	return 0;
}

/* Fsyncs the folder that holds path, so that the new name survives a crash. */
static int sync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	CLEAN_FREE char *dir = slash ? xstrndup(path, (size_t)MAX(slash - path, 1)) : xstrdup(".");
	CLEAN_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int write_beside(const char *tmp, struct str bytes, mode_t mode, bool durable)
{
	CLEAN_FD int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

	if (fd < 0 || fchmod(fd, mode) < 0) /* the umask does not count */
		return -errno;
	int r = write_all(fd, bytes);

	if (r < 0)
		return r;
	return durable && fsync(fd) < 0 ? -errno : 0;
}

int file_write_atomic(
	const char *path, struct str bytes, mode_t mode, bool durable, struct err *err)
{
	char suffix[9];

	random_suffix(suffix, 8);
	CLEAN_FREE char *tmp = xasprintf("%s.new-%s", path, suffix);
	int r = write_beside(tmp, bytes, mode, durable);

	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return err_errno(err, r, "cannot write %s", path);
	}
	if (durable && (r = sync_parent(path)) < 0)
		return err_errno(err, r, "cannot write %s: its folder", path);
	return 0;
}

struct sync_job {
	int fd, result;
	pthread_t thread;
	bool has_thread;
};

static void *sync_one(void *arg)
{
	struct sync_job *j = arg;

	j->result = fsync(j->fd) < 0 ? -errno : 0;
	return NULL;
}

/* All at once: the file system answers them with one commit, where one after the other each waits for the disk. */
static int sync_files(int dir_fd)
{
	struct sync_job jobs[SYNC_THREADS] = { 0 };
	DIR *d = fdopendir(dup(dir_fd));
	struct dirent *e;
	size_t n = 0;
	int r = d ? 0 : -errno;

	while (d && (e = readdir(d))) {
		struct sync_job *j = &jobs[n];

		if ((e->d_type != DT_REG && e->d_type != DT_UNKNOWN) ||
			(j->fd = openat(dir_fd, e->d_name,
				 O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW)) < 0)
			continue;
		j->has_thread =
			n + 1 < SYNC_THREADS && thread_start(&j->thread, "fsync", sync_one, j) == 0;
		if (j->has_thread) {
			n++;
			continue;
		}
		sync_one(j); /* more files than threads: here, one by one */
		close(j->fd);
		r = MIN(r, j->result);
	}
	for (size_t i = 0; i < n; i++) {
		pthread_join(jobs[i].thread, NULL);
		close(jobs[i].fd);
		r = MIN(r, jobs[i].result);
	}
	if (d)
		closedir(d);
	return r;
}

int dir_sync(const char *path, struct err *err)
{
	CLEAN_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : sync_files(fd);

	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r < 0 ? err_errno(err, r, "cannot make %s durable", path) : 0;
}

int dir_make(const char *path, mode_t mode, struct err *err)
{
	CLEAN_FREE char *part = xstrdup(path);
	struct stat st;

	for (char *p = part + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(part, mode) < 0 && errno != EEXIST &&
			!(stat(part, &st) == 0 && S_ISDIR(st.st_mode)))
			return err_errno(err, -errno, "cannot make folder %s", part);
		*p = c;
		if (!c)
			break;
	}
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(
			err, -ENOTDIR, "cannot make folder %s: something else has that name", path);
	return 0;
}

struct removal {
	const char *path; /* for texts */
	int top;
	unsigned moved;
	struct err *err;
};

static int remove_entries(struct removal *m, int fd, unsigned depth);

static bool is_mount_point(int dir, const char *name)
{
	struct statx sx;

	if (statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_INO, &sx) < 0)
		return false;
	return sx.stx_attributes & sx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT;
}

/* Moves dir/name, which lies too deep, into the top folder; it is met there again. */
static int move_up(struct removal *m, int dir, const char *name)
{
	char to[32];

	for (;;) {
		snprintf(to, sizeof(to), ".removing-%u", m->moved++);
		if (renameat2(dir, name, m->top, to, RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EEXIST)
			return err_errno(m->err, -errno, "cannot remove %s in %s", name, m->path);
	}
}

static int remove_entry(struct removal *m, int dir, const char *name, unsigned depth)
{
	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return err_errno(m->err, -errno, "cannot remove %s in %s", name, m->path);
	if (is_mount_point(dir, name))
		return err_set(m->err, -EBUSY,
			"cannot remove %s in %s: something is mounted there; unmount it", name,
			m->path);
	if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return err_errno(m->err, -errno, "cannot remove %s in %s", name, m->path);
	if (depth >= DEPTH_MAX)
		return move_up(m, dir, name);
	CLEAN_FD int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return err_errno(m->err, -errno, "cannot remove %s in %s", name, m->path);
	int r = remove_entries(m, fd, depth + 1);

	if (r < 0)
		return r;
	if (unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_errno(m->err, -errno, "cannot remove %s in %s", name, m->path);
	return 0;
}

static int remove_entries(struct removal *m, int fd, unsigned depth)
{
	int own = dup(fd), r = 0;
	DIR *d = own < 0 ? NULL : fdopendir(own);
	struct dirent *e;
	bool any = true;

	if (!d) {
		r = err_errno(m->err, -errno, "cannot list a folder in %s", m->path);
		if (own >= 0)
			close(own);
		return r;
	}
	/* Entries moved up while the top is being read may be missed by it: read again until nothing was there. */
	while (any && r == 0) {
		any = false;
		rewinddir(d);
		while (r == 0 && (e = readdir(d))) {
			if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
				continue;
			any = true;
			r = remove_entry(m, fd, e->d_name, depth);
		}
		any = any && depth == 0;
	}
	closedir(d);
	return r;
}

int dir_remove_tree(const char *path, struct err *err)
{
	struct removal m = { .path = path, .err = err };
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_errno(err, -errno, "cannot remove %s", path);
	if (!S_ISDIR(st.st_mode))
		return unlink(path) < 0 ? err_errno(err, -errno, "cannot remove %s", path) : 0;
	if (is_mount_point(AT_FDCWD, path))
		return err_set(err, -EBUSY,
			"cannot remove %s: something is mounted there; unmount it", path);
	CLEAN_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return err_errno(err, -errno, "cannot remove %s", path);
	m.top = fd;
	int r = remove_entries(&m, fd, 0);

	if (r < 0)
		return r;
	return rmdir(path) < 0 && errno != ENOENT ? err_errno(err, -errno, "cannot remove %s", path)
						  : 0;
}

static void add_usage(int dir, dev_t device, int depth, uint64_t *sum)
{
	DIR *d = fdopendir(dir);
	struct stat st;

	if (!d) {
		close(dir);
		return;
	}
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
			fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			st.st_dev != device)
			continue;
		*sum += (uint64_t)st.st_blocks * 512;
		if (!S_ISDIR(st.st_mode) || depth == DEPTH_MAX)
			continue;
		int below = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (below >= 0)
			add_usage(below, device, depth + 1, sum);
	}
	closedir(d);
}

uint64_t dir_usage(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	uint64_t sum = 0;
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0) {
		close(fd);
		return 0;
	}
	add_usage(fd, st.st_dev, 0, &sum);
	return sum;
}
