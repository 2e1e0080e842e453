/* Paths, queries, Accept and Content-Type, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "apiserver/internal.h"

static const struct info_row {
	const char *method, *path, *query;
	const char *verb, *group, *version, *ns, *resource, *name, *sub,
		*rest; /* resource NULL: no resource */
} info_rows[] = {
	{ "GET", "/api/v1/pods", "", "list", "", "v1", "", "pods", "", "", "" },
	{ "GET", "/api/v1/pods", "watch=1", "watch", "", "v1", "", "pods", "", "", "" },
	{ "GET", "/api/v1/pods", "watch=false", "list", "", "v1", "", "pods", "", "", "" },
	{ "GET", "/api/v1/watch/pods", "", "watch", "", "v1", "", "pods", "", "", "" },
	{ "GET", "/api/v1/watch/namespaces/a/pods/b", "", "watch", "", "v1", "a", "pods", "b", "",
		"" },
	{ "HEAD", "/api/v1/namespaces/a/pods/b", "", "get", "", "v1", "a", "pods", "b", "", "" },
	{ "GET", "/api/v1/namespaces/a/pods/b/log", "", "get", "", "v1", "a", "pods", "b", "log",
		"" },
	{ "POST", "/api/v1/namespaces/a/pods", "", "create", "", "v1", "a", "pods", "", "", "" },
	{ "PUT", "/apis/apps/v1/namespaces/a/deployments/b/status", "", "update", "apps", "v1", "a",
		"deployments", "b", "status", "" },
	{ "PATCH", "/apis/apps/v1/namespaces/a/deployments/b", "", "patch", "apps", "v1", "a",
		"deployments", "b", "", "" },
	{ "DELETE", "/apis/apps/v1/namespaces/a/deployments", "", "deletecollection", "apps", "v1",
		"a", "deployments", "", "", "" },
	{ "DELETE", "/apis/apps/v1/namespaces/a/deployments/b", "", "delete", "apps", "v1", "a",
		"deployments", "b", "", "" },
	{ "GET", "/api/v1/namespaces", "", "list", "", "v1", "", "namespaces", "", "", "" },
	{ "GET", "/api/v1/namespaces/a", "", "get", "", "v1", "a", "namespaces", "a", "", "" },
	{ "PUT", "/api/v1/namespaces/a/finalize", "", "update", "", "v1", "a", "namespaces", "a",
		"finalize", "" },
	{ "GET", "/api/v1/namespaces/a/services/b/proxy/x/y", "", "get", "", "v1", "a", "services",
		"b", "proxy", "/x/y" },
	{ "GET", "/api/v1/namespaces/a/services/b/proxy/", "", "get", "", "v1", "a", "services",
		"b", "proxy", "/" },
	{ "GET", "/api/v1/pods", "fieldSelector=metadata.name%3Dx", "list", "", "v1", "", "pods",
		"x", "", "" },
	{ "GET", "//api//v1//pods//", "", "list", "", "v1", "", "pods", "", "", "" },
	{ "GET", "/api/v1/namespaces/a/pods/b%2Fc", "", "get", "", "v1", "a", "pods", "b", "c",
		"" },
	{ "OPTIONS", "/api/v1/pods", "", "options", "", "v1", "", "pods", "", "", "" },
	{ "GET", "/api/v1", "", "get", NULL, NULL, NULL, NULL, NULL, NULL, NULL },
	{ "GET", "/apis/apps/v1", "", "get", NULL, NULL, NULL, NULL, NULL, NULL, NULL },
	{ "GET", "/", "", "get", NULL, NULL, NULL, NULL, NULL, NULL, NULL },
	{ "POST", "/version", "", "post", NULL, NULL, NULL, NULL, NULL, NULL, NULL },
};

static void same(const struct info_row *r, const char *what, struct str have, const char *want)
{
	if (!str_eqz(have, want ? want : ""))
		fail_msg("%s %s?%s: %s is " STR_FMT ", not %s", r->method, r->path, r->query, what,
			STR_ARG(have), want);
}

static void test_info(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(info_rows); i++) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		const struct info_row *r = &info_rows[i];
		struct request_options o = { 0 };
		struct request_info info;
		struct err err = { 0 };
		assert_int_equal(request_options_parse(str_of(r->query), a, &o, &err), 0);
		assert_int_equal(
			request_info_parse(str_of(r->method), str_of(r->path), &o, a, &info, &err),
			0);
		assert_int_equal(info.is_resource, r->resource != NULL);
		same(r, "verb", info.verb, r->verb);
		same(r, "group", info.group, r->group);
		same(r, "version", info.version, r->version);
		same(r, "namespace", info.ns, r->ns);
		same(r, "resource", info.resource, r->resource);
		same(r, "name", info.name, r->name);
		same(r, "subresource", info.subresource, r->sub);
		same(r, "rest", info.rest, r->rest);
	}
}

static void test_bad_options(void **state)
{
	static const char *const queries[] = { "timeout=invalid", "timeout=5", "limit=a",
		"timeoutSeconds=1s" };
	for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct request_options o = { 0 };
		struct err err = { 0 };
		assert_int_equal(request_options_parse(str_of(queries[i]), a, &o, &err), -EBADMSG);
		assert_true(err.text[0]);
		assert_int_equal(request_options_parse(
					 STR("timeout=0s&timeout=1m30s&timeout="), a, &o, &err),
			0);
	}
}

static void test_bad_paths(void **state)
{
	static const char *const paths[] = { "", "api", "/%", "/%z0", "/api/v1/%f" };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct request_options o = { 0 };
		struct request_info info;
		struct err err = { 0 };
		assert_int_equal(
			request_info_parse(STR("GET"), str_of(paths[i]), &o, a, &info, &err),
			-EBADMSG);
		assert_true(err.text[0]);
	}
}

static void test_accept(void **state)
{
	static const struct {
		const char *header;
		bool ok;
		enum out_format format;
		enum out_view view;
	} rows[] = {
		{ "", true, OUT_JSON, VIEW_OBJECT },
		{ "*/*", true, OUT_JSON, VIEW_OBJECT },
		{ "application/json", true, OUT_JSON, VIEW_OBJECT },
		{ "application/vnd.kubernetes.protobuf,application/json", true, OUT_PROTO,
			VIEW_OBJECT },
		{ "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
			true, OUT_JSON, VIEW_OBJECT },
		{ "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", true, OUT_JSON,
			VIEW_TABLE },
		{ "application/json;as=Table;v=v1beta1;g=meta.k8s.io", true, OUT_JSON, VIEW_TABLE },
		{ "application/json;as=Table;v=v2;g=meta.k8s.io,application/yaml", true, OUT_YAML,
			VIEW_OBJECT },
		{ "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
			true, OUT_PROTO, VIEW_PARTIAL },
		{ "APPLICATION/JSON", true, OUT_JSON, VIEW_OBJECT },
		{ "text/html", false },
		{ "application/json;q=0", false },
		{ ",,;;", false },
		{ "application/json; charset=utf-8", true, OUT_JSON, VIEW_OBJECT },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct accept ac = { 0 };
		if (accept_parse(str_of(rows[i].header), &ac) != rows[i].ok)
			fail_msg("%s", rows[i].header);
		if (rows[i].ok && (ac.format != rows[i].format || ac.view != rows[i].view))
			fail_msg("%s: format %d view %d", rows[i].header, (int)ac.format,
				(int)ac.view);
	}
}

static void test_content_type(void **state)
{
	static const struct {
		const char *header;
		enum body_format format;
	} rows[] = {
		{ "", BODY_JSON },
		{ "application/json", BODY_JSON },
		{ "application/json;charset=utf-8", BODY_JSON },
		{ "Application/YAML", BODY_YAML },
		{ "application/vnd.kubernetes.protobuf", BODY_PROTO },
		{ "application/apply-patch+yaml", BODY_APPLY_PATCH },
		{ "text/plain", BODY_UNKNOWN },
		{ "application/jsonx", BODY_UNKNOWN },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(content_type_parse(str_of(rows[i].header)), rows[i].format);
}

static void test_json_member(void **state)
{
	struct str json = STR(
		"{\"a\":{\"b\":\"x\\\"}\",\"c\":[1,{\"d\":2}]},\"e\":\"f\",\"g\":12,\"h\":null}");
	assert_true(str_eqz(json_member(json, STR("a")), "{\"b\":\"x\\\"}\",\"c\":[1,{\"d\":2}]}"));
	assert_true(str_eqz(json_member(json_member(json, STR("a")), STR("c")), "[1,{\"d\":2}]"));
	assert_true(str_eqz(json_member(json, STR("e")), "\"f\""));
	assert_true(str_eqz(json_member(json, STR("g")), "12"));
	assert_true(str_eqz(json_member(json, STR("h")), "null"));
	assert_null(json_member(json, STR("b")).p);
	assert_null(json_member(STR("[1]"), STR("b")).p);
	assert_null(json_member(STR(""), STR("b")).p);
	assert_null(json_member(STR("{\"a\":"), STR("b")).p);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_info),
		cmocka_unit_test(test_bad_options), cmocka_unit_test(test_bad_paths),
		cmocka_unit_test(test_accept), cmocka_unit_test(test_content_type),
		cmocka_unit_test(test_json_member) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
