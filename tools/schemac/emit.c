/* types.h: one struct a message, in an order in which members held by value are complete. */
#include "schemac.h"

#include <string.h>

struct order {
	struct type_def **v;
	size_t n;
};

static void visit(struct order *o, struct type_def *d)
{
	if (d->visit == 2)
		return;
	if (d->visit == 1) {
		complain(d->at, "type %s holds itself by value; use a pointer or a list", d->name);
		return;
	}
	d->visit = 1;
	for (size_t i = 0; i < d->n; i++)
		if (d->fields[i].kind == MESSAGE && d->fields[i].shape == ONE && d->fields[i].ref)
			visit(o, d->fields[i].ref);
	d->visit = 2;
	o->v = grow(o->v, o->n, sizeof(d));
	o->v[o->n++] = d;
}

struct type_def **types_by_value(const struct schemas *s, size_t *ret_n)
{
	static struct order o;
	for (size_t i = 0; i < s->n; i++)
		for (size_t j = 0; j < s->v[i]->n_types; j++)
			visit(&o, s->v[i]->types[j]);
	*ret_n = o.n;
	return o.v;
}

static const char *const one_types[] = {
	[BOOL] = "bool",
	[INT32] = "int32_t",
	[INT64] = "int64_t",
	[DOUBLE] = "double",
	[STRING] = "struct str",
	[BYTES] = "struct str",
	[TIME] = "struct timestamp",
	[MICROTIME] = "struct timestamp",
	[DURATION] = "int64_t",
	[QUANTITY] = "struct str",
	[INT_OR_STRING] = "struct int_or_str",
	[RAW] = "struct str",
	[JSON] = "struct str",
};
static const char *const ptr_types[] = {
	[BOOL] = "struct opt_bool",
	[INT32] = "struct opt_int32",
	[INT64] = "struct opt_int64",
	[DOUBLE] = "struct opt_double",
	[STRING] = "struct str",
	[BYTES] = "struct str",
	[TIME] = "struct timestamp",
	[MICROTIME] = "struct timestamp",
	[DURATION] = "struct opt_int64",
	[QUANTITY] = "struct str",
	[INT_OR_STRING] = "struct int_or_str",
	[RAW] = "struct str",
	[JSON] = "struct str",
};
static const char *const list_types[] = {
	[BOOL] = "struct bool_list",
	[INT32] = "struct int32_list",
	[INT64] = "struct int64_list",
	[DOUBLE] = "struct double_list",
	[STRING] = "struct str_list",
	[BYTES] = "struct str_list",
	[QUANTITY] = "struct str_list",
	[RAW] = "struct str_list",
	[JSON] = "struct str_list",
	[TIME] = "struct time_list",
	[MICROTIME] = "struct time_list",
	[INT_OR_STRING] = NULL,
};
static const char *const map_types[] = {
	[STRING] = "struct str_map",
	[BYTES] = "struct str_map",
	[QUANTITY] = "struct str_map",
	[RAW] = "struct str_map",
	[JSON] = "struct str_map",
	[TIME] = "struct time_map",
	[MICROTIME] = "struct time_map",
	[INT_OR_STRING] = NULL,
};

static char *member_type(const struct field_def *f)
{
	if (f->shape == MAP_LIST)
		return "struct str_list_map ";
	if (f->kind == MESSAGE)
		return format("struct %s%s", f->ref->cname,
			(const char *[]){ " ", " *", "_items ", "_map " }[f->shape]);
	const char *const *tables[] = { one_types, ptr_types, list_types, map_types };
	const char *t = tables[f->shape][f->kind];
	if (!t) {
		complain(f->at, "field %s: %s has no form in C yet", f->name, f->type_text);
		t = "void *";
	}
	return format("%s ", t);
}

static void emit_struct(const struct type_def *d, FILE *out)
{
	fprintf(out, "struct %s {\n", d->cname);
	if (d->typed) /* as struct object_head */
		fprintf(out, "\tstruct str api_version;\n\tstruct str kind;\n");
	for (size_t i = 0; i < d->n; i++)
		if (!d->fields[i].type_meta)
			fprintf(out, "\t%s%s;\n", member_type(&d->fields[i]), d->fields[i].member);
	if (!d->n)
		fprintf(out, "\tchar nothing;\n");
	fprintf(out, "};\n");
	if (d->mapped)
		fprintf(out, "struct %s_entry {\n\tstruct str key;\n\tstruct %s value;\n};\n",
			d->cname, d->cname);
	fprintf(out, "extern const struct type %s_type;\n\n", d->cname);
}

void emit_header(const struct schemas *s, FILE *out)
{
	size_t n;
	struct type_def **types = types_by_value(s, &n);
	fprintf(out,
		"/* Made by schemac from api/. Do not edit. */\n#ifndef SKIFF_GEN_TYPES_H\n#define SKIFF_GEN_TYPES_H\n\n"
		"#include \"model/model.h\"\n\n");
	for (size_t i = 0; i < n; i++) {
		if (types[i]->listed)
			fprintf(out, "struct %s_items {\n\tstruct %s *items;\n\tsize_t len;\n};\n",
				types[i]->cname, types[i]->cname);
		if (types[i]->mapped)
			fprintf(out,
				"struct %s_map {\n\tstruct %s_entry *items;\n\tsize_t len;\n};\n",
				types[i]->cname, types[i]->cname);
	}
	fputc('\n', out);
	for (size_t i = 0; i < n; i++)
		emit_struct(types[i], out);
	fprintf(out,
		"extern const struct type *const gen_types[];\nextern const size_t gen_n_types;\n"
		"extern const struct resource_row resource_rows[];\nextern const size_t n_resource_rows;\n\n#endif\n");
}
