/* The small files that a pod finds: /etc/hosts, /etc/resolv.conf, its termination log; and where its folders are. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define TERMINATION_MESSAGE_MAX 4096
#define FALLBACK_LINES 80
#define FALLBACK_BYTES 2048
#define MAX_SEARCHES 32
#define MAX_NAMESERVERS 3

struct str pod_dir(const struct kubelet *k, const char *uid, struct arena *a)
{
	return arena_fmt(a, "%s/pods/%s", k->c.root_dir, uid);
}

struct str pod_log_folder(const struct kubelet *k, const struct core_v1_pod *pod, struct arena *a)
{
	const struct meta_v1_object_meta *m = &pod->metadata;

	return arena_fmt(a, "%s/" STR_FMT "_" STR_FMT "_" STR_FMT, k->c.pod_log_dir,
		STR_ARG(m->namespace), STR_ARG(m->name), STR_ARG(m->uid));
}

struct str pod_hostname(const struct core_v1_pod *pod, const struct kubelet *k, struct arena *a)
{
	struct str name = pod->spec.hostname.len ? pod->spec.hostname : pod->metadata.name;
	char host[256] = "localhost";

	if (pod->spec.host_network) {
		gethostname(host, sizeof(host) - 1);
		return arena_strz(a, host);
	}
	if (pod->spec.hostname_override.len)
		name = pod->spec.hostname_override;
	if (name.len > 63) {
		name.len = 63;
		while (name.len && (name.p[name.len - 1] == '-' || name.p[name.len - 1] == '.'))
			name.len--;
	}
	if (!pod->spec.hostname_override.len && pod->spec.set_hostname_as_fqdn.set &&
		pod->spec.set_hostname_as_fqdn.value && pod->spec.subdomain.len)
		return arena_fmt(a, STR_FMT "." STR_FMT "." STR_FMT ".svc.%s", STR_ARG(name),
			STR_ARG(pod->spec.subdomain), STR_ARG(pod->metadata.namespace),
			k->c.cluster_domain);
	return arena_str(a, name);
}

struct str pod_hosts_text(
	const struct core_v1_pod *pod, const struct kubelet *k, const char *pod_ip, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };
	struct err err;

	if (pod->spec.host_network) {
		CLEAN_BUF struct buf host = { 0 };
		buf_addz(&b, "# Kubernetes-managed hosts file (host network).\n");
		if (!file_read("/etc/hosts", 1 << 20, &host, &err))
			buf_add_str(&b, buf_str(&host));
	} else {
		struct str name = pod_hostname(pod, k, a);
		struct str head, tail;
		buf_addz(&b,
			"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost "
			"ip6-loopback\nfe00::0\tip6-localnet\n"
			"fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
		str_cut(name, '.', &head, &tail);
		if (pod->spec.subdomain.len && !pod->spec.hostname_override.len)
			buf_addf(&b,
				"%s\t" STR_FMT "." STR_FMT "." STR_FMT ".svc.%s\t" STR_FMT "\n",
				pod_ip, STR_ARG(head), STR_ARG(pod->spec.subdomain),
				STR_ARG(pod->metadata.namespace), k->c.cluster_domain,
				STR_ARG(head));
		else
			buf_addf(&b, "%s\t" STR_FMT "\n", pod_ip, STR_ARG(name));
	}
	if (pod->spec.host_aliases.len)
		buf_addz(&b, "\n# Entries added by HostAliases.\n");
	LIST_EACH(h, &pod->spec.host_aliases) {
		buf_add_str(&b, h->ip);
		for (size_t i = 0; i < h->hostnames.len; i++)
			buf_addf(&b, "\t" STR_FMT, STR_ARG(h->hostnames.items[i]));
		buf_addc(&b, '\n');
	}
	return arena_str(a, buf_str(&b));
}

int pod_write_hosts(struct sync *s, const char *pod_ip, struct str *ret_path, struct err *err)
{
	struct str path =
		arena_fmt(s->a, STR_FMT "/etc-hosts", STR_ARG(pod_dir(s->k, s->w->uid, s->a)));
	struct str text = pod_hosts_text(s->pod, s->k, pod_ip, s->a);

	/* Written in place: containers hold a mount of this very file. */
	CLEAN_FD int fd = open(path.p, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0 || write(fd, text.p, text.len) != (ssize_t)text.len || fchmod(fd, 0644))
		return err_errno(err, -errno, "hosts file %s", path.p);
	*ret_path = path;
	return 0;
}

/* ---- resolv.conf ---- */

struct resolv {
	struct str servers[MAX_NAMESERVERS], searches[MAX_SEARCHES];
	size_t n_servers, n_searches;
	struct str_map options;
	struct arena *a;
};

static void add_server(struct resolv *r, struct str s)
{
	for (size_t i = 0; i < r->n_servers; i++)
		if (str_eq(r->servers[i], s))
			return;
	if (r->n_servers < MAX_NAMESERVERS)
		r->servers[r->n_servers++] = s;
}

static void add_search(struct resolv *r, struct str s)
{
	for (size_t i = 0; i < r->n_searches; i++)
		if (str_eq(r->searches[i], s))
			return;
	if (s.len && r->n_searches < MAX_SEARCHES)
		r->searches[r->n_searches++] = s;
}

static bool next_word(struct str *rest, struct str *ret)
{
	*rest = str_trim(*rest);
	if (!rest->len)
		return false;
	size_t n = 0;
	while (n < rest->len && rest->p[n] != ' ' && rest->p[n] != '\t')
		n++;
	*ret = str_n(rest->p, n);
	*rest = str_from(*rest, n);
	return true;
}

static void add_option(struct resolv *r, struct str name, struct str value)
{
	str_map_set(r->a, &r->options, name, value);
}

static void read_host(struct resolv *r, struct str text, bool searches)
{
	struct str line, word;

	while (text.len) {
		str_cut(text, '\n', &line, &text);
		if (!next_word(&line, &word))
			continue;
		bool server = str_eqz(word, "nameserver"), search = str_eqz(word, "search"),
		     options = str_eqz(word, "options");
		if (search)
			r->n_searches = 0;
		while (next_word(&line, &word)) {
			struct str name, value;
			if (server)
				add_server(r, word);
			else if (search && searches)
				add_search(r, word);
			else if (options)
				add_option(r, (str_cut(word, ':', &name, &value), name), value);
		}
	}
}

static void cluster_first(
	struct resolv *r, const struct core_v1_pod *pod, const struct kubelet *k, struct str host)
{
	struct arena *a = r->a;

	add_server(r, str_of(k->c.cluster_dns));
	add_search(r,
		arena_fmt(a, STR_FMT ".svc.%s", STR_ARG(pod->metadata.namespace),
			k->c.cluster_domain));
	add_search(r, arena_fmt(a, "svc.%s", k->c.cluster_domain));
	add_search(r, arena_strz(a, k->c.cluster_domain));
	struct resolv own = { .a = a };
	read_host(&own, host, true);
	for (size_t i = 0; i < own.n_searches; i++)
		add_search(r, own.searches[i]);
	add_option(r, STR("ndots"), STR("5"));
}

struct str pod_resolv_text(
	const struct core_v1_pod *pod, const struct kubelet *k, struct str host, struct arena *a)
{
	struct resolv r = { .a = a };
	CLEAN_BUF struct buf b = { 0 };
	const struct core_v1_pod_dns_config *own = pod->spec.dns_config;
	struct str policy = pod->spec.dns_policy;
	bool cluster = str_eqz(policy, "ClusterFirstWithHostNet") ||
		((!policy.len || str_eqz(policy, "ClusterFirst")) && !pod->spec.host_network);

	if (cluster && k->c.cluster_dns && *k->c.cluster_dns)
		cluster_first(&r, pod, k, host);
	else if (!str_eqz(policy, "None"))
		read_host(&r, host, true);
	if (own) {
		for (size_t i = 0; i < own->nameservers.len; i++)
			add_server(&r, own->nameservers.items[i]);
		for (size_t i = 0; i < own->searches.len; i++)
			add_search(&r, own->searches.items[i]);
		LIST_EACH(o, &own->options)
			add_option(&r, o->name, o->value);
	}
	if (r.n_searches) {
		buf_addz(&b, "search");
		for (size_t i = 0; i < r.n_searches; i++)
			buf_addf(&b, " " STR_FMT, STR_ARG(r.searches[i]));
		buf_addc(&b, '\n');
	}
	for (size_t i = 0; i < r.n_servers; i++)
		buf_addf(&b, "nameserver " STR_FMT "\n", STR_ARG(r.servers[i]));
	if (r.options.len) {
		buf_addz(&b, "options");
		LIST_EACH(o, &r.options)
			buf_addf(&b, " " STR_FMT "%s" STR_FMT, STR_ARG(o->key),
				o->value.len ? ":" : "", STR_ARG(o->value));
		buf_addc(&b, '\n');
	}
	return arena_str(a, buf_str(&b));
}

int pod_resolv_conf(struct sync *s, struct str *ret, struct err *err)
{
	CLEAN_BUF struct buf host = { 0 };
	struct err ignored;

	if (file_read("/etc/resolv.conf", 1 << 16, &host, &ignored) < 0)
		buf_clear(&host);
	*ret = pod_resolv_text(s->pod, s->k, buf_str(&host), s->a);
	return 0;
}

/* ---- termination message ---- */

struct str termination_log_path(const struct kubelet *k, const char *uid, struct str container,
	uint32_t attempt, struct arena *a)
{
	return arena_fmt(a, "%s/pods/%s/containers/" STR_FMT "/%u", k->c.root_dir, uid,
		STR_ARG(container), attempt);
}

static struct str tail_of_log(const struct kubelet *k, const char *path, struct arena *a)
{
	CLEAN_FD int fd = log_open(k, path);
	CLEAN_BUF struct buf raw = { 0 }, out = { 0 };
	struct log_options o = { .tail = -1, .limit_bytes = -1, .streams = 3 };
	size_t used;

	if (fd < 0)
		return STR_NONE;
	int64_t at = log_tail_offset(fd, FALLBACK_LINES);
	buf_reserve(&raw, 1 << 16);
	ssize_t n = pread(fd, raw.p, 1 << 16, at);
	if (n <= 0)
		return STR_NONE;
	raw.len = (size_t)n;
	log_filter(buf_str(&raw), &o, &out, &used);
	struct str text = buf_str(&out);
	if (text.len > FALLBACK_BYTES)
		text = str_from(text, text.len - FALLBACK_BYTES);
	return arena_str(a, text);
}

struct str termination_message(struct kubelet *k, const char *uid,
	const struct core_v1_container *c, const struct engine_container *e, struct str log_path,
	struct arena *a)
{
	CLEAN_BUF struct buf text = { 0 };
	struct str path = termination_log_path(k, uid, c->name, e->attempt, a);
	CLEAN_FD int fd = open(path.p, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd >= 0) {
		buf_reserve(&text, TERMINATION_MESSAGE_MAX);
		ssize_t n = read(fd, text.p, TERMINATION_MESSAGE_MAX);
		text.len = n > 0 ? (size_t)n : 0;
		text.p[text.len] = 0;
	}
	if (!text.len && str_eqz(c->termination_message_policy, "FallbackToLogsOnError") &&
		e->exit_code)
		return tail_of_log(k, log_path.p, a);
	return text.len ? arena_str(a, buf_str(&text)) : STR_NONE;
}
