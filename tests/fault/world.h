/* A workload whose every write is known, and the judgement of what a store holds after it was hurt.
 *
 * The world lives in memory shared between the judge and the processes that die. Each writer owns some keys and notes what it
 * is about to do, and what was acknowledged. A revision, once seen by anybody (acknowledged, watched, loaded), stands for one
 * event for ever: another event under the same revision is an error. */
#ifndef SKIFF_FAULT_WORLD_H
#define SKIFF_FAULT_WORLD_H

#include "store/store.h"

enum { WORLD_WRITERS = 6, WORLD_KEYS = 12, WORLD_REVISIONS = 4 << 20 };

struct key_state {
	uint64_t revision; /* 0: the key is not there */
	uint64_t value;
};
struct attempt { /* a write that was not answered, when `open` */
	_Atomic bool open;
	int key, verb;
	struct key_state before;
	uint64_t value;
};
struct world {
	struct key_state acked[WORLD_WRITERS][WORLD_KEYS];
	struct attempt attempt[WORLD_WRITERS];
	_Atomic uint64_t value;   /* the last one written: no two writes carry the same */
	_Atomic uint64_t newest;  /* highest revision that anybody saw */
	_Atomic uint64_t watched; /* the watcher saw all up to here */
	_Atomic uint64_t acks, refused, events, relists;
	_Atomic bool stop;
	bool triggered;
	_Atomic int errors;
	_Atomic uint32_t seen
		[WORLD_REVISIONS]; /* digest of the event with that revision; 0: nobody saw it */
};
struct world *world_new(void);
void world_reset(struct world *w);
void world_error(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* One random write by writer t. Returns the store's answer. */
int world_write(struct world *w, struct store *s, int t, unsigned *seed);
/* Consumes what a cursor offers; false: it is compacted. */
bool world_watch(struct world *w, struct store_watch *cursor);
/* After opening: settles the writes that were not answered, and checks that the store holds exactly what was acknowledged, and
 * every event that anybody saw. */
void world_check(struct world *w, struct store *s);

/* ---- folders ---- */
char *folder_new(void);       /* owned path of a database in a new folder */
void folder_free(char *path); /* removes it and the folder */
void folder_empty(const char *path);
void file_copy(const char *from, const char *to); /* a missing source removes the target */

/* ---- the tests: 0 when all went well ---- */
int test_kill(int rounds, unsigned seed);
int test_nth(int writes, unsigned seed);
int test_rot(int flips, unsigned seed);
int test_full(int unused, unsigned seed);

#endif
