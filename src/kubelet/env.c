/* The environment of a container: envFrom, env with references and $(NAME), then the services of its namespace as variables. Sources: the
 * API pages of EnvVar and EnvFromSource, and the task page on environment variables of services. Later entries win; a service never
 * overrides what the pod says. */
#include "gen/types.h"
#include "kubelet/internal.h"

#define SERVICES_WAIT_MS 5000

struct env_list {
	struct arena *a;
	struct engine_env *items;
	size_t len, cap;
};

static void env_set(struct env_list *l, struct str name, struct str value)
{
	if (l->len == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 16;
		l->items = arena_grow(
			l->a, l->items, l->cap * sizeof(*l->items), cap * sizeof(*l->items));
		l->cap = cap;
	}
	l->items[l->len++] = (struct engine_env){ name, value };
}

static const struct str *env_get(const struct engine_env *items, size_t n, struct str name)
{
	for (size_t i = n; i-- > 0;)
		if (str_eq(items[i].name, name))
			return &items[i].value;
	return NULL;
}

struct str env_expand(struct str text, const struct engine_env *env, size_t n_env, struct arena *a)
{
	CLEAN_BUF struct buf out = { 0 };

	if (str_find(text, '$') < 0)
		return text;
	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] != '$' || i + 1 == text.len) {
			buf_addc(&out, text.p[i]);
			continue;
		}
		if (text.p[i + 1] == '$') {
			buf_addc(&out, '$');
			i++;
			continue;
		}
		ssize_t close = text.p[i + 1] == '(' ? str_find(str_from(text, i + 2), ')') : -1;
		if (close < 0) {
			buf_addc(&out, '$');
			if (text.p[i + 1] == '(') {
				buf_addc(&out, '(');
				i++;
			}
			continue;
		}
		struct str name = str_n(text.p + i + 2, (size_t)close);
		const struct str *v = env_get(env, n_env, name);
		if (v)
			buf_add_str(&out, *v);
		else
			buf_addf(&out, "$(" STR_FMT ")", STR_ARG(name));
		i += (size_t)close + 2;
	}
	return arena_str(a, buf_str(&out));
}

/* ---- services ---- */

static struct str variable_name(struct str s, struct arena *a)
{
	struct str r = arena_str(a, s);
	char *p = (char *)r.p;

	for (size_t i = 0; i < r.len; i++)
		p[i] = p[i] == '-' ? '_' : p[i] >= 'a' && p[i] <= 'z' ? (char)(p[i] - 32) : p[i];
	return r;
}

static void service_vars(struct env_list *l, const struct core_v1_service *svc)
{
	struct arena *a = l->a;
	struct str ip = arena_str(a, svc->spec.cluster_ip),
		   name = variable_name(svc->metadata.name, a);
	bool v6 = str_find(ip, ':') >= 0;

	env_set(l, arena_fmt(a, STR_FMT "_SERVICE_HOST", STR_ARG(name)), ip);
	if (!svc->spec.ports.len)
		return;
	env_set(l, arena_fmt(a, STR_FMT "_SERVICE_PORT", STR_ARG(name)),
		arena_fmt(a, "%d", svc->spec.ports.items[0].port));
	LIST_EACH(p, &svc->spec.ports)
		if (p->name.len)
			env_set(l,
				arena_fmt(a, STR_FMT "_SERVICE_PORT_" STR_FMT, STR_ARG(name),
					STR_ARG(variable_name(p->name, a))),
				arena_fmt(a, "%d", p->port));
	LIST_EACH(p, &svc->spec.ports) {
		struct str proto = arena_str(a, p->protocol.len ? p->protocol : STR("TCP")),
			   upper = variable_name(proto, a);
		for (char *c = (char *)proto.p; *c; c++)
			*c |= 32;
		struct str prefix = arena_fmt(
			a, STR_FMT "_PORT_%d_" STR_FMT, STR_ARG(name), p->port, STR_ARG(upper));
		struct str url = arena_fmt(a, STR_FMT "://%s" STR_FMT "%s:%d", STR_ARG(proto),
			v6 ? "[" : "", STR_ARG(ip), v6 ? "]" : "", p->port);
		if (p == svc->spec.ports.items)
			env_set(l, arena_fmt(a, STR_FMT "_PORT", STR_ARG(name)), url);
		env_set(l, prefix, url);
		env_set(l, arena_fmt(a, STR_FMT "_PROTO", STR_ARG(prefix)), proto);
		env_set(l, arena_fmt(a, STR_FMT "_PORT", STR_ARG(prefix)),
			arena_fmt(a, "%d", p->port));
		env_set(l, arena_fmt(a, STR_FMT "_ADDR", STR_ARG(prefix)), ip);
	}
}

static bool has_cluster_ip(const struct core_v1_service *svc)
{
	return svc->spec.cluster_ip.len && !str_eqz(svc->spec.cluster_ip, "None");
}

static void add_services(struct sync *s, struct env_list *l, struct str ns, const char *only)
{
	struct cached_list all = { 0 };

	informer_list(s->k->services, ns, &all);
	for (size_t i = 0; i < all.len; i++) {
		const struct core_v1_service *svc = all.items[i]->obj;
		if (has_cluster_ip(svc) && (!only || str_eqz(svc->metadata.name, only)))
			service_vars(l, svc);
	}
	cached_list_deinit(&all);
}

static int services_env(struct sync *s, struct env_list *l, struct err *err)
{
	bool links =
		!s->pod->spec.enable_service_links.set || s->pod->spec.enable_service_links.value;
	struct str ns = s->pod->metadata.namespace;

	if (!s->k->services)
		return 0;
	/* Only just after the start. A static pod goes without: it may be what the API server runs in. */
	if (!s->w->is_static && !informer_wait_synced(s->k->services, SERVICES_WAIT_MS))
		return err_set(err, -EAGAIN,
			"services have not yet been read at least once, cannot construct envvars");
	if (!links || !str_eqz(ns, "default"))
		add_services(s, l, STR("default"), "kubernetes");
	if (links)
		add_services(s, l, ns, NULL);
	return 0;
}

/* ---- fields ---- */

/* metadata.labels['x'] -> x */
static bool subscript(struct str path, const char *map, struct str *ret)
{
	size_t n = strlen(map);

	if (path.len < n + 4 || memcmp(path.p, map, n) || path.p[n] != '[' ||
		path.p[n + 1] != '\'' || memcmp(path.p + path.len - 2, "']", 2))
		return false;
	*ret = str_n(path.p + n + 2, path.len - n - 4);
	return true;
}

static struct str map_text(const struct str_map *m, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };

	LIST_EACH(p, m) {
		if (b.len)
			buf_addc(&b, '\n');
		buf_addf(&b, STR_FMT "=", STR_ARG(p->key));
		json_write_text(p->value, &b);
	}
	return arena_str(a, buf_str(&b));
}

int field_value(
	struct sync *s, struct str path, const char *pod_ip, struct str *ret, struct err *err)
{
	const struct core_v1_pod *pod = s->pod;
	const struct pod_sandbox *b = worker_sandbox(s->w);
	struct str ip = str_of(pod_ip ? pod_ip : ""), host = str_of(s->k->c.node_ip), key;
	struct str ips = b && ip.len && !pod->spec.host_network && b->second_ip && *b->second_ip
		? arena_fmt(s->a, STR_FMT ",%s", STR_ARG(ip), b->second_ip)
		: ip;
	const struct {
		const char *path;
		struct str value;
	} plain[] = {
		{ "metadata.name", pod->metadata.name },
		{ "metadata.namespace", pod->metadata.namespace },
		{ "metadata.uid", pod->metadata.uid },
		{ "spec.nodeName", str_of(s->k->c.node_name) },
		{ "spec.serviceAccountName", pod->spec.service_account_name },
		{ "status.podIP", ip },
		{ "status.podIPs", ips },
		{ "status.hostIP", host },
		{ "status.hostIPs", host },
	};

	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		if (str_eqz(path, plain[i].path)) {
			*ret = plain[i].value.p ? plain[i].value : STR("");
			return 0;
		}
	if (subscript(path, "metadata.labels", &key) ||
		subscript(path, "metadata.annotations", &key)) {
		const struct str_map *m = str_has_prefix(path, STR("metadata.labels"))
			? &pod->metadata.labels
			: &pod->metadata.annotations;
		struct str v = str_map_get(m, key);
		*ret = v.p ? v : STR("");
		return 0;
	}
	if (str_eqz(path, "metadata.labels") || str_eqz(path, "metadata.annotations")) {
		*ret = map_text(str_eqz(path, "metadata.labels") ? &pod->metadata.labels
								 : &pod->metadata.annotations,
			s->a);
		return 0;
	}
	return err_set(err, -EINVAL, "unsupported fieldPath: " STR_FMT, STR_ARG(path));
}

int resource_field_value(struct sync *s, const struct core_v1_resource_field_selector *r,
	const struct core_v1_container *self, struct str *ret, struct err *err)
{
	const struct core_v1_container *c = self;
	struct quantity q = { 0 }, divisor = { .nano = 1000000000, .format = 'D' };
	struct str which, name;

	if (r->container_name.len) {
		const struct container_spec *spec =
			container_specs_find(&s->specs, r->container_name);
		if (!spec)
			return err_set(err, -EINVAL, "container " STR_FMT " not found",
				STR_ARG(r->container_name));
		c = spec->c;
	}
	if (!c || !str_cut(r->resource, '.', &which, &name))
		return err_set(err, -EINVAL, "unsupported container resource: " STR_FMT,
			STR_ARG(r->resource));
	bool limits = str_eqz(which, "limits");
	CLEAN_FREE char *resource = str_dup(name);
	if (!resource_quantity(
		    limits ? &c->resources.limits : &c->resources.requests, resource, &q)) {
		/* No limit: all that the node has to give. No request: none. */
		if (limits)
			node_allocatable(s->k, resource, &q);
		else
			resource_quantity(&c->resources.limits, resource, &q);
	}
	if (r->divisor.len && !quantity_parse(r->divisor, &divisor) && !divisor.nano)
		divisor.nano = 1000000000;
	__int128 n = (q.nano + divisor.nano - 1) / divisor.nano;
	*ret = arena_fmt(s->a, "%lld", (long long)n);
	return 0;
}

/* ---- references ---- */

/* What a ConfigMap or Secret holds. */
static int object_data(struct sync *s, const struct type *t, struct str name,
	const struct str_map **ret, struct err *err)
{
	void *obj;
	int r = object_get(s, t, name, &obj, err);

	if (!r)
		*ret = t == &core_v1_secret_type ? &((struct core_v1_secret *)obj)->data
						 : &((struct core_v1_config_map *)obj)->data;
	return r;
}

static int from_key(struct sync *s, const struct type *t, struct str name, struct str key,
	struct opt_bool may_lack, struct str *ret, bool *ret_skip, struct err *err)
{
	bool optional = may_lack.set && may_lack.value;
	const struct str_map *data;
	int got = object_data(s, t, name, &data, err);

	if (got == CLIENT_NOT_FOUND && optional) {
		*ret_skip = true;
		return 0;
	}
	if (got)
		return got < 0 ? got : -ENOENT;
	*ret = str_map_get(data, key);
	if (ret->p)
		return 0;
	*ret_skip = optional;
	return optional
		? 0
		: err_set(err, -ENOENT, "couldn't find key " STR_FMT " in %s " STR_FMT "/" STR_FMT,
			  STR_ARG(key), t == &core_v1_secret_type ? "Secret" : "ConfigMap",
			  STR_ARG(s->pod->metadata.namespace), STR_ARG(name));
}

static int value_from(struct sync *s, const struct core_v1_container *c,
	const struct core_v1_env_var_source *v, const char *pod_ip, struct str *ret, bool *ret_skip,
	struct err *err)
{
	if (v->field_ref)
		return field_value(s, v->field_ref->field_path, pod_ip, ret, err);
	if (v->resource_field_ref)
		return resource_field_value(s, v->resource_field_ref, c, ret, err);
	const struct core_v1_config_map_key_selector *m = v->config_map_key_ref;
	const struct core_v1_secret_key_selector *x = v->secret_key_ref;
	if (m)
		return from_key(s, &core_v1_config_map_type, m->local_object_reference.name, m->key,
			m->optional, ret, ret_skip, err);
	if (x)
		return from_key(s, &core_v1_secret_type, x->local_object_reference.name, x->key,
			x->optional, ret, ret_skip, err);
	return err_set(err, -ENOSYS,
		"environment variable from a file (fileKeyRef) is not supported by this kubelet");
}

static int env_from(struct sync *s, struct env_list *l, const struct core_v1_env_from_source *e,
	struct err *err)
{
	const struct core_v1_config_map_env_source *m = e->config_map_ref;
	const struct core_v1_secret_env_source *x = e->secret_ref;
	const struct str_map *data;

	if (!m && !x)
		return 0;
	struct opt_bool optional = m ? m->optional : x->optional;
	int r = object_data(s, m ? &core_v1_config_map_type : &core_v1_secret_type,
		m ? m->local_object_reference.name : x->local_object_reference.name, &data, err);
	if (r == CLIENT_NOT_FOUND && optional.set && optional.value)
		return 0;
	if (r)
		return r < 0 ? r : -ENOENT;
	LIST_EACH(p, data)
		env_set(l,
			e->prefix.len ? arena_fmt(s->a, STR_FMT STR_FMT, STR_ARG(e->prefix),
						STR_ARG(p->key))
				      : p->key,
			p->value);
	return 0;
}

int env_make(struct sync *s, const struct core_v1_container *c, const char *pod_ip,
	struct engine_env **ret, size_t *ret_n, struct err *err)
{
	struct env_list l = { .a = s->a };

	int got = services_env(s, &l, err);
	if (got)
		return got;
	LIST_EACH(e, &c->env_from) {
		int r = env_from(s, &l, e, err);
		if (r)
			return r;
	}
	LIST_EACH(e, &c->env) {
		struct str value = e->value;
		bool skip = false;
		if (e->value_from && !e->value.len) {
			int r = value_from(s, c, e->value_from, pod_ip, &value, &skip, err);
			if (r)
				return r;
		} else {
			value = env_expand(value, l.items, l.len, s->a);
		}
		if (!skip)
			env_set(&l, e->name, value.p ? value : STR(""));
	}
	/* One entry a name: the last value, at the place of its first mention. */
	size_t n = 0;
	for (size_t i = 0; i < l.len; i++) {
		if (env_get(l.items, n, l.items[i].name))
			continue;
		struct str value = *env_get(l.items, l.len, l.items[i].name);
		l.items[n++] = (struct engine_env){ l.items[i].name, value };
	}
	*ret = l.items;
	*ret_n = n;
	return 0;
}
