/* Nodes. Upstream: pkg/registry/core/node. */
#include "registry/kinds/kinds.h"

static const struct at root = { NULL, "spec", -1, { NULL, 0 } };

static void fill(struct write *w, void *obj)
{
	struct core_v1_node *n = obj;
	if (!n->status.allocatable.len)
		n->status.allocatable = n->status.capacity;
	if (n->spec.pod_cidr.len && !n->spec.pod_cidrs.len)
		*LIST_ADD(w->arena, &n->spec.pod_cidrs) = n->spec.pod_cidr;
}

static void validate(struct write *w, struct causes *cs)
{
	struct core_v1_node *n = w->obj;
	size_t i = 0;
	LIST_EACH(t, &n->spec.taints) {
		const struct at *at = AT_I(&root, "taints", i++);
		const char *bad = valid_label_key(t->key);
		if (t->key.len && bad)
			INVALID(cs, AT(at, "key"), t->key, bad);
		if (t->value.len && (bad = valid_label_value(t->value)))
			INVALID(cs, AT(at, "value"), t->value, bad);
		for (const struct core_v1_taint *o = n->spec.taints.items; o < t; o++)
			if (str_eq(o->key, t->key) && str_eq(o->effect, t->effect)) {
				DUPLICATE(cs, at, t->key);
				break;
			}
	}
}

static void validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_node *n = w->obj, *old = w->old;
	if (old->spec.pod_cidr.len && !str_eq(n->spec.pod_cidr, old->spec.pod_cidr))
		FORBIDDEN(cs, AT(&root, "podCIDRs"),
			"node updates may not change podCIDR except from \"\" to valid");
	if (old->spec.provider_id.len && !str_eq(n->spec.provider_id, old->spec.provider_id))
		FORBIDDEN(cs, AT(&root, "providerID"),
			"node updates may not change providerID except from \"\" to valid");
}

const struct kind node_kind = {
	.resource = "nodes",
	.flags = KIND_KEEP_STATUS | KIND_STATUS_META,
	.fill = fill,
	.validate = validate,
	.validate_update = validate_update,
};
