/* What upstream's API server would have stored is read, shown as JSON, and stored again: the same bytes. And its keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>

#include "registry/registry.h"

#define GOLDEN "tests/golden/api"

static struct store_codec codec;

static void check_key(const char *ours, const char *stored)
{
	CLEAN_BUF struct buf out = { 0 }, in = { 0 };
	assert_true(codec.key_out(codec.arg, str_of(ours), &out));
	assert_string_equal(out.p, stored);
	assert_true(codec.key_in(codec.arg, buf_str(&out), &in));
	assert_string_equal(in.p, ours);
}

static void keys_are_upstreams(void **state)
{
	CLEAN_BUF struct buf b = { 0 };
	check_key("/pods/default/web-0", "/registry/pods/default/web-0");
	check_key("/nodes/n1", "/registry/minions/n1");
	check_key("/services/default/web", "/registry/services/specs/default/web");
	check_key("/endpoints/default/web", "/registry/services/endpoints/default/web");
	check_key("/replicationcontrollers/default/rc", "/registry/controllers/default/rc");
	check_key("/apps/deployments/default/web", "/registry/deployments/default/web");
	check_key("/networking.k8s.io/ingresses/default/web", "/registry/ingress/default/web");
	check_key("/coordination.k8s.io/leases/kube-system/l", "/registry/leases/kube-system/l");
	check_key("/events/default/e.1", "/registry/events/default/e.1");
	check_key("/apiregistration.k8s.io/apiservices/v1.apps",
		"/registry/apiregistration.k8s.io/apiservices/v1.apps");
	check_key("/apiextensions.k8s.io/customresourcedefinitions/a.b",
		"/registry/apiextensions.k8s.io/customresourcedefinitions/a.b");
	assert_false(codec.key_in(codec.arg, STR("/registry/example.com/things/default/x"), &b));
	assert_false(codec.key_in(codec.arg, STR("/registry/masterleases/192.0.2.1"), &b));
	assert_false(codec.key_in(codec.arg, STR("compact_rev_key"), &b));
	assert_int_equal(b.len, 0);
	assert_int_equal(registry_codec_ttl(&codec, STR("/events/default/e.1")), 3600);
	assert_int_equal(registry_codec_ttl(&codec, STR("/pods/default/e.1")), 0);
}

static void read_file(const char *name, struct buf *out)
{
	CLEAN_FREE char *path = xasprintf(GOLDEN "/%s", name);
	FILE *f = fopen(path, "re");
	char part[4096];
	size_t n;
	assert_non_null(f);
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		buf_add(out, part, n);
	fclose(f);
}

/* Upstream's bytes with an empty resourceVersion, as it is stored. */
static const struct type *as_stored(struct buf *golden, struct arena *a, struct buf *out)
{
	const struct type *t;
	void *obj;
	struct err err = { 0 };
	if (codec_decode(buf_str(golden), a, NULL, &t, &obj, &err) || !t->is_object)
		return NULL;
	model_meta(t, obj)->resource_version = STR("");
	proto_encode_object(t, obj, out);
	return t;
}

/* 1: not a stored resource. */
static int check_golden(const char *name)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf golden = { 0 }, stored = { 0 }, key = { 0 }, json = { 0 },
			     back = { 0 };
	struct store_op op = { 0 };
	struct err err = { 0 };
	read_file(name, &golden);
	const struct type *t = as_stored(&golden, a, &stored);
	const struct resource_row *row = NULL;
	for (size_t i = 0; t && i < n_resource_rows; i++)
		if (resource_rows[i].type == t)
			row = &resource_rows[i];
	bool other_version = row &&
		((!strcmp(row->group, "autoscaling") && !strcmp(row->version, "v1")) ||
			!strcmp(row->group, "events.k8s.io"));
	if (!row || other_version)
		return 1;
	buf_addf(&key, "/%s%s%s/%sx", row->group, *row->group ? "/" : "", row->plural,
		row->namespaced ? "ns/" : "");
	CLEAN_BUF struct buf there = { 0 };
	if (!codec.key_out(codec.arg, buf_str(&key), &there))
		return 1;
	if (codec.value_in(codec.arg, buf_str(&key), buf_str(&stored), a, &op, &err))
		fail_msg("%s: %s", name, err.text);
	buf_add_str(&json, op.json_head);
	buf_addz(&json, "17");
	buf_add_str(&json, op.json_tail);
	assert_non_null(strstr(json.p, "\"resourceVersion\":\"17\""));
	if (codec.value_out(codec.arg, buf_str(&key), buf_str(&json), &back, &err))
		fail_msg("%s: %s", name, err.text);
	if (!str_eq(buf_str(&back), buf_str(&stored)))
		fail_msg("%s: %zu bytes were stored, %zu come back, or others", name, stored.len,
			back.len);
	return 0;
}

static void values_are_upstreams(void **state)
{
	DIR *d = opendir(GOLDEN);
	int checked = 0;
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		if (str_has_suffix(str_of(e->d_name), STR(".pb")))
			checked += check_golden(e->d_name) == 0;
	closedir(d);
	assert_in_range(checked, 45, 1000);
}

static void other_versions_are_converted(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf golden = { 0 };
	struct store_op op = { 0 };
	struct err err = { 0 };
	read_file("autoscaling.v1.HorizontalPodAutoscaler.pb", &golden);
	assert_int_equal(
		codec.value_in(codec.arg, STR("/autoscaling/horizontalpodautoscalers/ns/x"),
			buf_str(&golden), a, &op, &err),
		0);
	assert_true(str_find_str(op.json_head, STR("\"apiVersion\":\"autoscaling/v2\"")) >= 0);
	assert_int_equal(
		codec.value_in(codec.arg, STR("/pods/ns/x"), buf_str(&golden), a, &op, &err),
		-EINVAL);
	assert_true(codec.value_in(
			    codec.arg, STR("/pods/ns/x"), STR("k8s\0damaged"), a, &op, &err) < 0);
	/* JSON, as kubectl or another tool may have put it there */
	op = (struct store_op){ 0 };
	assert_int_equal(
		codec.value_in(codec.arg, STR("/pods/ns/x"),
			STR("{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"x\",\"labels\":{\"a\":\"b\"}},\"spec\":{\"nodeName\":\"n1\"}}"),
			a, &op, &err),
		0);
	assert_int_equal(op.n_labels, 1);
	bool node = false;
	for (size_t i = 0; i < op.n_fields; i++)
		node |= str_eqz(op.fields[i].key, "spec.nodeName") &&
			str_eqz(op.fields[i].value, "n1");
	assert_true(node);
}

static int setup(void **state)
{
	return registry_codec_new(&codec, NULL);
}

static int teardown(void **state)
{
	registry_codec_free(&codec);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_upstreams),
		cmocka_unit_test(values_are_upstreams),
		cmocka_unit_test(other_versions_are_converted),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
