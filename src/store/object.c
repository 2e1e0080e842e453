/* Objects: one allocation that holds the header, the pairs, their text, the key and the JSON, in this order. The JSON stands
 * last because its length may still change by a digit when the revision is known. */
#include "store/internal.h"

enum { DIGITS_MAX = 20, FORMS_MAX = 8 << 20 };

static _Atomic size_t forms_bytes; /* kept with objects */

static size_t form_bytes(const struct store_form *f)
{
	return sizeof(*f) + f->len;
}

static size_t format_revision(uint64_t v, char out[DIGITS_MAX])
{
	char tmp[DIGITS_MAX];
	size_t n = 0;
	do
		tmp[n++] = (char)('0' + v % 10);
	while (v /= 10);
	for (size_t i = 0; i < n; i++)
		out[i] = tmp[n - 1 - i];
	return n;
}

static struct str put(char **at, struct str s)
{
	struct str r = { *at, s.len };
	if (s.len > 0)
		memcpy(*at, s.p, s.len);
	(*at)[s.len] = '\0';
	*at += s.len + 1;
	return r;
}

static size_t pairs_size(const struct object_pair *pairs, size_t n)
{
	size_t size = 0;
	for (size_t i = 0; i < n; i++)
		size += sizeof(struct object_pair) + pairs[i].key.len + pairs[i].value.len + 2;
	return size;
}

static void put_pairs(struct object_pair *to, const struct object_pair *from, size_t n, char **at)
{
	for (size_t i = 0; i < n; i++) {
		to[i].key = put(at, from[i].key);
		to[i].value = put(at, from[i].value);
	}
}

/* Everything but the JSON, for which `json_room` bytes are left at the end. */
static struct object *make(const struct object_parts *parts, size_t json_room)
{
	size_t size = sizeof(struct object) + pairs_size(parts->labels, parts->n_labels) +
		pairs_size(parts->fields, parts->n_fields) + parts->key.len + 1 + json_room + 1;
	struct object *o = xmalloc(size);
	memset(o, 0, sizeof(*o));
	atomic_init(&o->refs, 1);
	o->n_labels = (uint32_t)parts->n_labels;
	o->n_fields = (uint32_t)parts->n_fields;
	o->labels = (struct object_pair *)(o + 1);
	o->fields = o->labels + o->n_labels;
	char *at = (char *)(o->fields + o->n_fields);
	o->key = put(&at, parts->key);
	put_pairs(o->labels, parts->labels, parts->n_labels, &at);
	put_pairs(o->fields, parts->fields, parts->n_fields, &at);
	o->json.p = at;
	return o;
}

struct object *object_new(const struct object_parts *parts, uint64_t revision)
{
	struct object *o = make(parts, parts->json_head.len + DIGITS_MAX + parts->json_tail.len);
	char *at = (char *)o->json.p;
	if (parts->json_head.len > 0)
		memcpy(at, parts->json_head.p, parts->json_head.len);
	at += parts->json_head.len;
	at += format_revision(revision, at);
	if (parts->json_tail.len > 0)
		memcpy(at, parts->json_tail.p, parts->json_tail.len);
	at[parts->json_tail.len] = '\0';
	o->json.len = (size_t)(at - o->json.p) + parts->json_tail.len;
	o->revision = revision;
	return o;
}

void object_set_revision(struct object *o, size_t head_len, uint64_t revision)
{
	char digits[DIGITS_MAX];
	size_t is = format_revision(o->revision, digits), want = format_revision(revision, digits);
	char *at = (char *)o->json.p + head_len;
	if (is != want) {
		memmove(at + want, at + is, o->json.len - head_len - is + 1);
		o->json.len = o->json.len - is + want;
	}
	memcpy(at, digits, want);
	o->revision = revision;
}

struct object *object_new_whole(
	const struct object_parts *parts, struct str json, uint64_t revision)
{
	struct object *o = make(parts, json.len);
	char *at = (char *)o->json.p;
	o->json = put(&at, json);
	o->revision = revision;
	return o;
}

struct object *object_with_json(const struct object *o, struct str json, uint64_t revision)
{
	struct object_parts parts = {
		.key = o->key,
		.labels = o->labels,
		.n_labels = o->n_labels,
		.fields = o->fields,
		.n_fields = o->n_fields,
	};
	struct object *r = object_new_whole(&parts, json, revision);
	r->create_revision = o->create_revision;
	return r;
}

struct object *object_ref(struct object *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

void object_unref(struct object *o)
{
	if (!o || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1)
		return;
	struct store_form *f = atomic_load_explicit(&o->proto, memory_order_relaxed);
	if (f)
		atomic_fetch_sub(&forms_bytes, form_bytes(f));
	free(f);
	free(o);
}

void object_unrefp(struct object **o)
{
	object_unref(*o);
}

const struct store_form *object_keep_proto(struct object *o, struct store_form *f)
{
	struct store_form *was = NULL;
	size_t n = form_bytes(f);
	if (atomic_fetch_add(&forms_bytes, n) + n > FORMS_MAX) {
		atomic_fetch_sub(&forms_bytes, n);
		return NULL;
	}
	if (atomic_compare_exchange_strong_explicit(
		    &o->proto, &was, f, memory_order_acq_rel, memory_order_acquire))
		return f;
	atomic_fetch_sub(&forms_bytes, n);
	free(f);
	return was;
}

size_t object_bytes(const struct object *o)
{
	return (size_t)(o->json.p - (const char *)o) + o->json.len + 1;
}
