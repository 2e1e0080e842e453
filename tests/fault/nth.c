/* Every single write and fsync of a small workload goes wrong once, in each of the ways that vfs.h knows; then the power is
 * back, the disk has room again, and the store must hold what was acknowledged. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "store/internal.h"
#include "vfs.h"
#include "world.h"

enum { EXIT_OPEN = 3, EXIT_IO = 74 };

static void live(struct world *w, const char *path, int writes, unsigned seed)
{
	struct store_config c = { .backend = "sqlite", .path = path, .history = 5 };
	struct store *s = NULL;
	struct err err = { 0 };
	if (store_open(&c, &s, &err) < 0) {
		if (!strstr(err.text, path))
			world_error(w, "the message does not name the file: %s", err.text);
		_exit(EXIT_OPEN);
	}
	s->dropped_max = 4;
	for (int i = 0; i < writes; i++)
		world_write(w, s, i % WORLD_WRITERS, &seed);
	store_close(s);
	_exit(0);
}

/* How the process may end, by what went wrong. Closing may hit the failure as well: then it ends with 0. */
static bool fair_end(enum fault_mode mode, int status)
{
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	switch (mode) {
	case FAULT_WRITE_FULL:
	case FAULT_STAYS_FULL:
		return code == 0 || code == EXIT_OPEN;
	case FAULT_WRITE_EIO:
	case FAULT_SYNC_EIO:
		return code == 0 || code == EXIT_OPEN || code == EXIT_IO;
	default:
		return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	}
}

static void check_after(struct world *w, const char *path, const struct fault_plan *plan)
{
	struct store_config c = { .backend = "sqlite", .path = path, .history = 5 };
	struct store *s = NULL;
	struct err err = { 0 };
	int errors = w->errors;
	if (store_open(&c, &s, &err) < 0)
		world_error(w, "opening again: %s", err.text);
	else
		world_check(w, s);
	store_close(s);
	if (w->errors > errors)
		fprintf(stderr, "       … after %s at %d\n", fault_mode_names[plan->mode],
			plan->at);
}

static int run_mode(
	struct world *w, const char *path, enum fault_mode mode, int writes, unsigned seed)
{
	struct fault_plan plan = {
		.mode = mode, .at = 1, .seed = seed, .triggered = &w->triggered
	};
	int fatal = 0, refused = 0;
	for (;; plan.at++) {
		int errors = w->errors, status;
		world_reset(w);
		w->errors = errors;
		folder_empty(path);
		pid_t pid = fork();
		if (pid == 0) {
			fault_vfs_install(&plan);
			log_set_level(LOG_ERROR);
			if (!freopen("/dev/null", "w", stderr))
				_exit(1);
			live(w, path, writes, seed);
		}
		waitpid(pid, &status, 0);
		if (!w->triggered)
			break;
		if (!fair_end(mode, status))
			world_error(w, "%s at %d: the process ended with %x",
				fault_mode_names[mode], plan.at, (unsigned)status);
		fatal += WIFEXITED(status) && WEXITSTATUS(status) == EXIT_IO;
		refused += w->refused > 0;
		check_after(w, path, &plan);
	}
	printf("nth: %-10s %4d places, %4d ended the process, %4d refused writes\n",
		fault_mode_names[mode], plan.at - 1, fatal, refused);
	bool eio = mode == FAULT_WRITE_EIO || mode == FAULT_SYNC_EIO;
	if (plan.at < writes || (mode == FAULT_STAYS_FULL && refused < writes) ||
		(eio && fatal < writes))
		world_error(w, "%s found too little to break", fault_mode_names[mode]);
	return w->errors;
}

int test_nth(int writes, unsigned seed)
{
	struct world *w = world_new();
	char *path = folder_new();
	for (int mode = FAULT_NONE + 1; mode < N_FAULT_MODES; mode++)
		run_mode(w, path, (enum fault_mode)mode, writes, seed);
	folder_free(path);
	return w->errors;
}
