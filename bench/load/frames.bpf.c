/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The two ends of a stream of small packets: `send` makes them, `count` takes them away.
 *
 * The frames of a test run are used again and again, and whoever forwards them writes into them
 * (BPF_F_TEST_XDP_LIVE_FRAMES): so `send` writes the whole header of each anew.
 */

#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/pkt_cls.h>
#include <uapi/linux/udp.h>

#if KPROXY_FAMILY == 4
#define ETHERTYPE ETH_P_IP
#define PROTOCOL ip.protocol
#else
#define ETHERTYPE ETH_P_IPV6
#define PROTOCOL ip.nexthdr
#endif

struct header {
	struct ethhdr ethernet;
#if KPROXY_FAMILY == 4
	struct iphdr ip;
#else
	struct ipv6hdr ip;
#endif
	struct udphdr udp;
} __attribute__((packed));

/*
 * What to send, and through which device; flows differ by their source port. The header's checksum is
 * that of source port 0, or 0 for none, which IPv4 has.
 */
struct stream {
	struct header header;
	__u16 first_port;
	__u32 device;
	__u32 flows;
	__u32 next;
};

BPF_TABLE("array", int, struct stream, streams, 1);
BPF_TABLE("percpu_array", int, __u64, counts, 1);

/* Return a checksum for other content, of which 16 bits changed from 0 (RFC 1624). */
static __always_inline __u16 with_added(__u16 checksum, __u16 word)
{
	__u32 sum = (__u16)~checksum + word;

	sum = ~((sum & 0xffff) + (sum >> 16));
	return (__u16)sum ? sum : 0xffff;
}

int send(struct xdp_md *context)
{
	struct header *header = (void *)(long)context->data;
	int zero = 0;
	struct stream *stream = streams.lookup(&zero);
	__u32 flow;

	if (!stream || (void *)(header + 1) > (void *)(long)context->data_end)
		return XDP_ABORTED;
	flow = stream->next;
	stream->next = flow + 1 < stream->flows ? flow + 1 : 0;
	*header = stream->header;
	header->udp.source = bpf_htons(stream->first_port + flow);
	if (header->udp.check)
		header->udp.check = with_added(header->udp.check, header->udp.source);
	return bpf_redirect(stream->device, 0);
}

/* Nothing answers them: what an endpoint gets is counted where it comes in. */
int count(struct __sk_buff *skb)
{
	struct header *header = (void *)(long)skb->data;
	int zero = 0;
	__u64 *seen = counts.lookup(&zero);

	if (!seen || (void *)(header + 1) > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	if (header->ethernet.h_proto != bpf_htons(ETHERTYPE) || header->PROTOCOL != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	*seen += 1;
	return TC_ACT_SHOT;
}
