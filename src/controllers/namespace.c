/* Empties a namespace that is being deleted, then lets it go. Upstream: pkg/controller/namespace/deletion.
 *
 * 1. Every namespaced resource of the API is emptied by deletecollection; custom ones are found by discovery.
 * 2. Pods first: until the last of them is gone, what they may use or be guarded by (secrets, network policies) stays.
 * 3. What is left, and what failed, stands in the namespace's conditions; while anything is left the key comes back: after an eighth of the time
 *    that it took so far, since one with a finalizer that nobody takes off may stay for ever.
 * 4. The last step takes the finalizer "kubernetes" off through the finalize subresource. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define FINALIZER "kubernetes"
#define RETRY_MS 500
#define RETRY_MOST_MS 15000 /* as upstream, which cannot know either when a finalizer goes */

struct leftover {
	struct str group_resource; /* pods., deployments.apps */
	size_t n;
};

struct emptying {
	struct run *r;
	struct str ns;
	struct leftover *left;
	size_t n_left;
	struct str_list finalizers; /* of what is left, each once */
	struct buf failures;
	bool discovery_failed, pods_left;
};

/* One resource to be emptied, built in or custom. */
struct target {
	struct str group, version, plural;
};

static struct str path_of(struct emptying *e, const struct target *t)
{
	return t->group.len
		? arena_fmt(e->r->arena,
			  "/apis/" STR_FMT "/" STR_FMT "/namespaces/" STR_FMT "/" STR_FMT,
			  STR_ARG(t->group), STR_ARG(t->version), STR_ARG(e->ns),
			  STR_ARG(t->plural))
		: arena_fmt(e->r->arena, "/api/" STR_FMT "/namespaces/" STR_FMT "/" STR_FMT,
			  STR_ARG(t->version), STR_ARG(e->ns), STR_ARG(t->plural));
}

static const struct value *member(const struct value *o, const char *key)
{
	return o && o->kind == VALUE_OBJECT ? value_get(o, str_of(key)) : NULL;
}

static struct str text_of(const struct value *o, const char *key)
{
	const struct value *v = member(o, key);

	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

static void note_finalizers(struct emptying *e, const struct value *items)
{
	for (size_t i = 0; i < items->list.len; i++) {
		const struct value *f =
			member(member(&items->list.items[i], "metadata"), "finalizers");

		for (size_t k = 0; f && f->kind == VALUE_LIST && k < f->list.len; k++)
			if (!str_list_has(&e->finalizers, f->list.items[k].text))
				*LIST_ADD(e->r->arena, &e->finalizers) = f->list.items[k].text;
	}
}

static int look_what_is_left(
	struct emptying *e, const struct target *t, struct str path, struct err *err)
{
	struct value v;
	struct str body;
	int code,
		r = client_raw(e->r->client, "GET",
			arena_fmt(e->r->arena, STR_FMT "?limit=500", STR_ARG(path)).p, STR_NONE,
			STR_NONE, e->r->arena, &body, &code, err);

	if (r)
		return r;
	r = json_parse(body, e->r->arena, &v, err);
	if (r)
		return r;
	const struct value *items = member(&v, "items");

	if (!items || items->kind != VALUE_LIST || !items->list.len)
		return 0;
	*ARENA_ADD(e->r->arena, e->left, e->n_left) = (struct leftover){
		arena_fmt(e->r->arena, STR_FMT "." STR_FMT, STR_ARG(t->plural), STR_ARG(t->group)),
		items->list.len
	};
	note_finalizers(e, items);
	e->pods_left |= !t->group.len && str_eqz(t->plural, "pods");
	return 0;
}

static void empty_one(struct emptying *e, const struct target *t, bool may_delete)
{
	struct str path = path_of(e, t), body;
	struct err err = { "" };
	int code = 0, r = 0;

	if (may_delete)
		r = client_raw(e->r->client, "DELETE", path.p, STR("application/json"),
			STR("{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"propagationPolicy\":\"Background\"}"),
			e->r->arena, &body, &code, &err);
	if (!r)
		r = look_what_is_left(e, t, path, &err);
	if (r && r != CLIENT_NOT_FOUND && code != 405)
		buf_addf(&e->failures, "%s" STR_FMT ": %s", e->failures.len ? "; " : "",
			STR_ARG(path), err.text);
}

static bool built_in(struct str group, struct str plural)
{
	for (size_t i = 0; i < n_resource_rows; i++)
		if (str_eqz(group, resource_rows[i].group) &&
			str_eqz(plural, resource_rows[i].plural))
			return true;
	return false;
}

/* One row a group and plural, though several versions may be served. */
static bool first_version(size_t row)
{
	for (size_t i = 0; i < row; i++)
		if (!strcmp(resource_rows[i].group, resource_rows[row].group) &&
			!strcmp(resource_rows[i].plural, resource_rows[row].plural))
			return false;
	return true;
}

static void empty_pods(struct emptying *e)
{
	const struct target pods = { STR(""), STR("v1"), STR("pods") };

	empty_one(e, &pods, true);
}

static void empty_built_in(struct emptying *e)
{
	/* Events last: what happens meanwhile makes more of them. */
	for (int events = 0; events < 2; events++)
		for (size_t i = 0; i < n_resource_rows; i++) {
			const struct resource_row *row = &resource_rows[i];
			const struct target t = { str_of(row->group), str_of(row->version),
				str_of(row->plural) };

			if (!row->namespaced || !(row->verbs & VERB_LIST) ||
				!(row->verbs & VERB_DELETE) || row->type == &core_v1_pod_type ||
				!first_version(i) ||
				(!strcmp(row->plural, "events") ? 1 : 0) != events)
				continue;
			if (events && *row->group)
				continue; /* the same objects as core's */
			empty_one(e, &t, row->verbs & VERB_DELETECOLLECTION);
		}
}

static void empty_group_version(struct emptying *e, struct str group, struct str version)
{
	struct err err = { "" };
	struct value v;
	struct str body;
	int r = client_raw(e->r->client, "GET",
		arena_fmt(
			e->r->arena, "/apis/" STR_FMT "/" STR_FMT, STR_ARG(group), STR_ARG(version))
			.p,
		STR_NONE, STR_NONE, e->r->arena, &body, NULL, &err);

	if (r || json_parse(body, e->r->arena, &v, &err)) {
		e->discovery_failed = true;
		return;
	}
	const struct value *list = member(&v, "resources");

	for (size_t i = 0; list && list->kind == VALUE_LIST && i < list->list.len; i++) {
		const struct value *one = &list->list.items[i],
				   *namespaced = member(one, "namespaced");
		const struct target t = { group, version, text_of(one, "name") };
		bool deletes = false;
		const struct value *verbs = member(one, "verbs");

		for (size_t k = 0; verbs && verbs->kind == VALUE_LIST && k < verbs->list.len; k++)
			deletes |= str_eqz(verbs->list.items[k].text, "deletecollection");
		if (namespaced && namespaced->kind == VALUE_BOOL && namespaced->boolean &&
			deletes && str_find(t.plural, '/') < 0 && !built_in(group, t.plural))
			empty_one(e, &t, true);
	}
}

/* Groups that are none of ours: custom resources and aggregated APIs. */
static void empty_custom(struct emptying *e)
{
	struct err err = { "" };
	struct value v;
	struct str body;

	if (client_raw(e->r->client, "GET", "/apis", STR_NONE, STR_NONE, e->r->arena, &body, NULL,
		    &err) ||
		json_parse(body, e->r->arena, &v, &err)) {
		e->discovery_failed = true;
		return;
	}
	const struct value *groups = member(&v, "groups");

	for (size_t i = 0; groups && groups->kind == VALUE_LIST && i < groups->list.len; i++) {
		struct str name = text_of(&groups->list.items[i], "name");
		struct str version =
			text_of(member(&groups->list.items[i], "preferredVersion"), "version");
		bool ours = false;

		for (size_t k = 0; k < n_resource_rows && !ours; k++)
			ours = str_eqz(name, resource_rows[k].group);
		if (name.len && version.len && !ours)
			empty_group_version(e, name, version);
	}
}

/* ---- conditions ---- */
static void set_condition(struct run *r, struct core_v1_namespace *ns, const char *type, bool bad,
	const char *bad_reason, const char *good_reason, struct str bad_text, const char *good_text)
{
	struct core_v1_namespace_condition *c = NULL;
	struct str status = bad ? STR("True") : STR("False");

	LIST_EACH(x, &ns->status.conditions)
		if (str_eqz(x->type, type))
			c = x;
	if (!c) {
		c = LIST_ADD(r->arena, &ns->status.conditions);
		c->type = str_of(type);
	}
	if (!str_eq(c->status, status))
		c->last_transition_time = r->now;
	c->status = status;
	c->reason = str_of(bad ? bad_reason : good_reason);
	c->message = bad ? bad_text : str_of(good_text);
}

static struct str left_text(struct emptying *e)
{
	struct buf b CLEAN_BUF = { 0 };

	buf_addz(&b, "Some resources are remaining: ");
	for (size_t i = 0; i < e->n_left; i++)
		buf_addf(&b, "%s" STR_FMT " has %zu resource instances", i ? ", " : "",
			STR_ARG(e->left[i].group_resource), e->left[i].n);
	return arena_str(e->r->arena, buf_str(&b));
}

static struct str finalizers_text(struct emptying *e)
{
	struct buf b CLEAN_BUF = { 0 };

	buf_addz(&b, "Some content in the namespace has finalizers remaining: ");
	LIST_EACH(f, &e->finalizers)
		buf_addf(&b, "%s" STR_FMT, f == e->finalizers.items ? "" : ", ", STR_ARG(*f));
	return arena_str(e->r->arena, buf_str(&b));
}

static int write_conditions(struct emptying *e, struct core_v1_namespace *ns, struct err *err)
{
	struct run *r = e->r;
	const struct core_v1_namespace_status *was =
		model_copy(&core_v1_namespace_status_type, &ns->status, r->arena);

	set_condition(r, ns, "NamespaceDeletionDiscoveryFailure", e->discovery_failed,
		"DiscoveryFailed", "ResourcesDiscovered",
		STR("Discovery failed for some groups; they are asked again."),
		"All resources successfully discovered");
	set_condition(r, ns, "NamespaceDeletionGroupVersionParsingFailure", false,
		"GroupVersionParsingFailed", "ParsedGroupVersions", STR_NONE,
		"All legacy kube types successfully parsed");
	set_condition(r, ns, "NamespaceDeletionContentFailure", e->failures.len > 0,
		"ContentDeletionFailed", "ContentDeleted",
		arena_str(r->arena, buf_str(&e->failures)),
		"All content successfully deleted, may be waiting on finalization");
	set_condition(r, ns, "NamespaceContentRemaining", e->n_left > 0, "SomeResourcesRemain",
		"ContentRemoved", left_text(e), "All content successfully removed");
	set_condition(r, ns, "NamespaceFinalizersRemaining", e->finalizers.len > 0,
		"SomeFinalizersRemain", "ContentHasNoFinalizers", finalizers_text(e),
		"All content-preserving finalizers finished");
	if (model_equal(&core_v1_namespace_status_type, was, &ns->status))
		return 0;
	return client_update(
		r->client, &core_v1_namespace_type, "status", ns, r->arena, (void **)&ns, err);
}

static int finalize(struct run *r, struct str name, struct err *err)
{
	struct core_v1_namespace *ns;
	size_t n = 0;
	int ret = client_get(
		r->client, &core_v1_namespace_type, STR_NONE, name, r->arena, (void **)&ns, err);

	if (ret)
		return ret == CLIENT_NOT_FOUND ? 0 : ret;
	for (size_t i = 0; i < ns->spec.finalizers.len; i++)
		if (!str_eqz(ns->spec.finalizers.items[i], FINALIZER))
			ns->spec.finalizers.items[n++] = ns->spec.finalizers.items[i];
	ns->spec.finalizers.len = n;
	ret = client_update(
		r->client, &core_v1_namespace_type, "finalize", ns, r->arena, NULL, err);
	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static uint64_t retry_ms(const struct run *r, const struct core_v1_namespace *ns)
{
	uint64_t age = ms_of(time_diff_s(r->now, ns->metadata.deletion_timestamp));

	return MIN(MAX(age / 8, (uint64_t)RETRY_MS), (uint64_t)RETRY_MOST_MS);
}

static int reconcile(struct run *r, struct str name, struct err *err)
{
	const struct core_v1_namespace *cached = cache_object(r, &core_v1_namespace_type, name);

	if (!cached || time_is_zero(cached->metadata.deletion_timestamp) ||
		!str_list_has(&cached->spec.finalizers, STR(FINALIZER)))
		return 0;
	struct emptying e = { .r = r, .ns = name };
	struct core_v1_namespace *ns = model_copy(&core_v1_namespace_type, cached, r->arena);

	empty_pods(&e);
	if (!e.pods_left && !e.failures.len) {
		empty_built_in(&e);
		empty_custom(&e);
	}
	int ret = write_conditions(&e, ns, err);

	if (ret == CLIENT_CONFLICT || ret == CLIENT_NOT_FOUND)
		ret = 0; /* said next time */
	if (!ret && (e.n_left || e.failures.len || e.discovery_failed))
		requeue_within(r, retry_ms(r, cached));
	else if (!ret)
		ret = finalize(r, name, err);
	buf_deinit(&e.failures);
	return ret;
}

static void map_deleted(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (now && !time_is_zero(now->meta->deletion_timestamp))
		enqueue(r, now->key);
}

const struct controller namespace_controller = {
	.name = "namespace",
	.bulk = true,
	.component = "namespace-controller",
	.watches = { { &core_v1_namespace_type, map_deleted } },
	.reconcile = reconcile,
};
