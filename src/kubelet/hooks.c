/* Lifecycle handlers: exec, httpGet, sleep (tcpSocket is of the API but has no meaning, as upstream). Blocking, on a slow thread. */
#include <time.h>

#include "gen/types.h"
#include "kubelet/internal.h"

static int run_exec(struct kubelet *k, const struct str_list *command, const char *id,
	int64_t timeout_ms, struct err *err)
{
	CLEAN_BUF struct buf out = { 0 };
	int code;
	const char **argv = xcalloc(command->len + 1, sizeof(*argv));

	for (size_t i = 0; i < command->len; i++)
		argv[i] = command->items[i].p;
	int r = k->c.engine->v->exec_sync(k->c.engine, id, argv, timeout_ms, &out, &code, err);
	free(argv);
	if (r)
		return r < 0 ? r : -ENOENT;
	if (code)
		return err_set(err, -EIO, "command exited with code %d: " STR_FMT, code,
			STR_ARG(buf_str(&out)));
	return 0;
}

int hook_run(struct kubelet *k, const struct core_v1_lifecycle_handler *h,
	const struct core_v1_container *c, const char *container_id, const char *pod_ip,
	int64_t timeout_ms, struct err *err)
{
	if (h->exec)
		return run_exec(k, &h->exec->command, container_id, timeout_ms, err);
	if (h->http_get) {
		CLEAN_BUF struct buf body = { 0 }, url = { 0 };
		int status;
		int r = http_get_action(h->http_get, c, pod_ip,
			timeout_ms ? (unsigned)MIN(timeout_ms, (int64_t)INT32_MAX) : 30000, &status,
			&body, &url, err);
		return r;
	}
	if (h->sleep) {
		int64_t ms = MIN(h->sleep->seconds, (int64_t)GRACE_MAX_S) * 1000;
		if (timeout_ms && ms > timeout_ms)
			ms = timeout_ms;
		struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
		while (nanosleep(&t, &t) && errno == EINTR)
			;
		return 0;
	}
	return err_set(err, -EINVAL, "invalid handler: it has neither exec nor httpGet nor sleep");
}
