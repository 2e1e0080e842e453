/* JSON as any of a few types, told by the first byte. What decodes must encode to a text that decodes to the same, in JSON and
 * through protobuf; the tree reader, the typed reader and the checker agree on what is well-formed. */
#include "fuzz.h"
#include "codec/internal.h"

static const struct type *const types[] = {
	&core_v1_pod_type,
	&apps_v1_deployment_type,
	&apiextensions_v1_custom_resource_definition_type,
	&meta_v1_status_type,
	&authentication_v1_token_review_type,
	&core_v1_secret_type,
	&events_v1_event_type,
	&meta_v1_table_type,
};

static void round_trip(const struct type *t, const void *obj, struct arena *a)
{
	struct buf first = { 0 }, second = { 0 };
	struct err err;
	void *again;

	json_encode(t, obj, &first);
	must(!json_decode(t, buf_str(&first), a, NULL, &again, &err));
	/* A raw member keeps < as it was read, and is written with it escaped. */
	must(model_equal(t, obj, again) || str_find_str(buf_str(&first), STR("\\u00")) >= 0);
	json_encode(t, again, &second);
	must(str_eq(buf_str(&first), buf_str(&second)));
	must(model_equal(t, model_copy(t, obj, a), obj));
	buf_deinit(&first);
	buf_deinit(&second);
	round_trip_proto(t, obj, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	const struct type *t = types[data[0] % ARRAY_LEN(types)];
	struct arena *a = arena_new(0);
	struct decode_notes notes = { .arena = a };
	char *exact = rest_of(data, size);
	struct str text = { exact, size - 1 };
	struct value tree;
	struct err err;
	void *obj;

	bool well_formed = !json_check(text, &err),
	     typed = !json_decode(t, text, a, &notes, &obj, &err);
	int r = json_parse(text, a, &tree, &err);
	bool read = !r;

	must(read == well_formed || r == -ERANGE);
	must(well_formed || !typed);
	if (typed)
		round_trip(t, obj, a);
	if (read) {
		struct buf out = { 0 };
		struct value same;

		json_write(&tree, &out);
		must(!json_parse(buf_str(&out), a, &same, &err) && value_equal(&tree, &same));
		buf_deinit(&out);
	}
	free(exact);
	arena_free(a);
	return 0;
}
