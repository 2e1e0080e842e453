/* Kinds whose schema says it all but for a flag. */
#include "registry/kinds/kinds.h"

#define PLAIN(name, group_resource, bits) \
	const struct kind name##_kind = { .resource = group_resource, .flags = bits }
#define GEN KIND_GENERATION
#define BACK KIND_RETURN_DELETED
#define ADMISSION ".admissionregistration.k8s.io"

/* clang-format off */
PLAIN(resource_quota, "resourcequotas", KIND_STATUS_META | BACK);
PLAIN(ingress, "ingresses.networking.k8s.io", GEN | KIND_STATUS_META);
PLAIN(ingress_class, "ingressclasses.networking.k8s.io", GEN);
PLAIN(api_service, "apiservices.apiregistration.k8s.io", KIND_CONDITIONAL);
PLAIN(validating_admission_policy_binding, "validatingadmissionpolicybindings" ADMISSION, GEN);
PLAIN(mutating_admission_policy_binding, "mutatingadmissionpolicybindings" ADMISSION, GEN);
PLAIN(csi_driver, "csidrivers.storage.k8s.io", GEN | BACK);
PLAIN(csi_node, "csinodes.storage.k8s.io", BACK);
PLAIN(volume_attachment, "volumeattachments.storage.k8s.io", BACK | KIND_STATUS_META);
PLAIN(volume_attributes_class, "volumeattributesclasses.storage.k8s.io", BACK);
PLAIN(runtime_class, "runtimeclasses.node.k8s.io", KIND_CONDITIONAL);
PLAIN(flow_schema, "flowschemas.flowcontrol.apiserver.k8s.io", GEN);
PLAIN(priority_level, "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", GEN);
PLAIN(device_class, "deviceclasses.resource.k8s.io", GEN | BACK | KIND_CREATE_ON_UPDATE);
PLAIN(resource_slice, "resourceslices.resource.k8s.io", GEN | BACK | KIND_CREATE_ON_UPDATE);
/* clang-format on */
