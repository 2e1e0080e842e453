/* Percent encoding. */
#include "net/net.h"

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int url_decode(struct str s, bool plus_is_space, struct arena *a, struct str *ret)
{
	if (str_find(s, '%') < 0 && !(plus_is_space && str_find(s, '+') >= 0)) {
		*ret = arena_str(a, s);
		return 0;
	}
	char *out = arena_alloc(a, s.len + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '+' && plus_is_space) {
			out[n++] = ' ';
			continue;
		}
		if (s.p[i] != '%') {
			out[n++] = s.p[i];
			continue;
		}
		int high = i + 2 < s.len ? hex_value(s.p[i + 1]) : -1;
		int low = i + 2 < s.len ? hex_value(s.p[i + 2]) : -1;

		if (high < 0 || low < 0)
			return -EBADMSG;
		out[n++] = (char)(high << 4 | low);
		i += 2;
	}
	*ret = str_n(out, n);
	return 0;
}

bool url_query_next(struct str *rest, struct arena *a, struct str *ret_key, struct str *ret_value)
{
	while (rest->len) {
		struct str pair, key, value, decoded_key, decoded_value;

		str_cut(*rest, '&', &pair, rest);
		if (!pair.len)
			continue;
		str_cut(pair, '=', &key, &value);
		/* As Go's url.Query: a pair that cannot be decoded, or holds a semicolon, is passed over. */
		if (str_find(pair, ';') >= 0 || url_decode(key, true, a, &decoded_key) < 0 ||
			url_decode(value, true, a, &decoded_value) < 0)
			continue;
		*ret_key = decoded_key;
		*ret_value = decoded_value;
		return true;
	}
	return false;
}

void url_encode(struct buf *out, struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			(c && strchr("-_.~", c)))
			buf_addc(out, c);
		else
			buf_addf(out, "%%%02X", (unsigned char)c);
	}
}
