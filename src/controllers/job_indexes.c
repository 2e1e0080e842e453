/* Sets of completion indexes. A Job's status keeps them as text, "0-2,4"; here they are ranges, ascending and apart, so that what is asked of them costs
 * as much as there are ranges, whatever the number of indexes. */
#include "controllers/job.h"

static bool next_range(struct str *text, struct index_range *ret)
{
	struct str part, rest, a, b;

	if (!text->len)
		return false;
	str_cut(*text, ',', &part, &rest);
	*text = rest;
	bool range = str_cut(part, '-', &a, &b);

	if (str_to_i64(a, &ret->from))
		return false;
	if (!range)
		ret->to = ret->from;
	else if (str_to_i64(b, &ret->to))
		return false;
	return ret->from >= 0 && ret->to >= ret->from && ret->to <= INT32_MAX;
}

static int by_from(const void *pa, const void *pb)
{
	const struct index_range *a = pa, *b = pb;

	return a->from < b->from ? -1 : a->from > b->from;
}

static void merge(struct index_set *s)
{
	size_t n = 0;

	for (size_t i = 1; i < s->n; i++)
		if (s->items[i].from < s->items[i - 1].from) {
			qsort(s->items, s->n, sizeof(*s->items), by_from);
			break;
		}
	for (size_t i = 0; i < s->n; i++) {
		if (n && s->items[i].from <= s->items[n - 1].to + 1)
			s->items[n - 1].to = MAX(s->items[n - 1].to, s->items[i].to);
		else
			s->items[n++] = s->items[i];
	}
	s->n = n;
}

struct index_set indexes_parse(struct str text, struct arena *a)
{
	struct index_set s = { 0 };
	struct index_range x;

	while (next_range(&text, &x))
		*ARENA_ADD(a, s.items, s.n) = x;
	merge(&s);
	return s;
}

struct index_set indexes_with(const struct index_set *s, const int *add, size_t n, struct arena *a)
{
	struct index_set sum = { arena_alloc(a, (s->n + n + 1) * sizeof(*sum.items)), s->n };

	if (s->n)
		memcpy(sum.items, s->items, s->n * sizeof(*sum.items));
	for (size_t i = 0; i < n; i++)
		sum.items[sum.n++] = (struct index_range){ add[i], add[i] };
	merge(&sum);
	return sum;
}

/* Where index is, or the next range after it; s->n: neither. */
size_t indexes_find(const struct index_set *s, int64_t index)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (s->items[middle].to < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool indexes_have(const struct index_set *s, int64_t index)
{
	size_t i = indexes_find(s, index);

	return i < s->n && s->items[i].from <= index;
}

int indexes_count(const struct index_set *s)
{
	int64_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		n += s->items[i].to - s->items[i].from + 1;
	return (int)MIN(n, (int64_t)INT32_MAX);
}

int indexes_common(const struct index_set *a, const struct index_set *b, int below)
{
	int64_t n = 0;

	for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
		int64_t from = MAX(a->items[i].from, b->items[k].from),
			to = MIN(MIN(a->items[i].to, b->items[k].to), (int64_t)below - 1);

		n += MAX(to - from + 1, (int64_t)0);
		if (a->items[i].to < b->items[k].to)
			i++;
		else
			k++;
	}
	return (int)MIN(n, (int64_t)INT32_MAX);
}

struct str indexes_text(const struct index_set *s, struct arena *a)
{
	struct buf b CLEAN_BUF = { 0 };

	for (size_t i = 0; i < s->n; i++) {
		const struct index_range *x = &s->items[i];

		buf_addf(&b, "%s%lld", i ? "," : "", (long long)x->from);
		if (x->to > x->from)
			buf_addf(&b, "%c%lld", x->to == x->from + 1 ? ',' : '-', (long long)x->to);
	}
	return b.len ? arena_str(a, buf_str(&b)) : STR("");
}
