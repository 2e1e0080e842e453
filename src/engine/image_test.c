/* Image references, layers and the three import forms. What sets owners and overlayfs's attributes needs root and is skipped without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "engine/internal.h"

static char dir[64];
static struct err err;

#define must(call) \
	do { \
		int r_ = (call); \
		if (r_ != 0) \
			fail_msg("%s: %d: %s", #call, r_, err.text); \
	} while (0)
#define assert_has(text, part) \
	do { \
		if (!strstr(text, part)) \
			fail_msg("\"%s\" is not in \"%s\"", part, text); \
	} while (0)

static void sh(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void sh(const char *fmt, ...)
{
	struct process_result r = { 0 };
	CLEAN_BUF struct buf command = { 0 };
	va_list ap;

	buf_addf(&command, "cd %s; ", dir);
	va_start(ap, fmt);
	buf_vaddf(&command, fmt, ap);
	va_end(ap);
	const char *argv[] = { "sh", "-ec", command.p, NULL };
	must(process_run(argv, STR_NONE, 0, &r, &err));
	if (r.status)
		fail_msg("%s: status %d: " STR_FMT, command.p, r.status, STR_ARG(buf_str(&r.err)));
	process_result_deinit(&r);
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/skiff-image-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return dir_remove_tree(dir, NULL);
}

#define needs_root() \
	do { \
		if (geteuid() != 0) \
			skip(); \
	} while (0)

/* ---- references ---- */
#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_references(void **state)
{
	static const struct {
		const char *text, *canonical;
	} good[] = {
		{ "busybox", "docker.io/library/busybox:latest" },
		{ "busybox:1.35", "docker.io/library/busybox:1.35" },
		{ "library/busybox", "docker.io/library/busybox:latest" },
		{ "me/app", "docker.io/me/app:latest" },
		{ "docker.io/busybox", "docker.io/library/busybox:latest" },
		{ "index.docker.io/library/busybox", "docker.io/library/busybox:latest" },
		{ "localhost/app", "localhost/app:latest" },
		{ "localhost:5000/app:v1", "localhost:5000/app:v1" },
		{ "quay.io/a/b/c:x_Y.z-1", "quay.io/a/b/c:x_Y.z-1" },
		{ "registry.k8s.io/e2e-test-images/agnhost:2.47",
			"registry.k8s.io/e2e-test-images/agnhost:2.47" },
		{ "a__b/c.d/e---f", "docker.io/a__b/c.d/e---f:latest" },
		{ "busybox@" DIGEST, "docker.io/library/busybox@" DIGEST },
		{ "busybox:1@" DIGEST, "docker.io/library/busybox:1" },
		{ "[::1]:5000/app", "[::1]:5000/app:latest" },
	};
	static const char *const bad[] = {
		"",
		"Busybox",
		"busy box",
		"a..b",
		"a___b",
		"-a",
		"a-",
		"a/",
		"/a",
		"a//b",
		"a:",
		"a:-x",
		"a:b:c",
		"a@sha256:12",
		"a@" DIGEST "0",
		"a@md5:0123",
		"localhost:/a",
		"a/../b",
		"a/./b",
		"a\nb",
		"registry.io:port/a",
	};
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_ref ref;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		must(image_ref_parse(str_of(good[i].text), a, &ref, &err));
		assert_string_equal(ref.canonical.p, good[i].canonical);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (image_ref_parse(str_of(bad[i]), a, &ref, &err) == 0)
			fail_msg("\"%s\" was taken for %s", bad[i], ref.canonical.p);
	assert_int_equal(image_ref_parse(str_n("a\0b", 3), a, &ref, &err), -EINVAL);
	assert_int_equal(image_ref_parse(str_n("a:b\0c", 5), a, &ref, &err), -EINVAL);
}

/* ---- paths and layers ---- */
static void test_paths(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "a/b", "a/b" },
		{ "./a//b/", "a/b" },
		{ "/etc/passwd", "etc/passwd" },
		{ ".", "" },
		{ "", "" },
		{ "/", "" },
		{ "a/./b", "a/b" },
		{ "..a/b..", "..a/b.." },
		{ "..", NULL },
		{ "a/../b", NULL },
		{ "../a", NULL },
		{ "a/..", NULL },
		{ "/..", NULL },
	};
	char out[PATH_MAX], longer[PATH_MAX + 2];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int r = layer_clean_path(rows[i].in, out);
		assert_int_equal(r, rows[i].out ? 0 : -EBADMSG);
		if (rows[i].out)
			assert_string_equal(out, rows[i].out);
	}
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(layer_clean_path(longer, out), -ENAMETOOLONG);
	assert_int_equal(layer_clean_path(NULL, out), -EBADMSG);
}

struct entry {
	const char *path;
	mode_t type;
	const char *data; /* content, or target */
	bool hardlink;
	const char *xattr;
};

static void write_tar(const char *file, const struct entry *entries, size_t n)
{
	struct archive *a = archive_write_new();

	archive_write_set_format_pax_restricted(a);
	assert_int_equal(archive_write_open_filename(a, file), ARCHIVE_OK);
	for (size_t i = 0; i < n; i++) {
		struct archive_entry *e = archive_entry_new();
		bool regular = entries[i].type == S_IFREG && !entries[i].hardlink;
		archive_entry_set_pathname(e, entries[i].path);
		archive_entry_set_filetype(e, entries[i].type);
		archive_entry_set_perm(e, entries[i].type == S_IFDIR ? 0750 : 04755);
		archive_entry_set_uid(e, 12);
		archive_entry_set_gid(e, 34);
		archive_entry_set_mtime(e, 1000000000, 0);
		archive_entry_set_size(e, regular ? (la_int64_t)strlen(entries[i].data) : 0);
		if (entries[i].type == S_IFLNK)
			archive_entry_set_symlink(e, entries[i].data);
		if (entries[i].hardlink)
			archive_entry_set_hardlink(e, entries[i].data);
		if (entries[i].xattr)
			archive_entry_xattr_add_entry(e, entries[i].xattr, "y", 1);
		assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
		if (regular)
			archive_write_data(a, entries[i].data, strlen(entries[i].data));
		archive_entry_free(e);
	}
	archive_write_free(a);
}

static int unpack(const struct entry *entries, size_t n)
{
	char tar[PATH_MAX], folder[PATH_MAX], blob[72], diff[72];
	uint64_t size;

	path_fmt(tar, "%s/layer.tar", dir);
	path_fmt(folder, "%s/layer", dir);
	write_tar(tar, entries, n);
	must(dir_remove_tree(folder, &err));
	must(dir_make(folder, 0755, &err));
	CLEAN_FD int fd = open(tar, O_RDONLY | O_CLOEXEC),
		     d = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return layer_unpack(fd, d, blob, diff, &size, &err);
}

static void test_layer(void **state)
{
	static const struct entry entries[] = {
		{ "etc", S_IFDIR, NULL },
		{ "etc/passwd", S_IFREG, "first" },
		{ "etc/passwd", S_IFREG, "second" },
		{ "deep/in/side", S_IFREG, "x" },
		{ "lib", S_IFLNK, "usr/lib" },
		{ "usr/lib", S_IFDIR, NULL },
		{ "lib/so", S_IFREG, "so" },
		{ "out", S_IFLNK, "/../../../../../../etc" },
		{ "out/made", S_IFREG, "inside" },
		{ "hard", S_IFREG, "etc/passwd", true },
		{ "dangling", S_IFLNK, "/nowhere" },
		{ "dangling", S_IFREG, "real" },
		{ ".wh.gone", S_IFREG, "" },
		{ "opaque/.wh..wh..opq", S_IFREG, "" },
		{ "opaque/kept", S_IFREG, "k" },
		{ ".wh..wh.plnk", S_IFDIR, NULL },
		{ ".wh.was", S_IFREG, "" },
		{ "was", S_IFDIR, NULL },
		{ "steer", S_IFDIR, NULL, false, "trusted.overlay.redirect" },
		{ "noted", S_IFREG, "n", false, "user.note" },
		{ "fifo", S_IFIFO, NULL },
		{ "tree/a", S_IFREG, "a" },
		{ "tree", S_IFREG, "no tree any more" },
	};
	struct stat st;
	char path[PATH_MAX], value[16];

	needs_root();
	must(unpack(entries, ARRAY_LEN(entries)));
	sh("cd layer; grep -q second etc/passwd; grep -q second hard; test -f deep/in/side; grep -q so usr/lib/so; grep -q inside etc/made; "
	   "! test -e /etc/made; "
	   "grep -q real dangling; ! test -L dangling; test -c gone; test -f opaque/kept; ! test -e opaque/.wh..wh..opq; "
	   "! ls -a | grep plnk; test -p fifo; test -f tree; "
	   "[ $(stat -c %%u:%%g:%%a:%%Y etc/passwd) = 12:34:4755:1000000000 ]; [ $(stat -c %%a etc) = 750 ]; "
	   "[ $(stat -c %%a deep/in) = 755 ]");
	path_fmt(path, "%s/layer/gone", dir);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_rdev, 0);
	for (size_t i = 0; i < 2; i++) {
		path_fmt(path, "%s/layer/%s", dir, i ? "was" : "opaque");
		assert_int_equal(
			lgetxattr(path, "trusted.overlay.opaque", value, sizeof(value)), 1);
		assert_int_equal(value[0], 'y');
	}
	path_fmt(path, "%s/layer/steer", dir);
	assert_true(lgetxattr(path, "trusted.overlay.redirect", value, sizeof(value)) < 0);
	path_fmt(path, "%s/layer/noted", dir);
	if (lgetxattr(path, "user.note", value, sizeof(value)) < 0)
		assert_int_equal(errno, ENOTSUP);
}

static void test_hostile_layers(void **state)
{
	static const struct entry rows[][2] = {
		{ { "a", S_IFREG, "x" }, { "../escaped", S_IFREG, "x" } },
		{ { "a", S_IFREG, "x" }, { "a/../../escaped", S_IFREG, "x" } },
		{ { "l", S_IFREG, "../../../../../../etc/passwd", true }, { "a", S_IFREG, "x" } },
		{ { "l", S_IFREG, "/nonexistent/file", true }, { "a", S_IFREG, "x" } },
		{ { "a", S_IFREG, "x" }, { "a/b", S_IFREG, "below a file" } },
		{ { "x", S_IFDIR, NULL }, { "x/.wh...", S_IFREG, "" } },
		{ { "loop", S_IFLNK, "loop" }, { "loop/x", S_IFREG, "x" } },
	};
	static const struct entry absolute[] = { { "/tmp", S_IFLNK, "/" },
		{ "/tmp/skiff-escaped", S_IFREG, "x" } };

	needs_root();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (unpack(rows[i], 2) == 0)
			fail_msg("hostile layer %zu was unpacked", i);
	must(unpack(absolute, 2));
	sh("test -f layer/skiff-escaped; ! test -e /skiff-escaped; ! test -e escaped; ! test -e ../escaped");
}

/* ---- imports ---- */
static struct image_store *open_store(void)
{
	struct image_store *s;
	char root[PATH_MAX];

	path_fmt(root, "%s/store", dir);
	must(image_store_open(root, &s, &err));
	return s;
}

/* clang-format off */
/* l1: base with a and b; l2: b gone, c new. d1, d2: their digests; c: that of the config. */
#define MAKE_LAYERS \
	"mkdir -p base/bin; echo a > base/a; echo b > base/b; tar -C base -cf l1.tar .; " \
	"mkdir top; echo c > top/c; touch top/.wh.b; tar -C top -cf l2.tar .; " \
	"d1=$(sha256sum l1.tar | cut -c1-64); d2=$(sha256sum l2.tar | cut -c1-64); " \
	"printf '{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"User\":\"www\",\"Env\":[\"A=1\"],\"Entrypoint\":[\"/run\"]," \
	"\"Cmd\":[\"x\"],\"WorkingDir\":\"/w\",\"StopSignal\":\"SIGQUIT\"}," \
	"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%%s\",\"sha256:%%s\"]}}' $d1 $d2 > config; " \
	"c=$(sha256sum config | cut -c1-64); "

/* The same as an OCI layout: compressed layers z1, z2; manifest m; index i, which lists another platform first. */
#define MAKE_OCI MAKE_LAYERS \
	"mkdir -p oci/blobs/sha256; B=oci/blobs/sha256; gzip -nk l1.tar; zstd -q l2.tar; z1=$(sha256sum l1.tar.gz | cut -c1-64); " \
	"z2=$(sha256sum l2.tar.zst | cut -c1-64); cp l1.tar.gz $B/$z1; cp l2.tar.zst $B/$z2; cp config $B/$c; " \
	"printf '{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:%%s\"}," \
	"\"layers\":[{\"digest\":\"sha256:%%s\"},{\"digest\":\"sha256:%%s\"}]}' $c $z1 $z2 > m; m=$(sha256sum m | cut -c1-64); cp m $B/$m; " \
	"arch=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/'); " \
	"printf '{\"manifests\":[{\"digest\":\"sha256:%%064d\",\"platform\":{\"architecture\":\"vax\",\"os\":\"linux\"}}," \
	"{\"digest\":\"sha256:%%s\",\"platform\":{\"architecture\":\"%%s\",\"os\":\"linux\"}}]}' 0 $m $arch > i; " \
	"i=$(sha256sum i | cut -c1-64); cp i $B/$i; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > oci/oci-layout; " \
	"printf '{\"manifests\":[{\"digest\":\"sha256:%%s\"," \
	"\"annotations\":{\"org.opencontainers.image.ref.name\":\"me/oci:1\"}}]}' $i > oci/index.json; "
/* clang-format on */

static void check_layers(void)
{
	sh("cd store/layers; [ $(ls -d *.layer | wc -l) = 2 ]; [ $(cat */a) = a ]; [ $(cat */c) = c ]; find . -name b -type c | grep -q b; "
	   "! ls ../tmp | grep .");
}

static void test_docker_save(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_store *s = open_store();
	struct image_config config;
	struct engine_image image, *images;
	char file[PATH_MAX];
	size_t n;

	needs_root();
	sh(MAKE_LAYERS
		"mkdir save save/x save/y; cp config save/$c.json; cp l1.tar save/x/layer.tar; cp l2.tar save/y/layer.tar; "
		"printf '[{\"Config\":\"%%s.json\",\"RepoTags\":[\"app:v1\",\"quay.io/me/app:v1\"],"
		"\"Layers\":[\"x/layer.tar\",\"y/layer.tar\"]}]' $c > save/manifest.json; tar -C save -czf save.tar.gz .");
	path_fmt(file, "%s/save.tar.gz", dir);
	must(image_store_import(s, file, NULL, a, &image, &err));
	assert_int_equal(image.repo_tags.len, 2);
	assert_string_equal(image.repo_tags.items[0].p, "docker.io/library/app:v1");
	assert_string_equal(image.user.p, "www");
	assert_true(image.size >= 6);
	check_layers();
	must(store_config(s, image.id.p, a, &config, &err));
	assert_string_equal(config.stop_signal.p, "SIGQUIT");
	assert_string_equal(config.entrypoint.items[0].p, "/run");
	/* Again, under another name: the same image, no second copy of anything. */
	must(image_store_import(s, file, "other", a, &image, &err));
	assert_int_equal(image.repo_tags.len, 3);
	must(image_store_list(s, a, &images, &n, &err));
	assert_int_equal(n, 1);
	check_layers();
	must(image_store_status(s, str_n(image.id.p + 7, 12), a, &image, &err));
	must(image_store_status(s, image.id, a, &image, &err));
	assert_int_equal(image_store_status(s, STR("app:v2"), a, &image, &err), ENGINE_NOT_FOUND);
	/* Another image takes a name over. */
	sh("mkdir -p fs/bin; echo sh > fs/bin/sh; tar -C fs -cf fs.tar .");
	path_fmt(file, "%s/fs.tar", dir);
	assert_true(image_store_import(s, file, NULL, a, &image, &err) < 0);
	assert_has(err.text, "give a tag");
	must(image_store_import(s, file, "app:v1", a, &image, &err));
	must(image_store_status(s, STR("quay.io/me/app:v1"), a, &image, &err));
	assert_int_equal(image.repo_tags.len, 2);
	/* By name, then by its last name: then its layers go. */
	must(image_store_remove(s, STR("other"), &err));
	sh("[ $(ls -d store/layers/*.layer | wc -l) = 3 ]");
	must(image_store_remove(s, STR("quay.io/me/app:v1"), &err));
	sh("[ $(ls -d store/layers/*.layer | wc -l) = 1 ]; [ $(ls store/layers | wc -l) = 2 ]");
	assert_int_equal(image_store_remove(s, STR("other"), &err), ENGINE_NOT_FOUND);
	must(image_store_remove(s, STR("app:v1"), &err));
	sh("! ls store/layers | grep .; ! ls store/images | grep .");
	image_store_free(s);
}

static void test_oci_layout(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_store *s = open_store();
	struct engine_image image;
	char file[PATH_MAX];

	needs_root();
	sh(MAKE_OCI "tar -C oci -cf oci.tar .");
	path_fmt(file, "%s/oci", dir);
	must(image_store_import(s, file, NULL, a, &image, &err));
	assert_string_equal(image.repo_tags.items[0].p, "docker.io/me/oci:1");
	assert_int_equal(image.repo_digests.len, 1);
	check_layers();
	must(image_store_status(s, image.repo_digests.items[0], a, &image, &err));
	must(image_store_remove(s, STR("me/oci:1"), &err));
	path_fmt(file, "%s/oci.tar", dir);
	must(image_store_import(s, file, "named", a, &image, &err));
	assert_string_equal(image.repo_tags.items[0].p, "docker.io/library/named:latest");
	check_layers();
	image_store_free(s);
}

static bool pinned(const char *ref)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_store *s = open_store(); /* what another process would see */
	struct engine_image image;

	must(image_store_status(s, str_of(ref), a, &image, &err));
	image_store_free(s);
	return image.pinned;
}

static void test_pins(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_store *s = open_store();
	struct engine_image image;
	char file[PATH_MAX], id[72];

	needs_root();
	sh("mkdir fs; echo 1 > fs/one; tar -C fs -cf fs.tar .");
	path_fmt(file, "%s/fs.tar", dir);
	must(image_store_import(s, file, "app:v1", a, &image, &err));
	snprintf(id, sizeof(id), "%s", image.id.p);
	assert_true(image.pinned && pinned("app:v1"));
	sh("! grep -r loose store/images"); /* as a record of an engine that knew no pins */
	must(image_store_pin(s, STR("app:v1"), false, &err));
	assert_false(pinned("app:v1"));
	must(image_store_pin(s, STR("app:v1"), true, &err));
	assert_true(pinned("app:v1"));
	assert_int_equal(image_store_pin(s, STR("app:v2"), true, &err), ENGINE_NOT_FOUND);
	/* Brought again: pinned again. */
	must(image_store_pin(s, STR("app:v1"), false, &err));
	must(image_store_import(s, file, "app:v1", a, &image, &err));
	assert_true(pinned("app:v1"));
	/* Another takes its only name: nobody asked for this one to stay. */
	sh("echo 2 > fs/two; tar -C fs -cf fs.tar .");
	must(image_store_import(s, file, "app:v1", a, &image, &err));
	assert_true(pinned("app:v1"));
	assert_false(pinned(id));
	must(image_store_remove(s, STR("app:v1"), &err));
	image_store_free(s);
}

/* Each is refused in words that name what is wrong, and leaves nothing. */
static void test_damaged_images(void **state)
{
	static const struct {
		const char *damage, *says;
	} rows[] = {
		{ "printf x >> $B/$z1", "layer 0 is damaged" },
		{ "gzip -nc l2.tar > $B/$z1", "layer 0 is damaged" },
		{ "head -c 100 l1.tar.gz > $B/$z1", "layer 0" },
		{ "rm $B/$z2", "no readable file" },
		{ "rm $B/$z2; ln -s /etc/passwd $B/$z2", "no readable file" },
		{ "echo >> $B/$c", "is damaged: its digest" },
		{ "echo >> $B/$m", "is damaged: its digest" },
		{ "echo '{' > oci/index.json", "no good JSON" },
		{ "echo '{\"manifests\":[{\"digest\":\"sha256:../../../../etc/passwd0000000000000000000000000000000000000000000000\"}]}' > "
		  "oci/index.json",
			"no sha256 digest" },
		{ "echo '{\"manifests\":[]}' > oci/index.json", "lists no manifest" },
		{ "echo '{\"manifests\":[3]}' > oci/index.json", "something else than manifests" },
		{ "sed -i s/$arch/pdp11/ $B/$i; j=$(sha256sum $B/$i | cut -c1-64); mv $B/$i $B/$j; sed -i s/$i/$j/ oci/index.json",
			"nothing for linux/" },
	};
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_image image;
	char file[PATH_MAX];

	needs_root();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct image_store *s = open_store();
		sh("rm -rf base top oci *.tar *.gz *.zst; " MAKE_OCI "%s", rows[i].damage);
		path_fmt(file, "%s/oci", dir);
		int r = image_store_import(s, file, "x", a, &image, &err);
		if (r >= 0 || !strstr(err.text, rows[i].says))
			fail_msg("%s: %d, \"%s\"", rows[i].damage, r, err.text);
		sh("! ls store/layers store/images store/tmp | grep -v :$ | grep .");
		image_store_free(s);
	}
	struct image_store *s = open_store();
	sh("echo no tar > junk");
	path_fmt(file, "%s/junk", dir);
	assert_true(image_store_import(s, file, "x", a, &image, &err) < 0);
	path_fmt(file, "%s/missing", dir);
	assert_int_equal(image_store_import(s, file, "x", a, &image, &err), -ENOENT);
	image_store_free(s);
}

static void test_full_disk(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_image image;
	char file[PATH_MAX], root[PATH_MAX];

	needs_root();
	path_fmt(root, "%s/store", dir);
	must(dir_make(root, 0700, &err));
	must(mount_tmpfs(root, 256 * 1024, 0700, &err));
	struct image_store *s = open_store();
	sh("mkdir fs; head -c 1000000 /dev/zero > fs/large; tar -C fs -cf fs.tar .");
	path_fmt(file, "%s/fs.tar", dir);
	assert_int_equal(image_store_import(s, file, "large", a, &image, &err), -ENOSPC);
	assert_has(err.text, "No space left");
	sh("! ls store/layers store/images store/tmp | grep -v :$ | grep .; rm fs/large; echo small > fs/small; tar -C fs -cf fs.tar .");
	must(image_store_import(s, file, "small", a, &image, &err));
	image_store_free(s);
	must(mount_remove(root, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_paths),
		cmocka_unit_test_setup_teardown(test_layer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_layers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_docker_save, setup, teardown),
		cmocka_unit_test_setup_teardown(test_oci_layout, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_images, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
	};

	umask(077); /* what a layer says counts, not this */
	/* Mounts of the tests are seen here alone. */
	if (geteuid() == 0 &&
		(unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
