/* What this folder's tests share. Included by *_test.c alone, after cmocka.h. */
#ifndef SKIFF_STORE_TEST_H
#define SKIFF_STORE_TEST_H

#include <dirent.h>
#include <stdio.h>

#include "store/store.h"

/* Setup and teardown: a folder of its own for the database of the store_config that is the state. */
static inline int test_folder(void **state)
{
	struct store_config *c = *state;
	char folder[] = "/tmp/store-test-XXXXXX";
	if (!mkdtemp(folder))
		return -1;
	c->path = xasprintf("%s/skiff.db", folder);
	return 0;
}

static inline int test_folder_remove(void **state)
{
	struct store_config *c = *state;
	static const char *const suffixes[] = { "", "-wal", "-journal", ".lock" };
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		CLEAN_FREE char *file = xasprintf("%s%s", c->path, suffixes[i]);
		unlink(file);
	}
	*strrchr(c->path, '/') = '\0';
	rmdir(c->path);
	free((char *)c->path);
	c->path = NULL;
	return 0;
}

static inline struct store *test_open(const struct store_config *config, uint64_t history)
{
	struct store_config c = *config;
	c.history = history;
	struct store *s = NULL;
	struct err err = { 0 };
	int r = store_open(&c, &s, &err);
	if (r)
		fail_msg("opening: %d: %s", r, err.text);
	return s;
}

static inline void test_wake_nothing(void *arg) {}

#endif
