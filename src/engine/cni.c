/* The pod network by CNI plugins: the first configuration of a folder, its plugins one after the other, and what must be known to undo that.
 *
 * 1. sandboxes/ID/cni.json holds the configuration that a sandbox was attached with, and the result. It is written before the first plugin runs,
 *    so whatever ends this process, DEL knows what to undo; a configuration that changed since does not matter.
 * 2. The configuration is the first file by name, as with upstream's runtimes. One that cannot be used is an error and not passed over: the next
 *    one would be another network.
 * 3. DEL goes through the plugins backwards and stops at the first failure; the file stays, so that it is tried again.
 * Left out: CHECK and GC, and of the capabilities all but portMappings. */
#include "engine/cni.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>

#define TIMEOUT_MS 60000
#define CONF_MAX (1 << 20)

/* ---- the configuration ---- */

static bool is_conf(const char *name)
{
	static const char *const ends[] = { ".conflist", ".conf", ".json" };

	for (size_t i = 0; name[0] != '.' && i < ARRAY_LEN(ends); i++)
		if (str_has_suffix(str_of(name), str_of(ends[i])))
			return true;
	return false;
}

static int find_conf(const struct cni *cni, char ret[PATH_MAX], struct err *err)
{
	char first[NAME_MAX + 1] = "";
	DIR *d = opendir(cni->conf_dir);

	if (!d)
		return err_errno(err, -errno, "cannot open the folder of CNI configurations %s",
			cni->conf_dir);
	for (struct dirent *e; (e = readdir(d));)
		if (is_conf(e->d_name) && (!first[0] || strcmp(e->d_name, first) < 0))
			snprintf(first, sizeof(first), "%s", e->d_name);
	closedir(d);
	if (!first[0])
		return err_set(err, -ENOENT,
			"cni plugin not initialized: there is no network configuration in %s (a .conflist or .conf)",
			cni->conf_dir);
	path_fmt(ret, "%s/%s", cni->conf_dir, first);
	return 0;
}

/* A .conf is one plugin: a list of one. */
static void as_list(struct value *v, struct arena *a)
{
	struct value list = { .kind = VALUE_OBJECT }, plugins = { .kind = VALUE_LIST };
	const char *const kept[] = { "cniVersion", "name" };

	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		const struct value *from = value_get(v, str_of(kept[i]));

		if (from)
			*value_set(a, &list, str_of(kept[i])) = *from;
	}
	*value_append(a, &plugins) = *v;
	*value_set(a, &list, STR("plugins")) = plugins;
	*v = list;
}

static int load_conf(const char *path, struct arena *a, struct value *ret, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	struct value *plugins;
	int r = file_read(path, CONF_MAX, &text, err);

	if (r < 0)
		return r;
	r = json_parse(arena_str(a, buf_str(&text)), a, ret, err);
	if (r < 0)
		return err_prefix(err, r, "CNI configuration %s", path);
	if (ret->kind == VALUE_OBJECT && cni_text(ret, "type").len &&
		!value_get(ret, STR("plugins")))
		as_list(ret, a);
	plugins = ret->kind == VALUE_OBJECT ? cni_list(ret, "plugins") : NULL;
	if (!plugins || !plugins->list.len || !cni_text(ret, "name").len)
		return err_set(err, -EBADMSG,
			"CNI configuration %s: it needs a \"name\" and a list of \"plugins\"",
			path);
	for (size_t i = 0; i < plugins->list.len; i++)
		if (plugins->list.items[i].kind != VALUE_OBJECT ||
			!cni_text(&plugins->list.items[i], "type").len)
			return err_set(err, -EBADMSG,
				"CNI configuration %s: plugins[%zu] has no \"type\"", path, i);
	return 0;
}

int cni_status(const struct cni *cni, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	char path[PATH_MAX], program[PATH_MAX];
	struct value list;
	int r = find_conf(cni, path, err);

	if (r == 0)
		r = load_conf(path, a, &list, err);
	if (r < 0)
		return r;
	const struct value *plugins = cni_list(&list, "plugins");
	for (size_t i = 0; r == 0 && i < plugins->list.len; i++) {
		const struct value *p = &plugins->list.items[i], *ipam = value_get(p, STR("ipam"));
		struct str delegate =
			ipam && ipam->kind == VALUE_OBJECT ? cni_text(ipam, "type") : STR_NONE;

		r = cni_find_plugin(cni->bin_dirs, cni_text(p, "type"), program, err);
		if (r == 0 && delegate.len)
			r = cni_find_plugin(cni->bin_dirs, delegate, program, err);
	}
	return r < 0 ? err_prefix(err, r, "CNI configuration %s", path) : 0;
}

/* ---- what is kept of a sandbox ---- */

static void kept_path(const struct local *l, const char *id, char ret[PATH_MAX])
{
	path_fmt(ret, "%s/sandboxes/%s/cni.json", l->root, id);
}

static int keep(const struct local *l, const char *id, const struct value *kept, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	char path[PATH_MAX];

	kept_path(l, id, path);
	json_write(kept, &text);
	return file_write_atomic(path, buf_str(&text), 0600, false, err);
}

static void put_text(struct arena *a, struct value *object, const char *name, struct str text)
{
	*value_set(a, object, str_of(name)) = (struct value){ .kind = VALUE_TEXT, .text = text };
}

static struct str pod_args(const struct sandbox *s, struct arena *a)
{
	return arena_fmt(a,
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s",
		s->namespace_, s->name, s->id, s->uid);
}

/* The record's mappings in CNI's words. */
static int port_mappings(
	const struct sandbox *s, struct arena *a, struct value *ret, struct err *err)
{
	struct value from;

	*ret = (struct value){ .kind = VALUE_NULL };
	if (!s->port_mappings)
		return 0;
	int r = json_parse(arena_strz(a, s->port_mappings), a, &from, err);
	if (r < 0)
		return r;
	for (size_t i = 0; from.kind == VALUE_LIST && i < from.list.len; i++) {
		struct value *m = &from.list.items[i], *protocol = value_get(m, STR("protocol"));
		int64_t number = protocol && protocol->kind == VALUE_INT ? protocol->integer : 0;

		put_text(a, m, "protocol",
			number == IPPROTO_UDP            ? STR("udp")
				: number == IPPROTO_SCTP ? STR("sctp")
							 : STR("tcp"));
		if (!cni_text(m, "hostIP").len)
			value_remove(m, STR("hostIP"));
	}
	*ret = from;
	return 0;
}

static bool takes_port_mappings(const struct value *plugins)
{
	for (size_t i = 0; i < plugins->list.len; i++) {
		const struct value *c = value_get(&plugins->list.items[i], STR("capabilities")),
				   *v = c && c->kind == VALUE_OBJECT
			? value_get(c, STR("portMappings"))
			: NULL;

		if (v && v->kind == VALUE_BOOL && v->boolean)
			return true;
	}
	return false;
}

/* All that ADD and DEL need, as it will be on disk. */
static int prepare(const struct cni *cni, const struct sandbox *s, struct arena *a,
	struct value *ret, struct err *err)
{
	struct value list, ports, dirs = { .kind = VALUE_LIST };
	char path[PATH_MAX];
	int r = find_conf(cni, path, err);

	if (r == 0)
		r = load_conf(path, a, &list, err);
	if (r == 0)
		r = port_mappings(s, a, &ports, err);
	if (r < 0)
		return r;
	if (ports.kind == VALUE_LIST && ports.list.len &&
		!takes_port_mappings(cni_list(&list, "plugins")))
		return err_set(err, -EOPNOTSUPP,
			"the pod wants host ports, but no plugin of CNI configuration %s has the capability portMappings: "
			"add {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}",
			path);
	for (size_t i = 0; cni->bin_dirs[i]; i++)
		*value_append(a, &dirs) = (struct value){ .kind = VALUE_TEXT,
			.text = arena_strz(a, cni->bin_dirs[i]) };
	*ret = (struct value){ .kind = VALUE_OBJECT };
	put_text(a, ret, "file", arena_strz(a, path));
	put_text(a, ret, "args", pod_args(s, a));
	*value_set(a, ret, STR("binDirs")) = dirs;
	*value_set(a, ret, STR("config")) = list;
	*value_set(a, ret, STR("portMappings")) = ports;
	return 0;
}

static struct cni_call call_of(
	const struct value *kept, const char *command, const char *id, const char *netns)
{
	return (struct cni_call){ .command = command,
		.container_id = id,
		.netns = netns,
		.args = cni_text(kept, "args"),
		.port_mappings = cni_list(kept, "portMappings") };
}

static char **dirs_of(const struct value *kept)
{
	const struct value *dirs = cni_list(kept, "binDirs");
	char **texts = NULL;

	for (size_t i = 0; dirs && i < dirs->list.len; i++)
		if (dirs->list.items[i].kind == VALUE_TEXT)
			texts_add(&texts, dirs->list.items[i].text);
	return texts;
}

/* ---- the result ---- */

/* "10.1.2.3/24" without what is behind the slash; empty: no address. */
static struct str address_of(struct str text, int family, struct arena *a)
{
	unsigned char space[sizeof(struct in6_addr)];
	struct str ip, rest;

	str_cut(text, '/', &ip, &rest);
	const char *z = arena_str(a, ip).p;
	return inet_pton(family, z, space) == 1 ? str_of(z) : STR_NONE;
}

/* Addresses of a link on the host (a bridge's, say) are not the pod's. */
static bool is_of_host(const struct value *result, const struct value *ip)
{
	const struct value *at = value_get(ip, STR("interface")),
			   *links = cni_list(result, "interfaces");

	return at && at->kind == VALUE_INT && links && at->integer >= 0 &&
		(size_t)at->integer < links->list.len &&
		!cni_text(&links->list.items[at->integer], "sandbox").len;
}

static struct str find_address(const struct value *result, int family, struct arena *a)
{
	/* Before 0.3.0 there was one of each family and no list. */
	const struct value *ips = cni_list(result, "ips"),
			   *old = value_get(result, family == AF_INET ? STR("ip4") : STR("ip6"));

	for (size_t i = 0; ips && i < ips->list.len; i++) {
		const struct value *ip = &ips->list.items[i];
		struct str found = ip->kind == VALUE_OBJECT && !is_of_host(result, ip)
			? address_of(cni_text(ip, "address"), family, a)
			: STR_NONE;

		if (found.len)
			return found;
	}
	return old && old->kind == VALUE_OBJECT ? address_of(cni_text(old, "ip"), family, a)
						: STR_NONE;
}

/* All links that it names are the pod's: nothing of it is on the host, whose rules it never meets. */
static bool bypasses_host(const struct value *result)
{
	const struct value *links = cni_list(result, "interfaces");

	for (size_t i = 0; links && i < links->list.len; i++)
		if (!cni_text(&links->list.items[i], "sandbox").len)
			return false;
	return links && links->list.len;
}

static int take_addresses(
	struct sandbox *s, const struct value *result, struct arena *a, struct err *err)
{
	struct str ip = find_address(result, AF_INET, a), ip6 = find_address(result, AF_INET6, a);

	if (!ip.len && !ip6.len)
		return err_set(err, -EADDRNOTAVAIL,
			"the CNI plugins gave the pod no address: the configuration needs an \"ipam\"");
	free(s->ip);
	free(s->second_ip);
	s->ip = str_dup(ip.len ? ip : ip6);
	s->bypasses_host = bypasses_host(result);
	s->second_ip = ip.len && ip6.len ? str_dup(ip6) : NULL;
	return 0;
}

/* ---- ADD and DEL ---- */

int cni_add(struct local *l, struct sandbox *s, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct value kept, result = { 0 };
	char netns[PATH_MAX];
	int r = prepare(l->cni, s, a, &kept, err);

	if (r == 0)
		r = keep(l, s->id, &kept, err);
	if (r < 0)
		return r;
	sandbox_ns_path(l, s, NS_NET, netns);
	const struct value *config = value_get(&kept, STR("config")),
			   *plugins = cni_list(config, "plugins");
	struct cni_call call = call_of(&kept, "ADD", s->id, netns);
	for (size_t i = 0; r == 0 && i < plugins->list.len; i++)
		r = cni_plugin_run(l->cni, &call, l->cni->bin_dirs, config, &plugins->list.items[i],
			i ? &result : NULL, a, &result, err);
	if (r == 0)
		r = take_addresses(s, &result, a, err);
	if (r < 0)
		return r;
	*value_set(a, &kept, STR("result")) = result;
	return keep(l, s->id, &kept, err);
}

/* What is on disk; when that cannot be read, what would be written now. > 0: there is nothing to undo. */
static int kept_load(struct local *l, const struct sandbox *s, struct arena *a, struct value *ret,
	struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	char path[PATH_MAX];

	kept_path(l, s->id, path);
	int r = file_read(path, CONF_MAX * 4, &text, err);
	if (r == -ENOENT)
		return 1;
	if (r == 0)
		r = json_parse(arena_str(a, buf_str(&text)), a, ret, err);
	if (r == 0 && ret->kind == VALUE_OBJECT && value_get(ret, STR("config")) &&
		cni_list(value_get(ret, STR("config")), "plugins"))
		return 0;
	if (l->cni && s->name && s->namespace_ && s->uid)
		return prepare(l->cni, s, a, ret, err);
	return err_set(err, -EBADMSG,
		"%s cannot be read, so what CNI plugins made for the pod cannot be undone: remove the file to go on without",
		path);
}

int cni_del(struct local *l, const struct sandbox *s, struct err *err)
{
	static const struct cni none = { .timeout_ms = TIMEOUT_MS };
	CLEAN_ARENA struct arena *a = arena_new(0);
	char path[PATH_MAX], netns[PATH_MAX];
	struct value kept;
	int r = kept_load(l, s, a, &kept, err);

	if (r != 0)
		return r > 0 ? 0 : r;
	/* One that a killed agent left would go on making what is being undone. */
	cni_kill_left(s->id);
	sandbox_ns_path(l, s, NS_NET, netns);
	const struct value *config = value_get(&kept, STR("config")),
			   *plugins = cni_list(config, "plugins"),
			   *result = value_get(&kept, STR("result"));
	struct cni_call call = call_of(&kept, "DEL", s->id, ns_is_pinned(netns) ? netns : "");
	char **dirs = dirs_of(&kept);
	if (!cni_version_at_least(cni_text(config, "cniVersion"), 0, 4))
		result = NULL;
	for (size_t i = plugins->list.len; r == 0 && i-- > 0;)
		r = cni_plugin_run(l->cni ? l->cni : &none, &call, dirs, config,
			&plugins->list.items[i], result, a, NULL, err);
	texts_free(dirs);
	kept_path(l, s->id, path);
	if (r == 0 && unlink(path) < 0 && errno != ENOENT)
		r = err_errno(err, -errno, "cannot remove %s", path);
	return r;
}

/* ---- life ---- */

int cni_new(const struct engine_local_config *c, struct cni **ret, struct err *err)
{
	struct cni *cni;
	int r = dir_make(c->cni_conf_dir, 0755, err);

	if (r < 0)
		return r;
	cni = xcalloc(1, sizeof(*cni));
	cni->conf_dir = xstrdup(c->cni_conf_dir);
	cni->timeout_ms = c->cni_timeout_ms ? c->cni_timeout_ms : TIMEOUT_MS;
	for (struct str rest = str_of(c->cni_bin_dirs), dir; rest.len;) {
		str_cut(rest, ',', &dir, &rest);
		if (str_trim(dir).len)
			texts_add(&cni->bin_dirs, str_trim(dir));
	}
	*ret = cni;
	return 0;
}

void cni_free(struct cni *cni)
{
	if (!cni)
		return;
	free(cni->conf_dir);
	texts_free(cni->bin_dirs);
	free(cni);
}
