/* Bytes on their way out: small pieces are copied into one buffer, large ones are borrowed and released when sent.
 * A borrowed piece remembers where in the copied bytes it stands. */
#include "net/internal.h"

#define COMPACT_AT (64 * 1024)

struct seg {
	struct seg *next;
	size_t at; /* position in q->copied */
	struct str bytes;
	release_fn release;
	void *arg;
};

void sendq_init(struct sendq *q)
{
	*q = (struct sendq){ 0 };
	q->last = &q->first;
}

static void drop_first(struct sendq *q)
{
	struct seg *s = q->first;

	q->first = s->next;
	if (!q->first)
		q->last = &q->first;
	if (s->release)
		s->release(s->arg);
	free(s);
}

void sendq_deinit(struct sendq *q)
{
	while (q->first)
		drop_first(q);
	buf_deinit(&q->copied);
	sendq_init(q);
}

static void compact(struct sendq *q)
{
	memmove(q->copied.p, q->copied.p + q->taken, q->copied.len - q->taken);
	q->copied.len -= q->taken;
	for (struct seg *s = q->first; s; s = s->next)
		s->at -= q->taken;
	q->taken = 0;
}

void sendq_copy(struct sendq *q, const void *p, size_t n)
{
	if (q->taken >= COMPACT_AT && q->taken >= q->copied.len / 2)
		compact(q);
	buf_add(&q->copied, p, n);
	q->len += n;
}

void sendq_borrow(struct sendq *q, struct str bytes, release_fn release, void *arg)
{
	struct seg *s = xmalloc(sizeof(*s));

	*s = (struct seg){ NULL, q->copied.len, bytes, release, arg };
	*q->last = s;
	q->last = &s->next;
	q->len += bytes.len;
}

void sendq_add(struct sendq *q, struct str bytes, release_fn release, void *arg)
{
	if (bytes.len > COPY_MAX) {
		sendq_borrow(q, bytes, release, arg);
		return;
	}
	sendq_copy(q, bytes.p, bytes.len);
	if (release)
		release(arg);
}

struct str sendq_peek(const struct sendq *q)
{
	if (q->first && q->first->at == q->taken)
		return q->first->bytes;
	size_t end = q->first ? q->first->at : q->copied.len;

	return str_n(q->copied.p ? q->copied.p + q->taken : NULL, end - q->taken);
}

void sendq_take(struct sendq *q, size_t n)
{
	q->len -= n;
	if (q->first && q->first->at == q->taken) {
		q->first->bytes = str_from(q->first->bytes, n);
		if (!q->first->bytes.len)
			drop_first(q);
	} else {
		q->taken += n;
	}
	if (!q->first && q->taken == q->copied.len)
		q->taken = q->copied.len = 0;
}
