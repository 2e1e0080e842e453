/* The durable backend: one SQLite file in WAL mode, synchronous=FULL.
 *
 * One table of events, keyed by revision: every write is a row added at the end. An object is the newest row of its key, and
 * what older rows are still there is the history from which watches resume. Memory is the read path, so there is no index on
 * the key. Rows that nobody needs any more are deleted in bulk.
 *
 * 1. meta's `compacted`: every event after it is in the table, with no gap. It rises in the transaction that deletes rows.
 * 2. Each row carries a CRC-32 over all its columns, checked at load; the pages are checked by SQLite's quick_check.
 * 3. The database is opened for this connection alone (locking_mode EXCLUSIVE): no shared memory file.
 * Only the writer thread calls in here once the store is open, `size` excepted. */
#include <endian.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <zlib.h>

#include "store/internal.h"

enum {
	FORMAT = 1,
	WAL_MAX = 4 << 20,  /* checkpoint at once */
	WAL_IDLE = 1 << 20, /* checkpoint when idle */
	PAGE = 8192,
};

enum statement { BEGIN, COMMIT, ROLLBACK, INSERT, DELETE, SET_META, N_STATEMENTS };
static const char *const statements[N_STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[INSERT] =
		"INSERT INTO log (revision, type, created, key, pairs, json, sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
	[DELETE] = "DELETE FROM log WHERE revision = ?",
	[SET_META] = "INSERT OR REPLACE INTO meta (name, value, sum) VALUES (?, ?, ?)",
};

struct backend {
	sqlite3 *db;
	sqlite3_stmt *stmt[N_STATEMENTS];
	char *path, *wal_path, *lock_path;
	int lock_fd;
	uint64_t witness; /* the revision acknowledged last, by the lock file */
	uint64_t first;   /* where a new store begins */
	uint64_t wal_bytes;
	struct buf pairs; /* scratch */
};

/* ---- errors ---- */
static const struct {
	int sqlite, code;
} codes[] = {
	{ SQLITE_FULL, -ENOSPC },
	{ SQLITE_CORRUPT, -EBADMSG },
	{ SQLITE_NOTADB, -EBADMSG },
	{ SQLITE_BUSY, -EBUSY },
	{ SQLITE_CANTOPEN, -ENOENT },
	{ SQLITE_READONLY, -EROFS },
	{ SQLITE_PERM, -EACCES },
	/* Our statements are right, so the schema is not. */
	{ SQLITE_ERROR, -EBADMSG },
	{ SQLITE_RANGE, -EBADMSG },
	{ SQLITE_CONSTRAINT, -EBADMSG },
	{ SQLITE_MISMATCH, -EBADMSG },
};

static int damaged(const struct backend *b, struct err *err, const char *what)
{
	return err_set(err, -EBADMSG,
		"the store %s is damaged: %s. Restore a snapshot into an empty data directory",
		b->path, what);
}

static int fail(const struct backend *b, struct err *err, const char *doing)
{
	int rc = sqlite3_extended_errcode(b->db), code = -EIO;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (codes[i].sqlite == (rc & 0xff))
			code = codes[i].code;
	if (code == -EBADMSG)
		return damaged(b, err, sqlite3_errmsg(b->db));
	if (code == -ENOSPC)
		return err_set(
			err, code, "%s %s: the disk is full. Free some space", doing, b->path);
	int sys = sqlite3_system_errno(b->db);
	return err_set(err, code, "%s %s: %s%s%s (SQLite code %d)", doing, b->path,
		sqlite3_errmsg(b->db), sys ? ": " : "", sys ? strerror(sys) : "", rc);
}

static int exec(struct backend *b, const char *sql, struct err *err)
{
	return sqlite3_exec(b->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
								       : fail(b, err, "opening");
}

/* Runs a statement that returns no rows. The step's result decides; reset would only repeat it. */
static bool run(struct backend *b, enum statement which)
{
	int rc = sqlite3_step(b->stmt[which]);
	sqlite3_reset(b->stmt[which]);
	return rc == SQLITE_DONE;
}

/* ---- checksums ---- */
static uint32_t sum_add(uint32_t sum, const void *p, size_t n)
{
	return n ? (uint32_t)crc32(sum, p, (unsigned)n) : sum;
}

static uint32_t row_sum(uint64_t revision, int type, uint64_t created, struct str key,
	struct str pairs, struct str json)
{
	uint64_t head[] = { htole64(revision), htole64((uint64_t)type), htole64(created),
		htole64(key.len), htole64(pairs.len) };
	uint32_t sum = sum_add(0, head, sizeof(head));
	sum = sum_add(sum, key.p, key.len);
	sum = sum_add(sum, pairs.p, pairs.len);
	return sum_add(sum, json.p, json.len);
}

/* ---- labels and fields as one blob: their numbers, then length, key, length, value of each ---- */
static void put_u32(struct buf *b, size_t v)
{
	uint32_t le = htole32((uint32_t)v);
	buf_add(b, &le, sizeof(le));
}

static void put_pairs(struct buf *b, const struct object_pair *pairs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		put_u32(b, pairs[i].key.len);
		buf_add_str(b, pairs[i].key);
		put_u32(b, pairs[i].value.len);
		buf_add_str(b, pairs[i].value);
	}
}

static struct str encode_pairs(struct backend *b, const struct object *o)
{
	buf_clear(&b->pairs);
	put_u32(&b->pairs, o->n_labels);
	put_u32(&b->pairs, o->n_fields);
	put_pairs(&b->pairs, o->labels, o->n_labels);
	put_pairs(&b->pairs, o->fields, o->n_fields);
	return buf_str(&b->pairs);
}

static bool take_u32(struct str *s, uint32_t *ret)
{
	if (s->len < sizeof(*ret))
		return false;
	memcpy(ret, s->p, sizeof(*ret));
	*ret = le32toh(*ret);
	*s = str_from(*s, sizeof(*ret));
	return true;
}

static bool take_text(struct str *s, struct str *ret)
{
	uint32_t n;
	if (!take_u32(s, &n) || n > s->len)
		return false;
	*ret = str_n(s->p, n);
	*s = str_from(*s, n);
	return true;
}

/* *ret_pairs is owned; the text in it is the blob's. */
static bool decode_pairs(
	struct str blob, struct object_pair **ret_pairs, uint32_t *ret_labels, uint32_t *ret_fields)
{
	uint32_t labels, fields;
	if (!take_u32(&blob, &labels) || !take_u32(&blob, &fields))
		return false;
	uint64_t n = (uint64_t)labels + fields;
	if (n > blob.len / 8)
		return false;
	CLEAN_FREE struct object_pair *pairs = xcalloc(n + 1, sizeof(*pairs));
	for (uint64_t i = 0; i < n; i++)
		if (!take_text(&blob, &pairs[i].key) || !take_text(&blob, &pairs[i].value))
			return false;
	if (blob.len > 0)
		return false;
	*ret_pairs = TAKE(pairs);
	*ret_labels = labels;
	*ret_fields = fields;
	return true;
}

/* ---- meta: numbers by name, each with a checksum ---- */
static uint32_t meta_sum(const char *name, uint64_t value)
{
	value = htole64(value);
	return sum_add(sum_add(0, name, strlen(name)), &value, sizeof(value));
}

static bool meta_set(struct backend *b, const char *name, uint64_t value)
{
	sqlite3_stmt *q = b->stmt[SET_META];
	sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(q, 2, (sqlite3_int64)value);
	sqlite3_bind_int64(q, 3, meta_sum(name, value));
	return run(b, SET_META);
}

static int meta_get(struct backend *b, const char *name, uint64_t *ret, struct err *err)
{
	sqlite3_stmt *q = NULL;
	if (sqlite3_prepare_v2(b->db, "SELECT value, sum FROM meta WHERE name = ?", -1, &q, NULL) !=
		SQLITE_OK)
		return fail(b, err, "reading");
	sqlite3_bind_text(q, 1, name, -1, SQLITE_STATIC);
	int rc = sqlite3_step(q), r = 0;
	uint64_t value = (uint64_t)sqlite3_column_int64(q, 0);
	bool good = rc == SQLITE_ROW && sqlite3_column_int64(q, 1) == meta_sum(name, value);
	if (rc != SQLITE_ROW && rc != SQLITE_DONE)
		r = fail(b, err, "reading");
	else if (!good)
		r = damaged(b, err, "its table meta is incomplete or altered");
	else
		*ret = value;
	sqlite3_finalize(q);
	return r;
}

/* ---- opening ---- */
static int note_wal(void *arg, sqlite3 *db, const char *name, int frames)
{
	struct backend *b = arg;
	b->wal_bytes = (uint64_t)frames * PAGE;
	return SQLITE_OK;
}

static int count_tables(struct backend *b, int *ret, struct err *err)
{
	sqlite3_stmt *q = NULL;
	if (sqlite3_prepare_v2(b->db,
		    "SELECT count(*) FROM sqlite_schema WHERE name IN ('meta', 'log')", -1, &q,
		    NULL) != SQLITE_OK ||
		sqlite3_step(q) != SQLITE_ROW) {
		sqlite3_finalize(q);
		return fail(b, err, "opening");
	}
	*ret = sqlite3_column_int(q, 0);
	sqlite3_finalize(q);
	return 0;
}

static int quick_check(struct backend *b, struct err *err)
{
	sqlite3_stmt *q = NULL;
	if (sqlite3_prepare_v2(b->db, "PRAGMA quick_check(1)", -1, &q, NULL) != SQLITE_OK ||
		sqlite3_step(q) != SQLITE_ROW) {
		sqlite3_finalize(q);
		return fail(b, err, "checking");
	}
	const char *verdict = (const char *)sqlite3_column_text(q, 0);
	int r = verdict && !strcmp(verdict, "ok")
		? 0
		: damaged(b, err, verdict ? verdict : "quick_check gives no answer");
	sqlite3_finalize(q);
	return r;
}

static int prepare(struct backend *b, struct err *err)
{
	for (int i = 0; i < N_STATEMENTS; i++)
		if (sqlite3_prepare_v3(b->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
			    &b->stmt[i], NULL) != SQLITE_OK)
			return fail(b, err, "opening");
	return 0;
}

static int create_tables(struct backend *b, struct err *err)
{
	int r = exec(b,
		"BEGIN IMMEDIATE;"
		"CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;"
		"CREATE TABLE log (revision INTEGER PRIMARY KEY, type INTEGER NOT NULL, created INTEGER NOT NULL,"
		" key TEXT NOT NULL, pairs BLOB NOT NULL, json TEXT NOT NULL, sum INTEGER NOT NULL)",
		err);
	if (r == 0)
		r = prepare(b, err);
	if (r == 0 && (!meta_set(b, "format", FORMAT) || !meta_set(b, "compacted", b->first)))
		r = fail(b, err, "creating");
	return r ? r : exec(b, "COMMIT", err);
}

static int set_up(struct backend *b, struct err *err)
{
	char pragmas[400];
	snprintf(pragmas, sizeof(pragmas),
		"PRAGMA page_size = %d; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
		"PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = %d; PRAGMA cache_size = -512;"
		"PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;",
		PAGE, WAL_MAX);
	int r = exec(b, pragmas, err), tables = 0;
	if (r == 0)
		r = count_tables(b, &tables, err);
	if (r)
		return r;
	sqlite3_wal_hook(b->db, note_wal, b);
	if (tables == 0 && b->witness > 1)
		return err_set(err, -EBADMSG,
			"the store %s is empty, but %s says that revision %llu was reached: the file was "
			"lost or the wrong disk is mounted. Restore a snapshot; to begin anew, delete %s",
			b->path, b->lock_path, (unsigned long long)b->witness, b->lock_path);
	if (tables == 0)
		return create_tables(b, err);
	if (tables != 2)
		return damaged(b, err, "a table is missing");
	uint64_t format = 0;
	r = meta_get(b, "format", &format, err);
	if (r == 0 && format > FORMAT)
		return err_set(err, -EPROTO,
			"the store %s has format %llu, and this program knows %d at most: use the newer "
			"version of skiff that wrote it",
			b->path, (unsigned long long)format, FORMAT);
	if (r == 0)
		r = quick_check(b, err);
	return r ? r : prepare(b, err);
}

static int open_database(struct backend *b, struct err *err)
{
	/* SQLite would make it readable to everybody, and gives its WAL the same mode. */
	CLEAN_FD int fd = open(b->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "opening the store %s", b->path);
	int rc =
		sqlite3_open_v2(b->path, &b->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_NOMEM)
		abort();
	if (rc != SQLITE_OK)
		return fail(b, err, "opening");
	sqlite3_extended_result_codes(b->db, 1);
	return set_up(b, err);
}

static void sqlite_close(struct backend *b)
{
	for (int i = 0; i < N_STATEMENTS; i++)
		sqlite3_finalize(b->stmt[i]);
	if (b->db)
		sqlite3_close(b->db);
	if (b->lock_fd >= 0)
		close(b->lock_fd);
	buf_deinit(&b->pairs);
	free(b->path);
	free(b->wal_path);
	free(b->lock_path);
	free(b);
}

static int sqlite_open(const struct store_config *c, struct backend **ret, struct err *err)
{
	if (!c->path)
		return err_set(err, -EINVAL, "the sqlite store needs a path");
	struct backend *b = xcalloc(1, sizeof(*b));
	b->path = xstrdup(c->path);
	b->wal_path = xasprintf("%s-wal", c->path);
	b->lock_path = xasprintf("%s.lock", c->path);
	b->lock_fd = -1;
	b->first = MAX(c->first_revision, 1);
	int r = lock_open(b->lock_path, &b->lock_fd, &b->witness, err);
	if (r == 0)
		r = open_database(b, err);
	if (r) {
		sqlite_close(b);
		return r;
	}
	*ret = b;
	return 0;
}

/* ---- loading ---- */
static struct str column(sqlite3_stmt *q, int i)
{
	const void *p = sqlite3_column_blob(q, i);
	return str_n(p, (size_t)sqlite3_column_bytes(q, i));
}

static int bad_row(const struct backend *b, struct err *err, uint64_t revision, struct str key)
{
	char what[300];
	snprintf(what, sizeof(what), "revision %llu of key \"%.*s\" does not match its checksum",
		(unsigned long long)revision, (int)MIN(key.len, 200), key.p ? key.p : "");
	return damaged(b, err, what);
}

static int load_row(
	struct backend *b, sqlite3_stmt *q, load_each_fn each, void *arg, struct err *err)
{
	uint64_t revision = (uint64_t)sqlite3_column_int64(q, 0),
		 created = (uint64_t)sqlite3_column_int64(q, 2);
	sqlite3_int64 type = sqlite3_column_int64(q, 1);
	struct object_parts parts = { .key = column(q, 3) };
	struct str pairs_blob = column(q, 4), json = column(q, 5);
	uint32_t sum = row_sum(revision, (int)type, created, parts.key, pairs_blob, json);
	CLEAN_FREE struct object_pair *pairs = NULL;
	uint32_t labels, fields;
	if (sqlite3_column_int64(q, 6) != sum || type < STORE_ADDED || type > STORE_DELETED ||
		!decode_pairs(pairs_blob, &pairs, &labels, &fields))
		return bad_row(b, err, revision, parts.key);
	parts.labels = pairs;
	parts.fields = pairs + labels;
	parts.n_labels = labels;
	parts.n_fields = fields;
	struct object *o = object_new_whole(&parts, json, revision);
	o->create_revision = created;
	int r = each(arg, (enum store_event_type)type, o, err);
	return r ? err_prefix(err, r, "the store %s is damaged", b->path) : 0;
}

static int newest_revision(struct backend *b, uint64_t *ret, struct err *err)
{
	sqlite3_stmt *q = NULL;
	if (sqlite3_prepare_v2(b->db, "SELECT max(revision) FROM log", -1, &q, NULL) != SQLITE_OK ||
		sqlite3_step(q) != SQLITE_ROW) {
		sqlite3_finalize(q);
		return fail(b, err, "reading");
	}
	*ret = MAX(*ret, (uint64_t)sqlite3_column_int64(q, 0));
	sqlite3_finalize(q);
	return 0;
}

static int sqlite_load(struct backend *b, load_each_fn each, void *arg, uint64_t *ret_revision,
	uint64_t *ret_compacted, struct err *err)
{
	int r = meta_get(b, "compacted", ret_compacted, err);
	*ret_revision = *ret_compacted;
	if (r == 0)
		r = newest_revision(b, ret_revision, err);
	if (r)
		return r;
	if (*ret_revision < b->witness)
		return err_set(err, -EBADMSG,
			"the store %s ends at revision %llu, but %s says that %llu was acknowledged: its "
			"write-ahead log is damaged or truncated. Restore a snapshot; to go on without the lost writes, delete %s",
			b->path, (unsigned long long)*ret_revision, b->lock_path,
			(unsigned long long)b->witness, b->lock_path);
	sqlite3_stmt *q = NULL;
	if (sqlite3_prepare_v2(b->db,
		    "SELECT revision, type, created, key, pairs, json, sum FROM log ORDER BY revision",
		    -1, &q, NULL) != SQLITE_OK)
		return fail(b, err, "reading");
	int rc = SQLITE_DONE;
	while (r == 0 && (rc = sqlite3_step(q)) == SQLITE_ROW)
		r = load_row(b, q, each, arg, err);
	if (r == 0 && rc != SQLITE_DONE)
		r = fail(b, err, "reading");
	sqlite3_finalize(q);
	return r;
}

/* ---- writing ---- */
static bool insert(struct backend *b, const struct store_event *ev)
{
	const struct object *o = ev->object;
	struct str pairs = encode_pairs(b, o);
	sqlite3_stmt *q = b->stmt[INSERT];
	sqlite3_bind_int64(q, 1, (sqlite3_int64)ev->revision);
	sqlite3_bind_int(q, 2, ev->type);
	sqlite3_bind_int64(q, 3, (sqlite3_int64)o->create_revision);
	sqlite3_bind_text(q, 4, o->key.p, (int)o->key.len, SQLITE_STATIC);
	sqlite3_bind_blob(q, 5, pairs.p, (int)pairs.len, SQLITE_STATIC);
	sqlite3_bind_text(q, 6, o->json.p, (int)o->json.len, SQLITE_STATIC);
	sqlite3_bind_int64(
		q, 7, row_sum(ev->revision, ev->type, o->create_revision, o->key, pairs, o->json));
	return run(b, INSERT);
}

/* After a failure: the text first, then back. Only when SQLite says that nothing was written may the process go on. */
static int roll_back(struct backend *b, const char *doing, struct err *err)
{
	int r = fail(b, err, doing);
	if (!sqlite3_get_autocommit(b->db) && !run(b, ROLLBACK))
		return err_prefix(err, -EIO, "rolling back failed after");
	return r == -ENOSPC ? r : -EIO;
}

static int sqlite_tidy(struct backend *b, struct err *err)
{
	if (sqlite3_wal_checkpoint_v2(b->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) !=
		SQLITE_OK)
		return roll_back(b, "checkpointing the store", err);
	b->wal_bytes = 0;
	return 0;
}

static int commit_once(
	struct backend *b, struct store_event *const *events, size_t n, struct err *err)
{
	bool good = run(b, BEGIN);
	for (size_t i = 0; good && i < n; i++)
		good = insert(b, events[i]);
	return good && run(b, COMMIT) ? 0 : roll_back(b, "writing to the store", err);
}

static int sqlite_commit(
	struct backend *b, struct store_event *const *events, size_t n, struct err *err)
{
	int r = commit_once(b, events, n, err);
	if (r == -ENOSPC && b->wal_bytes > 0) {
		/* After a checkpoint the log is written from its beginning again: that may need no more room. */
		r = sqlite_tidy(b, err);
		if (r == 0)
			r = commit_once(b, events, n, err);
	}
	if (r)
		return r;
	b->witness = events[n - 1]->revision;
	lock_write(b->lock_fd, b->witness);
	return 0;
}

static int compare_revisions(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static int sqlite_compact(
	struct backend *b, uint64_t compacted, const struct revisions *rows, struct err *err)
{
	qsort(rows->v, rows->len, sizeof(*rows->v), compare_revisions); /* page after page */
	bool good = run(b, BEGIN) && meta_set(b, "compacted", compacted);
	for (size_t i = 0; good && i < rows->len; i++) {
		sqlite3_bind_int64(b->stmt[DELETE], 1, (sqlite3_int64)rows->v[i]);
		good = run(b, DELETE);
	}
	return good && run(b, COMMIT) ? 0 : roll_back(b, "compacting the store", err);
}

static bool sqlite_untidy(const struct backend *b, bool idle)
{
	return b->wal_bytes > (idle ? WAL_IDLE : WAL_MAX);
}

static uint64_t sqlite_size(const struct backend *b)
{
	struct stat file = { 0 }, wal = { 0 };
	return (stat(b->path, &file) == 0 ? (uint64_t)file.st_size : 0) +
		(stat(b->wal_path, &wal) == 0 ? (uint64_t)wal.st_size : 0);
}

const struct backend_type backend_sqlite = {
	.name = "sqlite",
	.open = sqlite_open,
	.load = sqlite_load,
	.commit = sqlite_commit,
	.compact = sqlite_compact,
	.untidy = sqlite_untidy,
	.tidy = sqlite_tidy,
	.size = sqlite_size,
	.close = sqlite_close,
};
