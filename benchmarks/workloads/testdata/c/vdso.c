// SPDX-License-Identifier: Apache-2.0
// Reads the clock in a loop: most samples are in the vDSO, code the kernel maps
// that is in no file.
// Truth: main → run → unit_clock → clock_loop → clock_gettime in libc → vDSO,
// about 70 % of the CPU at or below clock_loop; the rest in cold. Where the clock
// source cannot be read from user space (not tsc, kvm-clock, arch_sys_counter)
// the vDSO calls the kernel, and the chain holds all the same.
#include "truth.h"

#define READS 20000

static struct truth parts[] = { { "clock_loop", 1, 0, 0 }, { "cold", 0, 0, 0 } };
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };

BURNER(cold, 0xbf58476d1ce4e5b9ULL)

KEEP uint64_t clock_loop(void)
{
	struct timespec t;
	uint64_t x = 0;

	for (int i = 0; i < READS; i++) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		x += (uint64_t)t.tv_nsec;
	}
	return x;
}

KEEP uint64_t unit_clock(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = 0, used;

	do {
		x += clock_loop();
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[0], used);
	return x;
}

KEEP uint64_t unit_cold(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = cold(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[1], used);
	return x;
}

KEEP void run(void)
{
	while (!expired(deadline))
		truth_sink += unit_is_hot(&rng) ? unit_clock() : unit_cold();
}

KEEP int main(int argc, char **argv)
{
	deadline = deadline_ns(argc, argv);
	run();
	parts[0].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_clock\",\"clock_loop\",\"...\"]";
	parts[1].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_cold\",\"cold\"]";
	report(parts, 2,
	       "[[\"_start\",\"...\",\"main\",\"run\",\"unit_clock\",\"clock_loop\",\"?@libc.so.6\",\"?@[vdso]\",\"...\"]]");
	return 0;
}
