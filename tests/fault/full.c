/* A disk that is really full: a tmpfs of 8 MB in a mount namespace of its own. Needs root; says so and passes otherwise. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "store/internal.h"
#include "world.h"

static int fill(struct world *w, const char *folder, unsigned seed)
{
	CLEAN_FREE char *path = xasprintf("%s/skiff.db", folder),
			*ballast = xasprintf("%s/ballast", folder);
	struct store_config c = { .backend = "sqlite", .path = path, .history = 100000 };
	struct store *s = NULL;
	struct err err = { 0 };
	CLEAN_FD int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || posix_fallocate(fd, 0, 5 << 20) != 0) {
		world_error(w, "no ballast");
		return 1;
	}
	if (store_open(&c, &s, &err) < 0) {
		world_error(w, "%s", err.text);
		return 1;
	}
	for (int i = 0; i < 100000 && w->refused < 50 && w->errors == 0; i++)
		world_write(w, s, i % WORLD_WRITERS, &seed);
	uint64_t acks = w->acks;
	if (w->refused < 50 || acks < 100)
		world_error(w, "the disk never was full");
	world_check(w, s);
	unlink(ballast);
	if (ftruncate(fd, 0) != 0)
		return 1;
	for (int i = 0; i < 100; i++)
		world_write(w, s, i % WORLD_WRITERS, &seed);
	if (w->acks != acks + 100)
		world_error(w, "with room again, %llu of 100 writes went through",
			(unsigned long long)(w->acks - acks));
	store_close(s);
	s = NULL;
	if (store_open(&c, &s, &err) < 0)
		world_error(w, "%s", err.text);
	else
		world_check(w, s);
	store_close(s);
	printf("full: %llu writes until the disk was full, %llu refused, 100 more with room again\n",
		(unsigned long long)acks, (unsigned long long)w->refused);
	return w->errors;
}

int test_full(int unused, unsigned seed)
{
	struct world *w = world_new();
	char folder[] = "/tmp/skiff-fault-XXXXXX";
	if (!mkdtemp(folder))
		abort();
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) != 0 ||
			mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
			mount("tmpfs", folder, "tmpfs", 0, "size=8m") != 0) {
			printf("full: not run, it needs root to mount a tmpfs\n");
			_exit(0);
		}
		log_set_level(LOG_ERROR);
		_exit(fill(w, folder, seed));
	}
	int status;
	waitpid(pid, &status, 0);
	rmdir(folder);
	return status != 0;
}
