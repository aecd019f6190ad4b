// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"encoding/binary"
	"strings"

	"github.com/google/pprof/profile"
)

// labelSet is the labels of a sample as they stand in the profile.
type labelSet struct {
	pid, tid uint32
	pairs    []Label // clean, no empty values, keys differ
}

func labelsOf(s *Sample) labelSet {
	l := &s.Labels
	set := labelSet{pid: l.PID, tid: l.TID}
	set.add("comm", l.Comm)
	set.add("thread", l.Thread)
	set.add("container_id", l.ContainerID)
	set.add("cgroup", l.Cgroup)
	if !s.Stop.Complete() {
		set.add("stop", s.Stop.String())
	}
	for _, m := range l.More {
		if k := labelKey(m.Key); !reserved(k) {
			set.add(k, m.Value)
		}
	}
	return set
}

// reserved tells the keys with a field of their own, set or not.
func reserved(key string) bool {
	switch key {
	case "pid", "tid", "comm", "thread", "container_id", "cgroup", "stop":
		return true
	}
	return false
}

func (s *labelSet) add(key, value string) {
	value = Clean(value)
	if value == "" {
		return
	}
	for _, p := range s.pairs {
		if p.Key == key {
			return
		}
	}
	s.pairs = append(s.pairs, Label{key, value})
}

// appendKey appends bytes that are the same only for equal label sets.
func (s *labelSet) appendKey(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.pid))
	b = binary.AppendUvarint(b, uint64(s.tid))
	for _, p := range s.pairs {
		b = binary.AppendUvarint(b, uint64(len(p.Key)))
		b = append(b, p.Key...)
		b = binary.AppendUvarint(b, uint64(len(p.Value)))
		b = append(b, p.Value...)
	}
	return b
}

func (s *labelSet) set(to *profile.Sample) {
	for _, p := range s.pairs {
		if to.Label == nil {
			to.Label = make(map[string][]string, len(s.pairs))
		}
		to.Label[p.Key] = []string{p.Value}
	}
	if s.pid != 0 || s.tid != 0 {
		to.NumLabel = make(map[string][]int64, 2)
	}
	if s.pid != 0 {
		to.NumLabel["pid"] = []int64{int64(s.pid)}
	}
	if s.tid != 0 {
		to.NumLabel["tid"] = []int64{int64(s.tid)}
	}
}

// labelKey makes key match [a-zA-Z_][a-zA-Z0-9_]*, at most 128 bytes.
func labelKey(key string) string {
	key = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, key[:min(len(key), 128)])
	if key == "" || key[0] >= '0' && key[0] <= '9' {
		key = "_" + key[:min(len(key), 127)]
	}
	return key
}
