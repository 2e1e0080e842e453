/* WebSocket frames (RFC 6455): bytes in, whole messages out. No extensions.
 *
 * 1. A message holds at most message_max bytes, however many fragments it comes in.
 * 2. Control frames are delivered at once, also between the fragments of a message.
 * 3. After a failure close_code says what the peer should be told; nothing more may be fed. */
#include "net/internal.h"

#include <openssl/sha.h>

#define FIN 0x80
#define RESERVED 0x70
#define MASKED 0x80

void websocket_init(struct websocket *w, bool client, size_t message_max)
{
	*w = (struct websocket){ .client = client, .message_max = message_max };
}

void websocket_deinit(struct websocket *w)
{
	buf_deinit(&w->message);
}

static bool is_control(int opcode)
{
	return opcode >= WS_CLOSE;
}

static int fail(
	struct websocket *w, struct err *err, int code, uint16_t close_code, const char *text)
{
	w->close_code = close_code;
	return err_set(err, code, "WebSocket: %s", text);
}

/* How long the head is, as far as its first bytes tell. */
static size_t head_size(const struct websocket *w)
{
	if (w->head_len < 2)
		return 2;
	unsigned char second = w->head[1];
	size_t length = (second & 0x7f) == 127 ? 8 : (second & 0x7f) == 126 ? 2 : 0;

	return 2 + length + (second & MASKED ? 4 : 0);
}

static uint64_t payload_length(const struct websocket *w)
{
	unsigned n = w->head[1] & 0x7f, bytes = n == 127 ? 8 : n == 126 ? 2 : 0;
	uint64_t v = 0;

	if (!bytes)
		return n;
	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | w->head[2 + i];
	return v;
}

static int begin_frame(struct websocket *w, struct err *err)
{
	unsigned char first = w->head[0], second = w->head[1];
	int opcode = first & 0x0f;

	w->frame_first = first;
	w->payload_len = payload_length(w);
	w->payload_got = 0;
	if (first & RESERVED)
		return fail(w, err, -EPROTO, 1002,
			"a reserved bit is set, but no extension was agreed upon");
	if (opcode > WS_PONG || (opcode > WS_BINARY && opcode < WS_CLOSE))
		return fail(w, err, -EPROTO, 1002, "unknown kind of frame");
	if (!!(second & MASKED) == w->client)
		return fail(w, err, -EPROTO, 1002,
			w->client ? "the server masked a frame"
				  : "the client did not mask a frame");
	if (is_control(opcode) && (!(first & FIN) || w->payload_len > sizeof(w->control)))
		return fail(w, err, -EPROTO, 1002, "a control frame is fragmented or too long");
	if (!is_control(opcode) && w->in_message != (opcode == WS_CONTINUATION))
		return fail(w, err, -EPROTO, 1002, "a fragment is out of place");
	if (!is_control(opcode) && w->payload_len > w->message_max - w->message.len)
		return fail(w, err, -EFBIG, 1009, "a message is too large");
	if (second & MASKED)
		memcpy(w->mask, w->head + head_size(w) - 4, 4);
	else
		memset(w->mask, 0, 4);
	if (!is_control(opcode) && !w->in_message) {
		w->in_message = true;
		w->opcode = opcode;
	}
	w->in_payload = true;
	return 0;
}

static int end_frame(struct websocket *w)
{
	int opcode = w->frame_first & 0x0f, r;

	w->in_payload = false;
	w->head_len = 0;
	if (is_control(opcode))
		return w->on_message(
			w->arg, opcode, str_n((const char *)w->control, w->payload_len));
	if (!(w->frame_first & FIN))
		return 0;
	w->in_message = false;
	r = w->on_message(
		w->arg, w->opcode, str_n(w->message.p ? w->message.p : "", w->message.len));
	if (w->message.cap > 4096)
		buf_deinit(&w->message);
	buf_clear(&w->message);
	return r;
}

static void take_payload(struct websocket *w, const char *p, size_t n)
{
	unsigned char *to;

	if (is_control(w->frame_first & 0x0f)) {
		to = w->control + w->payload_got;
	} else {
		buf_reserve(&w->message, n);
		to = (unsigned char *)w->message.p + w->message.len;
		w->message.len += n;
		w->message.p[w->message.len] = '\0';
	}
	for (size_t i = 0; i < n; i++)
		to[i] = (unsigned char)p[i] ^ w->mask[(w->payload_got + i) & 3];
	w->payload_got += n;
}

int websocket_feed(struct websocket *w, const char *p, size_t n, struct err *err)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < n) {
		if (!w->in_payload) {
			w->head[w->head_len++] = (unsigned char)p[at++];
			if (w->head_len < head_size(w))
				continue;
			r = begin_frame(w, err);
			if (r < 0)
				return r;
		}
		size_t take = (size_t)MIN(w->payload_len - w->payload_got, (uint64_t)(n - at));

		take_payload(w, p + at, take);
		at += take;
		if (w->payload_got == w->payload_len)
			r = end_frame(w);
	}
	return r;
}

static void put_head(struct buf *out, int opcode, size_t n, unsigned char masked)
{
	buf_addc(out, (char)(FIN | opcode));
	if (n < 126) {
		buf_addc(out, (char)(masked | n));
		return;
	}
	unsigned bytes = n <= 0xffff ? 2 : 8;

	buf_addc(out, (char)(masked | (bytes == 2 ? 126 : 127)));
	for (unsigned i = bytes; i-- > 0;)
		buf_addc(out, (char)((uint64_t)n >> (8 * i)));
}

void websocket_frame_head(struct buf *out, int opcode, size_t n)
{
	put_head(out, opcode, n, 0);
}

void websocket_frame(struct buf *out, bool client, int opcode, struct str payload)
{
	unsigned char mask[4];

	put_head(out, opcode, payload.len, client ? MASKED : 0);
	if (!client) {
		buf_add_str(out, payload);
		return;
	}
	random_bytes(mask, sizeof(mask));
	buf_add(out, mask, sizeof(mask));
	buf_reserve(out, payload.len);
	for (size_t i = 0; i < payload.len; i++)
		buf_addc(out, (char)(payload.p[i] ^ (char)mask[i & 3]));
}

void websocket_accept_key(struct str key, char out[29])
{
	CLEAN_BUF struct buf text = { 0 }, encoded = { 0 };
	unsigned char digest[SHA_DIGEST_LENGTH];

	buf_add_str(&text, key);
	buf_addz(&text, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
	SHA1((const unsigned char *)text.p, text.len, digest);
	base64_encode(&encoded, digest, sizeof(digest));
	memcpy(out, encoded.p, 29);
}
