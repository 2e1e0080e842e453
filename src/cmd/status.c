/* `skiff status`: one page on the cluster, from what the API server says right now. Exit status 0 healthy, 1 degraded, 2 down.
 * Degraded: a node that is not Ready, a pod that failed or should run and does not, a certificate that ends within 14 days. */
#include <stdio.h>

#include "client/client.h"
#include "cmd/cmd.h"
#include "codec/codec.h"
#include "gen/types.h"

#define CERTIFICATE_WARN_S (14 * 86400)

enum { HEALTHY, DEGRADED, DOWN };
static const char *const health_text[] = { "healthy", "degraded", "down" };

enum pod_state {
	PODS_RUNNING,
	PODS_STARTING,
	PODS_PENDING,
	PODS_FAILING,
	PODS_SUCCEEDED,
	PODS_TERMINATING,
	PODS_STATES
};
static const char *const pod_state_text[PODS_STATES] = { "running", "starting", "unscheduled",
	"failing", "succeeded", "terminating" };

struct report {
	struct options o;
	struct arena *a;
	struct client *c;
	int health;
	struct core_v1_node_list *nodes;
	struct core_v1_pod_list *pods;
	size_t pod_states[PODS_STATES];
	struct str metrics;
	struct {
		const char *name;
		int64_t days;
		bool known;
	} certificates[3];
	struct str_list problems;
};

static void problem(struct report *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void problem(struct report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	*LIST_ADD(r->a, &r->problems) = arena_vfmt(r->a, fmt, ap);
	va_end(ap);
	r->health = MAX(r->health, DEGRADED);
}

static bool node_ready(const struct core_v1_node *n)
{
	LIST_EACH(c, &n->status.conditions) {
		if (str_eqz(c->type, "Ready"))
			return str_eqz(c->status, "True");
	}
	return false;
}

static bool pod_ready(const struct core_v1_pod *p)
{
	LIST_EACH(c, &p->status.conditions) {
		if (str_eqz(c->type, "Ready"))
			return str_eqz(c->status, "True");
	}
	return false;
}

static struct str waiting_reason(const struct core_v1_pod *p)
{
	LIST_EACH(c, &p->status.container_statuses) {
		if (c->state.waiting && c->state.waiting->reason.len)
			return c->state.waiting->reason;
	}
	return STR_NONE;
}

static enum pod_state pod_state(const struct core_v1_pod *p)
{
	struct str why = waiting_reason(p);

	if (p->metadata.deletion_timestamp.sec)
		return PODS_TERMINATING;
	if (str_eqz(p->status.phase, "Succeeded"))
		return PODS_SUCCEEDED;
	if (str_eqz(p->status.phase, "Failed") || str_has_suffix(why, STR("BackOff")) ||
		str_has_suffix(why, STR("Error")) || str_has_prefix(why, STR("Err")))
		return PODS_FAILING;
	if (!p->spec.node_name.len)
		return PODS_PENDING;
	return str_eqz(p->status.phase, "Running") && pod_ready(p) ? PODS_RUNNING : PODS_STARTING;
}

static void look_at_nodes(struct report *r)
{
	LIST_EACH(n, &r->nodes->items) {
		if (!node_ready(n))
			problem(r, "node " STR_FMT " is not Ready", STR_ARG(n->metadata.name));
	}
}

static void look_at_pods(struct report *r)
{
	LIST_EACH(p, &r->pods->items) {
		enum pod_state s = pod_state(p);
		struct str why = waiting_reason(p);

		r->pod_states[s]++;
		if (s == PODS_FAILING)
			problem(r,
				"pod " STR_FMT "/" STR_FMT " fails: " STR_FMT
				"; `skiff why -n " STR_FMT " " STR_FMT "` says more",
				STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name),
				STR_ARG(why.len ? why : p->status.reason),
				STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name));
		if (s == PODS_PENDING)
			problem(r,
				"pod " STR_FMT "/" STR_FMT " has no node; `skiff why -n " STR_FMT
				" " STR_FMT "` says why",
				STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name),
				STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name));
	}
}

/* Only where this process may read them: on the server, as root. */
static void look_at_certificates(struct report *r)
{
	static const char *const files[] = { "pki/ca.crt", "pki/server.crt", "agent/node.crt" };

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEAN_FREE char *path = xasprintf("%s/%s", r->o.data_dir, files[i]);
		CLEAN_BUF struct buf pem = { 0 };
		struct timestamp end;
		struct err err;
		double left;

		r->certificates[i].name = files[i];
		if (file_read(path, 1 << 20, &pem, &err) < 0 ||
			cert_not_after(buf_str(&pem), &end, &err) < 0)
			continue;
		left = time_diff_s(end, time_now());
		r->certificates[i].known = true;
		r->certificates[i].days = (int64_t)(left / 86400);
		if (left < CERTIFICATE_WARN_S)
			problem(r,
				"certificate %s ends in %lld days and was not renewed: the server's log says why; a restart makes a new one",
				files[i], (long long)r->certificates[i].days);
	}
}

/* The value of a metric without labels; -1: not there. */
static int64_t metric(const struct report *r, const char *name)
{
	struct str rest = r->metrics, line;

	while (rest.len) {
		struct str key, value;

		str_cut(rest, '\n', &line, &rest);
		if (str_cut(line, ' ', &key, &value) && str_eqz(key, name))
			return (int64_t)strtod(value.p, NULL);
	}
	return -1;
}

static int gather(struct report *r, struct err *err)
{
	struct str body;
	int code,
		s = client_raw(r->c, "GET", "/readyz?verbose", STR_NONE, STR_NONE, r->a, &body,
			&code, err);

	if (s < 0)
		return s;
	if (code != 200)
		problem(r, "the API server is not ready: " STR_FMT, STR_ARG(str_trim(body)));
	s = client_list(
		r->c, &core_v1_node_type, STR_NONE, NULL, NULL, r->a, (void **)&r->nodes, err);
	if (s == 0)
		s = client_list(r->c, &core_v1_pod_type, STR_NONE, NULL, NULL, r->a,
			(void **)&r->pods, err);
	if (s)
		return s < 0 ? s : -EACCES;
	client_raw(r->c, "GET", "/metrics", STR_NONE, STR_NONE, r->a, &r->metrics, &code, err);
	look_at_nodes(r);
	look_at_pods(r);
	look_at_certificates(r);
	return 0;
}

static void print_text(const struct report *r)
{
	int64_t objects = metric(r, "skiff_store_objects"),
		bytes = metric(r, "skiff_store_object_bytes"),
		revision = metric(r, "skiff_store_revision");

	printf("cluster       %s\n", health_text[r->health]);
	LIST_EACH(n, &r->nodes->items)
		printf("node          %-24.*s %-9s " STR_FMT "  " STR_FMT "\n",
			STR_ARG(n->metadata.name), node_ready(n) ? "Ready" : "NotReady",
			STR_ARG(n->status.node_info.kubelet_version), STR_ARG(n->spec.pod_cidr));
	printf("pods          %zu", r->pods->items.len);
	for (int s = 0; s < PODS_STATES; s++)
		if (r->pod_states[s])
			printf(", %zu %s", r->pod_states[s], pod_state_text[s]);
	putchar('\n');
	if (objects >= 0)
		printf("store         %lld objects, %lld KB, revision %lld\n", (long long)objects,
			(long long)bytes / 1024, (long long)revision);
	for (size_t i = 0; i < ARRAY_LEN(r->certificates); i++)
		if (r->certificates[i].known)
			printf("certificate   %-24s ends in %lld days\n", r->certificates[i].name,
				(long long)r->certificates[i].days);
	LIST_EACH(p, &r->problems)
		printf("problem       " STR_FMT "\n", STR_ARG(*p));
}

static void print_json(const struct report *r)
{
	CLEAN_BUF struct buf b = { 0 };

	buf_addf(&b, "{\"health\":\"%s\",\"nodes\":[", health_text[r->health]);
	LIST_EACH(n, &r->nodes->items) {
		buf_addz(&b, n == r->nodes->items.items ? "{\"name\":" : ",{\"name\":");
		json_write_text(n->metadata.name, &b);
		buf_addf(&b, ",\"ready\":%s}", node_ready(n) ? "true" : "false");
	}
	buf_addz(&b, "],\"pods\":{");
	for (int s = 0; s < PODS_STATES; s++)
		buf_addf(&b, "%s\"%s\":%zu", s ? "," : "", pod_state_text[s], r->pod_states[s]);
	buf_addf(&b,
		"},\"store\":{\"objects\":%lld,\"bytes\":%lld,\"revision\":%lld},\"certificates\":[",
		(long long)metric(r, "skiff_store_objects"),
		(long long)metric(r, "skiff_store_object_bytes"),
		(long long)metric(r, "skiff_store_revision"));
	for (size_t i = 0, n = 0; i < ARRAY_LEN(r->certificates); i++)
		if (r->certificates[i].known)
			buf_addf(&b, "%s{\"file\":\"%s\",\"daysLeft\":%lld}", n++ ? "," : "",
				r->certificates[i].name, (long long)r->certificates[i].days);
	buf_addz(&b, "],\"problems\":[");
	LIST_EACH(p, &r->problems) {
		if (p != r->problems.items)
			buf_addc(&b, ',');
		json_write_text(*p, &b);
	}
	buf_addz(&b, "]}");
	puts(b.p);
}

int cmd_client(const struct options *o, struct client **ret, struct err *err)
{
	const char *path = o->kubeconfig ? o->kubeconfig : getenv("KUBECONFIG");

	return client_from_kubeconfig(
		path ? path : "/etc/skiff/kubeconfig", "skiff/" SKIFF_VERSION, ret, err);
}

int cmd_status(int argc, char **argv)
{
	struct report r = { .a = arena_new(0) };
	struct err err = { 0 };
	int s = options_parse(&r.o, OPT_CLIENT, argc, argv);
	bool json = s == 0 && r.o.output && !strcmp(r.o.output, "json");

	if (s)
		return s > 0 ? 0 : 2;
	s = cmd_client(&r.o, &r.c, &err);
	if (s == 0)
		s = gather(&r, &err);
	if (s != 0) {
		if (json)
			puts("{\"health\":\"down\"}");
		else
			puts("cluster       down");
		return cmd_fail("status", &err, DOWN);
	}
	(json ? print_json : print_text)(&r);
	client_free(r.c);
	arena_free(r.a);
	return r.health;
}
