/* GET /logs/PATH: what lies under /var/log of the node: a folder as a page of links, a file as a stream. Upstream: the file server behind the kubelet's
 * /logs/. Left out, and answered with 501: NodeLogQuery (?query=), which asks the journal and programs' own files by name.
 *
 * 1. A path is opened by the kernel below the folder (RESOLVE_BENEATH): neither .. nor a link leads out of it, whoever put it there. A link that leads
 *    elsewhere inside is followed when it is relative.
 * 2. Only folders and ordinary files are opened for reading: a pipe would block, a device may do anything.
 * 3. A file is sent as far as it was long at first, block by block as the client takes it. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kubelet/internal.h"

#define FOLDER "/var/log"
#define BLOCK (64 * 1024)
#define PENDING_MAX (256 * 1024)
#define NAMES_MOST 100000

static const char html_type[] = "text/html; charset=utf-8",
		  text_type[] = "text/plain; charset=utf-8";

/* ---- a file ---- */

struct log_file {
	struct http_stream *stream;
	const char *type;
	int fd;
	int64_t at, end;
	bool closed;
};

static void file_free(struct log_file *f)
{
	close(f->fd);
	http_stream_unref(f->stream);
	free(f);
}

static void on_drain(struct http_stream *s, void *arg);

static void send_on(struct log_file *f)
{
	while (!f->closed) {
		if (http_stream_pending(f->stream) > PENDING_MAX) {
			http_stream_on_drain(f->stream, on_drain, f);
			return;
		}
		char *block = xmalloc(BLOCK);
		ssize_t n = pread(f->fd, block, (size_t)MIN(BLOCK, f->end - f->at), f->at);
		if (n <= 0) {
			free(block);
			f->closed = true;
			if (n < 0)
				http_stream_abort(f->stream);
			else
				http_stream_end(f->stream);
			return;
		}
		f->at += n;
		http_stream_write(f->stream, str_n(block, (size_t)n), free, block);
	}
}

static void on_drain(struct http_stream *s, void *arg)
{
	send_on(arg);
}

static void on_close(struct http_stream *s, void *arg)
{
	struct log_file *f = arg;

	f->closed = true;
	file_free(f);
}

static void begin(struct http_stream *s, void *arg)
{
	struct log_file *f = arg;
	const struct http_header headers[] = { { STR("content-type"), str_of(f->type) },
		{ STR("x-content-type-options"), STR("nosniff") } };

	if (http_stream_closed(s)) {
		file_free(f);
		return;
	}
	if (str_eqz(http_stream_request(s)->method, "HEAD")) {
		http_respond(s, 200, headers, ARRAY_LEN(headers), STR_NONE, NULL, NULL);
		file_free(f);
		return;
	}
	http_stream_on_close(s, on_close, f);
	http_stream_begin(s, 200, headers, ARRAY_LEN(headers));
	send_on(f);
}

static const char *type_of(int fd)
{
	char first[512];
	ssize_t n = pread(fd, first, sizeof(first), 0);

	return n > 0 && memchr(first, 0, (size_t)n) ? "application/octet-stream" : text_type;
}

static void serve_file(struct http_stream *s, int fd, int64_t size)
{
	struct log_file *f = xcalloc(1, sizeof(*f));

	*f = (struct log_file){
		.stream = http_stream_ref(s), .type = type_of(fd), .fd = fd, .end = size
	};
	http_stream_post(s, begin, f);
}

/* ---- a folder ---- */

static void add_html(struct buf *b, struct str text)
{
	static const char *const as[256] = {
		['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['"'] = "&#34;", ['\''] = "&#39;"
	};

	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (as[c])
			buf_addz(b, as[c]);
		else
			buf_addc(b, (char)c);
	}
}

/* As a relative reference: url_encode leaves no colon that would make a scheme of it. */
static void add_href(struct buf *b, struct str name)
{
	bool folder = name.len && name.p[name.len - 1] == '/';

	url_encode(b, str_n(name.p, name.len - folder));
	if (folder)
		buf_addc(b, '/');
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in it, sorted, folders with a slash. */
static int list_folder(int fd, struct arena *a, char ***ret, size_t *ret_n)
{
	DIR *d = fdopendir(fd);
	const struct dirent *e;

	if (!d) {
		int r = -errno;

		close(fd);
		return r;
	}
	while ((e = readdir(d)) && *ret_n < NAMES_MOST)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			*ARENA_ADD(a, *ret, *ret_n) = (char *)arena_fmt(
				a, "%s%s", e->d_name, e->d_type == DT_DIR ? "/" : "")
							      .p;
	closedir(d);
	if (*ret_n)
		qsort(*ret, *ret_n, sizeof(**ret), by_name);
	return 0;
}

static void serve_folder(struct http_stream *s, int fd)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf page = { 0 };
	char **names = NULL;
	size_t n = 0;
	int r = list_folder(fd, a, &names, &n);

	if (r < 0) {
		respond_error(s, 500, "Error reading directory: %s", strerror(-r));
		return;
	}
	buf_addz(&page,
		"<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
	for (size_t i = 0; i < n; i++) {
		buf_addz(&page, "<a href=\"");
		add_href(&page, str_of(names[i]));
		buf_addz(&page, "\">");
		add_html(&page, str_of(names[i]));
		buf_addz(&page, "</a>\n");
	}
	buf_addz(&page, "</pre>\n");
	node_respond_text(s, 200, html_type, buf_str(&page));
}

/* ---- the way there ---- */

struct redirect {
	struct http_header to;
};

static void redirect_now(struct http_stream *s, void *arg)
{
	struct redirect *r = arg;

	http_respond(s, 301, &r->to, 1, STR_NONE, NULL, NULL);
}

/* Links of a page are relative, so a folder's path ends with a slash and a file's does not. */
static void redirect(struct http_stream *s, const char *before, struct str name, const char *after)
{
	struct arena *a = http_stream_arena(s);
	CLEAN_BUF struct buf to = { 0 };
	struct redirect *r = arena_alloc(a, sizeof(*r));

	buf_addz(&to, before);
	add_href(&to, name);
	buf_addz(&to, after);
	r->to = (struct http_header){ STR("location"), arena_str(a, buf_str(&to)) };
	http_stream_post(s, redirect_now, r);
}

/* The parts of the route behind /logs, as a path below the folder. */
static bool path_below(const struct node_route *r, struct buf *ret)
{
	for (size_t i = 1; i < r->n_parts; i++) {
		if (memchr(r->parts[i].p, 0, r->parts[i].len))
			return false;
		if (r->parts[i].len)
			buf_addf(ret, "%s" STR_FMT, ret->len ? "/" : "", STR_ARG(r->parts[i]));
	}
	if (!ret->len)
		buf_addc(ret, '.');
	return true;
}

/* For reading, once it is known to be a file or a folder. */
static int open_below(const char *folder, const char *path, struct stat *ret)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	CLEAN_FD int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEAN_FD int at = root < 0 ? -1 : (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	char self[40];

	if (at < 0 || fstat(at, ret) < 0)
		return -errno;
	if (!S_ISREG(ret->st_mode) && !S_ISDIR(ret->st_mode))
		return -EPERM;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", at);
	int fd = open(self, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static bool is_query(struct http_stream *s)
{
	static const char *const names[] = { "query", "sinceTime", "untilTime", "tailLines",
		"pattern", "boot" };
	struct str v;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (query_has(s, names[i], &v))
			return true;
	return false;
}

static void refuse(struct http_stream *s, int error, const char *path)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ENAMETOOLONG:
		respond_error(s, 404, "404 page not found");
		return;
	case EXDEV:
	case ELOOP:
		respond_error(s, 403, "/logs/%s leads out of " FOLDER, path);
		return;
	case EPERM:
		respond_error(s, 403, "/logs/%s is neither a file nor a folder", path);
		return;
	default:
		respond_error(s, 500, "/logs/%s: %s", path, strerror(error));
	}
}

void serve_node_logs(struct node_route *r)
{
	const struct http_request *q = http_stream_request(r->stream);
	bool slash = q->path.len && q->path.p[q->path.len - 1] == '/';
	struct str name = r->parts[r->n_parts - 1];
	CLEAN_BUF struct buf path = { 0 };
	struct stat st;

	if (!str_eqz(q->method, "GET") && !str_eqz(q->method, "HEAD")) {
		respond_error(r->stream, 405, "405: Method Not Allowed");
		return;
	}
	if (is_query(r->stream)) {
		respond_error(r->stream, 501,
			"queries of the node's logs are not served: name a file, as in /logs/syslog; /logs/ lists them");
		return;
	}
	if (!path_below(r, &path)) {
		refuse(r->stream, ENOENT, "");
		return;
	}
	int fd = open_below(r->k->c.node_log_dir ? r->k->c.node_log_dir : FOLDER, path.p, &st);
	if (fd < 0) {
		refuse(r->stream, -fd, path.p);
	} else if (slash == (S_ISDIR(st.st_mode) != 0)) {
		if (slash)
			serve_folder(r->stream, fd);
		else
			serve_file(r->stream, fd, st.st_size);
	} else {
		close(fd);
		redirect(r->stream, slash ? "../" : "", name, slash ? "" : "/");
	}
}
