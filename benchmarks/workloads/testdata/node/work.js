// SPDX-License-Identifier: Apache-2.0

// JavaScript as it comes: interpreted, then compiled, with recursion, callbacks from
// built-in functions and library code. leaf is the hottest function, below down.
'use strict';

function leaf(n) {
  let s = 0;
  for (let i = 0; i < n; i++) s = (s * 31 + i) | 0;
  return s;
}

function down(depth, n) {
  return depth === 0 ? leaf(n) : down(depth - 1, n) + 1;
}

let sink = 0;
const end = Date.now() + 1000 * Number(process.argv[2]);
while (Date.now() < end) {
  sink ^= down(20, 500000);
  const a = Array.from({length: 2000}, (_, i) => (i * 7919) % 2003);
  sink ^= a.sort((x, y) => x - y).map(x => x + 1).reduce((x, y) => (x + y) | 0, 0);
  sink ^= JSON.stringify(a).replace(/1(2|3)/g, '$1').length;
}
process.exitCode = sink === 0.5 ? 1 : 0;
