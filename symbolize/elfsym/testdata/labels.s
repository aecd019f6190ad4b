# SPDX-License-Identifier: Apache-2.0
	.text
	.globl	bare
bare:
	nop
	nop
	.globl	sized
	.type	sized, @function
sized:
	nop
	nop
label_inside:
	nop
	ret
	.size	sized, . - sized

	.globl	outer
	.type	outer, @function
outer:
	nop
	.type	inner, @function
inner:
	nop
	nop
	.size	inner, . - inner
	nop
	ret
	.size	outer, . - outer
	.zero	16
	.globl	alias, __alias
	.type	alias, @function
	.type	__alias, @function
	.type	a_local, @function
after_gap:
a_local:
__alias:
alias:
	ret
	.size	alias, . - alias
	.size	__alias, . - __alias
	.size	a_local, . - a_local

	.section .text.last, "ax"
	.type	last, @function
last:
	nop
	nop
	nop
	ret

	.data
datum:
	.quad 0
