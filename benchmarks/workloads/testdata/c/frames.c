// SPDX-License-Identifier: Apache-2.0
// Large frames: offsets that fill 16 bits, and beyond 512 KiB do not fit them.
// Truth: main → run → large × 4 → huge → unit → hot 70 %, cold 30 %.
#include "unit.h"

#define LARGE (64 << 10)
#define HUGE (1 << 20)

static struct rng rng = { 88172645463325252ULL };

/* Writes to every page of the frame. */
static inline void touch(volatile char *p, size_t size)
{
	for (size_t i = 0; i < size; i += 4096)
		p[i] = (char)i;
}

KEEP uint64_t huge(void)
{
	volatile char room[HUGE];

	touch(room, sizeof(room));
	return unit(&rng) + (uint64_t)room[4096];
}

KEEP uint64_t large(int n)
{
	volatile char room[LARGE];

	touch(room, sizeof(room));
	return (n > 1 ? large(n - 1) : huge()) + (uint64_t)room[4096];
}

KEEP void run(void)
{
	while (!expired(deadline))
		truth_sink += large(4);
}

KEEP int main(int argc, char **argv)
{
	deadline = deadline_ns(argc, argv);
	run();
	report_units("\"_start\",\"...\",\"main\",\"run\",\"large*4\",\"huge\"", NULL);
	return 0;
}
