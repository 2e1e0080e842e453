/* RBAC's rows as objects. What is there and is not annotated autoupdate=false gets the rules, subjects, labels and annotations that it
 * lacks; what it has beyond them stays. Aggregated roles are computed here, so that they are right before any controller runs. */
#include "registry/bootstrap.h"

static const char group[] = "rbac.authorization.k8s.io";
static const struct str autoupdate = { "rbac.authorization.kubernetes.io/autoupdate", 43 };
static const struct str bootstrapping = { "kubernetes.io/bootstrapping", 27 };

static struct str_list words(struct str s, struct arena *a)
{
	struct str_list l = { 0 };
	struct str head;
	while (s.len) {
		if (!str_cut(s, ',', &head, &s))
			s = STR_NONE;
		*LIST_ADD(a, &l) = str_eqz(head, "core") ? STR("") : arena_str(a, head);
	}
	return l;
}

/* groups resources[ names=…]: verbs   or   URL paths: verbs */
static struct rbac_v1_policy_rule parse_rule(struct str line, struct arena *a)
{
	struct rbac_v1_policy_rule r = { 0 };
	struct str left = line, verbs = STR_NONE, first, second, names;
	ssize_t at = -1;
	for (size_t i = 0; i + 1 < line.len; i++)
		if (line.p[i] == ':' && line.p[i + 1] == ' ')
			at = (ssize_t)i;
	left.len = (size_t)at;
	verbs = str_from(line, (size_t)at + 2);
	r.verbs = words(verbs, a);
	str_cut(left, ' ', &first, &second);
	if (str_eqz(first, "URL")) {
		r.non_resource_urls = words(second, a);
		return r;
	}
	if (str_cut(second, ' ', &second, &names))
		r.resource_names = words(str_from(names, sizeof("names=") - 1), a);
	r.api_groups = words(first, a);
	r.resources = words(second, a);
	return r;
}

static bool has_rule(const struct rbac_v1_policy_rule_items *l, const struct rbac_v1_policy_rule *r)
{
	LIST_EACH(it, l) {
		if (model_equal(&rbac_v1_policy_rule_type, it, r))
			return true;
	}
	return false;
}

static bool add_rule(
	struct rbac_v1_policy_rule_items *l, const struct rbac_v1_policy_rule *r, struct arena *a)
{
	if (has_rule(l, r))
		return false;
	*LIST_ADD(a, l) = *r;
	return true;
}

static void own_rules(
	const struct bootstrap_role *row, struct rbac_v1_policy_rule_items *ret, struct arena *a)
{
	struct str rest = str_of(row->rules), line;
	while (rest.len) {
		if (!str_cut(rest, '\n', &line, &rest))
			rest = STR_NONE;
		struct rbac_v1_policy_rule r = parse_rule(line, a);
		add_rule(ret, &r, a);
	}
}

static void all_rules(
	const struct bootstrap_role *row, struct rbac_v1_policy_rule_items *ret, struct arena *a)
{
	own_rules(row, ret, a);
	if (!row->aggregate_from)
		return;
	for (const struct bootstrap_role *it = bootstrap_roles; it->name; it++)
		if (it->aggregate_to && !strcmp(it->aggregate_to, row->aggregate_from))
			all_rules(it, ret, a);
}

static void mark(struct meta_v1_object_meta *m, const char *name, const char *ns, struct arena *a)
{
	m->name = str_of(name);
	m->namespace = str_of(ns);
	str_map_set(a, &m->annotations, autoupdate, STR("true"));
	str_map_set(a, &m->labels, bootstrapping, STR("rbac-defaults"));
}

static bool protected(const struct meta_v1_object_meta *m)
{
	return str_eqz(str_map_get(&m->annotations, autoupdate), "false");
}

static bool add_pairs(struct str_map *to, const struct str_map *from, struct arena *a)
{
	bool changed = false;
	LIST_EACH(p, from) {
		if (str_map_has(to, p->key))
			continue;
		str_map_set(a, to, p->key, p->value);
		changed = true;
	}
	return changed;
}

static bool mend_meta(
	struct meta_v1_object_meta *to, const struct meta_v1_object_meta *from, struct arena *a)
{
	bool labels = add_pairs(&to->labels, &from->labels, a);
	return add_pairs(&to->annotations, &from->annotations, a) || labels;
}

static void cluster_role(struct bootstrap *b, const struct bootstrap_role *row)
{
	struct arena *a = bootstrap_arena(b);
	struct rbac_v1_cluster_role *want = model_new(&rbac_v1_cluster_role_type, a), *have;
	mark(&want->metadata, row->name, NULL, a);
	if (row->aggregate_to)
		str_map_set(a, &want->metadata.labels,
			arena_fmt(
				a, "rbac.authorization.k8s.io/aggregate-to-%s", row->aggregate_to),
			STR("true"));
	all_rules(row, &want->rules, a);
	if (row->aggregate_from) {
		want->aggregation_rule = arena_alloc(a, sizeof(*want->aggregation_rule));
		struct meta_v1_label_selector *s =
			LIST_ADD(a, &want->aggregation_rule->cluster_role_selectors);
		str_map_set(a, &s->match_labels,
			arena_fmt(a, "rbac.authorization.k8s.io/aggregate-to-%s",
				row->aggregate_from),
			STR("true"));
	}
	have = bootstrap_get(b, group, "clusterroles", STR_NONE, want->metadata.name);
	if (!have) {
		bootstrap_create(b, group, "clusterroles", STR_NONE, want);
		return;
	}
	if (protected(&have->metadata))
		return;
	bool changed = mend_meta(&have->metadata, &want->metadata, a);
	LIST_EACH(r, &want->rules)
		changed |= add_rule(&have->rules, r, a);
	if (want->aggregation_rule && !have->aggregation_rule) {
		have->aggregation_rule = want->aggregation_rule;
		changed = true;
	}
	if (changed)
		bootstrap_update(b, group, "clusterroles", STR_NONE, want->metadata.name, have);
}

static void namespaced_role(struct bootstrap *b, const struct bootstrap_role *row)
{
	struct arena *a = bootstrap_arena(b);
	struct str ns = str_of(row->ns);
	struct rbac_v1_role *want = model_new(&rbac_v1_role_type, a), *have;
	mark(&want->metadata, row->name, row->ns, a);
	own_rules(row, &want->rules, a);
	have = bootstrap_get(b, group, "roles", ns, want->metadata.name);
	if (!have) {
		bootstrap_create(b, group, "roles", ns, want);
		return;
	}
	if (protected(&have->metadata))
		return;
	bool changed = mend_meta(&have->metadata, &want->metadata, a);
	LIST_EACH(r, &want->rules)
		changed |= add_rule(&have->rules, r, a);
	if (changed)
		bootstrap_update(b, group, "roles", ns, want->metadata.name, have);
}

/* ---- bindings ---- */

static void parse_subjects(struct str s, struct rbac_v1_subject_items *ret, struct arena *a)
{
	struct str one;
	while (s.len) {
		if (!str_cut(s, ';', &one, &s))
			s = STR_NONE;
		struct str kind, name;
		struct rbac_v1_subject *subject = LIST_ADD(a, ret);
		str_cut(str_trim(one), ' ', &kind, &name);
		subject->kind = arena_str(a, kind);
		if (str_eqz(kind, "ServiceAccount")) {
			str_cut(name, '/', &subject->namespace, &name);
			subject->namespace = arena_str(a, subject->namespace);
		} else {
			subject->api_group = str_of(group);
		}
		subject->name = arena_str(a, name);
	}
}

static bool add_subjects(
	struct rbac_v1_subject_items *to, const struct rbac_v1_subject_items *from, struct arena *a)
{
	bool changed = false;
	LIST_EACH(s, from) {
		bool there = false;
		LIST_EACH(h, to)
			there |= str_eq(h->kind, s->kind) && str_eq(h->name, s->name) &&
				str_eq(h->namespace, s->namespace);
		if (there)
			continue;
		*LIST_ADD(a, to) = *s;
		changed = true;
	}
	return changed;
}

/* A RoleBinding and a ClusterRoleBinding have the same members, so one function makes both. */
static void bind(struct bootstrap *b, const struct bootstrap_binding *row)
{
	struct arena *a = bootstrap_arena(b);
	const char *plural = row->ns ? "rolebindings" : "clusterrolebindings";
	const struct type *t =
		row->ns ? &rbac_v1_role_binding_type : &rbac_v1_cluster_role_binding_type;
	struct rbac_v1_role_binding *want = model_new(t, a), *have;
	struct str ns = str_of(row->ns);
	mark(&want->metadata, row->name, row->ns, a);
	want->role_ref.api_group = str_of(group);
	want->role_ref.kind = str_of(row->role_kind);
	want->role_ref.name = str_of(row->role);
	parse_subjects(str_of(row->subjects), &want->subjects, a);
	have = bootstrap_get(b, group, plural, ns, want->metadata.name);
	if (!have) {
		bootstrap_create(b, group, plural, ns, want);
		return;
	}
	if (protected(&have->metadata) ||
		!model_equal(&rbac_v1_role_ref_type, &have->role_ref, &want->role_ref))
		return;
	bool changed = mend_meta(&have->metadata, &want->metadata, a);
	changed |= add_subjects(&have->subjects, &want->subjects, a);
	if (changed)
		bootstrap_update(b, group, plural, ns, want->metadata.name, have);
}
_Static_assert(sizeof(struct rbac_v1_role_binding) == sizeof(struct rbac_v1_cluster_role_binding),
	"one function makes both");

void bootstrap_rbac(struct bootstrap *b)
{
	const struct str prefix = STR("system:controller:");
	for (const struct bootstrap_role *r = bootstrap_roles; r->name; r++) {
		if (r->ns) {
			namespaced_role(b, r);
			continue;
		}
		cluster_role(b, r);
		if (str_has_prefix(str_of(r->name), prefix))
			bind(b,
				&(struct bootstrap_binding){ .name = r->name,
					.role_kind = "ClusterRole",
					.role = r->name,
					.subjects = arena_fmt(bootstrap_arena(b),
						"ServiceAccount kube-system/%s",
						r->name + prefix.len)
							    .p });
	}
	for (const struct bootstrap_binding *it = bootstrap_bindings; it->name; it++)
		bind(b, it);
}
