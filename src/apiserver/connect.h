/* What kubelet.c and proxy.c share. */
#ifndef SKIFF_APISERVER_CONNECT_H
#define SKIFF_APISERVER_CONNECT_H

#include "apiserver/internal.h"

bool connect_refuse(struct request *q, const char *fmt, ...)
	PRINTF_LIKE(2, 3);                                            /* 400; always true */
struct http_client *connect_node(struct request *q, struct str name); /* NULL: answered */
bool connect_pod_proxy(struct request *q);
bool connect_service_proxy(struct request *q);
bool connect_node_proxy(struct request *q);
/* Makes links in HTML that lead to the root of host:port begin with prefix; see links.c. */
struct http_rewrite links_rewrite(struct str prefix, struct str host, int port);

#endif
