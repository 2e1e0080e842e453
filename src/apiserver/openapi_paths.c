/* Paths: every path of a resource with its operations, their parameters and what they take and give, as clients look them up
 * (operation ids, x-kubernetes-action, dryRun and fieldValidation among the parameters of patch). */
#include <ctype.h>

#include "apiserver/openapi.h"

static const struct param_row {
	const char *name, *type, *doc;
} params[] = {
	{ "allowWatchBookmarks", "boolean", "Ask for bookmarks among the events of a watch." },
	{ "continue", "string",
		"Go on with a list where the page before ended; the token is that page's." },
	{ "fieldSelector", "string",
		"Only objects whose fields are as said; which fields depends on the resource." },
	{ "labelSelector", "string", "Only objects with such labels." },
	{ "limit", "integer", "How many objects a page holds at most." },
	{ "resourceVersion", "string", "From or at which version to read." },
	{ "resourceVersionMatch", "string",
		"How resourceVersion is meant: Exact or NotOlderThan." },
	{ "sendInitialEvents", "boolean",
		"Begin a watch with what is there, closed by a bookmark." },
	{ "timeoutSeconds", "integer", "When the request ends by itself." },
	{ "watch", "boolean", "Watch instead of list." },
	{ "dryRun", "string", "All: do everything but store it." },
	{ "fieldManager", "string", "Who changes the fields." },
	{ "fieldValidation", "string",
		"What happens to unknown and repeated fields: Ignore, Warn or Strict." },
	{ "force", "boolean", "Take fields over from other managers when applying." },
	{ "gracePeriodSeconds", "integer", "How long to let it end by itself." },
	{ "orphanDependents", "boolean", "Old form of propagationPolicy Orphan." },
	{ "propagationPolicy", "string",
		"What becomes of dependents: Orphan, Background or Foreground." },
	{ "pretty", "string", "true: indent the answer." },
};
enum {
	P_BOOKMARKS = 1 << 0,
	P_CONTINUE = 1 << 1,
	P_FIELD = 1 << 2,
	P_LABEL = 1 << 3,
	P_LIMIT = 1 << 4,
	P_RV = 1 << 5,
	P_MATCH = 1 << 6,
	P_INITIAL = 1 << 7,
	P_TIMEOUT = 1 << 8,
	P_WATCH = 1 << 9,
	P_DRY_RUN = 1 << 10,
	P_MANAGER = 1 << 11,
	P_VALIDATION = 1 << 12,
	P_FORCE = 1 << 13,
	P_GRACE = 1 << 14,
	P_ORPHAN = 1 << 15,
	P_PROPAGATION = 1 << 16,
	P_PRETTY = 1 << 17,
	P_LIST = P_BOOKMARKS | P_CONTINUE | P_FIELD | P_LABEL | P_LIMIT | P_RV | P_MATCH |
		P_INITIAL | P_TIMEOUT | P_WATCH,
	P_WRITE = P_DRY_RUN | P_MANAGER | P_VALIDATION,
	P_DELETE = P_DRY_RUN | P_GRACE | P_ORPHAN | P_PROPAGATION,
};

enum body { TAKES_NOTHING, TAKES_OBJECT, TAKES_PATCH, TAKES_DELETE };
enum answer { ANSWER_OBJECT, ANSWER_LIST, ANSWER_STATUS };
static const struct op_row {
	uint32_t verb;
	const char *method, *id, *action;
	uint32_t params;
	enum body body;
	enum answer answer;
	bool collection;
	const char *codes; /* comma-separated */
} ops[] = {
	{ VERB_LIST, "get", "list", "list", P_LIST, TAKES_NOTHING, ANSWER_LIST, true, "200" },
	{ VERB_CREATE, "post", "create", "post", P_WRITE, TAKES_OBJECT, ANSWER_OBJECT, true,
		"200,201,202" },
	{ VERB_DELETECOLLECTION, "delete", "delete", "deletecollection",
		(P_LIST & ~(P_WATCH | P_BOOKMARKS)) | P_DELETE, TAKES_DELETE, ANSWER_STATUS, true,
		"200" },
	{ VERB_GET, "get", "read", "get", 0, TAKES_NOTHING, ANSWER_OBJECT, false, "200" },
	{ VERB_UPDATE, "put", "replace", "put", P_WRITE, TAKES_OBJECT, ANSWER_OBJECT, false,
		"200,201" },
	{ VERB_PATCH, "patch", "patch", "patch", P_WRITE | P_FORCE, TAKES_PATCH, ANSWER_OBJECT,
		false, "200,201" },
	{ VERB_DELETE, "delete", "delete", "delete", P_DELETE, TAKES_DELETE, ANSWER_STATUS, false,
		"200,202" },
};

struct make {
	struct arena *arena;
	enum openapi_version version;
	const struct resource *resource;
	const struct subresource_row *sub;
	path_fn fn;
	void *arg;
};

/* rbac.authorization.k8s.io v1 -> RbacAuthorizationV1 */
static struct str camel_group(struct make *m)
{
	CLEAN_BUF struct buf b = { 0 };
	struct str group = m->resource->group.len ? m->resource->group : STR("core");
	if (str_has_suffix(group, STR(".k8s.io")))
		group.len -= strlen(".k8s.io");
	bool up = true;
	for (size_t i = 0; i < group.len; i++) {
		if (group.p[i] == '.') {
			up = true;
			continue;
		}
		buf_addc(&b, up ? (char)toupper((unsigned char)group.p[i]) : group.p[i]);
		up = false;
	}
	buf_addf(&b, "%c" STR_FMT, toupper((unsigned char)m->resource->version.p[0]),
		STR_ARG(str_from(m->resource->version, 1)));
	return arena_str(m->arena, buf_str(&b));
}

static void put_schema_type(struct make *m, struct value *at, const char *type)
{
	if (m->version == OPENAPI_V3)
		at = tree_object(m->arena, at, "schema");
	tree_text(m->arena, at, "type", type);
	if (m->version == OPENAPI_V3 || strcmp(type, "array") != 0)
		tree_bool(m->arena, at, "uniqueItems", true);
}

static void put_param(struct make *m, struct value *list, const char *name, const char *in,
	const char *type, const char *doc, bool required)
{
	struct value *p = tree_item_object(m->arena, list);
	tree_text(m->arena, p, "name", name);
	tree_text(m->arena, p, "in", in);
	tree_text(m->arena, p, "description", doc);
	if (required)
		tree_bool(m->arena, p, "required", true);
	put_schema_type(m, p, type);
}

static void put_query_params(struct make *m, struct value *op, uint32_t set)
{
	if (!set)
		return;
	struct value *list = tree_list(m->arena, op, "parameters");
	for (size_t i = 0; i < ARRAY_LEN(params); i++)
		if (set & (1u << i))
			put_param(m, list, params[i].name, "query", params[i].type, params[i].doc,
				false);
}

static void put_ref(struct make *m, struct value *schema, const char *name)
{
	tree_str(m->arena, schema, "$ref",
		arena_fmt(m->arena, "#/%s/%s",
			m->version == OPENAPI_V2 ? "definitions" : "components/schemas", name));
}

static const char *const patch_types[] = { "application/json-patch+json",
	"application/merge-patch+json", "application/strategic-merge-patch+json",
	"application/apply-patch+yaml", NULL };
static const char *const any_type[] = { "*/*", NULL };
static const char *const answer_types[] = { "application/json", "application/yaml",
	"application/vnd.kubernetes.protobuf", NULL };
static const char *const list_types[] = { "application/json", "application/yaml",
	"application/vnd.kubernetes.protobuf", "application/json;stream=watch",
	"application/vnd.kubernetes.protobuf;stream=watch", NULL };

static void put_content(struct make *m, struct value *at, const char *const *types, const char *ref)
{
	struct value *content = tree_object(m->arena, at, "content");
	for (size_t i = 0; types[i]; i++)
		put_ref(m,
			tree_object(m->arena, tree_object(m->arena, content, types[i]), "schema"),
			ref);
}

static const struct type *body_type(const struct make *m)
{
	return m->sub && m->sub->type ? m->sub->type : m->resource->row->type;
}

static const char *body_ref(const struct make *m, enum body body)
{
	if (body == TAKES_PATCH)
		return "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
	return body == TAKES_DELETE ? meta_v1_delete_options_type.proto : body_type(m)->proto;
}

static void put_body(struct make *m, struct value *op, enum body body)
{
	if (body == TAKES_NOTHING)
		return;
	const char *ref = body_ref(m, body);
	if (m->version == OPENAPI_V3) {
		put_content(m, tree_object(m->arena, op, "requestBody"),
			body == TAKES_PATCH ? patch_types : any_type, ref);
		return;
	}
	struct value *list = value_get(op, STR("parameters"));
	struct value *p =
		tree_item_object(m->arena, list ? list : tree_list(m->arena, op, "parameters"));
	tree_text(m->arena, p, "name", "body");
	tree_text(m->arena, p, "in", "body");
	if (body != TAKES_DELETE)
		tree_bool(m->arena, p, "required", true);
	put_ref(m, tree_object(m->arena, p, "schema"), ref);
}

static void put_answers(struct make *m, struct value *op, const struct op_row *row)
{
	const char *ref = row->answer == ANSWER_STATUS ? meta_v1_status_type.proto
		: row->answer == ANSWER_LIST           ? m->resource->row->list_type->proto
						       : body_type(m)->proto;
	struct value *responses = tree_object(m->arena, op, "responses");
	struct str codes = str_of(row->codes), code;
	while (codes.len) {
		if (!str_cut(codes, ',', &code, &codes))
			codes = STR_NONE;
		struct value *r = tree_object(m->arena, responses, arena_str(m->arena, code).p);
		tree_text(m->arena, r, "description",
			str_eqz(code, "200")           ? "OK"
				: str_eqz(code, "201") ? "Created"
						       : "Accepted");
		if (m->version == OPENAPI_V3)
			put_content(
				m, r, row->answer == ANSWER_LIST ? list_types : answer_types, ref);
		else
			put_ref(m, tree_object(m->arena, r, "schema"), ref);
	}
	tree_text(m->arena, tree_object(m->arena, responses, "401"), "description", "Unauthorized");
}

static void put_types(struct make *m, struct value *op, const char *key, const char *const *types)
{
	struct value *list = tree_list(m->arena, op, key);
	for (size_t i = 0; types[i]; i++)
		tree_item_text(m->arena, list, types[i]);
}

static void put_op(
	struct make *m, struct value *item, const struct op_row *row, bool namespaced, bool all)
{
	struct value *op = tree_object(m->arena, item, row->method);
	struct str group = camel_group(m);
	const struct resource_row *res = m->resource->row;
	struct str sub = m->sub ? arena_fmt(m->arena, "%c%s",
					  toupper((unsigned char)m->sub->name[0]), m->sub->name + 1)
				: STR("");
	tree_str(m->arena, op, "operationId",
		arena_fmt(m->arena, "%s" STR_FMT "%s%s%s" STR_FMT "%s", row->id, STR_ARG(group),
			row->verb == VERB_DELETECOLLECTION ? "Collection" : "",
			namespaced ? "Namespaced" : "", res->kind, STR_ARG(sub),
			all ? "ForAllNamespaces" : ""));
	tree_str(m->arena, op, "description",
		arena_fmt(m->arena, "%s of %s%s%s", row->action, res->plural, m->sub ? "/" : "",
			m->sub ? m->sub->name : ""));
	put_query_params(m, op, row->params);
	put_body(m, op, row->body);
	if (m->version == OPENAPI_V2) {
		put_types(m, op, "consumes", row->body == TAKES_PATCH ? patch_types : any_type);
		put_types(
			m, op, "produces", row->answer == ANSWER_LIST ? list_types : answer_types);
	}
	put_answers(m, op, row);
	tree_text(m->arena, op, "x-kubernetes-action", row->action);
	struct value *gvk = tree_object(m->arena, op, "x-kubernetes-group-version-kind");
	const struct type *t = body_type(m);
	tree_text(m->arena, gvk, "group", t->group);
	tree_text(m->arena, gvk, "kind", t->name);
	tree_text(m->arena, gvk, "version", t->version);
}

static void put_path_params(struct make *m, struct value *item, bool namespaced, bool named)
{
	struct value *list = tree_list(m->arena, item, "parameters");
	if (named)
		put_param(m, list, "name", "path", "string", "The object's name.", true);
	if (namespaced)
		put_param(m, list, "namespace", "path", "string", "The object's namespace.", true);
	put_param(m, list, "pretty", "query", "string", params[ARRAY_LEN(params) - 1].doc, false);
}

static void make_path(struct make *m, bool namespaced, bool collection, bool all)
{
	const struct resource *r = m->resource;
	uint32_t verbs = m->sub ? m->sub->verbs : r->row->verbs;
	struct value item = { .kind = VALUE_OBJECT };
	bool any = false;
	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		const struct op_row *op = &ops[i];
		/* what is created below a name (binding, eviction, token) is a POST to that name */
		bool here = m->sub ? !collection && (op->verb == VERB_CREATE || !op->collection)
				   : op->collection == collection;
		if (!here || !(verbs & op->verb) || (all && op->verb != VERB_LIST) ||
			(op->verb == VERB_LIST && !r->row->list_type))
			continue;
		put_op(m, &item, op, namespaced, all);
		any = true;
	}
	if (any) {
		put_path_params(m, &item, namespaced, !collection);
		struct str path = arena_fmt(m->arena, "/%s/" STR_FMT "%s/%s%s%s%s",
			r->group.len ? "apis" : "api", STR_ARG(r->api_version),
			namespaced ? "/namespaces/{namespace}" : "", r->row->plural,
			collection ? "" : "/{name}", m->sub ? "/" : "", m->sub ? m->sub->name : "");
		m->fn(m->arg, path, &item);
	}
	arena_reset(m->arena);
}

/* ---- what is connected to a node: log, exec, attach, portforward, proxy ---- */

static const struct connect_row {
	const char *name;
	const struct type *options; /* whose fields are the query; NULL: the subresource's own */
	const char *action;         /* log is an ordinary read of text */
	bool with_path;
} connects[] = {
	{ "attach", NULL, "connect" },
	{ "exec", NULL, "connect" },
	{ "log", &core_v1_pod_log_options_type, "get" },
	{ "portforward", NULL, "connect" },
	{ "proxy", NULL, "connect", true },
};
static const struct {
	const char *method, *id;
	uint32_t verb;
} connect_methods[] = {
	{ "get", "Get", VERB_GET },
	{ "post", "Post", VERB_CREATE },
	{ "put", "Put", VERB_UPDATE },
	{ "patch", "Patch", VERB_PATCH },
	{ "delete", "Delete", VERB_DELETE },
	{ "head", "Head", 0 },
	{ "options", "Options", 0 },
};

static const struct connect_row *connect_of(const struct subresource_row *sub)
{
	for (size_t i = 0; i < ARRAY_LEN(connects); i++)
		if (!strcmp(sub->name, connects[i].name))
			return &connects[i];
	return NULL;
}

static void put_options_params(struct make *m, struct value *op, const struct type *options)
{
	struct value *list = tree_list(m->arena, op, "parameters");
	for (size_t i = 0; i < options->n_fields; i++) {
		const struct field *f = &options->fields[i];
		if (f->flags & FIELD_NO_PROTO)
			continue;
		const char *type = f->kind == KIND_BOOL                  ? "boolean"
			: f->kind == KIND_INT32 || f->kind == KIND_INT64 ? "integer"
									 : "string";
		put_param(m, list, f->name, "query", type, f->doc ? f->doc : "", false);
	}
}

static void put_connect_op(struct make *m, struct value *item, const struct connect_row *row,
	size_t method, bool with_path)
{
	const struct resource_row *res = m->resource->row;
	struct value *op = tree_object(m->arena, item, connect_methods[method].method);
	bool read = !strcmp(row->action, "get");
	tree_str(m->arena, op, "operationId",
		arena_fmt(m->arena, "%s%s" STR_FMT "%s%s%c%s%s", read ? "read" : "connect",
			read ? "" : connect_methods[method].id, STR_ARG(camel_group(m)),
			res->namespaced ? "Namespaced" : "", res->kind,
			toupper((unsigned char)row->name[0]), row->name + 1,
			with_path ? "WithPath" : ""));
	tree_str(m->arena, op, "description",
		arena_fmt(m->arena, "%s of %s/%s", row->action, res->plural, row->name));
	put_options_params(m, op, row->options ? row->options : m->sub->type);
	if (m->version == OPENAPI_V2) {
		put_types(m, op, "consumes", any_type);
		put_types(m, op, "produces", any_type);
	}
	struct value *ok = tree_object(m->arena, tree_object(m->arena, op, "responses"), "200");
	tree_text(m->arena, ok, "description", "OK");
	struct value *at = m->version == OPENAPI_V2
		? ok
		: tree_object(m->arena, tree_object(m->arena, ok, "content"), "*/*");
	tree_text(m->arena, tree_object(m->arena, at, "schema"), "type", "string");
	tree_text(m->arena, op, "x-kubernetes-action", row->action);
	struct value *gvk = tree_object(m->arena, op, "x-kubernetes-group-version-kind");
	tree_text(m->arena, gvk, "group", m->sub->group);
	tree_text(m->arena, gvk, "kind", m->sub->kind);
	tree_text(m->arena, gvk, "version", m->sub->version);
}

static void make_connect(struct make *m, const struct connect_row *row, bool with_path)
{
	const struct resource *r = m->resource;
	struct value item = { .kind = VALUE_OBJECT };
	for (size_t i = 0; i < ARRAY_LEN(connect_methods); i++)
		if (connect_methods[i].verb ? (m->sub->verbs & connect_methods[i].verb) != 0
					    : row->with_path)
			put_connect_op(m, &item, row, i, with_path);
	put_path_params(m, &item, r->row->namespaced, true);
	if (with_path)
		put_param(m, value_get(&item, STR("parameters")), "path", "path", "string",
			"What is asked for there.", true);
	struct str path = arena_fmt(m->arena, "/api/" STR_FMT "%s/%s/{name}/%s%s",
		STR_ARG(r->api_version), r->row->namespaced ? "/namespaces/{namespace}" : "",
		r->row->plural, row->name, with_path ? "/{path}" : "");
	m->fn(m->arg, path, &item);
	arena_reset(m->arena);
}

void openapi_paths(const struct resource *r, enum openapi_version v, path_fn fn, void *arg)
{
	CLEAN_ARENA struct arena *a = arena_new(16384);
	struct make m = { .arena = a, .version = v, .resource = r, .fn = fn, .arg = arg };
	bool namespaced = r->row->namespaced;
	if (namespaced)
		make_path(&m, false, true, true);
	make_path(&m, namespaced, true, false);
	make_path(&m, namespaced, false, false);
	for (size_t i = 0; i < r->row->n_subs; i++) {
		m.sub = &r->row->subs[i];
		const struct connect_row *connect = connect_of(m.sub);
		if (!connect) {
			make_path(&m, namespaced, false, false);
			continue;
		}
		make_connect(&m, connect, false);
		if (connect->with_path)
			make_connect(&m, connect, true);
	}
}
