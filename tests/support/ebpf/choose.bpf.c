/* SPDX-License-Identifier: GPL-2.0-only */
/* Asks choose.h what a connection deserves: a packet is the question, and comes back as the answer. */

#include <linux/pkt_cls.h>
#include <kproxy/choose.h>

struct question {
	struct address source;
	struct address destination;
	__be16 port;
	__u8 protocol;
	__u8 from_pod_device;

	/* The answer. */
	struct address target;
	__be16 target_port;
	__u8 reason;
	__u8 masquerade;
	__u32 via;
	__u64 service;
} __attribute__((packed));

#define HEADER 14 /* what every packet of a test run begins with */

int ask(struct __sk_buff *skb)
{
	struct question *question = (void *)(long)skb->data + HEADER;
	struct frontend_key destination = {};
	struct choice choice;
	struct client client;
	struct address source;

	if ((void *)(question + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	source = question->source;
	destination.address = question->destination;
	destination.port = question->port;
	destination.protocol = question->protocol;
	client = client_of(&source, question->from_pod_device);
	choice = choose(&destination, &client);
	question->target = choice.target.address;
	question->target_port = choice.target.port;
	question->reason = choice.reason;
	question->masquerade = choice.masquerade;
	question->via = choice.via;
	question->service = choice.service;
	return TC_ACT_OK;
}
