/* What the files of apiserver/ share. A request lives in its stream's arena (`struct request`) and walks the phases of
 * apiserver.c; each phase lets it pass, answers it, or parks it.
 *
 * 1. Everything of a request runs on its stream's loop; only registry's `done` may come from the writer thread, and it does
 *    nothing but go back to the loop.
 * 2. A request is answered exactly once, through respond.c or a stream begun by list.c, watch.c or a proxy; each of them ends in
 *    request_finish, which counts it and gives its seat back. */
#ifndef SKIFF_APISERVER_INTERNAL_H
#define SKIFF_APISERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "apiserver/apiserver.h"
#include "base/map.h"
#include "base/values.h"
#include "codec/codec.h"
#include "gen/types.h"
#include "model/model.h"
#include "store/store.h"

/* ---- what is asked: request_info.c ---- */
struct request_info {
	bool is_resource;
	uint32_t verb_bit; /* enum resource_verb; 0 for paths that are no resource */
	struct str verb;   /* get, list …; for other paths the method in lower case */
	struct str path;   /* decoded, always begins with '/' */
	struct str prefix; /* "api", "apis" or empty */
	struct str group, version, ns, resource, name, subresource;
	struct str rest; /* what follows the subresource: pods/x/proxy/REST, its '/' included */
};
struct request_options { /* the query */
	struct str label_selector, field_selector, continue_, resource_version,
		resource_version_match;
	struct str field_manager, field_validation, dry_run, propagation_policy, pretty,
		include_object;
	int64_t limit, timeout_seconds,
		timeout_ns; /* how long the client waits: read, so that a wrong one is told of */
	struct opt_int64 grace_period_seconds;
	struct opt_bool watch, allow_watch_bookmarks, send_initial_events, force, orphan_dependents;
};
/* -EBADMSG: a broken escape or value; err says which. */
int request_options_parse(
	struct str query, struct arena *a, struct request_options *ret, struct err *err);
int request_info_parse(struct str method, struct str path, const struct request_options *o,
	struct arena *a, struct request_info *ret, struct err *err);
bool request_is_long_running(const struct request_info *i);
/* The value to which a field selector fixes `key` (KEY=VALUE among its terms), read as the registry reads it; p NULL: to none. For authorization. */
struct str field_selector_value(struct str selector, const char *key);

/* ---- how the answer shall look: negotiate.c ---- */
enum out_format { OUT_JSON, OUT_YAML, OUT_PROTO };
enum out_view { VIEW_OBJECT, VIEW_TABLE, VIEW_PARTIAL };
struct accept {
	enum out_format format;
	enum out_view view;
	bool beta;   /* meta.k8s.io/v1beta1 was asked for */
	bool stream; /* application/json;stream=watch and the like */
	bool pretty;
};
bool accept_parse(
	struct str header, struct accept *ret); /* false: nothing that is spoken here: 406 */
enum body_format {
	BODY_JSON,
	BODY_YAML,
	BODY_PROTO,
	BODY_JSON_PATCH,
	BODY_MERGE_PATCH,
	BODY_STRATEGIC_PATCH,
	BODY_APPLY_PATCH,
	BODY_UNKNOWN
};
enum body_format content_type_parse(struct str header); /* empty: JSON */
bool accepts_gzip(const struct http_request *h);

/* ---- one request ---- */
struct apiserver;
struct request {
	struct apiserver *server;
	struct http_stream *stream;
	const struct http_request *http;
	struct arena *arena;
	uint64_t started_ns;
	struct request_info info;
	struct request_options options;
	struct accept accept;
	struct user_info user;
	const struct resource *resource; /* NULL: none of that name is served */
	const struct subresource_row *sub;
	struct registry_request reg;
	struct registry_result result;
	struct list_job *collection; /* of DELETECOLLECTION: what there was, the answer */
	struct str_list warnings;
	enum { SEAT_NONE, SEAT_READ, SEAT_WRITE } seat;
	bool finished;
	int waited; /* for a shared store: what came of it */
};
void request_warn(struct request *q, const char *fmt, ...) PRINTF_LIKE(2, 3);
void request_finish(struct request *q, int code); /* counts it; once */

/* ---- answers: respond.c ---- */
extern const char *const content_types[]; /* by enum out_format */
void respond_status(struct request *q, struct meta_v1_status *st);
void respond_reason(struct request *q, enum status_reason reason, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
void respond_object(struct request *q, int code, struct object *o); /* takes the reference */
void respond_struct(struct request *q, int code, const struct type *t, const void *obj);
void respond_text(struct request *q, int code, const char *content_type,
	struct str body); /* body lives in the arena or for ever */
void respond_buf(struct request *q, int code, const char *content_type,
	struct buf *body);                 /* takes the bytes */
void respond_not_found(struct request *q); /* no such path */
size_t response_headers(struct request *q, const char *content_type,
	struct http_header **ret); /* content-type, cache-control, warnings */

/* ---- forms of one object: render.c ---- */
void proto_put_bytes(
	struct buf *out, unsigned tag, struct str bytes); /* one length-delimited field */
void proto_put_varint(struct buf *out, uint64_t v);
void render_object(const struct request *q, struct object *o, struct arena *a,
	struct buf *out); /* in q's format and view, no list around it */
void render_partial_json(const struct accept *ac, struct str json, struct buf *out);
void render_table_head(const struct request *q, struct str resource_version, struct str continue_,
	int64_t remaining, bool columns, struct buf *out);
void render_table_row(const struct request *q, struct object *o, struct arena *a, struct buf *out);
struct str json_member(struct str json,
	struct str
		key); /* the text of a top-level member of a canonical JSON object; p NULL: none */
void render_struct(const struct accept *ac, const struct type *t, const void *obj, struct buf *out);

/* ---- bodies: body.c ---- */
int body_decode(struct request *q, const struct type *t, const char *want_group,
	const char *want_version, void **ret); /* > 0: answered */
int body_delete_options(struct request *q, const struct meta_v1_delete_options **ret);
int body_patch(struct request *q);

/* ---- handlers ---- */
bool dispatch(struct request *q); /* dispatch.c: the last phase */
void serve_list(struct request *q);
/* The same in two steps: the snapshot as it was when opened. list_open NULL: refused, and answered. */
struct list_job *list_open(struct request *q);
void list_send(struct list_job *j); /* ends it */
void list_drop(struct list_job *j);
void serve_watch(struct request *q);
struct watch_list *watch_list_new(void);
void watch_list_free(struct watch_list *l);
void watch_list_end(struct watch_list *l); /* ends every watch, as on a timeout */
void serve_execute(struct request *q);     /* everything that registry_execute does */
bool serve_review(struct request *q);      /* reviews.c; false: not one of them */
bool serve_connect(struct request
		*q); /* kubelet.c: log, exec, attach, portforward, proxy; false: not one of them */
bool serve_discovery(struct request *q);
bool serve_openapi(struct request *q);
bool serve_health(struct request *q);
bool serve_slis(struct request *q);
bool serve_snapshot(struct request *q); /* snapshot.c */
bool serve_metrics(struct request *q);
bool serve_oidc(struct request *q);
bool serve_index(struct request *q);
bool serve_version(struct request *q);

/* ---- who: authn.c, token.c, bootstrap_token.c, impersonate.c ---- */
struct authn;
struct authn *authn_new(struct apiserver *s, struct err *err);
void authn_free(struct authn *n);
bool phase_authenticate(struct request *q);
bool phase_impersonate(struct request *q);
/* 0: ret is filled (memory from a); > 0: not a token of this kind; < 0: refused, err tells why. */
enum { TOKEN_NOT_MINE = 1 };
int authn_token(struct apiserver *s, struct str token, const struct str_list *audiences,
	struct arena *a, struct user_info *ret, struct str_list *ret_audiences, struct err *err);
int service_token_check(struct apiserver *s, struct str token, const struct str_list *audiences,
	struct arena *a, struct user_info *ret, struct str_list *ret_audiences, struct err *err);
int bootstrap_token_check(struct apiserver *s, struct str token, struct arena *a,
	struct user_info *ret, struct err *err);
int service_token_issue(void *apiserver, struct str ns, struct str name, struct str uid,
	const struct authentication_v1_token_request *req, struct arena *a, struct str *ret_token,
	struct timestamp *ret_expires, struct err *err);
/* A token without an end, for a Secret of type kubernetes.io/service-account-token. */
int service_token_legacy(struct apiserver *s, struct str ns, struct str secret, struct str account,
	struct str uid, struct arena *a, struct str *ret_token, struct err *err);
struct token_keys;
struct token_keys *token_keys_new(const struct apiserver_config *c, struct err *err);
void token_keys_free(struct token_keys *k);
struct str token_keys_jwks(const struct token_keys *k);
void user_extra_add(struct arena *a, struct user_info *u, struct str key, struct str value);
struct str user_extra_get(
	const struct user_info *u, struct str key); /* the first value; p NULL: none */

/* ---- may they: authz.c, rbac.c, node_authz.c ---- */
struct attributes {
	const struct user_info *user;
	bool is_resource;
	uint32_t verb_bit;
	struct str verb, group, version, ns, resource, subresource, name, path;
	struct str field_selector, label_selector;
	bool explain; /* say why it is allowed, too */
};
enum decision { DECISION_NO_OPINION, DECISION_ALLOW, DECISION_DENY };
enum decision authz_check(
	struct apiserver *s, const struct attributes *at, struct arena *a, struct str *ret_reason);
bool phase_authorize(struct request *q);
uint32_t verb_bit_of(struct str verb); /* 0: none of the eight */
struct meta_v1_status *authz_forbidden(
	struct arena *a, const struct attributes *at, struct str reason);

struct rbac;
struct rbac *rbac_new(struct apiserver *s);
void rbac_free(struct rbac *r);
enum decision rbac_check(
	struct rbac *r, const struct attributes *at, struct arena *a, struct str *ret_reason);
/* The rules that hold for a user in a namespace (cluster-wide ones included). Copies into a. */
void rbac_rules_for(struct rbac *r, const struct user_info *u, struct str ns, struct arena *a,
	struct rbac_v1_policy_rule_items *ret);
/* The rules of a role (ns empty: ClusterRole), aggregation resolved. false: there is no such role. */
bool rbac_role_rules(struct rbac *r, struct str ns, struct str name, struct arena *a,
	struct rbac_v1_policy_rule_items *ret);
bool rbac_rule_covers(const struct rbac_v1_policy_rule_items *owner,
	const struct rbac_v1_policy_rule *wanted, struct arena *a);

struct node_graph;
struct node_graph *node_graph_new(struct apiserver *s);
void node_graph_free(struct node_graph *g);
bool node_identify(const struct user_info *u, struct str *ret_node);
/* The pod names a secret, config map, claim, resource claim or token: whoever runs it may read those. */
bool node_pod_refers(const struct core_v1_pod *pod);
enum decision node_check(
	struct node_graph *g, const struct attributes *at, struct arena *a, struct str *ret_reason);

/* ---- enough for all: fairness.c ---- */
bool phase_seat(struct request *q);
void seat_leave(struct request *q);

/* ---- numbers: metrics.c ---- */
struct metrics;
struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);
void metrics_request(struct metrics *m, const struct request *q, int code, uint64_t took_ns);
void metrics_watch(struct metrics *m, const struct resource *r, int delta);
void metrics_write(struct apiserver *s, struct buf *out);

/* ---- documents that are made when asked for and forgotten after a while: cache.c ---- */
struct doc_cache;
struct doc_cache *doc_cache_new(struct apiserver *s);
void doc_cache_free(struct doc_cache *c);
typedef void (*doc_make_fn)(
	struct apiserver *s, struct str key, struct buf *out); /* on a pool thread */
/* Answers with the document of that key, made by `make` if it is not there; gzip when asked. etag may be empty. */
void doc_serve(struct request *q, struct str key, doc_make_fn make, const char *content_type,
	struct str etag);

/* ---- ways to nodes and pods: upstreams.c ---- */
struct upstreams;
struct upstreams *upstreams_new(void);
void upstreams_free(struct upstreams *u);
/* A client for scheme://host:port, shared; a reference. */
struct http_client *upstream_get(struct upstreams *u, const char *scheme, struct str host, int port,
	struct tls_context *tls, struct err *err);

/* ---- admission/ ---- */
struct meta_v1_status *admission_admit(void *apiserver, struct admission_attributes *at);
struct meta_v1_status *admission_validate(void *apiserver, struct admission_attributes *at);

/* ---- reading what is stored ---- */
/* Object NS/NAME of r in its storage type, decoded into a. 0, STORE_NOT_FOUND, or -errno. */
int lookup(struct apiserver *s, const struct resource *r, struct str ns, struct str name,
	struct arena *a, void *ret_ptr);
int lookup_object(struct apiserver *s, const struct resource *r, struct str ns, struct str name,
	struct object **ret);
/* Calls fn for each object of r in ns (empty: all). */
void lookup_each(
	struct apiserver *s, const struct resource *r, struct str ns, store_each_fn fn, void *arg);
struct str object_field(
	const struct object *o, struct str key); /* selectable field; p NULL: none */

struct known { /* rows that the code speaks of by name */
	const struct resource *pods, *nodes, *services, *secrets, *namespaces, *service_accounts,
		*config_maps, *claims, *volumes, *limit_ranges, *quotas, *endpoints, *roles,
		*cluster_roles, *role_bindings, *cluster_role_bindings, *priority_classes,
		*storage_classes, *ingress_classes, *runtime_classes, *csrs, *leases,
		*resource_claims, *endpoint_slices, *attachments, *resource_slices;
};

struct named_check {
	const char *name;
	bool (*ok)(void *arg);
	void *arg;
};
struct metrics_source {
	void (*write)(void *arg, struct buf *out);
	void *arg;
};

struct apiserver {
	struct apiserver_config config; /* its texts are copies */
	struct registry *registry;
	struct store *store;
	struct http_server *http;
	struct known known;
	struct authn *authn;
	struct token_keys *keys;
	struct rbac *rbac;
	struct node_graph *nodes;
	struct metrics *metrics;
	struct doc_cache *docs;
	struct upstreams *upstreams;
	struct named_check checks[16];
	size_t n_checks;
	struct metrics_source sources[8];
	size_t n_sources;
	_Atomic int reads, writes;   /* seats taken */
	int read_seats, write_seats; /* how many there are */
	struct watch_list *watches;
	_Atomic bool stopping;
	bool proxy_loopback; /* for tests: pods and endpoints may stand at 127.0.0.1 */
	struct timestamp started;
};

#endif
