/* Mounts, and paths that are opened without ever leaving a root. */
#include "linux/linux.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int mount_overlay(const struct mount_overlay *o, const char *target, struct err *err)
{
	CLEAN_BUF struct buf options = { 0 };

	buf_addz(&options, "lowerdir=");
	for (size_t i = 0; i < o->n_lower; i++)
		buf_addf(&options, "%s%s", i ? ":" : "", o->lower[i]);
	if (o->upper)
		buf_addf(&options, ",upperdir=%s,workdir=%s", o->upper, o->work);
	if (options.len >= (size_t)sysconf(_SC_PAGESIZE))
		return err_set(err, -E2BIG, "%zu layers are more than one overlay mount can name",
			o->n_lower);
	if (chdir(o->lower_dir) < 0)
		return err_errno(err, -errno, "cannot enter %s", o->lower_dir);
	int r = mount("overlay", target, "overlay", 0, options.p) < 0 ? -errno : 0;
	if (r == -ENODEV)
		return err_set(err, r,
			"this kernel knows no overlayfs: load the module overlay (modprobe overlay)");
	if (r < 0)
		return err_errno(
			err, r, "cannot mount an overlay of %zu layers at %s", o->n_lower, target);
	return 0;
}

int mount_bind(
	const char *source, const char *target, bool recursive, bool read_only, struct err *err)
{
	if (mount(source, target, NULL, MS_BIND | (recursive ? MS_REC : 0), NULL) < 0)
		return err_errno(err, -errno, "cannot bind %s to %s", source, target);
	if (read_only && mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0) {
		int r = -errno;
		umount2(target, MNT_DETACH);
		return err_errno(err, r, "cannot make %s read-only", target);
	}
	return 0;
}

int mount_tmpfs(const char *target, uint64_t size, mode_t mode, struct err *err)
{
	char options[64];
	int n = snprintf(options, sizeof(options), "mode=%o", mode);

	if (size)
		snprintf(options + n, sizeof(options) - (size_t)n, ",size=%llu",
			(unsigned long long)size);
	if (mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
		return err_errno(err, -errno, "cannot mount a tmpfs at %s", target);
	return 0;
}

int mount_remove(const char *target, struct err *err)
{
	while (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	if (errno == EINVAL || errno == ENOENT || errno == ENOTDIR)
		return 0;
	return err_errno(err, -errno, "cannot unmount %s", target);
}

int mount_propagation(const char *target, unsigned long flags, struct err *err)
{
	if (mount(NULL, target, NULL, flags, NULL) < 0)
		return err_errno(err, -errno, "cannot change how mounts at %s propagate", target);
	return 0;
}

/* ---- /proc/self/mountinfo ---- */
struct mount_line {
	char *point;
	bool shared;
};

/* Undoes \040 and its kind in place. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++)
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
			s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	*out = '\0';
}

static bool next_mount(FILE *f, char **line, size_t *cap, struct mount_line *ret)
{
	char *save, *field;

	if (getline(line, cap, f) < 0)
		return false;
	field = strtok_r(*line, " ", &save);
	for (int i = 0; i < 4 && field; i++)
		field = strtok_r(NULL, " ", &save);
	if (!field)
		return false;
	unescape(field);
	ret->point = field;
	ret->shared = false;
	strtok_r(NULL, " ", &save); /* the mount's options */
	while ((field = strtok_r(NULL, " ", &save)) && strcmp(field, "-") != 0)
		ret->shared |= !strncmp(field, "shared:", 7);
	return true;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (n == 1 && dir[0] == '/')
		return path[0] == '/';
	return !strncmp(path, dir, n) && (path[n] == '/' || path[n] == '\0');
}

bool mount_is_point(const char *path)
{
	struct statx sx;

	return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &sx) == 0 &&
		(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

bool mount_is_shared(const char *path)
{
	char real[PATH_MAX], *line = NULL;
	size_t cap = 0, best = 0;
	struct mount_line m;
	bool shared = false;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	if (!f || !realpath(path, real)) {
		if (f)
			fclose(f);
		return false;
	}
	while (next_mount(f, &line, &cap, &m))
		if (is_below(real, m.point) && strlen(m.point) >= best) {
			best = strlen(m.point);
			shared = m.shared;
		}
	free(line);
	fclose(f);
	return shared;
}

int mount_share_folder(const char *dir, struct err *err)
{
	int r = 0;

	if (mount_is_shared(dir))
		return 0;
	if (!mount_is_point(dir))
		r = mount_bind(dir, dir, true, false, err);
	return r < 0 ? r : mount_propagation(dir, MS_SHARED, err);
}

int mount_remove_below(const char *dir, struct err *err)
{
	char real[PATH_MAX], *line = NULL, **points = NULL;
	size_t cap = 0, n = 0;
	struct mount_line m;
	int r = 0;

	if (!realpath(dir, real))
		return errno == ENOENT ? 0 : err_errno(err, -errno, "cannot resolve %s", dir);
	FILE *f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return err_errno(err, -errno, "cannot open /proc/self/mountinfo");
	while (next_mount(f, &line, &cap, &m))
		if (is_below(m.point, real)) {
			points = xrealloc(points, (n + 1) * sizeof(*points));
			points[n++] = xstrdup(m.point);
		}
	free(line);
	fclose(f);
	/* A mount always comes after what it stands on. */
	while (n > 0) {
		if (umount2(points[--n], MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL &&
			errno != ENOENT && r == 0)
			r = err_errno(err, -errno, "cannot unmount %s", points[n]);
		free(points[n]);
	}
	free(points);
	return r;
}

int mount_clone(const char *path, int *ret_fd, struct err *err)
{
	int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		return err_errno(err, -errno, "cannot copy the mounts at %s", path);
	*ret_fd = fd;
	return 0;
}

int mount_attach(int fd, const char *target, struct err *err)
{
	if (move_mount(fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_errno(err, -errno, "cannot attach a mount at %s", target);
	return 0;
}

/* ---- paths below a root ---- */
int path_open_in_root(int root_fd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & (O_CREAT | __O_TMPFILE) ? mode : 0,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	for (int tries = 0;; tries++) {
		long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
		/* EAGAIN: something was renamed meanwhile; the kernel could not tell whether it stayed inside. */
		if (fd >= 0 || errno != EAGAIN || tries == 16)
			return fd < 0 ? -errno : (int)fd;
	}
}

/* Whatever the umask is. */
static int make_dir(int dir, const char *name, mode_t mode)
{
	if (mkdirat(dir, name, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	return fchmodat(dir, name, mode, 0) < 0 ? -errno : 0;
}

/* Opens the folder named by the first `len` bytes of path, making what is missing one name after the other. */
static int open_dirs(int root_fd, const char *path, size_t len, mode_t mode)
{
	char so_far[PATH_MAX];
	size_t at = 0;
	int dir = path_open_in_root(root_fd, ".", O_PATH | O_DIRECTORY, 0);

	if (len >= sizeof(so_far))
		return close(dir), -ENAMETOOLONG;
	while (dir >= 0 && at < len) {
		size_t start = at;
		while (at < len && path[at] != '/')
			at++;
		memcpy(so_far, path, at);
		so_far[at] = '\0';
		/* Each step is resolved from the root again, so that a link met on the way is taken inside the root. */
		int next = path_open_in_root(root_fd, so_far, O_PATH | O_DIRECTORY, 0);
		if (next == -ENOENT && mode && at > start) {
			char name[NAME_MAX + 1];
			if (at - start > NAME_MAX)
				next = -ENAMETOOLONG;
			else {
				memcpy(name, path + start, at - start);
				name[at - start] = '\0';
				next = make_dir(dir, name, mode);
				if (next == 0)
					next = path_open_in_root(
						root_fd, so_far, O_PATH | O_DIRECTORY, 0);
			}
		}
		close(dir);
		dir = next;
		while (at < len && path[at] == '/')
			at++;
	}
	return dir;
}

int path_open_parent(int root_fd, const char *path, mode_t mode, int *ret_fd, const char **ret_name)
{
	while (*path == '/')
		path++;
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	int dir = open_dirs(root_fd, path, (size_t)(name - path), mode);
	if (dir < 0)
		return dir;
	*ret_fd = dir;
	*ret_name = name;
	return 0;
}
