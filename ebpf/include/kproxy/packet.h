/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a packet is, read once from an skb of tc and never altered here (rewrite.h does that).
 *
 * read_packet() says what kind it is. Kinds above PACKET_ERROR are none of ours: pass them on
 * untouched. Numbers in `struct packet` are in the machine's order, ends in the network's.
 */

#include <kproxy/same_address.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/if_packet.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include <uapi/linux/ip.h>

#if KPROXY_FAMILY == 4
#define OWN_ETHERTYPE bpf_htons(ETH_P_IP)
#define OWN_ICMP IPPROTO_ICMP
enum icmp_type { ICMP_UNREACHABLE = 3, ICMP_EXCEEDED = 11, ICMP_PROBLEM = 12 };
#else
#define OWN_ETHERTYPE bpf_htons(ETH_P_IPV6)
#define OWN_ICMP IPPROTO_ICMPV6
enum icmp_type { ICMP_UNREACHABLE = 1, ICMP_TOO_BIG, ICMP_EXCEEDED, ICMP_PROBLEM };
#endif

/* A packet's ends, in one of the views that places have of it. */
struct ends {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
};

enum packet_kind {
	PACKET_PLAIN, /* with its L4 header; a first fragment too */
	PACKET_LATER_FRAGMENT, /* without one: ports are 0 until recall_fragment() (fragment.h) */
	PACKET_ERROR, /* of ICMP, about another packet (icmp.h) */

	PACKET_OTHER_FAMILY,
	PACKET_TAGGED, /* VLAN: its own device will see it without the tag */
	PACKET_LINK_UNKNOWN, /* neither an Ethernet header nor none */
	PACKET_NOT_UNICAST,
	PACKET_SOURCE_ROUTED, /* the address in the header is not where it goes to in the end */
	PACKET_EXTENSIONS, /* more IPv6 extension headers than are walked */
	PACKET_TRUNCATED,
	PACKET_GARBLED,
};

struct packet {
	struct ends ends; /* ports are 0 where the protocol has none */
	__u32 l3; /* offsets into the skb: of the IP header, ... */
	__u32 l4; /* ... of what its last extension header leads to, ... */
	__u32 end; /* ... and behind the last byte of the IP packet */
	__u32 fragment_id; /* of fragments */
	__u32 sequence; /* TCP: this and all below */
	__u32 acknowledgment;
	__u16 window; /* as sent, not scaled */
	__u8 tcp_flags; /* enum tcp_flags */
	__u8 tcp_header; /* its length with options */
	__u8 kind;
	__u8 protocol;
	__u8 first_fragment; /* 1: more of the packet follows in fragments */
	__u8 icmp_type; /* ICMP: this and the one below */
	__u8 icmp_code;
	__u8 pad[3];
};

enum tcp_flags { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

/* The first 20 bytes of L4, as TCP names them; the ports are where UDP and SCTP have theirs. */
struct transport {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgment;
	__u8 header; /* high nibble: length in words */
	__u8 flags;
	__be16 window;
	__u16 checksum;
	__be16 urgent;
};

/*
 * Read what `to` points at; from the linear part without a call. Negative: it is not there. Headers
 * lie in the first 32 KiB; the verifier, which forgets bounds of what was in memory, is told so.
 */
#define READ_AT(skb, offset, to)                                                                   \
	({                                                                                         \
		__u64 offset_ = (offset);                                                          \
		int result_ = 0;                                                                   \
		void *at_;                                                                         \
                                                                                                   \
		asm volatile("%0 &= 0x7fff" : "+r"(offset_));                                      \
		at_ = (void *)(long)(skb)->data + offset_;                                         \
		if (at_ + sizeof(*(to)) <= (void *)(long)(skb)->data_end)                          \
			*(to) = *(typeof(to))at_;                                                  \
		else                                                                               \
			result_ = bpf_skb_load_bytes(skb, offset_, to, sizeof(*(to)));             \
		result_;                                                                           \
	})

/*
 * Where the IP header is: ETH_HLEN, 0 or negative.
 *
 * Devices without a link header (WireGuard, tun, ipip) show the IP header first. An address of
 * Ethernet may begin like such a header, so where it does the kernel's own network header decides:
 * only if it lies at the first byte the last linear byte can be reached by its distance from there.
 */
static __always_inline int network_offset(struct __sk_buff *skb)
{
	struct {
		__u8 version;
		__u8 addresses[11];
		__be16 protocol;
		__u8 last[2];
	} __attribute__((aligned(4))) start;
	__u64 linear;

	if (READ_AT(skb, 0, &start) < 0)
		return -1;
	if (start.version >> 4 == KPROXY_FAMILY) {
		linear = (void *)(long)skb->data_end - (void *)(long)skb->data;
		asm volatile("" : "+r"(linear)); /* no arithmetic but this is allowed on them */
		if (bpf_skb_load_bytes_relative(skb, linear - 1, start.last, 1,
						BPF_HDR_START_NET) == 0)
			return 0;
	}
	return start.protocol == skb->protocol ? ETH_HLEN : -1;
}

/* Whether an ICMP message is an error about another packet that a sender should hear of. */
static __always_inline int is_icmp_error(__u8 type)
{
#if KPROXY_FAMILY == 4
	return type == ICMP_UNREACHABLE || type == ICMP_EXCEEDED || type == ICMP_PROBLEM;
#else
	return type >= ICMP_UNREACHABLE && type <= ICMP_PROBLEM;
#endif
}

/*
 * Read L4 of a packet that is no later fragment. Of an embedded one (in an ICMP error) the first
 * eight bytes must do.
 */
static __always_inline enum packet_kind read_transport(struct __sk_buff *skb,
						       struct packet *packet, const int embedded)
{
	struct transport transport = {};
	__u32 length = packet->end - packet->l4;
	__u32 size = 8;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		size = embedded ? 8 : 20;
		break;
	case IPPROTO_SCTP:
		size = embedded ? 8 : 12;
		break;
	case IPPROTO_UDP:
	case OWN_ICMP:
		break;
	default:
		return PACKET_PLAIN;
	}
	if (length < size)
		return PACKET_TRUNCATED;
	if (size == sizeof(transport) ?
		    READ_AT(skb, packet->l4, &transport) < 0 :
		    READ_AT(skb, packet->l4, (__u64 *)&transport) < 0)
		return PACKET_TRUNCATED;
	if (packet->protocol == OWN_ICMP) {
		packet->icmp_type = ((__u8 *)&transport)[0];
		packet->icmp_code = ((__u8 *)&transport)[1];
		return is_icmp_error(packet->icmp_type) && !packet->first_fragment ? PACKET_ERROR :
										     PACKET_PLAIN;
	}
	packet->ends.source_port = transport.source_port;
	packet->ends.destination_port = transport.destination_port;
	if (packet->protocol != IPPROTO_TCP)
		return PACKET_PLAIN;
	packet->sequence = bpf_ntohl(transport.sequence);
	if (embedded)
		return PACKET_PLAIN;
	packet->acknowledgment = bpf_ntohl(transport.acknowledgment);
	packet->window = bpf_ntohs(transport.window);
	packet->tcp_flags = transport.flags;
	packet->tcp_header = transport.header >> 4 << 2;
	if (packet->tcp_header < 20 || packet->tcp_header > length)
		return PACKET_GARBLED;
	return PACKET_PLAIN;
}

#if KPROXY_FAMILY == 4
#include <kproxy/ipv4.h>
#else
#include <kproxy/ipv6.h>
#endif

/* Read what a program was given, whatever it is: see `kind`. */
static __always_inline struct packet read_packet(struct __sk_buff *skb)
{
	struct packet packet = {};
	int l3;

	if (skb->protocol != OWN_ETHERTYPE) {
		packet.kind = PACKET_OTHER_FAMILY;
		return packet;
	}
	if (skb->vlan_present) {
		packet.kind = PACKET_TAGGED;
		return packet;
	}
	if (skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST) {
		packet.kind = PACKET_NOT_UNICAST;
		return packet;
	}
	l3 = network_offset(skb);
	if (l3 < 0) {
		packet.kind = PACKET_LINK_UNKNOWN;
		return packet;
	}
	packet.l3 = l3;
	packet.end = skb->len;
	packet.kind = read_network(skb, &packet, 0);
	return packet;
}
