/* libnftables on first use: it brings six libraries, and only the proxy's rules and the pod network's need it. */
#include "base/lazy.h"
#include "linux/nft_lazy.h"

struct lazy nft_library = { "libnftables.so.1", "libnftables1", NULL };

/* clang-format off */
LAZY(&nft_library, struct nft_ctx *, nft_ctx_new, (uint32_t flags), (flags))
LAZY(&nft_library, void, nft_ctx_free, (struct nft_ctx *ctx), (ctx))
LAZY(&nft_library, int, nft_ctx_buffer_output, (struct nft_ctx *ctx), (ctx))
LAZY(&nft_library, int, nft_ctx_buffer_error, (struct nft_ctx *ctx), (ctx))
LAZY(&nft_library, const char *, nft_ctx_get_output_buffer, (struct nft_ctx *ctx), (ctx))
LAZY(&nft_library, const char *, nft_ctx_get_error_buffer, (struct nft_ctx *ctx), (ctx))
LAZY(&nft_library, void, nft_ctx_output_set_flags, (struct nft_ctx *ctx, unsigned int flags), (ctx, flags))
LAZY(&nft_library, int, nft_run_cmd_from_buffer, (struct nft_ctx *nft, const char *buf), (nft, buf))
/* clang-format on */
