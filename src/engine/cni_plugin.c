/* One call of one CNI plugin: what it is told (environment and configuration), what it answers. Source: CNI specification 1.0.0, sections 2 to 5.
 * A plugin that does not end in time is killed, and so is whatever it started: both carry the sandbox's id in their environment. */
#include "engine/cni.h"

#include <stdio.h>

extern char **environ;

#define CNI_PREFIX "CNI_"

struct str cni_text(const struct value *object, const char *name)
{
	const struct value *v = object ? value_get(object, str_of(name)) : NULL;

	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

struct value *cni_list(const struct value *object, const char *name)
{
	struct value *v = object ? value_get(object, str_of(name)) : NULL;

	return v && v->kind == VALUE_LIST ? v : NULL;
}

int cni_find_plugin(char *const *dirs, struct str type, char ret[PATH_MAX], struct err *err)
{
	CLEAN_BUF struct buf where = { 0 };

	/* A name, not a path: a configuration must not lead out of the folders. */
	if (!type.len || type.len > 200 || str_find(type, '/') >= 0 || type.p[0] == '.')
		return err_set(err, -EINVAL, "\"" STR_FMT "\" is not the name of a CNI plugin",
			STR_ARG(type));
	for (size_t i = 0; dirs && dirs[i]; i++) {
		path_fmt(ret, "%s/" STR_FMT, dirs[i], STR_ARG(type));
		if (access(ret, X_OK) == 0)
			return 0;
		buf_addf(&where, "%s%s", i ? " or " : "", dirs[i]);
	}
	return err_set(err, -ENOENT,
		"there is no CNI plugin \"" STR_FMT
		"\" in %s: install it (Debian: containernetworking-plugins), or name its folder with --cni-bin-dir",
		STR_ARG(type), where.len ? where.p : "any folder");
}

bool cni_version_at_least(struct str version, int major, int minor)
{
	struct str a, b, rest;
	int64_t x = 0, y = 0;

	str_cut(version, '.', &a, &rest);
	str_cut(rest, '.', &b, &rest);
	if (str_to_i64(a, &x) < 0 || str_to_i64(b, &y) < 0)
		return false;
	return x > major || (x == major && y >= minor);
}

/* Ours first, so that a process can be found by them; of what this process has, all but CNI's own names. */
static const char *const *environment(const struct cni_call *c, char *const *dirs, struct arena *a)
{
	CLEAN_BUF struct buf path = { 0 };
	size_t n = 0, have = 0;
	const char **env;

	while (environ[have])
		have++;
	for (size_t i = 0; dirs && dirs[i]; i++)
		buf_addf(&path, "%s%s", i ? ":" : "", dirs[i]);
	env = arena_alloc(a, (have + 8) * sizeof(*env));
	env[n++] = arena_fmt(a, CNI_CONTAINER_ENV "%s", c->container_id).p;
	env[n++] = arena_fmt(a, "CNI_COMMAND=%s", c->command).p;
	env[n++] = arena_fmt(a, "CNI_NETNS=%s", c->netns).p;
	env[n++] = arena_fmt(a, "CNI_IFNAME=%s", CNI_LINK).p;
	env[n++] = arena_fmt(a, "CNI_ARGS=" STR_FMT, STR_ARG(c->args)).p;
	env[n++] = arena_fmt(a, "CNI_PATH=%s", path.p ? path.p : "").p;
	for (size_t i = 0; i < have; i++)
		if (strncmp(environ[i], CNI_PREFIX, strlen(CNI_PREFIX)) != 0)
			env[n++] = environ[i];
	env[n] = NULL;
	return env;
}

/* The plugin's part of the list, with what the list and the runtime add to it. */
static struct value configuration(const struct cni_call *c, const struct value *list,
	const struct value *plugin, const struct value *previous, struct arena *a)
{
	static const char *const inherited[] = { "cniVersion", "name" };
	const struct value *capabilities = value_get(plugin, STR("capabilities")),
			   *wants = capabilities && capabilities->kind == VALUE_OBJECT
		? value_get(capabilities, STR("portMappings"))
		: NULL;
	struct value v = value_copy(a, plugin);

	for (size_t i = 0; i < ARRAY_LEN(inherited); i++) {
		const struct value *from = value_get(list, str_of(inherited[i]));

		if (from)
			*value_set(a, &v, str_of(inherited[i])) = *from;
	}
	if (wants && wants->kind == VALUE_BOOL && wants->boolean && c->port_mappings) {
		struct value runtime = { .kind = VALUE_OBJECT };

		*value_set(a, &runtime, STR("portMappings")) = *c->port_mappings;
		*value_set(a, &v, STR("runtimeConfig")) = runtime;
	}
	if (previous)
		*value_set(a, &v, STR("prevResult")) = *previous;
	return v;
}

/* The plugin says on its standard output what went wrong: {"code", "msg", "details"}. */
static int refused(const struct cni_call *c, const char *path, const struct process_result *r,
	struct arena *a, struct err *err)
{
	struct str text = str_trim(buf_str(&r->out));
	struct value v = { 0 };

	if (text.len && json_parse(text, a, &v, NULL) == 0 && v.kind == VALUE_OBJECT &&
		cni_text(&v, "msg").len) {
		struct str details = cni_text(&v, "details");

		return err_set(err, -EIO, "CNI plugin %s (%s): " STR_FMT "%s" STR_FMT, path,
			c->command, STR_ARG(cni_text(&v, "msg")), details.len ? "; " : "",
			STR_ARG(details));
	}
	text = str_trim(buf_str(&r->err));
	return err_set(err, -EIO, "CNI plugin %s (%s): ended with %d and said: " STR_FMT, path,
		c->command, r->status, STR_ARG(text.len ? text : STR("nothing")));
}

int cni_plugin_run(const struct cni *cni, const struct cni_call *c, char *const *dirs,
	const struct value *list, const struct value *plugin, const struct value *previous,
	struct arena *a, struct value *ret, struct err *err)
{
	struct value config = configuration(c, list, plugin, previous, a);
	CLEAN_BUF struct buf in = { 0 };
	struct process_result result;
	char path[PATH_MAX];
	int r = cni_find_plugin(dirs, cni_text(plugin, "type"), path, err);

	if (r < 0)
		return r;
	json_write(&config, &in);
	const char *const argv[] = { path, NULL };
	r = process_run_env(
		argv, environment(c, dirs, a), buf_str(&in), cni->timeout_ms, &result, err);
	if (r < 0) {
		cni_kill_left(c->container_id);
		return err_prefix(err, r, "CNI plugin (%s)", c->command);
	}
	if (result.status) {
		r = refused(c, path, &result, a, err);
	} else if (ret) {
		struct str out = arena_str(a, str_trim(buf_str(&result.out)));

		r = json_parse(out, a, ret, err);
		if (r == 0 && ret->kind != VALUE_OBJECT)
			r = err_set(err, -EBADMSG, "no object");
		if (r < 0)
			r = err_prefix(
				err, r, "the answer of CNI plugin %s (%s)", path, c->command);
	}
	process_result_deinit(&result);
	return r;
}

void cni_kill_left(const char *container_id)
{
	CLEAN_FREE char *mark = xasprintf(CNI_CONTAINER_ENV "%s", container_id);

	process_kill_by_environment(mark, NULL);
}
