/* Protobuf as any of a few types, told by the first byte (the last one: an envelope). What decodes encodes to bytes that are
 * stable, and to JSON that decodes again. */
#include "codec/codec.h"
#include "gen/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct type *const types[] = {
	&core_v1_pod_type,
	&apps_v1_deployment_type,
	&apiextensions_v1_custom_resource_definition_type,
	&meta_v1_status_type,
	&authentication_v1_token_review_type,
	&core_v1_secret_type,
	&apps_v1_controller_revision_type,
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void round_trip(const struct type *t, const void *obj, struct arena *a)
{
	struct buf first = { 0 }, second = { 0 };
	struct err err;
	void *again;

	proto_encode(t, obj, &first);
	must(!proto_decode(t, buf_str(&first), a, &again, &err));
	proto_encode(t, again, &second);
	must(str_eq(buf_str(&first), buf_str(&second)));
	buf_clear(&first);
	json_encode(t, obj, &first);
	must(!json_decode(t, buf_str(&first), a, NULL, &again, &err));
	buf_deinit(&first);
	buf_deinit(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	struct arena *a = arena_new(0);
	char *exact = xmalloc(size);
	struct str bytes = { exact, size - 1 };
	size_t which = data[0] % (ARRAY_LEN(types) + 1);
	struct proto_envelope env;
	const struct type *t;
	struct err err;
	void *obj;

	memcpy(exact, data + 1, size - 1);
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
