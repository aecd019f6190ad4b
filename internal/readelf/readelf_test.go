// SPDX-License-Identifier: Apache-2.0

package readelf

import (
	"debug/elf"
	"slices"
	"testing"
)

const printed = `Contents of the .eh_frame section:


00000000 0000000000000014 00000000 CIE "zR" cf=1 df=-8 ra=16
   LOC           CFA      ra    
0000000000000000 rsp+8    c-8   

00000018 0000000000000014 0000001c FDE cie=00000000 pc=00000000000023d0..00000000000023f2

00000030 0000000000000024 0000001c FDE cie=00000000 pc=0000000000002020..00000000000022c0
   LOC           CFA      rbx   rbp   ra    
0000000000002020 rsp+16   u     s     c-8   
0000000000002026 rsp+24   c-24  c-16  c-8   
0000000000002030 exp      c-24  c-16  r5 (rdi)

00000058 0000000000000014 00000000 CIE "zR" cf=1 df=-8 ra=10
   LOC           CFA      
0000000000000000 rsp+0    

00000070 0000000000000014 0000001c FDE cie=00000058 pc=0000000000003000..0000000000003001

00000088 ZERO terminator


Contents of the .debug_frame section:

00000000 0000000000000014 ffffffff CIE "" cf=1 df=-8 ra=16
   LOC           CFA      ra    
0000000000000000 rsp+8    c-8   

00000018 000000000000001c 00000000 FDE cie=00000000 pc=0000000000009000..0000000000009001
`

func TestParse(t *testing.T) {
	want := []Row{
		{0x2020, 0x2026, "rsp+16", "u", "c-8"},
		{0x2026, 0x2030, "rsp+24", "c-16", "c-8"},
		{0x2030, 0x22c0, "exp", "c-16", "rdi"},
		{0x23d0, 0x23f2, "rsp+8", "u", "c-8"},
		{0x3000, 0x3001, "rsp+0", "u", "r10"},
	}
	got, err := parse([]byte(printed), ".eh_frame", elf.EM_X86_64)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := parse([]byte(printed), ".debug_frame", elf.EM_AARCH64); err != nil || len(got) != 1 || got[0].PC != 0x9000 {
		t.Errorf(".debug_frame: %+v, %v", got, err)
	}
	if _, err := Rows(t.Context(), "/nonexistent", ".eh_frame"); err == nil {
		t.Error("no error for a file that is not there")
	}
}
