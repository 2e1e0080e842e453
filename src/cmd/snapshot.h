/* Snapshots of a whole cluster in one file; snapshot.c is the manual. */
#ifndef SKIFF_CMD_SNAPSHOT_H
#define SKIFF_CMD_SNAPSHOT_H

#include "cmd/cmd.h"
#include "codec/codec.h"
#include "store/store.h"

/* Saves the store of this process and DATA/pki as `path`, beside first, then renamed. Blocking; for a worker thread. */
int snapshot_write(struct store *s, const char *data_dir, const char *path, struct err *err);
/* Saves DATA/snapshots/cluster-TIME.tar and removes all but the newest five. */
int snapshot_rotate(struct store *s, const char *data_dir, struct err *err);

/* A file that was read, and whose checksums are right. */
struct snapshot_entry {
	struct str name, bytes;
};
struct snapshot_contents {
	struct buf file;
	struct arena *a;
	struct {
		struct snapshot_entry *items;
		size_t len;
	} entries;
	struct value manifest;
};
/* -EBADMSG: damaged; -EPROTO: a newer format. Afterwards snapshot_unload, also when it failed. */
int snapshot_load(const char *path, struct snapshot_contents *c, struct err *err);
void snapshot_unload(struct snapshot_contents *c);
const struct snapshot_entry *snapshot_find(
	const struct snapshot_contents *c, struct str name); /* NULL */

int snapshot_restore(const struct options *o, struct err *err); /* restore.c */
int cmd_snapshot(int argc, char **argv);

#endif
