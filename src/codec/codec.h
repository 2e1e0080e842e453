/* Bytes <-> objects, by the rows of their types: JSON, YAML and Kubernetes' protobuf. One pass from bytes to struct.
 * Nothing here trusts its input: depth (CODEC_MAX_DEPTH), UTF-8, lengths and number ranges are checked; memory comes from
 * the caller's arena and is at most a small multiple of the input. */
#ifndef SKIFF_CODEC_H
#define SKIFF_CODEC_H

#include "model/model.h"

/* No real object nests half as deep; at this depth decoding fits a thread with 256 KB of stack. */
#define CODEC_MAX_DEPTH 200

/* Unknown and duplicate fields, found while decoding: paths as upstream words them (unknown field "spec.foo",
 * duplicate field "spec.replicas"). They are collected, never fatal here; strict callers refuse when len > 0. */
struct decode_notes {
	struct arena *arena;
	struct str *items;
	size_t len;
};

/* ---- JSON ---- */
/* Decodes one value of type t, the whole text. notes may be NULL. -EBADMSG: malformed or of the wrong type; err tells where
 * in upstream's sense (json: cannot unmarshal string into Go struct field ….replicas of type int32). */
int json_decode(const struct type *t, struct str text, struct arena *a, struct decode_notes *notes,
	void **ret, struct err *err);
void json_encode(const struct type *t, const void *obj, struct buf *out);
int json_parse(struct str text, struct arena *a, struct value *ret,
	struct err *err); /* to a tree; duplicate keys: last wins; -ERANGE: a number too large */
void json_write(const struct value *v, struct buf *out); /* compact, members in order */
void json_write_pretty(const struct value *v, struct buf *out, int indent);
void json_write_text(
	struct str s, struct buf *out); /* one string, quoted and escaped as encoding/json */
/* Reads only apiVersion and kind of a JSON object, and stops when it has both: whether the rest is well-formed shows in
 * json_decode. */
int json_peek_type_meta(struct str text, struct arena *a, struct str *ret_api_version,
	struct str *ret_kind, struct err *err);

/* ---- YAML (libyaml) ---- */
int yaml_parse(struct str text, struct arena *a, struct value *ret,
	struct err *err); /* the first document; 1.1 scalars as upstream's sigs.k8s.io/yaml */
int yaml_parse_all(
	struct str text, struct arena *a, struct value **ret_docs, size_t *ret_n, struct err *err);
void yaml_write(const struct value *v, struct buf *out); /* keys sorted, as kubectl shows it */

/* ---- trees <-> objects ---- */
int value_to_object(const struct type *t, const struct value *v, struct arena *a,
	struct decode_notes *notes, void **ret, struct err *err);
void value_from_object(const struct type *t, const void *obj, struct arena *a, struct value *ret);

/* ---- protobuf ---- */
int proto_decode(const struct type *t, struct str bytes, struct arena *a, void **ret,
	struct err *err); /* no envelope */
void proto_encode(const struct type *t, const void *obj, struct buf *out);
bool proto_has_magic(struct str bytes); /* begins with k8s\0 */
struct proto_envelope {
	struct str api_version, kind, raw, content_encoding, content_type; /* views of the input */
};
int proto_open(struct str bytes, struct proto_envelope *ret, struct err *err);
void proto_seal(struct str api_version, struct str kind, struct str raw, struct buf *out);
void proto_encode_object(const struct type *t, const void *obj,
	struct buf *out); /* envelope and all, type meta from obj or t */

/* ---- whole objects in any form ---- */
enum codec_format { FORMAT_JSON, FORMAT_YAML, FORMAT_PROTOBUF };
enum codec_format codec_detect(struct str bytes);
/* Finds the type by what the bytes say. -ENOENT: no such kind here. */
int codec_decode(struct str bytes, struct arena *a, struct decode_notes *notes,
	const struct type **ret_type, void **ret, struct err *err);
void codec_encode(enum codec_format form, const struct type *t, const void *obj, struct buf *out);
/* One object from whatever form it has into the one asked for (JSON: compact). */
int codec_convert(struct str in, enum codec_format to, struct decode_notes *notes, struct buf *out,
	struct err *err);
#endif
