/* Kinds whose schema says it all but for a flag. */
#include "registry/kinds/kinds.h"

/* clang-format off */
const struct kind limit_range_kind = { .resource = "limitranges", .flags = KIND_CREATE_ON_UPDATE };
const struct kind resource_quota_kind = { .resource = "resourcequotas", .flags = KIND_STATUS_META | KIND_RETURN_DELETED };
const struct kind horizontal_pod_autoscaler_kind = { .resource = "horizontalpodautoscalers.autoscaling", .flags = KIND_STATUS_META };
const struct kind ingress_kind = { .resource = "ingresses.networking.k8s.io", .flags = KIND_GENERATION | KIND_STATUS_META };
const struct kind ingress_class_kind = { .resource = "ingressclasses.networking.k8s.io", .flags = KIND_GENERATION };
const struct kind network_policy_kind = { .resource = "networkpolicies.networking.k8s.io", .flags = KIND_GENERATION };
const struct kind custom_resource_definition_kind = { .resource = "customresourcedefinitions.apiextensions.k8s.io", .flags = KIND_GENERATION | KIND_CONDITIONAL };
const struct kind api_service_kind = { .resource = "apiservices.apiregistration.k8s.io", .flags = KIND_CONDITIONAL };
const struct kind mutating_webhook_kind = { .resource = "mutatingwebhookconfigurations.admissionregistration.k8s.io", .flags = KIND_GENERATION };
const struct kind validating_webhook_kind = { .resource = "validatingwebhookconfigurations.admissionregistration.k8s.io", .flags = KIND_GENERATION };
const struct kind validating_admission_policy_kind = { .resource = "validatingadmissionpolicies.admissionregistration.k8s.io", .flags = KIND_GENERATION };
const struct kind validating_admission_policy_binding_kind = { .resource = "validatingadmissionpolicybindings.admissionregistration.k8s.io", .flags = KIND_GENERATION };
const struct kind mutating_admission_policy_kind = { .resource = "mutatingadmissionpolicies.admissionregistration.k8s.io", .flags = KIND_GENERATION };
const struct kind mutating_admission_policy_binding_kind = { .resource = "mutatingadmissionpolicybindings.admissionregistration.k8s.io", .flags = KIND_GENERATION };
const struct kind csi_driver_kind = { .resource = "csidrivers.storage.k8s.io", .flags = KIND_GENERATION | KIND_RETURN_DELETED };
const struct kind csi_node_kind = { .resource = "csinodes.storage.k8s.io", .flags = KIND_RETURN_DELETED };
const struct kind volume_attachment_kind = { .resource = "volumeattachments.storage.k8s.io", .flags = KIND_RETURN_DELETED | KIND_STATUS_META };
const struct kind volume_attributes_class_kind = { .resource = "volumeattributesclasses.storage.k8s.io", .flags = KIND_RETURN_DELETED };
const struct kind runtime_class_kind = { .resource = "runtimeclasses.node.k8s.io", .flags = KIND_CONDITIONAL };
const struct kind flow_schema_kind = { .resource = "flowschemas.flowcontrol.apiserver.k8s.io", .flags = KIND_GENERATION };
const struct kind priority_level_kind = { .resource = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", .flags = KIND_GENERATION };
const struct kind device_class_kind = { .resource = "deviceclasses.resource.k8s.io", .flags = KIND_GENERATION | KIND_RETURN_DELETED | KIND_CREATE_ON_UPDATE };
const struct kind resource_claim_kind = { .resource = "resourceclaims.resource.k8s.io", .flags = KIND_RETURN_DELETED };
const struct kind resource_claim_template_kind = { .resource = "resourceclaimtemplates.resource.k8s.io", .flags = KIND_RETURN_DELETED };
const struct kind resource_slice_kind = { .resource = "resourceslices.resource.k8s.io", .flags = KIND_GENERATION | KIND_RETURN_DELETED | KIND_CREATE_ON_UPDATE };
/* clang-format on */
