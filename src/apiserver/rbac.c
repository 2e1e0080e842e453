/* RBAC as an index: subject -> bindings -> role -> rules, kept current from the store's log. Upstream: plugin/pkg/auth/authorizer/rbac.
 *
 * 1. The store's wake only raises `stale`; the next request that asks catches up under the write lock, so a binding counts for every
 *    request that begins after its write was acknowledged.
 * 2. A role slot exists as soon as a binding names it, so bindings hold plain pointers; `exists` tells whether the role is stored.
 * 3. Aggregated cluster roles are the union of the roles their selectors match, resolved here: nobody needs to have written their
 *    rules. Roles reached that way count once, so circles end. */
#include "apiserver/internal.h"

#define AGGREGATION_DEPTH 4

struct rbac_role {
	struct str_map labels;
	struct rbac_v1_policy_rule_items rules;
	const struct rbac_v1_aggregation_rule *aggregation;
	struct rbac_role **parts; /* of an aggregated role */
	size_t n_parts;
	struct arena *arena; /* of what stands above; NULL: nothing */
	char *name;
	bool exists, cluster;
};
struct rbac_binding {
	struct rbac_role *role;
	struct str ns, name; /* ns empty: everywhere */
	struct str_list users, groups;
	struct arena *arena;
};
struct binding_list {
	struct rbac_binding **items;
	size_t len, cap;
};
struct rbac {
	struct apiserver *server;
	pthread_rwlock_t lock; /* guards all below but `stale` */
	_Atomic bool stale;
	struct store_watch *watch;
	struct map roles;    /* "NS/NAME", "/NAME" -> struct rbac_role */
	struct map bindings; /* store key -> struct rbac_binding */
	struct map users,
		groups; /* name, a zero byte, namespace (empty: everywhere) -> struct binding_list */
};

static const struct str prefix_all = { "/rbac.authorization.k8s.io/", 27 };

/* ---- the subject index ---- */

struct index_key {
	char small[320];
	char *large; /* of names longer than that; NULL mostly */
	struct str text;
};

static void key_make(struct index_key *k, struct str subject, struct str ns)
{
	size_t len = subject.len + 1 + ns.len;
	k->large = len > sizeof(k->small) ? xmalloc(len) : NULL;
	char *p = k->large ? k->large : k->small;
	if (subject.len)
		memcpy(p, subject.p, subject.len);
	p[subject.len] = '\0';
	if (ns.len)
		memcpy(p + subject.len + 1, ns.p, ns.len);
	k->text = str_n(p, len);
}

static void key_done(struct index_key *k)
{
	free(k->large);
}

static struct binding_list *index_get(const struct map *m, struct str subject, struct str ns)
{
	struct index_key k;
	key_make(&k, subject, ns);
	struct binding_list *l = map_get(m, k.text);
	key_done(&k);
	return l;
}

static void index_add(struct map *m, struct str subject, struct rbac_binding *b)
{
	struct binding_list *l = index_get(m, subject, b->ns);
	if (!l) {
		struct index_key k;
		key_make(&k, subject, b->ns);
		l = xcalloc(1, sizeof(*l));
		map_set(m, k.text, l);
		key_done(&k);
	}
	for (size_t i = 0; i < l->len; i++)
		if (l->items[i] == b)
			return;
	if (l->len == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 2;
		l->items = xrealloc(l->items, l->cap * sizeof(struct rbac_binding *));
	}
	l->items[l->len++] = b;
}

static void list_free(void *p)
{
	struct binding_list *l = p;
	free(l->items);
	free(l);
}

static void index_remove(struct map *m, struct str subject, struct rbac_binding *b)
{
	struct binding_list *l = index_get(m, subject, b->ns);
	for (size_t i = 0; l && i < l->len; i++) {
		if (l->items[i] != b)
			continue;
		l->items[i] = l->items[--l->len];
		if (!l->len) {
			struct index_key k;
			key_make(&k, subject, b->ns);
			list_free(map_remove(m, k.text));
			key_done(&k);
		}
		return;
	}
}

/* ---- roles ---- */

static struct rbac_role *role_slot(struct rbac *r, struct str ns, struct str name)
{
	char *key = xasprintf(STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(name));
	struct rbac_role *role = map_get(&r->roles, str_of(key));
	if (!role) {
		role = xcalloc(1, sizeof(*role));
		role->name = str_dup(name);
		role->cluster = !ns.len;
		map_set(&r->roles, str_of(key), role);
	}
	free(key);
	return role;
}

static void role_clear(struct rbac_role *role)
{
	free(role->parts);
	arena_free(role->arena);
	*role = (struct rbac_role){ .name = role->name, .cluster = role->cluster };
}

static void role_free(void *p)
{
	struct rbac_role *role = p;
	role_clear(role);
	free(role->name);
	free(role);
}

static void role_load(struct rbac *r, struct object *o, bool cluster)
{
	CLEAN_ARENA struct arena *scratch = arena_new(4096);
	void *decoded;
	const struct resource *res =
		cluster ? r->server->known.cluster_roles : r->server->known.roles;
	if (registry_decode(res, o, scratch, &decoded, NULL) < 0)
		return;
	const struct rbac_v1_cluster_role *cr =
		decoded; /* a Role is the same without aggregation */
	const struct rbac_v1_role *plain = decoded;
	struct rbac_role *role =
		role_slot(r, cluster ? STR_NONE : plain->metadata.namespace, plain->metadata.name);
	role_clear(role);
	role->exists = true;
	role->arena = arena_new(512);
	const struct rbac_v1_policy_rule_items *rules = cluster ? &cr->rules : &plain->rules;
	LIST_EACH(rule, rules)
		*LIST_ADD(role->arena, &role->rules) = *(struct rbac_v1_policy_rule *)model_copy(
			&rbac_v1_policy_rule_type, rule, role->arena);
	if (!cluster)
		return;
	for (size_t i = 0; i < cr->metadata.labels.len; i++)
		str_map_set(role->arena, &role->labels,
			arena_str(role->arena, cr->metadata.labels.items[i].key),
			arena_str(role->arena, cr->metadata.labels.items[i].value));
	if (cr->aggregation_rule)
		role->aggregation = model_copy(
			&rbac_v1_aggregation_rule_type, cr->aggregation_rule, role->arena);
}

static void aggregate_one(struct rbac *r, struct rbac_role *role)
{
	CLEAN_ARENA struct arena *a = arena_new(1024);
	free(role->parts);
	role->parts = NULL;
	role->n_parts = 0;
	LIST_EACH(ls, &role->aggregation->cluster_role_selectors) {
		struct selector *sel;
		if (selector_from_label_selector(ls, a, &sel, NULL) < 0)
			continue;
		size_t i = 0;
		struct str key;
		void *p;
		while (map_next(&r->roles, &i, &key, &p)) {
			struct rbac_role *part = p;
			if (!part->exists || !part->cluster || part == role ||
				!selector_matches(sel, &part->labels))
				continue;
			role->parts = xrealloc(
				role->parts, (role->n_parts + 1) * sizeof(struct rbac_role *));
			role->parts[role->n_parts++] = part;
		}
	}
}

static void aggregate_all(struct rbac *r)
{
	size_t i = 0;
	struct str key;
	void *p;
	while (map_next(&r->roles, &i, &key, &p))
		if (((struct rbac_role *)p)->aggregation)
			aggregate_one(r, p);
}

/* ---- bindings ---- */

static void binding_free(void *p)
{
	struct rbac_binding *b = p;
	if (b)
		arena_free(b->arena);
}

static void binding_drop(struct rbac *r, struct str key)
{
	struct rbac_binding *b = map_remove(&r->bindings, key);
	if (!b)
		return;
	for (size_t i = 0; i < b->users.len; i++)
		index_remove(&r->users, b->users.items[i], b);
	for (size_t i = 0; i < b->groups.len; i++)
		index_remove(&r->groups, b->groups.items[i], b);
	binding_free(b);
}

static void binding_subject(struct rbac_binding *b, const struct rbac_v1_subject *s)
{
	if (str_eqz(s->kind, "User"))
		*LIST_ADD(b->arena, &b->users) = arena_str(b->arena, s->name);
	else if (str_eqz(s->kind, "Group"))
		*LIST_ADD(b->arena, &b->groups) = arena_str(b->arena, s->name);
	else if (str_eqz(s->kind, "ServiceAccount"))
		*LIST_ADD(b->arena, &b->users) =
			arena_fmt(b->arena, "system:serviceaccount:" STR_FMT ":" STR_FMT,
				STR_ARG(s->namespace.len ? s->namespace : b->ns), STR_ARG(s->name));
}

static void binding_load(struct rbac *r, struct object *o, bool cluster)
{
	binding_drop(r, o->key);
	CLEAN_ARENA struct arena *scratch = arena_new(4096);
	void *decoded;
	const struct resource *res =
		cluster ? r->server->known.cluster_role_bindings : r->server->known.role_bindings;
	if (registry_decode(res, o, scratch, &decoded, NULL) < 0)
		return;
	const struct rbac_v1_role_binding *rb = decoded; /* ClusterRoleBinding has the same rows */
	struct arena *own = arena_new(256);
	struct rbac_binding *b = arena_alloc(own, sizeof(*b));
	b->arena = own;
	b->ns = cluster ? STR_NONE : arena_str(own, rb->metadata.namespace);
	b->name = arena_str(own, rb->metadata.name);
	b->role = role_slot(
		r, str_eqz(rb->role_ref.kind, "ClusterRole") ? STR_NONE : b->ns, rb->role_ref.name);
	LIST_EACH(s, &rb->subjects)
		binding_subject(b, s);
	map_set(&r->bindings, o->key, b);
	for (size_t i = 0; i < b->users.len; i++)
		index_add(&r->users, b->users.items[i], b);
	for (size_t i = 0; i < b->groups.len; i++)
		index_add(&r->groups, b->groups.items[i], b);
}

/* ---- following the store ---- */

enum rbac_kind { RBAC_ROLE, RBAC_CLUSTER_ROLE, RBAC_BINDING, RBAC_CLUSTER_BINDING, RBAC_OTHER };

static enum rbac_kind kind_of(struct str key)
{
	static const char *const names[] = { "roles/", "clusterroles/", "rolebindings/",
		"clusterrolebindings/" };
	struct str rest = str_from(key, prefix_all.len);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (str_has_prefix(rest, str_of(names[i])))
			return (enum rbac_kind)i;
	return RBAC_OTHER;
}

static void role_forget(struct rbac *r, struct str key, bool cluster)
{
	struct str rest = str_from(
		key, prefix_all.len + (cluster ? strlen("clusterroles/") : strlen("roles/")));
	struct str ns = STR_NONE, name = rest;
	if (!cluster)
		str_cut(rest, '/', &ns, &name);
	role_clear(role_slot(r, ns, name));
}

static bool apply(struct rbac *r, struct object *o, bool deleted)
{
	enum rbac_kind k = kind_of(o->key);
	if (k == RBAC_OTHER)
		return false;
	bool cluster = k == RBAC_CLUSTER_ROLE || k == RBAC_CLUSTER_BINDING;
	if (k == RBAC_BINDING || k == RBAC_CLUSTER_BINDING) {
		if (deleted)
			binding_drop(r, o->key);
		else
			binding_load(r, o, cluster);
		return false;
	}
	if (deleted)
		role_forget(r, o->key, cluster);
	else
		role_load(r, o, cluster);
	return cluster;
}

static void wake(void *arg)
{
	atomic_store(&((struct rbac *)arg)->stale, true);
}

static bool load_one(void *arg, struct object *o)
{
	apply(arg, o, false);
	return true;
}

static void clear(struct rbac *r)
{
	map_deinit(&r->users, list_free);
	map_deinit(&r->groups, list_free);
	map_deinit(&r->bindings, binding_free);
	map_deinit(&r->roles, role_free);
	r->users = r->groups = r->bindings = r->roles = (struct map){ 0 };
}

static void load_all(struct rbac *r)
{
	store_watch_close(TAKE(r->watch));
	clear(r);
	struct store_snapshot *sn = store_snapshot(r->server->store);
	store_snapshot_each(sn, prefix_all, STR_NONE, load_one, r);
	uint64_t revision = store_snapshot_revision(sn);
	store_snapshot_free(sn);
	aggregate_all(r);
	if (store_watch(r->server->store, prefix_all, revision, wake, r, &r->watch) != 0)
		r->watch = NULL;
	atomic_store(&r->stale, true); /* the cursor wakes only after it was read to its end once */
}

static void catch_up(struct rbac *r)
{
	pthread_rwlock_wrlock(&r->lock);
	bool aggregate = false;
	struct store_event *ev;
	int res = STORE_NOT_FOUND;
	if (atomic_exchange(&r->stale, false))
		while (r->watch && (res = store_watch_next(r->watch, &ev)) == 0)
			aggregate |= apply(r, ev->object, ev->type == STORE_DELETED);
	if (!r->watch || res == STORE_COMPACTED)
		load_all(r);
	else if (aggregate)
		aggregate_all(r);
	pthread_rwlock_unlock(&r->lock);
}

struct rbac *rbac_new(struct apiserver *s)
{
	struct rbac *r = xcalloc(1, sizeof(*r));
	r->server = s;
	pthread_rwlock_init(&r->lock, NULL);
	load_all(r);
	return r;
}

void rbac_free(struct rbac *r)
{
	if (!r)
		return;
	if (r->watch)
		store_watch_close(r->watch);
	clear(r);
	pthread_rwlock_destroy(&r->lock);
	free(r);
}

/* ---- deciding ---- */

static bool has_or_any(const struct str_list *l, struct str s)
{
	for (size_t i = 0; i < l->len; i++)
		if (str_eq(l->items[i], s) || (l->items[i].len == 1 && l->items[i].p[0] == '*'))
			return true;
	return false;
}

static bool resource_covers(struct str rule, struct str resource, struct str sub)
{
	if (rule.len == 1 && rule.p[0] == '*')
		return true;
	if (!sub.len)
		return str_eq(rule, resource);
	if (rule.len != resource.len + 1 + sub.len && !str_has_prefix(rule, STR("*/")))
		return false;
	struct str head, tail;
	if (!str_cut(rule, '/', &head, &tail) || !str_eq(tail, sub))
		return false;
	return str_eqz(head, "*") || str_eq(head, resource);
}

static bool url_covers(struct str rule, struct str path)
{
	if (rule.len && rule.p[rule.len - 1] == '*')
		return str_has_prefix(path, str_n(rule.p, rule.len - 1));
	return str_eq(rule, path);
}

static bool rule_allows(const struct rbac_v1_policy_rule *rule, const struct attributes *at)
{
	if (!has_or_any(&rule->verbs, at->verb))
		return false;
	if (!at->is_resource) {
		for (size_t i = 0; i < rule->non_resource_urls.len; i++)
			if (url_covers(rule->non_resource_urls.items[i], at->path))
				return true;
		return false;
	}
	if (!has_or_any(&rule->api_groups, at->group))
		return false;
	if (rule->resource_names.len && !str_list_has(&rule->resource_names, at->name))
		return false;
	for (size_t i = 0; i < rule->resources.len; i++)
		if (resource_covers(rule->resources.items[i], at->resource, at->subresource))
			return true;
	return false;
}

/* Calls fn with each rule until it returns true; true when it did. */
typedef bool (*rule_fn)(void *arg, const struct rbac_v1_policy_rule *rule);

static bool role_each(const struct rbac_role *role, unsigned depth, rule_fn fn, void *arg)
{
	LIST_EACH(rule, &role->rules)
		if (fn(arg, rule))
			return true;
	for (size_t i = 0; depth && i < role->n_parts; i++)
		if (role_each(role->parts[i], depth - 1, fn, arg))
			return true;
	return false;
}

struct walk {
	rule_fn fn;
	void *arg;
	const struct rbac_role *missing; /* a role that is bound but not there */
	const struct rbac_binding *hit;  /* the binding whose rule ended the walk */
	const char *subject_kind;
	struct str subject;
};

static bool list_each(const struct binding_list *l, struct walk *w)
{
	for (size_t i = 0; l && i < l->len; i++) {
		const struct rbac_binding *b = l->items[i];
		if (!b->role->exists)
			w->missing = b->role;
		else if (role_each(b->role, AGGREGATION_DEPTH, w->fn, w->arg)) {
			w->hit = b;
			return true;
		}
	}
	return false;
}

static bool subject_each(const struct map *index, struct str subject, const char *kind,
	struct str ns, struct walk *w)
{
	w->subject_kind = kind;
	w->subject = subject;
	return list_each(index_get(index, subject, STR_NONE), w) ||
		(ns.len && list_each(index_get(index, subject, ns), w));
}

static bool user_each(struct rbac *r, const struct user_info *u, struct str ns, struct walk *w)
{
	if (subject_each(&r->users, u->name, "User", ns, w))
		return true;
	for (size_t i = 0; i < u->groups.len; i++)
		if (subject_each(&r->groups, u->groups.items[i], "Group", ns, w))
			return true;
	return false;
}

static void read_lock(struct rbac *r)
{
	if (atomic_load_explicit(&r->stale, memory_order_acquire))
		catch_up(r);
	pthread_rwlock_rdlock(&r->lock);
}

static bool allows(void *arg, const struct rbac_v1_policy_rule *rule)
{
	return rule_allows(rule, arg);
}

static struct str explain(const struct walk *w, struct arena *a)
{
	const struct rbac_binding *b = w->hit;
	struct str where = b->ns.len
		? arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(b->name), STR_ARG(b->ns))
		: b->name;
	return arena_fmt(a,
		"RBAC: allowed by %s \"" STR_FMT "\" of %s \"%s\" to %s \"" STR_FMT "\"",
		b->ns.len ? "RoleBinding" : "ClusterRoleBinding", STR_ARG(where),
		b->role->cluster ? "ClusterRole" : "Role", b->role->name, w->subject_kind,
		STR_ARG(w->subject));
}

enum decision rbac_check(
	struct rbac *r, const struct attributes *at, struct arena *a, struct str *ret_reason)
{
	struct walk w = { .fn = allows, .arg = (void *)at };
	read_lock(r);
	bool ok = user_each(r, at->user, at->is_resource ? at->ns : STR_NONE, &w);
	if (ok && at->explain)
		*ret_reason = explain(&w, a);
	if (!ok && w.missing)
		*ret_reason = arena_fmt(a, "RBAC: %s.rbac.authorization.k8s.io \"%s\" not found",
			w.missing->cluster ? "clusterrole" : "role", w.missing->name);
	pthread_rwlock_unlock(&r->lock);
	return ok ? DECISION_ALLOW : DECISION_NO_OPINION;
}

/* ---- rules as such: for reviews and escalation checks ---- */

struct collect {
	struct arena *arena;
	struct rbac_v1_policy_rule_items *out;
};

static bool collect_rule(void *arg, const struct rbac_v1_policy_rule *rule)
{
	struct collect *c = arg;
	*LIST_ADD(c->arena, c->out) = *(struct rbac_v1_policy_rule *)model_copy(
		&rbac_v1_policy_rule_type, rule, c->arena);
	return false;
}

void rbac_rules_for(struct rbac *r, const struct user_info *u, struct str ns, struct arena *a,
	struct rbac_v1_policy_rule_items *ret)
{
	struct collect c = { a, ret };
	struct walk w = { .fn = collect_rule, .arg = &c };
	read_lock(r);
	user_each(r, u, ns, &w);
	pthread_rwlock_unlock(&r->lock);
}

bool rbac_role_rules(struct rbac *r, struct str ns, struct str name, struct arena *a,
	struct rbac_v1_policy_rule_items *ret)
{
	struct collect c = { a, ret };
	struct str key = arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(name));
	read_lock(r);
	const struct rbac_role *role = map_get(&r->roles, key);
	bool found = role && role->exists;
	if (found)
		role_each(role, AGGREGATION_DEPTH, collect_rule, &c);
	pthread_rwlock_unlock(&r->lock);
	return found;
}

/* One verb on one resource of one group (or one path), by name or not: covered when any of the owner's rules allows just that. */
static bool simple_covered(
	const struct rbac_v1_policy_rule_items *owner, const struct attributes *at, bool any_name)
{
	LIST_EACH(rule, owner)
		if ((!any_name || !rule->resource_names.len) && rule_allows(rule, at))
			return true;
	return false;
}

static bool covered_resource(const struct rbac_v1_policy_rule_items *owner,
	const struct rbac_v1_policy_rule *w, struct attributes *at)
{
	if (!w->resource_names.len)
		return simple_covered(owner, at, true);
	for (size_t n = 0; n < w->resource_names.len; n++) {
		at->name = w->resource_names.items[n];
		if (!simple_covered(owner, at, false))
			return false;
	}
	return true;
}

bool rbac_rule_covers(const struct rbac_v1_policy_rule_items *owner,
	const struct rbac_v1_policy_rule *w, struct arena *a)
{
	for (size_t v = 0; v < w->verbs.len; v++) {
		for (size_t g = 0; g < w->api_groups.len; g++) {
			for (size_t i = 0; i < w->resources.len; i++) {
				struct attributes at = { .is_resource = true,
					.verb = w->verbs.items[v],
					.group = w->api_groups.items[g] };
				if (!str_cut(w->resources.items[i], '/', &at.resource,
					    &at.subresource))
					at.subresource = STR_NONE;
				if (!covered_resource(owner, w, &at))
					return false;
			}
		}
		for (size_t i = 0; i < w->non_resource_urls.len; i++) {
			struct attributes at = { .verb = w->verbs.items[v],
				.path = w->non_resource_urls.items[i] };
			if (!simple_covered(owner, &at, false))
				return false;
		}
	}
	return true;
}
