/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses of the one IP family that a program is compiled for: KPROXY_FAMILY is 4 or 6. */

#if KPROXY_FAMILY == 4
#define ADDRESS_WORDS 1
#else
#define ADDRESS_WORDS 4
#endif

struct address {
	__be32 word[ADDRESS_WORDS];
};
