/* str, buf, arena, err. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/base.h"

static void strs(void **state)
{
	struct str head, tail;
	int64_t v;

	assert_true(str_cmp(STR("a"), STR("ab")) < 0);
	assert_true(str_cmp(STR("b"), STR("ab")) > 0);
	assert_int_equal(str_cmp(STR_NONE, STR("")), 0);
	assert_true(str_has_prefix(STR("abc"), STR("ab")) && !str_has_prefix(STR("a"), STR("ab")));
	assert_true(str_has_suffix(STR("abc"), STR("bc")) && !str_has_suffix(STR("c"), STR("bc")));
	assert_int_equal(str_find(STR("abc"), 'c'), 2);
	assert_int_equal(str_find(STR_NONE, 'c'), -1);
	assert_int_equal(str_find_str(STR("hello"), STR("lo")), 3);
	assert_int_equal(str_find_str(STR("hello"), STR("x")), -1);
	assert_true(str_eqz(str_trim(STR(" \t a b\r\n")), "a b"));
	assert_true(str_cut(STR("k=v=w"), '=', &head, &tail));
	assert_true(str_eqz(head, "k") && str_eqz(tail, "v=w"));
	assert_false(str_cut(STR("kv"), '=', &head, &tail));
	assert_true(str_eqz(head, "kv") && tail.len == 0);
	assert_true(str_eqz(str_from(STR("abc"), 1), "bc") && str_from(STR("abc"), 9).len == 0);
	assert_int_equal(str_to_i64(STR("-9223372036854775808"), &v), 0);
	assert_true(v == INT64_MIN);
	assert_int_equal(str_to_i64(STR("+12"), &v), 0);
	assert_int_equal(v, 12);
	assert_int_equal(str_to_i64(STR("9223372036854775808"), &v), -ERANGE);
	assert_int_equal(str_to_i64(STR("1x"), &v), -EINVAL);
	assert_int_equal(str_to_i64(STR("-"), &v), -EINVAL);
	assert_int_equal(str_to_i64(STR(""), &v), -EINVAL);
}

static void bufs(void **state)
{
	CLEAN_BUF struct buf b = { 0 };
	CLEAN_FREE char *long_text = xmalloc(5000);

	memset(long_text, 'x', 4999);
	long_text[4999] = '\0';
	buf_addc(&b, 'a');
	buf_addf(&b, "%d-%s", 7, long_text);
	assert_int_equal(b.len, 1 + 2 + 4999);
	assert_int_equal(b.p[b.len], '\0');
	buf_clear(&b);
	buf_addz(&b, "one ");
	buf_add_str(&b, STR("two"));
	assert_string_equal(b.p, "one two");
	CLEAN_FREE char *taken = buf_take(&b);

	assert_string_equal(taken, "one two");
	assert_null(b.p);
	CLEAN_FREE char *empty = buf_take(&b);

	assert_string_equal(empty, "");
}

static void texts_behind_one_another(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(64);
	const struct str parts[] = { STR("/pods/"), STR_NONE, STR("ns"), STR("/"), STR("name") };
	char out[14];

	assert_int_equal(str_concat(out, 14, parts, ARRAY_LEN(parts)), 13);
	assert_string_equal(out, "/pods/ns/name");
	assert_int_equal(
		str_concat(out, 13, parts, ARRAY_LEN(parts)), 0); /* the NUL needs its place */
	assert_string_equal(arena_concat(a, parts, ARRAY_LEN(parts)).p, "/pods/ns/name");
	assert_int_equal(arena_concat(a, parts, 0).len, 0);
}

static void arenas(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(128);
	char *p[100];

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_LEN(p); i++) {
			p[i] = arena_alloc(a, i);
			assert_int_equal((uintptr_t)p[i] % 16, 0);
			for (size_t j = 0; j < i; j++)
				assert_int_equal(p[i][j], 0);
			memset(p[i], (int)i + 1, i);
		}
		for (size_t i = 1; i < ARRAY_LEN(p); i++)
			assert_true(p[i][0] == (char)(i + 1) && p[i][i - 1] == (char)(i + 1));
		assert_true(arena_used(a) >= 99 * 100 / 2);
		arena_reset(a);
		assert_int_equal(arena_used(a), 0);
	}
	char *last = arena_memdup(a, "abc", 3);
	char *grown = arena_grow(a, last, 3, 40);

	assert_ptr_equal(last, grown);
	assert_memory_equal(grown, "abc\0\0", 5);
	arena_alloc(a, 1);
	grown = arena_grow(a, last, 40, 4000);
	assert_ptr_not_equal(last, grown);
	assert_memory_equal(grown, "abc\0\0", 5);
	struct str s = arena_fmt(a, "%s-%0200d", "x", 5);

	assert_int_equal(s.len, 202);
	assert_int_equal(s.p[201], '5');
	assert_true(str_eqz(arena_strz(a, "hi"), "hi"));
	assert_string_equal(arena_str(a, str_n("cut here", 3)).p, "cut");
}

static void errs(void **state)
{
	struct err e;

	assert_int_equal(err_set(&e, -EINVAL, "pod %s is bad", "a"), -EINVAL);
	assert_int_equal(err_prefix(&e, 3, "reading %d", 5), 3);
	assert_string_equal(e.text, "reading 5: pod a is bad");
	err_errno(&e, -ENOENT, "%s", e.text);
	assert_string_equal(e.text, "reading 5: pod a is bad: No such file or directory");
	for (int i = 0; i < 300; i++)
		err_prefix(&e, 0, "long");
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	assert_int_equal(err_set(NULL, -EIO, "nobody listens"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strs),
		cmocka_unit_test(bufs),
		cmocka_unit_test(texts_behind_one_another),
		cmocka_unit_test(arenas),
		cmocka_unit_test(errs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
