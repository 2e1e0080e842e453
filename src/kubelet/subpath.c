/* A path inside a volume whose contents a container may have written: resolved by the kernel with RESOLVE_IN_ROOT, so that no link in it leads out. What
 * the engine gets is /proc/self/fd-free: the real path, checked to lie below the volume after resolution. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kubelet/internal.h"

static int open_in(int root, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(unsigned)flags | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/* Makes what is missing of the path, one folder at a time. */
static int make_in(int root, struct str sub, mode_t mode, struct arena *a, struct err *err)
{
	struct str rest = sub, part;
	CLEAN_BUF struct buf so_far = { 0 };

	while (rest.len) {
		str_cut(rest, '/', &part, &rest);
		if (!part.len || str_eqz(part, "."))
			continue;
		CLEAN_FD int parent = so_far.len ? open_in(root, so_far.p, O_PATH | O_DIRECTORY) : dup(root);
		if (parent < 0)
			return err_errno(err, -errno, "\"" STR_FMT "\"", STR_ARG(sub));
		struct str name = arena_str(a, part);
		if (mkdirat(parent, name.p, mode) && errno != EEXIST)
			return err_errno(err, -errno, "\"" STR_FMT "\"", STR_ARG(sub));
		buf_addf(&so_far, "%s" STR_FMT, so_far.len ? "/" : "", STR_ARG(part));
	}
	return 0;
}

int subpath_resolve(const char *base, struct str sub, bool make, mode_t mode, struct arena *a, struct str *ret, struct err *err)
{
	char real[4096], real_base[4096];
	struct str path = arena_str(a, sub);

	if (path.len && path.p[0] == '/')
		return err_set(err, -EINVAL, "subPath \"" STR_FMT "\" must be relative to its volume", STR_ARG(sub));
	CLEAN_FD int root = open(base, O_PATH | O_CLOEXEC);
	if (root < 0 || !realpath(base, real_base))
		return err_errno(err, -errno, "volume %s", base);
	int fd = open_in(root, path.p, O_PATH);
	if (fd < 0 && errno == ENOENT && make) {
		int r = make_in(root, path, mode, a, err);
		if (r)
			return r;
		fd = open_in(root, path.p, O_PATH);
	}
	if (fd < 0)
		return err_errno(err, -errno, "subPath \"" STR_FMT "\" of %s", STR_ARG(sub), base);
	CLEAN_FD int close_it = fd;
	(void)close_it;
	struct str proc = arena_fmt(a, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(proc.p, real, sizeof(real) - 1);
	if (n < 0)
		return err_errno(err, -errno, "subPath \"" STR_FMT "\"", STR_ARG(sub));
	real[n] = 0;
	size_t len = strlen(real_base);
	if (strncmp(real, real_base, len) || (real[len] && real[len] != '/'))
		return err_set(err, -EPERM, "subPath \"" STR_FMT "\" leads out of its volume", STR_ARG(sub));
	*ret = arena_strz(a, real);
	return 0;
}
