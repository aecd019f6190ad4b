// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
)

// newLogger logs to standard error in logfmt, from the level called name up.
func newLogger(name string) log.Logger {
	logger := log.NewLogfmtLogger(log.NewSyncWriter(os.Stderr))
	logger = level.NewFilter(logger, level.Allow(level.ParseDefault(name, level.WarnValue())))
	return log.With(logger, "ts", log.DefaultTimestampUTC)
}
