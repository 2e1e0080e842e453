/* The command line: one row a command in main.c, one row a flag in options.c. The only folder that knows every other one. */
#ifndef SKIFF_CMD_H
#define SKIFF_CMD_H

#include "base/base.h"
#include "net/net.h"
#include "store/store.h"

#define SKIFF_VERSION "v1.36.3"

struct client;
struct loop;

struct command {
	const char *name;
	int (*run)(
		int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
	const char *summary;            /* NULL: not shown by help */
};

/* ---- options: defaults, then the file of --config, then flags ---- */
struct options {
	const char *data_dir, *listen, *kubeconfig, *store, *config;
	const char *shutdown_grace, *shutdown_grace_critical, *shutdown_grace_groups;
	const char *node_name, *node_ip, *pod_cidr, *pod_network, *service_cidr, *cluster_domain,
		*advertise;
	const char *server, *token, *user, *static_pod_dir, *pod_log_dir, *run_dir, *dns_upstreams,
		*node_labels;
	const char *output, *namespace_, *ttl, *role;
	const char *cni_conf_dir, *cni_bin_dir;
	const char *proxy_healthz, *proxy_status;
	const char *etcd_cafile, *etcd_certfile, *etcd_keyfile, *from, *to;
	const char *snapshot_every, *service_load_balancer;
	bool no_agent, replace, no_flow_cache;
	int64_t revision_jump;
	int64_t pressure_transition;
	int64_t kubelet_port, node_monitor_grace, node_lease, vxlan_port, certificate_life;
	const char *args[16]; /* what is no flag */
	size_t n_args;
	/* derived from the above by options_parse */
	char listen_host[64];
	int listen_port;
};
/* Flags that a command takes, as bits of the table's rows. */
enum option_set { OPT_SERVER = 1, OPT_AGENT = 2, OPT_CLIENT = 4, OPT_STORE = 8, OPT_SNAPSHOT = 16 };
/* Prints the mistake, with the remedy, and returns -EINVAL; > 0 after --help was answered. Texts stay valid for the process' life. */
int options_parse(struct options *o, enum option_set set, int argc, char **argv);
/* Fills in what depends on the machine: node name and address, the default kubeconfig, the folder of static pods. */
int options_complete(struct options *o, struct err *err);
/* The command line that gives these options to another process: {"skiff", command, "--flag=value", …, NULL}; owned. */
char **options_argv(const struct options *o, enum option_set set, const char *command);

/* Exit status of a process that would fail the same way again (a port in use, a damaged store): the supervisor then ends too. */
#define EXIT_FINAL 3

/* ---- keys, certificates and kubeconfigs of a cluster, under DATA/pki (credentials of the agent under DATA/agent) ---- */
struct pki {
	struct buf ca_cert, ca_key;                         /* signs servers and clients */
	struct buf server_cert, server_key;                 /* of the API server */
	struct buf kubelet_client_cert, kubelet_client_key; /* the API server towards kubelets */
	struct buf service_account_key;
	struct buf admin_cert, admin_key; /* system:masters */
};
/* Loads what is there, makes what is not or is due for renewal. Files belong to uid:gid (-1: to who makes them). */
int pki_prepare(const struct options *o, uid_t uid, gid_t gid, struct pki *ret, struct err *err);
/* Milliseconds until two thirds of a certificate's life are over; 0: they are, or it cannot be read. */
uint64_t pki_renewal_due_ms(struct str cert_pem);
int pki_load(const struct options *o, struct pki *ret, struct err *err);
void pki_deinit(struct pki *p);
/* Credentials of this machine's agent: DATA/agent/{node,network,kubelet}.{crt,key} and ca.crt. */
int pki_prepare_agent(const struct options *o, const struct pki *p, struct err *err);
int kubeconfig_write(const char *path, const char *server, struct str ca, struct str cert,
	struct str key, struct err *err);

/* ---- the store that --store names ---- */
struct cmd_store {
	struct store *store;
	struct store_shared_config shared; /* of etcd */
	void (*on_wait)(
		void); /* called when etcd does not answer and is waited for; NULL: nothing */
};
/* Stays at its address until it is closed. */
int cmd_store_open(const struct options *o, struct cmd_store *ret, struct err *err);
void cmd_store_close(struct cmd_store *s); /* zeroed or half open is fine */
struct etcd;
/* etcd alone, by the text behind "etcd="; remember: it is this data folder's from now on. */
int cmd_etcd_open(const struct options *o, struct str urls, bool remember, struct etcd **ret,
	struct err *err);

/* ---- several API servers on one store (masters.c) ---- */
struct masters;
/* Tells of this one, and keeps the endpoints of default/kubernetes to those that live. All listen on one port. */
int masters_start(
	struct client *c, const char *address, int port, struct masters **ret, struct err *err);
void masters_stop(struct masters *m); /* takes this one out; NULL is fine */

/* ---- the processes ---- */
void memory_setup(void);                      /* memory.c; before the first thread */
void memory_drop_code(void);                  /* what ran so far is not needed again soon */
void memory_trim_start(struct loop *l);       /* gives free memory back, for the process' life */
int cmd_server(int argc, char **argv);        /* supervisor.c */
int cmd_control_plane(int argc, char **argv); /* control_plane.c */
int cmd_agent(int argc, char **argv);         /* agent.c */
int cmd_status(int argc, char **argv);
int cmd_why(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_uninstall(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_migrate(int argc, char **argv); /* migrate.c: `skiff store migrate` */

/* ---- another build takes over (handover.c) ---- */
void handover_begin(char **argv); /* first of all; argv of the whole process */
int handover_number(
	const char *name);         /* what the predecessor handed over; 0: nothing of that name */
int handover_fd(const char *name); /* a descriptor, closed on exec from now on; 0: none */
void handover_reap(
	void); /* waits for processes that the predecessor started, on a thread of its own */
/* Whether what lies where this program was started from can be run, and the version that it tells. */
int handover_check(char **ret_version, struct err *err);
struct handover {
	const char *name;
	int number; /* a descriptor, or a process id; 0: left out */
	bool is_pid;
};
/* Becomes that program. Comes back only when it cannot be started; then all is as before. */
int handover_exec(const struct handover *h, size_t n, struct err *err);
void handover_pass(const struct handover *h, size_t n); /* for an execv of the caller's own */

/* ---- joining ---- */
#define TOKEN_TEXT 24
/* A new bootstrap token ID.SECRET; ttl_s 0: for ever. */
int token_make(struct client *c, int64_t ttl_s, char ret[TOKEN_TEXT], struct err *err);
/* The join line's token, ID.SECRET: one that is good for a while (or a new one), marked by a label. *ret_left_s: how long it may be given out. */
int token_standing(struct client *c, char ret[TOKEN_TEXT], int64_t *ret_left_s, struct err *err);
/* A client with a token, of the server whose CA has this pin; ret_ca may be NULL. -EACCES: another cluster's. */
int join_connect(const char *server, struct str bearer, struct str pin, struct buf *ret_ca,
	struct client **ret, struct err *err);
/* ---- a further server (server_join.c) ---- */
struct core_v1_secret;
/* Puts DATA/pki, sealed with the key, where the holder of this bootstrap token finds it. */
int server_keys_publish(struct client *c, const char *data_dir, const struct core_v1_secret *token,
	struct str id, struct str key, struct err *err);
int server_keys_seal(struct str key, struct str id, struct str plain, struct buf *ret);
int server_keys_open(struct str key, struct str id, struct str sealed,
	struct buf *ret); /* -EBADMSG: another key or ID, or damaged */
/* With --server and --token: DATA/pki, unless it is there. Blocking. -EACCES: refused, with the reason. */
int server_join(const struct options *o, uid_t uid, gid_t gid, struct err *err);

/* What an agent shows: as node (the kubelet), as the node's network (proxy, DNS, routes, policies), and as the server of the node API. */
enum agent_credential { CREDENTIAL_NODE, CREDENTIAL_NETWORK, CREDENTIAL_KUBELET, N_CREDENTIALS };
/* DATA/agent/{ca.crt,node.crt,node.key}: there already, or got with --token. Blocking. -EACCES: refused, with the reason. */
int join_client_certificate(const struct options *o, struct err *err);
/* DATA/agent/{network,kubelet}.{crt,key}: there already, or asked for as the node. Blocking. */
int join_certificate(const struct options *o, enum agent_credential which,
	struct client *node_client, struct err *err);
const char *join_certificate_name(enum agent_credential which); /* node, network, kubelet */
/* Renews them in time, for the process' life. on_renewed is called on a thread of its own, when the files are new; both clients go on with them. */
struct renewal_config {
	const struct options *options;
	struct loop *loop;
	struct client *node_client;
	int (*on_renewed)(void *arg, enum agent_credential which, struct err *err);
	void *arg;
};
void renewal_start(const struct renewal_config *c); /* renewal.c; on the loop or before it runs */

/* The admin's client from --kubeconfig, $KUBECONFIG, or the default place. */
int cmd_client(const struct options *o, struct client **ret, struct err *err);
/* Prints "skiff NAME: text" on standard error; returns `status`. */
int cmd_fail(const char *name, const struct err *err, int status);
/* The first address of this machine that is not loopback (by the default route when there is one), and its host name in lower case. */
int machine_address(char out[64], struct err *err);
int machine_name(char out[64], struct err *err);
/* Networks of pods and services, and this machine's address, that overlap (networks.c): -EINVAL, with both. Of the cluster; of one node's pods. */
int networks_check(const struct options *o, struct err *err);
int networks_check_node(const struct options *o, const char *pod_cidr, struct err *err);

#endif
