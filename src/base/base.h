/* The small words that every other folder speaks.
 *
 * str     a counted, read-only piece of text; what codecs make is also NUL-terminated
 * buf     text or bytes that grow
 * arena   memory that lives as long as one request or one reconcile, freed at once
 * err     text for people about a failure; the return value carries the sign (see below)
 * log     one line on standard error per decision, with fields
 *
 * Signs of a returned int: 0 done; < 0 is -errno and is forwarded unchanged; > 0 is a named outcome of the module called,
 * which the direct caller must handle. Outputs are untouched unless 0 is returned. Out of memory aborts.
 */
#ifndef SKIFF_BASE_H
#define SKIFF_BASE_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define UNUSED __attribute__((unused))
#ifndef MIN /* sys/param.h has them too */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* ---- memory: never NULL, abort when there is none ---- */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* ---- cleanup by attribute ---- */
#define CLEANUP(fn) __attribute__((cleanup(fn)))
static inline void clean_free(void *p)
{
	free(*(void **)p);
}
static inline void clean_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define CLEAN_FREE CLEANUP(clean_free)
#define CLEAN_FD CLEANUP(clean_fd)
/* Hands an owned pointer over: the variable is NULL afterwards, so its cleanup does nothing. */
#define TAKE(p) \
	({ \
		__typeof__(p) *take_ = &(p); \
		__typeof__(p) taken_ = *take_; \
		*take_ = NULL; \
		taken_; \
	})
#define TAKE_FD(fd) \
	({ \
		int *take_ = &(fd); \
		int taken_ = *take_; \
		*take_ = -1; \
		taken_; \
	})

/* ---- str: a view; does not own. p may be NULL when len is 0. Text from a codec or an arena is NUL-terminated at
 * p[len]; a str cut out of a larger text is not. ---- */
struct str {
	const char *p;
	size_t len;
};
#define STR(lit) ((struct str){ "" lit, sizeof(lit) - 1 })
#define STR_NONE ((struct str){ NULL, 0 })
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).len, ((s).p ? (s).p : "")
static inline struct str str_of(const char *z)
{
	return (struct str){ z, z ? strlen(z) : 0 };
}
static inline struct str str_n(const char *p, size_t n)
{
	return (struct str){ p, n };
}
static inline bool str_eq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || !memcmp(a.p, b.p, a.len));
}
static inline bool str_eqz(struct str a, const char *z)
{
	return str_eq(a, str_of(z));
}
int str_cmp(struct str a, struct str b); /* bytewise, like strcmp */
bool str_has_prefix(struct str s, struct str prefix);
bool str_has_suffix(struct str s, struct str suffix);
ssize_t str_find(struct str s, char c);                /* index or -1 */
ssize_t str_find_str(struct str s, struct str needle); /* index or -1 */
struct str str_trim(struct str s);                     /* spaces, tabs, CR, LF off both ends */
/* Cuts s at the first c: *ret_head is what stands before it, *ret_tail what follows. false (head = s, tail empty): no c. */
bool str_cut(struct str s, char c, struct str *ret_head, struct str *ret_tail);
struct str str_from(struct str s, size_t start); /* s without its first `start` bytes */
int str_to_i64(struct str s, int64_t *ret);      /* whole text, base 10; -EINVAL, -ERANGE */
char *str_dup(struct str s);                     /* owned, NUL-terminated */
/* Puts the texts behind one another, NUL-terminated; their length, or 0 when they do not fit. */
size_t str_concat(char *out, size_t size, const struct str *parts, size_t n);

/* ---- buf: owned bytes that grow; always NUL-terminated after the last byte. Zero-initialize with {0}. ---- */
struct buf {
	char *p;
	size_t len, cap;
};
#define CLEAN_BUF CLEANUP(buf_deinit)
void buf_deinit(struct buf *b);
void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes past len */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, struct str s);
void buf_addz(struct buf *b, const char *z);
void buf_addc(struct buf *b, char c);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vaddf(struct buf *b, const char *fmt, va_list ap);
void buf_clear(struct buf *b); /* len = 0, keeps memory */
char *buf_take(struct buf *b); /* hands the memory over, never NULL; b is empty afterwards */
static inline struct str buf_str(const struct buf *b)
{
	return (struct str){ b->p, b->len };
}

/* ---- arena ---- */
struct arena;
struct arena *arena_new(size_t first_block);  /* 0: default */
void arena_free(struct arena *a);             /* NULL is fine */
void arena_reset(struct arena *a);            /* frees all but the first block */
void *arena_alloc(struct arena *a, size_t n); /* zeroed, aligned to 16 */
void *arena_memdup(struct arena *a, const void *p, size_t n);
struct str arena_str(struct arena *a, struct str s); /* a NUL-terminated copy */
struct str arena_strz(struct arena *a, const char *z);
struct str arena_concat(struct arena *a, const struct str *parts, size_t n);
struct str arena_fmt(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct str arena_vfmt(struct arena *a, const char *fmt, va_list ap);
void *arena_grow(struct arena *a, void *p, size_t old_n,
	size_t new_n); /* like realloc; in place when p came last */
/* One more zeroed item at the end of an array in the arena that has `n` of them; the array has room for a power of two, so that thousands of additions
 * copy each item twice at most. Arrays begun otherwise must not be grown by it. */
#define ARENA_ADD(a, items, n) \
	((((n) & ((n)-1)) == 0 ? (void)((items) = arena_grow((a), (items), (n) * sizeof(*(items)), \
						((n) ? (n)*2 : 1) * sizeof(*(items)))) \
			       : (void)0), \
		&(items)[(n)++])
size_t arena_used(const struct arena *a);
void arena_freep(struct arena **a);
#define CLEAN_ARENA CLEANUP(arena_freep)

/* ---- err: text for people. Set where the failure began: what failed, on which object, what to do. ---- */
struct err {
	char text[512];
};
/* Sets the text (err may be NULL) and returns `code` so that `return err_set(err, -EINVAL, "…")` reads well. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts context before the text that is there: "context: text". Returns code. */
int err_prefix(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set, with ": strerror(-code)" behind it. */
int err_errno(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ---- log: level from SKIFF_LOG (error, warn, info, debug), default info. One line: time level component: text ---- */
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *component, const char *fmt, ...) PRINTF_LIKE(3, 4);
#define log_error(c, ...) log_write(LOG_ERROR, c, __VA_ARGS__)
#define log_warn(c, ...) log_write(LOG_WARN, c, __VA_ARGS__)
#define log_info(c, ...) log_write(LOG_INFO, c, __VA_ARGS__)
#define log_debug(c, ...) \
	do { \
		if (log_enabled(LOG_DEBUG)) \
			log_write(LOG_DEBUG, c, __VA_ARGS__); \
	} while (0)

#endif
