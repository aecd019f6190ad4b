/* SPDX-License-Identifier: Apache-2.0 */
/* Stacks of known shape: 40 frames of f in every mode. Built by live_test.go. */
#define _GNU_SOURCE
#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile int sink;
static const char *modes = "";

static NOINLINE void stop(void)
{
	raise(SIGSTOP);
	sink++;
}

static void handler(int sig)
{
	stop();
	sink += sig;
}

/* Both alloca and alignment above 16: GCC's DRAP prologue. */
static NOINLINE void aligned(int n)
{
	char vector[64] __attribute__((aligned(64)));
	char *p = alloca(n & 255);

	memset(vector, n, sizeof(vector));
	memset(p, n, n & 255);
	asm volatile("" : : "r"(vector), "r"(p) : "memory");
	stop();
	sink += vector[n & 63];
}

static int compare(const void *a, const void *b)
{
	static int calls;

	if (calls++ == 3)
		stop();
	return *(const int *)a - *(const int *)b;
}

static NOINLINE void leaf(int n, char mode)
{
	int numbers[] = {5, 4, 3, 2, 1};

	switch (mode) {
	case 's': /* a signal that interrupts a system call */
		raise(SIGUSR1);
		break;
	case 'd':
		aligned(n + 100);
		break;
	case 'q': /* through libc */
		qsort(numbers, 5, sizeof(int), compare);
		break;
	case 'v':
		if (!vfork()) {
			sink++;
			_exit(0);
		}
		wait(NULL);
		stop();
		break;
	default:
		stop();
	}
	sink += n;
}

static NOINLINE int f(int n)
{
	volatile char frame[24 + 8 * 3];

	frame[n & 15] = n;
	if (n > 1)
		f(n - 1);
	else
		for (const char *m = modes; *m; m++)
			leaf(n, *m);
	return frame[n & 15] + n;
}

int main(int argc, char **argv)
{
	stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
	jmp_buf env;
	char text[64];

	modes = argc > 1 ? argv[1] : "p";
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	/* Library calls for the single-step test. */
	if (!setjmp(env)) {
		snprintf(text, sizeof(text), "%d %s %f", argc, argv[0], argc * 1.5);
		longjmp(env, 1);
	}
	f(40);
	return (int)strlen(text) == 0;
}
