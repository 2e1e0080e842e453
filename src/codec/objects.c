/* Objects in any form: to and from trees, telling forms apart, converting. Trees go through JSON text: they are for what is
 * rare, and so there is one decoder with one set of rules. */
#include "codec/internal.h"

int value_to_object(const struct type *t, const struct value *v, struct arena *a,
	struct decode_notes *notes, void **ret, struct err *err)
{
	struct buf text = { 0 };

	json_write(v, &text);
	int r = json_decode(t, buf_str(&text), a, notes, ret, err);

	buf_deinit(&text);
	return r;
}

void value_from_object(const struct type *t, const void *obj, struct arena *a, struct value *ret)
{
	struct buf text = { 0 };

	json_encode(t, obj, &text);
	if (json_parse(buf_str(&text), a, ret, NULL) < 0)
		*ret = (struct value){
			.kind = VALUE_NULL
		}; /* nothing that codecs made: a raw member holds no JSON */
	buf_deinit(&text);
}

enum codec_format codec_detect(struct str bytes)
{
	const char *end = bytes.p + bytes.len, *p = bytes.len ? skip_space(bytes.p, end) : end;

	if (proto_has_magic(bytes))
		return FORMAT_PROTOBUF;
	return p < end && (*p == '{' || *p == '[') ? FORMAT_JSON : FORMAT_YAML;
}

/* "apps/v1" -> apps, v1; "v1" -> "", v1 */
static const struct type *find_type(struct str api_version, struct str kind)
{
	struct str group, version;

	if (!str_cut(api_version, '/', &group, &version)) {
		version = api_version;
		group = STR("");
	}
	return model_type(group, version, kind);
}

static int decode_proto(struct str bytes, struct arena *a, const struct type **ret_type, void **ret,
	struct err *err)
{
	struct proto_envelope env;
	int r = proto_open(bytes, &env, err);

	if (r < 0)
		return r;
	const struct type *t = find_type(env.api_version, env.kind);

	if (!t)
		return err_set(err, -ENOENT,
			"no kind \"" STR_FMT "\" is registered for version \"" STR_FMT "\"",
			STR_ARG(env.kind), STR_ARG(env.api_version));
	r = proto_decode(t, env.raw, a, ret, err);
	if (!r && t->is_typed) {
		struct object_head *head = *ret;

		head->api_version = arena_str(a, env.api_version);
		head->kind = arena_str(a, env.kind);
	}
	*ret_type = t;
	return r;
}

int codec_decode(struct str bytes, struct arena *a, struct decode_notes *notes,
	const struct type **ret_type, void **ret, struct err *err)
{
	enum codec_format form = codec_detect(bytes);
	struct buf text = { 0 };
	struct str version, kind;
	struct value tree;
	int r = 0;

	if (form == FORMAT_PROTOBUF)
		return decode_proto(bytes, a, ret_type, ret, err);
	if (form == FORMAT_YAML) {
		r = yaml_parse(bytes, a, &tree, err);
		if (r < 0)
			return r;
		json_write(&tree, &text);
		bytes = buf_str(&text);
	}
	r = json_peek_type_meta(bytes, a, &version, &kind, err);
	const struct type *t = r < 0 ? NULL : find_type(version, kind);

	if (!r && !kind.len)
		r = err_set(err, -EBADMSG, "Object 'Kind' is missing in '%.*s'",
			(int)MIN(bytes.len, (size_t)200), bytes.p);
	else if (!r && !t)
		r = err_set(err, -ENOENT,
			"no kind \"" STR_FMT "\" is registered for version \"" STR_FMT "\"",
			STR_ARG(kind), STR_ARG(version));
	if (!r)
		r = json_decode(t, bytes, a, notes, ret, err);
	if (!r)
		*ret_type = t;
	buf_deinit(&text);
	return r;
}

void codec_encode(enum codec_format form, const struct type *t, const void *obj, struct buf *out)
{
	struct arena *a;
	struct value tree;

	if (form == FORMAT_PROTOBUF) {
		proto_encode_object(t, obj, out);
	} else if (form == FORMAT_JSON) {
		json_encode(t, obj, out);
	} else {
		a = arena_new(0);
		value_from_object(t, obj, a, &tree);
		yaml_write(&tree, out);
		arena_free(a);
	}
}

int codec_convert(struct str in, enum codec_format to, struct decode_notes *notes, struct buf *out,
	struct err *err)
{
	struct arena *a = arena_new(0);
	const struct type *t;
	void *obj;
	int r = codec_decode(in, a, notes, &t, &obj, err);

	if (!r)
		codec_encode(to, t, obj, out);
	arena_free(a);
	return r;
}
