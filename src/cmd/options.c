/* Flags and the configuration file, by one table: every flag is a key of the file, a flag on the command line wins. */
#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "codec/codec.h"
#include "io/io.h"

enum option_kind { OPTION_TEXT, OPTION_BOOL, OPTION_INT };
struct option_row {
	const char *name, *short_name;
	unsigned sets;
	enum option_kind kind;
	size_t offset;
	const char *fallback; /* the default as text; NULL: none */
	const char *help;     /* NULL: not shown */
};

#define CERTIFICATE_LIFE_LEAST_S 5
#define O(member) offsetof(struct options, member)
/* clang-format off */
static const struct option_row rows[] = {
	{ "config",         NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(config), NULL, "YAML file with any of these flags as keys" },
	{ "data-dir",       NULL, OPT_SERVER | OPT_AGENT | OPT_CLIENT | OPT_STORE | OPT_SNAPSHOT, OPTION_TEXT, O(data_dir), "/var/lib/skiff", "where all that lasts is kept" },
	{ "run-dir",        NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(run_dir), "/run/skiff", "sockets, pid files, network namespaces" },
	{ "listen",         NULL, OPT_SERVER, OPTION_TEXT, O(listen), "0.0.0.0:6443", "address and port of the API server" },
	{ "advertise",      NULL, OPT_SERVER, OPTION_TEXT, O(advertise), NULL, "address under which others reach the API server; default: the node's" },
	{ "kubeconfig",     NULL, OPT_SERVER | OPT_CLIENT | OPT_SNAPSHOT, OPTION_TEXT, O(kubeconfig), NULL, "administrator's kubeconfig; default /etc/skiff/kubeconfig" },
	{ "store",          NULL, OPT_SERVER | OPT_SNAPSHOT, OPTION_TEXT, O(store), "sqlite", "sqlite, memory, or etcd=https://HOST:2379,…" },
	{ "etcd-cafile",    NULL, OPT_SERVER | OPT_STORE | OPT_SNAPSHOT, OPTION_TEXT, O(etcd_cafile), NULL, "CA of etcd's servers; default: the system's" },
	{ "etcd-certfile",  NULL, OPT_SERVER | OPT_STORE | OPT_SNAPSHOT, OPTION_TEXT, O(etcd_certfile), NULL, "certificate with which etcd knows this server" },
	{ "etcd-keyfile",   NULL, OPT_SERVER | OPT_STORE | OPT_SNAPSHOT, OPTION_TEXT, O(etcd_keyfile), NULL, "its key" },
	{ "from",           NULL, OPT_STORE, OPTION_TEXT, O(from), NULL, "store to copy: sqlite, sqlite=FILE or etcd=URL,URL" },
	{ "to",             NULL, OPT_STORE, OPTION_TEXT, O(to), NULL, "store to fill; it must be empty" },
	{ "snapshot-every", NULL, OPT_SERVER, OPTION_TEXT, O(snapshot_every), "12h", "how often DATA/snapshots gets a snapshot (the newest five are kept); 0s: never" },
	{ "replace",        NULL, OPT_SNAPSHOT, OPTION_BOOL, O(replace), NULL, "restore into an etcd that holds objects: they are deleted first" },
	{ "revision-jump",  NULL, OPT_SNAPSHOT, OPTION_INT, O(revision_jump), "1000000", "restored revisions begin so far after the snapshot: more than was written since" },
	{ "no-agent",       NULL, OPT_SERVER, OPTION_BOOL, O(no_agent), NULL, "control plane only" },
	{ "user",           NULL, OPT_SERVER | OPT_SNAPSHOT, OPTION_TEXT, O(user), "skiff", "whom the control plane runs as" },
	{ "pod-cidr",       NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(pod_cidr), "10.42.0.0/16", "addresses of pods" },
	{ "pod-network",    NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(pod_network), "auto", "to other nodes: routes, vxlan, auto (routes on a shared link); cni: plugins" },
	{ "cni-conf-dir",   NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(cni_conf_dir), "/etc/cni/net.d", "with --pod-network cni: the first .conflist or .conf here, by name" },
	{ "cni-bin-dir",    NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(cni_bin_dir), "/opt/cni/bin,/usr/lib/cni", "where its plugins are" },
	{ "vxlan-port",     NULL, OPT_SERVER | OPT_AGENT, OPTION_INT, O(vxlan_port), "8472", "UDP port of VXLAN between nodes" },
	{ "no-flow-cache",  NULL, OPT_SERVER | OPT_AGENT, OPTION_BOOL, O(no_flow_cache), NULL, "packets of pods' TCP connections never pass by the kernel's routes and rules" },
	{ "service-cidr",   NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(service_cidr), "10.43.0.0/16", "addresses of services" },
	{ "service-load-balancer", NULL, OPT_SERVER, OPTION_TEXT, O(service_load_balancer), "nodes", "who answers LoadBalancer services: nodes; off: others" },
	{ "cluster-domain", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(cluster_domain), "cluster.local", "the domain that DNS answers for" },
	{ "node-monitor-grace", NULL, OPT_SERVER, OPTION_INT, O(node_monitor_grace), "50", "seconds without a sign of a node until it counts as lost" },
	{ "node-lease",     NULL, OPT_SERVER | OPT_AGENT, OPTION_INT, O(node_lease), "40", "seconds that a sign of this node lasts, given four times as often: below the grace" },
	{ "certificate-life", NULL, OPT_SERVER, OPTION_INT, O(certificate_life), "31536000", NULL },
	{ "server",         NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(server), NULL, "URL of the API server; for a server: of the one that it joins" },
	{ "token",          NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(token), NULL, "join token" },
	{ "node-name",      NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(node_name), NULL, "name of the node; default: the host's" },
	{ "node-ip",        NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(node_ip), NULL, "address of the node; default: the one of the default route" },
	{ "node-labels",    NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(node_labels), NULL, "k=v,k=v put on the node when it registers" },
	{ "kubelet-port",   NULL, OPT_SERVER | OPT_AGENT, OPTION_INT, O(kubelet_port), "10250", "port of the node API" },
	{ "proxy-healthz-bind-address", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(proxy_healthz), "127.0.0.1:10256", "the proxy's /healthz and /livez; off: none" },
	{ "proxy-status-bind-address", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(proxy_status), "127.0.0.1:10249", "its /proxyMode; off: none" },
	{ "static-pod-dir", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(static_pod_dir), NULL, "folder of static pods; default DATA/manifests" },
	{ "shutdown-grace-period", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(shutdown_grace), "0s", "time that pods get when systemd shuts the machine down; 0s: none" },
	{ "shutdown-grace-period-critical-pods", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(shutdown_grace_critical), "0s", "the part of it for critical pods, which end last" },
	{ "shutdown-grace-period-by-pod-priority", NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(shutdown_grace_groups), NULL, "instead of both: PRIORITY=DURATION,…" },
	{ "eviction-pressure-transition-period", NULL, OPT_SERVER | OPT_AGENT, OPTION_INT, O(pressure_transition), "300", "seconds that pressure is told after its last sign" },
	{ "pod-log-dir",    NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(pod_log_dir), "/var/log/pods", "logs of containers" },
	{ "dns-upstreams",  NULL, OPT_SERVER | OPT_AGENT, OPTION_TEXT, O(dns_upstreams), NULL, "servers for names outside the cluster; default: /etc/resolv.conf" },
	{ "output",         "o",  OPT_CLIENT, OPTION_TEXT, O(output), NULL, "json for programs" },
	{ "ttl",            NULL, OPT_CLIENT, OPTION_TEXT, O(ttl), NULL, "how long a token lets machines join (24h; a server 1h)" },
	{ "role",           NULL, OPT_CLIENT, OPTION_TEXT, O(role), "agent", "what a token is for: agent, or a further server" },
	{ "namespace",      "n",  OPT_CLIENT, OPTION_TEXT, O(namespace_), "default", "namespace of the pod" },
};
/* clang-format on */

static const struct option_row *find(enum option_set set, struct str name)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if ((rows[i].sets & set) &&
			(str_eqz(name, rows[i].name) ||
				(rows[i].short_name && str_eqz(name, rows[i].short_name))))
			return &rows[i];
	return NULL;
}

static int assign(struct options *o, const struct option_row *r, const char *text)
{
	void *at = (char *)o + r->offset;
	int64_t n;

	switch (r->kind) {
	case OPTION_TEXT:
		*(const char **)at = text;
		return 0;
	case OPTION_BOOL:
		if (strcmp(text, "true") && strcmp(text, "false"))
			return -EINVAL;
		*(bool *)at = !strcmp(text, "true");
		return 0;
	case OPTION_INT:
		if (str_to_i64(str_of(text), &n) < 0)
			return -EINVAL;
		*(int64_t *)at = n;
		return 0;
	}
	return -EINVAL;
}

static void help(enum option_set set, const char *command)
{
	printf("usage: skiff %s [FLAGS]\n\n", command);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct option_row *r = &rows[i];

		if (!(r->sets & set) || !r->help)
			continue;
		printf("  --%-20s %s", r->name, r->help);
		if (r->fallback)
			printf(" (%s)", r->fallback);
		putchar('\n');
	}
}

static int read_file(struct options *o, enum option_set set, const char *path)
{
	/* Lives as long as the process: the options point into it. */
	struct arena *a = arena_new(0);
	struct buf *text = xcalloc(1, sizeof(*text));
	struct value doc;
	struct err err = { 0 };

	if (file_read(path, 1 << 20, text, &err) < 0 ||
		yaml_parse(buf_str(text), a, &doc, &err) < 0) {
		fprintf(stderr, "skiff: --config %s: %s\n", path, err.text);
		return -EINVAL;
	}
	if (doc.kind == VALUE_NULL)
		return 0;
	if (doc.kind != VALUE_OBJECT) {
		fprintf(stderr, "skiff: --config %s: expected a map of flags and values\n", path);
		return -EINVAL;
	}
	for (size_t i = 0; i < doc.object.len; i++) {
		const struct value_member *m = &doc.object.members[i];
		const struct option_row *r = find(set, m->key);
		struct buf v = { 0 };

		if (!r) {
			fprintf(stderr, "skiff: --config %s: there is no flag \"" STR_FMT "\"\n",
				path, STR_ARG(m->key));
			return -EINVAL;
		}
		if (m->value.kind == VALUE_TEXT)
			buf_add_str(&v, m->value.text);
		else
			json_write(&m->value, &v);
		if (assign(o, r, buf_take(&v)) < 0) {
			fprintf(stderr,
				"skiff: --config %s: \"%s\" has a value of the wrong type\n", path,
				r->name);
			return -EINVAL;
		}
	}
	return 0;
}

static int split_listen(struct options *o)
{
	const char *colon = strrchr(o->listen, ':');
	int64_t port;
	size_t n = colon ? (size_t)(colon - o->listen) : 0;

	if (!colon || n >= sizeof(o->listen_host) || str_to_i64(str_of(colon + 1), &port) < 0 ||
		port < 0 || port > 65535) {
		fprintf(stderr, "skiff: --listen %s: expected ADDRESS:PORT, as in 0.0.0.0:6443\n",
			o->listen);
		return -EINVAL;
	}
	memcpy(o->listen_host, n ? o->listen : "0.0.0.0", n ? n : 7);
	o->listen_host[n ? n : 7] = 0;
	o->listen_port = (int)port;
	return 0;
}

/* One flag at argv[i]; *ret_used arguments were its. */
static int parse_flag(
	struct options *o, enum option_set set, int argc, char **argv, int i, int *ret_used)
{
	char *name = argv[i] + (argv[i][1] == '-' ? 2 : 1);
	char *eq = strchr(name, '=');
	const struct option_row *r =
		find(set, eq ? str_n(name, (size_t)(eq - name)) : str_of(name));
	const char *text = eq ? eq + 1 : NULL;

	if (!r) {
		fprintf(stderr, "skiff: there is no flag %s; `skiff %s --help` lists them\n",
			argv[i], argv[0]);
		return -EINVAL;
	}
	*ret_used = 1;
	if (!text && r->kind == OPTION_BOOL) {
		text = "true";
	} else if (!text) {
		if (i + 1 >= argc) {
			fprintf(stderr, "skiff: --%s needs a value: %s\n", r->name,
				r->help ? r->help : "");
			return -EINVAL;
		}
		text = argv[i + 1];
		*ret_used = 2;
	}
	if (assign(o, r, text) < 0) {
		fprintf(stderr, "skiff: --%s %s: expected %s\n", r->name, text,
			r->kind == OPTION_INT ? "a number" : "true or false");
		return -EINVAL;
	}
	return 0;
}

int options_parse(struct options *o, enum option_set set, int argc, char **argv)
{
	int used, r;

	*o = (struct options){ 0 };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].fallback)
			assign(o, &rows[i], rows[i].fallback);
	/* Twice: the file's name first, then flags over what it says. */
	for (int round = 0; round < 2; round++) {
		o->n_args = 0;
		for (int i = 1; i < argc; i += used) {
			used = 1;
			if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
				help(set, argv[0]);
				return 1;
			}
			if (argv[i][0] == '-' && argv[i][1]) {
				r = parse_flag(o, set, argc, argv, i, &used);
				if (r < 0)
					return r;
			} else if (o->n_args < ARRAY_LEN(o->args)) {
				o->args[o->n_args++] = argv[i];
			} else {
				fprintf(stderr, "skiff: too many arguments at \"%s\"\n", argv[i]);
				return -EINVAL;
			}
		}
		if (round == 0 && o->config) {
			r = read_file(o, set, o->config);
			if (r < 0)
				return r;
		}
	}
	return o->listen ? split_listen(o) : 0;
}

int cmd_fail(const char *name, const struct err *err, int status)
{
	fprintf(stderr, "skiff %s: %s\n", name, err->text[0] ? err->text : "failed");
	return status;
}

char **options_argv(const struct options *o, enum option_set set, const char *command)
{
	char **argv = xcalloc(ARRAY_LEN(rows) + 3, sizeof(*argv));
	size_t n = 0;

	argv[n++] = xstrdup("skiff");
	argv[n++] = xstrdup(command);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct option_row *r = &rows[i];
		const void *at = (const char *)o + r->offset;

		if (!(r->sets & set) || !strcmp(r->name, "config"))
			continue;
		if (r->kind == OPTION_TEXT && *(const char *const *)at)
			argv[n++] = xasprintf("--%s=%s", r->name, *(const char *const *)at);
		else if (r->kind == OPTION_BOOL)
			argv[n++] =
				xasprintf("--%s=%s", r->name, *(const bool *)at ? "true" : "false");
		else if (r->kind == OPTION_INT)
			argv[n++] =
				xasprintf("--%s=%lld", r->name, (long long)*(const int64_t *)at);
	}
	return argv;
}

int options_complete(struct options *o, struct err *err)
{
	static char name[64], ip[64];
	int r = 0;

	if (!o->node_name) {
		r = machine_name(name, err);
		o->node_name = name;
	}
	if (r == 0 && !o->node_ip) {
		r = machine_address(ip, err);
		o->node_ip = ip;
	}
	if (!o->kubeconfig)
		o->kubeconfig = "/etc/skiff/kubeconfig";
	if (!o->static_pod_dir)
		o->static_pod_dir = xasprintf("%s/manifests", o->data_dir);
	if (!o->advertise)
		o->advertise = o->node_ip;
	if (r == 0 && o->service_load_balancer && strcmp(o->service_load_balancer, "nodes") &&
		strcmp(o->service_load_balancer, "off"))
		r = err_set(err, -EINVAL, "--service-load-balancer %s: expected nodes or off",
			o->service_load_balancer);
	if (r == 0 && o->certificate_life < CERTIFICATE_LIFE_LEAST_S)
		r = err_set(err, -EINVAL, "--certificate-life %lld: at least %d seconds",
			(long long)o->certificate_life, CERTIFICATE_LIFE_LEAST_S);
	return r;
}
