/* What the machine is: the fields of a Node's status that follow from it. Read from /proc, /sys and /etc when asked. */
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define IMAGES_MAX 50
#define EVICTION_MEMORY (100ll << 20) /* what the hard threshold keeps back */

static struct str line_of(const char *path, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };
	struct err err;

	return file_read(path, 4096, &b, &err) ? STR("") : arena_str(a, str_trim(buf_str(&b)));
}

static struct str os_name(struct arena *a)
{
	struct str text = STR_NONE, line;
	CLEAN_BUF struct buf b = { 0 };
	struct err err;

	if (!file_read("/etc/os-release", 1 << 16, &b, &err))
		for (text = buf_str(&b); text.len;) {
			str_cut(text, '\n', &line, &text);
			if (!str_has_prefix(line, STR("PRETTY_NAME=")))
				continue;
			line = str_trim(str_from(line, 12));
			if (line.len >= 2 && line.p[0] == '"')
				line = str_n(line.p + 1, line.len - 2);
			return arena_str(a, line);
		}
	return STR("Linux");
}

static const char *arch_of(const char *machine)
{
	static const struct {
		const char *kernel, *go;
	} names[] = { { "x86_64", "amd64" }, { "aarch64", "arm64" }, { "riscv64", "riscv64" },
		{ "ppc64le", "ppc64le" }, { "s390x", "s390x" }, { "armv7l", "arm" } };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(machine, names[i].kernel))
			return names[i].go;
	return machine;
}

static void info(struct kubelet *k, struct core_v1_node_system_info *i, struct arena *a)
{
	struct utsname u = { 0 };

	uname(&u);
	i->machine_id = line_of("/etc/machine-id", a);
	i->system_uuid = line_of("/sys/class/dmi/id/product_uuid", a);
	if (!i->system_uuid.len)
		i->system_uuid = i->machine_id;
	i->boot_id = line_of("/proc/sys/kernel/random/boot_id", a);
	i->kernel_version = arena_strz(a, u.release);
	i->os_image = os_name(a);
	i->container_runtime_version = arena_strz(a, k->runtime_version);
	i->kubelet_version = arena_strz(a, k->c.version);
	i->kube_proxy_version = STR("");
	i->operating_system = STR("linux");
	i->architecture = arena_strz(a, arch_of(u.machine));
}

static int64_t disk_bytes(struct kubelet *k)
{
	struct statvfs v;

	return statvfs(k->c.root_dir, &v) ? 0 : (int64_t)v.f_blocks * (int64_t)v.f_frsize;
}

static void resources(struct kubelet *k, struct core_v1_node_status *st, struct arena *a)
{
	int64_t disk = disk_bytes(k), memory = (int64_t)k->memory_bytes;

	str_map_set(a, &st->capacity, STR("cpu"), arena_fmt(a, "%d", k->n_cpus));
	str_map_set(a, &st->capacity, STR("ephemeral-storage"),
		arena_fmt(a, "%lldKi", (long long)disk / 1024));
	str_map_set(a, &st->capacity, STR("hugepages-1Gi"), STR("0"));
	str_map_set(a, &st->capacity, STR("hugepages-2Mi"), STR("0"));
	str_map_set(
		a, &st->capacity, STR("memory"), arena_fmt(a, "%lldKi", (long long)memory / 1024));
	str_map_set(a, &st->capacity, STR("pods"), arena_fmt(a, "%d", k->c.max_pods));
	LIST_EACH(p, &st->capacity)
		str_map_set(a, &st->allocatable, p->key, p->value);
	str_map_set(a, &st->allocatable, STR("memory"),
		arena_fmt(a, "%lldKi", (long long)MAX(memory - EVICTION_MEMORY, 0) / 1024));
	str_map_set(a, &st->allocatable, STR("ephemeral-storage"),
		arena_fmt(a, "%lld", (long long)(disk / 10 * 9)));
}

bool node_allocatable(struct kubelet *k, const char *resource, struct quantity *ret)
{
	int64_t n;

	if (!strcmp(resource, "cpu"))
		n = k->n_cpus;
	else if (!strcmp(resource, "memory"))
		n = MAX((int64_t)k->memory_bytes - EVICTION_MEMORY, 0);
	else if (!strcmp(resource, "ephemeral-storage"))
		n = disk_bytes(k) / 10 * 9;
	else
		return false;
	*ret = (struct quantity){ .nano = (__int128)n * 1000000000, .format = 'D' };
	return true;
}

static int largest_first(const void *a, const void *b)
{
	uint64_t x = ((const struct engine_image *)a)->size,
		 y = ((const struct engine_image *)b)->size;

	return x < y ? 1 : x > y ? -1 : 0;
}

static void images(struct kubelet *k, struct core_v1_node_status *st, struct arena *a)
{
	struct engine_image *list;
	struct err err;
	size_t n;

	if (k->c.engine->v->image_list(k->c.engine, a, &list, &n, &err))
		return;
	if (n)
		qsort(list, n, sizeof(*list), largest_first);
	for (size_t i = 0; i < n && i < IMAGES_MAX; i++) {
		struct core_v1_container_image *image = LIST_ADD(a, &st->images);
		for (size_t j = 0; j < list[i].repo_digests.len; j++)
			*LIST_ADD(a, &image->names) = list[i].repo_digests.items[j];
		for (size_t j = 0; j < list[i].repo_tags.len; j++)
			*LIST_ADD(a, &image->names) = list[i].repo_tags.items[j];
		image->size_bytes = (int64_t)list[i].size;
	}
}

static void addresses(struct kubelet *k, struct core_v1_node_status *st, struct arena *a)
{
	struct core_v1_node_address *ip = LIST_ADD(a, &st->addresses);
	ip->type = STR("InternalIP");
	ip->address = arena_strz(a, k->c.node_ip);
	struct core_v1_node_address *host = LIST_ADD(a, &st->addresses);
	host->type = STR("Hostname");
	host->address = arena_strz(a, k->c.node_name);
}

void node_facts(struct kubelet *k, struct core_v1_node_status *ret, struct arena *a)
{
	resources(k, ret, a);
	addresses(k, ret, a);
	info(k, &ret->node_info, a);
	images(k, ret, a);
	ret->daemon_endpoints.kubelet_endpoint.port = k->c.port;
	struct core_v1_node_runtime_handler *handler = LIST_ADD(a, &ret->runtime_handlers);
	handler->name = STR("");
	ret->features = arena_alloc(a, sizeof(*ret->features));
	ret->features->supplemental_groups_policy = (struct opt_bool)SOME(true);
}
