/* The inside of field sets, shared by field_set.c, field_walk.c and apply.c. */
#ifndef SKIFF_MODEL_FIELD_SET_H
#define SKIFF_MODEL_FIELD_SET_H

#include "model/apply.h"
#include "model/internal.h"

/* A node of the tree of paths; its children sorted by their element as fieldsV1 writes it (f:spec, k:{"name":"a"}, v:"x"). */
struct field_set {
	struct field_child *items;
	size_t len, cap;
	bool member; /* the path to here is in the set */
};
struct field_child {
	struct str element;
	struct field_set set;
};

struct field_set *field_set_new(struct arena *a);
struct field_set *field_child_of(const struct field_set *s, struct str element); /* NULL: none */
struct field_set *field_child_make(struct field_set *s, struct str element, struct arena *a);

/* How a value at some place merges. */
struct place_kind {
	enum { PLACE_LEAF, PLACE_OBJECT, PLACE_MAP, PLACE_LIST_MAP, PLACE_LIST_SET } kind;
	const struct type *type;   /* of an object; of the values of a map or list */
	const struct field *field; /* of a map or list */
};
struct place_kind place_of_object(const struct type *t);
struct place_kind place_of_member(
	const struct place_kind *p, struct str name); /* of an object's or map's member */
struct place_kind place_of_item(const struct place_kind *p);
/* The element of a list's item; p NULL: it has no identity (a key is missing). */
struct str element_of_item(const struct place_kind *p, const struct value *item, struct arena *a);
struct str element_of_name(struct str name, struct arena *a);

#endif
