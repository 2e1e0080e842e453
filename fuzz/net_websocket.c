/* WebSocket frames, cut into pieces. The first byte: which side we are, and how long a piece is. */
#include "net/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX 70000

static int on_message(void *arg, int opcode, struct str payload)
{
	if (payload.len > MESSAGE_MAX || (opcode >= WS_CLOSE && payload.len > 125))
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct websocket w;
	struct err err;

	if (!size)
		return 0;
	size_t step = (size_t)(data[0] & 0x7f) + 1;

	websocket_init(&w, data[0] & 0x80, MESSAGE_MAX);
	w.on_message = on_message;
	for (size_t at = 1; at < size; at += step)
		if (websocket_feed(&w, (const char *)data + at, MIN(step, size - at), &err) < 0) {
			if (!w.close_code)
				abort();
			break;
		}
	websocket_deinit(&w);
	return 0;
}
