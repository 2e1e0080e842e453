/* What is sealed for a further server opens with its key and its token's ID, and with nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cmd/cmd.h"

static void opens_with_its_key_alone(void **state)
{
	struct str key = STR("thekey"), id = STR("abcdef"), plain = STR("{\"ca.key\":\"AAAA\"}");
	CLEAN_BUF struct buf sealed = { 0 }, again = { 0 }, out = { 0 };
	assert_int_equal(server_keys_seal(key, id, plain, &sealed), 0);
	assert_int_equal(server_keys_seal(key, id, plain, &again), 0);
	assert_false(str_eq(buf_str(&sealed), buf_str(&again))); /* a nonce of its own each time */
	assert_true(str_find_str(buf_str(&sealed), STR("ca.key")) < 0);
	assert_int_equal(server_keys_open(key, id, buf_str(&sealed), &out), 0);
	assert_true(str_eq(buf_str(&out), plain));
	assert_int_equal(server_keys_open(STR("thekez"), id, buf_str(&sealed), &out), -EBADMSG);
	assert_int_equal(server_keys_open(key, STR("abcdeg"), buf_str(&sealed), &out), -EBADMSG);
	for (size_t i = 0; i < sealed.len; i++) {
		sealed.p[i] ^= 1;
		assert_int_equal(server_keys_open(key, id, buf_str(&sealed), &out), -EBADMSG);
		sealed.p[i] ^= 1;
		assert_int_equal(server_keys_open(key, id, str_n(sealed.p, i), &out), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(opens_with_its_key_alone) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
