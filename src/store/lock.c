/* PATH.lock beside the database: flock keeps a second process away, the text says who holds it and which revision was
 * acknowledged last. The revision is the witness against a write-ahead log that lost its end: SQLite drops whatever follows a
 * damaged frame and says nothing. It is written after each commit became durable and never synced, so it may lag after a
 * power cut, but it never runs ahead. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <zlib.h>

#include "store/internal.h"

enum { TEXT_LEN = 64 };

static void format(char text[TEXT_LEN + 1], uint64_t pid, uint64_t revision)
{
	int n = snprintf(text, TEXT_LEN + 1, "pid %10llu revision %20llu", (unsigned long long)pid,
		(unsigned long long)revision);
	uint32_t sum = (uint32_t)crc32(0, (const unsigned char *)text, (unsigned)n);
	snprintf(
		text + n, (size_t)(TEXT_LEN + 1 - n), " sum %08x%*s", sum, TEXT_LEN - n - 13, "\n");
}

static void read_text(int fd, uint64_t *ret_pid, uint64_t *ret_revision)
{
	char text[TEXT_LEN + 1] = { 0 }, want[TEXT_LEN + 1];
	unsigned long long pid = 0, revision = 0;
	if (pread(fd, text, TEXT_LEN, 0) < 0 ||
		sscanf(text, "pid %llu revision %llu", &pid, &revision) != 2)
		return;
	format(want, pid, revision);
	if (strcmp(text, want) != 0)
		return;
	*ret_pid = pid;
	*ret_revision = revision;
}

int lock_open(const char *path, int *ret_fd, uint64_t *ret_revision, struct err *err)
{
	CLEAN_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(err, -errno, "the store's lock file %s", path);
	uint64_t pid = 0, revision = 0;
	int r = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
	read_text(fd, &pid, &revision);
	if (r == -EWOULDBLOCK)
		return err_set(err, -EBUSY,
			"%s is locked by process %llu, which uses this store: stop that process, or choose "
			"another data directory",
			path, (unsigned long long)pid);
	if (r)
		return err_errno(err, r, "locking %s", path);
	*ret_revision = revision;
	lock_write(fd, revision);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void lock_write(int fd, uint64_t revision)
{
	char text[TEXT_LEN + 1];
	format(text, (uint64_t)getpid(), revision);
	/* When this fails the witness lags, which is allowed. */
	ssize_t n UNUSED = pwrite(fd, text, TEXT_LEN, 0);
}
