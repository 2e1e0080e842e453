/* What the long-running processes keep in memory.
 *
 * Heap: many threads that mostly wait, so few arenas, and what a burst left free goes back to the system.
 * Code: a start, or a burst of work, runs through much that is not needed for long. Those pages are unmapped; the kernel maps what is used again from
 * its cache, without reading. Only segments that nobody can write to are dropped, so their bytes are the file's. */
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>

#include "cmd/cmd.h"
#include "io/io.h"

#define ARENAS 2
#define KEEP_BYTES (256 * 1024) /* free at a heap's end: kept for the next allocation */
#define AFTER_START_MS 3000     /* by then start-up's own garbage is free */
#define SETTLED_MS (30 * 1000)  /* the node has its pods again, what comes now comes regularly */
#define EVERY_MS (300 * 1000)

static int drop_segments(struct dl_phdr_info *info, size_t size, void *arg)
{
	uintptr_t page = (uintptr_t)getpagesize();

	if (str_has_prefix(str_of(info->dlpi_name), STR("linux-vdso")))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];
		uintptr_t begin = info->dlpi_addr + h->p_vaddr, end = begin + h->p_memsz;

		if (h->p_type != PT_LOAD || h->p_flags & PF_W)
			continue;
		begin &= ~(page - 1);
		end = (end + page - 1) & ~(page - 1);
		madvise((void *)begin, end - begin, MADV_DONTNEED);
	}
	return 0;
}

void memory_drop_code(void)
{
	dl_iterate_phdr(drop_segments, NULL);
}

static void trim(void *arg)
{
	memory_drop_code();
	malloc_trim(0);
}

void memory_setup(void)
{
	mallopt(M_ARENA_MAX, ARENAS);
	mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
	mallopt(M_MMAP_THRESHOLD,
		KEEP_BYTES); /* set, so that one large block that was freed does not raise it */
}

void memory_trim_start(struct loop *l)
{
	timer_start(timer_new(l, trim, NULL), AFTER_START_MS, 0);
	timer_start(timer_new(l, trim, NULL), SETTLED_MS, EVERY_MS);
}
