/* The pipeline from end to end: every verb on stored objects, in the forms that clients ask for, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <zlib.h>

#include "apiserver/fixture.h"

static struct fixture f;

static int setup(void **state)
{
	fixture_start(&f);
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(&f);
	return 0;
}

#define CM "/api/v1/namespaces/default/configmaps"
#define PODS "/api/v1/namespaces/default/pods"
#define PARTIAL "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
#define PARTIAL_LIST "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
#define TABLE "application/json;as=Table;v=v1;g=meta.k8s.io"
#define PROTO "application/vnd.kubernetes.protobuf"

struct row {
	const char *method, *target, *type, *accept, *body;
	int code;
	const char *parts[4]; /* that the answer holds; with ! in front: does not */
};

static void check_rows(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct row *r = &rows[i];
		struct answer a =
			ask_as(&f, f.admin, r->method, r->target, r->type, r->accept, r->body);
		if (a.code != r->code)
			fail_msg("row %zu: %s %s: %d instead of %d: " STR_FMT, i, r->method,
				r->target, a.code, r->code, STR_ARG(a.body));
		for (size_t k = 0; k < ARRAY_LEN(r->parts) && r->parts[k]; k++) {
			bool not = r->parts[k][0] == '!';
			if (has(a.body, r->parts[k] + not ) == not )
				fail_msg("row %zu: %s %s: %s in " STR_FMT, i, r->method, r->target,
					r->parts[k], STR_ARG(a.body));
		}
	}
}

/* clang-format off */
static const struct row verb_rows[] = {
	{ "POST", CM, NULL, NULL, "{\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"1\"}},\"data\":{\"k\":\"v\"}}", 201, { "\"kind\":\"ConfigMap\"",
		"\"uid\":\"" } },
	{ "POST", CM, NULL, NULL, "{\"metadata\":{\"name\":\"a\"}}", 409, { "configmaps \\\"a\\\" already exists", "AlreadyExists" } },
	{ "GET", CM "/a", NULL, NULL, NULL, 200, { "\"data\":{\"k\":\"v\"}" } },
	{ "HEAD", CM "/a", NULL, NULL, NULL, 200, { "!data" } },
	{ "GET", CM "/a?pretty=true", NULL, NULL, NULL, 200, { "\n  \"kind\": \"ConfigMap\"" } },
	{ "GET", CM, NULL, NULL, NULL, 200, { "\"kind\":\"ConfigMapList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"", "\"items\":[{" } },
	{ "GET", CM "?labelSelector=x%3D1", NULL, NULL, NULL, 200, { "\"name\":\"a\"" } },
	{ "GET", CM "?labelSelector=x%3D2", NULL, NULL, NULL, 200, { "\"items\":[]" } },
	{ "GET", CM "?fieldSelector=metadata.name%3Da", NULL, NULL, NULL, 200, { "\"name\":\"a\"" } },
	{ "GET", CM "?fieldSelector=spec.foo%3Da", NULL, NULL, NULL, 400, { "BadRequest" } },
	{ "GET", CM "?labelSelector=x%3D%3D%3D", NULL, NULL, NULL, 400, { "BadRequest" } },
	{ "PUT", CM "/a", NULL, NULL, "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"w\"}}", 200, { "\"k\":\"w\"" } },
	{ "PUT", CM "/a", NULL, NULL, "{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"1\"}}", 409, { "the object has been modified" } },
	{ "PUT", CM "/a", NULL, NULL, "{\"metadata\":{\"name\":\"b\"}}", 400, { "BadRequest" } },
	{ "PATCH", CM "/a", "application/merge-patch+json", NULL, "{\"data\":{\"z\":\"1\"}}", 200, { "\"z\":\"1\"", "\"k\":\"w\"" } },
	{ "PATCH", CM "/a", "application/strategic-merge-patch+json", NULL, "{\"data\":{\"z\":null}}", 200, { "!\"z\"" } },
	{ "PATCH", CM "/a", "application/json-patch+json", NULL, "[{\"op\":\"add\",\"path\":\"/data/y\",\"value\":\"2\"}]", 200, { "\"y\":\"2\"" } },
	{ "PATCH", CM "/a", "application/json", NULL, "{}", 415, { "UnsupportedMediaType", "application/merge-patch+json" } },
	{ "PATCH", CM "/nope", "application/merge-patch+json", NULL, "{}", 404, { "configmaps \\\"nope\\\" not found" } },
	{ "POST", CM "?dryRun=All", NULL, NULL, "{\"metadata\":{\"name\":\"dry\"}}", 201, { "\"name\":\"dry\"" } },
	{ "GET", CM "/dry", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "POST", CM "?dryRun=Some", NULL, NULL, "{\"metadata\":{\"name\":\"dry\"}}", 400, { "supported values: \\\"All\\\"" } },
	{ "DELETE", CM "/a", NULL, NULL, NULL, 200, { "\"status\":\"Success\"" } },
	{ "GET", CM "/a", NULL, NULL, NULL, 404, { "\"reason\":\"NotFound\"", "\"code\":404" } },
	{ "POST", CM, NULL, NULL, "{\"metadata\":{\"generateName\":\"g-\"}}", 201, { "\"name\":\"g-" } },
	{ "DELETE", CM, NULL, NULL, "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\"}", 200, { "\"kind\":\"ConfigMapList\"", "\"name\":\"g-" } },
	{ "GET", CM, NULL, NULL, NULL, 200, { "\"items\":[]" } },
};
/* clang-format on */

static void test_verbs(void **state)
{
	check_rows(verb_rows, ARRAY_LEN(verb_rows));
}

/* clang-format off */
static const struct row form_rows[] = {
	{ "POST", CM, "application/yaml", NULL, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yy\ndata: {a: b}\n", 201, { "\"a\":\"b\"" } },
	{ "GET", CM "/yy", NULL, "application/yaml", NULL, 200, { "kind: ConfigMap\n", "a: b" } },
	{ "GET", CM "/yy", NULL, PARTIAL, NULL, 200, { "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\","
		"\"metadata\":{\"name\":\"yy\"", "!\"data\"" } },
	{ "GET", CM, NULL, PARTIAL_LIST, NULL, 200, { "\"kind\":\"PartialObjectMetadataList\"", "!\"data\"" } },
	{ "GET", CM "/yy", NULL, TABLE, NULL, 200, { "\"kind\":\"Table\"", "\"columnDefinitions\":[{\"name\":\"Name\"", "\"cells\":[\"yy\",",
		"PartialObjectMetadata" } },
	{ "GET", CM "?includeObject=Object", NULL, TABLE, NULL, 200, { "\"rows\":[{\"cells\":[\"yy\",", "\"object\":{\"kind\":\"ConfigMap\"" } },
	{ "GET", CM "?includeObject=None", NULL, TABLE, NULL, 200, { "\"rows\":[{\"cells\":[\"yy\",", "!\"object\"" } },
	{ "GET", CM "/yy", NULL, PROTO, NULL, 200, { "k8s" } },
	{ "GET", CM, NULL, PROTO, NULL, 200, { "k8s" } },
	{ "GET", CM "/yy", NULL, "text/html", NULL, 406, { "only the following media types are accepted" } },
	{ "GET", CM "/yy", NULL, "application/json;as=Nonsense;g=meta.k8s.io;v=v1", NULL, 406, { "NotAcceptable" } },
	{ "GET", CM "/yy", NULL, TABLE ",application/json", NULL, 200, { "\"kind\":\"Table\"" } },
	{ "GET", CM "/yy", NULL, "text/html,*/*;q=0.1", NULL, 200, { "\"kind\":\"ConfigMap\"" } },
	{ "POST", CM, "text/plain", NULL, "x", 415, { "the body of the request was in an unknown format" } },
	{ "POST", CM, NULL, NULL, "{\"metadata\":{\"name\":\"s\"},\"dta\":{}}", 201, { "\"name\":\"s\"" } },
	{ "POST", CM "?fieldValidation=Strict", NULL, NULL, "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"t\"},\"dta\":{}}", 400,
		{ "ConfigMap in version \\\"v1\\\" cannot be handled as a ConfigMap: strict decoding error: unknown field \\\"dta\\\"" } },
	{ "POST", CM "?fieldValidation=Sometimes", NULL, NULL, "{\"metadata\":{\"name\":\"t\"}}", 422, { "supported values" } },
	{ "DELETE", CM "/yy", NULL, NULL, NULL, 200, { "Success" } },
	{ "DELETE", CM "/s", NULL, NULL, NULL, 200, { "Success" } },
};
static const struct row bad_rows[] = {
	{ "POST", CM, NULL, NULL, "{", 400, { "BadRequest" } },
	{ "POST", CM, NULL, NULL, "[]", 400, { "BadRequest" } },
	{ "POST", CM, NULL, NULL, "\"\xff\xfe\"", 400, { "BadRequest" } },
	{ "POST", CM, NULL, NULL, "{\"data\":\"x\"}", 400, { "cannot unmarshal" } },
	{ "POST", CM, NULL, NULL, "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}", 400, { "Pod in version \\\"v1\\\" cannot be handled as a ConfigMap" } },
	{ "POST", CM, NULL, NULL, "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v2\"}", 400, { "does not match the expected API version (v1)" } },
	{ "POST", CM, NULL, NULL, "{\"metadata\":{\"name\":\"UPPER\"}}", 422, { "Invalid" } },
	{ "POST", CM, NULL, NULL, "{\"metadata\":{\"name\":\"x\",\"namespace\":\"other\"}}", 400, { "namespace" } },
	{ "POST", CM, PROTO, NULL, "k8s", 400, { "BadRequest" } },
	{ "POST", CM, "application/yaml", NULL, "a: [", 400, { "BadRequest" } },
	{ "POST", "/api/v1/configmaps", NULL, NULL, "{}", 405, { "MethodNotAllowed" } },
	{ "POST", CM "/x", NULL, NULL, "{\"metadata\":{\"name\":\"x\"}}", 405, { "MethodNotAllowed" } },
	{ "PUT", CM, NULL, NULL, "{\"metadata\":{\"name\":\"x\"}}", 405, { "MethodNotAllowed" } },
	{ "PATCH", CM, "application/merge-patch+json", NULL, "{}", 405, { "MethodNotAllowed" } },
	{ "GET", "/api/v1/nonsense", NULL, NULL, NULL, 404, { "the server could not find the requested resource" } },
	{ "GET", "/apis/no.such/v1/things", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/api/v1/namespaces/default/nodes", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/api/v1/configmaps/x", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", PODS "/x/nonsense", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/nonsense", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "POST", "/version", NULL, NULL, "{}", 405, { "MethodNotAllowed" } },
	{ "GET", CM "?limit=x", NULL, NULL, NULL, 400, { "invalid syntax" } },
	{ "GET", CM "?resourceVersion=x", NULL, NULL, NULL, 422, { "Invalid" } },
	{ "GET", CM "?continue=x", NULL, NULL, NULL, 400, { "continue" } },
	{ "GET", CM "/%zz", NULL, NULL, NULL, 400, { "BadRequest" } },
	{ "POST", "/api/v1/namespaces/none/configmaps", NULL, NULL, "{\"metadata\":{\"name\":\"x\"}}", 404, { "namespaces \\\"none\\\" not found" } },
	{ "DELETE", "/api/v1/namespaces/default", NULL, NULL, NULL, 403, { "this namespace may not be deleted" } },
	{ "POST", CM "/x/status", NULL, NULL, "{}", 404, { "NotFound" } },
	{ "GET", CM "/x?watch=true", NULL, NULL, NULL, 404, { "NotFound" } },
};
static const struct row path_rows[] = {
	{ "GET", "/", NULL, NULL, NULL, 200, { "\"/apis/apps/v1\"", "\"/openapi/v2\"" } },
	{ "GET", "/version", NULL, NULL, NULL, 200, { "\"gitVersion\": \"v1.36.3\"" } },
	{ "GET", "/livez", NULL, NULL, NULL, 200, { "ok" } },
	{ "GET", "/readyz?verbose", NULL, NULL, NULL, 200, { "[+]etcd ok", "readyz check passed" } },
	{ "GET", "/livez/ping", NULL, NULL, NULL, 200, { "ok" } },
	{ "GET", "/livez/nonsense", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/api", NULL, NULL, NULL, 200, { "\"versions\":[\"v1\"]" } },
	{ "GET", "/api/v1", NULL, NULL, NULL, 200, { "\"name\":\"pods/log\"", "\"storageVersionHash\":\"xPOwRZ+Yhw8=\"" } },
	{ "GET", "/api/v1/", NULL, NULL, NULL, 200, { "APIResourceList" } },
	{ "GET", "/api/v2", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/apis", NULL, NULL, NULL, 200, { "\"preferredVersion\":{\"groupVersion\":\"autoscaling/v2\"" } },
	{ "GET", "/apis/apps", NULL, NULL, NULL, 200, { "\"kind\":\"APIGroup\"" } },
	{ "GET", "/apis/apps/v1", NULL, NULL, NULL, 200, { "\"name\":\"deployments/scale\"", "\"group\":\"autoscaling\",\"version\":\"v1\","
		"\"kind\":\"Scale\"" } },
	{ "GET", "/apis/apps/v9", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/apis/none", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/apis", NULL, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", NULL, 200,
		{ "\"apiVersion\":\"apidiscovery.k8s.io/v2\"", "\"subresource\":\"scale\"" } },
	{ "GET", "/api", NULL, "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", NULL, 200,
		{ "\"apiVersion\":\"apidiscovery.k8s.io/v2beta1\"", "\"resource\":\"pods\"" } },
	{ "GET", "/openapi/v3", NULL, NULL, NULL, 200, { "\"apis/apps/v1\":{\"serverRelativeURL\":\"/openapi/v3/apis/apps/v1?hash=" } },
	{ "GET", "/openapi/v3/apis/apps/v1", NULL, NULL, NULL, 200, { "\"io.k8s.api.apps.v1.Deployment\":", "x-kubernetes-group-version-kind",
		"fieldValidation" } },
	{ "GET", "/openapi/v3/apis/none/v1", NULL, NULL, NULL, 404, { "NotFound" } },
	{ "GET", "/openapi/v2", NULL, NULL, NULL, 200, { "\"swagger\":\"2.0\"", "\"io.k8s.api.core.v1.Pod\":", "x-kubernetes-patch-merge-key" } },
	{ "GET", "/.well-known/openid-configuration", NULL, NULL, NULL, 200,
		{ "\"jwks_uri\":\"https://kubernetes.default.svc.cluster.local/openid/v1/jwks\"" } },
	{ "GET", "/openid/v1/jwks", NULL, NULL, NULL, 200, { "{\"keys\":[{", "ES256" } },
	{ "GET", "/metrics/slis", NULL, NULL, NULL, 200, { "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1" } },
	{ "GET", "/metrics", NULL, NULL, NULL, 200, { "apiserver_request_total{code=\"200\"", "apiserver_storage_objects{resource=\"namespaces\"} 4" } },
};
/* clang-format on */

static void test_forms(void **state)
{
	check_rows(form_rows, ARRAY_LEN(form_rows));
}

static void test_bad_input(void **state)
{
	check_rows(bad_rows, ARRAY_LEN(bad_rows));
}

static void test_paths(void **state)
{
	check_rows(path_rows, ARRAY_LEN(path_rows));
}

/* Depth and size: refused, and the server lives on. */
static void test_limits(void **state)
{
	struct buf deep = { 0 };
	buf_addz(&deep, "{\"metadata\":{\"name\":\"d\"},\"x\":");
	for (int i = 0; i < 10000; i++)
		buf_addc(&deep, '[');
	struct answer a = ask(&f, "POST", CM, deep.p);
	assert_int_equal(a.code, 400);
	buf_deinit(&deep);
	struct buf big = { 0 };
	buf_addz(&big, "{\"metadata\":{\"name\":\"d\"},\"data\":{\"k\":\"");
	buf_reserve(&big, 4 << 20);
	memset(big.p + big.len, 'x', 4 << 20);
	big.len += 4 << 20;
	buf_addz(&big, "\"}}");
	a = ask(&f, "POST", CM, big.p);
	assert_int_equal(a.code, 413);
	assert_true(has(a.body, "\"reason\":\"RequestEntityTooLarge\"") &&
		has(a.body, "limit is 3145728"));
	buf_deinit(&big);
	expect(&f, 200, "GET", "/livez", NULL);
}

static void make_config_maps(int n, size_t bytes)
{
	CLEAN_FREE char *text = xcalloc(1, bytes + 1);
	memset(text, 'x', bytes);
	for (int i = 0; i < n; i++) {
		CLEAN_FREE char *body = xasprintf(
			"{\"metadata\":{\"name\":\"m-%03d\"},\"data\":{\"k\":\"%s\"}}", i, text);
		expect(&f, 201, "POST", CM, body);
	}
}

static size_t count(struct str text, const char *what)
{
	size_t n = 0;
	ssize_t at;
	while ((at = str_find_str(text, str_of(what))) >= 0) {
		n++;
		text = str_from(text, (size_t)at + 1);
	}
	return n;
}

/* Pages are whole and of one revision; a long list comes in chunks and complete; protobuf holds as many. */
static void test_lists(void **state)
{
	make_config_maps(60, 8000);
	struct answer a = expect(&f, 200, "GET", CM, NULL);
	assert_int_equal(count(a.body, "\"name\":\"m-"), 60);
	struct value v;
	struct err err = { 0 };
	assert_int_equal(json_parse(a.body, f.arena, &v, &err), 0);
	a = expect(&f, 200, "GET", CM "?limit=25", NULL);
	assert_int_equal(count(a.body, "\"name\":\"m-"), 25);
	assert_true(has(a.body, "\"remainingItemCount\":35"));
	assert_int_equal(json_parse(a.body, f.arena, &v, &err), 0);
	struct str token = value_get(value_get(&v, STR("metadata")), STR("continue"))->text;
	expect(&f, 200, "DELETE", CM "/m-059", NULL);
	CLEAN_BUF struct buf target = { 0 };
	buf_addf(&target, CM "?limit=100&continue=" STR_FMT, STR_ARG(token));
	a = expect(&f, 200, "GET", target.p, NULL);
	assert_int_equal(count(a.body, "\"name\":\"m-"), 35);
	a = ask_as(&f, f.admin, "GET", CM, NULL, PROTO, NULL);
	struct proto_envelope e;
	assert_int_equal(proto_open(a.body, &e, &err), 0);
	void *list;
	assert_int_equal(
		proto_decode(&core_v1_config_map_list_type, e.raw, f.arena, &list, &err), 0);
	assert_int_equal(((struct core_v1_config_map_list *)list)->items.len, 59);
	expect(&f, 200, "DELETE", CM, NULL);
}

static void test_warnings(void **state)
{
	struct answer a = expect(&f, 201, "POST", CM, "{\"metadata\":{\"name\":\"w\"},\"dta\":1}");
	bool warned = false;
	for (size_t i = 0; i < a.reply.n_headers; i++)
		warned |= str_eqz(a.reply.headers[i].name, "warning") &&
			str_eqz(a.reply.headers[i].value, "299 - \"unknown field \\\"dta\\\"\"");
	assert_true(warned);
	expect(&f, 200, "DELETE", CM "/w", NULL);
}

static struct str header_of(const struct answer *a, const char *name)
{
	for (size_t i = 0; i < a->reply.n_headers; i++)
		if (str_eqz(a->reply.headers[i].name, name))
			return a->reply.headers[i].value;
	return STR_NONE;
}

static struct answer with_header(
	const char *target, const char *accept, const char *name, struct str value)
{
	struct err err = { 0 };
	struct answer a = { 0 };
	struct http_header h = { str_of(name), value };
	struct http_call call = { .method = STR("GET"),
		.target = str_of(target),
		.headers = &h,
		.n_headers = 1,
		.accept = str_of(accept) };
	assert_int_equal(http_client_call(f.admin, &call, f.arena, &a.reply, &err), 0);
	a.code = a.reply.status;
	a.body = a.reply.body;
	return a;
}

static struct str gunzip(struct str bytes)
{
	z_stream z = { .next_in = (unsigned char *)bytes.p, .avail_in = (unsigned)bytes.len };
	size_t cap = 64 << 20;
	char *out = arena_alloc(f.arena, cap);
	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	z.next_out = (unsigned char *)out;
	z.avail_out = (unsigned)cap;
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	inflateEnd(&z);
	return str_n(out, cap - z.avail_out);
}

/* What is large and asked for so is compressed, and is the same inside; what did not change is not sent again. */
static void test_encodings(void **state)
{
	make_config_maps(40, 8000);
	struct answer plain = expect(&f, 200, "GET", CM, NULL),
		      a = with_header(CM, "application/json", "accept-encoding", STR("gzip"));
	assert_true(str_eqz(header_of(&a, "content-encoding"), "gzip") &&
		a.body.len < plain.body.len / 4);
	assert_true(str_eq(gunzip(a.body), plain.body));
	a = with_header(CM "?limit=1", "application/json", "accept-encoding", STR("gzip"));
	assert_null(header_of(&a, "content-encoding").p);
	expect(&f, 200, "DELETE", CM, NULL);
	static const char *const documents[] = { "/openapi/v2", "/openapi/v3/api/v1" };
	for (size_t i = 0; i < ARRAY_LEN(documents); i++) {
		plain = expect(&f, 200, "GET", documents[i], NULL);
		a = with_header(documents[i], "application/json", "accept-encoding", STR("gzip"));
		assert_true(str_eq(gunzip(a.body), plain.body));
		struct value v;
		struct err err = { 0 };
		assert_int_equal(json_parse(plain.body, f.arena, &v, &err), 0);
		a = with_header(documents[i], "application/json", "if-none-match",
			header_of(&plain, "etag"));
		assert_int_equal(a.code, 304);
	}
	const char *aggregated =
		"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
	plain = ask_as(&f, f.admin, "GET", "/apis", NULL, aggregated, NULL);
	assert_true(str_eqz(header_of(&plain, "content-type"), aggregated));
	a = with_header("/apis", aggregated, "if-none-match", header_of(&plain, "etag"));
	assert_int_equal(a.code, 304);
}

/* A message of protobuf: the fields with this tag; the bytes of the n-th. */
static size_t proto_fields(struct str m, unsigned tag, size_t nth, struct str *ret)
{
	size_t n = 0, i = 0;
	while (i < m.len) {
		uint64_t key = 0, len = 0;
		for (unsigned shift = 0;; shift += 7) {
			key |= (uint64_t)(m.p[i] & 0x7f) << shift;
			if (!(m.p[i++] & 0x80))
				break;
		}
		for (unsigned shift = 0;; shift += 7) {
			len |= (uint64_t)(m.p[i] & 0x7f) << shift;
			if (!(m.p[i++] & 0x80))
				break;
		}
		if ((key & 7) == 0)
			continue; /* len was its value */
		assert_int_equal(key & 7, 2);
		assert_true(len <= m.len - i);
		if (key >> 3 == tag && n++ == nth && ret)
			*ret = str_n(m.p + i, len);
		i += len;
	}
	return n;
}

/* Older clients validate by the protobuf form: Document{1 swagger, 8 paths{2 path}, 9 definitions{1 NamedSchema{1 name, 2 schema}}}. */
static void test_openapi_protobuf(void **state)
{
	struct answer a = ask_as(&f, f.admin, "GET", "/openapi/v2", NULL,
		"application/com.github.proto-openapi.spec.v2@v1.0+protobuf", NULL);
	struct str part, name, schema;
	assert_int_equal(a.code, 200);
	assert_int_equal(proto_fields(a.body, 1, 0, &part), 1);
	assert_true(str_eqz(part, "2.0"));
	assert_int_equal(proto_fields(a.body, 8, 0, &part), 1);
	assert_true(proto_fields(part, 2, 0, NULL) > 200);
	assert_int_equal(proto_fields(a.body, 9, 0, &part), 1);
	size_t n = proto_fields(part, 1, 0, NULL), found = 0;
	assert_true(n > 500);
	for (size_t i = 0; i < n; i++) {
		struct str named;
		proto_fields(part, 1, i, &named);
		assert_int_equal(proto_fields(named, 1, 0, &name), 1);
		assert_int_equal(proto_fields(named, 2, 0, &schema), 1);
		found += str_eqz(name, "io.k8s.api.core.v1.ServiceSpec") &&
			proto_fields(schema, 25, 0, NULL) == 1;
	}
	assert_int_equal(found, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_encodings),
		cmocka_unit_test(test_openapi_protobuf),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
