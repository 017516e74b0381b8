/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Giving a packet other ends, with all checksums.
 *
 * Checksums change by the difference, so that what was garbled stays garbled. The kernel's helpers
 * know what no program can see: whether a device or the stack completes the checksum later.
 */

#include <kproxy/packet.h>
#include <kproxy/checksum.h>
#include <kproxy/sctp.h>

#if KPROXY_FAMILY == 4
#define ADDRESSES_OFFSET 12 /* from the IP header */
#define ADDRESSES_FLAGS 0 /* the header's own checksum makes up for them */
#else
#define ADDRESSES_OFFSET 8
#define ADDRESSES_FLAGS BPF_F_RECOMPUTE_CSUM
#endif
#define ADDRESSES_SIZE (2 * sizeof(struct address))

static __always_inline int has_ports(const struct packet *packet)
{
	if (packet->kind != PACKET_PLAIN)
		return 0;
	return packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP ||
	       packet->protocol == IPPROTO_SCTP;
}

static __always_inline __be32 ports_of(const struct ends *ends)
{
	__be32 ports;

	__builtin_memcpy(&ports, &ends->source_port, sizeof(ports));
	return ports;
}

/* Where the checksum that covers addresses too is in the header of L4; 0: it has none. */
static __always_inline __u32 pseudo_checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
		return 6;
#if KPROXY_FAMILY == 6
	case IPPROTO_ICMPV6:
		return 2;
#endif
	default:
		return 0;
	}
}

/* How addresses in the IP header change what sums them up. */
static __always_inline __u32 address_difference(const struct ends *from, const struct ends *to)
{
	return bpf_csum_diff((void *)&from->source, ADDRESSES_SIZE, (void *)&to->source,
			     ADDRESSES_SIZE, 0);
}

/* Ports of SCTP and its checksum, where that is not left to the device (0: it is). */
static __always_inline int rewrite_sctp(struct __sk_buff *skb, const struct packet *packet,
					__be32 ports)
{
	__u32 offset = packet->l4 + 8, length = packet->end - packet->l4;
	__le32 checksum;

	if (READ_AT(skb, offset, &checksum) < 0)
		return -1;
	if (checksum) {
		if (packet->first_fragment || length >= 1 << CRC_SHIFTS)
			return -1; /* its CRC covers more than is here */
		checksum ^= __cpu_to_le32(crc_after_zeros(
			__le32_to_cpu(ports_of(&packet->ends) ^ ports), length));
		if (bpf_skb_store_bytes(skb, offset, &checksum, sizeof(checksum),
					BPF_F_RECOMPUTE_CSUM) < 0)
			return -1;
	}
	return bpf_skb_store_bytes(skb, packet->l4, &ports, sizeof(ports), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Give a packet that read_packet() understood other ends; 0 or negative. After a failure it may be
 * altered in part: drop it. A later fragment gets other addresses alone, so does what has no ports.
 */
static __always_inline int rewrite_packet(struct __sk_buff *skb, struct packet *packet,
					  const struct ends *to)
{
	__u32 addresses = address_difference(&packet->ends, to);
	__u32 pseudo = packet->kind == PACKET_LATER_FRAGMENT ?
			       0 :
			       pseudo_checksum_offset(packet->protocol);
	__u32 flags = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be32 from_ports = ports_of(&packet->ends), to_ports = ports_of(to);
	int ports = has_ports(packet) && from_ports != to_ports;

	if (ports && packet->protocol == IPPROTO_SCTP && rewrite_sctp(skb, packet, to_ports) < 0)
		return -1;
	if (pseudo && bpf_l4_csum_replace(skb, packet->l4 + pseudo, 0, addresses,
					  flags | BPF_F_PSEUDO_HDR) < 0)
		return -1;
	if (ports && packet->protocol != IPPROTO_SCTP &&
	    (bpf_l4_csum_replace(skb, packet->l4 + pseudo, from_ports, to_ports,
				 flags | sizeof(to_ports)) < 0 ||
	     bpf_skb_store_bytes(skb, packet->l4, &to_ports, sizeof(to_ports), 0) < 0))
		return -1;
#if KPROXY_FAMILY == 4
	if (bpf_l3_csum_replace(skb, packet->l3 + offsetof(struct iphdr, check), 0, addresses, 0) < 0)
		return -1;
#endif
	if (bpf_skb_store_bytes(skb, packet->l3 + ADDRESSES_OFFSET, (void *)&to->source, ADDRESSES_SIZE,
				ADDRESSES_FLAGS) < 0)
		return -1;
	packet->ends = *to;
	return 0;
}
