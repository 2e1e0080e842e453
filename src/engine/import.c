/* Import of images: docker's save format, OCI layouts, plain root file systems. An archive is unpacked below tmp and then read like a folder; files in it
 * are opened below its root only. Layers are unpacked beside, and put in place together with the image's record under the store's lock:
 * an import that dies leaves nothing but files in tmp, which the next one removes. */
#include "engine/internal.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#define METADATA_MAX (8 * 1024 * 1024)
#define LAYERS_MAX 127

struct new_layer {
	char folder[PATH_MAX]; /* below tmp; empty: it is in the store already */
	char diff_id[72];
	uint64_t size;
};

struct import {
	struct image_store *store;
	struct arena *arena;
	const char *tag;
	char work[PATH_MAX]; /* tmp/PID */
	int root;            /* of the layout: a folder */
	struct err *err;
	struct engine_image *ret;
	size_t n_images;
};

static struct str text_of(const struct value *object, const char *key)
{
	const struct value *v =
		object->kind == VALUE_OBJECT ? value_get(object, str_of(key)) : NULL;

	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

static const struct value *list_of(const struct value *object, const char *key)
{
	static const struct value none = { .kind = VALUE_LIST };
	const struct value *v =
		object->kind == VALUE_OBJECT ? value_get(object, str_of(key)) : NULL;

	return v && v->kind == VALUE_LIST ? v : &none;
}

/* ---- files of the layout ---- */
static int open_file(struct import *im, const char *path, int *ret_fd)
{
	struct stat st;
	int fd = path_open_in_root(im->root, path, O_RDONLY, 0);

	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		close(fd);
		fd = -ENOENT;
	}
	if (fd < 0)
		return err_errno(im->err, fd, "the image has no readable file \"%s\"", path);
	*ret_fd = fd;
	return 0;
}

static int read_text(struct import *im, const char *path, struct str *ret)
{
	CLEAN_BUF struct buf text = { 0 };
	CLEAN_FD int fd = -1;
	char chunk[16384];
	ssize_t n;
	int r = open_file(im, path, &fd);

	if (r < 0)
		return r;
	while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
		if (text.len + (size_t)n > METADATA_MAX)
			return err_set(im->err, -EFBIG,
				"\"%s\" in the image is larger than %d bytes", path, METADATA_MAX);
		buf_add(&text, chunk, (size_t)n);
	}
	if (n < 0)
		return err_errno(im->err, -errno, "cannot read \"%s\"", path);
	*ret = arena_str(im->arena, buf_str(&text));
	return 0;
}

static int read_json(struct import *im, const char *path, struct value *ret)
{
	struct str text;
	struct err why;
	int r = read_text(im, path, &text);

	if (r < 0)
		return r;
	if (json_parse(text, im->arena, ret, &why) < 0)
		return err_set(im->err, -EBADMSG, "\"%s\" in the image is no good JSON: %s", path,
			why.text);
	return 0;
}

static int blob_path(struct import *im, struct str digest, char ret[PATH_MAX])
{
	struct str hex = str_from(digest, 7);

	if (digest.len != 71 || !str_has_prefix(digest, STR("sha256:")) || str_find(hex, '/') >= 0)
		return err_set(im->err, -EBADMSG,
			"the image names a blob \"" STR_FMT "\", which is no sha256 digest",
			STR_ARG(digest));
	path_fmt(ret, "blobs/sha256/" STR_FMT, STR_ARG(hex));
	return 0;
}

static int read_blob(struct import *im, struct str digest, struct str *ret)
{
	char path[PATH_MAX], real[72];
	int r = blob_path(im, digest, path);

	if (r == 0)
		r = read_text(im, path, ret);
	if (r < 0)
		return r;
	digest_of(*ret, real);
	if (!str_eqz(digest, real))
		return err_set(im->err, -EBADMSG,
			"the blob " STR_FMT " is damaged: its digest is %s", STR_ARG(digest), real);
	return 0;
}

/* ---- layers ---- */
/* Unpacks one layer and checks both digests; blob empty: not known. */
static int import_layer(struct import *im, const char *path, struct str blob, struct str diff_id,
	size_t index, struct new_layer *ret)
{
	char real_blob[72], real_diff[72];
	CLEAN_FD int fd = -1, dir = -1;

	snprintf(ret->diff_id, sizeof(ret->diff_id), STR_FMT, STR_ARG(diff_id));
	if (store_has_layer(im->store, diff_id))
		return 0;
	int r = open_file(im, path, &fd);
	if (r < 0)
		return r;
	path_fmt(ret->folder, "%s/layer-%zu", im->work, index);
	if ((r = dir_remove_tree(ret->folder, im->err)) < 0 ||
		(r = dir_make(ret->folder, 0755, im->err)) < 0)
		return r;
	chmod(ret->folder, 0755);
	dir = open(ret->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_errno(im->err, -errno, "cannot open %s", ret->folder);
	r = layer_unpack(fd, dir, real_blob, real_diff, &ret->size, im->err);
	if (r < 0)
		return err_prefix(im->err, r, "layer %zu (%s)", index, path);
	if (blob.len && !str_eqz(blob, real_blob))
		return err_set(im->err, -EBADMSG,
			"layer %zu is damaged: its digest is %s, not " STR_FMT, index, real_blob,
			STR_ARG(blob));
	if (!str_eqz(diff_id, real_diff))
		return err_set(im->err, -EBADMSG,
			"layer %zu is damaged: the digest of its tar is %s, not " STR_FMT, index,
			real_diff, STR_ARG(diff_id));
	return 0;
}

/* ---- one image, with all its layers there: into the store ---- */
struct found {
	struct str config;          /* text */
	struct str manifest_digest; /* or empty */
	struct str *names;          /* as the archive has them */
	size_t n_names;
	struct new_layer *layers;
	size_t n_layers;
};

static int add_names(struct import *im, const struct found *f, struct image_record *r)
{
	struct image_ref ref;
	int e = 0;

	for (size_t i = 0; i < (im->tag ? 1 : f->n_names) && e == 0; i++) {
		e = image_ref_parse(
			im->tag ? str_of(im->tag) : f->names[i], im->arena, &ref, im->err);
		if (e < 0)
			return e;
		texts_add(&r->tags, ref.canonical);
		if (f->manifest_digest.len)
			texts_add(&r->digests,
				arena_fmt(im->arena, STR_FMT "@" STR_FMT, STR_ARG(ref.name),
					STR_ARG(f->manifest_digest)));
	}
	return e;
}

static int place(struct import *im, const struct found *f, struct image_record *r)
{
	char name[25];
	int e = 0;

	for (size_t i = 0; i < f->n_layers && e == 0; i++) {
		const struct new_layer *n = &f->layers[i];
		layer_name(str_of(n->diff_id), name);
		if (n->folder[0])
			e = store_place_layer(
				im->store, n->folder, str_of(n->diff_id), n->size, im->err);
		/* A layer may stand in an image twice. texts_add would drop the second, which overlayfs could not take anyway. */
		texts_add(&r->layers, str_of(name));
	}
	for (size_t i = 0; r->layers && r->layers[i]; i++)
		r->size += (int64_t)store_layer_size(im->store, r->layers[i]);
	return e < 0 ? e : store_add(im->store, r, f->config, im->err);
}

static int add_image(struct import *im, const struct found *f)
{
	struct image_record r = { 0 };
	struct image_config config;
	char id[72];
	CLEAN_FD int lock = -1, root = -1;

	digest_of(f->config, id);
	r.id = xstrdup(id);
	int e = image_config_parse(f->config, im->arena, &config, NULL, im->err);
	if (e == 0 && config.user.len)
		r.user = str_dup(config.user);
	if (e == 0)
		e = add_names(im, f, &r);
	/* What the record will name must be on disk before it. */
	root = open(im->store->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (e == 0 && (root < 0 || syncfs(root) < 0))
		e = err_errno(im->err, -errno, "cannot sync %s", im->store->root);
	if (e == 0)
		e = store_lock(im->store, "lock", LOCK_EX, &lock, im->err);
	if (e == 0)
		e = place(im, f, &r);
	if (e == 0) {
		image_record_export(&r, im->arena, im->ret);
		im->n_images++;
	}
	record_deinit(&image_record_type, &r);
	return e;
}

/* Config, then the layers that `paths` holds, checked against the config's diff ids. */
static int import_layers(struct import *im, struct found *f, const struct str *paths,
	const struct str *blobs, size_t n)
{
	struct engine_strs diff_ids;
	struct image_config config;
	int r = image_config_parse(f->config, im->arena, &config, &diff_ids, im->err);

	if (r < 0)
		return r;
	if (n > LAYERS_MAX || diff_ids.len != n)
		return err_set(im->err, -EBADMSG,
			"the image has %zu layers and %zu diff ids (at most %d are taken)", n,
			diff_ids.len, LAYERS_MAX);
	f->layers = arena_alloc(im->arena, n * sizeof(*f->layers) + 1);
	for (f->n_layers = 0; f->n_layers < n && r == 0; f->n_layers++) {
		size_t i = f->n_layers;
		r = import_layer(im, paths[i].p, blobs ? blobs[i] : STR_NONE, diff_ids.items[i], i,
			&f->layers[i]);
	}
	return r < 0 ? r : add_image(im, f);
}

/* ---- docker save ---- */
static int import_docker_image(struct import *im, const struct value *entry)
{
	const struct value *layers = list_of(entry, "Layers"), *tags = list_of(entry, "RepoTags");
	struct str config = text_of(entry, "Config");
	struct found f = { 0 };
	char real[72];

	if (!config.len)
		return err_set(im->err, -EBADMSG, "manifest.json of the image names no Config");
	int r = read_text(im, config.p, &f.config);
	if (r < 0)
		return r;
	digest_of(f.config, real);
	/* Its name is its digest: HEX.json, or blobs/sha256/HEX. */
	struct str base = config;
	if (str_has_suffix(base, STR(".json")))
		base.len -= 5;
	if (base.len >= 64 && strspn(base.p + base.len - 64, "0123456789abcdef") >= 64 &&
		memcmp(base.p + base.len - 64, real + 7, 64) != 0)
		return err_set(im->err, -EBADMSG,
			"the image's config " STR_FMT " is damaged: its digest is %s",
			STR_ARG(config), real);
	struct str *paths = arena_alloc(im->arena, layers->list.len * sizeof(*paths) + 1);
	f.names = arena_alloc(im->arena, tags->list.len * sizeof(*f.names) + 1);
	for (size_t i = 0; i < layers->list.len; i++) {
		if (layers->list.items[i].kind != VALUE_TEXT)
			return err_set(im->err, -EBADMSG,
				"manifest.json of the image: Layers holds something else than texts");
		paths[i] = layers->list.items[i].text;
	}
	for (size_t i = 0; i < tags->list.len; i++)
		if (tags->list.items[i].kind == VALUE_TEXT)
			f.names[f.n_names++] = tags->list.items[i].text;
	return import_layers(im, &f, paths, NULL, layers->list.len);
}

static int import_docker(struct import *im)
{
	struct value manifest;
	int r = read_json(im, "manifest.json", &manifest);

	if (r < 0)
		return r;
	if (manifest.kind != VALUE_LIST || !manifest.list.len)
		return err_set(im->err, -EBADMSG, "manifest.json of the image lists no image");
	if (im->tag && manifest.list.len > 1)
		return err_set(im->err, -EINVAL,
			"the archive holds %zu images, so one tag cannot name them: leave it out",
			manifest.list.len);
	for (size_t i = 0; i < manifest.list.len && r == 0; i++)
		r = import_docker_image(im, &manifest.list.items[i]);
	return r;
}

/* ---- OCI layout ---- */
static int import_manifest(
	struct import *im, const struct value *m, struct str digest, struct str name)
{
	const struct value *layers = list_of(m, "layers"), *config = value_get(m, STR("config"));
	struct found f = { .manifest_digest = digest, .names = &name, .n_names = name.len ? 1 : 0 };
	char path[PATH_MAX];

	if (!config || config->kind != VALUE_OBJECT)
		return err_set(im->err, -EBADMSG, "the manifest " STR_FMT " names no config",
			STR_ARG(digest));
	int r = read_blob(im, text_of(config, "digest"), &f.config);
	struct str *paths = arena_alloc(im->arena, layers->list.len * sizeof(*paths) + 1);
	struct str *blobs = arena_alloc(im->arena, layers->list.len * sizeof(*blobs) + 1);
	for (size_t i = 0; i < layers->list.len && r == 0; i++) {
		blobs[i] = text_of(&layers->list.items[i], "digest");
		r = blob_path(im, blobs[i], path);
		if (r == 0)
			paths[i] = arena_strz(im->arena, path);
	}
	return r < 0 ? r : import_layers(im, &f, paths, blobs, layers->list.len);
}

static const char *architecture(void)
{
	static const struct {
		const char *machine, *name;
	} rows[] = {
		{ "x86_64", "amd64" },
		{ "aarch64", "arm64" },
		{ "armv7l", "arm" },
		{ "i686", "386" },
		{ "ppc64le", "ppc64le" },
		{ "s390x", "s390x" },
		{ "riscv64", "riscv64" },
	};
	struct utsname u;

	if (uname(&u) == 0)
		for (size_t i = 0; i < ARRAY_LEN(rows); i++)
			if (!strcmp(u.machine, rows[i].machine))
				return rows[i].name;
	return "unknown";
}

static bool fits_platform(const struct value *descriptor)
{
	const struct value *p = value_get(descriptor, STR("platform"));

	return !p || p->kind != VALUE_OBJECT ||
		(str_eqz(text_of(p, "architecture"), architecture()) &&
			str_eqz(text_of(p, "os"), "linux"));
}

static struct str descriptor_name(struct import *im, const struct value *descriptor)
{
	const struct value *notes = value_get(descriptor, STR("annotations"));

	if (!notes || notes->kind != VALUE_OBJECT)
		return STR_NONE;
	struct str name = text_of(notes, "io.containerd.image.name");
	return name.len ? name : text_of(notes, "org.opencontainers.image.ref.name");
}

/* A descriptor is an image's manifest, or an index with one for each platform. */
static int import_descriptor(
	struct import *im, const struct value *descriptor, struct str name, int depth)
{
	struct str digest = text_of(descriptor, "digest"), text;
	struct value m;
	struct err why;
	int r = read_blob(im, digest, &text);

	if (r < 0)
		return r;
	if (json_parse(text, im->arena, &m, &why) < 0 || m.kind != VALUE_OBJECT)
		return err_set(im->err, -EBADMSG, "the manifest " STR_FMT " is no good JSON",
			STR_ARG(digest));
	const struct value *nested = list_of(&m, "manifests");
	if (!nested->list.len)
		return import_manifest(im, &m, digest, name);
	for (size_t i = 0; i < nested->list.len && depth < 4; i++)
		if (nested->list.items[i].kind == VALUE_OBJECT &&
			fits_platform(&nested->list.items[i]))
			return import_descriptor(im, &nested->list.items[i], name, depth + 1);
	return err_set(im->err, -ENOENT, "the image has nothing for linux/%s", architecture());
}

static int import_oci(struct import *im)
{
	struct value index;
	int r = read_json(im, "index.json", &index);

	if (r < 0)
		return r;
	const struct value *manifests = list_of(&index, "manifests");
	if (!manifests->list.len)
		return err_set(im->err, -EBADMSG, "index.json of the image lists no manifest");
	for (size_t i = 0; i < manifests->list.len && r == 0; i++) {
		const struct value *d = &manifests->list.items[i];
		if (d->kind != VALUE_OBJECT)
			return err_set(im->err, -EBADMSG,
				"index.json of the image lists something else than manifests");
		/* A layout may list the platforms right here, or several images. */
		if (manifests->list.len > 1 && !fits_platform(d))
			continue;
		if (im->tag && im->n_images)
			return err_set(im->err, -EINVAL,
				"the layout holds several images, so one tag cannot name them: leave it out");
		r = import_descriptor(im, d, descriptor_name(im, d), 0);
	}
	if (r == 0 && !im->n_images)
		return err_set(
			im->err, -ENOENT, "the image has nothing for linux/%s", architecture());
	return r;
}

/* ---- a plain root file system ---- */
static int import_rootfs(struct import *im, const char *file)
{
	struct new_layer layer = { 0 };
	struct found f = { .layers = &layer, .n_layers = 1 };
	char blob[72], shell[PATH_MAX + 16];
	struct stat st;
	CLEAN_FD int dir = -1, fd = open(file, O_RDONLY | O_CLOEXEC);

	if (!im->tag)
		return err_set(im->err, -EINVAL,
			"%s is a plain root file system without a name: give a tag (skiff image import FILE TAG)",
			file);
	if (fd < 0)
		return err_errno(im->err, -errno, "cannot open %s", file);
	path_fmt(layer.folder, "%s/layer-0", im->work);
	int r = dir_make(layer.folder, 0755, im->err);
	if (r < 0)
		return r;
	chmod(layer.folder, 0755);
	dir = open(layer.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_errno(im->err, -errno, "cannot open %s", layer.folder);
	r = layer_unpack(fd, dir, blob, layer.diff_id, &layer.size, im->err);
	if (r < 0)
		return err_prefix(im->err, r, "%s", file);
	snprintf(shell, sizeof(shell), "%s/bin/sh", layer.folder);
	bool has_shell = lstat(shell, &st) == 0;
	f.config = arena_fmt(im->arena,
		"{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"]%s},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}",
		architecture(), has_shell ? ",\"Cmd\":[\"/bin/sh\"]" : "", layer.diff_id);
	if (store_has_layer(im->store, str_of(layer.diff_id)))
		layer.folder[0] = '\0';
	return add_image(im, &f);
}

/* ---- which of them is it? ---- */
static void archive_freep(struct archive **a)
{
	archive_read_free(*a);
}

static int open_archive(const char *file, struct archive *a, struct err *err)
{
	/* Not "all": that has filters which run programs of the machine, by name. */
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_format_tar(a);
	if (archive_read_open_filename(a, file, 64 * 1024) != ARCHIVE_OK)
		return err_set(err, -EBADMSG, "%s is no tar archive, compressed or not: %s", file,
			archive_error_string(a));
	return 0;
}

enum form { FORM_ROOTFS, FORM_DOCKER, FORM_OCI };

/* Looks at the names alone. */
static int detect(const char *file, enum form *ret, struct err *err)
{
	CLEANUP(archive_freep) struct archive *a = archive_read_new();
	bool manifest = false, index = false, layout = false;
	struct archive_entry *e;
	char name[PATH_MAX];
	int r = open_archive(file, a, err);

	if (r < 0)
		return r;
	while ((r = archive_read_next_header(a, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
		if (layer_clean_path(archive_entry_pathname(e), name) < 0)
			continue;
		manifest |= !strcmp(name, "manifest.json");
		index |= !strcmp(name, "index.json");
		layout |= !strcmp(name, "oci-layout");
	}
	if (r != ARCHIVE_EOF)
		return err_set(err, -EBADMSG, "%s is no good tar archive: %s", file,
			archive_error_string(a));
	*ret = manifest ? FORM_DOCKER : index && layout ? FORM_OCI : FORM_ROOTFS;
	return 0;
}

static int import_layout(struct import *im)
{
	CLEAN_FD int manifest = path_open_in_root(im->root, "manifest.json", O_PATH, 0);

	return manifest >= 0 ? import_docker(im) : import_oci(im);
}

static int import_archive(struct import *im, const char *file)
{
	CLEANUP(archive_freep) struct archive *a = archive_read_new();
	char folder[PATH_MAX];
	enum form form;
	uint64_t size;
	int r = detect(file, &form, im->err);

	if (r < 0 || form == FORM_ROOTFS)
		return r < 0 ? r : import_rootfs(im, file);
	path_fmt(folder, "%s/archive", im->work);
	if ((r = dir_make(folder, 0700, im->err)) < 0)
		return r;
	CLEAN_FD int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_errno(im->err, -errno, "cannot open %s", folder);
	if ((r = open_archive(file, a, im->err)) < 0 ||
		(r = layer_unpack_archive(a, dir, &size, im->err)) < 0)
		return r;
	im->root = dir;
	return import_layout(im);
}

/* What dead imports left. Import lock held. */
static int clean_tmp(const struct image_store *s, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/tmp", s->root);
	int r = dir_remove_tree(path, err);
	return r < 0 ? r : dir_make(path, 0700, err);
}

int image_store_import(struct image_store *s, const char *file, const char *tag, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	struct engine_image image = { 0 };
	struct import im = { .store = s,
		.arena = a,
		.tag = tag && *tag ? tag : NULL,
		.root = -1,
		.err = err,
		.ret = &image };
	CLEAN_FD int lock = -1;
	struct stat st;

	if (stat(file, &st) < 0)
		return err_errno(err, -errno, "cannot open %s", file);
	int r = archive_load(err);
	if (r == 0)
		r = store_lock(s, "import.lock", LOCK_EX, &lock, err);
	if (r == 0)
		r = clean_tmp(s, err);
	path_fmt(im.work, "%s/tmp/import", s->root);
	if (r == 0)
		r = dir_make(im.work, 0700, err);
	if (r < 0)
		return r;
	if (S_ISDIR(st.st_mode)) {
		CLEAN_FD int dir = open(file, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		im.root = dir;
		r = dir < 0 ? err_errno(err, -errno, "cannot open %s", file) : import_layout(&im);
	} else {
		r = import_archive(&im, file);
	}
	clean_tmp(s, NULL);
	if (r == 0)
		*ret = image;
	return r;
}
