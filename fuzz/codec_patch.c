/* A document, a line break, a patch: as each kind of patch. The outcome is a tree that can be written and read; merging the
 * same twice is merging once. */
#include "codec/codec.h"
#include "gen/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check_tree(const struct value *v, struct arena *a)
{
	struct buf out = { 0 };
	struct value same;
	struct err err;

	json_write(v, &out);
	/* Patches may nest what they are given deeper than a reader goes. */
	if (!json_parse(buf_str(&out), a, &same, &err))
		must(value_equal(v, &same));
	buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(0);
	struct str doc_text, patch_text;
	struct value doc, patch, before, d;
	struct err err;

	str_cut(str_n((const char *)data, size), '\n', &doc_text, &patch_text);
	if (json_parse(doc_text, a, &doc, &err) < 0 ||
		json_parse(patch_text, a, &patch, &err) < 0) {
		arena_free(a);
		return 0;
	}
	before = value_copy(a, &patch);
	d = value_copy(a, &doc);
	if (!patch_json(&d, &patch, a, &err))
		check_tree(&d, a);
	d = value_copy(a, &doc);
	if (!patch_strategic(&core_v1_pod_type, &d, &patch, a, &err))
		check_tree(&d, a);
	d = value_copy(a, &doc);
	must(!patch_merge(&d, &patch, a, &err));
	struct value once = value_copy(a, &d);

	must(!patch_merge(&d, &patch, a, &err) && value_equal(&d, &once));
	check_tree(&d, a);
	must(value_equal(&patch, &before));
	arena_free(a);
	return 0;
}
