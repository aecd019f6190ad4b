// SPDX-License-Identifier: Apache-2.0
public class Idle {
	public static void main(String[] args) throws InterruptedException {
		Thread.sleep(Long.MAX_VALUE);
	}
}
