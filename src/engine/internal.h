/* What the files of the local engine share. See engine.h for the promises.
 *
 * On disk, below root (kept over a reboot):
 *   lock                  flock: shared to read images or take one into use, exclusive to change them
 *   import.lock           flock: one import or removal at a time
 *   images/HEX            record of an image;  images/HEX.config  its config, as it came
 *   layers/NAME/          one unpacked layer, NAME the first 24 digits of its diff id; layers/NAME.layer its record, written last
 *   tmp/                  whatever is half made; emptied under import.lock
 *   sandboxes/ID/         record, resolv.conf, hostname, shm (a tmpfs), cni.json (what CNI plugins were told and gave)
 *   containers/ID/        record, config.json (the bundle), upper, work, rootfs, conmon's files
 *   exits/ID              conmon's exit file
 *   addresses/IP          holds the id of the sandbox that has this address; addresses/.last the one given last
 * and below run (a tmpfs): ns/ID.net, .uts, .ipc (pinned namespaces), crun/ (crun's state). */
#ifndef SKIFF_ENGINE_INTERNAL_H
#define SKIFF_ENGINE_INTERNAL_H

#include <limits.h>
#include <pthread.h>

#include "base/map.h"
#include "codec/codec.h"
#include "engine/engine.h"
#include "io/io.h"
#include "linux/linux.h"

/* ---- records: flat structs as small JSON files, by rows ---- */
enum record_kind {
	RECORD_TEXT,
	RECORD_INT,
	RECORD_BOOL,
	RECORD_TEXTS
}; /* char *, int64_t, bool, char ** (NULL-terminated or NULL) */
struct record_row {
	const char *name;
	enum record_kind kind;
	size_t offset;
};
struct record_type {
	const struct record_row *rows;
	size_t n_rows;
};
int record_save(const struct record_type *t, const void *r, const char *path, bool durable,
	struct err *err);
int record_load(const struct record_type *t, void *r, const char *path,
	struct err *err); /* r zeroed before; -EBADMSG: not a record */
void record_deinit(const struct record_type *t, void *r);
size_t texts_len(char *const *texts);
bool texts_has(char *const *texts, struct str s);
void texts_add(char ***texts, struct str s); /* unless it is there */
void texts_remove(char ***texts, struct str s);
void texts_free(char **texts);

void path_fmt(char out[PATH_MAX], const char *fmt, ...)
	PRINTF_LIKE(2, 3); /* too long: aborts; ids and roots are ours */

/* ---- image references ---- */
struct image_ref {
	struct str name;      /* docker.io/library/busybox */
	struct str tag;       /* latest; empty when only a digest was given */
	struct str digest;    /* sha256:…, or empty */
	struct str canonical; /* name:tag, or name@digest */
};
int image_ref_parse(struct str text, struct arena *a, struct image_ref *ret, struct err *err);

/* ---- image store ---- */
struct image_store {
	char *root;
};
struct image_record {
	char *id;
	char **tags, **digests, **layers; /* layers: names of folders, lowest first */
	int64_t size;
	char *user;
	bool loose; /* not pinned. Records from before pins say nothing: what they are of came by hand */
};
struct image_config { /* of the config file, what a container needs */
	struct str user, working_dir, stop_signal;
	struct engine_strs env, entrypoint, cmd;
};
extern const struct record_type image_record_type;
int store_lock(
	const struct image_store *s, const char *file, int operation, int *ret_fd, struct err *err);
int store_find(const struct image_store *s, struct str ref, struct image_record *ret,
	struct err *err); /* ENGINE_NOT_FOUND; lock held */
int store_config(const struct image_store *s, const char *id, struct arena *a,
	struct image_config *ret, struct err *err);
int store_add(const struct image_store *s, struct image_record *r, struct str config,
	struct err *err); /* exclusive lock held; takes tags from others */
bool store_has_layer(const struct image_store *s, struct str diff_id);
int store_place_layer(const struct image_store *s, const char *folder, struct str diff_id,
	uint64_t size, struct err *err); /* exclusive lock held */
uint64_t store_layer_size(const struct image_store *s, const char *name);
int image_config_parse(struct str text, struct arena *a, struct image_config *ret,
	struct engine_strs *ret_diff_ids, struct err *err);
void layer_name(struct str diff_id, char ret[25]);
void image_record_export(const struct image_record *r, struct arena *a, struct engine_image *ret);

/* ---- layers ---- */
struct digest;
struct digest *digest_new(void);
void digest_add(struct digest *d, const void *p, size_t n);
void digest_end(struct digest *d, char ret[72]); /* sha256:HEX; frees d */
void digest_of(struct str bytes, char ret[72]);
/* Unpacks the (perhaps gzip, zstd, xz or bzip2 compressed) tar at fd into the folder dir_fd, as an overlayfs layer. ret_blob: digest of the bytes of fd;
 * ret_diff: of the tar. */
int layer_unpack(int fd, int dir_fd, char ret_blob[72], char ret_diff[72], uint64_t *ret_size,
	struct err *err);
struct archive;
int archive_load(struct err *err); /* libarchive; before any use of it */
int layer_unpack_archive(struct archive *a, int dir_fd, uint64_t *ret_size, struct err *err);
/* Cleans a path of a tar: no leading / or ./, no double slash. -EBADMSG when it holds .. or NUL. Empty: the root itself. */
int layer_clean_path(const char *path, char ret[PATH_MAX]);

/* ---- the engine ---- */
struct sandbox {
	/* record */
	char *id, *name, *namespace_, *uid, *hostname, *log_directory, *cgroup, *boot_id, *ip,
		*second_ip, *annotations, *port_mappings;
	int64_t attempt, created_s, created_ns, pause_pid, pause_start;
	bool host_network, host_pid, host_ipc, share_pid, ready, made, bypasses_host;
};
struct container {
	/* record */
	char *id, *sandbox_id, *name, *image, *image_id, *log_path, *annotations, *cgroup, *boot_id,
		*reason, *message;
	char **layers, **shared_mounts;
	int64_t attempt, created_s, created_ns, started_s, started_ns, finished_s, finished_ns;
	int64_t pid, pid_start, conmon_pid, conmon_start, exit_code, stop_signal;
	bool starting, started, exited, oom_killed, made, tty, stdin_open, stdin_once;
	/* not kept */
	int conmon_fd;    /* pidfd in the engine's epoll, -1: none */
	bool conmon_lost; /* it ended while the container was being started */
};
extern const struct record_type sandbox_record_type, container_record_type;

struct local {
	struct engine base;
	char *root, *run, *bridge, *cluster_cidr, *crun; /* crun: its full path */
	char *crun_version;
	int lock_fd; /* one engine a root */
	char boot[37];
	struct image_store *store;
	struct cgroups *cgroups;
	struct netlink *netlink; /* guarded by network_lock */
	pthread_mutex_t network_lock;
	uint32_t net_ip, net_gateway;                   /* host order */
	int net_prefix, mtu;                            /* prefix 0: no pod network */
	void (*link_made)(void *arg, const char *link); /* NULL: none */
	void *link_made_arg;
	int host_netns_fd;
	struct cni *cni; /* NULL: the network is ours */

	pthread_mutex_t lock;   /* guards the two maps and what is in them, the handler */
	pthread_cond_t changed; /* a container ended */
	struct map sandboxes, containers;
	engine_event_fn event_fn;
	void *event_arg;
	pthread_t watcher;
	int epoll_fd, inotify_fd, stop_fd, cni_watch, nft_fd;
	bool watching;
};
static inline struct local *local_of(struct engine *e)
{
	return container_of(e, struct local, base);
}

/* local.c */
void new_id(char ret[ENGINE_ID]);
int sandbox_save(struct local *l, const struct sandbox *s, struct err *err);
int container_save(struct local *l, const struct container *c, struct err *err);
void sandbox_free(struct sandbox *s);
void container_free(struct container *c);
struct sandbox *sandbox_find(struct local *l, const char *id);     /* lock held */
struct container *container_find(struct local *l, const char *id); /* lock held */
int sandbox_missing(const char *id, struct err *err); /* sets the text, ENGINE_NOT_FOUND */
int container_missing(const char *id, struct err *err);

/* watch.c: the thread that notices ends */
int watch_open(struct local *l, struct err *err);  /* from here on ends are queued */
int watch_start(struct local *l, struct err *err); /* the thread that takes them in */
void watch_stop(struct local *l);
void watch_container(struct local *l, struct container *c); /* lock held: follow its conmon */
void watch_forget(struct local *l, struct container *c);    /* lock held */
void watch_tell(struct local *l, const char *sandbox_id,
	const char *container_id); /* calls the event handler; lock not held */
bool conmon_gone(struct local *l,
	const char *id); /* conmon ended, with or without an exit file; true: an event */
bool container_refresh(struct local *l,
	struct container *c); /* lock held: takes in an exit file; true: it ended just now */

/* network.c */
int network_setup(struct local *l, struct err *err);   /* bridge, addresses, masquerade, sysctls */
int network_restore(struct local *l, struct err *err); /* the masquerade, when somebody took it */
int network_attach(struct local *l, struct sandbox *s,
	struct err *err); /* on a thread inside the sandbox's new namespaces */
int network_connect(struct local *l, const struct sandbox *s, struct err *err); /* the host's end */
int network_detach(struct local *l, const struct sandbox *s, struct err *err);
int address_take(struct local *l, const char *sandbox_id, uint32_t *ret_ip,
	struct err *err); /* host order */
int address_release(
	struct local *l, const char *sandbox_id, struct err *err); /* network_lock held */
int cidr_parse(const char *text, uint32_t *ret_ip, int *ret_prefix,
	struct err *err); /* host order, masked */

/* sandbox.c */
bool sandbox_is_ready(
	const struct local *l, const struct sandbox *s); /* also by what holds its namespaces now */
int local_sandbox_run(struct engine *e, const struct engine_sandbox_config *c, struct arena *a,
	struct engine_sandbox *ret, struct err *err);
int local_sandbox_stop(struct engine *e, const char *id, struct err *err);
int local_sandbox_remove(struct engine *e, const char *id, struct err *err);
int local_sandbox_list(struct engine *e, struct arena *a, struct engine_sandbox **ret,
	size_t *ret_n, struct err *err);
int sandbox_undo(struct local *l, struct sandbox *s, bool whole,
	struct err *err); /* network, namespaces, cgroup; whole: files too */
enum sandbox_ns { SANDBOX_NET = NS_NET, SANDBOX_UTS = NS_UTS, SANDBOX_IPC = NS_IPC };
void sandbox_ns_path(
	const struct local *l, const struct sandbox *s, enum ns_kind kind, char ret[PATH_MAX]);

/* pause.c: process 1 of a shared process namespace */
int pause_start(struct local *l, struct sandbox *s, struct err *err);
int pause_stop(struct local *l, const struct sandbox *s, struct err *err);

/* spec.c: OCI config.json */
struct spec {
	const struct local *l;
	const struct sandbox *sandbox;
	const struct container *container;
	const struct engine_container_config *config;
	const struct image_config *image;
	int64_t target_pid;        /* a process of config->shares_pids_of; 0: none */
	const char *const *layers; /* folder names, topmost first */
	size_t n_layers;
};
int spec_write(const struct spec *s, struct arena *a, struct buf *ret, struct err *err);
int spec_read_image_file(const struct local *l, const char *const *layers, size_t n,
	const char *path, struct buf *ret); /* -ENOENT */
/* seccomp.c: the profile RuntimeDefault, as OCI JSON, for a container that has these capabilities (names without CAP_) */
void seccomp_default(
	bool (*has)(const void *arg, const char *capability), const void *arg, struct buf *out);

/* container.c */
int local_container_create(struct engine *e, const char *sandbox_id,
	const struct engine_container_config *c, char ret_id[ENGINE_ID], struct err *err);
int local_container_start(struct engine *e, const char *id, struct err *err);
int local_container_stop(
	struct engine *e, const char *id, int signal, int64_t grace_ms, struct err *err);
int local_container_remove(struct engine *e, const char *id, struct err *err);
int local_container_status(struct engine *e, const char *id, struct arena *a,
	struct engine_container *ret, struct err *err);
int local_container_list(struct engine *e, const char *sandbox_id, struct arena *a,
	struct engine_container **ret, size_t *ret_n, struct err *err);
int local_container_update(
	struct engine *e, const char *id, const struct engine_resources *r, struct err *err);
int local_container_disk(struct engine *e, const char *id, uint64_t *ret_bytes, struct err *err);
int local_container_stats(
	struct engine *e, const char *id, struct engine_stats *ret, struct err *err);
int local_container_reopen_log(struct engine *e, const char *id, struct err *err);
void container_set_exit(struct local *l, struct container *c, int64_t code, struct timestamp at,
	const char *reason, const char *message); /* lock held */
int container_kill(
	struct local *l, const char *id, struct err *err); /* dead and taken in when it returns 0 */
int container_drop(
	struct local *l, struct container *c, struct err *err); /* crun's state, cgroup, files */

/* runtime.c: crun and conmon */
/* mounts, conmon, crun create */
int runtime_create(struct local *l, const struct container *c, const struct sandbox *s,
	pid_t *ret_pid, pid_t *ret_conmon, struct err *err);
int runtime_crun(struct local *l, const char *const *args,
	struct err *err); /* args after --root, NULL-terminated; waits */
int runtime_spawn(struct local *l, const char *const *args, const int stdio[3], pid_t *ret_pid,
	int *ret_pidfd, struct err *err);
int runtime_version(const char *program, struct arena *a, struct str *ret,
	struct err *err); /* names the package when it is not there */

/* stream.c */
int local_exec_sync(struct engine *e, const char *id, const char *const *argv, int64_t timeout_ms,
	struct buf *ret_output, int *ret_code, struct err *err);
int local_exec(struct engine *e, const char *id, const char *const *argv, bool in, bool out,
	bool err_stream, bool tty, struct engine_session *ret, struct err *err);
int local_session_wait(struct engine *e, struct engine_session *s, int *ret_code, struct err *err);
int local_attach(struct engine *e, const char *id, bool in, bool out, bool err_stream,
	struct engine_session *ret, struct err *err);
int local_port_forward(
	struct engine *e, const char *sandbox_id, int port, int *ret_fd, struct err *err);

#endif
