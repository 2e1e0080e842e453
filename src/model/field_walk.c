/* Objects into sets of paths: all that one states, and what differs between two. */
#include "base/map.h"
#include "model/field_set.h"

/* ---- how places merge ---- */

struct place_kind place_of_object(const struct type *t)
{
	return (struct place_kind){ .kind = PLACE_OBJECT, .type = t };
}

static struct place_kind place_of_message(const struct field *f)
{
	if (f->kind != KIND_MESSAGE || f->flags & FIELD_ATOMIC || f->type->is_atomic ||
		f->type->is_either)
		return (struct place_kind){ .kind = PLACE_LEAF };
	return place_of_object(f->type);
}

struct place_kind place_of_member(const struct place_kind *p, struct str name)
{
	const struct type *inner =
		p->field && p->field->kind == KIND_MESSAGE ? p->field->type : NULL;

	if (p->kind == PLACE_MAP)
		return inner && !inner->is_atomic && !inner->is_either
			? place_of_object(inner)
			: (struct place_kind){ .kind = PLACE_LEAF };
	const struct field *f =
		p->kind == PLACE_OBJECT && p->type ? model_field(p->type, name) : NULL;

	if (!f)
		return (struct place_kind){ .kind = PLACE_LEAF };
	if (f->shape <= SHAPE_PTR)
		return place_of_message(f);
	if (f->shape == SHAPE_LIST && f->flags & FIELD_LIST_MAP)
		return (struct place_kind){ .kind = PLACE_LIST_MAP, .field = f };
	if (f->shape == SHAPE_LIST && f->flags & FIELD_LIST_SET)
		return (struct place_kind){ .kind = PLACE_LIST_SET, .field = f };
	if (f->shape == SHAPE_MAP && !(f->flags & FIELD_ATOMIC))
		return (struct place_kind){ .kind = PLACE_MAP, .field = f };
	return (struct place_kind){ .kind = PLACE_LEAF };
}

struct place_kind place_of_item(const struct place_kind *p)
{
	return p->kind == PLACE_LIST_MAP ? place_of_object(p->field->type)
					 : (struct place_kind){ .kind = PLACE_LEAF };
}

/* ---- elements ---- */

struct str element_of_name(struct str name, struct arena *a)
{
	char *p = arena_alloc(a, name.len + 3);

	p[0] = 'f';
	p[1] = ':';
	if (name.len)
		memcpy(p + 2, name.p, name.len);
	return str_n(p, name.len + 2);
}

static void write_json_text(struct str s, struct buf *out)
{
	buf_addc(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c == '"' || c == '\\')
			buf_addf(out, "\\%c", c);
		else if (c < 0x20)
			buf_addf(out, "\\u%04x", c);
		else
			buf_addc(out, (char)c);
	}
	buf_addc(out, '"');
}

static bool write_scalar(const struct value *v, struct buf *out)
{
	switch (v->kind) {
	case VALUE_TEXT:
		write_json_text(v->text, out);
		return true;
	case VALUE_INT:
		buf_addf(out, "%lld", (long long)v->integer);
		return true;
	case VALUE_BOOL:
		buf_addz(out, v->boolean ? "true" : "false");
		return true;
	case VALUE_DOUBLE:
		buf_addf(out, "%.17g", v->number);
		return true;
	default:
		return false;
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

#define KEYS_MAX 8

/* {"containerPort":80,"protocol":"TCP"}: keys sorted; a key that is not there counts as its default. */
static bool write_key(const struct place_kind *p, const struct value *item, struct buf *out)
{
	const char *keys[KEYS_MAX];
	size_t n = 0;

	while (n < KEYS_MAX && p->field->list_keys[n]) {
		keys[n] = p->field->list_keys[n];
		n++;
	}
	qsort(keys, n, sizeof(*keys), by_text);
	for (size_t i = 0; i < n; i++) {
		const struct value *v = value_get(item, str_of(keys[i]));
		const struct field *f = model_field(p->field->type, str_of(keys[i]));

		buf_addf(out, "%c\"%s\":", i ? ',' : '{', keys[i]);
		if (v && v->kind != VALUE_NULL) {
			if (!write_scalar(v, out))
				return false;
		} else if (f && f->rule && f->rule->default_json) {
			buf_addz(out, f->rule->default_json);
		} else {
			return false;
		}
	}
	buf_addc(out, '}');
	return n > 0;
}

struct str element_of_item(const struct place_kind *p, const struct value *item, struct arena *a)
{
	struct buf b = { 0 };
	bool good = false;

	buf_addz(&b, p->kind == PLACE_LIST_MAP ? "k:" : "v:");
	if (p->kind == PLACE_LIST_SET)
		good = write_scalar(item, &b);
	else if (item->kind == VALUE_OBJECT)
		good = write_key(p, item, &b);
	struct str e = good ? arena_str(a, buf_str(&b)) : STR_NONE;

	buf_deinit(&b);
	return e;
}

static bool is_list(const struct place_kind *p)
{
	return p->kind == PLACE_LIST_MAP || p->kind == PLACE_LIST_SET;
}

/* Whether the value has the form that its place walks into. */
static bool walks(const struct place_kind *p, const struct value *v)
{
	return p->kind != PLACE_LEAF && v->kind == (is_list(p) ? VALUE_LIST : VALUE_OBJECT);
}

/* ---- all that an object states ---- */

static void state(
	const struct place_kind *p, const struct value *v, struct field_set *s, struct arena *a)
{
	if (!walks(p, v) || (is_list(p) ? !v->list.len : !v->object.len)) {
		s->member = true;
		return;
	}
	for (size_t i = 0; is_list(p) && i < v->list.len; i++) {
		struct str e = element_of_item(p, &v->list.items[i], a);
		struct place_kind item = place_of_item(p);

		if (!e.p)
			continue;
		struct field_set *child = field_child_make(s, e, a);

		child->member = true;
		if (item.kind != PLACE_LEAF && v->list.items[i].kind == VALUE_OBJECT &&
			v->list.items[i].object.len)
			state(&item, &v->list.items[i], child, a);
		child->member = true;
	}
	for (size_t i = 0; !is_list(p) && i < v->object.len; i++) {
		const struct value_member *m = &v->object.members[i];
		struct place_kind inner = place_of_member(p, m->key);

		state(&inner, &m->value, field_child_make(s, element_of_name(m->key, a), a), a);
	}
}

struct field_set *field_set_of(const struct type *t, const struct value *obj, struct arena *a)
{
	struct place_kind p = place_of_object(t);
	struct field_set *s = field_set_new(a);

	state(&p, obj, s, a);
	s->member = false;
	return s;
}

/* ---- what differs ---- */

/* Where the walk is: a chain of names, made elements of a set only when something is put there. */
struct trail {
	const struct trail *up;
	struct str name;
	bool of_item; /* name is a list item's element; else a member's key */
};

struct differ {
	struct arena *arena;
	struct field_changes out;
};

static struct field_set *reach(struct differ *d, struct field_set *root, const struct trail *at)
{
	if (!at)
		return root;
	struct field_set *up = reach(d, root, at->up);
	struct str e = at->of_item ? at->name : element_of_name(at->name, d->arena);

	return field_child_make(up, e, d->arena);
}

static void mark(struct differ *d, struct field_set *root, const struct trail *at)
{
	if (at)
		reach(d, root, at)->member = true;
}

static void differ_at(struct differ *d, const struct place_kind *p, const struct value *old,
	const struct value *v, const struct trail *at);

/* The parts of a value: members by their keys, items by their elements. Few are looked for one by one. */
struct parts {
	const struct value *of; /* NULL: none */
	struct str *elements;   /* of a list's items; p NULL: without identity */
	size_t len;
	struct map index; /* name -> position + 1; only of many */
	bool indexed;
};
#define FEW 16

static struct str part_name(const struct parts *in, size_t i)
{
	return in->elements ? in->elements[i] : in->of->object.members[i].key;
}

static void list_parts(
	struct differ *d, const struct place_kind *p, const struct value *v, struct parts *ret)
{
	*ret = (struct parts){ .of = v };
	if (!v)
		return;
	ret->len = v->kind == VALUE_LIST ? v->list.len : v->object.len;
	if (v->kind != VALUE_LIST)
		return;
	ret->elements = arena_alloc(d->arena, (ret->len + 1) * sizeof(struct str));
	for (size_t i = 0; i < ret->len; i++)
		ret->elements[i] = element_of_item(p, &v->list.items[i], d->arena);
}

static void index_parts(struct parts *in)
{
	for (size_t i = 0; i < in->len; i++) {
		struct str name = part_name(in, i);

		if (name.p && !map_get(&in->index, name))
			map_set(&in->index, name, (void *)(i + 1));
	}
	in->indexed = true;
}

/* Mostly the same parts stand in the same places: `hint` is tried first. -1: none. */
static ssize_t find_part(struct parts *in, struct str name, size_t hint)
{
	if (hint < in->len && str_eq(part_name(in, hint), name))
		return (ssize_t)hint;
	if (in->len > FEW) {
		if (!in->indexed)
			index_parts(in);
		return (ssize_t)(size_t)map_get(&in->index, name) - 1;
	}
	for (size_t i = 0; i < in->len; i++)
		if (str_eq(part_name(in, i), name))
			return (ssize_t)i;
	return -1;
}

static const struct value *part_at(const struct value *v, size_t i)
{
	return v->kind == VALUE_LIST ? &v->list.items[i] : &v->object.members[i].value;
}

static struct place_kind place_of_part(const struct place_kind *p, const struct value *v, size_t i)
{
	return v->kind == VALUE_LIST ? place_of_item(p)
				     : place_of_member(p, v->object.members[i].key);
}

/* Of lists and objects alike: what is there now, then what only was. */
static void differ_parts(struct differ *d, const struct place_kind *p, const struct value *old,
	const struct value *v, const struct trail *at)
{
	struct parts was, is;

	list_parts(d, p, old, &was);
	list_parts(d, p, v, &is);
	for (size_t i = 0; i < is.len; i++) {
		struct trail next = { at, part_name(&is, i), is.elements != NULL };
		struct place_kind inner = place_of_part(p, v, i);

		if (!next.name.p)
			continue;
		ssize_t twin = find_part(&was, next.name, i);

		differ_at(d, &inner, twin < 0 ? NULL : part_at(old, (size_t)twin), part_at(v, i),
			&next);
	}
	for (size_t i = 0; i < was.len; i++) {
		struct trail next = { at, part_name(&was, i), was.elements != NULL };
		struct place_kind inner = place_of_part(p, old, i);

		if (next.name.p && find_part(&is, next.name, i) < 0)
			differ_at(d, &inner, part_at(old, i), NULL, &next);
	}
	map_deinit(&was.index, NULL);
	map_deinit(&is.index, NULL);
}

/* old NULL: it was not there; v NULL: it is no longer. */
static void differ_at(struct differ *d, const struct place_kind *p, const struct value *old,
	const struct value *v, const struct trail *at)
{
	bool old_walks = old && walks(p, old), new_walks = v && walks(p, v);

	if (!old)
		mark(d, d->out.added, at);
	else if (!v)
		mark(d, d->out.removed, at);
	else if ((!old_walks && old->kind != VALUE_NULL) || (!new_walks && v->kind != VALUE_NULL) ||
		(!old_walks && !new_walks)) {
		if (!value_equal(old, v))
			mark(d, d->out.modified, at);
		if (!old_walks && !new_walks)
			return;
	}
	if (!old_walks && !new_walks)
		return;
	differ_parts(d, p, old_walks ? old : NULL, new_walks ? v : NULL, at);
}

struct field_changes field_set_compare(
	const struct type *t, const struct value *old, const struct value *obj, struct arena *a)
{
	struct place_kind p = place_of_object(t);
	struct differ d = { .arena = a,
		.out = { field_set_new(a), field_set_new(a), field_set_new(a) } };

	differ_at(&d, &p, old, obj, NULL);
	return d.out;
}
