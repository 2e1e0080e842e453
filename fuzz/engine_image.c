/* What an image brings from outside. The first byte: 0 a reference, 1 a config, 2 a path of a tar, 3 and more a layer, unpacked into
 * a folder of our own: nothing may appear beside that folder. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "engine/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_reference(struct str text)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_ref first, second;
	struct err err;

	if (image_ref_parse(text, a, &first, &err) < 0)
		return;
	/* What comes out is what goes in again. */
	if (image_ref_parse(first.canonical, a, &second, &err) < 0 ||
		!str_eq(first.canonical, second.canonical) ||
		strlen(first.canonical.p) != first.canonical.len)
		abort();
}

static void fuzz_config(struct str text)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_strs diff_ids;
	struct image_config config;
	struct err err;

	image_config_parse(text, a, &config, &diff_ids, &err);
}

static void fuzz_path(struct str text)
{
	CLEAN_FREE char *path = str_dup(text);
	char clean[PATH_MAX];

	if (layer_clean_path(path, clean) < 0)
		return;
	if (clean[0] == '/' || strstr(clean, "//") || !strncmp(clean, "../", 3) ||
		strstr(clean, "/../") || !strcmp(clean, ".."))
		abort();
}

static char top[] = "/tmp/skiff-fuzz-XXXXXX";

static void remove_top(void)
{
	dir_remove_tree(top, NULL);
}

static void check_alone(void)
{
	DIR *d = opendir(top);

	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.' && strcmp(e->d_name, "layer"))
			abort();
	closedir(d);
}

static void fuzz_layer(struct str bytes)
{
	static bool ready;
	char layer[64], blob[72], diff[72];
	struct err err;
	uint64_t n;

	if (!ready && mkdtemp(top))
		ready = atexit(remove_top) == 0;
	snprintf(layer, sizeof(layer), "%s/layer", top);
	CLEAN_FD int fd = memfd_create("layer", MFD_CLOEXEC);
	if (!ready || dir_make(layer, 0755, &err) < 0 || fd < 0 ||
		write(fd, bytes.p, bytes.len) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		abort();
	CLEAN_FD int dir = open(layer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	layer_unpack(fd, dir, blob, diff, &n, &err);
	check_alone();
	if (dir_remove_tree(layer, &err) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const fuzz[])(
		struct str) = { fuzz_reference, fuzz_config, fuzz_path, fuzz_layer };

	if (size)
		fuzz[MIN((size_t)data[0], ARRAY_LEN(fuzz) - 1)](
			str_n((const char *)data + 1, size - 1));
	return 0;
}
