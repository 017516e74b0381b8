/* SPDX-License-Identifier: GPL-2.0-only */
/* What becomes of the packets of a flow: the table at the top of tc.bpf.c. */

#include <kproxy/exit.h>
#include <kproxy/flow.h>
#include <kproxy/icmp.h>
#include <kproxy/redirect.h>
#include <kproxy/route.h>
#include <kproxy/stage.h>

/* The device that leads to a flow's endpoint by now. */
static __always_inline __u32 device_towards(struct __sk_buff *skb, struct flow *flow)
{
	struct address unspecified = {};
	__u32 stamp = now();
	struct route route;

	if (flow->route == LOOPBACK_DEVICE || flow->route_stamp == stamp)
		return flow->route;
	route = route_to(skb, skb->ifindex, &unspecified, &flow->endpoint);
	if (route.device)
		flow->route = route.device;
	flow->route_stamp = stamp;
	return flow->route;
}

/* What becomes of a packet of a flow: in which view it goes on, and where; or just the reason. */
struct way {
	__u16 reason;
	__u8 is_translated;
	__u8 side; /* the view that it goes on in */
	__u8 is_sent; /* not where it was going, but to the flow's endpoint, or to its client */
};

/* A packet that comes in. */
static __always_inline struct way way_in(const struct flow *flow, int forward)
{
	struct way way = { .reason = FLOW_HERE_UNCHANGED };

	if (flow->side == CLIENT_SIDE && forward && !(flow->flags & FLOW_AT_ONCE)) {
		way.reason = DESTINATION_TRANSLATED;
		way.side = STACK_SIDE;
		way.is_translated = 1;
	} else if (flow->side == ENDPOINT_SIDE && !forward) {
		way.is_sent = flow->flags & FLOW_AT_ONCE;
		way.reason = way.is_sent ? RESTORED_AT_ONCE : SOURCE_RESTORED;
		way.side = way.is_sent ? CLIENT_SIDE : STACK_SIDE;
		way.is_translated = 1;
	}
	return way;
}

/* A packet that leaves. */
static __always_inline struct way way_out(const struct flow *flow, int forward)
{
	struct way way = { .reason = FLOW_HERE_UNCHANGED };

	if (flow->side == CLIENT_SIDE && forward && flow->flags & FLOW_AT_ONCE) {
		way.reason = TRANSLATED_AT_ONCE;
		way.side = ENDPOINT_SIDE;
		way.is_translated = 1;
		way.is_sent = 1;
	} else if (flow->side == STACK_SIDE && !forward) {
		way.reason = DESTINATION_RESTORED;
		way.side = CLIENT_SIDE;
		way.is_translated = 1;
	} else if (flow->side == STACK_SIDE && flow->flags & FLOW_MASQUERADED) {
		way.reason = SOURCE_MASQUERADED;
		way.side = ENDPOINT_SIDE;
		way.is_translated = 1;
	}
	return way;
}

/* Let the rule that accepts what we translate know it: what comes in, and will be, or was. */
static __always_inline void mark(struct __sk_buff *skb, const struct way *way,
				 const struct flow *flow, int forward)
{
	const struct host *host = host_settings();

	if (host && host->mark && (way->is_translated || (flow->side == STACK_SIDE && !forward)))
		skb->mark |= host->mark;
}

/*
 * Take a packet of a flow its way. `error` is an ICMP error and `packet` what that is about, which
 * went the other way; NULL where the packet itself is of the flow.
 */
static __always_inline int serve(struct __sk_buff *skb, struct packet *packet,
				 struct packet *error, struct flow *flow, int at_egress)
{
	int forward = is_forward(flow, &packet->ends), goes_forward = error ? !forward : forward;
	struct way way = at_egress ? way_out(flow, goes_forward) : way_in(flow, goes_forward);
	__u32 device = flow->device, mtu = 0;
	struct ends ends;
	int failed;

	if (flow->flags & FLOW_KERNELS)
		return done(FLOW_LEFT_ALONE);
	if (!at_egress)
		mark(skb, &way, flow, goes_forward);
	if (!way.is_translated)
		return done(way.reason);
	ends = forward ? forward_ends(flow, way.side) : reverse_ends(flow, way.side);
	if (way.side == ENDPOINT_SIDE)
		skb->tc_index |= TRANSLATED;
	if (way.is_sent && at_egress) {
		device = device_towards(skb, flow);
		/* The stack made it fit the device that the client chose. */
		if (!error && bpf_check_mtu(skb, device, &mtu, 0, BPF_MTU_CHK_SEGS) > 0)
			return refuse_for(skb, packet, at_egress, TOO_BIG, mtu);
	}
	failed = error ? rewrite_error(skb, error, packet, &ends) :
			 rewrite_packet(skb, packet, &ends);
	if (failed)
		return done(NOT_REWRITTEN);
	if (!way.is_sent)
		return done(error ? ERROR_TRANSLATED : way.reason);
	if (at_egress && device != LOOPBACK_DEVICE)
		return sent(way.reason, redirect_by_neighbour(device, NULL, 0, 0));
	return sent(way.reason, come_in_by(skb, error ? error : packet, device));
}
