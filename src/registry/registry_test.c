/* The generic rules: create, get, update, patch, delete, list, watch. */
#include "registry/registry_test.h"

static const char map_a[] = "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"v\"}}";

static void create_and_get(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	assert_at(e, "metadata.name", "a");
	assert_at(e, "metadata.namespace", "default");
	assert_at(e, "metadata.creationTimestamp", "2023-11-14T22:13:20Z");
	assert_at(e, "apiVersion", "v1");
	assert_at(e, "kind", "ConfigMap");
	assert_int_equal(strlen(at(e, "metadata.uid")), 36);
	const char *revision = at(e, "metadata.resourceVersion");
	OK(e, GET, "configmaps/a", "default", NULL);
	assert_at(e, "metadata.resourceVersion", revision);
	assert_at(e, "data.k", "v");
	req(e, GET, "configmaps/b", "default", NULL);
	assert_refused(e, 404, "configmaps \"b\" not found");
	assert_at(e, "reason", "NotFound");
	assert_at(e, "details.name", "b");
	assert_at(e, "details.kind", "configmaps");
}

static void create_refusals(void **state)
{
	static const struct {
		const char *ns, *body;
		int code;
		const char *message;
	} rows[] = {
		{ "default", map_a, 409, "configmaps \"a\" already exists" },
		{ "nowhere", map_a, 404, "namespaces \"nowhere\" not found" },
		{ "default", "{\"metadata\":{\"name\":\"A_b\"}}", 422,
			"ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of" },
		{ "default", "{}", 422,
			"ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required" },
		{ "default", "{\"metadata\":{\"name\":\"x\",\"namespace\":\"other\"}}", 400,
			"the namespace of the provided object does not match the namespace sent on the request" },
		{ "default", "{\"metadata\":{\"name\":\"x\",\"resourceVersion\":\"7\"}}", 500,
			"resourceVersion should not be set on objects to be created" },
		{ "default", "{\"metadata\":{\"name\":\"x\",\"labels\":{\"-\":\"v\"}}}", 422,
			"metadata.labels: Invalid value: \"-\": " },
		{ "default", "{\"metadata\":{\"name\":\"x\",\"labels\":{\"k\":\"?\"}}}", 422,
			"metadata.labels: Invalid value: \"?\": " },
		{ "default", "{\"metadata\":{\"name\":\"x\",\"finalizers\":[\"mine\"]}}", 422,
			"metadata.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified" },
		{ "default",
			"{\"metadata\":{\"name\":\"x\",\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"p\",\"uid\":\"\"}]}}",
			422, "metadata.ownerReferences[0].uid: " },
	};
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, "configmaps", rows[i].ns, rows[i].body);
		assert_refused(e, rows[i].code, rows[i].message);
	}
}

static void big_annotations(void **state)
{
	struct env *e = *state;
	CLEAN_BUF struct buf b = { 0 };
	buf_addz(&b, "{\"metadata\":{\"name\":\"x\",\"annotations\":{\"k\":\"");
	for (size_t i = 0; i < 256 * 1024; i++)
		buf_addc(&b, 'x');
	buf_addz(&b, "\"}}}");
	req(e, CREATE, "configmaps", "default", b.p);
	assert_refused(e, 422, "metadata.annotations: Too long: may not be more than 262144 bytes");
}

static void generate_name(void **state)
{
	struct env *e = *state;
	for (int i = 0; i < 20; i++) {
		OK(e, CREATE, "configmaps", "default",
			"{\"metadata\":{\"generateName\":\"web-\"}}");
		const char *name = at(e, "metadata.name");
		assert_int_equal(strncmp(name, "web-", 4), 0);
		assert_int_equal(strlen(name), 9);
	}
	OK(e, CREATE, "configmaps", "default",
		"{\"metadata\":{\"generateName\":\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg-\"}}");
	assert_int_equal(strlen(at(e, "metadata.name")), 63);
}

static void update_conditions(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	const char *first = at(e, "metadata.resourceVersion"), *uid = at(e, "metadata.uid");
	OK(e, UPDATE, "configmaps/a", "default",
		"{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"w\"}}");
	const char *second = at(e, "metadata.resourceVersion");
	assert_string_not_equal(first, second);
	assert_at(e, "metadata.uid", uid);
	OK(e, UPDATE, "configmaps/a", "default",
		"{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"w\"}}"); /* no change, no write */
	assert_at(e, "metadata.resourceVersion", second);
	req(e, UPDATE, "configmaps/a", "default",
		arena_fmt(e->a,
			"{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"%s\"},\"data\":{\"k\":\"x\"}}",
			first)
			.p);
	assert_refused(e, 409,
		"Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest "
		"version and try again");
	OK(e, UPDATE, "configmaps/a", "default",
		arena_fmt(e->a,
			"{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"%s\"},\"data\":{\"k\":\"x\"}}",
			second)
			.p);
	req(e, UPDATE, "configmaps/a", "default",
		"{\"metadata\":{\"name\":\"a\",\"uid\":\"other\"}}");
	assert_refused(
		e, 409, "Precondition failed: UID in precondition: other, UID in object meta: ");
	req(e, UPDATE, "configmaps/a", "default", "{\"metadata\":{\"name\":\"b\"}}");
	assert_refused(e, 400, "the name of the object (b) does not match the name on the URL (a)");
	req(e, UPDATE, "configmaps/b", "default", "{\"metadata\":{\"name\":\"b\"}}");
	assert_refused(e, 404, "configmaps \"b\" not found");
}

static void create_on_update(void **state)
{
	struct env *e = *state;
	req(e, UPDATE, "endpoints/ep", "default", "{\"metadata\":{\"name\":\"ep\"}}");
	assert_code(e, 201);
	req(e, UPDATE, "endpoints/ep", "default",
		"{\"metadata\":{\"name\":\"ep\",\"labels\":{\"a\":\"b\"}}}");
	assert_code(e, 200);
	OK(e, CREATE, "policy/v1:poddisruptionbudgets", "default",
		"{\"metadata\":{\"name\":\"p\"},\"spec\":{\"minAvailable\":1,\"selector\":{}}}");
	req(e, UPDATE, "policy/v1:poddisruptionbudgets/p", "default",
		"{\"metadata\":{\"name\":\"p\"},\"spec\":{\"minAvailable\":2,\"selector\":{}}}");
	assert_refused(e, 422,
		"metadata.resourceVersion: Invalid value: 0: must be specified for an update");
}

struct patcher {
	struct env *e;
	int id, ok;
};

static void *patch_many(void *arg)
{
	struct patcher *p = arg;
	for (int i = 0; i < 50; i++) {
		struct arena *a = arena_new(0);
		struct registry_request q = { .arena = a,
			.verb = PATCH,
			.ns = STR("default"),
			.name = STR("a"),
			.patch_type = PATCH_TYPE_MERGE };
		struct registry_result res;
		q.resource = registry_resource(p->e->r, STR(""), STR("v1"), STR("configmaps"));
		q.patch = arena_fmt(a, "{\"data\":{\"k%d-%d\":\"1\"}}", p->id, i);
		registry_call(p->e->r, &q, &res);
		p->ok += res.code == 200;
		object_unref(res.object);
		arena_free(a);
	}
	return NULL;
}

/* Unconditional writes are tried again until they are in; none is lost. */
static void contention(void **state)
{
	struct env *e = *state;
	struct patcher p[4];
	pthread_t threads[4];
	OK(e, CREATE, "configmaps", "default", map_a);
	for (int i = 0; i < 4; i++) {
		p[i] = (struct patcher){ e, i, 0 };
		pthread_create(&threads[i], NULL, patch_many, &p[i]);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(p[i].ok, 50);
	}
	OK(e, GET, "configmaps/a", "default", NULL);
	for (int i = 0; i < 200; i++)
		assert_at(e, arena_fmt(e->a, "data.k%d-%d", i / 50, i % 50).p, "1");
}

static void immutable_meta(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	req(e, UPDATE, "configmaps/a", "default",
		"{\"metadata\":{\"name\":\"a\",\"creationTimestamp\":\"2001-01-01T00:00:00Z\"}}");
	assert_refused(e, 422,
		"metadata.creationTimestamp: Invalid value: \"2001-01-01T00:00:00Z\": field is immutable");
	req(e, UPDATE, "configmaps/a", "default",
		"{\"metadata\":{\"name\":\"a\",\"deletionTimestamp\":\"2001-01-01T00:00:00Z\"}}");
	assert_refused(e, 422, "metadata.deletionTimestamp: Invalid value: ");
}

static void patches(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	OK(e, PATCH, "configmaps/a", "default", "{\"data\":{\"k\":null,\"n\":\"1\"}}");
	assert_at(e, "data.k", "-");
	assert_at(e, "data.n", "1");
	req_new(e, PATCH, "configmaps/a", "default",
		"[{\"op\":\"test\",\"path\":\"/data/n\",\"value\":\"2\"}]");
	e->req.patch_type = PATCH_TYPE_JSON;
	req_run(e);
	assert_refused(e, 422, "the server rejected our request due to an error in our request");
	req_new(e, PATCH, "configmaps/a", "default",
		"[{\"op\":\"add\",\"path\":\"/data/m\",\"value\":\"2\"}]");
	e->req.patch_type = PATCH_TYPE_JSON;
	req_run(e);
	assert_at(e, "data.m", "2");
	req_new(e, PATCH, "configmaps/a", "default", "{\"metadata\":{\"labels\":{\"l\":\"1\"}}}");
	e->req.patch_type = PATCH_TYPE_STRATEGIC;
	req_run(e);
	assert_at(e, "metadata.labels.l", "1");
	req(e, PATCH, "configmaps/a", "default", "{\"metadata\":{\"resourceVersion\":\"1\"}}");
	assert_code(e, 409);
	req(e, PATCH, "configmaps/a", "default", "{\"data\":{\"k\":7}}");
	assert_refused(e, 422, " \"\" is invalid: patch: Invalid value: ");
	req(e, PATCH, "configmaps/a", "default", "{");
	assert_refused(e, 400, "error decoding patch: ");
	req_new(e, PATCH, "configmaps/a", "default", "{\"bogus\":1}");
	req_run(e);
	assert_int_equal(e->req.warnings.len, 1);
	assert_string_equal(e->req.warnings.items[0].p, "unknown field \"bogus\"");
	req_new(e, PATCH, "configmaps/a", "default", "{\"bogus\":1}");
	e->req.field_validation = FIELD_VALIDATION_STRICT;
	req_run(e);
	assert_refused(e, 422, "strict decoding error: unknown field \"bogus\"");
	req(e, PATCH, "configmaps/nope", "default", "{}");
	assert_code(e, 404);
}

static void dry_run(void **state)
{
	struct env *e = *state;
	uint64_t before = store_revision(e->store);
	req_new(e, CREATE, "configmaps", "default", map_a);
	e->req.dry_run = true;
	assert_int_equal(req_run(e), 201);
	assert_at(e, "metadata.name", "a");
	assert_int_equal(store_revision(e->store), before);
	OK(e, CREATE, "configmaps", "default", map_a);
	before = store_revision(e->store);
	req_new(e, CREATE, "configmaps", "default", map_a);
	e->req.dry_run = true;
	assert_int_equal(req_run(e), 409);
	req_new(e, UPDATE, "configmaps/a", "default", "{\"metadata\":{\"name\":\"a\"}}");
	e->req.dry_run = true;
	assert_int_equal(req_run(e), 200);
	req_new(e, DELETE, "configmaps/a", "default", NULL);
	e->req.dry_run = true;
	assert_int_equal(req_run(e), 200);
	assert_int_equal(store_revision(e->store), before);
	OK(e, GET, "configmaps/a", "default", NULL);
}

/* ---- delete ---- */

static void delete_answers(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	const char *uid = at(e, "metadata.uid");
	OK(e, DELETE, "configmaps/a", "default", NULL);
	assert_at(e, "kind", "Status");
	assert_at(e, "status", "Success");
	assert_at(e, "details.name", "a");
	assert_at(e, "details.uid", uid);
	req(e, DELETE, "configmaps/a", "default", NULL);
	assert_refused(e, 404, "configmaps \"a\" not found");
}

static void delete_conditions(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	struct str revision = arena_strz(e->a, at(e, "metadata.resourceVersion")),
		   uid = arena_strz(e->a, at(e, "metadata.uid"));
	struct meta_v1_preconditions wrong_uid = { .uid = STR("x") },
				     wrong_revision = { .resource_version = STR("1") },
				     right = { uid, revision };
	struct meta_v1_delete_options opt = { .preconditions = &wrong_uid };
	req_new(e, DELETE, "configmaps/a", "default", NULL)->delete_options = &opt;
	req_run(e);
	assert_refused(
		e, 409, "the UID in the precondition (x) does not match the UID in record (");
	opt.preconditions = &wrong_revision;
	req_new(e, DELETE, "configmaps/a", "default", NULL)->delete_options = &opt;
	req_run(e);
	assert_refused(e, 409,
		"the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (");
	opt.preconditions = &right;
	opt.propagation_policy = STR("Sideways");
	req_new(e, DELETE, "configmaps/a", "default", NULL)->delete_options = &opt;
	req_run(e);
	assert_refused(e, 422, "propagationPolicy: Unsupported value: \"Sideways\"");
	opt.propagation_policy = STR("Background");
	req_new(e, DELETE, "configmaps/a", "default", NULL)->delete_options = &opt;
	assert_int_equal(req_run(e), 200);
}

static void finalizers(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default",
		"{\"metadata\":{\"name\":\"a\",\"finalizers\":[\"x.io/one\",\"x.io/two\"]}}");
	OK(e, DELETE, "configmaps/a", "default", NULL);
	assert_at(e, "kind", "ConfigMap");
	assert_at(e, "metadata.deletionTimestamp", "2023-11-14T22:13:20Z");
	assert_at(e, "metadata.deletionGracePeriodSeconds", "0");
	const char *revision = at(e, "metadata.resourceVersion");
	OK(e, DELETE, "configmaps/a", "default", NULL); /* again: nothing new */
	assert_at(e, "metadata.resourceVersion", revision);
	req(e, PATCH, "configmaps/a", "default",
		"{\"metadata\":{\"finalizers\":[\"x.io/one\",\"x.io/three\"]}}");
	assert_refused(e, 422,
		"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
		"[]string{\"x.io/three\"}");
	OK(e, PATCH, "configmaps/a", "default", "{\"metadata\":{\"finalizers\":[\"x.io/one\"]}}");
	OK(e, GET, "configmaps/a", "default", NULL);
	OK(e, PATCH, "configmaps/a", "default", "{\"metadata\":{\"finalizers\":null}}");
	req(e, GET, "configmaps/a", "default", NULL);
	assert_code(e, 404);
}

static void propagation(void **state)
{
	static const struct {
		const char *policy, *finalizer;
	} rows[] = { { "Orphan", "orphan" }, { "Foreground", "foregroundDeletion" } };
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct meta_v1_delete_options opt = { .propagation_policy =
							      str_of(rows[i].policy) };
		const char *name = arena_fmt(e->a, "m%zu", i).p,
			   *path = arena_fmt(e->a, "configmaps/%s", name).p;
		OK(e, CREATE, "configmaps", "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"%s\"}}", name).p);
		req_new(e, DELETE, path, "default", NULL)->delete_options = &opt;
		assert_int_equal(req_run(e), 200);
		assert_at(e, "metadata.finalizers.0", rows[i].finalizer);
		assert_string_not_equal(at(e, "metadata.deletionTimestamp"), "-");
		OK(e, PATCH, path, "default", "{\"metadata\":{\"finalizers\":[]}}");
		req(e, GET, path, "default", NULL);
		assert_code(e, 404);
	}
}

static void delete_collection(void **state)
{
	struct env *e = *state;
	for (int i = 0; i < 150; i++)
		OK(e, CREATE, "configmaps", "default",
			arena_fmt(e->a,
				"{\"metadata\":{\"name\":\"m%03d\",\"labels\":{\"odd\":\"%d\"}}}",
				i, i % 2)
				.p);
	req_new(e, VERB_DELETECOLLECTION, "configmaps", "default", NULL)->label_selector =
		STR("odd=1");
	assert_int_equal(req_run(e), 200);
	assert_string_equal(list_of(e, "configmaps", "default", "odd=1", NULL), "");
	assert_int_equal(strlen(list_of(e, "configmaps", "default", NULL, NULL)), 75 * 5 - 1);
}

/* ---- lists ---- */

static void list_pages(void **state)
{
	struct env *e = *state;
	struct str cont = STR_NONE;
	int64_t remaining;
	for (int i = 0; i < 5; i++)
		OK(e, CREATE, "configmaps", "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"m%d\"}}", i).p);
	req_new(e, VERB_LIST, "configmaps", "default", NULL)->limit = 2;
	assert_string_equal(list(e, &cont, &remaining), "m0,m1");
	assert_int_equal(remaining, 3);
	/* what happens meanwhile is not seen */
	OK(e, DELETE, "configmaps/m3", "default", NULL);
	OK(e, CREATE, "configmaps", "default", "{\"metadata\":{\"name\":\"m22\"}}");
	req_new(e, VERB_LIST, "configmaps", "default", NULL)->limit = 2;
	e->req.continue_token = cont;
	assert_string_equal(list(e, &cont, &remaining), "m2,m3");
	assert_int_equal(remaining, 1);
	req_new(e, VERB_LIST, "configmaps", "default", NULL)->limit = 2;
	e->req.continue_token = cont;
	assert_string_equal(list(e, &cont, &remaining), "m4");
	assert_int_equal(cont.len, 0);
	req_new(e, VERB_LIST, "configmaps", "default", NULL)->continue_token = STR("bm9uc2Vuc2U");
	assert_string_equal(list(e, &cont, &remaining), "refused");
	assert_refused(e, 400, "continue key is not valid");
	/* a page that is just full has no next one */
	req_new(e, VERB_LIST, "configmaps", "default", NULL)->limit = 5;
	assert_string_equal(list(e, &cont, &remaining), "m0,m1,m2,m22,m4");
	assert_int_equal(cont.len, 0);
}

static void list_revisions(void **state)
{
	static const struct {
		const char *revision, *match;
		int64_t limit;
		int code;
		const char *message;
	} rows[] = {
		{ "999999", "", 0, 504, "Too large resource version: 999999, current: " },
		{ "x", "", 0, 422, "resourceVersion: Invalid value: \"x\"" },
		{ "", "Exact", 0, 422,
			"resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided" },
		{ "1", "Close", 0, 422, "resourceVersionMatch: Unsupported value: \"Close\"" },
		{ "0", "Exact", 0, 422,
			"resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"" },
	};
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req_new(e, VERB_LIST, "configmaps", "default", NULL);
		e->req.resource_version = str_of(rows[i].revision);
		e->req.resource_version_match = str_of(rows[i].match);
		assert_string_equal(list(e, NULL, NULL), "refused");
		assert_refused(e, rows[i].code, rows[i].message);
	}
	req_new(e, VERB_LIST, "configmaps", "default", NULL);
	e->req.resource_version = STR("1");
	assert_string_equal(list(e, NULL, NULL), "a");
	req_new(e, VERB_LIST, "configmaps", "default", NULL);
	e->req.resource_version =
		arena_fmt(e->a, "%llu", (unsigned long long)store_revision(e->store));
	e->req.resource_version_match = STR("Exact");
	assert_string_equal(list(e, NULL, NULL), "a");
}

static void selectors(void **state)
{
	struct env *e = *state;
	make_namespace(e, "other");
	OK(e, CREATE, "pods", "default", pod(e, "p1", "\"nodeName\":\"n1\","));
	OK(e, CREATE, "pods", "default", pod(e, "p2", "\"hostNetwork\":true,"));
	OK(e, CREATE, "pods", "other", pod(e, "p3", "\"nodeName\":\"n1\","));
	static const struct {
		const char *ns, *labels, *fields, *names;
	} rows[] = {
		{ "default", NULL, NULL, "p1,p2" },
		{ "", NULL, NULL, "p1,p2,p3" },
		{ "", NULL, "spec.nodeName=n1", "p1,p3" },
		{ "", NULL, "spec.nodeName!=n1", "p2" },
		{ "", NULL, "spec.nodeName=", "p2" },
		{ "", NULL, "spec.hostNetwork=false", "p1,p3" },
		{ "", NULL, "status.phase=Pending,metadata.namespace=other", "p3" },
		{ "default", NULL, "metadata.name=p2", "p2" },
		{ "default", NULL, "metadata.name!=p2", "p1" },
		{ "", "app=a", NULL, "p1,p2,p3" },
		{ "", "app in (b)", NULL, "" },
		{ "default", NULL, "metadata.namespace=other", "" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(list_of(e, "pods", rows[i].ns, rows[i].labels, rows[i].fields),
			rows[i].names);
	assert_string_equal(list_of(e, "pods", "default", NULL, "spec.foo=1"), "refused");
	assert_refused(e, 400, "field label not supported: spec.foo");
	assert_string_equal(list_of(e, "configmaps", "default", NULL, "spec.foo=1"), "refused");
	assert_refused(e, 400,
		"\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
	assert_string_equal(list_of(e, "pods", "default", "a=(", NULL), "refused");
	assert_refused(e, 400, "unable to parse requirement");
}

/* ---- watch ---- */

static void watch_transitions(void **state)
{
	struct env *e = *state;
	struct registry_watch *w = watch_of(e, "pods", "default", "app=a", NULL, NULL),
			      *node = watch_of(e, "pods", "", NULL, "spec.nodeName=n1", NULL);
	assert_next(e, w, "none");
	assert_true(registry_watch_initial_done(w));
	OK(e, CREATE, "pods", "default", pod(e, "p", ""));
	assert_next(e, w, "ADDED p");
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"labels\":{\"x\":\"1\"}}}");
	assert_next(e, w, "MODIFIED p");
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"labels\":{\"app\":\"b\"}}}");
	const char *revision = at(e, "metadata.resourceVersion");
	assert_next(e, w, "DELETED p");
	assert_at(e, "metadata.labels.app", "a"); /* as it was, under the event's revision */
	assert_at(e, "metadata.resourceVersion", revision);
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"labels\":{\"y\":\"1\"}}}");
	assert_next(e, w, "none");
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"labels\":{\"app\":\"a\"}}}");
	assert_next(e, w, "ADDED p");
	assert_next(e, node, "none");
	OK(e, CREATE, "pods/p/binding", "default",
		"{\"target\":{\"kind\":\"Node\",\"name\":\"n1\"}}");
	assert_next(e, node, "ADDED p");
	assert_next(e, w, "MODIFIED p");
	struct meta_v1_delete_options now = { .grace_period_seconds = SOME(0) };
	req_new(e, DELETE, "pods/p", "default", NULL)->delete_options = &now;
	assert_int_equal(req_run(e), 200);
	assert_next(e, node, "DELETED p");
	assert_next(e, w, "DELETED p");
	assert_next(e, w, "none");
	registry_watch_close(w);
	registry_watch_close(node);
}

/* What is absent has a value too, though the store knows none. */
static void watch_absent(void **state)
{
	struct env *e = *state;
	struct registry_watch *w = watch_of(e, "nodes", "", NULL, "spec.unschedulable=false", NULL);
	struct registry_watch *cordoned =
		watch_of(e, "nodes", "", NULL, "spec.unschedulable=true", NULL);
	OK(e, CREATE, "nodes", "", "{\"metadata\":{\"name\":\"n\"}}");
	assert_next(e, w, "ADDED n");
	assert_next(e, cordoned, "none");
	OK(e, PATCH, "nodes/n", "", "{\"spec\":{\"unschedulable\":true}}");
	assert_next(e, w, "DELETED n");
	assert_next(e, cordoned, "ADDED n");
	registry_watch_close(w);
	registry_watch_close(cordoned);
}

static void watch_starts(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "configmaps", "default", map_a);
	struct str revision = arena_strz(e->a, at(e, "metadata.resourceVersion"));
	OK(e, CREATE, "configmaps", "default", "{\"metadata\":{\"name\":\"b\"}}");
	struct registry_watch *all = watch_of(e, "configmaps", "default", NULL, NULL, "0"),
			      *later = watch_of(e, "configmaps", "default", NULL, NULL, revision.p);
	struct registry_watch *one =
		watch_of(e, "configmaps", "default", NULL, "metadata.name=b", NULL);
	assert_next(e, all, "ADDED a");
	assert_next(e, all, "ADDED b");
	assert_next(e, all, "none");
	assert_next(e, later, "ADDED b");
	assert_next(e, later, "none");
	assert_next(e, one, "ADDED b");
	OK(e, PATCH, "configmaps/a", "default", "{\"data\":{\"z\":\"1\"}}");
	assert_next(e, one, "none");
	assert_next(e, later, "MODIFIED a");
	assert_null(watch_of(e, "configmaps", "default", NULL, NULL, "99999"));
	assert_int_equal(e->res.code, 504);
	registry_watch_close(all);
	registry_watch_close(later);
	registry_watch_close(one);
}

/* ---- versions ---- */

static void other_versions(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "events.k8s.io/v1:events", "default",
		"{\"metadata\":{\"name\":\"ev\"},\"regarding\":{\"kind\":\"Pod\",\"namespace\":\"default\",\"name\":\"p\"},"
		"\"note\":\"hello\",\"reason\":\"R\"}");
	assert_at(e, "note", "hello");
	assert_at(e, "apiVersion", "events.k8s.io/v1");
	OK(e, GET, "events/ev", "default", NULL);
	assert_at(e, "message", "hello");
	assert_at(e, "involvedObject.name", "p");
	OK(e, GET, "events.k8s.io/v1:events/ev", "default", NULL);
	assert_at(e, "regarding.name", "p");
	assert_string_equal(
		list_of(e, "events.k8s.io/v1:events", "default", NULL, "regarding.name=p"), "ev");
	assert_string_equal(
		list_of(e, "events", "default", NULL, "involvedObject.name=p,reason=R"), "ev");
	OK(e, CREATE, "autoscaling/v1:horizontalpodautoscalers", "default",
		"{\"metadata\":{\"name\":\"h\"},\"spec\":{\"scaleTargetRef\":{\"kind\":\"Deployment\",\"name\":\"d\"},\"maxReplicas\":3,"
		"\"targetCPUUtilizationPercentage\":50}}");
	OK(e, GET, "autoscaling/v2:horizontalpodautoscalers/h", "default", NULL);
	assert_at(e, "spec.metrics.0.resource.target.averageUtilization", "50");
	OK(e, GET, "autoscaling/v1:horizontalpodautoscalers/h", "default", NULL);
	assert_at(e, "spec.targetCPUUtilizationPercentage", "50");
}

static void every_resource_is_there(void **state)
{
	struct env *e = *state;
	size_t n;
	const struct resource *const *all = registry_resources(e->r, &n);
	assert_true(n > 60);
	for (size_t i = 0; i < n; i++) {
		assert_ptr_equal(
			registry_resource(e->r, all[i]->group, all[i]->version, all[i]->plural),
			all[i]);
		assert_ptr_equal(registry_resource_of(e->r, all[i]->row->type), all[i]);
	}
	assert_null(registry_resource(e->r, STR(""), STR("v1"), STR("widgets")));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = {
		T(create_and_get),
		T(create_refusals),
		T(big_annotations),
		T(generate_name),
		T(update_conditions),
		T(create_on_update),
		T(contention),
		T(immutable_meta),
		T(patches),
		T(dry_run),
		T(delete_answers),
		T(delete_conditions),
		T(finalizers),
		T(propagation),
		T(delete_collection),
		T(list_pages),
		T(list_revisions),
		T(selectors),
		T(watch_transitions),
		T(watch_absent),
		T(watch_starts),
		T(other_versions),
		T(every_resource_is_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
