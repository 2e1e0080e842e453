/* `skiff uninstall`: removes everything that skiff made on this machine: containers, networks, rules, mounts, cgroups, files. What is not there is
 * done already; what cannot be removed is named, the rest goes on, and the exit status says so. */
#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "engine/engine.h"
#include "io/io.h"
#include "kubelet/kubelet.h"
#include "linux/linux.h"
#include "network/network.h"
#include "proxy/proxy.h"

#define CGROUP_ROOT "kubepods"
#define BRIDGE "skiff0"
#define ENGINE_TABLE "ip skiff_engine"

static bool server_runs(const struct options *o)
{
	CLEAN_FREE char *path = xasprintf("%s/server.lock", o->data_dir);
	CLEAN_BUF struct buf pid = { 0 };
	char proc[64];
	struct err err;

	if (file_read(path, 32, &pid, &err) < 0 || !pid.len)
		return false;
	snprintf(proc, sizeof(proc), "/proc/" STR_FMT "/exe", STR_ARG(buf_str(&pid)));
	char exe[4096];
	ssize_t n = readlink(proc, exe, sizeof(exe) - 1);

	return n > 0 && str_has_suffix(str_n(exe, (size_t)n), STR("/skiff"));
}

static int remove_pods(const struct options *o, struct err *err)
{
	CLEAN_FREE char *root = xasprintf("%s/engine", o->data_dir),
			*run = xasprintf("%s/engine", o->run_dir);
	struct engine_local_config c = {
		.root = root, .run = run, .bridge = BRIDGE, .cluster_cidr = o->pod_cidr
	};
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_sandbox *list;
	struct engine *e;
	size_t n;
	int r;

	if (access(root, F_OK) < 0)
		return 0;
	r = engine_local_new(&c, &e, err);
	if (r < 0)
		return r;
	r = e->v->sandbox_list(e, a, &list, &n, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = e->v->sandbox_stop(e, list[i].id, err);
		if (r >= 0)
			r = e->v->sandbox_remove(e, list[i].id, err);
		if (r > 0)
			r = 0;
	}
	e->v->free(e);
	return r;
}

static int remove_rules(const struct options *o, struct err *err)
{
	int r = proxy_cleanup(err);

	if (r == 0)
		r = network_cleanup(err);
	return r < 0 ? r
		     : nft_apply("table " ENGINE_TABLE "\ndelete table " ENGINE_TABLE "\n", err);
}

static int remove_links(const struct options *o, struct err *err)
{
	struct netlink *n;
	unsigned b[4];
	int index, r = netlink_open(&n, err);

	if (r < 0)
		return r;
	if (link_find(n, BRIDGE, &index) == 0)
		r = link_delete(n, BRIDGE, err);
	if (r == 0 && sscanf(o->service_cidr, "%u.%u.%u.%u", &b[0], &b[1], &b[2], &b[3]) == 4)
		r = address_delete(
			n, "lo", htonl(b[0] << 24 | b[1] << 16 | b[2] << 8 | (b[3] + 10)), 32, err);
	netlink_close(n);
	return r;
}

static int remove_cgroups(const struct options *o, struct err *err)
{
	struct cgroups *c;
	int r = cgroup_open(&c, err);

	if (r < 0)
		return r;
	/* Groups of our pods went with them. What still holds processes is somebody else's: another kubelet's, or another data directory's. */
	r = cgroup_prune(c, CGROUP_ROOT, err);
	if (r == -EBUSY)
		fprintf(stderr, "skiff uninstall: %s that are not of %s: they stay\n", err->text,
			o->data_dir);
	cgroup_close(c);
	return r == -EBUSY ? 0 : r;
}

static int remove_files(const struct options *o, struct err *err)
{
	const char *const dirs[] = { o->run_dir, o->pod_log_dir, o->data_dir };
	int r;

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		if (access(dirs[i], F_OK) < 0)
			continue;
		r = mount_remove_below(dirs[i], err);
		if (r == 0)
			r = dir_remove_tree(dirs[i], err);
		if (r < 0)
			return r;
	}
	const char *const files[] = { o->kubeconfig, KUBELET_LOGIND_CONFIG };

	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		if (unlink(files[i]) < 0 && errno != ENOENT)
			return err_errno(err, -errno, "cannot remove %s", files[i]);
	return 0;
}

/* clang-format off */
static const struct step {
	const char *what;
	int (*run)(const struct options *o, struct err *err);
} steps[] = {
	{ "containers",      remove_pods },
	{ "nftables tables", remove_rules },
	{ "links",           remove_links },
	{ "cgroups",         remove_cgroups },
	{ "mounts, files",   remove_files },
};
/* clang-format on */

int cmd_uninstall(int argc, char **argv)
{
	struct options o;
	struct err err = { 0 };
	int failed = 0, r = options_parse(&o, OPT_SERVER, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	if (!o.kubeconfig)
		o.kubeconfig = "/etc/skiff/kubeconfig";
	if (getuid() != 0) {
		err_set(&err, -EPERM, "run it as root: it removes what root made");
		return cmd_fail("uninstall", &err, 1);
	}
	if (server_runs(&o)) {
		err_set(&err, -EBUSY, "a server runs on %s: stop it first", o.data_dir);
		return cmd_fail("uninstall", &err, 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		err.text[0] = 0;
		if (steps[i].run(&o, &err) < 0) {
			fprintf(stderr, "skiff uninstall: %s: %s\n", steps[i].what, err.text);
			failed = 1;
		}
	}
	return failed;
}
