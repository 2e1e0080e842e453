/* Open addressing with linear probing. A removed key leaves a tombstone, so that iteration survives removal; growing
 * drops them. used counts live keys and tombstones, len only live keys. What a crowd that left took goes with its last key, or
 * with the next one that comes. */
#include "base/map.h"

struct map_slot {
	char *key; /* NULL: never used; tombstone: removed */
	size_t len;
	uint64_t hash;
	void *value;
};

#define ROOMY 64 /* slots: smaller ones are not worth giving back */

static char tombstone;

static bool slot_live(const struct map_slot *s)
{
	return s->key && s->key != &tombstone;
}

static struct map_slot *find(const struct map *m, struct str key, uint64_t hash)
{
	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct map_slot *s = &m->slots[i];

		if (!s->key)
			return NULL;
		if (s->key != &tombstone && s->hash == hash && str_eq(str_n(s->key, s->len), key))
			return s;
	}
}

static struct map_slot *free_slot(struct map_slot *slots, size_t cap, uint64_t hash)
{
	size_t i = hash & (cap - 1);

	while (slots[i].key)
		i = (i + 1) & (cap - 1);
	return &slots[i];
}

static void rehash(struct map *m)
{
	size_t cap = 8;

	while (cap < (m->len + 1) * 2)
		cap *= 2;
	struct map_slot *slots = xcalloc(cap, sizeof(*slots));

	for (size_t i = 0; i < m->cap; i++)
		if (slot_live(&m->slots[i]))
			*free_slot(slots, cap, m->slots[i].hash) = m->slots[i];
	free(m->slots);
	m->slots = slots;
	m->cap = cap;
	m->used = m->len;
}

void map_deinit(struct map *m, void (*free_value)(void *))
{
	for (size_t i = 0; i < m->cap; i++) {
		if (!slot_live(&m->slots[i]))
			continue;
		free(m->slots[i].key);
		if (free_value)
			free_value(m->slots[i].value);
	}
	free(m->slots);
	*m = (struct map){ 0 };
}

void *map_get(const struct map *m, struct str key)
{
	if (!m->len)
		return NULL;
	struct map_slot *s = find(m, key, hash_bytes(key.p, key.len, 0));

	return s ? s->value : NULL;
}

void *map_set(struct map *m, struct str key, void *value)
{
	uint64_t hash = hash_bytes(key.p, key.len, 0);
	struct map_slot *s = m->cap ? find(m, key, hash) : NULL;

	if (s) {
		void *former = s->value;

		s->value = value;
		return former;
	}
	if ((m->used + 1) * 4 > m->cap * 3 || (m->cap > ROOMY && m->len < m->cap / 16))
		rehash(m);
	s = free_slot(m->slots, m->cap, hash);
	*s = (struct map_slot){ str_dup(key), key.len, hash, value };
	m->len++;
	m->used++;
	return NULL;
}

void *map_remove(struct map *m, struct str key)
{
	if (!m->len)
		return NULL;
	struct map_slot *s = find(m, key, hash_bytes(key.p, key.len, 0));

	if (!s)
		return NULL;
	void *value = s->value;

	free(s->key);
	*s = (struct map_slot){ .key = &tombstone };
	m->len--;
	if (!m->len && m->cap > ROOMY)
		map_deinit(m, NULL);
	return value;
}

bool map_next(const struct map *m, size_t *i, struct str *ret_key, void **ret_value)
{
	while (*i < m->cap) {
		const struct map_slot *s = &m->slots[(*i)++];

		if (!slot_live(s))
			continue;
		if (ret_key)
			*ret_key = str_n(s->key, s->len);
		*ret_value = s->value;
		return true;
	}
	return false;
}
