/* Finding types: by group, version and kind, by protobuf name; fields by JSON name. The two hash tables are built once,
 * at first use, and only read afterwards. */
#include "model/internal.h"

#include <pthread.h>

#include "gen/types.h"

#define SLOTS 2048 /* a power of two above twice the number of types */

static const struct type *by_kind[SLOTS], *by_proto[SLOTS];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static uint32_t hash_add(uint32_t h, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 16777619u;
	return (h ^ 0xff) * 16777619u;
}

static uint32_t hash_kind(struct str group, struct str version, struct str kind)
{
	return hash_add(hash_add(hash_add(2166136261u, group.p, group.len), version.p, version.len),
		kind.p, kind.len);
}

static void insert(const struct type **table, uint32_t h, const struct type *t)
{
	while (table[h % SLOTS])
		h++;
	table[h % SLOTS] = t;
}

static void build_tables(void)
{
	if (gen_n_types * 2 > SLOTS)
		abort();
	for (size_t i = 0; i < gen_n_types; i++) {
		const struct type *t = gen_types[i];

		insert(by_proto, hash_add(2166136261u, t->proto, strlen(t->proto)), t);
		if (t->is_typed)
			insert(by_kind,
				hash_kind(str_of(t->group), str_of(t->version), str_of(t->name)),
				t);
	}
}

static const struct type *find_kind(struct str group, struct str version, struct str kind)
{
	for (uint32_t h = hash_kind(group, version, kind); by_kind[h % SLOTS]; h++) {
		const struct type *t = by_kind[h % SLOTS];

		if (str_eqz(kind, t->name) && str_eqz(group, t->group) &&
			str_eqz(version, t->version))
			return t;
	}
	return NULL;
}

/* Kinds that every group has, all of the same type. */
static const char *const everywhere[] = {
	"WatchEvent",
	"ListOptions",
	"DeleteOptions",
	"CreateOptions",
	"UpdateOptions",
	"PatchOptions",
	"GetOptions",
};

const struct type *model_type(struct str group, struct str version, struct str kind)
{
	pthread_once(&tables_once, build_tables);
	const struct type *t = find_kind(group, version, kind);

	for (size_t i = 0; !t && i < ARRAY_LEN(everywhere); i++)
		if (str_eqz(kind, everywhere[i]))
			t = find_kind(STR(""), STR("v1"), kind);
	return t;
}

const struct type *model_type_by_proto(struct str name)
{
	pthread_once(&tables_once, build_tables);
	for (uint32_t h = hash_add(2166136261u, name.p, name.len); by_proto[h % SLOTS]; h++)
		if (str_eqz(name, by_proto[h % SLOTS]->proto))
			return by_proto[h % SLOTS];
	return NULL;
}

const struct type *const *model_types(size_t *ret_n)
{
	*ret_n = gen_n_types;
	return gen_types;
}

const struct flat_field *model_flat_field(const struct type *t, struct str name)
{
	for (uint32_t h = model_name_hash(name.p, name.len);; h++) {
		uint16_t slot = t->name_slots[h & t->name_mask];

		if (!slot)
			return NULL;
		const struct flat_field *f = &t->flat[slot - 1];

		if (f->field->name_len == name.len && !memcmp(f->field->name, name.p, name.len))
			return f;
	}
}

const struct field *model_field(const struct type *t, struct str name)
{
	const struct flat_field *f = model_flat_field(t, name);

	return f ? f->field : NULL;
}

struct meta_v1_object_meta *model_meta(const struct type *t, const void *obj)
{
	if (!t->is_object || !obj)
		return NULL;
	const struct flat_field *f = model_flat_field(t, STR("metadata"));

	return (struct meta_v1_object_meta *)((const char *)obj + f->offset);
}

size_t model_kind_size(enum field_kind kind, const struct type *t)
{
	static const uint8_t sizes[] = {
		[KIND_BOOL] = sizeof(bool),
		[KIND_INT32] = 4,
		[KIND_INT64] = 8,
		[KIND_DOUBLE] = 8,
		[KIND_STRING] = sizeof(struct str),
		[KIND_BYTES] = sizeof(struct str),
		[KIND_QUANTITY] = sizeof(struct str),
		[KIND_RAW] = sizeof(struct str),
		[KIND_JSON] = sizeof(struct str),
		[KIND_TIME] = sizeof(struct timestamp),
		[KIND_MICROTIME] = sizeof(struct timestamp),
		[KIND_DURATION] = 8,
		[KIND_INT_OR_STRING] = sizeof(struct int_or_str),
	};

	return kind == KIND_MESSAGE ? t->size : sizes[kind];
}

size_t model_item_size(const struct field *f)
{
	if (f->shape == SHAPE_MAP_LIST)
		return sizeof(struct str_list_entry);
	if (f->shape != SHAPE_MAP)
		return model_kind_size(f->kind, f->type);
	return f->kind == KIND_MESSAGE ? f->type->entry_size
				       : MAP_VALUE_OFFSET + model_kind_size(f->kind, NULL);
}

size_t field_value_size(const struct field *f)
{
	if (f->shape == SHAPE_ONE)
		return model_kind_size(f->kind, f->type);
	if (f->shape != SHAPE_PTR)
		return sizeof(struct any_list);
	switch (f->kind) {
	case KIND_BOOL:
		return sizeof(struct opt_bool);
	case KIND_INT32:
		return sizeof(struct opt_int32);
	case KIND_INT64:
	case KIND_DURATION:
		return sizeof(struct opt_int64);
	case KIND_DOUBLE:
		return sizeof(struct opt_double);
	case KIND_MESSAGE:
		return sizeof(void *);
	default:
		return model_kind_size(f->kind, NULL);
	}
}
