/* Status: one row a reason, and the sentences that clients know. Upstream: apimachinery's api/errors. */
#include "registry/registry.h"

struct reason_row {
	const char *text;
	int code;
};
/* clang-format off */
static const struct reason_row reasons[REASON_COUNT] = {
	[REASON_NONE]                   = { "", 500 },
	[REASON_BAD_REQUEST]            = { "BadRequest", 400 },
	[REASON_UNAUTHORIZED]           = { "Unauthorized", 401 },
	[REASON_FORBIDDEN]              = { "Forbidden", 403 },
	[REASON_NOT_FOUND]              = { "NotFound", 404 },
	[REASON_ALREADY_EXISTS]         = { "AlreadyExists", 409 },
	[REASON_CONFLICT]               = { "Conflict", 409 },
	[REASON_GONE]                   = { "Gone", 410 },
	[REASON_EXPIRED]                = { "Expired", 410 },
	[REASON_INVALID]                = { "Invalid", 422 },
	[REASON_METHOD_NOT_ALLOWED]     = { "MethodNotAllowed", 405 },
	[REASON_NOT_ACCEPTABLE]         = { "NotAcceptable", 406 },
	[REASON_TOO_LARGE]              = { "RequestEntityTooLarge", 413 },
	[REASON_UNSUPPORTED_MEDIA_TYPE] = { "UnsupportedMediaType", 415 },
	[REASON_TOO_MANY_REQUESTS]      = { "TooManyRequests", 429 },
	[REASON_INTERNAL]               = { "InternalError", 500 },
	[REASON_SERVER_TIMEOUT]         = { "ServerTimeout", 500 },
	[REASON_TIMEOUT]                = { "Timeout", 504 },
	[REASON_SERVICE_UNAVAILABLE]    = { "ServiceUnavailable", 503 },
	[REASON_NOT_IMPLEMENTED]        = { "NotImplemented", 501 },
};
/* clang-format on */

int status_code(enum status_reason reason)
{
	return reasons[reason].code;
}

static struct meta_v1_status *make(struct arena *a, enum status_reason reason, struct str message)
{
	struct meta_v1_status *s = arena_alloc(a, sizeof(*s));
	s->api_version = STR("v1");
	s->kind = STR("Status");
	s->status = STR("Failure");
	s->reason = str_of(reasons[reason].text);
	s->code = reasons[reason].code;
	s->message = message;
	return s;
}

struct meta_v1_status *status_new(struct arena *a, enum status_reason reason, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct str text = arena_vfmt(a, fmt, ap);
	va_end(ap);
	return make(a, reason, text);
}

static void set_details(struct arena *a, struct meta_v1_status *s, struct str group,
	struct str kind, struct str name)
{
	s->details = arena_alloc(a, sizeof(*s->details));
	s->details->group = group;
	s->details->kind = kind;
	s->details->name = arena_str(a, name);
}

struct meta_v1_status *status_not_found(struct arena *a, const struct resource *r, struct str name)
{
	struct meta_v1_status *s = status_new(a, REASON_NOT_FOUND,
		STR_FMT " \"" STR_FMT "\" not found", STR_ARG(r->group_resource), STR_ARG(name));
	set_details(a, s, r->group, r->plural, name);
	return s;
}

struct meta_v1_status *status_already_exists(
	struct arena *a, const struct resource *r, struct str name)
{
	struct meta_v1_status *s =
		status_new(a, REASON_ALREADY_EXISTS, STR_FMT " \"" STR_FMT "\" already exists",
			STR_ARG(r->group_resource), STR_ARG(name));
	set_details(a, s, r->group, r->plural, name);
	return s;
}

struct meta_v1_status *status_conflict(
	struct arena *a, const struct resource *r, struct str name, const char *why)
{
	struct meta_v1_status *s = status_new(a, REASON_CONFLICT,
		"Operation cannot be fulfilled on " STR_FMT " \"" STR_FMT "\": %s",
		STR_ARG(r->group_resource), STR_ARG(name),
		why ? why
		    : "the object has been modified; please apply your changes to the latest version and try again");
	set_details(a, s, r->group, r->plural, name);
	return s;
}

/* One cause as it is, several as Go prints a list: [a, b]; the same sentence twice is said once. */
static struct str join_causes(struct arena *a, const struct causes *cs)
{
	CLEAN_BUF struct buf b = { 0 };
	size_t said = 0;
	for (size_t i = 0; i < cs->len; i++) {
		bool again = false;
		for (size_t k = 0; k < i && !again; k++)
			again = str_eq(cs->items[k].field, cs->items[i].field) &&
				str_eq(cs->items[k].message, cs->items[i].message);
		if (again)
			continue;
		if (said++ > 0)
			buf_addz(&b, ", ");
		buf_addf(&b, STR_FMT ": " STR_FMT, STR_ARG(cs->items[i].field),
			STR_ARG(cs->items[i].message));
	}
	return said > 1 ? arena_fmt(a, "[" STR_FMT "]", STR_ARG(buf_str(&b)))
			: arena_str(a, buf_str(&b));
}

struct meta_v1_status *status_invalid(
	struct arena *a, const struct resource *r, struct str name, const struct causes *causes)
{
	struct str qualified = r->group.len
		? arena_fmt(a, STR_FMT "." STR_FMT, STR_ARG(r->kind_name), STR_ARG(r->group))
		: r->kind_name;
	struct str joined = join_causes(a, causes);
	struct meta_v1_status *s =
		status_new(a, REASON_INVALID, STR_FMT " \"" STR_FMT "\" is invalid: " STR_FMT,
			STR_ARG(qualified), STR_ARG(name), STR_ARG(joined));
	set_details(a, s, r->group, r->kind_name, name);
	for (size_t i = 0; i < causes->len; i++) {
		struct meta_v1_status_cause *c = LIST_ADD(a, &s->details->causes);
		c->reason = str_of(cause_reason_text(causes->items[i].reason));
		c->message = causes->items[i].message;
		c->field = causes->items[i].field;
	}
	return s;
}

struct meta_v1_status *status_forbidden(
	struct arena *a, const struct resource *r, struct str name, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct str why = arena_vfmt(a, fmt, ap);
	va_end(ap);
	struct meta_v1_status *s = name.len
		? status_new(a, REASON_FORBIDDEN, STR_FMT " \"" STR_FMT "\" is forbidden: " STR_FMT,
			  STR_ARG(r->group_resource), STR_ARG(name), STR_ARG(why))
		: status_new(a, REASON_FORBIDDEN, STR_FMT " is forbidden: " STR_FMT,
			  STR_ARG(r->group_resource), STR_ARG(why));
	set_details(a, s, r->group, r->plural, name);
	return s;
}

struct meta_v1_status *status_success(
	struct arena *a, const struct resource *r, struct str name, struct str uid)
{
	struct meta_v1_status *s = make(a, REASON_NONE, STR_NONE);
	s->status = STR("Success");
	s->code = 0;
	set_details(a, s, r->group, r->plural, name);
	s->details->uid = arena_str(a, uid);
	return s;
}
