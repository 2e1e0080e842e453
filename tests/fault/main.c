/* The store's fault tests. Usage: fault-store kill|nth|rot|full [NUMBER [SEED]] */
#include <stdio.h>

#include "world.h"

static const struct {
	const char *name;
	int (*run)(int number, unsigned seed);
	int number;
} tests[] = {
	{ "kill", test_kill, 250 }, /* kills */
	{ "nth", test_nth, 24 },    /* writes of which each one's I/O fails */
	{ "rot", test_rot, 1000 },  /* flipped bits for each file */
	{ "full", test_full, 0 },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; argc > 1 && i < ARRAY_LEN(tests); i++) {
		if (strcmp(tests[i].name, argv[1]) != 0)
			continue;
		int number = argc > 2 ? atoi(argv[2]) : tests[i].number;
		unsigned seed =
			argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : (unsigned)getpid();
		printf("%s: seed %u\n", argv[1], seed);
		int errors = tests[i].run(number, seed);
		printf("%s store-%s\n", errors ? "not ok" : "ok", argv[1]);
		return errors ? 1 : 0;
	}
	fprintf(stderr, "usage: fault-store kill|nth|rot|full [NUMBER [SEED]]\n");
	return 2;
}
