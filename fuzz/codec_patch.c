/* A document, a line break, a patch: as each kind of patch. The outcome is a tree that can be written and read; merging the
 * same twice is merging once. Applied twice (server-side apply) changes nothing the second time, and what is owned reads
 * back as it was written. */
#include "fuzz.h"
#include "codec/codec.h"
#include "gen/types.h"
#include "model/apply.h"

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

static void check_apply(const struct value *live, const struct value *applied, struct arena *a)
{
	struct field_request r = { .type = &core_v1_pod_type,
		.manager = STR("m"),
		.api_version = STR("v1"),
		.now = { 1, 0 } };
	struct field_owners owners = { 0 };
	struct value first, second, fields;
	struct field_conflict *conflicts;
	struct field_set *same;
	struct err err;
	size_t n;

	if (fields_apply(&r, live, applied, true, &owners, a, &first, &conflicts, &n, &err))
		return;
	for (size_t i = 0; i < owners.len; i++) {
		field_set_to_fields(owners.items[i].fields, a, &fields);
		must(!field_set_from_fields(&fields, a, &same, &err));
		must(field_set_equal(same, owners.items[i].fields));
		field_set_paths(same, a, &(struct str *){ NULL });
	}
	size_t owned = owners.len;

	must(!fields_apply(&r, &first, applied, false, &owners, a, &second, &conflicts, &n, &err));
	must(value_equal(&first, &second) && owners.len == owned);
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
	if (doc.kind == VALUE_OBJECT && patch.kind == VALUE_OBJECT)
		check_apply(&doc, &patch, a);
	arena_free(a);
	return 0;
}
