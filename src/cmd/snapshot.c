/* `skiff snapshot save FILE|- | restore FILE | inspect FILE | verify FILE`: everything that a cluster is, in one file: a tar archive of the store's objects at one
 * revision (store.jsonl), the keys and certificates (pki/…), and manifest.json with the SHA-256 of each, last.
 *
 * Saving asks the running server and disturbs nobody. Restoring is restore.c's. */
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "apiserver/apiserver.h"
#include "client/client.h"
#include "cmd/cmd.h"
#include "cmd/snapshot.h"
#include "codec/codec.h"

#define BLOCK 512
#define FILE_MAX ((size_t)4 << 30)
#define FORMAT 1

/* ---- tar, as little of it as is needed (POSIX ustar, plain files) ---- */

struct archive {
	int fd;
	off_t at; /* where the open entry's header is */
	uint64_t size;
	char name[100];
	EVP_MD_CTX *hash;
	struct buf manifest;
	size_t entries;
	uint64_t revision, objects;
	int failed; /* -errno of the first write that failed */
};

static void put(struct archive *ar, const void *p, size_t n)
{
	const char *at = p;

	while (n && !ar->failed) {
		ssize_t w = write(ar->fd, at, n);

		if (w < 0) {
			ar->failed = -errno;
			return;
		}
		at += w;
		n -= (size_t)w;
	}
}

static void put_header(struct archive *ar, mode_t mode)
{
	char h[BLOCK] = { 0 };
	unsigned sum = 0;

	snprintf(h, 100, "%s", ar->name);
	snprintf(h + 100, 8, "%07o", (unsigned)mode);
	snprintf(h + 108, 8, "%07o", 0);
	snprintf(h + 116, 8, "%07o", 0);
	snprintf(h + 124, 12, "%011llo", (unsigned long long)ar->size);
	snprintf(h + 136, 12, "%011llo", (unsigned long long)time_now().sec);
	memset(h + 148, ' ', 8);
	h[156] = '0';
	memcpy(h + 257, "ustar\00000", 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	put(ar, h, BLOCK);
}

static void entry_begin(struct archive *ar, const char *name)
{
	snprintf(ar->name, sizeof(ar->name), "%s", name);
	ar->at = lseek(ar->fd, 0, SEEK_CUR);
	ar->size = 0;
	ar->hash = EVP_MD_CTX_new();
	EVP_DigestInit_ex(ar->hash, EVP_sha256(), NULL);
	put_header(ar, 0600);
}

static void entry_add(struct archive *ar, struct str bytes)
{
	EVP_DigestUpdate(ar->hash, bytes.p, bytes.len);
	ar->size += bytes.len;
	put(ar, bytes.p, bytes.len);
}

/* Pads, and writes the header again now that the size is known. */
static void entry_end(struct archive *ar)
{
	static const char zeros[BLOCK];
	unsigned char digest[32];
	off_t end;

	put(ar, zeros, (BLOCK - ar->size % BLOCK) % BLOCK);
	end = lseek(ar->fd, 0, SEEK_CUR);
	lseek(ar->fd, ar->at, SEEK_SET);
	put_header(ar, 0600);
	lseek(ar->fd, end, SEEK_SET);
	EVP_DigestFinal_ex(ar->hash, digest, NULL);
	EVP_MD_CTX_free(ar->hash);
	buf_addf(&ar->manifest, "%s\n    {\"name\":\"%s\",\"size\":%llu,\"sha256\":\"",
		ar->entries++ ? "," : "", ar->name, (unsigned long long)ar->size);
	hex_encode(&ar->manifest, digest, sizeof(digest));
	buf_addz(&ar->manifest, "\"}");
}

static void archive_begin(struct archive *ar, int fd)
{
	*ar = (struct archive){ .fd = fd };
}

static int archive_end(struct archive *ar, struct err *err)
{
	static const char zeros[2 * BLOCK];
	CLEAN_BUF struct buf text = { 0 };
	char now[TIME_TEXT_MAX];

	time_format(time_now(), now);
	buf_addf(&text,
		"{\n  \"format\":%d,\n  \"version\":\"%s\",\n  \"time\":\"%s\",\n  \"revision\":%llu,\n  \"objects\":%llu,\n  \"files\":[",
		FORMAT, SKIFF_VERSION, now, (unsigned long long)ar->revision,
		(unsigned long long)ar->objects);
	buf_add_str(&text, buf_str(&ar->manifest));
	buf_addz(&text, "\n  ]\n}\n");
	entry_begin(ar, "manifest.json");
	entry_add(ar, buf_str(&text));
	entry_end(ar);
	put(ar, zeros, sizeof(zeros));
	buf_deinit(&ar->manifest);
	if (!ar->failed && fsync(ar->fd) < 0)
		ar->failed = -errno;
	return ar->failed ? err_errno(err, ar->failed, "writing the snapshot") : 0;
}

/* A number member of a line that we wrote ourselves; 0: not there. */
static uint64_t number_in(struct str line, const char *member)
{
	ssize_t at = str_find_str(line, str_of(member));

	return at < 0 ? 0 : strtoull(line.p + at + strlen(member), NULL, 10);
}

static bool add_line(void *arg, struct str line)
{
	struct archive *ar = arg;

	if (!ar->revision)
		ar->revision = number_in(line, "\"revision\":");
	if (str_has_prefix(line, STR("{\"objects\":")))
		ar->objects = number_in(line, "\"objects\":");
	entry_add(ar, line);
	return !ar->failed;
}

static int add_pki(struct archive *ar, const char *data_dir, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/pki", data_dir);
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return err_errno(err, -errno, "reading %s", dir);
	while (r == 0 && (e = readdir(d))) {
		CLEAN_FREE char *path = xasprintf("%s/%s", dir, e->d_name),
				*name = xasprintf("pki/%s", e->d_name);
		CLEAN_BUF struct buf bytes = { 0 };

		if (e->d_name[0] == '.' || strlen(name) > 99)
			continue;
		r = file_read(path, 1 << 20, &bytes, err);
		if (r == 0) {
			entry_begin(ar, name);
			entry_add(ar, buf_str(&bytes));
			entry_end(ar);
		}
	}
	closedir(d);
	return r;
}

int snapshot_write(struct store *s, const char *data_dir, const char *path, struct err *err)
{
	CLEAN_FREE char *part = xasprintf("%s.part", path);
	CLEAN_FD int fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct archive ar;
	int r;

	if (fd < 0)
		return err_errno(err, -errno, "cannot make %s", part);
	archive_begin(&ar, fd);
	entry_begin(&ar, "store.jsonl");
	apiserver_snapshot(s, add_line, &ar);
	entry_end(&ar);
	r = add_pki(&ar, data_dir, err);
	if (r == 0)
		r = archive_end(&ar, err);
	if (r == 0 && rename(part, path) < 0)
		r = err_errno(err, -errno, "cannot name %s", path);
	if (r < 0)
		unlink(part);
	return r;
}

/* ---- on schedule ---- */

#define KEEP 5

static int is_scheduled(const struct dirent *e)
{
	return str_has_prefix(str_of(e->d_name), STR("cluster-")) &&
		str_has_suffix(str_of(e->d_name), STR(".tar"));
}

int snapshot_rotate(struct store *s, const char *data_dir, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/snapshots", data_dir);
	char now[TIME_TEXT_MAX];
	struct dirent **list;
	int r = dir_make(dir, 0700, err), n;

	if (r < 0)
		return r;
	time_format(time_now(), now); /* sorts by age */
	CLEAN_FREE char *path = xasprintf("%s/cluster-%s.tar", dir, now);

	r = snapshot_write(s, data_dir, path, err);
	n = scandir(dir, &list, is_scheduled, alphasort);
	for (int i = 0; i < n; i++) {
		CLEAN_FREE char *old = xasprintf("%s/%s", dir, list[i]->d_name);

		if (r == 0 && i < n - KEEP)
			unlink(old);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return r;
}

/* ---- save, from a running server ---- */

static int fetch_store(struct client *c, struct archive *ar, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct http_call call = { .method = STR("GET"), .target = STR("/skiff/v1/snapshot") };
	CLEAN_BUF struct buf line = { 0 };
	struct http_reader *reader;
	struct http_reply head;
	char bytes[16384];
	ssize_t n;
	int r = http_client_open(client_http(c), &call, a, &head, &reader, err);

	if (r < 0)
		return r;
	entry_begin(ar, "store.jsonl");
	while (head.status == 200 && (n = http_reader_read(reader, bytes, sizeof(bytes), err)) > 0)
		for (ssize_t i = 0; i < n; i++) {
			buf_addc(&line, bytes[i]);
			if (bytes[i] == '\n') {
				add_line(ar, buf_str(&line));
				buf_clear(&line);
			}
		}
	entry_end(ar);
	http_reader_free(reader);
	if (head.status != 200)
		return err_set(err, -EACCES,
			"the server refused with %d: saving needs an administrator's kubeconfig",
			head.status);
	return ar->objects ? 0 : err_set(err, -EPIPE, "the server's answer broke off: try again");
}

static int copy_out(int from, int to, struct err *err)
{
	char bytes[65536];
	ssize_t n;

	lseek(from, 0, SEEK_SET);
	while ((n = read(from, bytes, sizeof(bytes))) > 0)
		for (ssize_t done = 0, w; done < n; done += w) {
			w = write(to, bytes + done, (size_t)(n - done));
			if (w < 0)
				return err_errno(err, -errno, "writing the snapshot");
		}
	return n < 0 ? err_errno(err, -errno, "reading the snapshot") : 0;
}

static int save(const struct options *o, struct err *err)
{
	bool to_stdout = !strcmp(o->args[1], "-");
	CLEAN_FREE char *part = to_stdout ? xasprintf("/tmp/skiff-snapshot-XXXXXX")
					  : xasprintf("%s.part-XXXXXX", o->args[1]);
	CLEAN_FD int fd = mkostemp(part, O_CLOEXEC);
	struct client *c = NULL;
	struct archive ar;
	int r;

	if (fd < 0)
		return err_errno(err, -errno, "cannot make %s", part);
	archive_begin(&ar, fd);
	r = cmd_client(o, &c, err);
	if (r == 0)
		r = fetch_store(c, &ar, err);
	if (r == 0)
		r = add_pki(&ar, o->data_dir, err);
	if (r == 0)
		r = archive_end(&ar, err);
	if (r == 0 && to_stdout)
		r = copy_out(fd, STDOUT_FILENO, err);
	if (r == 0 && !to_stdout && rename(part, o->args[1]) < 0)
		r = err_errno(err, -errno, "cannot name %s", o->args[1]);
	if (r < 0 || to_stdout)
		unlink(part);
	client_free(c);
	if (r == 0)
		fprintf(stderr, "saved %llu objects of revision %llu\n",
			(unsigned long long)ar.objects, (unsigned long long)ar.revision);
	return r;
}

/* ---- reading ---- */

static int bad_file(const char *path, struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "%s is damaged or no snapshot: %s", path, what);
}

static int split_entries(struct snapshot_contents *c, const char *path, struct err *err)
{
	struct str rest = buf_str(&c->file);

	while (rest.len >= BLOCK && rest.p[0]) {
		uint64_t size = strtoull(rest.p + 124, NULL, 8),
			 padded = (size + BLOCK - 1) / BLOCK * BLOCK;

		if (memcmp(rest.p + 257, "ustar", 5) || size > rest.len ||
			rest.len - BLOCK < padded)
			return bad_file(path, err, "it ends early");
		*LIST_ADD(c->a, &c->entries) = (struct snapshot_entry){
			arena_str(c->a, str_n(rest.p, strnlen(rest.p, 100))),
			str_n(rest.p + BLOCK, size)
		};
		rest = str_from(rest, BLOCK + padded);
	}
	return c->entries.len ? 0 : bad_file(path, err, "there is nothing in it");
}

const struct snapshot_entry *snapshot_find(const struct snapshot_contents *c, struct str name)
{
	for (size_t i = 0; i < c->entries.len; i++)
		if (str_eq(c->entries.items[i].name, name))
			return &c->entries.items[i];
	return NULL;
}

static int check_entry(const struct snapshot_contents *c, const struct value *row, const char *path,
	struct err *err)
{
	const struct value *name = value_get(row, STR("name")),
			   *sum = value_get(row, STR("sha256"));
	const struct snapshot_entry *e =
		name && name->kind == VALUE_TEXT ? snapshot_find(c, name->text) : NULL;
	CLEAN_BUF struct buf hex = { 0 };
	uint8_t digest[32];

	if (!e || !sum || sum->kind != VALUE_TEXT)
		return bad_file(path, err, "a file that the manifest names is missing");
	sha256(e->bytes.p, e->bytes.len, digest);
	hex_encode(&hex, digest, sizeof(digest));
	if (!str_eq(buf_str(&hex), sum->text))
		return err_set(err, -EBADMSG,
			"%s is damaged: the SHA-256 of " STR_FMT " is not what the manifest says",
			path, STR_ARG(name->text));
	return 0;
}

int snapshot_load(const char *path, struct snapshot_contents *c, struct err *err)
{
	const struct snapshot_entry *m;
	const struct value *files, *format;
	int r;

	*c = (struct snapshot_contents){ .a = arena_new(0) };
	r = file_read(path, FILE_MAX, &c->file, err);
	if (r == 0)
		r = split_entries(c, path, err);
	if (r < 0)
		return r;
	m = snapshot_find(c, STR("manifest.json"));
	if (!m || json_parse(m->bytes, c->a, &c->manifest, err) < 0)
		return bad_file(path, err, "it has no manifest");
	format = value_get(&c->manifest, STR("format"));
	if (!format || format->kind != VALUE_INT || format->integer > FORMAT)
		return err_set(err, -EPROTO,
			"%s has a newer format than this program knows: use the version of skiff that saved it",
			path);
	files = value_get(&c->manifest, STR("files"));
	for (size_t i = 0; files && files->kind == VALUE_LIST && i < files->list.len; i++) {
		r = check_entry(c, &files->list.items[i], path, err);
		if (r < 0)
			return r;
	}
	return snapshot_find(c, STR("store.jsonl")) ? 0 : bad_file(path, err, "it has no store");
}

void snapshot_unload(struct snapshot_contents *c)
{
	buf_deinit(&c->file);
	arena_free(c->a);
}

static int verify(const struct options *o, struct err *err)
{
	struct snapshot_contents c;
	int r = snapshot_load(o->args[1], &c, err);

	if (r == 0)
		printf("%s is whole: %zu files\n", o->args[1], c.entries.len);
	snapshot_unload(&c);
	return r;
}

static int inspect(const struct options *o, struct err *err)
{
	struct snapshot_contents c;
	int r = snapshot_load(o->args[1], &c, err);

	if (r == 0)
		printf(STR_FMT, STR_ARG(snapshot_find(&c, STR("manifest.json"))->bytes));
	snapshot_unload(&c);
	return r;
}

/* clang-format off */
static const struct { const char *name; int (*run)(const struct options *o, struct err *err); } verbs[] = {
	{ "save",    save },
	{ "restore", snapshot_restore },
	{ "inspect", inspect },
	{ "verify",  verify },
};
/* clang-format on */

int cmd_snapshot(int argc, char **argv)
{
	struct options o;
	struct err err = { 0 };
	int r = options_parse(&o, OPT_SNAPSHOT, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	for (size_t i = 0; o.n_args == 2 && i < ARRAY_LEN(verbs); i++)
		if (!strcmp(o.args[0], verbs[i].name))
			return verbs[i].run(&o, &err) < 0 ? cmd_fail("snapshot", &err, 1) : 0;
	fputs("usage: skiff snapshot save FILE|- | restore FILE [--data-dir DIR] [--store etcd=URL,… [--replace]] | inspect FILE | verify FILE\n",
		stderr);
	return 2;
}
