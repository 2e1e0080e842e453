/* A shim between SQLite and its files that goes wrong on purpose, once, at the n-th operation of a kind. */
#ifndef SKIFF_FAULT_VFS_H
#define SKIFF_FAULT_VFS_H

#include <stdbool.h>
#include <stdint.h>

enum fault_mode {
	FAULT_NONE,
	FAULT_WRITE_EIO,  /* a write or truncation fails */
	FAULT_WRITE_FULL, /* no space, this time only */
	FAULT_STAYS_FULL, /* no space, and for the 20 writes after it */
	FAULT_SYNC_EIO,   /* an fsync fails */
	FAULT_DIE_BEFORE, /* SIGKILL before a write or fsync */
	FAULT_DIE_HALF,   /* SIGKILL when half of a write is done */
	FAULT_DIE_AFTER,  /* SIGKILL after a write or fsync */
	FAULT_POWER_CUT, /* before a write or fsync: of all that is not synced, a random half of the sectors is lost */
	N_FAULT_MODES
};
extern const char *const fault_mode_names[N_FAULT_MODES];

struct fault_plan {
	enum fault_mode mode;
	int at;          /* 1: the first operation that counts */
	unsigned seed;   /* of what a power cut loses */
	bool *triggered; /* set when it happened; in memory that outlives the process */
};
/* Makes the shim SQLite's default. Before anything is opened. */
void fault_vfs_install(const struct fault_plan *plan);

#endif
