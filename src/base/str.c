/* Reading pieces of text; see base.h for what a str is. */
#include "base/base.h"

int str_cmp(struct str a, struct str b)
{
	size_t n = MIN(a.len, b.len);
	int r = n ? memcmp(a.p, b.p, n) : 0;

	if (r)
		return r;
	return (a.len > b.len) - (a.len < b.len);
}

bool str_has_prefix(struct str s, struct str prefix)
{
	return s.len >= prefix.len && (!prefix.len || !memcmp(s.p, prefix.p, prefix.len));
}

bool str_has_suffix(struct str s, struct str suffix)
{
	return s.len >= suffix.len &&
		(!suffix.len || !memcmp(s.p + s.len - suffix.len, suffix.p, suffix.len));
}

ssize_t str_find(struct str s, char c)
{
	const char *p = s.len ? memchr(s.p, c, s.len) : NULL;

	return p ? p - s.p : -1;
}

ssize_t str_find_str(struct str s, struct str needle)
{
	if (!needle.len)
		return 0;
	const char *p = s.len ? memmem(s.p, s.len, needle.p, needle.len) : NULL;

	return p ? p - s.p : -1;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str str_trim(struct str s)
{
	while (s.len && is_space(s.p[0])) {
		s.p++;
		s.len--;
	}
	while (s.len && is_space(s.p[s.len - 1]))
		s.len--;
	return s;
}

bool str_cut(struct str s, char c, struct str *ret_head, struct str *ret_tail)
{
	ssize_t i = str_find(s, c);

	if (i < 0) {
		*ret_head = s;
		*ret_tail = str_n(s.p ? s.p + s.len : NULL, 0);
		return false;
	}
	*ret_head = str_n(s.p, (size_t)i);
	*ret_tail = str_n(s.p + i + 1, s.len - (size_t)i - 1);
	return true;
}

struct str str_from(struct str s, size_t start)
{
	if (start >= s.len)
		return str_n(s.p ? s.p + s.len : NULL, 0);
	return str_n(s.p + start, s.len - start);
}

int str_to_i64(struct str s, int64_t *ret)
{
	bool negative = s.len && s.p[0] == '-';
	size_t i = s.len && (s.p[0] == '-' || s.p[0] == '+');
	int64_t v = 0;
	bool overflow = false;

	if (i == s.len)
		return -EINVAL;
	/* Counts downwards, since INT64_MIN has no positive twin. */
	for (; i < s.len; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return -EINVAL;
		overflow = overflow || __builtin_mul_overflow(v, 10, &v) ||
			__builtin_sub_overflow(v, s.p[i] - '0', &v);
	}
	if (overflow || (!negative && v == INT64_MIN))
		return -ERANGE;
	*ret = negative ? v : -v;
	return 0;
}

size_t str_concat(char *out, size_t size, const struct str *parts, size_t n)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (parts[i].len >= size - len)
			return 0;
		if (parts[i].len)
			memcpy(out + len, parts[i].p, parts[i].len);
		len += parts[i].len;
	}
	out[len] = '\0';
	return len;
}

char *str_dup(struct str s)
{
	char *p = xmalloc(s.len + 1);

	if (s.len)
		memcpy(p, s.p, s.len);
	p[s.len] = '\0';
	return p;
}
