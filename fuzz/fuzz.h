/* What the fuzzers of what decodes objects share. */
#ifndef SKIFF_FUZZ_FUZZ_H
#define SKIFF_FUZZ_FUZZ_H

#include "codec/codec.h"
#include "gen/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void must(bool ok)
{
	if (!ok)
		abort();
}

/* Does obj come back from protobuf, and its bytes the same? */
static inline void round_trip_proto(const struct type *t, const void *obj, struct arena *a)
{
	struct buf first = { 0 }, second = { 0 };
	struct err err;
	void *again;

	proto_encode(t, obj, &first);
	must(!proto_decode(t, buf_str(&first), a, &again, &err));
	proto_encode(t, again, &second);
	must(str_eq(buf_str(&first), buf_str(&second)));
	buf_deinit(&first);
	buf_deinit(&second);
}

/* A copy of exact size of what follows the first byte, so that reading past the end is seen. The caller frees it. */
static inline char *rest_of(const uint8_t *data, size_t size)
{
	char *exact = xmalloc(size);

	memcpy(exact, data + 1, size - 1);
	return exact;
}

#endif
