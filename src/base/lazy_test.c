/* Loading on first use: a library that is there, and one that is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/lazy.h"

static struct lazy math = { "libm.so.6", "libc6", NULL };

double erf(double x);
LAZY(&math, double, erf, (double x), (x))

static void loads_on_first_call(void **state)
{
	volatile double half = 0.5; /* or the compiler answers */

	assert_null(math.handle);
	assert_true(erf(half) > 0.520 && erf(half) < 0.521);
	assert_non_null(math.handle);
}

static void names_the_package(void **state)
{
	struct lazy missing = { "libskiff-none.so.9", "libskiff-none9", NULL };
	struct err err = { 0 };

	assert_int_equal(lazy_load(&missing, &err), -ENOENT);
	assert_non_null(strstr(err.text, "libskiff-none.so.9"));
	assert_non_null(strstr(err.text, "install the package libskiff-none9"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(loads_on_first_call),
		cmocka_unit_test(names_the_package) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
