/* The schema compiler refuses what cannot be right, and says where. It is built beside this test: BUILD/schemac. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/base.h"

#define HEAD "group x/v1 served x order 1 proto p.x.v1\n\n"

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* Runs the compiler over one file; what it says, and its exit status. */
static int compile(const char *schema, char *said, size_t n)
{
	char self[512], dir[] = "/tmp/schemac-test-XXXXXX", path[1200];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(len > 0);
	self[len] = '\0';
	assert_non_null(strstr(self, "/test/model/"));
	*strstr(self, "/test/model/") = '\0';
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/x.schema", dir);
	write_file(path, schema);
	snprintf(path, sizeof(path), "%s/schemac -o %s %s 2>&1", self, dir, dir);
	FILE *p = popen(path, "re");

	assert_non_null(p);
	said[fread(said, 1, n - 1, p)] = '\0';
	int status = pclose(p);

	snprintf(path, sizeof(path), "rm -rf %s", dir);
	assert_int_equal(system(path), 0);
	return WEXITSTATUS(status);
}

static void test_good(void **state)
{
	char said[4096];

	assert_int_equal(
		compile(HEAD
			"type A \"An a.\"\n  b 1 []string required set \"Some b.\"\n"
			"  c 2 *int32 omitempty min=0 max=9 = 3 \"A c.\"\n  d 3 E = On \"A d.\"\n"
			"  e - map[string]A \"More.\"\nenum E On Off\n",
			said, sizeof(said)),
		0);
	assert_string_equal(said, "");
}

static void test_refused(void **state)
{
	static const struct {
		const char *schema, *says;
	} cases[] = {
		{ HEAD "type A \"a\"\n  b 1 string \"b\"\n  c 1 string \"c\"\n",
			"x.schema:5: tag 1 of c is used by b already" },
		{ HEAD "type A \"a\"\n  b 1 string \"b\"\n  b 2 string \"c\"\n",
			"x.schema:5: A has two fields b" },
		{ HEAD "type A \"a\"\n  b 1 Nope \"b\"\n",
			"x.schema:4: field b: type Nope is unknown" },
		{ HEAD "type A \"a\"\n  b 1 core.Pod \"b\"\n", "type core.Pod is unknown" },
		{ HEAD "type A \"a\"\n  b 1 A \"b\"\n", "holds itself by value" },
		{ HEAD "type A \"a\"\n  b 1 int32 = x \"b\"\n",
			"default x does not fit type int32" },
		{ HEAD "type A \"a\"\n  b 1 E = Z \"b\"\nenum E X Y\n",
			"default Z is no value of E" },
		{ HEAD "type A \"a\"\n  b 1 []A patch(name) \"b\"\n",
			"merge key name is no field" },
		{ HEAD "type A \"a\"\n  b 1 []A map(k) \"b\"\n", "list key k is no field of A" },
		{ HEAD "type A \"a\"\n  b 1 string set \"b\"\n", "only a list can be a set" },
		{ HEAD "type A \"a\"\n  b 1 int32 min=4 max=2 \"b\"\n", "min is above max" },
		{ HEAD "type A \"a\"\n  b 0 string \"b\"\n", "tag 0 is no number above 0" },
		{ HEAD "type A \"a\"\n  b 1 string shiny \"b\"\n", "unknown word shiny" },
		{ HEAD "type A \"a\"\n  b 1 string \"b\n", "a quote is not closed" },
		{ HEAD "type A \"a\"\n  b 1 string\n", "field A.b has no description" },
		{ HEAD "type A\n  b 1 string \"b\"\n", "type A has no description" },
		{ HEAD "type A \"a\"\ntype A \"a\"\n", "type A is there twice" },
		{ HEAD "resource bs singular b kind B cluster verbs all\n", "kind B is unknown" },
		{ HEAD "resource bs singular b kind B verbs all\n", "namespaced or cluster" },
		{ HEAD "  b 1 string \"b\"\n", "belongs to nothing above it" },
		{ "type A \"a\"\n", "no complete group line" },
	};
	char said[4096];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(compile(cases[i].schema, said, sizeof(said)), 1);
		if (!strstr(said, cases[i].says))
			fail_msg("%s\nshould say %s\nbut says %s", cases[i].schema, cases[i].says,
				said);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
