/* What a schema is once read: files hold types, enums and resources in the order written. Everything is allocated once
 * and lives until the program ends. The notation is told in api/README.md. */
#ifndef SCHEMAC_H
#define SCHEMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct words {
	char **v;
	size_t n;
};

enum shape { ONE, PTR, LIST, MAP, MAP_LIST };
enum kind {
	BOOL,
	INT32,
	INT64,
	DOUBLE,
	STRING,
	BYTES,
	TIME,
	MICROTIME,
	DURATION,
	QUANTITY,
	INT_OR_STRING,
	RAW,
	JSON,
	MESSAGE
};

struct where {
	const char *path;
	int line;
};

struct schema;
struct type_def;

struct enum_def {
	struct where at;
	char *name;
	bool closed; /* `enum`: no other value is valid; `names`: known values of an open set */
	struct words values;
};

struct field_def {
	struct where at;
	char *name, *member; /* JSON name; C member */
	int tag;             /* 0: not in protobuf */
	char *type_text;
	enum shape shape;
	enum kind kind;
	struct type_def *ref;
	struct enum_def *values;
	bool type_meta; /* kind and apiVersion, put in by the compiler */
	bool inlined, omitempty, omitzero, required, required_unchecked, immutable, atomic, set,
		map, patch, retain_keys, patch_replace, wrapped, duplicates_ok;
	bool has_min, has_max;
	long long min, max;
	char *format, *merge_key, *def, *doc;
	struct words keys;
};

struct type_def {
	struct where at;
	struct schema *file;
	char *name, *cname; /* PodSpec; core_v1_pod_spec */
	char *served;       /* NULL: as the file */
	bool typed, atomic, either;
	char *doc;
	struct field_def *fields;
	size_t n;
	int visit;           /* of the ordering by value: 0 new, 1 being visited, 2 written */
	bool listed, mapped; /* some field is a list, a map of it */
};

struct sub_def {
	struct where at;
	char *name, *kind_text;
	struct type_def *kind;
	struct words verbs;
};

struct column_def {
	char *name, *type, *format, *source;
	bool wide;
};

struct resource_def {
	struct where at;
	struct schema *file;
	char *plural, *singular, *kind_text;
	struct type_def *kind, *list;
	struct words shorts, categories, verbs, selectable;
	bool namespaced;
	struct sub_def *subs;
	size_t n_subs;
	struct column_def *columns;
	size_t n_columns;
};

struct schema {
	char *path, *name, *group, *version, *served, *proto; /* name: "core/v1" */
	int order;
	struct words imports;
	struct type_def **types;
	size_t n_types;
	struct enum_def **enums;
	size_t n_enums;
	struct resource_def **resources;
	size_t n_resources;
};

struct schemas {
	struct schema **v;
	size_t n;
};

/* util.c */
void *alloc(size_t n);
void *grow(void *p, size_t n, size_t size); /* room for item n (0-based); doubles */
char *copy(const char *s, size_t n);
char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void complain(struct where at, const char *fmt, ...)
	__attribute__((format(printf, 2, 3))); /* counts */
extern int complaints;
char *snake(const char *json_name, bool member); /* member: C keywords get an underscore */

/* parse.c */
void schema_parse(const char *path, struct schemas *into);

/* check.c: resolves names, then checks */
void schemas_check(struct schemas *s);

/* emit.c, emit_rows.c */
void emit_header(const struct schemas *s, FILE *out);
void emit_tables(const struct schemas *s, FILE *out);
struct type_def **types_by_value(
	const struct schemas *s, size_t *ret_n); /* members held by value come first */

#endif
