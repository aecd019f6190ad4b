# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# sudo drops /usr/local/go/bin from PATH; tests run `go` themselves, so put it back.
GO := $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),$(wildcard /usr/lib/go/bin/go),go)
export PATH := $(PATH):$(patsubst %/,%,$(dir $(GO)))

# The committed BPF objects are the bytes this compiler writes: another version, even of
# the same major, may write others.
CLANG_VERSION := 19.1.7
export BPF2GO_CC := clang-19
export BPF2GO_STRIP := llvm-strip-19
CLANG_FORMAT := clang-format-19

GENERATE_PACKAGES := clang-19 llvm-19
LINT_PACKAGES := clang-format-19
# What the tests compile their workloads with, compare against, and open pages in.
TEST_PACKAGES := $(GENERATE_PACKAGES) gcc g++ libc6-dev binutils rustc musl-tools \
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross elfutils file zstd xz-utils chromium \
	nodejs openjdk-17-jdk-headless golang-1.19-go libc6-dbg openssl debuginfod dwz lld-19

# Debug files that benchmarks/symbolize reads.
BENCH_PACKAGES := binutils llvm-19 openjdk-17-jdk-headless openjdk-17-dbg python3.11-dbg

# Besides cross compilers, an emulator: where it is older than 10, what a newer
# one, unpacked beside it, needs.
MATRIX_PACKAGES := gcc g++ libc6-dev gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross cpio bsdextrautils \
	qemu-system-x86 qemu-system-arm

# Packages tested at a time. On more than two CPUs, raise it: make test JOBS=4.
JOBS ?= 2
TEST_TIMEOUT ?= 25m
PACKAGE_TIMEOUT ?= 15m
FUZZTIME ?= 30s
BENCH ?= .
PKG ?= ./...

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/lowflame, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/lowflame ./cmd/lowflame

.PHONY: generate
generate: packages-generate clang-version ## Write the BPF objects and other generated files again
	$(GO) generate ./...

.PHONY: test
test: packages-test ## Vet and test everything; as root: the tests load BPF programs
	$(GO) vet ./...
	@mkdir -p bin && $(GO) build -buildvcs=false -o bin/testreport ./internal/testreport
	@# What judges recordings runs last and alone: a busy machine delays everything.
	timeout --kill-after=20s $(TEST_TIMEOUT) bash -c ' \
		test="$(GO) test -json -count=1 -timeout $(PACKAGE_TIMEOUT)"; \
		$$test -p $(JOBS) $$($(GO) list $(PKG) | grep -v /benchmarks/); \
		$$test -p 1 $$($(GO) list $(PKG) | grep /benchmarks/ || echo ./benchmarks/measure)' | bin/testreport

.PHONY: race
race: ## Test under the race detector, without what needs the kernel
	CGO_ENABLED=1 $(GO) test -race -short -p 1 -timeout $(PACKAGE_TIMEOUT) \
		$$($(GO) list ./... | grep -vE '/(benchmarks|bpf)(/|$$)')

.PHONY: bench
bench: ## Run the Go benchmarks (BENCH=regexp PKG=packages)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 $(PKG)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME each (default 30s)
	@{ grep -rHoE '^func Fuzz\w+' --include='*_test.go' . || true; } | sed 's/:func /\t/' | sort | \
	while IFS=$$'\t' read -r file target; do \
		echo "== $$target ($$(dirname "$$file"))"; \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
	done

.PHONY: kernel-matrix
kernel-matrix: packages-matrix ## Load and record on ten kernels, 5.10 to 7.3, amd64 and arm64, in emulated machines
	KMX_FULL=1 internal/kernelmatrix/run.sh

.PHONY: bench-symbolize
bench-symbolize: packages-bench ## Compare lowflame's names, lines and inlined calls with llvm-symbolizer's, and what they cost
	$(GO) run ./benchmarks/symbolize

.PHONY: kernel-matrix-short
kernel-matrix-short: packages-matrix ## The same on the oldest and the newest, and the oldest on arm64
	internal/kernelmatrix/run.sh amd64/5.10 amd64/newest arm64/5.10

.PHONY: lint
lint: packages-lint ## golangci-lint, gofmt, clang-format, architecture ifdefs, go.mod
	$(GO) build -C tools -o $(CURDIR)/bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./...
	@unformatted=$$(gofmt -s -l $$(find . -name '*.go' -not -path './.git/*')); \
	if [ -n "$$unformatted" ]; then echo "not in gofmt's form:"; echo "$$unformatted"; exit 1; fi
	find bpf -name '*.[ch]' -print0 | xargs -0r $(CLANG_FORMAT) --dry-run -Werror
	@if grep -rn --include='*.[ch]' --exclude='arch*.h' --exclude-dir=include __TARGET_ARCH bpf/unwinder; then \
		echo "what depends on the architecture belongs in bpf/unwinder/arch*.h"; exit 1; fi
	$(GO) mod tidy -diff

.PHONY: fmt
fmt: packages-lint ## Put Go and C in the form that lint asks for
	gofmt -s -w $$(find . -name '*.go' -not -path './.git/*')
	find bpf -name '*.[ch]' -print0 | xargs -0r $(CLANG_FORMAT) -i

# Installs what is missing of $(1) from Debian; says how where it may not.
define ensure
	@if ! command -v dpkg-query >/dev/null; then \
		echo "not a Debian system; needed here: $(1)"; exit 0; \
	fi; \
	missing=(); \
	for p in $(1); do \
		dpkg-query -W -f='$${Status}\n' "$$p" 2>/dev/null | grep -q '^install ok installed$$' || missing+=("$$p"); \
	done; \
	if [ "$${#missing[@]}" -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ]; then \
		echo "missing: sudo apt-get install --no-install-recommends $${missing[*]}" >&2; exit 1; \
	fi; \
	echo "installing $${missing[*]}"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq -o Acquire::Retries=3 update </dev/null; \
	apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 install -y --no-install-recommends "$${missing[@]}" \
		</dev/null >/dev/null
endef

.PHONY: packages-generate packages-test packages-lint packages-matrix packages-bench
packages-generate:
	$(call ensure,$(GENERATE_PACKAGES))
packages-test:
	$(call ensure,$(TEST_PACKAGES))
packages-lint:
	$(call ensure,$(LINT_PACKAGES))
packages-bench:
	$(call ensure,$(BENCH_PACKAGES))
packages-matrix:
	$(call ensure,$(MATRIX_PACKAGES))

.PHONY: clang-version
clang-version:
	@found=$$($(BPF2GO_CC) --version | sed -nE '1s/.*clang version ([0-9.]+).*/\1/p'); \
	echo "$(BPF2GO_CC) is $$found"; \
	if [ "$$found" != "$(CLANG_VERSION)" ]; then \
		echo "The committed BPF objects were written by clang $(CLANG_VERSION); $$found may write other bytes." >&2; \
		echo "Install clang $(CLANG_VERSION), or set CLANG_VERSION in the Makefile and commit what make generate writes." >&2; \
		exit 1; \
	fi
