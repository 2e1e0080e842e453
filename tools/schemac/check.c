/* Resolves the names in definitions to each other and refuses what cannot be right. */
#include "schemac.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	enum kind kind;
} builtins[] = {
	{ "bool", BOOL },
	{ "int32", INT32 },
	{ "int64", INT64 },
	{ "double", DOUBLE },
	{ "string", STRING },
	{ "bytes", BYTES },
	{ "time", TIME },
	{ "microtime", MICROTIME },
	{ "duration", DURATION },
	{ "quantity", QUANTITY },
	{ "intstr", INT_OR_STRING },
	{ "raw", RAW },
	{ "json", JSON },
};

static struct schema *find_file(const struct schemas *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i]->name, name))
			return s->v[i];
	return NULL;
}

/* core.PodSpec or core/v1.PodSpec: the file, among those imported; *name moves behind the dot. A bare name: the own file. */
static struct schema *file_of(const struct schemas *s, struct schema *own, const char **name)
{
	const char *dot = strchr(*name, '.');
	if (!dot)
		return own;
	char *group = copy(*name, dot - *name);
	*name = dot + 1;
	for (size_t i = 0; i < own->imports.n; i++) {
		struct schema *f = find_file(s, own->imports.v[i]);
		if (f && (!strcmp(f->group, group) || !strcmp(f->name, group)))
			return f;
	}
	return NULL;
}

static struct type_def *find_type(struct schema *f, const char *name)
{
	for (size_t i = 0; f && i < f->n_types; i++)
		if (!strcmp(f->types[i]->name, name))
			return f->types[i];
	return NULL;
}

static struct type_def *resolve_type(const struct schemas *s, struct schema *own, const char *name)
{
	struct schema *f = file_of(s, own, &name);
	return find_type(f, name);
}

static bool resolve_base(
	const struct schemas *s, struct schema *own, struct field_def *fd, const char *name)
{
	for (size_t i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++) {
		if (!strcmp(name, builtins[i].name)) {
			fd->kind = builtins[i].kind;
			return true;
		}
	}
	struct schema *f = file_of(s, own, &name);
	fd->ref = find_type(f, name);
	if (fd->ref) {
		fd->kind = MESSAGE;
		return true;
	}
	for (size_t i = 0; f && i < f->n_enums; i++) {
		if (!strcmp(f->enums[i]->name, name)) {
			fd->values = f->enums[i];
			fd->kind = STRING;
			return true;
		}
	}
	return false;
}

static void resolve_field(const struct schemas *s, struct schema *own, struct field_def *fd)
{
	const char *t = fd->type_text;
	if (!strncmp(t, "map[string][]", 13)) {
		fd->shape = MAP_LIST;
		t += 13;
	} else if (!strncmp(t, "map[string]", 11)) {
		fd->shape = MAP;
		t += 11;
	} else if (!strncmp(t, "[]", 2)) {
		fd->shape = LIST;
		t += 2;
	} else if (*t == '*') {
		fd->shape = PTR;
		t++;
	}
	if (!resolve_base(s, own, fd, t))
		complain(fd->at, "field %s: type %s is unknown (is its file imported?)", fd->name,
			fd->type_text);
	fd->member = snake(fd->name, true);
	if (fd->ref && fd->shape == LIST)
		fd->ref->listed = true;
	if (fd->ref && fd->shape == MAP)
		fd->ref->mapped = true;
	if (fd->shape == MAP_LIST && fd->kind != STRING)
		complain(fd->at, "field %s: only lists of string can be a map's values", fd->name);
	if (fd->inlined && (fd->kind != MESSAGE || fd->shape != ONE))
		complain(fd->at, "field %s: only a message by value can be inline", fd->name);
}

/* kind and apiVersion stand first in JSON, in this order; not in protobuf. */
static void add_type_meta(struct type_def *d)
{
	static const char *const docs[] = {
		"The kind of this object, as the resource's table names it.",
		"The group and version whose rules this object follows, like apps/v1; v1 alone is the core group.",
	};
	struct field_def *fields = alloc((d->n + 2) * sizeof(*fields));
	for (int i = 0; i < 2; i++)
		fields[i] = (struct field_def){ .at = d->at,
			.name = i ? "apiVersion" : "kind",
			.type_text = "string",
			.kind = STRING,
			.type_meta = true,
			.omitempty = true,
			.doc = (char *)docs[i] };
	memcpy(fields + 2, d->fields, d->n * sizeof(*fields));
	d->fields = fields;
	d->n += 2;
}

static bool type_has(const struct type_def *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++) {
		if (!strcmp(d->fields[i].name, name) && !d->fields[i].inlined)
			return true;
		if (d->fields[i].inlined && d->fields[i].ref && type_has(d->fields[i].ref, name))
			return true;
	}
	return false;
}

static bool default_fits(const struct field_def *f)
{
	char *end = "";
	const char *d = f->def;
	if (f->shape == LIST)
		return d[0] == '[' && d[strlen(d) - 1] == ']';
	if (f->shape == MAP || f->shape == MAP_LIST)
		return false;
	switch (f->kind) {
	case BOOL:
		return !strcmp(d, "true") || !strcmp(d, "false");
	case INT32:
	case INT64:
		return *d && (strtoll(d, &end, 10), !*end);
	case DOUBLE:
		return *d && (strtod(d, &end), !*end);
	case MESSAGE:
		return !strcmp(d, "{}") && f->shape == PTR;
	case STRING:
	case QUANTITY:
	case INT_OR_STRING:
		return true;
	default:
		return false;
	}
}

static void check_default(const struct field_def *f)
{
	if (!f->def)
		return;
	if (!default_fits(f)) {
		complain(f->at, "field %s: default %s does not fit type %s", f->name, f->def,
			f->type_text);
		return;
	}
	if (!f->values || !f->values->closed || f->shape == LIST)
		return;
	for (size_t i = 0; i < f->values->values.n; i++)
		if (!strcmp(f->values->values.v[i], f->def))
			return;
	complain(f->at, "field %s: default %s is no value of %s", f->name, f->def, f->values->name);
}

static void check_field(const struct field_def *f)
{
	bool list = f->shape == LIST;
	check_default(f);
	if ((f->set || f->map) && !list)
		complain(f->at, "field %s: only a list can be a set or a map", f->name);
	if (f->atomic + f->set + f->map > 1)
		complain(f->at, "field %s: a list is one of atomic, set, map", f->name);
	if (f->map && (f->kind != MESSAGE || !f->keys.n))
		complain(f->at, "field %s: map(keys) needs a list of messages and at least one key",
			f->name);
	for (size_t i = 0; f->map && f->ref && i < f->keys.n; i++)
		if (!type_has(f->ref, f->keys.v[i]))
			complain(f->at, "field %s: list key %s is no field of %s", f->name,
				f->keys.v[i], f->ref->name);
	if (f->wrapped && !list)
		complain(f->at, "field %s: only a list can be wrapped", f->name);
	if (f->merge_key && (!list || !f->ref || !type_has(f->ref, f->merge_key)))
		complain(f->at, "field %s: merge key %s is no field of %s", f->name, f->merge_key,
			f->type_text);
	if (f->has_min && f->has_max && f->min > f->max)
		complain(f->at, "field %s: min is above max", f->name);
}

static void check_type(struct type_def *d)
{
	if (!d->doc || !*d->doc)
		complain(d->at, "type %s has no description", d->name);
	for (size_t i = 0; i < d->n; i++) {
		struct field_def *f = &d->fields[i];
		check_field(f);
		if (!f->inlined && (!f->doc || !*f->doc))
			complain(f->at, "field %s.%s has no description", d->name, f->name);
		for (size_t j = 0; j < i; j++) {
			if (f->tag && d->fields[j].tag == f->tag)
				complain(f->at, "tag %d of %s is used by %s already", f->tag,
					f->name, d->fields[j].name);
			if (!strcmp(d->fields[j].name, f->name))
				complain(f->at, "%s has two fields %s", d->name, f->name);
			if (d->fields[j].inlined && d->fields[j].ref && !f->inlined &&
				type_has(d->fields[j].ref, f->name))
				complain(f->at, "%s: field %s is also in the inline %s", d->name,
					f->name, d->fields[j].name);
		}
	}
}

static void check_resource(const struct schemas *s, struct resource_def *r)
{
	r->kind = resolve_type(s, r->file, r->kind_text);
	if (!r->kind)
		complain(r->at, "resource %s: kind %s is unknown", r->plural, r->kind_text);
	r->list = resolve_type(s, r->file, format("%sList", r->kind_text));
	for (size_t i = 0; i < r->n_subs; i++) {
		r->subs[i].kind = resolve_type(s, r->file, r->subs[i].kind_text);
		if (!r->subs[i].kind)
			complain(r->subs[i].at, "sub %s: kind %s is unknown", r->subs[i].name,
				r->subs[i].kind_text);
	}
}

static void check_file(const struct schemas *s, struct schema *f)
{
	struct where at = { f->path, 1 };
	for (size_t i = 0; i < f->imports.n; i++)
		if (!find_file(s, f->imports.v[i]))
			complain(at, "import %s: no such schema", f->imports.v[i]);
	for (size_t i = 0; i < f->n_types; i++) {
		for (size_t j = 0; j < i; j++)
			if (!strcmp(f->types[j]->name, f->types[i]->name))
				complain(f->types[i]->at, "type %s is there twice",
					f->types[i]->name);
		check_type(f->types[i]);
	}
	for (size_t i = 0; i < f->n_resources; i++)
		check_resource(s, f->resources[i]);
}

void schemas_check(struct schemas *s)
{
	for (size_t i = 0; i < s->n; i++) {
		struct schema *f = s->v[i];
		for (size_t j = 0; j < f->n_types; j++) {
			struct type_def *d = f->types[j];
			d->cname = format("%s_%s_%s", f->group, f->version, snake(d->name, false));
			if (d->typed)
				add_type_meta(d);
			for (size_t k = 0; k < d->n; k++)
				resolve_field(s, f, &d->fields[k]);
		}
	}
	if (complaints)
		return;
	for (size_t i = 0; i < s->n; i++)
		check_file(s, s->v[i]);
	size_t n;
	types_by_value(s, &n); /* complains about a type that holds itself by value */
}
