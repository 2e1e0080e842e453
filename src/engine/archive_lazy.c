/* libarchive on first use: only an import needs it, and it brings XML, Unicode and C++ libraries into the process. */
#include "base/lazy.h"
#include "engine/internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>

#define A struct archive *a
#define E struct archive_entry *e

static struct lazy library = { "libarchive.so.13", "libarchive13", NULL };

int archive_load(struct err *err)
{
	return lazy_load(&library, err);
}

/* clang-format off */
LAZY(&library, struct archive *, archive_read_new, (void), ())
LAZY(&library, int, archive_read_free, (A), (a))
LAZY(&library, int, archive_read_support_filter_bzip2, (A), (a))
LAZY(&library, int, archive_read_support_filter_gzip, (A), (a))
LAZY(&library, int, archive_read_support_filter_xz, (A), (a))
LAZY(&library, int, archive_read_support_filter_zstd, (A), (a))
LAZY(&library, int, archive_read_support_format_empty, (A), (a))
LAZY(&library, int, archive_read_support_format_raw, (A), (a))
LAZY(&library, int, archive_read_support_format_tar, (A), (a))
LAZY(&library, int, archive_read_open, (A, void *arg, archive_open_callback *o, archive_read_callback *r, archive_close_callback *c), (a, arg, o, r, c))
LAZY(&library, int, archive_read_open_filename, (A, const char *file, size_t block), (a, file, block))
LAZY(&library, int, archive_read_next_header, (A, struct archive_entry **ret), (a, ret))
LAZY(&library, la_ssize_t, archive_read_data, (A, void *p, size_t n), (a, p, n))
LAZY(&library, int, archive_read_data_block, (A, const void **p, size_t *n, la_int64_t *at), (a, p, n, at))
LAZY(&library, const char *, archive_error_string, (A), (a))
LAZY(&library, mode_t, archive_entry_filetype, (E), (e))
LAZY(&library, mode_t, archive_entry_perm, (E), (e))
LAZY(&library, la_int64_t, archive_entry_uid, (E), (e))
LAZY(&library, la_int64_t, archive_entry_gid, (E), (e))
LAZY(&library, la_int64_t, archive_entry_size, (E), (e))
LAZY(&library, dev_t, archive_entry_rdev, (E), (e))
LAZY(&library, time_t, archive_entry_mtime, (E), (e))
LAZY(&library, long, archive_entry_mtime_nsec, (E), (e))
LAZY(&library, const char *, archive_entry_pathname, (E), (e))
LAZY(&library, const char *, archive_entry_hardlink, (E), (e))
LAZY(&library, const char *, archive_entry_symlink, (E), (e))
LAZY(&library, int, archive_entry_xattr_reset, (E), (e))
LAZY(&library, int, archive_entry_xattr_next, (E, const char **name, const void **value, size_t *n), (e, name, value, n))
/* clang-format on */

/* Variadic, so no row: the text is made here. */
__attribute__((visibility("hidden"))) void archive_set_error(A, int code, const char *fmt, ...)
{
	void (*fn)(struct archive *, int, const char *, ...) = (void (*)(struct archive *, int,
		const char *, ...))lazy_symbol(&library, "archive_set_error");
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fn(a, code, "%s", text);
}
