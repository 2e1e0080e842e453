/* NodeRestriction: what a node writes concerns itself and its own pods, and it may not dress up: no taints, no labels that placement
 * trusts. The Node authorizer has looked at names; here it is about what is inside. Upstream: plugin/pkg/admission/noderestriction. */
#include "apiserver/admission/admission.h"

#define NODE_FMT "node '" STR_FMT "'"

static const struct core_v1_pod *stored_pod(
	struct apiserver *s, const struct admission_attributes *at)
{
	struct core_v1_pod *pod;
	if (at->old && at->type == &core_v1_pod_type)
		return at->old;
	return lookup(s, s->known.pods, at->req->ns, at->req->name, at->req->arena, &pod) == 0
		? pod
		: NULL;
}

static struct meta_v1_status *mirror_refs(
	const struct admission_attributes *at, const struct core_v1_pod *pod, struct str node)
{
	if (pod->spec.service_account_name.len)
		return deny(at, NODE_FMT " can not create pods that reference a service account",
			STR_ARG(node));
	if (node_pod_refers(
		    pod)) /* in whatever field: the Node authorizer would let the node read them from then on */
		return deny(at,
			NODE_FMT
			" can not create pods that reference secrets, config maps, persistent volume claims or resource claims",
			STR_ARG(node));
	if (pod->metadata.owner_references.len > 1)
		return deny(at,
			NODE_FMT
			" can only create pods with a single owner reference set to itself",
			STR_ARG(node));
	LIST_EACH(o, &pod->metadata.owner_references) {
		if (!str_eqz(o->api_version, "v1") || !str_eqz(o->kind, "Node") ||
			!str_eq(o->name, node))
			return deny(at,
				NODE_FMT
				" can only create pods with an owner reference set to itself",
				STR_ARG(node));
		if (!o->controller.set || !o->controller.value)
			return deny(at,
				NODE_FMT
				" can only create pods with a controller owner reference set to itself",
				STR_ARG(node));
		if (o->block_owner_deletion.set && o->block_owner_deletion.value)
			return deny(at,
				NODE_FMT " must not set blockOwnerDeletion on an owner reference",
				STR_ARG(node));
	}
	return NULL;
}

static struct meta_v1_status *node_pods(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	if (at->operation == VERB_CREATE && !at->req->sub) {
		const struct core_v1_pod *pod = at->obj;
		if (!is_mirror_pod(pod))
			return deny(at,
				"pod does not have \"kubernetes.io/config.mirror\" annotation, " NODE_FMT
				" can only create mirror pods",
				STR_ARG(node));
		if (!str_eq(pod->spec.node_name, node))
			return deny(at,
				NODE_FMT " can only create pods with spec.nodeName set to itself",
				STR_ARG(node));
		return mirror_refs(at, pod, node);
	}
	const struct core_v1_pod *pod = stored_pod(s, at);
	const char *what = at->operation == VERB_DELETE ? "delete pods"
		: at->operation == VERB_CREATE          ? "evict pods"
							: "update pod status for pods";
	if (pod && !str_eq(pod->spec.node_name, node))
		return deny(at, NODE_FMT " can only %s with spec.nodeName set to itself",
			STR_ARG(node), what);
	if (at->operation == VERB_UPDATE && at->req->sub && pod) {
		const struct core_v1_pod *now = at->obj;
		if (!model_equal(&meta_v1_object_meta_type, &now->metadata, &pod->metadata)) {
			bool same = now->metadata.labels.len == pod->metadata.labels.len;
			for (size_t i = 0; same && i < now->metadata.labels.len; i++)
				same = str_eq(str_map_get(&pod->metadata.labels,
						      now->metadata.labels.items[i].key),
					now->metadata.labels.items[i].value);
			if (!same)
				return deny(at, NODE_FMT " cannot update labels through pod status",
					STR_ARG(node));
		}
	}
	return NULL;
}

/* ---- labels of nodes ---- */

static bool label_allowed(struct str key)
{
	static const char *const names[] = { "kubernetes.io/hostname",
		"topology.kubernetes.io/zone", "topology.kubernetes.io/region",
		"failure-domain.beta.kubernetes.io/zone",
		"failure-domain.beta.kubernetes.io/region", "beta.kubernetes.io/instance-type",
		"node.kubernetes.io/instance-type", "beta.kubernetes.io/os",
		"beta.kubernetes.io/arch", "kubernetes.io/os", "kubernetes.io/arch" };
	static const char *const groups[] = { "kubelet.kubernetes.io", "node.kubernetes.io" };
	struct str ns, name;
	if (!str_cut(key, '/', &ns, &name))
		return true;
	if (str_eqz(ns, "node-restriction.kubernetes.io") ||
		str_has_suffix(ns, STR(".node-restriction.kubernetes.io")))
		return false;
	bool reserved = str_eqz(ns, "kubernetes.io") || str_has_suffix(ns, STR(".kubernetes.io")) ||
		str_eqz(ns, "k8s.io") || str_has_suffix(ns, STR(".k8s.io"));
	for (size_t i = 0; reserved && i < ARRAY_LEN(names); i++)
		reserved = !str_eqz(key, names[i]);
	for (size_t i = 0; reserved && i < ARRAY_LEN(groups); i++) {
		struct str g = str_of(groups[i]);
		reserved = !(str_eq(ns, g) ||
			(str_has_suffix(ns, g) && ns.p[ns.len - g.len - 1] == '.'));
	}
	return !reserved;
}

static void changed_labels(const struct str_map *now, const struct str_map *old, struct buf *out)
{
	for (size_t i = 0; i < now->len; i++) {
		struct str key = now->items[i].key;
		if (!str_eq(str_map_get(old, key), now->items[i].value) && !label_allowed(key))
			buf_addf(out, "%s" STR_FMT, out->len ? ", " : "", STR_ARG(key));
	}
}

static bool same_taints(const struct core_v1_taint_items *a, const struct core_v1_taint_items *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!model_equal(&core_v1_taint_type, &a->items[i], &b->items[i]))
			return false;
	return true;
}

static struct meta_v1_status *node_nodes(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	static const struct str_map none = { 0 };
	if (!str_eq(object_name(at), node))
		return deny(at, NODE_FMT " is not allowed to modify node '" STR_FMT "'",
			STR_ARG(node), STR_ARG(object_name(at)));
	if (at->operation == VERB_DELETE)
		return NULL;
	const struct core_v1_node *now = at->obj, *old = at->old;
	CLEAN_BUF struct buf labels = { 0 };
	changed_labels(&now->metadata.labels, old ? &old->metadata.labels : &none, &labels);
	if (old)
		changed_labels(&old->metadata.labels, &now->metadata.labels, &labels);
	if (labels.len)
		return deny(at, "is not allowed to %s the following labels: %s",
			old ? "modify" : "set", labels.p);
	if (old && !same_taints(&now->spec.taints, &old->spec.taints))
		return deny(at, NODE_FMT " is not allowed to modify taints", STR_ARG(node));
	if (old && now->metadata.owner_references.len != old->metadata.owner_references.len)
		return deny(
			at, NODE_FMT " is not allowed to modify ownerReferences", STR_ARG(node));
	return NULL;
}

static struct meta_v1_status *node_named(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	if (str_eq(object_name(at), node))
		return NULL;
	return deny(at, "can only access " STR_FMT " with the same name as the requesting node",
		STR_ARG(at->req->resource->plural));
}

static struct meta_v1_status *node_lease(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	if (!str_eqz(at->req->ns, "kube-node-lease"))
		return deny(
			at, "can only access leases in the \"kube-node-lease\" system namespace");
	return node_named(s, at, node);
}

static bool mounts_audience(const struct core_v1_pod *pod, struct str audience)
{
	LIST_EACH(v, &pod->spec.volumes) {
		if (!v->volume_source.projected)
			continue;
		LIST_EACH(source, &v->volume_source.projected->sources)
			if (source->service_account_token &&
				str_eq(source->service_account_token->audience, audience))
				return true;
	}
	return false;
}

/* A token is for whom the pod's volumes name, or for whom the node was granted to ask. */
static struct meta_v1_status *token_audience(struct apiserver *s,
	const struct admission_attributes *at, const struct core_v1_pod *pod, struct str node)
{
	const struct authentication_v1_token_request *tr = at->obj;
	struct str audience = tr->spec.audiences.len ? tr->spec.audiences.items[0] : STR_NONE;
	if (tr->spec.audiences.len > 1)
		return deny(at, "node may only request 0 or 1 audiences");
	if (mounts_audience(pod, audience) ||
		may(s, at, "request-serviceaccounts-token-audience", STR_NONE,
			arena_str(at->req->arena, audience).p, STR_NONE, at->req->name))
		return NULL;
	return deny(at,
		"audience \"" STR_FMT "\" not found in pod spec volume, " NODE_FMT
		" is not authorized to request service account tokens for this "
		"audience",
		STR_ARG(audience), STR_ARG(node));
}

static struct meta_v1_status *node_token(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	const struct authentication_v1_token_request *tr = at->obj;
	const struct authentication_v1_bound_object_reference *ref = tr->spec.bound_object_ref;
	struct core_v1_pod *pod;
	if (at->type != &authentication_v1_token_request_type)
		return NULL;
	if (!ref || !str_eqz(ref->kind, "Pod") || !ref->name.len)
		return deny(at, "node requested token not bound to a pod");
	if (!ref->uid.len)
		return deny(at, "node requested token with a pod binding without a uid");
	if (lookup(s, s->known.pods, at->req->ns, ref->name, at->req->arena, &pod) != 0)
		return status_not_found(at->req->arena, s->known.pods, ref->name);
	if (!str_eq(pod->metadata.uid, ref->uid))
		return status_conflict(at->req->arena, s->known.pods, ref->name,
			"the UID in the bound object reference does not match the UID in record");
	if (!str_eq(pod->spec.node_name, node))
		return deny(
			at, "node requested token bound to a pod scheduled on a different node");
	return token_audience(s, at, pod, node);
}

static struct meta_v1_status *node_slice(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	const struct resource_v1_resource_slice *slice = at->obj;
	if (at->operation != VERB_CREATE || str_eq(slice->spec.node_name, node))
		return NULL;
	return deny(
		at, "can only create ResourceSlice with the same NodeName as the requesting node");
}

/* A node grows volumes: of a claim's status it tells sizes and conditions, nothing else. */
static struct meta_v1_status *node_claim(
	struct apiserver *s, const struct admission_attributes *at, struct str node)
{
	if (at->operation != VERB_UPDATE || !at->obj || !at->old)
		return NULL;
	struct core_v1_persistent_volume_claim now =
		*(const struct core_v1_persistent_volume_claim *)at->obj;
	const struct core_v1_persistent_volume_claim *old = at->old;
	now.metadata.managed_fields = old->metadata.managed_fields;
	now.metadata.resource_version = old->metadata.resource_version;
	now.status.capacity = old->status.capacity;
	now.status.conditions = old->status.conditions;
	now.status.allocated_resources = old->status.allocated_resources;
	now.status.allocated_resource_statuses = old->status.allocated_resource_statuses;
	now.status.current_volume_attributes_class_name =
		old->status.current_volume_attributes_class_name;
	now.status.modify_volume_status = old->status.modify_volume_status;
	if (model_equal(&core_v1_persistent_volume_claim_type, &now, old))
		return NULL;
	return deny(at,
		NODE_FMT
		" is not allowed to update fields other than status.capacity and status.conditions",
		STR_ARG(node));
}

static const struct {
	const char *group_resource;
	struct meta_v1_status *(*check)(
		struct apiserver *, const struct admission_attributes *, struct str node);
} rows[] = {
	{ "pods", node_pods },
	{ "nodes", node_nodes },
	{ "leases.coordination.k8s.io", node_lease },
	{ "csinodes.storage.k8s.io", node_named },
	{ "serviceaccounts", node_token },
	{ "resourceslices.resource.k8s.io", node_slice },
	{ "persistentvolumeclaims", node_claim },
};

static struct meta_v1_status *validate(struct apiserver *s, struct admission_attributes *at)
{
	struct str node;
	if (!at->req->user || !node_identify(at->req->user, &node))
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (str_eqz(at->req->resource->group_resource, rows[i].group_resource))
			return rows[i].check(s, at, node);
	return NULL;
}

static struct meta_v1_status *validate_delete(struct apiserver *s, struct admission_attributes *at)
{
	return at->operation == VERB_DELETE ? validate(s, at) : NULL;
}

/* In the changing phase, so that it sees a node as the kubelet sent it, before TaintNodesByCondition adds to it; DELETE is only judged. */
const struct plugin node_restriction_plugin = {
	.name = "NodeRestriction",
	.operations = VERB_CREATE | VERB_UPDATE | VERB_DELETE,
	.admit = validate,
	.validate = validate_delete,
};
