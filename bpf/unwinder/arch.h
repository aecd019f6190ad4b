/* SPDX-License-Identifier: GPL-2.0 */
/* The machine compiled for: the only place that asks. */
#if defined(__TARGET_ARCH_x86)
#include "arch_x86.h"
#elif defined(__TARGET_ARCH_arm64)
#include "arch_arm64.h"
#else
#error "no such machine"
#endif
