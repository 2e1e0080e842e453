/* ResourceQuota: what a namespace may hold. Usage is counted from the store when a quota is there, not taken from its status, so that
 * it is right whoever keeps that status. Creates that were let through and are not in the store yet count as well, for FLIGHT_NS at most:
 * what is refused further on must not count for longer. Updates that are on their way at the same time do not see each other.
 * Upstream: plugin/pkg/admission/resourcequota. */
#include "apiserver/admission/admission.h"
#include "model/quota.h"

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
	const struct resource *resource;            /* of what is counted */
	const struct type *type;
	struct str name; /* requests.cpu */
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

/* ---- what is there ---- */

static bool each_counted(void *arg, struct object *o)
{
	struct usage *u = arg;
	struct quantity takes;
	void *obj;
	if (u->type == &core_v1_pod_type) {
		struct str phase = object_field(o, STR("status.phase"));
		if (str_eqz(phase, "Succeeded") || str_eqz(phase, "Failed"))
			return true;
	}
	if (registry_decode(u->resource, o, u->arena, &obj, NULL) == 0 &&
		quota_speaks_of(&u->quota->spec, u->type, obj) &&
		quota_takes(u->name, u->resource->group_resource, u->type, obj, &takes))
		u->sum = quantity_add(takes, u->sum);
	return true;
}

static bool each_any(void *arg, struct object *o)
{
	((struct usage *)arg)->sum.nano += 1000000000;
	return true;
}

/* ---- judging ---- */

/* How much more of `name` there will be; false: it has nothing to do with it, or there will be no more. */
static bool object_takes(const struct core_v1_resource_quota *q,
	const struct admission_attributes *at, struct str name, struct quantity *ret)
{
	struct str gr = at->req->resource->group_resource;
	struct quantity before;
	if (!quota_takes(name, gr, at->type, at->obj, ret))
		return false;
	if (at->old && quota_speaks_of(&q->spec, at->type, at->old) &&
		quota_takes(name, gr, at->type, at->old, &before))
		*ret = quantity_sub(*ret, before);
	return ret->nano > 0;
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
		if (!quota_speaks_of(&u->quota->spec, f->at.type, f->at.obj))
			continue;
		if (object_takes(u->quota, &f->at, name, &takes))
			u->sum = quantity_add(u->sum, takes);
	}
}

static struct quantity used(struct usage *u, const struct admission_attributes *at, struct str name)
{
	u->name = name;
	u->sum = (struct quantity){ .format = 'D' };
	u->resource = at->req->resource;
	u->type = at->type;
	bool plain = !u->quota->spec.scopes.len && !u->quota->spec.scope_selector &&
		at->type != &core_v1_pod_type && at->type != &core_v1_service_type &&
		at->type != &core_v1_persistent_volume_claim_type;
	lookup_each(u->server, at->req->resource, u->ns, plain ? each_any : each_counted, u);
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
		if (!quota_compute_name(name, &limits, &resource) ||
			!(str_eqz(resource, "cpu") || str_eqz(resource, "memory")))
			continue;
		CLEAN_BUF struct buf who = { 0 };
		const struct str_map *own = !s->resources ? NULL
			: limits                          ? &s->resources->limits
							  : &s->resources->requests;
		LIST_EACH(c, &s->containers)
			if (!str_map_has(limits ? &c->resources.limits : &c->resources.requests,
				    resource) &&
				!(own && str_map_has(own, resource)))
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
		if (!object_takes(q, at, name, &want) ||
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
		if (!quota_speaks_of(&u.quotas[i]->spec, at->type, at->obj))
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

/* Creates; and of updates those that may ask for more. */
static bool can_take_more(const struct admission_attributes *at)
{
	const struct subresource_row *sub = at->req->sub;
	if (at->operation == VERB_CREATE)
		return !sub;
	if (at->type == &core_v1_pod_type)
		return sub && !strcmp(sub->name, "resize");
	return !sub &&
		(at->type == &core_v1_service_type ||
			at->type == &core_v1_persistent_volume_claim_type);
}

static struct meta_v1_status *validate(struct apiserver *s, struct admission_attributes *at)
{
	if (!at->req->ns.len || !at->obj || !can_take_more(at))
		return NULL;
	struct usage u = { .server = s, .arena = at->req->arena, .ns = at->req->ns };
	lookup_each(s, s->known.quotas, at->req->ns, each_quota, &u);
	if (!u.n_quotas)
		return NULL;
	pthread_mutex_lock(&flights_lock);
	flights_settle(s);
	struct meta_v1_status *st = judge_all(&u, at);
	if (!st && !at->req->dry_run && !at->old)
		flight_note(s, at);
	pthread_mutex_unlock(&flights_lock);
	return st;
}

const struct plugin resource_quota_plugin = {
	.name = "ResourceQuota",
	.operations = VERB_CREATE | VERB_UPDATE,
	.validate = validate,
};
