/* Programs that the kernel runs for each packet of a link: eBPF under the clsact queueing discipline, beside programs of others. A program and its maps
 * live as long as something refers to them: a descriptor, or the link that runs it. */
#include "linux/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PREFERENCE \
	65000 /* among the filters of a link: behind those of others, which so have their say on each packet */
#define HANDLE 1
#define LOG_SIZE 65536

static int bpf(int command, union bpf_attr *a)
{
	int r = (int)syscall(SYS_bpf, command, a, sizeof(*a));

	return r < 0 ? -errno : r;
}

int bpf_map_new(const struct bpf_map_spec *spec, int *ret_fd, struct err *err)
{
	union bpf_attr a = { .map_type = spec->type,
		.key_size = spec->key_size,
		.value_size = spec->value_size,
		.max_entries = spec->entries };

	snprintf(a.map_name, sizeof(a.map_name), "%s", spec->name);
	int r = bpf(BPF_MAP_CREATE, &a);
	if (r < 0)
		return err_errno(err, r, "cannot make the eBPF map %s", spec->name);
	*ret_fd = r;
	return 0;
}

/* The last line but the statistics: what the verifier refused. */
static struct str refusal(char *log)
{
	struct str last = STR_NONE, line, rest = str_of(log);

	while (str_cut(rest, '\n', &line, &rest))
		if (line.len && !str_has_prefix(line, STR("processed ")))
			last = line;
	return last;
}

int bpf_program_load(
	const struct bpf_insn *code, size_t n, const char *name, int *ret_fd, struct err *err)
{
	union bpf_attr a = { .prog_type = BPF_PROG_TYPE_SCHED_CLS,
		.insns = (uintptr_t)code,
		.insn_cnt = (uint32_t)n,
		.license = (uintptr_t) "GPL" };

	snprintf(a.prog_name, sizeof(a.prog_name), "%s", name);
	int r = bpf(BPF_PROG_LOAD, &a);
	if (r < 0) {
		CLEAN_FREE char *log = xcalloc(1, LOG_SIZE);

		a.log_buf = (uintptr_t)log;
		a.log_size = LOG_SIZE;
		a.log_level = 1;
		bpf(BPF_PROG_LOAD, &a);
		return err_errno(err, r,
			"the kernel does not take the eBPF program %s (" STR_FMT ")", name,
			STR_ARG(refusal(log)));
	}
	*ret_fd = r;
	return 0;
}

/* ---- on links ---- */

static struct tcmsg *tc_request(
	struct request *q, uint16_t type, uint16_t flags, int link, uint32_t parent)
{
	struct tcmsg *m = request_init(q, type, flags, sizeof(*m));

	m->tcm_family = AF_UNSPEC;
	m->tcm_ifindex = link;
	m->tcm_parent = parent;
	return m;
}

static uint32_t parent_of(enum link_side side)
{
	return TC_H_MAKE(TC_H_CLSACT, side == LINK_INGRESS ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
}

static struct tcmsg *filter_request(
	struct request *q, uint16_t type, uint16_t flags, int link, enum link_side side)
{
	struct tcmsg *m = tc_request(q, type, flags, link, parent_of(side));

	m->tcm_handle = HANDLE;
	m->tcm_info = TC_H_MAKE((uint32_t)PREFERENCE << 16, htons(ETH_P_IP));
	mnl_attr_put_strz(q->h, TCA_KIND, "bpf");
	return m;
}

static int put_filter(
	struct netlink *n, int link, enum link_side side, int program_fd, const char *name)
{
	struct request q;

	filter_request(&q, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, link, side);
	struct nlattr *options = mnl_attr_nest_start(q.h, TCA_OPTIONS);
	mnl_attr_put_u32(q.h, TCA_BPF_FD, (uint32_t)program_fd);
	mnl_attr_put_strz(q.h, TCA_BPF_NAME, name);
	mnl_attr_put_u32(q.h, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	mnl_attr_nest_end(q.h, options);
	return request_run(n, &q, NULL, NULL);
}

static int make_clsact(struct netlink *n, int link)
{
	struct request q;
	struct tcmsg *m =
		tc_request(&q, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, link, TC_H_CLSACT);

	m->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
	mnl_attr_put_strz(q.h, TCA_KIND, "clsact");
	return request_run(n, &q, NULL, NULL);
}

int link_program_set(struct netlink *n, int link, enum link_side side, int program_fd,
	const char *name, bool make, struct err *err)
{
	struct request q;
	int r = put_filter(n, link, side, program_fd, name);
	bool is_new = false;

	if (r == -EINVAL) { /* which is: there is no clsact */
		if (!make)
			return LINK_TAKES_NONE;
		r = make_clsact(n, link);
		is_new = r == 0;
		if (r < 0 && r != -EEXIST)
			return err_errno(
				err, r, "link %d takes no programs (module sch_ingress)", link);
		r = put_filter(n, link, side, program_fd, name);
	}
	if (r < 0 && is_new) {
		tc_request(&q, RTM_DELQDISC, 0, link, TC_H_CLSACT);
		request_run(n, &q, NULL, NULL);
	}
	return r < 0 ? err_errno(err, r, "cannot put the program %s on link %d (module cls_bpf)",
			       name, link)
		     : 0;
}

struct filters { /* of one side of a link */
	const char *name;
	bool ours;
	size_t others;
};

static int see_filter(const struct nlmsghdr *h, void *arg)
{
	const struct tcmsg *m = mnl_nlmsg_get_payload(h);
	struct filters *f = arg;
	const struct nlattr *attr, *in;
	bool ours = false;

	if (h->nlmsg_type != RTM_NEWTFILTER || !m->tcm_handle)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, h, sizeof(*m))
	{
		if (mnl_attr_get_type(attr) != TCA_OPTIONS)
			continue;
		mnl_attr_for_each_nested(in, attr) if (mnl_attr_get_type(in) == TCA_BPF_NAME) ours =
			!strcmp(mnl_attr_get_str(in), f->name);
	}
	ours &= m->tcm_info >> 16 == PREFERENCE && m->tcm_handle == HANDLE;
	f->ours |= ours;
	f->others += !ours;
	return MNL_CB_OK;
}

int link_programs_remove(
	struct netlink *n, int link, const char *const names[LINK_SIDES], struct err *err)
{
	size_t others = 0, removed = 0;
	struct request q;
	int r;

	for (int side = 0; side < LINK_SIDES; side++) {
		struct filters f = { .name = names[side] };

		tc_request(&q, RTM_GETTFILTER, NLM_F_DUMP, link, parent_of((enum link_side)side));
		r = request_run(n, &q, see_filter, &f);
		others += f.others;
		if (r < 0 || !f.ours)
			continue; /* no clsact here: nothing of ours */
		filter_request(&q, RTM_DELTFILTER, 0, link, (enum link_side)side);
		r = request_run(n, &q, NULL, NULL);
		if (r < 0 && r != -ENOENT && r != -ENODEV)
			return err_errno(err, r, "cannot take the program %s from link %d",
				names[side], link);
		removed++;
	}
	if (!removed || others)
		return 0;
	tc_request(&q, RTM_DELQDISC, 0, link, TC_H_CLSACT);
	mnl_attr_put_strz(q.h, TCA_KIND, "clsact");
	r = request_run(n, &q, NULL, NULL);
	/* -EINVAL: it is somebody's "ingress", which takes programs, too. */
	return r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL
		? err_errno(err, r, "cannot remove clsact from link %d", link)
		: 0;
}

/* ---- which links there are ---- */

struct link_walk {
	link_fn fn;
	void *arg;
};

static int walk_link(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	const struct link_walk *w = arg;

	if (h->nlmsg_type == RTM_NEWLINK)
		w->fn(w->arg, m->ifi_index, m->ifi_type == ARPHRD_ETHER);
	return MNL_CB_OK;
}

int link_each(struct netlink *n, link_fn fn, void *arg, struct err *err)
{
	struct link_walk w = { fn, arg };
	struct request q;

	link_request(&q, RTM_GETLINK, NLM_F_DUMP, 0);
	int r = request_run(n, &q, walk_link, &w);
	return r < 0 ? err_errno(err, r, "cannot list links") : 0;
}
