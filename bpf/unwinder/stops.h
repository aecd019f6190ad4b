/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Why a user stack walk ended: the one list behind enum unw_stop, its counters
 * and the Go constants in package stack (written by internal/gen/stops).
 *
 * X(NAME, complete, "sentence")
 * complete: 1 when nothing of the user stack is missing.
 */
#ifndef LOWFLAME_STOPS_H
#define LOWFLAME_STOPS_H

#define UNW_STOPS(X)                                                                                   \
	X(NONE, 0, "the walk has not ended")                                                           \
	X(END, 1, "reached the outermost frame")                                                       \
	X(KTHREAD, 1, "kernel thread or exiting task: there is no user stack")                         \
	X(EXEC, 1, "the program was being replaced by execve: the old user stack is gone")             \
	X(NO_PROC, 0, "the process is not known yet")                                                  \
	X(NO_MAPPING, 0, "an address lies in no executable mapping")                                   \
	X(NO_RULE, 0, "the binary has no unwind information for an address")                           \
	X(UNSUPPORTED_RULE, 0, "the unwind rule for an address needs a register or operation not kept") \
	X(READ_STACK, 0, "stack memory could not be read")                                             \
	X(TOO_DEEP, 0, "the stack is deeper than the limit")                                           \
	X(SP_NOT_RISING, 0, "the stack pointer did not rise from a frame to its caller")               \
	X(FP_IMPLAUSIBLE, 0, "a frame pointer does not point into the stack")                          \
	X(LR_MID_STACK, 0, "a return address is said to be in the link register of a calling frame")   \
	X(TABLE_MISSING, 0, "the unwind table of a binary is not loaded")

#endif
