/* The rows of kinds that need more than the schema says. A new kind is a line here and a file beside this one. */
#include "registry/kinds/kinds.h"

static const struct kind *const kinds[] = {
	&namespace_kind,
};

const struct kind *kind_of(struct str group_resource)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (str_eqz(group_resource, kinds[i]->resource))
			return kinds[i];
	return NULL;
}
