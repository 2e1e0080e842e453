/* Every resource of the API as a row of one table, and what can be done with any of them: create, get, list, update, patch,
 * delete, deletecollection, watch. Knows types and the store, no HTTP. Upstream: pkg/registry and apiserver's generic registry.
 *
 * 1. A stored object is canonical JSON of its struct with apiVersion and kind; resourceVersion is written by the store.
 * 2. A write is prepared (decode, defaults, strategy, admission, validation, encode) on the caller's thread, committed by the
 *    store's writer, and prepared again when the object changed meanwhile and the client set no condition.
 * 3. What kinds need beyond their row stands in kinds/, as a `struct kind` row; nothing else here knows a kind by name.
 * 4. metadata.managedFields is kept from an object's first server-side apply on; before it there is none, and writes are cheaper for it.
 * 5. Events go an hour after their last use, by the registry's own thread. */
#ifndef SKIFF_REGISTRY_H
#define SKIFF_REGISTRY_H

#include "base/base.h"
#include "codec/codec.h"
#include "gen/types.h"
#include "model/model.h"
#include "store/store.h"

/* ---- Status: made by these, from one table of reasons (code, reason, message as upstream words them) ---- */
enum status_reason {
	REASON_NONE,
	REASON_BAD_REQUEST,
	REASON_UNAUTHORIZED,
	REASON_FORBIDDEN,
	REASON_NOT_FOUND,
	REASON_ALREADY_EXISTS,
	REASON_CONFLICT,
	REASON_GONE,
	REASON_EXPIRED,
	REASON_INVALID,
	REASON_METHOD_NOT_ALLOWED,
	REASON_NOT_ACCEPTABLE,
	REASON_TOO_LARGE,
	REASON_UNSUPPORTED_MEDIA_TYPE,
	REASON_TOO_MANY_REQUESTS,
	REASON_INTERNAL,
	REASON_SERVER_TIMEOUT,
	REASON_TIMEOUT,
	REASON_SERVICE_UNAVAILABLE,
	REASON_NOT_IMPLEMENTED,
	REASON_COUNT
};
struct resource;
struct meta_v1_status *status_new(struct arena *a, enum status_reason reason, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
struct meta_v1_status *status_not_found(struct arena *a, const struct resource *r, struct str name);
struct meta_v1_status *status_already_exists(
	struct arena *a, const struct resource *r, struct str name);
struct meta_v1_status *status_conflict(struct arena *a, const struct resource *r, struct str name,
	const char *why); /* NULL: object was modified */
struct meta_v1_status *status_invalid(
	struct arena *a, const struct resource *r, struct str name, const struct causes *causes);
struct meta_v1_status *status_forbidden(struct arena *a, const struct resource *r, struct str name,
	const char *fmt, ...) PRINTF_LIKE(4, 5);
struct meta_v1_status *status_success(
	struct arena *a, const struct resource *r, struct str name, struct str uid);
int status_code(enum status_reason reason);

/* ---- the table ---- */
struct kind;
struct resource {
	const struct resource_row
		*row;            /* names, type, verbs, subresources, columns: from the schema */
	const struct kind *kind; /* NULL: the row is enough */
	struct str group, version, plural, kind_name;
	struct str group_resource; /* "pods", "deployments.apps" */
	struct str api_version;    /* "v1", "apps/v1" */
	struct str
		key_prefix; /* "/pods/", "/apps/deployments/": versions of one resource share it */
	const struct resource
		*storage; /* the version that is stored (itself, mostly); others are converted */
};
struct registry;
const struct resource *registry_resource(const struct registry *r, struct str group,
	struct str version, struct str plural); /* NULL */
const struct resource *registry_resource_of(
	const struct registry *r, const struct type *t); /* NULL */
const struct resource *const *registry_resources(
	const struct registry *r, size_t *ret_n); /* in discovery order */
struct store *registry_store(const struct registry *r);

/* ---- who asks, and what was asked ---- */
struct user_info {
	struct str name, uid;
	struct str_list groups;
	struct str_list extra_keys; /* parallel to extra_values */
	struct str_list *extra_values;
};
struct registry_request {
	struct arena *arena; /* lives until done was called and its caller is finished */
	const struct resource *resource;
	const struct subresource_row *sub; /* NULL: the object itself */
	enum resource_verb verb;
	struct str ns, name; /* ns empty: cluster scope, or all namespaces for list and watch */
	const struct user_info *user;
	/* body, decoded by the caller: CREATE, UPDATE: obj (of the resource's or the subresource's type; notes from strict decoding are the
	 * caller's business); PATCH: patch; DELETE*: delete_options or NULL */
	void *obj;
	enum patch_type {
		PATCH_TYPE_JSON,
		PATCH_TYPE_MERGE,
		PATCH_TYPE_STRATEGIC,
		PATCH_TYPE_APPLY
	} patch_type;
	struct str patch; /* JSON text (YAML was converted) */
	bool force;       /* of apply */
	const struct meta_v1_delete_options *delete_options;
	bool dry_run;
	struct str field_manager; /* the query's, or the user agent's first part */
	enum field_validation {
		FIELD_VALIDATION_WARN,
		FIELD_VALIDATION_STRICT,
		FIELD_VALIDATION_IGNORE
	} field_validation; /* of patches */
	/* LIST, WATCH, DELETECOLLECTION */
	struct str label_selector, field_selector, continue_token, resource_version,
		resource_version_match;
	int64_t limit;
	/* out */
	struct str_list warnings; /* for Warning: headers */
};
struct registry_result {
	struct meta_v1_status *
		status; /* not NULL: refused, or a delete's success without object; in the request's arena */
	int code; /* 200, 201, 202; the status' own when there is one */
	struct object *
		object; /* the object's stored form; a reference that the receiver drops; NULL for what is not stored */
	void *obj; /* what is not stored or not yet (dry run, reviews, TokenRequest, Scale): a struct in the arena */
	const struct type *obj_type;
};
/* Runs GET, CREATE, UPDATE, PATCH, DELETE, DELETECOLLECTION, with their subresources (status, scale, binding, eviction, token, finalize, approval,
 * resize, ephemeralcontainers). done is called exactly once: at once on the calling thread (reads, refusals, dry run), or on the store's
 * writer thread after the commit; it must not block. Streaming subresources (exec, log, proxy …) are the apiserver's. */
typedef void (*registry_done_fn)(
	void *arg, struct registry_request *req, struct registry_result *res);
void registry_execute(
	struct registry *r, struct registry_request *req, registry_done_fn done, void *arg);

/* ---- LIST: iterates; objects are borrowed until registry_list_free ---- */
struct registry_list;
int registry_list_open(struct registry *r, struct registry_request *req, struct registry_list **ret,
	struct meta_v1_status **ret_status);                /* REASON_… > 0 with *ret_status */
struct object *registry_list_next(struct registry_list *l); /* NULL: the end (of the page) */
/* After the end: for ListMeta. continue_ empty: complete. remaining -1: unknown (a selector was given). */
void registry_list_meta(struct registry_list *l, struct str *ret_resource_version,
	struct str *ret_continue, int64_t *ret_remaining);
void registry_list_free(struct registry_list *l);

/* ---- WATCH ---- */
struct registry_watch;
struct registry_watch_event {
	enum {
		WATCH_ADDED,
		WATCH_MODIFIED,
		WATCH_DELETED
	} type;                /* after selection: entering a selector is ADDED, leaving DELETED */
	struct object *object; /* borrowed until the next call */
	struct store_event *
		event; /* the log's entry whose object this is, for its encoded form; NULL: another's, or an initial object */
};
/* resource_version "" or "0": from now after the initial objects as ADDED (upstream's legacy start); a number: events after it. send_initial: the
 * WatchList way: initial objects, then *the caller* sends the bookmark with k8s.io/initial-events-end when registry_watch_initial_done. */
int registry_watch_open(struct registry *r, struct registry_request *req, bool send_initial,
	store_wake_fn wake, void *arg, struct registry_watch **ret,
	struct meta_v1_status **ret_status);
int registry_watch_next(struct registry_watch *w,
	struct registry_watch_event *ret); /* 0, STORE_NOT_FOUND: none yet, STORE_COMPACTED: 410 */
bool registry_watch_initial_done(const struct registry_watch *w);
uint64_t registry_watch_revision(const struct registry_watch *w);
void registry_watch_close(struct registry_watch *w);

/* ---- server-side tables ---- */
/* Appends columnDefinitions (JSON array), and one row's cells (JSON array) of an object of r. */
void registry_table_columns(const struct resource *r, struct buf *out);
void registry_table_cells(const struct resource *r, struct object *o, struct timestamp now,
	struct arena *a, struct buf *out);

/* Decodes a stored object into its struct (of the resource's storage type). -EBADMSG: damaged. */
int registry_decode(const struct resource *r, const struct object *o, struct arena *a, void **ret,
	struct err *err);
/* Appends the object in protobuf, envelope included, and keeps it with the object while there is room (object_keep_proto). */
void registry_object_proto(const struct resource *r, struct object *o, struct buf *out);
/* The same, but nothing is kept that was not kept before: for lists, which would keep it with every object. */
void registry_object_proto_once(const struct resource *r, struct object *o, struct buf *out);
/* The same of an event's object: made once for all who watch, kept with the object or, where there is no room, with the event. Empty: it has none, which
 * was logged. */
struct str registry_event_proto(const struct resource *r, struct store_event *ev);

/* ---- what the apiserver supplies (declared here since we call up) ---- */
struct admission_attributes {
	struct registry *registry;
	struct registry_request *req;
	enum resource_verb operation; /* CREATE, UPDATE (patches too), DELETE */
	const struct type *type;
	void *obj;       /* mutable in admit; NULL on delete */
	const void *old; /* NULL on create */
};
struct admission {
	/* NULL: let it pass; else the refusal. admit may change obj and runs after defaulting; validate runs after validation. */
	struct meta_v1_status *(*admit)(void *arg, struct admission_attributes *at);
	struct meta_v1_status *(*validate)(void *arg, struct admission_attributes *at);
	void *arg;
};
struct token_issuer { /* for serviceaccounts/token */
	int (*issue)(void *arg, struct str ns, struct str service_account, struct str sa_uid,
		const struct authentication_v1_token_request *req, struct arena *a,
		struct str *ret_token, struct timestamp *ret_expires, struct err *err);
	void *arg;
};
struct registry_config {
	struct store *store;
	const struct clock *clock;
	const char *service_cidr;            /* 10.43.0.0/16; .1 is kubernetes, .10 dns */
	int node_port_first, node_port_last; /* 30000, 32767 */
	int api_port; /* target port of service default/kubernetes; 0: 6443 */
	struct admission admission;
	struct token_issuer tokens;
};
int registry_new(const struct registry_config *c, struct registry **ret, struct err *err);
void registry_set_admission(struct registry *r, const struct admission *ad);
void registry_set_tokens(struct registry *r,
	const struct token_issuer *t); /* as registry_config.tokens: the apiserver comes later */
void registry_free(struct registry *r);
/* Creates what a cluster must have and does not: namespaces default, kube-system, kube-public, kube-node-lease; service
 * default/kubernetes; bootstrap RBAC objects (rows of a table, reconciled as upstream does); priority classes system-*. Blocking; not on a loop. */
int registry_bootstrap(struct registry *r, struct err *err);

/* ---- a shared store ---- */
/* Keys and values as upstream's API server stores them in etcd: /registry/pods/NS/NAME, protobuf in its envelope. Made before the store, freed after it. */
int registry_codec_new(struct store_codec *ret, struct err *err);
void registry_codec_free(struct store_codec *c);
int64_t registry_codec_ttl(const struct store_codec *c,
	struct str key); /* seconds after which such an object goes; 0: it stays */
/* Does this read (GET, LIST, WATCH) have to wait until a shared store has caught up? true: fn follows, result as of store_wait; false: read now. */
bool registry_must_wait(
	struct registry *r, const struct registry_request *req, store_wait_fn fn, void *arg);

/* A blocking shortcut for bootstrap and tests, as `system:apiserver` of group system:masters. */
int registry_call(struct registry *r, struct registry_request *req, struct registry_result *ret);

#endif
