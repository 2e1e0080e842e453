/* What the files of net share.
 *
 *   server.c  listener, one net_loop per loop     conn.c    a connection: socket, TLS, deadlines, flushing
 *   stream.c  what handlers call                  http1.c http2.c websocket.c spdy.c   bytes <-> events, no sockets
 *   channels.c tunnel.c forward.c local.c     client_conn.c client.c  blocking
 *
 * A connection speaks one protocol at a time: a row of functions (struct conn_protocol). Everything here but the blocking
 * client runs on the connection's loop. */
#ifndef SKIFF_NET_INTERNAL_H
#define SKIFF_NET_INTERNAL_H

#include <http_parser.h>
#include <openssl/ssl.h>
#include <stdatomic.h>

#include "base/map.h"
#include "net/net.h"

#define PENDING_HIGH (64 * 1024) /* above it a writer should wait for on_drain */
#define COPY_MAX (8 * 1024)      /* smaller pieces are copied, so that they share TLS records */
#define TLS_RECORD (16 * 1024)
#define READ_SIZE (32 * 1024)

#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44
#endif
#define SOCKET_IDLE_S 15  /* of silence: then the kernel asks whether the peer is there */
void socket_tune(int fd); /* a TCP socket of ours, on either side, before it connects */

/* ---- sendq: bytes on their way out, copied or borrowed, in order ---- */
struct seg;
struct sendq {
	struct buf copied;
	size_t taken; /* of copied */
	struct seg *first, **last;
	size_t len; /* bytes not taken yet */
};
void sendq_init(struct sendq *q);
void sendq_deinit(struct sendq *q); /* releases what is borrowed */
void sendq_copy(struct sendq *q, const void *p, size_t n);
void sendq_borrow(struct sendq *q, struct str bytes, release_fn release, void *arg);
void sendq_add(struct sendq *q, struct str bytes, release_fn release,
	void *arg);                           /* copies what is small */
struct str sendq_peek(const struct sendq *q); /* the next bytes that lie together */
void sendq_take(struct sendq *q, size_t n);   /* n <= what peek showed */

/* ---- tls.c: a TLS session over memory ---- */
struct tls_conn {
	SSL *ssl;
	struct str in;          /* ciphertext that is there to be read; lives as long as the call */
	struct buf *out;        /* where ciphertext goes */
	int64_t begin_s, end_s; /* of a certificate of the peer that was refused for its time */
};
bool cert_seconds(const X509 *x, int64_t *ret_begin, int64_t *ret_end); /* since the epoch */
int tls_conn_init(struct tls_conn *t, struct tls_context *ctx, bool server, struct err *err);
int tls_conn_set_peer(struct tls_conn *t, struct tls_context *ctx, const char *host,
	struct err *err); /* client: the name to verify */
void tls_conn_deinit(struct tls_conn *t);
int tls_handshake(
	struct tls_conn *t, struct err *err); /* 0 done, -EAGAIN, -EPROTO, -EACCES (not trusted) */
ssize_t tls_read(struct tls_conn *t, void *p, size_t n,
	struct err *err);                                   /* 0: close_notify; -EAGAIN; -EPROTO */
int tls_write(struct tls_conn *t, const void *p, size_t n); /* the whole of it; -EPROTO */
void tls_shutdown(struct tls_conn *t);
bool tls_chose_http2(const struct tls_conn *t);
struct tls_context *tls_context_ref(struct tls_context *t);
unsigned tls_context_generation(
	struct tls_context *t); /* another number after each update; NULL is fine */
struct tls_identity *tls_peer_identity(const struct tls_conn
		*t); /* one piece of memory: free(); NULL: no certificate, or not a good one */
bool tls_peer_shows_certificate(const struct tls_conn *t);

/* ---- message: a request or a response head while it is received ---- */
struct message {
	struct arena *arena;
	struct str method, target, reason;
	int status;
	struct http_header *headers;
	size_t n_headers, headers_cap;
	size_t head_bytes; /* counted against NET_HEADER_MAX */
	char *body;
	size_t body_len, body_cap, body_max;
	atomic_size_t *all; /* bytes of all bodies of the server; NULL: not counted */
	size_t all_max;
};
void message_init(struct message *m, struct arena *arena, size_t body_max);
struct http_header *message_add_header(struct message *m);
int message_add_body(struct message *m, const void *p,
	size_t n); /* -EFBIG; -ENOBUFS: too much is being received by all together */
void message_uncount(struct message *m);
int message_reserve_body(struct message *m, uint64_t n); /* -EFBIG */
struct str message_header(const struct message *m, const char *lower_name);

/* ---- http1.c ---- */
enum { HTTP1_DONE = 1 };
struct http1 {
	http_parser parser;
	struct message *m;
	/* A response's body, piece by piece; NULL: it is gathered in m. */
	void (*on_body)(struct http1 *h, const char *p, size_t n);
	void *arg;
	bool head_done; /* all headers are in m */
	bool done;
	bool bodyless;    /* response to HEAD */
	bool in_value;    /* last callback gave a piece of a value */
	int error_status; /* after a failure: what to answer */
	const char *error_text;
};
void http1_init(struct http1 *h, bool response);
void http1_start(struct http1 *h, struct message *m); /* the next message goes to m */
/* Takes bytes up to the end of the message. 0: more is needed; HTTP1_DONE; < 0: error_status and error_text say why. n = 0: the end of input. */
int http1_feed(struct http1 *h, const char *p, size_t n, size_t *ret_taken);
bool http1_keep_alive(const struct http1 *h);
bool http1_wants_continue(const struct http1 *h);
const char *http_status_text(int status);

/* ---- websocket.c: RFC 6455 frames ---- */
enum { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };
struct websocket {
	bool client; /* we are the client: we mask, and refuse masked frames */
	size_t message_max;
	struct buf message; /* the message so far */
	int opcode;         /* of the message */
	bool in_message;
	unsigned char head[14];
	size_t head_len;
	bool in_payload;
	unsigned char frame_first; /* first byte of the frame being read */
	unsigned char mask[4];
	uint64_t payload_len, payload_got;
	unsigned char control[125]; /* a control frame may come inside a fragmented message */
	/* A whole message or control frame. Returns < 0 to stop. */
	int (*on_message)(void *arg, int opcode, struct str payload);
	void *arg;
	uint16_t close_code; /* after a failure: what to say to the peer */
};
void websocket_init(struct websocket *w, bool client, size_t message_max);
void websocket_deinit(struct websocket *w);
int websocket_feed(struct websocket *w, const char *p, size_t n,
	struct err *err); /* -EPROTO, -EFBIG, or what on_message returned */
void websocket_frame(struct buf *out, bool client, int opcode, struct str payload);
void websocket_frame_head(
	struct buf *out, int opcode, size_t n); /* server: unmasked payload follows */
void websocket_accept_key(struct str key, char out[29]);

/* ---- spdy.c: SPDY/3.1 frames ---- */
struct spdy_events {
	int (*on_syn_stream)(
		void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n);
	int (*on_syn_reply)(
		void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n);
	int (*on_headers)(
		void *arg, uint32_t id, bool fin, const struct http_header *headers, size_t n);
	int (*on_data)(void *arg, uint32_t id, bool fin, struct str bytes);
	int (*on_rst)(void *arg, uint32_t id, uint32_t status);
	int (*on_ping)(void *arg, uint32_t id);
	int (*on_goaway)(void *arg, uint32_t last_good);
};
struct spdy;
struct spdy *spdy_new(const struct spdy_events *events, void *arg);
void spdy_free(struct spdy *s);
int spdy_feed(struct spdy *s, const char *p, size_t n,
	struct err *err); /* -EPROTO, -EFBIG, or what an event returned */
enum {
	SPDY_SYN_STREAM = 1,
	SPDY_SYN_REPLY = 2,
	SPDY_RST_STREAM = 3,
	SPDY_SETTINGS = 4,
	SPDY_PING = 6,
	SPDY_GOAWAY = 7,
	SPDY_HEADERS = 8,
	SPDY_WINDOW_UPDATE = 9
};
void spdy_put_headers(struct spdy *s, struct buf *out, int type, uint32_t id, bool fin,
	const struct http_header *headers, size_t n);
void spdy_put_data(struct buf *out, uint32_t id, bool fin, struct str bytes);
void spdy_put_rst(struct buf *out, uint32_t id, uint32_t status);
void spdy_put_ping(struct buf *out, uint32_t id);
void spdy_put_goaway(struct buf *out, uint32_t last_good);

/* ---- the server ---- */
struct http_conn;
struct http2;

/* One loop's share of a server. */
struct net_loop {
	struct http_server *server;
	struct loop *loop;
	struct list states[5]; /* connections by enum conn_state, each list in order of deadline */
	struct timer *sweep, *stop_timer;
	uint64_t sweep_at_ms;
	bool stopping;
	size_t n_conns, n_threads; /* threads: of tunnels and forwards */
	char *in, *plain;          /* what read() and tls_read() fill: READ_SIZE and TLS_RECORD */
	struct buf out;            /* ciphertext of the connection being flushed */
	struct buf spare;          /* for the next connection that has something to send */
	bool flushing;
	struct http_stream *free_streams;
	size_t n_free_streams;
	time_t date_second;
	char date[48]; /* "date: …\r\n" of date_second */
};

struct http_server {
	struct http_server_config config;
	int listen_fd, port;
	struct fd_watch *listen_watch;
	struct timer *accept_again; /* after running out of descriptors */
	struct net_loop *loops;
	size_t next_loop;
	atomic_size_t n_conns;
	atomic_size_t bodies; /* bytes of all requests' bodies */
	pthread_mutex_t lock; /* guards running */
	pthread_cond_t ended;
	size_t running; /* net_loops that still have connections */
};

enum conn_state { CONN_READING, CONN_IDLE, CONN_BUSY, CONN_STALLED, CONN_LINGER };

struct conn_protocol {
	/* Takes bytes, returns how many (fewer: it is busy; feeding goes on after conn_resume). */
	size_t (*feed)(struct http_conn *c, const char *p, size_t n);
	void (*pull)(struct http_conn
			*c); /* puts what it wants to send into c->q, a record or so; may be NULL */
	void (*flushed)(struct http_conn *c); /* after each flush; may be NULL */
	void (*drained)(struct http_conn *c); /* pending fell below PENDING_HIGH */
	void (*stop)(struct http_conn *c);    /* the server stops: end when nothing runs */
	void (*closed)(struct http_conn *c);  /* the connection is gone */
};
extern const struct conn_protocol http1_protocol, http2_protocol, channels_protocol,
	tunnel_protocol;

struct http_conn {
	struct net_loop *nl;
	struct list link;
	enum conn_state state, state_before_stall;
	uint64_t deadline_ms;
	int fd;
	struct fd_watch *watch;
	struct tls_conn tls;
	const struct conn_protocol *protocol; /* NULL: not known yet (handshake) */
	struct tls_identity *peer;
	bool peer_refused;
	char remote[64];
	struct sendq q;
	struct buf out; /* ciphertext that the kernel did not take yet */
	size_t out_sent;
	struct buf stash; /* plaintext that the protocol did not take yet */
	uint8_t due;      /* what conn_turn has to do */
	bool scheduled, dead, handshaken, feeding, was_high, input_ended;
	bool closing; /* close when all is sent */
	/* http/1.1 */
	struct http1 h1;
	struct http_stream *
		stream; /* the request being read or answered; also the owner of an upgraded connection */
	bool continued; /* 100 Continue was sent */
	bool busy;      /* stream was handed to the handler and is not finished */
	bool keep_alive;
	struct http2 *h2;
	void *upgraded; /* struct channel_conn or struct tunnel */
};

struct http_stream {
	atomic_uint refs;
	atomic_bool closed;
	struct loop *loop;
	struct http_conn *conn; /* NULL: finished or gone */
	struct arena *arena;
	struct message in;
	struct http_request request;
	int32_t h2_id;
	struct sendq q; /* http/2 only */
	bool dispatched, begun, ended, chunked, bodyless, was_high;
	bool deferred; /* http/2: nghttp2 waits for bytes */
	bool queued, gone,
		no_data; /* http/2: handed out or about to be; closed by the protocol; has no DATA frames */
	int refused;      /* http/2: the status to refuse it with */
	size_t discarded; /* http/2: bytes of a refused request's body */
	struct http_stream *next_ready;
	void (*on_close)(struct http_stream *s, void *arg);
	void *on_close_arg;
	void (*on_drain)(struct http_stream *s, void *arg);
	void *on_drain_arg;
	struct http_stream *next, *prev;
};

/* conn.c */
enum { DUE_FLUSH = 1, DUE_DRAIN = 2, DUE_RESUME = 4, DUE_DESTROY = 8, DUE_CLOSE = 16 };
struct http_conn *conn_new(struct net_loop *nl, int fd,
	const char *remote); /* NULL: no descriptors or memory for it; fd is closed */
void conn_set_state(struct http_conn *c, enum conn_state state);
void conn_schedule(struct http_conn *c, uint8_t due);
void conn_flush(struct http_conn *c);
void conn_kill(struct http_conn *c); /* at once; freed at the end of the turn */
void conn_close_when_sent(struct http_conn *c);
size_t conn_pending(const struct http_conn *c);
void conn_stop(struct http_conn *c);
void conn_take_spare(struct http_conn *
		c); /* before something is copied into c->q: the loop's spare buffer saves an allocation */
void conn_send(
	struct http_conn *c, const void *p, size_t n); /* copies, flushed at the end of the turn */

/* server.c */
struct http_server *server_new(
	const struct http_server_config *c); /* its loops run; nothing listens yet */
void net_loop_conn_gone(struct net_loop *nl);
void net_loop_thread_gone(void *arg);           /* a net_loop, on its loop */
const char *net_loop_date(struct net_loop *nl); /* "date: …\r\n" */

/* conn.c */
void net_loop_start(void *arg); /* a net_loop, on its loop */

/* stream.c */
void stream_free_spares(struct net_loop *nl);
struct http_stream *stream_new(struct http_conn *c);
void stream_dispatch(struct http_stream *s); /* the request is whole: to the handler */
void stream_refuse(struct http_stream *s, int status,
	const char *text); /* a request that never reaches the handler */
void stream_finish(struct http_stream *
		s); /* detaches from the connection, calls on_close, drops the connection's reference */

/* http1_server.c, http2.c: how a response leaves */
void http1_begin(struct http_stream *s, int status, const struct http_header *headers, size_t n,
	int64_t content_length);
void http1_body(struct http_stream *s, struct str bytes, release_fn release, void *arg);
void http1_end(struct http_stream *s);
void http2_begin(struct http_stream *s, int status, const struct http_header *headers, size_t n,
	int64_t content_length);
void http2_body(struct http_stream *s, struct str bytes, release_fn release, void *arg);
void http2_end(struct http_stream *s);
void http2_abort(struct http_stream *s);
int http2_start(struct http_conn *c);
size_t http2_pending(const struct http_stream *s);

#endif
