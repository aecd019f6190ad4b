// SPDX-License-Identifier: Apache-2.0

// Package objfile reads ELF files that nobody vouches for. Every size is
// checked against the file, every allocation is bounded, and nothing is mapped:
// a file that is truncated or replaced while it is read gives an error, not a
// signal.
package objfile
