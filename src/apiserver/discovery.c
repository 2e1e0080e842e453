/* What is served: legacy lists (APIVersions, APIGroupList, APIResourceList) and the aggregated form (apidiscovery.k8s.io v2, v2beta1),
 * all from the table of resources. Upstream: apiserver/pkg/endpoints/discovery. */
#include "apiserver/internal.h"

static const struct {
	uint32_t bit;
	const char *name;
} verb_order[] = {
	{ VERB_CREATE, "create" },
	{ VERB_DELETE, "delete" },
	{ VERB_DELETECOLLECTION, "deletecollection" },
	{ VERB_GET, "get" },
	{ VERB_LIST, "list" },
	{ VERB_PATCH, "patch" },
	{ VERB_UPDATE, "update" },
	{ VERB_WATCH, "watch" },
};

static void put_verbs(uint32_t verbs, struct buf *out)
{
	const char *sep = "";
	buf_addz(out, "\"verbs\":[");
	for (size_t i = 0; i < ARRAY_LEN(verb_order); i++) {
		if (!(verbs & verb_order[i].bit))
			continue;
		buf_addf(out, "%s\"%s\"", sep, verb_order[i].name);
		sep = ",";
	}
	buf_addc(out, ']');
}

static void put_names(const char *key, const char *const *names, struct buf *out)
{
	if (!names || !names[0])
		return;
	buf_addf(out, ",\"%s\":[", key);
	for (size_t i = 0; names[i]; i++)
		buf_addf(out, "%s\"%s\"", i ? "," : "", names[i]);
	buf_addc(out, ']');
}

static void put_storage_hash(const struct resource *r, struct buf *out)
{
	uint8_t sum[32];
	if (!(r->row->verbs & VERB_LIST))
		return;
	CLEAN_BUF struct buf text = { 0 };
	buf_addf(&text, STR_FMT "/" STR_FMT "/" STR_FMT, STR_ARG(r->storage->group),
		STR_ARG(r->storage->version), STR_ARG(r->storage->kind_name));
	sha256(text.p, text.len, sum);
	buf_addz(out, ",\"storageVersionHash\":\"");
	base64_encode(out, sum, 8);
	buf_addc(out, '"');
}

static bool foreign(const struct resource *r, const struct subresource_row *sub)
{
	return !str_eqz(r->group, sub->group) || !str_eqz(r->version, sub->version);
}

/* ---- legacy ---- */

static void put_resource(const struct resource *r, struct buf *out)
{
	const struct resource_row *row = r->row;
	buf_addf(out, "{\"name\":\"%s\",\"singularName\":\"%s\",\"namespaced\":%s,\"kind\":\"%s\",",
		row->plural, row->singular, row->namespaced ? "true" : "false", row->kind);
	put_verbs(row->verbs, out);
	put_names("shortNames", row->short_names, out);
	put_names("categories", row->categories, out);
	put_storage_hash(r, out);
	buf_addc(out, '}');
	for (size_t i = 0; i < row->n_subs; i++) {
		const struct subresource_row *sub = &row->subs[i];
		buf_addf(out, ",{\"name\":\"%s/%s\",\"singularName\":\"\",\"namespaced\":%s,",
			row->plural, sub->name, row->namespaced ? "true" : "false");
		if (foreign(r, sub))
			buf_addf(out, "\"group\":\"%s\",\"version\":\"%s\",", sub->group,
				sub->version);
		buf_addf(out, "\"kind\":\"%s\",", sub->kind);
		put_verbs(sub->verbs, out);
		buf_addc(out, '}');
	}
}

static bool put_resource_list(
	struct apiserver *s, struct str group, struct str version, struct buf *out)
{
	size_t n;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	bool any = false;
	for (size_t i = 0; i < n; i++) {
		if (!str_eq(rs[i]->group, group) || !str_eq(rs[i]->version, version))
			continue;
		if (!any)
			buf_addf(out,
				"{\"kind\":\"APIResourceList\",\"apiVersion\":\"v1\",\"groupVersion\":\"" STR_FMT
				"\",\"resources\":[",
				STR_ARG(rs[i]->api_version));
		else
			buf_addc(out, ',');
		any = true;
		put_resource(rs[i], out);
	}
	buf_addz(out, "]}\n");
	return any;
}

/* Upstream's order of versions: v2 before v1, v1 before v1beta1 before v1alpha1. Groups stand in the order of their first row. */
static int stability(struct str version)
{
	if (str_find_str(version, STR("alpha")) >= 0)
		return 0;
	return str_find_str(version, STR("beta")) >= 0 ? 1 : 2;
}

static int version_cmp(const void *a, const void *b)
{
	const struct str *x = a, *y = b;
	int d = stability(*y) - stability(*x);
	return d ? d : str_cmp(*y, *x);
}

static size_t group_versions(struct apiserver *s, struct str group, struct str versions[16])
{
	size_t n, k = 0;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	for (size_t i = 0; i < n; i++) {
		bool known = !str_eq(rs[i]->group, group);
		for (size_t j = 0; j < k && !known; j++)
			known = str_eq(versions[j], rs[i]->version);
		if (!known && k < 16)
			versions[k++] = rs[i]->version;
	}
	qsort(versions, k, sizeof(*versions), version_cmp);
	return k;
}

static void put_group(struct apiserver *s, struct str group, bool typed, struct buf *out)
{
	struct str versions[16];
	size_t n = group_versions(s, group, versions);
	buf_addz(out, typed ? "{\"kind\":\"APIGroup\",\"apiVersion\":\"v1\"," : "{");
	buf_addf(out, "\"name\":\"" STR_FMT "\",\"versions\":[", STR_ARG(group));
	for (size_t i = 0; i < n; i++)
		buf_addf(out,
			"%s{\"groupVersion\":\"" STR_FMT "/" STR_FMT "\",\"version\":\"" STR_FMT
			"\"}",
			i ? "," : "", STR_ARG(group), STR_ARG(versions[i]), STR_ARG(versions[i]));
	buf_addf(out,
		"],\"preferredVersion\":{\"groupVersion\":\"" STR_FMT "/" STR_FMT
		"\",\"version\":\"" STR_FMT "\"}}",
		STR_ARG(group), STR_ARG(versions[0]), STR_ARG(versions[0]));
}

/* The groups other than core, each once, in order; false: fn wants no more. */
static size_t groups_of(struct apiserver *s, struct str groups[64])
{
	size_t n, k = 0;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	for (size_t i = 0; i < n; i++) {
		bool known = !rs[i]->group.len;
		for (size_t j = 0; j < k && !known; j++)
			known = str_eq(groups[j], rs[i]->group);
		if (!known && k < 64)
			groups[k++] = rs[i]->group;
	}
	return k;
}

static void put_group_list(struct apiserver *s, struct buf *out)
{
	struct str groups[64];
	size_t n = groups_of(s, groups);
	buf_addz(out, "{\"kind\":\"APIGroupList\",\"apiVersion\":\"v1\",\"groups\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_addc(out, ',');
		put_group(s, groups[i], false, out);
	}
	buf_addz(out, "]}\n");
}

static void put_versions(struct request *q, struct buf *out)
{
	struct str host = http_request_header(q->http, "host");
	buf_addz(out,
		"{\"kind\":\"APIVersions\",\"versions\":[\"v1\"],\"serverAddressByClientCIDRs\":[{\"clientCIDR\":\"0.0.0.0/0\",\"serverAddress\":");
	json_write_text(host, out);
	buf_addz(out, "}]}\n");
}

/* ---- aggregated ---- */

static void put_kind(struct str group, struct str version, const char *kind, struct buf *out)
{
	buf_addf(out,
		"\"responseKind\":{\"group\":\"" STR_FMT "\",\"version\":\"" STR_FMT
		"\",\"kind\":\"%s\"},",
		STR_ARG(group), STR_ARG(version), kind);
}

static void put_aggregated_resource(const struct resource *r, struct buf *out)
{
	const struct resource_row *row = r->row;
	buf_addf(out, "{\"resource\":\"%s\",", row->plural);
	put_kind(r->group, r->version, row->kind, out);
	buf_addf(out, "\"scope\":\"%s\",\"singularResource\":\"%s\",",
		row->namespaced ? "Namespaced" : "Cluster", row->singular);
	put_verbs(row->verbs, out);
	put_names("shortNames", row->short_names, out);
	put_names("categories", row->categories, out);
	for (size_t i = 0; i < row->n_subs; i++) {
		const struct subresource_row *sub = &row->subs[i];
		buf_addf(out, "%s{\"subresource\":\"%s\",", i ? "," : ",\"subresources\":[",
			sub->name);
		put_kind(str_of(sub->group), str_of(sub->version), sub->kind, out);
		put_verbs(sub->verbs, out);
		buf_addc(out, '}');
	}
	buf_addz(out, row->n_subs ? "]}" : "}");
}

static void put_aggregated_version(
	struct apiserver *s, struct str group, struct str version, struct buf *out)
{
	size_t n;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	const char *sep = "";
	buf_addf(out, "{\"version\":\"" STR_FMT "\",\"resources\":[", STR_ARG(version));
	for (size_t i = 0; i < n; i++) {
		if (!str_eq(rs[i]->group, group) || !str_eq(rs[i]->version, version))
			continue;
		buf_addz(out, sep);
		put_aggregated_resource(rs[i], out);
		sep = ",";
	}
	buf_addz(out, "],\"freshness\":\"Current\"}");
}

static void put_aggregated(struct apiserver *s, bool core, const char *version, struct buf *out)
{
	struct str groups[64] = { STR("") };
	size_t n = core ? 1 : groups_of(s, groups);
	buf_addf(out,
		"{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/%s\",\"metadata\":{},\"items\":[",
		version);
	for (size_t i = 0; i < n; i++) {
		struct str versions[16];
		size_t k = group_versions(s, groups[i], versions);
		buf_addf(out,
			"%s{\"metadata\":{%s" STR_FMT
			"%s\"creationTimestamp\":null},\"versions\":[",
			i ? "," : "", core ? "" : "\"name\":\"", STR_ARG(groups[i]),
			core ? "" : "\",");
		for (size_t v = 0; v < k; v++) {
			if (v)
				buf_addc(out, ',');
			put_aggregated_version(s, groups[i], versions[v], out);
		}
		buf_addz(out, "]}");
	}
	buf_addz(out, "]}\n");
}

/* The version of the aggregated form that Accept asks for first; NULL: the legacy form. */
static const char *aggregated_version(struct str accept)
{
	struct str clause;
	while (accept.len) {
		if (!str_cut(accept, ',', &clause, &accept))
			accept = STR_NONE;
		clause = str_trim(clause);
		if (str_find_str(clause, STR("as=APIGroupDiscoveryList")) < 0) {
			if (str_has_prefix(clause, STR("application/json")) ||
				str_has_prefix(clause, STR("*/*")))
				return NULL;
			continue;
		}
		if (!str_has_prefix(clause, STR("application/json")))
			continue;
		if (str_find_str(clause, STR("v=v2beta1")) >= 0)
			return "v2beta1";
		if (str_find_str(clause, STR("v=v2")) >= 0)
			return "v2";
	}
	return NULL;
}

static bool respond_aggregated(struct request *q, bool core, const char *version)
{
	struct buf out = { 0 };
	put_aggregated(q->server, core, version, &out);
	uint8_t sum[32];
	sha256(out.p, out.len, sum);
	CLEAN_BUF struct buf etag = { 0 };
	buf_addc(&etag, '"');
	hex_encode(&etag, sum, sizeof(sum));
	buf_addc(&etag, '"');
	const char *type = arena_fmt(q->arena,
		"application/json;g=apidiscovery.k8s.io;v=%s;as=APIGroupDiscoveryList", version)
				   .p;
	struct http_header *h;
	size_t n = response_headers(q, type, &h), len = out.len;
	h[n++] = (struct http_header){ STR("etag"), arena_str(q->arena, buf_str(&etag)) };
	h[n++] = (struct http_header){ STR("vary"), STR("Accept") };
	char *bytes = buf_take(&out);
	bool same = str_eq(http_request_header(q->http, "if-none-match"), buf_str(&etag));
	http_respond(q->stream, same ? 304 : 200, h, n, str_n(bytes, same ? 0 : len), free, bytes);
	request_finish(q, same ? 304 : 200);
	return true;
}

/* ---- paths ---- */

bool serve_discovery(struct request *q)
{
	struct str rest = str_from(q->info.path, 1), head, group, version;
	while (rest.len && rest.p[rest.len - 1] == '/')
		rest.len--;
	if (!str_cut(rest, '/', &head, &rest))
		rest = STR_NONE;
	bool core = str_eqz(head, "api");
	const char *aggregated =
		rest.len ? NULL : aggregated_version(http_request_header(q->http, "accept"));
	if (aggregated)
		return respond_aggregated(q, core, aggregated);
	if (!str_cut(rest, '/', &group, &version))
		version = STR_NONE;
	struct buf out = { 0 };
	bool found = true;
	if (core && !rest.len)
		put_versions(q, &out);
	else if (core)
		found = put_resource_list(q->server, STR(""), rest, &out);
	else if (!rest.len)
		put_group_list(q->server, &out);
	else if (version.len)
		found = put_resource_list(q->server, group, version, &out);
	else if ((found = ({
			 struct str v[16];
			 group_versions(q->server, group, v) > 0;
		 })))
		put_group(q->server, group, true, &out);
	if (!found) {
		buf_deinit(&out);
		return false;
	}
	respond_buf(q, 200, "application/json", &out);
	return true;
}
