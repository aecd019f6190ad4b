/* SPDX-License-Identifier: GPL-2.0 */
/* How a sample gets to user space: counted, with its frames sent once in a window,
 * or raw. */
#ifndef LOWFLAME_SEND_H
#define LOWFLAME_SEND_H

#define FAR_STEPS 16 /* frame records followed to find another stack */

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

/* Copies user memory at addr to b->stack[len...], by pages, up to the first that is
 * not there or until limit bytes are in. Returns the new length. */
static __always_inline u64 copy_stack(struct unw_raw_buffer *b, u64 addr, u64 len, u64 limit,
				      int pages)
{
	for (int i = 0; i < pages; i++) {
		u64 n = 4096 - (addr & 4095);

		/* The buffer has a page more than the largest limit. */
		if (len >= limit || len > UNW_RAW_STACK + UNW_RAW_FAR)
			break;
		if (bpf_probe_read_user(b->stack + len, n, (void *)addr))
			break;
		len += n;
		addr += n;
	}
	return len < limit ? len : limit;
}

/*
 * Returns where the chain of frame pointers leaves the n bytes of stack copied
 * from sp up, 0 if it does not. In Go, where every function keeps frame pointers,
 * that is the stack of the goroutine that the runtime left for its own.
 */
static __always_inline u64 far_frame(struct unw_raw_buffer *b, u64 n)
{
	u64 fp = b->raw.fp;

	for (int i = 0; i < FAR_STEPS; i++) {
		u64 off = fp - b->raw.sp;

		if (!fp || (fp & 7))
			return 0;
		if (off >= n || n - off < 16)
			return fp;
		fp = *(u64 *)(b->stack + (off & (UNW_RAW_STACK - 8)));
	}
	return 0;
}

/* Copies the stack of the registers in unw_raw_buffers to them. Global, so that it
 * is verified on its own. */
__noinline int unw_copy_stacks(u32 unused)
{
	struct unw_raw_buffer *b = bpf_map_lookup_elem(&unw_raw_buffers, &zero);
	u64 n, far;

	opaque(unused);
	if (!b)
		return 0;
	n = copy_stack(b, b->raw.sp, 0, UNW_RAW_STACK, UNW_RAW_STACK / 4096 + 1);
	b->raw.stack_n = n;
	b->raw.far_n = 0;
	far = far_frame(b, n);
	b->raw.far = far;
	if (far)
		b->raw.far_n = copy_stack(b, far, n, n + UNW_RAW_FAR, UNW_RAW_FAR / 4096 + 1) - n;
	return 0;
}

/* The sample's own registers: the walk may replace those in s. */
static __always_inline void keep_regs(struct unw_state *s, struct unw_raw_buffer *b)
{
	__builtin_memcpy(b->raw.regs, s->regs, sizeof(b->raw.regs));
	b->raw.pc = s->regs[REG_PC];
	b->raw.sp = s->regs[REG_SP];
	b->raw.fp = s->regs[REG_FP];
	b->raw.lr = s->lr;
}

/*
 * Sends the sample with the registers in b and the top of its stack, for user
 * space to walk. Returns 0 when sent.
 */
static __always_inline int send_raw(struct unw_state *s, struct unw_raw_buffer *b,
				    const struct unw_key *key, u32 parity)
{
	u64 n;

	unw_copy_stacks(0);
	b->raw.key = *key;
	b->raw.time = s->time;
	b->raw.window = parity;
	b->raw.walked = cfg_compare;
	b->raw.kernel_n = s->kernel_n;
	__builtin_memcpy(b->raw.kernel, s->frames, sizeof(b->raw.kernel));
	n = b->raw.stack_n + b->raw.far_n;
	if (n > sizeof(b->stack)) /* never */
		n = 0;
	return bpf_ringbuf_output(&unw_raws, b, sizeof(b->raw) + n, 0);
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
	s->trace.time = s->time;
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

#endif
