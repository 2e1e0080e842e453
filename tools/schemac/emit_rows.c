/* types.c: rows of the fields, types and resources. */
#include "schemac.h"

#include <stdlib.h>
#include <string.h>

static void quoted(FILE *out, const char *s)
{
	if (!s) {
		fputs("NULL", out);
		return;
	}
	fputc('"', out);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', out);
		fputc(*s, out);
	}
	fputc('"', out);
}

static void word_array(FILE *out, const char *name, const struct words *w)
{
	fprintf(out, "static const char *const %s[] = { ", name);
	for (size_t i = 0; i < w->n; i++) {
		quoted(out, w->v[i]);
		fputs(", ", out);
	}
	fputs("NULL };\n", out);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ---- rules ---- */

static bool has_rule(const struct field_def *f)
{
	return f->has_min || f->has_max || f->format || f->def || f->values;
}

static bool is_number(const char *s)
{
	char *end;
	strtod(s, &end);
	return *s && !*end;
}

static char *default_json(const struct field_def *f)
{
	if (f->shape == LIST) { /* [A,B] of texts */
		char *inner = copy(f->def + 1, strlen(f->def) - 2), *out = "", *save = NULL;
		for (char *w = strtok_r(inner, ",", &save); w; w = strtok_r(NULL, ",", &save))
			out = format("%s%s\"%s\"", out, *out ? "," : "", w);
		return format("[%s]", out);
	}
	bool text = f->kind == STRING || f->kind == QUANTITY ||
		(f->kind == INT_OR_STRING && !is_number(f->def));
	return text ? format("\"%s\"", f->def) : f->def;
}

static void emit_rule(FILE *out, const struct type_def *d, const struct field_def *f)
{
	if (f->values) {
		struct words sorted = { alloc((f->values->values.n + 1) * sizeof(char *)),
			f->values->values.n };
		memcpy(sorted.v, f->values->values.v, sorted.n * sizeof(char *));
		qsort(sorted.v, sorted.n, sizeof(char *), by_text);
		word_array(out, format("values_%s_%s", d->cname, f->member), &sorted);
	}
	fprintf(out, "static const struct field_rule rule_%s_%s = { ", d->cname, f->member);
	if (f->has_min)
		fprintf(out, ".has_min = true, .min = %lld, ", f->min);
	if (f->has_max)
		fprintf(out, ".has_max = true, .max = %lld, ", f->max);
	if (f->format) {
		fprintf(out, ".format = ");
		quoted(out, f->format);
		fprintf(out, ", ");
	}
	if (f->values)
		fprintf(out, ".%s = values_%s_%s, ", f->values->closed ? "values" : "known",
			d->cname, f->member);
	if (f->def) {
		fprintf(out, ".default_json = ");
		quoted(out, default_json(f));
	}
	fprintf(out, " };\n");
}

/* ---- fields ---- */

static const char *const kind_names[] = {
	[BOOL] = "BOOL",
	[INT32] = "INT32",
	[INT64] = "INT64",
	[DOUBLE] = "DOUBLE",
	[STRING] = "STRING",
	[BYTES] = "BYTES",
	[TIME] = "TIME",
	[MICROTIME] = "MICROTIME",
	[DURATION] = "DURATION",
	[QUANTITY] = "QUANTITY",
	[INT_OR_STRING] = "INT_OR_STRING",
	[RAW] = "RAW",
	[JSON] = "JSON",
	[MESSAGE] = "MESSAGE",
};
static const char *const shape_names[] = {
	[ONE] = "ONE", [PTR] = "PTR", [LIST] = "LIST", [MAP] = "MAP", [MAP_LIST] = "MAP_LIST"
};

static void emit_flags(FILE *out, const struct field_def *f)
{
	const struct {
		bool on;
		const char *name;
	} flags[] = {
		{ f->omitempty, "FIELD_OMIT_EMPTY" },
		{ f->omitzero, "FIELD_OMIT_ZERO" },
		{ f->required || f->required_unchecked, "FIELD_REQUIRED" },
		{ f->inlined, "FIELD_INLINE" },
		{ f->immutable, "FIELD_IMMUTABLE" },
		{ f->atomic || (f->kind == MESSAGE && f->ref->atomic && f->shape <= PTR),
			"FIELD_ATOMIC" },
		{ f->set, "FIELD_LIST_SET" },
		{ f->map, "FIELD_LIST_MAP" },
		{ f->patch, "FIELD_PATCH_MERGE" },
		{ f->retain_keys, "FIELD_PATCH_RETAIN_KEYS" },
		{ f->patch_replace, "FIELD_PATCH_REPLACE" },
		{ f->type_meta, "FIELD_NO_PROTO" },
		{ f->required_unchecked, "FIELD_REQUIRED_UNCHECKED" },
		{ f->wrapped, "FIELD_PROTO_WRAPPED" },
		{ f->duplicates_ok, "FIELD_LIST_DUPLICATES" },
	};
	const char *sep = "";
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (flags[i].on) {
			fprintf(out, "%s%s", sep, flags[i].name);
			sep = " | ";
		}
	}
	if (!*sep)
		fputc('0', out);
}

static void emit_field(FILE *out, const struct type_def *d, const struct field_def *f)
{
	fprintf(out, "\t{ \"%s\", %zu, %d, KIND_%s, SHAPE_%s, ", f->name, strlen(f->name), f->tag,
		kind_names[f->kind], shape_names[f->shape]);
	emit_flags(out, f);
	fprintf(out, ", offsetof(struct %s, %s), ", d->cname, f->member);
	if (f->ref)
		fprintf(out, "&%s_type, ", f->ref->cname);
	else
		fprintf(out, "NULL, ");
	if (has_rule(f))
		fprintf(out, "&rule_%s_%s, ", d->cname, f->member);
	else
		fprintf(out, "NULL, ");
	quoted(out, f->merge_key);
	if (f->map)
		fprintf(out, ", keys_%s_%s, ", d->cname, f->member);
	else
		fprintf(out, ", NULL, ");
	quoted(out, f->doc ? f->doc : "");
	fprintf(out, " },\n");
}

/* ---- the flat view: inlined members in place ---- */

struct flat {
	char *field;  /* expression: row */
	char *offset; /* expression */
	const char *name;
};

static void flatten(const struct type_def *d, const char *base, struct flat **v, size_t *n)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct field_def *f = &d->fields[i];
		char *offset = format("%s%soffsetof(struct %s, %s)", base, *base ? " + " : "",
			d->cname, f->member);
		if (f->inlined) {
			flatten(f->ref, offset, v, n);
			continue;
		}
		*v = grow(*v, *n, sizeof(**v));
		(*v)[(*n)++] =
			(struct flat){ format("&fields_%s[%zu]", d->cname, i), offset, f->name };
	}
}

/* The same function as model_name_hash in src/model/model.h; its test compares them through every type's slots. */
static uint32_t name_hash(const char *p, size_t n)
{
	uint32_t a = 0, b = 0;
	if (n >= 4) {
		memcpy(&a, p, 4);
		memcpy(&b, p + n - 4, 4);
	} else if (n) {
		a = (unsigned char)p[0] | (uint32_t)(unsigned char)p[n / 2] << 8;
		b = (unsigned char)p[n - 1];
	}
	uint32_t h = (a ^ b * 0x85EBCA6Bu ^ (uint32_t)n * 0x27D4EB2Fu) * 0x9E3779B1u;
	return h ^ h >> 15;
}

static void emit_slots(
	FILE *out, const struct type_def *d, const struct flat *v, size_t n, uint32_t *ret_mask)
{
	uint32_t size = 2;
	while (size < n * 2)
		size *= 2;
	uint16_t *slots = alloc(size * sizeof(*slots));
	for (size_t i = 0; i < n; i++) {
		uint32_t at = name_hash(v[i].name, strlen(v[i].name)) & (size - 1);
		while (slots[at])
			at = (at + 1) & (size - 1);
		slots[at] = i + 1;
	}
	fprintf(out, "static const uint16_t slots_%s[] = { ", d->cname);
	for (uint32_t i = 0; i < size; i++)
		fprintf(out, "%u, ", slots[i]);
	fprintf(out, "};\n");
	*ret_mask = size - 1;
}

/* ---- tags ---- */

static const struct field_def *sort_fields;
static int by_tag(const void *a, const void *b)
{
	return sort_fields[*(const uint16_t *)a].tag - sort_fields[*(const uint16_t *)b].tag;
}

static size_t emit_tags(FILE *out, const struct type_def *d, int *ret_max)
{
	uint16_t order[512];
	size_t n = 0;
	for (size_t i = 0; i < d->n && n < 512; i++)
		if (d->fields[i].tag)
			order[n++] = i;
	sort_fields = d->fields;
	qsort(order, n, sizeof(*order), by_tag);
	*ret_max = n ? d->fields[order[n - 1]].tag : 0;
	if (!n)
		return 0;
	fprintf(out, "static const uint16_t by_tag_%s[] = { ", d->cname);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%u, ", order[i]);
	fprintf(out, "};\nstatic const uint16_t tags_%s[] = { ", d->cname);
	for (int tag = 0; tag <= *ret_max; tag++) {
		size_t i = 0;
		while (i < n && d->fields[order[i]].tag != tag)
			i++;
		fprintf(out, "%u, ", i < n ? order[i] + 1 : 0);
	}
	fprintf(out, "};\n");
	return n;
}

/* ---- types ---- */

static bool holds(const struct type_def *d, const char *field, const char *type)
{
	for (size_t i = 0; i < d->n; i++)
		if (!strcmp(d->fields[i].name, field) &&
			(!type || (d->fields[i].ref && !strcmp(d->fields[i].ref->cname, type))))
			return true;
	return false;
}

static void emit_type(FILE *out, const struct type_def *d)
{
	struct flat *flat = NULL;
	size_t n_flat = 0;
	int max_tag;
	uint32_t mask;
	for (size_t i = 0; i < d->n; i++) {
		const struct field_def *f = &d->fields[i];
		if (has_rule(f))
			emit_rule(out, d, f);
		if (f->map)
			word_array(out, format("keys_%s_%s", d->cname, f->member), &f->keys);
	}
	fprintf(out, "static const struct field fields_%s[] = {\n", d->cname);
	for (size_t i = 0; i < d->n; i++)
		emit_field(out, d, &d->fields[i]);
	if (!d->n)
		fprintf(out, "\t{ 0 }\n");
	fprintf(out, "};\n");
	flatten(d, "", &flat, &n_flat);
	fprintf(out, "static const struct flat_field flat_%s[] = {\n", d->cname);
	for (size_t i = 0; i < n_flat; i++)
		fprintf(out, "\t{ %s, %s },\n", flat[i].field, flat[i].offset);
	if (!n_flat)
		fprintf(out, "\t{ 0 }\n");
	fprintf(out, "};\n");
	emit_slots(out, d, flat, n_flat, &mask);
	size_t n_tags = emit_tags(out, d, &max_tag);

	fprintf(out,
		"const struct type %s_type = {\n\t.name = \"%s\", .group = \"%s\", .version = \"%s\", .proto = \"%s.%s\",\n",
		d->cname, d->name, d->served ? d->served : d->file->served, d->file->version,
		d->file->proto, d->name);
	fprintf(out, "\t.fields = fields_%s, .n_fields = %zu, .flat = flat_%s, .n_flat = %zu,\n",
		d->cname, d->n, d->cname, n_flat);
	fprintf(out,
		"\t.is_typed = %d, .is_object = %d, .is_list = %d, .is_atomic = %d, .is_either = %d,\n",
		d->typed, d->typed && holds(d, "metadata", "meta_v1_object_meta"),
		d->typed && holds(d, "metadata", "meta_v1_list_meta") && holds(d, "items", NULL),
		d->atomic, d->either);
	fprintf(out, "\t.size = sizeof(struct %s), ", d->cname);
	if (d->mapped)
		fprintf(out, ".entry_size = sizeof(struct %s_entry), ", d->cname);
	fprintf(out, ".name_slots = slots_%s, .name_mask = %u,\n", d->cname, mask);
	if (n_tags)
		fprintf(out,
			"\t.by_tag = by_tag_%s, .n_by_tag = %zu, .tag_slots = tags_%s, .max_tag = %d,\n",
			d->cname, n_tags, d->cname, max_tag);
	fprintf(out, "\t.doc = ");
	quoted(out, d->doc ? d->doc : "");
	fprintf(out, ",\n};\n\n");
}

/* ---- resources ---- */

static void emit_verbs(FILE *out, const struct words *w)
{
	for (size_t i = 0; i < w->n; i++) {
		fputs(i ? " | VERB_" : "VERB_", out);
		for (const char *c = w->v[i]; *c; c++)
			fputc(*c >= 'a' && *c <= 'z' ? *c - 32 : *c, out);
	}
}

static void emit_resource_parts(FILE *out, const struct resource_def *r, size_t id)
{
	if (r->shorts.n)
		word_array(out, format("shorts_%zu", id), &r->shorts);
	if (r->categories.n)
		word_array(out, format("categories_%zu", id), &r->categories);
	if (r->selectable.n)
		word_array(out, format("selectable_%zu", id), &r->selectable);
	if (r->n_subs) {
		fprintf(out, "static const struct subresource_row subs_%zu[] = {\n", id);
		for (size_t i = 0; i < r->n_subs; i++) {
			const struct sub_def *s = &r->subs[i];
			fprintf(out, "\t{ \"%s\", \"%s\", \"%s\", \"%s\", ", s->name,
				s->kind->file->served, s->kind->file->version, s->kind->name);
			emit_verbs(out, &s->verbs);
			fprintf(out, ", &%s_type },\n", s->kind->cname);
		}
		fprintf(out, "};\n");
	}
	if (r->n_columns) {
		fprintf(out, "static const struct column_row columns_%zu[] = {\n", id);
		for (size_t i = 0; i < r->n_columns; i++) {
			const struct column_def *c = &r->columns[i];
			fprintf(out, "\t{ \"%s\", \"%s\", \"%s\", %d, \"%s\" },\n", c->name,
				c->type, c->format, c->wide, c->source);
		}
		fprintf(out, "};\n");
	}
}

static void emit_resource_row(FILE *out, const struct resource_def *r, size_t id)
{
	fprintf(out,
		"\t{ .group = \"%s\", .version = \"%s\", .plural = \"%s\", .singular = \"%s\", .kind = \"%s\",\n\t  .namespaced = %d, .verbs = ",
		r->file->served, r->file->version, r->plural, r->singular, r->kind_text,
		r->namespaced);
	emit_verbs(out, &r->verbs);
	fprintf(out, ",\n\t  .type = &%s_type, ", r->kind->cname);
	if (r->list)
		fprintf(out, ".list_type = &%s_type, ", r->list->cname);
	fprintf(out, r->shorts.n ? ".short_names = shorts_%zu, " : ".short_names = no_words, ", id);
	fprintf(out,
		r->categories.n ? ".categories = categories_%zu, " : ".categories = no_words, ",
		id);
	fprintf(out,
		r->selectable.n ? ".selectable_fields = selectable_%zu, "
				: ".selectable_fields = no_words, ",
		id);
	if (r->n_subs)
		fprintf(out, ".subs = subs_%zu, .n_subs = %zu, ", id, r->n_subs);
	if (r->n_columns)
		fprintf(out, ".columns = columns_%zu, .n_columns = %zu, ", id, r->n_columns);
	fprintf(out, "},\n");
}

static int by_order(const void *a, const void *b)
{
	return (*(struct schema *const *)a)->order - (*(struct schema *const *)b)->order;
}

static void emit_resources(FILE *out, const struct schemas *s)
{
	struct schema **files = alloc(s->n * sizeof(*files));
	memcpy(files, s->v, s->n * sizeof(*files));
	qsort(files, s->n, sizeof(*files), by_order);
	size_t n = 0, id = 0;
	fprintf(out, "static const char *const no_words[] = { NULL };\n");
	for (size_t i = 0; i < s->n; i++)
		for (size_t j = 0; j < files[i]->n_resources; j++)
			emit_resource_parts(out, files[i]->resources[j], n++);
	fprintf(out, "const struct resource_row resource_rows[] = {\n");
	for (size_t i = 0; i < s->n; i++)
		for (size_t j = 0; j < files[i]->n_resources; j++)
			emit_resource_row(out, files[i]->resources[j], id++);
	fprintf(out, "};\nconst size_t n_resource_rows = %zu;\n", n);
}

void emit_tables(const struct schemas *s, FILE *out)
{
	size_t n;
	struct type_def **types = types_by_value(s, &n);
	fprintf(out, "/* Made by schemac from api/. Do not edit. */\n#include \"gen/types.h\"\n\n");
	for (size_t i = 0; i < n; i++)
		emit_type(out, types[i]);
	fprintf(out, "const struct type *const gen_types[] = {\n");
	for (size_t i = 0; i < n; i++)
		fprintf(out, "\t&%s_type,\n", types[i]->cname);
	fprintf(out, "};\nconst size_t gen_n_types = %zu;\n\n", n);
	emit_resources(out, s);
}
