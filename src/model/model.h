/* Types as tables. tools/schemac makes from api/ one C struct and one `const struct type` a message; what stands here
 * works on any of them through its rows, so there is no code per type. A CRD makes the same tables at run time.
 *
 * How a field looks in its struct; presence is explicit in the value itself
 *   bool, int32_t, int64_t, double         T: zero is "not there"
 *   struct opt_bool, opt_int32, opt_int64  *T: `.set` tells whether it is there, `.value` is it
 *   struct str              string, bytes (decoded), quantity (canonical text), raw (JSON text): NUL-terminated.
 *                           p == NULL is "not there"; a plain string is never empty and there, as codecs make it;
 *                           for *string (and bytes) a p with len 0 is an empty one that is there
 *   struct timestamp        Time, MicroTime: {0,0} is "not there"
 *   int64_t / opt_int64     Duration, in ns
 *   struct int_or_str       .kind IOS_NONE is "not there"
 *   struct X                message by value: always there
 *   struct X *              message by pointer; NULL is "not there"
 *   list                    struct X_items { struct X *items; size_t len; }: items == NULL is nil; an empty one that is
 *                           there has len 0 and items == MODEL_EMPTY. A list of texts is struct str_list
 *   map                     struct X_map, the same over struct X_entry {struct str key; struct X value}, sorted by key,
 *                           unique. map[string]string and maps of text-like values (quantities, bytes) are struct str_map
 * Names: JSON names in snake_case (podIP pod_ip, clusterIPs cluster_ips, hostPID host_pid); a C keyword gets a trailing
 * underscore (continue_, default_). struct core_v1_pod_spec, struct meta_v1_object_meta, struct apps_v1_deployment; the
 * table is core_v1_pod_spec_type. A Go-inline message without a tag (TypeMeta) has its members in place (api_version,
 * kind); one with a tag is a struct by value under its protobuf name (volume.volume_source.empty_dir).
 * Enum-like texts stay struct str. All structs are declared in the generated header "gen/types.h".
 *
 * What an object points to lives in the arena that it was decoded into; objects are never freed one by one. */
#ifndef SKIFF_MODEL_H
#define SKIFF_MODEL_H

#include "base/base.h"
#include "base/values.h"

enum field_kind {
	KIND_BOOL,
	KIND_INT32,
	KIND_INT64,
	KIND_DOUBLE,
	KIND_STRING,
	KIND_BYTES, /* base64 in JSON */
	KIND_TIME,
	KIND_MICROTIME,
	KIND_DURATION,
	KIND_QUANTITY,
	KIND_INT_OR_STRING,
	KIND_RAW, /* RawExtension and FieldsV1: the object itself in JSON; {1 bytes raw} in protobuf */
	KIND_JSON, /* apiextensions JSON: any JSON value; {1 bytes raw} */
	KIND_MESSAGE,
};

enum field_shape {
	SHAPE_ONE, /* by value */
	SHAPE_PTR, /* *T: see above */
	SHAPE_LIST,
	SHAPE_MAP, /* text keys; the row's kind and type are the value's */
	SHAPE_MAP_LIST, /* map[string][]string (UserInfo.extra): entries {struct str key; struct str_list value} */
};

enum field_flags {
	FIELD_OMIT_EMPTY = 1 << 0, /* left out of JSON when not there */
	FIELD_OMIT_ZERO = 1 << 1,  /* a struct by value left out of JSON when all of it is zero */
	FIELD_REQUIRED = 1 << 2,
	FIELD_INLINE = 1 << 3, /* members of this message stand at its parent's level in JSON */
	FIELD_IMMUTABLE = 1 << 4,
	FIELD_ATOMIC = 1 << 5, /* list, map or struct that server-side apply replaces whole */
	FIELD_LIST_SET = 1 << 6,
	FIELD_LIST_MAP = 1 << 7,    /* keys in list_keys */
	FIELD_PATCH_MERGE = 1 << 8, /* strategic merge by merge_key (NULL: a list of scalars) */
	FIELD_PATCH_RETAIN_KEYS = 1 << 9,
	FIELD_NO_PROTO = 1 << 10,      /* TypeMeta's members: not in protobuf */
	FIELD_PATCH_REPLACE = 1 << 11, /* strategic merge replaces this struct or list whole */
	FIELD_LIST_DUPLICATES = 1
		<< 14, /* with FIELD_LIST_MAP: the server takes items with equal keys all the same */
	FIELD_PROTO_WRAPPED =
		1 << 13, /* a list that protobuf holds in a message of its own: {1 repeated} */
	FIELD_REQUIRED_UNCHECKED = 1
		<< 12, /* with FIELD_REQUIRED: published as required, yet the server takes it empty */
};

struct opt_bool {
	bool set, value;
};
struct opt_int32 {
	bool set;
	int32_t value;
};
struct opt_int64 {
	bool set;
	int64_t value;
};
struct opt_double {
	bool set;
	double value;
};
#define SOME(v) \
	{ \
		.set = true, .value = (v) \
	} /* spec->replicas = (struct opt_int32)SOME(3) */

struct int_or_str {
	enum { IOS_NONE, IOS_INT, IOS_STR } kind;
	int32_t num;
	struct str text;
};

struct str_list {
	struct str *items;
	size_t len;
};

struct str_pair {
	struct str key, value;
};

struct str_map {
	struct str_pair *items;
	size_t len;
};

/* Lists of numbers, and the rarer maps. */
struct bool_list {
	bool *items;
	size_t len;
};
struct int32_list {
	int32_t *items;
	size_t len;
};
struct int64_list {
	int64_t *items;
	size_t len;
};
struct double_list {
	double *items;
	size_t len;
};
struct time_list {
	struct timestamp *items;
	size_t len;
};
struct time_entry {
	struct str key;
	struct timestamp value;
};
struct time_map {
	struct time_entry *items;
	size_t len;
};
struct str_list_entry {
	struct str key;
	struct str_list value;
};
struct str_list_map {
	struct str_list_entry *items;
	size_t len;
};

#define MODEL_EMPTY ((void *)&model_empty_) /* `items` of a list or map that is there and empty */
extern char model_empty_;

/* Rules that the schema states and model_validate checks. */
struct field_rule {
	bool has_min, has_max;
	int64_t min, max; /* of the number; of the length of a text, list or map */
	const char
		*format; /* dns-label, dns-subdomain, label-key, label-value, port, … NULL: none */
	const char *const *values; /* allowed texts, sorted, NULL-terminated; NULL: any */
	const char *const *known;  /* texts with a meaning, others are valid too; NULL: none told */
	const char *default_json;  /* the default as JSON text; NULL: none */
};

struct type;
struct field {
	const char *name; /* JSON name */
	uint16_t name_len;
	uint16_t tag;                  /* protobuf tag, 0: none */
	uint8_t kind, shape;           /* enum field_kind, enum field_shape */
	uint32_t flags;                /* enum field_flags */
	uint32_t offset;               /* of the member in the struct */
	const struct type *type;       /* of KIND_MESSAGE */
	const struct field_rule *rule; /* NULL: none */
	const char *merge_key;         /* FIELD_PATCH_MERGE */
	const char *const *list_keys;  /* FIELD_LIST_MAP, NULL-terminated */
	const char *doc;
};

struct type {
	const char *name;            /* ServiceSpec */
	const char *group, *version; /* "apps", "v1"; core is "" */
	const char *proto; /* io.k8s.api.apps.v1.Deployment: the OpenAPI definition's name too */
	const struct field
		*fields; /* as declared, which is JSON's order; kind and apiVersion first */
	uint16_t n_fields;
	uint16_t n_flat;
	const struct flat_field *flat; /* as JSON shows them: inlined members in their place */
	const uint16_t *by_tag;        /* indexes of fields in tag order, those with a tag */
	const uint16_t *tag_slots;     /* [tag <= max_tag]: index + 1, 0: none */
	uint16_t n_by_tag, max_tag;
	bool is_typed;  /* has apiVersion and kind */
	bool is_atomic; /* server-side apply replaces it whole */
	bool is_either; /* in JSON one of its members stands alone, told by its form (JSONSchemaPropsOrBool) */
	bool is_object;      /* has apiVersion, kind, metadata (ObjectMeta) */
	bool is_list;        /* has apiVersion, kind, metadata (ListMeta), items */
	uint32_t size;       /* of the struct */
	uint32_t entry_size; /* of a map entry {struct str key; this struct value} */
	const uint16_t
		*name_slots; /* model_name_hash & name_mask, linear probing: index in flat + 1 */
	uint32_t name_mask;
	const char *doc;
};

struct flat_field {
	const struct field *field;
	uint32_t offset; /* in the outer struct */
};

/* ---- resources, as served: resource_rows in gen/types.h, in upstream's discovery order ---- */
enum resource_verb {
	VERB_GET = 1 << 0,
	VERB_LIST = 1 << 1,
	VERB_WATCH = 1 << 2,
	VERB_CREATE = 1 << 3,
	VERB_UPDATE = 1 << 4,
	VERB_PATCH = 1 << 5,
	VERB_DELETE = 1 << 6,
	VERB_DELETECOLLECTION = 1 << 7,
	VERB_ALL = (1 << 8) - 1,
};
struct subresource_row {
	const char *name;                   /* status */
	const char *group, *version, *kind; /* of what is sent to it */
	uint32_t verbs;
	const struct type *type;
};
struct column_row {                       /* of the server-side table */
	const char *name, *type, *format; /* Name, string, name */
	int priority;                     /* 1: only with -o wide */
	const char *
		source; /* .spec.replicas, age(.metadata.creationTimestamp) or fn(name): code's name */
};
struct resource_row {
	const char *group, *version, *plural, *singular, *kind;
	bool namespaced;
	uint32_t verbs;                      /* enum resource_verb */
	const struct type *type, *list_type; /* list_type NULL: cannot be listed */
	const char *const *short_names,
		*const *categories, *const *selectable_fields; /* NULL-terminated, never NULL */
	const struct subresource_row *subs;
	size_t n_subs;
	const struct column_row *columns;
	size_t n_columns;
};

/* Every object's struct begins like this. */
struct meta_v1_object_meta;
struct object_head {
	struct str api_version, kind;
};
struct meta_v1_object_meta *model_meta(
	const struct type *t, const void *obj); /* NULL: t is no object */

/* ---- finding types ---- */
static inline uint32_t model_name_hash(const char *p, size_t n)
{
	uint32_t a = 0, b = 0;
	if (n >= 4) {
		memcpy(&a, p, 4);
		memcpy(&b, p + n - 4, 4);
	} else if (n) {
		a = (unsigned char)p[0] | (uint32_t)(unsigned char)p[n / 2] << 8;
		b = (unsigned char)p[n - 1];
	}
	uint32_t h = (a ^ b * 0x85EBCA6Bu ^ (uint32_t)n * 0x27D4EB2Fu) * 0x9E3779B1u;
	return h ^ h >> 15;
}
const struct type *model_type(
	struct str group, struct str version, struct str kind); /* NULL: unknown */
const struct type *model_type_by_proto(struct str proto_name);
const struct field *model_field(
	const struct type *t, struct str json_name); /* NULL: none; inlined ones too */
const struct flat_field *model_flat_field(
	const struct type *t, struct str json_name);  /* with its offset in the outer struct */
const struct type *const *model_types(size_t *ret_n); /* all of them */

/* Bytes of one value of a kind (t: of KIND_MESSAGE), and of one item of a list or entry of a map. */
size_t model_kind_size(enum field_kind kind, const struct type *t);
size_t model_item_size(const struct field *f);

/* ---- whole objects, one loop over the rows each ---- */
void *model_new(
	const struct type *t, struct arena *a); /* zeroed; apiVersion and kind set for objects */
void *model_copy(const struct type *t, const void *obj, struct arena *a); /* deep; shares nothing */
bool model_equal(const struct type *t, const void *a,
	const void *b); /* nil and empty are the same, as upstream's Semantic.DeepEqual */
bool model_is_zero(const struct type *t, const void *obj);
void model_default(const struct type *t, void *obj,
	struct arena *a); /* fills what the schema says; twice is once */

/* Grows a list by one zeroed item and returns it: LIST_ADD(arena, &spec->containers). Lists carry no capacity: those that
 * codecs, model_copy and LIST_ADD make have room for a power of two of items, and LIST_ADD counts on it. A list built by
 * hand must have that room too before it is grown (model_list_room), or never be grown. */
static inline size_t model_list_room(size_t len)
{
	return len < 2 ? len : (size_t)1 << (64 - __builtin_clzll(len - 1));
}
void *model_list_add(struct arena *a, void *list, size_t item_size);
#define LIST_ADD(a, l) ((__typeof__((l)->items))model_list_add((a), (l), sizeof(*(l)->items)))
#define LIST_EACH(it, l) \
	for (__typeof__((l)->items + 0) it = (l)->items; it && it < (l)->items + (l)->len; it++)
/* Maps of text. */
struct str str_map_get(const struct str_map *m, struct str key); /* p NULL: not there */
bool str_map_has(const struct str_map *m, struct str key);
void str_map_set(
	struct arena *a, struct str_map *m, struct str key, struct str value); /* keeps order */
bool str_map_remove(struct str_map *m, struct str key);
bool str_list_has(const struct str_list *l, struct str s);

/* ---- validation: a list of causes, as a Status carries them ---- */
enum cause_reason {          /* upstream's field error types; text by cause_reason_text */
	CAUSE_REQUIRED,      /* FieldValueRequired */
	CAUSE_INVALID,       /* FieldValueInvalid */
	CAUSE_NOT_SUPPORTED, /* FieldValueNotSupported */
	CAUSE_DUPLICATE,     /* FieldValueDuplicate */
	CAUSE_NOT_FOUND,     /* FieldValueNotFound */
	CAUSE_FORBIDDEN,     /* FieldValueForbidden */
	CAUSE_TOO_LONG,      /* FieldValueTooLong */
	CAUSE_TOO_MANY,      /* FieldValueTooMany */
	CAUSE_TYPE_INVALID,  /* FieldValueTypeInvalid */
};
struct cause {
	enum cause_reason reason;
	struct str field; /* spec.containers[0].name */
	struct str
		message; /* as upstream words a field error without the path: `Required value: …` */
};
#define CAUSES_MAX \
	256 /* more tell nobody more, and comparing items with each other finds the square of them */
struct causes {
	struct arena *arena;
	struct cause *items;
	size_t len;
};
const char *cause_reason_text(enum cause_reason r);
/* Adds one; path and message are printf-like texts put into the arena. value may be STR_NONE: `Invalid value: "x": detail`. Those past CAUSES_MAX
 * are left out. */
void cause_add(struct causes *cs, enum cause_reason r, struct str path, struct str value,
	const char *fmt, ...) PRINTF_LIKE(5, 6);
void model_validate(const struct type *t, const void *obj, struct str path, struct causes *ret);
/* What the schema calls immutable and differs; old is what was stored. */
void model_validate_update(const struct type *t, const void *obj, const void *old, struct str path,
	struct causes *ret);
/* Names and labels. NULL: valid; else what is wrong, upstream's sense. */
const char *valid_dns_label(struct str s);      /* RFC 1123 label, 63 */
const char *valid_dns_label_1035(struct str s); /* service names */
const char *valid_dns_subdomain(struct str s);  /* RFC 1123 subdomain, 253 */
const char *valid_label_key(struct str s);      /* qualified name */
const char *valid_label_value(struct str s);

/* ---- selectors ---- */
struct selector; /* in an arena; NULL selects everything */
int selector_parse_labels(struct str text, struct arena *a, struct selector **ret,
	struct err *err); /* a=b,c in (d,e),!f */
struct meta_v1_label_selector;
int selector_from_label_selector(const struct meta_v1_label_selector *s, struct arena *a,
	struct selector **ret, struct err *err); /* NULL s: selects nothing */
struct selector *selector_from_map(const struct str_map *m,
	struct arena *a); /* all pairs equal; empty map: nothing (RC semantics is the caller's) */
bool selector_matches(const struct selector *s, const struct str_map *labels);
void selector_format(const struct selector *s, struct buf *out);
/* Field selectors: k=v, k==v, k!=v joined by commas. */
struct field_term {
	struct str key, value;
	bool negate;
};
int selector_parse_fields(
	struct str text, struct arena *a, struct field_term **ret, size_t *ret_n, struct err *err);

/* ---- values: a JSON-like tree, for patches and whatever has no type. Not on the hot path. ---- */
enum value_kind {
	VALUE_NULL,
	VALUE_BOOL,
	VALUE_INT,
	VALUE_DOUBLE,
	VALUE_TEXT,
	VALUE_LIST,
	VALUE_OBJECT
};
struct value {
	enum value_kind kind;
	union {
		bool boolean;
		int64_t integer;
		double number;
		struct str text;
		struct {
			struct value *items;
			size_t len, cap;
		} list;
		struct {
			struct value_member *members;
			size_t len, cap;
		} object; /* in the order read */
	};
};
struct value_member {
	struct str key;
	struct value value;
};
struct value *value_get(const struct value *object, struct str key); /* NULL: none */
struct value *value_set(
	struct arena *a, struct value *object, struct str key); /* found or added (null) */
struct value *value_add_member(struct arena *a, struct value *object,
	struct str key); /* without looking whether it is there */
bool value_remove(struct value *object, struct str key);
struct value *value_append(struct arena *a, struct value *list);
struct value value_copy(struct arena *a, const struct value *v);
bool value_equal(const struct value *a, const struct value *b);

/* ---- patches: doc is changed in place (memory from a). > 0: PATCH_TEST_FAILED, PATCH_CONFLICT ---- */
enum { PATCH_TEST_FAILED = 1 };
int patch_json(struct value *doc, const struct value *ops, struct arena *a,
	struct err *err); /* RFC 6902 */
int patch_merge(struct value *doc, const struct value *patch, struct arena *a,
	struct err *err); /* RFC 7386 */
int patch_strategic(const struct type *t, struct value *doc, const struct value *patch,
	struct arena *a, struct err *err);

#endif
