/* projected: several sources in one folder; service account tokens among them, asked of the API for this very pod and asked again before they end
 * (at four fifths of their time, or after a day). */
#include <fcntl.h>

#include "gen/types.h"
#include "kubelet/internal.h"
#include "linux/linux.h"

#define DAY_S 86400
#define TOKEN_MAX 65536

static const void *source(const struct core_v1_volume_source *v)
{
	return v->projected;
}

/* When a token was made, by its own word. */
static int64_t issued_at(struct str token, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };
	struct str head, rest, payload;
	struct value v;
	struct err err;

	str_cut(token, '.', &head, &rest);
	str_cut(rest, '.', &payload, &rest);
	if (base64url_decode(&b, payload) || json_parse(buf_str(&b), a, &v, &err))
		return 0;
	const struct value *iat = value_get(&v, STR("iat"));
	return iat && iat->kind == VALUE_INT ? iat->integer : 0;
}

static uint64_t *due_of(struct volume_ctx *c, struct str path)
{
	struct str key =
		arena_fmt(c->s->a, STR_FMT "/" STR_FMT, STR_ARG(c->v->name), STR_ARG(path));
	uint64_t *due = map_get(&c->s->w->tokens, key);

	if (!due) {
		due = xcalloc(1, sizeof(*due));
		map_set(&c->s->w->tokens, key, due);
	}
	return due;
}

static void renew_at(struct volume_ctx *c, uint64_t at)
{
	if (!c->s->w->volumes_due_ns || at < c->s->w->volumes_due_ns)
		c->s->w->volumes_due_ns = at;
}

static uint64_t in_seconds(struct volume_ctx *c, int64_t seconds)
{
	return now_ns(c->s->k) + (uint64_t)seconds * NS_PER_S;
}

/* The token that is there already, when it is young enough; asks to be woken when it no longer is. Its age is reckoned once, at the first look of this life
 * of the kubelet, and never again: the clocks of machines differ, and may be moved. */
static bool token_is_young(struct volume_ctx *c,
	const struct core_v1_service_account_token_projection *t, int64_t expires_s,
	struct str *ret)
{
	CLEAN_FD int dir = open(c->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEAN_FD int fd = dir < 0
		? -1
		: path_open_in_root(dir, arena_str(c->s->a, t->path).p, O_RDONLY | O_NONBLOCK, 0);
	char *text = arena_alloc(c->s->a, TOKEN_MAX);

	ssize_t n = fd < 0 ? -1 : read(fd, text, TOKEN_MAX);
	if (n <= 0)
		return false;
	struct str token = str_n(text, (size_t)n);
	int64_t whole = MIN(expires_s * 4 / 5, DAY_S),
		left = issued_at(token, c->s->a) + whole - now_wall(c->s->k).sec;
	uint64_t *due = due_of(c, t->path);
	if (!*due)
		*due = in_seconds(c, MAX(MIN(left, whole), (int64_t)0));
	if (*due <= now_ns(c->s->k))
		return false;
	renew_at(c, *due);
	*ret = token;
	return true;
}

static int64_t user_of(const struct core_v1_pod_spec *p, const struct core_v1_container *c)
{
	if (c->security_context && c->security_context->run_as_user.set)
		return c->security_context->run_as_user.value;
	return p->security_context && p->security_context->run_as_user.set
		? p->security_context->run_as_user.value
		: -1;
}

/* The user that all containers are told to run as; -1: one is not told, or they differ. */
static int64_t only_user(const struct core_v1_pod_spec *p)
{
	const struct core_v1_container_items *lists[] = { &p->containers, &p->init_containers };
	int64_t user = p->containers.len ? user_of(p, &p->containers.items[0]) : -1;

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		LIST_EACH(c, lists[i])
			if (user_of(p, c) != user)
				return -1;
	return user;
}

static int token_file(struct volume_ctx *c,
	const struct core_v1_service_account_token_projection *t, int32_t mode,
	struct volume_files *f, struct err *err)
{
	struct sync *s = c->s;
	int64_t expires = t->expiration_seconds.set ? t->expiration_seconds.value : 3600;
	struct str token,
		account = s->pod->spec.service_account_name.len ? s->pod->spec.service_account_name
								: STR("default");
	struct authentication_v1_token_request *req = model_new(
						       &authentication_v1_token_request_type, s->a),
					       *made;

	if (!token_is_young(c, t, expires, &token)) {
		if (!s->k->c.client)
			return err_set(err, -ENOTCONN,
				"a service account token needs an API server, and this kubelet has none");
		if (t->audience.len) {
			req->spec.audiences.items =
				arena_memdup(s->a, &t->audience, sizeof(t->audience));
			req->spec.audiences.len = 1;
		}
		req->spec.expiration_seconds = (struct opt_int64){ true, expires };
		req->spec.bound_object_ref = arena_alloc(s->a, sizeof(*req->spec.bound_object_ref));
		req->spec.bound_object_ref->kind = STR("Pod");
		req->spec.bound_object_ref->api_version = STR("v1");
		req->spec.bound_object_ref->name = s->pod->metadata.name;
		req->spec.bound_object_ref->uid = s->pod->metadata.uid;
		int r = client_create_sub(s->k->c.client, &core_v1_service_account_type,
			s->pod->metadata.namespace, account, "token",
			&authentication_v1_token_request_type, req, s->a, (void **)&made, err);
		if (r)
			return err_prefix(err, r < 0 ? r : -EIO,
				"failed to fetch token of service account \"" STR_FMT "\"",
				STR_ARG(account));
		token = made->status.token;
		*due_of(c, t->path) = in_seconds(c, MIN(expires * 4 / 5, DAY_S));
		renew_at(c, *due_of(c, t->path));
	}
	/* A token is for whoever runs in the pod: its only user, where there is one, and its group. */
	int64_t user = only_user(&s->pod->spec);
	volume_files_add(s->a, f, t->path, token,
		c->fs_group >= 0    ? 0640
			: user >= 0 ? 0600
				    : mode);
	LIST_EACH(file, f)
		if (str_eq(file->path, t->path))
			file->owner = MAX(user, (int64_t)0);
	return 0;
}

static int one(struct volume_ctx *c, const struct core_v1_volume_projection *p, int32_t mode,
	struct volume_files *f, struct err *err)
{
	if (p->config_map)
		return config_map_files(c, p->config_map->local_object_reference.name,
			p->config_map->items.items, p->config_map->items.len,
			p->config_map->items.len > 0, mode,
			p->config_map->optional.set && p->config_map->optional.value, f, err);
	if (p->secret)
		return secret_files(c, p->secret->local_object_reference.name,
			p->secret->items.items, p->secret->items.len, p->secret->items.len > 0,
			mode, p->secret->optional.set && p->secret->optional.value, f, err);
	if (p->downward_api)
		return downward_files(
			c, p->downward_api->items.items, p->downward_api->items.len, mode, f, err);
	if (p->service_account_token)
		return token_file(c, p->service_account_token, mode, f, err);
	return err_set(err, -ENOSYS,
		"a source of the projected volume (clusterTrustBundle, podCertificate) is not supported by this kubelet");
}

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_projected_volume_source *v = c->v->volume_source.projected;
	struct volume_files f = { 0 };

	LIST_EACH(p, &v->sources) {
		int r = one(c, p, v->default_mode.set ? v->default_mode.value : 0644, &f, err);
		if (r)
			return r;
	}
	int r = volume_tmpfs(c->dir, 0, 0755, err);
	return r ? r : files_write(c->dir, &f, c->fs_group, err);
}

const struct volume_kind volume_projected = {
	.plugin = "kubernetes.io~projected", .source = source, .setup = setup, .refreshes = true
};
