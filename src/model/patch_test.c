/* Patches: the examples of the RFCs, and what upstream's strategic merge is known for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "gen/types.h"
#include "model/notation_test.h"

/* ---- RFC 6902 ---- */

static void test_json_patch(void **state)
{
	static const struct {
		const char *doc, *patch, *want;
	} cases[] = {
		/* appendix A of the RFC, then edges */
		{ "{'foo':'bar'}", "[{'op':'add','path':'/baz','value':'qux'}]",
			"{'baz':'qux','foo':'bar'}" },
		{ "{'foo':['bar','baz']}", "[{'op':'add','path':'/foo/1','value':'qux'}]",
			"{'foo':['bar','qux','baz']}" },
		{ "{'baz':'qux','foo':'bar'}", "[{'op':'remove','path':'/baz'}]", "{'foo':'bar'}" },
		{ "{'foo':['bar','qux','baz']}", "[{'op':'remove','path':'/foo/1'}]",
			"{'foo':['bar','baz']}" },
		{ "{'baz':'qux','foo':'bar'}", "[{'op':'replace','path':'/baz','value':'boo'}]",
			"{'baz':'boo','foo':'bar'}" },
		{ "{'foo':{'bar':'baz','waldo':'fred'},'qux':{'corge':'grault'}}",
			"[{'op':'move','from':'/foo/waldo','path':'/qux/thud'}]",
			"{'foo':{'bar':'baz'},'qux':{'corge':'grault','thud':'fred'}}" },
		{ "{'foo':['all','grass','cows','eat']}",
			"[{'op':'move','from':'/foo/1','path':'/foo/3'}]",
			"{'foo':['all','cows','eat','grass']}" },
		{ "{'baz':'qux','foo':['a',2,'c']}",
			"[{'op':'test','path':'/baz','value':'qux'},{'op':'test','path':'/foo/1','value':2}]",
			"{'baz':'qux','foo':['a',2,'c']}" },
		{ "{'foo':'bar'}", "[{'op':'add','path':'/child','value':{'grandchild':{}}}]",
			"{'foo':'bar','child':{'grandchild':{}}}" },
		{ "{'foo':'bar'}", "[{'op':'add','path':'/baz','value':'qux','xyz':123}]",
			"{'foo':'bar','baz':'qux'}" },
		{ "{'/':9,'~1':10}",
			"[{'op':'test','path':'/~01','value':10},{'op':'replace','path':'/~1','value':1}]",
			"{'/':1,'~1':10}" },
		{ "{'foo':['bar']}", "[{'op':'add','path':'/foo/-','value':['abc','def']}]",
			"{'foo':['bar',['abc','def']]}" },
		{ "{'a':{'b':1}}",
			"[{'op':'copy','from':'/a','path':'/c'},{'op':'replace','path':'/c/b','value':2}]",
			"{'a':{'b':1},'c':{'b':2}}" },
		{ "{'a':1}", "[{'op':'add','path':'','value':{'b':2}}]", "{'b':2}" },
		{ "{'a':1}", "[{'op':'add','path':'/a','value':2}]", "{'a':2}" },
		{ "{'a':1}", "[{'op':'test','path':'/x','value':null}]", "{'a':1}" },
	};
	struct err err = { "" };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct value doc = v(cases[i].doc), ops = v(cases[i].patch);

		if (patch_json(&doc, &ops, a, &err))
			fail_msg("%s: %s", cases[i].patch, err.text);
		expect(&doc, cases[i].want, cases[i].patch);
	}
}

static void test_json_patch_errors(void **state)
{
	static const struct {
		const char *patch, *error;
	} cases[] = {
		{ "[{'op':'add','path':'/baz/bat','value':'qux'}]", "missing path" },
		{ "[{'op':'remove','path':'/nope'}]", "missing key" },
		{ "[{'op':'replace','path':'/nope','value':1}]", "missing key" },
		{ "[{'op':'add','path':'/list/5','value':1}]", "invalid index" },
		{ "[{'op':'add','path':'/list/01','value':1}]", "invalid index" },
		{ "[{'op':'remove','path':'/list/-'}]", "missing key" },
		{ "[{'op':'move','from':'/obj','path':'/obj/x'}]", "into itself" },
		{ "[{'op':'fly','path':'/a'}]", "Unexpected kind" },
		{ "[{'op':'add','path':'/a'}]", "needs \"value\"" },
		{ "[{'op':'copy','path':'/a'}]", "needs \"from\"" },
		{ "[{'path':'/a'}]", "needs \"op\"" },
		{ "{'a':1}", "no array" },
		{ "[{'op':'remove','path':''}]", "whole document" },
	};
	struct err err;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct value doc = v("{'foo':'bar','list':[1],'obj':{}}"), ops = v(cases[i].patch);

		if (patch_json(&doc, &ops, a, &err) >= 0)
			fail_msg("%s should be refused", cases[i].patch);
		if (!strstr(err.text, cases[i].error))
			fail_msg("%s: %s", cases[i].patch, err.text);
	}
	struct value doc = v("{'a':1}"), ops = v("[{'op':'test','path':'/a','value':2}]");

	assert_int_equal(patch_json(&doc, &ops, a, &err), PATCH_TEST_FAILED);
	/* Copies that double each time end early. */
	struct value bomb = { .kind = VALUE_LIST };

	for (int i = 0; i < 40; i++)
		*value_append(a, &bomb) = v("{'op':'copy','from':'/a','path':'/a/-'}");
	doc = v("{'a':[1]}");
	assert_true(patch_json(&doc, &bomb, a, &err) < 0);
}

/* ---- RFC 7386 ---- */

static void test_merge_patch(void **state)
{
	static const struct {
		const char *doc, *patch, *want;
	} cases[] = {
		/* appendix A of the RFC */
		{ "{'a':'b'}", "{'a':'c'}", "{'a':'c'}" },
		{ "{'a':'b'}", "{'b':'c'}", "{'a':'b','b':'c'}" },
		{ "{'a':'b'}", "{'a':null}", "{}" },
		{ "{'a':'b','b':'c'}", "{'a':null}", "{'b':'c'}" },
		{ "{'a':['b']}", "{'a':'c'}", "{'a':'c'}" },
		{ "{'a':'c'}", "{'a':['b']}", "{'a':['b']}" },
		{ "{'a':{'b':'c'}}", "{'a':{'b':'d','c':null}}", "{'a':{'b':'d'}}" },
		{ "{'a':[{'b':'c'}]}", "{'a':[1]}", "{'a':[1]}" },
		{ "['a','b']", "['c','d']", "['c','d']" },
		{ "{'a':'b'}", "['c']", "['c']" },
		{ "{'a':'foo'}", "null", "null" },
		{ "{'a':'foo'}", "'bar'", "'bar'" },
		{ "{'e':null}", "{'a':1}", "{'e':null,'a':1}" },
		{ "[1,2]", "{'a':'b','c':null}", "{'a':'b'}" },
		{ "{}", "{'a':{'bb':{'ccc':null}}}", "{'a':{'bb':{}}}" },
	};
	struct err err;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct value doc = v(cases[i].doc), patch = v(cases[i].patch);

		assert_int_equal(patch_merge(&doc, &patch, a, &err), 0);
		expect(&doc, cases[i].want, cases[i].patch);
	}
}

/* ---- strategic merge, on a PodSpec unless told ---- */

static void test_strategic(void **state)
{
	static const struct {
		const char *doc, *patch, *want;
	} cases[] = {
		/* merge by key; what is new and unplaced comes before the rest that it has no order with */
		{ "{'containers':[{'name':'a','image':'1'},{'name':'b','image':'2'}]}",
			"{'containers':[{'name':'b','image':'3'}]}",
			"{'containers':[{'name':'a','image':'1'},{'name':'b','image':'3'}]}" },
		{ "{'containers':[{'name':'a'}]}",
			"{'containers':[{'name':'a','image':'x'},{'name':'c'}]}",
			"{'containers':[{'name':'a','image':'x'},{'name':'c'}]}" },
		{ "{'containers':[{'name':'a'}]}", "{'containers':[{'name':'c'}]}",
			"{'containers':[{'name':'c'},{'name':'a'}]}" },
		{ "{}", "{'containers':[{'name':'c','image':null}]}",
			"{'containers':[{'name':'c'}]}" },
		/* nested lists merge by their own keys */
		{ "{'containers':[{'name':'a','env':[{'name':'X','value':'1'},{'name':'Y','value':'2'}]}]}",
			"{'containers':[{'name':'a','env':[{'name':'Y','value':'3'}]}]}",
			"{'containers':[{'name':'a','env':[{'name':'X','value':'1'},{'name':'Y','value':'3'}]}]}" },
		/* null deletes; maps merge */
		{ "{'nodeName':'n','nodeSelector':{'a':'1','b':'2'}}",
			"{'nodeName':null,'nodeSelector':{'a':null,'c':'3'}}",
			"{'nodeSelector':{'b':'2','c':'3'}}" },
		/* lists without a merge key are replaced */
		{ "{'tolerations':[{'key':'a'}]}", "{'tolerations':[{'key':'b'}]}",
			"{'tolerations':[{'key':'b'}]}" },
		/* $patch */
		{ "{'containers':[{'name':'a'},{'name':'b'}]}",
			"{'containers':[{'$patch':'delete','name':'a'}]}",
			"{'containers':[{'name':'b'}]}" },
		{ "{'containers':[{'name':'a'},{'name':'b'}]}",
			"{'containers':[{'$patch':'replace'},{'name':'c'}]}",
			"{'containers':[{'name':'c'}]}" },
		{ "{'securityContext':{'runAsUser':1,'fsGroup':2}}",
			"{'securityContext':{'$patch':'replace','runAsUser':3}}",
			"{'securityContext':{'runAsUser':3}}" },
		{ "{'securityContext':{'runAsUser':1}}", "{'securityContext':{'$patch':'delete'}}",
			"{'securityContext':{}}" },
		{ "{'securityContext':{'runAsUser':1}}",
			"{'securityContext':{'$patch':'merge','fsGroup':1}}",
			"{'securityContext':{'runAsUser':1,'fsGroup':1}}" },
		{ "{'nodeSelector':{'a':'1'}}", "{'nodeSelector':{'$patch':'replace','b':'2'}}",
			"{'nodeSelector':{'b':'2'}}" },
		/* $retainKeys */
		{ "{'volumes':[{'name':'v','hostPath':{'path':'/x'}}]}",
			"{'volumes':[{'$retainKeys':['name','emptyDir'],'name':'v','emptyDir':{}}]}",
			"{'volumes':[{'name':'v','emptyDir':{}}]}" },
		/* $setElementOrder */
		{ "{'containers':[{'name':'a'},{'name':'b'}]}",
			"{'$setElementOrder/containers':[{'name':'a'},{'name':'b'},{'name':'c'}],'containers':[{'name':'c'}]}",
			"{'containers':[{'name':'a'},{'name':'b'},{'name':'c'}]}" },
		{ "{'containers':[{'name':'a'},{'name':'b'},{'name':'c'}]}",
			"{'$setElementOrder/containers':[{'name':'c'},{'name':'a'}]}",
			"{'containers':[{'name':'b'},{'name':'c'},{'name':'a'}]}" },
		{ "{'containers':[{'name':'a'},{'name':'s'},{'name':'b'}]}",
			"{'$setElementOrder/containers':[{'name':'a'},{'name':'b'},{'name':'n'}],'containers':[{'name':'n'}]}",
			"{'containers':[{'name':'a'},{'name':'s'},{'name':'b'},{'name':'n'}]}" },
		{ "{'containers':[{'name':'a'},{'name':'b'}]}",
			"{'$setElementOrder/containers':[{'name':'b'}],'containers':[{'$patch':'delete','name':'a'}]}",
			"{'containers':[{'name':'b'}]}" },
		/* directives leave no trace in what is new */
		{ "{}", "{'affinity':{'nodeAffinity':{'$patch':'merge','x':null}}}",
			"{'affinity':{'nodeAffinity':{}}}" },
		{ "{'containers':null}", "{'containers':[{'name':'a'}]}",
			"{'containers':[{'name':'a'}]}" },
		{ "{'containers':[{'name':'a'}]}", "{'containers':null}", "{}" },
	};
	struct err err = { "" };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct value doc = v(cases[i].doc), patch = v(cases[i].patch);

		if (patch_strategic(&core_v1_pod_spec_type, &doc, &patch, a, &err))
			fail_msg("%s: %s", cases[i].patch, err.text);
		expect(&doc, cases[i].want, cases[i].patch);
	}
}

static void test_strategic_scalars(void **state)
{
	static const struct {
		const char *doc, *patch, *want;
	} cases[] = {
		{ "{'finalizers':['a','b']}", "{'finalizers':['c']}",
			"{'finalizers':['c','a','b']}" },
		{ "{'finalizers':['a','b']}",
			"{'$setElementOrder/finalizers':['a','b','c'],'finalizers':['c']}",
			"{'finalizers':['a','b','c']}" },
		{ "{'finalizers':['a','b']}",
			"{'$deleteFromPrimitiveList/finalizers':['a'],'$setElementOrder/finalizers':['b']}",
			"{'finalizers':['b']}" },
		{ "{'finalizers':['a','b']}", "{'finalizers':['a']}", "{'finalizers':['a','b']}" },
		{ "{'ownerReferences':[{'uid':'1','name':'a'}]}",
			"{'ownerReferences':[{'uid':'1','controller':true}]}",
			"{'ownerReferences':[{'uid':'1','name':'a','controller':true}]}" },
		{ "{'labels':{'a':'1'}}", "{'labels':{'b':'2'}}", "{'labels':{'a':'1','b':'2'}}" },
	};
	struct err err = { "" };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct value doc = v(cases[i].doc), patch = v(cases[i].patch);

		if (patch_strategic(&meta_v1_object_meta_type, &doc, &patch, a, &err))
			fail_msg("%s: %s", cases[i].patch, err.text);
		expect(&doc, cases[i].want, cases[i].patch);
	}
}

static void test_strategic_errors(void **state)
{
	static const char *const patches[] = {
		"{'containers':[{'image':'x'}]}",
		"{'containers':[{'$patch':'fly','name':'a'}]}",
		"{'securityContext':{'$patch':'fly'}}",
		"{'containers':[{'$patch':'delete'}]}",
		"{'$setElementOrder/containers':[{'name':'a'}],'containers':[{'name':'b'}]}",
		"{'$setElementOrder/containers':[{'name':'a'},{'name':'b'}],'containers':[{'name':'b'},{'name':'a'}]}",
		"['a']",
	};
	struct err err;

	for (size_t i = 0; i < ARRAY_LEN(patches); i++) {
		struct value
			doc = v("{'containers':[{'name':'a'},{'name':'b'}],'securityContext':{}}"),
			patch = v(patches[i]);

		if (patch_strategic(&core_v1_pod_spec_type, &doc, &patch, a, &err) >= 0)
			fail_msg("%s should be refused", patches[i]);
	}
	/* Rows of inner types are found through the whole object; the patch itself is not touched. */
	struct value doc = v(
		"{'spec':{'template':{'spec':{'containers':[{'name':'a','ports':[{'containerPort':1}]}]}}}}");
	struct value
		patch = v(
			"{'spec':{'template':{'spec':{'containers':[{'name':'a','ports':[{'containerPort':2}]}]}}}}"),
		same = value_copy(a, &patch);

	assert_int_equal(patch_strategic(&apps_v1_deployment_type, &doc, &patch, a, &err), 0);
	expect(&doc,
		"{'spec':{'template':{'spec':{'containers':[{'name':'a','ports':[{'containerPort':2},{'containerPort':1}]}]}}}}",
		"ports");
	assert_true(value_equal(&patch, &same));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_json_patch),
		T(test_json_patch_errors),
		T(test_merge_patch),
		T(test_strategic),
		T(test_strategic_scalars),
		T(test_strategic_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
