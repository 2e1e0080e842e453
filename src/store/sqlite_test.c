/* What the SQLite backend refuses to open, and what it forgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/internal.h"
#include "store/store_test.h"

static void put(struct store *s, int verb, const char *key)
{
	struct store_op op = { .verb = (__typeof__(op.verb))verb,
		.key = str_of(key),
		.json_head = STR("{\"rv\":\""),
		.json_tail = STR("\"}") };
	assert_int_equal(store_write(s, &op, NULL), 0);
}

static void sql(const struct store_config *c, const char *text)
{
	sqlite3 *db;
	char *why = NULL;
	assert_int_equal(sqlite3_open(c->path, &db), SQLITE_OK);
	if (sqlite3_exec(db, text, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s: %s", text, why);
	sqlite3_close(db);
}

static int64_t sql_number(const struct store_config *c, const char *text)
{
	sqlite3 *db;
	sqlite3_stmt *q;
	assert_int_equal(sqlite3_open(c->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, text, -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	int64_t n = sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	sqlite3_close(db);
	return n;
}

static void assert_refused(const struct store_config *c, int code, const char *a, const char *b)
{
	struct store *s = NULL;
	struct err err = { 0 };
	assert_int_equal(store_open(c, &s, &err), code);
	if (!strstr(err.text, a) || !strstr(err.text, b))
		fail_msg("neither \"%s\" nor \"%s\" in: %s", a, b, err.text);
}

static void a_second_opener(void **state)
{
	struct store_config *c = *state;
	struct store *s = test_open(c, 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct store *other;
		struct err err = { 0 };
		CLEAN_FREE char *me = xasprintf("process %d", (int)getppid());
		_exit(store_open(c, &other, &err) == -EBUSY && strstr(err.text, me) &&
					strstr(err.text, c->path)
				? 0
				: 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	put(s, STORE_CREATE, "/a");
	store_close(s);
	store_close(test_open(c, 0));
}

static void a_newer_format(void **state)
{
	struct store_config *c = *state;
	store_close(test_open(c, 0));
	/* The checksum of ("format", 2), so that the format is what is wrong with it. */
	sql(c, "UPDATE meta SET value = 2, sum = 240749709 WHERE name = 'format'");
	assert_refused(c, -EPROTO, "format 2", "newer");
}

static void damaged_rows(void **state)
{
	struct store_config *c = *state;
	struct store *s = test_open(c, 0);
	put(s, STORE_CREATE, "/a/1");
	put(s, STORE_CREATE, "/a/2");
	put(s, STORE_UPDATE, "/a/2");
	store_close(s);
	sql(c, "CREATE TABLE saved AS SELECT * FROM log");
	static const char *const restore = "DELETE FROM log; INSERT INTO log SELECT * FROM saved";
	static const struct {
		const char *damage, *says;
	} rows[] = {
		{ "UPDATE log SET json = '{\"rv\":\"9\"}' WHERE revision = 3", "/a/2" },
		{ "UPDATE log SET key = '/a/3' WHERE revision = 3", "/a/3" },
		{ "UPDATE log SET created = 1 WHERE revision = 4", "/a/2" },
		{ "UPDATE log SET type = 0 WHERE revision = 4", "checksum" },
		{ "UPDATE log SET type = 9 WHERE revision = 4", "checksum" },
		{ "UPDATE log SET pairs = x'01000000' WHERE revision = 2", "/a/1" },
		{ "UPDATE log SET sum = 1 WHERE revision = 2", "/a/1" },
		{ "DELETE FROM log WHERE revision = 3", "missing" },
		{ "DELETE FROM log WHERE revision = 2", "missing" },
		{ "DELETE FROM log WHERE revision = 4", "acknowledged" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		sql(c, rows[i].damage);
		assert_refused(c, -EBADMSG, c->path, rows[i].says);
		sql(c, restore);
	}
	store_close(test_open(c, 0));
	sql(c, "DROP TABLE meta");
	assert_refused(c, -EBADMSG, c->path, "table");
}

static void not_a_database(void **state)
{
	struct store_config *c = *state;
	FILE *f = fopen(c->path, "w");
	for (int i = 0; i < 1000; i++)
		fputs("this is a diary\n", f);
	fclose(f);
	assert_refused(c, -EBADMSG, c->path, "not a database");
}

static void a_database_that_vanished(void **state)
{
	struct store_config *c = *state;
	struct store *s = test_open(c, 0);
	put(s, STORE_CREATE, "/a");
	store_close(s);
	unlink(c->path);
	assert_refused(c, -EBADMSG, "lost", ".lock");
}

static void no_such_folder(void **state)
{
	struct store_config c = { .backend = "sqlite", .path = "/no/such/folder/skiff.db" };
	assert_refused(&c, -ENOENT, c.path, "No such file");
	c.backend = "diary";
	assert_refused(&c, -EINVAL, "diary", "sqlite");
}

static void private_files(void **state)
{
	struct store_config *c = *state;
	struct store *s = test_open(c, 0);
	put(s, STORE_CREATE, "/secrets/a");
	static const char *const suffixes[] = { "", "-wal", ".lock" };
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		struct stat st;
		CLEAN_FREE char *file = xasprintf("%s%s", c->path, suffixes[i]);
		assert_int_equal(stat(file, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	store_close(s);
}

/* Rows go when the log has let go of them, objects stay, and a restart knows what was forgotten. */
static void compaction(void **state)
{
	struct store_config *c = *state;
	struct store *s = test_open(c, 10);
	s->dropped_max = 20;
	put(s, STORE_CREATE, "/stays");
	for (int i = 0; i < 100; i++) {
		put(s, STORE_CREATE, "/a");
		put(s, STORE_UPDATE, "/a");
		put(s, STORE_DELETE, "/a");
	}
	store_close(s);
	int64_t rows = sql_number(c, "SELECT count(*) FROM log");
	int64_t compacted = sql_number(c, "SELECT value FROM meta WHERE name = 'compacted'");
	assert_in_range(rows, 11, 50);
	assert_in_range(compacted, 250, 292);
	s = test_open(c, 1000);
	struct store_stats st;
	store_stats(s, &st);
	assert_int_equal(st.revision, 302);
	assert_int_equal(st.objects, 1);
	assert_int_equal(st.oldest_event, compacted + 1);
	struct store_watch *w;
	assert_int_equal(
		store_watch(s, STR("/"), 200, test_wake_nothing, NULL, &w), STORE_COMPACTED);
	assert_int_equal(
		store_watch(s, STR("/"), (uint64_t)compacted, test_wake_nothing, NULL, &w), 0);
	for (uint64_t r = (uint64_t)compacted + 1; r <= 302; r++) {
		struct store_event *ev;
		assert_int_equal(store_watch_next(w, &ev), 0);
		assert_int_equal(ev->revision, r);
		assert_int_equal(ev->prev != NULL, ev->type != STORE_ADDED);
	}
	store_watch_close(w);
	store_close(s);
}

/* A revision given to a write that was forgotten is not given again. */
static void revision_survives_compaction(void **state)
{
	struct store_config *c = *state;
	struct store *s = test_open(c, 1);
	s->dropped_max = 1;
	put(s, STORE_CREATE, "/a");
	put(s, STORE_DELETE, "/a");
	put(s, STORE_CREATE, "/b");
	put(s, STORE_DELETE, "/b");
	store_close(s);
	s = test_open(c, 1);
	assert_int_equal(store_revision(s), 5);
	store_close(s);
}

static void a_store_that_begins_later(void **state)
{
	struct store_config c = *(struct store_config *)*state;
	c.first_revision = 1000;
	struct store *s = test_open(&c, 0);
	assert_int_equal(store_revision(s), 1000);
	put(s, STORE_CREATE, "/a");
	assert_int_equal(store_revision(s), 1001);
	store_close(s);
	c.first_revision = 5; /* only a new store asks */
	s = test_open(&c, 0);
	assert_int_equal(store_revision(s), 1001);
	struct store_watch *w;
	assert_int_equal(
		store_watch(s, STR("/"), 999, test_wake_nothing, NULL, &w), STORE_COMPACTED);
	store_close(s);
}

int main(void)
{
	struct store_config sqlite = { .backend = "sqlite" };
#define TEST(fn) \
	cmocka_unit_test_prestate_setup_teardown(fn, test_folder, test_folder_remove, &sqlite)
	const struct CMUnitTest tests[] = {
		TEST(a_second_opener),
		TEST(a_newer_format),
		TEST(damaged_rows),
		TEST(not_a_database),
		TEST(a_database_that_vanished),
		TEST(no_such_folder),
		TEST(private_files),
		TEST(compaction),
		TEST(revision_survives_compaction),
		TEST(a_store_that_begins_later),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
