/* HTTP/1.1 requests and answers, cut into pieces. The first byte: answers or requests, and how long a piece is. */
#include "net/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct message *m)
{
	if (m->body_len > m->body_max || m->head_bytes > NET_HEADER_MAX + READ_SIZE)
		abort();
	for (size_t i = 0; i < m->n_headers; i++)
		if (m->headers[i].name.p[m->headers[i].name.len] ||
			m->headers[i].value.p[m->headers[i].value.len])
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	size_t step = (size_t)(data[0] & 0x7f) + 1, at = 1;
	struct arena *a = arena_new(0);
	struct message m;
	struct http1 h;

	http1_init(&h, data[0] & 0x80);
	message_init(&m, a, 65536);
	http1_start(&h, &m);
	while (at < size) {
		size_t taken, n = MIN(step, size - at);
		int r = http1_feed(&h, (const char *)data + at, n, &taken);

		check(&m);
		if (taken > n || r < 0 || (h.done && h.parser.upgrade))
			break;
		at += taken;
		if (r == HTTP1_DONE) {
			arena_reset(a);
			message_init(&m, a, 65536);
			http1_start(&h, &m);
		} else if (taken < n) {
			abort();
		}
	}
	arena_free(a);
	return 0;
}
