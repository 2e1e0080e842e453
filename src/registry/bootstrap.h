/* What a cluster begins with, as data. */
#ifndef SKIFF_REGISTRY_BOOTSTRAP_H
#define SKIFF_REGISTRY_BOOTSTRAP_H

#include "registry/internal.h"

struct bootstrap_role {
	const char *ns; /* NULL: a ClusterRole */
	const char *name;
	const char *aggregate_to, *aggregate_from; /* admin, edit, view; NULL */
	const char *rules;                         /* a line each; NULL: none of its own */
};
struct bootstrap_binding {
	const char *ns; /* NULL: a ClusterRoleBinding */
	const char *name, *role_kind, *role;
	const char *subjects; /* Group NAME; User NAME; ServiceAccount NS/NAME */
};
extern const struct bootstrap_role bootstrap_roles[]; /* ends with a row without name */
extern const struct bootstrap_binding bootstrap_bindings[];

/* Objects to make or mend, all under way at once; the store commits them in few groups. */
struct bootstrap;
void bootstrap_create(
	struct bootstrap *b, const char *group, const char *plural, struct str ns, void *obj);
void bootstrap_update(struct bootstrap *b, const char *group, const char *plural, struct str ns,
	struct str name, void *obj);
void *bootstrap_get(struct bootstrap *b, const char *group, const char *plural, struct str ns,
	struct str name); /* NULL: not there */
struct arena *bootstrap_arena(struct bootstrap *b);
void bootstrap_rbac(struct bootstrap *b);

#endif
