/* Packets of the cluster's DNS carry no signatures (TSIG), so nothing here makes or checks one. The parser of libknot, which is linked in,
 * refers to these functions of libdnssec; having them here keeps gnutls and its seven libraries out of the process. A query that is signed
 * meets an unknown algorithm. */
#include "base/base.h"

#include <libdnssec/error.h>
#include <libdnssec/tsig.h>

dnssec_tsig_algorithm_t dnssec_tsig_algorithm_from_dname(const uint8_t *dname)
{
	return DNSSEC_TSIG_UNKNOWN;
}

const uint8_t *dnssec_tsig_algorithm_to_dname(dnssec_tsig_algorithm_t algorithm)
{
	return NULL;
}

size_t dnssec_tsig_algorithm_size(dnssec_tsig_algorithm_t algorithm)
{
	return 0;
}

int dnssec_tsig_new(
	dnssec_tsig_ctx_t **ctx, dnssec_tsig_algorithm_t algorithm, const dnssec_binary_t *key)
{
	return DNSSEC_NOT_IMPLEMENTED_ERROR;
}

void dnssec_tsig_free(dnssec_tsig_ctx_t *ctx) {}

int dnssec_tsig_add(dnssec_tsig_ctx_t *ctx, const dnssec_binary_t *data)
{
	return DNSSEC_NOT_IMPLEMENTED_ERROR;
}

size_t dnssec_tsig_size(dnssec_tsig_ctx_t *ctx)
{
	return 0;
}

int dnssec_tsig_write(dnssec_tsig_ctx_t *ctx, uint8_t *mac)
{
	return DNSSEC_NOT_IMPLEMENTED_ERROR;
}
