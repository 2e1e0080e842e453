/* What the files of io share. */
#ifndef SKIFF_IO_INTERNAL_H
#define SKIFF_IO_INTERNAL_H

#include <uv.h>

#include "io/io.h"

#define THREAD_STACK (256 * 1024)

#endif
