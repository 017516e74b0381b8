/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which packets are surely none of ours, at the price of a few reads: most packets of a node are of
 * no Service, and shall not pay for those that are.
 *
 * A bit for each address of a frontend and of the node itself, by hash, one for each endpoint's,
 * and one for each prefix of a service network. The agent sets them before it writes what they
 * stand for, and takes none back, as flows outlive what they were made by
 * (backends/ebpf/driver/claims.py). Two addresses may share a bit: then one costs more time.
 *
 * Every view of a flow has a frontend or the node at one end, or else a client and an endpoint. So
 * what sockets send straight to endpoints is foreign, unless their client has flows as well.
 */

#include <kproxy/note.h>
#include <kproxy/packet.h>

#define CLAIM_WORDS 16384
#define CLAIM_PREFIX_WORDS 1024
#define CLAIMS_COMPLETE (CLAIM_WORDS + CLAIM_PREFIX_WORDS) /* not 0: no bit is missing */
#define CLAIMS (CLAIMS_COMPLETE + 1)
#define CLAIM_FACTOR 0x9e3779b1u /* 2^32 by the golden ratio */

/* 64 bits of each kind; prefixes, and that all are there, count as frontends. */
struct claim_word {
	__u64 frontends;
	__u64 endpoints;
};

BPF_TABLE("array", int, struct claim_word, claims, CLAIMS);

/*
 * In which round through all flows a client was last seen with one, by hash; the number of the
 * round comes last. Programs write it before they enter a flow, the agent with each that it meets
 * on its round (backends/ebpf/driver/clients.py). So who was not seen in this round, nor in the one
 * before, has none: a flow born behind the agent's back was so in one of these.
 */
#define CLIENT_ROUND 65536
BPF_TABLE("array", int, __u64, clients, CLIENT_ROUND + 1);

/* Whether a packet is of no flow and for no frontend. */
enum foreignness {
	MAYBE_OURS,
	FOREIGN_HERE, /* elsewhere somebody may have made it look like one of ours */
	FOREIGN_EVERYWHERE,
};

static __always_inline __u32 claim_hash(const __be32 *words, int count)
{
	__u32 hash = 0;
	int i;

#pragma unroll
	for (i = 0; i < count; i++)
		hash = (hash ^ words[i]) * CLAIM_FACTOR;
	return hash;
}

static __always_inline __u64 bit_at(const __u64 *word, __u32 bit)
{
	return *word >> (bit & 63) & 1;
}

static __always_inline int is_set(int word, __u32 bit)
{
	const struct claim_word *found = claims.lookup(&word);

	return !found || bit_at(&found->frontends, bit);
}

/* What an address may be: 1 of a frontend, or the node's own; 2 an endpoint's. */
static __always_inline int claimed_as(__u32 hash)
{
	int word = hash >> 18;
	const struct claim_word *found = claims.lookup(&word);

	if (!found)
		return 3;
	return bit_at(&found->frontends, hash >> 12) | bit_at(&found->endpoints, hash >> 12) << 1;
}

static __always_inline int may_have_flows(__u32 hash)
{
	int slot = hash >> 16, last = CLIENT_ROUND;
	const __u64 *seen = clients.lookup(&slot), *round = clients.lookup(&last);

	return !seen || !round || *seen + 1 >= *round;
}

/* Let packets between a client and endpoints be looked at: before there is a flow of it. */
static __always_inline void claim_client(const struct address *client)
{
	int slot = claim_hash(client->word, ADDRESS_WORDS) >> 16, last = CLIENT_ROUND;
	const __u64 *round = clients.lookup(&last);
	__u64 *seen = clients.lookup(&slot);

	if (seen && round && *seen < *round)
		*seen = *round;
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
 * Whether a packet is surely none of ours. Only what is plainly TCP or UDP in Ethernet is: ICMP
 * errors tell of other addresses than their own. What goes to an endpoint may yet be masqueraded by
 * others, and look like a flow that has that port of the node: so it is asked anew where it leaves.
 */
static __always_inline enum foreignness foreignness_of(struct __sk_buff *skb)
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
	__u32 source, destination;
	__u8 protocol;
	int from, to;

	if ((void *)(header + 1) > (void *)(long)skb->data_end)
		return MAYBE_OURS;
	if (header->link.h_proto != OWN_ETHERTYPE || header->ip.version != KPROXY_FAMILY)
		return MAYBE_OURS;
#if KPROXY_FAMILY == 4
	protocol = header->ip.protocol;
	addresses = (const void *)&header->ip.saddr;
#else
	protocol = header->ip.nexthdr;
	addresses = (const void *)&header->ip.saddr;
#endif
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return MAYBE_OURS;
	if (!is_set(CLAIMS_COMPLETE, 0) || is_in_claimed_prefix(addresses + ADDRESS_WORDS))
		return MAYBE_OURS;
	source = claim_hash(addresses, ADDRESS_WORDS);
	destination = claim_hash(addresses + ADDRESS_WORDS, ADDRESS_WORDS);
	from = claimed_as(source);
	to = claimed_as(destination);
	if ((from | to) & 1)
		return MAYBE_OURS;
	if (!(from | to))
		return FOREIGN_EVERYWHERE;
	if (may_have_flows(source) || may_have_flows(destination))
		return MAYBE_OURS;
	return to ? FOREIGN_HERE : FOREIGN_EVERYWHERE;
}
