// SPDX-License-Identifier: Apache-2.0
// Frames whose size is not known at compile time, in code without frame
// pointers: alloca and a VLA make the compiler keep one in rbp for this function
// alone, and a local aligned to 64 bytes beside a VLA makes it realign the stack
// with the old stack pointer saved in memory (GCC's DRAP: the CFA is an
// expression that dereferences).
// Truth: main → run → with_alloca → plain → with_vla → aligned → unit → hot
// 70 %, cold 30 %.
#include <alloca.h>
#include <string.h>

#include "unit.h"

static struct rng rng = { 88172645463325252ULL };

KEEP void touch(void *p, size_t n)
{
	memset(p, 1, n);
}

KEEP uint64_t aligned(int n)
{
	_Alignas(64) char block[64];
	char vla[n];
	uint64_t r;

	touch(block, sizeof(block));
	touch(vla, (size_t)n);
	r = unit(&rng);
	return r + (uint64_t)(block[n & 63] + vla[n / 2]) + ((uintptr_t)block & 63);
}

KEEP uint64_t with_vla(int n)
{
	uint64_t vla[n], r;

	touch(vla, sizeof(vla));
	r = aligned(n + 7);
	return r + vla[n / 2];
}

KEEP uint64_t plain(int n)
{
	return with_vla(n + 1) + 1;
}

KEEP uint64_t with_alloca(int n)
{
	char *p = alloca((size_t)n);
	uint64_t r;

	touch(p, (size_t)n);
	r = plain(n + 3);
	return r + (uint64_t)p[n - 1];
}

KEEP void run(void)
{
	while (!expired(deadline))
		truth_sink += with_alloca(16 + (int)(rng_next(&rng) % 2000));
}

KEEP int main(int argc, char **argv)
{
	deadline = deadline_ns(argc, argv);
	run();
	report_units("\"_start\",\"...\",\"main\",\"run\",\"with_alloca\",\"plain\",\"with_vla\",\"aligned\"",
		     NULL);
	return 0;
}
