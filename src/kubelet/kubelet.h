/* The node agent: turns the pods bound to this node, and the static ones in a folder, into running containers, and says how they are.
 * Upstream: kubelet. Everything about running is the engine's; everything about the cluster goes through the client. */
#ifndef SKIFF_KUBELET_H
#define SKIFF_KUBELET_H

#include "client/client.h"
#include "engine/engine.h"
#include "io/io.h"
#include "net/net.h"

/* How long pods are given when the node shuts down, by their priority; none: no time. */
struct kubelet_shutdown_group {
	int32_t priority; /* pods of at least this, and less than the next */
	int64_t seconds;
};
struct kubelet_shutdown_groups {
	struct kubelet_shutdown_group items[16]; /* by rising priority */
	size_t len;
};
/* From the values of --shutdown-grace-period, --shutdown-grace-period-critical-pods and --shutdown-grace-period-by-pod-priority (NULL: not given). */
int kubelet_shutdown_groups(const char *total, const char *critical, const char *groups,
	struct kubelet_shutdown_groups *ret, struct err *err);

struct kubelet_config {
	struct client *client;
	struct engine *engine;
	struct loop *loop; /* node API server, timers, inotify */
	const struct clock *clock;
	const char *node_name, *node_ip;
	const char *root_dir;       /* /var/lib/skiff/kubelet: pods/UID/volumes, checkpoints */
	const char *pod_log_dir;    /* /var/log/pods */
	const char *node_log_dir;   /* what /logs/ of the node API shows; NULL: /var/log */
	const char *static_pod_dir; /* NULL: none */
	const char *cluster_dns, *cluster_domain; /* 10.43.0.10, cluster.local */
	int max_pods;                             /* 0: 110 */
	int lease_seconds;   /* that the node's lease lasts, renewed every quarter of it; 0: 40 */
	const char *address; /* of the node API; NULL: 0.0.0.0 */
	int port;            /* 0: 10250 */
	int listen_fd;       /* from http_listen, instead of these; 0: none */
	struct tls_context *serving_tls; /* with the cluster CA as client CA */
	const char *version;             /* v1.36.3 */
	const char *provider_id;         /* NULL: none */
	const char *labels;              /* k=v,k=v for the node at registration; NULL */
	bool no_cgroups; /* the engine is not of this machine (fake): leave its cgroups alone */
	struct informer *
		services; /* of all namespaces, started by whoever shares it; NULL: one of its own */
	/* The pod network. network_ready is called for a pod that is on it, with its sandbox made, before any of its containers starts; none starts until it
	 * returns 0. network_gone: its sandbox is gone. NULL: nobody wants to know. */
	int (*network_ready)(void *arg, const struct core_v1_pod *pod, const char *ip,
		const char *second_ip, struct err *err);
	void (*network_gone)(void *arg, struct str uid);
	void *network_arg;
	struct kubelet_shutdown_groups shutdown;
	int64_t pressure_transition_s; /* a condition of pressure stays this long after the last sign of it; 0: 300 */
};
/* What it may leave outside of its folders: how long logind waits. */
#define KUBELET_LOGIND_CONFIG "/etc/systemd/logind.conf.d/99-skiff.conf"
struct kubelet;
int kubelet_new(const struct kubelet_config *c, struct kubelet **ret, struct err *err);
int kubelet_start(struct kubelet *k, struct err *err);
void kubelet_stop(struct kubelet *k); /* containers keep running */
void kubelet_free(
	struct kubelet *k); /* waits for what is being stopped just now; its loop must still run */
#endif
