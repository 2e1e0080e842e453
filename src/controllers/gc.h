/* The garbage collector's memory of who owns whom: for each owner's uid, its dependents. Upstream: graph_builder's graph. Knows nothing of
 * objects without owners; whether an owner is there is asked of the caches, then of the server (gc.c). Thread-safe. */
#ifndef SKIFF_CONTROLLERS_GC_H
#define SKIFF_CONTROLLERS_GC_H

#include "controllers/internal.h"

struct gc_graph;
struct gc_graph *gc_graph_new(void);
void gc_graph_free(struct gc_graph *g);
/* `key` names the dependent for the queue: kind, namespace, name and uid in one text. An owner's list has it once. */
void gc_graph_link(struct gc_graph *g, struct str owner_uid, struct str key);
void gc_graph_unlink(struct gc_graph *g, struct str owner_uid, struct str key);
size_t gc_graph_count(struct gc_graph *g, struct str owner_uid);
/* Copies of the dependents' keys, in the arena. */
struct str_list gc_graph_dependents(struct gc_graph *g, struct str owner_uid, struct arena *a);
/* Owners known to be gone for good (uids never come back): the last 1,024 are remembered. */
void gc_graph_set_gone(struct gc_graph *g, struct str uid);
bool gc_graph_is_gone(struct gc_graph *g, struct str uid);

#endif
