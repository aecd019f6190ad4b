/* SPDX-License-Identifier: GPL-2.0 */
/* What samples cost, for benchmarks: nothing of it is left unless cfg_measure is set. */
#ifndef LOWFLAME_MEASURE_H
#define LOWFLAME_MEASURE_H

static __always_inline void add_cost(u32 which, u64 ns, u64 bucket, u64 frames)
{
	struct unw_histogram *h = bpf_map_lookup_elem(&unw_costs, &which);

	if (!h)
		return;
	h->sum += ns;
	h->frames += frames;
	h->n++;
	if (bucket >= UNW_COST_BUCKETS)
		bucket = UNW_COST_BUCKETS - 1;
	h->buckets[bucket]++;
}

static __always_inline u64 cost_now(void)
{
	return cfg_measure ? bpf_ktime_get_ns() : 0;
}

static __always_inline void add_walk_cost(struct unw_state *s, u64 began)
{
	u64 ns;

	if (!cfg_measure)
		return;
	ns = bpf_ktime_get_ns() - began;
	add_cost(UNW_COST_WALK, ns, ns / 16, s->user_n);
	add_cost(UNW_COST_FRAME, ns, ns / (s->user_n | !s->user_n), s->user_n);
}

static __always_inline void add_sample_cost(struct unw_state *s, u64 began)
{
	u64 ns;

	if (!cfg_measure)
		return;
	ns = bpf_ktime_get_ns() - began;
	add_cost(UNW_COST_SAMPLE, ns, ns / 16, s->user_n);
}

/* Has the kernel walk the user stack by frame pointers, and times it. */
static __always_inline void measure_baseline(void *ctx, struct unw_state *s)
{
	u64 began = bpf_ktime_get_ns(), ns;
	long n = bpf_get_stack(ctx, s->frames, UNW_MAX_KERNEL * 8, BPF_F_USER_STACK);

	ns = bpf_ktime_get_ns() - began;
	if (n > 0)
		add_cost(UNW_COST_BASELINE, ns, ns / 16, n / 8);
}

#endif
