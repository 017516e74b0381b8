/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flows: connections that tc translates, as one entry for each view that a place has of them.
 *
 *	client side	client -> frontend	where the client's packets come in
 *	stack side	client -> endpoint	in the node's own stack
 *	endpoint side	node -> endpoint	masqueraded, or all translated at once
 *
 * Every entry holds the addresses of all views, so that one lookup suffices to get from any to any
 * other. The entries of a flow are born together and die together: a part of a flow would hand a
 * client packets of somebody it never spoke to. Each keeps when its own place saw the last packet;
 * the agent takes away the flows that no place sees any more (backends/ebpf/driver/sweep.py).
 */

#include <kproxy/note.h>
#include <kproxy/packet.h>

enum side { CLIENT_SIDE, STACK_SIDE, ENDPOINT_SIDE };

enum flow_flags {
	FLOW_MASQUERADED = 1, /* there is an endpoint side behind the stack side */
	FLOW_AT_ONCE = 2, /* there is an endpoint side and no stack side */
	FLOW_KERNELS = 4, /* not ours to translate: there is the client side alone */
	FLOW_TRACKED = 8, /* the kernel's own tracking translates it, and can be asked for it */
};

/* What passed so far, complete on the client side. Forward is what the client sends. */
enum flow_state {
	STATE_REPLIED = 1,
	STATE_ACKNOWLEDGED = 2, /* TCP, SCTP: the client answered a reply */
	STATE_FIN_FORWARD = 4,
	STATE_FIN_REVERSE = 8,
	STATE_RESET = 16,
};

#define STATE_CLOSING (STATE_FIN_FORWARD | STATE_FIN_REVERSE | STATE_RESET)

/* A tuple as both directions write it: the lower end first. */
struct flow_key {
	struct address low;
	struct address high;
	__be16 low_port;
	__be16 high_port;
	__u8 protocol;
	__u8 pad[3];
};

struct flow {
	__u64 state; /* 64 bits, as there are no other atomic operations */
	__u32 stamp; /* of the last packet, see now() */
	__u32 id; /* random, the same in all entries of a flow */
	__u32 acknowledged; /* TCP: what the sender of this direction acknowledged last ... */
	__u32 window; /* ... and how much further it took */
	__u32 device; /* at once: ifindex where the client's packets are met */
	__u32 route; /* at once: ifindex that leads to the endpoint */
	struct address client;
	struct address frontend;
	struct address endpoint;
	struct address node;
	__be16 client_port;
	__be16 frontend_port;
	__be16 endpoint_port;
	__be16 node_port;
	__be16 stack_port; /* of the client in the stack: its own, unless another flow has that one */
	__u8 side;
	__u8 flags;
	__u32 route_stamp; /* when the route was looked up */
};

_Static_assert(sizeof(struct flow_key) == 8 + 2 * sizeof(struct address), "read by the agent");
_Static_assert(sizeof(struct flow) == 48 + 4 * sizeof(struct address), "read by the agent");

BPF_F_TABLE("hash", struct flow_key, struct flow, flows, 524288, BPF_F_NO_PREALLOC);

/* Time by the tick, in units of 2^28 ns, about a quarter of a second: stamps are this. */
static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() >> 28;
}

static __always_inline int is_lower(const struct address *a, __be16 a_port, const struct address *b,
				    __be16 b_port)
{
	int i;

#pragma unroll
	for (i = 0; i < ADDRESS_WORDS; i++) {
		if (a->word[i] != b->word[i])
			return a->word[i] < b->word[i];
	}
	return a_port < b_port;
}

static __always_inline struct flow_key flow_key_of(const struct ends *ends, __u8 protocol)
{
	struct flow_key key = { .protocol = protocol };

	if (is_lower(&ends->source, ends->source_port, &ends->destination,
		     ends->destination_port)) {
		key.low = ends->source;
		key.low_port = ends->source_port;
		key.high = ends->destination;
		key.high_port = ends->destination_port;
	} else {
		key.low = ends->destination;
		key.low_port = ends->destination_port;
		key.high = ends->source;
		key.high_port = ends->source_port;
	}
	return key;
}

/* How a packet of the client looks in a view. */
static __always_inline struct ends forward_ends(const struct flow *flow, __u8 side)
{
	struct ends ends = { .source = flow->client,
			     .source_port = flow->client_port,
			     .destination = flow->frontend,
			     .destination_port = flow->frontend_port };

	if (side == CLIENT_SIDE)
		return ends;
	ends.destination = flow->endpoint;
	ends.destination_port = flow->endpoint_port;
	ends.source_port = flow->stack_port;
	if (side == ENDPOINT_SIDE) {
		ends.source = flow->node;
		ends.source_port = flow->node_port;
	}
	return ends;
}

/* How a packet to the client looks in a view. */
static __always_inline struct ends reverse_ends(const struct flow *flow, __u8 side)
{
	struct ends forward = forward_ends(flow, side);
	struct ends ends = { .source = forward.destination,
			     .source_port = forward.destination_port,
			     .destination = forward.source,
			     .destination_port = forward.source_port };

	return ends;
}

/* Whether a packet that met this entry comes from the client. No view has two equal ends. */
static __always_inline int is_forward(const struct flow *flow, const struct ends *packet)
{
	struct ends forward = forward_ends(flow, flow->side);

	return packet->source_port == forward.source_port &&
	       is_same_address(&packet->source, &forward.source);
}

static __always_inline struct flow *flow_at(const struct ends *ends, __u8 protocol)
{
	struct flow_key key = flow_key_of(ends, protocol);

	return flows.lookup(&key);
}

/* The side that the endpoint's packets come by. */
static __always_inline __u8 far_side(const struct flow *flow)
{
	return flow->flags & (FLOW_MASQUERADED | FLOW_AT_ONCE) ? ENDPOINT_SIDE : STACK_SIDE;
}

/* The entry of a flow at another side; NULL where that is gone, or another flow's. */
static __always_inline struct flow *flow_at_side(const struct flow *flow, __u8 side, __u8 protocol)
{
	struct ends ends = forward_ends(flow, side);
	struct flow *other = flow_at(&ends, protocol);

	return other && other->id == flow->id ? other : NULL;
}

static __always_inline __u64 set_bits(__u64 *word, __u64 bits)
{
	__u64 before = __sync_fetch_and_or(word, bits);

	asm volatile("" : "+r"(before)); /* this instruction exists only with a result */
	return before;
}

/*
 * Note what passed. The client side is told of what others see, once: so it alone says in which
 * state a flow is, and only how long nothing passed takes a look at all sides.
 */
static __always_inline void note_state(struct flow *flow, __u64 seen, __u8 protocol)
{
	struct flow *client_side;

	if ((flow->state & seen) == seen)
		return;
	set_bits(&flow->state, seen);
	if (flow->side == CLIENT_SIDE)
		return;
	client_side = flow_at_side(flow, CLIENT_SIDE, protocol);
	if (client_side)
		set_bits(&client_side->state, seen);
}

/* Leaves what another flow has at that side alone. */
static __always_inline void delete_side(const struct flow *flow, __u8 side, __u8 protocol)
{
	struct ends ends = forward_ends(flow, side);
	struct flow_key key = flow_key_of(&ends, protocol);
	struct flow *entry = flows.lookup(&key);

	if (entry && entry->id == flow->id)
		flows.delete(&key);
}

/*
 * Take a flow away, its client side last: until then that client cannot open another. `flow` is
 * no entry of the map, as those may be used again as soon as they are gone.
 */
static __always_inline void delete_flow(const struct flow *flow, __u8 protocol)
{
	if (flow->flags & (FLOW_MASQUERADED | FLOW_AT_ONCE))
		delete_side(flow, ENDPOINT_SIDE, protocol);
	if (!(flow->flags & (FLOW_AT_ONCE | FLOW_KERNELS)))
		delete_side(flow, STACK_SIDE, protocol);
	delete_side(flow, CLIENT_SIDE, protocol);
}
