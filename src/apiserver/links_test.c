/* Links in proxied pages: which are changed, into what, and that it does not matter how a page is cut into pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "apiserver/connect.h"

static const struct {
	const char *page, *becomes; /* NULL: itself */
} pages[] = {
	{ "<a href=\"/x\">t</a>", "<a href=\"/p/proxy/x\">t</a>" },
	{ "<A class=b HREF = '/x?q=1#f' id=c>", "<A class=b HREF = '/p/proxy/x?q=1#f' id=c>" },
	{ "<a href=/x>", "<a href=/p/proxy/x>" },
	{ "<img alt=\"a > b\" src=\"/i.png\"/>", "<img alt=\"a > b\" src=\"/p/proxy/i.png\"/>" },
	{ "<a title=it's href=\"/x\">", "<a title=it's href=\"/p/proxy/x\">" },
	{ "<img longdesc=\"/l\" src=\"/s\">", "<img longdesc=\"/p/proxy/l\" src=\"/p/proxy/s\">" },
	{ "<a href=\"http://10.0.0.1:80/x\">", "<a href=\"/p/proxy/x\">" },
	{ "<a href=\"//10.0.0.1/x\">", "<a href=\"/p/proxy/x\">" },
	{ "<a href=\"https://10.0.0.1\">", "<a href=\"/p/proxy\">" },
	{ "<script src=\"/s.js\">if (a<b) c = '<a href=\"/x\">';</script ><a href=\"/y\">",
		"<script src=\"/p/proxy/s.js\">if (a<b) c = '<a href=\"/x\">';</script ><a href=\"/p/proxy/y\">" },
	{ "1 < 2 <a href=\"/x\">", "1 < 2 <a href=\"/p/proxy/x\">" },
	{ "<<a href=\"/x\">", "<<a href=\"/p/proxy/x\">" },
	{ "<a href=\"x\">", NULL },
	{ "<a href=\"/p/proxy/x\">", NULL },
	{ "<a href=\"http://elsewhere/x\"><a href=\"//elsewhere/x\">", NULL },
	{ "<a href=\"http://10.0.0.11/x\"><a href=\"http://10.0.0.1:8080/x\">", NULL },
	{ "<a name=\"/x\"><p href=\"/x\"></a href=\"/x\">", NULL },
	{ "<!-- <a href=\"/x\"> > -->", NULL },
	{ "<!doctype html><a href=\"/never closed", NULL },
	{ "<a href", NULL },
	{ "", NULL },
};

static void test_pages(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		struct str page = str_of(pages[i].page);

		for (size_t size = 1; size <= page.len + 1; size++) {
			struct http_rewrite r = links_rewrite(STR("/p/proxy"), STR("10.0.0.1"), 80);
			CLEAN_BUF struct buf out = { 0 };

			for (size_t at = 0; at < page.len; at += size)
				r.body(r.arg, str_n(page.p + at, MIN(size, page.len - at)), false,
					&out);
			r.body(r.arg, STR_NONE, true, &out);
			r.free(r.arg);
			assert_string_equal(out.p ? out.p : "",
				pages[i].becomes ? pages[i].becomes : pages[i].page);
		}
	}
}

static void test_heads(void **state)
{
	static const struct {
		const char *name, *value, *becomes;
		bool body;
	} rows[] = {
		{ "content-type", "text/html; charset=utf-8", NULL, true },
		{ "content-type", "text/plain", NULL, false },
		{ "location", "/there", "/p/proxy/there", false },
		{ "location", "http://[::1]:80/there", "/p/proxy/there", false },
		{ "location", "http://elsewhere/there", NULL, false },
	};
	CLEAN_ARENA struct arena *a = arena_new(0);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct http_header headers[] = { { STR("access-control-allow-origin"), STR("*") },
			{ str_of(rows[i].name), str_of(rows[i].value) } };
		struct http_reply head = { .headers = headers, .n_headers = 2 };
		struct http_rewrite r = links_rewrite(STR("/p/proxy"), STR("::1"), 80);

		assert_int_equal(r.head(r.arg, &head, a), rows[i].body);
		assert_int_equal(head.n_headers, 1);
		assert_true(str_eqz(
			head.headers[0].value, rows[i].becomes ? rows[i].becomes : rows[i].value));
		r.free(r.arg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_pages),
		cmocka_unit_test(test_heads) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
