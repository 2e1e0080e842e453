/* Graceful shutdown of the node: while logind waits, pods are ended by their priority, each group within its own time. Upstream: the kubelet's node shutdown
 * manager; sources: the concept page on node shutdowns, KEP-2000, KEP-2712.
 *
 * 1. A group of priority P is every pod of at least P and less than the next group's; pods below all groups belong to the lowest.
 * 2. Groups are ended one after the other, lowest first. One whose time is over is waited for no longer.
 * 3. The delay is held from the moment that logind is reached until the last group has ended, and taken again when the shutdown is called off.
 * 4. One thread does all of this; `active` alone is read by others. */
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "gen/types.h"
#include "kubelet/internal.h"
#include "kubelet/logind.h"

#define AGAIN_MS 30000
#define STATUS_NS (2 * NS_PER_S) /* for the last word on pods to be told */
#define MESSAGE "Pod was terminated in response to imminent node shutdown."

struct shutdown {
	struct kubelet *k;
	struct logind *logind;
	pthread_t thread;
	_Atomic bool active;
	int wake_fd, delay_fd; /* delay_fd: -1 when not held */
	size_t group; /* that is being ended; n_shutdown_groups: statuses are being told; past it: all is done */
	uint64_t deadline_ns;
	bool told;
};

/* ---- what is asked for ---- */

static int seconds_of(struct str text, const char *flag, int64_t *ret, struct err *err)
{
	int64_t ns;

	if (duration_parse(text, &ns) < 0 || ns < 0 || ns > 86400 * (int64_t)NS_PER_S ||
		(ns && ns < (int64_t)NS_PER_S))
		return err_set(err, -EINVAL,
			"%s: \"" STR_FMT "\": expected 0s, or a duration of at least 1s, as in 30s",
			flag, STR_ARG(text));
	*ret = ns / (int64_t)NS_PER_S;
	return 0;
}

static int by_priority(const void *a, const void *b)
{
	const struct kubelet_shutdown_group *x = a, *y = b;

	return x->priority < y->priority ? -1 : x->priority > y->priority;
}

static int parse_groups(struct str rest, struct kubelet_shutdown_groups *ret, struct err *err)
{
	struct str pair, priority, time;
	int64_t n;

	while (rest.len) {
		struct kubelet_shutdown_group *g = &ret->items[ret->len];

		str_cut(rest, ',', &pair, &rest);
		if (!str_cut(str_trim(pair), '=', &priority, &time) ||
			str_to_i64(priority, &n) < 0 || n < INT32_MIN || n > INT32_MAX)
			return err_set(err, -EINVAL,
				"--shutdown-grace-period-by-pod-priority: \"" STR_FMT
				"\": expected PRIORITY=DURATION,…, as in 0=20s,2000000000=10s",
				STR_ARG(pair));
		if (ret->len == ARRAY_LEN(ret->items))
			return err_set(err, -EINVAL,
				"--shutdown-grace-period-by-pod-priority: at most %zu priorities",
				ret->len);
		g->priority = (int32_t)n;
		int r = seconds_of(
			time, "--shutdown-grace-period-by-pod-priority", &g->seconds, err);

		if (r < 0)
			return r;
		ret->len++;
	}
	qsort(ret->items, ret->len, sizeof(*ret->items), by_priority);
	for (size_t i = 1; i < ret->len; i++)
		if (ret->items[i].priority == ret->items[i - 1].priority)
			return err_set(err, -EINVAL,
				"--shutdown-grace-period-by-pod-priority: priority %d stands there twice",
				ret->items[i].priority);
	return 0;
}

int kubelet_shutdown_groups(const char *total, const char *critical, const char *groups,
	struct kubelet_shutdown_groups *ret, struct err *err)
{
	int64_t total_s, critical_s;
	int r = seconds_of(str_of(total), "--shutdown-grace-period", &total_s, err);

	*ret = (struct kubelet_shutdown_groups){ 0 };
	if (r == 0)
		r = seconds_of(str_of(critical), "--shutdown-grace-period-critical-pods",
			&critical_s, err);
	if (r < 0)
		return r;
	if (critical_s > total_s)
		return err_set(err, -EINVAL,
			"--shutdown-grace-period-critical-pods %s: it is part of --shutdown-grace-period %s, so it cannot be longer",
			critical, total);
	if (groups && total_s)
		return err_set(err, -EINVAL,
			"--shutdown-grace-period-by-pod-priority takes the place of --shutdown-grace-period: give one of them");
	if (groups)
		return parse_groups(str_of(groups), ret, err);
	if (total_s)
		*ret = (struct kubelet_shutdown_groups){
			.items = { { 0, total_s - critical_s }, { PRIORITY_CRITICAL, critical_s } },
			.len = 2
		};
	return 0;
}

/* ---- pods ---- */

static size_t group_of(const struct kubelet_shutdown_groups *g, int32_t priority)
{
	size_t i = 0;

	while (i + 1 < g->len && g->items[i + 1].priority <= priority)
		i++;
	return i;
}

/* And its status says so, told or not. */
static bool is_down(struct pod_worker *w)
{
	pthread_mutex_lock(&w->lock);
	bool down = w->state == POD_GONE ||
		(w->state == POD_TERMINATED && w->status &&
			(str_eqz(w->status->phase, "Failed") ||
				str_eqz(w->status->phase, "Succeeded")));

	pthread_mutex_unlock(&w->lock);
	return down;
}

static bool is_told(struct pod_worker *w)
{
	pthread_mutex_lock(&w->lock);
	bool told = w->sent_version == w->status_version;

	pthread_mutex_unlock(&w->lock);
	return told || !w->k->c.client;
}

/* Pods of a group, or all (group past the last), of which `done` is not true yet. end: they are told to end. */
static size_t count_pods(
	struct shutdown *s, size_t group, bool (*done)(struct pod_worker *w), bool end)
{
	const struct kubelet_shutdown_groups *g = &s->k->c.shutdown;
	struct pod_worker **all;
	size_t n, left = 0;

	pods_list(s->k, &all, &n);
	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&s->k->lock);
		int32_t priority = all[i]->desired->pod->spec.priority.value;

		pthread_mutex_unlock(&s->k->lock);
		if ((group == g->len || group_of(g, priority) == group) && !done(all[i])) {
			left++;
			if (end)
				worker_evict(all[i], POD_NODE_SHUTDOWN, MESSAGE,
					g->items[group].seconds);
		}
		worker_unref(all[i]);
	}
	free(all);
	return left;
}

/* ---- the course of it ---- */

static void tell_node(struct shutdown *s, const char *text)
{
	struct cached *node = node_cached(s->k);

	log_info("kubelet", "%s", text);
	if (node && s->k->events)
		event_record(s->k->events, &core_v1_node_type, node->obj, "Normal", "NodeShutdown",
			"%s", text);
	cached_unref(node);
	node_status_now(s->k);
}

static void hold(struct shutdown *s)
{
	struct err err = { 0 };

	if (s->delay_fd < 0 && logind_inhibit(s->logind, &s->delay_fd, &err) < 0)
		log_error("kubelet", "a shutdown of this node will not wait for its pods: %s",
			err.text);
}

static void release(struct shutdown *s)
{
	if (s->delay_fd >= 0)
		close(s->delay_fd);
	s->delay_fd = -1;
}

static void enter_group(struct shutdown *s, size_t group)
{
	const struct kubelet_shutdown_groups *g = &s->k->c.shutdown;

	s->group = group;
	if (group < g->len) {
		size_t n = count_pods(s, group, is_down, true);

		s->deadline_ns = mono_now_ns() + (uint64_t)g->items[group].seconds * NS_PER_S;
		log_info("kubelet", "shutdown: %zu pods of priority %d and more have %lld s to end",
			n, g->items[group].priority, (long long)g->items[group].seconds);
	} else {
		s->deadline_ns = mono_now_ns() + STATUS_NS;
	}
}

/* Goes on as far as it can. */
static void advance(struct shutdown *s)
{
	const struct kubelet_shutdown_groups *g = &s->k->c.shutdown;

	while (s->active && s->group <= g->len) {
		bool over = mono_now_ns() >= s->deadline_ns;
		size_t left = count_pods(s, s->group, s->group < g->len ? is_down : is_told, false);

		if (left && !over)
			return;
		if (left)
			log_warn("kubelet", "shutdown: %zu pods are not %s in time", left,
				s->group < g->len ? "down" : "told of");
		if (s->group < g->len) {
			enter_group(s, s->group + 1);
			continue;
		}
		s->group++;
		log_info("kubelet", "shutdown: the pods have ended; the machine may go down");
		release(s);
	}
}

static void on_logind(void *arg, bool shuts_down)
{
	struct shutdown *s = arg;

	if (s->active == shuts_down)
		return;
	s->active = shuts_down;
	tell_node(s,
		shuts_down ? "Shutdown manager detected shutdown event"
			   : "Shutdown manager detected shutdown cancellation");
	if (shuts_down)
		enter_group(s, 0);
	else
		hold(s);
}

/* ---- the thread ---- */

static void wait_for(struct shutdown *s, struct pollfd *fds, size_t n, int timeout_ms)
{
	uint64_t count;

	poll(fds, n, timeout_ms);
	while (read(s->wake_fd, &count, sizeof(count)) > 0)
		;
}

static int connect_to_logind(struct shutdown *s)
{
	const struct kubelet_shutdown_groups *g = &s->k->c.shutdown;
	struct err err = { 0 };
	uint64_t seconds = 0;
	int r = logind_open(on_logind, s, &s->logind, &err);

	for (size_t i = 0; i < g->len; i++)
		seconds += (uint64_t)g->items[i].seconds;
	if (r == 0 && logind_allow_delay(s->logind, seconds, &err) < 0)
		log_warn("kubelet", "a shutdown of this node waits for less than %llu s: %s",
			(unsigned long long)seconds, err.text);
	if (r == 0) {
		bool shuts_down = logind_shuts_down(s->logind);

		hold(s);
		on_logind(s, shuts_down); /* what came while nobody listened */
	} else if (!s->told) {
		log_warn("kubelet", "a shutdown of this node does not wait for its pods: %s",
			err.text);
	}
	s->told = r < 0;
	return r;
}

static void serve(struct shutdown *s)
{
	struct pollfd fds[2] = { [1] = { .fd = s->wake_fd, .events = POLLIN } };
	int timeout_ms;

	while (!s->k->stopping && logind_process(s->logind) >= 0) {
		advance(s);
		if (logind_poll(s->logind, &fds[0], &timeout_ms) < 0)
			return;
		if (s->active && s->group <= s->k->c.shutdown.len) {
			uint64_t now = mono_now_ns();
			int left = s->deadline_ns > now
				? (int)((s->deadline_ns - now) / NS_PER_MS) + 1
				: 0;

			timeout_ms = timeout_ms < 0 ? left : MIN(timeout_ms, left);
		}
		wait_for(s, fds, 2, timeout_ms);
	}
}

static void *run(void *arg)
{
	struct shutdown *s = arg;

	while (!s->k->stopping) {
		if (connect_to_logind(s) == 0)
			serve(s);
		release(s);
		logind_close(TAKE(s->logind));
		if (!s->k->stopping)
			wait_for(s, &(struct pollfd){ .fd = s->wake_fd, .events = POLLIN }, 1,
				AGAIN_MS);
	}
	return NULL;
}

/* ---- for the others ---- */

bool shutdown_active(const struct kubelet *k)
{
	return k->shutdown && k->shutdown->active;
}

void shutdown_pod_changed(const struct kubelet *k)
{
	if (shutdown_active(k))
		eventfd_write(k->shutdown->wake_fd, 1);
}

int shutdown_start(struct kubelet *k, struct err *err)
{
	struct shutdown *s;
	int r;

	if (!k->c.shutdown.len)
		return 0;
	s = xcalloc(1, sizeof(*s));
	*s = (struct shutdown){
		.k = k, .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .delay_fd = -1
	};
	r = s->wake_fd < 0 ? -errno : thread_start(&s->thread, "shutdown", run, s);
	if (r < 0) {
		if (s->wake_fd >= 0)
			close(s->wake_fd);
		free(s);
		return err_errno(err, r, "cannot start the thread of graceful shutdowns");
	}
	k->shutdown = s;
	return 0;
}

void shutdown_stop(struct kubelet *k)
{
	if (!k->shutdown)
		return;
	eventfd_write(k->shutdown->wake_fd, 1);
	pthread_join(k->shutdown->thread, NULL);
}

void shutdown_free(struct kubelet *k)
{
	if (!k->shutdown)
		return;
	close(k->shutdown->wake_fd);
	free(k->shutdown);
	k->shutdown = NULL;
}
