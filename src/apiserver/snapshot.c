/* GET /skiff/v1/snapshot: the whole store, of one revision, while everything goes on. A line an object; the store's snapshot is walked in pieces, as fast
 * as the client takes them, and costs no memory beyond the send buffer. */
#include "apiserver/internal.h"

#define TURN_OBJECTS 500
#define PENDING_MAX (256 * 1024)

static void add_pairs(struct buf *out, const char *name, const struct object_pair *pairs, size_t n)
{
	if (!n)
		return;
	buf_addf(out, ",\"%s\":{", name);
	for (size_t i = 0; i < n; i++) {
		if (i)
			buf_addc(out, ',');
		json_write_text(pairs[i].key, out);
		buf_addc(out, ':');
		json_write_text(pairs[i].value, out);
	}
	buf_addc(out, '}');
}

static void object_line(const struct object *o, struct buf *out)
{
	buf_addz(out, "{\"key\":");
	json_write_text(o->key, out);
	buf_addf(out, ",\"revision\":%llu", (unsigned long long)o->revision);
	add_pairs(out, "labels", o->labels, o->n_labels);
	add_pairs(out, "fields", o->fields, o->n_fields);
	buf_addz(out, ",\"object\":");
	buf_add_str(out, o->json);
	while (out->len && out->p[out->len - 1] == '\n')
		out->len--;
	buf_addz(out, "}\n");
}

static void first_line(const struct store_snapshot *sn, struct buf *out)
{
	char now[TIME_TEXT_MAX];

	time_format(time_now(), now);
	buf_addf(out, "{\"revision\":%llu,\"time\":\"%s\"}\n",
		(unsigned long long)store_snapshot_revision(sn), now);
}

/* ---- in the process ---- */

struct walk {
	snapshot_line_fn line;
	void *arg;
	struct buf buf;
	size_t objects;
};

static bool walk_one(void *arg, struct object *o)
{
	struct walk *w = arg;

	buf_clear(&w->buf);
	object_line(o, &w->buf);
	w->objects++;
	return w->line(w->arg, buf_str(&w->buf));
}

void apiserver_snapshot(struct store *s, snapshot_line_fn line, void *arg)
{
	struct store_snapshot *sn = store_snapshot(s);
	struct walk w = { .line = line, .arg = arg };

	first_line(sn, &w.buf);
	if (line(arg, buf_str(&w.buf))) {
		store_snapshot_each(sn, STR("/"), STR_NONE, walk_one, &w);
		buf_clear(&w.buf);
		buf_addf(&w.buf, "{\"objects\":%zu}\n", w.objects);
		line(arg, buf_str(&w.buf));
	}
	buf_deinit(&w.buf);
	store_snapshot_free(sn);
}

/* ---- over HTTP ---- */

struct sending {
	struct request *q;
	struct store_snapshot *sn;
	char *next; /* key to go on from; NULL: the first */
	size_t objects, turn;
	struct buf out;
	bool more, done;
};

static bool send_one(void *arg, struct object *o)
{
	struct sending *j = arg;

	if (j->turn++ == TURN_OBJECTS) {
		j->next = str_dup(o->key);
		j->more = true;
		return false;
	}
	object_line(o, &j->out);
	j->objects++;
	return true;
}

static void finish(struct sending *j)
{
	if (j->done)
		return;
	j->done = true;
	store_snapshot_free(j->sn);
	buf_deinit(&j->out);
	free(j->next);
}

static void pump(struct http_stream *s, void *arg)
{
	struct sending *j = arg;
	char *from = j->next;

	if (j->done)
		return;
	j->next = NULL;
	j->more = false;
	j->turn = 0;
	buf_clear(&j->out);
	store_snapshot_each(j->sn, STR("/"), str_of(from), send_one, j);
	free(from);
	if (!j->more)
		buf_addf(&j->out, "{\"objects\":%zu}\n", j->objects);
	size_t n = j->out.len;
	char *bytes = buf_take(&j->out);

	http_stream_write(s, str_n(bytes, n), free, bytes);
	if (!j->more) {
		finish(j);
		http_stream_end(s);
		request_finish(j->q, 200);
		http_stream_unref(s);
	} else if (http_stream_pending(s) > PENDING_MAX) {
		http_stream_on_drain(s, pump, j);
	} else {
		http_stream_post(s, pump, j);
	}
}

static void gone(struct http_stream *s, void *arg)
{
	struct sending *j = arg;

	if (j->done)
		return;
	finish(j);
	request_finish(j->q, 499);
	http_stream_unref(s);
}

bool serve_snapshot(struct request *q)
{
	struct http_header *headers;
	struct sending *j;
	size_t n;

	if (!str_eqz(q->http->method, "GET")) {
		respond_reason(q, REASON_METHOD_NOT_ALLOWED, "the snapshot can only be read");
		return true;
	}
	j = arena_alloc(q->arena, sizeof(*j));
	*j = (struct sending){ .q = q, .sn = store_snapshot(registry_store(q->server->registry)) };
	n = response_headers(q, "application/jsonl", &headers);
	http_stream_ref(q->stream);
	http_stream_on_close(q->stream, gone, j);
	http_stream_begin(q->stream, 200, headers, n);
	first_line(j->sn, &j->out);
	size_t len = j->out.len;
	char *bytes = buf_take(&j->out);

	http_stream_write(q->stream, str_n(bytes, len), free, bytes);
	pump(q->stream, j);
	return true;
}
