// SPDX-License-Identifier: Apache-2.0
// The library of plt.c. lib_step saves registers, so that it has a prologue and
// an epilogue of several instructions and little else.
#include <stdint.h>

#define KEEP __attribute__((noipa))

KEEP uint64_t lib_step(uint64_t x)
{
	uint64_t y = x * 0x9e3779b97f4a7c15ULL;

	__asm__ volatile("" : "+r"(y) : : "memory"
#if defined(__x86_64__)
			 , "rbx", "r12", "r13", "r14"
#elif defined(__aarch64__)
			 , "x19", "x20", "x21", "x22"
#endif
	);
	return y ^ (y >> 31);
}
