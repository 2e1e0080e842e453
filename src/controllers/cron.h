/* Schedules as cron writes them: five fields (minute hour day-of-month month day-of-week) or @hourly and its like. In UTC unless a zone is given:
 * then a moment is due when that zone's clocks say so: what they leap over is not run, what they say twice is run twice. */
#ifndef SKIFF_CONTROLLERS_CRON_H
#define SKIFF_CONTROLLERS_CRON_H

#include "base/base.h"
#include "base/zone.h"

struct cron {
	uint64_t minutes;
	uint32_t hours, days, months,
		weekdays; /* bit sets; days from 1, months from 1, weekdays from 0 = Sunday */
	bool any_day, any_weekday; /* written as * or ?: then the other one decides */
	int64_t every_s;           /* @every; 0: by the sets */
	const struct zone *zone;   /* NULL: UTC; the caller sets it behind cron_parse */
};
int cron_parse(struct str text, struct cron *ret, struct err *err); /* -EINVAL: says which field */
/* Seconds since 1970 of the first moment after `after`, or of the last one in (after, until]. 0: none within five years. */
int64_t cron_next(const struct cron *c, int64_t after);
int64_t cron_last(const struct cron *c, int64_t after, int64_t until);

#endif
