/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which flow goes where a new one finds no place: the oldest that is half-open still, among the
 * last ones that this CPU opened. So a flood of openings crowds out itself, and nobody else.
 */

#include <kproxy/flow.h>

#define HALF_OPEN_SLOTS 65536
#define HALF_OPEN_SLOTS_PER_CPU 8192 /* more CPUs than this gives room to share their slots */
#define HALF_OPEN_LOOKS 32

/* Positions in a CPU's part of the ring: of the next one to enter, of the oldest one. */
struct half_open_ring {
	__u32 next;
	__u32 oldest;
};

BPF_TABLE("array", int, struct flow_key, half_open, HALF_OPEN_SLOTS);
BPF_TABLE("percpu_array", int, struct half_open_ring, half_open_rings, 1);

static __always_inline int half_open_slot(__u32 position)
{
	__u32 slot = bpf_get_smp_processor_id() * HALF_OPEN_SLOTS_PER_CPU +
		     position % HALF_OPEN_SLOTS_PER_CPU;

	return slot % HALF_OPEN_SLOTS;
}

/* A new flow; `key` is that of its client side. */
static __always_inline void remember_half_open(const struct flow_key *key)
{
	struct half_open_ring *ring;
	struct flow_key entry = *key;
	int only = 0, slot;

	ring = half_open_rings.lookup(&only);
	if (!ring)
		return;
	slot = half_open_slot(ring->next++);
	half_open.update(&slot, &entry);
	if (ring->next - ring->oldest > HALF_OPEN_SLOTS_PER_CPU)
		ring->oldest = ring->next - HALF_OPEN_SLOTS_PER_CPU;
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
	int only = 0, slot, look;

	ring = half_open_rings.lookup(&only);
	if (!ring)
		return 0;
	for (look = 0; look < HALF_OPEN_LOOKS; look++) {
		if (ring->oldest == ring->next)
			return 0;
		slot = half_open_slot(ring->oldest++);
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
