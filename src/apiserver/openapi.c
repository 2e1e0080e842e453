/* /openapi/v2 (JSON and gnostic's protobuf) and /openapi/v3 (an index and one document a group and version). Upstream: kube-openapi. */
#include "apiserver/openapi.h"

struct doc_writer {
	struct buf *out;
	enum openapi_version version;
	bool proto, first;
};

static void put_member(struct doc_writer *w, struct str key, const struct value *v)
{
	if (!w->first)
		buf_addc(w->out, ',');
	w->first = false;
	json_write_text(key, w->out);
	buf_addc(w->out, ':');
	json_write(v, w->out);
}

/* Named{1 name, 2 value} as field `tag`. */
static void put_named(struct buf *out, unsigned tag, struct str name, struct str value)
{
	CLEAN_BUF struct buf named = { 0 };
	proto_put_bytes(&named, 1, name);
	proto_put_bytes(&named, 2, value);
	proto_put_bytes(out, tag, buf_str(&named));
}

static void on_path(void *arg, struct str path, const struct value *item)
{
	struct doc_writer *w = arg;
	if (!w->proto) {
		put_member(w, path, item);
		return;
	}
	CLEAN_BUF struct buf b = { 0 };
	gnostic_path_item(item, &b);
	put_named(w->out, 2, path, buf_str(&b));
}

static void on_definition(struct doc_writer *w, struct str name, const struct value *v)
{
	if (!w->proto) {
		put_member(w, name, v);
		return;
	}
	CLEAN_BUF struct buf b = { 0 };
	gnostic_schema(v, &b);
	put_named(w->out, 1, name, buf_str(&b));
}

static void put_definitions(struct doc_writer *w, struct type_set *types)
{
	CLEAN_ARENA struct arena *a = arena_new(16384);
	for (size_t i = 0; openapi_builtins[i].name; i++) {
		struct value v;
		if (json_parse(str_of(openapi_builtins[i].json[w->version]), a, &v, NULL) == 0)
			on_definition(w, str_of(openapi_builtins[i].name), &v);
	}
	type_set_sort(types);
	for (size_t i = 0; i < types->len; i++) {
		struct value v = openapi_definition(types->items[i], w->version, a);
		on_definition(w, str_of(types->items[i]->proto), &v);
		arena_reset(a);
	}
}

static void collect(struct type_set *types, const struct resource *r)
{
	type_set_add(types, r->row->type);
	type_set_add(types, r->row->list_type);
	for (size_t i = 0; i < r->row->n_subs; i++)
		type_set_add(types, r->row->subs[i].type);
}

static void collect_common(struct type_set *types)
{
	static const struct type *const common[] = { &meta_v1_delete_options_type,
		&meta_v1_status_type, &meta_v1_watch_event_type };
	for (size_t i = 0; i < ARRAY_LEN(common); i++)
		type_set_add(types, common[i]);
}

/* ---- v2 ---- */

static void make_v2_json(struct apiserver *s, struct str key, struct buf *out)
{
	size_t n;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	struct doc_writer w = { .out = out, .version = OPENAPI_V2, .first = true };
	struct type_set types = { 0 };
	buf_addf(out,
		"{\"swagger\":\"2.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"%s\"},\"paths\":{",
		s->config.git_version);
	for (size_t i = 0; i < n; i++) {
		openapi_paths(rs[i], OPENAPI_V2, on_path, &w);
		collect(&types, rs[i]);
	}
	buf_addz(out, "},\"definitions\":{");
	w.first = true;
	collect_common(&types);
	put_definitions(&w, &types);
	buf_addz(out,
		"},\"securityDefinitions\":{\"BearerToken\":{\"description\":\"A bearer token\",\"type\":\"apiKey\",\"name\":\"authorization\","
		"\"in\":\"header\"}},\"security\":[{\"BearerToken\":[]}]}");
	type_set_deinit(&types);
}

static void make_v2_proto(struct apiserver *s, struct str key, struct buf *out)
{
	size_t n;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	CLEAN_BUF struct buf info = { 0 }, paths = { 0 }, definitions = { 0 };
	struct type_set types = { 0 };
	proto_put_bytes(&info, 1, STR("Kubernetes"));
	proto_put_bytes(&info, 2, str_of(s->config.git_version));
	struct doc_writer w = { .out = &paths, .version = OPENAPI_V2, .proto = true };
	for (size_t i = 0; i < n; i++) {
		openapi_paths(rs[i], OPENAPI_V2, on_path, &w);
		collect(&types, rs[i]);
	}
	collect_common(&types);
	w.out = &definitions;
	put_definitions(&w, &types);
	proto_put_bytes(out, 1, STR("2.0"));
	proto_put_bytes(out, 2, buf_str(&info));
	proto_put_bytes(out, 8, buf_str(&paths));
	proto_put_bytes(out, 9, buf_str(&definitions));
	type_set_deinit(&types);
}

/* ---- v3 ---- */

static bool in_document(const struct resource *r, struct str path)
{
	struct str prefix = r->group.len ? STR("apis/") : STR("api/");
	return str_has_prefix(path, prefix) && str_eq(str_from(path, prefix.len), r->api_version);
}

static void make_v3(struct apiserver *s, struct str key, struct buf *out)
{
	size_t n;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	struct str path = str_from(key, strlen("/openapi/v3/"));
	struct doc_writer w = { .out = out, .version = OPENAPI_V3, .first = true };
	struct type_set types = { 0 };
	buf_addf(out,
		"{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":\"%s\"},\"paths\":{",
		s->config.git_version);
	for (size_t i = 0; i < n; i++) {
		if (!in_document(rs[i], path))
			continue;
		openapi_paths(rs[i], OPENAPI_V3, on_path, &w);
		collect(&types, rs[i]);
	}
	buf_addz(out, "},\"components\":{\"schemas\":{");
	w.first = true;
	collect_common(&types);
	put_definitions(&w, &types);
	buf_addz(out,
		"},\"securitySchemes\":{\"BearerToken\":{\"description\":\"A bearer token\",\"type\":\"apiKey\",\"name\":\"authorization\","
		"\"in\":\"header\"}}}}");
	type_set_deinit(&types);
}

/* Changes whenever a document could: the documents follow from the binary and the table of resources. */
static struct str document_hash(struct apiserver *s, struct str path, struct arena *a)
{
	CLEAN_BUF struct buf text = { 0 }, hex = { 0 };
	uint8_t sum[32];
	buf_addf(&text, "1 %s " STR_FMT, s->config.git_version, STR_ARG(path));
	sha256(text.p, text.len, sum);
	for (size_t i = 0; i < sizeof(sum); i++)
		buf_addf(&hex, "%02X", sum[i]);
	return arena_str(a, buf_str(&hex));
}

static struct str document_path(const struct resource *r, struct arena *a)
{
	return arena_fmt(a, "%s/" STR_FMT, r->group.len ? "apis" : "api", STR_ARG(r->api_version));
}

static bool serve_v3_index(struct request *q)
{
	size_t n;
	const struct resource *const *rs = registry_resources(q->server->registry, &n);
	struct buf out = { 0 };
	struct map seen = { 0 };
	buf_addz(&out, "{\"paths\":{");
	for (size_t i = 0; i < n; i++) {
		struct str path = document_path(rs[i], q->arena);
		if (map_set(&seen, path, q))
			continue;
		buf_addf(&out,
			"%s\"" STR_FMT "\":{\"serverRelativeURL\":\"/openapi/v3/" STR_FMT
			"?hash=" STR_FMT "\"}",
			seen.len > 1 ? "," : "", STR_ARG(path), STR_ARG(path),
			STR_ARG(document_hash(q->server, path, q->arena)));
	}
	buf_addz(&out, "}}");
	map_deinit(&seen, NULL);
	respond_buf(q, 200, "application/json", &out);
	return true;
}

static bool serve_v3(struct request *q, struct str path)
{
	size_t n;
	const struct resource *const *rs = registry_resources(q->server->registry, &n);
	for (size_t i = 0; i < n; i++) {
		if (!in_document(rs[i], path))
			continue;
		struct str etag = arena_fmt(q->arena, "\"" STR_FMT "\"",
			STR_ARG(document_hash(q->server, path, q->arena)));
		doc_serve(q, arena_fmt(q->arena, "/openapi/v3/" STR_FMT, STR_ARG(path)), make_v3,
			"application/json", etag);
		return true;
	}
	return false;
}

static bool wants_proto(struct str accept)
{
	ssize_t proto = str_find_str(accept, STR("com.github.proto-openapi.spec.v2")),
		json = str_find_str(accept, STR("application/json"));
	return proto >= 0 && (json < 0 || proto < json);
}

bool serve_openapi(struct request *q)
{
	struct str rest = str_from(q->info.path, strlen("/openapi/"));
	while (rest.len && rest.p[rest.len - 1] == '/')
		rest.len--;
	if (str_eqz(rest, "v3"))
		return serve_v3_index(q);
	if (str_has_prefix(rest, STR("v3/")))
		return serve_v3(q, str_from(rest, 3));
	bool proto = wants_proto(http_request_header(q->http, "accept"));
	struct str etag = arena_fmt(q->arena, "\"" STR_FMT "\"",
		STR_ARG(document_hash(q->server, proto ? STR("v2 proto") : STR("v2"), q->arena)));
	if (proto)
		doc_serve(q, STR("v2 proto"), make_v2_proto,
			"application/com.github.proto-openapi.spec.v2.v1.0+protobuf", etag);
	else
		doc_serve(q, STR("v2"), make_v2_json, "application/json", etag);
	return true;
}
