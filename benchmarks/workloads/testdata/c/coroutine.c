// SPDX-License-Identifier: Apache-2.0
// Coroutines on stacks of their own. The second argument says how they switch:
//   ucontext  makecontext and swapcontext of the C library
//   zero      hand-written code without call frame information, as boost's; the
//             first function's return address is 0
//   finish    the same, but the first function returns to a piece of code that ends
//             the program and that nothing called: a walk may stop there, not go on
// Truth: entry → step → unit → hot 70 %, cold 30 %, and not main, on whose stack
// nothing happens. With ucontext a function of libc is below entry.
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "unit.h"

#define COROUTINES 4
#define STACK_BYTES (256 << 10)

static struct rng rng = { 88172645463325252ULL };
static ucontext_t main_context, contexts[COROUTINES];
static void *main_sp, *sp[COROUTINES];
static int by_ucontext, current;

/*
 * switch_stack(save, to) keeps what calls preserve on the stack, remembers it in
 * *save, and goes on where to was remembered. finish is where a coroutine's first
 * function returns to; start is where a new one begins, its function in RBX.
 */
void switch_stack(void **save, void *to);
void start_coroutine(void);
void finish_coroutine(void);
__asm__(".pushsection .text\n"
	".globl switch_stack, start_coroutine, finish_coroutine\n"
	".type switch_stack, @function\n"
	"switch_stack:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n"
	"	ret\n"
	"start_coroutine:\n"
	"	push %r12\n"
	"	jmp *%rbx\n"
	"finish_coroutine:\n"
	"	xor %edi, %edi\n"
	"	mov $60, %eax\n"
	"	syscall\n"
	"	hlt\n"
	".size switch_stack, . - switch_stack\n"
	".popsection\n");

static void yield(void)
{
	int from = current;

	if (by_ucontext)
		swapcontext(&contexts[from], &main_context);
	else
		switch_stack(&sp[from], main_sp);
}

KEEP uint64_t step(int n)
{
	return n > 1 ? step(n - 1) + 1 : unit(&rng);
}

KEEP void entry(void)
{
	for (;;) {
		truth_sink += step(3);
		yield();
	}
}

static void *new_stack(void)
{
	void *p = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	return p;
}

static void make(int i, void (*finish)(void))
{
	void **top = (void **)((char *)new_stack() + STACK_BYTES - 64);

	if (by_ucontext) {
		getcontext(&contexts[i]);
		contexts[i].uc_stack.ss_sp = (char *)top + 64 - STACK_BYTES;
		contexts[i].uc_stack.ss_size = STACK_BYTES;
		makecontext(&contexts[i], entry, 0);
		return;
	}
	/* r15 r14 r13 r12 rbx rbp, return address: as switch_stack pops them. */
	top -= 7;
	memset(top, 0, 7 * sizeof(*top));
	top[3] = (void *)finish;
	top[4] = (void *)entry;
	top[6] = (void *)start_coroutine;
	sp[i] = top;
}

KEEP void run(void)
{
	while (!expired(deadline)) {
		current = (current + 1) % COROUTINES;
		if (by_ucontext)
			swapcontext(&main_context, &contexts[current]);
		else
			switch_stack(&main_sp, sp[current]);
	}
}

KEEP int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[2] : "ucontext";
	void (*finish)(void) = strcmp(mode, "finish") ? NULL : finish_coroutine;

	by_ucontext = !strcmp(mode, "ucontext");
	deadline = deadline_ns(argc, argv);
	for (int i = 0; i < COROUTINES; i++)
		make(i, finish);
	run();
	if (by_ucontext)
		report_units("\"?@libc.so.6\",\"entry\",\"step*3\"", NULL);
	else if (finish)
		report_units("\"switch_stack\",\"entry\",\"step*3\"", NULL);
	else
		report_units("\"entry\",\"step*3\"", NULL);
	return 0;
}
