/* Objects, collections, defaults and validation over the generated types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "gen/types.h"
#include "model/internal.h"

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

static void test_find(void **state)
{
	size_t n;
	const struct type *const *types = model_types(&n);

	assert_ptr_equal(
		model_type(STR("apps"), STR("v1"), STR("Deployment")), &apps_v1_deployment_type);
	assert_ptr_equal(model_type(STR(""), STR("v1"), STR("Status")), &meta_v1_status_type);
	assert_ptr_equal(
		model_type(STR("meta.k8s.io"), STR("v1"), STR("Table")), &meta_v1_table_type);
	assert_ptr_equal(model_type(STR("apps"), STR("v1"), STR("DeleteOptions")),
		&meta_v1_delete_options_type);
	assert_null(model_type(STR("apps"), STR("v1"), STR("DeploymentSpec"))); /* no kind */
	assert_null(model_type(STR("apps"), STR("v2"), STR("Deployment")));
	assert_ptr_equal(
		model_type_by_proto(STR("io.k8s.api.core.v1.PodSpec")), &core_v1_pod_spec_type);
	assert_null(model_type_by_proto(STR("io.k8s.api.core.v1.Nope")));
	/* Every member of every type is found by its name, and every tag by its slot: the compiler's tables agree with us. */
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < types[i]->n_flat; j++) {
			const struct field *f = types[i]->flat[j].field;

			assert_int_equal(f->name_len, strlen(f->name));
			assert_ptr_equal(model_flat_field(types[i], str_n(f->name, f->name_len)),
				&types[i]->flat[j]);
		}
		assert_null(model_field(types[i], STR("noSuchMember")));
		for (size_t j = 0; j < types[i]->n_fields; j++) {
			const struct field *f = &types[i]->fields[j];

			if (f->tag)
				assert_ptr_equal(
					&types[i]->fields[types[i]->tag_slots[f->tag] - 1], f);
			assert_true(f->offset + field_value_size(f) <= types[i]->size);
		}
	}
}

static void test_names(void **state)
{
	struct core_v1_pod *pod = model_new(&core_v1_pod_type, a);
	struct apps_v1_deployment *d = model_new(&apps_v1_deployment_type, a);

	assert_string_equal(pod->api_version.p, "v1");
	assert_string_equal(d->api_version.p, "apps/v1");
	assert_string_equal(d->kind.p, "Deployment");
	assert_ptr_equal(model_meta(&core_v1_pod_type, pod), &pod->metadata);
	assert_null(model_meta(&core_v1_pod_spec_type, &pod->spec));
	(void)pod->spec.host_pid, (void)pod->status.pod_ips,
		(void)d->spec.template.spec.set_hostname_as_fqdn;
}

static void test_lists(void **state)
{
	struct core_v1_pod_spec spec = { 0 };
	char name[8];

	for (int i = 0; i < 100; i++) {
		struct core_v1_container *c = LIST_ADD(a, &spec.containers);

		assert_true(model_is_zero(&core_v1_container_type, c));
		c->name = arena_fmt(a, "c%d", i);
	}
	/* A copy has just as much room as its length asks for. */
	struct core_v1_pod_spec *copy = model_copy(&core_v1_pod_spec_type, &spec, a);

	LIST_ADD(a, &copy->containers)->name = STR("c100");
	assert_int_equal(copy->containers.len, 101);
	for (int i = 0; i < 101; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		assert_string_equal(copy->containers.items[i].name.p, name);
	}
	assert_int_equal(spec.containers.len, 100);
}

static void test_maps(void **state)
{
	struct str_map m = { 0 };

	str_map_set(a, &m, STR("b"), STR("2"));
	str_map_set(a, &m, STR("a"), STR("1"));
	str_map_set(a, &m, STR("c"), STR_NONE);
	str_map_set(a, &m, STR("b"), STR("3"));
	assert_int_equal(m.len, 3);
	assert_string_equal(m.items[0].key.p, "a");
	assert_string_equal(str_map_get(&m, STR("b")).p, "3");
	assert_non_null(str_map_get(&m, STR("c")).p);
	assert_null(str_map_get(&m, STR("d")).p);
	assert_true(str_map_remove(&m, STR("a")));
	assert_false(str_map_remove(&m, STR("a")));
	assert_false(str_map_has(&m, STR("a")));
	assert_int_equal(m.len, 2);
}

static void test_equal(void **state)
{
	struct apps_v1_deployment *d = model_new(&apps_v1_deployment_type, a), *e;

	d->spec.replicas = (struct opt_int32)SOME(3);
	d->spec.selector = arena_alloc(a, sizeof(*d->spec.selector));
	str_map_set(a, &d->spec.selector->match_labels, STR("a"), STR("b"));
	e = model_copy(&apps_v1_deployment_type, d, a);
	assert_true(model_equal(&apps_v1_deployment_type, d, e));
	assert_ptr_not_equal(d->spec.selector, e->spec.selector);
	e->metadata.labels.items = MODEL_EMPTY; /* nil and empty are the same */
	assert_true(model_equal(&apps_v1_deployment_type, d, e));
	e->spec.replicas.value = 4;
	assert_false(model_equal(&apps_v1_deployment_type, d, e));
	e->spec.replicas = d->spec.replicas;
	str_map_set(a, &e->spec.selector->match_labels, STR("a"), STR("c"));
	assert_false(model_equal(&apps_v1_deployment_type, d, e));
	assert_string_equal(d->spec.selector->match_labels.items[0].value.p, "b");
	/* A pointer to zero is not no pointer. */
	e = model_copy(&apps_v1_deployment_type, d, a);
	d->spec.replicas = (struct opt_int32)SOME(0);
	e->spec.replicas = (struct opt_int32){ 0 };
	assert_false(model_equal(&apps_v1_deployment_type, d, e));
}

static void test_default(void **state)
{
	struct apps_v1_deployment *d = model_new(&apps_v1_deployment_type, a);
	struct core_v1_container *c = LIST_ADD(a, &d->spec.template.spec.containers);

	d->spec.progress_deadline_seconds = (struct opt_int32)SOME(0); /* there: stays */
	LIST_ADD(a, &c->ports)->container_port = 80;
	c->liveness_probe = arena_alloc(a, sizeof(*c->liveness_probe));
	c->liveness_probe->period_seconds = 3;
	model_default(&apps_v1_deployment_type, d, a);
	assert_true(d->spec.replicas.set);
	assert_int_equal(d->spec.replicas.value, 1);
	assert_int_equal(d->spec.progress_deadline_seconds.value, 0);
	assert_int_equal(d->spec.revision_history_limit.value, 10);
	assert_string_equal(d->spec.strategy.type.p, "RollingUpdate");
	assert_string_equal(d->spec.template.spec.restart_policy.p, "Always");
	assert_non_null(d->spec.template.spec.security_context);
	assert_string_equal(c->ports.items[0].protocol.p, "TCP");
	assert_int_equal(c->liveness_probe->period_seconds, 3);
	assert_int_equal(c->liveness_probe->failure_threshold, 3);
	assert_string_equal(c->termination_message_path.p, "/dev/termination-log");

	struct storage_v1_csi_driver *driver = model_new(&storage_v1_csi_driver_type, a);

	model_default(&storage_v1_csi_driver_type, driver, a);
	assert_int_equal(driver->spec.volume_lifecycle_modes.len, 1);
	assert_string_equal(driver->spec.volume_lifecycle_modes.items[0].p, "Persistent");
	assert_true(driver->spec.attach_required.value);
}

static void expect_cause(const struct causes *cs, const char *field, const char *message)
{
	for (size_t i = 0; i < cs->len; i++)
		if (str_eqz(cs->items[i].field, field) && str_eqz(cs->items[i].message, message))
			return;
	for (size_t i = 0; i < cs->len; i++)
		print_message("  %s: %s\n", cs->items[i].field.p, cs->items[i].message.p);
	fail_msg("no cause %s: %s", field, message);
}

static struct core_v1_pod *good_pod(void)
{
	struct core_v1_pod *pod = model_new(&core_v1_pod_type, a);
	struct core_v1_container *c = LIST_ADD(a, &pod->spec.containers);

	c->name = STR("a");
	model_default(&core_v1_pod_type, pod, a);
	return pod;
}

static void test_validate(void **state)
{
	struct causes none = { .arena = a }, cs = { .arena = a };
	struct core_v1_pod *pod = good_pod();

	model_validate(&core_v1_pod_type, pod, STR(""), &none);
	assert_int_equal(none.len, 0);

	pod->spec.restart_policy = STR("Sometimes");
	pod->spec.termination_grace_period_seconds.value = -1;
	LIST_ADD(a, &pod->spec.containers)->name = STR("a");
	LIST_ADD(a, &pod->spec.containers)->name = STR("A_b");
	struct core_v1_container *c = LIST_ADD(a, &pod->spec.containers);
	struct core_v1_container_port *port = LIST_ADD(a, &c->ports);

	port->container_port = 70000;
	port->protocol = STR("ICMP");
	LIST_ADD(a, &c->env)->name = STR("X");
	LIST_ADD(a, &c->env)->name = STR("X"); /* twice is fine */
	LIST_ADD(a, &pod->status.conditions);  /* what is below status is not checked */
	model_validate(&core_v1_pod_type, pod, STR(""), &cs);
	if (cs.len != 7)
		expect_cause(&cs, "", "seven causes");
	expect_cause(&cs, "spec.restartPolicy",
		"Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"");
	expect_cause(&cs, "spec.terminationGracePeriodSeconds",
		"Invalid value: -1: must be greater than or equal to 0");
	expect_cause(&cs, "spec.containers[1].name", "Duplicate value: \"a\"");
	expect_cause(&cs, "spec.containers[3].name", "Required value");
	expect_cause(&cs, "spec.containers[3].ports[0].containerPort",
		"Invalid value: 70000: must be between 1 and 65535, inclusive");
	expect_cause(&cs, "spec.containers[3].ports[0].protocol",
		"Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"");
	assert_string_equal(cause_reason_text(CAUSE_NOT_SUPPORTED), "FieldValueNotSupported");
}

static void test_validate_compound(void **state)
{
	struct core_v1_service *s = model_new(&core_v1_service_type, a);
	struct causes cs = { .arena = a };

	for (int i = 0; i < 2; i++)
		*LIST_ADD(a, &s->spec.ports) = (struct core_v1_service_port){
			.port = 80, .protocol = STR("TCP"), .name = i ? STR("b") : STR("a")
		};
	model_validate(&core_v1_service_type, s, STR(""), &cs);
	expect_cause(&cs, "spec.ports[1]", "Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}");

	struct apps_v1_deployment *d = model_new(&apps_v1_deployment_type, a);

	cs.len = 0;
	model_default(&apps_v1_deployment_type, d, a);
	model_validate(&apps_v1_deployment_type, d, STR(""), &cs);
	expect_cause(&cs, "spec.selector", "Required value");
	expect_cause(&cs, "spec.template.spec.containers", "Required value");
}

static void test_validate_update(void **state)
{
	struct apps_v1_deployment *d = model_new(&apps_v1_deployment_type, a), *old;
	struct causes cs = { .arena = a };

	d->spec.selector = arena_alloc(a, sizeof(*d->spec.selector));
	str_map_set(a, &d->spec.selector->match_labels, STR("a"), STR("b"));
	old = model_copy(&apps_v1_deployment_type, d, a);
	d->spec.replicas = (struct opt_int32)SOME(7);
	model_validate_update(&apps_v1_deployment_type, d, old, STR(""), &cs);
	assert_int_equal(cs.len, 0);
	str_map_set(a, &d->spec.selector->match_labels, STR("a"), STR("c"));
	model_validate_update(&apps_v1_deployment_type, d, old, STR(""), &cs);
	assert_int_equal(cs.len, 1);
	expect_cause(&cs, "spec.selector", "Invalid value: field is immutable");

	struct core_v1_secret *s = model_new(&core_v1_secret_type, a),
			      *was = model_new(&core_v1_secret_type, a);

	cs.len = 0;
	s->type = STR("x");
	was->type = STR("Opaque");
	model_validate_update(&core_v1_secret_type, s, was, STR(""), &cs);
	expect_cause(&cs, "type", "Invalid value: \"x\": field is immutable");
}

static void test_valid_names(void **state)
{
	assert_null(valid_dns_label(STR("a-1")));
	assert_non_null(valid_dns_label(STR("-a")));
	assert_non_null(valid_dns_label(STR("A")));
	assert_non_null(valid_dns_label(STR("")));
	assert_non_null(valid_dns_label_1035(STR("1a")));
	assert_null(valid_dns_subdomain(STR("a.b-c.d")));
	assert_non_null(valid_dns_subdomain(STR("a..b")));
	assert_null(valid_label_key(STR("example.com/My_name.1")));
	assert_non_null(valid_label_key(STR("/a")));
	assert_non_null(valid_label_key(STR("a/")));
	assert_non_null(valid_label_key(STR("a/b/c")));
	assert_null(valid_label_value(STR("")));
	assert_non_null(valid_label_value(STR("a-")));
}

static bool selects(const char *text, const struct str_map *labels)
{
	struct selector *s = NULL;
	struct err err = { "" };

	if (selector_parse_labels(str_of(text), a, &s, &err) < 0)
		fail_msg("%s: %s", text, err.text);
	return selector_matches(s, labels);
}

static void test_label_selectors(void **state)
{
	struct str_map m = { 0 };
	struct selector *s;
	struct err err;
	static const char *const yes[] = { "", "a=1", "a==1", "a in (1,2)", "a", "!x", "b!=1",
		"x notin (1)", "a=1,b=2", "n>4", "n<6", " a = 1 , b in ( 2 ) " };
	static const char *const no[] = { "a=2", "a!=1", "a in (2)", "x", "!a", "a notin (1,3)",
		"n>5", "x>1", "a=1,b=3", "a=" };
	static const char *const bad[] = { "a in 1", "a in (1", ",", "a=1,", "=1", "a b", "a=b=c",
		"a>x" };

	str_map_set(a, &m, STR("a"), STR("1"));
	str_map_set(a, &m, STR("b"), STR("2"));
	str_map_set(a, &m, STR("n"), STR("5"));
	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		if (!selects(yes[i], &m))
			fail_msg("%s should select", yes[i]);
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (selects(no[i], &m))
			fail_msg("%s should not select", no[i]);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (selector_parse_labels(str_of(bad[i]), a, &s, &err) >= 0)
			fail_msg("%s should be refused", bad[i]);
}

static void test_field_selectors(void **state)
{
	struct field_term *terms;
	struct err err;
	size_t n;

	assert_int_equal(
		selector_parse_fields(STR("metadata.name=a,spec.nodeName!=b,status.phase==c"), a,
			&terms, &n, &err),
		0);
	assert_int_equal(n, 3);
	assert_true(str_eqz(terms[0].key, "metadata.name") && str_eqz(terms[0].value, "a") &&
		!terms[0].negate);
	assert_true(terms[1].negate);
	assert_true(str_eqz(terms[2].value, "c"));
	assert_int_equal(selector_parse_fields(STR(""), a, &terms, &n, &err), 0);
	assert_int_equal(n, 0);
	assert_true(selector_parse_fields(STR("nonsense"), a, &terms, &n, &err) < 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_find),
		T(test_names),
		T(test_lists),
		T(test_maps),
		T(test_equal),
		T(test_default),
		T(test_validate),
		T(test_validate_compound),
		T(test_validate_update),
		T(test_valid_names),
		T(test_label_selectors),
		T(test_field_selectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
