// SPDX-License-Identifier: Apache-2.0

package symbolize

// Line is one function at an address, and the line in it.
type Line struct {
	Name, SystemName, File string
	Line, StartLine        int64
}
