/* What the files of kinds/ share. */
#ifndef SKIFF_REGISTRY_KINDS_H
#define SKIFF_REGISTRY_KINDS_H

#include "registry/internal.h"

extern const struct kind namespace_kind;

/* One cause of a field that must not change. */
void cause_immutable(struct causes *cs, const char *path, struct str value);
#define IMMUTABLE "field is immutable"
#endif
