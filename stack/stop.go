// SPDX-License-Identifier: Apache-2.0

package stack

//go:generate go run ../internal/gen/stops ../bpf/unwinder/stops.h stop_gen.go

// Stop says why the walk of a user stack ended. The list is
// bpf/unwinder/stops.h, which the BPF program shares.
type Stop uint8

// Complete reports whether nothing of the user stack is missing.
func (s Stop) Complete() bool {
	return int(s) < len(stopComplete) && stopComplete[s]
}

// String returns the name used in counters, comments and labels, such as
// "END" or "NO_MAPPING".
func (s Stop) String() string {
	if int(s) < len(stopNames) {
		return stopNames[s]
	}
	return "UNKNOWN"
}

// Text returns a sentence for a person, without a full stop.
func (s Stop) Text() string {
	if int(s) < len(stopTexts) {
		return stopTexts[s]
	}
	return "unknown reason"
}
