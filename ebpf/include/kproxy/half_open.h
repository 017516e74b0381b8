/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which flow goes where a new one finds no place: the oldest that is half-open still, among the
 * last ones that were opened. So a flood of openings crowds out itself, and nobody else. One ring for
 * all CPUs: a flood that one of them takes fills the map for the others too.
 */

#include <kproxy/flow.h>

#define HALF_OPEN_SLOTS 65536
#define HALF_OPEN_LOOKS 32

/* Positions in the ring: of the next one to enter, of the oldest one. */
struct half_open_ring {
	__u64 next;
	__u64 oldest;
};

BPF_TABLE("array", int, struct flow_key, half_open, HALF_OPEN_SLOTS);
BPF_TABLE("array", int, struct half_open_ring, half_open_rings, 1);

/* A new flow; `key` is that of its client side. */
static __always_inline void remember_half_open(const struct flow_key *key)
{
	struct half_open_ring *ring;
	struct flow_key entry = *key;
	int only = 0, slot;

	ring = half_open_rings.lookup(&only);
	if (!ring)
		return;
	slot = __sync_fetch_and_add(&ring->next, 1) % HALF_OPEN_SLOTS;
	half_open.update(&slot, &entry);
}

/* TCP and SCTP: the client did not answer a reply yet; UDP: there was none. */
static __always_inline int is_half_open(const struct flow *client_side, __u8 protocol)
{
	__u64 open = protocol == IPPROTO_UDP ? STATE_REPLIED : STATE_ACKNOWLEDGED;

	return !(client_side->state & open);
}

/* Take the oldest half-open flow away, by way of `copy`; 0 where none is found. */
static __always_inline int give_up_half_open(struct flow *copy)
{
	struct half_open_ring *ring;
	struct flow_key *entry, key;
	struct flow *flow;
	__s64 remembered;
	int only = 0, slot, look;

	ring = half_open_rings.lookup(&only);
	if (!ring)
		return 0;
	for (look = 0; look < HALF_OPEN_LOOKS; look++) {
		remembered = ring->next - ring->oldest;
		if (remembered <= 0)
			return 0;
		if (remembered > HALF_OPEN_SLOTS)
			ring->oldest = ring->next - HALF_OPEN_SLOTS;
		slot = __sync_fetch_and_add(&ring->oldest, 1) % HALF_OPEN_SLOTS;
		entry = half_open.lookup(&slot);
		if (!entry)
			return 0;
		key = *entry;
		flow = flows.lookup(&key);
		if (!flow || flow->side != CLIENT_SIDE || !is_half_open(flow, key.protocol))
			continue;
		*copy = *flow;
		delete_flow(copy, key.protocol);
		return 1;
	}
	return 0;
}
