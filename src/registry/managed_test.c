/* Server-side apply through the registry: creating, taking over, conflicts, giving up, tracking of other writers. */
#include "registry/registry_test.h"

static int apply(struct env *e, const char *path, const char *manager, bool force, const char *text)
{
	req_new(e, PATCH, path, "default", text);
	e->req.patch_type = PATCH_TYPE_APPLY;
	e->req.field_manager = str_of(manager);
	e->req.force = force;
	return req_run(e);
}

#define MAP(data) \
	"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"data\":" data \
	"}"

static void create_and_give_up(void **state)
{
	struct env *e = *state;
	assert_int_equal(
		apply(e, "configmaps/a", "one", false, MAP("{\"x\":\"1\",\"y\":\"2\"}")), 201);
	assert_at(e, "metadata.managedFields.0.manager", "one");
	assert_at(e, "metadata.managedFields.0.operation", "Apply");
	assert_at(e, "metadata.managedFields.0.apiVersion", "v1");
	assert_at(e, "metadata.managedFields.0.fieldsType", "FieldsV1");
	assert_at(e, "metadata.managedFields.0.fieldsV1", "{\"f:data\":{\"f:x\":{},\"f:y\":{}}}");
	const char *revision = at(e, "metadata.resourceVersion");
	test_time.sec += 60;
	assert_int_equal(
		apply(e, "configmaps/a", "one", false, MAP("{\"x\":\"1\",\"y\":\"2\"}")), 200);
	assert_at(e, "metadata.resourceVersion", revision); /* the same again is no write */
	assert_int_equal(apply(e, "configmaps/a", "one", false, MAP("{\"x\":\"1\"}")), 200);
	assert_at(e, "data.y", "-");
	assert_at(e, "metadata.managedFields.0.time", "2023-11-14T22:14:20Z");
}

static void conflicts(void **state)
{
	struct env *e = *state;
	assert_int_equal(apply(e, "configmaps/a", "one", false, MAP("{\"x\":\"1\"}")), 201);
	assert_int_equal(apply(e, "configmaps/a", "two", false, MAP("{\"x\":\"1\",\"z\":\"3\"}")),
		200); /* agreeing is no conflict */
	assert_int_equal(
		apply(e, "configmaps/a", "two", false, MAP("{\"x\":\"9\",\"z\":\"3\"}")), 409);
	assert_refused(
		e, 409, "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.x");
	assert_at(e, "reason", "Conflict");
	assert_at(e, "details.causes.0.reason", "FieldManagerConflict");
	assert_at(e, "details.causes.0.field", ".data.x");
	assert_at(e, "details.causes.0.message", "conflict with \"one\" using v1");
	assert_int_equal(
		apply(e, "configmaps/a", "two", true, MAP("{\"x\":\"9\",\"z\":\"3\"}")), 200);
	assert_at(e, "data.x", "9");
	assert_int_equal(apply(e, "configmaps/a", "one", false, MAP("{}")), 200);
	assert_at(e, "data.x", "9"); /* it was two's already */
}

static void other_writers(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default",
		"{\"metadata\":{\"name\":\"a\"},\"data\":{\"old\":\"1\"}}");
	assert_at(e, "metadata.managedFields", "-"); /* not tracked before the first apply */
	assert_int_equal(apply(e, "configmaps/a", "one", false, MAP("{\"old\":\"2\"}")), 409);
	assert_refused(e, 409, "conflict with \"before-first-apply\" using v1: .data.old");
	assert_int_equal(apply(e, "configmaps/a", "one", false, MAP("{\"x\":\"1\"}")), 200);
	req_new(e, PATCH, "configmaps/a", "default", "{\"data\":{\"x\":\"5\"}}")->field_manager =
		STR("editor");
	req_run(e);
	assert_int_equal(apply(e, "configmaps/a", "one", false, MAP("{\"x\":\"1\"}")), 409);
	assert_refused(e, 409, "conflict with \"editor\" using v1: .data.x");
	/* a client may look after the entries itself; one empty entry ends it */
	OK(e, PATCH, "configmaps/a", "default", "{\"metadata\":{\"managedFields\":[{}]}}");
	assert_at(e, "metadata.managedFields", "-");
}

static void kubectl_takes_over_its_own(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default",
		"{\"metadata\":{\"name\":\"a\","
		"\"annotations\":{\"kubectl.kubernetes.io/last-applied-configuration\":\"{\\\"apiVersion\\\":\\\"v1\\\","
		"\\\"kind\\\":\\\"ConfigMap\\\",\\\"metadata\\\":{\\\"name\\\":\\\"a\\\"},\\\"data\\\":{\\\"x\\\":\\\"1\\\"}}\"}},"
		"\"data\":{\"x\":\"1\",\"y\":\"1\"}}");
	assert_int_equal(apply(e, "configmaps/a", "someone", false, MAP("{\"x\":\"2\"}")), 409);
	assert_int_equal(apply(e, "configmaps/a", "kubectl", false, MAP("{\"y\":\"2\"}")), 409);
	assert_int_equal(apply(e, "configmaps/a", "kubectl", false, MAP("{\"x\":\"2\"}")), 200);
	assert_at(e, "data.x", "2");
	/* kubectl finds the owner of its record and takes over what that owns: it must be no more than what was applied */
	assert_at(e, "metadata.managedFields.0.manager", "kubectl-client-side-apply");
	assert_at(e, "metadata.managedFields.0.fieldsV1",
		"{\"f:data\":{},\"f:metadata\":{\"f:annotations\":{\".\":{},\"f:kubectl.kubernetes.io/last-applied-configuration\":{}}}}");
	assert_at(e, "metadata.managedFields.1.manager", "before-first-apply");
	assert_at(e, "metadata.managedFields.1.fieldsV1", "{\"f:data\":{\"f:y\":{}}}");
	assert_at(e, "metadata.annotations.kubectl~kubernetes~io/last-applied-configuration",
		MAP("{\"x\":\"2\"}") "\n");
}

static void refusals(void **state)
{
	static const struct {
		const char *manager, *text, *message;
		int code;
	} rows[] = {
		{ "", MAP("{}"),
			"PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
			422 },
		{ "m", "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"a\"}}",
			"the applied object is Secret of v1", 400 },
		{ "m", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"bogus\":1}",
			"failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .bogus: field not declared in schema",
			500 },
		{ "m", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\",\"managedFields\":[{}]}}",
			"metadata.managedFields must be nil", 400 },
		{ "m", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"b\"}}",
			"the name of the object (b) does not match the name on the URL (a)", 400 },
		{ "m", "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\",\"uid\":\"u\"}}",
			"uid mismatch: the provided object specified uid u, and no existing object was found",
			409 },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		apply(e, "configmaps/a", rows[i].manager, false, rows[i].text);
		assert_refused(e, rows[i].code, rows[i].message);
	}
}

static void status_has_its_own_owner(void **state)
{
	struct env *e = *state;
	assert_int_equal(
		apply(e, "apps/v1:deployments/d", "one", false,
			"{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"d\"},\"spec\":{\"replicas\":2,"
			"\"selector\":{\"matchLabels\":{\"a\":\"b\"}},"
			"\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{\"containers\":[{\"name\":\"c\","
			"\"image\":\"i\"}]}}},\"status\":{\"replicas\":7}}"),
		201);
	assert_at(e, "status.replicas", "-");
	assert_null(strstr(body(e), "f:status"));
	assert_at(e, "metadata.generation", "1");
	req_new(e, PATCH, "apps/v1:deployments/d/status", "default",
		"{\"status\":{\"replicas\":2}}")
		->field_manager = STR("controller");
	assert_int_equal(req_run(e), 200);
	assert_at(e, "metadata.managedFields.1.manager", "controller");
	assert_at(e, "metadata.managedFields.1.subresource", "status");
	assert_at(e, "metadata.managedFields.1.fieldsV1", "{\"f:status\":{\"f:replicas\":{}}}");
	assert_at(e, "metadata.generation", "1");
	/* scaling takes replicas from who applied it */
	req_new(e, PATCH, "apps/v1:deployments/d/scale", "default", "{\"spec\":{\"replicas\":3}}")
		->field_manager = STR("scaler");
	assert_int_equal(req_run(e), 200);
	assert_int_equal(
		apply(e, "apps/v1:deployments/d", "one", false,
			"{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"d\"},\"spec\":{\"replicas\":2,"
			"\"selector\":{\"matchLabels\":{\"a\":\"b\"}},"
			"\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}"),
		409);
	assert_refused(e, 409, "conflict with \"scaler\"");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = {
		T(create_and_give_up),
		T(conflicts),
		T(other_writers),
		T(kubectl_takes_over_its_own),
		T(refusals),
		T(status_has_its_own_owner),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
