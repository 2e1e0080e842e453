/* The backend that keeps nothing beyond the process: for tests and simulation. */
#include "store/internal.h"

static int memory_open(const struct store_config *c, struct backend **ret, struct err *err)
{
	*ret = NULL;
	return 0;
}

static int memory_load(struct backend *b, load_each_fn each, void *arg, uint64_t *ret_revision,
	uint64_t *ret_compacted, struct err *err)
{
	*ret_revision = *ret_compacted = 1;
	return 0;
}

static int memory_commit(
	struct backend *b, struct store_event *const *events, size_t n, struct err *err)
{
	return 0;
}

static int memory_compact(
	struct backend *b, uint64_t compacted, const struct revisions *rows, struct err *err)
{
	return 0;
}

static bool memory_untidy(const struct backend *b, bool idle)
{
	return false;
}

static int memory_tidy(struct backend *b, struct err *err)
{
	return 0;
}

static uint64_t memory_size(const struct backend *b)
{
	return 0;
}

static void memory_close(struct backend *b) {}

const struct backend_type backend_memory = {
	.name = "memory",
	.open = memory_open,
	.load = memory_load,
	.commit = memory_commit,
	.compact = memory_compact,
	.untidy = memory_untidy,
	.tidy = memory_tidy,
	.size = memory_size,
	.close = memory_close,
};
