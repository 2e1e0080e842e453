/* What an admission plugin is, and the list of them: one file and one row each. Upstream: plugin/pkg/admission. */
#ifndef SKIFF_APISERVER_ADMISSION_H
#define SKIFF_APISERVER_ADMISSION_H

#include "apiserver/internal.h"

typedef struct meta_v1_status *(*plugin_fn)(struct apiserver *s, struct admission_attributes *at);
struct plugin {
	const char *name;
	uint32_t operations; /* VERB_CREATE, VERB_UPDATE, VERB_DELETE */
	const char *resources
		[6]; /* "pods", "nodes/status", "clusterroles.rbac.authorization.k8s.io"; none: all */
	plugin_fn admit, validate; /* admit may change at->obj */
};

extern const struct plugin limit_ranger_plugin, service_account_plugin, token_secret_plugin,
	node_restriction_plugin, node_taint_plugin, pod_security_plugin, priority_plugin,
	priority_class_plugin, default_tolerations_plugin, storage_class_plugin,
	ingress_class_plugin, runtime_class_plugin, csr_approval_plugin, csr_signing_plugin,
	csr_subject_plugin, rbac_role_plugin, rbac_binding_plugin, resource_quota_plugin,
	namespace_plugin;

struct meta_v1_status *deny(const struct admission_attributes *at, const char *fmt, ...)
	PRINTF_LIKE(2, 3); /* 403: RESOURCE "NAME" is forbidden: … */
struct str object_name(const struct admission_attributes *at);
bool is_mirror_pod(const struct core_v1_pod *pod);
bool may(struct apiserver *s, const struct admission_attributes *at, const char *verb,
	struct str group, const char *resource, struct str ns, struct str name);
/* The pod template in a workload (or the pod itself); NULL: the kind has none. Mutable when obj is. */
struct core_v1_pod_spec *pod_spec_of(
	const struct type *t, void *obj, struct meta_v1_object_meta **ret_meta);

#endif
