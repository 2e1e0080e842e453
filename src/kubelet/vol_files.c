/* A folder of small files that changes as one: files stand in a dated folder, `..data` is a link to it, and each name at the top is a link through
 * `..data`. A new set is written beside and `..data` is renamed over. Nothing changes when the bytes are the same.
 * Containers see it read only, but for what stands in it nobody's word is taken: links are not followed out of it, pipes are not waited for, and
 * only a plain name is an old set.
 * Source: the behaviour that the concept page on ConfigMaps describes; the layout is upstream's, since programs watch `..data`. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "kubelet/internal.h"
#include "linux/linux.h"

void volume_files_add(
	struct arena *a, struct volume_files *f, struct str path, struct str bytes, int32_t mode)
{
	for (size_t i = 0; i < f->len; i++)
		if (str_eq(f->items[i].path, path)) {
			f->items[i] = (struct volume_file){ path, bytes, mode, 0 };
			return;
		}
	f->items = arena_grow(
		a, f->items, f->len * sizeof(*f->items), (f->len + 1) * sizeof(*f->items));
	f->items[f->len++] = (struct volume_file){ arena_str(a, path), bytes, mode, 0 };
}

static bool path_is_safe(struct str p)
{
	struct str part, rest = p;

	if (!p.len || p.p[0] == '/' || str_has_prefix(p, STR("..")))
		return false;
	while (rest.len) {
		str_cut(rest, '/', &part, &rest);
		if (str_eqz(part, ".."))
			return false;
	}
	return true;
}

static bool same_file(int dir, const struct volume_file *f)
{
	struct stat st;
	CLEAN_FREE char *path = str_dup(f->path);
	CLEAN_FD int fd = path_open_in_root(dir, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) ||
		(size_t)st.st_size != f->bytes.len ||
		(int32_t)(st.st_mode & 0777) != (f->mode & 0777))
		return false;
	CLEAN_FREE char *have = xmalloc(f->bytes.len + 1);
	return read(fd, have, f->bytes.len + 1) == (ssize_t)f->bytes.len &&
		!memcmp(have, f->bytes.p ? f->bytes.p : "", f->bytes.len);
}

static size_t count_files(int dir)
{
	size_t n = 0;
	DIR *d = fdopendir(openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	for (struct dirent *e; d && (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		CLEAN_FD int sub =
			openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		n += sub >= 0 ? count_files(sub) : 1;
	}
	if (d)
		closedir(d);
	return n;
}

/* The name of the set in force; empty: none that is ours. */
static void current_set(int top, char ret[NAME_MAX + 1])
{
	ssize_t n = readlinkat(top, "..data", ret, NAME_MAX);

	ret[MAX(n, 0)] = 0;
	if (strncmp(ret, "..2", 3) || strchr(ret, '/'))
		ret[0] = 0;
}

static bool unchanged(int top, const char *set, const struct volume_files *f)
{
	CLEAN_FD int data =
		*set ? openat(top, set, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;

	if (data < 0 || count_files(data) != f->len)
		return false;
	for (size_t i = 0; i < f->len; i++)
		if (!same_file(data, &f->items[i]))
			return false;
	return true;
}

static int write_one(int dir, const struct volume_file *f, int64_t fs_group, struct err *err)
{
	CLEAN_FREE char *path = str_dup(f->path);
	int32_t mode = f->mode & 0777;
	const char *name;
	CLEAN_FD int parent = -1;

	int r = path_open_parent(dir, path, 0755, &parent, &name);
	if (r)
		return err_errno(err, r, "%s", path);
	CLEAN_FD int fd =
		openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "%s", path);
	for (size_t done = 0; done < f->bytes.len;) {
		ssize_t n = write(fd, f->bytes.p + done, f->bytes.len - done);
		if (n < 0)
			return err_errno(err, -errno, "%s", path);
		done += (size_t)n;
	}
	if (f->owner && fchown(fd, (uid_t)f->owner, (gid_t)-1))
		return err_errno(err, -errno, "owner of %s", path);
	if (fs_group >= 0) {
		mode |= 0040; /* the group is why it was named */
		if (fchown(fd, (uid_t)-1, (gid_t)fs_group))
			return err_errno(err, -errno, "group of %s", path);
	}
	return fchmod(fd, (mode_t)mode) ? err_errno(err, -errno, "mode of %s", path) : 0;
}

/* Names at the top that the new set has no more. */
static void drop_links(int top, const struct volume_files *f)
{
	DIR *d = fdopendir(openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	for (struct dirent *e; d && (e = readdir(d));) {
		bool wanted = e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.');
		for (size_t i = 0; i < f->len && !wanted; i++) {
			struct str head, rest;
			str_cut(f->items[i].path, '/', &head, &rest);
			wanted = str_eqz(head, e->d_name);
		}
		if (!wanted)
			unlinkat(top, e->d_name, 0);
	}
	if (d)
		closedir(d);
}

static int make_links(int top, const struct volume_files *f, struct err *err)
{
	for (size_t i = 0; i < f->len; i++) {
		struct str head, rest;
		str_cut(f->items[i].path, '/', &head, &rest);
		CLEAN_FREE char *name = str_dup(head), *target = xasprintf("..data/%s", name);
		if (symlinkat(target, top, name) && errno != EEXIST)
			return err_errno(err, -errno, "link %s", name);
	}
	return 0;
}

int files_write(const char *dir, const struct volume_files *f, int64_t fs_group, struct err *err)
{
	char stamp[64], old[NAME_MAX + 1];
	static _Atomic unsigned serial;
	time_t now = time(NULL);
	struct tm tm;

	int r = dir_make(dir, 0755, err);
	if (r)
		return r;
	for (size_t i = 0; i < f->len; i++)
		if (!path_is_safe(f->items[i].path))
			return err_set(err, -EINVAL,
				"invalid path \"" STR_FMT
				"\": must stay inside the volume and not begin with \"..\"",
				STR_ARG(f->items[i].path));
	CLEAN_FD int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (top < 0)
		return err_errno(err, -errno, "%s", dir);
	current_set(top, old);
	if (unchanged(top, old, f))
		return 0;
	gmtime_r(&now, &tm);
	size_t n = strftime(stamp, sizeof(stamp), "..%Y_%m_%d_%H_%M_%S", &tm);
	snprintf(stamp + n, sizeof(stamp) - n, ".%u%u", (unsigned)getpid(), serial++);
	if (mkdirat(top, stamp, 0755))
		return err_errno(err, -errno, "%s/%s", dir, stamp);
	CLEAN_FD int data = openat(top, stamp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (data < 0)
		return err_errno(err, -errno, "%s/%s", dir, stamp);
	if (fs_group >= 0 && (fchown(data, (uid_t)-1, (gid_t)fs_group) || fchmod(data, 02755)))
		return err_errno(err, -errno, "group of %s", dir);
	for (size_t i = 0; i < f->len; i++)
		if ((r = write_one(data, &f->items[i], fs_group, err)))
			return err_prefix(err, r, "%s", dir);
	unlinkat(top, "..data_tmp", 0);
	if (symlinkat(stamp, top, "..data_tmp") || renameat(top, "..data_tmp", top, "..data"))
		return err_errno(err, -errno, "%s/..data", dir);
	if ((r = make_links(top, f, err)))
		return r;
	drop_links(top, f);
	if (*old) {
		CLEAN_FREE char *gone = xasprintf("%s/%s", dir, old);
		return dir_remove_tree(gone, err);
	}
	return 0;
}
