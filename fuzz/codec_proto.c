/* Protobuf as any of a few types, told by the first byte (the last one: an envelope). What decodes encodes to bytes that are
 * stable, and to JSON that decodes again. */
#include "fuzz.h"

static const struct type *const types[] = {
	&core_v1_pod_type,
	&apps_v1_deployment_type,
	&apiextensions_v1_custom_resource_definition_type,
	&meta_v1_status_type,
	&authentication_v1_token_review_type,
	&core_v1_secret_type,
	&apps_v1_controller_revision_type,
};

static void round_trip(const struct type *t, const void *obj, struct arena *a)
{
	struct buf text CLEAN_BUF = { 0 };
	struct err err;
	void *again;

	round_trip_proto(t, obj, a);
	json_encode(t, obj, &text);
	must(!json_decode(t, buf_str(&text), a, NULL, &again, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	struct arena *a = arena_new(0);
	char *exact = rest_of(data, size);
	struct str bytes = { exact, size - 1 };
	size_t which = data[0] % (ARRAY_LEN(types) + 1);
	struct proto_envelope env;
	const struct type *t;
	struct err err;
	void *obj;

	if (which < ARRAY_LEN(types)) {
		if (!proto_decode(types[which], bytes, a, &obj, &err))
			round_trip(types[which], obj, a);
	} else if (!proto_open(bytes, &env, &err) &&
		!codec_decode(bytes, a, NULL, &t, &obj, &err)) {
		round_trip(t, obj, a);
	}
	free(exact);
	arena_free(a);
	return 0;
}
