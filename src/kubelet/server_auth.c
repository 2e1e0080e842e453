/* Who asks, and may they? Certificates were verified by TLS against the cluster's CA; tokens and everything that is not plainly allowed
 * are asked of the API server, and answers are kept for a short while (allowed 5 min, refused 30 s, as upstream). */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define ALLOWED_NS (300 * NS_PER_S)
#define REFUSED_NS (30 * NS_PER_S)
#define CACHE_SLOTS 64

struct who {
	struct str user, uid;
	struct str groups[16];
	size_t n_groups;
};

/* A tiny cache by hash of user, verb and subresource; guarded by its own lock. Collisions are told apart by the whole key. */
static struct {
	pthread_mutex_t lock;
	struct {
		char *key;
		uint64_t until_ns;
		bool allowed;
	} slots[CACHE_SLOTS];
} cache = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool cached_answer(const struct kubelet *k, struct str key, bool *ret)
{
	size_t i = hash_bytes(key.p, key.len, 7) % CACHE_SLOTS;

	pthread_mutex_lock(&cache.lock);
	bool hit = cache.slots[i].key && str_eqz(key, cache.slots[i].key) &&
		cache.slots[i].until_ns > now_ns(k);
	if (hit)
		*ret = cache.slots[i].allowed;
	pthread_mutex_unlock(&cache.lock);
	return hit;
}

static void keep_answer(const struct kubelet *k, struct str key, bool allowed)
{
	size_t i = hash_bytes(key.p, key.len, 7) % CACHE_SLOTS;

	pthread_mutex_lock(&cache.lock);
	CLEAN_FREE char *own = str_dup(key);
	set_text(&cache.slots[i].key, own);
	cache.slots[i].until_ns = now_ns(k) + (allowed ? ALLOWED_NS : REFUSED_NS);
	cache.slots[i].allowed = allowed;
	pthread_mutex_unlock(&cache.lock);
}

static int review_token(
	struct kubelet *k, struct str token, struct arena *a, struct who *ret, struct err *err)
{
	struct authentication_v1_token_review *t = model_new(
						      &authentication_v1_token_review_type, a),
					      *made;

	if (!k->c.client)
		return err_set(err, -EACCES, "Unauthorized");
	t->spec.token = token;
	int r = client_create(k->c.client, &authentication_v1_token_review_type, STR_NONE, t, a,
		(void **)&made, err);
	if (r)
		return r < 0 ? r : -EIO;
	if (!made->status.authenticated)
		return err_set(err, -EACCES, "Unauthorized");
	ret->user = made->status.user.username;
	ret->uid = made->status.user.uid;
	for (size_t i = 0;
		i < made->status.user.groups.len && ret->n_groups < ARRAY_LEN(ret->groups); i++)
		ret->groups[ret->n_groups++] = made->status.user.groups.items[i];
	return 0;
}

static int authenticate(struct kubelet *k, const struct http_request *r, struct arena *a,
	struct who *ret, struct err *err)
{
	struct str auth = http_request_header(r, "authorization");

	if (r->peer) {
		ret->user = r->peer->common_name;
		ret->uid = r->peer->uid;
		for (size_t i = 0; i < r->peer->n_organizations && i < ARRAY_LEN(ret->groups); i++)
			ret->groups[ret->n_groups++] = r->peer->organizations[i];
		ret->groups[MIN(ret->n_groups, ARRAY_LEN(ret->groups) - 1)] =
			STR("system:authenticated");
		ret->n_groups = MIN(ret->n_groups + 1, ARRAY_LEN(ret->groups));
		return 0;
	}
	if (auth.p && auth.len > 7 && !strncasecmp(auth.p, "bearer ", 7))
		return review_token(k, str_trim(str_from(auth, 7)), a, ret, err);
	return err_set(err, -EACCES, "Unauthorized");
}

static bool trusted(const struct who *w)
{
	for (size_t i = 0; i < w->n_groups; i++)
		if (str_eqz(w->groups[i], "system:masters"))
			return true;
	return str_eqz(w->user, "kube-apiserver-kubelet-client");
}

static int review_access(struct kubelet *k, const struct who *w, const char *verb,
	const char *subresource, struct arena *a, bool *ret, struct err *err)
{
	struct authorization_v1_subject_access_review
		*s = model_new(&authorization_v1_subject_access_review_type, a),
		*made;

	if (!k->c.client)
		return err_set(err, -EACCES, "this kubelet has no API server to ask");
	s->spec.user = w->user;
	s->spec.uid = w->uid;
	s->spec.groups =
		(struct str_list){ arena_memdup(a, w->groups, sizeof(w->groups)), w->n_groups };
	s->spec.resource_attributes = arena_alloc(a, sizeof(*s->spec.resource_attributes));
	s->spec.resource_attributes->verb = str_of(verb);
	s->spec.resource_attributes->version = STR("v1");
	s->spec.resource_attributes->resource = STR("nodes");
	s->spec.resource_attributes->subresource = str_of(subresource);
	s->spec.resource_attributes->name = str_of(k->c.node_name);
	int r = client_create(k->c.client, &authorization_v1_subject_access_review_type, STR_NONE,
		s, a, (void **)&made, err);
	if (r)
		return r < 0 ? r : -EIO;
	*ret = made->status.allowed;
	return 0;
}

bool server_authorize(struct kubelet *k, const struct http_request *r, const char *verb,
	const char *subresource, struct arena *a, int *ret_status, struct err *err)
{
	struct who w = { 0 };
	bool allowed = false;

	int got = authenticate(k, r, a, &w, err);
	if (got) {
		*ret_status = got == -EACCES ? 401 : 500;
		return false;
	}
	if (trusted(&w))
		return true;
	CLEAN_BUF struct buf key = { 0 };
	buf_addf(&key, STR_FMT "|%s|%s", STR_ARG(w.user), verb, subresource);
	for (size_t i = 0; i < w.n_groups; i++)
		buf_addf(&key, "|" STR_FMT, STR_ARG(w.groups[i]));
	if (!cached_answer(k, buf_str(&key), &allowed)) {
		got = review_access(k, &w, verb, subresource, a, &allowed, err);
		/* Fine-grained subresources are new; who holds nodes/proxy may do all that it once covered. */
		if (!got && !allowed &&
			(!strcmp(subresource, "healthz") || !strcmp(subresource, "pods")))
			got = review_access(k, &w, verb, "proxy", a, &allowed, err);
		if (got) {
			*ret_status = 500;
			return false;
		}
		keep_answer(k, buf_str(&key), allowed);
	}
	if (!allowed) {
		*ret_status = 403;
		err_set(err, -EPERM,
			"Forbidden (user=" STR_FMT
			", verb=%s, resource=nodes, subresource(s)=[%s])",
			STR_ARG(w.user), verb, subresource);
	}
	return allowed;
}
