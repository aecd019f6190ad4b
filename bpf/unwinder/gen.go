// SPDX-License-Identifier: GPL-2.0

package unwinder

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type unw_mapping -type unw_proc -type unw_key -type unw_count -type unw_trace -type unw_raw -type unw_stats -type unw_histogram bpf unwinder.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter
