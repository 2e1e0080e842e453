/* The blocking client's connection; used by client.c and tunnel.c. A connection is used by one thread at a time. */
#ifndef SKIFF_NET_CLIENT_INTERNAL_H
#define SKIFF_NET_CLIENT_INTERNAL_H

#include "net/internal.h"

#define CLIENT_READ_SIZE (8 * 1024)

struct http_client {
	atomic_uint refs;
	char *url, *host, *port,
		*base; /* base: path before every target, without a slash at its end */
	char *host_header;
	struct tls_context *tls; /* NULL: plain */
	struct local_end *local; /* the server in this process; NULL: over a socket */
	pthread_mutex_t lock;    /* guards bearer, idle and places */
	struct server_place {
		char *host, *port;
	} * places;                 /* other servers of the same cluster; may be NULL */
	size_t n_places, preferred; /* preferred: 0 is host and port above, i the place i - 1 */
	char *bearer;
	struct client_conn *idle;
	size_t n_idle;
	atomic_bool failed; /* the last exchange got no answer */
};

struct client_conn {
	struct client_conn *next;
	struct client_conn *next_watched;
	int fd;
	bool secure, reused;
	atomic_bool doubted; /* the kernel asks its peer sooner than usual */
	unsigned generation; /* of the TLS context that it was opened with */
	uint64_t idle_since_ms;
	struct tls_conn tls;
	struct buf out; /* waiting to be sent */
	size_t out_sent;
	char *in; /* CLIENT_READ_SIZE; there while something is read */
};

/* How long, and what ends the waiting early. */
struct patience {
	int timeout_ms;    /* between bytes; -1: for ever */
	int cancel_fd;     /* readable: -ECANCELED; -1: none */
	uint64_t until_ms; /* mono_now_ns in ms: however steadily bytes come; 0: no end */
	int connect_ms; /* for the peer's kernel to take the connection, where that is less; 0: no other */
	bool at_once; /* reading: -EAGAIN instead of waiting */
};

/* local.c */
int local_connect(struct local_end *l, struct err *err); /* a connected descriptor */
void local_free(struct local_end *l);

/* A kept connection when fresh is false and there is one, else a new one. */
int client_connect(struct http_client *c, bool fresh, struct patience p, struct client_conn **ret,
	struct err *err);
void client_keep(struct http_client *c, struct client_conn *conn); /* for the next call */
/* What a reader waits on, maybe for hours: from watch to unwatch. A machine that died and came back knows nothing of it, and says so only when asked, which the
 * kernel does after a while; client_doubt, after any sign of such a death, lets it ask all of them now. */
void client_watch(struct client_conn *conn);
void client_unwatch(struct client_conn *conn);
void client_doubt(void);
void client_conn_free(struct client_conn *conn);
int client_write(
	struct client_conn *conn, struct patience p, const void *bytes, size_t n, struct err *err);
/* 0: the peer closed. */
ssize_t client_read(
	struct client_conn *conn, struct patience p, void *out, size_t n, struct err *err);
/* Puts plaintext into conn->out; client_try_send sends what the kernel takes now. For the tunnel, which does its own waiting. */
int client_queue(struct client_conn *conn, const void *bytes, size_t n);
int client_try_send(
	struct client_conn *conn); /* 0: all sent; -EAGAIN; else the connection is broken */
ssize_t client_try_read(
	struct client_conn *conn, void *out, size_t n); /* as client_read, or -EAGAIN */
/* The head of a request, with what every request of this client carries. length < 0: no content-length. */
void client_put_head(
	struct http_client *c, struct buf *out, const struct http_call *call, int64_t length);
/* Reads up to the end of the head; what lies behind it stays in *ret_rest. */
int client_read_head(struct client_conn *conn, struct patience p, struct http1 *h,
	struct buf *ret_rest, struct err *err);

/* http_client_open in two steps, so that a reader can be cancelled while it waits for the head. */
int reader_new(struct http_client *c, const struct http_call *call, struct http_reader **ret,
	struct err *err);
int reader_start(struct http_reader *r, const struct http_call *call, struct arena *a,
	struct http_reply *ret_head, struct err *err);

/* ---- forward.c: what tunnels and forwards have in common ---- */
struct forwarded {
	struct arena *arena; /* holds all of call */
	struct http_call call;
};
/* A request for the next server: without the client's credentials and, unless it is an upgrade, without what belongs to one hop. */
struct forwarded forward_copy(struct http_stream *s, struct str target,
	const struct http_header *extra, size_t n_extra, bool upgrade);
/* An answer's headers for the client: without what belongs to one hop or is made anew. */
struct http_header *forward_headers(
	struct arena *a, const struct http_header *headers, size_t n, size_t *ret_n);
void forward_bad_gateway(struct http_stream *s, const struct err *err);
bool forward_too_many(struct http_stream *s); /* answered, if so: each takes a thread */

#endif
