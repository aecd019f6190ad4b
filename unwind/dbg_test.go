package unwind

import (
	"fmt"
	"os"
	"testing"
)

func TestDbg(t *testing.T) {
	b, err := os.ReadFile("/tmp/hs/code.bin")
	if err != nil {
		t.Skip()
	}
	var begin uint64
	var words, complete int
	fmt.Sscanf(os.Getenv("HSB"), "0x%x,%d,%d", &begin, &words, &complete)
	blk := CodeBlock{Begin: begin, Code: b, Words: words, Complete: complete, Framed: os.Getenv("HSF") != ""}
	var w sweep
	w.block = &blk
	w.cells = make([]sweepCell, len(b))
	ok := w.run(&blk)
	last := 0
	for i, c := range w.cells {
		if c.seen {
			last = i
		}
	}
	t.Logf("ok %v last seen %#x again %v over %d", ok, begin+uint64(last), w.again, len(w.over))
	if c := w.cells[last]; c.state != 0 {
		t.Logf("%+v", w.states[c.state-1])
	}
	if os.Getenv("HSV") != "" {
		prev := uint16(0)
		for i, c := range w.cells {
			if c.seen && c.state != prev {
				prev = c.state
				t.Logf("%#x %+v", begin+uint64(i), w.states[c.state-1])
			}
		}
	}
}
