// SPDX-License-Identifier: Apache-2.0
// Frame pointers that are none: hand-written code that has RBP for a variable
// calls C. The second argument says what RBP holds and what is known of the code:
//   cfi     a number; the code has call frame information
//   bare    a number; the code has none
//   forged  the address of what looks like a chain of frames
//   jit     a number; the code is in anonymous memory, where only RBP leads on
//   data    the same with the address of a variable on the stack
// Truth: main → run → with_… → mid → unit → hot 70 %, cold 30 %. mid has RBP for a
// frame pointer. What called generated code cannot be found: the walk has to stop.
#include <string.h>
#include <sys/mman.h>

#include "unit.h"

static struct rng rng = { 88172645463325252ULL };
typedef uint64_t work(void);

/* The bodies differ in call frame information alone. RBP is set to rsi. */
uint64_t with_cfi(work *call, uint64_t rbp);
uint64_t with_nothing(work *call, uint64_t rbp);
__asm__(".pushsection .text\n"
	".globl with_cfi, with_nothing\n"
	".type with_cfi, @function\n"
	"with_cfi:\n"
	"	.cfi_startproc\n"
	"	push %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbp, 0\n"
	"	mov %rsi, %rbp\n"
	"	call *%rdi\n"
	"	pop %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size with_cfi, . - with_cfi\n"
	".type with_nothing, @function\n"
	"with_nothing:\n"
	"	push %rbp\n"
	"	mov %rsi, %rbp\n"
	"	call *%rdi\n"
	"	pop %rbp\n"
	"	ret\n"
	".size with_nothing, . - with_nothing\n"
	".popsection\n");

/* push %rbp; mov %rsi, %rbp; call *%rdi; pop %rbp; ret */
static const unsigned char generated[] = { 0x55, 0x48, 0x89, 0xf5, 0xff, 0xd7, 0x5d, 0xc3 };

KEEP __attribute__((optimize("no-omit-frame-pointer"))) uint64_t mid(void)
{
	return unit(&rng) + 1;
}

static uint64_t (*call)(work *, uint64_t) = with_cfi;
static int forge, on_stack;

KEEP void run(void)
{
	volatile uint64_t records[8], rbp = 0x1234567;

	for (int i = 0; i < 8; i++)
		records[i] = (uint64_t)i * 0x1111;
	if (forge) {
		records[0] = (uint64_t)&records[2];
		records[1] = (uint64_t)&unit + 5;
		records[2] = (uint64_t)&records[4];
		records[3] = (uint64_t)&hot + 5;
	}
	if (forge || on_stack)
		rbp = (uint64_t)&records[0];
	while (!expired(deadline))
		truth_sink += call(mid, rbp);
}

KEEP int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[2] : "cfi";
	int jit = !strcmp(mode, "jit") || !strcmp(mode, "data");

	deadline = deadline_ns(argc, argv);
	forge = !strcmp(mode, "forged");
	on_stack = !strcmp(mode, "data");
	if (!strcmp(mode, "bare"))
		call = with_nothing;
	if (jit) {
		void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (code == MAP_FAILED)
			return 1;
		memcpy(code, generated, sizeof(generated));
		if (mprotect(code, 4096, PROT_READ | PROT_EXEC))
			return 1;
		call = (uint64_t (*)(work *, uint64_t))code;
	}
	run();
	report_units(jit ? "\"_start\",\"...\",\"main\",\"run\",\"?@[anon]\",\"mid\"" :
		     call == with_cfi ? "\"_start\",\"...\",\"main\",\"run\",\"with_cfi\",\"mid\"" :
		     "\"_start\",\"...\",\"main\",\"run\",\"with_nothing\",\"mid\"", NULL);
	return 0;
}
