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

/* Adds what a sample cost, whose walk took from walk to walked. Nothing is added
 * before it is over, so that it does not pay for that. */
static __always_inline void add_costs(struct unw_state *s, u64 walk, u64 walked)
{
	u64 ns = walked - walk, all;

	if (!cfg_measure || !walked)
		return;
	all = bpf_ktime_get_ns() - s->time;
	add_cost(UNW_COST_WALK, ns, ns / 16, s->user_n);
	add_cost(UNW_COST_FRAME, ns, ns / (s->user_n | !s->user_n), s->user_n);
	add_cost(UNW_COST_SAMPLE, all, all / 16, s->user_n);
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
