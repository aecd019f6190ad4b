/* SPDX-License-Identifier: GPL-2.0 */
/* arm64: registers and the rules that differ. See arch_x86.h. */
#ifndef LOWFLAME_ARCH_H
#define LOWFLAME_ARCH_H

/* struct user_pt_regs, arch/arm64/include/uapi/asm/ptrace.h. */
struct user_regs {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 pstate;
};

struct bpf_perf_event_data {
	struct user_regs regs;
	u64 sample_period;
	u64 addr;
};

enum {
	REG_FP = 29, /* AADWARF64 §4.1 */
	REG_LR = 30,
	REG_SP = 31,
	REG_PC = 32,
};

#define IS_KERNEL_IP(ip) ((s64)(ip) < 0)
#define SAMPLE_IP(ctx) ((ctx)->regs.pc)
/* A return address may be signed in its upper bits (pointer authentication);
 * user addresses have at most 48 bits here. */
#define STRIP_RA(ra) ((ra) & 0x0000ffffffffffffULL)

#define COPY_REG(s, r, i) (s)->regs[i] = (r)->regs[i]
#define COPY_REG4(s, r, i)                                                                             \
	COPY_REG(s, r, i);                                                                             \
	COPY_REG(s, r, (i) + 1);                                                                       \
	COPY_REG(s, r, (i) + 2);                                                                       \
	COPY_REG(s, r, (i) + 3)

#define LOAD_REGS(s, r)                                                                                \
	do {                                                                                           \
		COPY_REG4(s, r, 0);                                                                    \
		COPY_REG4(s, r, 4);                                                                    \
		COPY_REG4(s, r, 8);                                                                    \
		COPY_REG4(s, r, 12);                                                                   \
		COPY_REG4(s, r, 16);                                                                   \
		COPY_REG4(s, r, 20);                                                                   \
		COPY_REG4(s, r, 24);                                                                   \
		COPY_REG(s, r, 28);                                                                    \
		COPY_REG(s, r, 29);                                                                    \
		COPY_REG(s, r, 30);                                                                    \
		(s)->regs[REG_SP] = (r)->sp;                                                           \
		(s)->regs[REG_PC] = (r)->pc;                                                           \
		(s)->pc = (r)->pc;                                                                     \
		(s)->sp = (r)->sp;                                                                     \
		(s)->fp = (r)->regs[REG_FP];                                                           \
		(s)->lr = (r)->regs[REG_LR];                                                           \
	} while (0)

/* uc_mcontext.regs of the rt_sigframe that SP points at in the return
 * trampoline: siginfo 128, ucontext up to uc_mcontext 176, fault_address 8. */
struct sigcontext {
	u64 regs[31];
	u64 sp;
	u64 pc;
};
enum { SIGCONTEXT_OFFSET = 312 };

#define LOAD_SIGCONTEXT(s, r) LOAD_REGS(s, r)

/* No code finds its caller through what calls need not preserve. */
#define REGS_VOLATILE 0U

/* A frame record may be anywhere in its frame: AAPCS64 §6.4.6. */
#define FP_WALK_TELLS_SP 0

#endif
