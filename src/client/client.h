/* How a component sees the cluster: typed requests, informers, work queues, events, leases. The same over TLS or in the API server's own
 * process (net.h: http_client_new_local). Upstream: client-go. All calls block; none may run on an event loop. */
#ifndef SKIFF_CLIENT_H
#define SKIFF_CLIENT_H

#include "base/base.h"
#include "base/map.h"
#include "gen/types.h"
#include "model/model.h"
#include "net/net.h"

/* Outcomes > 0; err carries the Status' message. */
enum {
	CLIENT_NOT_FOUND = 1,
	CLIENT_EXISTS,
	CLIENT_CONFLICT,
	CLIENT_GONE,
	CLIENT_FORBIDDEN,
	CLIENT_UNAUTHORIZED,
	CLIENT_INVALID,
	CLIENT_TOO_MANY,
	CLIENT_REFUSED,      /* any other answer of 4xx */
	CLIENT_SERVER_ERROR, /* 5xx */
};

struct client;
struct client_config {
	struct http_client *http; /* becomes the client's */
	const char *user_agent;   /* "skiff/v1.36.3 kubelet" */
	const char *field_manager;
};
struct client *client_new(const struct client_config *c);
void client_free(struct client *c);
struct http_client *client_http(struct client *c);
/* From a kubeconfig file (current context; certificate, token, CA inline or by path). */
int client_from_kubeconfig(
	const char *path, const char *user_agent, struct client **ret, struct err *err);

/* ---- typed requests: t tells resource and path; ns empty: cluster scope ---- */
int client_get(struct client *c, const struct type *t, struct str ns, struct str name,
	struct arena *a, void **ret, struct err *err);
int client_create(struct client *c, const struct type *t, struct str ns, const void *obj,
	struct arena *a, void **ret, struct err *err); /* ret may be NULL */
/* sub: NULL, "status" … */
int client_update(struct client *c, const struct type *t, const char *sub, const void *obj,
	struct arena *a, void **ret, struct err *err);
int client_create_sub(struct client *c, const struct type *t, struct str ns, struct str name,
	const char *sub, const struct type *body_type, const void *body, struct arena *a,
	void **ret, struct err *err); /* binding, eviction, token */
enum client_patch { CLIENT_PATCH_JSON, CLIENT_PATCH_MERGE, CLIENT_PATCH_STRATEGIC };
int client_patch(struct client *c, const struct type *t, struct str ns, struct str name,
	const char *sub, enum client_patch kind, struct str patch, struct arena *a, void **ret,
	struct err *err);
struct client_delete {
	int64_t grace_seconds;            /* < 0: the object's own */
	struct str uid, resource_version; /* preconditions; empty: none */
	const char *propagation;          /* NULL, Background, Foreground, Orphan */
};
int client_delete(struct client *c, const struct type *t, struct str ns, struct str name,
	const struct client_delete *o, struct err *err);
/* list: struct of t's List type, the whole of it. selectors may be NULL. */
int client_list(struct client *c, const struct type *t, struct str ns, const char *label_selector,
	const char *field_selector, struct arena *a, void **ret_list, struct err *err);
struct client_list_query {
	struct str ns;                               /* empty: all */
	const char *label_selector, *field_selector; /* NULL: none */
	int64_t limit;                               /* 0: no limit */
	struct str continue_token; /* of the page before; in the list's metadata */
};
int client_list_page(struct client *c, const struct type *t, const struct client_list_query *q,
	struct arena *a, void **ret_list, struct err *err);
const struct resource_row *client_resource_row(const struct type *t); /* NULL: no resource */
const struct meta_v1_owner_reference *client_controller_of(
	const struct meta_v1_object_meta *m); /* the owner that controls; NULL: none */
/* Any path: status code in *ret_code; outcome as above. */
int client_raw(struct client *c, const char *method, const char *target, struct str content_type,
	struct str body, struct arena *a, struct str *ret_body, int *ret_code, struct err *err);

/* ---- informer: a cache of one resource, kept by list and watch ---- */
struct cached { /* immutable, shared */
	_Atomic uint32_t refs;
	const struct type *type;
	void *obj; /* NULL in an informer of metadata only */
	struct meta_v1_object_meta *meta;
	struct str key; /* "ns/name", or "name" at cluster scope */
	struct arena *arena;
};
/* managedFields are not kept: an update sent without them keeps the stored ones. */
struct cached *cached_ref(struct cached *c);
void cached_unref(struct cached *c);
struct informer;
/* While the server answers nobody, one informer of a client at a time asks it, each second or more often; the first answer to any request of the client wakes
 * all of them. A server that answers with a refusal is asked again by each after a while that doubles up to 10 s. */
struct informer_config {
	struct client *client;
	const struct type *type;
	struct str ns;                               /* empty: all */
	const char *label_selector, *field_selector; /* NULL: none */
	bool meta_only; /* keeps metadata alone, without labels, annotations and managed fields */
	/* Optional index: the values under which an object is found by informer_by_index (at most 8 an object). Values are copied. */
	size_t (*index)(
		const struct type *t, const void *obj, struct str ret_values[8], struct arena *a);
};
enum informer_event { INFORMER_ADDED, INFORMER_MODIFIED, INFORMER_DELETED };
/* Called in order and one at a time for an informer, on threads that a client's informers share; old is NULL for ADDED, now is NULL for DELETED. Must not
 * block for long, and not stop its informer. */
typedef void (*informer_fn)(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now);
struct informer *informer_new(const struct informer_config *c);
void informer_add_handler(struct informer *i, informer_fn fn, void *arg); /* before start */
int informer_start(struct informer *i, struct err *err);
bool informer_wait_synced(struct informer *i,
	unsigned timeout_ms);           /* the first list is in the cache and its handlers ran */
void informer_stop(struct informer *i); /* afterwards no handler runs */
void informer_free(struct informer *i);
struct cached *informer_get(struct informer *i, struct str key); /* a reference, or NULL */
struct cached_list {
	struct cached **items;
	size_t len;
};
void informer_list(
	struct informer *i, struct str ns, struct cached_list *ret); /* references; ns empty: all */
void informer_by_index(
	struct informer *i, struct str value, struct cached_list *ret); /* references */
void cached_list_deinit(struct cached_list *l);
size_t informer_len(struct informer *i);

/* Informers shared by the components of one process: one a type. */
struct informers;
struct informers *informers_new(struct client *c);
/* Made on first use, before informers_start. Index values (informer_by_index):
 *   uid:UID                    objects whose controlling owner this is
 *   orphan:NAMESPACE           pods, replica sets, jobs, controller revisions that nobody controls
 *   node:NAME                  pods bound to a node
 *   service:NAMESPACE/NAME     endpoint slices of a service
 *   selects:NAMESPACE/KEY=VALUE services by the first pair of their selector */
struct informer *informers_get(struct informers *f, const struct type *t);
/* For whoever needs metadata alone; the same informer when someone else wants the objects whole. */
struct informer *informers_get_meta(struct informers *f, const struct type *t);
int informers_start(struct informers *f, struct err *err);
bool informers_wait_synced(struct informers *f, unsigned timeout_ms);
void informers_free(struct informers *f);

/* ---- work queue: a key is in it once, is worked on by one worker at a time, comes back later after a failure ---- */
struct workqueue;
struct workqueue *workqueue_new(const char *name);
void workqueue_add(struct workqueue *q, struct str key);
void workqueue_add_after(struct workqueue *q, struct str key, uint64_t after_ms);
void workqueue_add_rate_limited(
	struct workqueue *q, struct str key); /* 5 ms doubling to 1,000 s a key; forget resets */
void workqueue_forget(struct workqueue *q, struct str key);
char *workqueue_get(struct workqueue *q);                  /* waits; owned; NULL: shut down */
void workqueue_done(struct workqueue *q, const char *key); /* what was added meanwhile comes back */
size_t workqueue_len(struct workqueue *q);
void workqueue_stop(struct workqueue *q);
void workqueue_free(struct workqueue *q);

/* ---- events: core/v1 Event objects; the same one again raises its count. Never blocks: a thread of its own sends, the oldest are dropped when
 * too many wait. ---- */
struct event_recorder;
struct event_recorder *event_recorder_new(
	struct client *c, const char *component, const char *host);
/* One that speaks as another component through the same thread and queue; freed before its parent. */
struct event_recorder *event_recorder_for(struct event_recorder *parent, const char *component);
void event_recorder_free(struct event_recorder *r); /* sends what waits, at most 2 s */
/* type: Normal or Warning */
void event_record(struct event_recorder *r, const struct type *t, const void *obj, const char *type,
	const char *reason, const char *fmt, ...) PRINTF_LIKE(6, 7);
/* As event_record, about what the reference names (its field_path: spec.containers{web}). */
void event_record_ref(struct event_recorder *r, const struct core_v1_object_reference *ref,
	const char *type, const char *reason, const char *fmt, ...) PRINTF_LIKE(5, 6);

/* ---- leader lease ---- */
struct lease;
struct lease_config {
	struct client *client;
	const char *ns, *name, *identity;
	unsigned duration_s, renew_s, retry_s; /* 15, 10, 2 */
	void (*on_started)(void *arg); /* on a thread of its own: renewing goes on meanwhile */
	void (*on_stopped)(
		void *arg); /* lost: the component must stop at once. Maybe while on_started runs */
	void *arg;
};
int lease_start(const struct lease_config *c, struct lease **ret, struct err *err);
void lease_stop(struct lease *l); /* gives it back */

#endif
