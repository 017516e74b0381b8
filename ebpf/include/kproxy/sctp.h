/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SCTP's CRC32c after a change of ports.
 *
 * A CRC is linear: what it changes by depends on the changed bits alone and on how many bytes come
 * after them. Table n of the map takes a CRC's state over 2^n zero bytes, so that as many lookups
 * do as the packet's length has bits set. The agent fills it (backends/ebpf/render/crc32c.py).
 */

struct crc_shift {
	__u32 by_byte[4][256]; /* of the state, the lowest byte first */
};

#define CRC_SHIFTS 16

BPF_TABLE("array", int, struct crc_shift, crc_shifts, CRC_SHIFTS);

/* A CRC's state after `length` zero bytes; 0 where the tables are not there. */
static __always_inline __u32 crc_after_zeros(__u32 state, __u32 length)
{
	const struct crc_shift *shift;
	int i;

	for (i = 0; i < CRC_SHIFTS; i++) {
		int index = i;

		if (!(length >> i & 1))
			continue;
		shift = crc_shifts.lookup(&index);
		if (!shift)
			return 0;
		state = shift->by_byte[0][state & 0xff] ^ shift->by_byte[1][state >> 8 & 0xff] ^
			shift->by_byte[2][state >> 16 & 0xff] ^ shift->by_byte[3][state >> 24];
	}
	return state;
}
