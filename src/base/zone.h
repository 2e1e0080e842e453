/* Time zones by name, from the host's tz database (TZif files, RFC 9636). */
#ifndef SKIFF_BASE_ZONE_H
#define SKIFF_BASE_ZONE_H

#include "base/base.h"

struct zone;
/* A stretch of time [from, until) in which clocks are offset seconds ahead of UTC. */
struct zone_span {
	int64_t from, until;
	int32_t offset;
};
/* "Europe/Berlin"; UTC and Etc/UTC need no database. -ENOENT: there is none of that name, -EBADMSG: its file is damaged. */
int zone_load(struct str name, struct arena *a, const struct zone **ret, struct err *err);
int zone_parse(struct str bytes, struct arena *a, const struct zone **ret); /* -EBADMSG */
struct zone_span zone_at(const struct zone *z, int64_t t);

#endif
