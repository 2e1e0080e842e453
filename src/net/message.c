/* A request or a response head while it is received, in an arena; and what callers read from it. */
#include "net/internal.h"

void message_init(struct message *m, struct arena *arena, size_t body_max)
{
	*m = (struct message){ .arena = arena, .body_max = body_max };
}

struct http_header *message_add_header(struct message *m)
{
	if (m->n_headers == m->headers_cap) {
		size_t cap = m->headers_cap ? m->headers_cap * 2 : 16;

		m->headers = arena_grow(m->arena, m->headers, m->headers_cap * sizeof(*m->headers),
			cap * sizeof(*m->headers));
		m->headers_cap = cap;
	}
	struct http_header *h = &m->headers[m->n_headers++];

	*h = (struct http_header){ { "", 0 }, { "", 0 } };
	return h;
}

int message_reserve_body(struct message *m, uint64_t n)
{
	if (n > m->body_max)
		return -EFBIG;
	if (n <= m->body_cap)
		return 0;
	m->body = arena_grow(m->arena, m->body, m->body ? m->body_cap + 1 : 0, n + 1);
	m->body_cap = n;
	return 0;
}

int message_add_body(struct message *m, const void *p, size_t n)
{
	size_t need = m->body_len + n;

	if (need > m->body_max)
		return -EFBIG;
	if (m->all && atomic_fetch_add(m->all, n) + n > m->all_max) {
		atomic_fetch_sub(m->all, n);
		return -ENOBUFS;
	}
	if (need > m->body_cap) {
		int r = message_reserve_body(m, MIN(MAX(need, m->body_cap * 2), m->body_max));

		if (r < 0)
			return r;
	}
	memcpy(m->body + m->body_len, p, n);
	m->body_len = need;
	m->body[need] = '\0';
	return 0;
}

void message_uncount(struct message *m)
{
	if (m->all)
		atomic_fetch_sub(m->all, m->body_len);
	m->all = NULL;
}

static struct str find_header(const struct http_header *headers, size_t n, const char *lower_name)
{
	size_t len = strlen(lower_name);

	for (size_t i = 0; i < n; i++)
		if (headers[i].name.len == len && !memcmp(headers[i].name.p, lower_name, len))
			return headers[i].value;
	return STR_NONE;
}

struct str message_header(const struct message *m, const char *lower_name)
{
	return find_header(m->headers, m->n_headers, lower_name);
}

struct str http_request_header(const struct http_request *r, const char *lower_name)
{
	return find_header(r->headers, r->n_headers, lower_name);
}
