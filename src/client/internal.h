/* What the files of client/ share. */
#ifndef SKIFF_CLIENT_INTERNAL_H
#define SKIFF_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "client/client.h"
#include "codec/codec.h"

/* ---- the threads that informers share (crew.c) ---- */
struct task {
	/* On one of the crew's threads; may_block: in its pool. Ends with one of the calls below that take the task, and touches nothing after it. */
	void (*run)(struct task *t, bool may_block);
	/* the crew's */
	struct crew *crew;
	struct task *next;
	enum {
		TASK_IDLE,
		TASK_READY,
		TASK_RUNS,
		TASK_RESTS
	} state; /* READY: for a thread that may block */
	bool stopping, wants_answer;
	uint64_t key, wake_ns;
};
#define CREW_THREADS 2 /* for what watches bring */
struct crew {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* a task became so */
	struct task *tasks;
	int epoll, clock; /* a timerfd */
	uint64_t clock_ns, last_key;
	pthread_t threads[CREW_THREADS];
	size_t n_threads, n_blocking;
	struct pool *pool;
	bool ending;
	atomic_bool silent;         /* the server answers nobody */
	_Atomic uint64_t answers;   /* so far, to whomever */
	uint64_t turn_ns, pause_ms; /* while silent: the next turn, and the pause before it */
};
void crew_init(struct crew *c);
void crew_deinit(struct crew *c); /* no task is left */
int crew_start(struct crew *c, struct task *t, struct err *err);
void crew_stop(
	struct crew *c, struct task *t); /* returns when it runs no more, and will not again */
void crew_done(struct crew *c, struct task *t);  /* it ends by itself */
void crew_defer(struct crew *c, struct task *t); /* goes on where it may block */
void crew_rest(struct crew *c, struct task *t, uint64_t ms);
void crew_rest_on(struct crew *c, struct task *t, int fd,
	uint64_t ms); /* until fd is readable, so long at most */
/* Nobody answered, or a connection broke: rests until it makes sense to ask again. true: a silence begins with this. */
bool crew_rest_silent(struct crew *c, struct task *t);
void crew_answered(struct crew *c); /* somebody was answered, with whatever */
uint64_t crew_about(uint64_t ms);   /* a quarter more or less, by chance */

struct client {
	struct http_client *http;
	char *user_agent, *field_manager;
	struct crew crew;
};

/* Appends the path of a type's collection, or of an object, or of its subresource: ns, name and sub may be empty. */
int client_path(const struct type *t, struct str ns, struct str name, struct str sub,
	struct buf *out, struct err *err);
/* Adds ?key=value or &key=value, the value escaped; an empty value adds nothing. */
void client_query(struct buf *target, const char *key, struct str value);
/* The outcome for an HTTP code, err from the Status in the body. 0 for 2xx. */
int client_outcome(int code, struct str body, struct str what, struct err *err);
/* client_list_page that tells whether there was an answer, be it a refusal or one that nobody understands. */
int client_list_answered(struct client *c, const struct type *t, const struct client_list_query *q,
	struct arena *a, void **ret_list, bool *ret_answered, struct err *err);
/* A watch: its head must be 200, else the outcome. < 0: no answer. */
int client_open(struct client *c, struct str target, unsigned timeout_ms, struct http_reader **ret,
	struct err *err);

/* ---- the cache behind an informer (cache.c) ---- */
struct cache;
typedef size_t (*cache_index_fn)(
	const struct type *t, const void *obj, struct str ret_values[8], struct arena *a);
struct cache *cache_new(cache_index_fn index);
void cache_free(struct cache *c);
/* A cached object with one reference, copied from obj into memory of its exact size. managedFields are left out; meta_only: all
 * but the metadata that owners and deletion need. scratch is reset. */
struct cached *cached_new(
	const struct type *t, const void *obj, bool meta_only, struct arena *scratch);
/* Takes over the reference of `now`; the former object's reference goes to the caller (NULL: none). */
struct cached *cache_set(struct cache *c, struct cached *now);
struct cached *cache_remove(struct cache *c, struct str key);
struct cached *cache_get(struct cache *c, struct str key);
void cache_list(struct cache *c, struct str ns, struct cached_list *ret);
void cache_by_index(struct cache *c, struct str value, struct cached_list *ret);
size_t cache_len(struct cache *c);

void informer_set_meta_only(struct informer *i, bool meta_only); /* before start */

/* ---- waiting on CLOCK_MONOTONIC ---- */
void cond_init_mono(pthread_cond_t *c);
/* Until signalled or the moment (mono_now_ns) is reached; false: reached. */
bool cond_wait_until(pthread_cond_t *c, pthread_mutex_t *m, uint64_t deadline_ns);

#endif
