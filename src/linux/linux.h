/* Kernel glue: namespaces, mounts, cgroups, links and routes, nftables, sysctls, pidfds. Thin and without state: what is asked for is done
 * in the kernel, and the kernel is asked again next time.
 *
 * 1. Everything that makes something is safe to repeat: there already is done. Everything that removes takes "gone already" for done.
 * 2. Where a kernel feature is missing, the error names it and the setting or module that brings it.
 * 3. Network calls work in the network namespace of the calling thread, mount calls in its mount namespace; ns_run gives a thread of its own. */
#ifndef SKIFF_LINUX_H
#define SKIFF_LINUX_H

#include <sys/types.h>

#include "base/base.h"

/* ---- namespaces ---- */
enum ns_kind { NS_NET, NS_UTS, NS_IPC, NS_KINDS };
extern const char *const ns_names[NS_KINDS]; /* net, uts, ipc: as under /proc/PID/ns */
typedef int (*ns_fn)(void *arg, struct err *err);
/* Makes one new namespace of each kind whose path is not NULL, runs fn (may be NULL) inside all of them, and pins each: a file at its path
 * with the namespace bound over it. When anything fails, nothing stays pinned. */
int ns_create(const char *const paths[NS_KINDS], ns_fn fn, void *arg, struct err *err);
int ns_unpin(const char *path, struct err *err);
bool ns_is_pinned(const char *path);
int ns_open(const char *path, int *ret_fd,
	struct err *err); /* -ESTALE: a file, but no namespace is bound there (a reboot) */

struct ns_where {
	int net_fd; /* namespace to enter, -1: the caller's */
	bool private_mounts; /* own mount namespace in which every mount is a slave: nothing done inside leaks out */
	bool hide_cgroup2; /* with private_mounts: covers /sys/fs/cgroup/unified of a hybrid cgroup setup, which crun refuses */
};
/* Runs fn on a thread of its own in those namespaces and waits for it. Children that fn starts live there too. */
int ns_run(const struct ns_where *where, ns_fn fn, void *arg, struct err *err);

/* ---- mounts ---- */
struct mount_overlay {
	const char *
		lower_dir; /* folder that the names in `lower` are relative to: keeps the options below one page */
	const char *const *lower; /* topmost first */
	size_t n_lower;
	const char *upper, *work; /* both NULL: read-only */
};
int mount_overlay(const struct mount_overlay *o, const char *target,
	struct err *err); /* only inside ns_run: changes the working folder */
int mount_bind(
	const char *source, const char *target, bool recursive, bool read_only, struct err *err);
int mount_tmpfs(const char *target, uint64_t size, mode_t mode,
	struct err *err);                              /* size 0: the kernel's default */
int mount_remove(const char *target, struct err *err); /* all mounts stacked there, lazily */
int mount_propagation(const char *target, unsigned long flags,
	struct err *err); /* MS_SHARED, MS_SLAVE, MS_PRIVATE, | MS_REC */
/* Makes sure that mounts below dir, and their ends, reach the mount namespaces copied from this one: where dir's mount is not shared already, dir is bound
 * over itself and shared. Otherwise a copy keeps alive what was unmounted here. */
int mount_share_folder(const char *dir, struct err *err);
bool mount_is_point(const char *path);
bool mount_is_shared(const char *path); /* the mount that holds path passes its changes on */
/* A detached copy of the mounts at path that still shares with them; mount_attach puts it somewhere in the caller's mount namespace. */
int mount_clone(const char *path, int *ret_fd, struct err *err);
int mount_attach(int fd, const char *target, struct err *err);
int mount_remove_below(
	const char *dir, struct err *err); /* every mount at or below dir, deepest first */

/* Opens path as it looks from inside root_fd: links and .. never lead out of it (openat2, RESOLVE_IN_ROOT). */
int path_open_in_root(int root_fd, const char *path, int flags, mode_t mode); /* fd, or -errno */
/* Opens the folder that holds path's last name, which goes to *ret_name (a view into path); missing folders are made when mode is not 0. */
int path_open_parent(
	int root_fd, const char *path, mode_t mode, int *ret_fd, const char **ret_name);

/* ---- cgroups: one name stands for the same folder below every hierarchy in use ---- */
enum cgroup_mode { CGROUP_V1, CGROUP_V2, CGROUP_HYBRID };
struct cgroups;
struct cgroup_limits {      /* -1: leave as it is; 0: no limit */
	int64_t cpu_shares; /* v1 shares; a weight under v2 */
	int64_t cpu_quota_us, cpu_period_us;
	int64_t memory_bytes; /* swap is not given on top */
	int64_t pids;
};
#define CGROUP_LIMITS_NONE ((struct cgroup_limits){ -1, -1, -1, -1, -1 })
struct cgroup_stats {
	uint64_t cpu_ns;
	uint64_t memory_bytes, memory_working_set; /* working set: without inactive file cache */
	uint64_t pids;
};
int cgroup_open(struct cgroups **ret,
	struct err *err); /* finds what is mounted; names the controller that is missing */
void cgroup_close(struct cgroups *c);
enum cgroup_mode cgroup_mode(const struct cgroups *c);
bool cgroup_has_swap_limit(const struct cgroups *c,
	const char *name); /* does the kernel count swap, in this group at least? */
int cgroup_create(struct cgroups *c, const char *name,
	struct err *err); /* with its parents: "kubepods/burstable/podUID" */
int cgroup_set(struct cgroups *c, const char *name, const struct cgroup_limits *l, struct err *err);
int cgroup_add(struct cgroups *c, const char *name, pid_t pid, struct err *err);
int cgroup_stats(struct cgroups *c, const char *name, struct cgroup_stats *ret,
	struct err *err);                                       /* -ENOENT: no such group */
uint64_t cgroup_oom_kills(struct cgroups *c, const char *name); /* 0 when unknown */
int cgroup_kill(
	struct cgroups *c, const char *name, struct err *err); /* SIGKILL to all in it and below */
int cgroup_remove(struct cgroups *c, const char *name,
	struct err *err); /* kills, then removes it and what is below */
int cgroup_prune(struct cgroups *c, const char *name,
	struct
	err *err); /* removes it and what is below where no process is, kills nothing; -EBUSY: some is left */
bool cgroup_exists(struct cgroups *c, const char *name);
/* Of the group that is the root of all that this process sees: its limit of memory and what it uses of it. A machine's own root has no limit (0); the root
 * of a cgroup namespace may have one. */
uint64_t cgroup_root_memory(struct cgroups *c, struct cgroup_stats *ret);

/* ---- links, addresses, routes (rtnetlink) ---- */
struct netlink;
int netlink_open(struct netlink **ret,
	struct err *err); /* of the calling thread's network namespace, for good */
void netlink_close(struct netlink *n);
int link_find(struct netlink *n, const char *name, int *ret_index); /* -ENODEV */
int link_name_mtu(struct netlink *n, int index, char ret_name[16], int *ret_mtu, struct err *err);
int link_add_bridge(
	struct netlink *n, const char *name, int mtu, const uint8_t mac[6], struct err *err);
/* A pair: `name` here with hairpin-less defaults, `peer` inside netns_fd. -EEXIST when either name is taken. */
struct link_veth {
	const char *name, *peer;
	int peer_netns_fd;
	int mtu;
	const uint8_t *mac, *peer_mac; /* NULL: the kernel's choice */
};
int link_add_veth(struct netlink *n, const struct link_veth *v, struct err *err);
int link_set_up(struct netlink *n, const char *name, struct err *err);
int link_set_netns(struct netlink *n, const char *name, int netns_fd, struct err *err);
int link_delete(struct netlink *n, const char *name, struct err *err);
int address_add(struct netlink *n, const char *link, uint32_t ip, int prefix,
	struct err *err); /* addresses in network order throughout */
int address_delete(struct netlink *n, const char *link, uint32_t ip, int prefix, struct err *err);
/* gateway 0: on the link itself; link NULL: the kernel finds it by the gateway. prefix 0: the default route. Replaces what is there. */
int route_set(struct netlink *n, uint32_t destination, int prefix, uint32_t gateway,
	const char *link, struct err *err);
int route_delete(struct netlink *n, uint32_t destination, int prefix, struct err *err);
int route_default_link(struct netlink *n, int *ret_index,
	uint32_t *ret_source); /* -ENOENT: no default route; source 0: the route names none */
int neighbor_set(
	struct netlink *n, const char *link, uint32_t ip, const uint8_t mac[6], struct err *err);
int neighbor_delete(struct netlink *n, const char *link, uint32_t ip, struct err *err);

/* ---- between nodes: routes under a protocol number of their owner, VXLAN ---- */
struct route {
	uint32_t destination, gateway; /* gateway 0: on the link itself */
	int prefix;
	int link;    /* index of the link; 0: the kernel finds it by the gateway */
	bool onlink; /* the gateway counts as being on the link, whatever its address */
};
int route_put(struct netlink *n, const struct route *r, uint8_t protocol,
	struct err *err); /* replaces what is there */
int route_take(struct netlink *n, const struct route *r, uint8_t protocol,
	struct err *err); /* only when it is that protocol's */
typedef void (*route_fn)(void *arg, const struct route *r);
int route_each(struct netlink *n, uint8_t protocol, route_fn fn, void *arg,
	struct err *err); /* fn must not use n */
/* How a packet to ip would go now: *ret->gateway 0 when ip is on a link of this machine. -ENETUNREACH: no way. */
int route_find(struct netlink *n, uint32_t ip, struct route *ret);
int address_find_link(struct netlink *n, uint32_t ip,
	int *ret_index); /* the link that has this address; -ENOENT */
struct vxlan {
	const char *name;
	uint32_t vni, local; /* local: address that packets leave from */
	uint16_t port;
	int mtu;
	uint8_t mac[6];
};
/* Without learning and groups: where a packet goes is said by fdb_set alone. One that is there and differs in anything but its MTU is made anew. */
int link_add_vxlan(struct netlink *n, const struct vxlan *v, struct err *err);
int fdb_set(struct netlink *n, int link, const uint8_t mac[6], uint32_t remote, struct err *err);
int fdb_delete(struct netlink *n, int link, const uint8_t mac[6], uint32_t remote, struct err *err);
typedef void (*fdb_fn)(void *arg, const uint8_t mac[6], uint32_t remote);
int fdb_each(struct netlink *n, int link, fdb_fn fn, void *arg,
	struct err *err); /* permanent ones; fn must not use n */
typedef void (*neighbor_fn)(void *arg, uint32_t ip, const uint8_t mac[6]);
int neighbor_each(struct netlink *n, int link, neighbor_fn fn, void *arg,
	struct err *err); /* permanent ones; fn must not use n */
/* A descriptor that becomes readable when links, addresses or routes change; netlink_drain empties it. */
int netlink_monitor(int *ret_fd, struct err *err);
void netlink_drain(int fd);

/* ---- programs that look at the packets of links (eBPF, clsact) ---- */
struct bpf_insn;
struct bpf_map_spec {
	const char *name; /* up to 15 characters */
	uint32_t type;    /* BPF_MAP_TYPE_... */
	uint32_t key_size, value_size, entries;
};
int bpf_map_new(const struct bpf_map_spec *spec, int *ret_fd, struct err *err);
int bpf_program_load(const struct bpf_insn *code, size_t n, const char *name, int *ret_fd,
	struct err *err); /* the error has the verifier's reason */
enum link_side { LINK_INGRESS, LINK_EGRESS, LINK_SIDES };
/* The program sees the link's IPv4 packets, Ethernet header first; one set earlier is replaced. Programs of others stay. A link must be made to take programs
 * first (clsact): on one that is up that loses all packets for some 20 ms. LINK_TAKES_NONE: it was not made so, and make is false. -ENOENT: the kernel lacks
 * clsact or programs on links. */
#define LINK_TAKES_NONE 1
int link_program_set(struct netlink *n, int link, enum link_side side, int program_fd,
	const char *name, bool make, struct err *err);
int link_programs_remove(
	struct netlink *n, int link, const char *const names[LINK_SIDES], struct err *err);
typedef void (*link_fn)(void *arg, int index, bool ethernet);
int link_each(struct netlink *n, link_fn fn, void *arg, struct err *err); /* fn must not use n */

/* ---- nftables ---- */
/* Runs a batch of nft commands as one transaction: all of it or nothing. The error carries the kernel's or parser's first line. */
int nft_apply(const char *text, struct err *err);
int nft_read(const char *command, bool json, struct buf *ret,
	struct err *err); /* "list table inet skiff" */

/* A descriptor that becomes readable with every change of nftables; nft_monitor_lost empties it: true when tables were removed, by this process or
 * by others, so that it is time to see whether one's own are there. */
int nft_monitor(int *ret_fd, struct err *err);
bool nft_monitor_lost(int fd);

/* ---- connections that the kernel remembers: addresses in host order ---- */
struct conntrack_end {
	uint32_t ip;
	uint16_t port;
};
struct conntrack_flow {
	struct conntrack_end client, asked, answers; /* answers: who really does, after DNAT */
};
/* Forgets the flows of UDP over IPv4 for which stale says so; how many. */
int conntrack_forget_udp(bool (*stale)(void *arg, const struct conntrack_flow *flow), void *arg,
	size_t *ret_n, struct err *err);

/* ---- sysctls of the calling thread's namespaces; names with dots or slashes ---- */
/* Loads the module that brings the sysctl, where one is known; -ENOENT names it when that did not help. */
int sysctl_set(const char *name, const char *value, struct err *err);
int sysctl_get(const char *name, struct buf *ret, struct err *err);

/* ---- processes ---- */
int pidfd_of(pid_t pid);                       /* fd, or -errno (-ESRCH: gone) */
int pidfd_signal(int pidfd, int signo);        /* 0, or -errno */
int pidfd_wait(int pidfd, int64_t timeout_ms); /* 0: ended; -ETIMEDOUT; timeout < 0: for ever */
int process_start_time(pid_t pid,
	uint64_t *ret); /* in ticks since boot: with the pid it names a process for good; -ESRCH */
bool process_alive(pid_t pid, uint64_t start_time); /* the very same process, and no zombie */
void process_kill_tree(pid_t pid); /* SIGKILL to pid and all that descends from it */
/* SIGKILL to every process that has `text` in its arguments, until there is none: what a dead predecessor started and left half-way. text is an id that
 * nothing else carries. */
int process_kill_by_argument(const char *text, struct err *err);
/* The same by its environment ("NAME=value", among the first of it). */
int process_kill_by_environment(const char *text, struct err *err);
int boot_id(char ret[37], struct err *err);

#endif
