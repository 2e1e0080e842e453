/* What of its quotas a namespace uses: the status of ResourceQuotas. Upstream: pkg/controller/resourcequota and pkg/quota. Admission counts for
 * itself; this tells people. Extended resources are counted by name like cpu and memory. */
#include "controllers/internal.h"

#include "controllers/table.h"
#include "model/placement.h"

#define GATHER_MS 100

struct counting {
	struct run *r;
	const struct core_v1_resource_quota *q;
	struct str ns;
};

/* ---- scopes: which pods a quota speaks of ---- */
static bool best_effort(const struct core_v1_pod *p)
{
	LIST_EACH(c, &p->spec.containers)
		if (c->resources.requests.len || c->resources.limits.len)
			return false;
	return true;
}

static bool cross_namespace_affinity(const struct core_v1_pod *p)
{
	const struct core_v1_affinity *a = p->spec.affinity;

	if (a && a->pod_affinity)
		LIST_EACH(t, &a->pod_affinity->required_during_scheduling_ignored_during_execution)
			if (t->namespaces.len || t->namespace_selector)
				return true;
	if (a && a->pod_anti_affinity)
		LIST_EACH(t,
			&a->pod_anti_affinity->required_during_scheduling_ignored_during_execution)
			if (t->namespaces.len || t->namespace_selector)
				return true;
	return false;
}

static bool in_scope(const struct core_v1_pod *p, struct str scope, struct str operator,
	const struct str_list * values)
{
	bool has = p->spec.active_deadline_seconds.set;

	if (str_eqz(scope, "Terminating"))
		return has;
	if (str_eqz(scope, "NotTerminating"))
		return !has;
	if (str_eqz(scope, "BestEffort"))
		return best_effort(p);
	if (str_eqz(scope, "NotBestEffort"))
		return !best_effort(p);
	if (str_eqz(scope, "CrossNamespacePodAffinity"))
		return cross_namespace_affinity(p);
	if (str_eqz(operator, "Exists") || !operator.len)
		return p->spec.priority_class_name.len;
	if (str_eqz(operator, "DoesNotExist"))
		return !p->spec.priority_class_name.len;
	return (values && str_list_has(values, p->spec.priority_class_name)) ==
		str_eqz(operator, "In");
}

static bool speaks_of(const struct core_v1_resource_quota *q, const struct core_v1_pod *p)
{
	LIST_EACH(s, &q->spec.scopes)
		if (!in_scope(p, *s, STR_NONE, NULL))
			return false;
	if (q->spec.scope_selector)
		LIST_EACH(m, &q->spec.scope_selector->match_expressions)
			if (!in_scope(p, m->scope_name, m->operator, & m->values))
				return false;
	return true;
}

/* ---- amounts ---- */
static struct quantity whole(int64_t n)
{
	return (struct quantity){ .nano = (__int128)n * 1000000000, .format = 'D' };
}

static struct quantity parsed(struct str text)
{
	struct quantity q = { 0, 'D' };

	if (text.p && quantity_parse(text, &q))
		q = whole(0);
	return q;
}

static struct quantity limits_of(const struct core_v1_pod *p, struct str resource)
{
	struct quantity sum = { 0, 'D' }, most = { 0, 'D' };

	LIST_EACH(c, &p->spec.containers)
		sum = quantity_add(sum, parsed(str_map_get(&c->resources.limits, resource)));
	LIST_EACH(c, &p->spec.init_containers) {
		struct quantity one = parsed(str_map_get(&c->resources.limits, resource));

		if (str_eqz(c->restart_policy, "Always"))
			sum = quantity_add(sum, one);
		else if (quantity_cmp(one, most) > 0)
			most = one;
	}
	return quantity_cmp(most, sum) > 0 ? most : sum;
}

static struct quantity requests_of(const struct core_v1_pod *p, struct str resource)
{
	int64_t n = pod_request(&p->spec, resource, 0);

	if (str_eqz(resource, "cpu"))
		return (struct quantity){ .nano = (__int128)n * 1000000, .format = 'D' };
	struct quantity q = whole(n);

	q.format =
		str_eqz(resource, "memory") || str_eqz(resource, "ephemeral-storage") ? 'B' : 'D';
	return q;
}

static struct quantity sum_pods(struct counting *c, struct str name)
{
	struct objects pods = cache_objects(c->r, &core_v1_pod_type, c->ns);
	struct quantity sum = { 0, 'D' };
	bool limits = str_has_prefix(name, STR("limits."));
	struct str resource = limits                     ? str_from(name, 7)
		: str_has_prefix(name, STR("requests.")) ? str_from(name, 9)
							 : name;

	OBJECT_EACH(const struct core_v1_pod, p, pods) {
		if (pod_ended(p) || !speaks_of(c->q, p))
			continue;
		struct quantity one = str_eqz(name, "pods") ? whole(1)
			: limits                            ? limits_of(p, resource)
							    : requests_of(p, resource);
		char format = one.nano ? one.format : sum.format;

		sum = quantity_add(sum, one);
		sum.format = format;
	}
	return sum;
}

static struct quantity sum_services(struct counting *c, struct str name)
{
	struct objects os = cache_objects(c->r, &core_v1_service_type, c->ns);
	int64_t n = 0;

	OBJECT_EACH(const struct core_v1_service, s, os) {
		if (str_eqz(name, "services"))
			n++;
		else if (str_eqz(name, "services.loadbalancers"))
			n += str_eqz(s->spec.type, "LoadBalancer");
		else if (str_eqz(s->spec.type, "NodePort") || str_eqz(s->spec.type, "LoadBalancer"))
			LIST_EACH(p, &s->spec.ports)
				n += p->node_port > 0;
	}
	return whole(n);
}

/* requests.storage, persistentvolumeclaims, and CLASS.storageclass.storage.k8s.io/ before either. */
static struct quantity sum_claims(struct counting *c, struct str name)
{
	struct objects os = cache_objects(c->r, &core_v1_persistent_volume_claim_type, c->ns);
	struct quantity sum = { 0, 'D' };
	ssize_t at = str_find_str(name, STR(".storageclass.storage.k8s.io/"));
	struct str class = at > 0 ? str_n(name.p, (size_t)at) : STR_NONE;
	bool counts = str_has_suffix(name, STR("persistentvolumeclaims"));

	OBJECT_EACH(const struct core_v1_persistent_volume_claim, x, os) {
		if (class.len && !str_eq(x->spec.storage_class_name, class))
			continue;
		sum = quantity_add(sum,
			counts ? whole(1)
			       : parsed(str_map_get(&x->spec.resources.requests, STR("storage"))));
		sum.format = counts ? 'D' : 'B';
	}
	return sum;
}

static const struct resource_row *row_named(struct str plural, struct str group)
{
	for (size_t i = 0; i < n_resource_rows; i++)
		if (str_eqz(plural, resource_rows[i].plural) &&
			str_eqz(group, resource_rows[i].group) && resource_rows[i].list_type)
			return &resource_rows[i];
	return NULL;
}

/* count/deployments.apps, or configmaps. Every kind has an informer: the garbage collector's. */
static bool count_objects(struct counting *c, struct str name, struct quantity *ret)
{
	struct str plural = str_has_prefix(name, STR("count/")) ? str_from(name, 6) : name,
		   group = STR_NONE, head, tail;
	struct cached_list l;

	if (str_cut(plural, '.', &head, &tail)) {
		plural = head;
		group = tail;
	}
	const struct resource_row *row = row_named(plural, group);

	if (!row || !row->namespaced)
		return false;
	informer_list(run_informer(c->r, row->type), c->ns, &l);
	*ret = whole((int64_t)l.len);
	cached_list_deinit(&l);
	return true;
}

static bool used(struct counting *c, struct str name, struct quantity *ret)
{
	static const char *const by_count[] = { "configmaps", "secrets", "replicationcontrollers",
		"resourcequotas" };

	for (size_t i = 0; i < ARRAY_LEN(by_count); i++)
		if (str_eqz(name, by_count[i]))
			return count_objects(c, name, ret);
	if (str_has_prefix(name, STR("count/")))
		return count_objects(c, name, ret);
	if (str_has_prefix(name, STR("services")))
		*ret = sum_services(c, name);
	else if (str_has_suffix(name, STR("persistentvolumeclaims")) ||
		str_has_suffix(name, STR("requests.storage")))
		*ret = sum_claims(c, name);
	else
		*ret = sum_pods(c, name);
	return true;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_resource_quota *cached =
		cache_object(r, &core_v1_resource_quota_type, key);

	if (!cached || !time_is_zero(cached->metadata.deletion_timestamp))
		return 0;
	struct core_v1_resource_quota *q =
		model_copy(&core_v1_resource_quota_type, cached, r->arena);
	struct counting c = { .r = r, .q = cached, .ns = cached->metadata.namespace };
	struct str_map now = { 0 };

	LIST_EACH(h, &cached->spec.hard) {
		struct quantity n;
		char text[QUANTITY_TEXT_MAX];

		if (!used(&c, h->key, &n))
			continue;
		quantity_format(n, text);
		str_map_set(r->arena, &now, h->key, arena_strz(r->arena, text));
	}
	q->status.hard = q->spec.hard;
	q->status.used = now;
	if (model_equal(&core_v1_resource_quota_status_type, &q->status, &cached->status))
		return 0;
	int ret = client_update(
		r->client, &core_v1_resource_quota_type, "status", q, r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static void enqueue_quotas(struct run *r, struct str ns)
{
	struct cached_list all;

	informer_list(run_informer(r, &core_v1_resource_quota_type), ns, &all);
	for (size_t i = 0; i < all.len; i++)
		enqueue_after(r, all.items[i]->key, GATHER_MS);
	cached_list_deinit(&all);
}

/* Whatever comes or goes; of changes only those that free or take something. */
static void on_event(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	bool matters = ev != INFORMER_MODIFIED || c->type == &core_v1_service_type ||
		c->type == &core_v1_persistent_volume_claim_type;

	if (ev == INFORMER_MODIFIED && c->type == &core_v1_pod_type)
		matters = pod_ended(old->obj) != pod_ended(now->obj) ||
			old->meta->generation != now->meta->generation;
	if (matters)
		enqueue_quotas(arg, c->meta->namespace);
}

static int init(struct run *r, struct err *err)
{
	for (size_t i = 0; i < n_resource_rows; i++) {
		const struct resource_row *row = &resource_rows[i];

		if (!row->namespaced || !row->list_type || !(row->verbs & VERB_WATCH) ||
			!strcmp(row->plural, "events") || !strcmp(row->plural, "leases") ||
			row_named(str_of(row->plural), str_of(row->group)) != row)
			continue;
		informer_add_handler(
			informers_get_meta(r->config->informers, row->type), on_event, r);
	}
	return 0;
}

const struct controller quota_controller = {
	.name = "resourcequota",
	.bulk = true,
	.component = "resourcequota-controller",
	.watches = {
		{ &core_v1_resource_quota_type, map_self },
		{ &core_v1_pod_type, NULL },
		{ &core_v1_service_type, NULL },
		{ &core_v1_persistent_volume_claim_type, NULL },
	},
	.init = init,
	.reconcile = reconcile,
};
