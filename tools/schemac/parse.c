/* Lines into definitions. A line is words; "quotes" hold a word with blanks; `#` begins a comment. Indented lines belong
 * to the unindented one above them. Names are resolved later, in check.c. */
#include "schemac.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct parser {
	struct where at;
	struct schema *file;
	struct type_def *type;
	struct resource_def *resource;
};

struct token {
	char *text;
	bool quoted;
};

static size_t split(struct where at, char *line, struct token *toks, size_t max)
{
	size_t n = 0;
	char *p = line;
	while (*p && n < max) {
		while (isspace((unsigned char)*p))
			p++;
		if (!*p || *p == '#')
			break;
		if (*p == '"') {
			char *out = alloc(strlen(p) + 1), *o = out;
			for (p++; *p && *p != '"'; p++) {
				if (*p == '\\' && p[1])
					p++;
				*o++ = *p;
			}
			if (*p != '"')
				complain(at, "a quote is not closed");
			else
				p++;
			toks[n++] = (struct token){ out, true };
			continue;
		}
		char *start = p;
		while (*p && !isspace((unsigned char)*p))
			p++;
		toks[n++] = (struct token){ copy(start, p - start), false };
	}
	return n;
}

static struct words split_list(const char *s, char by)
{
	struct words w = { 0 };
	while (*s) {
		const char *e = strchr(s, by);
		size_t n = e ? (size_t)(e - s) : strlen(s);
		w.v = grow(w.v, w.n, sizeof(*w.v));
		w.v[w.n++] = copy(s, n);
		s += n + (e ? 1 : 0);
	}
	return w;
}

static void add_word(struct words *w, char *s)
{
	w->v = grow(w->v, w->n, sizeof(*w->v));
	w->v[w->n++] = s;
}

static bool is(struct token t, const char *word)
{
	return !t.quoted && !strcmp(t.text, word);
}

static void parse_group(struct parser *p, struct token *t, size_t n)
{
	struct schema *f = p->file;
	const char *slash = n > 1 ? strchr(t[1].text, '/') : NULL;
	if (!slash) {
		complain(p->at, "group needs a name like apps/v1");
		return;
	}
	f->name = t[1].text;
	f->group = copy(f->name, slash - f->name);
	f->version = copy(slash + 1, strlen(slash + 1));
	for (size_t i = 2; i + 1 < n; i += 2) {
		if (is(t[i], "served"))
			f->served = t[i + 1].text;
		else if (is(t[i], "proto"))
			f->proto = t[i + 1].text;
		else if (is(t[i], "order"))
			f->order = atoi(t[i + 1].text);
		else
			complain(p->at, "group line: unknown word %s", t[i].text);
	}
	if (!f->served || !f->proto)
		complain(p->at, "group %s needs `served GROUP` and `proto PACKAGE`", f->name);
}

static void parse_type(struct parser *p, struct token *t, size_t n)
{
	if (n < 2) {
		complain(p->at, "type needs a name");
		return;
	}
	struct type_def *d = alloc(sizeof(*d));
	d->at = p->at;
	d->file = p->file;
	d->name = t[1].text;
	for (size_t i = 2; i < n; i++) {
		if (t[i].quoted)
			d->doc = t[i].text;
		else if (is(t[i], "typed"))
			d->typed = true;
		else if (is(t[i], "atomic"))
			d->atomic = true;
		else if (is(t[i], "either"))
			d->either = true;
		else if (!strncmp(t[i].text, "served=", 7))
			d->served = t[i].text + 7;
		else
			complain(p->at, "type %s: unknown word %s", d->name, t[i].text);
	}
	p->type = d;
	p->resource = NULL;
	p->file->types = grow(p->file->types, p->file->n_types, sizeof(d));
	p->file->types[p->file->n_types++] = d;
}

static void parse_enum(struct parser *p, struct token *t, size_t n)
{
	struct enum_def *e = alloc(sizeof(*e));
	e->at = p->at;
	e->closed = is(t[0], "enum");
	e->name = n > 1 ? t[1].text : "";
	for (size_t i = 2; i < n; i++)
		add_word(&e->values, t[i].text);
	if (n < 3)
		complain(p->at, "%s needs a name and values", t[0].text);
	p->type = NULL;
	p->resource = NULL;
	p->file->enums = grow(p->file->enums, p->file->n_enums, sizeof(e));
	p->file->enums[p->file->n_enums++] = e;
}

static void parse_resource(struct parser *p, struct token *t, size_t n)
{
	struct resource_def *r = alloc(sizeof(*r));
	r->at = p->at;
	r->file = p->file;
	r->plural = n > 1 ? t[1].text : "";
	bool scoped = false;
	for (size_t i = 2; i < n; i++) {
		char *value = i + 1 < n ? t[i + 1].text : "";
		if (is(t[i], "namespaced") || is(t[i], "cluster")) {
			r->namespaced = is(t[i], "namespaced");
			scoped = true;
			continue;
		}
		if (is(t[i], "singular"))
			r->singular = value;
		else if (is(t[i], "kind"))
			r->kind_text = value;
		else if (is(t[i], "short"))
			r->shorts = split_list(value, ',');
		else if (is(t[i], "categories"))
			r->categories = split_list(value, ',');
		else if (is(t[i], "verbs"))
			r->verbs = split_list(value, ',');
		else
			complain(p->at, "resource %s: unknown word %s", r->plural, t[i].text);
		i++;
	}
	if (!r->singular || !r->kind_text || !r->verbs.n || !scoped)
		complain(p->at,
			"resource %s needs singular, kind, verbs, and namespaced or cluster",
			r->plural);
	p->type = NULL;
	p->resource = r;
	p->file->resources = grow(p->file->resources, p->file->n_resources, sizeof(r));
	p->file->resources[p->file->n_resources++] = r;
}

static void parse_sub(struct parser *p, struct token *t, size_t n)
{
	struct resource_def *r = p->resource;
	struct sub_def s = { .at = p->at, .name = n > 1 ? t[1].text : "" };
	for (size_t i = 2; i + 1 < n; i += 2) {
		if (is(t[i], "kind"))
			s.kind_text = t[i + 1].text;
		else if (is(t[i], "verbs"))
			s.verbs = split_list(t[i + 1].text, ',');
		else
			complain(p->at, "sub %s: unknown word %s", s.name, t[i].text);
	}
	if (!s.kind_text || !s.verbs.n)
		complain(p->at, "sub %s needs kind and verbs", s.name);
	r->subs = grow(r->subs, r->n_subs, sizeof(s));
	r->subs[r->n_subs++] = s;
}

static void parse_column(struct parser *p, struct token *t, size_t n)
{
	struct resource_def *r = p->resource;
	bool wide = n == 5 && is(t[3], "wide");
	if (n != 4 && !wide) {
		complain(p->at, "column needs: NAME TYPE[/FORMAT] [wide] SOURCE");
		return;
	}
	struct column_def c = { .name = t[1].text,
		.type = t[2].text,
		.format = "",
		.wide = wide,
		.source = t[n - 1].text };
	char *slash = strchr(c.type, '/');
	if (slash) {
		*slash = 0;
		c.format = slash + 1;
	}
	r->columns = grow(r->columns, r->n_columns, sizeof(c));
	r->columns[r->n_columns++] = c;
}

/* word(inner) -> inner, else NULL */
static char *in_parens(const char *text, const char *word)
{
	size_t n = strlen(word), m = strlen(text);
	if (strncmp(text, word, n) || text[n] != '(' || text[m - 1] != ')')
		return NULL;
	return copy(text + n + 1, m - n - 2);
}

static bool field_flag(struct field_def *f, const char *word)
{
	const struct {
		const char *word;
		bool *flag;
	} flags[] = {
		{ "inline", &f->inlined },
		{ "omitempty", &f->omitempty },
		{ "omitzero", &f->omitzero },
		{ "required", &f->required },
		{ "required-unchecked", &f->required_unchecked },
		{ "immutable", &f->immutable },
		{ "atomic", &f->atomic },
		{ "set", &f->set },
		{ "retain-keys", &f->retain_keys },
		{ "patch-replace", &f->patch_replace },
		{ "wrapped", &f->wrapped },
		{ "duplicates-ok", &f->duplicates_ok },
	};
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (!strcmp(word, flags[i].word)) {
			*flags[i].flag = true;
			return true;
		}
	}
	return false;
}

static bool field_number(struct parser *p, struct field_def *f, const char *word)
{
	if (strncmp(word, "min=", 4) && strncmp(word, "max=", 4))
		return false;
	char *end;
	long long v = strtoll(word + 4, &end, 10);
	if (!word[4] || *end)
		complain(p->at, "field %s: %s is no number", f->name, word);
	if (word[1] == 'i') {
		f->has_min = true;
		f->min = v;
	} else {
		f->has_max = true;
		f->max = v;
	}
	return true;
}

static void field_word(struct parser *p, struct field_def *f, const char *word)
{
	char *inner;
	if (field_flag(f, word) || field_number(p, f, word))
		return;
	if (!strncmp(word, "format=", 7)) {
		f->format = copy(word + 7, strlen(word + 7));
	} else if ((inner = in_parens(word, "map"))) {
		f->map = true;
		f->keys = split_list(inner, ',');
	} else if ((inner = in_parens(word, "patch"))) {
		f->patch = true;
		f->merge_key = *inner ? inner : NULL;
	} else if (!in_parens(word, "gate")) {
		complain(p->at, "field %s: unknown word %s", f->name, word);
	}
}

static void parse_field(struct parser *p, struct token *t, size_t n)
{
	if (n < 3) {
		complain(p->at, "a field needs: NAME TAG TYPE");
		return;
	}
	struct type_def *d = p->type;
	struct field_def f = { .at = p->at, .name = t[0].text, .type_text = t[2].text };
	f.tag = strcmp(t[1].text, "-") ? atoi(t[1].text) : 0;
	if (strcmp(t[1].text, "-") && f.tag <= 0)
		complain(p->at, "field %s: tag %s is no number above 0", f.name, t[1].text);
	for (size_t i = 3; i < n; i++) {
		if (is(t[i], "=") && i + 1 < n) {
			f.def = t[i + 1].text;
			i++;
		} else if (t[i].quoted) {
			f.doc = t[i].text;
			if (i + 1 < n)
				complain(p->at, "field %s: nothing may follow the description",
					f.name);
		} else {
			field_word(p, &f, t[i].text);
		}
	}
	d->fields = grow(d->fields, d->n, sizeof(f));
	d->fields[d->n++] = f;
}

static void parse_line(struct parser *p, char *line)
{
	struct token t[128];
	bool indented = line[0] == ' ' || line[0] == '\t';
	size_t n = split(p->at, line, t, 128);
	if (!n)
		return;
	if (n == 128)
		complain(p->at, "too many words on one line");
	if (indented && p->type)
		parse_field(p, t, n);
	else if (indented && p->resource && is(t[0], "sub"))
		parse_sub(p, t, n);
	else if (indented && p->resource && is(t[0], "column"))
		parse_column(p, t, n);
	else if (indented && p->resource && is(t[0], "select"))
		for (size_t i = 1; i < n; i++)
			add_word(&p->resource->selectable, t[i].text);
	else if (indented)
		complain(p->at, "%s belongs to nothing above it", t[0].text);
	else if (is(t[0], "group"))
		parse_group(p, t, n);
	else if (is(t[0], "import"))
		for (size_t i = 1; i < n; i++)
			add_word(&p->file->imports, t[i].text);
	else if (is(t[0], "type"))
		parse_type(p, t, n);
	else if (is(t[0], "enum") || is(t[0], "names"))
		parse_enum(p, t, n);
	else if (is(t[0], "resource"))
		parse_resource(p, t, n);
	else
		complain(p->at, "unknown word %s", t[0].text);
}

void schema_parse(const char *path, struct schemas *into)
{
	FILE *f = fopen(path, "re");
	struct parser p = { .at = { copy(path, strlen(path)), 0 } };
	if (!f) {
		complain(p.at, "cannot be read: %m");
		return;
	}
	p.file = alloc(sizeof(*p.file));
	p.file->path = copy(path, strlen(path));
	char *line = NULL;
	size_t cap = 0;
	while (getline(&line, &cap, f) > 0) {
		p.at.line++;
		parse_line(&p, line);
	}
	free(line);
	fclose(f);
	if (!p.file->name || !p.file->served || !p.file->proto)
		complain(p.at, "no complete group line");
	into->v = grow(into->v, into->n, sizeof(p.file));
	into->v[into->n++] = p.file;
}
