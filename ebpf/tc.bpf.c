// SPDX-License-Identifier: GPL-2.0-only
/*
 * Services at the node's devices: what socket hooks do not reach, and every way back.
 *
 *	client			there			back
 *	outside, pod		ingress: to the		ingress: from the node's address
 *				endpoint; egress:	to the client's; egress: from
 *				masqueraded		the endpoint to the frontend
 *	the node		egress: both, and sent	ingress: both, and sent in by
 *				to where it leads	the device that the client chose
 *
 * So netfilter sees both ends of a flow as behind kube-proxy. `ingress` and `egress` serve the
 * flows that there are; stages open new ones and do what is rare.
 */

#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>

#include <kproxy/choose.h>
#include <kproxy/packet.h>
#include <kproxy/fragment.h>
#include <kproxy/claims.h>
#include <kproxy/flow.h>
#include <kproxy/conntrack.h>
#include <kproxy/track.h>
#include <kproxy/half_open.h>
#include <kproxy/snat.h>
#include <kproxy/plan.h>
#include <kproxy/serve.h>
#include <kproxy/neighbour.h>
#include <kproxy/refuse.h>
#include <kproxy/stage.h>
#include <kproxy/work.h>

/*
 * Whether a packet that leaves may open a flow: the node's own, and what a pod sent through a device
 * that is not attached yet. All else was looked at where it came in.
 */
static __always_inline int may_open_here(struct __sk_buff *skb, const struct packet *packet)
{
	const struct rules *rules;
	int only = 0;

	if (!skb->ingress_ifindex)
		return 1;
	rules = table_rules.lookup(&only);
	return rules && rules->local_pods == PODS_BY_NETWORK &&
	       is_in_pod_network(rules, &packet->ends.source);
}

/*
 * A packet of no flow: most are of no Service, and go their way without another look. To an
 * address that no Service has only new connections are dropped: it may be a client's own.
 */
static __always_inline int without_flow(struct __sk_buff *skb, const struct packet *packet,
					int at_egress)
{
	const struct host *host = host_settings();
	struct frontend_key destination = { .address = packet->ends.destination,
					    .port = packet->ends.destination_port,
					    .protocol = packet->protocol };
	struct meeting met;

	if (at_egress && !may_open_here(skb, packet))
		return done(NOT_A_SERVICE);
	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP &&
	    packet->protocol != IPPROTO_SCTP)
		return done(NOT_UNDERSTOOD);
	if (!host || host->flags & HOST_WITHDRAWN)
		return done(WITHDRAWN);
	met = meet(&destination, 1);
	if (!met.frontend &&
	    (met.reason != NOT_A_SERVICE || !is_opening(packet) ||
	     !is_unclaimed(&destination.address)))
		return done(met.reason);
	return hand_to(skb, packet, at_egress, STAGE_CHOOSE);
}

static __always_inline int enter(struct __sk_buff *skb, int at_egress)
{
	struct packet packet = read_packet(skb);
	struct flow *flow;
	int forward;

	if (packet.kind > PACKET_ERROR) {
		if (at_egress && packet.kind == PACKET_NOT_UNICAST &&
		    packet.protocol == IPPROTO_ICMPV6 && !skb->ingress_ifindex)
			stages.call(skb, STAGE_NEIGHBOUR);
		return done(NOT_UNDERSTOOD);
	}
	if (packet.kind == PACKET_ERROR)
		return hand_to(skb, &packet, at_egress, STAGE_ERROR);
	if (packet.first_fragment)
		remember_fragment(&packet);
	if (packet.kind == PACKET_LATER_FRAGMENT && recall_fragment(&packet))
		return done(LATER_FRAGMENT_ALONE);
	flow = flow_at(&packet.ends, packet.protocol);
	if (!flow)
		return without_flow(skb, &packet, at_egress);
	forward = is_forward(flow, &packet.ends);
	if (forward && may_be_former(skb, flow, at_egress) &&
	    is_opening_again(skb, flow, &packet))
		return hand_to(skb, &packet, at_egress, STAGE_SERVE);
	note_packet(skb, flow, &packet, forward);
	return serve(skb, &packet, NULL, flow, at_egress);
}

/* Called by gate.bpf.c, as `egress`. What is foreign is not counted: that costs as much again. */
int ingress(struct __sk_buff *skb)
{
	enum foreignness foreignness = foreignness_of(skb);

	if (foreignness == FOREIGN_EVERYWHERE) {
		skb->tc_index |= FOREIGN;
		return TC_ACT_UNSPEC;
	}
	if (skb->tc_index & (FOREIGN | TRANSLATED))
		skb->tc_index &= ~(FOREIGN | TRANSLATED); /* notes from before this device */
	return foreignness == FOREIGN_HERE ? TC_ACT_UNSPEC : enter(skb, 0);
}

int egress(struct __sk_buff *skb)
{
	if (KPROXY_FAMILY == 4 && skb->protocol == bpf_htons(ETH_P_ARP)) {
		if (!skb->ingress_ifindex)
			stages.call(skb, STAGE_NEIGHBOUR);
		return TC_ACT_UNSPEC;
	}
	if (skb->ingress_ifindex && foreignness_of(skb) != MAYBE_OURS)
		return TC_ACT_UNSPEC;
	return enter(skb, 1);
}

/*
 * A flow just born, or one that its client seems to have forgotten, or the kernel that translated
 * it: then that makes room. It does not for what the kernel masqueraded by the port of an open one;
 * the sender gets another port if it tries again.
 */
int stage_serve(struct __sk_buff *skb)
{
	struct work *work = this_work();
	struct packet packet;
	int forward, opens;
	struct flow *flow;

	if (!work)
		return done(STAGE_MISSING);
	packet = work->packet;
	flow = flow_at(&packet.ends, packet.protocol);
	if (!flow)
		return done(FLOWS_FULL);
	forward = is_forward(flow, &packet.ends);
	opens = forward && may_be_former(skb, flow, work->at_egress);
	if (opens && is_former(skb, flow, packet.protocol)) {
		work->former = *flow;
		delete_flow(&work->former, packet.protocol);
		if (work->former.side != CLIENT_SIDE)
			return done(NOT_A_SERVICE); /* straight to what was the endpoint */
		return without_flow(skb, &packet, work->at_egress);
	}
	if (opens && flow->side == ENDPOINT_SIDE &&
	    forget_masqueraded(skb, &packet.ends, packet.protocol))
		return done(PORT_TAKEN);
	note_packet(skb, flow, &packet, forward);
	return serve(skb, &packet, NULL, flow, work->at_egress);
}

/* An ICMP error, which goes the way of the packets that answer what it is about. */
int stage_error(struct __sk_buff *skb)
{
	struct work *work = this_work();
	struct packet error, embedded;
	struct flow *flow;

	if (!work)
		return done(STAGE_MISSING);
	error = work->packet;
	embedded = read_embedded(skb, &error);
	if (embedded.kind != PACKET_PLAIN)
		return done(NOT_UNDERSTOOD);
	flow = flow_at(&embedded.ends, embedded.protocol);
	if (!flow)
		return done(NOT_A_SERVICE);
	return serve(skb, &embedded, &error, flow, work->at_egress);
}

/*
 * Whether a packet answers one that the kernel let pass, as far as it tracks connections: no
 * datagram says so itself.
 */
static __always_inline int is_answer(struct __sk_buff *skb, const struct packet *packet)
{
	return tracking_of(skb, &packet->ends, packet->protocol) == TRACKED_BACK;
}

/* A packet of no flow to a frontend, or to an address that nobody has. */
int stage_choose(struct __sk_buff *skb)
{
	const struct host *host = host_settings();
	struct work *work = this_work();
	struct frontend_key destination = {};
	struct client client;
	struct choice choice;

	if (!work || !host)
		return done(STAGE_MISSING);
	destination.address = work->packet.ends.destination;
	destination.port = work->packet.ends.destination_port;
	destination.protocol = work->packet.protocol;
	client = client_of(&work->packet.ends.source,
			   !work->at_egress && is_from_pod_device(skb->ifindex));
	if (client.own && !work->at_egress)
		return done(NOT_A_SERVICE);
	choice = choose(&destination, &client);
	if (choice.reason == TABLE_CHANGED && !work->tries++)
		stages.call(skb, STAGE_CHOOSE);
	if (choice.reason == UNCLAIMED_ADDRESS && is_answer(skb, &work->packet))
		return done(NOT_A_SERVICE);
	if (choice.reason == CHOSEN && work->packet.kind == PACKET_LATER_FRAGMENT)
		return done(NO_FLOW);
	if (choice.reason == CHOSEN && !is_opening(&work->packet)) {
		if (host->flags & HOST_HAND_OVER)
			return done(HAND_OVER);
		choice.reason = NO_FLOW;
	}
	if (is_refused(choice.reason)) {
		work->reason = choice.reason;
		stages.call(skb, STAGE_REFUSE);
	}
	if (choice.reason != CHOSEN)
		return done(choice.reason);
	choice.reason = plan_flow(skb, work, &choice);
	if (choice.reason != CHOSEN)
		return done(choice.reason);
	work->tries = 0;
	stages.call(skb, STAGE_OPEN);
	return done(STAGE_MISSING);
}

/* Enter the flow that is planned, and serve it. */
int stage_open(struct __sk_buff *skb)
{
	const struct host *host = host_settings();
	struct work *work = this_work();
	struct flow_key key;
	struct ends ends;
	__u8 protocol;
	int result;

	if (!work || !host)
		return done(STAGE_MISSING);
	protocol = work->packet.protocol;
	claim_client(&work->draft.client);
	result = enter_flow(skb, &work->draft, host, protocol);
	ends = work->packet.ends;
	if (result == -EEXIST && !flow_at(&ends, protocol))
		return done(NO_FREE_PORT);
	if (result && result != -EEXIST) {
		if (work->tries++ >= 4 || !give_up_half_open(&work->former))
			return done(FLOWS_FULL);
		stages.call(skb, STAGE_OPEN);
		return done(STAGE_MISSING);
	}
	if (!result) {
		key = flow_key_of(&ends, protocol);
		remember_half_open(&key);
	}
	stages.call(skb, STAGE_SERVE);
	return done(STAGE_MISSING);
}

/* Answer a packet that is refused, where it came from. */
int stage_refuse(struct __sk_buff *skb)
{
	struct work *work = this_work();
	enum refusal refusal;
	struct packet packet;

	if (!work)
		return done(STAGE_MISSING);
	packet = work->packet;
	refusal = work->reason == TOO_BIG ? refuse_too_big(skb, &packet, work->mtu) :
					    refuse(skb, &packet);
	switch (refusal) {
	case REFUSAL_SENT:
		return sent(work->reason,
			    bpf_redirect(skb->ifindex, work->at_egress ? BPF_F_INGRESS : 0));
	case REFUSAL_FAILED:
		return done(NOT_REWRITTEN);
	default:
		return done(REFUSED_TOO_OFTEN);
	}
}

/* The node asks for the link address of what may be a clusterIP. */
int stage_neighbour(struct __sk_buff *skb)
{
	if (answer_for_cluster_ip(skb))
		return done(NOT_UNDERSTOOD);
	return sent(NEIGHBOUR_ANSWERED, bpf_redirect(skb->ifindex, BPF_F_INGRESS));
}
