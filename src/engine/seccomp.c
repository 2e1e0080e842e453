/* The seccomp profile called RuntimeDefault. */
#include "engine/internal.h"

const char *const seccomp_default_json = NULL;
