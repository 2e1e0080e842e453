/* `skiff snapshot restore FILE`: a cluster from its snapshot, into a new data directory with SQLite, or into an etcd.
 *
 * 1. The objects are written anew, to the byte but for their revisions, which begin --revision-jump after the saved one, so that nothing that a
 *    client remembers from after the snapshot is taken for current.
 * 2. An etcd that holds objects is refused unless --replace tells otherwise; what was written there is read back and compared.
 * 3. A data directory keeps the keys that it has, and takes no other cluster's. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/map.h"
#include "cmd/snapshot.h"
#include "etcd/etcd.h"
#include "io/io.h"
#include "registry/registry.h"

#define ETCD STR("etcd=")
#define PREFIX STR("/registry/")
#define LINE STR("{\"key\":")

static void add_pairs(
	struct arena *a, const struct value *v, struct object_pair **ret, size_t *ret_n)
{
	*ret_n = v && v->kind == VALUE_OBJECT ? v->object.len : 0;
	*ret = *ret_n ? arena_alloc(a, *ret_n * sizeof(**ret)) : NULL;
	for (size_t i = 0; i < *ret_n; i++)
		(*ret)[i] = (struct object_pair){ v->object.members[i].key,
			v->object.members[i].value.text };
}

/* The object's own text stands behind its member, up to the line's last brace: it is kept to the byte, but for its revision. */
struct line {
	struct str key, json;
	struct value head;
	struct store_op op;
};

static int parse_line(struct str line, struct arena *a, struct line *ret, struct err *err)
{
	static const struct str mark = { ",\"object\":", 10 };
	ssize_t at = str_find_str(line, mark), where;
	struct object_pair *labels, *fields;
	struct store_op *op = &ret->op;
	struct str json, old;
	int r;

	*ret = (struct line){ .op = { .verb = STORE_CREATE } };
	if (at < 0)
		return err_set(err, -EBADMSG, "a line of the store has no object");
	CLEAN_BUF struct buf front = { 0 };

	buf_add_str(&front, str_n(line.p, (size_t)at));
	buf_addc(&front, '}');
	json = str_n(line.p + at + mark.len, line.len - (size_t)at - mark.len - 1);
	r = json_parse(arena_str(a, buf_str(&front)), a, &ret->head, err);
	if (r < 0)
		return r;
	const struct value *key = value_get(&ret->head, STR("key")),
			   *revision = value_get(&ret->head, STR("revision"));

	if (!key || key->kind != VALUE_TEXT || !revision || revision->kind != VALUE_INT)
		return err_set(err, -EBADMSG, "a line of the store has no key or revision");
	old = arena_fmt(a, "\"resourceVersion\":\"%lld\"", (long long)revision->integer);
	where = str_find_str(json, old);
	if (where < 0)
		return err_set(err, -EBADMSG, "object " STR_FMT " does not carry its revision",
			STR_ARG(key->text));
	ret->key = op->key = key->text;
	ret->json = json;
	op->json_head = str_n(json.p, (size_t)where + strlen("\"resourceVersion\":\""));
	op->json_tail = str_from(json, (size_t)where + old.len - 1);
	add_pairs(a, value_get(&ret->head, STR("labels")), &labels, &op->n_labels);
	add_pairs(a, value_get(&ret->head, STR("fields")), &fields, &op->n_fields);
	op->labels = labels;
	op->fields = fields;
	return 0;
}

/* As many writers as make a good group commit. */
#define WRITERS 16
struct restore_job {
	struct store *s;
	const struct store_codec *codec; /* etcd's; NULL: none */
	pthread_mutex_t lock;            /* guards what follows */
	struct str rest;
	size_t written;
	int result;
	struct err err;
};

static int restore_line(struct restore_job *j, struct str text, struct arena *a, struct err *err)
{
	struct line l;
	int r = parse_line(text, a, &l, err);

	if (r < 0)
		return r;
	if (j->codec)
		l.op.ttl_s = registry_codec_ttl(j->codec, l.key);
	r = store_write(j->s, &l.op, NULL);
	return r ? err_set(err, -EIO, "object " STR_FMT " could not be written (%d)",
			   STR_ARG(l.key), r)
		 : 0;
}

static void *restore_worker(void *arg)
{
	struct restore_job *j = arg;

	for (;;) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct err err = { 0 };
		struct str line;
		int r;

		pthread_mutex_lock(&j->lock);
		bool more = j->rest.len && j->result == 0;

		if (more)
			str_cut(j->rest, '\n', &line, &j->rest);
		pthread_mutex_unlock(&j->lock);
		if (!more)
			return NULL;
		if (!str_has_prefix(line, LINE))
			continue;
		r = restore_line(j, line, a, &err);
		pthread_mutex_lock(&j->lock);
		if (r < 0 && j->result == 0) {
			j->result = r;
			j->err = err;
		}
		j->written += r == 0;
		pthread_mutex_unlock(&j->lock);
	}
}

static int write_all(struct restore_job *j, const struct snapshot_contents *c, struct err *err)
{
	pthread_t threads[WRITERS];

	pthread_mutex_init(&j->lock, NULL);
	j->rest = snapshot_find(c, STR("store.jsonl"))->bytes;
	for (size_t i = 0; i < WRITERS; i++)
		if (thread_start(&threads[i], "restore", restore_worker, j) < 0)
			abort();
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	if (j->result < 0)
		*err = j->err;
	return j->result;
}

/* ---- into SQLite ---- */

static int into_sqlite(const struct options *o, const struct snapshot_contents *c, uint64_t first,
	size_t *ret_n, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/store/skiff.db", o->data_dir);
	struct store_config sc = { .backend = "sqlite", .path = path, .first_revision = first };
	struct restore_job j = { 0 };
	int r = store_open(&sc, &j.s, err);

	if (r < 0)
		return r;
	r = write_all(&j, c, err);
	store_close(j.s);
	*ret_n = j.written;
	return r;
}

/* ---- into etcd ---- */

#define TELL_FROM 100000 /* revisions: some ten seconds */

static int move_on(struct etcd *e, uint64_t first, struct err *err)
{
	uint64_t now;
	int r = etcd_revision(e, &now, err);

	if (r == 0 && now + TELL_FROM < first)
		fprintf(stderr,
			"etcd is brought from revision %llu to %llu first: a minute or two for a million (--revision-jump)\n",
			(unsigned long long)now, (unsigned long long)first);
	return r < 0 ? r : etcd_advance(e, first, err);
}

static int make_room(const struct options *o, struct str urls, uint64_t first, struct err *err)
{
	uint64_t there = 0;
	struct etcd *e = NULL;
	int r = cmd_etcd_open(o, urls, false, &e, err);

	if (r == 0)
		r = etcd_count(e, PREFIX, &there, err);
	if (r == 0 && there && !o->replace)
		r = err_set(err, -EEXIST,
			"%s holds %llu objects already: restore into an empty etcd, or stop every server and give --replace to have them deleted",
			o->store, (unsigned long long)there);
	if (r == 0 && there)
		r = etcd_clear(e, PREFIX, err);
	if (r == 0)
		r = move_on(e, first, err);
	etcd_close(e);
	return r;
}

struct comparison {
	const struct store_codec *codec;
	struct map lines; /* key -> struct line, until it was found */
	struct arena *a;
};

static int compare_one(void *arg, const struct store_remote_kv *kv, struct err *err)
{
	struct comparison *x = arg;
	CLEAN_BUF struct buf key = { 0 }, want = { 0 };
	struct line *l = x->codec->key_in(x->codec->arg, kv->key, &key)
		? map_get(&x->lines, buf_str(&key))
		: NULL;
	int r;

	if (!l)
		return err_set(err, -EBUSY,
			"etcd holds " STR_FMT
			", which is not in the snapshot: another server writes to it; stop every server first",
			STR_ARG(kv->key));
	r = x->codec->value_out(x->codec->arg, l->key, l->json, &want, err);
	if (r == 0 && !str_eq(buf_str(&want), kv->value))
		r = err_set(err, -EIO, STR_FMT " came out different in etcd", STR_ARG(kv->key));
	map_remove(&x->lines, buf_str(&key));
	return r;
}

/* Reads what etcd holds now: each object of the snapshot, to the byte, and nothing else. */
static int compare_all(struct cmd_store *cs, const struct snapshot_contents *c, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct comparison x = { .codec = &cs->shared.codec, .a = a };
	struct str rest = snapshot_find(c, STR("store.jsonl"))->bytes, text;
	uint64_t revision;
	int r = 0;

	while (r == 0 && rest.len) {
		struct line *l = arena_alloc(a, sizeof(*l));

		str_cut(rest, '\n', &text, &rest);
		if (!str_has_prefix(text, LINE))
			continue;
		r = parse_line(text, a, l, err);
		if (r == 0)
			map_set(&x.lines, l->key, l);
	}
	if (r == 0)
		r = etcd_remote.load(cs->shared.remote, compare_one, &x, &revision, err);
	if (r == 0 && x.lines.len)
		r = err_set(err, -EIO, "%zu objects of the snapshot are not in etcd", x.lines.len);
	map_deinit(&x.lines, NULL);
	return r;
}

static int into_etcd(const struct options *o, const struct snapshot_contents *c, uint64_t first,
	size_t *ret_n, struct err *err)
{
	struct cmd_store cs = { 0 };
	struct restore_job j = { 0 };
	int r = make_room(o, str_from(str_of(o->store), ETCD.len), first, err);

	if (r == 0)
		r = cmd_store_open(o, &cs, err);
	j.s = cs.store;
	j.codec = &cs.shared.codec;
	if (r == 0)
		r = write_all(&j, c, err);
	if (r == 0)
		r = compare_all(&cs, c, err);
	cmd_store_close(&cs);
	*ret_n = j.written;
	return r;
}

/* ---- files ---- */

static int give_to(const char *dir, const char *user)
{
	struct passwd *pw = getuid() == 0 ? getpwnam(user) : NULL;
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (pw && chown(dir, pw->pw_uid, pw->pw_gid) < 0)
		r = -errno;
	while (pw && d && (e = readdir(d)))
		if (e->d_name[0] != '.' &&
			fchownat(dirfd(d), e->d_name, pw->pw_uid, pw->pw_gid, AT_SYMLINK_NOFOLLOW) <
				0)
			r = -errno;
	if (d)
		closedir(d);
	return r;
}

static int restore_files(const struct snapshot_contents *c, const char *data_dir, struct err *err)
{
	for (size_t i = 0; i < c->entries.len; i++) {
		const struct snapshot_entry *e = &c->entries.items[i];
		CLEAN_FREE char *path = xasprintf("%s/" STR_FMT, data_dir, STR_ARG(e->name));
		int r;

		if (!str_has_prefix(e->name, STR("pki/")) ||
			str_find(str_from(e->name, 4), '/') >= 0)
			continue;
		r = file_write_atomic(path, e->bytes,
			str_has_suffix(e->name, STR(".key")) ? 0600 : 0644, true, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The data directory is new, or (etcd) one of this very cluster, without a server in it. */
static int look_at_data_dir(const struct options *o, const struct snapshot_contents *c, bool etcd,
	bool *ret_has_keys, struct err *err)
{
	CLEAN_FREE char *store = xasprintf("%s/store", o->data_dir),
			*ca = xasprintf("%s/pki/ca.crt", o->data_dir),
			*lock = xasprintf("%s/server.lock", o->data_dir);
	const struct snapshot_entry *saved = snapshot_find(c, STR("pki/ca.crt"));
	CLEAN_BUF struct buf now = { 0 };
	CLEAN_FD int fd = open(lock, O_RDONLY | O_CLOEXEC);
	int r = access(ca, F_OK) == 0 ? file_read(ca, 1 << 20, &now, err) : 0;

	*ret_has_keys = now.len > 0;
	if (r < 0)
		return r;
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, -EBUSY, "a server uses %s: stop it first", o->data_dir);
	if (!etcd && access(store, F_OK) == 0)
		return err_set(err, -EEXIST,
			"%s holds a cluster already: restore into an empty data directory",
			o->data_dir);
	if (now.len && (!saved || !str_eq(saved->bytes, buf_str(&now))))
		return err_set(err, -EEXIST,
			"%s has the keys of another cluster than the snapshot: restore into an empty data directory",
			o->data_dir);
	return 0;
}

static int first_revision(
	const struct options *o, const struct snapshot_contents *c, uint64_t *ret, struct err *err)
{
	const struct value *revision = value_get(&c->manifest, STR("revision"));

	if (!revision || revision->kind != VALUE_INT)
		return err_set(err, -EBADMSG, "the manifest has no revision");
	if (o->revision_jump < 1)
		return err_set(err, -EINVAL, "--revision-jump %lld: at least 1",
			(long long)o->revision_jump);
	*ret = (uint64_t)(revision->integer + o->revision_jump);
	return 0;
}

static int restore_into(const struct options *o, const struct snapshot_contents *c, struct err *err)
{
	CLEAN_FREE char *store = xasprintf("%s/store", o->data_dir),
			*pki = xasprintf("%s/pki", o->data_dir);
	bool etcd = str_has_prefix(str_of(o->store), ETCD), has_keys;
	uint64_t first = 0;
	size_t n = 0;
	int r = look_at_data_dir(o, c, etcd, &has_keys, err);

	if (r == 0 && !etcd && strcmp(o->store, "sqlite"))
		r = err_set(
			err, -EINVAL, "--store %s: restore into sqlite or etcd=URL,…", o->store);
	if (r == 0)
		r = first_revision(o, c, &first, err);
	if (r == 0)
		r = dir_make(store, 0700, err);
	if (r == 0)
		r = dir_make(pki, 0750, err);
	if (r == 0)
		r = etcd ? into_etcd(o, c, first, &n, err) : into_sqlite(o, c, first, &n, err);
	if (r == 0 && !has_keys)
		r = restore_files(c, o->data_dir, err);
	if (r == 0 && (give_to(store, o->user) < 0 || give_to(pki, o->user) < 0))
		r = err_set(err, -EPERM, "cannot give %s to the control plane's user", o->data_dir);
	if (r == 0)
		printf("restored %zu objects into %s%s\n", n, etcd ? o->store : o->data_dir,
			etcd ? ", read back and compared" : "");
	return r;
}

int snapshot_restore(const struct options *o, struct err *err)
{
	struct snapshot_contents c;
	int r = snapshot_load(o->args[1], &c, err);

	if (r == 0)
		r = restore_into(o, &c, err);
	snapshot_unload(&c);
	return r;
}
