/* HTTP over TLS: a server on event loops, a blocking client, and the stream protocols that Kubernetes speaks over an upgraded
 * connection (WebSocket, SPDY/3.1). Protocol cores take bytes and give events; sockets live in server.c and client.c.
 *
 * Threads: a server connection belongs to one loop; its streams' functions are called on that loop only (http_stream_post gets
 * there from elsewhere). The client blocks its caller and is for worker threads. */
#ifndef SKIFF_NET_H
#define SKIFF_NET_H

#include "base/base.h"
#include "io/io.h"

#define NET_BODY_MAX (3 * 1024 * 1024)
#define NET_HEADER_MAX (64 * 1024)

/* ---- certificates and TLS ---- */
struct tls_identity {                 /* of a verified peer certificate */
	struct str common_name;       /* user */
	struct str organizations[16]; /* groups */
	size_t n_organizations;
	struct str uid;         /* OID 1.3.6.1.4.1.57683.2, may be empty */
	struct str fingerprint; /* sha256, hex */
	int64_t not_after_s; /* when the certificate ends, as time_now counts; 0: there is none */
};
struct tls_context;
struct tls_server_config {
	struct str cert_pem, key_pem; /* the chain and its key */
	struct str
		client_ca_pem; /* empty: client certificates are not asked for; else asked for, optional, verified */
	bool http2;
};
int tls_server_new(const struct tls_server_config *c, struct tls_context **ret, struct err *err);
int tls_server_update(struct tls_context *t, const struct tls_server_config *c,
	struct err *err); /* new handshakes use it */
struct tls_client_config {
	struct str ca_pem;            /* empty: the system's */
	struct str cert_pem, key_pem; /* empty: none */
	bool insecure_skip_verify;
	bool http2;              /* HTTP/2 alone, for gRPC; else HTTP/1.1 */
	const char *server_name; /* NULL: the URL's host */
};
int tls_client_new(const struct tls_client_config *c, struct tls_context **ret, struct err *err);
int tls_client_update(struct tls_context *t, const struct tls_client_config *c,
	struct err *err); /* new CA or certificate for new connections (kept ones
	                                  are not used again); the rest of c must be as before */
void tls_context_free(struct tls_context *t); /* reference-counted inside: connections keep it */

/* Asks the server of url (https://host:port) for its certificate chain and returns, as PEM, the certificate in it whose SHA-256 (of its DER, in hex) is
 * `pin`: how a machine that joins learns the CA from a token alone. Nothing else that the server says is trusted. -EACCES: none has that pin. Blocking. */
int tls_fetch_ca(const char *url, struct str pin, unsigned timeout_ms, struct buf *ret_ca_pem,
	struct err *err);
/* SHA-256 of a PEM certificate's DER in hex. */
int cert_pin(struct str cert_pem, struct buf *ret_hex, struct err *err);

/* Keys and certificates (ECDSA P-256), PEM. */
struct cert_request {
	const char *common_name;
	const char *const *organizations; /* NULL-terminated or NULL */
	const char *const *dns_names;     /* NULL-terminated or NULL */
	const char *const *ip_addresses;  /* NULL-terminated or NULL */
	int64_t valid_seconds;
	bool is_ca, server_auth, client_auth;
};
int cert_new_key(struct buf *ret_key_pem, struct err *err);
int cert_issue(const struct cert_request *r, struct str key_pem, struct str ca_cert_pem,
	struct str ca_key_pem, struct buf *ret_cert_pem,
	struct err *err); /* empty CA: self-signed. Backdated by an hour against skewed clocks */
int cert_sign_csr(struct str csr_pem, struct str ca_cert_pem, struct str ca_key_pem,
	int64_t valid_seconds, bool server_auth, bool client_auth, struct buf *ret_cert_pem,
	struct err *err);
int cert_make_csr(
	const struct cert_request *r, struct str key_pem, struct buf *ret_csr_pem, struct err *err);
/* What a signing request asks for; texts in the arena. -EINVAL. */
#define CSR_NAMES_MOST 16
struct csr_info {
	struct str common_name;
	struct str organizations[CSR_NAMES_MOST], dns_names[CSR_NAMES_MOST],
		ip_addresses[CSR_NAMES_MOST];
	size_t n_organizations, n_dns_names, n_ip_addresses;
	size_t n_other_names; /* subject alternative names of other kinds (e-mail, URI …), and those past the most */
};
int csr_read(struct str csr_pem, struct arena *a, struct csr_info *ret, struct err *err);
int cert_not_after(struct str cert_pem, struct timestamp *ret, struct err *err);
/* When it was made and when it ends: the hour of backdating is taken off again where there is one. */
int cert_life(struct str cert_pem, struct timestamp *ret_made, struct timestamp *ret_end,
	struct err *err);
/* Whom a certificate names, as csr_read tells it of a request. */
int cert_read(struct str cert_pem, struct arena *a, struct csr_info *ret, struct err *err);
/* JWS over a compact payload, ES256: header.payload.signature; verification returns the payload's bytes. */
int jwt_sign(struct str key_pem, struct str key_id, struct str payload_json, struct buf *ret,
	struct err *err);
int jwt_verify(struct str public_or_cert_or_key_pem, struct str token, struct buf *ret_payload_json,
	struct err *err); /* -EACCES: bad signature */
/* The public key of key_pem as a JWK (one JSON object), and its key id (as upstream: base64url of the SHA-256 of the DER). */
int jwk_from_key(
	struct str key_pem, struct buf *ret_jwk_json, struct buf *ret_key_id, struct err *err);
void sha256(const void *p, size_t n, uint8_t out[32]);

/* ---- a request as a handler sees it; lives in its stream's arena ---- */
struct http_header {
	struct str name, value; /* names in lower case */
};
struct http_request {
	struct str method, path, query; /* path as sent (still escaped), without ?query */
	struct http_header *headers;
	size_t n_headers;
	struct str body;
	const struct tls_identity *peer; /* NULL: no client certificate that is good now */
	bool peer_refused;      /* there is one, and it is not good: of another CA, or over */
	struct str remote_addr; /* 127.0.0.1:1234 */
	int http_major;         /* 1 or 2 */
	bool upgrade;           /* asks for Upgrade: websocket or SPDY/3.1 */
};
struct str http_request_header(
	const struct http_request *r, const char *lower_name); /* p NULL: none */
/* Percent-decoding into the arena; plus_is_space for query strings. -EBADMSG. */
int url_decode(struct str s, bool plus_is_space, struct arena *a, struct str *ret);
/* The next key=value of a query, decoded: while (url_query_next(&rest, arena, &k, &v)) … */
bool url_query_next(struct str *rest, struct arena *a, struct str *ret_key, struct str *ret_value);
void url_encode(struct buf *out, struct str s); /* for a query value or a path segment */

/* Clocks of machines differ, and are moved. By so much, in seconds, may the clock of one that judges what is not valid yet be behind that of the one that
 * signed it: certificates begin so long before they are made, those for less than a day by the shorter one, as upstream's. */
#define CLOCK_TOLERANCE_S 7200
#define CLOCK_TOLERANCE_SHORT_S 300

/* ---- server ---- */
struct http_stream; /* one request and its response */
struct http_server;
struct http_handler {
	/* The whole request is there (body included; not for upgrades). Called on the connection's loop. Answer now or later. */
	void (*on_request)(void *arg, struct http_stream *s);
	/* A request that cannot be served as it came: status is 400, 405, 413, 431, 501 or 503. Answer as to on_request, with this status; of the request
	 * only what was read is there (method and path may be empty). NULL: the text goes out as text/plain. */
	void (*on_refused)(void *arg, struct http_stream *s, int status, const char *text);
	void *arg;
};
struct http_server_config {
	struct loop *const *loops; /* connections are spread over them */
	size_t n_loops;
	const char *address; /* "0.0.0.0", "::", "127.0.0.1" */
	int port;            /* 0: any free */
	int listen_fd; /* from http_listen, instead of address and port; becomes the server's. 0: it makes one */
	struct tls_context *tls; /* NULL: plain HTTP */
	struct http_handler handler;
	unsigned idle_timeout_ms; /* between requests; 0: 5 minutes */
	unsigned max_connections; /* 0: 10,000 */
	size_t body_max;          /* 0: NET_BODY_MAX; larger bodies get 413 */
	size_t bodies_max; /* of all requests that are there at a time, strangers' too; 0: 512 MiB. Past it: 503 */
};
/* A socket bound and listening; a server that uses it may come, go, and come again. */
int http_listen(const char *address, int port, int *ret_fd,
	struct err *err); /* -EADDRINUSE named in words */
bool http_listens_on(int fd, const char *address, int port);
void http_refuse(
	int fd); /* connections to what http_listen made, until a server is started on it */
int http_server_start(
	const struct http_server_config *c, struct http_server **ret, struct err *err);
int http_server_port(const struct http_server *s);
/* Closes the listener, then every connection after its running responses (at most 5 s); waits for that. The loops run meanwhile; not on one of them. */
void http_server_stop(struct http_server *s);

const struct http_request *http_stream_request(const struct http_stream *s);
struct arena *http_stream_arena(
	const struct http_stream *s); /* lives until the last reference is gone */
struct loop *http_stream_loop(const struct http_stream *s);
struct http_stream *http_stream_ref(
	struct http_stream *s);                /* keeps the stream and its arena; any thread */
void http_stream_unref(struct http_stream *s); /* any thread */
void http_stream_post(struct http_stream *s, void (*fn)(struct http_stream *s, void *arg),
	void *arg);                                   /* any thread; holds a reference */
bool http_stream_closed(const struct http_stream *s); /* the client went away */
/* Called once when the response ended or the client went away; from the loop's next turn when that is so already. */
void http_stream_on_close(
	struct http_stream *s, void (*fn)(struct http_stream *s, void *arg), void *arg);

/* The bytes given stay valid until release(release_arg) is called (NULL: they live in the stream's arena or are static). */
typedef void (*release_fn)(void *arg);
void http_respond(struct http_stream *s, int status, const struct http_header *headers,
	size_t n_headers, struct str body, release_fn release,
	void *release_arg); /* content-length is added; HEAD gets no body */
void http_stream_begin(struct http_stream *s, int status, const struct http_header *headers,
	size_t n_headers); /* chunked or h2 data */
void http_stream_write(
	struct http_stream *s, struct str bytes, release_fn release, void *release_arg);
void http_stream_flush(struct http_stream *
		s); /* what was written goes out now; writes in one loop turn are gathered otherwise */
void http_stream_end(struct http_stream *s);
void http_stream_abort(struct http_stream *s);           /* the client sees a broken response */
size_t http_stream_pending(const struct http_stream *s); /* bytes not yet taken by the kernel */
void http_stream_on_drain(struct http_stream *s, void (*fn)(struct http_stream *s, void *arg),
	void *arg); /* pending fell below 64 KiB */

/* ---- upgrades on the server: message channels over WebSocket or SPDY, one shape for both ---- */
struct channel_conn; /* belongs to the stream's loop */
struct channel_events {
	/* SPDY: the client opens streams with headers (streamtype: stdin, …); WebSocket: channels are numbered bytes, this is never called. */
	void (*on_open)(
		void *arg, int channel, const struct http_header *headers, size_t n_headers);
	void (*on_data)(void *arg, int channel, struct str bytes);
	void (*on_channel_close)(void *arg, int channel); /* half-closed by the client */
	void (*on_close)(void *arg); /* the whole connection; called once, last */
	void *arg;
};
/* Answers 101. protocols: what the server speaks, best first (v5.channel.k8s.io …; SPDY: v4.channel.k8s.io …), NULL-terminated; *ret_protocol is
 * the chosen one ("" when the client named none). WebSocket binary protocols put the channel number first in each message; base64.* are decoded; under
 * SPDY/3.1+… (port-forward) the messages carry SPDY, and it is as if the client had come with SPDY. */
int http_upgrade_channels(struct http_stream *s, const char *const *websocket_protocols,
	const char *const *spdy_protocols, const struct channel_events *events,
	struct channel_conn **ret, const char **ret_protocol, struct err *err);
bool channel_is_spdy(const struct channel_conn *c);
void channel_write(struct channel_conn *c, int channel, struct str bytes); /* copies */
void channel_close(struct channel_conn *c,
	int channel); /* half-close towards the client (v5: close message) */
void channel_conn_close(struct channel_conn *c); /* after what was written went out */
void channel_hold(struct channel_conn *c,
	bool hold); /* while held nothing is delivered and, soon, nothing read: the client waits */
size_t channel_pending(const struct channel_conn *c);
void channel_on_drain(struct channel_conn *c, task_fn fn, void *arg);

/* ---- client: blocking, for worker threads ---- */
struct http_client; /* connections to one server are kept and shared by threads; thread-safe */
int http_client_new(const char *url, struct tls_context *tls, struct http_client **ret,
	struct err *err); /* https://host:port[/base], http:// */
/* A client without sockets: calls go to `handler` on loop l as requests of `who` (NULL: anonymous), the answers come back in memory. The
 * same promises as over the wire; how components in the API server's process reach it. The loop must not be the caller's own. */
int http_client_new_local(struct loop *l, const struct http_handler *handler,
	const struct tls_identity *who, struct http_client **ret);
struct http_client *http_client_ref(struct http_client *
		c); /* http_client_free drops one; calls, readers, forwards and tunnels hold their own */
void http_client_free(struct http_client *c);
/* Other servers that answer for the same cluster ("10.0.0.2:6443"): tried in turn when one does not, the last that answered first. Replaces what was set. */
void http_client_set_alternatives(struct http_client *c, const struct str *host_ports, size_t n);
void http_client_set_bearer(struct http_client *c, struct str token); /* empty: none */
struct http_call {
	struct str method, target; /* target: /path?query */
	const struct http_header *headers;
	size_t n_headers;
	struct str body, content_type, accept;
	unsigned timeout_ms; /* of connecting, and between bytes; 0: 30 s */
	unsigned
		connect_ms; /* of a server taking the connection, where that is less; 0: no other */
	/* For servers that are not trusted (http_client_call alone). */
	unsigned deadline_ms; /* of all of it, however steadily bytes come; 0: none */
	size_t enough; /* of the answer's body: once there is so much, no more is read and the call is done; 0: all */
};
struct http_reply {
	int status;
	struct http_header *headers; /* in the arena given */
	size_t n_headers;
	struct str body;
};
/* < 0: no answer (connection refused, timeout, bad TLS; -EINVAL: the call's texts would end its lines), named in err with the URL.
 * Retried once when a kept connection turned out dead. */
int http_client_call(struct http_client *c, const struct http_call *call, struct arena *a,
	struct http_reply *ret, struct err *err);
/* A response read piece by piece (watch, logs). */
struct http_reader;
int http_client_open(struct http_client *c, const struct http_call *call, struct arena *a,
	struct http_reply *ret_head, struct http_reader **ret,
	struct err *err); /* the arena is for the head: the reader does not need it */
ssize_t http_reader_read(struct http_reader *r, void *p, size_t n,
	struct err *err); /* 0: the end; waits; -ECANCELED after cancel */
/* The same without waiting: -EAGAIN when nothing is there now; the reader then holds no buffer. The descriptor is readable when there may be more. */
ssize_t http_reader_try_read(struct http_reader *r, void *p, size_t n, struct err *err);
int http_reader_fd(const struct http_reader *r);
void http_reader_cancel(struct http_reader *r); /* any thread: a waiting read returns */
void http_reader_free(struct http_reader *r);
/* Forwards an upgrade request from stream s (apiserver) to the server of c (a kubelet) as it is and pumps bytes both ways on a thread of its own until
 * either side closes. The peer's refusal is forwarded as the answer. Called on the loop; returns at once. */
void http_tunnel(struct http_stream *s, struct http_client *c, struct str target,
	const struct http_header *extra_headers, size_t n_extra);
/* Forwards a plain request and streams the response back, on a thread of its own (logs -f, proxy); as messages to a client that asks for WebSocket
 * under binary.k8s.io or base64.binary.k8s.io. */
void http_forward(struct http_stream *s, struct http_client *c, struct str target,
	const struct http_header *extra_headers, size_t n_extra);
/* What changes an answer on its way. All are called on the forward's thread, free last and always. The server is asked for an answer without compression. */
struct http_rewrite {
	bool (*head)(void *arg, struct http_reply *head,
		struct arena *a); /* may change it; false: the body goes through as it is */
	void (*body)(void *arg, struct str bytes, bool last,
		struct buf *out); /* appends what is to be sent; last: once, with no bytes */
	void (*free)(void *arg);
	void *arg;
};
void http_forward_rewritten(struct http_stream *s, struct http_client *c, struct str target,
	const struct http_rewrite *rewrite);

/* ---- gRPC: calls and streams over one HTTP/2 connection that a thread of its own keeps ----
 * One of several servers is connected at a time; when it fails, the next is tried. A call that starts while none is connected waits until its
 * deadline. All functions of struct grpc_events are called on the client's thread; they must not block. */
struct grpc_client;
struct grpc_client_config {
	const char *const *urls; /* https://host:port or http:// */
	size_t n_urls;
	struct tls_context *tls;            /* with http2; NULL for http:// */
	const struct http_header *metadata; /* goes with every call; stays the caller's */
	size_t n_metadata;
	/* A connection began (text empty) or failed; may be NULL. */
	void (*on_state)(void *arg, bool up, const char *url, const char *text);
	void *arg;
	const char *name; /* of the thread */
};
int grpc_client_new(const struct grpc_client_config *c, struct grpc_client **ret, struct err *err);
void grpc_client_free(struct grpc_client *
		c); /* ends the thread; calls that still run end with GRPC_CANCELLED. NULL is fine */
void grpc_client_hurry(struct grpc_client *c,
	unsigned
		within_ms); /* any thread: it is freed soon; no call lasts longer, and none waits for a connection */
void grpc_client_post(
	struct grpc_client *c, task_fn fn, void *arg); /* any thread: runs fn on the client's */
void grpc_client_rotate(struct grpc_client *c,
	const char *why); /* any thread: this server is of no use now, take another */
enum {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
};
struct grpc_call;
struct grpc_events {
	void (*on_message)(void *arg, struct str message);
	/* Once, last. sent: the server may have acted on the call even though it failed. */
	void (*on_end)(void *arg, int status, struct str text, bool sent);
};
/* path: /package.Service/Method. timeout_ms 0: none. more: further messages follow by grpc_call_send. Copies the message; any thread. */
struct grpc_call *grpc_call_start(struct grpc_client *c, const char *path, struct str message,
	unsigned timeout_ms, bool more, const struct grpc_events *events, void *arg);
/* On the client's thread, before on_end. */
void grpc_call_send(struct grpc_call *call, struct str message);
void grpc_call_cancel(struct grpc_call *call); /* on_end follows */
/* One message there, one back; waits. < 0 with the server's text: -ETIMEDOUT, -EHOSTUNREACH (UNAVAILABLE), -EIO; *ret_status may be NULL. */
int grpc_call_wait(struct grpc_client *c, const char *path, struct str message, unsigned timeout_ms,
	struct buf *ret_message, int *ret_status, struct err *err);

#endif
