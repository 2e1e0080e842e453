/* skiff image import FILE [TAG] | list | rm REF | pin REF | unpin REF: works on the engine's files themselves, under their locks, whether an agent runs or not. */
#include <stdio.h>

#include "cmd/cmd.h"
#include "codec/codec.h"
#include "engine/engine.h"

static const char usage[] =
	"skiff image: images of this node\n\n"
	"  skiff image import FILE [TAG]   docker save, OCI layout (folder or archive), or a plain root file system as tar\n"
	"  skiff image list                what is there\n"
	"  skiff image rm REF              remove a tag, or an image with its last one\n"
	"  skiff image pin REF             keep it however full the disk is; an import does that\n"
	"  skiff image unpin REF           let the kubelet remove it when the disk is nearly full and no container uses it\n\n"
	"  --data-dir DIR                  default /var/lib/skiff\n"
	"  --root DIR                      the engine's folder; default DATA/engine\n"
	"  -o, --output json               for programs\n";

static void print_json(const struct engine_image *images, size_t n)
{
	CLEAN_BUF struct buf out = { 0 };

	buf_addc(&out, '[');
	for (size_t i = 0; i < n; i++) {
		buf_addz(&out, i ? ",{\"id\":" : "{\"id\":");
		json_write_text(images[i].id, &out);
		const struct engine_strs *lists[] = { &images[i].repo_tags,
			&images[i].repo_digests };
		for (size_t k = 0; k < 2; k++) {
			buf_addz(&out, k ? ",\"repoDigests\":[" : ",\"repoTags\":[");
			for (size_t t = 0; t < lists[k]->len; t++) {
				if (t)
					buf_addc(&out, ',');
				json_write_text(lists[k]->items[t], &out);
			}
			buf_addc(&out, ']');
		}
		buf_addf(&out, ",\"size\":%llu,\"pinned\":%s}", (unsigned long long)images[i].size,
			images[i].pinned ? "true" : "false");
	}
	printf("%s]\n", out.p);
}

static void print_table(const struct engine_image *images, size_t n)
{
	size_t wide = 5;

	for (size_t i = 0; i < n; i++)
		for (size_t t = 0; t < images[i].repo_tags.len; t++)
			wide = MAX(wide, images[i].repo_tags.items[t].len);
	printf("%-*s  %-12s  %10s  %s\n", (int)wide, "IMAGE", "ID", "SIZE", "PINNED");
	for (size_t i = 0; i < n; i++)
		for (size_t t = 0; t < MAX(images[i].repo_tags.len, (size_t)1); t++)
			printf("%-*s  %.12s  %8.1fMB  %s\n", (int)wide,
				images[i].repo_tags.len ? images[i].repo_tags.items[t].p : "<none>",
				images[i].id.p + strlen("sha256:"), (double)images[i].size / 1e6,
				images[i].pinned ? "yes" : "no");
}

static int run_import(
	struct image_store *s, const struct options *o, struct arena *a, struct err *err)
{
	struct engine_image image;
	int r = image_store_import(
		s, o->args[1], o->n_args > 2 ? o->args[2] : NULL, a, &image, err);

	if (r < 0)
		return r;
	if (o->output)
		print_json(&image, 1);
	else
		printf("imported %s (%s, %.1f MB)\n",
			image.repo_tags.len ? image.repo_tags.items[0].p : "without a name",
			image.id.p, (double)image.size / 1e6);
	return 0;
}

static int run_list(
	struct image_store *s, const struct options *o, struct arena *a, struct err *err)
{
	struct engine_image *images;
	size_t n;
	int r = image_store_list(s, a, &images, &n, err);

	if (r == 0 && o->output)
		print_json(images, n);
	else if (r == 0)
		print_table(images, n);
	return r;
}

static int run_rm(struct image_store *s, const struct options *o, struct arena *a, struct err *err)
{
	int r = 0;

	for (size_t i = 1; i < o->n_args && r == 0; i++)
		r = image_store_remove(s, str_of(o->args[i]), err);
	return r;
}

static int pin_all(struct image_store *s, const struct options *o, bool pinned, struct err *err)
{
	int r = 0;

	for (size_t i = 1; i < o->n_args && r == 0; i++)
		r = image_store_pin(s, str_of(o->args[i]), pinned, err);
	return r;
}

static int run_pin(struct image_store *s, const struct options *o, struct arena *a, struct err *err)
{
	return pin_all(s, o, true, err);
}

static int run_unpin(
	struct image_store *s, const struct options *o, struct arena *a, struct err *err)
{
	return pin_all(s, o, false, err);
}

static const struct {
	const char *name;
	size_t min_args, max_args; /* with the name */
	int (*run)(
		struct image_store *s, const struct options *o, struct arena *a, struct err *err);
} verbs[] = {
	{ "import", 2, 3, run_import },
	{ "list", 1, 1, run_list },
	{ "ls", 1, 1, run_list },
	{ "rm", 2, ARRAY_LEN(((struct options *)0)->args), run_rm },
	{ "pin", 2, ARRAY_LEN(((struct options *)0)->args), run_pin },
	{ "unpin", 2, ARRAY_LEN(((struct options *)0)->args), run_unpin },
};

/* Takes --root DIR or --root=DIR out of the arguments: it is this command's alone. Returns the new count. */
static int take_root(int argc, char **argv, const char **ret_root)
{
	int out = 0;

	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "--root=", 7))
			*ret_root = argv[i] + 7;
		else if (!strcmp(argv[i], "--root") && i + 1 < argc)
			*ret_root = argv[++i];
		else
			argv[out++] = argv[i];
	argv[out] = NULL;
	return out;
}

int cmd_image(int argc, char **argv)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_store *store = NULL;
	struct options o = { 0 };
	const char *root = NULL;
	struct err err = { 0 };

	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
		!strcmp(argv[1], "help")) {
		fputs(usage, argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	argc = take_root(argc, argv, &root);
	int r = options_parse(&o, OPT_CLIENT, argc, argv);
	if (r)
		return r < 0 ? 2 : 0;
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (!o.n_args || strcmp(o.args[0], verbs[i].name) || o.n_args < verbs[i].min_args ||
			o.n_args > verbs[i].max_args)
			continue;
		CLEAN_FREE char *below = root ? xstrdup(root) : xasprintf("%s/engine", o.data_dir);
		r = image_store_open(below, &store, &err);
		if (r == 0)
			r = verbs[i].run(store, &o, a, &err);
		image_store_free(store);
		return r ? cmd_fail("image", &err, 1) : 0;
	}
	fputs(usage, stderr);
	return 2;
}
