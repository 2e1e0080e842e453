/* What a node may do: itself, its lease, its pods, and the secrets, config maps, claims, volumes, accounts and resource claims that
 * pods bound to it name. Everything else is RBAC's. Upstream: plugin/pkg/auth/authorizer/node.
 *
 * 1. The index is node -> its pods, as references to the stored objects; it follows the store's log lazily, like RBAC's.
 * 2. What a pod names is found by walking its struct along the rows of its type: `reference_rows` says which types name something.
 * 3. Reads by list or watch count only with a field selector that fixes the name (or the node). */
#include "apiserver/internal.h"

struct node_pods {
	struct object **items;
	size_t len, cap;
};
struct node_graph {
	struct apiserver *server;
	pthread_mutex_t lock; /* guards nodes and watch */
	_Atomic bool stale;
	struct store_watch *watch;
	struct map nodes; /* name -> struct node_pods */
	size_t prefix_len;
};

bool node_identify(const struct user_info *u, struct str *ret_node)
{
	struct str prefix = STR("system:node:");
	if (!str_has_prefix(u->name, prefix) || u->name.len == prefix.len ||
		!str_list_has(&u->groups, STR("system:nodes")))
		return false;
	*ret_node = str_from(u->name, prefix.len);
	return true;
}

/* ---- the index ---- */

static void pods_free(void *p)
{
	struct node_pods *n = p;
	for (size_t i = 0; i < n->len; i++)
		object_unref(n->items[i]);
	free(n->items);
	free(n);
}

static void pod_remove(struct node_graph *g, struct object *o)
{
	struct str node = object_field(o, STR("spec.nodeName"));
	struct node_pods *n = node.len ? map_get(&g->nodes, node) : NULL;
	for (size_t i = 0; n && i < n->len; i++) {
		if (!str_eq(n->items[i]->key, o->key))
			continue;
		object_unref(n->items[i]);
		n->items[i] = n->items[--n->len];
		if (!n->len)
			pods_free(map_remove(&g->nodes, node));
		return;
	}
}

static void pod_add(struct node_graph *g, struct object *o)
{
	struct str node = object_field(o, STR("spec.nodeName"));
	if (!node.len)
		return;
	struct node_pods *n = map_get(&g->nodes, node);
	if (!n) {
		n = xcalloc(1, sizeof(*n));
		map_set(&g->nodes, node, n);
	}
	for (size_t i = 0; i < n->len; i++) {
		if (str_eq(n->items[i]->key, o->key)) {
			object_unref(n->items[i]);
			n->items[i] = object_ref(o);
			return;
		}
	}
	if (n->len == n->cap) {
		n->cap = n->cap ? n->cap * 2 : 4;
		n->items = xrealloc(n->items, n->cap * sizeof(struct object *));
	}
	n->items[n->len++] = object_ref(o);
}

static void wake(void *arg)
{
	atomic_store(&((struct node_graph *)arg)->stale, true);
}

static bool load_one(void *arg, struct object *o)
{
	pod_add(arg, o);
	return true;
}

static void load_all(struct node_graph *g)
{
	if (g->watch)
		store_watch_close(TAKE(g->watch));
	map_deinit(&g->nodes, pods_free);
	g->nodes = (struct map){ 0 };
	struct str prefix = g->server->known.pods->key_prefix;
	struct store_snapshot *sn = store_snapshot(g->server->store);
	store_snapshot_each(sn, prefix, STR_NONE, load_one, g);
	uint64_t revision = store_snapshot_revision(sn);
	store_snapshot_free(sn);
	if (store_watch(g->server->store, prefix, revision, wake, g, &g->watch) != 0)
		g->watch = NULL;
	atomic_store(&g->stale, true);
}

static void catch_up(struct node_graph *g)
{
	if (!g->watch)
		load_all(g);
	struct store_event *ev;
	int r = STORE_NOT_FOUND;
	if (atomic_exchange(&g->stale, false)) {
		while (g->watch && (r = store_watch_next(g->watch, &ev)) == 0) {
			if (ev->type == STORE_DELETED)
				pod_remove(g, ev->object);
			else
				pod_add(g, ev->object);
		}
	}
	if (r == STORE_COMPACTED)
		load_all(g);
}

struct node_graph *node_graph_new(struct apiserver *s)
{
	struct node_graph *g = xcalloc(1, sizeof(*g));
	g->server = s;
	pthread_mutex_init(&g->lock, NULL);
	return g; /* loaded when the first node asks for something of its pods */
}

void node_graph_free(struct node_graph *g)
{
	if (!g)
		return;
	if (g->watch)
		store_watch_close(g->watch);
	map_deinit(&g->nodes, pods_free);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

/* ---- what a pod names ---- */

enum ref_kind { REF_SECRET, REF_CONFIG_MAP, REF_CLAIM };

static const struct reference_row {
	const struct type *type;
	enum ref_kind kind;
	size_t offset; /* of the name's struct str */
} reference_rows[] = {
	{ &core_v1_secret_volume_source_type, REF_SECRET,
		offsetof(struct core_v1_secret_volume_source, secret_name) },
	{ &core_v1_secret_projection_type, REF_SECRET,
		offsetof(struct core_v1_secret_projection, local_object_reference.name) },
	{ &core_v1_secret_key_selector_type, REF_SECRET,
		offsetof(struct core_v1_secret_key_selector, local_object_reference.name) },
	{ &core_v1_secret_env_source_type, REF_SECRET,
		offsetof(struct core_v1_secret_env_source, local_object_reference.name) },
	{ &core_v1_azure_file_volume_source_type, REF_SECRET,
		offsetof(struct core_v1_azure_file_volume_source, secret_name) },
	{ &core_v1_config_map_volume_source_type, REF_CONFIG_MAP,
		offsetof(struct core_v1_config_map_volume_source, local_object_reference.name) },
	{ &core_v1_config_map_projection_type, REF_CONFIG_MAP,
		offsetof(struct core_v1_config_map_projection, local_object_reference.name) },
	{ &core_v1_config_map_key_selector_type, REF_CONFIG_MAP,
		offsetof(struct core_v1_config_map_key_selector, local_object_reference.name) },
	{ &core_v1_config_map_env_source_type, REF_CONFIG_MAP,
		offsetof(struct core_v1_config_map_env_source, local_object_reference.name) },
	{ &core_v1_persistent_volume_claim_volume_source_type, REF_CLAIM,
		offsetof(struct core_v1_persistent_volume_claim_volume_source, claim_name) },
};

/* name.p NULL: any name. */
static bool names(const struct type *t, const void *obj, enum ref_kind kind, struct str name);

static bool is_named(struct str there, struct str name)
{
	return name.p ? str_eq(there, name) : there.len > 0;
}

/* A bare LocalObjectReference names a secret under these fields. */
static bool field_is_secret(const struct field *f)
{
	static const char *const fields[] = { "imagePullSecrets", "secretRef",
		"nodePublishSecretRef" };
	for (size_t i = 0; f->type == &core_v1_local_object_reference_type && i < ARRAY_LEN(fields);
		i++)
		if (!strcmp(f->name, fields[i]))
			return true;
	return false;
}

static bool message_names(
	const struct field *f, const void *message, enum ref_kind kind, struct str name)
{
	if (kind == REF_SECRET && field_is_secret(f))
		return is_named(
			((const struct core_v1_local_object_reference *)message)->name, name);
	return names(f->type, message, kind, name);
}

/* name STR_NONE: any. */
static bool names(const struct type *t, const void *obj, enum ref_kind kind, struct str name)
{
	for (size_t i = 0; i < ARRAY_LEN(reference_rows); i++)
		if (reference_rows[i].type == t && reference_rows[i].kind == kind)
			return is_named(
				*(const struct str *)((const char *)obj + reference_rows[i].offset),
				name);
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		if (f->kind != KIND_MESSAGE)
			continue;
		const char *at = (const char *)obj + f->offset;
		if (f->shape == SHAPE_ONE && message_names(f, at, kind, name))
			return true;
		if (f->shape == SHAPE_PTR && *(void *const *)at &&
			message_names(f, *(void *const *)at, kind, name))
			return true;
		if (f->shape != SHAPE_LIST)
			continue;
		const struct {
			const char *items;
			size_t len;
		} *l = (const void *)at;
		for (size_t n = 0; n < l->len; n++)
			if (message_names(f, l->items + n * f->type->size, kind, name))
				return true;
	}
	return false;
}

bool node_pod_refers(const struct core_v1_pod *pod)
{
	static const enum ref_kind kinds[] = { REF_SECRET, REF_CONFIG_MAP, REF_CLAIM };
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (names(&core_v1_pod_spec_type, &pod->spec, kinds[i], STR_NONE))
			return true;
	LIST_EACH(v, &pod->spec.volumes) {
		if (v->volume_source.ephemeral)
			return true;
		if (!v->volume_source.projected)
			continue;
		LIST_EACH(source, &v->volume_source.projected->sources)
			if (source->service_account_token || source->cluster_trust_bundle)
				return true;
	}
	return pod->spec.resource_claims.len > 0;
}

/* ---- asking the pods of a node ---- */

struct ask {
	struct node_graph *graph;
	struct str ns, name;
	enum ref_kind kind;
	struct arena *arena;
};
typedef bool (*pod_fn)(const struct ask *ask, const struct core_v1_pod *pod);

static bool pod_refers(const struct ask *ask, const struct core_v1_pod *pod)
{
	if (!ask->name.len)
		return false;
	if (names(&core_v1_pod_spec_type, &pod->spec, ask->kind, ask->name))
		return true;
	if (ask->kind != REF_CLAIM)
		return false;
	LIST_EACH(v, &pod->spec.volumes) { /* an ephemeral volume's claim is POD-VOLUME */
		if (v->volume_source.ephemeral &&
			str_eq(arena_fmt(ask->arena, STR_FMT "-" STR_FMT,
				       STR_ARG(pod->metadata.name), STR_ARG(v->name)),
				ask->name))
			return true;
	}
	return false;
}

static bool pod_account(const struct ask *ask, const struct core_v1_pod *pod)
{
	return str_eq(pod->spec.service_account_name, ask->name);
}

static bool pod_named(const struct ask *ask, const struct core_v1_pod *pod)
{
	return str_eq(pod->metadata.name, ask->name);
}

static bool pod_resource_claim(const struct ask *ask, const struct core_v1_pod *pod)
{
	LIST_EACH(c, &pod->spec.resource_claims)
		if (str_eq(c->resource_claim_name, ask->name))
			return true;
	LIST_EACH(c, &pod->status.resource_claim_statuses)
		if (str_eq(c->resource_claim_name, ask->name))
			return true;
	return false;
}

static bool claim_is_bound_to(const struct ask *ask, struct str ns, struct str claim)
{
	struct core_v1_persistent_volume_claim *pvc;
	return lookup(ask->graph->server, ask->graph->server->known.claims, ns, claim, ask->arena,
		       &pvc) == 0 &&
		str_eq(pvc->spec.volume_name, ask->name);
}

static bool pod_volume(const struct ask *ask, const struct core_v1_pod *pod)
{
	LIST_EACH(v, &pod->spec.volumes) {
		const struct core_v1_volume_source *vs = &v->volume_source;
		if (vs->persistent_volume_claim &&
			claim_is_bound_to(ask, pod->metadata.namespace,
				vs->persistent_volume_claim->claim_name))
			return true;
		if (vs->ephemeral &&
			claim_is_bound_to(ask, pod->metadata.namespace,
				arena_fmt(ask->arena, STR_FMT "-" STR_FMT,
					STR_ARG(pod->metadata.name), STR_ARG(v->name))))
			return true;
	}
	return false;
}

static bool in_namespace(const struct node_graph *g, const struct object *o, struct str ns)
{
	struct str rest = str_from(o->key, g->server->known.pods->key_prefix.len);
	return !ns.len ||
		(rest.len > ns.len && rest.p[ns.len] == '/' && !memcmp(rest.p, ns.p, ns.len));
}

/* true when fn says so of a pod of this node in ask->ns (empty: any). Pods whose JSON does not hold the name are not decoded. */
static bool any_pod(struct node_graph *g, struct str node, struct ask *ask, bool literal, pod_fn fn)
{
	CLEAN_ARENA struct arena *a = arena_new(8192);
	ask->arena = a;
	ask->graph = g;
	bool found = false;
	pthread_mutex_lock(&g->lock);
	catch_up(g);
	const struct node_pods *n = map_get(&g->nodes, node);
	for (size_t i = 0; n && !found && i < n->len; i++) {
		struct object *o = n->items[i];
		if (!in_namespace(g, o, ask->ns) ||
			(literal && !memmem(o->json.p, o->json.len, ask->name.p, ask->name.len)))
			continue;
		void *pod;
		arena_reset(a);
		if (registry_decode(g->server->known.pods, o, a, &pod, NULL) == 0)
			found = fn(ask, pod);
	}
	pthread_mutex_unlock(&g->lock);
	return found;
}

/* ---- the rules ---- */

struct node_ask {
	struct node_graph *graph;
	const struct attributes *at;
	struct str node;
	struct arena *arena;
	struct str *ret_reason;
};

static bool no_relation(const struct node_ask *n)
{
	*n->ret_reason = arena_fmt(n->arena,
		"no relationship found between node '" STR_FMT "' and this object",
		STR_ARG(n->node));
	return false;
}

static bool refuse(const struct node_ask *n, const char *why)
{
	*n->ret_reason = arena_strz(n->arena, why);
	return false;
}

static bool may_reference(const struct node_ask *n, enum ref_kind kind, uint32_t verbs)
{
	const struct attributes *at = n->at;
	if (!(at->verb_bit & verbs) || at->subresource.len)
		return refuse(n,
			verbs == VERB_GET ? "can only get individual resources of this type"
					  : "can only read resources of this type");
	if (!at->name.len)
		return refuse(n, "No Object name found");
	struct ask ask = { .ns = at->ns, .name = at->name, .kind = kind };
	return any_pod(n->graph, n->node, &ask, kind != REF_CLAIM, pod_refers) || no_relation(n);
}

static bool node_secrets(const struct node_ask *n)
{
	return may_reference(n, REF_SECRET, VERB_GET | VERB_LIST | VERB_WATCH);
}

static bool node_config_maps(const struct node_ask *n)
{
	return may_reference(n, REF_CONFIG_MAP, VERB_GET | VERB_LIST | VERB_WATCH);
}

static bool node_claims(const struct node_ask *n)
{
	if (str_eqz(n->at->subresource, "status") &&
		(n->at->verb_bit & (VERB_UPDATE | VERB_PATCH))) {
		struct ask ask = { .ns = n->at->ns, .name = n->at->name, .kind = REF_CLAIM };
		return any_pod(n->graph, n->node, &ask, false, pod_refers) || no_relation(n);
	}
	return may_reference(n, REF_CLAIM, VERB_GET);
}

static bool node_volumes(const struct node_ask *n)
{
	if (n->at->verb_bit != VERB_GET || n->at->subresource.len || !n->at->name.len)
		return refuse(n, "can only get individual resources of this type");
	struct ask ask = { .name = n->at->name };
	return any_pod(n->graph, n->node, &ask, false, pod_volume) || no_relation(n);
}

static bool node_resource_claims(const struct node_ask *n)
{
	if (n->at->verb_bit != VERB_GET || n->at->subresource.len || !n->at->name.len)
		return refuse(n, "can only get individual resources of this type");
	struct ask ask = { .ns = n->at->ns, .name = n->at->name };
	return any_pod(n->graph, n->node, &ask, true, pod_resource_claim) || no_relation(n);
}

static bool node_accounts(const struct node_ask *n)
{
	bool token = n->at->verb_bit == VERB_CREATE && str_eqz(n->at->subresource, "token");
	bool read = n->at->verb_bit == VERB_GET && !n->at->subresource.len;
	if (!token && !read)
		return refuse(n, "can only create tokens for individual service accounts");
	struct ask ask = { .ns = n->at->ns, .name = n->at->name };
	return any_pod(n->graph, n->node, &ask, true, pod_account) || no_relation(n);
}

static bool node_leases(const struct node_ask *n)
{
	const struct attributes *at = n->at;
	if (!(at->verb_bit & (VERB_GET | VERB_CREATE | VERB_UPDATE | VERB_PATCH | VERB_DELETE)))
		return refuse(n, "can only get, create, update, patch, or delete a node lease");
	if (!str_eqz(at->ns, "kube-node-lease"))
		return refuse(
			n, "can only access leases in the \"kube-node-lease\" system namespace");
	if (at->verb_bit != VERB_CREATE && !str_eq(at->name, n->node))
		return refuse(
			n, "can only access node lease with the same name as the requesting node");
	return true;
}

static bool node_csi_nodes(const struct node_ask *n)
{
	const struct attributes *at = n->at;
	if (!(at->verb_bit & (VERB_GET | VERB_CREATE | VERB_UPDATE | VERB_PATCH | VERB_DELETE)) ||
		at->subresource.len)
		return refuse(n, "can only get, create, update, patch, or delete a CSINode");
	if (at->verb_bit != VERB_CREATE && !str_eq(at->name, n->node))
		return refuse(
			n, "can only access CSINode with the same name as the requesting node");
	return true;
}

static bool node_nodes(const struct node_ask *n)
{
	const struct attributes *at = n->at;
	bool own = str_eq(at->name, n->node);
	if (at->verb_bit == VERB_CREATE && !at->subresource.len)
		return true; /* NodeRestriction looks at the name */
	if ((at->verb_bit & (VERB_GET | VERB_LIST | VERB_WATCH)) && !at->subresource.len)
		return own ||
			refuse(n,
				"node can only read its own Node object; list and watch need the field selector metadata.name");
	if ((at->verb_bit & (VERB_UPDATE | VERB_PATCH)) &&
		(!at->subresource.len || str_eqz(at->subresource, "status")))
		return own || refuse(n, "node can only modify its own Node object");
	return false;
}

static bool selects_node(struct str selector, struct str node)
{
	return str_eq(field_selector_value(selector, "spec.nodeName"), node);
}

static bool node_pod(const struct node_ask *n)
{
	const struct attributes *at = n->at;
	if (at->verb_bit & (VERB_LIST | VERB_WATCH))
		return selects_node(at->field_selector, n->node) ||
			refuse(n, "can only list/watch pods with spec.nodeName field selector");
	if (at->verb_bit == VERB_CREATE && !at->subresource.len)
		return true; /* mirror pods: NodeRestriction looks closer */
	bool own_write = (at->verb_bit == VERB_DELETE && !at->subresource.len) ||
		((at->verb_bit & (VERB_PATCH | VERB_UPDATE)) &&
			str_eqz(at->subresource, "status")) ||
		(at->verb_bit == VERB_CREATE && str_eqz(at->subresource, "eviction"));
	if (own_write)
		return true; /* NodeRestriction looks at the pod's node */
	if (at->verb_bit != VERB_GET || at->subresource.len)
		return false;
	struct ask ask = { .ns = at->ns, .name = at->name };
	return any_pod(n->graph, n->node, &ask, true, pod_named) || no_relation(n);
}

static bool node_attachments(const struct node_ask *n)
{
	struct apiserver *s = n->graph->server;
	struct storage_v1_volume_attachment *va;
	if (n->at->verb_bit != VERB_GET || n->at->subresource.len || !n->at->name.len)
		return refuse(n, "can only get individual resources of this type");
	return (lookup(s, s->known.attachments, STR_NONE, n->at->name, n->arena, &va) == 0 &&
		       str_eq(va->spec.node_name, n->node)) ||
		no_relation(n);
}

static bool node_slices(const struct node_ask *n)
{
	const struct attributes *at = n->at;
	struct apiserver *s = n->graph->server;
	struct resource_v1_resource_slice *slice;
	if (at->subresource.len)
		return refuse(n, "can not access subresources of resourceslices");
	if (at->verb_bit & (VERB_LIST | VERB_WATCH | VERB_DELETECOLLECTION))
		return selects_node(at->field_selector, n->node) ||
			refuse(n,
				"can only list/watch/deletecollection resourceslices with spec.nodeName field selector");
	if (at->verb_bit == VERB_CREATE)
		return true; /* NodeRestriction looks at the slice's node */
	if (!(at->verb_bit & (VERB_GET | VERB_UPDATE | VERB_PATCH | VERB_DELETE)) || !at->name.len)
		return false;
	return (lookup(s, s->known.resource_slices, STR_NONE, at->name, n->arena, &slice) == 0 &&
		       str_eq(slice->spec.node_name, n->node)) ||
		no_relation(n);
}

/* Resources that this authorizer rules on; `free_rows` are plain grants, as the role system:node states them. */
static const struct node_row {
	const char *group, *resource;
	bool (*may)(const struct node_ask *n);
} node_rows[] = {
	{ "", "secrets", node_secrets },
	{ "", "configmaps", node_config_maps },
	{ "", "persistentvolumeclaims", node_claims },
	{ "", "persistentvolumes", node_volumes },
	{ "", "serviceaccounts", node_accounts },
	{ "", "nodes", node_nodes },
	{ "", "pods", node_pod },
	{ "coordination.k8s.io", "leases", node_leases },
	{ "storage.k8s.io", "csinodes", node_csi_nodes },
	{ "storage.k8s.io", "volumeattachments", node_attachments },
	{ "resource.k8s.io", "resourceclaims", node_resource_claims },
	{ "resource.k8s.io", "resourceslices", node_slices },
};

#define READ (VERB_GET | VERB_LIST | VERB_WATCH)
static const struct free_row {
	const char *group, *resource;
	uint32_t verbs;
} free_rows[] = {
	{ "", "services", READ },
	{ "", "endpoints", VERB_GET },
	{ "", "events", VERB_CREATE | VERB_PATCH | VERB_UPDATE },
	{ "events.k8s.io", "events", VERB_CREATE | VERB_PATCH | VERB_UPDATE },
	{ "authentication.k8s.io", "tokenreviews", VERB_CREATE },
	{ "authorization.k8s.io", "subjectaccessreviews", VERB_CREATE },
	{ "authorization.k8s.io", "localsubjectaccessreviews", VERB_CREATE },
	{ "certificates.k8s.io", "certificatesigningrequests", VERB_CREATE | READ },
	{ "storage.k8s.io", "csidrivers", READ },
	{ "node.k8s.io", "runtimeclasses", READ },
};

enum decision node_check(
	struct node_graph *g, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	struct node_ask n = { .graph = g, .at = at, .arena = a, .ret_reason = ret_reason };
	if (!at->is_resource || !node_identify(at->user, &n.node))
		return DECISION_NO_OPINION;
	for (size_t i = 0; i < ARRAY_LEN(node_rows); i++)
		if (str_eqz(at->resource, node_rows[i].resource) &&
			str_eqz(at->group, node_rows[i].group))
			return node_rows[i].may(&n) ? DECISION_ALLOW : DECISION_NO_OPINION;
	for (size_t i = 0; i < ARRAY_LEN(free_rows); i++)
		if (str_eqz(at->resource, free_rows[i].resource) &&
			str_eqz(at->group, free_rows[i].group))
			return (at->verb_bit & free_rows[i].verbs) && !at->subresource.len
				? DECISION_ALLOW
				: DECISION_NO_OPINION;
	return DECISION_NO_OPINION;
}
