/* The arithmetic of a rollout. Upstream: pkg/controller/deployment/util. */
#include "controllers/rollout.h"

#include <limits.h>
#include <math.h>

int rollout_replicas(const struct apps_v1_deployment *d)
{
	return int32_or(&d->spec.replicas, 1);
}

int set_replicas(const struct apps_v1_replica_set *rs)
{
	return int32_or(&rs->spec.replicas, 1);
}

bool is_rolling(const struct apps_v1_deployment *d)
{
	return !str_eqz(d->spec.strategy.type, "Recreate");
}

void rollout_bounds(const struct apps_v1_deployment *d, int *ret_surge, int *ret_unavailable)
{
	const struct apps_v1_rolling_update_deployment *u = d->spec.strategy.rolling_update;
	const struct int_or_str quarter = { .kind = IOS_STR, .text = STR("25%") };
	int replicas = rollout_replicas(d);

	*ret_surge = *ret_unavailable = 0;
	if (!is_rolling(d))
		return;
	*ret_surge =
		scaled_value(u && u->max_surge.kind ? &u->max_surge : &quarter, replicas, true, 0);
	*ret_unavailable = scaled_value(
		u && u->max_unavailable.kind ? &u->max_unavailable : &quarter, replicas, false, 0);
	if (!*ret_surge && !*ret_unavailable)
		*ret_unavailable = 1; /* both rounded to nothing: something has to give */
	*ret_unavailable = MIN(*ret_unavailable, replicas);
	*ret_surge = MIN(*ret_surge, INT_MAX - replicas); /* their sum is a number of pods too */
}

int rollout_total(const struct rollout *o, bool old_only)
{
	int64_t n = 0;

	SET_EACH(s, o)
		n += old_only && *s == o->new_set ? 0 : set_replicas(*s);
	return (int)MIN(n, (int64_t)INT_MAX);
}

int rollout_available(const struct rollout *o)
{
	int n = 0;

	SET_EACH(s, o)
		n += (*s)->status.available_replicas;
	return n;
}

int rollout_new_size(const struct rollout *o, const struct apps_v1_replica_set *rs)
{
	int want = rollout_replicas(o->d), has = set_replicas(rs), surge, unavailable;

	if (!is_rolling(o->d) || has > want)
		return want;
	rollout_bounds(o->d, &surge, &unavailable);
	int room = want + surge - rollout_total(o, false);

	return room <= 0 ? has : has + MIN(room, want - has);
}

int rollout_may_go(const struct rollout *o)
{
	int surge, unavailable;

	rollout_bounds(o->d, &surge, &unavailable);
	int new_unavailable =
		o->new_set ? set_replicas(o->new_set) - o->new_set->status.available_replicas : 0;

	return rollout_total(o, false) - (rollout_replicas(o->d) - unavailable) - new_unavailable;
}

int64_t annotation_int(const struct meta_v1_object_meta *m, const char *key, int64_t fallback)
{
	int64_t n;

	return str_to_i64(str_map_get(&m->annotations, str_of(key)), &n) ? fallback : n;
}

struct sized {
	const struct apps_v1_replica_set *rs;
	size_t at;
};

static int larger_newer(const void *pa, const void *pb)
{
	const struct sized *a = pa, *b = pb;

	if (set_replicas(a->rs) != set_replicas(b->rs))
		return set_replicas(b->rs) - set_replicas(a->rs);
	return (int)b->at - (int)a->at;
}

static int larger_older(const void *pa, const void *pb)
{
	const struct sized *a = pa, *b = pb;

	if (set_replicas(a->rs) != set_replicas(b->rs))
		return set_replicas(b->rs) - set_replicas(a->rs);
	return (int)a->at - (int)b->at;
}

/* By how much one set changes when the whole grows from what it was (noted on the set) to what it may be now. */
static int share(const struct rollout *o, const struct apps_v1_replica_set *rs, int allowed_size)
{
	int has = set_replicas(rs);

	if (!rollout_replicas(o->d))
		return -has;
	int64_t was = annotation_int(&rs->metadata, MAX_REPLICAS, 0);

	if (was <= 0)
		was = o->d->status.replicas;
	return was > 0 ? (int)lround((double)has * allowed_size / (double)was) - has : 0;
}

void rollout_proportions(const struct rollout *o, int *ret_sizes)
{
	struct sized *active = arena_alloc(o->r->arena, (o->n_all + 1) * sizeof(*active));
	int surge, unavailable, added = 0, want = rollout_replicas(o->d);
	size_t n = 0;

	rollout_bounds(o->d, &surge, &unavailable);
	int allowed_size = want > 0 ? want + surge : 0,
	    to_add = allowed_size - rollout_total(o, false);

	for (size_t i = 0; i < o->n_all; i++) {
		ret_sizes[i] = set_replicas(o->all[i]);
		if (ret_sizes[i] > 0)
			active[n++] = (struct sized){ o->all[i], i };
	}
	if (!to_add || !n)
		return;
	qsort(active, n, sizeof(*active), to_add > 0 ? larger_newer : larger_older);
	for (size_t i = 0; i < n; i++) {
		int part = share(o, active[i].rs, allowed_size), left = to_add - added;

		part = to_add > 0 ? MIN(part, left) : MAX(part, left);
		ret_sizes[active[i].at] += part;
		added += part;
	}
	ret_sizes[active[0].at] = MAX(ret_sizes[active[0].at] + to_add - added, 0);
}

bool template_equal_but_hash(const struct core_v1_pod_template_spec *a,
	const struct core_v1_pod_template_spec *b, struct arena *arena)
{
	const struct core_v1_pod_template_spec *in[2] = { a, b };
	struct core_v1_pod_template_spec bare[2];

	for (int i = 0; i < 2; i++) {
		const struct str_map *labels = &in[i]->metadata.labels;

		bare[i] = *in[i];
		bare[i].metadata.labels = (struct str_map){
			arena_memdup(arena, labels->items, labels->len * sizeof(*labels->items)),
			labels->len
		};
		str_map_remove(&bare[i].metadata.labels, STR(HASH_LABEL));
	}
	return model_equal(&core_v1_pod_template_spec_type, &bare[0], &bare[1]);
}

bool rollout_has_deadline(const struct apps_v1_deployment *d)
{
	return d->spec.progress_deadline_seconds.set &&
		d->spec.progress_deadline_seconds.value != INT_MAX;
}

bool rollout_complete(
	const struct apps_v1_deployment *d, const struct apps_v1_deployment_status *st)
{
	int want = rollout_replicas(d);

	return st->updated_replicas == want && st->replicas == want &&
		st->available_replicas == want && st->observed_generation >= d->metadata.generation;
}
