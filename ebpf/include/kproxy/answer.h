/* SPDX-License-Identifier: GPL-2.0-only */
/* Turning a packet into the answer to it (refuse.h). */

#include <kproxy/packet.h>
#include <kproxy/checksum.h>

#define ANSWER_HOPS 64

#if KPROXY_FAMILY == 4
#define ICMP_ECHO_REQUEST 8
#define ICMP_PORT_UNREACHABLE 3
#define ICMP_MTU_TYPE ICMP_UNREACHABLE
#define ICMP_MTU_CODE 4
#define ANSWER_MAX 576 /* RFC 1812, 4.3.2.3 */
struct ip_header {
	struct iphdr ip;
};
#else
#define ICMP_ECHO_REQUEST 128
#define ICMP_PORT_UNREACHABLE 4
#define ICMP_MTU_TYPE ICMP_TOO_BIG
#define ICMP_MTU_CODE 0
#define ANSWER_MAX 1280 /* RFC 4443, 2.4 */
struct ip_header {
	struct ipv6hdr ip;
};
#endif

struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 rest;
};

#define EMBEDDED_MAX (ANSWER_MAX - sizeof(struct ip_header) - sizeof(struct icmp_header))

/* What an answer embeds, to sum it up in steps of what the kernel sums at once. */
#define SUM_STEP 512
#define SUM_STEPS ((EMBEDDED_MAX + SUM_STEP - 1) / SUM_STEP)

struct embedded_bytes {
	__be32 word[SUM_STEPS * SUM_STEP / 4];
};

BPF_TABLE("percpu_array", int, struct embedded_bytes, embedded_scratch, 1);

/* The sum that an answer's pseudo header adds. */
static __always_inline __u64 pseudo_sum(const struct packet *packet, __u8 protocol, __u32 length)
{
	__u32 addresses = bpf_csum_diff(NULL, 0, (void *)&packet->ends.source,
					2 * sizeof(struct address), 0);

	return (__u64)addresses + bpf_htons(protocol) + bpf_htons(length);
}

/* The IP header of an answer to a packet that carries `length` bytes of `protocol`. */
static __always_inline struct ip_header answer_header(const struct packet *packet, __u8 protocol,
						      __u32 length)
{
	struct ip_header header = {};

#if KPROXY_FAMILY == 4
	header.ip.version = 4;
	header.ip.ihl = sizeof(header.ip) / 4;
	header.ip.tos = protocol == IPPROTO_ICMP ? 0xc0 : 0; /* RFC 1812, 4.3.2.5 */
	header.ip.tot_len = bpf_htons(sizeof(header.ip) + length);
	header.ip.frag_off = bpf_htons(0x4000); /* not to be fragmented: so it needs no id */
	header.ip.ttl = ANSWER_HOPS;
	header.ip.protocol = protocol;
	header.ip.saddr = packet->ends.destination.word[0];
	header.ip.daddr = packet->ends.source.word[0];
	header.ip.check = ~folded((__u32)bpf_csum_diff(NULL, 0, (void *)&header.ip,
						       sizeof(header.ip), 0));
#else
	header.ip.version = 6;
	header.ip.payload_len = bpf_htons(length);
	header.ip.nexthdr = protocol;
	header.ip.hop_limit = ANSWER_HOPS;
	__builtin_memcpy(&header.ip.saddr, &packet->ends.destination, sizeof(header.ip.saddr));
	__builtin_memcpy(&header.ip.daddr, &packet->ends.source, sizeof(header.ip.daddr));
#endif
	return header;
}

/*
 * Whether a checksum is left to the device: 1, 0 or negative. Only then bpf_l4_csum_replace() does
 * not touch a field for what is no part of the pseudo header. `offset` is that of any two bytes.
 */
static __always_inline int is_checksum_partial(struct __sk_buff *skb, __u32 offset)
{
	__u16 before, after;

	if (READ_AT(skb, offset, &before) < 0 || bpf_l4_csum_replace(skb, offset, 0, 1, 2) < 0 ||
	    READ_AT(skb, offset, &after) < 0 ||
	    bpf_skb_store_bytes(skb, offset, &before, sizeof(before), 0) < 0)
		return -1;
	return before == after;
}

/* Answer a segment of a connection that does not exist: RFC 9293, 3.10.7.1. */
static __always_inline int turn_into_reset(struct __sk_buff *skb, const struct packet *packet)
{
	struct {
		struct ip_header header;
		struct transport tcp;
	} answer = { .header = answer_header(packet, IPPROTO_TCP, sizeof(answer.tcp)) };
	int extra = packet->l4 - packet->l3 - sizeof(answer.header);
	__u32 length = packet->end - packet->l4 - packet->tcp_header;
	int partial = is_checksum_partial(skb, packet->l4);
	__u64 sum = pseudo_sum(packet, IPPROTO_TCP, sizeof(answer.tcp));

	if (partial < 0 || bpf_skb_change_tail(skb, packet->l4 + sizeof(answer.tcp), 0) < 0)
		return -1;
	/* Options and extension headers go; L4 stays where it is in memory. */
	if (extra > 0 && bpf_skb_adjust_room(skb, -extra, BPF_ADJ_ROOM_MAC, 0) < 0)
		return -1;
	answer.tcp.source_port = packet->ends.destination_port;
	answer.tcp.destination_port = packet->ends.source_port;
	answer.tcp.header = sizeof(answer.tcp) / 4 << 4;
	if (packet->tcp_flags & TCP_ACK) {
		answer.tcp.flags = TCP_RST;
		answer.tcp.sequence = bpf_htonl(packet->acknowledgment);
	} else {
		length += !!(packet->tcp_flags & TCP_SYN) + !!(packet->tcp_flags & TCP_FIN);
		answer.tcp.flags = TCP_RST | TCP_ACK;
		answer.tcp.acknowledgment = bpf_htonl(packet->sequence + length);
	}
	if (!partial)
		sum += (__u32)bpf_csum_diff(NULL, 0, (void *)&answer.tcp, sizeof(answer.tcp), 0);
	answer.tcp.checksum = partial ? folded(sum) : ~folded(sum);
	return bpf_skb_store_bytes(skb, packet->l3, &answer, sizeof(answer),
				   BPF_F_RECOMPUTE_CSUM);
}

/* The sum of `length` bytes of the packet from the IP header on, or negative. */
static __always_inline __s64 sum_up(struct __sk_buff *skb, const struct packet *packet,
				    __u64 length)
{
	struct embedded_bytes *bytes;
	__u64 sum = 0, words, left;
	int i, only = 0;

	bytes = embedded_scratch.lookup(&only);
	if (!bytes)
		return -1;
	/* Two comparisons, of what is used below: the verifier does not follow what one becomes. */
	asm volatile("" : "+r"(length));
	if (length < sizeof(struct ip_header))
		return -1;
	asm volatile("" : "+r"(length));
	if (length > EMBEDDED_MAX)
		return -1;
	asm volatile("" : "+r"(length));
	words = (length - 1) / 4 + 1;
	bytes->word[(length - 1) / 4] = 0;
	if (bpf_skb_load_bytes(skb, packet->l3, bytes, length) < 0)
		return -1;
#pragma unroll
	for (i = 0; i < SUM_STEPS; i++) {
		if (words * 4 <= i * SUM_STEP)
			break;
		left = words * 4 - i * SUM_STEP;
		if (left > SUM_STEP)
			left = SUM_STEP;
		asm volatile("" : "+r"(left)); /* or the verifier cannot tell it from another */
		if (left > SUM_STEP)
			break;
		sum += (__u32)bpf_csum_diff(NULL, 0, &bytes->word[i * SUM_STEP / 4], left, 0);
	}
	return sum;
}

/* Where a device that is to complete the checksum of L4 will write it; 0: not known. */
static __always_inline __u32 partial_checksum_offset(__u8 protocol)
{
	return protocol == IPPROTO_UDP ? 6 : protocol == IPPROTO_TCP ? 16 : 0;
}

/* Answer by an ICMP error of this type, with as much of the packet as is allowed. */
static __always_inline int turn_into_error(struct __sk_buff *skb, const struct packet *packet,
					   struct icmp_header icmp)
{
	__u32 field = partial_checksum_offset(packet->protocol);
	__u32 length = packet->end - packet->l3;
	struct {
		struct ip_header header;
		struct icmp_header icmp;
	} answer = { .icmp = icmp };
	__s64 sum;
	int partial = is_checksum_partial(skb, packet->l4);
	__u16 seed = 0;

	if (length > EMBEDDED_MAX)
		length = EMBEDDED_MAX;
	if (partial < 0 || bpf_skb_change_tail(skb, packet->l3 + length, 0) < 0)
		return -1;
	if (partial && field) {
		/* With the checksum filled in, L4 sums up to what was in its place, negated. */
		if (READ_AT(skb, packet->l4 + field, &seed) < 0)
			return -1;
		sum = sum_up(skb, packet, packet->l4 - packet->l3);
		seed = ~seed;
	} else {
		sum = sum_up(skb, packet, length);
	}
	if (sum < 0 || bpf_skb_adjust_room(skb, sizeof(answer), BPF_ADJ_ROOM_MAC, 0) < 0)
		return -1;
	answer.header = answer_header(packet, OWN_ICMP, sizeof(answer.icmp) + length);
	sum += seed + (__u32)bpf_csum_diff(NULL, 0, (void *)&answer.icmp, sizeof(answer.icmp), 0);
#if KPROXY_FAMILY == 6
	sum += pseudo_sum(packet, OWN_ICMP, sizeof(answer.icmp) + length);
#endif
	answer.icmp.checksum = ~folded(sum);
	return bpf_skb_store_bytes(skb, packet->l3, &answer, sizeof(answer),
				   BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int swap_link_addresses(struct __sk_buff *skb)
{
	__u16 old[6], swapped[6]; /* destination and source */
	int i;

	if (bpf_skb_load_bytes(skb, 0, old, sizeof(old)) < 0)
		return -1;
#pragma unroll
	for (i = 0; i < 6; i++)
		swapped[i] = old[(i + 3) % 6];
	return bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0);
}
