/* What decides about a request before anything is looked up: four lines, method, path, query and Accept. */
#include "apiserver/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void readable(struct str s)
{
	volatile char c = 0;
	for (size_t i = 0; i < s.len; i++)
		c ^= s.p[i];
}

static void check(const struct request_info *i)
{
	const struct str all[] = { i->verb, i->path, i->prefix, i->group, i->version, i->ns,
		i->resource, i->name, i->subresource, i->rest };
	for (size_t n = 0; n < ARRAY_LEN(all); n++)
		readable(all[n]);
	if (i->path.len == 0 || i->path.p[0] != '/' || (i->is_resource && !i->resource.len) ||
		(i->subresource.len && !i->name.len))
		abort();
	if (i->is_resource && i->verb_bit && verb_bit_of(i->verb) != i->verb_bit)
		abort();
	request_is_long_running(i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str rest = str_n((const char *)data, size), method, path, query, accept;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct request_options o = { 0 };
	struct request_info info;
	struct accept ac;
	struct err err;
	str_cut(rest, '\n', &method, &rest);
	str_cut(rest, '\n', &path, &rest);
	str_cut(rest, '\n', &query, &accept);
	if (request_options_parse(query, a, &o, &err) == 0 &&
		request_info_parse(method, path, &o, a, &info, &err) == 0)
		check(&info);
	accept_parse(accept, &ac);
	content_type_parse(accept);
	readable(json_member(rest, query));
	return 0;
}
