/* GET /containerLogs: a log file, filtered, as a stream; with follow=true until the container ends, woken by inotify and by the engine's word that it
 * ended. A follower belongs to the node API's loop; reading a file there is short, and stops while the client does not take what it has. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define BLOCK (64 * 1024)
#define PENDING_MAX (256 * 1024)

struct follower {
	struct list node; /* of kubelet.followers */
	struct kubelet *k;
	struct http_stream *stream;
	char *path;
	char id[ENGINE_ID];
	int fd, inotify;
	struct fd_watch *watch;
	int64_t at;
	struct log_options o;
	bool follow, ended, closed;
	struct buf kept; /* a line that is not whole yet */
};

static void follower_free(struct follower *f)
{
	list_remove(&f->node);
	if (f->watch)
		fd_watch_free(f->watch);
	if (f->inotify >= 0)
		close(f->inotify);
	if (f->fd >= 0)
		close(f->fd);
	f->k->n_followers--;
	buf_deinit(&f->kept);
	http_stream_unref(f->stream);
	free(f->path);
	free(f);
}

static void release(void *p)
{
	free(p);
}

/* The writer went on in a new file under the same name. */
static bool reopen(struct follower *f)
{
	struct stat own, now;

	if (fstat(f->fd, &own) || stat(f->path, &now) ||
		(own.st_ino == now.st_ino && own.st_dev == now.st_dev))
		return false;
	int fd = log_open(f->k, f->path);
	if (fd < 0)
		return false;
	close(f->fd);
	f->fd = fd;
	f->at = 0;
	inotify_add_watch(f->inotify, f->path, IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF);
	return true;
}

static void finish(struct follower *f)
{
	f->closed = true;
	http_stream_end(f->stream);
}

static void on_drain(struct http_stream *s, void *arg);

/* Reads and sends until the file's end, the limit, or a client that is too slow. */
static void pump(struct follower *f)
{
	while (!f->closed) {
		if (http_stream_pending(f->stream) > PENDING_MAX) {
			http_stream_on_drain(f->stream, on_drain, f);
			return;
		}
		buf_reserve(&f->kept, BLOCK);
		ssize_t n = pread(f->fd, f->kept.p + f->kept.len, BLOCK, f->at);
		if (n <= 0) {
			if (f->follow && reopen(f))
				continue;
			if (!f->follow || f->ended)
				finish(f);
			else
				http_stream_flush(f->stream);
			return;
		}
		f->at += n;
		f->kept.len += (size_t)n;
		struct buf out = { 0 };
		size_t used;
		bool more = log_filter(buf_str(&f->kept), &f->o, &out, &used);
		memmove(f->kept.p, f->kept.p + used, f->kept.len - used);
		f->kept.len -= used;
		if (out.len) {
			size_t len = out.len;
			char *bytes = buf_take(&out);
			http_stream_write(f->stream, str_n(bytes, len), release, bytes);
		} else {
			buf_deinit(&out);
		}
		if (!more)
			finish(f);
	}
}

static void on_drain(struct http_stream *s, void *arg)
{
	pump(arg);
}

static void on_inotify(void *arg, int events)
{
	struct follower *f = arg;
	char drop[4096];

	while (read(f->inotify, drop, sizeof(drop)) > 0)
		;
	pump(f);
}

static void on_close(struct http_stream *s, void *arg)
{
	struct follower *f = arg;

	f->closed = true;
	follower_free(f);
}

/* ---- ends ---- */

struct ended {
	struct kubelet *k;
	char id[ENGINE_ID];
};

static void tell_ended(void *arg)
{
	struct ended *e = arg;

	for (struct list *it = e->k->followers.next, *next; it && it != &e->k->followers;
		it = next) {
		struct follower *f = list_entry(it, struct follower, node);
		next = it->next;
		if (strcmp(f->id, e->id))
			continue;
		f->ended = true;
		pump(f);
	}
	free(e);
}

static void post_ended(struct kubelet *k, const char *id)
{
	struct ended *e = xcalloc(1, sizeof(*e));

	e->k = k;
	snprintf(e->id, sizeof(e->id), "%s", id);
	loop_post(k->c.loop, tell_ended, e);
}

/* Also the answer to a container that ended while its follower was being set up. */
static void check_ended(void *arg)
{
	struct ended *e = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_container c;
	struct err err;

	if (e->k->c.engine->v->container_status(e->k->c.engine, e->id, a, &c, &err) ||
		c.state != CONTAINER_RUNNING)
		post_ended(e->k, e->id);
	free(e);
}

void logs_container_ended(struct kubelet *k, const char *container_id)
{
	if (!k->n_followers || k->stopping)
		return;
	struct ended *e = xcalloc(1, sizeof(*e));
	e->k = k;
	snprintf(e->id, sizeof(e->id), "%s", container_id);
	pool_submit(k->slow, check_ended, e);
}

/* ---- begin ---- */

static void begin(struct http_stream *s, void *arg)
{
	struct follower *f = arg;
	static const struct http_header type = { { "content-type", 12 }, { "text/plain", 10 } };
	struct err err;

	if (!f->k->followers.next)
		list_init(&f->k->followers);
	list_insert(&f->k->followers, &f->node);
	f->k->n_followers++;
	if (http_stream_closed(s)) {
		f->closed = true;
		follower_free(f);
		return;
	}
	http_stream_on_close(s, on_close, f);
	http_stream_begin(s, 200, &type, 1);
	if (f->follow) {
		f->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (f->inotify < 0 ||
			inotify_add_watch(f->inotify, f->path,
				IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF) < 0 ||
			fd_watch_new(
				f->k->c.loop, f->inotify, IO_READ, on_inotify, f, &f->watch, &err))
			f->follow = false;
		logs_container_ended(f->k, f->id);
		http_stream_flush(s);
	}
	pump(f);
}

static bool number(struct http_stream *s, const char *name, int64_t *ret, bool *ret_bad)
{
	struct str v;

	if (!query_has(s, name, &v))
		return false;
	if (str_to_i64(v, ret) || *ret < 0)
		*ret_bad = true;
	return true;
}

static bool flag(struct http_stream *s, const char *name)
{
	struct str v;

	return query_has(s, name, &v) && (str_eqz(v, "true") || str_eqz(v, "1"));
}

static bool options(struct http_stream *s, struct log_options *o, struct kubelet *k)
{
	struct str v;
	int64_t seconds;
	bool bad = false;

	*o = (struct log_options){ .tail = -1, .limit_bytes = -1, .streams = 3 };
	number(s, "tailLines", &o->tail, &bad);
	number(s, "limitBytes", &o->limit_bytes, &bad);
	o->timestamps = flag(s, "timestamps");
	if (number(s, "sinceSeconds", &seconds, &bad) && !bad)
		o->since = time_add_ns(now_wall(k), -seconds * (int64_t)NS_PER_S);
	if (query_has(s, "sinceTime", &v) && time_parse(v, &o->since))
		bad = true;
	if (query_has(s, "stream", &v))
		o->streams = str_eqz(v, "Stdout") ? 1 : str_eqz(v, "Stderr") ? 2 : 3;
	return !bad;
}

void serve_logs(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod,
	struct str container)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_container c;
	struct log_options o;
	struct str path;
	struct err err;

	if (!options(s, &o, k)) {
		respond_error(s, 400, "Unable to decode query: a log option is malformed");
		return;
	}
	int status = server_find_container(
		k, ns, pod, container, flag(s, "previous"), a, &c, &path, &err);
	if (status) {
		respond_error(s, status, "%s", err.text);
		return;
	}
	CLEAN_FD int fd = log_open(k, path.p);
	if (fd < 0) {
		respond_error(s, 500, "failed to try resolving symlinks in path \"%s\": %s", path.p,
			strerror(-fd));
		return;
	}
	struct follower *f = xcalloc(1, sizeof(*f));
	list_init(&f->node);
	f->k = k;
	f->stream = http_stream_ref(s);
	f->path = str_dup(path);
	memcpy(f->id, c.id, sizeof(f->id));
	f->at = log_tail_offset(fd, o.tail);
	f->fd = TAKE_FD(fd);
	f->inotify = -1;
	f->o = o;
	f->follow = flag(s, "follow") && c.state == CONTAINER_RUNNING;
	http_stream_post(s, begin, f);
}
