/* kill -9 at any instant, under load: several writers and a watcher in a process that dies; the next one goes on where it was.
 * Half of the deaths come from outside at a random time, from the first moment of opening on; half at a random write or fsync. */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

#include "store/internal.h"
#include "vfs.h"
#include "world.h"

enum { HISTORY = 4000, FORGET_AT = 300, EXIT_OPEN = 3 };

struct writer {
	struct world *w;
	struct store *s;
	int t;
	unsigned seed;
};

static void *write_on(void *arg)
{
	struct writer *x = arg;
	while (!x->w->stop)
		world_write(x->w, x->s, x->t, &x->seed);
	return NULL;
}

static void post(void *arg)
{
	sem_post(arg);
}

static struct store *open_store(struct world *w, const char *path)
{
	struct store_config c = { .backend = "sqlite", .path = path, .history = HISTORY };
	struct store *s = NULL;
	struct err err = { 0 };
	if (store_open(&c, &s, &err) < 0) {
		world_error(w, "%s", err.text);
		return NULL;
	}
	s->dropped_max = FORGET_AT; /* before the first write: nobody else looks at it yet */
	world_check(w, s);
	return s;
}

/* Returns never but by a signal, or when something is wrong. */
static void live(struct world *w, const char *path, unsigned seed)
{
	struct store *s = open_store(w, path);
	if (!s)
		_exit(EXIT_OPEN);
	sem_t wakes;
	sem_init(&wakes, 0, 0);
	struct store_watch *cursor;
	int r = store_watch(s, STR("/things/"), w->watched, post, &wakes, &cursor);
	if (r == STORE_COMPACTED) {
		/* Fair when the watcher was so far behind; the judge sees that it is rare. */
		w->relists++;
		w->watched = store_revision(s);
		r = store_watch(s, STR("/things/"), w->watched, post, &wakes, &cursor);
	}
	if (r)
		world_error(w, "watching from %llu: %d", (unsigned long long)w->watched, r);
	pthread_t threads[WORLD_WRITERS];
	struct writer writers[WORLD_WRITERS];
	for (int t = 0; t < WORLD_WRITERS; t++) {
		writers[t] = (struct writer){ w, s, t, seed + (unsigned)t };
		pthread_create(&threads[t], NULL, write_on, &writers[t]);
	}
	while (w->errors == 0) {
		if (!world_watch(w, cursor))
			world_error(w, "the watcher fell off the log");
		sem_wait(&wakes);
	}
	_exit(1);
}

static void sleep_us(long us)
{
	struct timespec t = { us / 1000000, us % 1000000 * 1000 };
	nanosleep(&t, NULL);
}

static void die_once(struct world *w, const char *path, unsigned *seed)
{
	/* The first writes are those of opening. */
	struct fault_plan plan = { .mode = FAULT_NONE, .triggered = &w->triggered };
	long us = rand_r(seed) % 4 == 0 ? rand_r(seed) % 10000 : 10000 + rand_r(seed) % 120000;
	if (rand_r(seed) % 2) {
		static const enum fault_mode modes[] = { FAULT_DIE_BEFORE, FAULT_DIE_HALF,
			FAULT_DIE_AFTER };
		plan.mode = modes[rand_r(seed) % ARRAY_LEN(modes)];
		plan.at = 1 + rand_r(seed) % 3000;
		us = 5000000;
	}
	pid_t pid = fork();
	if (pid == 0) {
		fault_vfs_install(&plan);
		live(w, path, (unsigned)rand_r(seed));
	}
	int status;
	if (plan.mode == FAULT_NONE) {
		sleep_us(us);
		kill(pid, SIGKILL);
	}
	waitpid(pid, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		world_error(w, "the process ended by itself: status %x", (unsigned)status);
}

int test_kill(int rounds, unsigned seed)
{
	struct world *w = world_new();
	char *path = folder_new();
	for (int i = 0; i < rounds && w->errors == 0; i++) {
		die_once(w, path, &seed);
		if (rand_r(&seed) % 3 == 0)
			continue; /* the next one finds it as it is */
		struct store *s = open_store(w, path);
		store_close(s);
	}
	struct store *s = open_store(w, path);
	struct store_stats st = { 0 };
	if (s)
		store_stats(s, &st);
	store_close(s);
	printf("kill: %d kills, %llu writes acknowledged, %llu events watched, %llu relists, oldest event %llu of %llu\n",
		rounds, (unsigned long long)w->acks, (unsigned long long)w->events,
		(unsigned long long)w->relists, (unsigned long long)st.oldest_event,
		(unsigned long long)st.revision);
	if (w->acks < (uint64_t)rounds || w->events < (uint64_t)rounds ||
		w->relists > (uint64_t)rounds / 10)
		world_error(w, "that was no load");
	folder_free(path);
	return w->errors;
}
