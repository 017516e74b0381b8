/* SPDX-License-Identifier: GPL-2.0-only */
/* Sums of the Internet checksum (RFC 1071, RFC 1624), in whichever byte order they are loaded. */

/* A field's value for a sum. */
static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* What a checksum field becomes where what it covers changed by `difference`. */
static __always_inline __u16 changed_checksum(__u16 checksum, __u64 difference)
{
	return ~folded((__u16)~checksum + difference);
}

/* What sums change by where one word turns into another. */
static __always_inline __u32 word_difference(__be32 from, __be32 to)
{
	return bpf_csum_diff(&from, sizeof(from), &to, sizeof(to), 0);
}
