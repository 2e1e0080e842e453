/* Sets of completion indexes as text, "0-2,4": as a Job's status keeps them. */
#include "controllers/job.h"

static bool next_range(struct str *text, int64_t *from, int64_t *to)
{
	struct str part, rest, a, b;

	if (!text->len)
		return false;
	str_cut(*text, ',', &part, &rest);
	*text = rest;
	bool range = str_cut(part, '-', &a, &b);

	if (str_to_i64(a, from))
		return false;
	if (!range)
		*to = *from;
	else if (str_to_i64(b, to))
		return false;
	return true;
}

bool indexes_have(struct str text, int index)
{
	int64_t from, to;

	while (next_range(&text, &from, &to))
		if (index >= from && index <= to)
			return true;
	return false;
}

int indexes_count(struct str text)
{
	int64_t from, to, n = 0;

	while (next_range(&text, &from, &to))
		n += to - from + 1;
	return (int)n;
}

struct range {
	int64_t from, to;
};

static void write_range(struct buf *b, struct range x)
{
	if (b->len)
		buf_addc(b, ',');
	buf_addf(b, "%lld", (long long)x.from);
	if (x.to > x.from)
		buf_addf(b, "%c%lld", x.to == x.from + 1 ? ',' : '-', (long long)x.to);
}

/* Appends x, joined with the one before when they touch. */
static void join_range(struct buf *b, struct range *last, struct range x)
{
	if (last->to >= last->from && x.from == last->to + 1) {
		last->to = x.to;
		return;
	}
	if (last->to >= last->from)
		write_range(b, *last);
	*last = x;
}

struct str indexes_add(struct str text, int index, struct arena *a)
{
	struct buf b CLEAN_BUF = { 0 };
	struct range x, last = { 0, -1 };
	bool placed = false;

	if (indexes_have(text, index))
		return text;
	while (next_range(&text, &x.from, &x.to)) {
		if (!placed && x.from > index) {
			join_range(&b, &last, (struct range){ index, index });
			placed = true;
		}
		join_range(&b, &last, x);
	}
	if (!placed)
		join_range(&b, &last, (struct range){ index, index });
	write_range(&b, last);
	return arena_str(a, buf_str(&b));
}
