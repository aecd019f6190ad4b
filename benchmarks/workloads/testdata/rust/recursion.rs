// SPDX-License-Identifier: Apache-2.0
// Rust with panic=abort, no debug information and no frame pointers: a function
// pointer called at the end of a recursion of two functions with unlike frames.
// Without -C force-unwind-tables rustc 1.63 describes only some of them in
// .eh_frame: hot, cold and main, not run, unit and the levels between.
// Truth: main → work::main → work::run → (work::even_level → work::odd_level) × 20
// → work::unit → work::hot, about 70 % of the CPU, or work::cold.
use std::time::{Duration, Instant};

const CHUNK: u64 = 300_000;

#[repr(C)]
struct Timespec {
    sec: i64,
    nsec: i64,
}

const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
const CLOCK_THREAD_CPUTIME_ID: i32 = 3;

extern "C" {
    fn clock_gettime(clock: i32, t: *mut Timespec) -> i32;
}

/// Hides a value from the optimizer; std::hint::black_box needs Rust 1.66.
#[inline(always)]
fn black_box<T: Copy>(x: T) -> T {
    unsafe { std::ptr::read_volatile(&x) }
}

fn cpu_ns(clock: i32) -> u64 {
    let mut t = Timespec { sec: 0, nsec: 0 };
    unsafe { clock_gettime(clock, &mut t) };
    t.sec as u64 * 1_000_000_000 + t.nsec as u64
}

struct State {
    rng: u64,
    ns: [u64; 2],
}

impl State {
    fn next(&mut self) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng
    }
}

#[inline(never)]
fn hot(n: u64, mut x: u64) -> u64 {
    for i in 0..n {
        x ^= x >> 29;
        x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i);
    }
    x
}

#[inline(never)]
fn cold(n: u64, mut x: u64) -> u64 {
    for i in 0..n {
        x ^= x >> 29;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(i);
    }
    x
}

#[inline(never)]
fn unit(s: &mut State) -> u64 {
    let which = (s.next() % 10 >= 7) as usize;
    let burn: fn(u64, u64) -> u64 = black_box(if which == 0 { hot } else { cold });
    let want = 10_000_000 + s.next() % 20_000_000;
    let start = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
    let mut x = start;
    loop {
        x = burn(CHUNK, x);
        let used = cpu_ns(CLOCK_THREAD_CPUTIME_ID) - start;
        if used >= want {
            s.ns[which] += used;
            return x;
        }
    }
}

#[inline(never)]
fn even_level(depth: u32, s: &mut State) -> u64 {
    let r = if depth > 1 { odd_level(depth - 1, s) } else { unit(s) };
    black_box(r) ^ depth as u64
}

#[inline(never)]
fn odd_level(depth: u32, s: &mut State) -> u64 {
    let ballast = black_box([depth as u64; 7]);
    let r = if depth > 1 { even_level(depth - 1, s) } else { unit(s) };
    black_box(r).wrapping_add(ballast[3])
}

#[inline(never)]
fn run(deadline: Instant, s: &mut State) {
    while Instant::now() < deadline {
        black_box(even_level(40, s));
    }
}

#[inline(never)]
fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(5.0, |a| a.parse().unwrap());
    let mut s = State { rng: 88172645463325252, ns: [0, 0] };
    run(Instant::now() + Duration::from_secs_f64(seconds), &mut s);
    let total = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
    let part = |i: usize, name: &str| {
        format!(
            "{{\"function\":\"work::{name}\",\"under\":false,\"share\":{:.5},\"chain\":[\"_start\",\"...\",\"main\",\"...\",\"work::main\",\"work::run\",\"(work::even_level work::odd_level)*20\",\"work::unit\",\"work::{name}\"]}}",
            s.ns[i] as f64 / total as f64
        )
    };
    println!(
        "{{\"pid\":{},\"cpu_ns\":{total},\"truth\":[{},{}],\"present\":[]}}",
        std::process::id(),
        part(0, "hot"),
        part(1, "cold")
    );
}
