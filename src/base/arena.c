/* An arena: a chain of blocks, newest first. Each block is twice as large as the one before it, up to a bound; what is
 * larger than a block gets one of its own. Resetting keeps the first block, so that an arena used again and again for
 * small work never calls malloc. */
#include "base/base.h"

#include <stdio.h>

#define DEFAULT_BLOCK 4096
#define LARGEST_BLOCK (256 * 1024)
#define ALIGN 16

struct block {
	struct block *older;
	size_t used, cap;
	_Alignas(ALIGN) char data[];
};

struct arena {
	struct block *newest;
	size_t older_used; /* bytes in all blocks but the newest */
};

static struct block *block_new(size_t cap, struct block *older)
{
	struct block *b = xmalloc(sizeof(*b) + cap);

	b->older = older;
	b->used = 0;
	b->cap = cap;
	return b;
}

static size_t round_up(size_t n)
{
	return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

struct arena *arena_new(size_t first_block)
{
	struct arena *a = xmalloc(sizeof(*a));

	a->newest = block_new(round_up(first_block ? first_block : DEFAULT_BLOCK), NULL);
	a->older_used = 0;
	return a;
}

void arena_reset(struct arena *a)
{
	while (a->newest->older) {
		struct block *older = a->newest->older;

		free(a->newest);
		a->newest = older;
	}
	a->newest->used = 0;
	a->older_used = 0;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	arena_reset(a);
	free(a->newest);
	free(a);
}

void arena_freep(struct arena **a)
{
	arena_free(*a);
}

static void *alloc_raw(struct arena *a, size_t n)
{
	if (n > SIZE_MAX / 2)
		abort();
	size_t size = round_up(n ? n : 1);
	struct block *b = a->newest;

	if (size > b->cap - b->used) {
		size_t cap = MIN(b->cap * 2, (size_t)LARGEST_BLOCK);

		a->older_used += b->used;
		b = a->newest = block_new(MAX(cap, size), b);
	}
	void *p = b->data + b->used;

	b->used += size;
	return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
	void *p = alloc_raw(a, n);

	return memset(p, 0, n);
}

void *arena_memdup(struct arena *a, const void *p, size_t n)
{
	void *copy = alloc_raw(a, n);

	if (n)
		memcpy(copy, p, n);
	return copy;
}

struct str arena_str(struct arena *a, struct str s)
{
	char *p = alloc_raw(a, s.len + 1);

	if (s.len)
		memcpy(p, s.p, s.len);
	p[s.len] = '\0';
	return str_n(p, s.len);
}

struct str arena_concat(struct arena *a, const struct str *parts, size_t n)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		len += parts[i].len;
	char *p = alloc_raw(a, len + 1);

	str_concat(p, len + 1, parts, n);
	return (struct str){ p, len };
}

struct str arena_strz(struct arena *a, const char *z)
{
	return arena_str(a, str_of(z));
}

struct str arena_fmt(struct arena *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	struct str s = arena_vfmt(a, fmt, ap);
	va_end(ap);
	return s;
}

struct str arena_vfmt(struct arena *a, const char *fmt, va_list ap)
{
	struct block *b = a->newest;
	size_t room = b->cap - b->used;
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(room ? b->data + b->used : NULL, room, fmt, ap);

	if (n < 0)
		abort();
	/* What fits was written where the next allocation begins. */
	char *p = alloc_raw(a, (size_t)n + 1);

	if ((size_t)n >= room)
		vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return str_n(p, (size_t)n);
}

void *arena_grow(struct arena *a, void *p, size_t old_n, size_t new_n)
{
	struct block *b = a->newest;
	size_t old_size = round_up(old_n ? old_n : 1);

	if (!p)
		return arena_alloc(a, new_n);
	if (new_n <= old_n)
		return p;
	if ((char *)p + old_size == b->data + b->used && new_n <= SIZE_MAX / 2) {
		size_t size = round_up(new_n);

		if (size - old_size <= b->cap - b->used) {
			b->used += size - old_size;
			memset((char *)p + old_n, 0, new_n - old_n);
			return p;
		}
	}
	char *q = alloc_raw(a, new_n);

	memcpy(q, p, old_n);
	memset(q + old_n, 0, new_n - old_n);
	return q;
}

size_t arena_used(const struct arena *a)
{
	return a->older_used + a->newest->used;
}
