/* The forms an object can take on the wire: itself, a row of a Table, its metadata alone; JSON, YAML or protobuf. Lists and watches
 * put these between their own brackets. */
#include "apiserver/internal.h"

/* ---- canonical JSON, read without decoding ---- */

static const char *skip_string(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		p = memchr(p, '"', (size_t)(end - p));
		if (!p)
			return end;
		size_t slashes = 0;
		while (p[-1 - (ssize_t)slashes] == '\\')
			slashes++;
		if (slashes % 2 == 0)
			return p + 1;
	}
	return end;
}

static const char *skip_value(const char *p, const char *end)
{
	size_t depth = 0;
	while (p < end) {
		char c = *p;
		if (c == '"') {
			p = skip_string(p, end);
			if (!depth)
				return p;
			continue;
		}
		if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']') {
			if (!depth)
				return p;
			if (--depth == 0)
				return p + 1;
		} else if (c == ',' && !depth)
			return p;
		p++;
	}
	return end;
}

struct str json_member(struct str json, struct str key)
{
	const char *p = json.p, *end = json.p + json.len;
	if (!json.len || *p != '{')
		return STR_NONE;
	p++;
	while (p < end && *p == '"') {
		const char *name = p + 1;
		p = skip_string(p, end);
		if (p >= end || *p != ':')
			return STR_NONE;
		size_t name_len = (size_t)(p - 1 - name);
		const char *value = p + 1;
		p = skip_value(value, end);
		if (name_len == key.len && !memcmp(name, key.p, key.len))
			return str_n(value, (size_t)(p - value));
		if (p >= end || *p != ',')
			return STR_NONE;
		p++;
	}
	return STR_NONE;
}

/* ---- whole structs ---- */

static void rewrite(const struct accept *ac, size_t from, struct buf *out)
{
	if (ac->format != OUT_YAML && !ac->pretty)
		return;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct value v;
	if (json_parse(arena_str(a, str_n(out->p + from, out->len - from)), a, &v, NULL) < 0)
		return;
	out->len = from;
	if (ac->format == OUT_YAML) {
		yaml_write(&v, out);
	} else {
		json_write_pretty(&v, out, 2);
		buf_addc(out, '\n');
	}
}

void render_struct(const struct accept *ac, const struct type *t, const void *obj, struct buf *out)
{
	if (ac->format == OUT_PROTO) {
		proto_encode_object(t, obj, out);
		return;
	}
	size_t from = out->len;
	json_encode(t, obj, out);
	buf_addc(out, '\n');
	rewrite(ac, from, out);
}

/* ---- stored objects ---- */

void proto_put_varint(struct buf *out, uint64_t v)
{
	while (v >= 0x80) {
		buf_addc(out, (char)(v | 0x80));
		v >>= 7;
	}
	buf_addc(out, (char)v);
}

void proto_put_bytes(struct buf *out, unsigned tag, struct str bytes)
{
	proto_put_varint(out, (uint64_t)tag << 3 | 2);
	proto_put_varint(out, bytes.len);
	buf_add_str(out, bytes);
}

static const char *meta_version(const struct accept *ac)
{
	return ac->beta ? "meta.k8s.io/v1beta1" : "meta.k8s.io/v1";
}

void render_partial_json(const struct accept *ac, struct str json, struct buf *out)
{
	struct str meta = json_member(json, STR("metadata"));
	buf_addf(out, "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"%s\",\"metadata\":",
		meta_version(ac));
	buf_add_str(out, meta.len ? meta : STR("{}"));
	buf_addc(out, '}');
}

static void render_partial_proto(
	const struct accept *ac, struct str json, struct arena *a, struct buf *out)
{
	CLEAN_BUF struct buf text = { 0 };
	render_partial_json(ac, json, &text);
	void *obj;
	if (json_decode(&meta_v1_partial_object_metadata_type, arena_str(a, buf_str(&text)), a,
		    NULL, &obj, NULL) == 0)
		proto_encode_object(&meta_v1_partial_object_metadata_type, obj, out);
}

void render_table_head(const struct request *q, struct str resource_version, struct str continue_,
	int64_t remaining, bool columns, struct buf *out)
{
	buf_addf(out, "{\"kind\":\"Table\",\"apiVersion\":\"%s\",\"metadata\":{",
		meta_version(&q->accept));
	if (resource_version.len)
		buf_addf(out, "\"resourceVersion\":\"" STR_FMT "\"", STR_ARG(resource_version));
	if (continue_.len) {
		buf_addz(out, ",\"continue\":");
		json_write_text(continue_, out);
	}
	if (continue_.len && remaining >= 0)
		buf_addf(out, ",\"remainingItemCount\":%lld", (long long)remaining);
	buf_addz(out, "},\"columnDefinitions\":");
	if (columns)
		registry_table_columns(q->resource, out);
	else
		buf_addz(out, "null");
	buf_addz(out, ",\"rows\":[");
}

void render_table_row(const struct request *q, struct object *o, struct arena *a, struct buf *out)
{
	buf_addz(out, "{\"cells\":");
	registry_table_cells(q->resource, o, time_now(), a, out);
	struct str include = q->options.include_object;
	if (!str_eqz(include, "None")) {
		buf_addz(out, ",\"object\":");
		if (str_eqz(include, "Object"))
			buf_add_str(out, o->json);
		else
			render_partial_json(&q->accept, o->json, out);
	}
	buf_addc(out, '}');
}

static struct str object_version(const struct object *o, struct arena *a)
{
	return arena_fmt(a, "%llu", (unsigned long long)o->revision);
}

void render_object(const struct request *q, struct object *o, struct arena *a, struct buf *out)
{
	const struct accept *ac = &q->accept;
	size_t from = out->len;
	if (ac->view == VIEW_TABLE) {
		render_table_head(q, object_version(o, a), STR_NONE, -1, true, out);
		render_table_row(q, o, a, out);
		buf_addz(out, "]}\n");
	} else if (ac->view == VIEW_PARTIAL && ac->format == OUT_PROTO) {
		render_partial_proto(ac, o->json, a, out);
		return;
	} else if (ac->view == VIEW_PARTIAL) {
		render_partial_json(ac, o->json, out);
	} else if (ac->format == OUT_PROTO) {
		registry_object_proto(q->resource, o, out);
		return;
	} else {
		buf_add_str(out, o->json);
	}
	rewrite(ac, from, out);
}
