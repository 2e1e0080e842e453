/* A loop is a uv_loop_t and two queues of tasks.
 *
 * 1. Posts (any thread) run in the order of posting. A post made by a post runs in the next turn, so that no task can starve
 *    descriptors.
 * 2. Turn-end tasks (loop's thread only) run once before the loop next waits.
 * 3. After loop_stop everything posted so far still runs.
 *
 * Waking is an eventfd and not uv_async_t, whose receiver spins while the sender is between its two steps: with more busy threads than
 * cores that costs more than the post.
 *
 * lock guards posts and current; nothing is called with it held. */
#include "io/internal.h"

#include <stdio.h>

#include <stdatomic.h>
#include <sys/eventfd.h>

struct task {
	task_fn fn;
	void *arg;
};

struct tasks {
	struct task *items;
	size_t len, cap;
};

struct loop {
	uv_loop_t uv;
	uv_poll_t wake;
	int wake_fd;
	uv_prepare_t before_wait;
	char name[16];
	pthread_mutex_t lock;
	struct tasks posts; /* guarded by lock */
	struct tasks running, turn_end;
	pthread_t thread, owner;
	atomic_bool has_owner;
	bool has_thread;
	atomic_bool stopping;
};

static void tasks_add(struct tasks *t, task_fn fn, void *arg)
{
	if (t->len == t->cap) {
		t->cap = MAX(t->cap * 2, (size_t)16);
		t->items = xrealloc(t->items, t->cap * sizeof(*t->items));
	}
	t->items[t->len++] = (struct task){ fn, arg };
}

/* Runs what was posted so far; false: there was nothing. */
static bool run_posts(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	struct tasks batch = l->posts;

	l->posts = l->running;
	pthread_mutex_unlock(&l->lock);
	l->running = (struct tasks){ 0 };
	for (size_t i = 0; i < batch.len; i++)
		batch.items[i].fn(batch.items[i].arg);
	bool any = batch.len > 0;

	/* Keep the memory for the next round, unless a burst made it large. */
	if (batch.cap > 1024) {
		free(batch.items);
		batch = (struct tasks){ 0 };
	}
	batch.len = 0;
	l->running = batch;
	return any;
}

static void run_turn_end(struct loop *l)
{
	/* A task may add another: those run in the same pass. */
	for (size_t i = 0; i < l->turn_end.len; i++)
		l->turn_end.items[i].fn(l->turn_end.items[i].arg);
	l->turn_end.len = 0;
}

static void wake(struct loop *l)
{
	static const uint64_t one = 1;

	while (write(l->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void on_wake(uv_poll_t *p, int status, int events)
{
	struct loop *l = p->data;
	uint64_t n;

	/* Before the posts are taken, so that a wake that comes meanwhile is not lost. */
	while (read(l->wake_fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
	run_posts(l);
	if (atomic_load(&l->stopping))
		uv_stop(&l->uv);
}

static void on_before_wait(uv_prepare_t *p)
{
	run_turn_end(p->data);
}

int loop_new(const char *name, struct loop **ret, struct err *err)
{
	struct loop *l = xcalloc(1, sizeof(*l));
	int r = uv_loop_init(&l->uv);

	if (r < 0) {
		free(l);
		return err_set(err, r, "event loop %s: %s", name, uv_strerror(r));
	}
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = l->wake_fd < 0 ? -errno : uv_poll_init(&l->uv, &l->wake, l->wake_fd);
	if (r < 0) {
		if (l->wake_fd >= 0)
			close(l->wake_fd);
		uv_loop_close(&l->uv);
		free(l);
		return err_set(err, r, "event loop %s: %s", name, uv_strerror(r));
	}
	uv_poll_start(&l->wake, UV_READABLE, on_wake);
	uv_prepare_init(&l->uv, &l->before_wait);
	uv_prepare_start(&l->before_wait, on_before_wait);
	l->wake.data = l;
	l->before_wait.data = l;
	snprintf(l->name, sizeof(l->name), "%s", name);
	pthread_mutex_init(&l->lock, NULL);
	*ret = l;
	return 0;
}

void loop_run(struct loop *l)
{
	l->owner = pthread_self();
	atomic_store(&l->has_owner, true);
	while (!atomic_load(&l->stopping))
		uv_run(&l->uv, UV_RUN_DEFAULT);
	/* Bounded, so that two tasks that keep posting each other cannot hold the loop for ever. */
	for (int i = 0; i < 1000 && run_posts(l); i++)
		run_turn_end(l);
	run_turn_end(l);
	atomic_store(&l->has_owner, false);
}

static void *loop_thread(void *arg)
{
	loop_run(arg);
	return NULL;
}

int loop_start(struct loop *l, struct err *err)
{
	int r = thread_start(&l->thread, l->name, loop_thread, l);

	if (r < 0)
		return err_errno(err, r, "cannot start a thread for event loop %s", l->name);
	l->has_thread = true;
	return 0;
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stopping, true);
	wake(l);
}

void loop_join(struct loop *l)
{
	if (!l->has_thread)
		return;
	pthread_join(l->thread, NULL);
	l->has_thread = false;
}

static void close_left_over(uv_handle_t *h, void *arg)
{
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	loop_join(l);
	uv_close((uv_handle_t *)&l->wake, NULL);
	uv_close((uv_handle_t *)&l->before_wait, NULL);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	if (uv_loop_close(&l->uv) == UV_EBUSY) {
		uv_walk(&l->uv, close_left_over, NULL);
		uv_run(&l->uv, UV_RUN_DEFAULT);
		uv_loop_close(&l->uv);
	}
	close(l->wake_fd);
	pthread_mutex_destroy(&l->lock);
	free(l->posts.items);
	free(l->running.items);
	free(l->turn_end.items);
	free(l);
}

void loop_post(struct loop *l, task_fn fn, void *arg)
{
	pthread_mutex_lock(&l->lock);
	bool first = l->posts.len == 0;

	tasks_add(&l->posts, fn, arg);
	/* Waking inside the lock: the loop may be freed as soon as its last post ran. */
	if (first)
		wake(l);
	pthread_mutex_unlock(&l->lock);
}

void loop_at_turn_end(struct loop *l, task_fn fn, void *arg)
{
	tasks_add(&l->turn_end, fn, arg);
}

bool loop_is_current(const struct loop *l)
{
	return atomic_load(&l->has_owner) && pthread_equal(l->owner, pthread_self());
}

struct uv_loop_s *loop_uv(struct loop *l)
{
	return &l->uv;
}

uint64_t loop_now_ms(struct loop *l)
{
	return uv_now(&l->uv);
}
