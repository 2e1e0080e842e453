/* Static pods: files of a folder (YAML or JSON, one pod each), watched by inotify. They run with no API server. Their uid and the annotation
 * kubernetes.io/config.hash are a hash of the file and the node, so an edited file is another pod; the name gets the node's name as its suffix.
 * A file that cannot be read or is no pod is named in the log and leaves what runs alone until it is removed. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define FILE_MAX (1 << 20)

struct static_source {
	struct kubelet *k;
	struct dir_watch *watch;
};

static struct str hash_of(
	const struct kubelet *k, const char *file, struct str text, struct arena *a)
{
	uint64_t h1 = hash_bytes(text.p, text.len, 0x736b696666),
		 h2 = hash_bytes(k->c.node_name, strlen(k->c.node_name), h1);

	h2 = hash_bytes(file, strlen(file), h2);
	return arena_fmt(a, "%016llx%016llx", (unsigned long long)h1, (unsigned long long)h2);
}

/* What an API server would have filled in for a pod on this node. */
static void complete(
	const struct kubelet *k, struct core_v1_pod *pod, struct str hash, struct arena *a)
{
	struct meta_v1_object_meta *m = &pod->metadata;
	char now[TIME_TEXT_MAX];

	model_default(&core_v1_pod_type, pod, a);
	if (!m->namespace.len)
		m->namespace = STR("default");
	m->name = arena_fmt(a, STR_FMT "-%s", STR_ARG(m->name), k->c.node_name);
	m->uid = hash;
	m->generation = 1;
	time_format_nano(now_wall(k), now);
	str_map_set(a, &m->annotations, STR("kubernetes.io/config.hash"), hash);
	str_map_set(a, &m->annotations, STR("kubernetes.io/config.seen"), arena_strz(a, now));
	str_map_set(a, &m->annotations, STR("kubernetes.io/config.source"), STR("file"));
	pod->spec.node_name = arena_strz(a, k->c.node_name);
	if (!pod->spec.restart_policy.len)
		pod->spec.restart_policy = STR("Always");
	if (!pod->spec.dns_policy.len)
		pod->spec.dns_policy = STR("ClusterFirst");
	if (!pod->spec.termination_grace_period_seconds.set)
		pod->spec.termination_grace_period_seconds = (struct opt_int64)SOME(30);
	if (!pod->spec.enable_service_links.set)
		pod->spec.enable_service_links = (struct opt_bool)SOME(true);
	struct core_v1_toleration *t = LIST_ADD(a, &pod->spec.tolerations);
	t->operator= STR("Exists");
	t->effect = STR("NoExecute");
	LIST_EACH(c, &pod->spec.containers)
		if (!c->termination_message_path.len)
			c->termination_message_path = STR("/dev/termination-log");
	memset(&pod->status, 0, sizeof(pod->status));
	pod->status.phase = STR("Pending");
}

/* References to objects of the API have no meaning without one: upstream refuses them, and so do we. */
static int check(const struct core_v1_pod *pod, const char *file, struct err *err)
{
	if (!pod->metadata.name.len || !pod->spec.containers.len)
		return err_set(
			err, -EINVAL, "%s: a pod needs a name and at least one container", file);
	if (valid_dns_subdomain(pod->metadata.name))
		return err_set(err, -EINVAL, "%s: name \"" STR_FMT "\": %s", file,
			STR_ARG(pod->metadata.name), valid_dns_subdomain(pod->metadata.name));
	LIST_EACH(v, &pod->spec.volumes)
		if (v->volume_source.secret || v->volume_source.config_map ||
			v->volume_source.persistent_volume_claim)
			return err_set(err, -EINVAL,
				"%s: volume \"" STR_FMT
				"\": a static pod may not refer to objects of the API",
				file, STR_ARG(v->name));
	LIST_EACH(c, &pod->spec.containers)
		if (!c->name.len || !c->image.len)
			return err_set(
				err, -EINVAL, "%s: a container needs a name and an image", file);
	return 0;
}

int static_pod_parse(const struct kubelet *k, const char *file, struct str text,
	struct pod_object **ret, struct err *err)
{
	struct arena *a = arena_new(0);
	struct decode_notes notes = { .arena = a };
	struct value tree;
	struct core_v1_pod *pod;

	int r = yaml_parse(text, a, &tree, err); /* JSON is YAML */
	const struct value *kind = r ? NULL : value_get(&tree, STR("kind"));
	if (!r && (!kind || kind->kind != VALUE_TEXT || !str_eqz(kind->text, "Pod")))
		r = err_set(err, -EINVAL, "it is not of kind Pod");
	if (!r)
		r = value_to_object(&core_v1_pod_type, &tree, a, &notes, (void **)&pod, err);
	if (!r && notes.len)
		r = err_set(err, -EINVAL, STR_FMT, STR_ARG(notes.items[0]));
	if (r)
		err_prefix(err, r, "%s", file);
	else
		r = check(pod, file, err);
	if (r) {
		arena_free(a);
		return r;
	}
	complete(k, pod, hash_of(k, file, text, a), a);
	*ret = pod_object_from_arena(a, pod);
	return 0;
}

/* ---- the folder ---- */

static bool is_manifest(const char *name)
{
	size_t n = strlen(name);

	return name[0] != '.' && name[n - 1] != '~' && (n < 4 || strcmp(name + n - 4, ".swp"));
}

static void take(
	struct kubelet *k, struct map *now, const char *dir, const char *name, bool *ret_unsure)
{
	CLEAN_FREE char *path = xasprintf("%s/%s", dir, name);
	CLEAN_BUF struct buf b = { 0 };
	CLEAN_ARENA struct arena *a = arena_new(256);
	struct pod_object *o;
	struct stat st;
	struct err err;

	if (stat(path, &st) || !S_ISREG(st.st_mode))
		return;
	int r = file_read(path, FILE_MAX, &b, &err);
	if (!r && !b.len)
		return; /* being written: its close will be told */
	if (!r)
		r = static_pod_parse(k, path, buf_str(&b), &o, &err);
	if (r) {
		log_error("kubelet", "static pod: %s", err.text);
		*ret_unsure = true;
		return;
	}
	pod_object_unref(map_set(now, pod_full_name(o->pod, a), o));
}

/* Reads all of it and tells the table what is new and what is gone. */
static void scan(struct kubelet *k)
{
	struct map now = { 0 }, old;
	struct str key;
	void *value;
	size_t i = 0;
	bool unsure = false;
	DIR *d = opendir(k->c.static_pod_dir);

	for (struct dirent *e; d && (e = readdir(d));)
		if (is_manifest(e->d_name))
			take(k, &now, k->c.static_pod_dir, e->d_name, &unsure);
	if (d)
		closedir(d);
	pthread_mutex_lock(&k->lock);
	old = k->statics;
	k->statics = (struct map){ 0 };
	while (map_next(&now, &i, &key, &value))
		map_set(&k->statics, key, value);
	pthread_mutex_unlock(&k->lock);

	for (i = 0; map_next(&old, &i, &key, &value);) {
		struct pod_object *was = value, *is = map_get(&now, key);
		if (!is &&
			unsure) { /* perhaps it is the file that cannot be read: what runs goes on */
			pthread_mutex_lock(&k->lock);
			map_set(&k->statics, key, pod_object_ref(was));
			pthread_mutex_unlock(&k->lock);
		} else if (!is || !str_eq(is->pod->metadata.uid, was->pod->metadata.uid)) {
			pods_remove(k, was->pod->metadata.uid);
		}
	}
	for (i = 0; map_next(&now, &i, &key, &value);) {
		struct pod_object *is = value, *was = map_get(&old, key);
		if (!was || !str_eq(is->pod->metadata.uid, was->pod->metadata.uid))
			pods_set(k, pod_object_ref(is));
	}
	for (i = 0; map_next(&old, &i, &key, &value);)
		pod_object_unref(value);
	map_deinit(&old, NULL);
	map_deinit(&now, NULL);
}

static void on_change(void *arg, const char *name)
{
	if (!name || is_manifest(name))
		scan(arg);
}

/* On the loop, which owns the watch. Another scan follows it, so that nothing is missed between the first and the watch. */
static void start_on_loop(void *arg)
{
	struct static_source *src = arg;
	struct err err;

	if (dir_watch_new(
		    src->k->c.loop, src->k->c.static_pod_dir, on_change, src->k, &src->watch, &err))
		log_error("kubelet", "static pods: %s", err.text);
	scan(src->k);
}

int static_source_start(struct kubelet *k, struct err *err)
{
	if (access(k->c.static_pod_dir, R_OK | X_OK))
		return err_errno(err, -errno, "folder of static pods %s", k->c.static_pod_dir);
	k->static_source = xcalloc(1, sizeof(*k->static_source));
	k->static_source->k = k;
	scan(k); /* known before anything is taken for an orphan */
	loop_post(k->c.loop, start_on_loop, k->static_source);
	return 0;
}

static void stop_on_loop(void *arg)
{
	struct static_source *src = arg;

	if (src->watch)
		dir_watch_free(src->watch);
	free(src);
}

void static_source_stop(struct kubelet *k)
{
	struct static_source *src = TAKE(k->static_source);

	if (src)
		loop_post(k->c.loop, stop_on_loop, src);
}
