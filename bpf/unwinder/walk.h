/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One step of the user stack walk. The rules are specified in unwind/rule.go;
 * unwind.Walk is the same walk in Go and must change with this one.
 */
#ifndef LOWFLAME_WALK_H
#define LOWFLAME_WALK_H

/* Finds the caller by the wide rule in the UNW_WIDE_WORDS words at at: struct
 * Wide of unwind/rule.go. */
static __always_inline u32 apply_wide(struct unw_state *s, struct unw_shard *shard, u32 at,
				      struct caller *c)
{
	u32 head = WORD(at), ra_how = (head >> 16) & 0xff, fp_how = head >> 24;
	s64 cfa_off = (s32)WORD(at + 1), add = (s32)WORD(at + 2);
	s64 ra_arg = (s32)WORD(at + 3), fp_arg = (s32)WORD(at + 4);
	u32 deref = (head >> 8) & 0xff;
	u64 cfa, index = 0;

	if (get_reg(s, head & 0xff, &cfa))
		return UNW_STOP_UNSUPPORTED_RULE;
	cfa += cfa_off;
	if (deref) {
		if (deref > 1 && get_reg(s, deref - 2, &index))
			return UNW_STOP_UNSUPPORTED_RULE;
		cfa += index * 8;
		if (read_word(s, cfa, &cfa))
			return UNW_STOP_READ_STACK;
		cfa += add;
	}
	c->sp = cfa;
	if (fp_how != UNW_WHERE_SAME)
		c->fp_known = fp_how != UNW_WHERE_UNKNOWN;
	if (fp_how == UNW_WHERE_CFA) {
		if (read_word(s, cfa + fp_arg, &c->fp))
			return UNW_STOP_READ_STACK;
	} else if (fp_how == UNW_WHERE_FP) {
		if (!s->fp_known)
			return UNW_STOP_UNSUPPORTED_RULE;
		if (read_word(s, s->fp + fp_arg, &c->fp))
			return UNW_STOP_READ_STACK;
	} else if (fp_how == UNW_WHERE_REG) {
		c->fp_known = get_reg(s, fp_arg, &c->fp) == 0;
	}
	if (ra_how == UNW_WHERE_CFA)
		return read_word(s, cfa + ra_arg, &c->pc) ? UNW_STOP_READ_STACK : UNW_STOP_NONE;
	if (ra_how == UNW_WHERE_REG)
		return get_reg(s, ra_arg, &c->pc) ? UNW_STOP_UNSUPPORTED_RULE : UNW_STOP_NONE;
	if (ra_how == UNW_WHERE_FP) {
		if (!s->fp_known)
			return UNW_STOP_UNSUPPORTED_RULE;
		return read_word(s, s->fp + ra_arg, &c->pc) ? UNW_STOP_READ_STACK : UNW_STOP_NONE;
	}
	if (ra_how == UNW_WHERE_SAME)
		return return_in_link_register(s, c);
	return UNW_STOP_UNSUPPORTED_RULE;
}

/* Restores every register from the signal frame SP points at. */
static __always_inline u32 apply_signal(struct unw_state *s)
{
	struct sigcontext *r = &s->sigcontext;

	if (bpf_probe_read_user(r, sizeof(*r), (void *)(s->sp + SIGCONTEXT_OFFSET)))
		return UNW_STOP_READ_STACK;
	LOAD_SIGCONTEXT(s, r);
	s->interrupted = 1;
	s->called_interrupted = 0;
	s->fp_known = 1;
	s->fp_walked = 0;
	s->signals = 1;
	return UNW_STOP_NONE;
}

/* Finds the caller by the frame record FP points at: saved FP, return address.
 * What keeps no frame pointers is told by where FP points, x86-64 psABI §3.2.2. */
static __always_inline u32 apply_fp_walk(struct unw_state *s, u32 rule, struct caller *c)
{
	if (!s->fp_known || (s->fp & 7) || s->fp == 0)
		return UNW_STOP_FP_IMPLAUSIBLE;
	if ((rule & 15) == UNW_KIND_FP_JUMP)
		s->jumped = 1;
	else if (s->fp < s->sp || s->fp - s->sp >= UNW_FP_WALK_MAX)
		return UNW_STOP_FP_IMPLAUSIBLE;
	c->fp_known = 1;
	c->sp = s->fp + 16 + 8 * (u64)(rule >> 8); /* the operand is 0 for FP_WALK */
	if (read_word(s, s->fp, &c->fp) || read_word(s, s->fp + 8, &c->pc))
		return UNW_STOP_READ_STACK;
	return UNW_STOP_NONE;
}

/* Finds the caller of the frame in s by a packed rule; shard has its wide rules. */
static __always_inline u32 apply_rule(struct unw_state *s, struct unw_shard *shard, u32 rule,
				      struct caller *c)
{
	u32 kind = rule & 15;

	if (kind == UNW_KIND_FP_WALK || kind == UNW_KIND_FP_JUMP)
		return apply_fp_walk(s, rule, c);
	if (kind != UNW_KIND_WIDE)
		return apply_narrow(s, rule, c);
	if (!shard)
		return UNW_STOP_TABLE_MISSING;
	return apply_wide(s, shard, s->map.wide + (rule >> 8) * UNW_WIDE_WORDS, c);
}

/*
 * Moves s from a frame to its caller. Returns UNW_STOP_NONE when there is one.
 */
static __always_inline u32 step(struct unw_state *s, struct unw_rule_cache *cache)
{
	u64 pc = s->pc - !s->interrupted; /* DWARF 5 §6.4.4: the call, not the return address */
	struct unw_shard *shard = NULL;
	struct caller c = {.fp = s->fp, .fp_known = s->fp_known};
	u32 rule = UNW_KIND_NONE, stop;

	stop = lookup_rule(s, cache, pc, &rule, &shard);
	if (stop)
		return stop;
	switch (rule & 15) {
	case UNW_KIND_NONE:
		/* A runtime's own code between frames of code it generated keeps
		 * frame pointers as that does: V8's embedded builtins. */
		if (!s->fp_walked)
			return UNW_STOP_NO_RULE;
		rule = UNW_KIND_FP_WALK;
		break;
	case UNW_KIND_END:
		return UNW_STOP_END;
	case UNW_KIND_SIGNAL:
		if (!FP_WALK_TELLS_SP && s->fp_walked)
			return UNW_STOP_UNSUPPORTED_RULE;
		return apply_signal(s);
	}
	s->jumped = 0;
	if (!FP_WALK_TELLS_SP)
		s->sp_guessed = s->fp_walked;
	s->fp_walked = (rule & 15) == UNW_KIND_FP_WALK;
	stop = apply_rule(s, shard, rule, &c);
	if (stop)
		return stop;
	c.pc = STRIP_RA(c.pc);
	if (c.pc == 0)
		return UNW_STOP_END;
	/* A leaf whose return address is in a register may share its caller's. */
	if (!s->jumped && c.sp <= s->sp && !(c.sp == s->sp && s->interrupted))
		return UNW_STOP_SP_NOT_RISING;
	s->pc = c.pc;
	s->sp = c.sp;
	s->fp = c.fp;
	s->fp_known = c.fp_known;
	s->called_interrupted = s->interrupted;
	s->interrupted = 0;
	return UNW_STOP_NONE;
}

#endif
