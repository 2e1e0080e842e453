/* What the files of the kubelet share. Who owns what:
 *
 * 1. A pod_worker belongs to the table (kubelet.lock) and to whoever holds a reference. Its thread of the moment (worker.c sees to it that
 *    there is one at most) alone changes `state`, `view`, sandboxes and slots; it does so under worker.lock, so that probes, the status sender
 *    and the node API may read under the same lock.
 * 2. What comes from outside (a new object, its end, a task's outcome) is left in the worker's inbox and worker_wake is called.
 * 3. Locks are taken in the order kubelet.lock, worker.lock, wakes.lock; no call to engine, client or disk under any of them. */
#ifndef SKIFF_KUBELET_INTERNAL_H
#define SKIFF_KUBELET_INTERNAL_H

#include <pthread.h>
#include <netinet/in.h>

#include "base/map.h"
#include "codec/codec.h"
#include "kubelet/kubelet.h"

#define KUBELET_PORT 10250
#define KUBELET_MAX_PODS 110
#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define PRIORITY_CRITICAL 2000000000
#define POD_NODE_SHUTDOWN "Terminated" /* reason of a pod that was ended by its node's shutdown */

enum qos_class { QOS_GUARANTEED, QOS_BURSTABLE, QOS_BEST_EFFORT };

/* ---- wake.c: calls at a time, from any thread, on the kubelet's clock ---- */
struct wake {
	struct heap_node node;
	uint64_t at_ns;
	task_fn fn; /* on the loop; must not block */
	void *arg;
};
struct wakes {
	pthread_mutex_t lock;
	struct heap heap;
	struct loop *loop;   /* NULL: whoever owns the clock calls wakes_fire */
	struct timer *timer; /* touched on the loop only */
	const struct clock *clock;
	uint64_t armed_ns;
	bool closed;
};
void wakes_init(struct wakes *q, struct loop *l, const struct clock *c);
void wakes_close(struct wakes *q); /* nothing fires after it; then the loop may end */
void wakes_deinit(struct wakes *q);
bool wake_set(struct wakes *q, struct wake *w,
	uint64_t at_ns); /* again: moved. true: it was not set before */
bool wake_set_sooner(
	struct wakes *q, struct wake *w, uint64_t at_ns); /* set already and earlier: left */
bool wake_cancel(struct wakes *q, struct wake *w);        /* true: it was set and will not fire */
void wakes_fire(struct wakes *q);

/* ---- backoff.c: how long something that failed must wait ---- */
struct backoff {
	uint64_t delay_ns, since_ns; /* the delay in force and the moment it counts from; 0: none */
};
#define BACKOFF_FIRST_NS (10 * NS_PER_S)
#define BACKOFF_MAX_NS (300 * NS_PER_S)
uint64_t backoff_until(const struct backoff *b,
	uint64_t event_ns); /* when what failed at event_ns may be tried again; 0: now */
/* the next try begins: 10 s, doubling to 5 min; starts over after 10 min of peace */
void backoff_next(struct backoff *b, uint64_t event_ns);

/* ---- pod objects: a pod from the API or from a file, immutable and shared ---- */
struct pod_object {
	_Atomic uint32_t refs;
	struct cached *cached; /* from the API; or */
	struct arena *arena;   /* from a file */
	const struct core_v1_pod *pod;
	bool is_static;
};
struct pod_object *pod_object_from_cached(const struct cached *c);
struct pod_object *pod_object_from_arena(struct arena *a, const struct core_v1_pod *pod);
struct pod_object *pod_object_ref(struct pod_object *o);
void pod_object_unref(struct pod_object *o);

enum container_kind { KIND_INIT, KIND_APP, KIND_EPHEMERAL };
struct container_spec {
	enum container_kind kind;
	bool sidecar; /* an init container that keeps running */
	const struct core_v1_container *c;
	const char *target; /* of an ephemeral one: whose processes it shares; NULL */
	const char *again;  /* the run that ends because of a resize, for another to follow; NULL */
};
struct container_specs {
	struct container_spec *items;
	size_t len;
};
struct container_specs pod_containers(
	const struct core_v1_pod *pod, struct arena *a); /* init, app, ephemeral */
const struct container_spec *container_specs_find(const struct container_specs *s, struct str name);
bool pod_is_mirror(const struct core_v1_pod *pod);
bool pod_is_terminal(const struct core_v1_pod *pod); /* phase Succeeded or Failed */
bool pod_host_network(const struct core_v1_pod *pod);
struct str pod_full_name(const struct core_v1_pod *pod, struct arena *a); /* NAME_NAMESPACE */
struct str pod_format(const struct core_v1_pod *pod,
	struct arena *a); /* NAME_NAMESPACE(UID), as messages name a pod */

/* ---- probes (probes.c runs them by timers, prober.c asks) ---- */
enum probe_type { PROBE_LIVENESS, PROBE_READINESS, PROBE_STARTUP, N_PROBES };
enum probe_result {
	PROBE_NONE,
	PROBE_SUCCESS,
	PROBE_FAILURE,
	PROBE_UNKNOWN,
	PROBE_WARNING /* a success that people should hear of; an answer only, never what holds */
};
extern const char *const probe_type_text[N_PROBES]; /* Liveness … */
struct pod_worker;
struct slot;
struct probe {
	struct pod_worker *worker;
	struct slot *slot;
	enum probe_type type;
	struct wake wake;
	bool active, running;
	bool missed;                  /* its time came while an answer of the last run was out */
	char container_id[ENGINE_ID]; /* of the run that it looks at */
	enum probe_result result;     /* what holds after thresholds */
	enum probe_result last;       /* last answer */
	unsigned streak;              /* how often the last answer came in a row */
	struct timestamp last_at;
	char last_output[256];
};

/* ---- slots: what the kubelet remembers about a container of a pod, beside what the engine says ---- */
enum task_kind { TASK_PULL, TASK_POST_START, TASK_KILL, N_TASKS };
struct slot_task {
	bool running, done, ok;
	char id[ENGINE_ID];   /* container that it is about */
	uint64_t deadline_ns; /* TASK_KILL: when the signal that cannot be refused comes */
	bool forced;
	char *text;          /* error; owned */
	struct str image_id; /* TASK_PULL; owned */
};
struct slot {
	char *name;
	enum container_kind kind;
	char *waiting_reason, *waiting_message; /* why it does not run; NULL: none */
	struct backoff restart, pull;
	uint64_t restart_at_ns; /* when the back-off ends; 0: none */
	char ended[ENGINE_ID];  /* the run whose end was last seen, */
	uint64_t ended_ns; /* and when that was; reckoned once, since civil time may be moved */
	uint64_t retry_ns; /* a start that failed is not tried before; 0: none */
	struct slot_task tasks[N_TASKS];
	bool hook_failed;             /* postStart failed: the container is being killed for it */
	char hook_pending[ENGINE_ID]; /* container whose postStart hook has not ended */
	bool backoff_told;            /* the BackOff event was sent for this wait */
	char *last_pull;              /* what the last pull came to; for `skiff why` */
	char *last_kill_message;
	struct probe probes[N_PROBES];
	bool ready, started;
	uint64_t resources_hash; /* what the run resources_of was last given; 0: not known */
	char resources_of[ENGINE_ID];
	uint64_t amounts[2];        /* the same of requests and limits: cpu, memory */
	char resize_run[ENGINE_ID]; /* the run that is ended for a resize; empty: none */
	char not_resized
		[ENGINE_ID]; /* the run that still has what it had before a resize; empty: none */
};

/* ---- pod workers ---- */
enum pod_state { POD_NEW, POD_SYNCING, POD_TERMINATING, POD_TERMINATED, POD_GONE, N_POD_STATES };
extern const char *const pod_state_text[N_POD_STATES];
enum pod_end { END_NONE, END_DELETED, END_REMOVED, END_REJECTED, END_EVICTED, END_COMPLETED };

struct pod_sandbox {
	char id[ENGINE_ID];
	uint32_t attempt;
	bool ready;
	char *ip;        /* "" under host network */
	char *second_ip; /* of the other family; "": none */
	struct timestamp created_at;
};

struct pod_worker {
	_Atomic uint32_t refs;
	struct kubelet *k;
	char *uid, *ns, *name;
	bool is_static;

	/* inbox, under kubelet.lock */
	struct pod_object *desired;
	bool removed; /* the object (or file) is no more */
	bool queued, running, again;
	bool sandbox_dirty; /* the engine said that a sandbox changed */
	bool volumes_asked; /* volumes that follow the API are to be looked at */
	char *evict_reason, *evict_message;
	int64_t evict_grace_s; /* < 0: the pod's own */

	pthread_mutex_t lock;
	_Atomic enum pod_state state; /* changed under lock; read anywhere */
	enum pod_end end;
	char *end_reason, *end_message; /* of a rejection or eviction */
	struct pod_sandbox *sandboxes;  /* newest last */
	size_t n_sandboxes;
	struct slot **slots; /* stable: tasks and probes point into them */
	size_t n_slots;
	uint64_t grace_deadline_ns; /* TERMINATING: when everything must be down; 0: not set */
	bool volumes_ready, volumes_gone, initialized, dirs_made, admitted, started_any;
	char *mount_error;
	uint64_t mount_retry_ns;
	bool volumes_set; /* by this life of the kubelet */
	uint64_t volumes_due_ns, volumes_hash;
	struct map
		tokens; /* volume/path of a projected token -> uint64_t *: when the next one is asked for */
	uint64_t sandbox_retry_ns;
	unsigned sandbox_failures, mount_failures, sync_failures;
	struct wake wake; /* the next thing that time brings */
	uint64_t next_ns; /* built up during a sync; 0: none */

	/* status, under worker.lock */
	struct arena *status_arena;
	const struct core_v1_pod_status *status;
	uint64_t status_version, sent_version;
	uint64_t status_epoch; /* of whom it is told to: a new mirror begins a new one */
	int64_t sent_resource_version;
	bool status_queued, status_again;
	bool deletion_sent;
	struct wake status_wake;
	unsigned status_failures;
	struct timestamp seen_at, running_at;
};

/* One look at the engine, in the arena of a sync. */
struct view_container {
	const struct engine_container *c;
	bool current_sandbox; /* it is in the sandbox that is in use */
};
struct pod_view {
	struct view_container *items; /* newest first within a name */
	size_t len;
};
struct sync {
	struct kubelet *k;
	struct pod_worker *w;
	struct arena *a;
	struct pod_object *object;
	const struct core_v1_pod *pod;
	struct container_specs specs;
	struct pod_view view;
	bool removed;
};
const struct engine_container *view_latest(
	const struct pod_view *v, struct str name); /* any sandbox; NULL */
const struct engine_container *view_current(
	const struct pod_view *v, struct str name); /* newest of the sandbox in use; NULL */
const struct engine_container *view_previous(const struct pod_view *v,
	const struct engine_container *than); /* the next older of the same name */

struct kubelet {
	struct kubelet_config c; /* texts owned */
	pthread_mutex_t lock;
	struct map workers;    /* uid -> pod_worker (owned reference) */
	struct map by_sandbox; /* sandbox id -> pod_worker (borrowed: removed with the worker) */
	struct map mirrors;    /* full name -> struct pod_object of the mirror pod */
	struct map statics;    /* full name -> struct pod_object from a file */
	_Atomic bool api_synced, stopping;
	struct pool *pool; /* pod workers */
	struct pool
		*talk; /* what only asks the API: a server that does not answer holds up no pod */
	struct pool *slow;           /* what the node does for itself, and the node API */
	struct pool *tasks, *asking; /* what pods can make long: pulls, hooks and kills; probes */
	struct wakes wakes;
	struct informer *pods, *services, *node;
	struct event_recorder *events;
	struct node_agent *node_agent;
	struct static_source *static_source;
	struct node_server *server;
	struct evictor *evictor;
	struct keeper *keeper;
	struct shutdown *shutdown; /* NULL: pods are given no time */
	struct mirror_source *mirror_source;
	uint64_t memory_bytes; /* node_memory().total */
	int n_cpus;
	struct cgroups *cgroups; /* NULL: none of ours to set */
	int64_t burstable_shares;
	char *runtime_version; /* crun://1.8.1 */
	struct list ear;       /* see pods_listen */
	struct list followers; /* of logs; the loop's */
	_Atomic unsigned n_followers;
	pthread_t api_waiter;
	bool api_waiter_runs;
	struct engine_sandbox *boot_sandboxes; /* at start, until the workers took theirs */
	_Atomic uint64_t started_pods;
};

/* pods.c: the table */
void pods_set(struct kubelet *k, struct pod_object *o); /* added or changed; takes the reference */
void pods_remove(struct kubelet *k, struct str uid);
void pods_forget(struct pod_worker *w); /* it is GONE: out of the table */
struct pod_worker *pods_find_uid(struct kubelet *k, struct str uid); /* a reference or NULL */
struct pod_worker *pods_find_name(struct kubelet *k, struct str ns,
	struct str name); /* a reference or NULL; the living one */
void pods_list(
	struct kubelet *k, struct pod_worker ***ret, size_t *ret_n); /* references; free the list */
void pods_on_api(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now);
void pods_on_engine(void *arg, const char *sandbox_id, const char *container_id);
void pods_listen(
	struct kubelet *k, bool on); /* to the engine; off: nothing is heard once it returns */
void pods_adopt_sandbox(struct pod_worker *w, const char *sandbox_id);
int pods_boot(struct kubelet *k, struct err *err); /* finds what runs already */
void pods_reap_orphans(struct kubelet *k); /* the API is known: what nobody wants is stopped */

/* worker.c */
struct pod_worker *worker_new(struct kubelet *k, struct pod_object *o);
struct pod_worker *worker_ref(struct pod_worker *w);
void worker_unref(struct pod_worker *w);
void worker_unrefp(struct pod_worker **w);
void worker_wake(struct pod_worker *w);        /* any thread: it will look again */
void worker_wake_locked(struct pod_worker *w); /* kubelet.lock is held */
void worker_at(
	struct pod_worker *w, uint64_t at_ns); /* during a sync: look again then at the latest */
void worker_move(struct pod_worker *w, enum pod_state to);
void worker_evict(struct pod_worker *w, const char *reason, const char *message, int64_t grace_s);
struct slot *worker_slot(struct pod_worker *w, struct str name);
const struct pod_sandbox *worker_sandbox(const struct pod_worker *w); /* newest; NULL */
void worker_event(struct pod_worker *w, const struct core_v1_pod *pod, const char *type,
	const char *reason, const char *fmt, ...) PRINTF_LIKE(5, 6);
void worker_container_event(struct pod_worker *w, const struct core_v1_pod *pod,
	struct str container, const char *type, const char *reason, const char *fmt, ...)
	PRINTF_LIKE(6, 7);
void set_text(char **p, const char *text); /* owned text replaced; NULL: none */

/* sync.c: a pod that should run; containers.c: one container of it; kill.c: a pod or container that should not */
void sync_running(struct sync *s);
void sync_terminating(struct sync *s);
void sync_terminated(struct sync *s);
int view_load(struct sync *s, struct err *err);
enum start_outcome { START_DONE, START_WAITING, START_FAILED };
enum start_outcome container_start(struct sync *s, const struct container_spec *spec);
bool kubelet_container_kill(struct sync *s, const struct container_spec *spec,
	const struct engine_container *c, int64_t grace_s,
	const char
		*message); /* true: it is already down. message NULL: "Stopping container NAME" */
bool container_should_restart(const struct core_v1_pod *pod, const struct container_spec *spec,
	const struct engine_container *last);
struct str container_hash(const struct core_v1_container *c, struct arena *a);
struct str container_annotation(const struct engine_container *c, const char *key, struct arena *a);
#define GRACE_MAX_S \
	INT32_MAX /* 68 years: longer ones are not told apart, and sums of it in nanoseconds fit */
int64_t grace_bounded(int64_t seconds); /* 1 to GRACE_MAX_S */
int64_t pod_grace_s(const struct sync *s);

/* actions.c: what should happen next; pure */
struct pod_action {
	enum { ACT_START, ACT_KILL } what;
	const struct container_spec *spec;
	const struct engine_container *container; /* ACT_KILL */
	bool by_probe;
	char message[256];
};
struct pod_plan {
	bool kill_pod; /* nothing is to run any more, or the sandbox is of no use */
	bool create_sandbox;
	bool finished; /* the pod will not run again by itself */
	bool initialized;
	struct pod_action *items;
	size_t len;
};
void plan_make(const struct sync *s, struct pod_plan *ret);

/* tasks.c: slow work beside the worker */
void task_pull(struct sync *s, struct slot *slot, struct str image);
void task_post_start(
	struct sync *s, struct slot *slot, const struct container_spec *spec, const char *id);
void task_kill(struct sync *s, struct slot *slot, const struct container_spec *spec, const char *id,
	int64_t grace_s, bool hook);
void task_force(struct sync *s, struct slot *slot, const char *id);

/* hooks.c: a lifecycle handler; blocking. *ret_text: what went wrong, in words */
int hook_run(struct kubelet *k, const struct core_v1_lifecycle_handler *h,
	const struct core_v1_container *c, const char *container_id, const char *pod_ip,
	int64_t timeout_ms, struct err *err);

/* prober.c */
enum probe_result probe_ask(struct kubelet *k, const struct core_v1_probe *p,
	const struct core_v1_container *c, const char *container_id, const char *pod_ip,
	struct buf *ret_output);
int port_resolve(const struct int_or_str *port, const struct core_v1_container *c, int *ret,
	struct err *err);
int http_get_action(const struct core_v1_http_get_action *h, const struct core_v1_container *c,
	const char *pod_ip, unsigned timeout_ms, int *ret_status, struct buf *ret_body,
	struct buf *ret_url, struct err *err);
/* closes fd */
enum probe_result grpc_health(int fd, const char *ip, const struct core_v1_grpc_action *g,
	unsigned timeout_ms, struct buf *ret_output);
/* probes.c */
void probes_sync(struct sync *s); /* starts, stops and resets them by what runs */
void probes_stop(struct pod_worker *w);
bool slot_probe_failed(const struct slot *slot, enum probe_type t, const char *container_id);
const struct core_v1_probe *container_probe(const struct core_v1_container *c, enum probe_type t);

/* node_memory.c */
struct node_memory {
	uint64_t total, free, available; /* bytes; available: without what can be dropped */
};
struct node_memory node_memory(struct kubelet *k); /* all zero: unknown */

/* admit.c: may this pod run on this node? */
bool admit_pod(struct sync *s, char **ret_reason, char **ret_message);

/* resources.c */
enum qos_class kubelet_pod_qos(const struct core_v1_pod *pod);
const char *qos_text(enum qos_class q); /* Guaranteed … */
struct str pod_cgroup(const struct core_v1_pod *pod, struct arena *a);
void pod_resources(const struct core_v1_pod *pod, struct engine_resources *ret);
void container_resources(const struct kubelet *k, const struct core_v1_pod *pod,
	const struct core_v1_container *c, struct engine_resources *ret);
void pod_requests(const struct core_v1_pod *pod, const char *resource,
	struct quantity *ret); /* as the scheduler counts them */
bool resource_quantity(const struct str_map *m, const char *name, struct quantity *ret);

/* qos.c */
int qos_start(struct kubelet *k, struct err *err);
void qos_stop(struct kubelet *k);
void qos_update(struct kubelet *k); /* pods came or went */
void qos_resize(struct sync *s);    /* requests or limits of what runs have changed */

/* env.c */
int env_make(struct sync *s, const struct core_v1_container *c, const char *pod_ip,
	struct engine_env **ret, size_t *ret_n, struct err *err);
struct str env_expand(struct str text, const struct engine_env *env, size_t n_env,
	struct arena *a); /* $(NAME), $$ */
int field_value(
	struct sync *s, struct str path, const char *pod_ip, struct str *ret, struct err *err);
int resource_field_value(struct sync *s, const struct core_v1_resource_field_selector *r,
	const struct core_v1_container *self, struct str *ret, struct err *err);

/* security.c */
int security_apply(struct sync *s, const struct core_v1_container *c,
	const struct engine_image *image, struct engine_container_config *ret, struct err *err);

/* objects.c: a ConfigMap or Secret that a pod uses, read now. CLIENT_NOT_FOUND: configmap "x" not found */
int object_get(struct sync *s, const struct type *t, struct str name, void **ret, struct err *err);

/* volumes.c and vol_*.c */
struct volume_ctx {
	struct sync *s;
	const struct core_v1_volume *v;
	const char *dir;  /* root/pods/UID/volumes/PLUGIN/NAME */
	int64_t fs_group; /* < 0: none */
	bool refresh;     /* it is there already: bring it up to date */
};
struct volume_kind {
	const char *plugin;                                           /* kubernetes.io~empty-dir */
	const void *(*source)(const struct core_v1_volume_source *v); /* NULL: another kind */
	int (*setup)(struct volume_ctx *c, struct err *err);
	struct str (*host_path)(struct volume_ctx *c); /* NULL: dir */
	bool refreshes; /* follows objects of the API; the kubelet alone writes to it */
};
extern const struct volume_kind volume_empty_dir, volume_host_path, volume_config_map,
	volume_secret, volume_downward_api, volume_projected, volume_claim;
int volumes_setup(
	struct sync *s, struct err *err); /* all of the pod; again: brings them up to date */
int volume_path(struct sync *s, struct str volume, struct str *ret_host_path, struct err *err);
int volumes_teardown(struct kubelet *k, const char *uid, struct err *err);
int volume_mounts(struct sync *s, const struct core_v1_container *c, uint32_t attempt,
	const struct engine_env *env, size_t n_env, const char *pod_ip, struct engine_mount **ret,
	size_t *ret_n, struct err *err);
bool pod_volumes_refresh(const struct core_v1_pod *pod); /* has it any that follow the API? */
void empty_dirs_check(struct pod_worker *w,
	const struct core_v1_pod *pod); /* ends one that outgrew a sizeLimit */
void storage_limits_check(
	struct pod_worker *w, const struct core_v1_pod *pod); /* the same of ephemeral-storage */
int volume_tmpfs(
	const char *dir, uint64_t size, mode_t mode, struct err *err); /* mounted already: 0 */
int volume_own(const char *dir, int64_t fs_group, struct err *err);
/* vol_files.c: a volume that is a set of small files, swapped as one */
struct volume_file {
	struct str path, bytes;
	int32_t mode;
	int64_t owner; /* 0: root */
};
struct volume_files {
	struct volume_file *items;
	size_t len;
};
void volume_files_add(
	struct arena *a, struct volume_files *f, struct str path, struct str bytes, int32_t mode);
/* ..data and links; no change: nothing is touched */
int files_write(const char *dir, const struct volume_files *f, int64_t fs_group, struct err *err);
int files_from_map(struct volume_ctx *c, const struct str_map *data,
	const struct core_v1_key_to_path *items, size_t n_items, bool has_items, int32_t mode,
	bool optional, const char *what, struct volume_files *f, struct err *err);
int config_map_files(struct volume_ctx *c, struct str name, const struct core_v1_key_to_path *items,
	size_t n, bool has_items, int32_t mode, bool optional, struct volume_files *f,
	struct err *err);
int secret_files(struct volume_ctx *c, struct str name, const struct core_v1_key_to_path *items,
	size_t n, bool has_items, int32_t mode, bool optional, struct volume_files *f,
	struct err *err);
int downward_files(struct volume_ctx *c, const struct core_v1_downward_api_volume_file *items,
	size_t n, int32_t mode, struct volume_files *f, struct err *err);
/* subpath.c */
int subpath_open(const char *base, struct str sub, struct arena *a, int *ret_fd,
	struct err *err); /* O_PATH; made when missing */
int subpath_bind(const char *base, struct str sub, const char *target, struct arena *a,
	struct err *err); /* what it is now, bound to target */

/* podfiles.c: hosts, resolv.conf, the termination log, log folders */
struct str pod_dir(const struct kubelet *k, const char *uid, struct arena *a);
struct str pod_log_folder(const struct kubelet *k, const struct core_v1_pod *pod, struct arena *a);
struct str pod_hostname(const struct core_v1_pod *pod, const struct kubelet *k, struct arena *a);
struct str pod_hosts_text(const struct core_v1_pod *pod, const struct kubelet *k,
	const char *pod_ip, struct arena *a);
struct str pod_resolv_text(const struct core_v1_pod *pod, const struct kubelet *k,
	struct str host_resolv, struct arena *a);
int pod_resolv_conf(struct sync *s, struct str *ret, struct err *err);
int pod_write_hosts(struct sync *s, const char *pod_ip, struct str *ret_path, struct err *err);
struct str termination_log_path(const struct kubelet *k, const char *uid, struct str container,
	uint32_t attempt, struct arena *a);
struct str termination_message(struct kubelet *k, const char *uid,
	const struct core_v1_container *c, const struct engine_container *e, struct str log_path,
	struct arena *a);

/* status.c: the pod's status, pure but for the clock */
struct core_v1_pod_status *status_make(struct sync *s, struct arena *out);
struct str phase_of(const struct core_v1_pod *pod, const struct core_v1_pod_status *st,
	bool terminal, bool is_static);
/* status_manager.c */
void status_set(struct sync *s); /* computes, and sends when it differs */
void status_resend(struct pod_worker *w);

/* static_pods.c, mirror.c */
int static_source_start(struct kubelet *k, struct err *err);
void static_source_stop(struct kubelet *k);
int static_pod_parse(const struct kubelet *k, const char *file, struct str text,
	struct pod_object **ret, struct err *err);
void mirror_on_api(struct kubelet *k, enum informer_event ev, const struct cached *obj);
void mirror_sync(struct pod_worker *w);
bool mirror_find(
	struct kubelet *k, const struct pod_worker *w, struct arena *a, struct str *ret_uid);

/* node.c, node_facts.c */
int node_agent_start(struct kubelet *k, struct err *err);
void node_agent_stop(struct kubelet *k);
void node_agent_free(struct kubelet *k);     /* after the pools: their work may hold it */
void node_status_changed(struct kubelet *k); /* look again soon */
void node_status_now(struct kubelet *k);     /* look again at once */
int node_network_status(struct kubelet *k, struct arena *a,
	struct str *
		ret_why); /* may pods get onto the pod network? < 0: why not, in upstream's words */
void node_facts(struct kubelet *k, struct core_v1_node_status *ret, struct arena *a);
bool node_allocatable(struct kubelet *k, const char *resource, struct quantity *ret);
struct cached *node_cached(struct kubelet *k); /* a reference or NULL */

/* server*.c */
int node_server_start(struct kubelet *k, struct err *err);
void node_server_stop(struct kubelet *k);
struct node_route {
	struct kubelet *k;
	struct http_stream *stream;
	struct str parts[8]; /* of the path, decoded */
	size_t n_parts;
	struct str query;
};
void node_respond_text(struct http_stream *s, int status, const char *type, struct str body);
void respond_error(struct http_stream *s, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
bool query_has(struct http_stream *s, const char *name, struct str *ret); /* last value */
void serve_logs(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod,
	struct str container);
void serve_node_logs(struct node_route *r);
void serve_exec(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod,
	struct str container, bool attach);
void serve_port_forward(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod);
void serve_pods(struct kubelet *k, struct http_stream *s);
void serve_stats(struct kubelet *k, struct http_stream *s);
void node_serve_metrics(struct kubelet *k, struct http_stream *s, bool resource);
void serve_why(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod);
void serve_run(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod,
	struct str container);
bool server_authorize(struct kubelet *k, const struct http_request *r, const char *verb,
	const char *subresource, struct arena *a, int *ret_status, struct err *err);
int node_server_port(const struct kubelet *k);
void logs_container_ended(
	struct kubelet *k, const char *container_id); /* followers read the rest and end */
/* Which engine container stands behind a name; previous: the run before. ENGINE_NOT_FOUND with err in upstream's words. */
int server_find_container(struct kubelet *k, struct str ns, struct str pod, struct str container,
	bool previous, struct arena *a, struct engine_container *ret, struct str *ret_log,
	struct err *err);

/* logs.c: CRI log lines */
struct log_options {
	int64_t tail;           /* < 0: all */
	struct timestamp since; /* {0}: all */
	bool timestamps;
	int64_t limit_bytes; /* < 0: none */
	int streams;         /* 1 stdout, 2 stderr, 3 both */
};
struct log_line {
	struct timestamp at;
	struct str time_text, stream, text; /* text with its newline unless it is partial */
	bool partial;
};
/* A log of a pod for reading, or -errno: inside the folder of logs, no link, no pipe that one would wait for. */
int log_open(const struct kubelet *k, const char *path);
bool log_parse_line(struct str line, struct log_line *ret); /* line without its newline */
int64_t log_tail_offset(int fd, int64_t lines);             /* where the last n whole lines begin */
/* Appends what of `in` passes; whole lines only; *ret_used: bytes taken. false: the limit is reached. */
bool log_filter(struct str in, struct log_options *o, struct buf *out, size_t *ret_used);

/* keeper.c: what piles up: dead containers, images, logs, folders; evict.c */
int keeper_start(struct kubelet *k, struct err *err);
void keeper_stop(struct kubelet *k);
void keeper_free(struct kubelet *k);
void keeper_ask_volumes(struct pod_worker *w); /* ConfigMaps and Secrets are read again */
void keeper_prune_containers(struct sync *s);  /* old runs of this pod */
/* Removes unused images while the disk is nearly full. Returns how many unused ones are left because they are pinned. */
size_t keeper_collect_images(struct kubelet *k);
int evictor_start(struct kubelet *k, struct err *err);
void evictor_stop(struct kubelet *k);
void evictor_free(struct kubelet *k);
enum pressure { PRESSURE_MEMORY, PRESSURE_DISK, PRESSURE_PID, N_PRESSURES };
bool evictor_pressure(struct kubelet *k, enum pressure p);

/* shutdown.c */
int shutdown_start(struct kubelet *k, struct err *err);
void shutdown_stop(struct kubelet *k);
void shutdown_free(struct kubelet *k);
bool shutdown_active(const struct kubelet *k);      /* the node is going down */
void shutdown_pod_changed(const struct kubelet *k); /* a pod has ended, or that was told */

uint64_t now_ns(const struct kubelet *k);
struct timestamp now_wall(const struct kubelet *k);
#endif
