/* JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386) on trees. */
#include "base/map.h"
#include "model/internal.h"

/* ---- RFC 6902 ---- */

#define OPERATIONS_MAX 10000    /* as upstream's limit */
#define COPIES_MAX (256 * 1024) /* values that all `copy` operations together may add */

struct patcher {
	struct arena *arena;
	struct err *err;
	struct value *doc;
	size_t copied;
};

static size_t count_values(const struct value *v)
{
	size_t n = 1;

	for (size_t i = 0; v->kind == VALUE_LIST && i < v->list.len; i++)
		n += count_values(&v->list.items[i]);
	for (size_t i = 0; v->kind == VALUE_OBJECT && i < v->object.len; i++)
		n += count_values(&v->object.members[i].value);
	return n;
}

/* ~1 is a slash, ~0 a tilde. */
static struct str unescape_token(struct arena *a, struct str s)
{
	if (str_find(s, '~') < 0)
		return s;
	char *out = arena_alloc(a, s.len + 1);
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++) {
		bool escape =
			s.p[i] == '~' && i + 1 < s.len && (s.p[i + 1] == '0' || s.p[i + 1] == '1');

		out[n++] = escape ? (s.p[i + 1] == '1' ? '/' : '~') : s.p[i];
		i += escape;
	}
	return str_n(out, n);
}

/* An index of a list; `len` itself only where something may be put behind the last. -1: none. */
static ssize_t list_index(struct str token, size_t len, bool may_append)
{
	int64_t i;

	if (str_eqz(token, "-"))
		return may_append ? (ssize_t)len : -1;
	if (!token.len || (token.len > 1 && token.p[0] == '0') || token.p[0] == '+' ||
		str_to_i64(token, &i) < 0 || i < 0)
		return -1;
	return (size_t)i < len + may_append ? (ssize_t)i : -1;
}

static struct value *child(struct value *v, struct str token)
{
	if (v->kind == VALUE_OBJECT)
		return value_get(v, token);
	if (v->kind != VALUE_LIST)
		return NULL;
	ssize_t i = list_index(token, v->list.len, false);

	return i < 0 ? NULL : &v->list.items[i];
}

/* The value at a pointer's parent, and the last token. The root's parent is NULL. */
static int find_parent(struct patcher *p, struct str pointer, const char *op, struct value **ret,
	struct str *ret_token)
{
	struct value *v = p->doc;
	struct str rest, token;

	*ret = NULL;
	if (!pointer.len)
		return 0;
	if (pointer.p[0] != '/')
		return err_set(p->err, -EINVAL,
			"%s operation does not apply: doc is missing path: \"" STR_FMT
			"\": missing value",
			op, STR_ARG(pointer));
	for (rest = str_from(pointer, 1); str_cut(rest, '/', &token, &rest);) {
		v = child(v, unescape_token(p->arena, token));
		if (!v)
			return err_set(p->err, -EINVAL,
				"%s operation does not apply: doc is missing path: \"" STR_FMT
				"\": missing value",
				op, STR_ARG(pointer));
	}
	*ret = v;
	*ret_token = unescape_token(p->arena, token);
	return 0;
}

static int missing(struct patcher *p, const char *op, struct str pointer)
{
	return err_set(p->err, -EINVAL,
		"%s operation does not apply: doc is missing key: " STR_FMT ": missing value", op,
		STR_ARG(pointer));
}

static int get_at(struct patcher *p, struct str pointer, const char *op, struct value **ret)
{
	struct value *parent;
	struct str token;
	int r = find_parent(p, pointer, op, &parent, &token);

	if (r < 0)
		return r;
	*ret = parent ? child(parent, token) : p->doc;
	return *ret ? 0 : missing(p, op, pointer);
}

static int add_at(struct patcher *p, struct str pointer, const char *op, struct value v)
{
	struct value *parent;
	struct str token;
	int r = find_parent(p, pointer, op, &parent, &token);

	if (r < 0)
		return r;
	if (!parent) {
		*p->doc = v;
		return 0;
	}
	if (parent->kind == VALUE_OBJECT) {
		*value_set(p->arena, parent, arena_str(p->arena, token)) = v;
		return 0;
	}
	ssize_t i = parent->kind == VALUE_LIST ? list_index(token, parent->list.len, true) : -1;

	if (i < 0)
		return err_set(p->err, -EINVAL,
			"%s operation does not apply: \"" STR_FMT
			"\": Unable to access invalid index: " STR_FMT ": invalid index referenced",
			op, STR_ARG(pointer), STR_ARG(token));
	value_append(p->arena, parent);
	memmove(&parent->list.items[i + 1], &parent->list.items[i],
		(parent->list.len - 1 - (size_t)i) * sizeof(struct value));
	parent->list.items[i] = v;
	return 0;
}

static int remove_at(struct patcher *p, struct str pointer, const char *op)
{
	struct value *parent;
	struct str token;
	int r = find_parent(p, pointer, op, &parent, &token);

	if (r < 0)
		return r;
	if (!parent)
		return err_set(p->err, -EINVAL,
			"%s operation does not apply: the whole document cannot be removed", op);
	if (parent->kind == VALUE_OBJECT)
		return value_remove(parent, token) ? 0 : missing(p, op, pointer);
	ssize_t i = parent->kind == VALUE_LIST ? list_index(token, parent->list.len, false) : -1;

	if (i < 0)
		return missing(p, op, pointer);
	parent->list.len--;
	memmove(&parent->list.items[i], &parent->list.items[i + 1],
		(parent->list.len - (size_t)i) * sizeof(struct value));
	return 0;
}

struct operation {
	struct str path, from;
	const struct value *value;
};

static int op_add(struct patcher *p, const struct operation *o)
{
	return add_at(p, o->path, "add", value_copy(p->arena, o->value));
}

static int op_remove(struct patcher *p, const struct operation *o)
{
	return remove_at(p, o->path, "remove");
}

static int op_replace(struct patcher *p, const struct operation *o)
{
	struct value *at;
	int r = get_at(p, o->path, "replace", &at);

	if (!r)
		*at = value_copy(p->arena, o->value);
	return r;
}

static int op_move(struct patcher *p, const struct operation *o)
{
	struct value *at;
	int r = get_at(p, o->from, "move", &at);

	if (r < 0 || str_eq(o->from, o->path))
		return r;
	if (str_has_prefix(o->path, o->from) && o->path.len > o->from.len &&
		o->path.p[o->from.len] == '/')
		return err_set(p->err, -EINVAL,
			"move operation does not apply: \"" STR_FMT
			"\" cannot be moved into itself",
			STR_ARG(o->from));
	struct value v = *at;

	r = remove_at(p, o->from, "move");
	return r < 0 ? r : add_at(p, o->path, "move", v);
}

static int op_copy(struct patcher *p, const struct operation *o)
{
	struct value *at;
	int r = get_at(p, o->from, "copy", &at);

	if (r < 0)
		return r;
	p->copied += count_values(at);
	if (p->copied > COPIES_MAX)
		return err_set(p->err, -EINVAL,
			"copy operations of this patch add more than %d values; send the values instead",
			COPIES_MAX);
	return add_at(p, o->path, "copy", value_copy(p->arena, at));
}

static int op_test(struct patcher *p, const struct operation *o)
{
	struct value *at;
	struct value null = { .kind = VALUE_NULL };

	if (get_at(p, o->path, "test", &at) < 0)
		at = &null; /* what is missing equals null, as upstream */
	if (value_equal(at, o->value))
		return 0;
	return err_set(p->err, PATCH_TEST_FAILED, "testing value " STR_FMT " failed: test failed",
		STR_ARG(o->path));
}

static const struct {
	const char *name;
	bool needs_from, needs_value;
	int (*run)(struct patcher *p, const struct operation *o);
} operations[] = {
	{ "add", false, true, op_add },
	{ "remove", false, false, op_remove },
	{ "replace", false, true, op_replace },
	{ "move", true, false, op_move },
	{ "copy", true, false, op_copy },
	{ "test", false, false, op_test },
};

static int run_operation(struct patcher *p, const struct value *v)
{
	static const struct value null = { .kind = VALUE_NULL };
	const struct value *op = value_get(v, STR("op")), *path = value_get(v, STR("path")),
			   *from = value_get(v, STR("from"));
	struct operation o = { .value = value_get(v, STR("value")) };

	if (!op || op->kind != VALUE_TEXT || !path || path->kind != VALUE_TEXT)
		return err_set(
			p->err, -EINVAL, "an operation of a JSON patch needs \"op\" and \"path\"");
	o.path = path->text;
	for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
		if (!str_eqz(op->text, operations[i].name))
			continue;
		if (operations[i].needs_from && (!from || from->kind != VALUE_TEXT))
			return err_set(p->err, -EINVAL,
				"%s operation of \"" STR_FMT "\" needs \"from\"",
				operations[i].name, STR_ARG(o.path));
		if (operations[i].needs_value && !o.value)
			return err_set(p->err, -EINVAL,
				"%s operation of \"" STR_FMT "\" needs \"value\"",
				operations[i].name, STR_ARG(o.path));
		o.from = from ? from->text : STR_NONE;
		o.value = o.value ? o.value : &null;
		return operations[i].run(p, &o);
	}
	return err_set(p->err, -EINVAL, "Unexpected kind: " STR_FMT, STR_ARG(op->text));
}

int patch_json(struct value *doc, const struct value *ops, struct arena *a, struct err *err)
{
	struct patcher p = { .arena = a, .err = err, .doc = doc };
	int r = 0;

	if (ops->kind != VALUE_LIST)
		return err_set(err, -EINVAL,
			"json: cannot unmarshal a patch that is no array into Go value of type jsonpatch.Patch");
	if (ops->list.len > OPERATIONS_MAX)
		return err_set(err, -E2BIG,
			"The allowed maximum operations in a JSON patch is %d, got %zu",
			OPERATIONS_MAX, ops->list.len);
	for (size_t i = 0; !r && i < ops->list.len; i++)
		r = run_operation(&p, &ops->list.items[i]);
	return r;
}

/* ---- RFC 7386 ---- */

/* Indexes of an object's members by name, so that large objects merge in linear time. */
static void index_members(struct map *m, const struct value *o)
{
	for (size_t i = 0; i < o->object.len; i++)
		map_set(m, o->object.members[i].key, (void *)(i + 1));
}

static void merge(struct value *doc, const struct value *patch, struct arena *a)
{
	struct map names = { 0 };
	size_t kept = 0;

	if (patch->kind != VALUE_OBJECT) {
		*doc = value_copy(a, patch);
		return;
	}
	if (doc->kind != VALUE_OBJECT)
		*doc = (struct value){ .kind = VALUE_OBJECT };
	size_t n = doc->object.len;
	bool *gone = xcalloc(n + 1, sizeof(*gone));

	index_members(&names, doc);
	for (size_t i = 0; i < patch->object.len; i++) {
		const struct value_member *m = &patch->object.members[i];
		size_t at = (size_t)map_get(&names, m->key);

		if (m->value.kind == VALUE_NULL) {
			if (at && at <= n)
				gone[at - 1] = true;
			continue;
		}
		struct value *v = at ? &doc->object.members[at - 1].value
				     : value_add_member(a, doc, arena_str(a, m->key));

		merge(v, &m->value, a);
	}
	for (size_t i = 0; i < doc->object.len; i++)
		if (i >= n || !gone[i])
			doc->object.members[kept++] = doc->object.members[i];
	doc->object.len = kept;
	map_deinit(&names, NULL);
	free(gone);
}

int patch_merge(struct value *doc, const struct value *patch, struct arena *a, struct err *err)
{
	merge(doc, patch, a);
	return 0;
}
