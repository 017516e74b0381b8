/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Does with packets what a map says, by the headers about packets alone: their tests run this.
 *
 * Orders are found by one end of a packet, or of the one that an ICMP error is about.
 */

#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>
#include <kproxy/fragment.h>
#include <kproxy/icmp.h>
#include <kproxy/refuse.h>

enum role { OF_DESTINATION, OF_SOURCE, OF_EMBEDDED_DESTINATION, OF_EMBEDDED_SOURCE, ROLES };

struct order_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 role;
};

enum action { REWRITE, REFUSE, REFUSE_TOO_BIG };

#define NARROW_MTU 1280

struct order {
	struct ends to;
	__u8 action;
	__u8 keep_source;
	__u8 keep_destination;
	__u8 pad;
};

BPF_F_TABLE("hash", struct order_key, struct order, orders, 1024, BPF_F_NO_PREALLOC);
BPF_TABLE("array", int, struct packet, read, 1); /* the last packet, as it was read */
BPF_TABLE("array", int, __u64, refusals, 4);

/* What the device summed a packet up to (CHECKSUM_COMPLETE), before and after; else negative. */
enum moment { BEFORE, AFTER, MOMENTS };
BPF_TABLE("array", int, __s64, device_sums, MOMENTS);

/* bcc takes the sum for 16 bits, and what is returned for signed 32. */
static __s64 (*add_to_device_sum)(void *skb, __u32 sum) = (void *)BPF_FUNC_csum_update;

static __always_inline void note_device_sum(struct __sk_buff *skb, int moment)
{
	__s64 sum = add_to_device_sum(skb, 0);

	device_sums.update(&moment, &sum);
}

static __always_inline struct order *order_for(const struct packet *packet, __u8 role)
{
	struct order_key key = { .protocol = packet->protocol };

	key.role = role | OF_SOURCE;
	key.address = packet->ends.source;
	key.port = packet->ends.source_port;
	if (orders.lookup(&key))
		return orders.lookup(&key);
	key.role = role;
	key.address = packet->ends.destination;
	key.port = packet->ends.destination_port;
	return orders.lookup(&key);
}

static __always_inline struct ends ordered(const struct order *order, const struct packet *packet)
{
	struct ends to = order->to;

	if (order->keep_source) {
		to.source = packet->ends.source;
		to.source_port = packet->ends.source_port;
	}
	if (order->keep_destination) {
		to.destination = packet->ends.destination;
		to.destination_port = packet->ends.destination_port;
	}
	return to;
}

static __always_inline int translate(struct __sk_buff *skb, struct packet *packet)
{
	struct order *order = order_for(packet, OF_DESTINATION);
	struct ends to;
	int failed;

	if (!order || order->action != REWRITE)
		return TC_ACT_UNSPEC;
	to = ordered(order, packet);
	note_device_sum(skb, BEFORE);
	failed = rewrite_packet(skb, packet, &to);
	note_device_sum(skb, AFTER);
	return failed ? TC_ACT_SHOT : TC_ACT_OK;
}

static __always_inline int translate_error(struct __sk_buff *skb, struct packet *error)
{
	struct packet embedded = read_embedded(skb, error);
	struct order *order;
	struct ends to;
	int failed;

	if (embedded.kind != PACKET_PLAIN)
		return TC_ACT_UNSPEC;
	order = order_for(&embedded, OF_EMBEDDED_DESTINATION);
	if (!order)
		return TC_ACT_UNSPEC;
	to = ordered(order, &embedded);
	note_device_sum(skb, BEFORE);
	failed = rewrite_error(skb, error, &embedded, &to);
	note_device_sum(skb, AFTER);
	return failed ? TC_ACT_SHOT : TC_ACT_OK;
}

int translate_all(struct __sk_buff *skb)
{
	struct packet packet = read_packet(skb);
	int only = 0;

	read.update(&only, &packet);
	if (packet.kind > PACKET_ERROR)
		return TC_ACT_UNSPEC;
	if (packet.kind == PACKET_ERROR)
		return translate_error(skb, &packet);
	if (packet.first_fragment && remember_fragment(&packet) < 0)
		return TC_ACT_SHOT;
	if (packet.kind == PACKET_LATER_FRAGMENT && recall_fragment(&packet) < 0)
		return TC_ACT_UNSPEC;
	return translate(skb, &packet);
}

static __always_inline int refuse_ordered(struct __sk_buff *skb, __u64 flags)
{
	struct packet packet = read_packet(skb);
	struct order *order;
	int refusal;
	__u64 *count;

	if (packet.kind > PACKET_ERROR)
		return TC_ACT_UNSPEC;
	order = order_for(&packet, OF_DESTINATION);
	if (!order || order->action == REWRITE)
		return TC_ACT_UNSPEC;
	if (order->action == REFUSE)
		refusal = refuse(skb, &packet);
	else if (packet.end - packet.l3 > NARROW_MTU)
		refusal = refuse_too_big(skb, &packet, NARROW_MTU);
	else
		return TC_ACT_UNSPEC;
	note_device_sum(skb, AFTER);
	count = refusals.lookup(&refusal);
	if (count)
		__sync_fetch_and_add(count, 1);
	return refusal == REFUSAL_SENT ? bpf_redirect(skb->ifindex, flags) : TC_ACT_SHOT;
}

int refuse_ingress(struct __sk_buff *skb)
{
	return refuse_ordered(skb, 0);
}

int refuse_egress(struct __sk_buff *skb)
{
	return refuse_ordered(skb, BPF_F_INGRESS);
}
