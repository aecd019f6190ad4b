// SPDX-License-Identifier: Apache-2.0
#include <stdint.h>

uint64_t c_outer(uint64_t n, uint64_t x);
uint64_t c_calls_go(uint64_t n, uint64_t x);
