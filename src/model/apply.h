/* Server-side apply: who owns which fields, and merging what is applied. Works on trees; rows of the types tell how lists and
 * maps merge. Upstream: structured-merge-diff and apimachinery's managedfields.
 * Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
 *
 * A field_set is a set of paths: what an entry of metadata.managedFields holds as fieldsV1 ("f:spec":{"f:replicas":{}}). Sets
 * live in an arena; functions that return one share nothing that is changed later. */
#ifndef SKIFF_MODEL_APPLY_H
#define SKIFF_MODEL_APPLY_H

#include "model/model.h"

struct field_set;

/* Of fieldsV1 as a tree, and back. -EINVAL: not of that form. NULL is the empty set. */
int field_set_from_fields(
	const struct value *fields, struct arena *a, struct field_set **ret, struct err *err);
void field_set_to_fields(const struct field_set *s, struct arena *a, struct value *ret);
bool field_set_is_empty(const struct field_set *s);
bool field_set_equal(const struct field_set *a, const struct field_set *b);
struct field_set *field_set_union(
	const struct field_set *a, const struct field_set *b, struct arena *arena);
struct field_set *field_set_intersect(
	const struct field_set *a, const struct field_set *b, struct arena *arena);
/* a without the paths in b; deep: also without what lies below them. */
struct field_set *field_set_minus(
	const struct field_set *a, const struct field_set *b, bool deep, struct arena *arena);
/* Each path as people read it: .spec.containers[name="a"].image */
size_t field_set_paths(const struct field_set *s, struct arena *a, struct str **ret);

/* Every field that the object states, as an applier owns them. */
struct field_set *field_set_of(const struct type *t, const struct value *obj, struct arena *a);
struct field_changes {
	struct field_set *added, *modified, *removed;
};
struct field_changes field_set_compare(
	const struct type *t, const struct value *old, const struct value *obj, struct arena *a);

/* ---- managers ---- */
struct field_owner {
	struct str manager, operation; /* kubectl, Apply or Update */
	struct str api_version, subresource;
	struct timestamp time;
	struct field_set *fields;
};
struct field_owners { /* metadata.managedFields: the caller reads and writes the entries */
	struct field_owner *items;
	size_t len;
};
struct field_request { /* who writes, and how */
	const struct type *type;
	struct str manager, api_version, subresource;
	struct timestamp now;
	const struct field_set *
		ignored; /* fields that this write does not set (status for the object itself); may be NULL */
};

/* A create or update by other means than apply turned old into obj: the writer now owns what it changed, and nobody owns
 * what it removed. old: for a create what an empty object looks like. */
void fields_track_update(const struct field_request *r, const struct value *old,
	const struct value *obj, struct field_owners *owners, struct arena *a);

enum { APPLY_CONFLICT = 1 };
struct field_conflict {
	struct str manager, api_version; /* whose field it is */
	bool by_update;                  /* that owner's operation is Update */
	struct str path;                 /* .spec.replicas */
};
/* Merges `applied` over `live` (an object with only what the applier says; without managedFields) into *ret, takes away what
 * the applier owned and no longer states, and updates owners. -EINVAL: an item of a list that merges by keys lacks one, or is there
 * twice. APPLY_CONFLICT: others own fields that would change, and
 * force is not set; nothing is changed then, and err has upstream's text. */
int fields_apply(const struct field_request *r, const struct value *live,
	const struct value *applied, bool force, struct field_owners *owners, struct arena *a,
	struct value *ret, struct field_conflict **ret_conflicts, size_t *ret_n, struct err *err);

#endif
