/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors: they are about a packet that went the other way, as their sender saw it, and must
 * reach that packet's sender as if it had been about the packet as that one sent it.
 */

#include <kproxy/rewrite.h>

#define ICMP_HEADER 8
#define ICMP_CHECKSUM 2

/*
 * Read the packet that an error is about. Its kind is PACKET_PLAIN where its ends are known; a
 * flow is to be looked up by them.
 */
static __always_inline struct packet read_embedded(struct __sk_buff *skb,
						   const struct packet *error)
{
	struct packet embedded = { .l3 = error->l4 + ICMP_HEADER, .end = error->end };

	embedded.kind = read_network(skb, &embedded, 1);
	if (embedded.kind == PACKET_PLAIN &&
	    !is_same_address(&embedded.ends.source, &error->ends.destination))
		embedded.kind = PACKET_GARBLED;
	return embedded;
}

/* Rewrite the embedded L4 header; what the bytes from it on changed in sum, or negative. */
static __always_inline __s64 rewrite_embedded_l4(struct __sk_buff *skb,
						 const struct packet *embedded,
						 const struct ends *to, __u32 addresses)
{
	__u32 offset = embedded->l4 + pseudo_checksum_offset(embedded->protocol);
	__be32 ports = ports_of(to);
	__u64 difference = word_difference(ports_of(&embedded->ends), ports);
	__u16 before, after;

	if (!has_ports(embedded))
		return 0;
	if (bpf_skb_store_bytes(skb, embedded->l4, &ports, sizeof(ports), 0) < 0)
		return -1;
	/* The embedded packet may be cut off before it. SCTP's CRC covers what is cut off. */
	if (embedded->protocol == IPPROTO_SCTP || offset + sizeof(before) > embedded->end)
		return difference;
	if (READ_AT(skb, offset, &before) < 0)
		return -1;
	if (embedded->protocol == IPPROTO_UDP && before == 0)
		return difference;
	after = changed_checksum(before, difference + addresses);
	if (embedded->protocol == IPPROTO_UDP && after == 0)
		after = 0xffff;
	if (bpf_skb_store_bytes(skb, offset, &after, sizeof(after), 0) < 0)
		return -1;
	return difference + (__u16)~before + after;
}

/*
 * Make an error one about `embedded` with the ends `to`: that packet, and the error's own addresses
 * as far as they were its ends. 0 or negative; after a failure drop it.
 */
static __always_inline int rewrite_error(struct __sk_buff *skb, struct packet *error,
					 const struct packet *embedded, const struct ends *to)
{
	__u32 addresses = address_difference(&embedded->ends, to);
	struct ends outer = { .source = error->ends.source, .destination = to->source };
	__s64 sum = rewrite_embedded_l4(skb, embedded, to, addresses);

	if (sum < 0)
		return -1;
#if KPROXY_FAMILY == 4
	/* Together with the addresses this leaves the sum as it was. */
	if (bpf_l3_csum_replace(skb, embedded->l3 + offsetof(struct iphdr, check), 0, addresses,
				0) < 0)
		return -1;
#else
	sum += addresses;
#endif
	if (bpf_skb_store_bytes(skb, embedded->l3 + ADDRESSES_OFFSET, (void *)&to->source, ADDRESSES_SIZE,
				0) < 0 ||
	    bpf_l4_csum_replace(skb, error->l4 + ICMP_CHECKSUM, 0, folded(sum), 0) < 0)
		return -1;
	/* Who reports from behind a translated address shows that, as in netfilter. */
	if (!is_same_address(&to->destination, &embedded->ends.destination))
		outer.source = to->destination;
	return rewrite_packet(skb, error, &outer);
}
