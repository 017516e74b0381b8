/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ports that flows are given on the node: those of masqueraded packets, and those of clients in the
 * stack where two of their flows would look the same there.
 *
 * A port is taken by entering the flow under it, which fails if another one is there: two CPUs
 * never get the same. The kernel's own MASQUERADE and the host's sockets do not look into our map.
 * Ports that sockets choose are in ip_local_port_range, so ours are not; what they were told to use
 * shows as a socket. What MASQUERADE has chosen shows in the kernel's connection tracking. It may
 * choose any later: then a flow that is over lets go (track.h).
 */

#include <kproxy/conntrack.h>
#include <kproxy/flow.h>

#define PORT_TRIES 24
#define FIRST_PORT 1024
#define PORTS 64512 /* from FIRST_PORT on */

#define EEXIST 17
#define E2BIG 7

/* Whether others choose a port by themselves: the host for its clients, Services as NodePorts. */
static __always_inline int is_others_port(const struct host *host, __u16 port, __u8 protocol)
{
	struct frontend_key node_port = { .port = bpf_htons(port), .protocol = protocol };

	if (port >= host->local_ports_first && port <= host->local_ports_last)
		return 1;
	if (port >= host->node_ports_first && port <= host->node_ports_last)
		return 1;
	return frontends.lookup(&node_port) != NULL;
}

/* A port at random, below or above the range that the host chooses from. */
static __always_inline __u16 random_port(const struct host *host)
{
	__u32 first = host->local_ports_first, size;

	if (first < FIRST_PORT)
		first = FIRST_PORT;
	size = host->local_ports_last < first ? 0 : host->local_ports_last - first + 1;
	if (size >= PORTS)
		return FIRST_PORT + ((__u64)bpf_get_prandom_u32() * PORTS >> 32);
	first -= FIRST_PORT;
	size = (__u64)bpf_get_prandom_u32() * (PORTS - size) >> 32;
	if (size >= first)
		size += host->local_ports_last - host->local_ports_first + 1;
	return FIRST_PORT + size;
}

/* Whether a socket of the host would get what the endpoint sends to an address of the node. */
static __always_inline int is_socket_at(struct __sk_buff *skb, const struct ends *from_endpoint,
					__u8 protocol)
{
	struct bpf_sock_tuple tuple = tuple_of(from_endpoint);
	struct bpf_sock *socket;

	if (protocol == IPPROTO_TCP)
		socket = bpf_skc_lookup_tcp(skb, &tuple, TUPLE_SIZE, BPF_F_CURRENT_NETNS, 0);
	else if (protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(skb, &tuple, TUPLE_SIZE, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

/* Whether what the endpoint sends to a port of the node is for somebody else. */
static __always_inline int is_others(struct __sk_buff *skb, const struct ends *from_endpoint,
				     __u8 protocol)
{
	return is_socket_at(skb, from_endpoint, protocol) ||
	       tracking_of(skb, from_endpoint, protocol) > NOT_TRACKED;
}

static __always_inline int enter_side(struct flow *draft, __u8 side, __u8 protocol)
{
	struct ends ends = forward_ends(draft, side);
	struct flow_key key = flow_key_of(&ends, protocol);

	draft->side = side;
	return flows.insert(&key, draft);
}

/* Whether both ends of a view would be the same: then nobody could tell its directions apart. */
static __always_inline int is_mirror(const struct flow *draft, const struct address *near,
				     __be16 near_port)
{
	return near_port == draft->endpoint_port && is_same_address(near, &draft->endpoint);
}

/* Enter the stack side, under another port than the client's where that is taken. */
static __always_inline int enter_stack_side(struct flow *draft, __u8 protocol)
{
	int try, result = -EEXIST;

	draft->stack_port = draft->client_port;
	for (try = 0; try < PORT_TRIES; try++) {
		if (try)
			draft->stack_port = bpf_htons(
				FIRST_PORT + ((__u64)bpf_get_prandom_u32() * PORTS >> 32));
		if (is_mirror(draft, &draft->client, draft->stack_port))
			continue;
		result = enter_side(draft, STACK_SIDE, protocol);
		if (result != -EEXIST)
			return result;
	}
	return result;
}

/*
 * Enter the endpoint side. The client's port is taken first: where it is not masqueraded, it
 * belongs to it in any case.
 */
static __always_inline int enter_endpoint_side(struct __sk_buff *skb, struct flow *draft,
					       const struct host *host, __u8 protocol)
{
	int is_masqueraded = draft->flags & FLOW_MASQUERADED;
	int try, result = -EEXIST;
	struct ends from_endpoint;
	__u16 port;

	for (try = 0; try < PORT_TRIES; try++) {
		port = try ? random_port(host) : bpf_ntohs(draft->client_port);
		if ((try || is_masqueraded) && is_others_port(host, port, protocol))
			continue;
		draft->node_port = bpf_htons(port);
		if (is_mirror(draft, &draft->node, draft->node_port))
			continue;
		from_endpoint = reverse_ends(draft, ENDPOINT_SIDE);
		if ((try || is_masqueraded) && is_others(skb, &from_endpoint, protocol))
			continue;
		result = enter_side(draft, ENDPOINT_SIDE, protocol);
		if (result != -EEXIST)
			return result;
	}
	return result;
}

/*
 * Enter a new flow at all its sides, or at none. 0, -EEXIST where no port is free or another CPU
 * was first, or what else the kernel says, -E2BIG where there is no place.
 */
static __always_inline int enter_flow(struct __sk_buff *skb, struct flow *draft,
				      const struct host *host, __u8 protocol)
{
	struct flow *stack_side;
	int result = 0;

	if (!(draft->flags & FLOW_AT_ONCE))
		result = enter_stack_side(draft, protocol);
	if (result)
		return result;
	if (draft->flags & (FLOW_MASQUERADED | FLOW_AT_ONCE))
		result = enter_endpoint_side(skb, draft, host, protocol);
	if (!result && draft->flags & FLOW_MASQUERADED && !(draft->flags & FLOW_AT_ONCE)) {
		stack_side = flow_at_side(draft, STACK_SIDE, protocol);
		if (stack_side)
			stack_side->node_port = draft->node_port;
	}
	if (!result)
		result = enter_side(draft, CLIENT_SIDE, protocol);
	if (result)
		delete_flow(draft, protocol);
	return result;
}
