/* The image store: records and configs of images, unpacked layers. All state is in files, guarded by flock, so that `skiff image` works beside a
 * running engine.
 * 1. `lock` is held exclusively for moments only: while a finished import is put in place, or while an image's record goes.
 * 2. A layer is complete when its .layer record is there. A layer goes when no image and no container names it. */
#include "engine/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define CONFIG_MAX (8 * 1024 * 1024)

static const struct record_row image_rows[] = {
	{ "id", RECORD_TEXT, offsetof(struct image_record, id) },
	{ "tags", RECORD_TEXTS, offsetof(struct image_record, tags) },
	{ "digests", RECORD_TEXTS, offsetof(struct image_record, digests) },
	{ "layers", RECORD_TEXTS, offsetof(struct image_record, layers) },
	{ "size", RECORD_INT, offsetof(struct image_record, size) },
	{ "user", RECORD_TEXT, offsetof(struct image_record, user) },
	{ "loose", RECORD_BOOL, offsetof(struct image_record, loose) },
};
const struct record_type image_record_type = { image_rows, ARRAY_LEN(image_rows) };

int store_lock(
	const struct image_store *s, const char *file, int operation, int *ret_fd, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/%s", s->root, file);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "cannot open %s", path);
	while (flock(fd, operation) < 0)
		if (errno != EINTR) {
			int r = -errno;
			close(fd);
			return err_errno(err, r, "cannot lock %s", path);
		}
	*ret_fd = fd;
	return 0;
}

void layer_name(struct str diff_id, char ret[25])
{
	struct str hex = str_has_prefix(diff_id, STR("sha256:")) ? str_from(diff_id, 7) : diff_id;

	snprintf(ret, 25, "%.*s", (int)MIN(hex.len, (size_t)24), hex.p);
}

struct layer_record {
	char *diff_id;
	int64_t size;
};
static const struct record_row layer_rows[] = {
	{ "diffId", RECORD_TEXT, offsetof(struct layer_record, diff_id) },
	{ "size", RECORD_INT, offsetof(struct layer_record, size) },
};
static const struct record_type layer_record_type = { layer_rows, ARRAY_LEN(layer_rows) };

static void image_record_clear(struct image_record *r)
{
	record_deinit(&image_record_type, r);
}

static void layer_record_clear(struct layer_record *r)
{
	record_deinit(&layer_record_type, r);
}

bool store_has_layer(const struct image_store *s, struct str diff_id)
{
	CLEANUP(layer_record_clear) struct layer_record r = { 0 };
	char path[PATH_MAX], name[25];

	layer_name(diff_id, name);
	path_fmt(path, "%s/layers/%s.layer", s->root, name);
	return record_load(&layer_record_type, &r, path, NULL) == 0 && r.diff_id &&
		str_eqz(diff_id, r.diff_id);
}

/* Moves an unpacked folder to its place. Lock held exclusively. */
int store_place_layer(const struct image_store *s, const char *folder, struct str diff_id,
	uint64_t size, struct err *err)
{
	CLEAN_FREE char *diff = str_dup(diff_id);
	struct layer_record r = { .diff_id = diff, .size = (int64_t)size };
	char target[PATH_MAX], record[PATH_MAX], name[25];

	if (store_has_layer(s, diff_id))
		return 0;
	layer_name(diff_id, name);
	path_fmt(target, "%s/layers/%s", s->root, name);
	path_fmt(record, "%s/layers/%s.layer", s->root, name);
	if (access(record, F_OK) == 0)
		return err_set(err, -EEXIST,
			"another layer has the same first 24 digits as " STR_FMT ": refused",
			STR_ARG(diff_id));
	int e = dir_remove_tree(target, err);
	if (e < 0)
		return e;
	if (rename(folder, target) < 0)
		return err_errno(err, -errno, "cannot move a layer to %s", target);
	return record_save(&layer_record_type, &r, record, true, err);
}

uint64_t store_layer_size(const struct image_store *s, const char *name)
{
	CLEANUP(layer_record_clear) struct layer_record r = { 0 };
	char path[PATH_MAX];

	path_fmt(path, "%s/layers/%s.layer", s->root, name);
	return record_load(&layer_record_type, &r, path, NULL) == 0 ? (uint64_t)r.size : 0;
}

/* ---- finding ---- */
/* Calls fn with each image's record until it returns true. Lock held. */
static int each_image(const struct image_store *s, bool (*fn)(void *arg, struct image_record *r),
	void *arg, struct err *err)
{
	char path[PATH_MAX];
	bool done = false;

	path_fmt(path, "%s/images", s->root);
	DIR *d = opendir(path);
	if (!d)
		return err_errno(err, -errno, "cannot open %s", path);
	for (struct dirent *e; !done && (e = readdir(d));) {
		struct image_record r = { 0 };
		if (strlen(e->d_name) != 64)
			continue;
		path_fmt(path, "%s/images/%s", s->root, e->d_name);
		if (record_load(&image_record_type, &r, path, NULL) < 0 || !r.id) {
			log_warn("engine", "image record %s is damaged: import the image again",
				path);
			continue;
		}
		done = fn(arg, &r);
		image_record_clear(&r);
	}
	closedir(d);
	return 0;
}

struct search {
	struct str text; /* as asked, for ids */
	struct image_ref ref;
	bool has_ref;
	struct image_record found;
	size_t n;
};

static bool id_matches(const char *id, struct str text)
{
	struct str hex = str_has_prefix(text, STR("sha256:")) ? str_from(text, 7) : text;

	return hex.len >= 12 && hex.len <= 64 && str_has_prefix(str_of(id + 7), hex) &&
		(hex.len == 64 || hex.len == text.len);
}

/* A digest decides over a tag, as everywhere. */
static bool ref_matches(const struct search *s, const struct image_record *r)
{
	if (!s->has_ref)
		return false;
	if (!s->ref.digest.len)
		return texts_has(r->tags, s->ref.canonical);
	for (size_t i = 0; r->digests && r->digests[i]; i++)
		if (str_has_suffix(str_of(r->digests[i]), s->ref.digest) &&
			str_has_prefix(str_of(r->digests[i]), s->ref.name))
			return true;
	return false;
}

static bool search_one(void *arg, struct image_record *r)
{
	struct search *s = arg;
	bool by_ref = ref_matches(s, r);

	if (!by_ref && !id_matches(r->id, s->text))
		return false;
	if (s->n && !by_ref) { /* short ids may fit several */
		s->n++;
		return false;
	}
	image_record_clear(&s->found);
	s->found = *r;
	memset(r, 0, sizeof(*r));
	s->n = 1;
	return by_ref;
}

int store_find(
	const struct image_store *s, struct str ref, struct image_record *ret, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct search search = { .text = ref };
	struct err why;

	search.has_ref = image_ref_parse(ref, a, &search.ref, &why) == 0;
	int r = each_image(s, search_one, &search, err);
	if (r == 0 && search.n == 1) {
		*ret = search.found;
		return 0;
	}
	image_record_clear(&search.found);
	if (r < 0)
		return r;
	if (search.n > 1)
		return err_set(err, -EINVAL,
			"\"" STR_FMT "\" fits several images: give more digits of the id",
			STR_ARG(ref));
	if (!search.has_ref)
		return err_set(err, -EINVAL, "%s", why.text);
	return err_set(err, ENGINE_NOT_FOUND, "image \"" STR_FMT "\" is not on this node",
		STR_ARG(search.ref.canonical));
}

/* ---- config ---- */
static struct str value_text(const struct value *object, const char *key)
{
	const struct value *v =
		object && object->kind == VALUE_OBJECT ? value_get(object, str_of(key)) : NULL;

	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

static struct engine_strs value_texts(const struct value *object, const char *key, struct arena *a)
{
	const struct value *v =
		object && object->kind == VALUE_OBJECT ? value_get(object, str_of(key)) : NULL;
	struct engine_strs out = { 0 };

	if (!v || v->kind != VALUE_LIST)
		return out;
	struct str *items = arena_alloc(a, v->list.len * sizeof(*items) + 1);
	for (size_t i = 0; i < v->list.len; i++)
		if (v->list.items[i].kind == VALUE_TEXT)
			items[out.len++] = v->list.items[i].text;
	out.items = items;
	return out;
}

int image_config_parse(struct str text, struct arena *a, struct image_config *ret,
	struct engine_strs *ret_diff_ids, struct err *err)
{
	struct value root;
	int r = json_parse(text, a, &root, err);

	if (r < 0 || root.kind != VALUE_OBJECT)
		return err_set(err, -EBADMSG, "an image's config is no JSON object");
	const struct value *config = value_get(&root, STR("config")),
			   *rootfs = value_get(&root, STR("rootfs"));
	*ret = (struct image_config){
		.user = value_text(config, "User"),
		.working_dir = value_text(config, "WorkingDir"),
		.stop_signal = value_text(config, "StopSignal"),
		.env = value_texts(config, "Env", a),
		.entrypoint = value_texts(config, "Entrypoint", a),
		.cmd = value_texts(config, "Cmd", a),
	};
	if (ret_diff_ids)
		*ret_diff_ids = value_texts(rootfs, "diff_ids", a);
	return 0;
}

int store_config(const struct image_store *s, const char *id, struct arena *a,
	struct image_config *ret, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	char path[PATH_MAX];

	path_fmt(path, "%s/images/%s.config", s->root, id + strlen("sha256:"));
	int r = file_read(path, CONFIG_MAX, &text, err);
	return r < 0 ? r : image_config_parse(arena_str(a, buf_str(&text)), a, ret, NULL, err);
}

/* ---- adding ---- */
struct retag {
	const struct image_store *store;
	const struct image_record *by;
	struct err *err;
	int result;
};

static bool retag_one(void *arg, struct image_record *r)
{
	struct retag *t = arg;
	size_t before = texts_len(r->tags);
	char path[PATH_MAX];

	if (!strcmp(r->id, t->by->id))
		return false;
	for (size_t i = 0; t->by->tags && t->by->tags[i]; i++)
		texts_remove(&r->tags, str_of(t->by->tags[i]));
	if (texts_len(r->tags) == before)
		return false;
	r->loose |= !texts_len(r->tags);
	path_fmt(path, "%s/images/%s", t->store->root, r->id + strlen("sha256:"));
	t->result = record_save(&image_record_type, r, path, true, t->err);
	return t->result < 0;
}

static void merge_texts(char ***into, char *const *from)
{
	for (size_t i = 0; from && from[i]; i++)
		texts_add(into, str_of(from[i]));
}

int store_add(
	const struct image_store *s, struct image_record *r, struct str config, struct err *err)
{
	CLEANUP(image_record_clear) struct image_record old = { 0 };
	struct retag t = { .store = s, .by = r, .err = err };
	char path[PATH_MAX];

	path_fmt(path, "%s/images/%s", s->root, r->id + strlen("sha256:"));
	if (access(path, F_OK) == 0 && record_load(&image_record_type, &old, path, NULL) == 0) {
		merge_texts(&r->tags, old.tags);
		merge_texts(&r->digests, old.digests);
	}
	int e = each_image(s, retag_one, &t, err);
	if (e == 0)
		e = t.result;
	if (e == 0) {
		path_fmt(path, "%s/images/%s.config", s->root, r->id + strlen("sha256:"));
		e = file_write_atomic(path, config, 0600, true, err);
	}
	path_fmt(path, "%s/images/%s", s->root, r->id + strlen("sha256:"));
	return e < 0 ? e : record_save(&image_record_type, r, path, true, err);
}

/* ---- giving out ---- */
static struct engine_strs export_texts(char *const *texts, struct arena *a)
{
	size_t n = texts_len(texts);
	struct str *items = arena_alloc(a, n * sizeof(*items) + 1);

	for (size_t i = 0; i < n; i++)
		items[i] = arena_strz(a, texts[i]);
	return (struct engine_strs){ items, n };
}

void image_record_export(const struct image_record *r, struct arena *a, struct engine_image *ret)
{
	*ret = (struct engine_image){
		.id = arena_strz(a, r->id),
		.repo_tags = export_texts(r->tags, a),
		.repo_digests = export_texts(r->digests, a),
		.size = (uint64_t)r->size,
		.user = arena_strz(a, r->user ? r->user : ""),
		.pinned = !r->loose,
	};
}

int image_store_status(struct image_store *s, struct str ref, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	CLEANUP(image_record_clear) struct image_record record = { 0 };
	CLEAN_FD int lock = -1;
	int r = store_lock(s, "lock", LOCK_SH, &lock, err);

	if (r == 0)
		r = store_find(s, ref, &record, err);
	if (r == 0)
		image_record_export(&record, a, ret);
	return r;
}

struct listing {
	struct arena *arena;
	struct engine_image *items;
	size_t n;
};

static bool list_one(void *arg, struct image_record *r)
{
	struct listing *l = arg;

	l->items = arena_grow(
		l->arena, l->items, l->n * sizeof(*l->items), (l->n + 1) * sizeof(*l->items));
	image_record_export(r, l->arena, &l->items[l->n++]);
	return false;
}

int image_store_list(struct image_store *s, struct arena *a, struct engine_image **ret,
	size_t *ret_n, struct err *err)
{
	struct listing l = { .arena = a };
	CLEAN_FD int lock = -1;
	int r = store_lock(s, "lock", LOCK_SH, &lock, err);

	if (r == 0)
		r = each_image(s, list_one, &l, err);
	if (r < 0)
		return r;
	*ret = l.items;
	*ret_n = l.n;
	return 0;
}

int image_store_pin(struct image_store *s, struct str ref, bool pinned, struct err *err)
{
	CLEANUP(image_record_clear) struct image_record record = { 0 };
	CLEAN_FD int lock = -1;
	char path[PATH_MAX];
	int r = store_lock(s, "lock", LOCK_EX, &lock, err);

	if (r == 0)
		r = store_find(s, ref, &record, err);
	if (r || record.loose == !pinned)
		return r;
	record.loose = !pinned;
	path_fmt(path, "%s/images/%s", s->root, record.id + strlen("sha256:"));
	return record_save(&image_record_type, &record, path, true, err);
}

/* ---- removing ---- */
struct use {
	const char *image_id; /* whose containers to look for, or NULL */
	char **layers;        /* in use */
	char *by;             /* name of a container of image_id */
};

static void note_containers(const struct image_store *s, struct use *u)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/containers", s->root);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		struct container c = { 0 };
		path_fmt(path, "%s/containers/%s/record", s->root, e->d_name);
		if (e->d_name[0] == '.' || record_load(&container_record_type, &c, path, NULL) < 0)
			continue;
		merge_texts(&u->layers, c.layers);
		if (u->image_id && c.image_id && !strcmp(c.image_id, u->image_id) && !u->by)
			u->by = xstrdup(c.name ? c.name : e->d_name);
		record_deinit(&container_record_type, &c);
	}
	if (d)
		closedir(d);
}

static bool note_layers(void *arg, struct image_record *r)
{
	struct use *u = arg;

	merge_texts(&u->layers, r->layers);
	return false;
}

/* Removes layers that nothing names. Both locks held. */
static int collect_layers(const struct image_store *s, struct err *err)
{
	struct use u = { 0 };
	char path[PATH_MAX];
	int r = each_image(s, note_layers, &u, err);

	note_containers(s, &u);
	path_fmt(path, "%s/layers", s->root);
	DIR *d = r == 0 ? opendir(path) : NULL;
	for (struct dirent *e; d && r == 0 && (e = readdir(d));) {
		char name[25];
		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%.24s", e->d_name);
		if (texts_has(u.layers, str_of(name)))
			continue;
		path_fmt(path, "%s/layers/%s.layer", s->root, name);
		unlink(path);
		path_fmt(path, "%s/layers/%s", s->root, name);
		r = dir_remove_tree(path, err);
	}
	if (d)
		closedir(d);
	texts_free(u.layers);
	return r;
}

int image_store_remove(struct image_store *s, struct str ref, struct err *err)
{
	CLEANUP(image_record_clear) struct image_record record = { 0 };
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_FD int import = -1, lock = -1;
	struct image_ref parsed;
	char path[PATH_MAX];
	int r = store_lock(s, "import.lock", LOCK_EX, &import, err);

	if (r == 0)
		r = store_lock(s, "lock", LOCK_EX, &lock, err);
	if (r == 0)
		r = store_find(s, ref, &record, err);
	if (r != 0)
		return r;
	path_fmt(path, "%s/images/%s", s->root, record.id + strlen("sha256:"));
	/* One tag of several: the image stays under the others. */
	if (image_ref_parse(ref, a, &parsed, NULL) == 0 &&
		texts_has(record.tags, parsed.canonical) && texts_len(record.tags) > 1) {
		texts_remove(&record.tags, parsed.canonical);
		return record_save(&image_record_type, &record, path, true, err);
	}
	struct use u = { .image_id = record.id };
	note_containers(s, &u);
	texts_free(u.layers);
	if (u.by) {
		err_set(err, -EBUSY,
			"image \"" STR_FMT
			"\" is in use by the container \"%s\": delete its pod first",
			STR_ARG(ref), u.by);
		free(u.by);
		return -EBUSY;
	}
	if (unlink(path) < 0)
		return err_errno(err, -errno, "cannot remove %s", path);
	path_fmt(path, "%s/images/%s.config", s->root, record.id + strlen("sha256:"));
	unlink(path);
	return collect_layers(s, err);
}

int image_store_open(const char *root, struct image_store **ret, struct err *err)
{
	static const char *const folders[] = { "images", "layers", "tmp" };
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(folders) && r == 0; i++) {
		path_fmt(path, "%s/%s", root, folders[i]);
		r = dir_make(path, 0700, err);
	}
	if (r < 0)
		return r;
	struct image_store *s = xcalloc(1, sizeof(*s));
	s->root = xstrdup(root);
	*ret = s;
	return 0;
}

void image_store_free(struct image_store *s)
{
	if (!s)
		return;
	free(s->root);
	free(s);
}
