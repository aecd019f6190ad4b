// SPDX-License-Identifier: Apache-2.0
// The plugins of dlopen.c: built twice, plugin b with -DPLUGIN_B. It
// has other code in front and a bigger frame, so that the unwind table of one does
// not fit the other.
#include <stdint.h>

#define KEEP __attribute__((noipa))

#ifdef PLUGIN_B
KEEP uint64_t plugin_padding(uint64_t x)
{
	volatile uint64_t v[9] = { x };

	for (int i = 1; i < 9; i++)
		v[i] = v[i - 1] * x;
	return v[8];
}
#define FRAME_WORDS 33
#define ODD 0x94d049bb133111ebULL
#define LEAF plugin_hot_b
#else
#define FRAME_WORDS 4
#define ODD 0xd6e8feb86659fd93ULL
#define LEAF plugin_hot_a
#endif

KEEP uint64_t LEAF(uint64_t n, uint64_t x)
{
	for (uint64_t i = 0; i < n; i++) {
		x ^= x >> 29;
		x = x * ODD + i;
	}
	return x;
}

KEEP uint64_t plugin_enter(uint64_t n, uint64_t x)
{
	volatile uint64_t frame[FRAME_WORDS];

	frame[x % FRAME_WORDS] = x;
	return LEAF(n, x) + frame[n % FRAME_WORDS] * 0;
}
