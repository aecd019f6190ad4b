// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

// agree compares answers to n addresses of a file.
func agree(ctx context.Context, lowflame, file string, n int) (v *verdict, theirs, ours cost, err error) {
	symbols, err := functionSymbols(file)
	if err != nil {
		return nil, theirs, ours, err
	}
	addrs := spread(symbols, n)
	want, theirs, err := askLLVM(ctx, file, addrs)
	if err != nil {
		return nil, theirs, ours, err
	}
	got, ours, err := askLowflame(ctx, lowflame, file, addrs)
	if err != nil {
		return nil, theirs, ours, fmt.Errorf("%s: %w", file, err)
	}
	return compareAnswers(addrs, want, got, symbolAliases(symbols)), theirs, ours, nil
}
