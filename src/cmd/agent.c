/* The agent's process: engine, kubelet, pod network, service proxy and DNS, wired. To the API server it is two: system:node:NAME, which is the kubelet
 * and sees what concerns this node, and system:node-network:NAME, which sees what every node must know to carry traffic and can change nothing.
 *
 * The pod network of this node comes from its Node object (spec.podCIDR, given by the node IPAM controller) and is kept in a file, so that
 * a restart needs no API server to run pods. */
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "client/client.h"
#include "cmd/cmd.h"
#include "dns/dns.h"
#include "engine/engine.h"
#include "gen/types.h"
#include "kubelet/kubelet.h"
#include "network/network.h"
#include "proxy/proxy.h"

#define NODE_API_ADDRESS "0.0.0.0"
#define BRIDGE "skiff0"
#define DNS_HOST_NUMBER 10 /* the cluster DNS is the tenth address of the service network */

struct agent {
	struct options options;
	struct loop *main, *loop;
	struct client *node_client, *network_client;
	struct engine *engine;
	struct kubelet *kubelet;
	struct service_view view;
	enum network_mode network_mode;
	bool cni; /* plugins attach pods */
	struct network *network;
	struct proxy *proxy;
	struct dns *dns;
	struct tls_context *tls[N_CREDENTIALS];
	char dns_address[64], pod_cidr[64];
	int node_api_fd;
};

static int read_credential(
	const struct agent *a, const char *name, struct buf *ret, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/agent/%s", a->options.data_dir, name);
	int r = file_read(path, 1 << 20, ret, err);

	return r == -ENOENT
		? err_set(err, r,
			  "%s is missing: the server that runs beside this agent makes it; elsewhere `skiff agent --server … --token …` gets it",
			  path)
		: r;
}

/* Certificate and key of one name; the CA. */
struct credential {
	struct buf ca, cert, key;
};

static void credential_deinit(struct credential *c)
{
	buf_deinit(&c->ca);
	buf_deinit(&c->cert);
	buf_deinit(&c->key);
}

static int credential_read(
	const struct agent *a, enum agent_credential which, struct credential *ret, struct err *err)
{
	CLEAN_FREE char *crt = xasprintf("%s.crt", join_certificate_name(which)),
			*key = xasprintf("%s.key", join_certificate_name(which));
	int r = read_credential(a, "ca.crt", &ret->ca, err);

	if (r == 0)
		r = read_credential(a, crt, &ret->cert, err);
	return r < 0 ? r : read_credential(a, key, &ret->key, err);
}

/* Makes the TLS context of a credential, or gives it the new certificate. */
static int use_credential(struct agent *a, enum agent_credential which, struct err *err)
{
	CLEANUP(credential_deinit) struct credential c = { 0 };
	int r = credential_read(a, which, &c, err);
	struct tls_context **tls = &a->tls[which];

	if (r < 0)
		return r;
	if (which == CREDENTIAL_KUBELET) {
		struct tls_server_config tc = { .cert_pem = buf_str(&c.cert),
			.key_pem = buf_str(&c.key),
			.client_ca_pem = buf_str(&c.ca),
			.http2 = true };

		return *tls ? tls_server_update(*tls, &tc, err) : tls_server_new(&tc, tls, err);
	}
	struct tls_client_config tc = {
		.ca_pem = buf_str(&c.ca), .cert_pem = buf_str(&c.cert), .key_pem = buf_str(&c.key)
	};

	return *tls ? tls_client_update(*tls, &tc, err) : tls_client_new(&tc, tls, err);
}

static int make_client(struct agent *a, enum agent_credential which, const char *user_agent,
	struct client **ret, struct err *err)
{
	struct client_config cc = { .user_agent = user_agent };
	int r = use_credential(a, which, err);

	if (r == 0)
		r = http_client_new(a->options.server, a->tls[which], &cc.http, err);
	if (r == 0)
		*ret = client_new(&cc);
	return r;
}

static int on_renewed(void *arg, enum agent_credential which, struct err *err)
{
	return use_credential(arg, which, err);
}

/* What the machine shows to others, got first where it is not there yet. */
static int make_clients(struct agent *a, struct err *err)
{
	int r = join_client_certificate(&a->options, err);

	if (r == 0)
		r = make_client(
			a, CREDENTIAL_NODE, "skiff/" SKIFF_VERSION " agent", &a->node_client, err);
	if (r == 0)
		r = join_certificate(&a->options, CREDENTIAL_NETWORK, a->node_client, err);
	if (r == 0)
		r = make_client(a, CREDENTIAL_NETWORK, "skiff/" SKIFF_VERSION " network",
			&a->network_client, err);
	if (r == 0)
		r = join_certificate(&a->options, CREDENTIAL_KUBELET, a->node_client, err);
	return r < 0 ? r : use_credential(a, CREDENTIAL_KUBELET, err);
}

static int cidr_host(const char *cidr, uint32_t number, char out[64], struct err *err)
{
	unsigned b[4], bits;

	if (sscanf(cidr, "%u.%u.%u.%u/%u", &b[0], &b[1], &b[2], &b[3], &bits) != 5 || bits > 30)
		return err_set(
			err, -EINVAL, "%s: expected an IPv4 network, as in 10.43.0.0/16", cidr);
	snprintf(out, 64, "%u.%u.%u.%u", b[0] & 255, b[1] & 255, b[2] & 255, (b[3] & 255) + number);
	return 0;
}

/* ---- the node's share of the pod network ---- */

struct cidr_wait {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char cidr[64];
};

static void on_node(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct cidr_wait *w = arg;
	const struct core_v1_node *n = now ? now->obj : NULL;

	if (!n || !n->spec.pod_cidr.len)
		return;
	pthread_mutex_lock(&w->lock);
	snprintf(w->cidr, sizeof(w->cidr), STR_FMT, STR_ARG(n->spec.pod_cidr));
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* A node that is not there is made with its name alone: the kubelet fills it in when it registers. */
static int make_node(struct agent *a, struct err *err)
{
	CLEAN_ARENA struct arena *arena = arena_new(0);
	struct core_v1_node *n = model_new(&core_v1_node_type, arena);
	int r;

	n->metadata.name = str_of(a->options.node_name);
	str_map_set(arena, &n->metadata.labels, STR("kubernetes.io/hostname"), n->metadata.name);
	r = client_create(a->node_client, &core_v1_node_type, STR_NONE, n, arena, NULL, err);
	return r == CLIENT_EXISTS ? 0 : r;
}

/* Waits, by a watch, until the node has its pod network. The API server may still be starting: the first call is tried again with back-off. */
static int ask_pod_cidr(struct agent *a, struct err *err)
{
	CLEAN_FREE char *selector = xasprintf("metadata.name=%s", a->options.node_name);
	struct cidr_wait w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, "" };
	struct informer_config ic = {
		.client = a->node_client, .type = &core_v1_node_type, .field_selector = selector
	};
	struct informer *i;
	unsigned pause_ms = 20;
	int r;

	while ((r = make_node(a, err)) != 0) {
		if (r == CLIENT_FORBIDDEN || r == CLIENT_UNAUTHORIZED || r == CLIENT_INVALID)
			return -EACCES;
		log_debug("agent", "the API server does not answer yet: %s", err->text);
		usleep(pause_ms * 1000);
		pause_ms = MIN(pause_ms * 2, 5000);
	}
	i = informer_new(&ic);
	informer_add_handler(i, on_node, &w);
	r = informer_start(i, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&w.lock);
	while (!w.cidr[0])
		pthread_cond_wait(&w.changed, &w.lock);
	snprintf(a->pod_cidr, sizeof(a->pod_cidr), "%s", w.cidr);
	pthread_mutex_unlock(&w.lock);
	informer_stop(i);
	informer_free(i);
	return 0;
}

/* Under `--pod-network cni` addresses are the plugins' business, and the node may never get a range. */
static int find_pod_cidr(struct agent *a, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/agent/pod-cidr", a->options.data_dir);
	CLEAN_BUF struct buf kept = { 0 };
	int r;

	if (a->cni && a->network_mode == NETWORK_NONE)
		return 0;
	if (file_read(path, 63, &kept, err) == 0 && kept.len) {
		snprintf(a->pod_cidr, sizeof(a->pod_cidr), STR_FMT,
			STR_ARG(str_trim(buf_str(&kept))));
		r = networks_check_node(&a->options, a->pod_cidr, err);
		if (r < 0)
			unlink(path); /* the next start asks for another one */
		return r;
	}
	r = ask_pod_cidr(a, err);
	if (r == 0)
		r = networks_check_node(&a->options, a->pod_cidr, err);
	return r < 0 ? r : file_write_atomic(path, str_of(a->pod_cidr), 0644, true, err);
}

/* Sandboxes are made by the kubelet, which starts after the pod network. */
static void link_made(void *arg, const char *link)
{
	const struct agent *a = arg;

	if (a->network)
		network_link_made(a->network, link);
}

static int start_engine(struct agent *a, struct err *err)
{
	CLEAN_FREE char *root = xasprintf("%s/engine", a->options.data_dir),
			*run = xasprintf("%s/engine", a->options.run_dir);
	struct engine_local_config ec = { .root = root,
		.run = run,
		.pod_cidr = a->pod_cidr,
		.bridge = BRIDGE,
		.cluster_cidr = a->options.pod_cidr,
		.cni_conf_dir = a->cni ? a->options.cni_conf_dir : NULL,
		.cni_bin_dirs = a->options.cni_bin_dir,
		.mtu = network_pod_mtu(a->network_mode, a->options.node_ip),
		.link_made = link_made,
		.link_made_arg = a };

	return engine_local_new(&ec, &a->engine, err);
}

static void pod_cidr_changed(void *arg, const char *cidr)
{
	struct agent *a = arg;
	CLEAN_FREE char *path = xasprintf("%s/agent/pod-cidr", a->options.data_dir);
	struct err err = { 0 };
	int r = networks_check_node(&a->options, cidr, &err);

	if (r == 0 && !a->cni)
		r = engine_local_set_pod_cidr(a->engine, cidr, &err);
	if (r == 0)
		r = file_write_atomic(path, str_of(cidr), 0644, true, &err);
	if (r < 0)
		log_error("agent", "pods get no addresses of %s: %s", cidr, err.text);
}

static int start_pod_network(struct agent *a, struct err *err)
{
	struct network_config nc = { .client = a->network_client,
		.node_name = a->options.node_name,
		.node_ip = a->options.node_ip,
		.pod_cidr = a->pod_cidr,
		.service_cidr = a->options.service_cidr,
		.plugins = a->cni,
		.dns_address = a->dns_address,
		.mode = a->network_mode,
		.vxlan_port = (uint16_t)a->options.vxlan_port,
		.no_flow_cache = a->options.no_flow_cache,
		.pod_cidr_changed = pod_cidr_changed,
		.arg = a };
	int r = network_new(&nc, &a->network, err);

	return r < 0 ? r : network_start(a->network, err);
}

static int pod_on_network(void *arg, const struct core_v1_pod *pod, const char *ip,
	const char *second_ip, struct err *err)
{
	return network_pod_ready(arg, pod, ip, second_ip, err);
}

static void pod_off_network(void *arg, struct str uid)
{
	network_pod_gone(arg, uid);
}

/* A predecessor's socket, or one of our own. */
static int listen_node_api(struct agent *a, struct err *err)
{
	int fd = handover_fd("node-api"), port = (int)a->options.kubelet_port;

	if (fd > 0 && http_listens_on(fd, NODE_API_ADDRESS, port)) {
		a->node_api_fd = fd;
		return 0;
	}
	if (fd > 0)
		close(fd);
	return http_listen(NODE_API_ADDRESS, port, &a->node_api_fd, err);
}

static int start_kubelet(struct agent *a, struct err *err)
{
	CLEAN_FREE char *root = xasprintf("%s/kubelet", a->options.data_dir);
	int r = listen_node_api(a, err);
	struct kubelet_config kc = { .client = a->node_client,
		.engine = a->engine,
		.loop = a->loop,
		.clock = &clock_real,
		.node_name = a->options.node_name,
		.node_ip = a->options.node_ip,
		.root_dir = root,
		.pod_log_dir = a->options.pod_log_dir,
		.static_pod_dir = a->options.static_pod_dir,
		.cluster_dns = a->dns_address,
		.cluster_domain = a->options.cluster_domain,
		.port = (int)a->options.kubelet_port,
		.listen_fd = a->node_api_fd,
		.lease_seconds = (int)a->options.node_lease,
		.serving_tls = a->tls[CREDENTIAL_KUBELET],
		.version = SKIFF_VERSION,
		.pressure_transition_s = a->options.pressure_transition,
		.labels = a->options.node_labels,
		.services = a->view.services,
		.network_ready = pod_on_network,
		.network_gone = pod_off_network,
		.network_arg = a->network };

	if (r == 0)
		r = dir_make(a->options.static_pod_dir, 0755, err);
	if (r == 0)
		r = kubelet_shutdown_groups(a->options.shutdown_grace,
			a->options.shutdown_grace_critical, a->options.shutdown_grace_groups,
			&kc.shutdown, err);
	if (r == 0)
		r = kubelet_new(&kc, &a->kubelet, err);
	return r < 0 ? r : kubelet_start(a->kubelet, err);
}

/* The API servers of the cluster, as service default/kubernetes lists them: when one dies, the agent goes on with another. */
static void on_slice(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct discovery_v1_endpoint_slice *s = now ? now->obj : NULL;
	CLEAN_ARENA struct arena *arena = arena_new(0);
	struct agent *a = arg;
	struct str_list places = { 0 };

	if (!s || !str_eqz(slice_service_key(s, arena), "default/kubernetes") || !s->ports.len ||
		!s->ports.items[0].port.set)
		return;
	LIST_EACH(e, &s->endpoints)
		LIST_EACH(ip, &e->addresses)
			*LIST_ADD(arena, &places) = arena_fmt(
				arena, STR_FMT ":%d", STR_ARG(*ip), s->ports.items[0].port.value);
	http_client_set_alternatives(client_http(a->node_client), places.items, places.len);
	http_client_set_alternatives(client_http(a->network_client), places.items, places.len);
}

static int start_network(struct agent *a, struct err *err)
{
	struct proxy_config pc = { .client = a->network_client,
		.loop = a->loop,
		.healthz_address = a->options.proxy_healthz,
		.status_address = a->options.proxy_status,
		.view = &a->view,
		.node_name = a->options.node_name,
		.node_ip = a->options.node_ip,
		.cluster_cidr = a->options.pod_cidr,
		.service_cidr = a->options.service_cidr,
		.dns_address = a->dns_address };
	struct dns_config dc = { .view = &a->view,
		.address = a->dns_address,
		.port = 53,
		.domain = a->options.cluster_domain,
		.upstreams = a->options.dns_upstreams,
		.udp_fd = handover_fd("dns-udp"),
		.tcp_fd = handover_fd("dns-tcp") };
	int r;

	service_view_init(&a->view, a->network_client);
	informer_add_handler(a->view.slices, on_slice, a);
	r = proxy_new(&pc, &a->proxy, err);
	if (r == 0)
		r = dns_new(&dc, &a->dns, err);
	if (r == 0)
		r = service_view_start(&a->view, err);
	if (r == 0)
		r = proxy_start(a->proxy, err);
	return r < 0 ? r : dns_start(a->dns, err);
}

static void stop(void *arg)
{
	struct agent *a = arg;

	loop_stop(a->main);
}

/* Nothing is stopped first: what an agent leaves behind at any moment is what its next one finds, and containers are not the agent's. */
static void hand_over(void *arg)
{
	struct agent *a = arg;
	struct handover h[] = { { "dns-udp" }, { "dns-tcp" }, { "node-api", a->node_api_fd } };
	CLEAN_FREE char *version = NULL;
	struct err err = { 0 };
	int r = handover_check(&version, &err);

	dns_sockets(a->dns, &h[0].number, &h[1].number);
	if (r == 0) {
		log_info("agent", "%s takes over; containers keep running", version);
		r = handover_exec(h, ARRAY_LEN(h), &err);
	}
	log_error("agent", "no other build takes over: %s", err.text);
}

static int run(struct agent *a, struct err *err)
{
	struct signal_watch *term, *interrupt, *hangup;
	int r = loop_new("main", &a->main, err);

	handover_reap();

	if (r == 0)
		r = loop_new("node", &a->loop, err);
	if (r == 0)
		r = loop_start(a->loop, err);
	if (r == 0)
		r = network_mode_parse(a->options.pod_network, &a->network_mode, &a->cni, err);
	if (r == 0)
		r = cidr_host(a->options.service_cidr, DNS_HOST_NUMBER, a->dns_address, err);
	if (r == 0)
		r = make_clients(a, err);
	if (r == 0)
		r = find_pod_cidr(a, err);
	if (r == 0)
		r = start_engine(a, err);
	if (r == 0)
		r = start_pod_network(a, err);
	if (r == 0)
		r = start_network(a, err);
	if (r == 0)
		r = start_kubelet(a, err);
	if (r == 0)
		r = signal_watch_new(a->main, SIGTERM, stop, a, &term, err);
	if (r == 0)
		r = signal_watch_new(a->main, SIGINT, stop, a, &interrupt, err);
	if (r == 0)
		r = signal_watch_new(a->main, SIGHUP, hand_over, a, &hangup, err);
	if (r < 0)
		return r;
	log_info("agent", "node %s (%s) runs pods of %s", a->options.node_name, a->options.node_ip,
		a->pod_cidr[0] ? a->pod_cidr : "addresses that CNI plugins give");
	renewal_start(&(struct renewal_config){ .options = &a->options,
		.loop = a->main,
		.node_client = a->node_client,
		.on_renewed = on_renewed,
		.arg = a });
	memory_trim_start(a->main);
	loop_run(a->main);
	log_info("agent", "stopping; containers keep running");
	return 0;
}

static void deinit(struct agent *a)
{
	if (a->dns)
		dns_stop(a->dns);
	if (a->proxy)
		proxy_stop(a->proxy);
	if (a->network)
		network_stop(a->network); /* first: pods that are being started wait for it */
	if (a->kubelet)
		kubelet_stop(a->kubelet);
}

int cmd_agent(int argc, char **argv)
{
	struct agent a = { 0 };
	struct err err = { 0 };
	int r = options_parse(&a.options, OPT_AGENT, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	signal(SIGPIPE, SIG_IGN);
	memory_setup();
	if (getuid() != 0) {
		err_set(&err, -EPERM, "containers need root: run as root");
		return cmd_fail("agent", &err, EXIT_FINAL);
	}
	if (!a.options.server) {
		err_set(&err, -EINVAL, "--server https://MASTER:6443 is missing");
		return cmd_fail("agent", &err, 2);
	}
	r = options_complete(&a.options, &err);
	if (r == 0)
		r = networks_check(&a.options, &err);
	if (r == 0)
		r = run(&a, &err);
	deinit(&a);
	if (r == -EADDRINUSE || r == -EINVAL || r == -ENOENT || r == -EACCES)
		return cmd_fail("agent", &err, EXIT_FINAL);
	return r < 0 ? cmd_fail("agent", &err, 1) : 0;
}
