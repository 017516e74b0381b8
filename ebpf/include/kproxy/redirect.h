/* SPDX-License-Identifier: GPL-2.0-only */
/* Sending a packet elsewhere than its device does: it must suit the link that it appears at. */

#include <kproxy/device.h>
#include <kproxy/packet.h>

#define LOOPBACK_DEVICE 1
#define MAC_SIZE 6

/* Helper 152, which bcc 0.26 declares with a parameter too few. */
static long (*const redirect_by_neighbour)(__u32 device, void *next_hop, int size, __u64 flags) =
	(void *)BPF_FUNC_redirect_neigh;

/*
 * Let a packet come in by a device, as if it were for the node. TC_ACT_REDIRECT or TC_ACT_SHOT.
 *
 * What is not sent to the device's own link address counts as somebody else's there.
 */
static __always_inline int come_in_by(struct __sk_buff *skb, const struct packet *packet,
				      __u32 ifindex)
{
	const struct device *device = devices.lookup(&ifindex);
	struct ethhdr header = { .h_proto = skb->protocol };

	if (!device)
		return TC_ACT_SHOT;
	if (!(device->flags & (DEVICE_ETHERNET | DEVICE_LOOPBACK)))
		return bpf_redirect(ifindex, BPF_F_INGRESS);
	__builtin_memcpy(header.h_dest, device->mac, sizeof(header.h_dest));
	if (packet->l3) {
		if (bpf_skb_store_bytes(skb, 0, header.h_dest, sizeof(header.h_dest), 0))
			return TC_ACT_SHOT;
	} else if (bpf_skb_change_head(skb, sizeof(header), 0) ||
		   bpf_skb_store_bytes(skb, 0, &header, sizeof(header), 0)) {
		return TC_ACT_SHOT;
	}
	return bpf_redirect(ifindex, BPF_F_INGRESS);
}
