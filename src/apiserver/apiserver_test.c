/* The pipeline from end to end: every verb on stored objects, in the forms that clients ask for, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "apiserver/fixture.h"

static struct fixture f;

static int setup(void **state)
{
	fixture_start(&f);
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(&f);
	return 0;
}

static void test_config_map(void **state)
{
	struct answer a = expect(&f, 201, "POST", "/api/v1/namespaces/default/configmaps", "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"v\"}}");
	assert_true(has(a.body, "\"kind\":\"ConfigMap\"") && has(a.body, "\"uid\":\""));
	a = expect(&f, 200, "GET", "/api/v1/namespaces/default/configmaps/a", NULL);
	assert_true(has(a.body, "\"data\":{\"k\":\"v\"}"));
	a = expect(&f, 200, "GET", "/api/v1/namespaces/default/configmaps", NULL);
	assert_true(has(a.body, "\"kind\":\"ConfigMapList\"") && has(a.body, "\"items\":[{"));
	expect(&f, 409, "POST", "/api/v1/namespaces/default/configmaps", "{\"metadata\":{\"name\":\"a\"}}");
	expect(&f, 200, "DELETE", "/api/v1/namespaces/default/configmaps/a", NULL);
	a = expect(&f, 404, "GET", "/api/v1/namespaces/default/configmaps/a", NULL);
	assert_true(has(a.body, "configmaps \\\"a\\\" not found") && has(a.body, "\"reason\":\"NotFound\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config_map),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
