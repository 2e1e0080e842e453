/* LimitRanger: a namespace's LimitRanges fill in what containers leave out and refuse what is too small or too large.
 * Upstream: plugin/pkg/admission/limitranger. */
#include "apiserver/admission/admission.h"

struct ranges {
	struct apiserver *server;
	struct arena *arena;
	const struct core_v1_limit_range *items[16];
	size_t len;
};

static bool each_range(void *arg, struct object *o)
{
	struct ranges *r = arg;
	void *obj;
	if (registry_decode(r->server->known.limit_ranges, o, r->arena, &obj, NULL) == 0)
		r->items[r->len++] = obj;
	return r->len < ARRAY_LEN(r->items);
}

/* ---- filling in ---- */

static void merge(struct arena *a, struct str_map *into, const struct str_map *from,
	const char *what, struct str container, struct buf *note)
{
	for (size_t i = 0; i < from->len; i++) {
		if (str_map_has(into, from->items[i].key))
			continue;
		str_map_set(a, into, from->items[i].key, from->items[i].value);
		buf_addf(note, "%s" STR_FMT " %s for container " STR_FMT, note->len ? "; " : "",
			STR_ARG(from->items[i].key), what, STR_ARG(container));
	}
}

static void fill_containers(struct arena *a, struct core_v1_container_items *l,
	const struct core_v1_limit_range_item *item, struct buf *note)
{
	LIST_EACH(c, l) {
		merge(a, &c->resources.requests, &item->default_request, "request", c->name, note);
		merge(a, &c->resources.limits, &item->default_, "limit", c->name, note);
	}
}

/* ---- judging ---- */

struct judge {
	const struct admission_attributes *at;
	struct buf errors;
	size_t n;
};

static void complain(struct judge *j, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void complain(struct judge *j, const char *fmt, ...)
{
	va_list ap;
	if (j->n++)
		buf_addz(&j->errors, ", ");
	va_start(ap, fmt);
	buf_vaddf(&j->errors, fmt, ap);
	va_end(ap);
}

static bool less(struct str a, struct str b)
{
	struct quantity x, y;
	return quantity_parse(a, &x) == 0 && quantity_parse(b, &y) == 0 && quantity_cmp(x, y) < 0;
}

/* A minimum must have a request, a maximum a limit; both hold for both. */
static void judge_bound(struct judge *j, const struct core_v1_limit_range_item *item, bool most,
	const struct str_map *requests, const struct str_map *limits)
{
	const struct {
		const char *name;
		const struct str_map *values;
	} sides[] = { { "request", requests }, { "limit", limits } };
	const struct str_map *bounds = most ? &item->max : &item->min;
	const char *word = most ? "maximum" : "minimum";

	for (size_t i = 0; i < bounds->len; i++) {
		struct str key = bounds->items[i].key, bound = bounds->items[i].value;

		for (int n = 0; n < 2; n++) {
			int side = most ? !n : n;
			struct str value = str_map_get(sides[side].values, key);

			if (!value.p && n == 0)
				complain(j,
					"%s " STR_FMT " usage per " STR_FMT " is " STR_FMT
					".  No %s is specified",
					word, STR_ARG(key), STR_ARG(item->type), STR_ARG(bound),
					sides[side].name);
			else if (value.p && (most ? less(bound, value) : less(value, bound)))
				complain(j,
					"%s " STR_FMT " usage per " STR_FMT " is " STR_FMT
					", but %s is " STR_FMT,
					word, STR_ARG(key), STR_ARG(item->type), STR_ARG(bound),
					sides[side].name, STR_ARG(value));
			else
				continue;
			break; /* one complaint a bound */
		}
	}
}

static void judge_ratio(struct judge *j, const struct core_v1_limit_range_item *item,
	const struct str_map *requests, const struct str_map *limits)
{
	for (size_t i = 0; i < item->max_limit_request_ratio.len; i++) {
		struct str key = item->max_limit_request_ratio.items[i].key,
			   text = item->max_limit_request_ratio.items[i].value;
		struct quantity ratio, request, limit;
		if (quantity_parse(text, &ratio) ||
			quantity_parse(str_map_get(requests, key), &request) ||
			quantity_parse(str_map_get(limits, key), &limit)) {
			complain(j,
				STR_FMT " max limit to request ratio per " STR_FMT " is " STR_FMT
					", but no request is specified or request is 0",
				STR_ARG(key), STR_ARG(item->type), STR_ARG(text));
			continue;
		}
		double asked = request.nano ? (double)limit.nano / (double)request.nano : 0,
		       most = (double)ratio.nano / 1e9;
		if (asked > most)
			complain(j,
				STR_FMT " max limit to request ratio per " STR_FMT " is " STR_FMT
					", but provided ratio is %f",
				STR_ARG(key), STR_ARG(item->type), STR_ARG(text), asked);
	}
}

static void judge_one(struct judge *j, const struct core_v1_limit_range_item *item,
	const struct str_map *requests, const struct str_map *limits)
{
	judge_bound(j, item, false, requests, limits);
	judge_bound(j, item, true, requests, limits);
	judge_ratio(j, item, requests, limits);
}

static void judge_containers(struct judge *j, const struct core_v1_limit_range_item *item,
	const struct core_v1_container_items *l)
{
	LIST_EACH(c, l)
		judge_one(j, item, &c->resources.requests, &c->resources.limits);
}

static void add_up(struct arena *a, struct str_map *sum, const struct str_map *more)
{
	for (size_t i = 0; i < more->len; i++) {
		struct quantity x = { .format = 'D' }, y;
		struct str have = str_map_get(sum, more->items[i].key);
		char text[QUANTITY_TEXT_MAX];
		if (quantity_parse(more->items[i].value, &y) < 0 ||
			(have.p && quantity_parse(have, &x) < 0))
			continue;
		size_t n = quantity_format(have.p ? quantity_add(x, y) : y, text);
		str_map_set(a, sum, more->items[i].key, arena_str(a, str_n(text, n)));
	}
}

static void judge_pod(
	struct judge *j, const struct core_v1_limit_range_item *item, const struct core_v1_pod *pod)
{
	struct str_map requests = { 0 }, limits = { 0 };
	LIST_EACH(c, &pod->spec.containers) {
		add_up(j->at->req->arena, &requests, &c->resources.requests);
		add_up(j->at->req->arena, &limits, &c->resources.limits);
	}
	judge_one(j, item, &requests, &limits);
}

static struct meta_v1_status *verdict(struct judge *j)
{
	struct meta_v1_status *st = NULL;
	if (j->n == 1)
		st = deny(j->at, "%s", j->errors.p);
	else if (j->n)
		st = deny(j->at, "[%s]", j->errors.p);
	buf_deinit(&j->errors);
	return st;
}

/* ---- the plugin ---- */

static struct meta_v1_status *admit(struct apiserver *s, struct admission_attributes *at)
{
	struct arena *a = at->req->arena;
	struct ranges r = { .server = s, .arena = a };
	struct core_v1_pod *pod = at->type == &core_v1_pod_type ? at->obj : NULL;
	if (!pod || at->operation != VERB_CREATE)
		return NULL;
	lookup_each(s, s->known.limit_ranges, at->req->ns, each_range, &r);
	CLEAN_BUF struct buf note = { 0 };
	for (size_t i = 0; i < r.len; i++) {
		LIST_EACH(item, &r.items[i]->spec.limits) {
			if (!str_eqz(item->type, "Container"))
				continue;
			fill_containers(a, &pod->spec.containers, item, &note);
			fill_containers(a, &pod->spec.init_containers, item, &note);
		}
	}
	if (note.len)
		str_map_set(a, &pod->metadata.annotations, STR("kubernetes.io/limit-ranger"),
			arena_fmt(a, "LimitRanger plugin set: %s", note.p));
	return NULL;
}

/* What an update leaves as it was is not judged again. */
static bool asks_anew(const struct admission_attributes *at)
{
	const struct core_v1_persistent_volume_claim *now = at->obj, *old = at->old;
	return at->operation == VERB_CREATE || at->type != &core_v1_persistent_volume_claim_type ||
		!model_equal(&core_v1_volume_resource_requirements_type, &now->spec.resources,
			&old->spec.resources);
}

static struct meta_v1_status *validate(struct apiserver *s, struct admission_attributes *at)
{
	if ((at->operation == VERB_UPDATE && at->type == &core_v1_pod_type && !at->req->sub) ||
		!asks_anew(at))
		return NULL;
	struct ranges r = { .server = s, .arena = at->req->arena };
	lookup_each(s, s->known.limit_ranges, at->req->ns, each_range, &r);
	struct judge j = { .at = at };
	const struct core_v1_pod *pod = at->type == &core_v1_pod_type ? at->obj : NULL;
	const struct core_v1_persistent_volume_claim *pvc = pod ? NULL : at->obj;
	for (size_t i = 0; i < r.len; i++) {
		LIST_EACH(item, &r.items[i]->spec.limits) {
			if (pvc && str_eqz(item->type, "PersistentVolumeClaim")) {
				judge_bound(&j, item, false, &pvc->spec.resources.requests,
					&pvc->spec.resources.limits);
				judge_bound(&j, item, true, &pvc->spec.resources.requests,
					&pvc->spec.resources.requests);
			}
			if (pod && str_eqz(item->type, "Container")) {
				judge_containers(&j, item, &pod->spec.containers);
				judge_containers(&j, item, &pod->spec.init_containers);
			}
			if (pod && str_eqz(item->type, "Pod"))
				judge_pod(&j, item, pod);
		}
	}
	return verdict(&j);
}

const struct plugin limit_ranger_plugin = {
	.name = "LimitRanger",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "pods", "pods/resize", "persistentvolumeclaims" },
	.admit = admit,
	.validate = validate,
};
