/* What the long-running processes keep in memory.
 *
 * Heap: many threads that mostly wait, so few arenas, and what a burst left free goes back to the system: what is resident beyond what is in use is looked
 * at within two LOOK_MS after a burst. Some of it stays whatever is done, as parts of pages; so only what came on top of that counts. To look, and to give
 * back, holds every allocation up for as much as 50 ms each; what works on would take it again.
 * Code: a start, or a burst of work, runs through much that is not needed for long. Those pages are unmapped; the kernel maps what is used again from
 * its cache, without reading. Only segments that nobody can write to are dropped, so their bytes are the file's. */
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "cmd/cmd.h"
#include "io/io.h"

#define ARENAS 2
#define KEEP_BYTES (256 * 1024) /* free at a heap's end: kept for the next allocation */
#define AFTER_START_MS 3000     /* by then start-up's own garbage is free */
#define SETTLED_MS (30 * 1000)  /* the node has its pods again, what comes now comes regularly */
#define EVERY_MS (300 * 1000)
#define LOOK_MS (10 * 1000)
#define WORKED_NS (50 * 1000 * 1000) /* of CPU since the last look: there may be garbage */
#define BUSY_NS (1000 * 1000 * 1000) /* between two looks: the burst is not over */
#define WASTE_BYTES (4 * 1024 * 1024)

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

/* Resident and no file's, but not in use: mostly the heap's free pages. */
static size_t waste(void)
{
	CLEAN_BUF struct buf text = { 0 };
	long resident = 0, shared = 0;
	struct mallinfo2 m = mallinfo2();
	size_t used = m.uordblks + m.hblkhd, own;

	if (file_read("/proc/self/statm", 256, &text, NULL) < 0 ||
		sscanf(text.p, "%*d %ld %ld", &resident, &shared) != 2 || resident < shared)
		return 0;
	own = (size_t)(resident - shared) * (size_t)getpagesize();
	return own > used ? own - used : 0;
}

static size_t stays; /* of the waste, after the last trim */

static void trim_heap(void)
{
	malloc_trim(0);
	stays = waste();
}

static void trim(void *arg)
{
	memory_drop_code();
	trim_heap();
}

/* Looking walks all that is free: whoever did nothing since the last look need not, and whoever is amid a burst looks after it. */
static void look(void *arg)
{
	static int64_t looked_ns, before_ns; /* CPU by the last look, and when this last ran */
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	int64_t now_ns = t.tv_sec * 1000000000LL + t.tv_nsec;
	bool busy = now_ns - before_ns > BUSY_NS;

	before_ns = now_ns;
	if (busy || now_ns - looked_ns < WORKED_NS)
		return;
	if (waste() > stays + WASTE_BYTES)
		trim_heap();
	looked_ns = now_ns;
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
	timer_start(timer_new(l, look, NULL), LOOK_MS, LOOK_MS);
}
