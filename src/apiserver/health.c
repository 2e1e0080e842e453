/* /livez, /readyz, /healthz: each check by name, all of them, or a verbose account. And /version. Upstream: apiserver/pkg/server/healthz. */
#include <stdio.h>

#include "apiserver/internal.h"

static bool check_ping(void *arg)
{
	return true;
}

static bool check_store(void *arg)
{
	struct apiserver *s = arg;
	return store_revision(s->store) > 0 && store_is_reachable(s->store);
}

static bool check_running(void *arg)
{
	struct apiserver *s = arg;
	return !atomic_load(&s->stopping);
}

enum { LIVE = 1, READY = 2 };
static const struct own_check {
	const char *name;
	bool (*ok)(void *server);
	unsigned where;
} own_checks[] = {
	{ "ping", check_ping, LIVE | READY },
	{ "log", check_ping, LIVE | READY },
	{ "etcd", check_store, LIVE | READY }, /* the store, under the name that clients know */
	{ "shutdown", check_running, READY },
};

static bool excluded(struct request *q, const char *name)
{
	struct str rest = q->http->query, key, value;
	while (url_query_next(&rest, q->arena, &key, &value))
		if (str_eqz(key, "exclude") && str_eqz(value, name))
			return true;
	return false;
}

static bool verbose(struct request *q)
{
	struct str rest = q->http->query, key, value;
	while (url_query_next(&rest, q->arena, &key, &value))
		if (str_eqz(key, "verbose"))
			return true;
	return false;
}

/* Runs one check (or passes it by) and writes its line. */
static void run(struct request *q, const char *name, bool (*ok)(void *), void *arg, struct str only,
	struct buf *out, unsigned *ran, unsigned *failed)
{
	if (only.len && !str_eqz(only, name))
		return;
	++*ran;
	if (!only.len && excluded(q, name)) {
		buf_addf(out, "[+]%s excluded: ok\n", name);
		return;
	}
	bool good = ok(arg);
	*failed += !good;
	buf_addf(out, good ? "[+]%s ok\n" : "[-]%s failed: reason withheld\n", name);
}

bool serve_health(struct request *q)
{
	struct str root, only, path = str_from(q->info.path, 1);
	if (!str_cut(path, '/', &root, &only))
		root = path, only = STR_NONE;
	while (only.len && only.p[only.len - 1] == '/')
		only.len--;
	unsigned where = str_eqz(root, "readyz") ? READY : LIVE, ran = 0, failed = 0;
	CLEAN_BUF struct buf out = { 0 };
	for (size_t i = 0; i < ARRAY_LEN(own_checks); i++)
		if (own_checks[i].where & where)
			run(q, own_checks[i].name, own_checks[i].ok, q->server, only, &out, &ran,
				&failed);
	for (size_t i = 0; i < q->server->n_checks; i++) {
		const struct named_check *c = &q->server->checks[i];
		run(q, c->name, c->ok, c->arg, only, &out, &ran, &failed);
	}
	if (only.len && !ran)
		return false;
	if (!failed && !verbose(q)) {
		respond_text(q, 200, "text/plain; charset=utf-8", STR("ok"));
		return true;
	}
	buf_addf(&out, STR_FMT " check %s\n", STR_ARG(root), failed ? "failed" : "passed");
	respond_text(q, failed ? 500 : 200, "text/plain; charset=utf-8",
		arena_str(q->arena, buf_str(&out)));
	return true;
}

/* The same checks as numbers, asked when they are read. */
bool serve_slis(struct request *q)
{
	static const struct {
		const char *type;
		unsigned where;
	} types[] = { { "healthz", LIVE }, { "livez", LIVE }, { "readyz", READY } };
	static const char *const line = "kubernetes_healthcheck{name=\"%s\",type=\"%s\"} %d\n";
	CLEAN_BUF struct buf out = { 0 };
	buf_addz(&out,
		"# HELP kubernetes_healthcheck Whether a check of the server's health passes: 1, or 0.\n"
		"# TYPE kubernetes_healthcheck gauge\n");
	for (size_t t = 0; t < ARRAY_LEN(types); t++) {
		for (size_t i = 0; i < ARRAY_LEN(own_checks); i++)
			if (own_checks[i].where & types[t].where)
				buf_addf(&out, line, own_checks[i].name, types[t].type,
					own_checks[i].ok(q->server));
		for (size_t i = 0; i < q->server->n_checks; i++) {
			const struct named_check *c = &q->server->checks[i];
			buf_addf(&out, line, c->name, types[t].type, c->ok(c->arg));
		}
	}
	respond_text(q, 200, "text/plain; version=0.0.4; charset=utf-8",
		arena_str(q->arena, buf_str(&out)));
	return true;
}

bool serve_version(struct request *q)
{
	const char *v = q->server->config.git_version;
	int major = 1, minor = 36;
	if (sscanf(v, "v%d.%d", &major, &minor) != 2)
		major = 1, minor = 36;
	struct str body = arena_fmt(q->arena,
		"{\n  \"major\": \"%d\",\n  \"minor\": \"%d\",\n  \"emulationMajor\": \"%d\",\n  \"emulationMinor\": \"%d\",\n"
		"  \"minCompatibilityMajor\": \"%d\",\n  \"minCompatibilityMinor\": \"%d\",\n  \"gitVersion\": \"%s\",\n  \"gitCommit\": \"\",\n"
		"  \"gitTreeState\": \"clean\",\n  \"buildDate\": \"1970-01-01T00:00:00Z\",\n  \"goVersion\": \"\",\n  \"compiler\": \"gcc\",\n"
		"  \"platform\": \"linux/%s\"\n}",
		major, minor, major, minor, major, minor - 1, v,
#if defined(__x86_64__)
		"amd64"
#elif defined(__aarch64__)
		"arm64"
#else
		"unknown"
#endif
	);
	respond_text(q, 200, "application/json", body);
	return true;
}
