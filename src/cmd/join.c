/* How a machine becomes a node: TLS bootstrap as upstream does it. The token's pin tells the CA, the token itself lets it ask for a client certificate
 * (CertificateSigningRequest of signer kube-apiserver-client-kubelet), and with that one it asks for its serving certificate. All that is got lies
 * under DATA/agent, so that the token is needed once. */
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "client/client.h"
#include "cmd/cmd.h"
#include "gen/types.h"

#define WAIT_S 60
#define RENEW_BEFORE_S (30 * 86400)

struct csr_wait {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char *certificate; /* PEM; owned */
	char *refusal;
};

static void on_csr(void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct certificates_v1_certificate_signing_request *o = now ? now->obj : NULL;
	struct csr_wait *w = arg;

	pthread_mutex_lock(&w->lock);
	if (!o) {
		if (!w->refusal)
			w->refusal = xstrdup("the request was deleted");
	} else {
		if (o->status.certificate.len && !w->certificate)
			w->certificate = str_dup(o->status.certificate);
		LIST_EACH(c, &o->status.conditions) {
			if ((str_eqz(c->type, "Denied") || str_eqz(c->type, "Failed")) && !w->refusal)
				w->refusal = xasprintf(STR_FMT ": " STR_FMT, STR_ARG(c->reason), STR_ARG(c->message));
		}
	}
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* Posts the request and waits, by a watch, for its certificate. */
static int request_certificate(struct client *c, const char *signer, const char *const *usages, struct str csr_pem, struct buf *ret_cert, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct certificates_v1_certificate_signing_request *q = model_new(&certificates_v1_certificate_signing_request_type, a), *made;
	struct csr_wait w = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	struct timespec until;
	struct informer *i;
	int r;

	q->metadata.generate_name = STR("node-csr-");
	q->spec.signer_name = str_of(signer);
	q->spec.request = csr_pem;
	for (; *usages; usages++)
		*LIST_ADD(a, &q->spec.usages) = str_of(*usages);
	r = client_create(c, &certificates_v1_certificate_signing_request_type, STR_NONE, q, a, (void **)&made, err);
	if (r)
		return r < 0 ? r : -EACCES;
	struct informer_config ic = { .client = c, .type = &certificates_v1_certificate_signing_request_type,
		.field_selector = arena_fmt(a, "metadata.name=" STR_FMT, STR_ARG(made->metadata.name)).p };

	i = informer_new(&ic);
	informer_add_handler(i, on_csr, &w);
	r = informer_start(i, err);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&w.lock);
	while (r == 0 && !w.certificate && !w.refusal)
		r = -pthread_cond_timedwait(&w.changed, &w.lock, &until);
	pthread_mutex_unlock(&w.lock);
	informer_stop(i);
	informer_free(i);
	if (w.certificate) {
		buf_addz(ret_cert, w.certificate);
		r = 0;
	} else if (w.refusal) {
		r = err_set(err, -EACCES, "certificate request " STR_FMT " was refused: %s", STR_ARG(made->metadata.name), w.refusal);
	} else {
		r = err_set(err, -ETIMEDOUT, "certificate request " STR_FMT " was not signed within %d s: `kubectl get csr` shows it, "
			"`kubectl certificate approve` lets it pass", STR_ARG(made->metadata.name), WAIT_S);
	}
	free(w.certificate);
	free(w.refusal);
	return r;
}

static int put(const struct options *o, const char *name, struct str bytes, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/agent/%s", o->data_dir, name);

	return file_write_atomic(path, bytes, strstr(name, ".key") ? 0600 : 0644, true, err);
}

static int get(const struct options *o, const char *name, struct buf *ret, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/agent/%s", o->data_dir, name);

	return file_read(path, 1 << 20, ret, err);
}

/* There, and good for a while. */
static bool have_certificate(const struct options *o, const char *name)
{
	CLEAN_BUF struct buf pem = {0};
	struct timestamp end;
	struct err err;

	return get(o, name, &pem, &err) == 0 && cert_not_after(buf_str(&pem), &end, &err) == 0 && time_diff_s(end, time_now()) > 0;
}

/* Makes a key, asks for a certificate, keeps both as NAME.key and NAME.crt. */
static int obtain(const struct options *o, struct client *c, const char *name, const char *signer, const char *const *usages, const struct cert_request *q,
	struct err *err)
{
	CLEAN_FREE char *key_file = xasprintf("%s.key", name), *crt_file = xasprintf("%s.crt", name);
	CLEAN_BUF struct buf key = {0}, csr = {0}, cert = {0};
	int r = cert_new_key(&key, err);

	if (r == 0)
		r = cert_make_csr(q, buf_str(&key), &csr, err);
	if (r == 0)
		r = request_certificate(c, signer, usages, buf_str(&csr), &cert, err);
	if (r == 0)
		r = put(o, key_file, buf_str(&key), err);
	return r < 0 ? r : put(o, crt_file, buf_str(&cert), err);
}

/* ---- with the token ---- */

static int token_client(const struct options *o, struct client **ret, struct err *err)
{
	CLEAN_BUF struct buf ca = {0};
	struct client_config cc = { .user_agent = "skiff/" SKIFF_VERSION " join" };
	struct tls_client_config tc;
	struct tls_context *tls;
	struct str bearer, pin;
	int r;

	if (!o->token)
		return err_set(err, -EINVAL, "this machine has not joined yet: give --token; `skiff token create` on the server prints the whole line");
	if (!str_cut(str_of(o->token), ':', &bearer, &pin) || pin.len != 64)
		return err_set(err, -EINVAL, "--token: expected ID.SECRET:PIN, as `skiff token create` prints it");
	r = tls_fetch_ca(o->server, pin, 10000, &ca, err);
	if (r == 0)
		r = put(o, "ca.crt", buf_str(&ca), err);
	if (r < 0)
		return r;
	tc = (struct tls_client_config){ .ca_pem = buf_str(&ca) };
	r = tls_client_new(&tc, &tls, err);
	if (r == 0)
		r = http_client_new(o->server, tls, &cc.http, err);
	if (r < 0)
		return r;
	http_client_set_bearer(cc.http, bearer);
	*ret = client_new(&cc);
	return 0;
}

int join_client_certificate(const struct options *o, struct err *err)
{
	static const char *const usages[] = { "digital signature", "client auth", NULL };
	CLEAN_FREE char *dir = xasprintf("%s/agent", o->data_dir), *user = xasprintf("system:node:%s", o->node_name);
	const char *organizations[] = { "system:nodes", NULL };
	struct cert_request q = { .common_name = user, .organizations = organizations };
	struct client *c = NULL;
	int r;

	if (have_certificate(o, "node.crt") && have_certificate(o, "ca.crt"))
		return 0;
	r = dir_make(dir, 0700, err);
	if (r == 0)
		r = token_client(o, &c, err);
	if (r < 0)
		return r;
	r = obtain(o, c, "node", "kubernetes.io/kube-apiserver-client-kubelet", usages, &q, err);
	client_free(c);
	if (r == 0)
		log_info("agent", "joined %s as node %s", o->server, o->node_name);
	return r;
}

int join_serving_certificate(const struct options *o, struct client *node_client, struct err *err)
{
	static const char *const usages[] = { "digital signature", "server auth", NULL };
	CLEAN_FREE char *user = xasprintf("system:node:%s", o->node_name);
	const char *organizations[] = { "system:nodes", NULL }, *dns[] = { o->node_name, NULL }, *ips[] = { o->node_ip, NULL };
	struct cert_request q = { .common_name = user, .organizations = organizations, .dns_names = dns, .ip_addresses = ips };

	if (have_certificate(o, "kubelet.crt"))
		return 0;
	return obtain(o, node_client, "kubelet", "kubernetes.io/kubelet-serving", usages, &q, err);
}
