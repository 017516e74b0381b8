/* SPDX-License-Identifier: GPL-2.0-only */
/* Which way the node's stack sends a packet, and by what address it masquerades it there. */

#include <kproxy/device.h>

#define AF_INET 2
#define AF_INET6 10

struct route {
	struct address next_hop; /* unspecified where it is of the other family */
	__u32 device; /* ifindex; 0: there is none */
	__u32 mtu; /* of the device; 0: not smaller than the packet */
};

/*
 * The route of a packet that came in by a device. Loopback addresses are no source that the kernel
 * would look a route up for: leave it unspecified for what the node itself sends.
 */
static __always_inline struct route route_to(struct __sk_buff *skb, __u32 from_device,
					     const struct address *source,
					     const struct address *destination)
{
	struct bpf_fib_lookup lookup = { .ifindex = from_device };
	struct route route = {};
	long result;

#if KPROXY_FAMILY == 4
	lookup.family = AF_INET;
	lookup.ipv4_src = source->word[0];
	lookup.ipv4_dst = destination->word[0];
#else
	lookup.family = AF_INET6;
	__builtin_memcpy(lookup.ipv6_src, source, sizeof(*source));
	__builtin_memcpy(lookup.ipv6_dst, destination, sizeof(*destination));
#endif
	result = bpf_fib_lookup(skb, &lookup, sizeof(lookup), 0);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH &&
	    result != BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return route;
	route.device = lookup.ifindex;
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		route.mtu = lookup.mtu_result;
#if KPROXY_FAMILY == 4
	if (lookup.family == AF_INET)
		route.next_hop.word[0] = lookup.ipv4_dst;
#else
	__builtin_memcpy(&route.next_hop, lookup.ipv6_dst, sizeof(route.next_hop));
#endif
	return route;
}

/* What MASQUERADE would make the source of a packet on this route, or NULL. */
static __always_inline const struct address *masquerade_of(const struct route *route,
							   const struct address *destination)
{
	return masquerade_address(route->device,
				  KPROXY_FAMILY == 4 ? &route->next_hop : destination);
}
