/* Applying an object over a live one, and keeping account of who owns what.
 * 1. A field that an applier states is its own; two may own one field as long as they agree.
 * 2. An applier that no longer states a field gives it up; when nobody else owns it, it goes from the object.
 * 3. Who changes a field by other means takes it from all others; who would change it by applying conflicts, unless forced. */
#include "base/map.h"
#include "model/field_set.h"

/* ---- merging ---- */

static void merge(const struct place_kind *p, struct value *live, const struct value *applied,
	struct arena *a);

static bool is_list(const struct place_kind *p)
{
	return p->kind == PLACE_LIST_MAP || p->kind == PLACE_LIST_SET;
}

/* The elements of a list's items, and an index of them. */
static struct str *list_elements(
	const struct place_kind *p, const struct value *v, struct map *index, struct arena *a)
{
	struct str *e = arena_alloc(a, v->list.len * sizeof(*e));

	for (size_t i = 0; i < v->list.len; i++) {
		e[i] = element_of_item(p, &v->list.items[i], a);
		if (e[i].p && !map_get(index, e[i]))
			map_set(index, e[i], (void *)(i + 1));
	}
	return e;
}

/* Items that are applied come in the applied order; each of the others stays before the first applied one that stood
 * behind it. */
static void merge_lists(const struct place_kind *p, struct value *live, const struct value *applied,
	struct arena *a)
{
	struct map live_index = { 0 }, applied_index = { 0 };
	struct str *live_names = list_elements(p, live, &live_index, a),
		   *names = list_elements(p, applied, &applied_index, a);
	struct value out = { .kind = VALUE_LIST };
	struct place_kind item = place_of_item(p);
	size_t i = 0;

	for (size_t j = 0; j < applied->list.len; j++) {
		size_t at = names[j].p ? (size_t)map_get(&live_index, names[j]) : 0;

		for (; at && i < at - 1; i++)
			if (!live_names[i].p || !map_get(&applied_index, live_names[i]))
				*value_append(a, &out) = live->list.items[i];
		struct value *v = value_append(a, &out);

		if (at) {
			*v = live->list.items[at - 1];
			merge(&item, v, &applied->list.items[j], a);
		} else {
			*v = value_copy(a, &applied->list.items[j]);
		}
	}
	for (; i < live->list.len; i++)
		if (!live_names[i].p || !map_get(&applied_index, live_names[i]))
			*value_append(a, &out) = live->list.items[i];
	*live = out;
	map_deinit(&live_index, NULL);
	map_deinit(&applied_index, NULL);
}

static void merge(const struct place_kind *p, struct value *live, const struct value *applied,
	struct arena *a)
{
	unsigned kind = is_list(p) ? VALUE_LIST : VALUE_OBJECT;

	if (p->kind == PLACE_LEAF || applied->kind != kind || live->kind != kind) {
		*live = value_copy(a, applied);
		return;
	}
	if (is_list(p)) {
		merge_lists(p, live, applied, a);
		return;
	}
	struct map index = { 0 };

	for (size_t i = 0; i < live->object.len; i++)
		map_set(&index, live->object.members[i].key, (void *)(i + 1));
	for (size_t i = 0; i < applied->object.len; i++) {
		const struct value_member *m = &applied->object.members[i];
		struct place_kind inner = place_of_member(p, m->key);
		size_t at = (size_t)map_get(&index, m->key);

		if (at)
			merge(&inner, &live->object.members[at - 1].value, &m->value, a);
		else
			*value_add_member(a, live, arena_str(a, m->key)) = value_copy(a, &m->value);
	}
	map_deinit(&index, NULL);
}

/* ---- taking away ---- */

/* Removes from v what is in `gone`, except where somebody owns it or something below it (`kept`). */
static void take_away(const struct place_kind *p, struct value *v, const struct field_set *gone,
	const struct field_set *kept, struct arena *a);

static bool is_empty(const struct value *v)
{
	return v->kind == VALUE_OBJECT ? !v->object.len : v->kind == VALUE_LIST && !v->list.len;
}

/* true: the part itself goes. */
static bool part_goes(const struct place_kind *inner, struct value *v, const struct field_set *gone,
	const struct field_set *kept, struct arena *a)
{
	bool wanted = !field_set_is_empty(kept), was_empty = is_empty(v);

	if (gone->member && !wanted)
		return true;
	take_away(inner, v, gone, kept, a);
	return !wanted && is_empty(v) && !was_empty;
}

static void take_away(const struct place_kind *p, struct value *v, const struct field_set *gone,
	const struct field_set *kept, struct arena *a)
{
	size_t n = 0;

	if (p->kind == PLACE_LEAF)
		return;
	for (size_t i = 0; v->kind == VALUE_LIST && i < v->list.len; i++) {
		struct value *item = &v->list.items[i];
		struct str e = is_list(p) ? element_of_item(p, item, a) : STR_NONE;
		const struct field_set *g = e.p ? field_child_of(gone, e) : NULL;
		struct place_kind inner = place_of_item(p);

		if (!g || !part_goes(&inner, item, g, field_child_of(kept, e), a))
			v->list.items[n++] = *item;
	}
	if (v->kind == VALUE_LIST)
		v->list.len = n;
	for (size_t i = 0; v->kind == VALUE_OBJECT && i < v->object.len; i++) {
		struct value_member *m = &v->object.members[i];
		struct str e = element_of_name(m->key, a);
		const struct field_set *g = field_child_of(gone, e);
		struct place_kind inner = place_of_member(p, m->key);

		if (!g || !part_goes(&inner, &m->value, g, field_child_of(kept, e), a))
			v->object.members[n++] = *m;
	}
	if (v->kind == VALUE_OBJECT)
		v->object.len = n;
}

/* ---- owners ---- */

/* Fields that nobody owns, since the server sets them. */
static const char *const unowned[] = {
	"creationTimestamp",
	"deletionGracePeriodSeconds",
	"deletionTimestamp",
	"generation",
	"managedFields",
	"name",
	"namespace",
	"resourceVersion",
	"selfLink",
	"uid",
};

static struct field_set *ownable(
	const struct field_set *s, const struct field_request *r, struct arena *a)
{
	struct field_set server = { 0 }, bare = { 0 };
	struct field_set *meta;

	field_child_make(&server, STR("f:apiVersion"), a)->member = true;
	field_child_make(&server, STR("f:kind"), a)->member = true;
	meta = field_child_make(&server, STR("f:metadata"), a);
	for (size_t i = 0; i < ARRAY_LEN(unowned); i++)
		field_child_make(meta, element_of_name(str_of(unowned[i]), a), a)->member = true;
	struct field_set *own = field_set_minus(s, &server, true, a);

	own = r->ignored ? field_set_minus(own, r->ignored, true, a) : own;
	/* Bare `metadata` is everybody's. */
	field_child_make(&bare, STR("f:metadata"), a)->member = true;
	own = field_set_minus(own, &bare, false, a);
	return own;
}

static bool is_writer(
	const struct field_owner *o, const struct field_request *r, const char *operation)
{
	return str_eq(o->manager, r->manager) && str_eqz(o->operation, operation) &&
		str_eq(o->subresource, r->subresource) &&
		(str_eq(o->api_version, r->api_version) || *operation == 'A');
}

static struct field_owner *find_owner(
	struct field_owners *owners, const struct field_request *r, const char *operation)
{
	for (size_t i = 0; i < owners->len; i++)
		if (is_writer(&owners->items[i], r, operation))
			return &owners->items[i];
	return NULL;
}

static struct field_owner *add_owner(struct field_owners *owners, struct str manager,
	const char *operation, const struct field_request *r, struct arena *a)
{
	struct field_owner *o = model_list_add(a, owners, sizeof(*o));

	*o = (struct field_owner){
		.manager = arena_str(a, manager),
		.operation = str_of(operation),
		.api_version = arena_str(a, r->api_version),
		.subresource = r->subresource.len ? arena_str(a, r->subresource) : STR_NONE,
		.time = r->now,
		.fields = field_set_new(a),
	};
	return o;
}

static void drop_empty(struct field_owners *owners)
{
	size_t n = 0;

	for (size_t i = 0; i < owners->len; i++)
		if (!field_set_is_empty(owners->items[i].fields))
			owners->items[n++] = owners->items[i];
	owners->len = n;
}

/* Takes fields from everyone but `except`. */
static void take_from_others(struct field_owners *owners, const struct field_owner *except,
	const struct field_set *fields, bool deep, struct arena *a)
{
	for (size_t i = 0; i < owners->len; i++)
		if (&owners->items[i] != except)
			owners->items[i].fields =
				field_set_minus(owners->items[i].fields, fields, deep, a);
}

#define UPDATERS_MAX 10 /* entries of operation Update; the oldest become one */

static void merge_oldest_updaters(
	struct field_owners *owners, const struct field_request *r, struct arena *a)
{
	for (;;) {
		struct field_owner *oldest = NULL, *second = NULL;
		size_t n = 0;

		for (size_t i = 0; i < owners->len; i++) {
			struct field_owner *o = &owners->items[i];

			if (!str_eqz(o->operation, "Update"))
				continue;
			n++;
			if (!oldest || time_cmp(o->time, oldest->time) < 0) {
				second = oldest;
				oldest = o;
			} else if (!second || time_cmp(o->time, second->time) < 0) {
				second = o;
			}
		}
		if (n <= UPDATERS_MAX || !second)
			return;
		second->fields = field_set_union(second->fields, oldest->fields, a);
		second->manager = STR("ancient-changes");
		second->subresource = STR_NONE;
		oldest->fields = NULL;
		drop_empty(owners);
	}
}

void fields_track_update(const struct field_request *r, const struct value *old,
	const struct value *obj, struct field_owners *owners, struct arena *a)
{
	struct field_changes c = field_set_compare(r->type, old, obj, a);
	struct field_set *changed = ownable(field_set_union(c.added, c.modified, a), r, a);
	struct field_owner *me = find_owner(owners, r, "Update");
	bool fresh = false;

	if (field_set_is_empty(changed) && field_set_is_empty(c.removed))
		return;
	if (!me) {
		me = add_owner(owners, r->manager, "Update", r, a);
		fresh = true;
	}
	struct field_set *mine =
		field_set_minus(field_set_union(me->fields, changed, a), c.removed, false, a);

	if (!fresh && !field_set_equal(mine, me->fields))
		me->time = r->now;
	me->fields = mine;
	take_from_others(owners, me, changed, false, a);
	take_from_others(owners, me, c.removed, false, a);
	drop_empty(owners);
	merge_oldest_updaters(owners, r, a);
}

/* ---- apply ---- */

static struct field_conflict *find_conflicts(const struct field_owners *owners,
	const struct field_owner *me, const struct field_set *changed, struct arena *a,
	size_t *ret_n)
{
	struct {
		struct field_conflict *items;
		size_t len;
	} out = { 0 };

	for (size_t i = 0; i < owners->len; i++) {
		const struct field_owner *o = &owners->items[i];
		struct str *paths;

		if (o == me)
			continue;
		size_t n = field_set_paths(field_set_intersect(o->fields, changed, a), a, &paths);

		for (size_t j = 0; j < n; j++)
			*LIST_ADD(a, &out) = (struct field_conflict){
				.manager = o->manager,
				.api_version = o->api_version,
				.by_update = str_eqz(o->operation, "Update"),
				.path = paths[j],
			};
	}
	*ret_n = out.len;
	return out.items;
}

/* Apply failed with 2 conflicts: conflicts with "a" using v1:\n- .x\n- .y */
static int tell_conflicts(const struct field_conflict *c, size_t n, struct err *err)
{
	struct buf text = { 0 };

	buf_addf(&text, "Apply failed with %zu conflict%s: ", n, n == 1 ? "" : "s");
	for (size_t i = 0; i < n; i++) {
		bool first = !i || !str_eq(c[i].manager, c[i - 1].manager) ||
			!str_eq(c[i].api_version, c[i - 1].api_version);
		bool several = i + 1 < n && str_eq(c[i].manager, c[i + 1].manager) &&
			str_eq(c[i].api_version, c[i + 1].api_version);

		if (first) {
			buf_addf(&text, "%sconflict%s with \"" STR_FMT "\"%s", i ? "\n" : "",
				several ? "s" : "", STR_ARG(c[i].manager),
				c[i].api_version.len ? " using " : "");
			buf_add_str(&text, c[i].api_version);
			buf_addc(&text, ':');
		}
		buf_addf(&text, first && !several ? " " STR_FMT : "\n- " STR_FMT,
			STR_ARG(c[i].path));
	}
	err_set(err, 0, "%s", text.p);
	buf_deinit(&text);
	return APPLY_CONFLICT;
}

/* What the others own, and the applier now: what must stay. */
static struct field_set *all_owned(const struct field_owners *owners, const struct field_owner *me,
	const struct field_set *mine, struct arena *a)
{
	struct field_set *all = field_set_union(mine, NULL, a);

	for (size_t i = 0; i < owners->len; i++)
		if (&owners->items[i] != me)
			all = field_set_union(all, owners->items[i].fields, a);
	return all;
}

static bool copy_owners(const struct field_owners *from, struct field_owners *to, struct arena *a)
{
	*to = (struct field_owners){ 0 };
	for (size_t i = 0; i < from->len; i++)
		*(struct field_owner *)model_list_add(a, to, sizeof(struct field_owner)) =
			from->items[i];
	return from->len > 0;
}

static int check_applied(
	const struct place_kind *p, const struct value *v, struct arena *a, struct err *err);

/* Items that merge by keys must have them, each once: where one cannot be told from another, applying twice would not be
 * applying once. */
static int check_items(
	const struct place_kind *p, const struct value *v, struct arena *a, struct err *err)
{
	struct map seen = { 0 };
	struct place_kind item = place_of_item(p);
	const char *list = p->field->name;
	int r = 0;

	for (size_t i = 0; !r && i < v->list.len; i++) {
		struct str e = element_of_item(p, &v->list.items[i], a);

		if (!e.p && p->kind == PLACE_LIST_SET)
			r = err_set(err, -EINVAL,
				"%s: element %zu: a set holds texts, numbers and bools only", list,
				i);
		else if (!e.p)
			r = err_set(err, -EINVAL,
				"%s: element %zu: associative list with keys has an element that omits key "
				"field \"%s\" (and doesn't have default value)",
				list, i, p->field->list_keys[0]);
		else if (map_get(&seen, e))
			r = err_set(err, -EINVAL, "%s: duplicate entries for key " STR_FMT, list,
				STR_ARG(e));
		else
			map_set(&seen, e, (void *)1);
		if (!r)
			r = check_applied(&item, &v->list.items[i], a, err);
	}
	map_deinit(&seen, NULL);
	return r;
}

static int check_applied(
	const struct place_kind *p, const struct value *v, struct arena *a, struct err *err)
{
	int r = 0;

	if (p->kind != PLACE_LEAF && is_list(p) && v->kind == VALUE_LIST)
		return check_items(p, v, a, err);
	if (p->kind == PLACE_LEAF || is_list(p) || v->kind != VALUE_OBJECT)
		return 0;
	for (size_t i = 0; !r && i < v->object.len; i++) {
		struct place_kind inner = place_of_member(p, v->object.members[i].key);

		r = check_applied(&inner, &v->object.members[i].value, a, err);
	}
	return r;
}

int fields_apply(const struct field_request *r, const struct value *live,
	const struct value *applied, bool force, struct field_owners *owners, struct arena *a,
	struct value *ret, struct field_conflict **ret_conflicts, size_t *ret_n, struct err *err)
{
	struct place_kind root = place_of_object(r->type);
	struct field_set *mine = ownable(field_set_of(r->type, applied, a), r, a);
	struct value merged = value_copy(a, live);
	struct field_owners now;
	int bad = check_applied(&root, applied, a, err);

	if (bad < 0)
		return bad;
	if (!copy_owners(owners, &now, a) && live->kind == VALUE_OBJECT &&
		live->object.len) /* never tracked: all belongs to who came before */
		add_owner(&now, STR("before-first-apply"), "Update", r, a)->fields =
			ownable(field_set_of(r->type, live, a), r, a);
	struct field_owner *me = find_owner(&now, r, "Apply");
	struct field_set *given_up = me ? field_set_minus(me->fields, mine, false, a) : NULL;

	merge(&root, &merged, applied, a);
	if (given_up)
		take_away(&root, &merged, given_up, all_owned(&now, me, mine, a), a);
	struct field_changes c = field_set_compare(r->type, live, &merged, a);
	struct field_set *changed = ownable(field_set_union(c.added, c.modified, a), r, a);
	size_t n;
	struct field_conflict *conflicts = find_conflicts(&now, me, changed, a, &n);

	if (n && !force) {
		*ret_conflicts = conflicts;
		*ret_n = n;
		return tell_conflicts(conflicts, n, err);
	}
	if (!me)
		me = add_owner(&now, r->manager, "Apply", r, a);
	else if (!field_set_equal(me->fields, mine) || !str_eq(me->api_version, r->api_version))
		me->time = r->now;
	me->api_version = arena_str(a, r->api_version);
	me->fields = mine;
	take_from_others(&now, me, changed, false, a);
	take_from_others(&now, me, c.removed, false, a);
	drop_empty(&now);
	*owners = now;
	*ret = merged;
	*ret_n = 0;
	return 0;
}
