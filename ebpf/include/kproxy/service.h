/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Services as the agent writes them: layouts that Python packs (backends/ebpf/render/layout.py).
 *
 * Addresses and ports are in network order, all else in the machine's. No implicit padding; what
 * pads is zero, as keys are compared byte by byte. Entries depend on the forwarding table alone.
 *
 * A list is written before a frontend leads to it, and removed after none does. Who finds a
 * frontend but not its chunk has met that moment: the frontend, looked up again, has the new list.
 */

#include <kproxy/address.h>

/* What new connections of one origin get at a frontend. */
enum use { USE_FORWARD, USE_REJECT, USE_DROP };

/* Where a connection comes from. A local pod is a pod, whatever else it is. */
enum origin { FROM_OUTSIDE, FROM_POD, FROM_NODE, ORIGINS };

struct decision {
	__u16 base; /* the first of `count` neighbours in the list */
	__u16 count; /* never 0 where use is USE_FORWARD */
	__u8 use;
	__u8 masquerade; /* 0 or 1; an endpoint that chooses itself is masqueraded in any case */
	__u8 pad[2];
};

enum via { VIA_CLUSTER_IP, VIA_EXTERNAL_IP, VIA_LOAD_BALANCER, VIA_NODE_PORT };

enum frontend_flags {
	FRONTEND_SOURCES = 1, /* only who is in `source_range` may use it; others are dropped */
};

/*
 * A frontend. NodePorts have the unspecified address. Port 0 of protocol 0 is the wildcard: what
 * any other port of a clusterIP gets.
 */
struct frontend_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct frontend {
	__u64 service; /* digest of the service port's name and protocol; 0 at a wildcard */
	__u64 list; /* digest of its list of targets; 0 where nothing is forwarded */
	struct decision by_origin[ORIGINS];
	__u32 affinity_s; /* 0: none */
	__u8 via;
	__u8 flags;
	__u8 pad[2];
};

/*
 * A list of targets, in chunks that are never altered: another list has another digest. One array
 * serves both lists of a service port: local ones alone, then those in both, then cluster ones.
 */
#define TARGETS_PER_CHUNK 16

struct target {
	struct address address;
	__be16 port;
	__u8 local;
	__u8 pad;
};

struct chunk_key {
	__u64 list;
	__u32 number; /* of the chunk: position / TARGETS_PER_CHUNK */
	__u32 pad;
};

struct chunk {
	struct target targets[TARGETS_PER_CHUNK]; /* the rest of the last one is zero */
};

/* Where a target is in a list; kept for lists of UDP, and of service ports with affinity. */
struct member_key {
	__u64 list;
	struct address address;
	__be16 port;
	__u16 pad[KPROXY_FAMILY == 4 ? 1 : 3];
};

struct member {
	__u32 position;
};

/* Which sources a service port admits (LPM). `bits` counts those of `service` too. */
struct source_key {
	__u32 bits;
	__u32 service[2]; /* the bytes of `frontend.service`, which would need padding here */
	struct address address;
};

/* What becomes of addresses without a frontend (LPM): those of service networks. */
enum unclaimed { UNCLAIMED_PASS = 1, UNCLAIMED_DROP = 2 };

struct network_key {
	__u32 bits;
	struct address address;
};

/* What holds for all service ports of the family: one entry, written with the table. */
enum local_pods { PODS_UNDETECTED, PODS_BY_NETWORK, PODS_BY_DEVICE };

struct rules {
	struct address pod_network; /* PODS_BY_NETWORK: source & pod_mask == pod_network */
	struct address pod_mask;
	__u8 local_pods;
	__u8 pad[7];
};

#define ADDRESS_SIZE (4 * ADDRESS_WORDS)
_Static_assert(sizeof(struct decision) == 8, "packed by the agent");
_Static_assert(sizeof(struct frontend_key) == 4 + ADDRESS_SIZE, "packed by the agent");
_Static_assert(sizeof(struct frontend) == 48, "packed by the agent");
_Static_assert(sizeof(struct target) == 4 + ADDRESS_SIZE, "packed by the agent");
_Static_assert(sizeof(struct chunk_key) == 16, "packed by the agent");
_Static_assert(sizeof(struct member_key) == (KPROXY_FAMILY == 4 ? 16 : 32), "packed by the agent");
_Static_assert(sizeof(struct source_key) == 12 + ADDRESS_SIZE, "packed by the agent");
_Static_assert(sizeof(struct network_key) == 4 + ADDRESS_SIZE, "packed by the agent");
_Static_assert(sizeof(struct rules) == 8 + 2 * ADDRESS_SIZE, "packed by the agent");
