/* What the files of kinds/ share. */
#ifndef SKIFF_REGISTRY_KINDS_H
#define SKIFF_REGISTRY_KINDS_H

#include "registry/internal.h"

/* clang-format off */
extern const struct kind
	namespace_kind, node_kind, pod_kind, binding_kind, service_kind, endpoints_kind, endpoint_slice_kind,
	replication_controller_kind, replica_set_kind, deployment_kind, stateful_set_kind, daemon_set_kind,
	controller_revision_kind, job_kind, cron_job_kind, service_account_kind, secret_kind, config_map_kind, event_kind,
	events_event_kind, lease_kind, limit_range_kind, resource_quota_kind, pod_template_kind, priority_class_kind,
	pod_disruption_budget_kind, role_kind, role_binding_kind, cluster_role_kind, cluster_role_binding_kind,
	certificate_signing_request_kind, persistent_volume_kind, persistent_volume_claim_kind, storage_class_kind,
	horizontal_pod_autoscaler_kind, ingress_kind, ingress_class_kind, network_policy_kind, custom_resource_definition_kind,
	api_service_kind, mutating_webhook_kind, validating_webhook_kind, validating_admission_policy_kind,
	validating_admission_policy_binding_kind, mutating_admission_policy_kind, mutating_admission_policy_binding_kind,
	csi_driver_kind, csi_node_kind, volume_attachment_kind, volume_attributes_class_kind, runtime_class_kind,
	flow_schema_kind, priority_level_kind, device_class_kind, resource_claim_kind, resource_claim_template_kind,
	resource_slice_kind, service_cidr_kind, ip_address_kind;
/* clang-format on */

/* ---- where a cause stands: a chain on the stack, written out only when there is something to say ---- */
struct at {
	const struct at *up; /* NULL: the object */
	const char *name;    /* containers */
	ssize_t index;       /* -1: none */
	struct str key;      /* p NULL: none; limits[cpu] */
};
#define AT(up, name) (&(struct at){ (up), (name), -1, { NULL, 0 } })
#define AT_I(up, name, i) (&(struct at){ (up), (name), (ssize_t)(i), { NULL, 0 } })
#define AT_KEY(up, name, key) (&(struct at){ (up), (name), -1, (key) })
struct str at_text(const struct at *at, struct arena *a);
void cause_at(struct causes *cs, enum cause_reason r, const struct at *at, struct str value,
	const char *fmt, ...) PRINTF_LIKE(5, 6);
#define REQUIRED(cs, at, why) cause_at((cs), CAUSE_REQUIRED, (at), STR_NONE, "%s", (why))
#define FORBIDDEN(cs, at, why) cause_at((cs), CAUSE_FORBIDDEN, (at), STR_NONE, "%s", (why))
#define INVALID(cs, at, value, why) cause_at((cs), CAUSE_INVALID, (at), (value), "%s", (why))
#define DUPLICATE(cs, at, value) cause_at((cs), CAUSE_DUPLICATE, (at), (value), "%s", "")
#define IMMUTABLE "field is immutable"
#define INVALID_NUM(cs, at, n, why) \
	cause_at((cs), CAUSE_INVALID, (at), STR_NONE, "%lld: %s", (long long)(n), (why))
void refuse_port(struct causes *cs, const struct at *at, struct int_or_str port,
	const char *bad_name); /* bad_name NULL: the number is wrong */
/* A value that is a text but may be empty: quoted all the same. */
static inline struct str shown(struct str s)
{
	return s.p ? s : STR("");
}

/* ---- pods and their templates ---- */
void pod_spec_fill(struct core_v1_pod_spec *s, struct arena *a);
void pod_spec_validate(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs);
void pod_containers_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs);
void ephemeral_containers_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs);
/* Fields of a pod that its environment and its volumes may show. */
extern const char *const pod_field_paths[], *const volume_field_paths[];
void field_ref_validate(const struct core_v1_object_field_selector *f, const char *const *allowed,
	const struct at *at, struct causes *cs);
const char *path_check(struct str path, bool relative); /* NULL: fine */
void label_selector_validate(const struct meta_v1_label_selector *s, const struct at *at,
	struct causes *cs); /* NULL s: fine */
void pod_placement_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs);
void pod_security_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs);
void container_security_validate(
	const struct core_v1_container *c, const struct at *at, struct causes *cs);
struct str pod_qos(const struct core_v1_pod_spec *s);
void pod_condition_set(struct write *w, struct core_v1_pod_status *st, const char *type,
	const char *status, const char *reason, const char *message);
void pod_run_binding(struct write *w);
void pod_run_eviction(struct write *w);
/* A template of a controller whose pods always restart; what names it in messages. */
void template_validate(const struct core_v1_pod_template_spec *t, const struct at *at, bool always,
	struct causes *cs);
void selector_template_validate(const struct meta_v1_label_selector *s,
	const struct core_v1_pod_template_spec *t, const char *what, struct causes *cs);
void selector_mismatch(const struct str_map *labels, struct causes *cs); /* of the template */

const char *valid_config_key(struct str s); /* of a ConfigMap or Secret */
const char *valid_port_name(struct str s);
const char *valid_ip(struct str s);
const char *special_ip(struct
	str s); /* why nothing may be sent there on users' behalf; NULL: it may, or is no address */
bool text_among(struct str s, const char *const *values); /* NULL-terminated */
bool parse_ipv4(struct str s, uint32_t *ret);

#endif
