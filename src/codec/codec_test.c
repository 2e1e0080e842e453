/* Bad input and its words, strict notes, trees, YAML, envelopes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "codec/codec.h"
#include "gen/types.h"

static struct arena *a;

static int setup(void **state)
{
	a = arena_new(0);
	return 0;
}

static int teardown(void **state)
{
	arena_free(a);
	return 0;
}

static void expect_error(const struct type *t, struct str text, const char *want)
{
	struct err err = { "" };
	void *obj = NULL;

	assert_int_equal(json_decode(t, text, a, NULL, &obj, &err), -EBADMSG);
	assert_null(obj);
	assert_string_equal(err.text, want);
}

static void test_malformed(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ "", "unexpected end of JSON input" },
		{ "  ", "unexpected end of JSON input" },
		{ "{", "unexpected end of JSON input" },
		{ "{\"a\"", "unexpected end of JSON input" },
		{ "{\"a\":", "unexpected end of JSON input" },
		{ "{\"kind\":\"Pod", "unexpected end of JSON input" },
		{ "{a:1}", "invalid character 'a' looking for beginning of object key string" },
		{ "{\"a\" 1}", "invalid character '1' after object key" },
		{ "{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair" },
		{ "{\"a\":[1 2]}", "invalid character '2' after array element" },
		{ "{\"a\":1}x", "invalid character 'x' after top-level value" },
		{ "null],1", "invalid character ']' after top-level value" },
		{ "{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')" },
		{ "{\"a\":nul", "unexpected end of JSON input" },
		{ "{\"a\":01}", "invalid character '1' after object key:value pair" },
		{ "{\"a\":1.}", "invalid character '}' after decimal point in numeric literal" },
		{ "{\"a\":1e}", "invalid character '}' in exponent of numeric literal" },
		{ "{\"a\":-}", "invalid character '}' in numeric literal" },
		{ "{\"a\":\"\\x\"}", "invalid character 'x' in string escape code" },
		{ "{\"a\":\"\\u12g4\"}",
			"invalid character 'g' in \\u hexadecimal character escape" },
		{ "{\"a\":\"\n\"}", "invalid character '\\n' in string literal" },
		{ "{\"a\":1,}",
			"invalid character '}' looking for beginning of object key string" },
		{ "{\"a\":[1,]}", "invalid character ']' looking for beginning of value" },
		{ "'", "invalid character '\\'' looking for beginning of value" },
		/* A wrong type does not hide that the text is malformed. */
		{ "{\"spec\":1,", "unexpected end of JSON input" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		expect_error(&core_v1_pod_type, str_of(cases[i].text), cases[i].error);
}

static void test_wrong_types(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ "{\"spec\":{\"replicas\":\"3\"}}",
			"json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32" },
		{ "{\"spec\":{\"replicas\":1.5}}",
			"json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32" },
		{ "{\"spec\":{\"replicas\":3000000000}}",
			"json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32" },
		{ "{\"spec\":[]}",
			"json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec" },
		{ "{\"metadata\":{\"labels\":{\"a\":1}}}",
			"json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string" },
		{ "{\"metadata\":{\"labels\":[]}}",
			"json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string" },
		{ "{\"spec\":{\"template\":{\"spec\":{\"containers\":{}}}}}",
			"json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container" },
		{ "{\"spec\":{\"template\":{\"spec\":{\"containers\":[1]}}}}",
			"json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.containers of type v1.Container" },
		{ "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"tty\":\"yes\"}]}}}}",
			"json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.tty of type bool" },
		{ "[]", "json: cannot unmarshal array into Go value of type v1.Deployment" },
		{ "\"x\"", "json: cannot unmarshal string into Go value of type v1.Deployment" },
		{ "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"resources\":{\"limits\":{\"cpu\":\"x\"}}}]}}}}",
			"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'" },
		{ "{\"metadata\":{\"creationTimestamp\":\"now\"}}",
			"parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as a time" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		expect_error(&apps_v1_deployment_type, str_of(cases[i].text), cases[i].error);
}

static void test_notes(void **state)
{
	struct decode_notes notes = { .arena = a };
	struct err err;
	void *obj;
	struct str text = STR(
		"{\"kind\":\"Pod\",\"Kind\":\"x\",\"spec\":{\"foo\":{\"a\":[1]},\"hostNetwork\":true,\"containers\":[{\"name\":\"a\",\"imag\":1},"
		"{\"name\":\"b\",\"name\":\"c\"}]},\"metadata\":{\"labels\":{\"b\":\"1\",\"a\":\"2\",\"b\":\"3\"}},\"kind\":\"Pod\"}");
	static const char *const want[] = {
		"unknown field \"Kind\"",
		"unknown field \"spec.foo\"",
		"unknown field \"spec.containers[0].imag\"",
		"duplicate field \"spec.containers[1].name\"",
		"duplicate field \"metadata.labels.b\"",
		"duplicate field \"kind\"",
	};

	assert_int_equal(json_decode(&core_v1_pod_type, text, a, &notes, &obj, &err), 0);
	assert_int_equal(notes.len, ARRAY_LEN(want));
	for (size_t i = 0; i < notes.len; i++)
		assert_string_equal(notes.items[i].p, want[i]);
	struct core_v1_pod *pod = obj;

	assert_string_equal(pod->spec.containers.items[1].name.p, "c");
	assert_int_equal(pod->metadata.labels.len, 2);
	assert_string_equal(str_map_get(&pod->metadata.labels, STR("b")).p, "3");
	assert_string_equal(pod->metadata.labels.items[0].key.p, "a");
}

static void test_null(void **state)
{
	struct err err;
	void *obj;
	struct str text = STR(
		"{\"spec\":{\"replicas\":null,\"selector\":null,\"paused\":null,\"template\":null},\"metadata\":{\"labels\":null,\"name\":null}}");
	struct buf out = { 0 };

	assert_int_equal(json_decode(&apps_v1_deployment_type, text, a, NULL, &obj, &err), 0);
	json_encode(&apps_v1_deployment_type, obj, &out);
	assert_string_equal(out.p,
		"{\"metadata\":{},\"spec\":{\"selector\":null,\"template\":{\"metadata\":{},\"spec\":{\"containers\":null}},\"strategy\":{}},\"status\":{}}");
	buf_deinit(&out);
	assert_int_equal(
		json_decode(&apps_v1_deployment_type, STR("null"), a, NULL, &obj, &err), 0);
}

static void repeat(struct buf *b, const char *s, int n)
{
	for (int i = 0; i < n; i++)
		buf_addz(b, s);
}

/* 10,000 levels, on a thread with a small stack. */
static void *deep(void *arg)
{
	struct err err;
	void *obj;
	struct value v;
	struct buf b = { 0 };

	repeat(&b, "{\"a\":", 10000);
	assert_int_equal(
		json_decode(&core_v1_pod_type, buf_str(&b), a, NULL, &obj, &err), -EBADMSG);
	assert_int_equal(json_parse(buf_str(&b), a, &v, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "max depth"));
	assert_int_equal(yaml_parse(buf_str(&b), a, &v, &err), -EBADMSG);
	buf_clear(&b);
	repeat(&b, "[", 10000);
	assert_int_equal(json_parse(buf_str(&b), a, &v, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "max depth"));
	buf_clear(&b);
	/* As deep as it may be, through the types that nest. */
	buf_addz(&b, "{\"openAPIV3Schema\":{");
	repeat(&b, "\"not\":{", CODEC_MAX_DEPTH - 2);
	repeat(&b, "}", CODEC_MAX_DEPTH);
	assert_int_equal(json_decode(&apiextensions_v1_custom_resource_validation_type, buf_str(&b),
				 a, NULL, &obj, &err),
		0);
	struct buf out = { 0 }, again = { 0 };
	void *copy = model_copy(&apiextensions_v1_custom_resource_validation_type, obj, a);

	json_encode(&apiextensions_v1_custom_resource_validation_type, copy, &out);
	assert_true(str_eq(buf_str(&out), buf_str(&b)));
	proto_encode(&apiextensions_v1_custom_resource_validation_type, copy, &again);
	assert_int_equal(proto_decode(&apiextensions_v1_custom_resource_validation_type,
				 buf_str(&again), a, &obj, &err),
		0);
	assert_int_equal(json_parse(buf_str(&b), a, &v, &err), 0);
	buf_deinit(&b);
	buf_deinit(&out);
	buf_deinit(&again);
	return NULL;
}

static void test_deep(void **state)
{
	pthread_attr_t attr;
	pthread_t t;
	size_t stack = 256 << 10;

#ifdef __SANITIZE_ADDRESS__
	stack *= 8; /* its frames are larger */
#endif
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, stack);
	assert_int_equal(pthread_create(&t, &attr, deep, NULL), 0);
	pthread_join(t, NULL);
	pthread_attr_destroy(&attr);
}

static void test_many_small_items(void **state)
{
	struct buf b = { 0 };
	struct err err;
	void *obj;

	buf_addz(&b, "{\"spec\":{\"containers\":[{}");
	repeat(&b, ",{}", 200000);
	buf_addz(&b, "]}}");
	assert_int_equal(
		json_decode(&core_v1_pod_type, buf_str(&b), a, NULL, &obj, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "too many items"));
	assert_true(arena_used(a) < 100 << 20);
	buf_deinit(&b);
}

static void test_utf8(void **state)
{
	struct err err;
	void *obj;
	struct str text = STR(
		"{\"metadata\":{\"name\":\"a\xff\xc3(\\ud800x\\ud83d\\ude00\",\"labels\":{\"\xed\xa0\x80\":\"\xe6\xbc\xa2\"}}}");

	assert_int_equal(json_decode(&core_v1_pod_type, text, a, NULL, &obj, &err), 0);
	struct core_v1_pod *pod = obj;

	assert_string_equal(
		pod->metadata.name.p, "a\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbdx\xf0\x9f\x98\x80");
	assert_string_equal(
		pod->metadata.labels.items[0].key.p, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	assert_string_equal(pod->metadata.labels.items[0].value.p, "\xe6\xbc\xa2");
	/* {1: ObjectMeta{1 name}} with a broken byte */
	assert_int_equal(
		proto_decode(&core_v1_pod_type, STR("\x0a\x03\x0a\x01\xff"), a, &obj, &err), 0);
	assert_string_equal(((struct core_v1_pod *)obj)->metadata.name.p, "\xef\xbf\xbd");
}

static void test_bad_proto(void **state)
{
	static const struct {
		struct str bytes;
		const char *error;
	} cases[] = {
		{ { "\x0a", 1 }, "unexpected EOF" },
		{ { "\x0a\x05\x0a\x01", 4 }, "unexpected EOF" },
		{ { "\x08\x01", 2 }, "wrong wireType = 0 for field metadata" },
		{ { "\x00\x01", 2 }, "illegal tag 0" },
		{ { "\x0f\x01", 2 }, "wireType" },
		{ { "\x84\x01", 2 }, "end of group" },
		{ { "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12 }, "integer overflow" },
	};
	struct err err;
	void *obj;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(
			proto_decode(&core_v1_pod_type, cases[i].bytes, a, &obj, &err), -EBADMSG);
		if (!strstr(err.text, cases[i].error))
			fail_msg("case %zu: %s", i, err.text);
	}
	/* Unknown members of every form are skipped. */
	assert_int_equal(proto_decode(&core_v1_pod_type,
				 str_n("\xc0\x3e\x07\xc1\x3e"
				       "12345678\xc5\x3e"
				       "1234\xc2\x3e\x01x\xc3\x3e\x08\x01\xc4\x3e",
					 29),
				 a, &obj, &err),
		0);
	/* JSON in a raw member must be JSON: it will stand inside ours. */
	assert_int_equal(proto_decode(&apps_v1_controller_revision_type,
				 STR("\x12\x0c\x0a\x0a{},\"x\":{}}"), a, &obj, &err),
		-EBADMSG);
}

static void test_later_runs(void **state)
{
	/* metadata{finalizers a, b}, then generation, then finalizers c: lists may come in parts */
	struct str bytes = STR("\x0a\x0b\x72\x01"
			       "a\x72\x01"
			       "b\x38\x05\x72\x01"
			       "c");
	struct err err;
	void *obj;

	assert_int_equal(proto_decode(&core_v1_pod_type, bytes, a, &obj, &err), 0);
	struct core_v1_pod *pod = obj;

	assert_int_equal(pod->metadata.finalizers.len, 3);
	assert_string_equal(pod->metadata.finalizers.items[2].p, "c");
	assert_int_equal(pod->metadata.generation, 5);
}

static void test_texts(void **state)
{
	struct buf out = { 0 };

	json_write_text(
		STR("a\"\\\b\f\n\r\t\x01<>&\x7f\xe2\x80\xa8\xe2\x80\xa9\xff\xc3\xa9"), &out);
	assert_string_equal(out.p,
		"\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u003c\\u003e\\u0026\x7f\\u2028\\u2029\\ufffd\xc3\xa9\"");
	buf_deinit(&out);
}

static void test_numbers(void **state)
{
	static const char *const same[] = { "0", "-0", "1", "1.5", "0.1", "-12.75", "1e+21", "1e-7",
		"0.000001", "123456789012345680000", "9007199254740993", "1.7976931348623157e+308",
		"5e-324" };
	struct err err;

	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		struct value v;
		struct buf out = { 0 };

		assert_int_equal(json_parse(str_of(same[i]), a, &v, &err), 0);
		json_write(&v, &out);
		if (strcmp(same[i], "-0"))
			assert_string_equal(out.p, same[i]);
		buf_deinit(&out);
	}
}

static void test_tree(void **state)
{
	struct err err;
	struct value v;
	struct buf out = { 0 }, many = { 0 };

	assert_int_equal(
		json_parse(STR(" {\"b\" : [1, true, null, {\"x\":-1.5}], \"a\":\"t\", \"b\":2} "),
			a, &v, &err),
		0);
	json_write(&v, &out);
	assert_string_equal(out.p, "{\"b\":2,\"a\":\"t\"}");
	buf_clear(&out);
	/* The same among many members. */
	buf_addc(&many, '{');
	for (int i = 0; i < 50; i++)
		buf_addf(&many, "\"k%d\":%d,", i % 40, i);
	buf_addz(&many, "\"z\":[]}");
	assert_int_equal(json_parse(buf_str(&many), a, &v, &err), 0);
	assert_int_equal(v.object.len, 41);
	assert_int_equal(value_get(&v, STR("k3"))->integer, 43);
	assert_string_equal(v.object.members[3].key.p, "k3");
	buf_deinit(&many);
	buf_deinit(&out);
}

static void test_peek(void **state)
{
	struct str version, kind;
	struct err err;

	assert_int_equal(
		json_peek_type_meta(
			STR("{\"metadata\":{\"kind\":\"no\"},\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"x\":"),
			a, &version, &kind, &err),
		0);
	assert_string_equal(kind.p, "Pod");
	assert_string_equal(version.p, "v1");
	assert_int_equal(json_peek_type_meta(STR("{\"kind\":null}"), a, &version, &kind, &err), 0);
	assert_int_equal(kind.len, 0);
	assert_int_equal(
		json_peek_type_meta(STR("{\"kind\":1}"), a, &version, &kind, &err), -EBADMSG);
	assert_int_equal(json_peek_type_meta(STR("[]"), a, &version, &kind, &err), -EBADMSG);
	assert_int_equal(json_peek_type_meta(STR("{\"a\""), a, &version, &kind, &err), -EBADMSG);
	assert_string_equal(err.text, "unexpected end of JSON input");
}

/* YAML read and written as JSON. */
static void expect_yaml(const char *yaml, const char *json)
{
	struct value v;
	struct err err = { "" };
	struct buf out = { 0 };

	if (yaml_parse(str_of(yaml), a, &v, &err) < 0)
		fail_msg("%s\n%s", yaml, err.text);
	json_write(&v, &out);
	assert_string_equal(out.p, json);
	buf_deinit(&out);
}

static void test_yaml_read(void **state)
{
	expect_yaml("a: 1\nb: [x, 'y', \"z\"]\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\"]}");
	expect_yaml("a: yes\nb: No\nc: on\nd: ~\ne:\nf: 'yes'\ng: true1\n",
		"{\"a\":true,\"b\":false,\"c\":true,\"d\":null,\"e\":null,\"f\":\"yes\",\"g\":\"true1\"}");
	expect_yaml(
		"a: 0644\nb: 0x1F\nc: 1_000\nd: 1.5\ne: 1e3\nf: -7\ng: 1.2.3\nh: 0b11\ni: 2001-01-01\nj: '12'\n",
		"{\"a\":420,\"b\":31,\"c\":1000,\"d\":1.5,\"e\":1000,\"f\":-7,\"g\":\"1.2.3\",\"h\":3,\"i\":\"2001-01-01\",\"j\":\"12\"}");
	expect_yaml("x: &d {a: 1, b: 2}\nm:\n  <<: *d\n  b: 3\nz: *d\n",
		"{\"x\":{\"a\":1,\"b\":2},\"m\":{\"b\":3,\"a\":1},\"z\":{\"a\":1,\"b\":2}}");
	expect_yaml("a: |\n  one\n  two\nb: >\n  one\n  two\n1: x\ntrue: w\n",
		"{\"a\":\"one\\ntwo\\n\",\"b\":\"one two\\n\",\"1\":\"x\",\"true\":\"w\"}");
	expect_yaml("a: 1\na: 2\n", "{\"a\":2}");
	expect_yaml("# nothing\n", "null");
	expect_yaml("a: !!str 12\nb: ! x\n", "{\"a\":\"12\",\"b\":\"x\"}");
}

static void test_yaml_bad(void **state)
{
	struct value v;
	struct err err;
	struct buf bomb = { 0 };

	assert_int_equal(yaml_parse(STR("a: [1"), a, &v, &err), -EBADMSG);
	assert_int_equal(yaml_parse(STR("a: *nope"), a, &v, &err), -EBADMSG);
	assert_int_equal(yaml_parse(STR("? [a]\n: b\n"), a, &v, &err), -EBADMSG);
	assert_int_equal(yaml_parse(STR("a: b: c"), a, &v, &err), -EBADMSG);
	buf_addz(&bomb, "a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 10; i++)
		buf_addf(&bomb, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i,
			i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
	assert_int_equal(yaml_parse(buf_str(&bomb), a, &v, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "excessive aliasing"));
	buf_deinit(&bomb);
}

static void test_yaml_all(void **state)
{
	struct value *docs;
	struct err err;
	size_t n;

	assert_int_equal(
		yaml_parse_all(STR("---\na: 1\n---\nb: 2\n...\n---\n[c]\n"), a, &docs, &n, &err),
		0);
	assert_int_equal(n, 3);
	assert_int_equal(value_get(&docs[1], STR("b"))->integer, 2);
	assert_int_equal(docs[2].kind, VALUE_LIST);
}

static void test_yaml_write(void **state)
{
	struct value v;
	struct err err;
	struct buf out = { 0 };

	assert_int_equal(
		json_parse(
			STR("{\"b\":[1,{\"x\":\"y\",\"e\":[]}],\"a\":\"yes\",\"c\":\"two\\nlines\\n\",\"d\":null,"
			    "\"a10\":\"0644\",\"a2\":\"\",\"f\":{},\"g\":\"2001-01-01\",\"h\":\"a: b\"}"),
			a, &v, &err),
		0);
	yaml_write(&v, &out);
	assert_string_equal(out.p,
		"a: \"yes\"\na2: \"\"\na10: \"0644\"\nb:\n- 1\n- e: []\n  x: \"y\"\nc: |\n  two\n  lines\nd: null\nf: {}\ng: \"2001-01-01\"\nh: 'a: b'\n");
	buf_deinit(&out);
}

static void test_convert(void **state)
{
	struct str json = STR(
		"{\"kind\":\"Service\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"},\"spec\":{\"ports\":[{\"port\":80,"
		"\"targetPort\":\"web\"}]},\"status\":{\"loadBalancer\":{}}}");
	struct buf proto = { 0 }, yaml = { 0 }, back = { 0 };
	struct err err = { "" };

	assert_int_equal(codec_detect(json), FORMAT_JSON);
	assert_int_equal(codec_convert(json, FORMAT_PROTOBUF, NULL, &proto, &err), 0);
	assert_int_equal(codec_detect(buf_str(&proto)), FORMAT_PROTOBUF);
	assert_int_equal(codec_convert(buf_str(&proto), FORMAT_YAML, NULL, &yaml, &err), 0);
	assert_string_equal(yaml.p,
		"apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n  - port: 80\n    targetPort: web\nstatus:\n  loadBalancer: {}\n");
	assert_int_equal(codec_convert(buf_str(&yaml), FORMAT_JSON, NULL, &back, &err), 0);
	assert_true(str_eq(buf_str(&back), json));
	buf_clear(&back);
	assert_int_equal(codec_convert(STR("{\"kind\":\"Nope\",\"apiVersion\":\"v9\"}"),
				 FORMAT_JSON, NULL, &back, &err),
		-ENOENT);
	assert_string_equal(err.text, "no kind \"Nope\" is registered for version \"v9\"");
	assert_int_equal(codec_convert(STR("x: 1"), FORMAT_JSON, NULL, &back, &err), -EBADMSG);
	assert_int_equal(codec_convert(STR("k8s"), FORMAT_JSON, NULL, &back, &err), -EBADMSG);
	buf_deinit(&proto);
	buf_deinit(&yaml);
	buf_deinit(&back);
}

static void test_either(void **state)
{
	struct str json = STR(
		"{\"items\":[{\"type\":\"string\"},{}],\"additionalProperties\":false,\"dependencies\":"
		"{\"a\":[\"b\"],\"c\":{\"type\":\"x\"}},\"additionalItems\":{\"type\":\"y\"}}");
	struct buf out = { 0 };
	struct err err;
	void *obj;

	assert_int_equal(
		json_decode(&apiextensions_v1_json_schema_props_type, json, a, NULL, &obj, &err),
		0);
	struct apiextensions_v1_json_schema_props *p = obj;

	assert_false(p->additional_properties->allows);
	assert_true(p->additional_items->allows);
	json_encode(&apiextensions_v1_json_schema_props_type, obj, &out);
	assert_string_equal(out.p, json.p);
	buf_deinit(&out);
	assert_int_equal(json_decode(&apiextensions_v1_json_schema_props_type, STR("{\"items\":3}"),
				 a, NULL, &obj, &err),
		-EBADMSG);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_malformed),
		T(test_wrong_types),
		T(test_notes),
		T(test_null),
		T(test_deep),
		T(test_many_small_items),
		T(test_utf8),
		T(test_bad_proto),
		T(test_later_runs),
		T(test_texts),
		T(test_numbers),
		T(test_tree),
		T(test_peek),
		T(test_yaml_read),
		T(test_yaml_bad),
		T(test_yaml_all),
		T(test_yaml_write),
		T(test_convert),
		T(test_either),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
