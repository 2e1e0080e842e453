/* A shared library that is loaded when it is first needed, so that processes that never need it do not carry it.
 *
 * One file a library (`x_lazy.c`) lists the functions in use, one row each, as forwarders with the library's own prototypes: callers are
 * written as if it were linked. Whoever is about to use it calls lazy_load first, and tells the user what is missing; a forwarder called
 * without that, or a function that the library lacks, ends the process with a message. */
#ifndef SKIFF_BASE_LAZY_H
#define SKIFF_BASE_LAZY_H

#include "base/base.h"

struct lazy {
	const char *file, *package; /* as in libarchive.so.13, libarchive13 */
	void *handle;
};

int lazy_load(struct lazy *l, struct err *err);      /* -ENOENT: names the package to install */
void *lazy_symbol(struct lazy *l, const char *name); /* never NULL */

/* LAZY(&library, int, archive_read_free, (struct archive *a), (a)) */
#define LAZY(library, type, name, parameters, arguments) \
	__attribute__((visibility("hidden"))) type name parameters \
	{ \
		static type(*fn) parameters; \
\
		if (!__atomic_load_n(&fn, __ATOMIC_ACQUIRE)) \
			__atomic_store_n(&fn, (__typeof__(fn))lazy_symbol(library, #name), \
				__ATOMIC_RELEASE); \
		return fn arguments; \
	}

#endif
