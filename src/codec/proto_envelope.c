/* Opening the envelope of an object in protobuf: magic, then Unknown{1 typeMeta{1 apiVersion, 2 kind}, 2 raw,
 * 3 contentEncoding, 4 contentType}. Nothing is copied. */
#include "codec/internal.h"

struct cursor {
	const uint8_t *p, *end;
};

static bool get_varint(struct cursor *c, uint64_t *ret)
{
	*ret = 0;
	for (int shift = 0; shift < 64 && c->p < c->end; shift += 7) {
		uint8_t b = *c->p++;

		*ret |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80)
			return true;
	}
	return false;
}

/* The texts under tags 1 to n; anything else must be skippable. */
static bool get_texts(struct str in, struct str *texts, size_t n)
{
	uint64_t key, len;

	if (!in.len)
		return true;
	struct cursor c = { (const uint8_t *)in.p, (const uint8_t *)in.p + in.len };

	while (c.p < c.end) {
		if (!get_varint(&c, &key) || !get_varint(&c, &len))
			return false;
		if ((key & 7) == 0) /* a varint: its value was read as the length */
			continue;
		if ((key & 7) != 2 || len > (uint64_t)(c.end - c.p))
			return false;
		if (key >> 3 >= 1 && key >> 3 <= n)
			texts[(key >> 3) - 1] = str_n((const char *)c.p, len);
		c.p += len;
	}
	return true;
}

int proto_open(struct str bytes, struct proto_envelope *ret, struct err *err)
{
	struct str outer[4] = { 0 }, meta[2] = { 0 };

	if (!proto_has_magic(bytes))
		return err_set(err, -EBADMSG,
			"provided data does not appear to be a protobuf message: it must begin with \"k8s\\x00\"");
	if (!get_texts(str_from(bytes, 4), outer, 4) || !get_texts(outer[0], meta, 2))
		return err_set(err, -EBADMSG,
			"the envelope of the protobuf message is malformed: proto: unexpected EOF");
	*ret = (struct proto_envelope){
		.api_version = meta[0],
		.kind = meta[1],
		.raw = outer[1],
		.content_encoding = outer[2],
		.content_type = outer[3],
	};
	return 0;
}
