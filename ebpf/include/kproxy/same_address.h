/* SPDX-License-Identifier: GPL-2.0-only */
/* Apart from the layouts that Python packs, which a compiler of the host reads as well. */

#include <kproxy/address.h>

static __always_inline int is_same_address(const struct address *a, const struct address *b)
{
	__be32 difference = 0;
	int i;

#pragma unroll
	for (i = 0; i < ADDRESS_WORDS; i++)
		difference |= a->word[i] ^ b->word[i];
	return !difference;
}
