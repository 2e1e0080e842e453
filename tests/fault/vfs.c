/* The shim. Only one thread at a time does I/O in a store, so the counters need no lock. */
#include "vfs.h"

#include <signal.h>
#include <sqlite3.h>

#include "base/base.h"

enum { SECTOR = 512, FILES_MAX = 8, FULL_FOR = 20 };

const char *const fault_mode_names[N_FAULT_MODES] = {
	[FAULT_NONE] = "none",
	[FAULT_WRITE_EIO] = "write-eio",
	[FAULT_WRITE_FULL] = "write-full",
	[FAULT_STAYS_FULL] = "stays-full",
	[FAULT_SYNC_EIO] = "sync-eio",
	[FAULT_DIE_BEFORE] = "die-before",
	[FAULT_DIE_HALF] = "die-half",
	[FAULT_DIE_AFTER] = "die-after",
	[FAULT_POWER_CUT] = "power-cut",
};

struct unsynced { /* what stood in a sector before a write that is not yet synced */
	sqlite3_int64 offset;
	int len;
	char old[SECTOR];
};

struct shim_file {
	sqlite3_file base;
	sqlite3_file *real;
	struct unsynced *unsynced;
	size_t n_unsynced, cap_unsynced;
};

static struct fault_plan plan;
static int count;
static sqlite3_vfs *real_vfs, shim_vfs;
static struct shim_file *files[FILES_MAX];

static struct shim_file *shim(sqlite3_file *f)
{
	return container_of(f, struct shim_file, base);
}

static void die(void)
{
	kill(getpid(), SIGKILL);
	_exit(1);
}

static void trigger(void)
{
	if (plan.triggered)
		*plan.triggered = true;
}

/* ---- power cut ---- */
static void remember(struct shim_file *f, int len, sqlite3_int64 offset)
{
	for (int at = 0; at < len; at += SECTOR) {
		if (f->n_unsynced == f->cap_unsynced) {
			f->cap_unsynced = f->cap_unsynced ? f->cap_unsynced * 2 : 64;
			f->unsynced = xrealloc(f->unsynced, f->cap_unsynced * sizeof(*f->unsynced));
		}
		struct unsynced *u = &f->unsynced[f->n_unsynced++];
		u->offset = offset + at;
		u->len = MIN(SECTOR, len - at);
		memset(u->old, 0, sizeof(u->old));
		f->real->pMethods->xRead(
			f->real, u->old, u->len, u->offset); /* beyond the end: zeros */
	}
}

static void cut_power(void)
{
	unsigned seed = plan.seed + (unsigned)plan.at;
	for (size_t i = 0; i < FILES_MAX; i++) {
		struct shim_file *f = files[i];
		for (size_t k = f ? f->n_unsynced : 0; k > 0; k--) {
			struct unsynced *u = &f->unsynced[k - 1];
			if (rand_r(&seed) & 1)
				f->real->pMethods->xWrite(f->real, u->old, u->len, u->offset);
		}
	}
	die();
}

/* ---- the operations that may go wrong ---- */
static bool counts(bool is_sync)
{
	switch (plan.mode) {
	case FAULT_NONE:
		return false;
	case FAULT_SYNC_EIO:
		return is_sync;
	case FAULT_WRITE_EIO:
	case FAULT_WRITE_FULL:
	case FAULT_STAYS_FULL:
	case FAULT_DIE_HALF:
		return !is_sync;
	default:
		return true;
	}
}

static int before(bool is_sync)
{
	if (!counts(is_sync) || ++count < plan.at)
		return SQLITE_OK;
	if (plan.mode == FAULT_STAYS_FULL && count < plan.at + FULL_FOR) {
		trigger();
		return SQLITE_FULL;
	}
	if (count != plan.at)
		return SQLITE_OK;
	trigger();
	switch (plan.mode) {
	case FAULT_WRITE_EIO:
		return SQLITE_IOERR_WRITE;
	case FAULT_WRITE_FULL:
		return SQLITE_FULL;
	case FAULT_SYNC_EIO:
		return SQLITE_IOERR_FSYNC;
	case FAULT_DIE_BEFORE:
		die();
		break;
	case FAULT_POWER_CUT:
		cut_power();
		break;
	default:
		break;
	}
	return SQLITE_OK;
}

static void after(void)
{
	if (plan.mode == FAULT_DIE_AFTER && count == plan.at)
		die();
}

static int shim_write(sqlite3_file *file, const void *p, int len, sqlite3_int64 offset)
{
	struct shim_file *f = shim(file);
	int rc = before(false);
	if (rc)
		return rc;
	if (plan.mode == FAULT_POWER_CUT)
		remember(f, len, offset);
	if (plan.mode == FAULT_DIE_HALF && count == plan.at) {
		f->real->pMethods->xWrite(f->real, p, len / 2, offset);
		die();
	}
	rc = f->real->pMethods->xWrite(f->real, p, len, offset);
	after();
	return rc;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	int rc = before(false);
	if (rc)
		return rc;
	if (plan.mode == FAULT_DIE_HALF && count == plan.at)
		die();
	rc = shim(file)->real->pMethods->xTruncate(shim(file)->real, size);
	after();
	return rc;
}

static int shim_sync(sqlite3_file *file, int flags)
{
	int rc = before(true);
	if (rc)
		return rc;
	rc = shim(file)->real->pMethods->xSync(shim(file)->real, flags);
	shim(file)->n_unsynced = 0;
	after();
	return rc;
}

/* ---- those that go through ---- */
static int shim_close(sqlite3_file *file)
{
	struct shim_file *f = shim(file);
	for (size_t i = 0; i < FILES_MAX; i++)
		if (files[i] == f)
			files[i] = NULL;
	free(f->unsynced);
	return f->real->pMethods->xClose(f->real);
}
static int shim_read(sqlite3_file *f, void *p, int len, sqlite3_int64 offset)
{
	return shim(f)->real->pMethods->xRead(shim(f)->real, p, len, offset);
}
static int shim_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return shim(f)->real->pMethods->xFileSize(shim(f)->real, ret);
}
static int shim_lock(sqlite3_file *f, int level)
{
	return shim(f)->real->pMethods->xLock(shim(f)->real, level);
}
static int shim_unlock(sqlite3_file *f, int level)
{
	return shim(f)->real->pMethods->xUnlock(shim(f)->real, level);
}
static int shim_check_lock(sqlite3_file *f, int *ret)
{
	return shim(f)->real->pMethods->xCheckReservedLock(shim(f)->real, ret);
}
static int shim_control(sqlite3_file *f, int op, void *arg)
{
	return shim(f)->real->pMethods->xFileControl(shim(f)->real, op, arg);
}
static int shim_sector(sqlite3_file *f)
{
	return shim(f)->real->pMethods->xSectorSize(shim(f)->real);
}
static int shim_device(sqlite3_file *f)
{
	return shim(f)->real->pMethods->xDeviceCharacteristics(shim(f)->real);
}

static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = shim_close,
	.xRead = shim_read,
	.xWrite = shim_write,
	.xTruncate = shim_truncate,
	.xSync = shim_sync,
	.xFileSize = shim_size,
	.xLock = shim_lock,
	.xUnlock = shim_unlock,
	.xCheckReservedLock = shim_check_lock,
	.xFileControl = shim_control,
	.xSectorSize = shim_sector,
	.xDeviceCharacteristics = shim_device,
};

static int shim_open(
	sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	struct shim_file *f = shim(file);
	memset(f, 0, sizeof(*f));
	f->real = (sqlite3_file *)(f + 1);
	int rc = real_vfs->xOpen(real_vfs, name, f->real, flags, ret_flags);
	if (rc != SQLITE_OK)
		return rc;
	f->base.pMethods = &methods;
	for (size_t i = 0; i < FILES_MAX; i++)
		if (!files[i]) {
			files[i] = f;
			break;
		}
	return SQLITE_OK;
}

void fault_vfs_install(const struct fault_plan *p)
{
	plan = *p;
	count = 0;
	if (real_vfs)
		return;
	real_vfs = sqlite3_vfs_find(NULL);
	shim_vfs = *real_vfs;
	shim_vfs.zName = "fault";
	shim_vfs.szOsFile = (int)sizeof(struct shim_file) + real_vfs->szOsFile;
	shim_vfs.xOpen = shim_open;
	sqlite3_vfs_register(&shim_vfs, 1);
}
