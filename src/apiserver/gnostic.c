/* Swagger 2.0 in gnostic's protobuf (openapi.v2), which older clients ask for: a JSON tree through tables of its messages. Only what
 * openapi_*.c makes is here. Source of the tags: github.com/google/gnostic-models, openapiv2/OpenAPIv2.proto. */
#include "apiserver/openapi.h"

enum put_kind {
	PUT_TEXT,
	PUT_BOOL,
	PUT_TEXTS,
	PUT_MESSAGE,
	PUT_WRAPPED, /* message in a field 1 of a message (ItemsItem, AdditionalPropertiesItem, SchemaItem) */
	PUT_TYPE,  /* TypeItem{1 repeated value} */
	PUT_NAMED, /* object: repeated 1 Named{1 name, 2 value} within a message */
	PUT_ANYS,  /* list: repeated Any */
	PUT_PARAMETERS,
	PUT_RESPONSES,
};
struct put_row {
	const char *key;
	unsigned tag;
	enum put_kind kind;
	const struct put_row *message;
};
#define EXTENSIONS(tag) \
	{ \
		NULL, tag \
	}

static const struct put_row schema_rows[] = {
	{ "$ref", 1, PUT_TEXT },
	{ "format", 2, PUT_TEXT },
	{ "description", 4, PUT_TEXT },
	{ "required", 19, PUT_TEXTS },
	{ "enum", 20, PUT_ANYS },
	{ "additionalProperties", 21, PUT_WRAPPED, schema_rows },
	{ "type", 22, PUT_TYPE },
	{ "items", 23, PUT_WRAPPED, schema_rows },
	{ "properties", 25, PUT_NAMED, schema_rows },
	EXTENSIONS(31),
};
static const struct put_row query_rows[] = {
	{ "required", 1, PUT_BOOL },
	{ "in", 2, PUT_TEXT },
	{ "description", 3, PUT_TEXT },
	{ "name", 4, PUT_TEXT },
	{ "type", 6, PUT_TEXT },
	{ NULL },
};
static const struct put_row path_rows[] = {
	{ "required", 1, PUT_BOOL },
	{ "in", 2, PUT_TEXT },
	{ "description", 3, PUT_TEXT },
	{ "name", 4, PUT_TEXT },
	{ "type", 5, PUT_TEXT },
	{ NULL },
};
static const struct put_row body_rows[] = {
	{ "description", 1, PUT_TEXT },
	{ "name", 2, PUT_TEXT },
	{ "in", 3, PUT_TEXT },
	{ "required", 4, PUT_BOOL },
	{ "schema", 5, PUT_MESSAGE, schema_rows },
	{ NULL },
};
static const struct put_row response_rows[] = {
	{ "description", 1, PUT_TEXT },
	{ "schema", 2, PUT_WRAPPED, schema_rows },
	{ NULL },
};
static const struct put_row operation_rows[] = {
	{ "description", 3, PUT_TEXT },
	{ "operationId", 5, PUT_TEXT },
	{ "produces", 6, PUT_TEXTS },
	{ "consumes", 7, PUT_TEXTS },
	{ "parameters", 8, PUT_PARAMETERS },
	{ "responses", 9, PUT_RESPONSES },
	EXTENSIONS(13),
};
static const struct put_row item_rows[] = {
	{ "get", 2, PUT_MESSAGE, operation_rows },
	{ "put", 3, PUT_MESSAGE, operation_rows },
	{ "post", 4, PUT_MESSAGE, operation_rows },
	{ "delete", 5, PUT_MESSAGE, operation_rows },
	{ "options", 6, PUT_MESSAGE, operation_rows },
	{ "head", 7, PUT_MESSAGE, operation_rows },
	{ "patch", 8, PUT_MESSAGE, operation_rows },
	{ "parameters", 9, PUT_PARAMETERS },
	{ NULL },
};

static void put_message(const struct put_row *rows, const struct value *v, struct buf *out);

/* Any{2 yaml}: JSON is YAML. */
static void put_any(const struct value *v, struct buf *out)
{
	CLEAN_BUF struct buf yaml = { 0 };
	json_write(v, &yaml);
	buf_addc(&yaml, '\n');
	proto_put_bytes(out, 2, buf_str(&yaml));
}

static void put_extension(unsigned tag, const struct value_member *m, struct buf *out)
{
	CLEAN_BUF struct buf any = { 0 }, named = { 0 };
	put_any(&m->value, &any);
	proto_put_bytes(&named, 1, m->key);
	proto_put_bytes(&named, 2, buf_str(&any));
	proto_put_bytes(out, tag, buf_str(&named));
}

/* ParametersItem{1 Parameter{1 body | 2 NonBody{3 query | 4 path}}} */
static void put_parameters(unsigned tag, const struct value *list, struct buf *out)
{
	for (size_t i = 0; i < list->list.len; i++) {
		const struct value *p = &list->list.items[i];
		CLEAN_BUF struct buf sub = { 0 }, non_body = { 0 }, param = { 0 }, item = { 0 };
		struct str in = value_get(p, STR("in"))->text;
		bool body = str_eqz(in, "body"), path = str_eqz(in, "path");
		put_message(body ? body_rows : path ? path_rows : query_rows, p, &sub);
		if (!body)
			proto_put_bytes(&non_body, path ? 4 : 3, buf_str(&sub));
		proto_put_bytes(&param, body ? 1 : 2, body ? buf_str(&sub) : buf_str(&non_body));
		proto_put_bytes(&item, 1, buf_str(&param));
		proto_put_bytes(out, tag, buf_str(&item));
	}
}

/* Responses{1 NamedResponseValue{1 name, 2 ResponseValue{1 response}}} */
static void put_responses(unsigned tag, const struct value *v, struct buf *out)
{
	CLEAN_BUF struct buf all = { 0 };
	for (size_t i = 0; i < v->object.len; i++) {
		CLEAN_BUF struct buf response = { 0 }, value = { 0 }, named = { 0 };
		put_message(response_rows, &v->object.members[i].value, &response);
		proto_put_bytes(&value, 1, buf_str(&response));
		proto_put_bytes(&named, 1, v->object.members[i].key);
		proto_put_bytes(&named, 2, buf_str(&value));
		proto_put_bytes(&all, 1, buf_str(&named));
	}
	proto_put_bytes(out, tag, buf_str(&all));
}

static void put_named(const struct put_row *row, const struct value *v, struct buf *out)
{
	CLEAN_BUF struct buf all = { 0 };
	for (size_t i = 0; i < v->object.len; i++) {
		CLEAN_BUF struct buf one = { 0 }, named = { 0 };
		put_message(row->message, &v->object.members[i].value, &one);
		proto_put_bytes(&named, 1, v->object.members[i].key);
		proto_put_bytes(&named, 2, buf_str(&one));
		proto_put_bytes(&all, 1, buf_str(&named));
	}
	proto_put_bytes(out, row->tag, buf_str(&all));
}

static void put_list(const struct put_row *row, const struct value *v, struct buf *out)
{
	for (size_t i = 0; i < v->list.len; i++) {
		CLEAN_BUF struct buf any = { 0 };
		if (row->kind == PUT_ANYS)
			put_any(&v->list.items[i], &any);
		proto_put_bytes(out, row->tag,
			row->kind == PUT_ANYS ? buf_str(&any) : v->list.items[i].text);
	}
}

static void put_row(const struct put_row *row, const struct value *v, struct buf *out)
{
	CLEAN_BUF struct buf one = { 0 }, wrapped = { 0 };
	switch (row->kind) {
	case PUT_TEXT:
		proto_put_bytes(out, row->tag, v->text);
		break;
	case PUT_BOOL:
		proto_put_varint(out, (uint64_t)row->tag << 3);
		proto_put_varint(out, v->boolean);
		break;
	case PUT_TEXTS:
	case PUT_ANYS:
		put_list(row, v, out);
		break;
	case PUT_MESSAGE:
		put_message(row->message, v, &one);
		proto_put_bytes(out, row->tag, buf_str(&one));
		break;
	case PUT_WRAPPED:
		put_message(row->message, v, &one);
		proto_put_bytes(&wrapped, 1, buf_str(&one));
		proto_put_bytes(out, row->tag, buf_str(&wrapped));
		break;
	case PUT_TYPE:
		proto_put_bytes(&wrapped, 1, v->text);
		proto_put_bytes(out, row->tag, buf_str(&wrapped));
		break;
	case PUT_NAMED:
		put_named(row, v, out);
		break;
	case PUT_PARAMETERS:
		put_parameters(row->tag, v, out);
		break;
	case PUT_RESPONSES:
		put_responses(row->tag, v, out);
		break;
	}
}

static void put_message(const struct put_row *rows, const struct value *v, struct buf *out)
{
	for (size_t i = 0; v->kind == VALUE_OBJECT && i < v->object.len; i++) {
		const struct value_member *m = &v->object.members[i];
		const struct put_row *row = rows;
		while (row->key && !str_eqz(m->key, row->key))
			row++;
		if (row->key)
			put_row(row, &m->value, out);
		else if (row->tag && str_has_prefix(m->key, STR("x-")))
			put_extension(row->tag, m, out);
	}
}

void gnostic_schema(const struct value *v, struct buf *out)
{
	put_message(schema_rows, v, out);
}

void gnostic_path_item(const struct value *v, struct buf *out)
{
	put_message(item_rows, v, out);
}
