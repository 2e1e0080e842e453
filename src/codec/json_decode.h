/* The state of one typed decoding, shared by json_decode.c (structure) and json_scalars.c (single values). */
#ifndef SKIFF_CODEC_JSON_DECODE_H
#define SKIFF_CODEC_JSON_DECODE_H

#include "codec/internal.h"

/* Where the decoder is, from the inside out; lives on the C stack. */
struct frame {
	const struct frame *up;
	enum { FRAME_FIELD, FRAME_INDEX, FRAME_KEY } kind;
	struct str name;
	size_t index;
};

/* Items of a list while its length is unknown: a stack of chunks that never move. */
struct chunk {
	struct chunk *next;
	size_t used, cap;
	char *data;
};

struct dec {
	const char *p, *end;
	struct arena *arena;
	struct text_pool pool;
	struct decode_notes *notes;
	struct err *err;
	size_t depth;
	int64_t budget; /* bytes of structs that this input may still make */
	bool told; /* err holds the reason; else the text is malformed, or `bad` is to be told */
	const char *bad; /* what stands in the text: "string", "number 1.5" … NULL: malformed */
	char bad_number[48];
	const struct field *bad_field;
	bool bad_item; /* the item of bad_field's list or map, not the whole */
	struct chunk *chunk;
};

/* What kind of value stands at p, in encoding/json's words. */
const char *value_word(char c);
int mismatch(struct dec *d, const struct field *f, bool item); /* -EBADMSG, with `bad` set */
int decode_text(struct dec *d, struct str *ret);               /* p at the opening quote */
/* One value that is no message; null has been handled. to: as SHAPE_ONE holds it. */
int decode_scalar(struct dec *d, const struct field *f, void *to, bool item);
static inline bool take_null(struct dec *d)
{
	if (d->p == d->end || *d->p != 'n' || d->end - d->p < 4 || memcmp(d->p, "null", 4))
		return false;
	d->p += 4;
	return true;
}

#endif
