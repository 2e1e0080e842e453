/* The table of controllers (table.h). */
#include "controllers/table.h"

#define CONTROLLER_ROW(c) &c,
const struct controller *const controller_rows[N_CONTROLLERS] = { CONTROLLERS(CONTROLLER_ROW) };
