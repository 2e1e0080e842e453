/* Tells the API what became of a pod: when it differs from what was told, one request at a time a pod, the newest status only, again after a failure.
 * When a deleted pod is down and that has been told, its object is removed for good (grace 0). Upstream: status manager. */
#include "gen/types.h"
#include "kubelet/internal.h"

static int64_t version_of(struct str v)
{
	int64_t n = 0;

	str_to_i64(v, &n);
	return n;
}

/* ---- has the API something else than we say? ---- */

static bool conditions_told(const struct value *ours, const struct value *theirs)
{
	for (size_t i = 0; i < ours->list.len; i++) {
		bool found = false;
		for (size_t j = 0; theirs && theirs->kind == VALUE_LIST && j < theirs->list.len;
			j++)
			found |= value_equal(&ours->list.items[i], &theirs->list.items[j]);
		if (!found)
			return false;
	}
	return true;
}

static bool is_told(
	const struct core_v1_pod_status *st, const struct core_v1_pod_status *api, struct arena *a)
{
	struct value ours, theirs;

	value_from_object(&core_v1_pod_status_type, st, a, &ours);
	value_from_object(&core_v1_pod_status_type, api, a, &theirs);
	for (size_t i = 0; i < ours.object.len; i++) {
		const struct value_member *m = &ours.object.members[i];
		const struct value *other = value_get(&theirs, m->key);
		if (str_eqz(m->key, "conditions") ? !conditions_told(&m->value, other)
						  : !other || !value_equal(&m->value, other))
			return false;
	}
	return true;
}

/* ---- sending ---- */

static void null_unless(struct value *status, struct arena *a, const char *key)
{
	if (!value_get(status, str_of(key)))
		value_set(a, status, str_of(key))->kind = VALUE_NULL;
}

/* The one condition that goes away again. */
static void drop_resize(const struct core_v1_pod_status *st, struct value *status, struct arena *a)
{
	struct value *list = value_get(status, STR("conditions"));

	LIST_EACH(c, &st->conditions)
		if (str_eqz(c->type, "PodResizeInProgress"))
			return;
	if (!list || list->kind != VALUE_LIST)
		return;
	struct value *mark = value_append(a, list);
	*mark = (struct value){ .kind = VALUE_OBJECT };
	*value_set(a, mark, STR("type")) =
		(struct value){ .kind = VALUE_TEXT, .text = STR("PodResizeInProgress") };
	*value_set(a, mark, STR("$patch")) =
		(struct value){ .kind = VALUE_TEXT, .text = STR("delete") };
}

/* The whole status as a strategic merge patch. Lists that merge by key would keep what is gone: the addresses are replaced. */
static struct str patch_make(const struct core_v1_pod_status *st, struct str uid, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };
	struct value status;
	static const char *const gone[] = { "message", "reason", "podIP", "podIPs",
		"initContainerStatuses", "containerStatuses" };
	static const char *const whole[] = { "podIPs", "hostIPs" };

	value_from_object(&core_v1_pod_status_type, st, a, &status);
	for (size_t i = 0; i < ARRAY_LEN(gone); i++)
		null_unless(&status, a, gone[i]);
	for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
		struct value *list = value_get(&status, str_of(whole[i]));
		if (!list || list->kind != VALUE_LIST)
			continue;
		struct value *mark = value_append(a, list);
		*mark = (struct value){ .kind = VALUE_OBJECT };
		*value_set(a, mark, STR("$patch")) =
			(struct value){ .kind = VALUE_TEXT, .text = STR("replace") };
	}
	drop_resize(st, &status, a);
	buf_addz(&b, "{\"metadata\":{\"uid\":");
	json_write_text(uid, &b);
	buf_addz(&b, "},\"status\":");
	json_write(&status, &b);
	buf_addc(&b, '}');
	return arena_str(a, buf_str(&b));
}

static void retry(struct pod_worker *w)
{
	uint64_t wait = (NS_PER_S / 4) << MIN(w->status_failures++, 6u);

	worker_ref(w);
	if (!wake_set(&w->k->wakes, &w->status_wake, now_ns(w->k) + wait))
		worker_unref(w);
}

/* Nothing of it runs, that is told, and the API waits for our word. */
static void finish_deletion(struct pod_worker *w, struct pod_object *o)
{
	struct err err;
	struct client_delete opt = { .grace_seconds = 0, .uid = str_of(w->uid) };
	const struct meta_v1_object_meta *m = &o->pod->metadata;

	pthread_mutex_lock(&w->lock);
	bool due = w->state == POD_TERMINATED && w->volumes_gone && !w->deletion_sent &&
		w->sent_version == w->status_version;
	pthread_mutex_unlock(&w->lock);
	if (!due || w->is_static || time_is_zero(m->deletion_timestamp))
		return;
	int r = client_delete(w->k->c.client, &core_v1_pod_type, m->namespace, m->name, &opt, &err);
	if (r == 0 || r == CLIENT_NOT_FOUND || r == CLIENT_CONFLICT) {
		pthread_mutex_lock(&w->lock);
		w->deletion_sent = true;
		pthread_mutex_unlock(&w->lock);
		return;
	}
	log_warn("kubelet", "pod %s/%s: removing its object: %s", w->ns, w->name, err.text);
	retry(w);
}

/* One request. false: there is nobody to tell. */
static bool send_one(struct pod_worker *w)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct err err;
	struct str uid = str_of(w->uid);
	struct core_v1_pod *answer;

	if (w->is_static && !mirror_find(w->k, w, a, &uid))
		return false;
	pthread_mutex_lock(&w->lock);
	uint64_t version = w->status_version, epoch = w->status_epoch;
	if (version == w->sent_version || !w->status) {
		pthread_mutex_unlock(&w->lock);
		return true;
	}
	struct str patch = patch_make(w->status, uid, a);
	pthread_mutex_unlock(&w->lock);
	int r = client_patch(w->k->c.client, &core_v1_pod_type, str_of(w->ns), str_of(w->name),
		"status", CLIENT_PATCH_STRATEGIC, patch, a, (void **)&answer, &err);
	if (r && r != CLIENT_NOT_FOUND && r != CLIENT_CONFLICT) {
		log_warn("kubelet", "pod %s/%s: status: %s", w->ns, w->name, err.text);
		retry(w);
		return false;
	}
	pthread_mutex_lock(&w->lock);
	if (epoch == w->status_epoch)
		w->sent_version = version;
	else
		w->status_again = true; /* told to a mirror that is no more */
	w->status_failures = 0;
	if (!r)
		w->sent_resource_version = version_of(answer->metadata.resource_version);
	pthread_mutex_unlock(&w->lock);
	shutdown_pod_changed(w->k);
	return true;
}

static void send_all(void *arg)
{
	struct pod_worker *w = arg;
	bool more = true;

	while (more) {
		pthread_mutex_lock(&w->lock);
		w->status_again = false;
		pthread_mutex_unlock(&w->lock);
		if (send_one(w)) {
			pthread_mutex_lock(&w->k->lock);
			struct pod_object *o = pod_object_ref(w->desired);
			pthread_mutex_unlock(&w->k->lock);
			finish_deletion(w, o);
			pod_object_unref(o);
		}
		pthread_mutex_lock(&w->lock);
		more = w->status_again && w->state != POD_GONE;
		if (!more)
			w->status_queued = false;
		pthread_mutex_unlock(&w->lock);
	}
	worker_unref(w);
}

void status_resend(struct pod_worker *w)
{
	if (!w->k->c.client || w->k->stopping)
		return;
	pthread_mutex_lock(&w->lock);
	bool start = !w->status_queued;
	w->status_queued = true;
	w->status_again = true;
	pthread_mutex_unlock(&w->lock);
	if (start)
		pool_submit(w->k->talk, send_all, worker_ref(w));
}

void status_set(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct arena *out = arena_new(2048);
	struct core_v1_pod_status *st = status_make(s, out);
	pthread_mutex_lock(&w->lock);
	bool all_told = w->sent_version == w->status_version;
	int64_t told_version = w->sent_resource_version;
	pthread_mutex_unlock(&w->lock);
	bool first = !w->status,
	     changed = first || !model_equal(&core_v1_pod_status_type, st, w->status);

	if (changed && first && !w->is_static && is_told(st, &s->pod->status, s->a))
		changed = false;
	else if (!changed && !w->is_static && all_told &&
		version_of(s->pod->metadata.resource_version) > told_version &&
		!is_told(w->status, &s->pod->status, s->a))
		changed = true; /* somebody else wrote it */
	struct arena *old = NULL;
	pthread_mutex_lock(&w->lock);
	if (changed || first) {
		old = w->status_arena;
		w->status_arena = out;
		w->status = st;
		out = NULL;
	}
	w->status_version += changed;
	bool pending = w->status_version != w->sent_version ||
		(w->state == POD_TERMINATED && w->volumes_gone && !w->deletion_sent &&
			!w->is_static && !time_is_zero(s->pod->metadata.deletion_timestamp));
	if (str_eqz(st->phase, "Running") && time_is_zero(w->running_at))
		w->running_at = now_wall(s->k);
	pthread_mutex_unlock(&w->lock);
	arena_free(old);
	arena_free(out);
	if (pending && !s->removed)
		status_resend(w);
}
