// SPDX-License-Identifier: Apache-2.0
/*
 * Uses CPU time until it has used as many milliseconds since it was forked as the
 * first argument says, in young_leaf below young_middle and young_outer, and ends.
 */
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

static __attribute__((noinline)) void young_leaf(void)
{
	for (unsigned long i = 0; i < 20000; i++)
		sink += i * i;
}

static __attribute__((noinline)) void young_middle(void)
{
	young_leaf();
	sink++;
}

static __attribute__((noinline)) void young_outer(long ns)
{
	struct timespec used;

	do {
		young_middle();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	} while (used.tv_sec * 1000000000L + used.tv_nsec < ns);
	sink++;
}

int main(int argc, char **argv)
{
	young_outer(argc > 1 ? atol(argv[1]) * 1000000L : 0);
	return 0;
}
