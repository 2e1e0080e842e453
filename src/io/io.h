/* Event loop, timers, threads, child processes and files. The only folder that knows libuv. */
#ifndef SKIFF_IO_H
#define SKIFF_IO_H

#include <pthread.h>
#include <sys/types.h>

#include "base/base.h"
#include "base/values.h"

/* ---- loop: one thread that waits for events; everything it owns is touched only on it ---- */
struct loop;
struct uv_loop_s;
typedef void (*task_fn)(void *arg);
int loop_new(const char *name, struct loop **ret, struct err *err);
void loop_run(struct loop *l);                   /* on the calling thread, until loop_stop */
int loop_start(struct loop *l, struct err *err); /* on a thread of its own */
void loop_stop(struct loop *l);                  /* any thread; pending posts still run */
void loop_join(struct loop *l);                  /* waits for loop_start's thread */
void loop_free(struct loop *l);
void loop_post(
	struct loop *l, task_fn fn, void *arg); /* any thread: runs fn on the loop, in order */
void loop_at_turn_end(struct loop *l, task_fn fn,
	void *arg); /* on the loop: runs fn once before it next waits for events */
bool loop_is_current(const struct loop *l);
struct uv_loop_s *loop_uv(struct loop *l); /* for net/ */
uint64_t loop_now_ms(
	struct loop *l); /* on the loop: when this turn began, on a clock that never goes back */

/* ---- timers of a loop; embedded in their owner ---- */
struct timer;
struct timer *timer_new(struct loop *l, task_fn fn, void *arg);
void timer_start(struct timer *t, uint64_t after_ms, uint64_t repeat_ms); /* again: re-armed */
void timer_stop(struct timer *t);
void timer_free(struct timer *t);

/* ---- file descriptors and signals of a loop ---- */
enum { IO_READ = 1, IO_WRITE = 2 };
struct fd_watch;
typedef void (*fd_fn)(void *arg, int events);
int fd_watch_new(struct loop *l, int fd, int events, fd_fn fn, void *arg, struct fd_watch **ret,
	struct err *err);                          /* fd stays the caller's */
void fd_watch_set(struct fd_watch *w, int events); /* 0: none for now */
void fd_watch_free(struct fd_watch *w);            /* before the descriptor is closed */
struct signal_watch;
int signal_watch_new(struct loop *l, int signo, task_fn fn, void *arg, struct signal_watch **ret,
	struct err *err);
void signal_watch_free(struct signal_watch *w);
/* inotify on a folder: fn for each create, close-after-write, move and delete. Overflow: fn with name NULL. */
struct dir_watch;
typedef void (*dir_fn)(void *arg, const char *name);
int dir_watch_new(struct loop *l, const char *dir, dir_fn fn, void *arg, struct dir_watch **ret,
	struct err *err);
void dir_watch_free(struct dir_watch *w);

/* ---- threads: small stacks; a pool grows up to max while work waits and shrinks when idle ---- */
int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *),
	void *arg); /* 256 KiB stack, signals blocked */
/* Gives back the memory that deeper calls left on the stack of the calling thread, which thread_start made: for one that waits long after much work. */
void thread_release_stack(void);
struct pool;
struct pool *pool_new(const char *name, unsigned max_threads);
void pool_submit(struct pool *p, task_fn fn, void *arg);
void pool_free(struct pool *p); /* waits for what was submitted */

/* ---- child processes ---- */
struct process_result {
	int status;          /* exit code, or 128 + signal */
	struct buf out, err; /* at most 1 MiB each is kept */
};
void process_result_deinit(struct process_result *r);
/* Runs argv (NULL-terminated; argv[0] is looked up in PATH), stdin from `in`, waits at most timeout_ms (0: for ever; then it is killed and
 * -ETIMEDOUT). Blocking. 0 even when the status is not 0. */
int process_run(const char *const *argv, struct str in, unsigned timeout_ms,
	struct process_result *ret, struct err *err);
int process_run_env(const char *const *argv, const char *const *env, struct str in,
	unsigned timeout_ms, struct process_result *ret,
	struct err *err); /* env NULL: this process's */
/* Starts argv with the given descriptors as 0, 1, 2 (-1: /dev/null) and keeps the extra ones open as 3, 4, …; *ret_pidfd may be NULL. */
struct process_spec {
	const char *const *argv;
	const char *const *env; /* NULL: this process's */
	const char *cwd;        /* NULL: this process's */
	int stdio[3];
	const int *extra_fds;
	size_t n_extra_fds;
	bool new_session; /* setsid */
};
int process_spawn(const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct err *err);

/* ---- files ---- */
int file_read(const char *path, size_t max, struct buf *ret, struct err *err); /* -EFBIG past max */
/* Writes beside and renames, fsyncs file and folder when durable. */
int file_write_atomic(
	const char *path, struct str bytes, mode_t mode, bool durable, struct err *err);
int dir_sync(const char *path,
	struct err *err); /* makes every file directly in path durable, in about the time of one */
int dir_make(
	const char *path, mode_t mode, struct err *err); /* with its parents; there already: 0 */
/* Bytes on disk of all below it; mounts are left out, and so is what lies very deep. 0 where it is not. */
uint64_t dir_usage(const char *path);
int dir_remove_tree(const char *path,
	struct err *err); /* never follows links, never crosses mounts; gone already: 0 */

#endif
