/* `skiff store migrate --from sqlite --to etcd=URL` and back: copies every object while no server runs, then reads both sides and compares them
 * object by object. The source stays as it is. Revisions become those of the new store, so whoever watched the old one must list again. */
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cmd/cmd.h"
#include "etcd/etcd.h"
#include "registry/registry.h"

#define PREFIX STR("/registry/")
enum { IN_FLIGHT = 1000 };

struct migration {
	const struct options *o;
	struct store_codec codec;
	struct etcd *etcd;
	struct store *sqlite;
	struct err *err;
	uint64_t n, unknown, same, differ;
	int result;
	/* writes on their way to sqlite */
	pthread_mutex_t lock;
	pthread_cond_t done;
	size_t in_flight;
	int failed;
};

static const char *sqlite_path(const struct options *o, const char *text)
{
	return !strncmp(text, "sqlite=", 7) ? text + 7
					    : xasprintf("%s/store/skiff.db", o->data_dir);
}

static bool is_etcd(const char *text)
{
	return !strncmp(text, "etcd=", 5);
}

static bool is_sqlite(const char *text)
{
	return !strcmp(text, "sqlite") || !strncmp(text, "sqlite=", 7);
}

/* Files beside the database must stay those of the user whom the server runs as. */
static int become_owner(const char *path, struct err *err)
{
	CLEAN_FREE char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	struct stat st;

	if (slash)
		*slash = 0;
	if (stat(slash ? dir : ".", &st) < 0)
		return err_errno(err, -errno, "%s", slash ? dir : ".");
	if (geteuid() == 0 && st.st_uid != 0 && (setegid(st.st_gid) < 0 || seteuid(st.st_uid) < 0))
		return err_errno(err, -errno, "cannot become the owner of %s", dir);
	return 0;
}

static int open_sqlite(
	struct migration *m, const char *path, bool fresh, uint64_t first, struct err *err)
{
	struct store_config c = { .backend = "sqlite", .path = path, .first_revision = first };
	struct stat st;

	if (fresh && stat(path, &st) == 0)
		return err_set(err, -EEXIST,
			"%s is there already: move it away, or name another file by --to sqlite=FILE",
			path);
	if (!fresh && stat(path, &st) < 0)
		return err_errno(err, -errno, "%s", path);
	int r = become_owner(path, err);

	return r < 0 ? r : store_open(&c, &m->sqlite, err);
}

/* ---- into etcd ---- */

static bool put_one(void *arg, struct object *o)
{
	struct migration *m = arg;
	CLEAN_BUF struct buf key = { 0 }, value = { 0 };

	if (!m->codec.key_out(m->codec.arg, o->key, &key)) {
		m->result = err_set(m->err, -EINVAL, "etcd's layout has no place for " STR_FMT,
			STR_ARG(o->key));
		return false;
	}
	m->result = m->codec.value_out(m->codec.arg, o->key, o->json, &value, m->err);
	if (m->result == 0)
		m->result = etcd_put(m->etcd, buf_str(&key), buf_str(&value),
			registry_codec_ttl(&m->codec, o->key), m->err);
	m->n += m->result == 0;
	return m->result == 0;
}

static int compare_with_sqlite(void *arg, const struct store_remote_kv *kv, struct err *err)
{
	struct migration *m = arg;
	CLEAN_BUF struct buf key = { 0 }, want = { 0 };
	CLEAN_OBJECT struct object *o = NULL;

	if (!m->codec.key_in(m->codec.arg, kv->key, &key) ||
		store_get(m->sqlite, buf_str(&key), &o))
		return err_set(err, -EIO, "etcd holds " STR_FMT ", which %s does not",
			STR_ARG(kv->key), m->o->from);
	int r = m->codec.value_out(m->codec.arg, o->key, o->json, &want, err);

	if (r < 0)
		return r;
	if (!str_eq(buf_str(&want), kv->value))
		return err_set(err, -EIO, STR_FMT " came out different in etcd", STR_ARG(kv->key));
	m->same++;
	return 0;
}

static int to_etcd(struct migration *m, struct err *err)
{
	uint64_t there, revision;
	int r = cmd_etcd_open(m->o, str_of(m->o->to + 5), false, &m->etcd, err);

	if (r == 0)
		r = etcd_count(m->etcd, PREFIX, &there, err);
	if (r == 0 && there)
		return err_set(err, -EEXIST,
			"%s holds %llu objects already: migrate into an empty one", m->o->to,
			(unsigned long long)there);
	if (r == 0)
		r = open_sqlite(m, sqlite_path(m->o, m->o->from), false, 0, err);
	if (r < 0)
		return r;
	struct store_snapshot *sn = store_snapshot(m->sqlite);

	store_snapshot_each(sn, STR_NONE, STR_NONE, put_one, m);
	store_snapshot_free(sn);
	r = m->result;
	if (r == 0)
		r = etcd_remote.load(m->etcd, compare_with_sqlite, m, &revision, err);
	if (r == 0 && m->same != m->n)
		r = err_set(err, -EIO, "%llu objects were copied, but %llu are in etcd",
			(unsigned long long)m->n, (unsigned long long)m->same);
	if (r == 0)
		printf("%llu objects copied into etcd and compared; revision %llu there, %llu before\n",
			(unsigned long long)m->n, (unsigned long long)revision,
			(unsigned long long)store_revision(m->sqlite));
	return r;
}

/* ---- into sqlite ---- */

static void written(void *arg, int result, struct object *o)
{
	struct migration *m = arg;

	pthread_mutex_lock(&m->lock);
	m->in_flight--;
	m->failed = m->failed ? m->failed : result;
	pthread_cond_signal(&m->done);
	pthread_mutex_unlock(&m->lock);
}

static int wait_below(struct migration *m, size_t n)
{
	pthread_mutex_lock(&m->lock);
	while (m->in_flight > n)
		pthread_cond_wait(&m->done, &m->lock);
	int r = m->failed;

	pthread_mutex_unlock(&m->lock);
	return r;
}

static int store_one(void *arg, const struct store_remote_kv *kv, struct err *err)
{
	struct migration *m = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf key = { 0 };
	struct store_op op = { .verb = STORE_CREATE };

	if (!m->codec.key_in(m->codec.arg, kv->key, &key)) {
		if (m->unknown++ < 10)
			fprintf(stderr,
				"left out: " STR_FMT ", a resource that is not known here\n",
				STR_ARG(kv->key));
		return 0;
	}
	op.key = buf_str(&key);
	int r = m->codec.value_in(m->codec.arg, op.key, kv->value, a, &op, err);

	if (r < 0)
		return err_prefix(err, r, STR_FMT, STR_ARG(kv->key));
	r = wait_below(m, IN_FLIGHT);
	if (r)
		return err_set(
			err, r < 0 ? r : -EIO, "writing " STR_FMT " failed", STR_ARG(op.key));
	pthread_mutex_lock(&m->lock);
	m->in_flight++;
	pthread_mutex_unlock(&m->lock);
	store_submit(m->sqlite, &op, written, m);
	m->n++;
	return 0;
}

static int compare_with_etcd(void *arg, const struct store_remote_kv *kv, struct err *err)
{
	struct migration *m = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf key = { 0 }, back = { 0 };
	CLEAN_OBJECT struct object *o = NULL;
	struct store_op op = { 0 };
	struct str head, tail;

	if (!m->codec.key_in(m->codec.arg, kv->key, &key))
		return 0;
	if (store_get(m->sqlite, buf_str(&key), &o))
		return err_set(err, -EIO, STR_FMT " is missing in the new store", STR_ARG(kv->key));
	int r = m->codec.value_in(m->codec.arg, buf_str(&key), kv->value, a, &op, err);

	m->codec.cut(o->json, &head, &tail);
	if (r == 0 && (!str_eq(head, op.json_head) || !str_eq(tail, op.json_tail)))
		r = err_set(err, -EIO, STR_FMT " came out different in the new store",
			STR_ARG(kv->key));
	if (r == 0)
		r = m->codec.value_out(m->codec.arg, o->key, o->json, &back, err);
	if (r == 0 && !str_eq(buf_str(&back), kv->value) && m->differ++ < 10 &&
		proto_has_magic(kv->value))
		fprintf(stderr,
			STR_FMT " holds fields that are not known here; they were left out\n",
			STR_ARG(kv->key));
	m->same += r == 0;
	return r;
}

static int to_sqlite(struct migration *m, struct err *err)
{
	uint64_t revision = 0, again = 0, there;
	int r = cmd_etcd_open(m->o, str_of(m->o->from + 5), false, &m->etcd, err);

	if (r == 0)
		r = etcd_count(m->etcd, PREFIX, &there, err);
	if (r == 0 && !there)
		return err_set(err, -ENOENT, "%s holds nothing below /registry/", m->o->from);
	if (r == 0)
		r = etcd_revision(m->etcd, &revision, err);
	if (r ==
		0) /* further on than etcd is, so that no cache from before can be taken for newer */
		r = open_sqlite(m, sqlite_path(m->o, m->o->to), true, revision + 1, err);
	if (r == 0)
		r = etcd_remote.load(m->etcd, store_one, m, &revision, err);
	if (wait_below(m, 0) && r == 0)
		r = err_set(err, -EIO, "a write into the new store failed");
	if (r == 0)
		r = etcd_remote.load(m->etcd, compare_with_etcd, m, &again, err);
	if (r == 0 && again != revision)
		r = err_set(err, -EBUSY,
			"etcd changed meanwhile, from revision %llu to %llu: stop every server first",
			(unsigned long long)revision, (unsigned long long)again);
	if (r == 0 && m->same != m->n)
		r = err_set(err, -EIO, "%llu objects were copied, but %llu were found again",
			(unsigned long long)m->n, (unsigned long long)m->same);
	if (r == 0)
		printf("%llu objects copied from etcd and compared; %llu keys of resources that are not known here were left out\n",
			(unsigned long long)m->n, (unsigned long long)m->unknown);
	return r;
}

int cmd_migrate(int argc, char **argv)
{
	struct options o;
	struct err err = { 0 };
	struct migration m = { .o = &o,
		.err = &err,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.done = PTHREAD_COND_INITIALIZER };
	int r = options_parse(&o, OPT_STORE, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	bool out = o.from && o.to && is_sqlite(o.from) && is_etcd(o.to),
	     in = o.from && o.to && is_etcd(o.from) && is_sqlite(o.to);

	if (o.n_args != 1 || strcmp(o.args[0], "migrate") || (!in && !out)) {
		fputs("usage: skiff store migrate --from sqlite[=FILE]|etcd=URL,… --to etcd=URL,…|sqlite[=FILE] [--data-dir DIR] [--etcd-cafile FILE "
		      "--etcd-certfile FILE --etcd-keyfile FILE]\nOne side is sqlite, the other etcd. No server may run meanwhile.\n",
			stderr);
		return 2;
	}
	r = registry_codec_new(&m.codec, &err);
	if (r == 0)
		r = out ? to_etcd(&m, &err) : to_sqlite(&m, &err);
	store_close(m.sqlite);
	etcd_close(m.etcd);
	registry_codec_free(&m.codec);
	return r < 0 ? cmd_fail("store migrate", &err, 1) : 0;
}
