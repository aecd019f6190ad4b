/* SPDX-License-Identifier: GPL-2.0 */
/* x86-64: registers and the rules that differ. See arch_arm64.h. */
#ifndef LOWFLAME_ARCH_H
#define LOWFLAME_ARCH_H

/* struct pt_regs as perf gives it, arch/x86/include/uapi/asm/ptrace.h. */
struct user_regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	u64 orig_ax, ip, cs, flags, sp, ss;
};

struct bpf_perf_event_data {
	struct user_regs regs;
	u64 sample_period;
	u64 addr;
};

enum {
	REG_FP = 6, /* x86-64 psABI fig. 3.36 */
	REG_SP = 7,
	REG_PC = 16,
};

#define IS_KERNEL_IP(ip) ((s64)(ip) < 0)
#define SAMPLE_IP(ctx) ((ctx)->regs.ip)
#define STRIP_RA(ra) (ra)

#define LOAD_REGS(s, r)                                                                                \
	do {                                                                                           \
		(s)->regs[0] = (r)->ax;                                                                \
		(s)->regs[1] = (r)->dx;                                                                \
		(s)->regs[2] = (r)->cx;                                                                \
		(s)->regs[3] = (r)->bx;                                                                \
		(s)->regs[4] = (r)->si;                                                                \
		(s)->regs[5] = (r)->di;                                                                \
		(s)->regs[6] = (r)->bp;                                                                \
		(s)->regs[7] = (r)->sp;                                                                \
		(s)->regs[8] = (r)->r8;                                                                \
		(s)->regs[9] = (r)->r9;                                                                \
		(s)->regs[10] = (r)->r10;                                                              \
		(s)->regs[11] = (r)->r11;                                                              \
		(s)->regs[12] = (r)->r12;                                                              \
		(s)->regs[13] = (r)->r13;                                                              \
		(s)->regs[14] = (r)->r14;                                                              \
		(s)->regs[15] = (r)->r15;                                                              \
		(s)->regs[16] = (r)->ip;                                                               \
		(s)->pc = (r)->ip;                                                                     \
		(s)->sp = (r)->sp;                                                                     \
		(s)->fp = (r)->bp;                                                                     \
		(s)->lr = 0;                                                                           \
	} while (0)

/* gregset_t in the rt_sigframe's ucontext, which SP points at in the return
 * trampoline: arch/x86/include/uapi/asm/sigcontext.h, struct sigcontext_64. */
struct sigcontext {
	u64 r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip;
};
enum { SIGCONTEXT_OFFSET = 40 };

#define LOAD_SIGCONTEXT(s, r) LOAD_REGS(s, r)

/* What calls need not preserve, as a set: RAX RDX RCX RSI RDI R8-R11. */
#define REGS_VOLATILE 0x0f37U

/* A frame record is at the top of its frame: psABI §3.2.2. */
#define FP_WALK_TELLS_SP 1

#endif
