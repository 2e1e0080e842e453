/* What one object costs: decoding and encoding a pod of about 2 KB in each form, microseconds on one core. The best of
 * several rounds is printed, so that other load on the machine does not count. */
#include <stdio.h>

#include "codec/codec.h"
#include "gen/types.h"

#define ROUNDS 15
#define TIMES 4000

struct work {
	struct str json, proto;
	struct arena *arena;
	const void *obj;
	struct buf out;
};

static void decode_json(struct work *w)
{
	void *obj;
	struct err err;

	arena_reset(w->arena);
	if (json_decode(&core_v1_pod_type, w->json, w->arena, NULL, &obj, &err) < 0)
		abort();
}

static void decode_proto(struct work *w)
{
	void *obj;
	struct err err;

	arena_reset(w->arena);
	if (proto_decode(&core_v1_pod_type, w->proto, w->arena, &obj, &err) < 0)
		abort();
}

static void encode_json(struct work *w)
{
	buf_clear(&w->out);
	json_encode(&core_v1_pod_type, w->obj, &w->out);
}

static void encode_proto(struct work *w)
{
	buf_clear(&w->out);
	proto_encode(&core_v1_pod_type, w->obj, &w->out);
}

static void copy(struct work *w)
{
	arena_reset(w->arena);
	model_copy(&core_v1_pod_type, w->obj, w->arena);
}

static void peek(struct work *w)
{
	struct str a, b;
	struct err err;

	arena_reset(w->arena);
	json_peek_type_meta(w->json, w->arena, &a, &b, &err);
}

static const struct {
	const char *name;
	void (*run)(struct work *w);
	double goal_us; /* 0: none */
} works[] = {
	{ "decode JSON", decode_json, 6 },
	{ "decode protobuf", decode_proto, 3 },
	{ "encode JSON", encode_json, 0 },
	{ "encode protobuf", encode_proto, 0 },
	{ "copy", copy, 0 },
	{ "peek type meta", peek, 0 },
};

static double best_us(struct work *w, void (*run)(struct work *w))
{
	double best = 1e9;

	for (int r = 0; r < ROUNDS; r++) {
		uint64_t start = mono_now_ns();

		for (int i = 0; i < TIMES; i++)
			run(w);
		double us = (double)(mono_now_ns() - start) / TIMES / 1000;

		best = MIN(best, us);
	}
	return best;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "bench/codec/pod.json";
	FILE *f = fopen(path, "re");
	static char text[1 << 16];
	struct work w = { .arena = arena_new(64 << 10) };
	struct arena *keep = arena_new(0);
	struct buf proto = { 0 };
	struct err err;
	void *obj;
	int missed = 0;

	if (!f) {
		fprintf(stderr, "codec_bench: %s: %m\n", path);
		return 2;
	}
	w.json = str_n(text, fread(text, 1, sizeof(text), f));
	fclose(f);
	if (json_decode(&core_v1_pod_type, w.json, keep, NULL, &obj, &err) < 0) {
		fprintf(stderr, "codec_bench: %s: %s\n", path, err.text);
		return 2;
	}
	proto_encode(&core_v1_pod_type, obj, &proto);
	w.proto = buf_str(&proto);
	w.obj = obj;
	printf("pod: %zu bytes JSON, %zu bytes protobuf, %zu bytes decoded\n", w.json.len,
		w.proto.len, arena_used(keep));
	for (size_t i = 0; i < ARRAY_LEN(works); i++) {
		double us = best_us(&w, works[i].run);
		bool miss = works[i].goal_us > 0 && us > works[i].goal_us;

		printf("%-16s %7.2f us", works[i].name, us);
		if (works[i].goal_us > 0)
			printf("   goal %.0f us%s", works[i].goal_us, miss ? "  MISSED" : "");
		putchar('\n');
		missed += miss;
	}
	return missed != 0;
}
