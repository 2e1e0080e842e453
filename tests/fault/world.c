/* The workload and its judge. */
#include "world.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/map.h"

struct world *world_new(void)
{
	struct world *w =
		mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w == MAP_FAILED)
		abort();
	world_reset(w);
	return w;
}

void world_reset(struct world *w)
{
	uint64_t newest = w->newest;
	memset(w, 0, offsetof(struct world, seen));
	memset((void *)w->seen, 0, (newest + 1) * sizeof(w->seen[0]));
	w->newest = w->watched = 1;
}

void world_error(struct world *w, const char *fmt, ...)
{
	va_list ap;
	w->errors++;
	fputs("WRONG: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* ---- what an event is ---- */
static uint32_t digest(struct str key, int type, struct str json)
{
	uint64_t h = hash_bytes(key.p, key.len, (uint64_t)type + 1);
	h = hash_bytes(json.p, json.len, h);
	return (uint32_t)(h ^ h >> 32) | 1;
}

static void see(
	struct world *w, uint64_t revision, int type, const struct object *o, const char *who)
{
	if (revision >= WORLD_REVISIONS)
		abort();
	uint32_t was = 0, now = digest(o->key, type, o->json);
	if (!atomic_compare_exchange_strong(&w->seen[revision], &was, now) && was != now)
		world_error(w,
			"%s: revision %llu is another event than before: " STR_FMT " " STR_FMT, who,
			(unsigned long long)revision, STR_ARG(o->key), STR_ARG(o->json));
	uint64_t newest = w->newest;
	while (newest < revision && !atomic_compare_exchange_weak(&w->newest, &newest, revision))
		;
}

static uint64_t value_of(const struct object *o)
{
	const char *v = strstr(o->json.p, "\"v\":");
	return v ? strtoull(v + 4, NULL, 10) : 0;
}

static struct key_state state_of(const struct object *o)
{
	return o ? (struct key_state){ o->revision, value_of(o) } : (struct key_state){ 0 };
}

static void key_text(int t, int k, char out[32])
{
	snprintf(out, 32, "/things/t%d/k%02d", t, k);
}

/* ---- writing ---- */
int world_write(struct world *w, struct store *s, int t, unsigned *seed)
{
	static const enum store_event_type types[] = { STORE_ADDED, STORE_MODIFIED, STORE_DELETED };
	struct attempt *a = &w->attempt[t];
	int k = rand_r(seed) % WORLD_KEYS;
	struct key_state *acked = &w->acked[t][k];
	char key[32], head[64];
	static const char filler[2001] = { [0 ... 1999] = 'x' };
	key_text(t, k, key);
	a->key = k;
	a->before = *acked;
	a->verb = acked->revision == 0 ? STORE_CREATE
		: rand_r(seed) % 4     ? STORE_UPDATE
				       : STORE_DELETE;
	a->value = atomic_fetch_add(&w->value, 1) + 1;
	snprintf(head, sizeof(head), "{\"v\":%llu,\"rv\":\"", (unsigned long long)a->value);
	CLEAN_FREE char *tail = xasprintf("\",\"f\":\"%.*s\"}", rand_r(seed) % 2000, filler);
	struct object_pair label = { STR("writer"), str_of(key) };
	struct store_op op = { .key = str_of(key),
		.expect = acked->revision,
		.json_head = str_of(head),
		.json_tail = str_of(tail),
		.labels = &label,
		.n_labels = 1 };
	op.verb = (__typeof__(op.verb))a->verb;
	atomic_store(&a->open, true);

	CLEAN_OBJECT struct object *o = NULL;
	int r = store_write(s, &op, &o);
	if (r == -ENOSPC) {
		w->refused++;
	} else if (r) {
		world_error(w, "writer %d: verb %d of %s, expecting %llu: outcome %d", t, a->verb,
			key, (unsigned long long)op.expect, r);
	} else {
		if (o->revision <= a->before.revision)
			world_error(w, "%s: revision %llu is not above %llu", key,
				(unsigned long long)o->revision,
				(unsigned long long)a->before.revision);
		see(w, o->revision, (int)types[a->verb], o, "acknowledged");
		*acked = a->verb == STORE_DELETE ? (struct key_state){ 0 } : state_of(o);
		w->acks++;
	}
	atomic_store(&a->open, false);
	return r;
}

/* ---- watching ---- */
bool world_watch(struct world *w, struct store_watch *cursor)
{
	struct store_event *ev;
	int r;
	while ((r = store_watch_next(cursor, &ev)) == 0) {
		/* No key is outside, so a gap in the revisions is a lost event. */
		if (ev->revision != w->watched + 1)
			world_error(w, "watched: revision %llu after %llu",
				(unsigned long long)ev->revision, (unsigned long long)w->watched);
		see(w, ev->revision, (int)ev->type, ev->object, "watched");
		w->watched = ev->revision;
		w->events++;
	}
	return r != STORE_COMPACTED;
}

/* ---- judging ---- */
static bool same(struct key_state a, struct key_state b)
{
	return a.revision == b.revision && a.value == b.value;
}

/* An unanswered write happened or did not; nothing else. */
static bool settle(struct attempt *a, struct key_state is)
{
	if (!atomic_load(&a->open))
		return false;
	bool done = a->verb == STORE_DELETE ? is.revision == 0 : is.value == a->value;
	return done || same(is, a->before);
}

static void check_key(struct world *w, struct store *s, int t, int k)
{
	char key[32];
	key_text(t, k, key);
	CLEAN_OBJECT struct object *o = NULL;
	store_get(s, str_of(key), &o);
	struct key_state is = state_of(o), *acked = &w->acked[t][k];
	if (!same(is, *acked) && !(w->attempt[t].key == k && settle(&w->attempt[t], is)))
		world_error(w,
			"%s: stored are revision %llu, value %llu; acknowledged were %llu, %llu",
			key, (unsigned long long)is.revision, (unsigned long long)is.value,
			(unsigned long long)acked->revision, (unsigned long long)acked->value);
	*acked = is;
}

static void nothing(void *arg) {}

/* Every event that the store still has is the one that was seen. */
static void check_events(struct world *w, struct store *s)
{
	struct store_stats st;
	store_stats(s, &st);
	struct store_watch *cursor;
	if (store_watch(s, STR(""), st.oldest_event - 1, nothing, NULL, &cursor) != 0) {
		world_error(w, "no cursor at the oldest event, %llu",
			(unsigned long long)st.oldest_event);
		return;
	}
	struct store_event *ev;
	uint64_t next = st.oldest_event;
	while (store_watch_next(cursor, &ev) == 0) {
		if (ev->revision != next)
			world_error(w, "loaded: revision %llu instead of %llu",
				(unsigned long long)ev->revision, (unsigned long long)next);
		if ((ev->prev == NULL) != (ev->type == STORE_ADDED))
			world_error(w, "loaded: revision %llu and its version before",
				(unsigned long long)ev->revision);
		see(w, ev->revision, (int)ev->type, ev->object, "loaded");
		next = ev->revision + 1;
	}
	if (next != st.revision + 1)
		world_error(w, "the events end at %llu, not at %llu", (unsigned long long)next - 1,
			(unsigned long long)st.revision);
	store_watch_close(cursor);
}

void world_check(struct world *w, struct store *s)
{
	if (store_revision(s) < w->newest)
		world_error(w, "the store is at revision %llu, but %llu was seen",
			(unsigned long long)store_revision(s), (unsigned long long)w->newest);
	size_t objects = 0;
	for (int t = 0; t < WORLD_WRITERS; t++) {
		for (int k = 0; k < WORLD_KEYS; k++) {
			check_key(w, s, t, k);
			objects += w->acked[t][k].revision != 0;
		}
		w->attempt[t].open = false;
	}
	struct store_snapshot *sn = store_snapshot(s);
	if (store_snapshot_count(sn, STR(""), STR_NONE) != objects)
		world_error(w, "there are objects that nobody wrote");
	store_snapshot_free(sn);
	check_events(w, s);
}

/* ---- folders ---- */
static const char *const suffixes[] = { "", "-wal", "-journal", ".lock" };

char *folder_new(void)
{
	char folder[] = "/tmp/skiff-fault-XXXXXX";
	if (!mkdtemp(folder))
		abort();
	return xasprintf("%s/skiff.db", folder);
}

void folder_empty(const char *path)
{
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		CLEAN_FREE char *file = xasprintf("%s%s", path, suffixes[i]);
		unlink(file);
	}
}

void folder_free(char *path)
{
	folder_empty(path);
	*strrchr(path, '/') = '\0';
	rmdir(path);
	free(path);
}

void file_copy(const char *from, const char *to)
{
	char block[65536];
	CLEAN_FD int in = open(from, O_RDONLY | O_CLOEXEC);
	if (in < 0) {
		unlink(to);
		return;
	}
	CLEAN_FD int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ssize_t n;
	while ((n = read(in, block, sizeof(block))) > 0)
		if (write(out, block, (size_t)n) != n)
			abort();
}
