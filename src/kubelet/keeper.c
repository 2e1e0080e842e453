/* What piles up on a node: old runs of containers, log files that grow, images that nobody uses, folders of pods that are no more; and the refresh of
 * volumes that follow ConfigMaps and Secrets. Once a minute, for the whole node, on one slow thread;
 * logs every ten seconds, as upstream, and with them storage that has a limit. Figures are upstream's defaults. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define TICK_NS (10 * NS_PER_S) /* logs, and volumes with a limit: what grows fast */
#define ROUND_TICKS 6
#define LOG_MAX_BYTES (10 << 20)
#define LOG_FILES 5
#define IMAGE_HIGH 85 /* per cent of the disk at which images go */
#define IMAGE_LOW 80
#define RUNS_KEPT 2    /* a name: the latest and the one before, for logs --previous */
#define IMAGE_ROUNDS 5 /* images are looked at every so many rounds */

struct keeper {
	struct kubelet *k;
	struct wake wake;
	bool busy;
	unsigned ticks, rounds;
};

/* ---- old runs ---- */

void keeper_prune_containers(struct sync *s)
{
	struct err err;

	for (size_t i = 0; i < s->specs.len; i++) {
		size_t seen = 0;
		for (size_t j = 0; j < s->view.len; j++) {
			const struct engine_container *c = s->view.items[j].c;
			if (!str_eq(c->name, s->specs.items[i].c->name) || ++seen <= RUNS_KEPT ||
				c->state == CONTAINER_RUNNING)
				continue;
			if (s->k->c.engine->v->container_remove(s->k->c.engine, c->id, &err) < 0)
				log_warn("kubelet", "container %s: %s", c->id, err.text);
			else if (c->attempt > 0) {
				struct str log = arena_fmt(s->a, STR_FMT "/" STR_FMT "/%u.log",
					STR_ARG(pod_log_folder(s->k, s->pod, s->a)),
					STR_ARG(c->name), c->attempt);
				unlink(log.p);
			}
		}
	}
	/* Sandboxes whose containers are all gone, but for the one in use. */
	for (size_t i = 0; i + 1 < s->w->n_sandboxes; i++) {
		bool used = false;
		for (size_t j = 0; j < s->view.len; j++)
			used |= !strcmp(s->view.items[j].c->sandbox_id, s->w->sandboxes[i].id);
		if (used)
			continue;
		if (s->k->c.engine->v->sandbox_remove(
			    s->k->c.engine, s->w->sandboxes[i].id, &err) >= 0) {
			pthread_mutex_lock(&s->w->lock);
			free(s->w->sandboxes[i].ip);
			free(s->w->sandboxes[i].second_ip);
			memmove(&s->w->sandboxes[i], &s->w->sandboxes[i + 1],
				(s->w->n_sandboxes - i - 1) * sizeof(*s->w->sandboxes));
			s->w->n_sandboxes--;
			i--;
			pthread_mutex_unlock(&s->w->lock);
		}
	}
}

/* ---- logs ---- */

static void rotate(struct kubelet *k, const char *path, const char *id)
{
	struct err err;

	for (int i = LOG_FILES - 1; i >= 1; i--) {
		CLEAN_FREE char *from = i == 1 ? xstrdup(path) : xasprintf("%s.%d", path, i - 1),
				*to = xasprintf("%s.%d", path, i);
		if (rename(from, to) && errno != ENOENT)
			log_warn("kubelet", "%s: %s", from, strerror(errno));
	}
	if (k->c.engine->v->container_reopen_log(k->c.engine, id, &err)) {
		/* The writer still holds the old file: put it back rather than lose what comes. */
		CLEAN_FREE char *old = xasprintf("%s.1", path);
		if (access(path, F_OK) && rename(old, path))
			log_warn("kubelet", "%s: %s", path, strerror(errno));
		log_warn("kubelet", "rotating %s: %s", path, err.text);
	}
}

static void check_logs(struct kubelet *k, struct pod_worker *w)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct err err;
	struct stat st;

	pthread_mutex_lock(&w->lock);
	size_t n = w->n_sandboxes;
	char(*ids)[ENGINE_ID] = arena_alloc(a, (n + 1) * ENGINE_ID);
	for (size_t i = 0; i < n; i++)
		memcpy(ids[i], w->sandboxes[i].id, ENGINE_ID);
	pthread_mutex_unlock(&w->lock);
	for (size_t i = 0; i < n; i++) {
		struct engine_container *list;
		size_t m;
		if (k->c.engine->v->container_list(k->c.engine, ids[i], a, &list, &m, &err))
			continue;
		for (size_t j = 0; j < m; j++) {
			struct str path = arena_fmt(a, "%s/%s_%s_%s/" STR_FMT "/%u.log",
				k->c.pod_log_dir, w->ns, w->name, w->uid, STR_ARG(list[j].name),
				list[j].attempt);
			if (list[j].state == CONTAINER_RUNNING && !stat(path.p, &st) &&
				st.st_size > LOG_MAX_BYTES)
				rotate(k, path.p, list[j].id);
		}
	}
}

/* ---- images ---- */

static int disk_percent(const char *path)
{
	struct statvfs v;

	if (statvfs(path, &v) || !v.f_blocks)
		return 0;
	return (int)(100 - v.f_bavail * 100 / v.f_blocks);
}

static bool image_used(struct engine_container *list, size_t n, struct str id)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(list[i].image_id, id))
			return true;
	return false;
}

size_t keeper_collect_images(struct kubelet *k)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_image *images;
	struct engine_container *containers;
	size_t n, m, kept = 0;
	struct err err;
	int percent = disk_percent(k->c.root_dir);

	if (percent < IMAGE_HIGH)
		return 0;
	if (k->c.engine->v->image_list(k->c.engine, a, &images, &n, &err) ||
		k->c.engine->v->container_list(k->c.engine, NULL, a, &containers, &m, &err)) {
		log_warn("kubelet", "image collection: %s", err.text);
		return 0;
	}
	for (size_t i = 0; i < n && percent > IMAGE_LOW; i++) {
		if (image_used(containers, m, images[i].id))
			continue;
		if (images[i].pinned) {
			kept++;
			continue;
		}
		log_info("kubelet", "disk is %d%% full: removing image " STR_FMT, percent,
			STR_ARG(images[i].id));
		if (k->c.engine->v->image_remove(k->c.engine, images[i].id, &err) < 0)
			log_warn("kubelet", "image " STR_FMT ": %s", STR_ARG(images[i].id),
				err.text);
		percent = disk_percent(k->c.root_dir);
		node_status_changed(k);
	}
	return kept;
}

/* ---- folders without a pod ---- */

static void collect_folders(struct kubelet *k)
{
	CLEAN_FREE char *top = xasprintf("%s/pods", k->c.root_dir);
	struct err err;
	DIR *d = k->api_synced || !k->c.client ? opendir(top) : NULL;

	for (struct dirent *e; d && (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		struct pod_worker *w = pods_find_uid(k, str_of(e->d_name));
		if (w) {
			worker_unref(w);
			continue;
		}
		CLEAN_FREE char *path = xasprintf("%s/%s", top, e->d_name);
		if (volumes_teardown(k, e->d_name, &err) || dir_remove_tree(path, &err))
			log_warn("kubelet", "orphaned folder %s: %s", path, err.text);
	}
	if (d)
		closedir(d);
}

void keeper_ask_volumes(struct pod_worker *w)
{
	pthread_mutex_lock(&w->k->lock);
	w->volumes_asked = true;
	worker_wake_locked(w);
	pthread_mutex_unlock(&w->k->lock);
}

/* ---- the round ---- */

static void round_(void *arg)
{
	struct keeper *keep = arg;
	struct kubelet *k = keep->k;
	struct pod_worker **all;
	bool whole = ++keep->ticks % ROUND_TICKS == 0;
	size_t n;

	pods_list(k, &all, &n);
	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&k->lock);
		struct pod_object *o = pod_object_ref(all[i]->desired);
		pthread_mutex_unlock(&k->lock);
		if (all[i]->state == POD_SYNCING) {
			check_logs(k, all[i]);
			empty_dirs_check(all[i], o->pod);
			storage_limits_check(all[i], o->pod);
			if (whole && pod_volumes_refresh(o->pod))
				keeper_ask_volumes(all[i]);
		}
		pod_object_unref(o);
		worker_unref(all[i]);
	}
	free(all);
	if (whole)
		collect_folders(k);
	if (whole && keep->rounds++ % IMAGE_ROUNDS == 0)
		keeper_collect_images(k);
	if (!k->stopping)
		wake_set(&k->wakes, &keep->wake, now_ns(k) + TICK_NS);
}

static void on_time(void *arg)
{
	struct keeper *keep = arg;

	if (!keep->k->stopping)
		pool_submit(keep->k->slow, round_, keep);
}

int keeper_start(struct kubelet *k, struct err *err)
{
	struct keeper *keep = xcalloc(1, sizeof(*keep));

	keep->k = k;
	keep->wake = (struct wake){ .fn = on_time, .arg = keep };
	k->keeper = keep;
	wake_set(&k->wakes, &keep->wake, now_ns(k) + TICK_NS);
	return 0;
}

void keeper_stop(struct kubelet *k)
{
	if (k->keeper)
		wake_cancel(&k->wakes, &k->keeper->wake);
}

void keeper_free(struct kubelet *k)
{
	if (k->keeper)
		wake_cancel(&k->wakes, &k->keeper->wake);
	free(k->keeper);
	k->keeper = NULL;
}
