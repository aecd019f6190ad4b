// SPDX-License-Identifier: Apache-2.0
setInterval(() => {}, 1 << 30);
