// SPDX-License-Identifier: Apache-2.0
#include "work.h"

#include "_cgo_export.h"

#define KEEP __attribute__((noipa))

KEEP uint64_t c_hot(uint64_t n, uint64_t x)
{
	for (uint64_t i = 0; i < n; i++) {
		x ^= x >> 29;
		x = x * 0x9e3779b97f4a7c15ULL + i;
	}
	return x;
}

KEEP uint64_t c_inner(uint64_t n, uint64_t x)
{
	volatile uint64_t ballast[6];

	ballast[n % 6] = x;
	return c_hot(n, x) + ballast[n % 6];
}

KEEP uint64_t c_outer(uint64_t n, uint64_t x)
{
	return c_inner(n, x) + 1;
}

KEEP uint64_t c_calls_go(uint64_t n, uint64_t x)
{
	return goBack(n, x) + 1;
}
