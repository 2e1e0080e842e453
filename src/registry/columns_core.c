/* Cells of nodes, services, endpoints, events, configuration and volumes. */
#include "registry/columns.h"

/* ---- nodes ---- */

static void node_status(struct cell *c, const void *obj)
{
	const struct core_v1_node *n = obj;
	const char *text = "Unknown";
	LIST_EACH(cond, &n->status.conditions) {
		if (str_eqz(cond->type, "Ready"))
			text = str_eqz(cond->status, "True") ? "Ready" : "NotReady";
	}
	cell_fmt(c, "%s%s", text, n->spec.unschedulable ? ",SchedulingDisabled" : "");
}

static int by_text(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static void node_roles(struct cell *c, const void *obj)
{
	const struct core_v1_node *n = obj;
	const struct str prefix = STR("node-role.kubernetes.io/");
	struct str_list roles = { 0 };
	LIST_EACH(l, &n->metadata.labels) {
		struct str role = str_has_prefix(l->key, prefix) ? str_from(l->key, prefix.len)
			: str_eqz(l->key, "kubernetes.io/role")  ? l->value
								 : STR_NONE;
		if (role.len && !str_list_has(&roles, role))
			*LIST_ADD(c->arena, &roles) = role;
	}
	if (roles.len)
		qsort(roles.items, roles.len, sizeof(*roles.items), by_text);
	cell_list(c, &roles, SIZE_MAX, "<none>");
}

static void node_address(struct cell *c, const void *obj, const char *type)
{
	const struct core_v1_node *n = obj;
	LIST_EACH(a, &n->status.addresses) {
		if (str_eqz(a->type, type)) {
			cell_text(c, a->address);
			return;
		}
	}
	cell_textz(c, "<none>");
}

static void node_internal_ip(struct cell *c, const void *obj)
{
	node_address(c, obj, "InternalIP");
}

static void node_external_ip(struct cell *c, const void *obj)
{
	node_address(c, obj, "ExternalIP");
}

/* ---- services ---- */

static void service_cluster_ip(struct cell *c, const void *obj)
{
	const struct core_v1_service *s = obj;
	cell_or(c, s->spec.cluster_ips.len ? s->spec.cluster_ips.items[0] : s->spec.cluster_ip,
		"<none>");
}

static struct str load_balancer(struct cell *c, const struct core_v1_load_balancer_status *lb)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(i, &lb->ingress)
		buf_addf(&b, "%s" STR_FMT, b.len ? "," : "",
			STR_ARG(i->ip.len ? i->ip : i->hostname));
	return arena_str(c->arena, buf_str(&b));
}

static void service_external_ip(struct cell *c, const void *obj)
{
	const struct core_v1_service *s = obj;
	CLEAN_BUF struct buf b = { 0 };
	bool balanced = str_eqz(s->spec.type, "LoadBalancer");
	if (str_eqz(s->spec.type, "ExternalName")) {
		cell_text(c, s->spec.external_name);
		return;
	}
	if (balanced)
		buf_add_str(&b, load_balancer(c, &s->status.load_balancer));
	LIST_EACH(ip, &s->spec.external_ips)
		buf_addf(&b, "%s" STR_FMT, b.len ? "," : "", STR_ARG(*ip));
	cell_or(c, buf_str(&b), balanced ? "<pending>" : "<none>");
}

static void service_ports(struct cell *c, const void *obj)
{
	const struct core_v1_service *s = obj;
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(p, &s->spec.ports) {
		buf_addf(&b, "%s%d", b.len ? "," : "", p->port);
		if (p->node_port)
			buf_addf(&b, ":%d", p->node_port);
		buf_addf(&b, "/" STR_FMT, STR_ARG(p->protocol));
	}
	cell_or(c, buf_str(&b), "<none>");
}

static void service_selector(struct cell *c, const void *obj)
{
	cell_text(c, labels_text(c, &((const struct core_v1_service *)obj)->spec.selector));
}

static void endpoints_endpoints(struct cell *c, const void *obj)
{
	const struct core_v1_endpoints *e = obj;
	struct str_list all = { 0 };
	LIST_EACH(s, &e->subsets) {
		if (!s->ports.len)
			LIST_EACH(a, &s->addresses)
				*LIST_ADD(c->arena, &all) = a->ip;
		LIST_EACH(p, &s->ports) {
			LIST_EACH(a, &s->addresses)
				*LIST_ADD(c->arena, &all) = arena_fmt(c->arena,
					str_find(a->ip, ':') < 0 ? STR_FMT ":%d"
								 : "[" STR_FMT "]:%d",
					STR_ARG(a->ip), p->port);
		}
	}
	cell_list(c, &all, 3, e->subsets.len ? "" : "<none>");
}

static void slice_ports(struct cell *c, const void *obj)
{
	const struct discovery_v1_endpoint_slice *s = obj;
	struct str_list all = { 0 };
	LIST_EACH(p, &s->ports)
		*LIST_ADD(c->arena, &all) = p->port.set ? arena_fmt(c->arena, "%d", p->port.value)
			: p->name.len                   ? p->name
							: STR("*");
	cell_list(c, &all, 3, "<unset>");
}

static void slice_endpoints(struct cell *c, const void *obj)
{
	const struct discovery_v1_endpoint_slice *s = obj;
	struct str_list all = { 0 };
	LIST_EACH(e, &s->endpoints) {
		for (size_t i = 0; i < e->addresses.len; i++)
			*LIST_ADD(c->arena, &all) = e->addresses.items[i];
	}
	cell_list(c, &all, 3, "<unset>");
}

/* ---- events ---- */

static struct str event_first(struct cell *c, const struct core_v1_event *e)
{
	return since_text(c, time_is_zero(e->first_timestamp) ? e->event_time : e->first_timestamp);
}

static void event_last_seen(struct cell *c, const void *obj)
{
	const struct core_v1_event *e = obj;
	if (e->series)
		cell_since(c, e->series->last_observed_time);
	else
		cell_text(c,
			time_is_zero(e->last_timestamp) ? event_first(c, e)
							: since_text(c, e->last_timestamp));
}

static void event_first_seen(struct cell *c, const void *obj)
{
	cell_text(c, event_first(c, obj));
}

static void event_type(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct core_v1_event *)obj)->type);
}

static void event_reason(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct core_v1_event *)obj)->reason);
}

static void event_object(struct cell *c, const void *obj)
{
	const struct core_v1_object_reference *o =
		&((const struct core_v1_event *)obj)->involved_object;
	struct str kind = arena_str(c->arena, o->kind);
	for (size_t i = 0; i < kind.len; i++)
		if (kind.p[i] >= 'A' && kind.p[i] <= 'Z')
			((char *)kind.p)[i] += 'a' - 'A';
	cell_fmt(c, STR_FMT "%s" STR_FMT, STR_ARG(kind), o->name.len ? "/" : "", STR_ARG(o->name));
}

static void event_subobject(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct core_v1_event *)obj)->involved_object.field_path);
}

static void event_source(struct cell *c, const void *obj)
{
	const struct core_v1_event *e = obj;
	struct str component =
		e->source.component.len ? e->source.component : e->reporting_component;
	struct str host = e->source.host.len ? e->source.host
		: e->source.component.len    ? STR_NONE
					     : e->reporting_instance;
	cell_fmt(c, STR_FMT "%s" STR_FMT, STR_ARG(component), host.len ? ", " : "", STR_ARG(host));
}

static void event_message(struct cell *c, const void *obj)
{
	cell_text(c, str_trim(((const struct core_v1_event *)obj)->message));
}

static void event_count(struct cell *c, const void *obj)
{
	const struct core_v1_event *e = obj;
	cell_int(c, e->series ? e->series->count : e->count ? e->count : 1);
}

/* ---- configuration ---- */

static void secret_data(struct cell *c, const void *obj)
{
	cell_int(c, (int64_t)((const struct core_v1_secret *)obj)->data.len);
}

static void config_map_data(struct cell *c, const void *obj)
{
	const struct core_v1_config_map *m = obj;
	cell_int(c, (int64_t)(m->data.len + m->binary_data.len));
}

static void quota(struct cell *c, const void *obj, bool limits)
{
	const struct core_v1_resource_quota *q = obj;
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(h, &q->status.hard) {
		struct str used = str_map_get(&q->status.used, h->key);
		if (str_has_prefix(h->key, STR("limits.")) == limits)
			buf_addf(&b, "%s" STR_FMT ": " STR_FMT "/" STR_FMT, b.len ? ", " : "",
				STR_ARG(h->key), STR_ARG(used.len ? used : STR("0")),
				STR_ARG(h->value));
	}
	cell_text(c, buf_str(&b));
}

static void quota_request(struct cell *c, const void *obj)
{
	quota(c, obj, false);
}

static void quota_limit(struct cell *c, const void *obj)
{
	quota(c, obj, true);
}

static void component_status(struct cell *c, const void *obj)
{
	const struct core_v1_component_status *s = obj;
	LIST_EACH(cond, &s->conditions) {
		if (str_eqz(cond->type, "Healthy"))
			cell_textz(c, str_eqz(cond->status, "True") ? "Healthy" : "Unhealthy");
		return;
	}
	cell_textz(c, "Unknown");
}

static void component_message(struct cell *c, const void *obj)
{
	const struct core_v1_component_status *s = obj;
	cell_text(c, s->conditions.len ? s->conditions.items[0].message : STR_NONE);
}

static void component_error(struct cell *c, const void *obj)
{
	const struct core_v1_component_status *s = obj;
	cell_text(c, s->conditions.len ? s->conditions.items[0].error : STR_NONE);
}

/* ---- volumes ---- */

static void access_modes(struct cell *c, const struct str_list *l)
{
	static const char *const names[][2] = {
		{ "ReadWriteOnce", "RWO" },
		{ "ReadOnlyMany", "ROX" },
		{ "ReadWriteMany", "RWX" },
		{ "ReadWriteOncePod", "RWOP" },
	};
	CLEAN_BUF struct buf b = { 0 };
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_list_has(l, str_of(names[i][0])))
			buf_addf(&b, "%s%s", b.len ? "," : "", names[i][1]);
	cell_text(c, buf_str(&b));
}

static const struct str beta_class = { "volume.beta.kubernetes.io/storage-class", 39 };

static void pv_capacity(struct cell *c, const void *obj)
{
	cell_text(c,
		str_map_get(&((const struct core_v1_persistent_volume *)obj)->spec.capacity,
			STR("storage")));
}

static void pv_access_modes(struct cell *c, const void *obj)
{
	access_modes(c, &((const struct core_v1_persistent_volume *)obj)->spec.access_modes);
}

static void pv_status(struct cell *c, const void *obj)
{
	const struct core_v1_persistent_volume *v = obj;
	cell_text(c,
		time_is_zero(v->metadata.deletion_timestamp) ? v->status.phase
							     : STR("Terminating"));
}

static void pv_claim(struct cell *c, const void *obj)
{
	const struct core_v1_object_reference *r =
		((const struct core_v1_persistent_volume *)obj)->spec.claim_ref;
	if (r)
		cell_fmt(c, STR_FMT "/" STR_FMT, STR_ARG(r->namespace), STR_ARG(r->name));
	else
		cell_textz(c, "");
}

static void pv_class(struct cell *c, const void *obj)
{
	const struct core_v1_persistent_volume *v = obj;
	struct str beta = str_map_get(&v->metadata.annotations, beta_class);
	cell_text(c, beta.p ? beta : v->spec.storage_class_name);
}

static void pv_attributes_class(struct cell *c, const void *obj)
{
	cell_or(c,
		((const struct core_v1_persistent_volume *)obj)->spec.volume_attributes_class_name,
		"<unset>");
}

static void pv_mode(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct core_v1_persistent_volume *)obj)->spec.volume_mode, "<unset>");
}

static void pvc_status(struct cell *c, const void *obj)
{
	const struct core_v1_persistent_volume_claim *v = obj;
	cell_text(c,
		time_is_zero(v->metadata.deletion_timestamp) ? v->status.phase
							     : STR("Terminating"));
}

static void pvc_capacity(struct cell *c, const void *obj)
{
	const struct core_v1_persistent_volume_claim *v = obj;
	cell_text(c,
		v->spec.volume_name.len ? str_map_get(&v->status.capacity, STR("storage"))
					: STR_NONE);
}

static void pvc_access_modes(struct cell *c, const void *obj)
{
	const struct core_v1_persistent_volume_claim *v = obj;
	const struct str_list none = { 0 };
	access_modes(c, v->spec.volume_name.len ? &v->status.access_modes : &none);
}

static void pvc_class(struct cell *c, const void *obj)
{
	const struct core_v1_persistent_volume_claim *v = obj;
	struct str beta = str_map_get(&v->metadata.annotations, beta_class);
	cell_text(c, beta.p ? beta : v->spec.storage_class_name);
}

static void pvc_attributes_class(struct cell *c, const void *obj)
{
	cell_or(c,
		((const struct core_v1_persistent_volume_claim *)obj)
			->spec.volume_attributes_class_name,
		"<unset>");
}

static void pvc_mode(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct core_v1_persistent_volume_claim *)obj)->spec.volume_mode,
		"<unset>");
}

const struct column_fn core_columns[] = {
	{ "node_status", node_status },
	{ "node_roles", node_roles },
	{ "node_internal_ip", node_internal_ip },
	{ "node_external_ip", node_external_ip },
	{ "service_cluster_ip", service_cluster_ip },
	{ "service_external_ip", service_external_ip },
	{ "service_port_s", service_ports },
	{ "service_selector", service_selector },
	{ "endpoints_endpoints", endpoints_endpoints },
	{ "endpoint_slice_ports", slice_ports },
	{ "endpoint_slice_endpoints", slice_endpoints },
	{ "event_last_seen", event_last_seen },
	{ "event_first_seen", event_first_seen },
	{ "event_type", event_type },
	{ "event_reason", event_reason },
	{ "event_object", event_object },
	{ "event_subobject", event_subobject },
	{ "event_source", event_source },
	{ "event_message", event_message },
	{ "event_count", event_count },
	{ "secret_data", secret_data },
	{ "config_map_data", config_map_data },
	{ "resource_quota_request", quota_request },
	{ "resource_quota_limit", quota_limit },
	{ "component_status_status", component_status },
	{ "component_status_message", component_message },
	{ "component_status_error", component_error },
	{ "persistent_volume_capacity", pv_capacity },
	{ "persistent_volume_access_modes", pv_access_modes },
	{ "persistent_volume_status", pv_status },
	{ "persistent_volume_claim", pv_claim },
	{ "persistent_volume_storageclass", pv_class },
	{ "persistent_volume_volumeattributesclass", pv_attributes_class },
	{ "persistent_volume_volumemode", pv_mode },
	{ "persistent_volume_claim_status", pvc_status },
	{ "persistent_volume_claim_capacity", pvc_capacity },
	{ "persistent_volume_claim_access_modes", pvc_access_modes },
	{ "persistent_volume_claim_storageclass", pvc_class },
	{ "persistent_volume_claim_volumeattributesclass", pvc_attributes_class },
	{ "persistent_volume_claim_volumemode", pvc_mode },
	{ 0 },
};
