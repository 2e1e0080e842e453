/* The kernel goes on sending a client's UDP packets where it sent the first one, for as long as they come: also when that endpoint is gone, or when there
 * was none at first. So when such a service changes, flows to its places are forgotten unless one of its endpoints of now answers them. */
#include "proxy/internal.h"

#include <stdio.h>

#include "linux/linux.h"

#define UDP "udp . "

static bool is_place(const struct element *e)
{
	return !strcmp(e->set, "endpoints") || !strcmp(e->set, "node_port_endpoints");
}

/* "10.43.0.20 . udp . 53 . 7" without the number. */
static struct str without_number(struct str key)
{
	while (key.len && key.p[key.len - 1] != '.')
		key.len--;
	return str_n(key.p, key.len > 2 ? key.len - 2 : 0);
}

static bool is_udp(struct str place)
{
	return str_find_str(place, STR(UDP)) >= 0;
}

static void add_places(struct flows *f, const struct rules *r)
{
	for (size_t i = 0; r && i < r->n_fronts; i++)
		if (is_udp(r->fronts[i].key))
			map_set(&f->places, r->fronts[i].key, f);
}

void flows_add(struct flows *f, const struct rules *was, const struct rules *now)
{
	CLEAN_BUF struct buf name = { 0 };

	add_places(f, was);
	add_places(f, now);
	for (size_t i = 0; f->places.len && now && i < now->len; i++) {
		const struct element *e = &now->items[i];

		if (!is_place(e) || !is_udp(e->key))
			continue;
		buf_clear(&name);
		buf_addf(&name, STR_FMT " > " STR_FMT, STR_ARG(without_number(e->key)),
			STR_ARG(e->value));
		map_set(&f->answers, buf_str(&name), f);
	}
}

static bool answers_rightly(
	const struct flows *f, const char *place, const struct conntrack_end *who)
{
	char text[160];

	snprintf(text, sizeof(text), "%s > %u.%u.%u.%u . %u", place, who->ip >> 24,
		who->ip >> 16 & 255, who->ip >> 8 & 255, who->ip & 255, who->port);
	return map_get(&f->answers, str_of(text));
}

static bool is_stale(void *arg, const struct conntrack_flow *flow)
{
	const struct conntrack_end *at = &flow->asked;
	const struct flows *f = arg;
	char address[64], port[32];

	snprintf(address, sizeof(address), "%u.%u.%u.%u . " UDP "%u", at->ip >> 24,
		at->ip >> 16 & 255, at->ip >> 8 & 255, at->ip & 255, at->port);
	if (map_get(&f->places, str_of(address)))
		return !answers_rightly(f, address, &flow->answers);
	snprintf(port, sizeof(port), UDP "%u", at->port);
	return map_get(&f->places, str_of(port)) && !answers_rightly(f, port, &flow->answers);
}

void flows_forget(struct flows *f)
{
	struct err err;
	size_t n;

	if (f->places.len && conntrack_forget_udp(is_stale, f, &n, &err) < 0)
		log_warn(
			"proxy", "UDP clients may be led to endpoints that are gone: %s", err.text);
	flows_deinit(f);
}

void flows_deinit(struct flows *f)
{
	map_deinit(&f->places, NULL);
	map_deinit(&f->answers, NULL);
	*f = (struct flows){ 0 };
}
