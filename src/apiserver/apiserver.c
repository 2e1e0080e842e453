/* The server as a whole: parts made in order, and the phases that each request walks. Upstream: apiserver/pkg/server/config.go. */
#include <stdio.h>

#include <stdio.h>

#include "apiserver/internal.h"

/* ---- the phases ---- */

static bool phase_parse(struct request *q)
{
	struct err err = { 0 };
	bool acceptable = accept_parse(http_request_header(q->http, "accept"), &q->accept);
	int r = request_options_parse(q->http->query, q->arena, &q->options, &err);
	if (r == 0)
		r = request_info_parse(
			q->http->method, q->http->path, &q->options, q->arena, &q->info, &err);
	if (r < 0) {
		respond_reason(q, REASON_BAD_REQUEST, "%s", err.text);
		return false;
	}
	if (str_eqz(q->options.pretty, "true") || str_eqz(q->options.pretty, "1"))
		q->accept.pretty = true;
	if (acceptable || !q->info.is_resource || request_is_long_running(&q->info))
		return true;
	respond_reason(q, REASON_NOT_ACCEPTABLE,
		"only the following media types are accepted: application/json, application/yaml, "
		"application/vnd.kubernetes.protobuf");
	return false;
}

/* Each lets the request pass (true), or has answered or parked it. */
static bool (*const phases[])(struct request *q) = {
	phase_parse,
	phase_authenticate,
	phase_impersonate,
	phase_authorize,
	phase_seat,
	dispatch,
};

static struct request *request_new(struct apiserver *s, struct http_stream *stream)
{
	struct arena *a = http_stream_arena(stream);
	struct request *q = arena_alloc(a, sizeof(*q));
	q->server = s;
	q->stream = stream;
	q->http = http_stream_request(stream);
	q->arena = a;
	q->started_ns = mono_now_ns();
	return q;
}

static void on_request(void *arg, struct http_stream *stream)
{
	struct request *q = request_new(arg, stream);
	for (size_t i = 0; i < ARRAY_LEN(phases); i++)
		if (!phases[i](q))
			return;
}

/* What HTTP itself would not let in is told as a Status too. */
static void on_refused(void *arg, struct http_stream *stream, int status, const char *text)
{
	static const struct {
		int status;
		enum status_reason reason;
	} rows[] = {
		{ 405, REASON_METHOD_NOT_ALLOWED },
		{ 413, REASON_TOO_LARGE },
		{ 501, REASON_NOT_IMPLEMENTED },
		{ 503, REASON_SERVICE_UNAVAILABLE },
	};
	struct request *q = request_new(arg, stream);
	enum status_reason reason = REASON_BAD_REQUEST;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].status == status)
			reason = rows[i].reason;
	struct meta_v1_status *st = status_new(q->arena, reason, "%s", text);
	if (status == 413)
		st->message =
			arena_fmt(q->arena, "Request entity too large: limit is %d", NET_BODY_MAX);
	st->code = status;
	respond_status(q, st);
}

struct http_handler apiserver_handler(struct apiserver *s)
{
	return (struct http_handler){
		.on_request = on_request, .on_refused = on_refused, .arg = s
	};
}

/* ---- what is stored ---- */

int lookup_object(struct apiserver *s, const struct resource *r, struct str ns, struct str name,
	struct object **ret)
{
	const struct str whole[] = { r->key_prefix, name },
			 namespaced[] = { r->key_prefix, ns, STR("/"), name };
	char key[640];
	size_t n = r->row->namespaced
		? str_concat(key, sizeof(key), namespaced, ARRAY_LEN(namespaced))
		: str_concat(key, sizeof(key), whole, ARRAY_LEN(whole));
	return n && name.len ? store_get(s->store, str_n(key, n), ret) : STORE_NOT_FOUND;
}

int lookup(struct apiserver *s, const struct resource *r, struct str ns, struct str name,
	struct arena *a, void *ret_ptr)
{
	CLEAN_OBJECT struct object *o = NULL;
	int res = lookup_object(s, r, ns, name, &o);
	if (res != 0)
		return res;
	return registry_decode(r, o, a, ret_ptr, NULL);
}

void lookup_each(
	struct apiserver *s, const struct resource *r, struct str ns, store_each_fn fn, void *arg)
{
	const struct str parts[] = { r->key_prefix, ns, STR("/") };
	char prefix[640];
	size_t n = str_concat(prefix, sizeof(prefix), parts, ns.len ? ARRAY_LEN(parts) : 1);
	if (!n)
		return;
	struct store_snapshot *sn = store_snapshot(s->store);
	store_snapshot_each(sn, str_n(prefix, n), STR_NONE, fn, arg);
	store_snapshot_free(sn);
}

struct str object_field(const struct object *o, struct str key)
{
	for (size_t i = 0; i < o->n_fields; i++)
		if (str_eq(o->fields[i].key, key))
			return o->fields[i].value;
	return STR_NONE;
}

/* ---- making ---- */

#define KNOWN(member, group, plural) \
	{ \
		offsetof(struct known, member), group, plural \
	}
static const struct known_row {
	size_t offset;
	const char *group, *plural;
} known_rows[] = {
	KNOWN(pods, "", "pods"),
	KNOWN(nodes, "", "nodes"),
	KNOWN(services, "", "services"),
	KNOWN(secrets, "", "secrets"),
	KNOWN(namespaces, "", "namespaces"),
	KNOWN(service_accounts, "", "serviceaccounts"),
	KNOWN(config_maps, "", "configmaps"),
	KNOWN(claims, "", "persistentvolumeclaims"),
	KNOWN(volumes, "", "persistentvolumes"),
	KNOWN(limit_ranges, "", "limitranges"),
	KNOWN(quotas, "", "resourcequotas"),
	KNOWN(endpoints, "", "endpoints"),
	KNOWN(roles, "rbac.authorization.k8s.io", "roles"),
	KNOWN(cluster_roles, "rbac.authorization.k8s.io", "clusterroles"),
	KNOWN(role_bindings, "rbac.authorization.k8s.io", "rolebindings"),
	KNOWN(cluster_role_bindings, "rbac.authorization.k8s.io", "clusterrolebindings"),
	KNOWN(priority_classes, "scheduling.k8s.io", "priorityclasses"),
	KNOWN(storage_classes, "storage.k8s.io", "storageclasses"),
	KNOWN(ingress_classes, "networking.k8s.io", "ingressclasses"),
	KNOWN(runtime_classes, "node.k8s.io", "runtimeclasses"),
	KNOWN(csrs, "certificates.k8s.io", "certificatesigningrequests"),
	KNOWN(leases, "coordination.k8s.io", "leases"),
	KNOWN(resource_claims, "resource.k8s.io", "resourceclaims"),
	KNOWN(endpoint_slices, "discovery.k8s.io", "endpointslices"),
	KNOWN(attachments, "storage.k8s.io", "volumeattachments"),
	KNOWN(resource_slices, "resource.k8s.io", "resourceslices"),
};

static int find_known(struct apiserver *s, struct err *err)
{
	for (size_t i = 0; i < ARRAY_LEN(known_rows); i++) {
		const struct known_row *k = &known_rows[i];
		const struct resource *r = registry_resource(
			s->registry, str_of(k->group), STR("v1"), str_of(k->plural));
		if (!r)
			return err_set(err, -ENOENT,
				"the API description lacks resource %s of group \"%s\" version v1",
				k->plural, k->group);
		*(const struct resource **)((char *)&s->known + k->offset) = r;
	}
	return 0;
}

int apiserver_new(const struct apiserver_config *c, struct apiserver **ret, struct err *err)
{
	struct apiserver *s = xcalloc(1, sizeof(*s));
	s->config = *c;
	s->config.issuer = xstrdup(c->issuer ? c->issuer : "");
	s->config.git_version = xstrdup(c->git_version ? c->git_version : "");
	s->config.address = c->address ? xstrdup(c->address) : NULL;
	s->registry = c->registry;
	s->store = registry_store(c->registry);
	s->started = time_now();
	s->config.ca_pem = str_n(str_dup(c->ca_pem), c->ca_pem.len);
	s->read_seats = 3000;
	s->write_seats = 1000;
	int r = find_known(s, err);
	if (r == 0) {
		s->keys = token_keys_new(c, err);
		r = s->keys ? 0 : -EINVAL;
	}
	if (r < 0) {
		apiserver_free(s);
		return r;
	}
	s->metrics = metrics_new();
	s->watches = watch_list_new();
	s->rbac = rbac_new(s);
	s->nodes = node_graph_new(s);
	s->upstreams = upstreams_new();
	s->docs = doc_cache_new(s);
	registry_set_admission(
		s->registry, &(struct admission){ admission_admit, admission_validate, s });
	registry_set_tokens(s->registry, &(struct token_issuer){ service_token_issue, s });
	*ret = s;
	return 0;
}

int apiserver_start(struct apiserver *s, struct err *err)
{
	struct http_server_config c = {
		.loops = s->config.loops,
		.n_loops = s->config.n_loops,
		.address = s->config.address,
		.port = s->config.port,
		.listen_fd = s->config.listen_fd,
		.tls = s->config.tls,
		.handler = apiserver_handler(s),
	};
	return http_server_start(&c, &s->http, err);
}

int apiserver_port(const struct apiserver *s)
{
	return s->http ? http_server_port(s->http) : s->config.port;
}

void apiserver_stop(struct apiserver *s)
{
	atomic_store(&s->stopping, true);
	watch_list_end(s->watches);
	if (s->http)
		http_server_stop(TAKE(s->http));
}

void apiserver_free(struct apiserver *s)
{
	if (!s)
		return;
	if (s->http)
		apiserver_stop(s);
	doc_cache_free(s->docs);
	upstreams_free(s->upstreams);
	node_graph_free(s->nodes);
	rbac_free(s->rbac);
	watch_list_free(s->watches);
	metrics_free(s->metrics);
	token_keys_free(s->keys);
	free((char *)s->config.ca_pem.p);
	free((char *)s->config.issuer);
	free((char *)s->config.git_version);
	free((char *)s->config.address);
	free(s);
}

void apiserver_add_check(struct apiserver *s, const char *name, bool (*ok)(void *arg), void *arg)
{
	if (s->n_checks < ARRAY_LEN(s->checks))
		s->checks[s->n_checks++] = (struct named_check){ name, ok, arg };
}

void apiserver_add_metrics(
	struct apiserver *s, void (*write)(void *arg, struct buf *out), void *arg)
{
	if (s->n_sources < ARRAY_LEN(s->sources))
		s->sources[s->n_sources++] = (struct metrics_source){ write, arg };
}
