/* Loading of shared libraries on first use. */
#include "base/lazy.h"

#include <dlfcn.h>
#include <stdio.h>

int lazy_load(struct lazy *l, struct err *err)
{
	void *found;

	if (__atomic_load_n(&l->handle, __ATOMIC_ACQUIRE))
		return 0;
	found = dlopen(l->file, RTLD_NOW | RTLD_LOCAL);
	if (!found)
		return err_set(err, -ENOENT, "cannot load %s: %s; install the package %s", l->file,
			dlerror(), l->package);
	__atomic_store_n(
		&l->handle, found, __ATOMIC_RELEASE); /* a second thread gets the same handle */
	return 0;
}

void *lazy_symbol(struct lazy *l, const char *name)
{
	struct err err = { 0 };
	void *found = NULL;

	if (lazy_load(l, &err) == 0 && !(found = dlsym(l->handle, name)))
		err_set(&err, -ENOENT,
			"%s has no function %s; install the package %s of this release", l->file,
			name, l->package);
	if (!found) {
		log_error("lazy", "%s", err.text);
		abort();
	}
	return found;
}
