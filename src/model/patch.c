/* JSON patch (RFC 6902) and JSON merge patch (RFC 7386) over trees. */
#include <stdio.h>

#include "model/model.h"

#define OPS_MAX 10000

/* ---- JSON pointer ---- */

static struct str unescape_token(struct str t, struct arena *a)
{
	CLEAN_BUF struct buf b = {0};

	for (size_t i = 0; i < t.len; i++) {
		if (t.p[i] == '~' && i + 1 < t.len && (t.p[i + 1] == '0' || t.p[i + 1] == '1'))
			buf_addc(&b, t.p[++i] == '0' ? '~' : '/');
		else
			buf_addc(&b, t.p[i]);
	}
	return arena_str(a, buf_str(&b));
}

/* An index as RFC 6901 allows it: no sign, no leading zero. */
static bool list_index(struct str t, size_t *ret)
{
	int64_t n;

	if (!t.len || (t.len > 1 && t.p[0] == '0') || t.p[0] == '-' || t.p[0] == '+' || str_to_i64(t, &n) < 0)
		return false;
	*ret = (size_t)n;
	return true;
}

static struct value *step(struct value *v, struct str token)
{
	size_t i;

	if (v->kind == VALUE_OBJECT)
		return value_get(v, token);
	if (v->kind == VALUE_LIST && list_index(token, &i) && i < v->list.len)
		return &v->list.items[i];
	return NULL;
}

/* The parent of what path names, and the last token. The empty path has no parent. */
static int find_parent(struct value *doc, struct str path, struct arena *a, struct value **ret_parent, struct str *ret_last, struct err *err)
{
	struct str rest = path, token;
	struct value *v = doc;

	if (!path.len || path.p[0] != '/')
		return err_set(err, -EINVAL, "path \"" STR_FMT "\" does not begin with \"/\"", STR_ARG(path));
	rest = str_from(rest, 1);
	for (;;) {
		bool more = str_cut(rest, '/', &token, &rest);

		token = unescape_token(token, a);
		if (!more)
			break;
		v = step(v, token);
		if (!v)
			return err_set(err, -EINVAL, "path \"" STR_FMT "\" does not exist", STR_ARG(path));
	}
	*ret_parent = v;
	*ret_last = token;
	return 0;
}

static struct value *find(struct value *doc, struct str path, struct arena *a)
{
	struct value *parent;
	struct str last;

	if (!path.len)
		return doc;
	return find_parent(doc, path, a, &parent, &last, NULL) == 0 ? step(parent, last) : NULL;
}

/* ---- operations ---- */

struct op {
	struct value *doc;
	struct str path, from;
	const struct value *value; /* NULL: not given */
	struct arena *a;
	struct err *err;
};

static int missing(const struct op *o, const char *verb, struct str path)
{
	return err_set(o->err, -EINVAL, "%s operation does not apply: path \"" STR_FMT "\" does not exist", verb, STR_ARG(path));
}

static int put(const struct op *o, struct value v)
{
	struct value *parent;
	struct str last;
	size_t i;
	int r;

	if (!o->path.len) {
		*o->doc = v;
		return 0;
	}
	r = find_parent(o->doc, o->path, o->a, &parent, &last, o->err);
	if (r < 0)
		return r;
	if (parent->kind == VALUE_OBJECT) {
		*value_set(o->a, parent, last) = v;
		return 0;
	}
	if (parent->kind != VALUE_LIST)
		return missing(o, "add", o->path);
	if (str_eqz(last, "-"))
		i = parent->list.len;
	else if (!list_index(last, &i) || i > parent->list.len)
		return err_set(o->err, -EINVAL, "add operation does not apply: index \"" STR_FMT "\" is outside the list", STR_ARG(last));
	value_append(o->a, parent);
	memmove(&parent->list.items[i + 1], &parent->list.items[i], (parent->list.len - 1 - i) * sizeof(*parent->list.items));
	parent->list.items[i] = v;
	return 0;
}

static int take(const struct op *o, const char *verb, struct str path, struct value *ret)
{
	struct value *parent, *v;
	struct str last;
	int r = find_parent(o->doc, path, o->a, &parent, &last, o->err);

	if (r < 0)
		return r;
	v = step(parent, last);
	if (!v)
		return missing(o, verb, path);
	*ret = *v;
	if (parent->kind == VALUE_OBJECT) {
		value_remove(parent, last);
		return 0;
	}
	size_t i = (size_t)(v - parent->list.items);

	parent->list.len--;
	memmove(v, v + 1, (parent->list.len - i) * sizeof(*v));
	return 0;
}

static int no_value(const struct op *o, const char *verb)
{
	return err_set(o->err, -EINVAL, "%s operation has no \"value\"", verb);
}

static int op_add(const struct op *o)
{
	return o->value ? put(o, value_copy(o->a, o->value)) : no_value(o, "add");
}

static int op_remove(const struct op *o)
{
	struct value gone;

	return take(o, "remove", o->path, &gone);
}

static int op_replace(const struct op *o)
{
	struct value *v = find(o->doc, o->path, o->a);

	if (!o->value)
		return no_value(o, "replace");
	if (!v)
		return missing(o, "replace", o->path);
	*v = value_copy(o->a, o->value);
	return 0;
}

static int op_move(const struct op *o)
{
	struct value v;
	int r;

	if (str_has_prefix(o->path, o->from) && o->path.len > o->from.len && o->path.p[o->from.len] == '/')
		return err_set(o->err, -EINVAL, "move operation puts \"" STR_FMT "\" into itself", STR_ARG(o->from));
	r = take(o, "move", o->from, &v);
	return r < 0 ? r : put(o, v);
}

static int op_copy(const struct op *o)
{
	struct value *v = find(o->doc, o->from, o->a);

	return v ? put(o, value_copy(o->a, v)) : missing(o, "copy", o->from);
}

static int op_test(const struct op *o)
{
	static const struct value null = { .kind = VALUE_NULL };
	struct value *v = find(o->doc, o->path, o->a);

	if (value_equal(v ? v : &null, o->value ? o->value : &null))
		return 0;
	return err_set(o->err, PATCH_TEST_FAILED, "testing value " STR_FMT " failed", STR_ARG(o->path));
}

/* clang-format off */
static const struct { const char *name; int (*run)(const struct op *o); bool from; } operations[] = {
	{ "add",     op_add,     false },
	{ "remove",  op_remove,  false },
	{ "replace", op_replace, false },
	{ "move",    op_move,    true },
	{ "copy",    op_copy,    true },
	{ "test",    op_test,    false },
};
/* clang-format on */

static int run_one(struct value *doc, const struct value *v, struct arena *a, struct err *err)
{
	const struct value *name = value_get(v, STR("op")), *path = value_get(v, STR("path")), *from = value_get(v, STR("from"));
	struct op o = { .doc = doc, .value = value_get(v, STR("value")), .a = a, .err = err };

	if (!name || name->kind != VALUE_TEXT || !path || path->kind != VALUE_TEXT)
		return err_set(err, -EBADMSG, "each operation needs \"op\" and \"path\"");
	o.path = path->text;
	for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
		if (!str_eqz(name->text, operations[i].name))
			continue;
		if (operations[i].from && (!from || from->kind != VALUE_TEXT))
			return err_set(err, -EBADMSG, "%s operation has no \"from\"", operations[i].name);
		if (from && from->kind == VALUE_TEXT)
			o.from = from->text;
		return operations[i].run(&o);
	}
	return err_set(err, -EBADMSG, "unknown operation \"" STR_FMT "\"", STR_ARG(name->text));
}

int patch_json(struct value *doc, const struct value *ops, struct arena *a, struct err *err)
{
	if (ops->kind != VALUE_LIST)
		return err_set(err, -EBADMSG, "a JSON patch is a list of operations");
	if (ops->list.len > OPS_MAX)
		return err_set(err, -E2BIG, "the patch has %zu operations; at most %d are allowed", ops->list.len, OPS_MAX);
	for (size_t i = 0; i < ops->list.len; i++) {
		int r = run_one(doc, &ops->list.items[i], a, err);

		if (r != 0)
			return r;
	}
	return 0;
}

/* ---- merge patch ---- */

static void merge(struct value *doc, const struct value *patch, struct arena *a)
{
	if (patch->kind != VALUE_OBJECT) {
		*doc = value_copy(a, patch);
		return;
	}
	if (doc->kind != VALUE_OBJECT)
		*doc = (struct value){ .kind = VALUE_OBJECT };
	for (size_t i = 0; i < patch->object.len; i++) {
		const struct value_member *m = &patch->object.members[i];

		if (m->value.kind == VALUE_NULL)
			value_remove(doc, m->key);
		else
			merge(value_set(a, doc, m->key), &m->value, a);
	}
}

int patch_merge(struct value *doc, const struct value *patch, struct arena *a, struct err *err)
{
	if (patch->kind != VALUE_OBJECT)
		return err_set(err, -EBADMSG, "a merge patch is an object");
	merge(doc, patch, a);
	return 0;
}
