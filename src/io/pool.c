/* Threads with small stacks, and a pool of them.
 *
 * The pool starts a thread when work waits and no thread is idle, up to its bound; a thread that found nothing to do for
 * IDLE_SECONDS ends. lock guards every member of struct pool. */
#include "io/internal.h"

#include <stdio.h>

#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#define IDLE_SECONDS 10
/* Bytes of stack that the release of a stack needs itself. */
#ifdef __SANITIZE_ADDRESS__
#define OWN_FRAME 8192
#else
#define OWN_FRAME 1024
#endif

struct thread_start_args {
	void *(*fn)(void *);
	void *arg;
	char name[16];
};

static void *thread_main(void *arg)
{
	struct thread_start_args a = *(struct thread_start_args *)arg;

	free(arg);
	pthread_setname_np(pthread_self(), a.name);
	void *r = a.fn(a.arg);

	/* The C library keeps stacks of threads that ended, with what lies in their last 16 KB. */
	thread_release_stack();
	return r;
}

int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg)
{
	struct thread_start_args *a = xmalloc(sizeof(*a));
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;

	a->fn = fn;
	a->arg = arg;
	snprintf(a->name, sizeof(a->name), "%s", name);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	int r = pthread_create(&thread, &attr, thread_main, a);

	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r) {
		free(a);
		return -r;
	}
	*ret = thread;
	return 0;
}

void thread_release_stack(void)
{
	uintptr_t page = (uintptr_t)getpagesize(),
		  here = (uintptr_t)__builtin_frame_address(0) - OWN_FRAME;
	pthread_attr_t attr;
	void *lowest;
	size_t size;

	if (pthread_getattr_np(pthread_self(), &attr))
		return;
	if (!pthread_attr_getstack(&attr, &lowest, &size) &&
		(here & ~(page - 1)) > (uintptr_t)lowest)
		madvise(lowest, (here & ~(page - 1)) - (uintptr_t)lowest, MADV_DONTNEED);
	pthread_attr_destroy(&attr);
}

struct job {
	struct job *next;
	task_fn fn;
	void *arg;
};

struct pool {
	char name[16];
	unsigned max, threads, idle;
	struct job *first, **last;
	unsigned waiting;
	bool ending;
	pthread_mutex_t lock;
	pthread_cond_t work, quiet;
};

/* Waits with the lock held until there is a job; NULL: this thread should end. */
static struct job *next_job(struct pool *p)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	p->idle++;
	while (!p->first && !p->ending && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&p->work, &p->lock, &until);
	p->idle--;
	struct job *j = p->first;

	if (j) {
		p->first = j->next;
		if (!p->first)
			p->last = &p->first;
		p->waiting--;
	}
	return j;
}

static void *pool_thread(void *arg)
{
	struct pool *p = arg;
	struct job *j;

	pthread_mutex_lock(&p->lock);
	while ((j = next_job(p))) {
		pthread_mutex_unlock(&p->lock);
		j->fn(j->arg);
		free(j);
		pthread_mutex_lock(&p->lock);
	}
	p->threads--;
	pthread_cond_broadcast(&p->quiet);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct pool *pool_new(const char *name, unsigned max_threads)
{
	struct pool *p = xcalloc(1, sizeof(*p));
	pthread_condattr_t attr;

	snprintf(p->name, sizeof(p->name), "%s", name);
	p->max = MAX(max_threads, 1u);
	p->last = &p->first;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->work, &attr);
	pthread_cond_init(&p->quiet, &attr);
	pthread_condattr_destroy(&attr);
	return p;
}

void pool_submit(struct pool *p, task_fn fn, void *arg)
{
	struct job *j = xmalloc(sizeof(*j));
	pthread_t thread;

	*j = (struct job){ NULL, fn, arg };
	pthread_mutex_lock(&p->lock);
	*p->last = j;
	p->last = &j->next;
	p->waiting++;
	if (p->waiting > p->idle && p->threads < p->max) {
		p->threads++;
		if (thread_start(&thread, p->name, pool_thread, p) == 0)
			pthread_detach(thread);
		else if (--p->threads == 0)
			abort(); /* nobody would ever run the job */
	}
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->ending = true;
	pthread_cond_broadcast(&p->work);
	while (p->threads)
		pthread_cond_wait(&p->quiet, &p->lock);
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->quiet);
	free(p);
}
