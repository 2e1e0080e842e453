/* Images, snapshots, sandboxes and containers behind one vtable: local (crun, conmon, overlayfs), fake (tests, simulation), cri later.
 * Upstream's counterpart: the CRI runtime and image services, and the names follow it.
 *
 * 1. Nothing here knows pods of the API or talks to it; the kubelet decides, the engine does.
 * 2. All state is on disk (root) or in the kernel: a new process finds every sandbox and container that is there, and conmon keeps
 *    containers alive and their exit codes while no process of ours runs.
 * 3. Every function is blocking, safe to repeat after a crash half-way, and thread-safe for different sandboxes.
 * 4. What is created is removed by its opposite, whatever half of it exists. */
#ifndef SKIFF_ENGINE_H
#define SKIFF_ENGINE_H

#include "base/base.h"
#include "base/values.h"

enum { ENGINE_NOT_FOUND = 1, ENGINE_EXISTS };

#define ENGINE_ID 33 /* 32 hex digits and NUL */

struct engine_strs {
	const struct str *items;
	size_t len;
};

struct engine_mount {
	const char *container_path,
		*host_path; /* host_path may be a folder or a file; made nothing of here */
	bool read_only;
	int propagation; /* 0 private, 1 HostToContainer, 2 Bidirectional */
};

struct engine_resources {
	int64_t cpu_shares;                  /* v1 shares; turned into weight under v2 */
	int64_t cpu_quota_us, cpu_period_us; /* 0: none */
	int64_t memory_limit;                /* bytes, 0: none */
	int64_t oom_score_adj;
	int64_t pids_limit; /* 0: none */
};

/* ---- sandbox: the namespaces, address and cgroup that the containers of one pod share ---- */
struct engine_sandbox_config {
	const char *name, *namespace_, *uid; /* of the pod */
	uint32_t attempt;
	const char *hostname;
	bool host_network, host_pid, host_ipc, share_process_namespace;
	const char *log_directory; /* /var/log/pods/NS_NAME_UID */
	const char
		*cgroup_parent; /* "kubepods/burstable/podUID", below the root of each hierarchy */
	struct engine_resources resources; /* of the pod's cgroup */
	const char *resolv_conf;           /* text written to the sandbox's resolv.conf */
	struct {
		const char *name, *value;
	} const *sysctls;
	size_t n_sysctls;
	struct {
		int32_t host_port, container_port;
		int protocol;
		const char *host_ip;
	} const *port_mappings; /* protocol: IPPROTO_TCP … */
	size_t n_port_mappings;
	const char *annotations_json; /* kept and given back as it is; NULL: none */
};
enum engine_sandbox_state { SANDBOX_READY, SANDBOX_NOT_READY };
struct engine_sandbox {
	char id[ENGINE_ID];
	struct str name, namespace_, uid;
	uint32_t attempt;
	enum engine_sandbox_state state;
	struct timestamp created_at;
	struct str ip;         /* empty under host network */
	struct str second_ip;  /* of the other family; empty: none */
	struct str netns_path; /* empty under host network */
	bool host_network;
	bool bypasses_host; /* a CNI plugin (macvlan, ipvlan, …) leads its packets past this node's rules */
};

/* ---- container ---- */
struct engine_env {
	struct str name, value;
};
struct engine_container_config {
	const char *name;
	uint32_t attempt;                 /* restart count */
	const char *image_id;             /* as image_status gave it */
	const char *image;                /* as the pod names it */
	struct engine_strs command, args; /* empty: the image's */
	const struct engine_env *env;     /* the image's env comes first */
	size_t n_env;
	const char *working_dir; /* NULL: the image's */
	const struct engine_mount *mounts;
	size_t n_mounts;
	struct engine_resources resources;
	const char *log_path; /* below the sandbox's log_directory: NAME/ATTEMPT.log */
	bool stdin_open, stdin_once, tty;
	bool privileged, read_only_rootfs, no_new_privs;
	int64_t run_as_user, run_as_group; /* -1: the image's */
	const char *run_as_username;       /* NULL, or the image's user by name */
	const int64_t *supplemental_groups;
	size_t n_supplemental_groups;
	bool only_given_groups;     /* those of the image's /etc/group are left out */
	const char *shares_pids_of; /* id of a running container; NULL: the sandbox's way */
	const char *const *add_capabilities,
		*const *drop_capabilities; /* NULL-terminated or NULL; "ALL" */
	const char *seccomp_profile;       /* NULL: unconfined; "RuntimeDefault"; a path */
	const char *const *masked_paths, *const *readonly_paths; /* NULL: the usual ones */
	const char *annotations_json; /* kept and given back (the kubelet puts its hash there) */
	const char *hostname;
};
enum engine_container_state {
	CONTAINER_CREATED,
	CONTAINER_RUNNING,
	CONTAINER_EXITED,
	CONTAINER_UNKNOWN
};
struct engine_container {
	char id[ENGINE_ID], sandbox_id[ENGINE_ID];
	struct str name, image, image_id, log_path, annotations_json;
	uint32_t attempt;
	enum engine_container_state state;
	struct timestamp created_at, started_at, finished_at;
	int32_t exit_code, signal; /* of an exited one; signal 0: none */
	bool oom_killed;
	struct str reason; /* Completed, Error, OOMKilled, StartError … */
	struct str message;
	int32_t pid; /* 0 when not running */
};

struct engine_image {
	struct str id; /* sha256:… of its config */
	struct engine_strs repo_tags, repo_digests;
	uint64_t size;   /* bytes on disk */
	struct str user; /* from the image's config */
	bool pinned;     /* not for the kubelet to remove: nobody would bring it back */
};

/* An exec or attach session: plain descriptors. The caller closes in, out and err when it likes; session_wait closes control and pidfd. tty: out carries
 * both streams, err is -1. */
struct engine_session {
	int in, out, err; /* -1: not asked for */
	int control;      /* write "W H\n" to resize a tty; -1: no tty */
	/* To poll, no more: readable when it is over, and all output is in the pipes then. Attach: also when the caller has closed out or err. */
	int pidfd;
	void *private_;
};
struct engine_stats {
	uint64_t cpu_ns, memory_bytes, memory_working_set, pids;
	struct timestamp at;
};

/* What happened: containers ending, sandboxes going, or (both ids empty) network_status changing. Called on an engine thread; must only signal. */
typedef void (*engine_event_fn)(void *arg, const char *sandbox_id, const char *container_id);

struct engine;
struct engine_vtable {
	void (*free)(struct engine *e);
	void (*set_event_handler)(struct engine *e, engine_event_fn fn, void *arg);
	int (*version)(struct engine *e, struct arena *a, struct str *ret_name,
		struct str *ret_version, struct err *err); /* "crun", "1.8.1" */
	/* Can sandboxes get onto the pod network? Otherwise why not. A change is an event with both ids empty. */
	int (*network_status)(struct engine *e, struct err *err);
	/* images */
	int (*image_import)(struct engine *e, const char *file, const char *tag, struct arena *a,
		struct engine_image *ret, struct err *err);
	int (*image_status)(struct engine *e, struct str ref, struct arena *a,
		struct engine_image *ret, struct err *err); /* ENGINE_NOT_FOUND */
	int (*image_pull)(struct engine *e, struct str ref, struct arena *a,
		struct engine_image *ret, struct err *err);
	int (*image_list)(struct engine *e, struct arena *a, struct engine_image **ret,
		size_t *ret_n, struct err *err);
	int (*image_remove)(struct engine *e, struct str ref, struct err *err);
	/* sandboxes */
	int (*sandbox_run)(struct engine *e, const struct engine_sandbox_config *c, struct arena *a,
		struct engine_sandbox *ret, struct err *err);
	int (*sandbox_stop)(struct engine *e, const char *id,
		struct err *err); /* its containers die; network and cgroup go */
	int (*sandbox_remove)(struct engine *e, const char *id, struct err *err);
	int (*sandbox_list)(struct engine *e, struct arena *a, struct engine_sandbox **ret,
		size_t *ret_n, struct err *err);
	/* containers */
	int (*container_create)(struct engine *e, const char *sandbox_id,
		const struct engine_container_config *c, char ret_id[ENGINE_ID], struct err *err);
	int (*container_start)(struct engine *e, const char *id, struct err *err);
	/* signal 0: the image's, else TERM; KILL after grace */
	int (*container_stop)(
		struct engine *e, const char *id, int signal, int64_t grace_ms, struct err *err);
	int (*container_remove)(struct engine *e, const char *id,
		struct err *err); /* kills it first when need be; keeps the log */
	int (*container_status)(struct engine *e, const char *id, struct arena *a,
		struct engine_container *ret, struct err *err);
	/* NULL id: all */
	int (*container_list)(struct engine *e, const char *sandbox_id, struct arena *a,
		struct engine_container **ret, size_t *ret_n, struct err *err);
	int (*container_update)(struct engine *e, const char *id, const struct engine_resources *r,
		struct err *err);
	int (*container_stats)(
		struct engine *e, const char *id, struct engine_stats *ret, struct err *err);
	/* What its writable layer holds. Walks it. */
	int (*container_disk)(
		struct engine *e, const char *id, uint64_t *ret_bytes, struct err *err);
	int (*container_reopen_log)(struct engine *e, const char *id, struct err *err);
	/* Runs argv inside and waits; output at most 16 KiB each (probes, hooks). -ETIMEDOUT: killed. */
	int (*exec_sync)(struct engine *e, const char *id, const char *const *argv,
		int64_t timeout_ms, struct buf *ret_output, int *ret_code, struct err *err);
	int (*exec)(struct engine *e, const char *id, const char *const *argv, bool in, bool out,
		bool err_stream, bool tty, struct engine_session *ret, struct err *err);
	int (*session_wait)(struct engine *e, struct engine_session *s, int *ret_code,
		struct err *err); /* frees it */
	int (*attach)(struct engine *e, const char *id, bool in, bool out, bool err_stream,
		struct engine_session *ret, struct err *err);
	/* A connected stream socket to 127.0.0.1:port inside the sandbox's network namespace. */
	int (*port_forward)(
		struct engine *e, const char *sandbox_id, int port, int *ret_fd, struct err *err);
};
struct engine {
	const struct engine_vtable *v;
};

/* ---- the image store alone: what `skiff image` works on, beside a running engine or without one ---- */
struct image_store;
int image_store_open(const char *root, struct image_store **ret,
	struct err *err); /* made when it is not there */
void image_store_free(struct image_store *s);
/* Docker's save format, an OCI layout (folder or archive), or a plain root file system as tar; gzip, zstd, xz or bzip2 around any of them. tag NULL: the
 * names inside; a plain tar needs one. Every digest is checked. */
int image_store_import(struct image_store *s, const char *file, const char *tag, struct arena *a,
	struct engine_image *ret, struct err *err);
int image_store_status(struct image_store *s, struct str ref, struct arena *a,
	struct engine_image *ret, struct err *err); /* ENGINE_NOT_FOUND */
int image_store_list(struct image_store *s, struct arena *a, struct engine_image **ret,
	size_t *ret_n, struct err *err);
/* An import pins its image; one that loses its last name to another is pinned no more. ENGINE_NOT_FOUND. */
int image_store_pin(struct image_store *s, struct str ref, bool pinned, struct err *err);
int image_store_remove(struct image_store *s, struct str ref,
	struct err *err); /* ENGINE_NOT_FOUND; -EBUSY: a container uses it */

struct engine_local_config {
	const char *root;         /* /var/lib/skiff/engine: images, snapshots, container records */
	const char *run;          /* /run/skiff/engine: sockets, pid files, network namespaces */
	const char *pod_cidr;     /* this node's share: "10.42.0.0/24" */
	const char *bridge;       /* skiff0 */
	int mtu;                  /* 0: from the default route's link, or 1500 */
	const char *cluster_cidr; /* traffic to it is never masqueraded */
	/* A sandbox's link is there in the node's namespace, and not up yet. NULL: nobody wants to know. */
	void (*link_made)(void *arg, const char *link);
	void *link_made_arg;
	/* The other way: sandboxes are attached by CNI plugins, as the first file of this folder by name says, and bridge, pod_cidr and mtu are not
	 * used. NULL: not so. A sandbox is detached in the way it was attached. */
	const char *cni_conf_dir;
	const char *cni_bin_dirs; /* where plugins are sought: folders, with commas between */
	unsigned cni_timeout_ms;  /* of one plugin; 0: 60,000 */
};
int engine_local_new(const struct engine_local_config *c, struct engine **ret,
	struct err *err); /* names the program or kernel feature that is missing */
/* Sets or changes the node's address range (engine_local_config.pod_cidr may be NULL until the node has one). */
int engine_local_set_pod_cidr(struct engine *e, const char *cidr, struct err *err);

/* ---- the fake engine, for tests and simulation: all in memory, nothing runs, every image can be pulled. Containers run from start until they are
 * stopped or made to end; a stopped one ends at once with 143 (137 when the grace is 0). Times are the clock's. ---- */
struct engine *engine_fake_new(const struct clock *clock);
void engine_fake_exit(struct engine *e, const char *container_id, int exit_code,
	bool oom_killed); /* ends a running one; its event is sent */
/* The next `times` calls of the vtable's function of that name ("container_start", "image_pull", …) fail with -EIO and this text; times -1: all, 0: none. For
 * "network_status" the event is sent too. */
void engine_fake_fail(struct engine *e, const char *function, int times, const char *text);
/* Answers exec_sync; the default is code 0 and no output. */
typedef int (*engine_fake_exec_fn)(void *arg, const char *container_id, const char *const *argv,
	struct buf *ret_output, int *ret_code, struct err *err);
void engine_fake_set_exec(struct engine *e, engine_fake_exec_fn fn, void *arg);
void engine_fake_lose_sandbox(struct engine *e,
	const char *sandbox_id); /* as a reboot does: not ready, its containers ended with 255 */
size_t engine_fake_calls(struct engine *e, const char *function); /* how often it was called */

#endif
