// SPDX-License-Identifier: Apache-2.0

int missing(int n);

int inside(int n)
{
	return missing(n) + 1;
}
