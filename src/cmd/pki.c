/* Keys and certificates of a cluster, files under DATA/pki, and of this machine's agent, under DATA/agent.
 *
 * 1. A CA or service account key that is there is never replaced: what it signed must stay valid.
 * 2. Leaf certificates are made anew when they are missing, lack a name they need, or two thirds of their life are over. Their keys stay: a key and
 *    its certificate are two files, of which only one may change at a time.
 * 3. The CA's key is durable before it signs. The other files are made durable together, before anything uses them; one that is empty was
 *    lost in a crash before that, and counts as missing.
 * 4. Keys are readable by their process alone: pki/ by the control plane's user, agent/ by root. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cmd/cmd.h"
#include "io/io.h"

#define YEAR_S (365 * 86400LL)
#define CA_KEY "ca.key"

struct place {
	const char *dir;
	uid_t uid;
	gid_t gid;
	bool wrote;
};

static int put(struct place *pl, const char *name, struct str bytes, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/%s", pl->dir, name);
	int r = file_write_atomic(
		path, bytes, strstr(name, ".key") ? 0600 : 0644, !strcmp(name, CA_KEY), err);

	if (r < 0)
		return r;
	pl->wrote = true;
	if (pl->uid != (uid_t)-1 && chown(path, pl->uid, pl->gid) < 0)
		return err_errno(err, -errno, "cannot give %s to uid %u", path, pl->uid);
	return 0;
}

/* 1: not there. */
static int get(const struct place *pl, const char *name, struct buf *ret, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/%s", pl->dir, name);
	int r;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 1;
	r = file_read(path, 1 << 20, ret, err);
	return r == 0 && !ret->len ? 1 : r;
}

/* Once, after the last put. */
static int settle(const struct place *pl, struct err *err)
{
	return pl->wrote ? dir_sync(pl->dir, err) : 0;
}

/* As put, unless it holds these bytes already. */
static int put_changed(struct place *pl, const char *name, struct str bytes, struct err *err)
{
	CLEAN_BUF struct buf there = { 0 };

	return get(pl, name, &there, err) == 0 && str_eq(buf_str(&there), bytes)
		? 0
		: put(pl, name, bytes, err);
}

static int key_get_or_make(struct place *pl, const char *name, struct buf *ret, struct err *err)
{
	int r = get(pl, name, ret, err);

	if (r <= 0)
		return r;
	r = cert_new_key(ret, err);
	return r < 0 ? r : put(pl, name, buf_str(ret), err);
}

uint64_t pki_renewal_due_ms(struct str cert_pem)
{
	struct timestamp made, end;
	struct err err;

	if (cert_life(cert_pem, &made, &end, &err) < 0)
		return 0;
	double left = time_diff_s(end, time_now()) - time_diff_s(end, made) / 3;

	return left > 0 ? (uint64_t)(left * 1000) : 0;
}

/* The names in a server certificate are kept beside it, so that a changed address makes a new one. */
static int leaf_is_good(const struct place *pl, const char *crt, struct buf *cert, struct str names)
{
	CLEAN_FREE char *names_file = xasprintf("%s.names", crt);
	CLEAN_BUF struct buf kept = { 0 };
	struct err err;

	if (get(pl, crt, cert, &err) != 0 || get(pl, names_file, &kept, &err) != 0 ||
		!str_eq(buf_str(&kept), names))
		return 0;
	return pki_renewal_due_ms(buf_str(cert)) > 0;
}

static void describe(const struct cert_request *q, struct buf *out)
{
	buf_addf(out, "%s", q->common_name);
	for (size_t i = 0; q->organizations && q->organizations[i]; i++)
		buf_addf(out, " O=%s", q->organizations[i]);
	for (size_t i = 0; q->dns_names && q->dns_names[i]; i++)
		buf_addf(out, " DNS=%s", q->dns_names[i]);
	for (size_t i = 0; q->ip_addresses && q->ip_addresses[i]; i++)
		buf_addf(out, " IP=%s", q->ip_addresses[i]);
}

/* NAME.key and NAME.crt, signed by the CA; written only when not good as they are. */
static int leaf(struct place *pl, const char *name, const struct cert_request *q,
	const struct pki *ca, struct buf *cert, struct buf *key, struct err *err)
{
	CLEAN_FREE char *crt = xasprintf("%s.crt", name), *key_name = xasprintf("%s.key", name),
			*names_file = xasprintf("%s.crt.names", name);
	CLEAN_BUF struct buf names = { 0 };
	int r = key_get_or_make(pl, key_name, key, err);

	if (r < 0)
		return r;
	describe(q, &names);
	if (leaf_is_good(pl, crt, cert, buf_str(&names)))
		return 0;
	buf_clear(cert);
	r = cert_issue(q, buf_str(key), buf_str(&ca->ca_cert), buf_str(&ca->ca_key), cert, err);
	if (r == 0)
		r = put(pl, crt, buf_str(cert), err);
	return r < 0 ? r : put(pl, names_file, buf_str(&names), err);
}

static int ca(struct place *pl, struct pki *p, struct err *err)
{
	static const struct cert_request request = {
		.common_name = "skiff-ca", .valid_seconds = 10 * YEAR_S, .is_ca = true
	};
	int r = key_get_or_make(pl, CA_KEY, &p->ca_key, err);

	if (r < 0)
		return r;
	r = get(pl, "ca.crt", &p->ca_cert, err);
	if (r <= 0)
		return r;
	r = cert_issue(&request, buf_str(&p->ca_key), STR_NONE, STR_NONE, &p->ca_cert, err);
	return r < 0 ? r : put(pl, "ca.crt", buf_str(&p->ca_cert), err);
}

/* The first address of the service network: default/kubernetes. */
static int first_service_ip(const char *cidr, char out[INET_ADDRSTRLEN], struct err *err)
{
	CLEAN_FREE char *text = xstrdup(cidr);
	char *slash = strchr(text, '/');
	struct in_addr in;

	if (slash)
		*slash = 0;
	if (inet_pton(AF_INET, text, &in) != 1)
		return err_set(err, -EINVAL,
			"--service-cidr %s: expected an IPv4 network, as in 10.43.0.0/16", cidr);
	in.s_addr = htonl(ntohl(in.s_addr) + 1);
	inet_ntop(AF_INET, &in, out, INET_ADDRSTRLEN);
	return 0;
}

static int server_leaf(struct place *pl, const struct options *o, struct pki *p, struct err *err)
{
	char service_ip[INET_ADDRSTRLEN];
	CLEAN_FREE char *long_name = xasprintf("kubernetes.default.svc.%s", o->cluster_domain);
	const char *dns[] = { "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", long_name, o->node_name, NULL };
	const char *ips[] = { "127.0.0.1", "::1", service_ip, o->node_ip, NULL, NULL };
	struct cert_request q = { .common_name = "kube-apiserver",
		.dns_names = dns,
		.ip_addresses = ips,
		.valid_seconds = o->certificate_life,
		.server_auth = true };
	int r = first_service_ip(o->service_cidr, service_ip, err);

	if (r < 0)
		return r;
	if (o->advertise && strcmp(o->advertise, o->node_ip))
		ips[4] = o->advertise;
	return leaf(pl, "server", &q, p, &p->server_cert, &p->server_key, err);
}

static int client_leaf(struct place *pl, const char *name, const char *cn, const char *const *orgs,
	int64_t life_s, const struct pki *p, struct buf *cert, struct buf *key, struct err *err)
{
	struct cert_request q = { .common_name = cn,
		.organizations = orgs,
		.valid_seconds = life_s,
		.client_auth = true };

	return leaf(pl, name, &q, p, cert, key, err);
}

int pki_prepare(const struct options *o, uid_t uid, gid_t gid, struct pki *ret, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/pki", o->data_dir);
	static const char *const masters[] = { "system:masters", NULL };
	struct place pl = { dir, uid, gid, false };
	int r = dir_make(dir, 0750, err);

	if (r < 0)
		return r;
	if (uid != (uid_t)-1 && chown(dir, uid, gid) < 0)
		return err_errno(err, -errno, "cannot give %s to uid %u", dir, uid);
	r = ca(&pl, ret, err);
	if (r == 0)
		r = key_get_or_make(&pl, "service-account.key", &ret->service_account_key, err);
	if (r == 0)
		r = server_leaf(&pl, o, ret, err);
	if (r == 0)
		r = client_leaf(&pl, "kubelet-client", "kube-apiserver-kubelet-client", masters,
			o->certificate_life, ret, &ret->kubelet_client_cert,
			&ret->kubelet_client_key, err);
	if (r == 0) /* lies in kubeconfigs, where nobody renews it */
		r = client_leaf(&pl, "admin", "kubernetes-admin", masters, YEAR_S, ret,
			&ret->admin_cert, &ret->admin_key, err);
	return r < 0 ? r : settle(&pl, err);
}

int pki_load(const struct options *o, struct pki *ret, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/pki", o->data_dir);
	struct place pl = { .dir = dir };
	const struct {
		const char *name;
		struct buf *to;
	} files[] = {
		{ "ca.crt", &ret->ca_cert },
		{ "ca.key", &ret->ca_key },
		{ "server.crt", &ret->server_cert },
		{ "server.key", &ret->server_key },
		{ "kubelet-client.crt", &ret->kubelet_client_cert },
		{ "kubelet-client.key", &ret->kubelet_client_key },
		{ "service-account.key", &ret->service_account_key },
	};

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		int r = get(&pl, files[i].name, files[i].to, err);

		if (r > 0)
			return err_set(err, -ENOENT,
				"%s/%s is missing: `skiff server` makes it at its start", dir,
				files[i].name);
		if (r < 0)
			return r;
	}
	return 0;
}

void pki_deinit(struct pki *p)
{
	struct buf *all[] = { &p->ca_cert, &p->ca_key, &p->server_cert, &p->server_key,
		&p->kubelet_client_cert, &p->kubelet_client_key, &p->service_account_key,
		&p->admin_cert, &p->admin_key };

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		buf_deinit(all[i]);
}

int pki_prepare_agent(const struct options *o, const struct pki *p, struct err *err)
{
	static const char *const nodes[] = { "system:nodes", "skiff:server-nodes", NULL },
				 *const network[] = { "skiff:node-network", NULL };
	CLEAN_FREE char *dir = xasprintf("%s/agent", o->data_dir),
			*node_user = xasprintf("system:node:%s", o->node_name);
	CLEAN_FREE char *network_user = xasprintf("system:node-network:%s", o->node_name);
	const char *dns[] = { o->node_name, NULL }, *ips[] = { o->node_ip, NULL };
	const struct {
		const char *name;
		struct cert_request q;
	} leaves[] = {
		{ "node",
			{ .common_name = node_user, .organizations = nodes, .client_auth = true } },
		{ "network",
			{ .common_name = network_user,
				.organizations = network,
				.client_auth = true } },
		{ "kubelet",
			{ .common_name = node_user,
				.organizations = nodes,
				.dns_names = dns,
				.ip_addresses = ips,
				.server_auth = true } },
	};
	struct place pl = { dir, (uid_t)-1, (gid_t)-1, false };
	int r = dir_make(dir, 0700, err);

	if (r == 0)
		r = put_changed(&pl, "ca.crt", buf_str(&p->ca_cert), err);
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(leaves); i++) {
		CLEAN_BUF struct buf cert = { 0 }, key = { 0 };
		struct cert_request q = leaves[i].q;

		q.valid_seconds = o->certificate_life;
		r = leaf(&pl, leaves[i].name, &q, p, &cert, &key, err);
	}
	return r < 0 ? r : settle(&pl, err);
}

static void add_base64(struct buf *out, const char *indent, const char *key, struct str bytes)
{
	buf_addf(out, "%s%s: ", indent, key);
	base64_encode(out, bytes.p, bytes.len);
	buf_addc(out, '\n');
}

int kubeconfig_write(const char *path, const char *server, struct str ca_pem, struct str cert,
	struct str key, struct err *err)
{
	CLEAN_BUF struct buf b = { 0 };
	CLEAN_FREE char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	int r = 0;

	if (slash && slash != dir) {
		*slash = 0;
		r = dir_make(dir, 0755, err);
	}
	if (r < 0)
		return r;
	buf_addz(&b,
		"apiVersion: v1\nkind: Config\ncurrent-context: skiff\nclusters:\n- name: skiff\n  cluster:\n");
	buf_addf(&b, "    server: %s\n", server);
	add_base64(&b, "    ", "certificate-authority-data", ca_pem);
	buf_addz(&b,
		"contexts:\n- name: skiff\n  context:\n    cluster: skiff\n    user: admin\nusers:\n- name: admin\n  user:\n");
	add_base64(&b, "    ", "client-certificate-data", cert);
	add_base64(&b, "    ", "client-key-data", key);
	CLEAN_BUF struct buf there = { 0 };

	if (access(path, F_OK) == 0 && file_read(path, 1 << 20, &there, err) == 0 &&
		str_eq(buf_str(&there), buf_str(&b)))
		return 0;
	return file_write_atomic(path, buf_str(&b), 0600, true, err);
}
