/* SPDY/3.1 frames, as far as exec, attach and port-forward need them: streams with headers, data, pings. Its clients in
 * this field do no flow control, and neither do we: window updates are read over.
 *
 * 1. A control frame is at most FRAME_MAX bytes, its headers unpacked NET_HEADER_MAX at most.
 * 2. Headers of each direction are one zlib stream: every block is unpacked, also of frames that mean nothing to us.
 * 3. Data is passed on in the pieces it comes in.
 * Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ */
#include "net/internal.h"

#include <zlib.h>

#define FRAME_MAX (64 * 1024)
#define HEADERS_MAX 256
#define VERSION 3
#define FLAG_FIN 1
#define ID_MASK 0x7fffffff
#define DICTIONARY_SIZE 1423
#define DICTIONARY_ADLER 0xe3c6a7c2

struct spdy {
	const struct spdy_events *events;
	void *arg;
	z_stream unpack, pack;
	bool unpacking, packing;
	unsigned char head[8];
	size_t head_len;
	struct buf frame; /* the payload of a control frame */
	uint32_t left;    /* bytes of the payload still to come */
	struct buf block; /* headers, unpacked */
};

/* ---- the dictionary that both ends begin with ---- */

/* clang-format off */
static const char *const dictionary_words[] = {
	"options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding", "accept-language",
	"accept-ranges", "age", "allow", "authorization", "cache-control", "connection", "content-base", "content-encoding",
	"content-language", "content-length", "content-location", "content-md5", "content-range", "content-type", "date", "etag",
	"expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
	"last-modified", "location", "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer",
	"retry-after", "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
	"www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive",
	"origin",
};
static const char dictionary_rest[] =
	"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
	"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
	"403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
	"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
	"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
	"publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/* clang-format on */

static unsigned char dictionary[DICTIONARY_SIZE];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void put32(struct buf *out, uint32_t v)
{
	const char bytes[4] = { (char)(v >> 24), (char)(v >> 16), (char)(v >> 8), (char)v };

	buf_add(out, bytes, 4);
}

static uint32_t get32(const char *p)
{
	const unsigned char *u = (const unsigned char *)p;

	return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static void make_dictionary(void)
{
	CLEAN_BUF struct buf b = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(dictionary_words); i++) {
		put32(&b, (uint32_t)strlen(dictionary_words[i]));
		buf_addz(&b, dictionary_words[i]);
	}
	buf_addz(&b, dictionary_rest);
	if (b.len != DICTIONARY_SIZE ||
		adler32(adler32(0, NULL, 0), (unsigned char *)b.p, DICTIONARY_SIZE) !=
			DICTIONARY_ADLER)
		abort();
	memcpy(dictionary, b.p, DICTIONARY_SIZE);
}

struct spdy *spdy_new(const struct spdy_events *events, void *arg)
{
	struct spdy *s = xcalloc(1, sizeof(*s));

	pthread_once(&once, make_dictionary);
	s->events = events;
	s->arg = arg;
	return s;
}

void spdy_free(struct spdy *s)
{
	if (!s)
		return;
	if (s->unpacking)
		inflateEnd(&s->unpack);
	if (s->packing)
		deflateEnd(&s->pack);
	buf_deinit(&s->frame);
	buf_deinit(&s->block);
	free(s);
}

/* ---- receiving ---- */

static int unpack_block(struct spdy *s, struct str packed, struct err *err)
{
	if (!s->unpacking) {
		if (inflateInit(&s->unpack) != Z_OK)
			return err_set(err, -ENOMEM, "SPDY: cannot unpack headers");
		s->unpacking = true;
	}
	buf_clear(&s->block);
	s->unpack.next_in = (unsigned char *)packed.p;
	s->unpack.avail_in = (unsigned)packed.len;
	for (;;) {
		buf_reserve(&s->block, 1024);
		s->unpack.next_out = (unsigned char *)s->block.p + s->block.len;
		s->unpack.avail_out = (unsigned)(s->block.cap - s->block.len - 1);
		unsigned room = s->unpack.avail_out;
		int r = inflate(&s->unpack, Z_SYNC_FLUSH);

		s->block.len += room - s->unpack.avail_out;
		if (s->block.len > NET_HEADER_MAX)
			return err_set(err, -EFBIG, "SPDY: headers are larger than 64 KiB");
		if (r == Z_NEED_DICT) {
			if (inflateSetDictionary(&s->unpack, dictionary, DICTIONARY_SIZE) != Z_OK)
				return err_set(err, -EPROTO,
					"SPDY: headers were packed with an unknown dictionary");
			continue;
		}
		if (r == Z_BUF_ERROR || (r == Z_OK && !s->unpack.avail_in && s->unpack.avail_out))
			return 0;
		if (r != Z_OK)
			return err_set(err, -EPROTO, "SPDY: headers cannot be unpacked");
	}
}

static bool take_text(struct str *rest, struct str *ret)
{
	if (rest->len < 4 || get32(rest->p) > rest->len - 4)
		return false;
	size_t n = get32(rest->p);

	*ret = str_n(rest->p + 4, n);
	*rest = str_from(*rest, n + 4);
	return true;
}

typedef int (*headers_fn)(
	void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n);

static int take_headers(struct spdy *s, headers_fn fn, size_t before, struct err *err)
{
	struct http_header *headers;
	bool fin = s->head[4] & FLAG_FIN;
	size_t n;

	if (s->frame.len < before)
		return err_set(err, -EPROTO, "SPDY: a frame is too short");
	int r = unpack_block(s, str_from(buf_str(&s->frame), before), err);

	if (r < 0)
		return r;
	struct str rest = buf_str(&s->block);

	/* A frame may end here: it has no headers then. */
	n = rest.len >= 4 ? get32(rest.p) : 0;
	rest = str_from(rest, 4);
	if (n > HEADERS_MAX)
		return err_set(err, -EFBIG, "SPDY: too many headers");
	CLEAN_FREE struct http_header *list = xcalloc(n, sizeof(*list));

	headers = list;
	for (size_t i = 0; i < n; i++)
		if (!take_text(&rest, &headers[i].name) || !take_text(&rest, &headers[i].value))
			return err_set(err, -EPROTO, "SPDY: headers are cut short");
	return fn ? fn(s->arg, get32(s->frame.p) & ID_MASK, fin, headers, n) : 0;
}

static int take_control(struct spdy *s, struct err *err)
{
	uint32_t type = (uint32_t)s->head[2] << 8 | s->head[3];
	const struct spdy_events *e = s->events;
	uint32_t first = s->frame.len >= 4 ? get32(s->frame.p) : 0;
	uint32_t second = s->frame.len >= 8 ? get32(s->frame.p + 4) : 0;

	switch (type) {
	case SPDY_SYN_STREAM:
		return take_headers(s, e->on_syn_stream, 10, err);
	case SPDY_SYN_REPLY:
		return take_headers(s, e->on_syn_reply, 4, err);
	case SPDY_HEADERS:
		return take_headers(s, e->on_headers, 4, err);
	case SPDY_RST_STREAM:
		return e->on_rst ? e->on_rst(s->arg, first & ID_MASK, second) : 0;
	case SPDY_PING:
		return e->on_ping ? e->on_ping(s->arg, first) : 0;
	case SPDY_GOAWAY:
		return e->on_goaway ? e->on_goaway(s->arg, first & ID_MASK) : 0;
	default:
		return 0;
	}
}

static int take_head(struct spdy *s, struct err *err)
{
	bool control = s->head[0] & 0x80;

	s->left = get32((const char *)s->head + 4) & 0xffffff;
	if (!control)
		return 0;
	if ((s->head[0] & 0x7f) != 0 || s->head[1] != VERSION)
		return err_set(err, -EPROTO, "SPDY: the peer speaks another version");
	if (s->left > FRAME_MAX)
		return err_set(err, -EFBIG, "SPDY: a control frame is larger than 64 KiB");
	buf_clear(&s->frame);
	return 0;
}

static int take_payload(struct spdy *s, const char *p, size_t n, struct err *err)
{
	int r = 0;

	s->left -= (uint32_t)n;
	if (s->head[0] & 0x80) {
		buf_add(&s->frame, p, n);
		if (!s->left)
			r = take_control(s, err);
		if (!s->left && s->frame.cap > 4096)
			buf_deinit(&s->frame);
	} else if (s->events->on_data && (n || !s->left)) {
		bool fin = !s->left && s->head[4] & FLAG_FIN;

		r = s->events->on_data(
			s->arg, get32((const char *)s->head) & ID_MASK, fin, str_n(p, n));
	}
	if (!s->left)
		s->head_len = 0;
	return r;
}

int spdy_feed(struct spdy *s, const char *p, size_t n, struct err *err)
{
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < n) {
		if (s->head_len < sizeof(s->head)) {
			s->head[s->head_len++] = (unsigned char)p[at++];
			if (s->head_len < sizeof(s->head))
				continue;
			r = take_head(s, err);
			if (r < 0)
				return r;
			if (s->left)
				continue;
		}
		size_t take = MIN((size_t)s->left, n - at);

		r = take_payload(s, p + at, take, err);
		at += take;
	}
	return r;
}

/* ---- sending ---- */

static void put_control(struct buf *out, int type, int flags, size_t n)
{
	put32(out, 0x80000000u | (uint32_t)VERSION << 16 | (uint32_t)type);
	put32(out, (uint32_t)flags << 24 | (uint32_t)n);
}

static void pack(struct spdy *s, struct str plain, struct buf *out)
{
	if (!s->packing) {
		/* A small window: headers are few and short. */
		if (deflateInit2(&s->pack, Z_BEST_SPEED, Z_DEFLATED, 12, 2, Z_DEFAULT_STRATEGY) !=
			Z_OK)
			abort();
		deflateSetDictionary(&s->pack, dictionary, DICTIONARY_SIZE);
		s->packing = true;
	}
	s->pack.next_in = (unsigned char *)plain.p;
	s->pack.avail_in = (unsigned)plain.len;
	do {
		buf_reserve(out, 512);
		s->pack.next_out = (unsigned char *)out->p + out->len;
		s->pack.avail_out = (unsigned)(out->cap - out->len - 1);
		unsigned room = s->pack.avail_out;

		deflate(&s->pack, Z_SYNC_FLUSH);
		out->len += room - s->pack.avail_out;
	} while (s->pack.avail_out == 0);
}

void spdy_put_headers(struct spdy *s, struct buf *out, int type, uint32_t id, bool fin,
	const struct http_header *headers, size_t n)
{
	CLEAN_BUF struct buf plain = { 0 }, packed = { 0 };

	put32(&plain, (uint32_t)n);
	for (size_t i = 0; i < n; i++) {
		put32(&plain, (uint32_t)headers[i].name.len);
		buf_add_str(&plain, headers[i].name);
		put32(&plain, (uint32_t)headers[i].value.len);
		buf_add_str(&plain, headers[i].value);
	}
	pack(s, buf_str(&plain), &packed);
	put_control(out, type, fin ? FLAG_FIN : 0, packed.len + (type == SPDY_SYN_STREAM ? 10 : 4));
	put32(out, id);
	if (type == SPDY_SYN_STREAM) {
		put32(out, 0);
		buf_add(out, "\0\0", 2);
	}
	buf_add_str(out, buf_str(&packed));
}

void spdy_put_data(struct buf *out, uint32_t id, bool fin, struct str bytes)
{
	do {
		size_t n = MIN(bytes.len, (size_t)0xffffff);
		bool last = n == bytes.len;

		put32(out, id);
		put32(out, (uint32_t)(fin && last ? FLAG_FIN : 0) << 24 | (uint32_t)n);
		buf_add(out, bytes.p, n);
		bytes = str_from(bytes, n);
	} while (bytes.len);
}

void spdy_put_rst(struct buf *out, uint32_t id, uint32_t status)
{
	put_control(out, SPDY_RST_STREAM, 0, 8);
	put32(out, id);
	put32(out, status);
}

void spdy_put_ping(struct buf *out, uint32_t id)
{
	put_control(out, SPDY_PING, 0, 4);
	put32(out, id);
}

void spdy_put_goaway(struct buf *out, uint32_t last_good)
{
	put_control(out, SPDY_GOAWAY, 0, 8);
	put32(out, last_good);
	put32(out, 0);
}
