/* skiff convert [-o json|yaml|protobuf] [--strict] FILE|-: one object from whatever form it has into another, without a
 * server. Unknown and duplicate fields are told as warnings; --strict refuses them. */
#include <stdio.h>

#include "cmd/cmd.h"
#include "codec/codec.h"

#define LARGEST (64 << 20)

static const struct {
	const char *name;
	enum codec_format form;
} forms[] = {
	{ "json", FORMAT_JSON },
	{ "yaml", FORMAT_YAML },
	{ "protobuf", FORMAT_PROTOBUF },
};

static int usage(void)
{
	fprintf(stderr,
		"usage: skiff convert [-o json|yaml|protobuf] [--strict] FILE|-\n"
		"Reads one object in JSON, YAML or protobuf (told by its bytes) and writes it to standard output.\n");
	return 2;
}

static int read_all(const char *path, struct buf *out)
{
	bool standard = !strcmp(path, "-");
	FILE *f = standard ? stdin : fopen(path, "re");
	char part[16384];
	size_t n;

	if (!f)
		return fprintf(stderr, "skiff convert: %s cannot be opened: %m\n", path), -1;
	while ((n = fread(part, 1, sizeof(part), f)) > 0 && out->len <= LARGEST)
		buf_add(out, part, n);
	bool failed = ferror(f);

	if (failed)
		fprintf(stderr, "skiff convert: %s cannot be read: %m\n", path);
	else if (out->len > LARGEST)
		fprintf(stderr, "skiff convert: %s is larger than %d MiB\n", path, LARGEST >> 20);
	if (!standard)
		fclose(f);
	return failed || out->len > LARGEST ? -1 : 0;
}

static int convert(struct str in, enum codec_format to, bool strict, const char *path)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct decode_notes notes = { .arena = a };
	struct buf CLEAN_BUF out = { 0 };
	struct err err = { "" };

	if (codec_convert(in, to, &notes, &out, &err) < 0) {
		fprintf(stderr, "skiff convert: %s: %s\n", path, err.text);
		return 1;
	}
	for (size_t i = 0; i < notes.len; i++)
		fprintf(stderr, "skiff convert: %s: %s: " STR_FMT "\n", path,
			strict ? "error" : "warning", STR_ARG(notes.items[i]));
	if (strict && notes.len)
		return 1;
	if (to == FORMAT_JSON)
		buf_addc(&out, '\n');
	if (fwrite(out.p, 1, out.len, stdout) != out.len || fflush(stdout)) {
		fprintf(stderr, "skiff convert: the output cannot be written: %m\n");
		return 1;
	}
	return 0;
}

int cmd_convert(int argc, char **argv)
{
	enum codec_format to = FORMAT_JSON;
	const char *path = NULL;
	struct buf CLEAN_BUF in = { 0 };
	bool strict = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-o") && i + 1 < argc) {
			size_t f = 0;

			while (f < ARRAY_LEN(forms) && strcmp(argv[i + 1], forms[f].name))
				f++;
			if (f == ARRAY_LEN(forms))
				return usage();
			to = forms[f].form;
			i++;
		} else if (!strcmp(argv[i], "--strict")) {
			strict = true;
		} else if (!path && (argv[i][0] != '-' || !argv[i][1])) {
			path = argv[i];
		} else {
			return usage();
		}
	}
	if (!path)
		return usage();
	return read_all(path, &in) < 0 ? 1 : convert(buf_str(&in), to, strict, path);
}
