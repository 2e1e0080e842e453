/* Makes C structs and descriptor tables from api/: `schemac [-o DIR] API_DIR` writes DIR/types.h and DIR/types.c.
 * Every mistake, a type or field without a description among them, is told as file:line: what; the exit status is 1 when
 * there was any. Depends on nothing in src/. */
#include "schemac/schemac.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>

static struct words found;

static int collect(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st, (void)ftw;
	size_t n = strlen(path);
	if (kind == FTW_F && n > 7 && !strcmp(path + n - 7, ".schema")) {
		found.v = grow(found.v, found.n, sizeof(*found.v));
		found.v[found.n++] = copy(path, n);
	}
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool write_file(const struct schemas *s, const char *dir, const char *name,
	void (*emit)(const struct schemas *, FILE *))
{
	char *path = format("%s/%s", dir, name);
	FILE *f = fopen(path, "we");
	if (f)
		emit(s, f);
	if (!f || fclose(f)) {
		fprintf(stderr, "schemac: %s cannot be written: %m\n", path);
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	const char *out = ".", *api = NULL;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-o") && i + 1 < argc)
			out = argv[++i];
		else
			api = argv[i];
	}
	if (!api || nftw(api, collect, 16, FTW_PHYS) < 0 || !found.n) {
		fprintf(stderr, "usage: schemac [-o DIR] API_DIR (a folder with *.schema files)\n");
		return 2;
	}
	qsort(found.v, found.n, sizeof(*found.v), by_text);
	struct schemas s = { 0 };
	for (size_t i = 0; i < found.n; i++)
		schema_parse(found.v[i], &s);
	if (!complaints)
		schemas_check(&s);
	if (complaints)
		return 1;
	return write_file(&s, out, "types.h", emit_header) &&
			write_file(&s, out, "types.c", emit_tables)
		? 0
		: 1;
}
