/* How the long-running processes use the C library's heap: many threads that mostly wait, so few arenas, and what a burst left free goes
 * back to the system. */
#include <malloc.h>

#include "cmd/cmd.h"
#include "io/io.h"

#define ARENAS 2
#define KEEP_BYTES (256 * 1024)       /* free at a heap's end: kept for the next allocation */
#define AFTER_START_MS 3000           /* by then start-up's own garbage is free */
#define EVERY_MS (300 * 1000)

static void trim(void *arg)
{
	malloc_trim(0);
}

void memory_setup(void)
{
	mallopt(M_ARENA_MAX, ARENAS);
	mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	mallopt(M_MMAP_THRESHOLD, KEEP_BYTES); /* set, so that one large block that was freed does not raise it */
}

void memory_trim_start(struct loop *l)
{
	timer_start(timer_new(l, trim, NULL), AFTER_START_MS, EVERY_MS);
}
