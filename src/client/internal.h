/* What the files of client/ share. */
#ifndef SKIFF_CLIENT_INTERNAL_H
#define SKIFF_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "client/client.h"
#include "codec/codec.h"

/* ---- whether the server answers at all (reach.c) ---- */
struct reach {
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	atomic_bool silent;
	bool clock_watched;         /* one of those who wait does */
	uint64_t turn_ns, pause_ms; /* while silent: the next turn, and the pause before it */
};
void reach_init(struct reach *r);
void reach_deinit(struct reach *r);
void reach_answered(struct reach *r); /* somebody was answered, with whatever */
/* Nobody answered, or a connection broke. true: the silence begins with this. */
bool reach_failed(struct reach *r);
bool reach_is_silent(struct reach *r);
/* Waits for the caller's turn to ask (true), or until somebody was answered or the caller stops (false). */
bool reach_wait(struct reach *r, bool (*stopping)(void *arg), void *arg);
void reach_nudge(struct reach *r);  /* those who wait look whether they are to stop */
uint64_t reach_about(uint64_t ms);  /* a quarter more or less, by chance */
uint64_t reach_chance(uint64_t ms); /* anything below */

struct client {
	struct http_client *http;
	char *user_agent, *field_manager;
	struct reach reach;
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
int client_open(struct client *c, struct str target, unsigned timeout_ms, struct arena *a,
	struct http_reader **ret, struct err *err);

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
