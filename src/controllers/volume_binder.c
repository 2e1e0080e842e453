/* Binds claims to volumes. Upstream: pkg/controller/volume/persistentvolume.
 *
 * 1. A pair is bound in four writes, each of which a restart can find half done: volume's claimRef, volume's phase, claim's volumeName, claim's phase.
 *    claimRef with the claim's uid is what decides: one volume never serves two claims.
 * 2. A claim takes the smallest volume that is large enough and fits class, modes and selector; one reserved for it by name wins.
 * 3. A class that waits for the first consumer binds nothing until the scheduler named a node on the claim, or a pod that uses it has one (a
 *    scheduler that does not look at volumes).
 * 4. Volumes whose claim is gone are Released; what is in them is deleted by whoever provisioned them, never here.
 *
 * Keys: v/VOLUME, c/NAMESPACE/CLAIM. */
#include "controllers/internal.h"

#include "controllers/table.h"
#include "model/placement.h"

#define BIND_COMPLETED "pv.kubernetes.io/bind-completed"
#define BOUND_BY_US "pv.kubernetes.io/bound-by-controller"
#define PROVISIONED_BY "pv.kubernetes.io/provisioned-by"
#define SELECTED_NODE "volume.kubernetes.io/selected-node"
#define PROVISIONER "volume.kubernetes.io/storage-provisioner"
#define BETA_PROVISIONER "volume.beta.kubernetes.io/storage-provisioner"
#define BETA_CLASS "volume.beta.kubernetes.io/storage-class"
#define NO_PROVISIONER "kubernetes.io/no-provisioner"

static const struct type *const VOLUME = &core_v1_persistent_volume_type,
				*const CLAIM = &core_v1_persistent_volume_claim_type;

/* ---- questions ---- */
static struct str class_of(const struct meta_v1_object_meta *m, struct str class)
{
	struct str beta = str_map_get(&m->annotations, STR(BETA_CLASS));

	return beta.p ? beta : class;
}

static bool refers_to(
	const struct core_v1_object_reference *ref, const struct core_v1_persistent_volume_claim *c)
{
	return ref && str_eq(ref->name, c->metadata.name) &&
		str_eq(ref->namespace, c->metadata.namespace) &&
		(!ref->uid.len || str_eq(ref->uid, c->metadata.uid));
}

static bool is_bound_to(
	const struct core_v1_persistent_volume *v, const struct core_v1_persistent_volume_claim *c)
{
	return refers_to(v->spec.claim_ref, c) && v->spec.claim_ref->uid.len;
}

static struct str mode_of(struct str mode)
{
	return mode.len ? mode : STR("Filesystem");
}

static struct quantity storage(const struct str_map *m)
{
	struct quantity q = { 0, 'B' };
	struct str text = str_map_get(m, STR("storage"));

	if (text.p && quantity_parse(text, &q))
		q.nano = 0;
	return q;
}

static bool uses(const struct core_v1_pod *p, struct str claim)
{
	LIST_EACH(v, &p->spec.volumes)
		if (v->volume_source.persistent_volume_claim &&
			str_eq(v->volume_source.persistent_volume_claim->claim_name, claim))
			return true;
	return false;
}

/* Rule 3. p NULL: no consumer yet. */
static struct str consumer_node(struct run *r, const struct core_v1_persistent_volume_claim *c)
{
	struct str named = str_map_get(&c->metadata.annotations, STR(SELECTED_NODE));

	if (named.p)
		return named;
	struct objects pods = cache_objects(r, &core_v1_pod_type, c->metadata.namespace);

	OBJECT_EACH(const struct core_v1_pod, p, pods)
		if (p->spec.node_name.len && !pod_ended(p) && uses(p, c->metadata.name))
			return p->spec.node_name;
	return STR_NONE;
}

static bool on_node(struct run *r, const struct core_v1_persistent_volume *v, struct str node_name)
{
	const struct core_v1_node *n =
		node_name.len ? cache_object(r, &core_v1_node_type, node_name) : NULL;

	if (!n || !v->spec.node_affinity || !v->spec.node_affinity->required)
		return true;
	LIST_EACH(term, &v->spec.node_affinity->required->node_selector_terms)
		if (node_selector_term_matches(term, &n->metadata.labels, node_name))
			return true;
	return false;
}

static bool fits(struct run *r, const struct core_v1_persistent_volume *v,
	const struct core_v1_persistent_volume_claim *c, const struct selector *selector,
	struct str node)
{
	LIST_EACH(mode, &c->spec.access_modes)
		if (!str_list_has(&v->spec.access_modes, *mode))
			return false;
	return time_is_zero(v->metadata.deletion_timestamp) &&
		str_eq(mode_of(v->spec.volume_mode), mode_of(c->spec.volume_mode)) &&
		str_eq(class_of(&v->metadata, v->spec.storage_class_name),
			class_of(&c->metadata, c->spec.storage_class_name)) &&
		(!selector || selector_matches(selector, &v->metadata.labels)) &&
		quantity_cmp(storage(&v->spec.capacity), storage(&c->spec.resources.requests)) >=
		0 &&
		on_node(r, v, node);
}

/* Rule 2. */
static int find_volume(struct run *r, const struct core_v1_persistent_volume_claim *c,
	struct str node, const struct core_v1_persistent_volume **ret, struct err *err)
{
	struct objects all = cache_objects(r, VOLUME, STR_NONE);
	struct selector *selector = NULL;
	const struct core_v1_persistent_volume *best = NULL;

	if (c->spec.selector) {
		int ret_code =
			selector_from_label_selector(c->spec.selector, r->arena, &selector, err);

		if (ret_code)
			return ret_code;
	}
	OBJECT_EACH(const struct core_v1_persistent_volume, v, all) {
		if (!fits(r, v, c, selector, node))
			continue;
		if (refers_to(v->spec.claim_ref, c)) {
			best = v;
			break;
		}
		if (v->spec.claim_ref || !str_eqz(v->status.phase, "Available"))
			continue;
		if (!best ||
			quantity_cmp(storage(&v->spec.capacity), storage(&best->spec.capacity)) < 0)
			best = v;
	}
	*ret = best;
	return 0;
}

/* ---- phases ---- */
static int set_volume_phase(struct run *r, const struct core_v1_persistent_volume *cached,
	const char *phase, struct err *err)
{
	if (str_eqz(cached->status.phase, phase))
		return 0;
	struct core_v1_persistent_volume *v = model_copy(VOLUME, cached, r->arena);

	v->status.phase = str_of(phase);
	v->status.last_phase_transition_time = r->now;
	return client_update(r->client, VOLUME, "status", v, r->arena, NULL, err);
}

static int set_claim_phase(struct run *r, const struct core_v1_persistent_volume_claim *cached,
	const char *phase, const struct core_v1_persistent_volume *v, struct err *err)
{
	struct core_v1_persistent_volume_claim *c = model_copy(CLAIM, cached, r->arena);

	c->status.phase = str_of(phase);
	c->status.access_modes = v ? v->spec.access_modes : (struct str_list){ 0 };
	c->status.capacity = v ? v->spec.capacity : (struct str_map){ 0 };
	c->status.current_volume_attributes_class_name =
		v ? v->spec.volume_attributes_class_name : STR_NONE;
	if (model_equal(&core_v1_persistent_volume_claim_status_type, &c->status, &cached->status))
		return 0;
	return client_update(r->client, CLAIM, "status", c, r->arena, NULL, err);
}

/* ---- binding: rule 1 ---- */
static int reserve_volume(struct run *r, const struct core_v1_persistent_volume **v,
	const struct core_v1_persistent_volume_claim *c, struct err *err)
{
	if (is_bound_to(*v, c))
		return 0;
	struct core_v1_persistent_volume *n = model_copy(VOLUME, *v, r->arena), *back;

	if (!n->spec.claim_ref) {
		n->spec.claim_ref = arena_alloc(r->arena, sizeof(*n->spec.claim_ref));
		str_map_set(r->arena, &n->metadata.annotations, STR(BOUND_BY_US), STR("yes"));
	}
	*n->spec.claim_ref =
		(struct core_v1_object_reference){ .kind = STR("PersistentVolumeClaim"),
			.api_version = STR("v1"),
			.namespace = c->metadata.namespace,
			.name = c->metadata.name,
			.uid = c->metadata.uid,
			.resource_version = c->metadata.resource_version };
	int ret = client_update(r->client, VOLUME, NULL, n, r->arena, (void **)&back, err);

	if (!ret)
		*v = back;
	return ret;
}

static int name_volume(struct run *r, const struct core_v1_persistent_volume_claim **c,
	const struct core_v1_persistent_volume *v, struct err *err)
{
	if (str_eq((*c)->spec.volume_name, v->metadata.name) &&
		str_map_has(&(*c)->metadata.annotations, STR(BIND_COMPLETED)))
		return 0;
	struct core_v1_persistent_volume_claim *n = model_copy(CLAIM, *c, r->arena), *back;

	if (!n->spec.volume_name.len) {
		n->spec.volume_name = v->metadata.name;
		str_map_set(r->arena, &n->metadata.annotations, STR(BOUND_BY_US), STR("yes"));
	}
	str_map_set(r->arena, &n->metadata.annotations, STR(BIND_COMPLETED), STR("yes"));
	int ret = client_update(r->client, CLAIM, NULL, n, r->arena, (void **)&back, err);

	if (!ret)
		*c = back;
	return ret;
}

static int bind_pair(struct run *r, const struct core_v1_persistent_volume *v,
	const struct core_v1_persistent_volume_claim *c, struct err *err)
{
	int ret = reserve_volume(r, &v, c, err);

	if (!ret)
		ret = set_volume_phase(r, v, "Bound", err);
	if (!ret)
		ret = name_volume(r, &c, v, err);
	return ret ? ret : set_claim_phase(r, c, "Bound", v, err);
}

/* ---- claims ---- */
static int ask_provisioner(struct run *r, const struct core_v1_persistent_volume_claim *c,
	const struct storage_v1_storage_class *class, struct err *err)
{
	event_record(r->events, CLAIM, c, "Normal", "ExternalProvisioning",
		"Waiting for a volume to be created either by the external provisioner '" STR_FMT
		"' or manually by the system administrator. "
		"If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
		STR_ARG(class->provisioner));
	if (str_eq(str_map_get(&c->metadata.annotations, STR(PROVISIONER)), class->provisioner))
		return 0;
	return patch_merge_fmt(r, CLAIM, c->metadata.namespace, c->metadata.name, NULL, err,
		"{\"metadata\":{\"annotations\":{\"" PROVISIONER "\":\"" STR_FMT
		"\",\"" BETA_PROVISIONER "\":\"" STR_FMT "\"}}}",
		STR_ARG(class->provisioner), STR_ARG(class->provisioner));
}

static int search_for(
	struct run *r, const struct core_v1_persistent_volume_claim *c, struct err *err)
{
	struct str class_name = class_of(&c->metadata, c->spec.storage_class_name);
	const struct storage_v1_storage_class *class =
		class_name.len ? cache_object(r, &storage_v1_storage_class_type, class_name) : NULL;
	const struct core_v1_persistent_volume *v = NULL;
	bool late = class && str_eqz(class->volume_binding_mode, "WaitForFirstConsumer");
	struct str node = late ? consumer_node(r, c) : STR_NONE;
	bool waits = late && !node.p;
	int ret = find_volume(r, c, node, &v, err);

	if (ret)
		return ret;
	if (v && (!waits || refers_to(v->spec.claim_ref, c)))
		return bind_pair(r, v, c, err);
	if (waits)
		event_record(r->events, CLAIM, c, "Normal", "WaitForFirstConsumer",
			"waiting for first consumer to be created before binding");
	else if (class && class->provisioner.len && !str_eqz(class->provisioner, NO_PROVISIONER))
		ret = ask_provisioner(r, c, class, err);
	else
		event_record(r->events, CLAIM, c, "Normal", "FailedBinding",
			class_name.len
				? "no persistent volumes available for this claim and no provisioner of its storage class"
				: "no persistent volumes available for this claim and no storage class is set");
	return ret ? ret : set_claim_phase(r, c, "Pending", NULL, err);
}

static int lose(struct run *r, const struct core_v1_persistent_volume_claim *c, const char *reason,
	const char *text, struct err *err)
{
	if (!str_eqz(c->status.phase, "Lost"))
		event_record(r->events, CLAIM, c, "Warning", reason, "%s", text);
	return set_claim_phase(r, c, "Lost", NULL, err);
}

static int reconcile_claim(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_persistent_volume_claim *c = cache_object(r, CLAIM, key);
	bool complete = c && str_map_has(&c->metadata.annotations, STR(BIND_COMPLETED));

	if (!c || !time_is_zero(c->metadata.deletion_timestamp))
		return 0;
	const struct core_v1_persistent_volume *v =
		c->spec.volume_name.len ? cache_object(r, VOLUME, c->spec.volume_name) : NULL;

	if (!c->spec.volume_name.len)
		return complete
			? lose(r, c, "ClaimLost",
				  "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
				  err)
			: search_for(r, c, err);
	if (!v)
		return complete
			? lose(r, c, "ClaimLost",
				  "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
				  err)
			: set_claim_phase(r, c, "Pending", NULL, err);
	/* A claim may name any volume; it gets none that it could not have found. One that was kept for it by name is its own. */
	if (!v->spec.claim_ref && !complete && !fits(r, v, c, NULL, STR_NONE)) {
		event_record(r->events, CLAIM, c, "Warning", "VolumeMismatch",
			"Cannot bind to requested volume \"" STR_FMT
			"\": size, class, access modes or volume mode do not match",
			STR_ARG(v->metadata.name));
		return set_claim_phase(r, c, "Pending", NULL, err);
	}
	if (!v->spec.claim_ref || refers_to(v->spec.claim_ref, c))
		return bind_pair(r, v, c, err);
	if (complete)
		return lose(r, c, "ClaimMisbound",
			"Two claims are bound to the same volume, this one is bound incorrectly",
			err);
	event_record(r->events, CLAIM, c, "Warning", "FailedBinding",
		"volume \"" STR_FMT "\" already bound to a different claim.",
		STR_ARG(v->metadata.name));
	return set_claim_phase(r, c, "Pending", NULL, err);
}

/* ---- volumes ---- */
static int release(struct run *r, const struct core_v1_persistent_volume *v, struct err *err)
{
	int ret = set_volume_phase(r, v, "Released", err);

	if (!ret && str_eqz(v->spec.persistent_volume_reclaim_policy, "Delete") &&
		!str_map_has(&v->metadata.annotations, STR(PROVISIONED_BY)) &&
		!str_eqz(v->status.phase, "Released"))
		event_record(r->events, VOLUME, v, "Warning", "VolumeFailedDelete",
			"nobody provisioned this volume, so nobody deletes its content: clean it and remove the volume by hand");
	return ret;
}

/* One that is being deleted, too: while it is bound it is held, so it must be told that its claim has gone. */
static int reconcile_volume(struct run *r, struct str name, struct err *err)
{
	const struct core_v1_persistent_volume *v = cache_object(r, VOLUME, name);
	const struct core_v1_object_reference *ref = v ? v->spec.claim_ref : NULL;
	struct core_v1_persistent_volume_claim *live;

	if (!v)
		return 0;
	if (!ref || !ref->uid.len)
		return set_volume_phase(r, v, "Available", err);
	const struct core_v1_persistent_volume_claim *c =
		cache_object(r, CLAIM, key_of(r->arena, ref->namespace, ref->name));

	if (!c || !str_eq(c->metadata.uid, ref->uid)) { /* the cache may be behind */
		int ret = client_get(
			r->client, CLAIM, ref->namespace, ref->name, r->arena, (void **)&live, err);

		if (ret && ret != CLIENT_NOT_FOUND)
			return ret;
		c = ret ? NULL : live;
	}
	if (!c || !str_eq(c->metadata.uid, ref->uid))
		return release(r, v, err);
	if (str_eq(c->spec.volume_name, v->metadata.name))
		return set_volume_phase(r, v, "Bound", err);
	if (!c->spec.volume_name.len) {
		if (!time_is_zero(v->metadata.deletion_timestamp))
			return 0;
		struct str key = arena_fmt(r->arena, "c/" STR_FMT "/" STR_FMT,
			STR_ARG(ref->namespace), STR_ARG(ref->name));

		enqueue(r, key); /* half bound: the claim's turn finishes it */
		return 0;
	}
	if (!str_map_has(&v->metadata.annotations, STR(BOUND_BY_US)))
		return release(r, v, err);
	/* Its claim took another one: this one is free again. */
	struct core_v1_persistent_volume *n = model_copy(VOLUME, v, r->arena);

	n->spec.claim_ref = NULL;
	str_map_remove(&n->metadata.annotations, STR(BOUND_BY_US));
	return client_update(r->client, VOLUME, NULL, n, r->arena, NULL, err);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	struct str rest = str_from(key, 2);
	int ret = key.p[0] == 'v' ? reconcile_volume(r, rest, err) : reconcile_claim(r, rest, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

/* ---- events ---- */
static void add(struct run *r, char kind, struct str key)
{
	struct buf b CLEAN_BUF = { 0 };

	buf_addf(&b, "%c/" STR_FMT, kind, STR_ARG(key));
	enqueue(r, buf_str(&b));
}

static void map_claim(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_persistent_volume_claim *c = (now ? now : old)->obj;

	if (now)
		add(r, 'c', now->key);
	if (c->spec.volume_name.len)
		add(r, 'v', c->spec.volume_name);
}

/* A pod that came to a node may be the first consumer. */
static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_pod *p = now ? now->obj : NULL, *was = old ? old->obj : NULL;

	if (!p || !p->spec.node_name.len || (was && was->spec.node_name.len))
		return;
	LIST_EACH(v, &p->spec.volumes) {
		struct buf key CLEAN_BUF = { 0 };

		if (!v->volume_source.persistent_volume_claim)
			continue;
		buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(p->metadata.namespace),
			STR_ARG(v->volume_source.persistent_volume_claim->claim_name));
		add(r, 'c', buf_str(&key));
	}
}

/* A volume that became free may be what some claim waits for. */
static void map_volume(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_persistent_volume *v = (now ? now : old)->obj;
	struct cached_list claims;

	if (now)
		add(r, 'v', now->key);
	informer_list(run_informer(r, CLAIM), STR_NONE, &claims);
	for (size_t i = 0; i < claims.len; i++) {
		const struct core_v1_persistent_volume_claim *c = claims.items[i]->obj;

		if (str_eq(c->spec.volume_name, v->metadata.name) ||
			(!c->spec.volume_name.len && !v->spec.claim_ref) ||
			refers_to(v->spec.claim_ref, c))
			add(r, 'c', claims.items[i]->key);
	}
	cached_list_deinit(&claims);
}

/* Claims may be there before their class. */
static void map_class(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct cached_list claims;

	if (ev != INFORMER_ADDED)
		return;
	informer_list(run_informer(r, CLAIM), STR_NONE, &claims);
	for (size_t i = 0; i < claims.len; i++) {
		const struct core_v1_persistent_volume_claim *c = claims.items[i]->obj;

		if (!c->spec.volume_name.len &&
			str_eq(class_of(&c->metadata, c->spec.storage_class_name), now->meta->name))
			add(r, 'c', claims.items[i]->key);
	}
	cached_list_deinit(&claims);
}

const struct controller volume_binder_controller = {
	.name = "persistentvolume-binder",
	.component = "persistentvolume-controller",
	.watches = {
		{ &core_v1_persistent_volume_claim_type, map_claim },
		{ &core_v1_persistent_volume_type, map_volume },
		{ &core_v1_pod_type, map_pod },
		{ &storage_v1_storage_class_type, map_class },
		{ &core_v1_node_type, NULL },
	},
	.reconcile = reconcile,
};
