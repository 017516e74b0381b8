/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which packets are surely none of ours, at the price of a few reads: most packets of a node are of
 * no Service, and shall not pay for those that are.
 *
 * A bit for each address that a flow can have besides its client's, by hash: frontends, endpoints,
 * the node's own; and one for each prefix of a service network. The agent sets them before it
 * writes what they stand for, and takes none back, as flows outlive what they were made by
 * (backends/ebpf/driver/claims.py). Two addresses may share a bit: then one costs more time.
 */

#include <kproxy/note.h>
#include <kproxy/packet.h>

#define CLAIM_WORDS 16384
#define CLAIM_PREFIX_WORDS 1024
#define CLAIMS_COMPLETE (CLAIM_WORDS + CLAIM_PREFIX_WORDS) /* not 0: no bit is missing */
#define CLAIMS (CLAIMS_COMPLETE + 1)
#define CLAIM_FACTOR 0x9e3779b1u /* 2^32 by the golden ratio */

BPF_TABLE("array", int, __u64, claims, CLAIMS);

static __always_inline __u32 claim_hash(const __be32 *words, int count)
{
	__u32 hash = 0;
	int i;

#pragma unroll
	for (i = 0; i < count; i++)
		hash = (hash ^ words[i]) * CLAIM_FACTOR;
	return hash;
}

static __always_inline int is_set(int word, __u32 bit)
{
	__u64 *bits = claims.lookup(&word);

	return !bits || *bits >> (bit & 63) & 1;
}

static __always_inline int is_claimed(const __be32 *address)
{
	__u32 hash = claim_hash(address, ADDRESS_WORDS);

	return is_set(hash >> 18, hash >> 12);
}

/* Whether an address is in a service network: by its first 16 bits in IPv4, 64 in IPv6. */
static __always_inline int is_in_claimed_prefix(const __be32 *address)
{
#if KPROXY_FAMILY == 4
	__u32 prefix = bpf_ntohl(address[0]) >> 16;
#else
	__u32 prefix = claim_hash(address, 2) >> 16;
#endif

	return is_set(CLAIM_WORDS + (prefix >> 6), prefix);
}

/*
 * Whether a packet that comes in is none of ours. Only what is plainly TCP or UDP in Ethernet is:
 * ICMP errors tell of other addresses than their own.
 */
static __always_inline int is_foreign(struct __sk_buff *skb)
{
	struct {
		struct ethhdr link;
#if KPROXY_FAMILY == 4
		struct iphdr ip;
#else
		struct ipv6hdr ip;
#endif
	} __attribute__((packed)) *header = (void *)(long)skb->data;
	const __be32 *addresses;
	__u8 protocol;

	if ((void *)(header + 1) > (void *)(long)skb->data_end)
		return 0;
	if (header->link.h_proto != OWN_ETHERTYPE || header->ip.version != KPROXY_FAMILY)
		return 0;
#if KPROXY_FAMILY == 4
	protocol = header->ip.protocol;
	addresses = (const void *)&header->ip.saddr;
#else
	protocol = header->ip.nexthdr;
	addresses = (const void *)&header->ip.saddr;
#endif
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	return is_set(CLAIMS_COMPLETE, 0) && !is_claimed(addresses) &&
	       !is_claimed(addresses + ADDRESS_WORDS) &&
	       !is_in_claimed_prefix(addresses + ADDRESS_WORDS);
}
