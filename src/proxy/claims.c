/* Which service has a front (address, protocol, port) that several want. A user may name any address as an externalIP: another service's, or an API
 * server's. Whose it is by right keeps it, and who lost one gets it when the other goes. */
#include "proxy/internal.h"

struct holder {
	struct holder *next; /* in order: the first has the front */
	enum front_rank rank;
	struct timestamp created;
	struct str service; /* right behind */
};

static bool goes_before(const struct holder *a, const struct holder *b)
{
	int r = time_cmp(a->created, b->created);

	if (a->rank != b->rank)
		return a->rank < b->rank;
	return r ? r < 0 : str_cmp(a->service, b->service) < 0;
}

static struct holder *holder_new(struct str service, struct timestamp created, enum front_rank rank)
{
	struct holder *h = xcalloc(1, sizeof(*h) + service.len + 1);

	h->rank = rank;
	h->created = created;
	memcpy(h + 1, service.p, service.len);
	h->service = str_n((char *)(h + 1), service.len);
	return h;
}

/* The service is no longer in the list. */
static void take_out(struct holder **list, struct str service)
{
	for (struct holder **at = list; *at; at = &(*at)->next)
		if (str_eq((*at)->service, service)) {
			struct holder *h = *at;

			*at = h->next;
			free(h);
			return;
		}
}

static void put_in(struct holder **list, struct holder *h)
{
	while (*list && !goes_before(h, *list))
		list = &(*list)->next;
	h->next = *list;
	*list = h;
}

/* front NULL: the service wants it no more. moved: who else has it now, or had it. */
static bool settle(struct claims *c, struct str key, struct str service, const struct rules *now,
	const struct front *front, struct map *moved)
{
	struct holder *list = map_get(&c->fronts, key), *before = list;
	bool was_ours = before && str_eq(before->service, service), is_ours;

	take_out(&list, service);
	if (was_ours && list && !front)
		map_set(moved, list->service, c);
	if (front)
		put_in(&list, holder_new(service, now->created, front->rank));
	if (list)
		map_set(&c->fronts, key, list);
	else
		map_remove(&c->fronts, key);
	is_ours = list && str_eq(list->service, service);
	if (front && is_ours != was_ours) {
		struct holder *other = is_ours ? list->next : list;

		if (other)
			map_set(moved, other->service, c);
	}
	return is_ours;
}

void claims_change(struct claims *c, struct str key, const struct rules *was, struct rules *now,
	void (*moved)(void *arg, struct str key), void *arg)
{
	struct map wanted = { 0 }, others = { 0 };
	struct str other;
	size_t at = 0;
	void *v;

	for (size_t i = 0; was && now && i < now->n_fronts; i++)
		map_set(&wanted, now->fronts[i].key, now);
	for (size_t i = 0; was && i < was->n_fronts; i++)
		if (!map_get(&wanted, was->fronts[i].key))
			settle(c, was->fronts[i].key, key, NULL, NULL, &others);
	for (size_t i = 0; now && i < now->n_fronts; i++)
		now->fronts[i].held =
			settle(c, now->fronts[i].key, key, now, &now->fronts[i], &others);
	while (map_next(&others, &at, &other, &v))
		moved(arg, other);
	map_deinit(&wanted, NULL);
	map_deinit(&others, NULL);
}

static void list_free(void *v)
{
	for (struct holder *h = v, *next; h; h = next) {
		next = h->next;
		free(h);
	}
}

void claims_deinit(struct claims *c)
{
	map_deinit(&c->fronts, list_free);
}
