/* ResourceQuota: what a namespace may hold. Usage is counted from the store when a quota is there, not taken from its status, so that
 * it is right whoever keeps that status. Creates that were let through and are not in the store yet count as well, for FLIGHT_NS at most:
 * what is refused further on must not count for longer.
 * Upstream: plugin/pkg/admission/resourcequota. */
#include "apiserver/admission/admission.h"

#define FLIGHT_NS 1000000000ULL

struct flight {
	struct list in;
	struct apiserver *server;
	struct arena *arena;
	struct registry_request req; /* resource and ns alone */
	struct admission_attributes at;
	uint64_t until_ns;
};
static pthread_mutex_t flights_lock =
	PTHREAD_MUTEX_INITIALIZER; /* guards flights; held from a judgement until its flight is noted */
static struct list flights = LIST_INIT(flights);

struct usage {
	struct apiserver *server;
	struct arena *arena;
	struct str ns;
	const struct core_v1_resource_quota *quotas[16];
	size_t n_quotas;
	const struct core_v1_resource_quota *quota; /* the one being judged */
	struct str name;                            /* requests.cpu */
	struct quantity sum;
};

static bool each_quota(void *arg, struct object *o)
{
	struct usage *u = arg;
	void *obj;
	if (registry_decode(u->server->known.quotas, o, u->arena, &obj, NULL) == 0)
		u->quotas[u->n_quotas++] = obj;
	return u->n_quotas < ARRAY_LEN(u->quotas);
}

/* ---- scopes ---- */

static bool best_effort(const struct core_v1_pod_spec *s)
{
	LIST_EACH(c, &s->containers)
		if (c->resources.requests.len || c->resources.limits.len)
			return false;
	return true;
}

static bool scope_fits(struct str scope, struct str operator, const struct str_list * values,
	const struct core_v1_pod_spec *s)
{
	if (str_eqz(scope, "Terminating"))
		return s->active_deadline_seconds.set;
	if (str_eqz(scope, "NotTerminating"))
		return !s->active_deadline_seconds.set;
	if (str_eqz(scope, "BestEffort"))
		return best_effort(s);
	if (str_eqz(scope, "NotBestEffort"))
		return !best_effort(s);
	if (!str_eqz(scope, "PriorityClass"))
		return false;
	bool in = values && str_list_has(values, s->priority_class_name);
	if (str_eqz(operator, "In"))
		return in;
	if (str_eqz(operator, "NotIn"))
		return !in;
	return str_eqz(operator, "DoesNotExist") ? !s->priority_class_name.len
						 : s->priority_class_name.len > 0;
}

static bool quota_fits(const struct core_v1_resource_quota *q, const struct core_v1_pod_spec *s)
{
	const struct core_v1_resource_quota_spec *spec = &q->spec;
	bool scoped = spec->scopes.len || spec->scope_selector;
	if (!s)
		return !scoped;
	for (size_t i = 0; i < spec->scopes.len; i++)
		if (!scope_fits(spec->scopes.items[i], STR("Exists"), NULL, s))
			return false;
	if (spec->scope_selector)
		LIST_EACH(m, &spec->scope_selector->match_expressions)
			if (!scope_fits(m->scope_name, m->operator, & m->values, s))
				return false;
	return true;
}

/* ---- what one object takes ---- */

static bool compute_name(struct str name, bool *ret_limits, struct str *ret_resource)
{
	*ret_limits = str_has_prefix(name, STR("limits."));
	if (*ret_limits)
		*ret_resource = str_from(name, strlen("limits."));
	else if (str_has_prefix(name, STR("requests.")))
		*ret_resource = str_from(name, strlen("requests."));
	else if (str_eqz(name, "cpu") || str_eqz(name, "memory") ||
		str_eqz(name, "ephemeral-storage"))
		*ret_resource = name;
	else
		return false;
	return !str_eqz(*ret_resource, "storage");
}

static struct quantity containers_take(
	const struct core_v1_container_items *l, bool limits, struct str resource, bool most)
{
	struct quantity sum = { .format = 'D' };
	LIST_EACH(c, l) {
		struct quantity x;
		struct str text = str_map_get(
			limits ? &c->resources.limits : &c->resources.requests, resource);
		if (!text.p || quantity_parse(text, &x) < 0)
			continue;
		sum = !most ? quantity_add(x, sum) : quantity_cmp(x, sum) > 0 ? x : sum;
	}
	return sum;
}

static struct quantity pod_takes(const struct core_v1_pod_spec *s, struct str name)
{
	bool limits;
	struct str resource;
	if (str_eqz(name, "pods") || str_eqz(name, "count/pods"))
		return (struct quantity){ .nano = 1000000000, .format = 'D' };
	if (!compute_name(name, &limits, &resource))
		return (struct quantity){ .format = 'D' };
	struct quantity run = containers_take(&s->containers, limits, resource, false),
			init = containers_take(&s->init_containers, limits, resource, true);
	return quantity_cmp(init, run) > 0 ? init : run;
}

static bool each_pod(void *arg, struct object *o)
{
	struct usage *u = arg;
	struct str phase = object_field(o, STR("status.phase"));
	void *obj;
	if (str_eqz(phase, "Succeeded") || str_eqz(phase, "Failed") ||
		registry_decode(u->server->known.pods, o, u->arena, &obj, NULL) < 0)
		return true;
	const struct core_v1_pod *pod = obj;
	if (quota_fits(u->quota, &pod->spec))
		u->sum = quantity_add(pod_takes(&pod->spec, u->name), u->sum);
	return true;
}

static bool each_claim(void *arg, struct object *o)
{
	struct usage *u = arg;
	struct quantity x;
	void *obj;
	if (registry_decode(u->server->known.claims, o, u->arena, &obj, NULL) < 0)
		return true;
	const struct core_v1_persistent_volume_claim *pvc = obj;
	if (quantity_parse(str_map_get(&pvc->spec.resources.requests, STR("storage")), &x) == 0)
		u->sum = quantity_add(x, u->sum);
	return true;
}

static bool each_service(void *arg, struct object *o)
{
	struct usage *u = arg;
	struct str type = object_field(o, STR("spec.type"));
	bool counts = str_eqz(u->name, "services.loadbalancers")
		? str_eqz(type, "LoadBalancer")
		: str_eqz(type, "LoadBalancer") || str_eqz(type, "NodePort");
	if (counts)
		u->sum.nano += 1000000000;
	return true;
}

static bool each_any(void *arg, struct object *o)
{
	((struct usage *)arg)->sum.nano += 1000000000;
	return true;
}

/* ---- judging ---- */

/* How much of `name` the new object takes; false: it has nothing to do with it. */
static bool object_takes(
	const struct admission_attributes *at, struct str name, struct quantity *ret)
{
	struct str gr = at->req->resource->group_resource;
	const struct quantity one = { .nano = 1000000000, .format = 'D' };
	struct str counted =
		str_has_prefix(name, STR("count/")) ? str_from(name, strlen("count/")) : name;
	if (at->type == &core_v1_pod_type) {
		*ret = pod_takes(&((const struct core_v1_pod *)at->obj)->spec, name);
		return ret->nano > 0;
	}
	if (str_eq(counted, gr)) {
		*ret = one;
		return true;
	}
	if (at->type == &core_v1_service_type) {
		struct str type = ((const struct core_v1_service *)at->obj)->spec.type;
		*ret = one;
		if (str_eqz(name, "services.loadbalancers"))
			return str_eqz(type, "LoadBalancer");
		return str_eqz(name, "services.nodeports") &&
			(str_eqz(type, "LoadBalancer") || str_eqz(type, "NodePort"));
	}
	if (at->type == &core_v1_persistent_volume_claim_type && str_eqz(name, "requests.storage"))
		return quantity_parse(
			       str_map_get(
				       &((const struct core_v1_persistent_volume_claim *)at->obj)
						->spec.resources.requests,
				       STR("storage")),
			       ret) == 0;
	return false;
}

static void flight_end(struct flight *f)
{
	list_remove(&f->in);
	arena_free(f->arena);
}

/* Needs the lock. */
static void flight_note(struct apiserver *s, const struct admission_attributes *at)
{
	struct arena *a = arena_new(0);
	struct flight *f = arena_alloc(a, sizeof(*f));

	*f = (struct flight){ .server = s,
		.arena = a,
		.req = { .resource = at->req->resource, .ns = arena_str(a, at->req->ns) },
		.at = { .type = at->type, .obj = model_copy(at->type, at->obj, a) },
		.until_ns = clock_real.mono_ns(&clock_real) + FLIGHT_NS };
	f->at.req = &f->req;
	list_insert(&flights, &f->in);
}

/* Needs the lock. Forgets what arrived in the store or never will. */
static void flights_settle(struct apiserver *s)
{
	uint64_t now = clock_real.mono_ns(&clock_real);

	list_for_each(it, &flights) {
		struct flight *f = list_entry(it, struct flight, in);
		struct object *o = NULL;

		if (f->until_ns <= now ||
			(f->server == s &&
				lookup_object(s, f->req.resource, f->req.ns,
					model_meta(f->at.type, f->at.obj)->name, &o) == 0))
			flight_end(f);
		object_unref(o);
	}
}

static void add_flights(struct usage *u, const struct admission_attributes *at, struct str name)
{
	list_for_each(it, &flights) {
		struct flight *f = list_entry(it, struct flight, in);
		struct quantity takes;

		if (f->server != u->server || f->req.resource != at->req->resource ||
			!str_eq(f->req.ns, u->ns))
			continue;
		if (f->at.type == &core_v1_pod_type &&
			!quota_fits(u->quota, &((const struct core_v1_pod *)f->at.obj)->spec))
			continue;
		if (object_takes(&f->at, name, &takes))
			u->sum = quantity_add(u->sum, takes);
	}
}

static struct quantity used(struct usage *u, const struct admission_attributes *at, struct str name)
{
	u->name = name;
	u->sum = (struct quantity){ .format = 'D' };
	if (at->type == &core_v1_pod_type)
		lookup_each(u->server, u->server->known.pods, u->ns, each_pod, u);
	else if (str_has_prefix(name, STR("services.")))
		lookup_each(u->server, u->server->known.services, u->ns, each_service, u);
	else if (str_eqz(name, "requests.storage"))
		lookup_each(u->server, u->server->known.claims, u->ns, each_claim, u);
	else
		lookup_each(u->server, at->req->resource, u->ns, each_any, u);
	add_flights(u, at, name);
	return u->sum;
}

static struct str must_specify(
	const struct admission_attributes *at, const struct core_v1_resource_quota *q)
{
	CLEAN_BUF struct buf b = { 0 };
	const struct core_v1_pod_spec *s = &((const struct core_v1_pod *)at->obj)->spec;
	for (size_t i = 0; i < q->spec.hard.len; i++) {
		struct str name = q->spec.hard.items[i].key, resource;
		bool limits;
		if (!compute_name(name, &limits, &resource) ||
			!(str_eqz(resource, "cpu") || str_eqz(resource, "memory")))
			continue;
		CLEAN_BUF struct buf who = { 0 };
		LIST_EACH(c, &s->containers)
			if (!str_map_has(limits ? &c->resources.limits : &c->resources.requests,
				    resource))
				buf_addf(&who, "%s" STR_FMT, who.len ? "," : "", STR_ARG(c->name));
		if (who.len)
			buf_addf(&b, "%s" STR_FMT " for: %s", b.len ? "; " : "", STR_ARG(name),
				who.p);
	}
	return arena_str(at->req->arena, buf_str(&b));
}

static void put_amount(struct buf *out, struct str name, struct quantity q)
{
	char text[QUANTITY_TEXT_MAX];
	quantity_format(q, text);
	buf_addf(out, "%s" STR_FMT "=%s", out->len ? "," : "", STR_ARG(name), text);
}

static struct meta_v1_status *judge(struct usage *u, const struct admission_attributes *at,
	const struct core_v1_resource_quota *q)
{
	CLEAN_BUF struct buf asked = { 0 }, taken = { 0 }, most = { 0 };
	u->quota = q;
	for (size_t i = 0; i < q->spec.hard.len; i++) {
		struct quantity want, have, hard;
		struct str name = q->spec.hard.items[i].key;
		if (!object_takes(at, name, &want) ||
			quantity_parse(q->spec.hard.items[i].value, &hard) < 0)
			continue;
		have = used(u, at, name);
		if (quantity_cmp(quantity_add(have, want), hard) <= 0)
			continue;
		put_amount(&asked, name, want);
		put_amount(&taken, name, have);
		put_amount(&most, name, hard);
	}
	if (!asked.len)
		return NULL;
	return deny(at, "exceeded quota: " STR_FMT ", requested: %s, used: %s, limited: %s",
		STR_ARG(q->metadata.name), asked.p, taken.p, most.p);
}

static struct meta_v1_status *judge_all(struct usage *up, const struct admission_attributes *at)
{
	struct usage u = *up;
	const struct core_v1_pod_spec *spec =
		at->type == &core_v1_pod_type ? &((const struct core_v1_pod *)at->obj)->spec : NULL;
	for (size_t i = 0; i < u.n_quotas; i++) {
		if (!quota_fits(u.quotas[i], spec))
			continue;
		struct str missing = spec ? must_specify(at, u.quotas[i]) : STR_NONE;
		if (missing.len)
			return deny(at, "failed quota: " STR_FMT ": must specify " STR_FMT,
				STR_ARG(u.quotas[i]->metadata.name), STR_ARG(missing));
		struct meta_v1_status *st = judge(&u, at, u.quotas[i]);
		if (st)
			return st;
	}
	return NULL;
}

static struct meta_v1_status *validate(struct apiserver *s, struct admission_attributes *at)
{
	if (!at->req->ns.len || at->req->sub || !at->obj)
		return NULL;
	struct usage u = { .server = s, .arena = at->req->arena, .ns = at->req->ns };
	lookup_each(s, s->known.quotas, at->req->ns, each_quota, &u);
	if (!u.n_quotas)
		return NULL;
	pthread_mutex_lock(&flights_lock);
	flights_settle(s);
	struct meta_v1_status *st = judge_all(&u, at);
	if (!st && !at->req->dry_run)
		flight_note(s, at);
	pthread_mutex_unlock(&flights_lock);
	return st;
}

const struct plugin resource_quota_plugin = {
	.name = "ResourceQuota",
	.operations = VERB_CREATE,
	.validate = validate,
};
