/* What the node has of memory: the machine's, or the limit of the cgroup that is the root of all that the agent sees (a node in a container or a
 * namespace of its own), when that is less. Upstream's kubelet tells the machine's. */
#include "gen/types.h"
#include "kubelet/internal.h"
#include "linux/linux.h"

static uint64_t meminfo(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? strtoull(p + strlen(key), NULL, 10) * 1024 : 0;
}

struct node_memory node_memory(struct kubelet *k)
{
	CLEAN_BUF struct buf b = { 0 };
	struct cgroup_stats s;
	struct err err;

	if (file_read("/proc/meminfo", 1 << 16, &b, &err))
		return (struct node_memory){ 0 };
	struct node_memory m = { .total = meminfo(b.p, "MemTotal:"),
		.available = meminfo(b.p, "MemAvailable:"),
		.free = meminfo(b.p, "MemFree:") };
	uint64_t limit = k->cgroups ? cgroup_root_memory(k->cgroups, &s) : 0;
	if (!limit || limit >= m.total)
		return m;
	m.total = limit;
	m.free = MIN(m.free, limit - MIN(limit, s.memory_bytes));
	m.available = MIN(m.available, limit - MIN(limit, s.memory_working_set));
	return m;
}
