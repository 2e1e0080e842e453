/* A path inside a volume whose contents a container may have written: opened by the kernel with RESOLVE_BENEATH, so that no link in it leads out, and
 * bound from that descriptor to a folder of ours. The engine is given our folder: nobody can swap a link in between. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kubelet/internal.h"
#include "linux/linux.h"

static int open_in(int root, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/* Makes what is missing of the path, one folder at a time, each as open to users and groups as the volume itself. */
static int make_in(int root, struct str sub, struct arena *a, struct err *err)
{
	struct stat volume;
	struct str rest = sub, part;
	CLEAN_BUF struct buf so_far = { 0 };

	if (fstat(root, &volume))
		return err_errno(err, -errno, "\"" STR_FMT "\"", STR_ARG(sub));
	while (rest.len) {
		str_cut(rest, '/', &part, &rest);
		if (!part.len || str_eqz(part, "."))
			continue;
		CLEAN_FD int parent =
			so_far.len ? open_in(root, so_far.p, O_PATH | O_DIRECTORY) : dup(root);
		if (parent < 0)
			return err_errno(err, -errno, "\"" STR_FMT "\"", STR_ARG(sub));
		struct str name = arena_str(a, part);
		bool made = mkdirat(parent, name.p, 0700) == 0;
		if (!made && errno != EEXIST)
			return err_errno(err, -errno, "\"" STR_FMT "\"", STR_ARG(sub));
		buf_addf(&so_far, "%s" STR_FMT, so_far.len ? "/" : "", STR_ARG(part));
		CLEAN_FD int fd =
			made ? open_in(root, so_far.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) : -1;
		if (made && (fd < 0 || fchmod(fd, volume.st_mode & 07777))) /* umask or not */
			return err_errno(err, -errno, "\"" STR_FMT "\"", STR_ARG(sub));
	}
	return 0;
}

int subpath_open(const char *base, struct str sub, struct arena *a, int *ret_fd, struct err *err)
{
	struct str path = arena_str(a, sub);

	if (path.len && path.p[0] == '/')
		return err_set(err, -EINVAL,
			"subPath \"" STR_FMT "\" must be relative to its volume", STR_ARG(sub));
	CLEAN_FD int root = open(base, O_PATH | O_CLOEXEC);
	if (root < 0)
		return err_errno(err, -errno, "volume %s", base);
	int fd = open_in(root, path.p, O_PATH);
	if (fd < 0 && errno == ENOENT) {
		int r = make_in(root, path, a, err);
		if (r)
			return r;
		fd = open_in(root, path.p, O_PATH);
	}
	if (fd < 0)
		return err_errno(err, -errno, "subPath \"" STR_FMT "\" of %s", STR_ARG(sub), base);
	*ret_fd = fd;
	return 0;
}

/* An empty file or folder to mount on. */
static int make_target(const char *target, bool folder, struct err *err)
{
	CLEAN_FREE char *parent = xstrdup(target);

	*strrchr(parent, '/') = 0;
	int r = dir_make(parent, 0750, err);
	if (r)
		return r;
	if (folder)
		return dir_make(target, 0750, err);
	CLEAN_FD int fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0640);
	return fd < 0 ? err_errno(err, -errno, "%s", target) : 0;
}

int subpath_bind(
	const char *base, struct str sub, const char *target, struct arena *a, struct err *err)
{
	struct stat st;
	CLEAN_FD int fd = -1;

	int r = subpath_open(base, sub, a, &fd, err);
	if (r)
		return r;
	if (fstat(fd, &st))
		return err_errno(err, -errno, "subPath \"" STR_FMT "\"", STR_ARG(sub));
	if (mount_is_point(target) && (r = mount_remove(target, err)))
		return r;
	unlink(target);
	rmdir(target);
	r = make_target(target, S_ISDIR(st.st_mode), err);
	return r ? r : mount_bind(arena_fmt(a, "/proc/self/fd/%d", fd).p, target, true, false, err);
}
