// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"testing"

	"github.com/go-kit/log"

	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
)

// TestInherit looks at what a child knows of its parent's private files: those that
// lie where they did, and no others.
func TestInherit(t *testing.T) {
	f := newFiles(nil, process.NewTable("/proc"), log.NewNopLogger())
	at := func(begin uint64, id string) process.Mapping {
		return process.Mapping{Begin: stack.Addr(begin), End: stack.Addr(begin + 0x1000), Path: "/" + id, File: process.FileID{BuildID: id}}
	}
	parent := &process.Process{PID: 1, ID: 1, Mappings: []process.Mapping{at(0x1000, "program"), at(0x4000, "library")}}
	child := &process.Process{
		PID: 2, PPID: 1, ID: 2, Inherited: true,
		Mappings: []process.Mapping{at(0x1000, "program"), at(0x5000, "library")}, // mapped anew
	}
	program, library := &file{path: "program"}, &file{path: "library"}
	f.keep(parent, &parent.Mappings[0], program)
	f.keep(parent, &parent.Mappings[1], library)
	f.inherit(child, parent)
	if got := f.known(child, &child.Mappings[0]); got != program {
		t.Errorf("the program is %v", got)
	}
	if got := f.known(child, &child.Mappings[1]); got != nil {
		t.Errorf("a library mapped after the fork is %v", got)
	}
	f.retire(&process.Process{ID: 2, Until: 10})
	f.forget(11)
	if got := f.known(child, &child.Mappings[0]); got != nil {
		t.Errorf("long after its end the child has %v", got)
	}
}

// TestExpect looks at which files are opened before a sample needs them.
func TestExpect(t *testing.T) {
	table := process.NewTable("/proc")
	table.Rescan(uint32(os.Getpid()))
	self := table.Live(uint32(os.Getpid()))
	if self == nil || len(self.Mappings) == 0 {
		t.Fatal("this process is not known")
	}
	m := &self.Mappings[0]
	f := newFiles(nil, table, log.NewNopLogger())
	f.limit = 0 // opening fails, which is remembered
	if got := f.expect(self, m); got != nil {
		t.Errorf("a file that nobody had open: %v", got)
	}
	f.familiar[m.File] = struct{}{}
	if got := f.expect(self, m); got == nil || got.err == nil {
		t.Errorf("a familiar file was not tried: %v", got)
	}
	if got := f.known(self, m); got == nil {
		t.Error("the familiar file is not known after it was expected")
	}
}
