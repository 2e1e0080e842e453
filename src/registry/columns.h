/* Cells of server-side tables: a function writes one cell's JSON. Each file of columns_*.c ends with its own table of them by name. */
#ifndef SKIFF_REGISTRY_COLUMNS_H
#define SKIFF_REGISTRY_COLUMNS_H

#include "registry/internal.h"

struct cell {
	struct buf *out;
	struct timestamp now;
	struct arena *arena;
};
struct column_fn {
	const char *name; /* as in fn(name) of the schema; NULL ends */
	void (*write)(struct cell *c, const void *obj);
};
extern const struct column_fn pod_columns[], core_columns[], workload_columns[], other_columns[];

void cell_text(struct cell *c, struct str s);
void cell_textz(struct cell *c, const char *s);
void cell_fmt(struct cell *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
void cell_int(struct cell *c, int64_t v);
void cell_or(struct cell *c, struct str s, const char *otherwise); /* when s is empty */
void cell_since(struct cell *c, struct timestamp t);               /* 5m, <unknown> */
struct str since_text(struct cell *c, struct timestamp t);
struct str labels_text(struct cell *c, const struct str_map *m); /* a=b,c=d or <none> */
struct str selector_text(struct cell *c, const struct meta_v1_label_selector *s);
void cell_containers(struct cell *c, const struct core_v1_pod_spec *s);
void cell_images(struct cell *c, const struct core_v1_pod_spec *s);
bool registry_column_known(const char *name); /* whether there is a function fn(name) */
void cell_list(struct cell *c, const struct str_list *l, size_t max,
	const char *empty); /* a,b,c + 2 more... */

#endif
