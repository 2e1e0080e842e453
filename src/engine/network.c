/* The pod network of one node: a veth pair for each sandbox, addresses from files, masquerading in one table of our own. Pods share no link: the host's
 * end of each pair has the gateway's address and a route to the one pod, so that all that pods send passes the host's IP layer, services and policies.
 * A bridge without ports has the gateway's address and range too: what is sent to addresses that no pod has ends there.
 * 1. An address belongs to a sandbox while the file addresses/IP is there. The next one is sought after the one given last, so that an address rests
 *    as long as the range allows.
 * 2. All that carries a pod's name in the host's network is called skv and the first 12 digits of the sandbox's id. */
#include "engine/cni.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#define TABLE "skiff_engine"
#define LAST ".last"

int cidr_parse(const char *text, uint32_t *ret_ip, int *ret_prefix, struct err *err)
{
	struct str ip, prefix;
	struct in_addr addr;
	char z[INET_ADDRSTRLEN];
	int64_t n;

	if (strchr(text, ':'))
		return err_set(err, -EINVAL,
			"the address range %s is of IPv6, which pods do not get yet: give one such as 10.42.0.0/24",
			text);
	if (!str_cut(str_of(text), '/', &ip, &prefix) || ip.len >= sizeof(z) ||
		str_to_i64(prefix, &n) < 0 || n < 0 || n > 32)
		return err_set(
			err, -EINVAL, "\"%s\" is no address range such as 10.42.0.0/24", text);
	memcpy(z, ip.p, ip.len);
	z[ip.len] = '\0';
	if (inet_pton(AF_INET, z, &addr) != 1)
		return err_set(
			err, -EINVAL, "\"%s\" is no address range such as 10.42.0.0/24", text);
	*ret_ip = ntohl(addr.s_addr) & (n ? ~(uint32_t)0 << (32 - n) : 0);
	*ret_prefix = (int)n;
	return 0;
}

static void ip_text(uint32_t ip, char ret[INET_ADDRSTRLEN])
{
	ip = htonl(ip);
	inet_ntop(AF_INET, &ip, ret, INET_ADDRSTRLEN);
}

/* 0a:58 and the address: stable, locally administered. */
static void mac_of(uint32_t ip, uint8_t ret[6])
{
	ip = htonl(ip);
	ret[0] = 0x0a;
	ret[1] = 0x58;
	memcpy(ret + 2, &ip, 4);
}

static void link_name(const struct sandbox *s, char ret[16])
{
	snprintf(ret, 16, "skv%.12s", s->id);
}

/* ---- addresses ---- */
static void address_path(const struct local *l, const char *name, char ret[PATH_MAX])
{
	path_fmt(ret, "%s/addresses/%s", l->root, name);
}

static uint32_t last_address(const struct local *l)
{
	CLEAN_BUF struct buf text = { 0 };
	char path[PATH_MAX];
	struct in_addr a;

	address_path(l, LAST, path);
	if (file_read(path, 64, &text, NULL) < 0 || inet_pton(AF_INET, text.p, &a) != 1)
		return 0;
	return ntohl(a.s_addr);
}

/* One try: 0 taken, -EEXIST in use. */
static int claim(const struct local *l, const char *ip, const char *sandbox_id, struct err *err)
{
	char path[PATH_MAX];

	address_path(l, ip, path);
	CLEAN_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return -EEXIST;
	if (fd < 0 || write(fd, sandbox_id, strlen(sandbox_id)) < 0)
		return err_errno(err, -errno, "cannot write %s", path);
	address_path(l, LAST, path);
	return file_write_atomic(path, str_of(ip), 0600, false, err);
}

static int take_locked(struct local *l, const char *sandbox_id, uint32_t *ret_ip, struct err *err)
{
	uint32_t hosts = (uint32_t)1 << (32 - l->net_prefix), last = last_address(l);
	char ip[INET_ADDRSTRLEN];

	if (last < l->net_ip || last - l->net_ip >= hosts)
		last = l->net_gateway;
	for (uint32_t i = 1; i <= hosts; i++) {
		uint32_t at = l->net_ip + (last - l->net_ip + i) % hosts;
		if (at == l->net_ip || at == l->net_gateway || at == l->net_ip + hosts - 1)
			continue;
		ip_text(at, ip);
		int r = claim(l, ip, sandbox_id, err);
		if (r == -EEXIST)
			continue;
		if (r == 0)
			*ret_ip = at;
		return r;
	}
	ip_text(l->net_ip, ip);
	return err_set(err, -EADDRNOTAVAIL, "no free address for a pod is left in %s/%d", ip,
		l->net_prefix);
}

int address_take(struct local *l, const char *sandbox_id, uint32_t *ret_ip, struct err *err)
{
	if (!l->net_prefix)
		return err_set(err, -ENETUNREACH,
			"this node has no pod address range yet (spec.podCIDR), so only host-network pods can run");
	pthread_mutex_lock(&l->network_lock);
	int r = take_locked(l, sandbox_id, ret_ip, err);
	pthread_mutex_unlock(&l->network_lock);
	return r;
}

/* All addresses of a sandbox: one that crashed half-way may have one that its record does not know. */
int address_release(struct local *l, const char *sandbox_id, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/addresses", l->root);
	DIR *d = opendir(path);
	if (!d)
		return err_errno(err, -errno, "cannot open %s", path);
	for (struct dirent *e; (e = readdir(d));) {
		CLEAN_BUF struct buf owner = { 0 };
		if (e->d_name[0] == '.')
			continue;
		address_path(l, e->d_name, path);
		/* An empty file is a claim that died before its first byte. */
		if (file_read(path, 64, &owner, NULL) == 0 &&
			(str_eqz(buf_str(&owner), sandbox_id) || !owner.len))
			unlink(path);
	}
	closedir(d);
	return 0;
}

/* ---- the node's side ---- */
static int find_mtu(struct local *l)
{
	char name[16];
	int index, mtu;
	uint32_t source;

	if (route_default_link(l->netlink, &index, &source) == 0 &&
		link_name_mtu(l->netlink, index, name, &mtu, NULL) == 0)
		return mtu;
	return 1500;
}

static int masquerade(struct local *l, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	char pods[INET_ADDRSTRLEN];

	ip_text(l->net_ip, pods);
	/* Adding first makes deleting safe; all of it is one transaction. */
	buf_addf(&text,
		"add table ip " TABLE "\ndelete table ip " TABLE "\ntable ip " TABLE " {\n"
		"\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
	if (l->cluster_cidr)
		buf_addf(&text, "\t\tip saddr %s/%d ip daddr %s return\n", pods, l->net_prefix,
			l->cluster_cidr);
	buf_addf(&text, "\t\tip saddr %s/%d ip daddr %s/%d return\n", pods, l->net_prefix, pods,
		l->net_prefix);
	buf_addf(&text, "\t\tip saddr %s/%d ip daddr 224.0.0.0/4 return\n", pods, l->net_prefix);
	buf_addf(
		&text, "\t\tip saddr %s/%d masquerade fully-random\n\t}\n}\n", pods, l->net_prefix);
	return nft_apply(text.p, err);
}

int network_restore(struct local *l, struct err *err)
{
	CLEAN_BUF struct buf now = { 0 };
	int r = 0;

	pthread_mutex_lock(&l->network_lock);
	if (l->net_prefix && nft_read("list table ip " TABLE, false, &now, NULL) == -ENOENT)
		r = masquerade(l, err);
	pthread_mutex_unlock(&l->network_lock);
	return r;
}

int network_setup(struct local *l, struct err *err)
{
	uint8_t mac[6];
	int r = sysctl_set("net.ipv4.ip_forward", "1", err);

	if (r < 0)
		return r;
	if (!l->mtu)
		l->mtu = find_mtu(l);
	mac_of(l->net_gateway, mac);
	if ((r = link_add_bridge(l->netlink, l->bridge, l->mtu, mac, err)) < 0 ||
		(r = address_add(
			 l->netlink, l->bridge, htonl(l->net_gateway), l->net_prefix, err)) < 0 ||
		(r = link_set_up(l->netlink, l->bridge, err)) < 0)
		return r;
	return masquerade(l, err);
}

/* ---- a sandbox's side ---- */
int network_attach(struct local *l, struct sandbox *s, struct err *err)
{
	struct netlink *n = NULL;
	char host[16];
	struct in_addr ip;
	uint8_t mac[6];
	int r = netlink_open(&n, err);

	if (r < 0)
		return r;
	if (l->cni) {
		r = link_set_up(n, "lo", err);
		netlink_close(n);
		return r;
	}
	inet_pton(AF_INET, s->ip, &ip);
	mac_of(ntohl(ip.s_addr), mac);
	link_name(s, host);
	struct link_veth v = { .name = "eth0",
		.peer = host,
		.peer_netns_fd = l->host_netns_fd,
		.mtu = l->mtu,
		.mac = mac };
	if ((r = link_set_up(n, "lo", err)) == 0 && (r = link_add_veth(n, &v, err)) == 0 &&
		(r = address_add(n, "eth0", ip.s_addr, 32, err)) == 0 &&
		(r = link_set_up(n, "eth0", err)) == 0 &&
		(r = route_set(n, htonl(l->net_gateway), 32, 0, "eth0", err)) == 0)
		r = route_set(n, 0, 0, htonl(l->net_gateway), "eth0", err);
	netlink_close(n);
	return r;
}

int network_connect(struct local *l, const struct sandbox *s, struct err *err)
{
	char host[16], filter[64];
	struct in_addr ip;

	inet_pton(AF_INET, s->ip, &ip);
	link_name(s, host);
	snprintf(filter, sizeof(filter), "net/ipv4/conf/%s/rp_filter", host);
	if (l->link_made)
		l->link_made(l->link_made_arg, host);
	pthread_mutex_lock(&l->network_lock);
	int r = address_add(l->netlink, host, htonl(l->net_gateway), 32, err);
	/* Policies know pods by their addresses: only what a pod's own route leads back to may come from it. */
	if (r == 0)
		r = sysctl_set(filter, "1", err);
	if (r == 0)
		r = link_set_up(l->netlink, host, err);
	if (r == 0)
		r = route_set(l->netlink, ip.s_addr, 32, 0, host, err);
	pthread_mutex_unlock(&l->network_lock);
	return r;
}

int network_detach(struct local *l, const struct sandbox *s, struct err *err)
{
	char host[16];
	int r = cni_del(l, s, err);

	if (r < 0)
		return r;
	link_name(s, host);
	pthread_mutex_lock(&l->network_lock);
	r = link_delete(l->netlink, host, err);
	if (r == 0)
		r = address_release(l, s->id, err);
	pthread_mutex_unlock(&l->network_lock);
	return r;
}
