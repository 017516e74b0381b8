/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A clusterIP in a network that the node is directly connected to: the node's stack asks there who
 * has it, and nobody does. So the question is answered by its own device, and what it held back
 * comes by, and is translated.
 */

#include <kproxy/answer.h>
#include <kproxy/choose.h>
#include <kproxy/device.h>
#include <kproxy/work.h>

#if KPROXY_FAMILY == 4

/* RFC 826, of IPv4 over Ethernet. */
struct question {
	struct ethhdr link;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_size;
	__u8 protocol_size;
	__be16 operation;
	__u8 sender_mac[6];
	struct address sender;
	__u8 target_mac[6];
	struct address target;
} __attribute__((packed));

#define ARP_REQUEST 1
#define ARP_REPLY 2

static __always_inline int is_question(const struct question *question)
{
	return question->link.h_proto == bpf_htons(ETH_P_ARP) &&
	       question->hardware == bpf_htons(1) && question->protocol == bpf_htons(ETH_P_IP) &&
	       question->hardware_size == 6 && question->protocol_size == 4 &&
	       question->operation == bpf_htons(ARP_REQUEST);
}

static __always_inline void turn_into_answer(struct question *question, const __u8 *mac)
{
	struct address target = question->target;

	question->operation = bpf_htons(ARP_REPLY);
	question->target = question->sender;
	question->sender = target;
	__builtin_memcpy(question->target_mac, question->sender_mac, 6);
	__builtin_memcpy(question->sender_mac, mac, 6);
}

#else

/* RFC 4861, 4.3 and 4.4, with the one option that Linux sends. */
struct question {
	struct ethhdr link;
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 flags;
	struct address target;
	__u8 option;
	__u8 option_size;
	__u8 option_mac[6];
} __attribute__((packed));

#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define SOURCE_LINK_ADDRESS 1
#define TARGET_LINK_ADDRESS 2
#define ADVERTISEMENT_SIZE 32
#define SOLICITED_AND_OVERRIDING 0x60000000

static __always_inline int is_question(const struct question *question)
{
	return question->link.h_proto == bpf_htons(ETH_P_IPV6) &&
	       question->ip.nexthdr == IPPROTO_ICMPV6 &&
	       question->ip.payload_len == bpf_htons(ADVERTISEMENT_SIZE) &&
	       question->type == NEIGHBOUR_SOLICITATION && question->code == 0 &&
	       question->option == SOURCE_LINK_ADDRESS && question->option_size == 1;
}

static __always_inline void turn_into_answer(struct question *question, const __u8 *mac)
{
	struct packet answer = { .protocol = IPPROTO_ICMPV6 };
	__u64 sum;

	__builtin_memcpy(&question->ip.daddr, &question->ip.saddr, sizeof(struct address));
	__builtin_memcpy(&question->ip.saddr, &question->target, sizeof(struct address));
	question->type = NEIGHBOUR_ADVERTISEMENT;
	question->checksum = 0;
	question->flags = bpf_htonl(SOLICITED_AND_OVERRIDING);
	question->option = TARGET_LINK_ADDRESS;
	__builtin_memcpy(question->option_mac, mac, 6);
	__builtin_memcpy(&answer.ends.source, &question->ip.saddr, sizeof(struct address));
	__builtin_memcpy(&answer.ends.destination, &question->ip.daddr, sizeof(struct address));
	sum = pseudo_sum(&answer, IPPROTO_ICMPV6, ADVERTISEMENT_SIZE);
	sum += (__u32)bpf_csum_diff(NULL, 0, (void *)&question->type, ADVERTISEMENT_SIZE, 0);
	question->checksum = ~folded(sum);
}

#endif

/* Turn what asks for a clusterIP into the answer to it; 0, or negative: it asks for something else. */
static __always_inline int answer_for_cluster_ip(struct __sk_buff *skb)
{
	struct frontend_key any_port = {};
	__u32 ifindex = skb->ifindex;
	const struct device *device = devices.lookup(&ifindex);
	struct question question;

	if (!device || !(device->flags & DEVICE_ETHERNET))
		return -1;
	if (bpf_skb_load_bytes(skb, 0, &question, sizeof(question)) || !is_question(&question))
		return -1;
	any_port.address = question.target;
	if (!frontends.lookup(&any_port))
		return -1;
	turn_into_answer(&question, device->mac);
	__builtin_memcpy(question.link.h_dest, device->mac, 6);
	return bpf_skb_store_bytes(skb, 0, &question, sizeof(question), 0);
}
