/* OpenAPI out of the rows of types and resources: what openapi*.c and gnostic.c share. Everything is made piece by piece as a small tree
 * and written at once, so that a document costs its own bytes and little more. */
#ifndef SKIFF_APISERVER_OPENAPI_H
#define SKIFF_APISERVER_OPENAPI_H

#include "apiserver/internal.h"

enum openapi_version { OPENAPI_V2, OPENAPI_V3 };

/* Types that a document speaks of, each once, closed over their fields. */
struct type_set {
	const struct type **items;
	size_t len, cap;
	struct map seen;
};
void type_set_add(struct type_set *s, const struct type *t);
void type_set_sort(struct type_set *s);
void type_set_deinit(struct type_set *s);

struct value openapi_definition(const struct type *t, enum openapi_version v, struct arena *a);
/* Definitions that are no messages: Time, Quantity … NULL name: the end. */
struct builtin_definition {
	const char *name;
	const char *json[2]; /* by version */
};
extern const struct builtin_definition openapi_builtins[];

/* Calls fn with every path of r and its path item. */
typedef void (*path_fn)(void *arg, struct str path, const struct value *item);
void openapi_paths(const struct resource *r, enum openapi_version v, path_fn fn, void *arg);

/* One JSON tree of swagger 2.0 as gnostic's protobuf. */
void gnostic_schema(const struct value *v, struct buf *out);
void gnostic_path_item(const struct value *v, struct buf *out);

/* Building trees. */
struct value *tree_object(struct arena *a, struct value *parent, const char *key);
struct value *tree_list(struct arena *a, struct value *parent, const char *key);
void tree_text(struct arena *a, struct value *parent, const char *key, const char *text);
void tree_str(struct arena *a, struct value *parent, const char *key, struct str text);
void tree_bool(struct arena *a, struct value *parent, const char *key, bool b);
struct value *tree_item_object(struct arena *a, struct value *list);
void tree_item_text(struct arena *a, struct value *list, const char *text);

#endif
