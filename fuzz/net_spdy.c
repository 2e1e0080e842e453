/* SPDY/3.1 frames, cut into pieces. The first byte: how long a piece is. */
#include "net/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_headers(void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n)
{
	size_t *seen = arg;

	for (size_t i = 0; i < n; i++)
		*seen += hash_bytes(headers[i].name.p, headers[i].name.len, headers[i].value.len);
	return 0;
}

static int on_data(void *arg, uint32_t id, bool fin, struct str bytes)
{
	size_t *seen = arg;

	*seen += hash_bytes(bytes.p, bytes.len, id);
	return 0;
}

static const struct spdy_events events = { .on_syn_stream = on_headers,
	.on_syn_reply = on_headers,
	.on_headers = on_headers,
	.on_data = on_data };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t seen = 0;
	struct err err;

	if (!size)
		return 0;
	size_t step = (size_t)data[0] + 1;
	struct spdy *s = spdy_new(&events, &seen);

	for (size_t at = 1; at < size; at += step)
		if (spdy_feed(s, (const char *)data + at, MIN(step, size - at), &err) < 0)
			break;
	spdy_free(s);
	return 0;
}
