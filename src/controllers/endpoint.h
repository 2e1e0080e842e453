/* What the two endpoint controllers share: which pods stand behind a service, under which address and ports. */
#ifndef SKIFF_CONTROLLERS_ENDPOINT_H
#define SKIFF_CONTROLLERS_ENDPOINT_H

#include "controllers/internal.h"

#define HEADLESS_LABEL "service.kubernetes.io/headless"
#define MANAGED_BY_SLICES "endpointslice.kubernetes.io/managed-by"
#define SERVICE_NAME_LABEL "kubernetes.io/service-name"

struct endpoint_port {
	struct str name, protocol, app_protocol;
	int32_t port;
};
struct endpoint_ports {
	struct endpoint_port *items;
	size_t len;
};
/* One pod behind a service, in one address family. */
struct endpoint {
	const struct core_v1_pod *pod;
	struct str ip, hostname;
	struct endpoint_ports ports;
	bool ready, serving, terminating;
};
struct endpoint_list {
	struct endpoint *items; /* sorted by ports, then by pod name */
	size_t len;
};
bool service_headless(const struct core_v1_service *s);
/* IPv4, IPv6: those of the service, at least one. */
size_t service_families(const struct core_v1_service *s, struct str ret_families[2]);
struct endpoint_list service_endpoints(
	struct run *r, const struct core_v1_service *s, struct str family, bool with_terminating);
bool endpoint_ports_equal(const struct endpoint_ports *a, const struct endpoint_ports *b);
struct core_v1_object_reference *pod_reference(const struct core_v1_pod *p, struct arena *a);
/* Rows' mapping: a pod's event to the services in front of it. */
void map_pod_services(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now);
/* The slices of service NAMESPACE/NAME that this controller made. */
struct objects service_slices(struct run *r, struct str key, const char *managed_by);
/* Rows' mapping: the event of a slice that this controller made to its service, and what was expected of it is seen. */
void map_own_slice(struct run *r, enum informer_event ev, const struct cached *old,
	const struct cached *now, const char *managed_by);
/* The labels of the object made for a service: the service's own and these. */
struct str_map service_object_labels(const struct core_v1_service *s, struct arena *a);

#endif
