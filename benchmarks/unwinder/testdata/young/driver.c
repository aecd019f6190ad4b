// SPDX-License-Identifier: Apache-2.0
/*
 * driver CHILD MS TOTAL OUT: forks and executes CHILD MS, one after the other, until
 * together they have used TOTAL milliseconds of CPU time, and writes to OUT a line for
 * each: its PID and its CPU time, user and kernel mode, in microseconds. The kernel
 * counts from the fork and in nanoseconds (cputime_adjust scales to sum_exec_runtime).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Waits until a child has ended and is off its CPU: what it used since the last tick
 * of the scheduler is not in its CPU time before. The time is a random one, or children
 * would begin in step with the ticks that sample them. */
static int settle(pid_t pid)
{
	struct timespec pause = {.tv_nsec = 300000 + random() % 1000000};
	siginfo_t info;

	if (waitid(P_PID, pid, &info, WEXITED | WNOWAIT))
		return -1;
	return nanosleep(&pause, NULL);
}

static long microseconds(struct timeval t)
{
	return t.tv_sec * 1000000L + t.tv_usec;
}

int main(int argc, char **argv)
{
	long total, used = 0;
	FILE *out;

	if (argc != 5 || !(out = fopen(argv[4], "we")))
		return 2;
	total = atol(argv[3]) * 1000;
	while (used < total) {
		struct rusage usage;
		int status;
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			execl(argv[1], argv[1], argv[2], (char *)NULL);
			_exit(127);
		}
		if (settle(pid) || wait4(pid, &status, 0, &usage) != pid || status != 0)
			return 1;
		long each = microseconds(usage.ru_utime) + microseconds(usage.ru_stime);
		fprintf(out, "%d %ld\n", pid, each);
		used += each;
	}
	return fclose(out) ? 1 : 0;
}
