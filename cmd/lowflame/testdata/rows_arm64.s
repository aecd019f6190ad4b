// SPDX-License-Identifier: Apache-2.0
// Rows as compilers write them for arm64, and some they do not.
	.text
	.globl	_start
	.type	_start, %function
_start:
	.cfi_startproc
	.cfi_undefined x30
	bl	usual
	brk	#0
	.cfi_endproc
	.size	_start, .-_start

	.balign	16
	.type	usual, %function
usual:
	.cfi_startproc
	stp	x29, x30, [sp, #-32]!
	.cfi_def_cfa_offset 32
	.cfi_offset x29, -32
	.cfi_offset x30, -24
	mov	x29, sp
	.cfi_def_cfa_register x29
	bl	wide
	ldp	x29, x30, [sp], #32
	.cfi_def_cfa sp, 0
	.cfi_restore x29
	.cfi_restore x30
	ret
	.cfi_endproc
	.size	usual, .-usual

	.balign	16
	.type	wide, %function
wide:
	.cfi_startproc
	sub	sp, sp, #512
	.cfi_def_cfa_offset 512
	stp	x29, x30, [sp]
	.cfi_offset x29, -512
	.cfi_offset x30, -504
	str	x30, [sp, #16]
	.cfi_offset x30, -496
	ret
	.cfi_endproc
	.size	wide, .-wide
