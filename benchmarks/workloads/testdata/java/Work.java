// SPDX-License-Identifier: Apache-2.0

/**
 * Java code as it comes: interpreted at first, then compiled twice, with recursion, calls
 * through interfaces, library code, allocation and exceptions. Work.leaf is the hottest
 * method, below Work.down at a known depth; every Java frame is below Work.main, and that
 * below JavaCalls::call_helper and the start of a thread.
 */
public class Work {
    static volatile long sink;

    interface Step {
        long take(long n);
    }

    static long leaf(long n) {
        long s = 0;
        for (long i = 0; i < n; i++) {
            s = Long.rotateLeft(s + (i * i ^ i >> 3), 3);
        }
        return s;
    }

    static long down(int depth, long n) {
        return depth == 0 ? leaf(n) : down(depth - 1, n) + 1;
    }

    static long caught(int depth) {
        if (depth == 0) {
            throw new IllegalStateException();
        }
        return caught(depth - 1) + 1;
    }

    static void unit(Step[] steps) {
        sink += down(20, 200_000);
        for (int i = 0; i < 1000; i++) {
            sink += steps[i % steps.length].take(i);
        }
        StringBuilder b = new StringBuilder();
        for (int i = 0; i < 2000; i++) {
            b.append(i);
        }
        sink += b.toString().hashCode();
        int[] x = new int[20_000];
        for (int i = 0; i < x.length; i++) {
            x[i] = (int) (sink * 31 + i * 7919);
        }
        java.util.Arrays.sort(x);
        for (int i = 0; i < 20; i++) {
            try {
                sink += caught(i);
            } catch (IllegalStateException e) {
                sink += x[i];
            }
        }
    }

    /** Writes /tmp/perf-PID.map, as jcmd PID Compiler.perfmap has it done. */
    static void writePerfMap() throws Exception {
        java.lang.management.ManagementFactory.getPlatformMBeanServer().invoke(
            new javax.management.ObjectName("com.sun.management:type=DiagnosticCommand"),
            "compilerPerfmap", new Object[0], new String[0]);
    }

    public static void main(String[] args) throws Exception {
        long begin = System.nanoTime();
        long end = begin + (long) (Double.parseDouble(args[0]) * 1e9);
        boolean map = args.length > 1;
        Step[] steps = {n -> n * 3, n -> leaf(n & 63), n -> Long.toString(n).length()};
        while (System.nanoTime() < end) {
            unit(steps);
            if (map && System.nanoTime() - begin > (end - begin) / 3) {
                writePerfMap();
                map = false;
            }
        }
    }
}
