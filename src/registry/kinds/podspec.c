/* A pod's spec, in a pod or in a template: the defaults and rules that the schema cannot say. */
#include "base/map.h"
#include "registry/kinds/kinds.h"

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
		v->volume_source.image->pull_policy =
			pull_policy(v->volume_source.image->reference);
}

void pod_spec_fill(struct core_v1_pod_spec *s, struct arena *a)
{
	LIST_EACH(c, &s->init_containers)
		fill_container(c, s->host_network, a);
	LIST_EACH(c, &s->containers)
		fill_container(c, s->host_network, a);
	LIST_EACH(c, &s->ephemeral_containers)
		fill_container(
			(struct core_v1_container *)&c->ephemeral_container_common, false, a);
	LIST_EACH(v, &s->volumes)
		fill_volume(v, a);
	if (s->termination_grace_period_seconds.value < 0)
		s->termination_grace_period_seconds.value = 1;
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
		struct str request = str_map_get(&r->requests, str_of(names[i])),
			   limit = str_map_get(&r->limits, str_of(names[i]));
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

/* ---- volumes ---- */

static size_t sources(const struct core_v1_volume_source *s)
{
	size_t n = 0;
	for (size_t i = 0; i < core_v1_volume_source_type.n_fields; i++)
		n += *(void *const *)cmember(s, &core_v1_volume_source_type.fields[i]) != NULL;
	return n;
}

static void check_items(
	const struct core_v1_key_to_path_items *items, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(k, items) {
		const struct at *here = AT_I(at, "items", i++);
		const char *bad;
		if (k->path.len && (bad = path_check(k->path, true)))
			INVALID(cs, AT(here, "path"), k->path, bad);
	}
}

static void check_downward(const struct core_v1_downward_api_volume_file_items *items,
	const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(f, items) {
		const struct at *here = AT_I(at, "items", i++);
		const char *bad;
		if (f->path.len && (bad = path_check(f->path, true)))
			INVALID(cs, AT(here, "path"), f->path, bad);
		if (f->field_ref)
			field_ref_validate(
				f->field_ref, volume_field_paths, AT(here, "fieldRef"), cs);
		else if (!f->resource_field_ref)
			REQUIRED(cs, here, "one of fieldRef and resourceFieldRef is required");
	}
}

static void check_projected(
	const struct core_v1_projected_volume_source *p, const struct at *at, struct causes *cs)
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
	struct map names = { 0 };
	LIST_EACH(v, &s->volumes) {
		const struct at *here = AT_I(at, "volumes", i++);
		const struct core_v1_volume_source *src = &v->volume_source;
		const char *bad;
		if (v->name.len && map_set(&names, v->name, v))
			DUPLICATE(cs, AT(here, "name"), v->name);
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
	map_deinit(&names, NULL);
}

/* ---- the rest of the spec ---- */

static void check_tolerations(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(t, &s->tolerations) {
		const struct at *here = AT_I(at, "tolerations", i++);
		bool exists = str_eqz(t->operator, "Exists");
		const char *bad;
		if (t->key.len && (bad = valid_label_key(t->key)))
			INVALID(cs, AT(here, "key"), t->key, bad);
		if (!t->key.len && !exists)
			INVALID(cs, AT(here, "operator"), shown(t->operator),
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
		if (t->toleration_seconds.set && !str_eqz(t->effect, "NoExecute"))
			INVALID(cs, AT(here, "effect"), shown(t->effect),
				"effect must be 'NoExecute' when `tolerationSeconds` is set");
		if (exists && t->value.len)
			INVALID(cs, AT(here, "operator"), t->operator,
				"value must be empty when `operator` is 'Exists'");
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

static void check_hostname_override(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	const struct at *here = AT(at, "hostnameOverride");
	struct str name = s->hostname_override;
	if (!name.p)
		return;
	const char *bad = valid_dns_subdomain(name);
	if (s->set_hostname_as_fqdn.value)
		FORBIDDEN(cs, here, "may not be specified when setHostnameAsFQDN is true");
	if (s->host_network)
		FORBIDDEN(cs, here, "may not be specified when hostNetwork is true");
	if (name.len > 64)
		cause_at(cs, CAUSE_TOO_LONG, here, STR_NONE, "may not be more than 64 bytes");
	if (bad)
		INVALID(cs, here, shown(name), bad);
}

/* Segments of [a-z0-9]([-_a-z0-9]*[a-z0-9])? between dots or slashes. */
static bool sysctl_name_ok(struct str name)
{
	bool begins = true;
	for (size_t i = 0; i < name.len; i++) {
		char c = name.p[i];
		bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'),
		     end = i + 1 == name.len;
		bool before_end = !end && (name.p[i + 1] == '.' || name.p[i + 1] == '/');
		if (c == '.' || c == '/') {
			if (begins || end)
				return false;
			begins = true;
			continue;
		}
		if (!word && ((c != '-' && c != '_') || begins || end || before_end))
			return false;
		begins = false;
	}
	return name.len <= 253;
}

static void check_sysctls(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	const struct core_v1_sysctl_items *list = &s->security_context->sysctls;
	for (size_t i = 0; i < list->len; i++) {
		struct str name = list->items[i].name;
		const struct at *here = AT(AT_I(at, "sysctls", i), "name");
		bool twice = false;
		for (size_t k = 0; k < i; k++)
			twice |= str_eq(list->items[k].name, name);
		if (!name.len)
			REQUIRED(cs, here, "");
		else if (!sysctl_name_ok(name))
			INVALID(cs, here, name,
				"must have at most 253 characters and match regex "
				"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
		else if (twice)
			DUPLICATE(cs, here, name);
	}
}

void pod_spec_validate(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	check_volumes(s, at, cs);
	pod_containers_validate(s, at, cs);
	check_names(s, at, cs);
	check_hostname_override(s, at, cs);
	if (s->node_selector.len)
		meta_validate_labels(
			&s->node_selector, at_text(AT(at, "nodeSelector"), cs->arena), cs);
	check_tolerations(s, at, cs);
	pod_placement_validate(s, at, cs);
	pod_security_validate(s, at, cs);
	if (s->security_context)
		check_sysctls(s, AT(at, "securityContext"), cs);
	if (s->active_deadline_seconds.set &&
		(s->active_deadline_seconds.value < 1 ||
			s->active_deadline_seconds.value > INT32_MAX))
		INVALID_NUM(cs, AT(at, "activeDeadlineSeconds"), s->active_deadline_seconds.value,
			"must be between 1 and 2147483647, inclusive");
	if (str_eqz(s->dns_policy, "None") && !s->dns_config)
		REQUIRED(cs, AT(at, "dnsConfig"),
			"must provide `dnsConfig` when `dnsPolicy` is None");
	else if (str_eqz(s->dns_policy, "None") && !s->dns_config->nameservers.len)
		REQUIRED(cs, AT(AT(at, "dnsConfig"), "nameservers"),
			"must provide at least one DNS nameserver when `dnsPolicy` is None");
	size_t i = 0;
	LIST_EACH(h, &s->host_aliases) {
		const struct at *here = AT_I(at, "hostAliases", i++);
		const char *bad = valid_ip(h->ip);
		if (bad)
			INVALID(cs, AT(here, "ip"), shown(h->ip), bad);
	}
}

void template_validate(const struct core_v1_pod_template_spec *t, const struct at *at, bool always,
	struct causes *cs)
{
	const struct at *spec = AT(at, "spec");
	meta_validate_labels(
		&t->metadata.labels, at_text(AT(AT(at, "metadata"), "labels"), cs->arena), cs);
	meta_validate_annotations(&t->metadata.annotations,
		at_text(AT(AT(at, "metadata"), "annotations"), cs->arena), cs);
	pod_spec_validate(&t->spec, spec, cs);
	if (t->spec.ephemeral_containers.len)
		FORBIDDEN(cs, AT(spec, "ephemeralContainers"),
			"ephemeral containers not allowed in pod template");
	if (!always)
		return;
	if (!str_eqz(t->spec.restart_policy, "Always"))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(spec, "restartPolicy"),
			shown(t->spec.restart_policy), "supported values: \"Always\"");
	if (t->spec.active_deadline_seconds.set)
		FORBIDDEN(cs, AT(spec, "activeDeadlineSeconds"),
			"activeDeadlineSeconds in ReplicaSet is not Supported");
}

void selector_mismatch(const struct str_map *labels, struct causes *cs)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(p, labels)
		buf_addf(&b, "%s\"" STR_FMT "\":\"" STR_FMT "\"", b.len ? "," : "", STR_ARG(p->key),
			STR_ARG(p->value));
	cause_add(cs, CAUSE_INVALID, STR("spec.template.metadata.labels"), STR_NONE,
		"{" STR_FMT "}: `selector` does not match template `labels`", STR_ARG(buf_str(&b)));
}

void selector_template_validate(const struct meta_v1_label_selector *s,
	const struct core_v1_pod_template_spec *t, const char *what, struct causes *cs)
{
	const struct at *at = AT(AT(NULL, "spec"), "selector");
	struct selector *sel;
	struct err err;
	if (!s)
		return; /* required: the schema says so */
	if (!s->match_labels.len && !s->match_expressions.len)
		cause_at(cs, CAUSE_INVALID, at, STR_NONE, "{}: empty selector is invalid for %s",
			what);
	size_t before = cs->len;
	label_selector_validate(s, at, cs);
	if (cs->len == before && !selector_from_label_selector(s, cs->arena, &sel, &err) &&
		!selector_matches(sel, &t->metadata.labels))
		selector_mismatch(&t->metadata.labels, cs);
}
