/* LIST: streams a snapshot's bytes. Small answers are gathered and go out whole; from FIRST_CHUNK on the answer is sent in chunks, and
 * the loop turns to others whenever the client is slower than we are. Nothing of the list is held but its iterator.
 *
 * 1. ListMeta comes first on the wire, but continue and remainingItemCount are known after the page: a page (limit given) is first
 *    walked to its end, keeping pointers only.
 * 2. Protobuf needs its length before the first byte: its page is walked too, and the items' forms, which stay with the objects, are
 *    measured before they are sent.
 * 3. However fast the client, the loop is left after TURN bytes or items of work; however slow, the snapshot is let go after
 *    TIME_MS, with a broken answer. */
#include <zlib.h>

#include "apiserver/internal.h"

#define FIRST_CHUNK (128 * 1024)
#define CHUNK (64 * 1024)
#define PENDING_MAX (256 * 1024)
#define TIME_MS 60000 /* upstream's time for a request */
#define TURN_BYTES (1024 * 1024)
#define TURN_ITEMS 500

struct list_job {
	struct request *q;
	struct registry_list *list;
	struct object **page; /* of a limited list; NULL: the iterator is asked */
	size_t n_page, at;
	size_t measured; /* protobuf: items whose size is in raw_len */
	uint64_t raw_len;
	struct arena *scratch;
	struct buf out;
	z_stream *gzip;
	struct timer *timer; /* from the first wait for the client on */
	bool begun, first, done;
	struct buf sealed; /* one item in protobuf */
};

static void job_free(struct list_job *j)
{
	for (size_t i = 0; j->q->resource->storage != j->q->resource && i < j->n_page; i++)
		object_unref(j->page[i]);
	j->n_page = 0;
	if (j->list)
		registry_list_free(TAKE(j->list));
	if (j->timer)
		timer_free(TAKE(j->timer));
	if (j->gzip) {
		deflateEnd(j->gzip);
		free(TAKE(j->gzip));
	}
	arena_free(TAKE(j->scratch));
	buf_deinit(&j->out);
	buf_deinit(&j->sealed);
}

static struct object *next_object(struct list_job *j)
{
	if (j->page)
		return j->at < j->n_page ? j->page[j->at++] : NULL;
	return registry_list_next(j->list);
}

/* ---- brackets ---- */

static void put_meta(struct str rv, struct str continue_, int64_t remaining, struct buf *out)
{
	buf_addz(out, "\"metadata\":{\"resourceVersion\":");
	json_write_text(rv, out);
	if (continue_.len) {
		buf_addz(out, ",\"continue\":");
		json_write_text(continue_, out);
		if (remaining >= 0)
			buf_addf(out, ",\"remainingItemCount\":%lld", (long long)remaining);
	}
	buf_addc(out, '}');
}

static void put_head(struct list_job *j)
{
	struct request *q = j->q;
	struct str rv, continue_;
	int64_t remaining;
	registry_list_meta(j->list, &rv, &continue_, &remaining);
	if (q->accept.view == VIEW_TABLE) {
		render_table_head(q, rv, continue_, remaining, true, &j->out);
		return;
	}
	if (q->accept.view == VIEW_PARTIAL)
		buf_addf(&j->out,
			"{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/%s\",",
			q->accept.beta ? "v1beta1" : "v1");
	else
		buf_addf(&j->out, "{\"kind\":\"%s\",\"apiVersion\":\"" STR_FMT "\",",
			q->resource->row->list_type->name, STR_ARG(q->resource->api_version));
	put_meta(rv, continue_, remaining, &j->out);
	buf_addz(&j->out, ",\"items\":[");
}

/* The item as the list's field 2; what the envelope holds, without it. Valid until the next one. Encoded twice, to measure and to send: kept, it
 * would stay with every object. */
static struct str raw_of(struct list_job *j, struct object *o)
{
	struct proto_envelope e;
	buf_clear(&j->sealed);
	registry_object_proto_once(j->q->resource, o, &j->sealed);
	return j->sealed.len && proto_open(buf_str(&j->sealed), &e, NULL) == 0 ? e.raw : STR_NONE;
}

static void put_item(struct list_job *j, struct object *o)
{
	struct request *q = j->q;
	if (q->accept.format == OUT_PROTO) {
		proto_put_bytes(&j->out, 2, raw_of(j, o));
		return;
	}
	if (!j->first)
		buf_addc(&j->out, ',');
	j->first = false;
	if (q->accept.view == VIEW_TABLE)
		render_table_row(q, o, j->scratch, &j->out);
	else if (q->accept.view == VIEW_PARTIAL)
		render_partial_json(&q->accept, o->json, &j->out);
	else
		buf_add_str(&j->out, o->json);
	if (arena_used(j->scratch) > 64 * 1024)
		arena_reset(j->scratch);
}

/* ---- sending ---- */

static void gzip_start(struct list_job *j)
{
	j->gzip = xcalloc(1, sizeof(*j->gzip));
	if (deflateInit2(j->gzip, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		free(TAKE(j->gzip));
}

static void gzip_chunk(struct list_job *j, bool last, struct buf *ret)
{
	j->gzip->next_in = (unsigned char *)j->out.p;
	j->gzip->avail_in = (unsigned)j->out.len;
	int r;
	do {
		buf_reserve(ret, 32 * 1024);
		j->gzip->next_out = (unsigned char *)ret->p + ret->len;
		j->gzip->avail_out = 32 * 1024;
		r = deflate(j->gzip, last ? Z_FINISH : Z_NO_FLUSH);
		ret->len += 32 * 1024 - j->gzip->avail_out;
	} while (j->gzip->avail_out == 0 && r != Z_STREAM_END);
	buf_clear(&j->out);
}

static void send_chunk(struct list_job *j, bool last)
{
	if (!j->begun) {
		struct http_header *h;
		size_t n = response_headers(j->q, content_types[j->q->accept.format], &h);
		if (accepts_gzip(j->q->http))
			gzip_start(j);
		if (j->gzip) {
			h[n++] = (struct http_header){ STR("content-encoding"), STR("gzip") };
			h[n++] = (struct http_header){ STR("vary"), STR("Accept-Encoding") };
		}
		http_stream_begin(j->q->stream, 200, h, n);
		j->begun = true;
	}
	struct buf b = { 0 };
	if (j->gzip)
		gzip_chunk(j, last, &b);
	else
		b = j->out, j->out = (struct buf){ 0 };
	size_t len = b.len;
	char *bytes = buf_take(&b);
	if (len)
		http_stream_write(j->q->stream, str_n(bytes, len), free, bytes);
	else
		free(bytes);
}

static void finish(struct list_job *j)
{
	struct request *q = j->q;
	j->done = true;
	if (j->begun) {
		send_chunk(j, true);
		http_stream_end(q->stream);
		request_finish(q, 200);
	} else {
		respond_buf(q, 200, content_types[q->accept.format], &j->out);
	}
	job_free(j);
}

static void put_tail(struct list_job *j)
{
	if (j->q->accept.format == OUT_PROTO)
		buf_add(&j->out, "\x1a\x00\x22\x00",
			4); /* contentEncoding, contentType: there and empty */
	else
		buf_addz(&j->out, "]}\n");
}

static void put_proto_head(struct list_job *j);
static bool measure(struct list_job *j);

/* true: a turn's work was done and more is left. */
static bool work(struct list_job *j)
{
	size_t sent = 0;
	if (j->q->accept.format == OUT_PROTO && !measure(j))
		return true;
	for (size_t items = 0;;) {
		size_t limit = j->begun ? CHUNK : FIRST_CHUNK;
		struct object *o = NULL;
		while (j->out.len < limit && items < TURN_ITEMS * 4 && (o = next_object(j))) {
			put_item(j, o);
			items++;
		}
		if (j->out.len < limit && !o) {
			put_tail(j);
			finish(j);
			return false;
		}
		if (j->out.len >= limit) {
			sent += j->out.len;
			send_chunk(j, false);
			buf_reserve(&j->out, CHUNK + 8192);
		}
		if (sent >= TURN_BYTES || items >= TURN_ITEMS * 4 ||
			http_stream_pending(j->q->stream) > PENDING_MAX ||
			http_stream_closed(j->q->stream))
			return true;
	}
}

static void too_slow(void *arg)
{
	struct list_job *j = arg;
	http_stream_abort(j->q->stream); /* closed() cleans up */
}

static void pump(struct http_stream *s, void *arg)
{
	struct list_job *j = arg;
	if (j->done)
		return;
	if (!work(j)) {
		http_stream_unref(s);
		return;
	}
	if (http_stream_closed(s))
		return; /* closed() cleans up */
	if (http_stream_pending(s) <= PENDING_MAX) {
		http_stream_post(s, pump, j);
		return;
	}
	if (!j->timer) {
		j->timer = timer_new(http_stream_loop(s), too_slow, j);
		timer_start(j->timer, TIME_MS, 0);
	}
	http_stream_on_drain(s, pump, j);
}

static void closed(struct http_stream *s, void *arg)
{
	struct list_job *j = arg;
	if (j->done)
		return;
	j->done = true;
	job_free(j);
	request_finish(j->q, 499);
	http_stream_unref(s);
}

/* ---- protobuf ---- */

static size_t varint_len(uint64_t v)
{
	size_t n = 1;
	while (v >= 0x80) {
		v >>= 7;
		n++;
	}
	return n;
}

/* Adds up the items' sizes, a turn's worth at a time; true: all of them, and the head is written. */
static bool measure(struct list_job *j)
{
	if (j->measured > j->n_page)
		return true;
	for (size_t i = 0; i < TURN_ITEMS && j->measured < j->n_page; i++) {
		size_t len = raw_of(j, j->page[j->measured++]).len;
		j->raw_len += 1 + varint_len(len) + len;
	}
	if (j->measured < j->n_page)
		return false;
	j->measured++;
	put_proto_head(j);
	return true;
}

static void list_meta(struct list_job *j, struct meta_v1_list_meta *meta)
{
	int64_t remaining;
	registry_list_meta(j->list, &meta->resource_version, &meta->continue_, &remaining);
	if (meta->continue_.len && remaining >= 0)
		meta->remaining_item_count = (struct opt_int64)SOME(remaining);
}

static void put_proto_head(struct list_job *j)
{
	struct meta_v1_list_meta meta = { 0 };
	CLEAN_BUF struct buf head = { 0 }, type = { 0 };
	list_meta(j, &meta);
	proto_encode(&meta_v1_list_meta_type, &meta, &head);
	proto_put_bytes(&type, 1, j->q->resource->api_version);
	proto_put_bytes(&type, 2, str_of(j->q->resource->row->list_type->name));
	buf_add(&j->out, "k8s\0", 4);
	proto_put_bytes(&j->out, 1, buf_str(&type));
	proto_put_varint(&j->out, 2 << 3 | 2);
	proto_put_varint(&j->out, j->raw_len + 1 + varint_len(head.len) + head.len);
	proto_put_bytes(&j->out, 1, buf_str(&head));
}

/* ---- lists that are built whole: metadata in protobuf, YAML, pretty ---- */

static void list_partial_proto(struct list_job *j)
{
	struct request *q = j->q;
	struct meta_v1_list_meta meta = { 0 };
	CLEAN_BUF struct buf raw = { 0 }, head = { 0 }, one = { 0 };
	list_meta(j, &meta);
	proto_encode(&meta_v1_list_meta_type, &meta, &head);
	proto_put_bytes(&raw, 1, buf_str(&head));
	struct object *o;
	while ((o = next_object(j))) {
		struct proto_envelope e;
		buf_clear(&one);
		render_object(q, o, j->scratch, &one);
		if (proto_open(buf_str(&one), &e, NULL) == 0)
			proto_put_bytes(&raw, 2, e.raw);
		arena_reset(j->scratch);
	}
	proto_seal(STR("meta.k8s.io/v1"), STR("PartialObjectMetadataList"), buf_str(&raw), &j->out);
	respond_buf(q, 200, content_types[OUT_PROTO], &j->out);
	job_free(j);
}

static void list_rewritten(struct list_job *j)
{
	struct request *q = j->q;
	put_head(j);
	struct object *o;
	while ((o = next_object(j)))
		put_item(j, o);
	buf_addz(&j->out, "]}");
	struct value v;
	struct buf b = { 0 };
	if (json_parse(buf_str(&j->out), j->scratch, &v, NULL) == 0) {
		if (q->accept.format == OUT_YAML)
			yaml_write(&v, &b);
		else
			json_write_pretty(&v, &b, 2);
	}
	respond_buf(q, 200, content_types[q->accept.format], &b);
	job_free(j);
}

static void walk_page(struct list_job *j)
{
	size_t cap = 0;
	struct object *o;
	while ((o = registry_list_next(j->list))) {
		if (j->n_page == cap) {
			size_t more = cap ? cap * 2 : 64;
			j->page = arena_grow(j->q->arena, j->page, cap * sizeof(struct object *),
				more * sizeof(struct object *));
			cap = more;
		}
		/* a converted object lives until the next one only */
		j->page[j->n_page++] =
			j->q->resource->storage == j->q->resource ? o : object_ref(o);
	}
	if (!j->page)
		j->page = arena_alloc(j->q->arena, sizeof(struct object *));
}

/* NULL: refused, and answered. */
struct list_job *list_open(struct request *q)
{
	struct list_job *j = arena_alloc(q->arena, sizeof(*j));
	struct meta_v1_status *st = NULL;
	j->q = q;
	j->first = true;
	if (registry_list_open(q->server->registry, &q->reg, &j->list, &st) != 0) {
		respond_status(q, st);
		return NULL;
	}
	j->scratch = arena_new(4096);
	return j;
}

void list_drop(struct list_job *j)
{
	job_free(j);
}

void list_send(struct list_job *j)
{
	struct request *q = j->q;
	bool proto = q->accept.format == OUT_PROTO;
	if (q->options.limit > 0 || proto)
		walk_page(j);
	if (proto && q->accept.view == VIEW_PARTIAL) {
		list_partial_proto(j);
		return;
	}
	if (q->accept.format == OUT_YAML || (q->accept.pretty && !proto)) {
		list_rewritten(j);
		return;
	}
	if (!proto)
		put_head(j);
	http_stream_ref(q->stream);
	http_stream_on_close(q->stream, closed, j);
	pump(q->stream, j);
}

void serve_list(struct request *q)
{
	struct list_job *j = list_open(q);
	if (j)
		list_send(j);
}
