/* A client of a handler in the same process: each connection is a pair of sockets in the kernel, the server's end of which is given to the
 * handler's loop as a plain HTTP/1.1 connection whose peer is known beforehand. So it keeps every promise of the wire (streams, back-pressure, upgrades,
 * cancelling) by being one, without addresses, TLS or certificates. */
#include <sys/socket.h>

#include "net/client_internal.h"

struct local_end {
	struct http_server *server; /* never listens */
	struct tls_identity *who;   /* NULL: anonymous */
};

struct arrival {
	struct local_end *local;
	int fd;
};

/* One piece of memory, texts included, as tls_peer_identity gives it. */
static struct tls_identity *identity_copy(const struct tls_identity *who)
{
	size_t n = who->common_name.len + who->uid.len + who->fingerprint.len + 3;

	for (size_t i = 0; i < who->n_organizations; i++)
		n += who->organizations[i].len + 1;
	struct tls_identity *ret = xcalloc(1, sizeof(*ret) + n);
	char *at = (char *)(ret + 1);
	struct str *texts[3 + ARRAY_LEN(ret->organizations)] = { &ret->common_name, &ret->uid,
		&ret->fingerprint };

	*ret = *who;
	for (size_t i = 0; i < who->n_organizations; i++)
		texts[3 + i] = &ret->organizations[i];
	for (size_t i = 0; i < 3 + who->n_organizations; i++) {
		if (texts[i]->len)
			memcpy(at, texts[i]->p, texts[i]->len);
		texts[i]->p = at;
		at += texts[i]->len + 1;
	}
	return ret;
}

static void arrive(void *arg)
{
	struct arrival *a = arg;
	struct http_conn *c = conn_new(&a->local->server->loops[0], a->fd, "@local");

	if (c && a->local->who)
		c->peer = identity_copy(a->local->who);
	free(a);
}

int local_connect(struct local_end *l, struct err *err)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return err_errno(err, -errno, "cannot connect inside the process");
	struct arrival *a = xmalloc(sizeof(*a));

	*a = (struct arrival){ l, fds[1] };
	atomic_fetch_add(&l->server->n_conns, 1);
	loop_post(l->server->loops[0].loop, arrive, a);
	return fds[0];
}

void local_free(struct local_end *l)
{
	if (!l)
		return;
	http_server_stop(l->server);
	free(l->who);
	free(l);
}

int http_client_new_local(struct loop *l, const struct http_handler *handler,
	const struct tls_identity *who, struct http_client **ret)
{
	struct http_server_config config = { .loops = &l, .n_loops = 1, .handler = *handler };
	struct local_end *local = xcalloc(1, sizeof(*local));
	struct http_client *c;
	int r = http_client_new("http://local", NULL, &c, NULL);

	if (r < 0) {
		free(local);
		return r;
	}
	local->server = server_new(&config);
	local->who = who ? identity_copy(who) : NULL;
	c->local = local;
	*ret = c;
	return 0;
}
