/* The request pipeline over the registry: authentication, authorization, admission, routing, content negotiation, discovery,
 * OpenAPI, watch streams, proxying to kubelets. Upstream: kube-apiserver. Does not touch disks. */
#ifndef SKIFF_APISERVER_H
#define SKIFF_APISERVER_H

#include "base/base.h"
#include "io/io.h"
#include "net/net.h"
#include "registry/registry.h"

struct apiserver;
struct apiserver_config {
	struct loop *const *loops;
	size_t n_loops;
	const char *address;
	int port;
	int listen_fd;           /* from http_listen, instead of these; 0: none */
	struct tls_context *tls; /* with client_ca_pem set: certificates authenticate */
	struct registry *registry;
	/* keys of the service account issuer (PEM private key); tokens are ES256 JWTs with upstream's claims */
	struct str service_account_key;
	const char *issuer; /* https://kubernetes.default.svc.cluster.local */
	struct str ca_pem;  /* goes into Secrets of type kubernetes.io/service-account-token */
	/* how to reach a kubelet: certificate of kube-apiserver-kubelet-client */
	struct tls_context *kubelet_tls;
	const char *git_version; /* v1.36.3+skiff… as /version says */
	bool anonymous_everywhere; /* false: anonymous reaches /livez /readyz /healthz /version only; RBAC decides otherwise */
};
/* Copies the texts of c; loops, tls contexts and registry stay the caller's. Becomes the registry's admission and token issuer. */
int apiserver_new(const struct apiserver_config *c, struct apiserver **ret, struct err *err);
int apiserver_start(struct apiserver *s, struct err *err); /* listens */
int apiserver_port(const struct apiserver *s);
void apiserver_stop(struct apiserver *s);
void apiserver_free(struct apiserver *s);
/* /readyz and /livez checks beyond its own; each named. ok is called on a loop and must not block. */
void apiserver_add_check(struct apiserver *s, const char *name, bool (*ok)(void *arg), void *arg);
/* More text for /metrics (Prometheus form), appended to out. */
void apiserver_add_metrics(
	struct apiserver *s, void (*write)(void *arg, struct buf *out), void *arg);
/* Everything in the store, of one revision, as lines of JSON: first {"revision":N,…}, then one an object, last {"objects":N}. Served at /skiff/v1/snapshot to
 * whom RBAC lets get that path; the same lines for a caller in the process. line is called for each, newline included; false ends early. */
typedef bool (*snapshot_line_fn)(void *arg, struct str line);
void apiserver_snapshot(struct store *s, snapshot_line_fn line, void *arg);
/* The handler, for clients without sockets (net.h: http_client_new_local). */
struct http_handler apiserver_handler(struct apiserver *s);

#endif
