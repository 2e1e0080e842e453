/* What the files of model share. */
#ifndef SKIFF_MODEL_INTERNAL_H
#define SKIFF_MODEL_INTERNAL_H

#include "model/model.h"

/* Any list or map member; their structs all look like this. */
struct any_list {
	char *items;
	size_t len;
};

/* Values of a map stand behind their key. */
#define MAP_VALUE_OFFSET sizeof(struct str)

/* Whether the kind is held as struct str. */
static inline bool kind_is_text(enum field_kind k)
{
	return k == KIND_STRING || k == KIND_BYTES || k == KIND_QUANTITY || k == KIND_RAW ||
		k == KIND_JSON;
}

/* `value` points at the member. */
bool model_field_is_zero(const struct field *f, const void *value); /* not there */
bool model_field_equal(const struct field *f, const void *a, const void *b);

size_t field_value_size(const struct field *f); /* of the member itself */

#endif
