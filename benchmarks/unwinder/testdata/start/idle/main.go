// SPDX-License-Identifier: Apache-2.0

// Idle sleeps.
package main

import "time"

func main() {
	for {
		time.Sleep(time.Hour)
	}
}
