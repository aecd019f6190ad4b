// SPDX-License-Identifier: Apache-2.0
// A shared library's small function called in a loop, so that samples land in the
// PLT entry and in the callee's first instructions, where a stack is easily
// walked wrong.
// Truth: main → run → unit_calls → call_many → (PLT) → lib_step in libstep.so;
// about 70 % of the CPU is at or below call_many, the rest in cold.
// Built with lazy binding, with -z now, and with -fcf-protection (.plt.sec).
#include "truth.h"

uint64_t lib_step(uint64_t x); // libstep.c

static struct truth parts[] = { { "call_many", 1, 0, 0 }, { "cold", 0, 0, 0 } };
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };

BURNER(cold, 0xbf58476d1ce4e5b9ULL)

KEEP uint64_t call_many(uint64_t n, uint64_t x)
{
	for (uint64_t i = 0; i < n; i++)
		x ^= lib_step(x + i);
	return x;
}

KEEP uint64_t unit_calls(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = call_many(CHUNK, x);
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
		truth_sink += unit_is_hot(&rng) ? unit_calls() : unit_cold();
}

KEEP int main(int argc, char **argv)
{
	deadline = deadline_ns(argc, argv);
	run();
	parts[0].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_calls\",\"call_many\",\"...\"]";
	parts[1].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_cold\",\"cold\"]";
	report(parts, 2,
	       "[[\"_start\",\"...\",\"main\",\"run\",\"unit_calls\",\"call_many\",\"lib_step@libstep.so\"]]");
	return 0;
}
