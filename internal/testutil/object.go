// SPDX-License-Identifier: Apache-2.0

// Package testutil is what the tests of several packages need.
package testutil

import (
	"testing"

	"github.com/lowflame/lowflame/objfile"
)

// OpenObject opens an ELF file for the duration of a test, which fails if it cannot.
func OpenObject(tb testing.TB, path string) *objfile.Object {
	tb.Helper()
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return o
}
