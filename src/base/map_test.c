/* map and heap against plain arrays under random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/map.h"

#define KEYS 300

static uint64_t seed = 42;

static uint64_t next(uint64_t below)
{
	return hash_bytes(&(uint64_t){ seed++ }, 8, 7) % below;
}

static void map_random(void **state)
{
	struct map m = { 0 };
	static char values[KEYS][2];
	void *model[KEYS] = { 0 };
	size_t live = 0;

	for (int step = 0; step < 50000; step++) {
		size_t k = next(KEYS);
		char key[16];
		struct str name = str_n(key, (size_t)snprintf(key, sizeof(key), "key-%zu", k));

		switch (next(3)) {
		case 0:;
			void *v = &values[k][next(2)];

			assert_ptr_equal(map_set(&m, name, v), model[k]);
			live += !model[k];
			model[k] = v;
			break;
		case 1:
			assert_ptr_equal(map_remove(&m, name), model[k]);
			live -= !!model[k];
			model[k] = NULL;
			break;
		default:
			assert_ptr_equal(map_get(&m, name), model[k]);
		}
		assert_int_equal(m.len, live);
	}
	/* A map that is emptied while it is walked shows each key once. */
	size_t i = 0, seen = 0;
	struct str key;
	void *value;

	while (map_next(&m, &i, &key, &value)) {
		size_t k = strtoul(key.p + 4, NULL, 10);

		assert_ptr_equal(value, model[k]);
		model[k] = NULL;
		assert_ptr_equal(map_remove(&m, key), value);
		seen++;
	}
	assert_int_equal(seen, live);
	assert_int_equal(m.len, 0);
	map_deinit(&m, NULL);
}

static void map_gives_room_back(void **state)
{
	for (int left = 0; left < 20; left += 10) {
		struct map m = { 0 };
		char key[16];

		for (int i = 0; i < 10000; i++)
			map_set(&m, str_n(key, (size_t)snprintf(key, sizeof(key), "%d", i)), &m);
		for (int i = left; i < 10000; i++)
			map_remove(&m, str_n(key, (size_t)snprintf(key, sizeof(key), "%d", i)));
		map_set(&m, STR("one more"), &m);
		assert_true(m.cap <= 64);
		assert_int_equal(m.len, left + 1);
		assert_ptr_equal(map_get(&m, STR("5")), left ? &m : NULL);
		map_deinit(&m, NULL);
	}
}

static size_t freed;

static void count_free(void *p)
{
	freed++;
	free(p);
}

static void map_frees_values(void **state)
{
	struct map m = { 0 };

	assert_null(map_get(&m, STR("a")));
	assert_null(map_remove(&m, STR("a")));
	map_set(&m, STR("a"), xstrdup("1"));
	map_set(&m, STR(""), xstrdup("2"));
	assert_string_equal(map_get(&m, STR_NONE), "2");
	map_deinit(&m, count_free);
	assert_int_equal(freed, 2);
}

struct item {
	struct heap_node node;
	uint64_t weight;
};

static bool item_less(const struct heap_node *a, const struct heap_node *b)
{
	return container_of(a, const struct item, node)->weight <
		container_of(b, const struct item, node)->weight;
}

static void heap_check(const struct heap *h)
{
	for (size_t i = 0; i < h->len; i++) {
		assert_int_equal(h->nodes[i]->index, i + 1);
		if (i)
			assert_false(item_less(h->nodes[i], h->nodes[(i - 1) / 2]));
	}
}

static void heap_random(void **state)
{
	struct heap h = { .less = item_less };
	struct item items[200] = { 0 };
	uint64_t last = 0;

	for (int step = 0; step < 20000; step++) {
		struct item *it = &items[next(ARRAY_LEN(items))];

		switch (next(4)) {
		case 0:
		case 1:
			it->weight = next(1000);
			heap_update(&h, &it->node);
			break;
		case 2:
			heap_remove(&h, &it->node);
			assert_int_equal(it->node.index, 0);
			break;
		default:;
			struct heap_node *top = heap_pop(&h);

			for (size_t i = 0; top && i < ARRAY_LEN(items); i++)
				if (items[i].node.index)
					assert_false(item_less(&items[i].node, top));
		}
		if (step % 50 == 0)
			heap_check(&h);
	}
	for (struct heap_node *n; (n = heap_pop(&h));) {
		uint64_t w = container_of(n, struct item, node)->weight;

		assert_true(w >= last);
		last = w;
	}
	assert_null(heap_peek(&h));
	heap_deinit(&h);
}

static void lists(void **state)
{
	struct list head = LIST_INIT(head), a, b, c;
	size_t n = 0;

	list_insert(&head, &a);
	list_insert(&head, &b);
	list_insert(&b, &c);
	assert_ptr_equal(head.next, &a);
	assert_ptr_equal(a.next, &c);
	list_for_each(it, &head) {
		list_remove(it);
		n++;
	}
	list_remove(&a);
	assert_int_equal(n, 3);
	assert_true(list_empty(&head));
}

static void hashes(void **state)
{
	assert_int_equal(hash_fnv32a("", 0), 0x811c9dc5);
	assert_int_equal(hash_fnv32a("a", 1), 0xe40c292c);
	assert_int_equal(hash_fnv32a("foobar", 6), 0xbf9cf968);
	assert_true(hash_bytes("abcdefgh", 8, 0) != hash_bytes("abcdefgi", 8, 0));
	assert_true(hash_bytes("a", 1, 0) != hash_bytes("a\0", 2, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_random),
		cmocka_unit_test(map_gives_room_back),
		cmocka_unit_test(map_frees_values),
		cmocka_unit_test(heap_random),
		cmocka_unit_test(lists),
		cmocka_unit_test(hashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
