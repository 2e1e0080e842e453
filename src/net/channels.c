/* Channels over an upgraded connection: WebSocket messages whose first byte names the channel, or SPDY streams.
 * Numbers of SPDY channels are its stream ids.
 *
 * v5.channel.k8s.io adds one message: channel 255, then the number of the channel that ends. Protocols SPDY/3.1+… are SPDY
 * whose bytes travel in WebSocket messages (KEP-4006). */
#include "net/internal.h"

#define MESSAGE_MAX ((size_t)32 * 1024 * 1024)
#define CLOSE_CHANNEL 255

struct channel_conn {
	struct http_conn *conn;
	struct http_stream *stream;
	struct channel_events events;
	struct websocket ws;
	struct spdy *spdy;   /* NULL: WebSocket */
	bool wrapped;        /* SPDY inside of WebSocket */
	bool base64, closes; /* WebSocket: text protocol; knows the message that ends a channel */
	bool plain;          /* binary.k8s.io: one stream to the client, no channel is named */
	bool held, closing;
	uint32_t last_id;
	void (*drain)(void *arg);
	void *drain_arg;
};

static struct channel_conn *of(struct http_conn *c)
{
	return c->upgraded;
}

static void send_buf(struct channel_conn *cc, struct buf *b)
{
	CLEAN_BUF struct buf head = { 0 };

	if (!b->len)
		return;
	if (cc->wrapped) {
		websocket_frame_head(&head, WS_BINARY, b->len);
		conn_send(cc->conn, head.p, head.len);
	}
	conn_send(cc->conn, b->p, b->len);
}

/* ---- WebSocket ---- */

static void ws_send(struct channel_conn *cc, int opcode, struct str payload)
{
	CLEAN_BUF struct buf b = { 0 };

	websocket_frame(&b, false, opcode, payload);
	conn_send(cc->conn, b.p, b.len);
}

static void ws_close(struct channel_conn *cc, uint16_t code)
{
	const char payload[2] = { (char)(code >> 8), (char)code };

	if (cc->closing)
		return;
	cc->closing = true;
	ws_send(cc, WS_CLOSE, str_n(payload, 2));
	conn_close_when_sent(cc->conn);
}

static int ws_take_data(struct channel_conn *cc, struct str payload)
{
	CLEAN_BUF struct buf decoded = { 0 };
	int channel;

	if (!payload.len)
		return 0;
	channel = (unsigned char)payload.p[0];
	payload = str_from(payload, 1);
	if (cc->base64) {
		channel -= '0';
		if (channel < 0 || channel > 9 || base64_decode(&decoded, payload) < 0)
			return -EPROTO;
		payload = buf_str(&decoded);
	}
	if (cc->closes && channel == CLOSE_CHANNEL) {
		if (payload.len && cc->events.on_channel_close)
			cc->events.on_channel_close(cc->events.arg, (unsigned char)payload.p[0]);
		return 0;
	}
	if (payload.len)
		cc->events.on_data(cc->events.arg, channel, payload);
	return 0;
}

static int on_message(void *arg, int opcode, struct str payload)
{
	struct channel_conn *cc = arg;

	if (cc->closing)
		return 0;
	switch (opcode) {
	case WS_PING:
		if (conn_pending(cc->conn) <
			PENDING_HIGH) /* who does not read its answers gets no more of them */
			ws_send(cc, WS_PONG, payload);
		return 0;
	case WS_PONG:
		return 0;
	case WS_CLOSE:
		ws_close(cc, 1000);
		return 0;
	default:
		return cc->wrapped ? spdy_feed(cc->spdy, payload.p, payload.len, NULL)
				   : ws_take_data(cc, payload);
	}
}

/* ---- SPDY ---- */

static int on_syn_stream(
	void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n)
{
	struct channel_conn *cc = arg;
	CLEAN_BUF struct buf b = { 0 };

	if (id <= cc->last_id || id % 2 == 0)
		return -EPROTO;
	cc->last_id = id;
	spdy_put_headers(cc->spdy, &b, SPDY_SYN_REPLY, id, false, NULL, 0);
	send_buf(cc, &b);
	if (cc->events.on_open)
		cc->events.on_open(cc->events.arg, (int)id, headers, n);
	if (fin && cc->events.on_channel_close)
		cc->events.on_channel_close(cc->events.arg, (int)id);
	return 0;
}

static int on_data(void *arg, uint32_t id, bool fin, struct str bytes)
{
	struct channel_conn *cc = arg;

	if (bytes.len)
		cc->events.on_data(cc->events.arg, (int)id, bytes);
	if (fin && cc->events.on_channel_close)
		cc->events.on_channel_close(cc->events.arg, (int)id);
	return 0;
}

static int on_rst(void *arg, uint32_t id, uint32_t status)
{
	struct channel_conn *cc = arg;

	if (cc->events.on_channel_close)
		cc->events.on_channel_close(cc->events.arg, (int)id);
	return 0;
}

static int on_ping(void *arg, uint32_t id)
{
	struct channel_conn *cc = arg;
	CLEAN_BUF struct buf b = { 0 };

	/* Even numbers would be answers to pings of ours. */
	if (id % 2 == 0 || conn_pending(cc->conn) >= PENDING_HIGH)
		return 0;
	spdy_put_ping(&b, id);
	send_buf(cc, &b);
	return 0;
}

static const struct spdy_events spdy_events = {
	.on_syn_stream = on_syn_stream,
	.on_data = on_data,
	.on_rst = on_rst,
	.on_ping = on_ping,
};

/* ---- the connection ---- */

static size_t channels_feed(struct http_conn *c, const char *p, size_t n)
{
	struct channel_conn *cc = of(c);
	int r;

	if (cc->held)
		return 0;
	if (cc->closing)
		return n;
	if (cc->spdy && !cc->wrapped)
		r = spdy_feed(cc->spdy, p, n, NULL);
	else
		r = websocket_feed(&cc->ws, p, n, NULL);
	if (r < 0 && (!cc->spdy || cc->wrapped))
		ws_close(cc, cc->ws.close_code ? cc->ws.close_code : 1003);
	else if (r < 0)
		channel_conn_close(cc);
	return n;
}

static void channels_drained(struct http_conn *c)
{
	struct channel_conn *cc = of(c);

	if (cc->drain)
		cc->drain(cc->drain_arg);
}

static void channels_stop(struct http_conn *c)
{
	/* Runs on until its program ends or the server loses patience. */
}

static void channels_closed(struct http_conn *c)
{
	struct channel_conn *cc = of(c);
	struct http_stream *s = c->stream;

	c->stream = NULL;
	if (cc->events.on_close)
		cc->events.on_close(cc->events.arg);
	spdy_free(cc->spdy);
	websocket_deinit(&cc->ws);
	free(cc);
	stream_finish(s);
}

const struct conn_protocol channels_protocol = {
	.feed = channels_feed,
	.drained = channels_drained,
	.stop = channels_stop,
	.closed = channels_closed,
};

/* ---- the upgrade ---- */

/* Whether a comma-separated list holds the word. */
static bool list_has(struct str list, const char *word)
{
	struct str item;

	while (list.len) {
		str_cut(list, ',', &item, &list);
		if (str_eqz(str_trim(item), word))
			return true;
	}
	return false;
}

/* What the server likes best of what the client names in all headers of that name; "": it names nothing; NULL: nothing fits. */
static const char *choose(const struct http_request *r, const char *header, const char *const *ours)
{
	bool named = false;

	for (size_t i = 0; i < r->n_headers; i++)
		named = named || str_eqz(r->headers[i].name, header);
	if (!named)
		return "";
	for (; ours && *ours; ours++)
		for (size_t i = 0; i < r->n_headers; i++)
			if (str_eqz(r->headers[i].name, header) &&
				list_has(r->headers[i].value, *ours))
				return *ours;
	return NULL;
}

static int answer_websocket(struct http_stream *s, const char *const *ours, struct buf *head,
	const char **ret_protocol, struct err *err)
{
	const struct http_request *r = &s->request;
	struct str key = http_request_header(r, "sec-websocket-key"),
		   version = http_request_header(r, "sec-websocket-version");
	char accept[29];

	if (!key.len || !str_eqz(version, "13"))
		return err_set(err, -EPROTO,
			"the WebSocket request lacks Sec-WebSocket-Key or asks for another version than 13");
	*ret_protocol = choose(r, "sec-websocket-protocol", ours);
	if (!*ret_protocol)
		return err_set(err, -EPROTONOSUPPORT,
			"none of the WebSocket protocols asked for is offered here");
	websocket_accept_key(key, accept);
	buf_addf(head,
		"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: %s\r\n",
		accept);
	if (**ret_protocol)
		buf_addf(head, "sec-websocket-protocol: %s\r\n", *ret_protocol);
	buf_addz(head, "\r\n");
	return 0;
}

static int answer_spdy(struct http_stream *s, const char *const *ours, struct buf *head,
	const char **ret_protocol, struct err *err)
{
	*ret_protocol = choose(&s->request, "x-stream-protocol-version", ours);
	if (!*ret_protocol)
		return err_set(err, -EPROTONOSUPPORT,
			"none of the stream protocol versions asked for is offered here");
	buf_addz(head,
		"HTTP/1.1 101 Switching Protocols\r\nupgrade: SPDY/3.1\r\nconnection: Upgrade\r\n");
	if (**ret_protocol)
		buf_addf(head, "x-stream-protocol-version: %s\r\n", *ret_protocol);
	buf_addz(head, "\r\n");
	return 0;
}

int http_upgrade_channels(struct http_stream *s, const char *const *websocket_protocols,
	const char *const *spdy_protocols, const struct channel_events *events,
	struct channel_conn **ret, const char **ret_protocol, struct err *err)
{
	struct http_conn *c = s->conn;
	CLEAN_BUF struct buf head = { 0 };
	const char *protocol = "";

	if (!c || c->dead)
		return err_set(err, -ECONNRESET, "the client went away");
	if (!s->request.upgrade || s->begun)
		return err_set(err, -EPROTO, "the request does not ask for WebSocket or SPDY/3.1");
	struct str to = http_request_header(&s->request, "upgrade");
	bool spdy = to.len == 8;
	int r = spdy ? answer_spdy(s, spdy_protocols, &head, &protocol, err)
		     : answer_websocket(s, websocket_protocols, &head, &protocol, err);

	if (r < 0)
		return r;
	struct channel_conn *cc = xcalloc(1, sizeof(*cc));

	cc->conn = c;
	cc->stream = s;
	cc->events = *events;
	cc->base64 = str_find_str(str_of(protocol), STR("base64.")) >= 0;
	cc->closes = str_has_prefix(str_of(protocol), STR("v5."));
	cc->plain = !strcmp(protocol, "binary.k8s.io") || !strcmp(protocol, "base64.binary.k8s.io");
	websocket_init(&cc->ws, false, MESSAGE_MAX);
	cc->ws.on_message = on_message;
	cc->ws.arg = cc;
	cc->wrapped = !spdy && str_has_prefix(str_of(protocol), STR("SPDY/3.1+"));
	if (spdy || cc->wrapped)
		cc->spdy = spdy_new(&spdy_events, cc);
	s->begun = true;
	c->protocol = &channels_protocol;
	c->upgraded = cc;
	conn_send(c, head.p, head.len);
	conn_schedule(c, DUE_RESUME);
	*ret = cc;
	*ret_protocol = protocol;
	return 0;
}

/* ---- what its user calls ---- */

bool channel_is_spdy(const struct channel_conn *cc)
{
	return cc->spdy != NULL;
}

void channel_write(struct channel_conn *cc, int channel, struct str bytes)
{
	CLEAN_BUF struct buf b = { 0 }, text = { 0 };

	if (cc->closing || cc->conn->dead)
		return;
	if (cc->spdy) {
		spdy_put_data(&b, (uint32_t)channel, false, bytes);
	} else if (cc->base64) {
		if (!cc->plain)
			buf_addc(&text, (char)('0' + channel));
		base64_encode(&text, bytes.p, bytes.len);
		websocket_frame(&b, false, WS_TEXT, buf_str(&text));
	} else {
		websocket_frame_head(&b, WS_BINARY, bytes.len + !cc->plain);
		if (!cc->plain)
			buf_addc(&b, (char)channel);
		buf_add_str(&b, bytes);
	}
	send_buf(cc, &b);
}

void channel_close(struct channel_conn *cc, int channel)
{
	CLEAN_BUF struct buf b = { 0 };
	const char message[2] = { (char)CLOSE_CHANNEL, (char)channel };

	if (cc->closing || cc->conn->dead)
		return;
	if (cc->spdy)
		spdy_put_data(&b, (uint32_t)channel, true, STR_NONE);
	else if (cc->closes)
		websocket_frame(&b, false, WS_BINARY, str_n(message, 2));
	send_buf(cc, &b);
}

void channel_conn_close(struct channel_conn *cc)
{
	CLEAN_BUF struct buf b = { 0 };

	if (cc->closing || cc->conn->dead)
		return;
	if (cc->spdy) {
		spdy_put_goaway(&b, cc->last_id);
		send_buf(cc, &b);
	}
	if (!cc->spdy || cc->wrapped) {
		ws_close(cc, 1000);
		return;
	}
	cc->closing = true;
	conn_close_when_sent(cc->conn);
}

void channel_hold(struct channel_conn *cc, bool hold)
{
	cc->held = hold;
	if (!hold && !cc->conn->dead)
		conn_schedule(cc->conn, DUE_RESUME);
}

size_t channel_pending(const struct channel_conn *cc)
{
	return cc->conn->dead ? 0 : conn_pending(cc->conn);
}

void channel_on_drain(struct channel_conn *cc, task_fn fn, void *arg)
{
	cc->drain = fn;
	cc->drain_arg = arg;
}
