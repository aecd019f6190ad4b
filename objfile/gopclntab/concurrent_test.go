// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"sync"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

func TestConcurrentUse(t *testing.T) {
	table, err := openImage(t, image(smallTable(4)))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 500 {
				lines, err := table.Lines(textAddr + 0x108)
				if err != nil || len(lines) != 2 || lines[1].Func != "main.outer" {
					t.Errorf("Lines = %v, %v", lines, err)
				}
				f, err := table.Func(0)
				if err != nil || table.Name(f) != "main.outer" {
					t.Errorf("Func(0) = %v, %v", f, err)
				}
				rows := 0
				if err := table.SPDeltas(f, func(stack.LinkAddr, int32) bool { rows++; return true }); err != nil || rows != 3 {
					t.Errorf("%d rows, %v", rows, err)
				}
				table.Drop()
			}
		})
	}
	all.Wait()
}
