/* /portForward: TCP connections into a pod. Over SPDY each connection is a pair of streams (data and error) with the same request id; over WebSocket
 * (v4.channel.k8s.io) the query names the ports and channels 2i and 2i+1 are data and error of the i-th, each begun by us with the port in
 * two bytes. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"
#include "kubelet/pump.h"

#define PORTS_MAX 32

struct forwarding;
struct link { /* one connection */
	struct list node;
	struct forwarding *f;
	struct str request_id; /* owned */
	int port, data, error; /* channels; -1: not open */
	int fd;
	bool started, busy, in_done;
	struct pump_out out;
	struct pump_in in;
	int r;
	struct err err;
};
struct forwarding {
	struct kubelet *k;
	struct http_stream *stream;
	struct channel_conn *conn;
	char sandbox[ENGINE_ID], name[256];
	struct list links;
	unsigned busy, n_holds;
	int ports[PORTS_MAX];
	size_t n_ports;
};

static const char *const websocket_protocols[] = { "v4.channel.k8s.io", "portforward.k8s.io",
	NULL };
static const char *const spdy_protocols[] = { "portforward.k8s.io", NULL };

static void link_free(struct link *l)
{
	list_remove(&l->node);
	pump_in_close(&l->in);
	pump_out_close(&l->out); /* closes the socket */
	free((char *)l->request_id.p);
	free(l);
}

static void forwarding_free(struct forwarding *f)
{
	if (f->conn || f->busy)
		return;
	list_for_each(it, &f->links)
		link_free(list_entry(it, struct link, node));
	http_stream_unref(f->stream);
	free(f);
}

static void link_end(struct link *l, const char *text)
{
	struct forwarding *f = l->f;

	if (f->conn) {
		if (text && l->error >= 0)
			channel_write(f->conn, l->error, str_of(text));
		if (l->data >= 0)
			channel_close(f->conn, l->data);
		if (l->error >= 0)
			channel_close(f->conn, l->error);
	}
	pump_in_close(&l->in);
	pump_out_close(&l->out);
	/* Over SPDY a pair is for one connection; its memory goes with it. */
	if (f->conn && channel_is_spdy(f->conn))
		link_free(l);
}

static void on_output_end(void *arg)
{
	link_end(arg, NULL);
}

static void connected(void *arg)
{
	struct link *l = arg;
	struct forwarding *f = l->f;

	f->busy--;
	l->busy = false;
	if (!f->conn) {
		if (l->fd >= 0)
			close(l->fd);
		l->fd = -1;
		forwarding_free(f);
		return;
	}
	if (l->r) {
		char text[900];
		snprintf(text, sizeof(text), "error forwarding port %d to pod %s: %s", l->port,
			f->name, l->err.text);
		link_end(l, text);
		return;
	}
	l->out.fd = l->fd;
	l->out.channel = l->data;
	pump_in_start(&l->in, l->fd);
	pump_out_start(&l->out);
}

static void connect_slowly(void *arg)
{
	struct link *l = arg;
	struct engine *e = l->f->k->c.engine;

	l->r = e->v->port_forward(e, l->f->sandbox, l->port, &l->fd, &l->err);
	loop_post(l->f->k->c.loop, connected, l);
}

static void start(struct link *l)
{
	if (l->started || l->data < 0 || l->error < 0)
		return;
	l->started = l->busy = true;
	l->f->busy++;
	pool_submit(l->f->k->slow, connect_slowly, l);
}

static struct link *link_new(struct forwarding *f, struct str request_id, int port)
{
	struct link *l = xcalloc(1, sizeof(*l));

	l->f = f;
	l->request_id = str_of(str_dup(request_id));
	l->port = port;
	l->data = l->error = l->fd = -1;
	l->out = (struct pump_out){
		.loop = f->k->c.loop, .conn = &f->conn, .fd = -1, .on_end = on_output_end, .arg = l
	};
	l->in = (struct pump_in){ .loop = f->k->c.loop,
		.fd = -1,
		.is_socket = true,
		.conn = &f->conn,
		.n_holds = &f->n_holds };
	list_insert(&f->links, &l->node);
	return l;
}

/* ---- the connection ---- */

static struct str header(const struct http_header *h, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (str_eqz(h[i].name, name))
			return h[i].value;
	return STR_NONE;
}

static void on_open(void *arg, int channel, const struct http_header *headers, size_t n)
{
	struct forwarding *f = arg;
	struct str type = header(headers, n, "streamtype"), id = header(headers, n, "requestid");
	struct link *l = NULL;
	int64_t port = 0;

	str_to_i64(header(headers, n, "port"), &port);
	if (!id.p) /* clients of long ago send none: the port tells the pair */
		id = header(headers, n, "port");
	list_for_each(it, &f->links) {
		struct link *x = list_entry(it, struct link, node);
		if (str_eq(x->request_id, id) && (str_eqz(type, "data") ? x->data : x->error) < 0)
			l = x;
	}
	if (port <= 0 || port > 65535) {
		channel_close(f->conn, channel);
		return;
	}
	if (!l)
		l = link_new(f, id, (int)port);
	if (str_eqz(type, "data"))
		l->data = channel;
	else
		l->error = channel;
	start(l);
}

static struct link *by_channel(struct forwarding *f, int channel)
{
	list_for_each(it, &f->links) {
		struct link *l = list_entry(it, struct link, node);
		if (l->data == channel)
			return l;
	}
	return NULL;
}

static void on_data(void *arg, int channel, struct str bytes)
{
	struct link *l = by_channel(arg, channel);

	if (l)
		pump_in_add(&l->in, bytes);
}

static void on_channel_close(void *arg, int channel)
{
	struct link *l = by_channel(arg, channel);

	if (l)
		pump_in_finish(&l->in);
}

static void on_drain(void *arg)
{
	struct forwarding *f = arg;

	list_for_each(it, &f->links)
		pump_out_resume(&list_entry(it, struct link, node)->out);
}

static void on_conn_close(void *arg)
{
	struct forwarding *f = arg;

	f->conn = NULL;
	list_for_each(it, &f->links) {
		struct link *l = list_entry(it, struct link, node);
		if (!l->busy)
			link_free(l);
	}
	forwarding_free(f);
}

static void upgrade(struct http_stream *s, void *arg)
{
	struct forwarding *f = arg;
	struct channel_events events = { on_open, on_data, on_channel_close, on_conn_close, f };
	const char *protocol;
	struct err err;

	if (http_upgrade_channels(
		    s, websocket_protocols, spdy_protocols, &events, &f->conn, &protocol, &err)) {
		f->conn = NULL;
		respond_error(s, 400, "unable to upgrade: %s", err.text);
		forwarding_free(f);
		return;
	}
	channel_on_drain(f->conn, on_drain, f);
	if (channel_is_spdy(f->conn))
		return;
	for (size_t i = 0; i < f->n_ports; i++) {
		struct link *l = link_new(f, STR(""), f->ports[i]);
		char head[2] = { (char)f->ports[i], (char)(f->ports[i] >> 8) };
		l->data = (int)i * 2;
		l->error = (int)i * 2 + 1;
		channel_write(f->conn, l->data, str_n(head, 2));
		channel_write(f->conn, l->error, str_n(head, 2));
		start(l);
	}
}

static void read_ports(struct http_stream *s, struct forwarding *f)
{
	struct str rest = http_stream_request(s)->query, key, value, one;
	int64_t n;

	while (url_query_next(&rest, http_stream_arena(s), &key, &value))
		while (str_eqz(key, "port") && value.len) {
			str_cut(value, ',', &one, &value);
			if (!str_to_i64(one, &n) && n > 0 && n <= 65535 && f->n_ports < PORTS_MAX)
				f->ports[f->n_ports++] = (int)n;
		}
}

void serve_port_forward(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod)
{
	CLEANUP(worker_unrefp) struct pod_worker *w = pods_find_name(k, ns, pod);

	if (!w) {
		respond_error(s, 404, "pod does not exist");
		return;
	}
	struct forwarding *f = xcalloc(1, sizeof(*f));
	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	bool ready = b && b->ready;
	if (ready)
		memcpy(f->sandbox, b->id, sizeof(f->sandbox));
	pthread_mutex_unlock(&w->lock);
	if (!ready) {
		free(f);
		respond_error(s, 500,
			"pod \"" STR_FMT "\" is not running: there is nothing to connect to",
			STR_ARG(pod));
		return;
	}
	f->k = k;
	f->stream = http_stream_ref(s);
	snprintf(f->name, sizeof(f->name), "%s_%s", w->name, w->ns);
	list_init(&f->links);
	read_ports(s, f);
	http_stream_post(s, upgrade, f);
}
