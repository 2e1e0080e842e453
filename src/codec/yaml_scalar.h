/* How a plain YAML scalar is read, shared by reading and writing (what would be read as something else is quoted). */
#ifndef SKIFF_CODEC_YAML_SCALAR_H
#define SKIFF_CODEC_YAML_SCALAR_H

#include "codec/internal.h"

/* VALUE_TEXT when it is a text; the text is the input itself. */
struct value yaml_resolve(struct str s);

#endif
