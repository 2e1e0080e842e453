/* See services.h. */
#include "client/services.h"

#define SERVICE_LABEL "kubernetes.io/service-name"

struct str slice_service_key(const struct discovery_v1_endpoint_slice *s, struct arena *a)
{
	struct str name = str_map_get(&s->metadata.labels, STR(SERVICE_LABEL));

	return name.p
		? arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(s->metadata.namespace), STR_ARG(name))
		: STR_NONE;
}

static size_t index_slice(
	const struct type *t, const void *obj, struct str ret_values[8], struct arena *a)
{
	ret_values[0] = slice_service_key(obj, a);
	return ret_values[0].len ? 1 : 0;
}

/* Under its addresses, as they are written: "None" is all headless ones. */
static size_t index_service(
	const struct type *t, const void *obj, struct str ret_values[8], struct arena *a)
{
	const struct core_v1_service *s = obj;
	size_t n = 0;

	for (size_t i = 0; i < s->spec.cluster_ips.len && n < 2; i++)
		ret_values[n++] = s->spec.cluster_ips.items[i];
	if (!n && s->spec.cluster_ip.len)
		ret_values[n++] = s->spec.cluster_ip;
	return n;
}

void service_view_init(struct service_view *v, struct client *c)
{
	struct informer_config services = {
		.client = c, .type = &core_v1_service_type, .index = index_service
	};
	struct informer_config slices = { .client = c,
		.type = &discovery_v1_endpoint_slice_type,
		.label_selector = SERVICE_LABEL,
		.index = index_slice };

	v->services = informer_new(&services);
	v->slices = informer_new(&slices);
}

int service_view_start(struct service_view *v, struct err *err)
{
	int r = informer_start(v->services, err);

	return r < 0 ? r : informer_start(v->slices, err);
}

bool service_view_wait_synced(struct service_view *v, unsigned timeout_ms)
{
	return informer_wait_synced(v->slices, timeout_ms) &&
		informer_wait_synced(v->services, timeout_ms);
}

void service_view_stop(struct service_view *v)
{
	informer_stop(v->services);
	informer_stop(v->slices);
}

void service_view_deinit(struct service_view *v)
{
	informer_free(v->services);
	informer_free(v->slices);
}
