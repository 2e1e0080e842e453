/* The pair of caches from which service traffic and names are made: services, and endpoint slices found by their service. Shared by proxy and
 * DNS of one process. The owner starts them when all handlers are added. */
#ifndef SKIFF_CLIENT_SERVICES_H
#define SKIFF_CLIENT_SERVICES_H

#include "client/client.h"

struct service_view {
	struct informer *services; /* key "ns/name"; by index: their cluster IPs, "None" */
	struct informer *slices;   /* informer_by_index(slices, "ns/name of the service") */
};
void service_view_init(struct service_view *v, struct client *c);
int service_view_start(struct service_view *v, struct err *err);
bool service_view_wait_synced(struct service_view *v, unsigned timeout_ms);
void service_view_stop(struct service_view *v);
void service_view_deinit(struct service_view *v);
/* "ns/name" of the service that a slice belongs to; STR_NONE when it names none. */
struct str slice_service_key(const struct discovery_v1_endpoint_slice *s, struct arena *a);

#endif
