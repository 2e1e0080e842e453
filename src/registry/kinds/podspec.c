/* A pod's spec, in a pod or in a template: the defaults and rules that the schema cannot say. */
#include "registry/kinds/kinds.h"

_Static_assert(sizeof(struct core_v1_ephemeral_container_common) == sizeof(struct core_v1_container), "one check serves both");

/* ---- defaults ---- */

static struct str pull_policy(struct str image)
{
	if (str_find(image, '@') >= 0)
		return STR("IfNotPresent");
	ssize_t colon = -1;
	for (size_t i = 0; i < image.len; i++)
		colon = image.p[i] == ':' ? (ssize_t)i : image.p[i] == '/' ? -1 : colon;
	bool latest = colon < 0 || str_eqz(str_from(image, (size_t)colon + 1), "latest");
	return latest ? STR("Always") : STR("IfNotPresent");
}

static void fill_requests(struct core_v1_resource_requirements *r, struct arena *a)
{
	LIST_EACH(l, &r->limits) {
		if (!str_map_has(&r->requests, l->key))
			str_map_set(a, &r->requests, l->key, l->value);
	}
}

static void fill_container(struct core_v1_container *c, bool host_network, struct arena *a)
{
	if (!c->image_pull_policy.len)
		c->image_pull_policy = pull_policy(c->image);
	if (c->resources.limits.len)
		fill_requests(&c->resources, a);
	if (host_network)
		LIST_EACH(p, &c->ports) {
			if (!p->host_port)
				p->host_port = p->container_port;
		}
}

static void fill_volume(struct core_v1_volume *v, struct arena *a)
{
	if (model_is_zero(&core_v1_volume_source_type, &v->volume_source))
		v->volume_source.empty_dir = arena_alloc(a, sizeof(*v->volume_source.empty_dir));
	if (v->volume_source.image && !v->volume_source.image->pull_policy.len)
		v->volume_source.image->pull_policy = pull_policy(v->volume_source.image->reference);
}

void pod_spec_fill(struct core_v1_pod_spec *s, struct arena *a)
{
	LIST_EACH(c, &s->init_containers)
		fill_container(c, s->host_network, a);
	LIST_EACH(c, &s->containers)
		fill_container(c, s->host_network, a);
	LIST_EACH(c, &s->ephemeral_containers)
		fill_container((struct core_v1_container *)&c->ephemeral_container_common, false, a);
	LIST_EACH(v, &s->volumes)
		fill_volume(v, a);
	/* one field under two names */
	if (!s->service_account_name.len)
		s->service_account_name = s->service_account;
	s->service_account = s->service_account_name;
}

/* ---- QoS ---- */

struct qos {
	bool any, guaranteed;
};

static void qos_of(const struct core_v1_resource_requirements *r, struct qos *q)
{
	static const char *const names[] = { "cpu", "memory" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct str request = str_map_get(&r->requests, str_of(names[i])), limit = str_map_get(&r->limits, str_of(names[i]));
		struct quantity rq = { 0 }, lq = { 0 };
		if (request.p && quantity_parse(request, &rq))
			rq.nano = 0;
		if (limit.p && quantity_parse(limit, &lq))
			lq.nano = 0;
		if (rq.nano > 0 || lq.nano > 0)
			q->any = true;
		if (lq.nano == 0 || (request.p && quantity_cmp(rq, lq) != 0))
			q->guaranteed = false;
	}
}

struct str pod_qos(const struct core_v1_pod_spec *s)
{
	struct qos q = { .guaranteed = true };
	if (s->resources && (s->resources->requests.len || s->resources->limits.len)) {
		qos_of(s->resources, &q);
	} else {
		LIST_EACH(c, &s->init_containers)
			qos_of(&c->resources, &q);
		LIST_EACH(c, &s->containers)
			qos_of(&c->resources, &q);
	}
	return !q.any ? STR("BestEffort") : q.guaranteed ? STR("Guaranteed") : STR("Burstable");
}

/* ---- containers ---- */

static const char *env_name_check(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] < ' ' || s.p[i] > '~' || s.p[i] == '=')
			return "a valid environment variable name must consist only of printable ASCII characters other than '='";
	return NULL;
}

static const char *const field_paths[] = { "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
	"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs", NULL };
static const char *const volume_field_paths[] = { "metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid", NULL };

static bool subscript(struct str s)
{
	return (str_has_prefix(s, STR("metadata.labels['")) || str_has_prefix(s, STR("metadata.annotations['"))) && str_has_suffix(s, STR("']"));
}

static void check_field_ref(const struct core_v1_object_field_selector *f, const char *const *allowed, const struct at *at, struct causes *cs)
{
	if (!f->field_path.len) {
		REQUIRED(cs, AT(at, "fieldPath"), "");
		return;
	}
	if (subscript(f->field_path) || text_among(f->field_path, allowed))
		return;
	CLEAN_BUF struct buf b = { 0 };
	for (size_t i = 0; allowed[i]; i++)
		buf_addf(&b, "%s\"%s\"", i ? ", " : "", allowed[i]);
	cause_at(cs, CAUSE_NOT_SUPPORTED, AT(at, "fieldPath"), f->field_path, "supported values: " STR_FMT, STR_ARG(buf_str(&b)));
}

static void check_key_ref(struct str name, struct str key, const struct at *at, struct causes *cs)
{
	const char *bad;
	if (!name.len)
		REQUIRED(cs, AT(at, "name"), "");
	if (!key.len)
		REQUIRED(cs, AT(at, "key"), "");
	else if ((bad = valid_config_key(key)))
		INVALID(cs, AT(at, "key"), key, bad);
}

static void check_env(const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(e, &c->env) {
		const struct at *here = AT_I(at, "env", i++);
		const char *bad = env_name_check(e->name);
		if (bad)
			INVALID(cs, AT(here, "name"), e->name, bad);
		const struct core_v1_env_var_source *s = e->value_from;
		if (!s)
			continue;
		const struct at *from = AT(here, "valueFrom");
		int n = !!s->field_ref + !!s->resource_field_ref + !!s->config_map_key_ref + !!s->secret_key_ref + !!s->file_key_ref;
		if (e->value.len && n)
			INVALID(cs, from, STR(""), "may not be specified when `value` is not empty");
		if (n == 0)
			INVALID(cs, from, STR(""), "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
		else if (n > 1)
			INVALID(cs, from, STR(""), "may not have more than one field specified at a time");
		if (s->field_ref)
			check_field_ref(s->field_ref, field_paths, AT(from, "fieldRef"), cs);
		if (s->config_map_key_ref)
			check_key_ref(s->config_map_key_ref->local_object_reference.name, s->config_map_key_ref->key, AT(from, "configMapKeyRef"), cs);
		if (s->secret_key_ref)
			check_key_ref(s->secret_key_ref->local_object_reference.name, s->secret_key_ref->key, AT(from, "secretKeyRef"), cs);
	}
	i = 0;
	LIST_EACH(e, &c->env_from) {
		const struct at *here = AT_I(at, "envFrom", i++);
		int n = !!e->config_map_ref + !!e->secret_ref;
		if (n != 1)
			INVALID(cs, here, STR(""), n ? "may not have more than one field specified at a time" : "must specify one of: `configMapRef` or `secretRef`");
		if (e->config_map_ref && !e->config_map_ref->local_object_reference.name.len)
			REQUIRED(cs, AT(AT(here, "configMapRef"), "name"), "");
		if (e->secret_ref && !e->secret_ref->local_object_reference.name.len)
			REQUIRED(cs, AT(AT(here, "secretRef"), "name"), "");
	}
}

static void check_ports(const struct core_v1_container *c, bool host_network, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(p, &c->ports) {
		const struct at *here = AT_I(at, "ports", i++);
		const char *bad;
		if (p->name.len && (bad = valid_port_name(p->name)))
			INVALID(cs, AT(here, "name"), p->name, bad);
		for (const struct core_v1_container_port *q = c->ports.items; p->name.len && q < p; q++)
			if (str_eq(q->name, p->name)) {
				DUPLICATE(cs, AT(here, "name"), p->name);
				break;
			}
		if (host_network && p->host_port && p->host_port != p->container_port)
			INVALID_NUM(cs, AT(here, "containerPort"), p->container_port, "must match `hostPort` when `hostNetwork` is true");
	}
}

static const char *path_check(struct str path, bool relative)
{
	if (relative && path.len && path.p[0] == '/')
		return "must be a relative path";
	for (size_t i = 0; i + 1 < path.len; i++)
		if (path.p[i] == '.' && path.p[i + 1] == '.' && (i == 0 || path.p[i - 1] == '/') && (i + 2 == path.len || path.p[i + 2] == '/'))
			return "must not contain '..'";
	return NULL;
}

static bool has_volume(const struct core_v1_pod_spec *s, struct str name)
{
	LIST_EACH(v, &s->volumes) {
		if (str_eq(v->name, name))
			return true;
	}
	return false;
}

static void check_mounts(const struct core_v1_pod_spec *s, const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(m, &c->volume_mounts) {
		const struct at *here = AT_I(at, "volumeMounts", i++);
		const char *bad;
		if (m->name.len && !has_volume(s, m->name))
			cause_at(cs, CAUSE_NOT_FOUND, AT(here, "name"), m->name, "%s", "");
		for (const struct core_v1_volume_mount *q = c->volume_mounts.items; m->mount_path.len && q < m; q++)
			if (str_eq(q->mount_path, m->mount_path)) {
				INVALID(cs, AT(here, "mountPath"), m->mount_path, "must be unique");
				break;
			}
		if (m->sub_path.len && (bad = path_check(m->sub_path, true)))
			INVALID(cs, AT(here, "subPath"), m->sub_path, bad);
		if (m->sub_path.len && m->sub_path_expr.len)
			INVALID(cs, AT(here, "subPathExpr"), m->sub_path_expr, "subPathExpr and subPath are mutually exclusive");
	}
}

static bool standard_resource(struct str name)
{
	static const char *const known[] = { "cpu", "memory", "ephemeral-storage", NULL };
	return text_among(name, known) || str_has_prefix(name, STR("hugepages-"));
}

static void check_amounts(const struct str_map *m, const char *name, const struct at *at, struct causes *cs)
{
	LIST_EACH(e, m) {
		const struct at *here = AT_KEY(at, name, e->key);
		struct quantity q;
		const char *bad = valid_label_key(e->key);
		if (bad)
			INVALID(cs, here, e->key, bad);
		else if (str_find(e->key, '/') < 0 && !standard_resource(e->key))
			INVALID(cs, here, e->key, "must be a standard resource for containers");
		if (quantity_parse(e->value, &q))
			INVALID(cs, here, e->value, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
		else if (q.nano < 0)
			INVALID(cs, here, e->value, "must be greater than or equal to 0");
	}
}

static void check_resources(const struct core_v1_resource_requirements *r, const struct at *at, struct causes *cs)
{
	if (!r->limits.len && !r->requests.len)
		return;
	check_amounts(&r->limits, "limits", at, cs);
	check_amounts(&r->requests, "requests", at, cs);
	LIST_EACH(e, &r->requests) {
		struct quantity q, limit;
		struct str text = str_map_get(&r->limits, e->key);
		bool overcommit = standard_resource(e->key) && !str_has_prefix(e->key, STR("hugepages-"));
		if (!text.p) {
			if (!overcommit)
				INVALID(cs, AT_KEY(at, "limits", e->key), STR_NONE, "Limit must be set for non overcommitable resources");
			continue;
		}
		if (quantity_parse(e->value, &q) || quantity_parse(text, &limit))
			continue;
		if (!overcommit && quantity_cmp(q, limit) != 0)
			cause_at(cs, CAUSE_INVALID, AT(at, "requests"), e->value, "must be equal to " STR_FMT " limit of " STR_FMT, STR_ARG(e->key), STR_ARG(text));
		else if (quantity_cmp(q, limit) > 0)
			cause_at(cs, CAUSE_INVALID, AT(at, "requests"), e->value, "must be less than or equal to " STR_FMT " limit of " STR_FMT, STR_ARG(e->key),
				STR_ARG(text));
	}
}

static void check_port_ref(struct int_or_str port, const struct at *at, struct causes *cs)
{
	const char *bad;
	if (port.kind == IOS_STR ? !!(bad = valid_port_name(port.text)) : (bad = NULL, port.num < 1 || port.num > 65535))
		refuse_port(cs, AT(at, "port"), port, bad);
}

static void check_handler(const struct core_v1_exec_action *exec, const struct core_v1_http_get_action *http, const struct core_v1_tcp_socket_action *tcp,
	int n, const struct at *at, struct causes *cs)
{
	if (n == 0)
		REQUIRED(cs, at, "must specify a handler type");
	else if (n > 1)
		FORBIDDEN(cs, at, "may not specify more than 1 handler type");
	if (exec && !exec->command.len)
		REQUIRED(cs, AT(AT(at, "exec"), "command"), "");
	if (http)
		check_port_ref(http->port, AT(at, "httpGet"), cs);
	if (tcp)
		check_port_ref(tcp->port, AT(at, "tcpSocket"), cs);
}

static void check_probe(const struct core_v1_probe *p, const char *name, bool once, const struct at *at, struct causes *cs)
{
	if (!p)
		return;
	const struct core_v1_probe_handler *h = &p->handler;
	const struct at *here = AT(at, name);
	check_handler(h->exec, h->http_get, h->tcp_socket, !!h->exec + !!h->http_get + !!h->tcp_socket + !!h->grpc, here, cs);
	if (once && p->success_threshold != 1)
		INVALID_NUM(cs, AT(here, "successThreshold"), p->success_threshold, "must be 1");
	if (p->termination_grace_period_seconds.set && p->termination_grace_period_seconds.value <= 0)
		INVALID_NUM(cs, AT(here, "terminationGracePeriodSeconds"), p->termination_grace_period_seconds.value, "must be greater than 0");
}

static void check_lifecycle(const struct core_v1_lifecycle *l, const struct at *at, struct causes *cs)
{
	if (!l)
		return;
	const struct {
		const struct core_v1_lifecycle_handler *h;
		const char *name;
	} hooks[] = { { l->post_start, "postStart" }, { l->pre_stop, "preStop" } };
	for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
		const struct core_v1_lifecycle_handler *h = hooks[i].h;
		if (h)
			check_handler(h->exec, h->http_get, h->tcp_socket, !!h->exec + !!h->http_get + !!h->tcp_socket + !!h->sleep,
				AT(AT(at, "lifecycle"), hooks[i].name), cs);
	}
}

static void check_image(struct str image, const struct at *at, struct causes *cs)
{
	if (!image.len)
		REQUIRED(cs, AT(at, "image"), "");
	else if (str_trim(image).len != image.len)
		INVALID(cs, AT(at, "image"), image, "must not have leading or trailing whitespace");
}

static void check_container(const struct core_v1_pod_spec *s, const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	check_image(c->image, at, cs);
	check_ports(c, s->host_network, at, cs);
	check_env(c, at, cs);
	check_mounts(s, c, at, cs);
	check_resources(&c->resources, AT(at, "resources"), cs);
	check_probe(c->liveness_probe, "livenessProbe", true, at, cs);
	check_probe(c->readiness_probe, "readinessProbe", false, at, cs);
	check_probe(c->startup_probe, "startupProbe", true, at, cs);
	check_lifecycle(c->lifecycle, at, cs);
}

static void check_init_container(const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	bool sidecar = str_eqz(c->restart_policy, "Always");
	const struct {
		bool set;
		const char *name;
	} parts[] = {
		{ c->lifecycle, "lifecycle" }, { c->liveness_probe, "livenessProbe" }, { c->readiness_probe, "readinessProbe" }, { c->startup_probe, "startupProbe" },
	};
	for (size_t i = 0; i < ARRAY_LEN(parts) && !sidecar; i++)
		if (parts[i].set)
			FORBIDDEN(cs, AT(at, parts[i].name), "may not be set for init containers without restartPolicy=Always");
}

static bool named_before(const struct core_v1_pod_spec *s, const struct core_v1_container *c)
{
	bool init = s->init_containers.len && c >= s->init_containers.items && c < s->init_containers.items + s->init_containers.len;
	LIST_EACH(o, &s->containers) {
		if (o == c)
			return false;
		if (str_eq(o->name, c->name))
			return true;
	}
	if (init)
		LIST_EACH(o, &s->init_containers) {
			if (o == c)
				return false;
			if (str_eq(o->name, c->name))
				return true;
		}
	return false;
}

static bool host_port_before(const struct core_v1_pod_spec *s, const struct core_v1_container_port *p)
{
	LIST_EACH(c, &s->containers) {
		LIST_EACH(o, &c->ports) {
			if (o == p)
				return false;
			if (o->host_port == p->host_port && str_eq(o->protocol, p->protocol) && str_eq(o->host_ip, p->host_ip))
				return true;
		}
	}
	return false;
}

static void check_host_ports(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(c, &s->containers) {
		size_t k = 0, ci = i++;
		LIST_EACH(p, &c->ports) {
			size_t pi = k++;
			if (p->host_port && host_port_before(s, p))
				DUPLICATE(cs, AT(AT_I(AT_I(at, "containers", ci), "ports", pi), "hostPort"),
					arena_fmt(cs->arena, STR_FMT "/" STR_FMT "/%d", STR_ARG(p->protocol), STR_ARG(p->host_ip), p->host_port));
		}
	}
}

void pod_containers_validate(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(c, &s->containers) {
		const struct at *here = AT_I(at, "containers", i++);
		if (c->name.len && named_before(s, c))
			DUPLICATE(cs, AT(here, "name"), c->name);
		check_container(s, c, here, cs);
	}
	i = 0;
	LIST_EACH(c, &s->init_containers) {
		const struct at *here = AT_I(at, "initContainers", i++);
		if (c->name.len && named_before(s, c))
			DUPLICATE(cs, AT(here, "name"), c->name);
		check_container(s, c, here, cs);
		check_init_container(c, here, cs);
	}
	check_host_ports(s, at, cs);
}

void ephemeral_containers_validate(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(e, &s->ephemeral_containers) {
		const struct core_v1_container *c = (const struct core_v1_container *)&e->ephemeral_container_common;
		const struct at *here = AT_I(at, "ephemeralContainers", i++);
		bool taken = named_before(s, c);
		LIST_EACH(o, &s->init_containers)
			taken |= str_eq(o->name, c->name);
		for (const struct core_v1_ephemeral_container *o = s->ephemeral_containers.items; o < e; o++)
			taken |= str_eq(o->ephemeral_container_common.name, c->name);
		if (!c->name.len)
			REQUIRED(cs, AT(here, "name"), "");
		else if (taken)
			DUPLICATE(cs, AT(here, "name"), c->name);
		check_image(c->image, here, cs);
		check_env(c, here, cs);
		check_mounts(s, c, here, cs);
		const struct {
			bool set;
			const char *name;
		} parts[] = {
			{ c->ports.len, "ports" }, { c->liveness_probe, "livenessProbe" }, { c->readiness_probe, "readinessProbe" }, { c->startup_probe, "startupProbe" },
			{ c->lifecycle, "lifecycle" }, { c->resources.limits.len || c->resources.requests.len, "resources" },
		};
		for (size_t k = 0; k < ARRAY_LEN(parts); k++)
			if (parts[k].set)
				FORBIDDEN(cs, AT(here, parts[k].name), "cannot be set for an Ephemeral Container");
	}
}

/* ---- volumes ---- */

static size_t sources(const struct core_v1_volume_source *s)
{
	size_t n = 0;
	for (size_t i = 0; i < core_v1_volume_source_type.n_fields; i++)
		n += *(void *const *)cmember(s, &core_v1_volume_source_type.fields[i]) != NULL;
	return n;
}

static void check_items(const struct core_v1_key_to_path_items *items, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(k, items) {
		const struct at *here = AT_I(at, "items", i++);
		const char *bad;
		if (k->path.len && (bad = path_check(k->path, true)))
			INVALID(cs, AT(here, "path"), k->path, bad);
	}
}

static void check_downward(const struct core_v1_downward_api_volume_file_items *items, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(f, items) {
		const struct at *here = AT_I(at, "items", i++);
		const char *bad;
		if (f->path.len && (bad = path_check(f->path, true)))
			INVALID(cs, AT(here, "path"), f->path, bad);
		if (f->field_ref)
			check_field_ref(f->field_ref, volume_field_paths, AT(here, "fieldRef"), cs);
		else if (!f->resource_field_ref)
			REQUIRED(cs, here, "one of fieldRef and resourceFieldRef is required");
	}
}

static void check_projected(const struct core_v1_projected_volume_source *p, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(s, &p->sources) {
		const struct at *here = AT_I(at, "sources", i++);
		if (s->secret && !s->secret->local_object_reference.name.len)
			REQUIRED(cs, AT(AT(here, "secret"), "name"), "");
		if (s->config_map && !s->config_map->local_object_reference.name.len)
			REQUIRED(cs, AT(AT(here, "configMap"), "name"), "");
		if (s->service_account_token && !s->service_account_token->path.len)
			REQUIRED(cs, AT(AT(here, "serviceAccountToken"), "path"), "");
		if (s->downward_api)
			check_downward(&s->downward_api->items, AT(here, "downwardAPI"), cs);
	}
}

static void check_volumes(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(v, &s->volumes) {
		const struct at *here = AT_I(at, "volumes", i++);
		const struct core_v1_volume_source *src = &v->volume_source;
		const char *bad;
		for (const struct core_v1_volume *o = s->volumes.items; v->name.len && o < v; o++)
			if (str_eq(o->name, v->name)) {
				DUPLICATE(cs, AT(here, "name"), v->name);
				break;
			}
		size_t n = sources(src);
		if (n == 0)
			REQUIRED(cs, here, "must specify a volume type");
		else if (n > 1)
			FORBIDDEN(cs, here, "may not specify more than 1 volume type");
		if (src->host_path && (bad = path_check(src->host_path->path, false)))
			INVALID(cs, AT(AT(here, "hostPath"), "path"), src->host_path->path, bad);
		if (src->secret) {
			if (!src->secret->secret_name.len)
				REQUIRED(cs, AT(AT(here, "secret"), "secretName"), "");
			check_items(&src->secret->items, AT(here, "secret"), cs);
		}
		if (src->config_map) {
			if (!src->config_map->local_object_reference.name.len)
				REQUIRED(cs, AT(AT(here, "configMap"), "name"), "");
			check_items(&src->config_map->items, AT(here, "configMap"), cs);
		}
		if (src->downward_api)
			check_downward(&src->downward_api->items, AT(here, "downwardAPI"), cs);
		if (src->projected)
			check_projected(src->projected, AT(here, "projected"), cs);
	}
}

/* ---- the rest of the spec ---- */

static void check_tolerations(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(t, &s->tolerations) {
		const struct at *here = AT_I(at, "tolerations", i++);
		bool exists = str_eqz(t->operator, "Exists");
		const char *bad;
		if (t->key.len && (bad = valid_label_key(t->key)))
			INVALID(cs, AT(here, "key"), t->key, bad);
		if (!t->key.len && !exists)
			INVALID(cs, AT(here, "operator"), shown(t->operator), "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
		if (t->toleration_seconds.set && !str_eqz(t->effect, "NoExecute"))
			INVALID(cs, AT(here, "effect"), shown(t->effect), "effect must be 'NoExecute' when `tolerationSeconds` is set");
		if (exists && t->value.len)
			INVALID(cs, AT(here, "operator"), t->operator, "value must be empty when `operator` is 'Exists'");
		else if (!exists && (bad = valid_label_value(t->value)))
			INVALID(cs, AT(here, "value"), t->value, bad);
	}
}

static void check_names(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	const struct {
		struct str value;
		const char *name;
		const char *(*check)(struct str);
	} names[] = {
		{ s->service_account_name, "serviceAccountName", valid_dns_subdomain },
		{ s->node_name, "nodeName", valid_dns_subdomain },
		{ s->hostname, "hostname", valid_dns_label },
		{ s->subdomain, "subdomain", valid_dns_label },
		{ s->priority_class_name, "priorityClassName", valid_dns_subdomain },
		{ s->runtime_class_name, "runtimeClassName", valid_dns_subdomain },
		{ s->scheduler_name, "schedulerName", valid_label_key },
	};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *bad = names[i].value.len ? names[i].check(names[i].value) : NULL;
		if (bad)
			INVALID(cs, AT(at, names[i].name), names[i].value, bad);
	}
}

void pod_spec_validate(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	check_volumes(s, at, cs);
	pod_containers_validate(s, at, cs);
	check_names(s, at, cs);
	if (s->node_selector.len)
		meta_validate_labels(&s->node_selector, at_text(AT(at, "nodeSelector"), cs->arena), cs);
	check_tolerations(s, at, cs);
	if (s->active_deadline_seconds.set && (s->active_deadline_seconds.value < 1 || s->active_deadline_seconds.value > INT32_MAX))
		INVALID_NUM(cs, AT(at, "activeDeadlineSeconds"), s->active_deadline_seconds.value, "must be between 1 and 2147483647, inclusive");
	if (str_eqz(s->dns_policy, "None") && !s->dns_config)
		REQUIRED(cs, AT(at, "dnsConfig"), "must provide `dnsConfig` when `dnsPolicy` is None");
	else if (str_eqz(s->dns_policy, "None") && !s->dns_config->nameservers.len)
		REQUIRED(cs, AT(AT(at, "dnsConfig"), "nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
	size_t i = 0;
	LIST_EACH(h, &s->host_aliases) {
		const struct at *here = AT_I(at, "hostAliases", i++);
		const char *bad = valid_ip(h->ip);
		if (bad)
			INVALID(cs, AT(here, "ip"), shown(h->ip), bad);
	}
}

void template_validate(const struct core_v1_pod_template_spec *t, const struct at *at, bool always, struct causes *cs)
{
	const struct at *spec = AT(at, "spec");
	meta_validate_labels(&t->metadata.labels, at_text(AT(AT(at, "metadata"), "labels"), cs->arena), cs);
	meta_validate_annotations(&t->metadata.annotations, at_text(AT(AT(at, "metadata"), "annotations"), cs->arena), cs);
	pod_spec_validate(&t->spec, spec, cs);
	if (t->spec.ephemeral_containers.len)
		FORBIDDEN(cs, AT(spec, "ephemeralContainers"), "ephemeral containers not allowed in pod template");
	if (!always)
		return;
	if (!str_eqz(t->spec.restart_policy, "Always"))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(spec, "restartPolicy"), shown(t->spec.restart_policy), "supported values: \"Always\"");
	if (t->spec.active_deadline_seconds.set)
		FORBIDDEN(cs, AT(spec, "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported");
}

void selector_mismatch(const struct str_map *labels, struct causes *cs)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(p, labels)
		buf_addf(&b, "%s\"" STR_FMT "\":\"" STR_FMT "\"", b.len ? "," : "", STR_ARG(p->key), STR_ARG(p->value));
	cause_add(cs, CAUSE_INVALID, STR("spec.template.metadata.labels"), STR_NONE, "{" STR_FMT "}: `selector` does not match template `labels`",
		STR_ARG(buf_str(&b)));
}

void selector_template_validate(const struct meta_v1_label_selector *s, const struct core_v1_pod_template_spec *t, const char *what, struct causes *cs)
{
	const struct at *at = AT(AT(NULL, "spec"), "selector");
	struct selector *sel;
	struct err err;
	if (!s)
		return; /* required: the schema says so */
	if (!s->match_labels.len && !s->match_expressions.len)
		cause_at(cs, CAUSE_INVALID, at, STR_NONE, "{}: empty selector is invalid for %s", what);
	else if (selector_from_label_selector(s, cs->arena, &sel, &err))
		INVALID(cs, at, STR(""), err.text);
	else if (!selector_matches(sel, &t->metadata.labels))
		selector_mismatch(&t->metadata.labels, cs);
}
