/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading IPv4 headers (packet.h). */

#define IPV4_OPTIONS_MAX 40

/* Whether options name further hops: then the last one is the destination that L4 sums up. */
static __always_inline int is_source_routed(struct __sk_buff *skb, __u32 at, __u32 end)
{
	__u8 option[2]; /* kind and length; padding is a kind alone */
	int i;

	for (i = 0; i < IPV4_OPTIONS_MAX && at < end; i++) {
		if (bpf_skb_load_bytes(skb, at, option, sizeof(option)) < 0)
			return 0;
		if (option[0] == IPOPT_END)
			return 0;
		if (option[0] == IPOPT_LSRR || option[0] == IPOPT_SSRR)
			return 1;
		at += option[0] == IPOPT_NOOP ? 1 : option[1];
	}
	return 0;
}

static __always_inline int is_unicast(const struct address *address)
{
	__u8 first = bpf_ntohl(address->word[0]) >> 24;

	return first != 0 && first < 224;
}

/* Read the header at `l3`, of a packet that ends at `end` at the latest, and what follows it. */
static __always_inline enum packet_kind read_network(struct __sk_buff *skb, struct packet *packet,
						     const int embedded)
{
	struct iphdr ip;
	__u32 header, total, end;
	__u16 fragment;

	if (READ_AT(skb, packet->l3, &ip) < 0)
		return PACKET_TRUNCATED;
	header = ip.ihl * 4;
	total = bpf_ntohs(ip.tot_len);
	if (total == 0 && skb->gso_size)
		total = packet->end - packet->l3; /* larger than the field can say */
	if (ip.version != 4 || header < sizeof(ip) || total < header)
		return PACKET_GARBLED;
	end = packet->l3 + total;
	if (end > packet->end && !embedded)
		return PACKET_TRUNCATED;
	if (end < packet->end)
		packet->end = end;
	packet->l4 = packet->l3 + header;
	if (packet->l4 > packet->end)
		return PACKET_TRUNCATED;
	packet->protocol = ip.protocol;
	packet->ends.source.word[0] = ip.saddr;
	packet->ends.destination.word[0] = ip.daddr;
	if (!is_unicast(&packet->ends.source) || !is_unicast(&packet->ends.destination))
		return PACKET_NOT_UNICAST;
	if (header > sizeof(ip) && is_source_routed(skb, packet->l3 + sizeof(ip), packet->l4))
		return PACKET_SOURCE_ROUTED;
	fragment = bpf_ntohs(ip.frag_off);
	packet->fragment_id = bpf_ntohs(ip.id);
	if (fragment & 0x1fff)
		return PACKET_LATER_FRAGMENT;
	packet->first_fragment = fragment >> 13 & 1;
	return read_transport(skb, packet, embedded);
}
