/* Snapshots of a whole cluster in one file; snapshot.c is the manual. */
#ifndef SKIFF_CMD_SNAPSHOT_H
#define SKIFF_CMD_SNAPSHOT_H

#include "store/store.h"

/* Saves the store of this process and DATA/pki as `path`, beside first, then renamed. Blocking; for a worker thread. */
int snapshot_write(struct store *s, const char *data_dir, const char *path, struct err *err);
/* Saves DATA/snapshots/cluster-TIME.tar and removes all but the newest five. */
int snapshot_rotate(struct store *s, const char *data_dir, struct err *err);
int cmd_snapshot(int argc, char **argv);

#endif
