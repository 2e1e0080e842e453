/* Bits flip and tails are lost while nobody looks. A store that opens must hold exactly what was acknowledged; otherwise it must
 * say in words which file is damaged. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "store/internal.h"
#include "world.h"

struct tally {
	int harmless, refused;
};

static const char *const files[] = { "", "-wal", ".lock" };

static void copy_all(const char *from, const char *to)
{
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEAN_FREE char *a = xasprintf("%s%s", from, files[i]),
				*b = xasprintf("%s%s", to, files[i]);
		file_copy(a, b);
	}
}

static void judge(struct world *w, const char *path, struct tally *t, const char *what, long where)
{
	struct store_config c = { .backend = "sqlite", .path = path, .history = 200 };
	struct store *s = NULL;
	struct err err = { 0 };
	int errors = w->errors, r = store_open(&c, &s, &err);
	if (r < 0) {
		t->refused++;
		if (r != -EBADMSG || !strstr(err.text, path))
			world_error(w, "refused with %d: %s", r, err.text);
	} else {
		t->harmless++;
		world_check(w, s);
		store_close(s);
	}
	if (w->errors > errors)
		fprintf(stderr, "       … after %s at %ld\n", what, where);
}

static long file_size(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? (long)st.st_size : 0;
}

static void flip(const char *path, long byte, int bit)
{
	CLEAN_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char c;
	if (pread(fd, &c, 1, byte) != 1)
		abort();
	c ^= (unsigned char)(1 << bit);
	if (pwrite(fd, &c, 1, byte) != 1)
		abort();
}

/* `master` is the sound copy, `path` the one to damage, `file` its suffix. */
static void rot_file(struct world *w, const char *master, const char *path, const char *file,
	int flips, unsigned *seed)
{
	CLEAN_FREE char *sound = xasprintf("%s%s", master, file),
			*hurt = xasprintf("%s%s", path, file);
	long size = file_size(sound);
	struct tally flipped = { 0 }, cut = { 0 };
	if (size == 0)
		return;
	for (int i = 0; i < flips && w->errors < 20; i++) {
		/* Every bit of the first bytes, then anywhere. */
		long byte = i < flips / 3 ? i / 8 % size
					  : (long)((unsigned)rand_r(seed) % (unsigned)size);
		copy_all(master, path);
		flip(hurt, byte, i % 8);
		judge(w, path, &flipped, file[0] ? file : "a flip in the database", byte);
	}
	for (int i = 0; i < flips / 10 && w->errors < 20; i++) {
		long keep =
			i % 2 ? size / 512 * (i / 2) / (flips / 20 + 1) * 512 : rand_r(seed) % size;
		copy_all(master, path);
		if (truncate(hurt, keep) != 0)
			abort();
		judge(w, path, &cut, file[0] ? file : "a truncation of the database", keep);
	}
	printf("rot: %-16s %6ld bytes: %5d flips, %5d refused; %4d truncations, %4d refused\n",
		file[0] ? file : "the database", size, flipped.refused + flipped.harmless,
		flipped.refused, cut.refused + cut.harmless, cut.refused);
	/* Nothing but the lock file may rot unseen for the most part. */
	if (strcmp(file, ".lock") != 0 && (flipped.refused == 0 || cut.refused == 0))
		world_error(w, "no damage was found in %s", hurt);
}

int test_rot(int flips, unsigned seed)
{
	struct world *w = world_new();
	char *live = folder_new(), *master = folder_new(), *path = folder_new();
	struct store_config c = { .backend = "sqlite", .path = live, .history = 100 };
	struct store *s = NULL;
	struct err err = { 0 };
	if (store_open(&c, &s, &err) < 0) {
		world_error(w, "%s", err.text);
		return 1;
	}
	s->dropped_max = 30;
	for (int i = 0; i < 400; i++)
		world_write(w, s, i % WORLD_WRITERS, &seed);
	/* As a crash leaves it: most of it in the write-ahead log. */
	copy_all(live, master);
	rot_file(w, master, path, "-wal", flips, &seed);
	rot_file(w, master, path, ".lock", flips / 10, &seed);
	/* As a clean end leaves it. */
	store_close(s);
	copy_all(live, master);
	rot_file(w, master, path, "", flips, &seed);
	folder_free(live);
	folder_free(master);
	folder_free(path);
	return w->errors;
}
