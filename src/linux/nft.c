/* nftables through libnftables: a text of commands is one transaction. */
#include "linux/linux.h"

#include <pthread.h>

#include "linux/nft_lazy.h"

/* The library keeps more to itself than its contexts show: one call at a time. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void ctx_freep(struct nft_ctx **c)
{
	if (*c)
		nft_ctx_free(*c);
}

static int run_locked(const char *text, bool json, struct buf *out, struct err *err)
{
	int r = lazy_load(&nft_library, err);
	CLEANUP(ctx_freep) struct nft_ctx *c = r == 0 ? nft_ctx_new(NFT_CTX_DEFAULT) : NULL;

	if (r < 0)
		return r;
	if (!c || nft_ctx_buffer_output(c) || nft_ctx_buffer_error(c))
		return err_set(err, -ENOMEM, "cannot start libnftables");
	if (json)
		nft_ctx_output_set_flags(c, NFT_CTX_OUTPUT_JSON);
	if (nft_run_cmd_from_buffer(c, text)) {
		struct str message = str_of(nft_ctx_get_error_buffer(c)), line, rest;
		bool missing = str_find_str(message, STR("No such file or directory")) >= 0;
		str_cut(message, '\n', &line, &rest);
		return err_set(err, missing ? -ENOENT : -EINVAL,
			"nftables refused a batch: " STR_FMT, STR_ARG(line));
	}
	if (out)
		buf_addz(out, nft_ctx_get_output_buffer(c));
	return 0;
}

static int run(const char *text, bool json, struct buf *out, struct err *err)
{
	pthread_mutex_lock(&one_at_a_time);
	int r = run_locked(text, json, out, err);
	pthread_mutex_unlock(&one_at_a_time);
	return r;
}

int nft_apply(const char *text, struct err *err)
{
	return run(text, false, NULL, err);
}

int nft_read(const char *command, bool json, struct buf *ret, struct err *err)
{
	return run(command, json, ret, err);
}
