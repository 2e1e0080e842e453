/* Tables: what the schema names exists, and cells say what upstream's say. */
#include "registry/columns.h"
#include "registry/registry_test.h"

static const char *cells(struct env *e, const char *path)
{
	CLEAN_BUF struct buf b = { 0 };
	assert_non_null(e->res.object);
	registry_table_cells(e->req.resource, e->res.object, test_time, e->a, &b);
	/* < and > go out escaped, as encoding/json writes them */
	size_t n = 0;
	for (size_t i = 0; i < b.len; i++, n++) {
		bool escaped = !strncmp(b.p + i, "\\u003", 5);
		b.p[n] = escaped ? (b.p[i + 5] == 'c' ? '<' : '>') : b.p[i];
		i += escaped ? 5 : 0;
	}
	b.p[n] = '\0';
	return arena_strz(e->a, b.p).p;
}

static void every_function_is_there(void **state)
{
	for (size_t i = 0; i < n_resource_rows; i++)
		for (size_t k = 0; k < resource_rows[i].n_columns; k++) {
			struct str s = str_of(resource_rows[i].columns[k].source);
			if (!str_has_prefix(s, STR("fn(")))
				continue;
			char *name = xstrndup(s.p + 3, s.len - 4);
			if (!registry_column_known(name))
				fail_msg("column function %s of %s is not there", name,
					resource_rows[i].plural);
			free(name);
		}
}

static void columns_are_json(void **state)
{
	struct env *e = *state;
	size_t n;
	const struct resource *const *all = registry_resources(e->r, &n);
	for (size_t i = 0; i < n; i++) {
		CLEAN_BUF struct buf b = { 0 };
		struct value v;
		struct err err;
		registry_table_columns(all[i], &b);
		if (json_parse(buf_str(&b), e->a, &v, &err) || v.kind != VALUE_LIST || !v.list.len)
			fail_msg("%s: %s", all[i]->row->plural, b.p);
	}
}

static void pods(void **state)
{
	static const struct {
		const char *status, *cells;
	} rows[] = {
		{ "{\"phase\":\"Pending\"}",
			"[\"p\",\"0/1\",\"Pending\",\"0\",\"90s\",\"<none>\",\"n1\",\"<none>\",\"<none>\"]" },
		{ "{\"phase\":\"Running\",\"podIP\":\"10.0.0.1\",\"containerStatuses\":[{\"name\":\"c\",\"ready\":true,\"restartCount\":3,"
		  "\"state\":{\"running\":{}},"
		  "\"lastState\":{\"terminated\":{\"exitCode\":1,\"finishedAt\":\"2023-11-14T22:08:20Z\"}}}]}",
			"[\"p\",\"1/1\",\"Running\",\"3 (6m30s ago)\",\"90s\",\"10.0.0.1\",\"n1\",\"<none>\",\"<none>\"]" },
		{ "{\"phase\":\"Running\",\"podIP\":\"10.0.0.1\",\"containerStatuses\":[{\"name\":\"c\",\"ready\":false,\"restartCount\":1,"
		  "\"state\":{\"waiting\":{\"reason\":"
		  "\"CrashLoopBackOff\"}}}]}",
			"[\"p\",\"0/1\",\"CrashLoopBackOff\",\"1\",\"90s\",\"10.0.0.1\",\"n1\",\"<none>\",\"<none>\"]" },
		{ "{\"phase\":\"Failed\",\"containerStatuses\":[{\"name\":\"c\",\"state\":{\"terminated\":{\"exitCode\":137,\"signal\":9}}}]}",
			"[\"p\",\"0/1\",\"Signal:9\",\"0\",\"90s\",\"<none>\",\"n1\",\"<none>\",\"<none>\"]" },
		{ "{\"phase\":\"Pending\",\"initContainerStatuses\":[{\"name\":\"i\",\"state\":{\"terminated\":{\"exitCode\":2,"
		  "\"reason\":\"Error\"}}}]}",
			"[\"p\",\"0/1\",\"Init:Error\",\"0\",\"90s\",\"<none>\",\"n1\",\"<none>\",\"<none>\"]" },
		{ "{\"phase\":\"Failed\",\"reason\":\"Evicted\"}",
			"[\"p\",\"0/1\",\"Evicted\",\"0\",\"90s\",\"<none>\",\"n1\",\"<none>\",\"<none>\"]" },
	};
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "p", "\"nodeName\":\"n1\","));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_time.sec = 1700000090;
		req_new(e, PATCH, "pods/p/status", "default",
			arena_fmt(e->a, "[{\"op\":\"replace\",\"path\":\"/status\",\"value\":%s}]",
				rows[i].status)
				.p)
			->patch_type = PATCH_TYPE_JSON;
		req_run(e);
		if (e->res.code == 200)
			assert_string_equal(cells(e, "pods"), rows[i].cells);
		else
			fail_msg("%s", body(e));
	}
	OK(e, PATCH, "pods/p/status", "default",
		"{\"status\":{\"phase\":\"Running\",\"reason\":null}}");
	req_new(e, DELETE, "pods/p", "default", NULL);
	req_run(e);
	assert_non_null(strstr(cells(e, "pods"), "\"Terminating\""));
}

static void others(void **state)
{
	static const struct {
		const char *path, *ns, *body, *cells;
	} rows[] = {
		{ "services", "default",
			"\"spec\":{\"clusterIP\":\"10.43.0.5\",\"type\":\"NodePort\",\"selector\":{\"a\":\"b\"},\"ports\":[{\"port\":80,"
			"\"nodePort\":30080}]}",
			"[\"x\",\"NodePort\",\"10.43.0.5\",\"<none>\",\"80:30080/TCP\",\"0s\",\"a=b\"]" },
		{ "services", "default",
			"\"spec\":{\"type\":\"ExternalName\",\"externalName\":\"e.x\"}",
			"[\"x\",\"ExternalName\",\"<none>\",\"e.x\",\"<none>\",\"0s\",\"<none>\"]" },
		{ "nodes", "",
			"\"spec\":{\"unschedulable\":true},\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}],"
			"\"nodeInfo\":{\"kubeletVersion\":\"v1\"}}",
			"[\"x\",\"Ready,SchedulingDisabled\",\"<none>\",\"0s\",\"v1\",\"<none>\",\"<none>\",\"<unknown>\",\"<unknown>\","
			"\"<unknown>\"]" },
		{ "configmaps", "default", "\"data\":{\"a\":\"b\"},\"binaryData\":{\"c\":\"\"}",
			"[\"x\",2,\"0s\"]" },
		{ "events", "default",
			"\"involvedObject\":{\"kind\":\"Pod\",\"namespace\":\"default\",\"name\":\"p\"},\"reason\":\"R\",\"type\":\"Normal\","
			"\"message\":\"m\\n\","
			"\"source\":{\"component\":\"k\",\"host\":\"h\"},\"lastTimestamp\":\"2023-11-14T22:13:10Z\",\"count\":4",
			"[\"10s\",\"Normal\",\"R\",\"pod/p\",\"\",\"k, h\",\"m\",\"<unknown>\",4,\"x\"]" },
		{ "endpoints", "default",
			"\"subsets\":[{\"addresses\":[{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}],\"ports\":[{\"name\":\"a\",\"port\":1},"
			"{\"name\":\"b\",\"port\":2}]}]",
			"[\"x\",\"10.0.0.1:1,10.0.0.2:1,10.0.0.1:2 + 1 more...\",\"0s\"]" },
		{ "apps/v1:deployments", "default",
			"\"spec\":{\"replicas\":2,\"selector\":{\"matchLabels\":{\"a\":\"b\"}},"
			"\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":"
			"\"i\"},{\"name\":\"d\",\"image\":\"j\"}]}}}",
			"[\"x\",\"0/2\",0,0,\"0s\",\"c,d\",\"i,j\",\"a=b\"]" },
		{ "rbac.authorization.k8s.io/v1:roles", "default", "\"rules\":[]",
			"[\"x\",\"2023-11-14T22:13:20Z\"]" },
		{ "rbac.authorization.k8s.io/v1:rolebindings", "default",
			"\"roleRef\":{\"kind\":\"Role\",\"name\":\"r\"},\"subjects\":[{\"kind\":\"User\",\"name\":\"u\"},"
			"{\"kind\":\"ServiceAccount\",\"name\":\"s\",\"namespace\":\"n\"}]",
			"[\"x\",\"Role/r\",\"0s\",\"u\",\"\",\"n/s\"]" },
		{ "storage.k8s.io/v1:storageclasses", "", "\"provisioner\":\"p\"",
			"[\"x\",\"p\",\"Delete\",\"Immediate\",false,\"0s\"]" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		OK(e, CREATE, rows[i].path, rows[i].ns,
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"x\"},%s}", rows[i].body).p);
		assert_string_equal(cells(e, rows[i].path), rows[i].cells);
		OK(e, DELETE, arena_fmt(e->a, "%s/x", rows[i].path).p, rows[i].ns, NULL);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = { T(every_function_is_there), T(columns_are_json),
		T(pods), T(others) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
