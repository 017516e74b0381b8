/* SPDX-License-Identifier: GPL-2.0-only */
/* What a packet tells of the flow that it belongs to, kept in the entry that it met. */

#include <kproxy/conntrack.h>
#include <kproxy/flow.h>
#include <kproxy/packet.h>

/*
 * How far behind what was acknowledged a reset is believed: the window as sent, times 2^8. Windows
 * are scaled by what both ends said in their first segments, which is not kept; at 2^8 they reach
 * 16 MB, and guessing one still takes some hundred resets.
 */
#define WINDOW_SCALE 8

#define UNANSWERED 1 /* units of now(), and what is left of one */

/* First chunks of SCTP packets that say how it is with an association: RFC 9260, 3.2. */
enum sctp_chunk {
	SCTP_INIT = 1,
	SCTP_ABORT = 6,
	SCTP_SHUTDOWN_ACK = 8,
	SCTP_SHUTDOWN_COMPLETE = 14,
	SCTP_UNREAD = 255,
};

static __always_inline __u8 first_chunk(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 type = SCTP_UNREAD;

	if (packet->kind == PACKET_PLAIN && READ_AT(skb, packet->l4 + 12, &type) < 0)
		return SCTP_UNREAD;
	return type;
}

/* Whether a packet can open a flow; any can but a TCP segment of a connection under way. */
static __always_inline int is_opening(const struct packet *packet)
{
	return packet->protocol != IPPROTO_TCP ||
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/*
 * Whether a packet that meets a flow which was used already may be the first of another one. No
 * datagram says so: where it or the flow is somebody else's, it may.
 */
static __always_inline int is_opening_again(struct __sk_buff *skb, const struct flow *flow,
					    const struct packet *packet)
{
	if (packet->protocol == IPPROTO_UDP)
		return flow->side == ENDPOINT_SIDE || flow->flags & FLOW_TRACKED;
	if (packet->protocol == IPPROTO_SCTP)
		return first_chunk(skb, packet) == SCTP_INIT;
	return packet->protocol == IPPROTO_TCP && packet->kind == PACKET_PLAIN &&
	       is_opening(packet);
}

/* Where the packets of a direction come in: the stack side alone may see both. */
static __always_inline __u8 senders_side(const struct flow *flow, int forward)
{
	return forward ? CLIENT_SIDE : far_side(flow);
}

/*
 * Whether a reset is one that its receiver believes: what both ends ignore must not end a flow.
 * What the receiver acknowledged is in the entry that its own packets meet.
 */
static __always_inline int is_reset_in_window(const struct flow *flow, const struct packet *packet,
					      int forward)
{
	__u8 receivers_side = senders_side(flow, !forward);
	__u64 has_acknowledged = forward ? STATE_REPLIED : STATE_ACKNOWLEDGED;
	const struct flow *receiver;

	receiver = flow->side == receivers_side ? flow :
						  flow_at_side(flow, receivers_side, IPPROTO_TCP);
	if (!receiver || !(receiver->state & has_acknowledged))
		return 1;
	return packet->sequence - receiver->acknowledged <= receiver->window << WINDOW_SCALE;
}

static __always_inline __u64 note_segment(struct flow *flow, const struct packet *packet,
					  int forward)
{
	__u64 seen = 0;

	if (packet->tcp_flags & TCP_RST)
		return is_reset_in_window(flow, packet, forward) ? STATE_RESET : 0;
	if (packet->tcp_flags & TCP_ACK && flow->side == senders_side(flow, forward)) {
		flow->acknowledged = packet->acknowledgment;
		flow->window = packet->window;
		if (forward)
			seen |= STATE_ACKNOWLEDGED;
	}
	if (packet->tcp_flags & TCP_FIN)
		seen |= forward ? STATE_FIN_FORWARD : STATE_FIN_REVERSE;
	return seen;
}

/* An association counts as open with what the client sends after a reply: its cookie. */
static __always_inline __u64 note_chunk(struct __sk_buff *skb, const struct flow *flow,
					const struct packet *packet, int forward)
{
	switch (first_chunk(skb, packet)) {
	case SCTP_ABORT:
	case SCTP_SHUTDOWN_COMPLETE:
		return STATE_RESET;
	case SCTP_SHUTDOWN_ACK:
		return forward ? STATE_FIN_FORWARD : STATE_FIN_REVERSE;
	case SCTP_INIT:
	case SCTP_UNREAD:
		return 0;
	default:
		return forward && flow->state & STATE_REPLIED ? STATE_ACKNOWLEDGED : 0;
	}
}

static __always_inline void note_packet(struct __sk_buff *skb, struct flow *flow,
					const struct packet *packet, int forward)
{
	__u64 seen = forward ? 0 : STATE_REPLIED;
	__u32 stamp = now();

	if (flow->stamp != stamp)
		flow->stamp = stamp;
	if (packet->protocol == IPPROTO_TCP && packet->kind == PACKET_PLAIN)
		seen |= note_segment(flow, packet, forward);
	else if (packet->protocol == IPPROTO_SCTP)
		seen |= note_chunk(skb, flow, packet, forward);
	note_state(flow, seen, packet->protocol);
}

/*
 * Whether an entry is where somebody shows that the ports of a flow are used for another one: its
 * client, or who was given the flow's port on the node by the kernel.
 */
static __always_inline int may_be_former(const struct __sk_buff *skb, const struct flow *flow,
					 int at_egress)
{
	if (flow->side == ENDPOINT_SIDE)
		return at_egress && !(skb->tc_index & TRANSLATED);
	if (flow->side == STACK_SIDE)
		return !at_egress;
	return flow->side == CLIENT_SIDE && (flow->state & (STATE_ACKNOWLEDGED | STATE_CLOSING) ||
					     flow->flags & FLOW_TRACKED);
}

/*
 * Whether the kernel's own tracking no longer knows a flow that it translated. It is asked for what
 * the endpoint sends: a packet of the client that nobody translated looks like the flow's.
 */
static __always_inline int is_forgotten(struct __sk_buff *skb, const struct flow *flow,
					__u8 protocol)
{
	struct ends from_endpoint = reverse_ends(flow, ENDPOINT_SIDE);

	return tracking_of(skb, &from_endpoint, protocol) == NOT_TRACKED;
}

/*
 * Whether the flow of an entry is over, now that another one is opened in its place: it is closing,
 * a part of it is missing, or its endpoint left unanswered what the client sent before. (An
 * endpoint that knows the connection answers a SYN at once: RFC 5961, section 4.) Datagrams have
 * no end, so somebody else's follow once the client is silent.
 */
static __always_inline int is_former(struct __sk_buff *skb, const struct flow *flow,
				     __u8 protocol)
{
	const struct flow *client_side, *far;

	if (flow->flags & FLOW_TRACKED)
		return is_forgotten(skb, flow, protocol);
	if (flow->flags & FLOW_KERNELS)
		return 0;
	client_side = flow_at_side(flow, CLIENT_SIDE, protocol);
	far = flow_at_side(flow, far_side(flow), protocol);
	asm volatile("" : "+r"(far)); /* or what is not NULL is known by another comparison */
	if (!client_side || !far || client_side->state & STATE_CLOSING)
		return 1;
	if (protocol == IPPROTO_UDP)
		return flow->side == ENDPOINT_SIDE &&
		       (__s32)(now() - client_side->stamp) > UNANSWERED;
	return client_side->state & STATE_ACKNOWLEDGED &&
	       (__s32)(client_side->stamp - far->stamp) > UNANSWERED;
}
