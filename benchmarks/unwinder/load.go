// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"

	"github.com/lowflame/lowflame/agent"
)

const (
	maxInstructions = 20_000
	maxLoad         = 150 // ms
)

// loadSection loads the BPF program.
func loadSection() section {
	return section{"load", "what the kernel does to accept the BPF program", measureLoad}
}

func measureLoad(ctx context.Context, b *bench) error {
	var loads []float64
	var instructions map[string]uint32
	for range b.runs {
		s, err := b.sampleRunning(ctx, agent.Config{Frequency: 19}, -1, []string{"sleep", "0.1"})
		if err != nil {
			return err
		}
		loads = append(loads, s.load.Seconds()*1e3)
		instructions = s.instructions
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(instructions)) {
		b.Line("%-44s %12d verified instructions", name, instructions[name])
		total += int(instructions[name])
	}
	b.Demand("verified instructions, all programs", float64(total), maxInstructions, false, "")
	b.Line("runs: %s ms", list(loads))
	b.Demand("load: maps and programs", median(loads), maxLoad, false, "ms")
	return nil
}
