/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading IPv6 headers (packet.h). */

#include <uapi/linux/ipv6.h>

#define IPV6_EXTENSIONS_MAX 6

/* What all extension headers begin with, and what is in those of fragments and routing. */
struct extension {
	__u8 next;
	__u8 length; /* in units of 8 bytes without the first; of 4 in authentication headers */
	__be16 fragment; /* offset in units of 8 bytes, two bits, 1: more follow; routing: ... */
	__be32 fragment_id; /* ... type and segments left */
};

static __always_inline int is_unicast(const struct address *address)
{
	return (bpf_ntohl(address->word[0]) >> 24) != 0xff &&
	       (address->word[0] | address->word[1] | address->word[2] | address->word[3]);
}

/* Follow the extension headers; PACKET_PLAIN where they lead to L4. */
static __always_inline enum packet_kind read_extensions(struct __sk_buff *skb,
							struct packet *packet)
{
	struct extension extension;
	__u16 fragment;
	int i;

	for (i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
		switch (packet->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_DSTOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		default:
			return PACKET_PLAIN;
		}
		if (packet->l4 + sizeof(extension) > packet->end ||
		    READ_AT(skb, packet->l4, &extension) < 0)
			return PACKET_TRUNCATED;
		fragment = bpf_ntohs(extension.fragment);
		if (packet->protocol == IPPROTO_FRAGMENT) {
			packet->l4 += sizeof(extension);
			packet->fragment_id = bpf_ntohl(extension.fragment_id);
			if (packet->first_fragment)
				return PACKET_GARBLED;
			packet->first_fragment = fragment & 1;
		} else if (packet->protocol == IPPROTO_AH) {
			packet->l4 += (extension.length + 2) * 4;
		} else {
			packet->l4 += (extension.length + 1) * 8;
			if (packet->protocol == IPPROTO_ROUTING && (fragment & 0xff))
				return PACKET_SOURCE_ROUTED;
		}
		if (packet->l4 > packet->end)
			return PACKET_TRUNCATED;
		if (packet->protocol == IPPROTO_FRAGMENT && fragment >> 3) {
			packet->protocol = extension.next;
			packet->first_fragment = 0;
			return PACKET_LATER_FRAGMENT;
		}
		packet->protocol = extension.next;
	}
	return PACKET_EXTENSIONS;
}

/* Read the header at `l3`, of a packet that ends at `end` at the latest, and what follows it. */
static __always_inline enum packet_kind read_network(struct __sk_buff *skb, struct packet *packet,
						     const int embedded)
{
	enum packet_kind kind;
	struct ipv6hdr ip;
	__u32 end;

	if (READ_AT(skb, packet->l3, &ip) < 0)
		return PACKET_TRUNCATED;
	if (ip.version != 6)
		return PACKET_GARBLED;
	packet->l4 = packet->l3 + sizeof(ip);
	end = packet->l4 + bpf_ntohs(ip.payload_len);
	if (ip.payload_len == 0 && skb->gso_size)
		end = packet->end; /* larger than the field can say */
	if (end > packet->end && !embedded)
		return PACKET_TRUNCATED;
	if (end < packet->end)
		packet->end = end;
	if (packet->l4 > packet->end)
		return PACKET_TRUNCATED;
	packet->protocol = ip.nexthdr;
	__builtin_memcpy(&packet->ends.source, &ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(&packet->ends.destination, &ip.daddr, sizeof(ip.daddr));
	if (!is_unicast(&packet->ends.source) || !is_unicast(&packet->ends.destination))
		return PACKET_NOT_UNICAST;
	kind = read_extensions(skb, packet);
	if (kind != PACKET_PLAIN)
		return kind;
	return read_transport(skb, packet, embedded);
}
