/* What reaches the kubelet from containers and from files: log lines (written by whoever writes to a container's output), manifests of static pods, file
 * paths of volumes, $(NAME) in texts. The first byte chooses. */
#include "fuzz.h"
#include "gen/types.h"
#include "kubelet/internal.h"

/* What is filtered is never longer than what came, and nothing is read past a line that is not whole. */
static void logs(struct str in)
{
	struct log_options o = { .tail = -1, .limit_bytes = 100, .streams = 3, .timestamps = true };
	struct buf out = { 0 };
	struct log_line line;
	size_t used;

	log_parse_line(in, &line);
	log_filter(in, &o, &out, &used);
	must(used <= in.len && out.len <= 100 && (used == 0 || in.p[used - 1] == '\n'));
	buf_clear(&out);
	o = (struct log_options){ .tail = -1, .limit_bytes = -1, .streams = 3 };
	must(log_filter(in, &o, &out, &used) && out.len <= in.len);
	buf_deinit(&out);
}

/* A manifest is refused with its file's name, or gives a pod that belongs to this node. */
static void manifest(struct str in)
{
	struct kubelet k = { .c = { .node_name = "n", .clock = &clock_real } };
	struct pod_object *o;
	struct err err = { "" };

	if (static_pod_parse(&k, "file", in, &o, &err)) {
		must(strstr(err.text, "file") != NULL);
		return;
	}
	must(str_eqz(o->pod->spec.node_name, "n") && o->pod->metadata.uid.len &&
		o->pod->spec.containers.len);
	kubelet_pod_qos(o->pod);
	pod_object_unref(o);
}

static void expansion(struct str in)
{
	struct arena *a = arena_new(0);
	struct engine_env env[] = { { STR("A"), STR("b") } };

	must(env_expand(in, env, 1, a).len <= in.len);
	arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const rows[])(struct str) = { logs, manifest, expansion };

	if (!size)
		return 0;
	char *exact = xmalloc(size);
	memcpy(exact, data + 1, size - 1);
	rows[data[0] % ARRAY_LEN(rows)](str_n(exact, size - 1));
	free(exact);
	return 0;
}
