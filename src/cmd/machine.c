/* What this machine is called and where it is reached. */
#include <arpa/inet.h>
#include <ctype.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"

/* The link of the default route, from the kernel's own table; empty when there is none. */
static void default_link(char out[IF_NAMESIZE])
{
	FILE *f = fopen("/proc/net/route", "re");
	char line[256], link[IF_NAMESIZE];
	unsigned destination, mask;

	out[0] = 0;
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%15s %x %*x %*x %*d %*d %*d %x", link, &destination, &mask) ==
				3 &&
			!destination && !mask) {
			strcpy(out, link);
			break;
		}
	fclose(f);
}

int machine_address(char out[64], struct err *err)
{
	char link[IF_NAMESIZE];
	struct ifaddrs *list, *best = NULL;

	default_link(link);
	if (getifaddrs(&list) < 0)
		return err_errno(err, -errno, "cannot read this machine's addresses");
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET ||
			(i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP))
			continue;
		if (!strncmp(i->ifa_name, "skiff", 5))
			continue;
		if (!strcmp(i->ifa_name, link)) {
			best = i;
			break;
		}
		if (!best)
			best = i;
	}
	if (best)
		inet_ntop(AF_INET, &((struct sockaddr_in *)best->ifa_addr)->sin_addr, out, 64);
	freeifaddrs(list);
	return best ? 0
		    : err_set(err, -EADDRNOTAVAIL,
			      "this machine has no IPv4 address beside loopback: give --node-ip");
}

int machine_name(char out[64], struct err *err)
{
	if (gethostname(out, 64) < 0 || !memchr(out, 0, 64))
		return err_set(err, -EINVAL,
			"this machine's host name cannot be a node's name: give --node-name");
	for (char *p = out; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return 0;
}
