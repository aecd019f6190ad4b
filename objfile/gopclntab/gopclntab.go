// SPDX-License-Identifier: Apache-2.0

// Package gopclntab reads the function table of Go binaries, stripped or not:
// functions, inlined calls, lines, and stack-pointer deltas.
package gopclntab
