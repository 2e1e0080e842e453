/* Containers of a pod, whether they run first, beside or were added later: names, ports, environment, mounts, resources, probes. */
#include "base/map.h"
#include "registry/kinds/kinds.h"

_Static_assert(
	sizeof(struct core_v1_ephemeral_container_common) == sizeof(struct core_v1_container),
	"one check serves both");

static const char *env_name_check(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] < ' ' || s.p[i] > '~' || s.p[i] == '=')
			return "a valid environment variable name must consist only of printable ASCII characters other than '='";
	return NULL;
}

const char *const pod_field_paths[] = { "metadata.name", "metadata.namespace", "metadata.uid",
	"spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs",
	"status.podIP", "status.podIPs", NULL };
const char *const volume_field_paths[] = { "metadata.name", "metadata.namespace", "metadata.labels",
	"metadata.annotations", "metadata.uid", NULL };

static bool subscript(struct str s)
{
	return (str_has_prefix(s, STR("metadata.labels['")) ||
		       str_has_prefix(s, STR("metadata.annotations['"))) &&
		str_has_suffix(s, STR("']"));
}

void field_ref_validate(const struct core_v1_object_field_selector *f, const char *const *allowed,
	const struct at *at, struct causes *cs)
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
	cause_at(cs, CAUSE_NOT_SUPPORTED, AT(at, "fieldPath"), f->field_path,
		"supported values: " STR_FMT, STR_ARG(buf_str(&b)));
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
		int n = !!s->field_ref + !!s->resource_field_ref + !!s->config_map_key_ref +
			!!s->secret_key_ref + !!s->file_key_ref;
		if (e->value.len && n)
			INVALID(cs, from, STR(""),
				"may not be specified when `value` is not empty");
		if (n == 0)
			INVALID(cs, from, STR(""),
				"must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
		else if (n > 1)
			INVALID(cs, from, STR(""),
				"may not have more than one field specified at a time");
		if (s->field_ref)
			field_ref_validate(s->field_ref, pod_field_paths, AT(from, "fieldRef"), cs);
		if (s->config_map_key_ref)
			check_key_ref(s->config_map_key_ref->local_object_reference.name,
				s->config_map_key_ref->key, AT(from, "configMapKeyRef"), cs);
		if (s->secret_key_ref)
			check_key_ref(s->secret_key_ref->local_object_reference.name,
				s->secret_key_ref->key, AT(from, "secretKeyRef"), cs);
	}
	i = 0;
	LIST_EACH(e, &c->env_from) {
		const struct at *here = AT_I(at, "envFrom", i++);
		int n = !!e->config_map_ref + !!e->secret_ref;
		if (n != 1)
			INVALID(cs, here, STR(""),
				n ? "may not have more than one field specified at a time"
				  : "must specify one of: `configMapRef` or `secretRef`");
		if (e->config_map_ref && !e->config_map_ref->local_object_reference.name.len)
			REQUIRED(cs, AT(AT(here, "configMapRef"), "name"), "");
		if (e->secret_ref && !e->secret_ref->local_object_reference.name.len)
			REQUIRED(cs, AT(AT(here, "secretRef"), "name"), "");
	}
}

static void check_ports(const struct core_v1_container *c, bool host_network, const struct at *at,
	struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(p, &c->ports) {
		const struct at *here = AT_I(at, "ports", i++);
		const char *bad;
		if (p->name.len && (bad = valid_port_name(p->name)))
			INVALID(cs, AT(here, "name"), p->name, bad);
		for (const struct core_v1_container_port *q = c->ports.items; p->name.len && q < p;
			q++)
			if (str_eq(q->name, p->name)) {
				DUPLICATE(cs, AT(here, "name"), p->name);
				break;
			}
		if (host_network && p->host_port && p->host_port != p->container_port)
			INVALID_NUM(cs, AT(here, "containerPort"), p->container_port,
				"must match `hostPort` when `hostNetwork` is true");
	}
}

const char *path_check(struct str path, bool relative)
{
	if (relative && path.len && path.p[0] == '/')
		return "must be a relative path";
	for (size_t i = 0; i + 1 < path.len; i++)
		if (path.p[i] == '.' && path.p[i + 1] == '.' && (i == 0 || path.p[i - 1] == '/') &&
			(i + 2 == path.len || path.p[i + 2] == '/'))
			return "must not contain '..'";
	return NULL;
}

#define FEW_MOUNTS 8 /* for so many the volumes are searched; for more they are indexed */

static bool has_volume(const struct core_v1_pod_spec *s, const struct map *index, struct str name)
{
	if (index->len)
		return map_get(index, name);
	LIST_EACH(v, &s->volumes) {
		if (str_eq(v->name, name))
			return true;
	}
	return false;
}

static void check_mounts(const struct core_v1_pod_spec *s, const struct core_v1_container *c,
	const struct at *at, struct causes *cs)
{
	size_t i = 0;
	struct map volumes = { 0 }, paths = { 0 };
	if (c->volume_mounts.len > FEW_MOUNTS)
		LIST_EACH(v, &s->volumes)
			map_set(&volumes, v->name, v);
	LIST_EACH(m, &c->volume_mounts) {
		const struct at *here = AT_I(at, "volumeMounts", i++);
		const char *bad;
		if (m->name.len && !has_volume(s, &volumes, m->name))
			cause_at(cs, CAUSE_NOT_FOUND, AT(here, "name"), m->name, "%s", "");
		if (m->mount_path.len && map_set(&paths, m->mount_path, m))
			INVALID(cs, AT(here, "mountPath"), m->mount_path, "must be unique");
		if (m->sub_path.len && (bad = path_check(m->sub_path, true)))
			INVALID(cs, AT(here, "subPath"), m->sub_path, bad);
		if (m->sub_path_expr.len && (bad = path_check(m->sub_path_expr, true)))
			INVALID(cs, AT(here, "subPathExpr"), m->sub_path_expr, bad);
		if (m->sub_path.len && m->sub_path_expr.len)
			INVALID(cs, AT(here, "subPathExpr"), m->sub_path_expr,
				"subPathExpr and subPath are mutually exclusive");
	}
	map_deinit(&volumes, NULL);
	map_deinit(&paths, NULL);
}

static bool standard_resource(struct str name)
{
	static const char *const known[] = { "cpu", "memory", "ephemeral-storage", NULL };
	return text_among(name, known) || str_has_prefix(name, STR("hugepages-"));
}

static void check_amounts(
	const struct str_map *m, const char *name, const struct at *at, struct causes *cs)
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
			INVALID(cs, here, e->value,
				"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
		else if (q.nano < 0)
			INVALID(cs, here, e->value, "must be greater than or equal to 0");
	}
}

static void check_resources(
	const struct core_v1_resource_requirements *r, const struct at *at, struct causes *cs)
{
	if (!r->limits.len && !r->requests.len)
		return;
	check_amounts(&r->limits, "limits", at, cs);
	check_amounts(&r->requests, "requests", at, cs);
	LIST_EACH(e, &r->requests) {
		struct quantity q, limit;
		struct str text = str_map_get(&r->limits, e->key);
		bool overcommit =
			standard_resource(e->key) && !str_has_prefix(e->key, STR("hugepages-"));
		if (!text.p) {
			if (!overcommit)
				INVALID(cs, AT_KEY(at, "limits", e->key), STR_NONE,
					"Limit must be set for non overcommitable resources");
			continue;
		}
		if (quantity_parse(e->value, &q) || quantity_parse(text, &limit))
			continue;
		if (!overcommit && quantity_cmp(q, limit) != 0)
			cause_at(cs, CAUSE_INVALID, AT(at, "requests"), e->value,
				"must be equal to " STR_FMT " limit of " STR_FMT, STR_ARG(e->key),
				STR_ARG(text));
		else if (quantity_cmp(q, limit) > 0)
			cause_at(cs, CAUSE_INVALID, AT(at, "requests"), e->value,
				"must be less than or equal to " STR_FMT " limit of " STR_FMT,
				STR_ARG(e->key), STR_ARG(text));
	}
}

static void check_port_ref(struct int_or_str port, const struct at *at, struct causes *cs)
{
	const char *bad;
	if (port.kind == IOS_STR ? !!(bad = valid_port_name(port.text))
				 : (bad = NULL, port.num < 1 || port.num > 65535))
		refuse_port(cs, AT(at, "port"), port, bad);
}

static void check_handler(const struct core_v1_exec_action *exec,
	const struct core_v1_http_get_action *http, const struct core_v1_tcp_socket_action *tcp,
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

static void check_probe(const struct core_v1_probe *p, const char *name, bool once,
	const struct at *at, struct causes *cs)
{
	if (!p)
		return;
	const struct core_v1_probe_handler *h = &p->handler;
	const struct at *here = AT(at, name);
	check_handler(h->exec, h->http_get, h->tcp_socket,
		!!h->exec + !!h->http_get + !!h->tcp_socket + !!h->grpc, here, cs);
	if (once && p->success_threshold != 1)
		INVALID_NUM(cs, AT(here, "successThreshold"), p->success_threshold, "must be 1");
	if (p->termination_grace_period_seconds.set &&
		p->termination_grace_period_seconds.value <= 0)
		INVALID_NUM(cs, AT(here, "terminationGracePeriodSeconds"),
			p->termination_grace_period_seconds.value, "must be greater than 0");
}

static void check_lifecycle(
	const struct core_v1_lifecycle *l, const struct at *at, struct causes *cs)
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
			check_handler(h->exec, h->http_get, h->tcp_socket,
				!!h->exec + !!h->http_get + !!h->tcp_socket + !!h->sleep,
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

/* The action RestartAllContainers is not there: who asks for it is told, rather than left without. */
static void check_restart_rules(
	const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	if (c->restart_policy_rules.len && !c->restart_policy.len)
		REQUIRED(cs, AT(at, "restartPolicy"),
			"must specify restartPolicy when restart rules are used");
	if (c->restart_policy_rules.len > 20)
		cause_at(cs, CAUSE_TOO_MANY, AT(at, "restartPolicyRules"), STR_NONE,
			"%zu: must have at most 20 items", c->restart_policy_rules.len);
	LIST_EACH(r, &c->restart_policy_rules) {
		const struct at *here = AT_I(at, "restartPolicyRules", i++);
		if (str_eqz(r->action, "RestartAllContainers"))
			cause_at(cs, CAUSE_NOT_SUPPORTED, AT(here, "action"), r->action,
				"supported values: \"Restart\"");
		if (!r->exit_codes)
			REQUIRED(cs, AT(here, "exitCodes"), "must be specified");
		else if (r->exit_codes->values.len > 255)
			cause_at(cs, CAUSE_TOO_MANY, AT(AT(here, "exitCodes"), "values"), STR_NONE,
				"%zu: must have at most 255 items", r->exit_codes->values.len);
	}
}

static void check_container(const struct core_v1_pod_spec *s, const struct core_v1_container *c,
	const struct at *at, struct causes *cs)
{
	check_restart_rules(c, at, cs);
	check_image(c->image, at, cs);
	check_ports(c, s->host_network, at, cs);
	check_env(c, at, cs);
	check_mounts(s, c, at, cs);
	check_resources(&c->resources, AT(at, "resources"), cs);
	check_probe(c->liveness_probe, "livenessProbe", true, at, cs);
	check_probe(c->readiness_probe, "readinessProbe", false, at, cs);
	check_probe(c->startup_probe, "startupProbe", true, at, cs);
	check_lifecycle(c->lifecycle, at, cs);
	container_security_validate(c, at, cs);
}

static void check_init_container(
	const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	bool sidecar = str_eqz(c->restart_policy, "Always");
	const struct {
		bool set;
		const char *name;
	} parts[] = {
		{ c->lifecycle, "lifecycle" },
		{ c->liveness_probe, "livenessProbe" },
		{ c->readiness_probe, "readinessProbe" },
		{ c->startup_probe, "startupProbe" },
	};
	for (size_t i = 0; i < ARRAY_LEN(parts) && !sidecar; i++)
		if (parts[i].set)
			FORBIDDEN(cs, AT(at, parts[i].name),
				"may not be set for init containers without restartPolicy=Always");
}

static bool named_before(const struct core_v1_pod_spec *s, const struct core_v1_container *c)
{
	bool init = s->init_containers.len && c >= s->init_containers.items &&
		c < s->init_containers.items + s->init_containers.len;
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

static bool host_port_before(
	const struct core_v1_pod_spec *s, const struct core_v1_container_port *p)
{
	LIST_EACH(c, &s->containers) {
		LIST_EACH(o, &c->ports) {
			if (o == p)
				return false;
			if (o->host_port == p->host_port && str_eq(o->protocol, p->protocol) &&
				str_eq(o->host_ip, p->host_ip))
				return true;
		}
	}
	return false;
}

static void check_host_ports(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(c, &s->containers) {
		size_t k = 0, ci = i++;
		LIST_EACH(p, &c->ports) {
			size_t pi = k++;
			if (p->host_port && host_port_before(s, p))
				DUPLICATE(cs,
					AT(AT_I(AT_I(at, "containers", ci), "ports", pi),
						"hostPort"),
					arena_fmt(cs->arena, STR_FMT "/" STR_FMT "/%d",
						STR_ARG(p->protocol), STR_ARG(p->host_ip),
						p->host_port));
		}
	}
}

void pod_containers_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
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

static void check_target(
	const struct core_v1_pod_spec *s, struct str name, const struct at *at, struct causes *cs)
{
	bool there = !name.len;
	LIST_EACH(c, &s->containers)
		there |= str_eq(c->name, name);
	LIST_EACH(c, &s->init_containers)
		there |= str_eq(c->name, name);
	if (!there)
		cause_at(cs, CAUSE_NOT_FOUND, AT(at, "targetContainerName"), name, "%s", "");
}

void ephemeral_containers_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(e, &s->ephemeral_containers) {
		const struct core_v1_container *c =
			(const struct core_v1_container *)&e->ephemeral_container_common;
		const struct at *here = AT_I(at, "ephemeralContainers", i++);
		bool taken = named_before(s, c);
		LIST_EACH(o, &s->init_containers)
			taken |= str_eq(o->name, c->name);
		for (const struct core_v1_ephemeral_container *o = s->ephemeral_containers.items;
			o < e; o++)
			taken |= str_eq(o->ephemeral_container_common.name, c->name);
		if (!c->name.len)
			REQUIRED(cs, AT(here, "name"), "");
		else if (taken)
			DUPLICATE(cs, AT(here, "name"), c->name);
		check_target(s, e->target_container_name, here, cs);
		check_image(c->image, here, cs);
		check_env(c, here, cs);
		check_mounts(s, c, here, cs);
		const struct {
			bool set;
			const char *name;
		} parts[] = {
			{ c->ports.len, "ports" },
			{ c->liveness_probe, "livenessProbe" },
			{ c->readiness_probe, "readinessProbe" },
			{ c->startup_probe, "startupProbe" },
			{ c->lifecycle, "lifecycle" },
			{ c->restart_policy_rules.len, "restartPolicyRules" },
			{ c->resources.limits.len || c->resources.requests.len, "resources" },
		};
		for (size_t k = 0; k < ARRAY_LEN(parts); k++)
			if (parts[k].set)
				FORBIDDEN(cs, AT(here, parts[k].name),
					"cannot be set for an Ephemeral Container");
	}
}
