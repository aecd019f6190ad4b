//go:build ignore

// SPDX-License-Identifier: GPL-2.0
/*
 * Samples kernel and user stacks on a perf event and counts equal ones.
 *
 * One form for every kernel from 5.10: a bounded loop over a global function,
 * which the verifier checks once however often it is called. Every path out of
 * a walk sets a stop, and the sample is sent with it.
 */
#include "kernel.h"
#include "abi.h"
#include "arch.h"
#include "maps.h"
#include "lookup.h"
#include "arch_rules.h"
#include "walk.h"
#include "measure.h"
#include "send.h"

#define STEPS_PER_CALL 2   /* frames a call of unw_steps walks */
#define CALLS_PER_CHUNK 16 /* calls of it in unw_chunk */
#define FRAMES_PER_CHUNK (STEPS_PER_CALL * CALLS_PER_CHUNK)
_Static_assert(UNW_MAX_USER % FRAMES_PER_CHUNK == 0, "chunks make up the deepest stack");

static __always_inline u64 mix(u64 hash, u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

static __always_inline void push_frame(struct unw_state *s)
{
	u64 frame = s->pc & ~UNW_FRAME_INTERRUPTED;

	if (s->interrupted && s->user_n)
		frame |= UNW_FRAME_INTERRUPTED;
	s->frames[(s->kernel_n + s->user_n) & (UNW_FRAMES - 1)] = frame;
	s->hash = mix(s->hash, frame);
	s->user_n++;
}

/* Walks up to STEPS_PER_CALL frames; returns the stop. Global, so that it is
 * verified on its own; the argument is what kernels before 5.13 allow, a scalar. */
__noinline int unw_steps(u32 unused)
{
	struct unw_rule_cache *cache = bpf_map_lookup_elem(&unw_rule_caches, &zero);
	struct unw_state *s = state();
	u32 stop = UNW_STOP_NONE;

	opaque(unused); /* or the compiler passes garbage, which the verifier refuses */
	if (!s || !cache)
		return UNW_STOP_UNSUPPORTED_RULE;
	for (int i = 0; i < STEPS_PER_CALL; i++) {
		stop = step(s, cache);
		if (stop != UNW_STOP_NONE)
			break;
		if (s->user_n >= UNW_MAX_USER)
			return UNW_STOP_TOO_DEEP;
		push_frame(s);
	}
	return stop;
}

/* Loops in a loop, because the verifier goes round each as often as it may run. */
__noinline int unw_chunk(u32 unused)
{
	u32 stop;

	opaque(unused);
	for (int i = 0; i < CALLS_PER_CHUNK; i++) {
		stop = unw_steps(i);
		if (stop != UNW_STOP_NONE)
			return stop;
	}
	return UNW_STOP_NONE;
}

/* Fills s with the user-mode registers of the current task. */
static __always_inline int load_user_regs(struct bpf_perf_event_data *ctx, struct unw_state *s,
					  u64 ip)
{
	struct user_regs *regs = &s->user_regs;
	struct task_struct *task;
	u64 at = 0;
	void *mm = NULL;
	u32 flags = 0;

	if (!IS_KERNEL_IP(ip)) {
		LOAD_REGS(s, &ctx->regs);
		/* Keeps these loads out of a tail shared with those below: 5.10 wants
		 * the context itself as base ("dereference of modified ctx ptr"). */
		barrier();
		return 0;
	}
	if (cfg_task_pt_regs) {
		task = bpf_get_current_task_btf();
		READ_FIELD(mm, task, mm);
		READ_FIELD(flags, task, flags);
		at = bpf_task_pt_regs(task);
	} else {
		task = (void *)bpf_get_current_task();
		READ_FIELD(mm, task, mm);
		READ_FIELD(flags, task, flags);
		READ_FIELD(at, task, stack);
		at += cfg_kernel_stack - KERNEL_SIZEOF(struct pt_regs);
	}
	if (!mm || (flags & PF_KTHREAD))
		return -1;
	if (bpf_probe_read_kernel(regs, sizeof(*regs), (void *)at))
		return -1;
	LOAD_REGS(s, regs);
	/* Workers the kernel makes in a process (io_uring, vhost) have no user side. */
	return s->pc ? 0 : -1;
}

static __always_inline void take_kernel_stack(void *ctx, struct unw_state *s,
					      struct unw_stats *stats, u64 ip)
{
	long n;

	s->kernel_n = 0;
	if (cfg_no_kernel || !IS_KERNEL_IP(ip))
		return;
	n = bpf_get_stack(ctx, s->frames, UNW_MAX_KERNEL * 8, 0);
	if (n <= 0) {
		stats->kernel_errors++;
		s->frames[0] = ip;
		n = 8;
	}
	s->kernel_n = (n / 8) & 127;
	for (u32 i = 0; i < UNW_MAX_KERNEL; i++) {
		if (i >= s->kernel_n)
			break;
		s->hash = mix(s->hash, s->frames[i]);
	}
}

/* Walks the user stack; returns the stop. */
static __always_inline u32 walk_user(struct unw_state *s, u32 tgid)
{
	struct unw_proc *proc;
	u32 stop;

	push_frame(s);
	proc = bpf_map_lookup_elem(&unw_procs, &tgid);
	if (!proc)
		return UNW_STOP_NO_PROC;
	s->proc = *proc;
	for (int i = 0; i < UNW_MAX_USER / FRAMES_PER_CHUNK; i++) {
		stop = unw_chunk(i);
		if (stop != UNW_STOP_NONE)
			return stop;
	}
	return UNW_STOP_TOO_DEEP;
}

/* Whether the current task is in one of the cgroups asked for, or below. */
static __always_inline int in_cgroups(void)
{
	for (u32 i = 0; i < UNW_MAX_CGROUPS; i++) {
		if (i >= cfg_cgroups)
			break;
		if (bpf_current_task_under_cgroup(&unw_cgroups, i) == 1)
			return 1;
	}
	return 0;
}

/* Says whether to sample the current task: 0 or an enum unw_filtered. Nothing has
 * been walked yet. */
static __always_inline u8 wanted(struct unw_stats *stats, u32 tgid)
{
	u8 how = UNW_FILTER_SAMPLE, *found;

	if (!tgid && !cfg_idle) {
		stats->idle++;
		return 0;
	}
	if (cfg_filter) {
		found = bpf_map_lookup_elem(&unw_filter, &tgid);
		how = found ? *found : 0;
	}
	if (cfg_self && tgid == cfg_self)
		how = 0;
	if (how && cfg_cgroups && !in_cgroups())
		how = 0;
	if (!how)
		stats->filtered++;
	return how;
}

/* Readies s for another sample. */
static __always_inline void begin(struct unw_state *s, u64 now)
{
	s->time = now;
	s->hash = s->user_n = s->refills = 0;
	s->signals = s->fp_walked = s->called_interrupted = 0;
	s->window_n = 0;
	s->map.begin = s->map.end = 0;
	s->proc.generation = s->proc.flags = 0;
	s->interrupted = s->fp_known = 1;
}

/* Takes both stacks and sends them. */
static __always_inline void sample(struct bpf_perf_event_data *ctx, struct unw_state *s,
				   struct unw_stats *stats, u32 parity)
{
	struct unw_raw_buffer *raw = bpf_map_lookup_elem(&unw_raw_buffers, &zero);
	u64 pid_tgid = bpf_get_current_pid_tgid(), ip = SAMPLE_IP(ctx), walk = 0, walked = 0;
	u32 stop = UNW_STOP_KTHREAD;
	struct unw_key key = {};

	if (!raw) {
		stats->drop_state++;
		return;
	}
	take_kernel_stack(ctx, s, stats, ip);
	s->hash = mix(s->hash, s->kernel_n);
	if (!load_user_regs(ctx, s, ip)) {
		if (cfg_compare)
			keep_regs(s, raw);
		walk = cost_now();
		stop = walk_user(s, pid_tgid >> 32);
		walked = cost_now();
	}
	/* The outermost kernel frames may be missing. */
	if (s->kernel_n >= UNW_MAX_KERNEL && (stop == UNW_STOP_END || stop == UNW_STOP_KTHREAD))
		stop = UNW_STOP_TOO_DEEP;
	stats->stops[stop & 15]++;
	stats->frames += s->user_n;
	stats->refills += s->refills;
	fill_key(s, &key, pid_tgid, stop);
	if (cfg_compare && stop != UNW_STOP_KTHREAD) {
		send_raw(s, raw, &key, parity);
		key.hash = s->time; /* keeps equal stacks apart */
	} else if (wants_raw(s, stop)) {
		keep_regs(s, raw);
		if (!send_raw(s, raw, &key, parity)) {
			stats->raw++;
			return;
		}
		stats->raw_full++;
	}
	key.hash = mix(s->hash ^ key.hash, stop);
	count(s, stats, &key, parity);
	add_costs(s, walk, walked);
}

SEC("perf_event")
int unw_sample(struct bpf_perf_event_data *ctx)
{
	u64 began = bpf_ktime_get_ns(), *window;
	struct unw_stats *stats;
	struct unw_state *s;
	u32 parity;
	u8 how;

	window = bpf_map_lookup_elem(&unw_window, &zero);
	if (!window)
		return 0;
	parity = *(volatile u64 *)window & 1;
	stats = bpf_map_lookup_elem(&unw_stats_map, &parity);
	if (!stats)
		return 0;
	stats->fired++;
	how = wanted(stats, bpf_get_current_pid_tgid() >> 32);
	if (!how)
		return 0;
	s = state();
	if (!s) {
		stats->drop_state++;
		return 0;
	}
	if (cfg_measure && how == UNW_FILTER_BASELINE) {
		stats->filtered++;
		measure_baseline(ctx, s);
		return 0;
	}
	begin(s, began);
	sample(ctx, s, stats, parity);
	stats->ns += bpf_ktime_get_ns() - began;
	return 0;
}

/* A child process walks with its parent's mappings until user space has its
 * own for it. */
SEC("raw_tp/sched_process_fork")
int unw_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0], *child = (void *)ctx->args[1];
	u32 from = 0, to = 0, pid = 0;
	struct unw_proc *proc, copy;
	u8 yes = UNW_FILTER_SAMPLE;

	READ_FIELD(from, parent, tgid);
	READ_FIELD(to, child, tgid);
	READ_FIELD(pid, child, pid);
	if (pid != to) /* a thread */
		return 0;
	/* What there is under a new PID is of a process gone unseen. */
	if (cfg_follow && bpf_map_lookup_elem(&unw_filter, &from))
		bpf_map_update_elem(&unw_filter, &to, &yes, 0);
	else if (cfg_filter)
		bpf_map_delete_elem(&unw_filter, &to);
	proc = bpf_map_lookup_elem(&unw_procs, &from);
	if (proc) {
		copy = *proc;
		bpf_map_update_elem(&unw_procs, &to, &copy, 0);
	} else {
		bpf_map_delete_elem(&unw_procs, &to);
	}
	return 0;
}

static __always_inline int forget_process(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	bpf_map_delete_elem(&unw_procs, &tgid);
	return 0;
}

/* The old image's mappings must not be used for the new one. The first is there
 * from 6.10 and runs before the new image maps anything; the second runs after,
 * and user space installs the process again when a sample says NO_PROC. */
SEC("raw_tp/sched_prepare_exec")
int unw_prepare_exec(void *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 now = bpf_ktime_get_ns();

	bpf_map_update_elem(&unw_execs, &tgid, &now, 0); /* before what it is about goes */
	return forget_process();
}

SEC("raw_tp/sched_process_exec")
int unw_exec(void *ctx)
{
	return forget_process();
}

SEC("raw_tp/sched_process_exit")
int unw_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	struct signal_struct *signal = NULL;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	s32 live = 0;

	READ_FIELD(signal, task, signal);
	READ_FIELD(live, signal, live.counter);
	if (live > 0)
		return 0;
	/* It stays in unw_filter until user space takes it out: from 6.16 on the
	 * tracepoint comes before the address space is torn down. */
	bpf_map_delete_elem(&unw_execs, &tgid);
	return forget_process();
}

char LICENSE[] SEC("license") = "GPL";
