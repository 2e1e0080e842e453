/* What the files of this folder share.
 *
 *   status.c     the table of reasons and the makers of Status
 *   resources.c  the table of resources, storage keys, versions that share storage
 *   fields.c     selectable fields: paths resolved once, values taken from structs
 *   selection.c  label and field selectors of one request
 *   meta.c       ObjectMeta: what the server sets, what it checks
 *   write.c      create, and what all writes share: admission, validation, commit, try again
 *   update.c     update and patch
 *   managed.c    server-side apply, who owns which fields
 *   delete.c     delete and deletecollection
 *   read.c       get, list, watch
 *   scale.c      the scale subresource
 *   retry.c      the one thread on which a write is prepared again
 *   expire.c     what goes by itself: events
 *   stored.c     keys and values as a shared store has them
 *   patch.c      an object as a tree, changed, and back
 *   table.c, columns*.c  server-side tables
 *   bootstrap*.c what a cluster must have
 *   kinds/       strategies, one file a kind or a family
 *
 * A write lives in its request's arena. It is prepared on the caller's thread, finished on the store's writer thread; between the two no
 * thread holds a lock. */
#ifndef SKIFF_REGISTRY_INTERNAL_H
#define SKIFF_REGISTRY_INTERNAL_H

#include <pthread.h>
#include <stdio.h>

#include "base/map.h"
#include "registry/registry.h"

/* ---- selectable fields ---- */
enum { FIELD_PATH_DEPTH = 4 };
struct field_path {
	struct str name; /* spec.nodeName */
	const struct field *steps[FIELD_PATH_DEPTH];
	size_t n_steps;     /* 0: made by the kind's own function */
	const char *absent; /* the value when there is none: "", "false", "0" */
};

/* ---- kinds ---- */
enum kind_flags {
	KIND_GENERATION = 1 << 0,             /* counts changes of what is not metadata or status */
	KIND_GENERATION_ANNOTATIONS = 1 << 1, /* and of annotations (Deployment) */
	KIND_KEEP_STATUS = 1 << 2,            /* status given on create is kept (Node) */
	KIND_STATUS_META = 1 << 3,      /* a write to /status may change labels and annotations */
	KIND_CREATE_ON_UPDATE = 1 << 4, /* PUT of what is not there creates it */
	KIND_CONDITIONAL = 1 << 5,      /* PUT without resourceVersion is refused */
	KIND_RETURN_DELETED = 1 << 6,   /* DELETE answers with the object, not a Status */
	KIND_ORPHANS = 1 << 7,          /* without a policy, dependents are orphaned (RC, Job) */
};
enum name_rule { NAME_SUBDOMAIN, NAME_LABEL, NAME_PATH_SEGMENT };

struct write;
typedef void (*write_run_fn)(struct write *w);
struct kind_sub {
	const char *name; /* approval */
	/* the same type as the object: */
	void (*prepare)(
		struct write *w); /* w->obj becomes w->old with what this subresource may change */
	void (*validate)(struct write *w, struct causes *cs);
	/* another type: everything */
	write_run_fn run;
};
struct kind {
	const char *resource; /* pods, deployments.apps */
	uint32_t flags;
	enum name_rule name_rule;
	write_run_fn
		create; /* instead of the generic create: what is not stored under its own name */
	void (*fill)(struct write *w,
		void *obj); /* defaults that the schema cannot say; on create, update and patch; twice is once */
	void (*prepare_create)(struct write *w);
	void (*prepare_update)(
		struct write *w); /* of the object itself; status is the old one already */
	void (*validate)(struct write *w, struct causes *cs);
	void (*validate_update)(struct write *w, struct causes *cs);
	/* Claims that are outside of the object (addresses, ports). claim runs last before the commit; settle once afterwards. */
	struct meta_v1_status *(*claim)(struct write *w);
	void (*settle)(struct write *w, bool committed);
	void (*deleted)(struct registry *r,
		const struct object *o); /* after its delete was committed; on the writer thread */
	/* Seconds of grace for a delete; 0: at once. NULL: no grace at all. */
	int64_t (*grace)(
		struct write *w, const void *obj, const struct meta_v1_delete_options *opt);
	bool (*held)(const void *
			obj); /* true: something other than metadata.finalizers keeps a deleted object (Namespace) */
	void (*begin_delete)(struct write *w); /* w->obj was given its deletionTimestamp */
	struct meta_v1_status *(*check_delete)(struct write *w);
	int64_t ttl_s; /* 0: stays; else it goes so long after last_used */
	struct timestamp (*last_used)(const void *obj);
	struct str (*field)(const void *obj, struct str name,
		struct arena *a); /* value of a selectable field without path; p NULL: not mine */
	const struct kind_sub *subs; /* NULL name ends */
	const char *
		warning; /* for who writes one: what it asks for is kept and does not happen here */
};
const struct kind *kind_of(struct str group_resource); /* NULL: the row is enough */

/* ---- resources ---- */
struct resource_extra {
	struct resource resource; /* first */
	bool namespaced;
	struct field_path *fields; /* sorted by name */
	size_t n_fields;
	const struct field *spec, *status;   /* NULL: it has none */
	bool status_sub;                     /* status is written through its subresource */
	const struct conversion *conversion; /* NULL: is its own storage */
	struct str not_supported;            /* how an unknown field label is refused */
};
static inline const struct resource_extra *extra_of(const struct resource *r)
{
	return (const struct resource_extra *)r;
}
struct conversion {
	const char *group_version, *plural; /* the version that is not stored */
	const char *storage;                /* group/version that is */
	void *(*to_storage)(const void *obj, struct arena *a);
	void *(*from_storage)(const void *obj, struct arena *a);
};
extern const struct conversion conversions[];
int fields_resolve(struct resource_extra *x, struct err *err);
int resources_build(struct registry *r, struct err *err);
void resources_free(struct registry *r);
bool resource_namespaced(const struct resource *r);
const struct type *resource_type(const struct resource *r);
struct str resource_key(const struct resource *r, struct str ns, struct str name, struct arena *a);
/* The same into buf; 0: it does not fit, so nothing of that name can be there. */
size_t resource_key_into(
	const struct resource *r, struct str ns, struct str name, char *buf, size_t size);
void key_parts(const struct resource *r, struct str key, struct str *ret_ns, struct str *ret_name);
/* Values of obj's selectable fields that are there, sorted, for the store. */
void fields_of(const struct resource *r, const void *obj, struct arena *a, struct object_pair **ret,
	size_t *ret_n);
size_t field_size(const struct field *f); /* bytes of the member */

/* ---- the registry ---- */
struct retry_queue;
struct service_claims;
struct registry {
	struct registry_config config;
	struct store *store;
	struct resource_extra *resources;
	const struct resource **order;
	size_t n_resources;
	struct map by_path, by_type;
	struct retry_queue *retry;
	struct service_claims *services;
	pthread_mutex_t services_lock; /* of a shared store: guards services_log */
	struct store_watch *services_log;
};

/* ---- one write ---- */
struct write {
	struct registry *r;
	struct registry_request *req;
	struct arena *arena;
	const struct resource *res; /* the stored version */
	const struct type *type;
	registry_done_fn done;
	void *arg;
	write_run_fn run; /* from the start; called again by the retry thread */
	struct timestamp now;
	enum resource_verb operation;   /* CREATE, UPDATE or DELETE */
	struct object *current;         /* a reference; NULL: none */
	void *old, *obj;                /* of type */
	const struct kind_sub *sub;     /* NULL: the object itself */
	struct meta_v1_status *refused; /* set by prepare functions to stop */
	void *claims;                   /* of kind->claim */
	void *scratch;                  /* of the subresource that runs */
	void (*amend)(struct write
			*w); /* of a delete: what else the object says from now on; NULL: nothing */
	int attempts;
	int created;          /* answer code */
	bool claimed, remove; /* remove: the commit is a delete */
	bool generated;       /* the name was made by us */
	bool applied;         /* by server-side apply: managedFields are made already */
	bool conditions_read;
	bool fresh; /* of a shared store: what this run reads is not older than the request */
	struct str given_revision, given_uid; /* the client's conditions */
	uint64_t
		guard_revision; /* of a shared store: claims rest on what was known then; 0: no claims */
	/* what goes out; NULL: the object itself */
	void (*answer)(struct write *w, struct object *o, struct registry_result *res);
};
struct write *write_new(struct registry *r, struct registry_request *req, registry_done_fn done,
	void *arg, write_run_fn run);
void write_refuse(struct write *w, struct meta_v1_status *st); /* ends it */
void write_answer_obj(struct write *w, void *obj, const struct type *t, int code);
void write_answer_object(struct write *w, struct object *o, int code); /* takes the reference */
void write_defaults(struct write *w);
void write_finish(struct write *w, int code); /* claims, then commits; dry runs end here */
void *write_to_storage(
	struct write *w, void *obj); /* of the version asked for, into the stored one */
void write_commit(struct write *w);  /* w->obj (or its delete), by expectation of w->current */
void write_again(struct write *w);   /* drops what was prepared; runs on the retry thread */
bool write_load(struct write *w);    /* current and old of req's name; false: refused with 404 */
struct meta_v1_status *write_admit(struct write *w);
struct meta_v1_status *write_validate(struct write *w);
void write_update_from(struct write *w); /* w->old and w->obj are set: the rest of an update */
int write_patch(struct write *w, const struct type *t, const void *from,
	void **ret); /* 0 or refused (then ended) */
int managed_apply(struct write *w, const struct type *t, const void *from,
	void **ret); /* from NULL: a create; 0 or refused (then ended) */
void managed_track(struct write *w);
void write_create(struct write *w);
void write_run_create(struct write *w);
void write_run_update(struct write *w);
void write_run_delete(struct write *w);
void write_run_delete_collection(struct write *w);
void write_run_scale(struct write *w);
void registry_get(
	struct registry *r, struct registry_request *req, registry_done_fn done, void *arg);
struct meta_v1_status *write_check_namespace(struct write *w);
const struct kind_sub *kind_sub_of(const struct resource *res, struct str name);
/* Answers with o in the version that was asked for. Takes the reference. */
void answer_object(
	struct registry_request *req, struct object *o, int code, registry_done_fn done, void *arg);
void answer_status(
	struct registry_request *req, struct meta_v1_status *st, registry_done_fn done, void *arg);

struct retry_queue *retry_new(struct registry *r);
void retry_watch_age(struct retry_queue *q); /* something that expires was stored */
bool registry_expire(struct registry *r);
void expire_start(struct registry *r);
void retry_push(struct retry_queue *q, struct write *w);
void retry_free(struct retry_queue *q);

/* ---- ObjectMeta ---- */
void meta_prepare_create(struct write *w);
bool meta_generate_name(struct write *w);
void meta_validate_create(struct write *w, struct causes *cs);
void meta_prepare_update(struct write *w);
void meta_validate_update(struct write *w, struct causes *cs);
void meta_validate(const struct meta_v1_object_meta *m, struct str path, struct causes *cs);
void meta_validate_labels(const struct str_map *m, struct str path, struct causes *cs);
void meta_validate_annotations(const struct str_map *m, struct str path, struct causes *cs);
const char *name_check(enum name_rule rule, struct str name);
struct meta_v1_object_meta *write_meta(struct write *w);
struct meta_v1_object_meta *write_old_meta(struct write *w);

/* ---- members by row ---- */
static inline void *member(void *obj, const struct field *f)
{
	return (char *)obj + f->offset;
}
static inline const void *cmember(const void *obj, const struct field *f)
{
	return (const char *)obj + f->offset;
}

/* ---- selection ---- */
struct selection {
	struct selector *labels;
	struct field_term *fields;
	size_t n_fields;
	struct str name, ns; /* metadata.name=…, metadata.namespace=…; empty: any */
	bool none;           /* contradicts itself */
};
struct meta_v1_status *selection_parse(const struct registry_request *req, struct selection *ret);
bool selection_matches(const struct selection *s, const struct resource *r, const struct object *o);
bool selection_any(const struct selection *s);
const char *field_absent(const struct resource *storage,
	struct str label); /* the value of what is not stored: "", "false", "0" */

void json_cut_revision(struct str json, struct str *ret_head, struct str *ret_tail);
struct meta_v1_status *revision_parse(struct arena *a, struct str text, uint64_t *ret);
struct meta_v1_status *revision_too_large(struct arena *a, uint64_t asked, uint64_t present);
/* The object in another version, as a new object. */
struct object *object_convert(const struct resource *to, const struct object *o, struct err *err);

/* ---- kinds' own ---- */
int services_init(struct registry *r, struct err *err);
void services_free(struct registry *r);
struct str services_first_address(const struct registry *r, struct arena *a);
#endif
