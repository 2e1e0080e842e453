/* Defaults that the schema states. A default is filled where the field is not there; messages that are there, by value or by
 * pointer, and items of lists and maps are walked. Defaults that hang on other fields are code of registry's kinds. */
#include "model/internal.h"

/* "text" -> text. Defaults hold no escapes. */
static struct str unquote(const char *json)
{
	size_t n = strlen(json);

	return n >= 2 && *json == '"' ? str_n(json + 1, n - 2) : str_n(json, n);
}

static void set_text_list(struct str_list *l, const char *json, struct arena *a)
{
	struct str rest = str_n(json + 1, strlen(json) - 2), head;

	while (rest.len) {
		str_cut(rest, ',', &head, &rest);
		*(struct str *)model_list_add(a, l, sizeof(struct str)) =
			arena_str(a, str_n(head.p + 1, head.len - 2));
	}
}

static void set_int_or_str(struct int_or_str *v, const char *json, struct arena *a)
{
	if (*json == '"')
		*v = (struct int_or_str){ .kind = IOS_STR, .text = arena_str(a, unquote(json)) };
	else
		*v = (struct int_or_str){ .kind = IOS_INT, .num = atoi(json) };
}

static void set_pointer(const struct field *f, void *value, const char *json, struct arena *a)
{
	switch (f->kind) {
	case KIND_BOOL:
		*(struct opt_bool *)value = (struct opt_bool)SOME(*json == 't');
		break;
	case KIND_INT32:
		*(struct opt_int32 *)value = (struct opt_int32)SOME(atoi(json));
		break;
	case KIND_INT64:
	case KIND_DURATION:
		*(struct opt_int64 *)value = (struct opt_int64)SOME(atoll(json));
		break;
	case KIND_DOUBLE:
		*(struct opt_double *)value = (struct opt_double)SOME(strtod(json, NULL));
		break;
	case KIND_MESSAGE:
		*(void **)value = arena_alloc(a, f->type->size);
		break;
	case KIND_INT_OR_STRING:
		set_int_or_str(value, json, a);
		break;
	default:
		*(struct str *)value = arena_str(a, unquote(json));
	}
}

static void set_one(const struct field *f, void *value, const char *json, struct arena *a)
{
	switch (f->kind) {
	case KIND_BOOL:
		*(bool *)value = *json == 't';
		break;
	case KIND_INT32:
		*(int32_t *)value = atoi(json);
		break;
	case KIND_INT64:
		*(int64_t *)value = atoll(json);
		break;
	case KIND_INT_OR_STRING:
		set_int_or_str(value, json, a);
		break;
	case KIND_STRING:
	case KIND_QUANTITY:
		*(struct str *)value = arena_str(a, unquote(json));
		break;
	default:
		break; /* schemac lets no other through */
	}
}

static void default_items(const struct field *f, struct any_list *l, struct arena *a)
{
	size_t size = model_item_size(f);
	size_t at = f->shape == SHAPE_LIST ? 0 : MAP_VALUE_OFFSET;

	for (size_t i = 0; f->kind == KIND_MESSAGE && i < l->len; i++)
		model_default(f->type, l->items + i * size + at, a);
}

void model_default(const struct type *t, void *obj, struct arena *a)
{
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		void *value = (char *)obj + f->offset;
		const char *json = f->rule ? f->rule->default_json : NULL;

		if (json && model_field_is_zero(f, value)) {
			if (f->shape == SHAPE_LIST)
				set_text_list(value, json, a);
			else if (f->shape == SHAPE_PTR)
				set_pointer(f, value, json, a);
			else
				set_one(f, value, json, a);
		}
		if (f->shape >= SHAPE_LIST)
			default_items(f, value, a);
		else if (f->kind == KIND_MESSAGE && f->shape == SHAPE_ONE)
			model_default(f->type, value, a);
		else if (f->kind == KIND_MESSAGE && *(void **)value)
			model_default(f->type, *(void **)value, a);
	}
}
