/* /exec and /attach: a command in a container, or the container itself, on the channels of a WebSocket or SPDY connection. /run: a
 * command's output in one plain answer.
 *
 * 1. The session belongs to its loop; the engine is asked on the slow pool (`busy` counts that, and keeps the session).
 * 2. Over SPDY the command starts when every stream that the query names is open.
 * 3. The end: the process's, then what its pipes still hold, then the status on the error channel, then the connection's.
 * 4. A size of the terminal is written only while the session is up: the engine owns its descriptors before and after. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"
#include "kubelet/pump.h"

enum { IN, OUT, ERR, ERROR, RESIZE, N_CHANNELS };

struct session {
	struct kubelet *k;
	struct http_stream *stream;
	struct channel_conn *conn; /* NULL: the client went away */
	struct arena *a;
	const char *protocol;
	char id[ENGINE_ID], name[256];
	bool attach, tty, want[N_CHANNELS], started, up, ended, settled, draining;
	int channel[N_CHANNELS]; /* -1: not open */
	const char **argv;
	struct engine_session engine;
	struct pump_out out, err_out;
	struct pump_in in;
	struct fd_watch *pid_watch;
	unsigned busy, n_holds;
	int code, r;
	struct err err;
};

static const char *const websocket_protocols[] = { "v5.channel.k8s.io", "v4.channel.k8s.io",
	"v4.base64.channel.k8s.io", "base64.channel.k8s.io", "channel.k8s.io", NULL };
static const char *const spdy_protocols[] = { "v4.channel.k8s.io", "v3.channel.k8s.io",
	"v2.channel.k8s.io", "channel.k8s.io", NULL };

static void session_free(struct session *x)
{
	if (x->conn || x->busy || x->pid_watch)
		return;
	pump_out_close(&x->out);
	pump_out_close(&x->err_out);
	pump_in_close(&x->in);
	http_stream_unref(x->stream);
	arena_free(x->a);
	free(x);
}

/* ---- the end ---- */

static void write_status(struct session *x)
{
	CLEAN_BUF struct buf b = { 0 }, text = { 0 };

	if (!x->conn || x->channel[ERROR] < 0)
		return;
	bool v4 = strstr(x->protocol, "v4.") || strstr(x->protocol, "v5.");
	if (x->r)
		buf_addz(&text, x->err.text);
	else if (x->code)
		buf_addf(
			&text, "command terminated with non-zero exit code: exit code %d", x->code);
	if (!v4) {
		if (text.len)
			channel_write(x->conn, x->channel[ERROR], buf_str(&text));
		return;
	}
	if (!text.len) {
		buf_addz(&b, "{\"metadata\":{},\"status\":\"Success\"}");
	} else {
		buf_addz(&b, "{\"metadata\":{},\"status\":\"Failure\",\"message\":");
		json_write_text(buf_str(&text), &b);
		if (x->r)
			buf_addz(&b,
				",\"reason\":\"InternalError\",\"details\":{\"causes\":[{\"message\":"),
				json_write_text(buf_str(&text), &b),
				buf_addz(&b, "}]},\"code\":500}");
		else
			buf_addf(&b,
				",\"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\","
				"\"message\":\"%d\"}]}}",
				x->code);
	}
	channel_write(x->conn, x->channel[ERROR], buf_str(&b));
}

static void settle(struct session *x)
{
	if (x->settled)
		return;
	x->settled = true;
	write_status(x);
	if (x->conn)
		channel_conn_close(x->conn);
}

static void waited(void *arg)
{
	struct session *x = arg;

	x->busy--;
	settle(x);
	session_free(x);
}

static void wait_slowly(void *arg)
{
	struct session *x = arg;

	x->r = x->k->c.engine->v->session_wait(x->k->c.engine, &x->engine, &x->code, &x->err);
	if (x->attach && !x->r)
		x->code = 0;
	loop_post(x->k->c.loop, waited, x);
}

/* The process is gone and its output is read: its exit code is asked for. */
static void collect(struct session *x)
{
	if (!x->ended || x->out.fd >= 0 || x->err_out.fd >= 0 || x->draining)
		return;
	x->draining = true;
	pump_in_close(&x->in);
	x->busy++;
	pool_submit(x->k->slow, wait_slowly, x);
}

static void on_output_end(void *arg)
{
	collect(arg);
}

static void on_ended(void *arg, int events)
{
	struct session *x = arg;

	fd_watch_free(x->pid_watch);
	x->pid_watch = NULL;
	x->ended = true;
	/* What it wrote is in the pipes already; a child that kept them open is not waited for. */
	pump_out_run(&x->out);
	pump_out_run(&x->err_out);
	if (x->out.watch || !x->conn)
		pump_out_close(&x->out);
	if (x->err_out.watch || !x->conn)
		pump_out_close(&x->err_out);
	collect(x);
	session_free(x);
}

/* ---- the start ---- */

static void running(void *arg)
{
	struct session *x = arg;
	struct err err;

	x->busy--;
	if (x->r) {
		settle(x);
		session_free(x);
		return;
	}
	x->up = true;
	x->out.fd = x->engine.out;
	x->err_out.fd = x->engine.err;
	int in = x->engine.in;
	if (in >= 0 && in == x->engine.out)
		in = dup(in);
	x->engine.in = x->engine.out = x->engine.err = -1;
	if (fd_watch_new(
		    x->k->c.loop, x->engine.pidfd, IO_READ, on_ended, x, &x->pid_watch, &err)) {
		log_warn("kubelet", "exec in %s: %s", x->name, err.text);
		x->ended = true;
	}
	pump_in_start(&x->in, in);
	if (!x->conn) /* the client left while it was being started */
		pump_in_close(&x->in);
	pump_out_start(&x->out);
	pump_out_start(&x->err_out);
}

static void start_slowly(void *arg)
{
	struct session *x = arg;
	struct engine *e = x->k->c.engine;

	if (x->attach)
		x->r = e->v->attach(
			e, x->id, x->want[IN], x->want[OUT], x->want[ERR], &x->engine, &x->err);
	else
		x->r = e->v->exec(e, x->id, x->argv, x->want[IN], x->want[OUT], x->want[ERR],
			x->tty, &x->engine, &x->err);
	loop_post(x->k->c.loop, running, x);
}

static void start_when_ready(struct session *x)
{
	for (int i = 0; i < N_CHANNELS; i++)
		if (x->want[i] && x->channel[i] < 0)
			return;
	if (x->started)
		return;
	x->started = true;
	x->out.channel = x->channel[OUT];
	x->err_out.channel = x->channel[ERR];
	x->busy++;
	pool_submit(x->k->slow, start_slowly, x);
}

/* ---- the connection ---- */

static void on_open(void *arg, int channel, const struct http_header *headers, size_t n)
{
	struct session *x = arg;
	static const char *const names[N_CHANNELS] = { "stdin", "stdout", "stderr", "error",
		"resize" };

	for (size_t h = 0; h < n; h++)
		for (int i = 0; i < N_CHANNELS && str_eqz(headers[h].name, "streamtype"); i++)
			if (str_eqz(headers[h].value, names[i]))
				x->channel[i] = channel;
	start_when_ready(x);
}

/* {"Width":80,"Height":24} */
static void resize(struct session *x, struct str bytes)
{
	CLEAN_ARENA struct arena *a = arena_new(512);
	struct value v;
	struct err err;

	/* The descriptor is the slow pool's before the start and when the end is waited for. */
	if (!x->up || x->draining || x->engine.control < 0 ||
		json_parse(str_trim(bytes), a, &v, &err))
		return;
	const struct value *w = value_get(&v, STR("Width")), *h = value_get(&v, STR("Height"));
	if (w && h && w->kind == VALUE_INT && h->kind == VALUE_INT)
		dprintf(x->engine.control, "%lld %lld\n", (long long)w->integer,
			(long long)h->integer);
}

static void on_data(void *arg, int channel, struct str bytes)
{
	struct session *x = arg;

	if (channel == x->channel[IN])
		pump_in_add(&x->in, bytes);
	else if (channel == x->channel[RESIZE])
		resize(x, bytes);
}

static void on_channel_close(void *arg, int channel)
{
	struct session *x = arg;

	if (channel == x->channel[IN])
		pump_in_finish(&x->in);
}

static void on_drain(void *arg)
{
	struct session *x = arg;

	pump_out_resume(&x->out);
	pump_out_resume(&x->err_out);
	if (x->ended)
		collect(x);
}

static void on_conn_close(void *arg)
{
	struct session *x = arg;

	x->conn = NULL;
	pump_in_close(&x->in);
	if (!x->attach && !x->ended) {
		/* It goes on, as upstream's does, but nobody reads what it says. */
		pump_out_run(&x->out);
		pump_out_run(&x->err_out);
	} else {
		pump_out_close(&x->out);
		pump_out_close(&x->err_out);
		collect(x);
	}
	session_free(x);
}

static bool flag(struct http_stream *s, const char *name)
{
	struct str v;

	return query_has(s, name, &v) && (str_eqz(v, "1") || str_eqz(v, "true"));
}

static const char **command(struct http_stream *s, struct arena *a)
{
	struct str rest = http_stream_request(s)->query, key, value;
	const char **argv = NULL;
	size_t n = 0;

	while (url_query_next(&rest, a, &key, &value))
		if (str_eqz(key, "command")) {
			argv = arena_grow(
				a, argv, n ? (n + 1) * sizeof(*argv) : 0, (n + 2) * sizeof(*argv));
			argv[n++] = arena_str(a, value).p;
		}
	return argv;
}

static void upgrade(struct http_stream *s, void *arg)
{
	struct session *x = arg;
	struct err err;
	struct channel_events events = { on_open, on_data, on_channel_close, on_conn_close, x };

	int r = http_upgrade_channels(
		s, websocket_protocols, spdy_protocols, &events, &x->conn, &x->protocol, &err);
	if (r) {
		x->conn = NULL;
		respond_error(s, 400, "unable to upgrade: %s", err.text);
		session_free(x);
		return;
	}
	x->want[ERROR] = true;
	x->want[RESIZE] = x->tty &&
		!(channel_is_spdy(x->conn) &&
			(!strcmp(x->protocol, "channel.k8s.io") ||
				!strncmp(x->protocol, "v2.", 3)));
	if (!channel_is_spdy(x->conn))
		for (int i = 0; i < N_CHANNELS; i++)
			x->channel[i] = i;
	channel_on_drain(x->conn, on_drain, x);
	if (!channel_is_spdy(x->conn))
		start_when_ready(x);
}

void serve_exec(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod,
	struct str container, bool attach)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_container c;
	struct str log;
	struct err err;

	int status = server_find_container(k, ns, pod, container, false, a, &c, &log, &err);
	/* In these words, and with no colon in them: clients try to read the answer as YAML first. */
	if (status == 400 || (!status && c.state != CONTAINER_RUNNING))
		status = err_set(
			&err, 500, "container not found (\"" STR_FMT "\")", STR_ARG(container));
	if (status) {
		respond_error(s, status, "%s", err.text);
		return;
	}
	struct session *x = xcalloc(1, sizeof(*x));
	x->k = k;
	x->stream = http_stream_ref(s);
	x->a = arena_new(512);
	x->attach = attach;
	x->protocol = "";
	memcpy(x->id, c.id, sizeof(x->id));
	snprintf(x->name, sizeof(x->name), STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(pod));
	x->tty = flag(s, "tty");
	x->want[IN] = flag(s, "input");
	x->want[OUT] = flag(s, "output");
	x->want[ERR] = flag(s, "error") && !x->tty;
	x->argv = command(s, x->a);
	x->engine = (struct engine_session){
		.in = -1, .out = -1, .err = -1, .control = -1, .pidfd = -1
	};
	for (int i = 0; i < N_CHANNELS; i++)
		x->channel[i] = -1;
	x->out = (struct pump_out){
		.loop = k->c.loop, .conn = &x->conn, .fd = -1, .on_end = on_output_end, .arg = x
	};
	x->err_out = x->out;
	x->in = (struct pump_in){
		.loop = k->c.loop, .fd = -1, .conn = &x->conn, .n_holds = &x->n_holds
	};
	if (!attach && !x->argv) {
		respond_error(s, 400, "you must specify a command for the container");
		session_free(x);
		return;
	}
	http_stream_post(s, upgrade, x);
}

/* ---- /run ---- */

void serve_run(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod,
	struct str container)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf out = { 0 };
	struct engine_container c;
	struct str log, cmd;
	struct err err;
	int code;
	size_t n = 0;
	const char *argv[64] = { NULL };

	int status = server_find_container(k, ns, pod, container, false, a, &c, &log, &err);
	if (status) {
		respond_error(s, status, "%s", err.text);
		return;
	}
	if (!query_has(s, "cmd", &cmd) || !cmd.len) {
		respond_error(s, 400, "the query names no command (cmd=…)");
		return;
	}
	struct str rest = cmd, word;
	while (rest.len && n < ARRAY_LEN(argv) - 1) {
		str_cut(rest, ' ', &word, &rest);
		if (word.len)
			argv[n++] = arena_str(a, word).p;
	}
	if (k->c.engine->v->exec_sync(k->c.engine, c.id, argv, 0, &out, &code, &err))
		respond_error(s, 500, "%s", err.text);
	else
		node_respond_text(s, 200, "text/plain", buf_str(&out));
}
