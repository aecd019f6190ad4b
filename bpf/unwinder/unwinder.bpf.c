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

#define STEPS_PER_CALL 2 /* frames a call of unw_steps walks */

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
	struct unw_state *s = state();
	u32 stop = UNW_STOP_NONE;

	opaque(unused); /* or the compiler passes garbage, which the verifier refuses */
	if (!s)
		return UNW_STOP_UNSUPPORTED_RULE;
	for (int i = 0; i < STEPS_PER_CALL; i++) {
		stop = step(s);
		if (stop != UNW_STOP_NONE)
			break;
		if (s->user_n >= UNW_MAX_USER)
			return UNW_STOP_TOO_DEEP;
		push_frame(s);
	}
	return stop;
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
	for (int i = 0; i < UNW_MAX_USER / STEPS_PER_CALL; i++) {
		stop = unw_steps(i);
		if (stop != UNW_STOP_NONE)
			return stop;
	}
	return UNW_STOP_TOO_DEEP;
}

static __always_inline void fill_key(struct unw_state *s, struct unw_key *key, u64 pid_tgid,
				     u32 stop)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	u64 exec_id = 0;

	READ_FIELD(exec_id, task, self_exec_id);
	key->tgid = pid_tgid >> 32;
	key->tid = cfg_threads ? (u32)pid_tgid : 0;
	key->exec_id = exec_id;
	key->generation = s->proc.generation;
	key->stop = stop;
	bpf_get_current_comm(key->comm, sizeof(key->comm));
}

/*
 * Sends the sample with its registers and the top of its stack, for user space
 * to walk: the process or a table is not known here yet. Returns 0 when sent.
 */
static __always_inline int send_raw(struct unw_state *s, u64 pid_tgid, u32 stop, u32 parity)
{
	struct unw_raw_buffer *b = bpf_map_lookup_elem(&unw_raw_buffers, &zero);
	u64 at, len = 0;

	if (!b)
		return -1;
	b->raw.key.hash = 0;
	fill_key(s, &b->raw.key, pid_tgid, stop);
	b->raw.time = bpf_ktime_get_ns();
	b->raw.window = parity;
	b->raw.kernel_n = s->kernel_n;
	__builtin_memcpy(b->raw.regs, s->regs, sizeof(b->raw.regs));
	b->raw.pc = s->regs[REG_PC];
	b->raw.sp = s->regs[REG_SP];
	b->raw.fp = s->regs[REG_FP];
	b->raw.lr = s->lr;
	__builtin_memcpy(b->raw.kernel, s->frames, sizeof(b->raw.kernel));
	at = b->raw.sp;
	/* By pages, up to the first that is not there. */
	for (int i = 0; i <= UNW_RAW_STACK / 4096; i++) {
		u64 n = 4096 - (at & 4095);

		if (len >= UNW_RAW_STACK)
			break;
		if (bpf_probe_read_user(b->stack + (len & (UNW_RAW_STACK - 1)), n, (void *)at))
			break;
		len += n;
		at += n;
	}
	if (len > UNW_RAW_STACK)
		len = UNW_RAW_STACK;
	b->raw.stack_n = len;
	return bpf_ringbuf_output(&unw_raws, b, sizeof(b->raw) + (len & (2 * UNW_RAW_STACK - 1)),
				  0);
}

/* Whether user space is likely to know more than the walk found out here. What
 * travels must be the sample's own registers, and enough of its stack. */
static __always_inline int wants_raw(struct unw_state *s, u32 stop)
{
	if (s->signals)
		return 0;
	if (stop == UNW_STOP_NO_MAPPING || stop == UNW_STOP_NO_RULE)
		return !(s->proc.flags & UNW_PROC_SETTLED) &&
		       s->sp - s->regs[REG_SP] < UNW_RAW_STACK / 2;
	return stop == UNW_STOP_NO_PROC || stop == UNW_STOP_TABLE_MISSING;
}

/* Sends the frames of a stack first seen in this window. */
static __always_inline int send_trace(struct unw_state *s, struct unw_key *key, u32 parity)
{
	u64 n = s->kernel_n + s->user_n, flags = BPF_RB_NO_WAKEUP;

	s->trace.key = *key;
	s->trace.time = bpf_ktime_get_ns();
	s->trace.window = parity;
	s->trace.kernel_n = s->kernel_n;
	s->trace.user_n = s->user_n;
	if (bpf_ringbuf_query(&unw_traces, BPF_RB_AVAIL_DATA) >= cfg_wake_bytes)
		flags = BPF_RB_FORCE_WAKEUP;
	return bpf_ringbuf_output(&unw_traces, &s->trace,
				  sizeof(s->trace) + (n & (UNW_FRAMES - 1)) * 8, flags);
}

/* The verifier wants each map named at the call. */
#define COUNTS(parity, call, ...)                                                                      \
	((parity) ? bpf_map_##call(&unw_counts1, ##__VA_ARGS__) : bpf_map_##call(&unw_counts0, ##__VA_ARGS__))

/* Counts the sample, and sends its frames when it is the first of its kind. A
 * count whose frames could not be sent stays: user space counts it as lost. */
static __always_inline void count(struct unw_state *s, struct unw_stats *stats, struct unw_key *key,
				  u32 parity)
{
	struct unw_count first = {.n = 1, .sent = 1}, *n;

	n = COUNTS(parity, lookup_elem, key);
	if (!n) {
		if (!COUNTS(parity, update_elem, key, &first, BPF_NOEXIST)) {
			stats->counted++;
			if (send_trace(s, key, parity)) {
				stats->traces_full++;
				n = COUNTS(parity, lookup_elem, key);
				if (n)
					n->sent = 0;
			}
			return;
		}
		/* Lost the race to be first to another CPU, or the map is full. */
		n = COUNTS(parity, lookup_elem, key);
		if (!n) {
			stats->drop_counts++;
			return;
		}
	}
	__sync_fetch_and_add(&n->n, 1);
	stats->counted++;
	if (!n->sent && !send_trace(s, key, parity))
		n->sent = 1;
}

static __always_inline int wanted(struct unw_stats *stats, u32 tgid)
{
	if (!tgid) {
		stats->idle++;
		return 0;
	}
	if ((cfg_filter && !bpf_map_lookup_elem(&unw_filter, &tgid)) ||
	    (cfg_self && tgid == cfg_self)) {
		stats->filtered++;
		return 0;
	}
	return 1;
}

SEC("perf_event")
int unw_sample(struct bpf_perf_event_data *ctx)
{
	u64 began = bpf_ktime_get_ns(), pid_tgid = bpf_get_current_pid_tgid(), *window,
	    ip = SAMPLE_IP(ctx);
	u32 parity, stop;
	struct unw_key key = {};
	struct unw_stats *stats;
	struct unw_state *s;

	window = bpf_map_lookup_elem(&unw_window, &zero);
	if (!window)
		return 0;
	parity = *(volatile u64 *)window & 1;
	stats = bpf_map_lookup_elem(&unw_stats_map, &parity);
	if (!stats)
		return 0;
	stats->fired++;
	if (!wanted(stats, pid_tgid >> 32))
		return 0;
	s = state();
	if (!s) {
		stats->drop_state++;
		return 0;
	}
	s->hash = s->user_n = s->refills = 0;
	s->signals = s->fp_walked = s->called_interrupted = 0;
	s->window_n = 0;
	s->map.begin = s->map.end = 0;
	s->proc.generation = s->proc.flags = 0;
	s->interrupted = s->fp_known = 1;
	take_kernel_stack(ctx, s, stats, ip);
	s->hash = mix(s->hash, s->kernel_n);
	stop = UNW_STOP_KTHREAD;
	if (!load_user_regs(ctx, s, ip))
		stop = walk_user(s, pid_tgid >> 32);
	stats->stops[stop & 15]++;
	stats->frames += s->user_n;
	stats->refills += s->refills;
	if (wants_raw(s, stop)) {
		if (!send_raw(s, pid_tgid, stop, parity)) {
			stats->raw++;
			goto out;
		}
		stats->raw_full++;
	}
	key.hash = mix(s->hash, stop);
	fill_key(s, &key, pid_tgid, stop);
	count(s, stats, &key, parity);
out:
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
	u8 yes = 1;

	READ_FIELD(from, parent, tgid);
	READ_FIELD(to, child, tgid);
	READ_FIELD(pid, child, pid);
	if (pid != to) /* a thread */
		return 0;
	if (cfg_follow && bpf_map_lookup_elem(&unw_filter, &from))
		bpf_map_update_elem(&unw_filter, &to, &yes, 0);
	proc = bpf_map_lookup_elem(&unw_procs, &from);
	if (proc) {
		copy = *proc;
		bpf_map_update_elem(&unw_procs, &to, &copy, 0);
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
	if (cfg_filter)
		bpf_map_delete_elem(&unw_filter, &tgid);
	return forget_process();
}

char LICENSE[] SEC("license") = "GPL";
