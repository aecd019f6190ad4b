/* SPDX-License-Identifier: GPL-2.0 */
/* The rules of the machine compiled for. */
#if defined(__TARGET_ARCH_x86)
#include "arch_x86_rules.h"
#else
#include "arch_arm64_rules.h"
#endif
