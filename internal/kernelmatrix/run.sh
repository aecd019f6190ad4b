#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots Debian kernels in emulated machines, where init (see ./init) tries the BPF
# program and recordings, and prints a table. No root, no KVM.
#
#   run.sh [ARCH/SERIES ...]   such as amd64/5.10 arm64/6.12; amd64/newest
#   run.sh kernels ARCH        the kernels Debian has for amd64 or arm64
#
#   KMX_SET      the default for ARCH/SERIES, separated by spaces
#   KMX_FULL     not empty: also the checks that take long
#   KMX_DIR      downloads, programs and logs; kept for the next run
#   KMX_TIMEOUT  seconds a machine may run (600)
#   KMX_MIRROR   Debian mirror; that of this machine's apt otherwise
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
source=$(realpath "$here/../..")
work=${KMX_DIR:-${TMPDIR:-/tmp}/lowflame-kernelmatrix}
timeout=${KMX_TIMEOUT:-600}
all="amd64/5.10 amd64/6.1 amd64/6.12 amd64/6.16 amd64/6.18 amd64/7.3 arm64/5.10 arm64/6.1 arm64/6.12 arm64/7.3"
# With these the kernels above are all there, and a qemu that is new enough.
suites="bullseye bookworm bookworm-backports trixie trixie-backports"

main() {
	mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,kernels,logs}
	work=$(realpath "$work")
	if [ "${1:-}" = kernels ]; then
		packages "$2" | sed 's/^linux-[a-z]*-//' | sort -uV
		return
	fi
	local set=("$@") entry failed=0
	if [ ${#set[@]} -eq 0 ]; then
		read -ra set <<<"${KMX_SET:-$all}"
	fi
	use_qemu
	for arch in $(printf '%s\n' "${set[@]%%/*}" | sort -u); do
		build_initrd "$arch"
	done
	: >"$work/table"
	for entry in "${set[@]}"; do
		try "${entry%%/*}" "${entry#*/}" || failed=$((failed + 1))
	done
	printf '\n'
	{
		printf 'kernel\tarch\tverified instructions\tload ms\tEND\tseconds\tresult\n'
		cat "$work/table"
	} | column -t -s $'\t'
	printf '%d of %d kernels failed; logs are in %s\n' "$failed" "${#set[@]}" "$work/logs"
	[ "$failed" -eq 0 ]
}

# apt with lists of its own: the machine's configuration stays as it is.
apt_for() {
	local arch=$1 tool=$2
	shift 2
	"$tool" -qq -oDir::Etc::sourcelist="$work/sources.list" -oDir::Etc::sourceparts=/dev/null \
		-oDir::State::lists="$work/lists" -oDir::Cache="$work/cache" -oAPT::Sandbox::User="$(id -un)" \
		-oAPT::Architecture="$arch" -oAPT::Architectures="$arch" -oAcquire::Languages=none -oAcquire::Retries=3 \
		-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-oAcquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false \
		-oAcquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false \
		-oAPT::Get::List-Cleanup=0 "$@" </dev/null
}

# lists fetches the package lists of an architecture, once a week.
lists() {
	local arch=$1 mirror=${KMX_MIRROR:-} suite
	if [ -n "$(find "$work/lists" -maxdepth 1 -name "*binary-${arch}_Packages*" -mtime -7 -print -quit)" ]; then
		return
	fi
	if [ -z "$mirror" ]; then
		mirror=$(apt-get indextargets --format '$(SITE)' | grep -m1 '/debian/*$') ||
			{ echo "apt knows no Debian mirror: set KMX_MIRROR" >&2; return 1; }
	fi
	for suite in $suites; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
	done >"$work/sources.list"
	echo "fetching package lists for $arch"
	apt_for "$arch" apt-get update
}

# packages lists what holds kernels of an architecture, of the flavour without
# drivers. From 7.0 on linux-image-* is empty and depends on linux-binary-*.
packages() {
	lists "$1" >&2
	{
		apt_for "$1" apt-cache pkgnames linux-image-
		apt_for "$1" apt-cache pkgnames linux-binary-
	} | grep -E "^linux-(image|binary)-[0-9].*[-+].*cloud-$1\$"
}

# kernel prints the path of a kernel of a series, the newest Debian has.
kernel() {
	local arch=$1 series=$2 name package dir image
	name=$(packages "$arch" | sed -E 's/^linux-[a-z]*-//' | sort -uV |
		{ if [ "$series" = newest ]; then cat; else grep -E "^${series//./\\.}[.+-]" || true; fi; } | tail -1)
	if [ -z "$name" ]; then
		echo "Debian has no kernel $series for $arch: see $0 kernels $arch" >&2
		return 1
	fi
	dir=$work/kernels/$name
	if [ ! -e "$dir/vmlinuz" ]; then
		package=$(packages "$arch" | grep -xF -e "linux-binary-$name" -e "linux-image-$name" | sort | head -1)
		echo "fetching $package" >&2
		download "$arch" "$package"
		mkdir -p "$dir"
		dpkg-deb --fsys-tarfile "$work/debs/$package.deb" | tar -xO --wildcards '*/vmlinuz*' >"$dir/vmlinuz.part"
		[ -s "$dir/vmlinuz.part" ]
		mv "$dir/vmlinuz.part" "$dir/vmlinuz"
		rm "$work/debs/$package.deb"
	fi
	echo "$dir/vmlinuz"
}

# download leaves a package in debs/NAME.deb.
download() {
	local arch=$1 package=$2 dir=$work/debs/new
	rm -rf "$dir"
	mkdir "$dir"
	(cd "$dir" && apt_for "$arch" apt-get download "$package" >/dev/null)
	mv "$dir"/*.deb "$work/debs/${package%%/*}.deb"
	rmdir "$dir"
}

# use_qemu sets qemu, the words before its options. The emulator of qemu 7 now and
# then loses flags or races with a kernel that patches itself: panics that look
# like ours. Where the machine's own is older than 10, the one of
# bookworm-backports is unpacked beside it and uses its libraries.
use_qemu() {
	qemu_dir="" qemu_options=()
	local version package
	version=$(qemu-system-x86_64 --version | sed -nE '1s/.*version ([0-9]+).*/\1/p')
	if [ "$version" -ge 10 ]; then
		return
	fi
	qemu_dir=$work/qemu
	if [ ! -e "$qemu_dir/complete" ]; then
		lists amd64
		for package in qemu-system-{x86,arm,data,common} seabios; do
			echo "fetching $package"
			download amd64 "$package/bookworm-backports"
			dpkg-deb -x "$work/debs/$package.deb" "$qemu_dir"
			rm "$work/debs/$package.deb"
		done
		touch "$qemu_dir/complete"
	fi
	export QEMU_MODULE_DIR=$qemu_dir/usr/lib/x86_64-linux-gnu/qemu
	qemu_options=(-L "$qemu_dir/usr/share/qemu" -L "$qemu_dir/usr/share/seabios")
}

# build_initrd compiles what runs in the machine and packs it. Workloads are built
# as benchmarks/workloads does, but static: there is no libc in the machine.
build_initrd() {
	local arch=$1 root=$work/root-$1 src=$source/benchmarks/workloads/testdata cc=gcc name
	echo "building for $arch"
	if [ "$arch" != "$(dpkg --print-architecture)" ]; then
		case $arch in amd64) cc=x86_64-linux-gnu-gcc ;; arm64) cc=aarch64-linux-gnu-gcc ;; esac
	fi
	rm -rf "$root"
	mkdir -p "$root"/{bin,proc,sys,dev,tmp,src}
	cp "$source"/bpf/unwinder/*.[hc] "$root/src"
	(
		cd "$source"
		export CGO_ENABLED=0 GOARCH=$arch
		go build -trimpath -o "$root/init" ./internal/kernelmatrix/init
		go build -trimpath -o "$root/bin/lowflame" ./cmd/lowflame
		go test -c -trimpath -o "$root/bin/unwinder.test" ./bpf/unwinder
		go build -trimpath -o "$root/bin/goroutines" "$src/goroutines/main.go"
	)
	(cd "$source" && go run ./internal/kernelmatrix/build "$arch" "$root")
	for name in recursion syscalls; do
		"$cc" -static -O2 -fomit-frame-pointer -fno-optimize-sibling-calls -g0 -D_GNU_SOURCE -pthread \
			-o "$root/bin/$name" "$src/c/$name.c"
	done
	chmod 755 "$root"
	(cd "$root" && find . -print0 | cpio --null -o -H newc -R 0:0 --quiet | gzip -1) >"$work/initrd-$arch"
}

# try boots one kernel and adds its row to the table. A machine that panics is
# given one more chance, and the table says so.
try() {
	local arch=$1 series=$2 image log=$work/logs/$1-$2.log result began again=""
	if ! image=$(kernel "$arch" "$series"); then
		printf '%s\t%s\t-\t-\t-\t-\tno kernel\n' "$series" "$arch" >>"$work/table"
		return 1
	fi
	began=$SECONDS
	result=$(boot "$arch" "$image" "$log")
	if [ "$result" = panic ]; then
		mv "$log" "$log.panic"
		again=", second boot"
		result=$(boot "$arch" "$image" "$log")
	fi
	value() { sed -nE "s/^KMX value $1=(.*)/\1/p" "$log" | tr -d '\r' | head -1 | grep . || echo -; }
	printf '%s\t%s\t%s\t%s\t%s\t%d\t%s\n' "$(value release)" "$arch" "$(value instructions)" "$(value load_ms)" \
		"$(value end)" $((SECONDS - began)) "$result$again" | tee -a "$work/table" | tr '\t' ' '
	if [ "$result" != ok ]; then
		grep -a '^KMX FAIL' "$log" || tail -5 "$log"
		return 1
	fi
}

# boot runs one machine and prints ok, failed, panic or timeout.
boot() {
	local arch=$1 image=$2 log=$3 machine console status=0
	case $arch in
	amd64) machine=(qemu-system-x86_64 -M q35 -cpu max) console=ttyS0 ;;
	arm64) machine=(qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on) console=ttyAMA0 ;;
	esac
	timeout --kill-after=5 "$timeout" nice "${qemu_dir:+$qemu_dir/usr/bin/}${machine[@]}" ${qemu_options[@]+"${qemu_options[@]}"} \
		-accel tcg,thread=multi -smp 2 -m 1G -display none -serial stdio -monitor none -no-reboot -nic none \
		-kernel "$image" -initrd "$work/initrd-$arch" -append "console=$console panic=-1 quiet ${KMX_FULL:+KMX_FULL=1}" \
		</dev/null >"$log" 2>&1 || status=$?
	if grep -aqE 'Kernel panic|Oops:' "$log"; then
		echo panic
	elif [ "$status" -eq 124 ]; then
		echo timeout
	elif grep -aq '^KMX DONE fails=0' "$log" && ! grep -aq '^KMX FAIL' "$log"; then
		echo ok
	else
		echo failed
	fi
}

main "$@"
