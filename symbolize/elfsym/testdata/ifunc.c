// SPDX-License-Identifier: Apache-2.0

/* chosen is called through a stub, which the resolver below fills. */
static int plain(void)
{
	return 1;
}

static __attribute__((used)) int (*pick_one(void))(void)
{
	return plain;
}

int chosen(void) __attribute__((ifunc("pick_one")));

int main(void)
{
	return chosen() + chosen();
}
