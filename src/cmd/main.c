/* skiff: a whole Kubernetes-compatible cluster in one program. */
#include <stdio.h>

#include "cmd/cmd.h"
#include "cmd/snapshot.h"

static int cmd_version(int argc, char **argv)
{
	puts("skiff " SKIFF_VERSION);
	return 0;
}

/* clang-format off */
static const struct command commands[] = {
	{ "server",        cmd_server,        "run the control plane, and an agent beside it, on this machine" },
	{ "agent",         cmd_agent,         "run the node agent: kubelet, engine, proxy, dns" },
	{ "status",        cmd_status,        "one page on the cluster's health; exit 0 healthy, 1 degraded, 2 down" },
	{ "why",           cmd_why,           "one page on why a pod is, or is not, running" },
	{ "image",         cmd_image,         "import, list and remove images of this node" },
	{ "convert",       cmd_convert,       "turn an object into json, yaml or protobuf" },
	{ "snapshot",      cmd_snapshot,      "save a cluster into one file, check it, restore it" },
	{ "token",         cmd_token,         "make, list and delete tokens with which machines join" },
	{ "store",         cmd_migrate,       "copy everything from one store into another: sqlite, etcd" },
	{ "uninstall",     cmd_uninstall,     "remove everything that skiff made on this machine" },
	{ "version",       cmd_version,       "print the version" },
	{ "control-plane", cmd_control_plane, NULL },
};
/* clang-format on */

static void usage(FILE *f)
{
	fputs("skiff - a whole Kubernetes-compatible cluster in one program\n\n"
	      "usage: skiff COMMAND [FLAGS]      skiff COMMAND --help shows a command's flags\n\n",
		f);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (commands[i].summary)
			fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].summary);
}

int main(int argc, char **argv)
{
	handover_begin(argv);
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version"))
		return cmd_version(0, NULL);
	fprintf(stderr, "skiff: there is no command \"%s\"; `skiff help` lists them\n", argv[1]);
	return 2;
}
