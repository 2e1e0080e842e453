/* Sets of fields, who owns what after updates, and applying. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "gen/types.h"
#include "model/apply.h"
#include "model/notation_test.h"

static struct field_set *set(const char *text)
{
	struct value fields = v(text);
	struct field_set *s;
	struct err err;

	if (field_set_from_fields(&fields, a, &s, &err) < 0)
		fail_msg("%s: %s", text, err.text);
	return s;
}

static void expect_set(const struct field_set *s, const char *want)
{
	struct value got;

	field_set_to_fields(s, a, &got);
	expect(&got, want, "fields");
}

static void expect_paths(const struct field_set *s, const char *want)
{
	struct buf b = { 0 };
	struct str *paths;
	size_t n = field_set_paths(s, a, &paths);

	for (size_t i = 0; i < n; i++)
		buf_addf(&b, "%s" STR_FMT, i ? " " : "", STR_ARG(paths[i]));
	assert_string_equal(b.p ? b.p : "", want);
	buf_deinit(&b);
}

static void test_sets(void **state)
{
	struct field_set *x = set("{'f:a':{'.':{},'f:b':{},'f:c':{}},'f:d':{}}"),
			 *y = set("{'f:a':{'f:c':{}},'f:d':{'f:e':{}}}");
	struct value bad = v("{'x:a':{}}"), worse = v("{'f:a':1}");
	struct field_set *ignored;
	struct err err;

	expect_set(field_set_union(x, y, a),
		"{'f:a':{'.':{},'f:b':{},'f:c':{}},'f:d':{'.':{},'f:e':{}}}");
	expect_set(field_set_intersect(x, y, a), "{'f:a':{'f:c':{}}}");
	expect_set(field_set_minus(x, y, false, a), "{'f:a':{'.':{},'f:b':{}},'f:d':{}}");
	expect_set(field_set_minus(y, set("{'f:d':{}}"), true, a), "{'f:a':{'f:c':{}}}");
	expect_set(field_set_minus(y, set("{'f:d':{}}"), false, a),
		"{'f:a':{'f:c':{}},'f:d':{'f:e':{}}}");
	assert_true(field_set_is_empty(field_set_minus(x, x, false, a)));
	assert_true(field_set_equal(
		field_set_minus(x, y, false, a), set("{'f:d':{},'f:a':{'f:b':{},'.':{}}}")));
	assert_false(field_set_equal(x, y));
	assert_int_equal(field_set_from_fields(&bad, a, &ignored, &err), -EINVAL);
	assert_int_equal(field_set_from_fields(&worse, a, &ignored, &err), -EINVAL);
}

static void test_of(void **state)
{
	struct value d = v(
		"{'metadata':{'labels':{'app':'x'},'finalizers':['z']},'spec':{'replicas':1,'selector':{'matchLabels':{'app':'x'}},"
		"'template':{'spec':{'nodeSelector':{'a':'b'},'containers':["
		"{'name':'n','image':'i','ports':[{'containerPort':80}],'env':[],'securityContext':{}}],"
		"'tolerations':[{'key':'k'}]}}}}");

	expect_paths(field_set_of(&apps_v1_deployment_type, &d, a),
		".metadata.finalizers[=\"z\"] .metadata.labels.app .spec.replicas .spec.selector "
		".spec.template.spec.containers[name=\"n\"] .spec.template.spec.containers[name=\"n\"].env .spec.template.spec.containers[name=\"n\"].image "
		".spec.template.spec.containers[name=\"n\"].name .spec.template.spec.containers[name=\"n\"].ports[containerPort=80,protocol=\"TCP\"] "
		".spec.template.spec.containers[name=\"n\"].ports[containerPort=80,protocol=\"TCP\"].containerPort "
		".spec.template.spec.containers[name=\"n\"].securityContext .spec.template.spec.nodeSelector .spec.template.spec.tolerations");
}

static void test_compare(void **state)
{
	struct value old = v(
		"{'metadata':{'labels':{'a':'1','b':'2'}},'spec':{'replicas':1,'strategy':{},'template':{'spec':{'containers':null}}}}");
	struct value obj = v(
		"{'metadata':{'labels':{'a':'1','c':'3'},'annotations':{'x':'y'}},'spec':{'replicas':2,'strategy':{'type':'Recreate'},"
		"'template':{'spec':{'containers':[{'name':'n','ports':[{'containerPort':1,'protocol':'UDP'}]}]}}}}");
	struct field_changes c = field_set_compare(&apps_v1_deployment_type, &old, &obj, a);

	expect_paths(c.added,
		".metadata.annotations .metadata.annotations.x .metadata.labels.c .spec.strategy.type .spec.template.spec.containers[name=\"n\"] "
		".spec.template.spec.containers[name=\"n\"].name .spec.template.spec.containers[name=\"n\"].ports "
		".spec.template.spec.containers[name=\"n\"].ports[containerPort=1,protocol=\"UDP\"] "
		".spec.template.spec.containers[name=\"n\"].ports[containerPort=1,protocol=\"UDP\"].containerPort "
		".spec.template.spec.containers[name=\"n\"].ports[containerPort=1,protocol=\"UDP\"].protocol");
	expect_paths(c.modified, ".spec.replicas");
	expect_paths(c.removed, ".metadata.labels.b");
}

/* Among many members and items, moved about. */
static void test_compare_many(void **state)
{
	struct value old = { .kind = VALUE_OBJECT }, obj = { .kind = VALUE_OBJECT };
	struct value *old_data = value_set(a, &old, STR("data")),
		     *data = value_set(a, &obj, STR("data"));

	*old_data = *data = (struct value){ .kind = VALUE_OBJECT };
	for (int i = 0; i < 100; i++) {
		*value_set(a, old_data, arena_fmt(a, "k%d", i)) =
			(struct value){ .kind = VALUE_INT, .integer = i };
		*value_set(a, data, arena_fmt(a, "k%d", 100 - i)) =
			(struct value){ .kind = VALUE_INT,
				.integer = 100 - i == 50 ? -1 : 100 - i };
	}
	struct field_changes c = field_set_compare(&core_v1_config_map_type, &old, &obj, a);

	expect_paths(c.added, ".data.k100");
	expect_paths(c.removed, ".data.k0");
	expect_paths(c.modified, ".data.k50");
}

static struct field_request request(const char *manager, int64_t now)
{
	return (struct field_request){ .type = &apps_v1_deployment_type,
		.manager = str_of(manager),
		.api_version = STR("apps/v1"),
		.now = { now, 0 } };
}

static const struct field_owner *owner(const struct field_owners *owners, const char *manager)
{
	for (size_t i = 0; i < owners->len; i++)
		if (str_eqz(owners->items[i].manager, manager))
			return &owners->items[i];
	return NULL;
}

static void test_track(void **state)
{
	struct field_owners owners = { 0 };
	struct value
		none = v("{'spec':{'strategy':{}}}"),
		first = v(
			"{'kind':'Deployment','metadata':{'name':'x','labels':{'a':'1'}},'spec':{'replicas':1,'paused':true,'strategy':{}}}");
	struct value second = v(
		"{'kind':'Deployment','metadata':{'name':'x','labels':{'a':'1'}},'spec':{'replicas':2,'strategy':{}}}");
	struct field_request r = request("create", 1);

	fields_track_update(&r, &none, &first, &owners, a);
	assert_int_equal(owners.len, 1);
	expect_paths(owners.items[0].fields,
		".metadata.labels .metadata.labels.a .spec.paused .spec.replicas");
	assert_true(str_eqz(owners.items[0].operation, "Update"));
	r = request("scale", 2);
	fields_track_update(&r, &first, &second, &owners, a);
	assert_int_equal(owners.len, 2);
	expect_paths(owner(&owners, "scale")->fields, ".spec.replicas");
	expect_paths(owner(&owners, "create")->fields, ".metadata.labels .metadata.labels.a");
	fields_track_update(&r, &second, &second, &owners, a);
	assert_int_equal(owners.len, 2);
	/* Too many updaters become one. */
	for (int i = 0; i < 12; i++) {
		char name[16];
		struct value next = value_copy(a, &second);

		snprintf(name, sizeof(name), "m%d", i);
		*value_set(a, value_get(value_get(&next, STR("metadata")), STR("labels")),
			arena_strz(a, name)) = v("'1'");
		r = request(arena_strz(a, name).p, 10 + i);
		fields_track_update(&r, &second, &next, &owners, a);
		second = next;
	}
	assert_int_equal(owners.len, 10);
	assert_non_null(owner(&owners, "ancient-changes"));
	assert_null(owner(&owners, "create"));
}

static struct value apply(const char *manager, const struct value *live, const char *text,
	bool force, struct field_owners *owners)
{
	struct field_request r = request(manager, 5);
	struct value applied = v(text), out;
	struct field_conflict *conflicts;
	struct err err = { "" };
	size_t n;

	if (fields_apply(&r, live, &applied, force, owners, a, &out, &conflicts, &n, &err))
		fail_msg("%s: %s", text, err.text);
	return out;
}

static void test_apply(void **state)
{
	struct field_owners owners = { 0 };
	struct value live = v("{}");

	live = apply("one", &live,
		"{'metadata':{'labels':{'a':'1','b':'2'}},'spec':{'replicas':1,'template':{'spec':{'containers':[{'name':'x','image':'1'},{'name':'y'}]}}}}",
		false, &owners);
	assert_int_equal(owners.len, 1);
	/* What is no longer stated goes. */
	live = apply("one", &live,
		"{'metadata':{'labels':{'a':'1'}},'spec':{'replicas':1,'template':{'spec':{'containers':[{'name':'x','image':'2'}]}}}}",
		false, &owners);
	expect(&live,
		"{'metadata':{'labels':{'a':'1'}},'spec':{'replicas':1,'template':{'spec':{'containers':[{'name':'x','image':'2'}]}}}}",
		"one");
	/* Another may own the same value too, and add of its own. */
	live = apply("two", &live,
		"{'metadata':{'labels':{'c':'3'}},'spec':{'replicas':1,'template':{'spec':{'containers':[{'name':'z'},{'name':'x','tty':true}]}}}}",
		false, &owners);
	expect(&live,
		"{'metadata':{'labels':{'a':'1','c':'3'}},'spec':{'replicas':1,'template':{'spec':{'containers':["
		"{'name':'z'},{'name':'x','image':'2','tty':true}]}}}}",
		"two");
	expect_paths(owner(&owners, "two")->fields,
		".metadata.labels.c .spec.replicas .spec.template.spec.containers[name=\"x\"] "
		".spec.template.spec.containers[name=\"x\"].name .spec.template.spec.containers[name=\"x\"].tty .spec.template.spec.containers[name=\"z\"] "
		".spec.template.spec.containers[name=\"z\"].name");
	/* One gives up what both own: it stays. */
	live = apply("one", &live, "{'metadata':{'labels':{'a':'1'}}}", false, &owners);
	expect(&live,
		"{'metadata':{'labels':{'a':'1','c':'3'}},'spec':{'replicas':1,'template':{'spec':{'containers':[{'name':'z'},{'name':'x','tty':true}]}}}}",
		"given up");
	/* The last owner gives all up: nothing is left behind. */
	live = apply("two", &live, "{'metadata':{'labels':{'c':'3'}}}", false, &owners);
	expect(&live, "{'metadata':{'labels':{'a':'1','c':'3'}}}", "all given up");
}

static void test_conflict(void **state)
{
	struct field_owners owners = { 0 };
	struct value live = v("{}"), applied = v("{'spec':{'replicas':3,'paused':true}}"),
		     out = { 0 };
	struct field_conflict *conflicts;
	struct field_request r = request("two", 6);
	struct err err;
	size_t n;

	live = apply("one", &live, "{'spec':{'replicas':1}}", false, &owners);
	assert_int_equal(
		fields_apply(&r, &live, &applied, false, &owners, a, &out, &conflicts, &n, &err),
		APPLY_CONFLICT);
	assert_int_equal(n, 1);
	assert_string_equal(conflicts[0].path.p, ".spec.replicas");
	assert_string_equal(err.text,
		"Apply failed with 1 conflict: conflict with \"one\" using apps/v1: .spec.replicas");
	assert_int_equal(owners.len, 1);
	live = apply("two", &live, "{'spec':{'replicas':3,'paused':true}}", true, &owners);
	expect(&live, "{'spec':{'replicas':3,'paused':true}}", "forced");
	assert_int_equal(owners.len, 1); /* the first had no other field */
	assert_non_null(owner(&owners, "two"));
	applied = v("{'spec':{'replicas':4,'paused':false}}");
	r = request("three", 7);
	assert_int_equal(
		fields_apply(&r, &live, &applied, false, &owners, a, &out, &conflicts, &n, &err),
		APPLY_CONFLICT);
	assert_string_equal(err.text,
		"Apply failed with 2 conflicts: conflicts with \"two\" using apps/v1:\n- .spec.paused\n- .spec.replicas");
}

static void test_apply_after_updates(void **state)
{
	struct field_owners owners = { 0 };
	struct value live = v("{'metadata':{'labels':{'a':'1'}},'spec':{'replicas':1}}");

	/* Never tracked: all belongs to before-first-apply, and conflicts. */
	struct field_request r = request("me", 1);
	struct value applied = v("{'spec':{'replicas':2}}"), out;
	struct field_conflict *conflicts;
	struct err err;
	size_t n;

	assert_int_equal(
		fields_apply(&r, &live, &applied, false, &owners, a, &out, &conflicts, &n, &err),
		APPLY_CONFLICT);
	assert_string_equal(conflicts[0].manager.p, "before-first-apply");
	assert_true(conflicts[0].by_update);
	live = apply("me", &live, "{'spec':{'replicas':2}}", true, &owners);
	/* An update takes the field; applying it unchanged conflicts, as upstream. */
	struct value scaled = v("{'metadata':{'labels':{'a':'1'}},'spec':{'replicas':5}}");

	r = request("hpa", 3);
	fields_track_update(&r, &live, &scaled, &owners, a);
	assert_null(owner(&owners, "me"));
	expect_paths(owner(&owners, "hpa")->fields, ".spec.replicas");
	r = request("me", 4);
	assert_int_equal(
		fields_apply(&r, &scaled, &applied, false, &owners, a, &out, &conflicts, &n, &err),
		APPLY_CONFLICT);
	/* Status written to the object itself belongs to nobody. */
	struct value with_status = v(
		"{'metadata':{'labels':{'a':'1'}},'spec':{'replicas':5},'status':{'replicas':5}}");

	r = request("kubelet", 5);
	r.ignored = set("{'f:status':{}}");
	fields_track_update(&r, &scaled, &with_status, &owners, a);
	assert_null(owner(&owners, "kubelet"));
}

static void test_apply_refuses(void **state)
{
	static const struct {
		const char *applied, *error;
	} cases[] = {
		{ "{'spec':{'template':{'spec':{'containers':[{'image':'x'}]}}}}",
			"omits key field \"name\"" },
		{ "{'spec':{'template':{'spec':{'containers':[{'name':'x'},{'name':'x'}]}}}}",
			"duplicate entries" },
		{ "{'metadata':{'finalizers':[{'a':1}]}}", "a set holds" },
	};
	struct field_request r = request("me", 1);
	struct field_owners owners = { 0 };
	struct value live = v("{}"), out;
	struct field_conflict *conflicts;
	struct err err;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct value applied = v(cases[i].applied);

		assert_int_equal(fields_apply(&r, &live, &applied, true, &owners, a, &out,
					 &conflicts, &n, &err),
			-EINVAL);
		if (!strstr(err.text, cases[i].error))
			fail_msg("%s", err.text);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_sets),
		T(test_of),
		T(test_compare),
		T(test_compare_many),
		T(test_track),
		T(test_apply),
		T(test_conflict),
		T(test_apply_after_updates),
		T(test_apply_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
