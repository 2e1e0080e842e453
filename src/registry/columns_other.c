/* Cells of policy, RBAC, networking, storage classes, autoscaling, admission, flow control, certificates and resource claims. */
#include "registry/columns.h"

static struct str int_or_str_text(struct cell *c, struct int_or_str v)
{
	return v.kind == IOS_NONE   ? STR("N/A")
		: v.kind == IOS_STR ? v.text
				    : arena_fmt(c->arena, "%d", v.num);
}

static void budget_min(struct cell *c, const void *obj)
{
	cell_text(c,
		int_or_str_text(c,
			((const struct policy_v1_pod_disruption_budget *)obj)->spec.min_available));
}

static void budget_max(struct cell *c, const void *obj)
{
	cell_text(c,
		int_or_str_text(c,
			((const struct policy_v1_pod_disruption_budget *)obj)
				->spec.max_unavailable));
}

static void preemption_policy(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct scheduling_v1_priority_class *)obj)->preemption_policy,
		"PreemptLowerPriority");
}

static void lease_holder(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct coordination_v1_lease *)obj)->spec.holder_identity);
}

/* ---- RBAC: a RoleBinding and a ClusterRoleBinding have the same members ---- */

static void binding_role(struct cell *c, const void *obj)
{
	const struct rbac_v1_role_ref *r = &((const struct rbac_v1_role_binding *)obj)->role_ref;
	cell_fmt(c, STR_FMT "/" STR_FMT, STR_ARG(r->kind), STR_ARG(r->name));
}
_Static_assert(offsetof(struct rbac_v1_role_binding, role_ref) ==
		offsetof(struct rbac_v1_cluster_role_binding, role_ref),
	"one reader for both");
_Static_assert(offsetof(struct rbac_v1_role_binding, subjects) ==
		offsetof(struct rbac_v1_cluster_role_binding, subjects),
	"one reader for both");

static void binding_subjects(struct cell *c, const void *obj, const char *kind)
{
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(s, &((const struct rbac_v1_role_binding *)obj)->subjects) {
		if (!str_eqz(s->kind, kind))
			continue;
		buf_addz(&b, b.len ? ", " : "");
		if (!strcmp(kind, "ServiceAccount"))
			buf_addf(&b, STR_FMT "/", STR_ARG(s->namespace));
		buf_add_str(&b, s->name);
	}
	cell_text(c, buf_str(&b));
}

static void binding_users(struct cell *c, const void *obj)
{
	binding_subjects(c, obj, "User");
}

static void binding_groups(struct cell *c, const void *obj)
{
	binding_subjects(c, obj, "Group");
}

static void binding_accounts(struct cell *c, const void *obj)
{
	binding_subjects(c, obj, "ServiceAccount");
}

/* ---- certificates ---- */

static void csr_duration(struct cell *c, const void *obj)
{
	struct opt_int32 s = ((const struct certificates_v1_certificate_signing_request *)obj)
				     ->spec.expiration_seconds;
	char text[DURATION_TEXT_MAX];
	cell_text(c, s.set ? str_n(text, duration_human(s.value, text)) : STR("<none>"));
}

static void csr_condition(struct cell *c, const void *obj)
{
	const struct certificates_v1_certificate_signing_request *r = obj;
	bool approved = false, denied = false, failed = false;
	LIST_EACH(it, &r->status.conditions) {
		approved |= str_eqz(it->type, "Approved");
		denied |= str_eqz(it->type, "Denied");
		failed |= str_eqz(it->type, "Failed");
	}
	cell_fmt(c, "%s%s%s",
		denied             ? "Denied"
			: approved ? "Approved"
				   : "Pending",
		failed ? ",Failed" : "", r->status.certificate.len ? ",Issued" : "");
}

/* ---- networking ---- */

static void ingress_class(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct networking_v1_ingress *)obj)->spec.ingress_class_name, "<none>");
}

static void ingress_hosts(struct cell *c, const void *obj)
{
	struct str_list hosts = { 0 };
	LIST_EACH(r, &((const struct networking_v1_ingress *)obj)->spec.rules) {
		if (r->host.len)
			*LIST_ADD(c->arena, &hosts) = r->host;
	}
	cell_list(c, &hosts, 3, "*");
}

static void ingress_address(struct cell *c, const void *obj)
{
	struct str_list l = { 0 };
	LIST_EACH(i, &((const struct networking_v1_ingress *)obj)->status.load_balancer.ingress)
		*LIST_ADD(c->arena, &l) = i->ip.len ? i->ip : i->hostname;
	cell_list(c, &l, SIZE_MAX, "");
}

static void ingress_ports(struct cell *c, const void *obj)
{
	cell_textz(c, ((const struct networking_v1_ingress *)obj)->spec.tls.len ? "80, 443" : "80");
}

static void ingress_class_parameters(struct cell *c, const void *obj)
{
	const struct networking_v1_ingress_class_parameters_reference *p =
		((const struct networking_v1_ingress_class *)obj)->spec.parameters;
	if (!p)
		cell_textz(c, "<none>");
	else
		cell_fmt(c, STR_FMT "%s" STR_FMT "/" STR_FMT, STR_ARG(p->kind),
			p->api_group.len ? "." : "", STR_ARG(p->api_group), STR_ARG(p->name));
}

static void network_policy_selector(struct cell *c, const void *obj)
{
	const struct networking_v1_network_policy *n = obj;
	cell_text(c, selector_text(c, &n->spec.pod_selector));
}

static void ip_address_parent(struct cell *c, const void *obj)
{
	const struct networking_v1_parent_reference *p =
		((const struct networking_v1_ip_address *)obj)->spec.parent_ref;
	if (!p)
		cell_textz(c, "");
	else
		cell_fmt(c, STR_FMT "%s" STR_FMT "/" STR_FMT "%s" STR_FMT, STR_ARG(p->resource),
			p->group.len ? "." : "", STR_ARG(p->group), STR_ARG(p->namespace),
			p->namespace.len ? "/" : "", STR_ARG(p->name));
}

static void service_cidrs(struct cell *c, const void *obj)
{
	cell_list(c, &((const struct networking_v1_service_cidr *)obj)->spec.cidrs, SIZE_MAX, "");
}

/* ---- storage ---- */

static void class_name(struct cell *c, const void *obj)
{
	const struct storage_v1_storage_class *s = obj;
	bool is_default = str_eqz(str_map_get(&s->metadata.annotations,
					  STR("storageclass.kubernetes.io/is-default-class")),
		"true");
	cell_fmt(c, STR_FMT "%s", STR_ARG(s->metadata.name), is_default ? " (default)" : "");
}

static void class_reclaim(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct storage_v1_storage_class *)obj)->reclaim_policy, "Delete");
}

static void class_binding(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct storage_v1_storage_class *)obj)->volume_binding_mode,
		"Immediate");
}

static void class_expansion(struct cell *c, const void *obj)
{
	buf_addz(c->out,
		((const struct storage_v1_storage_class *)obj)->allow_volume_expansion.value
			? "true"
			: "false");
}

static void attachment_volume(struct cell *c, const void *obj)
{
	cell_text(c,
		((const struct storage_v1_volume_attachment *)obj)
			->spec.source.persistent_volume_name);
}

static void csi_node_drivers(struct cell *c, const void *obj)
{
	cell_int(c, (int64_t)((const struct storage_v1_csi_node *)obj)->spec.drivers.len);
}

/* ---- autoscaling ---- */

static void hpa_reference(struct cell *c, const void *obj)
{
	const struct autoscaling_v2_cross_version_object_reference *r =
		&((const struct autoscaling_v2_horizontal_pod_autoscaler *)obj)
			 ->spec.scale_target_ref;
	cell_fmt(c, STR_FMT "/" STR_FMT, STR_ARG(r->kind), STR_ARG(r->name));
}

static const struct autoscaling_v2_metric_value_status *resource_now(
	const struct autoscaling_v2_horizontal_pod_autoscaler *h, struct str name)
{
	LIST_EACH(m, &h->status.current_metrics) {
		if (m->resource && str_eq(m->resource->name, name))
			return &m->resource->current;
	}
	return NULL;
}

static void hpa_targets(struct cell *c, const void *obj)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *h = obj;
	CLEAN_BUF struct buf b = { 0 };
	size_t shown = 0;
	LIST_EACH(m, &h->spec.metrics) {
		if (shown++ == 2)
			break;
		buf_addz(&b, b.len ? ", " : "");
		if (!m->resource) {
			buf_addz(&b, "<unknown>/<auto>");
			continue;
		}
		const struct autoscaling_v2_metric_value_status *now =
			resource_now(h, m->resource->name);
		bool share = !m->resource->target.average_value.len;
		buf_addf(&b, STR_FMT ": ", STR_ARG(m->resource->name));
		if (share && now && now->average_utilization.set)
			buf_addf(&b, "%d%%", now->average_utilization.value);
		else if (!share && now && now->average_value.len)
			buf_add_str(&b, now->average_value);
		else
			buf_addz(&b, "<unknown>");
		if (!share)
			buf_addf(&b, "/" STR_FMT, STR_ARG(m->resource->target.average_value));
		else if (m->resource->target.average_utilization.set)
			buf_addf(&b, "/%d%%", m->resource->target.average_utilization.value);
		else
			buf_addz(&b, "/<auto>");
	}
	if (h->spec.metrics.len > 2)
		buf_addf(&b, " + %zu more...", h->spec.metrics.len - 2);
	cell_or(c, buf_str(&b), "<none>");
}

static void hpa_min(struct cell *c, const void *obj)
{
	struct opt_int32 n =
		((const struct autoscaling_v2_horizontal_pod_autoscaler *)obj)->spec.min_replicas;
	if (n.set)
		cell_fmt(c, "%d", n.value);
	else
		cell_textz(c, "<unset>");
}

static void hpa_replicas(struct cell *c, const void *obj)
{
	cell_int(c,
		((const struct autoscaling_v2_horizontal_pod_autoscaler *)obj)
			->status.current_replicas);
}

/* ---- admission ---- */

static void mutating_webhooks(struct cell *c, const void *obj)
{
	cell_int(c,
		(int64_t)((const struct admissionregistration_v1_mutating_webhook_configuration *)
				  obj)
			->webhooks.len);
}

static void validating_webhooks(struct cell *c, const void *obj)
{
	cell_int(c,
		(int64_t)((const struct admissionregistration_v1_validating_webhook_configuration *)
				  obj)
			->webhooks.len);
}

static void param_kind(struct cell *c, const struct admissionregistration_v1_param_kind *p)
{
	if (p)
		cell_fmt(c, STR_FMT "/" STR_FMT, STR_ARG(p->api_version), STR_ARG(p->kind));
	else
		cell_textz(c, "<unset>");
}

static void param_ref(struct cell *c, const struct admissionregistration_v1_param_ref *p)
{
	if (!p)
		cell_textz(c, "<unset>");
	else if (p->name.len)
		cell_fmt(c, STR_FMT "/" STR_FMT,
			STR_ARG(p->namespace.len ? p->namespace : STR("*")), STR_ARG(p->name));
	else
		cell_text(c, selector_text(c, p->selector));
}

static void vap_validations(struct cell *c, const void *obj)
{
	cell_int(c,
		(int64_t)((const struct admissionregistration_v1_validating_admission_policy *)obj)
			->spec.validations.len);
}

static void vap_param_kind(struct cell *c, const void *obj)
{
	param_kind(c,
		((const struct admissionregistration_v1_validating_admission_policy *)obj)
			->spec.param_kind);
}

static void vap_param_ref(struct cell *c, const void *obj)
{
	param_ref(c,
		((const struct admissionregistration_v1_validating_admission_policy_binding *)obj)
			->spec.param_ref);
}

static void map_mutations(struct cell *c, const void *obj)
{
	cell_int(c,
		(int64_t)((const struct admissionregistration_v1_mutating_admission_policy *)obj)
			->spec.mutations.len);
}

static void map_param_kind(struct cell *c, const void *obj)
{
	param_kind(c,
		((const struct admissionregistration_v1_mutating_admission_policy *)obj)
			->spec.param_kind);
}

static void map_param_ref(struct cell *c, const void *obj)
{
	param_ref(c,
		((const struct admissionregistration_v1_mutating_admission_policy_binding *)obj)
			->spec.param_ref);
}

/* ---- flow control ---- */

static void flow_method(struct cell *c, const void *obj)
{
	const struct flowcontrol_v1_flow_distinguisher_method *m =
		((const struct flowcontrol_v1_flow_schema *)obj)->spec.distinguisher_method;
	cell_or(c, m ? m->type : STR_NONE, "<none>");
}

static void flow_missing(struct cell *c, const void *obj)
{
	LIST_EACH(it, &((const struct flowcontrol_v1_flow_schema *)obj)->status.conditions) {
		if (str_eqz(it->type, "Dangling")) {
			cell_text(c, it->status);
			return;
		}
	}
	cell_textz(c, "?");
}

static const struct flowcontrol_v1_queuing_configuration *queuing(const void *obj)
{
	const struct flowcontrol_v1_limited_priority_level_configuration *l =
		((const struct flowcontrol_v1_priority_level_configuration *)obj)->spec.limited;
	return l ? l->limit_response.queuing : NULL;
}

static void level_shares(struct cell *c, const void *obj)
{
	const struct flowcontrol_v1_priority_level_configuration *p = obj;
	struct opt_int32 n = p->spec.limited ? p->spec.limited->nominal_concurrency_shares
		: p->spec.exempt             ? p->spec.exempt->nominal_concurrency_shares
					     : (struct opt_int32){ 0 };
	if (n.set)
		cell_fmt(c, "%d", n.value);
	else
		cell_textz(c, "<none>");
}

static void level_number(struct cell *c, const void *obj, size_t offset)
{
	const struct flowcontrol_v1_queuing_configuration *q = queuing(obj);
	if (q)
		cell_fmt(c, "%d", *(const int32_t *)((const char *)q + offset));
	else
		cell_textz(c, "<none>");
}

static void level_queues(struct cell *c, const void *obj)
{
	level_number(c, obj, offsetof(struct flowcontrol_v1_queuing_configuration, queues));
}

static void level_hand(struct cell *c, const void *obj)
{
	level_number(c, obj, offsetof(struct flowcontrol_v1_queuing_configuration, hand_size));
}

static void level_limit(struct cell *c, const void *obj)
{
	level_number(
		c, obj, offsetof(struct flowcontrol_v1_queuing_configuration, queue_length_limit));
}

/* ---- devices ---- */

static void claim_state(struct cell *c, const void *obj)
{
	const struct resource_v1_resource_claim *r = obj;
	CLEAN_BUF struct buf b = { 0 };
	if (!time_is_zero(r->metadata.deletion_timestamp))
		buf_addz(&b, "deleted");
	if (!r->status.allocation)
		buf_addz(&b, b.len ? ",pending" : "pending");
	else
		buf_addf(&b, "%sallocated%s", b.len ? "," : "",
			r->status.reserved_for.len ? ",reserved" : "");
	cell_text(c, buf_str(&b));
}

static void slice_node(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct resource_v1_resource_slice *)obj)->spec.node_name);
}

static void slice_driver(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct resource_v1_resource_slice *)obj)->spec.driver);
}

static void slice_pool(struct cell *c, const void *obj)
{
	cell_text(c, ((const struct resource_v1_resource_slice *)obj)->spec.pool.name);
}

const struct column_fn other_columns[] = {
	{ "pod_disruption_budget_min_available", budget_min },
	{ "pod_disruption_budget_max_unavailable", budget_max },
	{ "priority_class_preemptionpolicy", preemption_policy },
	{ "lease_holder", lease_holder },
	{ "role_binding_role", binding_role },
	{ "role_binding_users", binding_users },
	{ "role_binding_groups", binding_groups },
	{ "role_binding_serviceaccounts", binding_accounts },
	{ "cluster_role_binding_role", binding_role },
	{ "cluster_role_binding_users", binding_users },
	{ "cluster_role_binding_groups", binding_groups },
	{ "cluster_role_binding_serviceaccounts", binding_accounts },
	{ "certificate_signing_request_requestedduration", csr_duration },
	{ "certificate_signing_request_condition", csr_condition },
	{ "ingress_class", ingress_class },
	{ "ingress_hosts", ingress_hosts },
	{ "ingress_address", ingress_address },
	{ "ingress_ports", ingress_ports },
	{ "ingress_class_parameters", ingress_class_parameters },
	{ "network_policy_pod_selector", network_policy_selector },
	{ "ip_address_parentref", ip_address_parent },
	{ "service_cidr_cidrs", service_cidrs },
	{ "storage_class_name", class_name },
	{ "storage_class_reclaimpolicy", class_reclaim },
	{ "storage_class_volumebindingmode", class_binding },
	{ "storage_class_allowvolumeexpansion", class_expansion },
	{ "volume_attachment_pv", attachment_volume },
	{ "csi_node_drivers", csi_node_drivers },
	{ "horizontal_pod_autoscaler_reference", hpa_reference },
	{ "horizontal_pod_autoscaler_targets", hpa_targets },
	{ "horizontal_pod_autoscaler_minpods", hpa_min },
	{ "horizontal_pod_autoscaler_replicas", hpa_replicas },
	{ "mutating_webhook_configuration_webhooks", mutating_webhooks },
	{ "validating_webhook_configuration_webhooks", validating_webhooks },
	{ "validating_admission_policy_validations", vap_validations },
	{ "validating_admission_policy_paramkind", vap_param_kind },
	{ "validating_admission_policy_binding_paramref", vap_param_ref },
	{ "mutating_admission_policy_mutations", map_mutations },
	{ "mutating_admission_policy_paramkind", map_param_kind },
	{ "mutating_admission_policy_binding_paramref", map_param_ref },
	{ "flow_schema_distinguishermethod", flow_method },
	{ "flow_schema_missingpl", flow_missing },
	{ "priority_level_configuration_nominalconcurrencyshares", level_shares },
	{ "priority_level_configuration_queues", level_queues },
	{ "priority_level_configuration_handsize", level_hand },
	{ "priority_level_configuration_queuelengthlimit", level_limit },
	{ "resource_claim_state", claim_state },
	{ "resource_slice_node", slice_node },
	{ "resource_slice_driver", slice_driver },
	{ "resource_slice_pool", slice_pool },
	{ 0 },
};
