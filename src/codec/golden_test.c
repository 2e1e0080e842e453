/* Recorded bytes of upstream, one object a kind with every field set: JSON and protobuf decode to equal objects, and both
 * encode back to the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>

#include "codec/codec.h"

#define DIR_NAME "tests/golden/api"

static bool read_file(const char *path, struct buf *out)
{
	FILE *f = fopen(path, "re");
	char part[4096];
	size_t n;

	if (!f)
		return false;
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		buf_add(out, part, n);
	fclose(f);
	return true;
}

/* apps.v1.Deployment.json, authorization.k8s.io.v1.SubjectAccessReview.json -> its type */
static const struct type *type_of(const char *file)
{
	char name[256];

	snprintf(name, sizeof(name), "%.*s", (int)(strlen(file) - 5), file);
	char *kind = strrchr(name, '.');
	*kind++ = '\0';
	char *version = strrchr(name, '.');
	*version++ = '\0';
	struct str group = !strcmp(name, "core") ? STR("") : str_of(name);
	const struct type *t = model_type(group, str_of(version), str_of(kind));

	if (t)
		return t;
	char proto[320];

	snprintf(proto, sizeof(proto), "io.k8s.apimachinery.pkg.apis.meta.v1.%s", kind);
	return model_type_by_proto(str_of(proto));
}

static void differ(
	const char *what, const char *file, const struct buf *want, const struct buf *got)
{
	size_t i = 0;

	while (i < want->len && i < got->len && want->p[i] == got->p[i])
		i++;
	size_t from = i > 60 ? i - 60 : 0;

	fail_msg("%s: %s differs at byte %zu of %zu (got %zu bytes)\nwant …%.120s\ngot  …%.120s",
		file, what, i, want->len, got->len, want->p + from,
		got->len > from ? got->p + from : "");
}

static void check_file(const char *file)
{
	char path[512];
	struct buf json = { 0 }, pb = { 0 }, out = { 0 }, pretty = { 0 };
	struct arena *a = arena_new(0);
	struct err err = { "" };
	void *from_json, *from_pb;
	struct proto_envelope env;
	struct value tree;
	struct decode_notes notes = { .arena = a };
	const struct type *t = type_of(file);

	assert_non_null(t);
	snprintf(path, sizeof(path), DIR_NAME "/%s", file);
	assert_true(read_file(path, &json));
	snprintf(path, sizeof(path), DIR_NAME "/%.*s.pb", (int)(strlen(file) - 5), file);
	assert_true(read_file(path, &pb));
	if (json_decode(t, buf_str(&json), a, &notes, &from_json, &err) < 0)
		fail_msg("%s: %s", file, err.text);
	if (notes.len)
		fail_msg("%s: %s", file, notes.items[0].p);
	if (proto_open(buf_str(&pb), &env, &err) < 0 ||
		proto_decode(t, env.raw, a, &from_pb, &err) < 0)
		fail_msg("%s: %s", file, err.text);
	if (t->is_typed) {
		struct object_head *head = from_pb;

		head->api_version = arena_str(a, env.api_version);
		head->kind = arena_str(a, env.kind);
	}
	if (!model_equal(t, from_json, from_pb))
		fail_msg("%s: JSON and protobuf decode to different objects", file);
	void *copy = model_copy(t, from_json, a);
	assert_true(model_equal(t, copy, from_json));

	proto_encode_object(t, copy, &out);
	if (out.len != pb.len || memcmp(out.p, pb.p, pb.len))
		differ("protobuf", file, &pb, &out);
	buf_clear(&out);
	json_encode(t, from_pb, &out);
	assert_int_equal(json_parse(buf_str(&out), a, &tree, &err), 0);
	json_write_pretty(&tree, &pretty, 2);
	if (pretty.len != json.len || memcmp(pretty.p, json.p, json.len))
		differ("JSON", file, &json, &pretty);

	buf_deinit(&json);
	buf_deinit(&pb);
	buf_deinit(&out);
	buf_deinit(&pretty);
	arena_free(a);
}

static void test_golden(void **state)
{
	DIR *dir = opendir(DIR_NAME);
	size_t n = 0;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));) {
		size_t len = strlen(e->d_name);

		if (len < 6 || strcmp(e->d_name + len - 5, ".json"))
			continue;
		check_file(e->d_name);
		n++;
	}
	closedir(dir);
	assert_int_equal(n, 73);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
