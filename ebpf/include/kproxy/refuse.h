/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Refusals: the packet itself is turned into the answer and goes back where it came from.
 *
 * The caller then redirects it to its own device: at ingress out of it, at egress (the node's own
 * packets) to its ingress.
 *
 * Where the stack left the checksum to the device (CHECKSUM_PARTIAL) that stays so, and no program
 * can undo it: whoever sends the answer still sums up all from the old L4 header on and writes what
 * comes out there. So a reset keeps its place and holds the sum of its pseudo header only, and an
 * ICMP error counts on that field becoming what makes the rest cancel out.
 */

#include <kproxy/answer.h>

enum refusal {
	REFUSAL_SENT, /* the packet is the answer: redirect it */
	REFUSAL_SILENT, /* what must never be answered: drop it */
	REFUSAL_LIMITED, /* enough answers for now: drop it */
	REFUSAL_FAILED, /* the kernel did not let it be altered: drop it */
};

/* Answers per CPU: each takes so long of the bucket, and the bucket holds so many. */
#define REFUSAL_INTERVAL_NS 100000
#define REFUSAL_BURST 2000

enum refusal_kind { REFUSAL_RESET, REFUSAL_ERROR, REFUSAL_KINDS };

/* When the bucket is full again, by kind of answer. */
BPF_TABLE("percpu_array", int, __u64, refusal_buckets, REFUSAL_KINDS);

static __always_inline int take_token(int kind)
{
	__u64 now_ns = bpf_ktime_get_ns();
	__u64 *full = refusal_buckets.lookup(&kind);

	if (!full)
		return 0;
	if (*full < now_ns)
		*full = now_ns;
	if (*full - now_ns > (REFUSAL_BURST - 1) * (__u64)REFUSAL_INTERVAL_NS)
		return 0;
	*full += REFUSAL_INTERVAL_NS;
	return 1;
}

/* RFC 1122, 3.2.2; RFC 4443, 2.4. */
static __always_inline int may_cause_error(const struct packet *packet)
{
	return packet->kind == PACKET_PLAIN &&
	       (packet->protocol != OWN_ICMP || packet->icmp_type == ICMP_ECHO_REQUEST);
}

/* RFC 9293, 3.10.7.1. */
static __always_inline int may_cause_reset(const struct packet *packet)
{
	if (packet->kind != PACKET_PLAIN || packet->tcp_flags & TCP_RST)
		return 0;
	/* What a reset without an acknowledgment to go by must acknowledge is not all here. */
	return packet->tcp_flags & TCP_ACK || !packet->first_fragment;
}

/* Send back what a packet was turned into, or did not let itself be turned into. */
static __always_inline enum refusal sent_back(struct __sk_buff *skb, const struct packet *packet,
					      int turned)
{
	if (turned < 0 || (packet->l3 == ETH_HLEN && swap_link_addresses(skb) < 0))
		return REFUSAL_FAILED;
	return REFUSAL_SENT;
}

static __always_inline enum refusal refuse_by_error(struct __sk_buff *skb,
						    const struct packet *packet,
						    struct icmp_header icmp)
{
	if (!may_cause_error(packet))
		return REFUSAL_SILENT;
	if (!take_token(REFUSAL_ERROR))
		return REFUSAL_LIMITED;
	return sent_back(skb, packet, turn_into_error(skb, packet, icmp));
}

/* Refuse a packet: TCP by a reset, all else by ICMP. */
static __always_inline enum refusal refuse(struct __sk_buff *skb, const struct packet *packet)
{
	struct icmp_header icmp = { .type = ICMP_UNREACHABLE, .code = ICMP_PORT_UNREACHABLE };

	if (packet->protocol != IPPROTO_TCP)
		return refuse_by_error(skb, packet, icmp);
	if (!may_cause_reset(packet))
		return REFUSAL_SILENT;
	if (!take_token(REFUSAL_RESET))
		return REFUSAL_LIMITED;
	return sent_back(skb, packet, turn_into_reset(skb, packet));
}

/* Refuse a packet because it is larger than what lies before it takes. */
static __always_inline enum refusal refuse_too_big(struct __sk_buff *skb,
						   const struct packet *packet, __u32 mtu)
{
	struct icmp_header icmp = { .type = ICMP_MTU_TYPE,
				    .code = ICMP_MTU_CODE,
				    .rest = bpf_htonl(mtu) };

	return refuse_by_error(skb, packet, icmp);
}
