/* WATCH: a cursor that writes. New events wake it from the store's writer thread, which only posts to the loop; on the loop it reads as
 * far as the client keeps up. Upstream: endpoints/handlers/watch.go and the cacher's bookmarks.
 *
 * 1. JSON needs no encoding: a frame is the stored bytes between two brackets. Frames of one turn go out as one write.
 * 2. A watch is on its server's list from begin to close; the list's lock guards the links only.
 * 3. The first event after a rest goes out at once; a watch that has just sent waits GATHER_MS for company, so that under load one
 *    write carries many events.
 * 4. `watch` is NULL once the watch is over: posts, timers and drains that come later find that and do nothing. */
#include "apiserver/internal.h"

#define CHUNK (64 * 1024)
#define PENDING_MAX (512 * 1024)
#define TURN_BYTES (1024 * 1024) /* then the loop's others have their turn */
#define BOOKMARK_MS 60000
#define GATHER_MS 2

struct watch_job {
	struct list link;
	struct request *q;
	struct registry_watch *watch;
	struct timer *timer, *gather; /* gather: made when first needed */
	struct arena *scratch;
	struct buf out;
	uint64_t deadline_ns, sent_ns;
	bool bookmarks, mark_initial, no_columns, draining, gathering;
	_Atomic bool posted;
};
struct watch_list {
	pthread_mutex_t lock;
	struct list jobs;
};

struct watch_list *watch_list_new(void)
{
	struct watch_list *l = xcalloc(1, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
	list_init(&l->jobs);
	return l;
}

void watch_list_free(struct watch_list *l)
{
	if (!l)
		return;
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* ---- frames ---- */

static void begin_json(struct watch_job *j, const char *type)
{
	buf_addz(&j->out, "{\"type\":\"");
	buf_addz(&j->out, type);
	buf_addz(&j->out, "\",\"object\":");
}

static void put_proto(struct watch_job *j, const char *type, struct str object)
{
	CLEAN_BUF struct buf ext = { 0 }, ev = { 0 };
	proto_put_bytes(&ext, 1, object);
	proto_put_bytes(&ev, 1, str_of(type));
	proto_put_bytes(&ev, 2, buf_str(&ext));
	uint32_t n = (uint32_t)ev.len;
	char len[4] = { (char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n };
	buf_add(&j->out, len, 4);
	buf_add_str(&j->out, buf_str(&ev));
}

static void put_struct(struct watch_job *j, const char *type, const struct type *t, const void *obj)
{
	if (j->q->accept.format == OUT_PROTO) {
		CLEAN_BUF struct buf b = { 0 };
		proto_encode_object(t, obj, &b);
		put_proto(j, type, buf_str(&b));
		return;
	}
	begin_json(j, type);
	json_encode(t, obj, &j->out);
	buf_addz(&j->out, "}\n");
}

static void put_proto_event(
	struct watch_job *j, const char *type, const struct registry_watch_event *ev)
{
	struct request *q = j->q;
	CLEAN_BUF struct buf b = { 0 };
	if (q->accept.view == VIEW_OBJECT && ev->event) {
		put_proto(j, type, registry_event_proto(q->resource, ev->event));
		return;
	}
	if (q->accept.view == VIEW_OBJECT)
		registry_object_proto_once(q->resource, ev->object, &b);
	else
		render_object(q, ev->object, j->scratch, &b);
	put_proto(j, type, buf_str(&b));
	arena_reset(j->scratch);
}

static void put_event(struct watch_job *j, const char *type, const struct registry_watch_event *ev)
{
	struct request *q = j->q;
	struct object *o = ev->object;
	if (q->accept.format == OUT_PROTO) {
		put_proto_event(j, type, ev);
		return;
	}
	begin_json(j, type);
	if (q->accept.view == VIEW_TABLE) {
		struct str rv = arena_fmt(j->scratch, "%llu", (unsigned long long)o->revision);
		render_table_head(q, rv, STR_NONE, -1, !j->no_columns, &j->out);
		render_table_row(q, o, j->scratch, &j->out);
		buf_addz(&j->out, "]}");
		j->no_columns = true;
		arena_reset(j->scratch);
	} else if (q->accept.view == VIEW_PARTIAL) {
		render_partial_json(&q->accept, o->json, &j->out);
	} else {
		buf_add_str(&j->out, o->json);
	}
	buf_addz(&j->out, "}\n");
}

static void put_bookmark(struct watch_job *j, bool initial_end)
{
	struct request *q = j->q;
	struct str rv = arena_fmt(
		j->scratch, "%llu", (unsigned long long)registry_watch_revision(j->watch));
	if (q->accept.view == VIEW_TABLE) {
		begin_json(j, "BOOKMARK");
		render_table_head(q, rv, STR_NONE, -1, false, &j->out);
		buf_addz(&j->out, "]}}\n");
	} else {
		const struct type *t = q->accept.view == VIEW_PARTIAL
			? &meta_v1_partial_object_metadata_type
			: q->resource->row->type;
		void *obj = model_new(t, j->scratch);
		struct meta_v1_object_meta *meta = model_meta(t, obj);
		meta->resource_version = rv;
		if (initial_end)
			str_map_set(j->scratch, &meta->annotations,
				STR("k8s.io/initial-events-end"), STR("true"));
		put_struct(j, "BOOKMARK", t, obj);
	}
	arena_reset(j->scratch);
}

/* ---- life ---- */

static void job_over(struct watch_job *j, int code)
{
	if (!j->watch)
		return;
	registry_watch_close(TAKE(j->watch));
	pthread_mutex_lock(&j->q->server->watches->lock);
	list_remove(&j->link);
	pthread_mutex_unlock(&j->q->server->watches->lock);
	timer_free(TAKE(j->timer));
	if (j->gather)
		timer_free(TAKE(j->gather));
	arena_free(TAKE(j->scratch));
	buf_deinit(&j->out);
	metrics_watch(j->q->server->metrics, j->q->resource, -1);
	request_finish(j->q, code);
}

static void write_out(struct watch_job *j)
{
	size_t len = j->out.len;
	if (!len)
		return;
	j->sent_ns = mono_now_ns();
	char *bytes = buf_take(&j->out);
	http_stream_write(j->q->stream, str_n(bytes, len), free, bytes);
}

static void end(struct watch_job *j)
{
	write_out(j);
	http_stream_end(j->q->stream);
	job_over(j, 200);
}

static void put_error(struct watch_job *j, struct meta_v1_status *st)
{
	put_struct(j, "ERROR", &meta_v1_status_type, st);
}

static void pump(struct watch_job *j);

static void drained(struct http_stream *s, void *arg)
{
	struct watch_job *j = arg;
	j->draining = false;
	if (j->watch)
		pump(j);
}

static void resume(struct http_stream *s, void *arg)
{
	struct watch_job *j = arg;
	if (j->watch)
		pump(j);
}

static const char *const event_names[] = {
	[WATCH_ADDED] = "ADDED", [WATCH_MODIFIED] = "MODIFIED", [WATCH_DELETED] = "DELETED"
};

static void pump(struct watch_job *j)
{
	struct registry_watch_event ev;
	size_t sent = 0;
	int r;
	if (j->draining)
		return;
	while ((r = registry_watch_next(j->watch, &ev)) == 0) {
		put_event(j, event_names[ev.type], &ev);
		if (j->out.len < CHUNK)
			continue;
		sent += j->out.len;
		write_out(j);
		if (http_stream_pending(j->q->stream) > PENDING_MAX) {
			j->draining = true;
			http_stream_on_drain(j->q->stream, drained, j);
			return;
		}
		if (sent >= TURN_BYTES) {
			http_stream_post(j->q->stream, resume, j);
			return;
		}
	}
	if (j->mark_initial && registry_watch_initial_done(j->watch)) {
		j->mark_initial = false;
		put_bookmark(j, true);
	}
	if (r == STORE_COMPACTED) {
		put_error(j,
			status_new(j->q->arena, REASON_EXPIRED,
				"too old resource version: the client fell behind the log of events; list again"));
		end(j);
		return;
	}
	write_out(j);
}

static void gathered(void *arg)
{
	struct watch_job *j = arg;
	j->gathering = false;
	if (j->watch)
		pump(j);
}

static void woken(struct http_stream *s, void *arg)
{
	struct watch_job *j = arg;
	atomic_store(&j->posted, false);
	if (!j->watch || j->gathering)
		return;
	if (mono_now_ns() - j->sent_ns > GATHER_MS * 1000000u) {
		pump(j);
		return;
	}
	if (!j->gather)
		j->gather = timer_new(http_stream_loop(s), gathered, j);
	j->gathering = true;
	timer_start(j->gather, GATHER_MS, 0);
}

/* On the writer thread, under the log's lock. */
static void wake(void *arg)
{
	struct watch_job *j = arg;
	if (!atomic_exchange(&j->posted, true))
		http_stream_post(j->q->stream, woken, j);
}

static void on_close(struct http_stream *s, void *arg)
{
	job_over(arg, 200);
	http_stream_unref(s);
}

static void timer_arm(struct watch_job *j)
{
	uint64_t now = mono_now_ns();
	uint64_t left_ms = j->deadline_ns > now ? (j->deadline_ns - now) / 1000000 + 1 : 1;
	timer_start(j->timer, j->bookmarks ? MIN(left_ms, BOOKMARK_MS) : left_ms, 0);
}

static void tick(void *arg)
{
	struct watch_job *j = arg;
	if (mono_now_ns() >= j->deadline_ns) {
		end(j);
		return;
	}
	if (j->bookmarks && !j->mark_initial && !j->draining) {
		put_bookmark(j, false);
		write_out(j);
	}
	timer_arm(j);
}

static void end_posted(struct http_stream *s, void *arg)
{
	struct watch_job *j = arg;
	if (j->watch)
		end(j);
}

void watch_list_end(struct watch_list *l)
{
	pthread_mutex_lock(&l->lock);
	list_for_each(it, &l->jobs) {
		struct watch_job *j = list_entry(it, struct watch_job, link);
		http_stream_post(j->q->stream, end_posted, j);
	}
	pthread_mutex_unlock(&l->lock);
}

/* ---- beginning ---- */

static int64_t timeout_of(const struct request *q)
{
	if (q->options.timeout_seconds > 0)
		return MIN(q->options.timeout_seconds, 24 * 3600);
	uint32_t r;
	random_bytes(&r, sizeof(r));
	return 1800 + r % 1800;
}

static void begin(struct request *q)
{
	struct http_header *h;
	const char *type = q->accept.format == OUT_PROTO
		? "application/vnd.kubernetes.protobuf;stream=watch"
		: "application/json";
	size_t n = response_headers(q, type, &h);
	http_stream_begin(q->stream, 200, h, n);
	http_stream_flush(q->stream);
}

/* As upstream: an expired version is told inside the stream. */
static void refuse(struct request *q, struct meta_v1_status *st)
{
	if (st->code != 410) {
		respond_status(q, st);
		return;
	}
	struct watch_job j = { .q = q };
	begin(q);
	put_error(&j, st);
	write_out(&j);
	http_stream_end(q->stream);
	request_finish(q, 200);
}

void serve_watch(struct request *q)
{
	const struct request_options *o = &q->options;
	if (q->accept.format == OUT_YAML) {
		respond_reason(q, REASON_NOT_ACCEPTABLE,
			"a watch is sent as application/json or application/vnd.kubernetes.protobuf");
		return;
	}
	struct watch_job *j = arena_alloc(q->arena, sizeof(*j));
	bool initial = o->send_initial_events.set && o->send_initial_events.value;
	if (o->send_initial_events.set && !initial) {
		q->reg.resource_version_match = STR_NONE;
		if (!q->reg.resource_version.len || str_eqz(q->reg.resource_version, "0"))
			q->reg.resource_version = arena_fmt(q->arena, "%llu",
				(unsigned long long)store_revision(q->server->store));
	}
	j->q = q;
	list_init(&j->link);
	j->bookmarks = o->allow_watch_bookmarks.set && o->allow_watch_bookmarks.value;
	j->mark_initial = initial && j->bookmarks;
	j->deadline_ns = mono_now_ns() + (uint64_t)timeout_of(q) * 1000000000u;
	struct meta_v1_status *st = NULL;
	http_stream_ref(q->stream);
	if (registry_watch_open(q->server->registry, &q->reg, initial, wake, j, &j->watch, &st) !=
		0) {
		refuse(q, st);
		http_stream_unref(q->stream);
		return;
	}
	j->scratch = arena_new(1024);
	j->timer = timer_new(http_stream_loop(q->stream), tick, j);
	pthread_mutex_lock(&q->server->watches->lock);
	list_insert(&q->server->watches->jobs, &j->link);
	pthread_mutex_unlock(&q->server->watches->lock);
	metrics_watch(q->server->metrics, q->resource, 1);
	timer_arm(j);
	http_stream_on_close(q->stream, on_close, j);
	begin(q);
	pump(j);
}
