/* The folder's own: libnftables, to be loaded with lazy_load(&nft_library, err) before it is called. */
#ifndef SKIFF_LINUX_NFT_LAZY_H
#define SKIFF_LINUX_NFT_LAZY_H

#include <nftables/libnftables.h>

#include "base/lazy.h"

extern struct lazy nft_library;

#endif
