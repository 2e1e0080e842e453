/* The few threads that serve all informers of a client, and the moments at which each is served. Upstream has a few goroutines an informer.
 *
 * A task is an informer's: it runs on one thread at a time, from its beginning to the call that tells what it rests for (crew_rest…, crew_defer, crew_done). While
 * it rests it has no thread. What a descriptor wakes runs on one of the crew's own threads, which block for nothing else; what may
 * block (a list, a connection that is made) runs in a pool that is empty when nothing goes on: few at a time, for a thread that was leaves memory behind; but
 * who has waited HURRY_MS for those few gets a thread more.
 *
 * While the server is silent, those who want an answer share one back-off, too: each time it is over, one of them asks, with what it wants anyway. An answer
 * of any kind to anybody ends the silence for all.
 *
 * 1. The first turn comes 100 ms after the silence began, the next ones after twice as long each, at last each second; a quarter more or less, by
 *    chance. Turns do not wait for each other: one whose connection hangs holds nobody up.
 * 2. At the end of a silence those who waited go on spread over SPREAD_MS; those whose moment had not come when a new one begins wait on.
 * 3. What a server answers is no matter of this file: whoever is refused backs off alone. So does whoever gets no answer while others do: what breaks
 *    a connection each time, or finds no place for another one, would else be asked again with each answer to anybody.
 * 4. lock guards every task's members and all of struct crew but `answers`, and `silent`, which is written under it and read without. */
#include "client/internal.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "io/io.h"

#define BLOCKING_FEW 4
#define BLOCKING_MOST 64 /* more informers than a process has */
#define HURRY_MS 1000
#define TURN_FIRST_MS 100
#define TURN_MOST_MS 1000
#define SPREAD_MS 300
#define NEVER UINT64_MAX
#define CLOCK_KEY 0 /* in epoll; tasks count from 1 */

static uint64_t chance(uint64_t ms)
{
	uint32_t x;

	random_bytes(&x, sizeof(x));
	return ms * x >> 32;
}

uint64_t crew_about(uint64_t ms)
{
	return ms - ms / 4 + chance(ms / 2);
}

static uint64_t after(uint64_t ms)
{
	return mono_now_ns() + ms * 1000000;
}

void crew_init(struct crew *c)
{
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->idle, NULL);
	c->epoll = c->clock = -1;
	c->clock_ns = NEVER;
}

/* ---- the clock ---- */

static void set_clock(struct crew *c, uint64_t ns)
{
	const struct itimerspec t = { .it_value = { .tv_sec = (time_t)(ns / 1000000000),
					      .tv_nsec = (long)(ns % 1000000000) } };

	if (ns >= c->clock_ns || c->clock < 0)
		return;
	c->clock_ns = ns;
	timerfd_settime(c->clock, TFD_TIMER_ABSTIME, &t, NULL);
}

static struct task *longest_ready(const struct crew *c)
{
	struct task *found = NULL;

	for (struct task *t = c->tasks; t; t = t->next)
		if (t->state == TASK_READY && (!found || t->wake_ns < found->wake_ns))
			found = t;
	return found;
}

static void run_blocking(void *arg)
{
	struct task *t = arg;
	struct crew *c = t->crew;

	while (t) {
		t->run(t, true);
		pthread_mutex_lock(&c->lock);
		t = c->n_blocking <= BLOCKING_FEW ? longest_ready(c) : NULL;
		if (t)
			t->state = TASK_RUNS;
		else
			c->n_blocking--;
		pthread_mutex_unlock(&c->lock);
	}
}

static void start_blocking(struct crew *c, struct task *t)
{
	c->n_blocking++;
	t->state = TASK_RUNS;
	pool_submit(c->pool, run_blocking, t);
}

static void submit(struct crew *c, struct task *t)
{
	t->wants_answer = false;
	if (c->n_blocking < BLOCKING_FEW)
		return start_blocking(c, t);
	t->state = TASK_READY;
	t->wake_ns = after(HURRY_MS);
	set_clock(c, t->wake_ns);
}

static bool waits_for_answer(const struct crew *c, const struct task *t)
{
	return c->silent && t->state == TASK_RESTS && t->wants_answer;
}

/* One that waits for its turn; it goes to the end of the row. */
static bool give_turn(struct crew *c)
{
	for (struct task **at = &c->tasks; *at; at = &(*at)->next) {
		struct task *t = *at;

		if (!waits_for_answer(c, t))
			continue;
		*at = t->next;
		t->next = NULL;
		for (at = &c->tasks; *at; at = &(*at)->next)
			;
		*at = t;
		submit(c, t);
		return true;
	}
	return false;
}

static void on_clock(struct crew *c)
{
	uint64_t now = mono_now_ns(), next = NEVER, unread;

	if (read(c->clock, &unread, sizeof(unread)) < 0)
		return; /* another thread's */
	c->clock_ns = NEVER;
	if (c->silent && now >= c->turn_ns && give_turn(c)) {
		c->pause_ms = MIN(c->pause_ms * 2, (uint64_t)TURN_MOST_MS);
		c->turn_ns = after(crew_about(c->pause_ms));
	}
	for (struct task *t = c->tasks; t; t = t->next) {
		if (t->state == TASK_READY && t->wake_ns <= now)
			start_blocking(c, t);
		else if (t->state == TASK_RESTS && !waits_for_answer(c, t) && t->wake_ns <= now)
			submit(c, t);
		if (waits_for_answer(c, t))
			next = MIN(next, c->turn_ns);
		else if (t->state != TASK_RUNS)
			next = MIN(next, t->wake_ns);
	}
	set_clock(c, next);
}

/* ---- the threads ---- */

static void on_ready(struct crew *c, uint64_t key)
{
	struct task *t = c->tasks;

	while (t && t->key != key)
		t = t->next;
	/* The clock, or its end, may have been first. */
	if (!t || t->state != TASK_RESTS)
		return;
	t->state = TASK_RUNS;
	pthread_mutex_unlock(&c->lock);
	t->run(t, false);
	pthread_mutex_lock(&c->lock);
}

static void *work(void *arg)
{
	struct crew *c = arg;
	bool ending = false;

	while (!ending) {
		struct epoll_event e;

		if (epoll_wait(c->epoll, &e, 1, -1) != 1)
			continue;
		pthread_mutex_lock(&c->lock);
		ending = c->ending;
		if (!ending && e.data.u64 == CLOCK_KEY)
			on_clock(c);
		else if (!ending)
			on_ready(c, e.data.u64);
		pthread_mutex_unlock(&c->lock);
	}
	return NULL;
}

static int start(struct crew *c, struct err *err)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = CLOCK_KEY };

	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->clock = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->epoll < 0 || c->clock < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->clock, &e) < 0)
		return err_errno(err, -errno, "start the threads of informers");
	c->pool = pool_new("informer", BLOCKING_MOST);
	for (size_t i = 0; i < CREW_THREADS; i++) {
		int r = thread_start(&c->threads[i], "watches", work, c);

		if (r < 0)
			return err_errno(err, r, "start a thread of informers");
		c->n_threads++;
	}
	return 0;
}

void crew_deinit(struct crew *c)
{
	pthread_mutex_lock(&c->lock);
	c->ending = true;
	set_clock(c, 1); /* nobody reads it any more: it wakes every thread */
	pthread_mutex_unlock(&c->lock);
	for (size_t i = 0; i < c->n_threads; i++)
		pthread_join(c->threads[i], NULL);
	pool_free(c->pool);
	if (c->epoll >= 0)
		close(c->epoll);
	if (c->clock >= 0)
		close(c->clock);
	pthread_cond_destroy(&c->idle);
	pthread_mutex_destroy(&c->lock);
}

/* ---- tasks ---- */

int crew_start(struct crew *c, struct task *t, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (!c->n_threads)
		r = start(c, err);
	if (!r) {
		t->crew = c;
		t->key = ++c->last_key;
		t->next = c->tasks;
		c->tasks = t;
		submit(c, t);
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

static void unlink_task(struct crew *c, struct task *t)
{
	for (struct task **at = &c->tasks; *at; at = &(*at)->next)
		if (*at == t) {
			*at = t->next;
			break;
		}
	t->state = TASK_IDLE;
	pthread_cond_broadcast(&c->idle);
}

void crew_stop(struct crew *c, struct task *t)
{
	pthread_mutex_lock(&c->lock);
	t->stopping = true;
	if (t->state == TASK_RESTS || t->state == TASK_READY)
		unlink_task(c, t);
	while (t->state != TASK_IDLE)
		pthread_cond_wait(&c->idle, &c->lock);
	pthread_mutex_unlock(&c->lock);
}

void crew_done(struct crew *c, struct task *t)
{
	pthread_mutex_lock(&c->lock);
	unlink_task(c, t);
	pthread_mutex_unlock(&c->lock);
}

void crew_defer(struct crew *c, struct task *t)
{
	pthread_mutex_lock(&c->lock);
	submit(c, t);
	pthread_mutex_unlock(&c->lock);
}

/* With the lock; false: it is to end, and did. */
static bool rest(struct crew *c, struct task *t)
{
	if (t->stopping) {
		unlink_task(c, t);
		return false;
	}
	t->state = TASK_RESTS;
	set_clock(c, waits_for_answer(c, t) ? c->turn_ns : t->wake_ns);
	return true;
}

void crew_rest(struct crew *c, struct task *t, uint64_t ms)
{
	pthread_mutex_lock(&c->lock);
	t->wake_ns = after(ms);
	rest(c, t);
	pthread_mutex_unlock(&c->lock);
}

void crew_rest_on(struct crew *c, struct task *t, int fd, uint64_t ms)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = t->key };

	pthread_mutex_lock(&c->lock);
	t->wake_ns = after(ms);
	if (rest(c, t) && epoll_ctl(c->epoll, EPOLL_CTL_MOD, fd, &e) < 0)
		epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e);
	pthread_mutex_unlock(&c->lock);
}

bool crew_rest_silent(struct crew *c, struct task *t)
{
	pthread_mutex_lock(&c->lock);
	bool first = !c->silent;

	if (first) {
		c->pause_ms = TURN_FIRST_MS;
		c->turn_ns = after(crew_about(TURN_FIRST_MS));
		c->silent = true;
	}
	t->wants_answer = true;
	t->wake_ns = NEVER;
	rest(c, t);
	pthread_mutex_unlock(&c->lock);
	return first;
}

void crew_answered(struct crew *c)
{
	atomic_fetch_add_explicit(&c->answers, 1, memory_order_relaxed);
	if (!c->silent)
		return;
	pthread_mutex_lock(&c->lock);
	for (struct task *t = c->tasks; c->silent && t; t = t->next)
		if (t->state == TASK_RESTS && t->wants_answer) {
			t->wake_ns = after(chance(SPREAD_MS));
			set_clock(c, t->wake_ns);
		}
	c->silent = false;
	pthread_mutex_unlock(&c->lock);
}
