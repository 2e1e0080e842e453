/* Layers: a tar, compressed or not, becomes a folder that overlayfs takes as a lower one. The bytes come from outside:
 * 1. Every path is resolved below the layer's folder by the kernel (openat2, RESOLVE_IN_ROOT); .. is refused outright.
 * 2. Nothing that is there is followed or written through: a file is always made new (O_EXCL, O_NOFOLLOW).
 * 3. Of the extended attributes only security.capability and user.* are taken: trusted.overlay.* would steer overlayfs.
 * 4. Both digests are of the very bytes that were unpacked: they are taken in the same pass. */
#include "engine/internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* ---- digests ---- */
struct digest {
	EVP_MD_CTX *ctx;
};

struct digest *digest_new(void)
{
	struct digest *d = xcalloc(1, sizeof(*d));

	d->ctx = EVP_MD_CTX_new();
	if (!d->ctx || !EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL))
		abort();
	return d;
}

void digest_add(struct digest *d, const void *p, size_t n)
{
	EVP_DigestUpdate(d->ctx, p, n);
}

void digest_end(struct digest *d, char ret[72])
{
	CLEAN_BUF struct buf hex = { 0 };
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	EVP_DigestFinal_ex(d->ctx, sum, &n);
	EVP_MD_CTX_free(d->ctx);
	free(d);
	buf_addz(&hex, "sha256:");
	hex_encode(&hex, sum, n);
	memcpy(ret, hex.p, 72);
}

void digest_of(struct str bytes, char ret[72])
{
	struct digest *d = digest_new();

	digest_add(d, bytes.p, bytes.len);
	digest_end(d, ret);
}

/* ---- paths ---- */
int layer_clean_path(const char *path, char ret[PATH_MAX])
{
	char out[PATH_MAX];
	size_t n = 0;

	if (!path)
		return -EBADMSG;
	for (struct str rest = str_of(path), part; rest.len;) {
		str_cut(rest, '/', &part, &rest);
		if (!part.len || str_eqz(part, "."))
			continue;
		if (str_eqz(part, ".."))
			return -EBADMSG;
		if (part.len > NAME_MAX || n + part.len + 2 > sizeof(out))
			return -ENAMETOOLONG;
		if (n)
			out[n++] = '/';
		memcpy(out + n, part.p, part.len);
		n += part.len;
	}
	out[n] = '\0';
	memcpy(ret, out, n + 1);
	return 0;
}

/* ---- one entry ---- */
struct unpack {
	struct archive *archive;
	struct archive_entry *entry;
	int root;
	int dir;          /* O_PATH of the folder that holds the entry */
	const char *name; /* its last name */
	uint64_t size;
};

#define WHITEOUT ".wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define OPAQUE_XATTR "trusted.overlay.opaque"

static void fd_path(char ret[PATH_MAX], int dir, const char *name)
{
	path_fmt(ret, "/proc/self/fd/%d%s%s", dir, name ? "/" : "", name ? name : "");
}

/* Clears the way for a new entry. A later entry of the same name wins; a folder met by a folder stays. */
static int clear(struct unpack *u, bool for_dir, bool *ret_was_whiteout)
{
	char path[PATH_MAX];
	struct stat st;

	*ret_was_whiteout = false;
	if (fstatat(u->dir, u->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode)) {
		if (for_dir)
			return -EEXIST;
		fd_path(path, u->dir, u->name);
		return dir_remove_tree(path, NULL);
	}
	*ret_was_whiteout = S_ISCHR(st.st_mode) && st.st_rdev == 0;
	return unlinkat(u->dir, u->name, 0) < 0 ? -errno : 0;
}

static int set_opaque(int dir, const char *name)
{
	char path[PATH_MAX];

	fd_path(path, dir, name);
	return setxattr(path, OPAQUE_XATTR, "y", 1, 0) < 0 ? -errno : 0;
}

static int unpack_whiteout(struct unpack *u)
{
	struct stat st;

	if (!strcmp(u->name, WHITEOUT_OPAQUE))
		return set_opaque(u->dir, NULL);
	const char *hidden = u->name + strlen(WHITEOUT);
	if (!*hidden || str_has_prefix(str_of(hidden), STR(WHITEOUT)))
		return 0; /* aufs's own bookkeeping */
	if (!strcmp(hidden, ".") || !strcmp(hidden, ".."))
		return -EBADMSG;
	if (fstatat(u->dir, hidden, &st, AT_SYMLINK_NOFOLLOW) ==
		0) /* it speaks of the layers below, not of this one's own */
		return S_ISDIR(st.st_mode) ? set_opaque(u->dir, hidden) : 0;
	return mknodat(u->dir, hidden, S_IFCHR, makedev(0, 0)) < 0 ? -errno : 0;
}

static int write_data(struct unpack *u, int fd)
{
	const void *p;
	size_t n;
	la_int64_t at;
	int r;

	while ((r = archive_read_data_block(u->archive, &p, &n, &at)) == ARCHIVE_OK) {
		for (size_t done = 0; done < n;) {
			ssize_t w =
				pwrite(fd, (const char *)p + done, n - done, at + (la_int64_t)done);
			if (w < 0 && errno != EINTR)
				return -errno;
			done += w > 0 ? (size_t)w : 0;
		}
		u->size += n;
	}
	if (r != ARCHIVE_EOF)
		return -EBADMSG;
	return ftruncate(fd, archive_entry_size(u->entry)) < 0 ? -errno : 0;
}

static int unpack_file(struct unpack *u)
{
	CLEAN_FD int fd =
		openat(u->dir, u->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : write_data(u, fd);
}

static int unpack_dir(struct unpack *u)
{
	return mkdirat(u->dir, u->name, 0755) < 0 ? -errno : 0;
}

static int unpack_symlink(struct unpack *u)
{
	const char *to = archive_entry_symlink(u->entry);

	return !to || !*to ? -EBADMSG : symlinkat(to, u->dir, u->name) < 0 ? -errno : 0;
}

static int unpack_node(struct unpack *u)
{
	mode_t type = archive_entry_filetype(u->entry);

	return mknodat(u->dir, u->name, type | 0600,
		       type == S_IFIFO ? 0 : archive_entry_rdev(u->entry)) < 0
		? -errno
		: 0;
}

static int unpack_hardlink(struct unpack *u)
{
	char clean[PATH_MAX];
	const char *name;
	CLEAN_FD int dir = -1;
	int r = layer_clean_path(archive_entry_hardlink(u->entry), clean);

	if (r == 0)
		r = path_open_parent(u->root, clean, 0, &dir, &name);
	if (r < 0)
		return r;
	return linkat(dir, name, u->dir, u->name, 0) < 0 ? -errno : 0;
}

static const struct {
	mode_t type;
	int (*unpack)(struct unpack *u);
} entry_kinds[] = {
	{ S_IFREG, unpack_file },
	{ S_IFDIR, unpack_dir },
	{ S_IFLNK, unpack_symlink },
	{ S_IFCHR, unpack_node },
	{ S_IFBLK, unpack_node },
	{ S_IFIFO, unpack_node },
};

/* Owner before mode and attributes: the kernel drops set-id bits and capabilities when the owner changes. */
static int set_metadata(struct unpack *u, const char *path)
{
	bool link = archive_entry_filetype(u->entry) == S_IFLNK;
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
		{ .tv_sec = archive_entry_mtime(u->entry),
			.tv_nsec = archive_entry_mtime_nsec(u->entry) } };
	const char *name;
	const void *value;
	size_t len;

	if (lchown(path, (uid_t)archive_entry_uid(u->entry), (gid_t)archive_entry_gid(u->entry)) <
		0)
		return -errno;
	if (!link && chmod(path, archive_entry_perm(u->entry)) < 0)
		return -errno;
	archive_entry_xattr_reset(u->entry);
	while (archive_entry_xattr_next(u->entry, &name, &value, &len) == ARCHIVE_OK) {
		if (strcmp(name, "security.capability") != 0 &&
			!str_has_prefix(str_of(name), STR("user.")))
			continue;
		if (lsetxattr(path, name, value, len, 0) < 0 && errno != ENOTSUP)
			return -errno;
	}
	return utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int unpack_named(struct unpack *u)
{
	bool hardlink = archive_entry_hardlink(u->entry) != NULL, was_whiteout;
	mode_t type = archive_entry_filetype(u->entry);
	char path[PATH_MAX];

	if (str_has_prefix(str_of(u->name), STR(WHITEOUT)))
		return unpack_whiteout(u);
	if (!hardlink && type == S_IFSOCK)
		return 0;
	int r = clear(u, !hardlink && type == S_IFDIR, &was_whiteout);
	if (r == -EEXIST)
		r = 0;
	else if (r < 0)
		return r;
	else if (hardlink)
		return unpack_hardlink(u);
	else {
		r = -EBADMSG;
		for (size_t i = 0; i < ARRAY_LEN(entry_kinds); i++)
			if (entry_kinds[i].type == type)
				r = entry_kinds[i].unpack(u);
		if (r == 0 && was_whiteout && type == S_IFDIR)
			r = set_opaque(u->dir, u->name);
	}
	fd_path(path, u->dir, u->name);
	return r < 0 ? r : set_metadata(u, path);
}

static int unpack_entry(struct unpack *u)
{
	char clean[PATH_MAX], path[PATH_MAX];
	int r = layer_clean_path(archive_entry_pathname(u->entry), clean);

	if (r < 0)
		return r;
	if (!clean[0]) {
		fd_path(path, u->root, NULL);
		return archive_entry_filetype(u->entry) == S_IFDIR
			? (chmod(path, archive_entry_perm(u->entry)) < 0 ? -errno : 0)
			: -EBADMSG;
	}
	CLEAN_FD int dir = -1;
	r = path_open_parent(u->root, clean, 0755, &dir, &u->name);
	if (r < 0)
		return r;
	u->dir = dir;
	return unpack_named(u);
}

int layer_unpack_archive(struct archive *a, int dir_fd, uint64_t *ret_size, struct err *err)
{
	struct unpack u = { .archive = a, .root = dir_fd };
	int r;

	while ((r = archive_read_next_header(a, &u.entry)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
		r = unpack_entry(&u);
		if (r < 0)
			return err_errno(err, r, "cannot unpack \"%s\" of a layer",
				archive_entry_pathname(u.entry) ? archive_entry_pathname(u.entry)
								: "?");
	}
	if (r != ARCHIVE_EOF)
		return err_set(
			err, -EBADMSG, "a layer is no good tar: %s", archive_error_string(a));
	*ret_size = u.size;
	return 0;
}

/* ---- the stream: file -> digest of the blob -> decompression -> digest of the tar -> unpacking ---- */
#define CHUNK (64 * 1024)
struct stream {
	int fd;
	struct archive *raw; /* decompresses, as one nameless entry */
	struct digest *blob, *diff;
	char in[CHUNK], out[CHUNK];
	int failed;
};

static la_ssize_t read_blob(struct archive *a, void *arg, const void **ret)
{
	struct stream *s = arg;
	ssize_t n;

	do
		n = read(s->fd, s->in, sizeof(s->in));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		archive_set_error(a, errno, "cannot read: %s", strerror(errno));
	if (n > 0)
		digest_add(s->blob, s->in, (size_t)n);
	*ret = s->in;
	return n;
}

static la_ssize_t read_diff(struct archive *a, void *arg, const void **ret)
{
	struct stream *s = arg;
	la_ssize_t n = archive_read_data(s->raw, s->out, sizeof(s->out));

	if (n < 0)
		archive_set_error(
			a, EBADMSG, "cannot decompress: %s", archive_error_string(s->raw));
	if (n > 0)
		digest_add(s->diff, s->out, (size_t)n);
	*ret = s->out;
	return n;
}

static void archive_freep(struct archive **a)
{
	archive_read_free(*a);
}

/* What follows the end of the tar belongs to the digests too. */
static int drain(struct stream *s, struct err *err)
{
	const void *p;
	la_ssize_t n;

	while ((n = read_diff(s->raw, s, &p)) > 0)
		;
	if (n < 0)
		return err_set(err, -EBADMSG, "a layer cannot be decompressed: %s",
			archive_error_string(s->raw));
	while ((n = read_blob(s->raw, s, &p)) > 0)
		;
	return n < 0 ? err_errno(err, -errno, "cannot read a layer") : 0;
}

static int unpack_stream(struct stream *s, int dir_fd, uint64_t *ret_size, struct err *err)
{
	CLEANUP(archive_freep) struct archive *raw = archive_read_new();
	CLEANUP(archive_freep) struct archive *tar = archive_read_new();
	struct archive_entry *e;

	s->raw = raw;
	archive_read_support_filter_gzip(raw);
	archive_read_support_filter_zstd(raw);
	archive_read_support_filter_xz(raw);
	archive_read_support_filter_bzip2(raw);
	archive_read_support_format_raw(raw);
	archive_read_support_format_empty(raw);
	archive_read_support_format_tar(tar);
	archive_read_support_format_empty(tar);
	if (archive_read_open(raw, s, NULL, read_blob, NULL) != ARCHIVE_OK)
		return err_set(
			err, -EBADMSG, "a layer cannot be read: %s", archive_error_string(raw));
	if (archive_read_next_header(raw, &e) != ARCHIVE_OK)
		return err_set(err, -EBADMSG, "a layer is empty or cannot be read");
	if (archive_read_open(tar, s, NULL, read_diff, NULL) != ARCHIVE_OK)
		return err_set(err, -EBADMSG, "a layer is no tar: %s", archive_error_string(tar));
	int r = layer_unpack_archive(tar, dir_fd, ret_size, err);
	return r < 0 ? r : drain(s, err);
}

int layer_unpack(int fd, int dir_fd, char ret_blob[72], char ret_diff[72], uint64_t *ret_size,
	struct err *err)
{
	struct stream *s = xcalloc(1, sizeof(*s));
	char blob[72], diff[72];
	uint64_t size = 0;

	*s = (struct stream){ .fd = fd, .blob = digest_new(), .diff = digest_new() };
	int r = unpack_stream(s, dir_fd, &size, err);
	digest_end(s->blob, blob);
	digest_end(s->diff, diff);
	free(s);
	if (r < 0)
		return r;
	memcpy(ret_blob, blob, sizeof(blob));
	memcpy(ret_diff, diff, sizeof(diff));
	*ret_size = size;
	return 0;
}
