// SPDX-License-Identifier: Apache-2.0
// Recursion without frame pointers.
// Truth: main → run → (even_level → odd_level) × DEPTH/2 → unit → hot 70 %, cold
// 30 %. DEPTH is the second argument, 50 by default. The two levels have frames
// of different sizes, so that a walk that guesses a frame size fails.
#include "unit.h"

static struct rng rng = { 88172645463325252ULL };

KEEP uint64_t odd_level(int depth);

KEEP uint64_t even_level(int depth)
{
	uint64_t r = depth > 1 ? odd_level(depth - 1) : unit(&rng);

	return r ^ (uint64_t)depth;
}

KEEP uint64_t odd_level(int depth)
{
	volatile uint64_t ballast[5];
	uint64_t r;

	ballast[depth % 5] = (uint64_t)depth;
	r = depth > 1 ? even_level(depth - 1) : unit(&rng);
	return r + ballast[depth % 5];
}

KEEP void run(int depth)
{
	while (!expired(deadline))
		truth_sink += even_level(depth);
}

KEEP int main(int argc, char **argv)
{
	int depth = argc > 2 ? atoi(argv[2]) : 50;
	char path[200];

	deadline = deadline_ns(argc, argv);
	run(depth);
	snprintf(path, sizeof(path),
		 "\"_start\",\"...\",\"main\",\"run\",\"(even_level odd_level)*%d\"%s",
		 depth / 2, depth % 2 ? ",\"even_level\"" : "");
	report_units(path, NULL);
	return 0;
}
