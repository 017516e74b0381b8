/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What sockets remember of their translation, so that they see the frontends that they asked. It
 * lives in the sockets themselves, and goes when they go.
 */

#include <kproxy/choose.h>

/* A frontend, and the endpoint that answers for it. */
struct pair {
	struct address frontend;
	struct address endpoint;
	__be16 frontend_port; /* 0: this is none */
	__be16 endpoint_port;
};

BPF_SK_STORAGE(peers, struct pair); /* of connected sockets */

/*
 * Connected UDP sockets, by cookie: no program sees what they send later, so the agent destroys
 * them when their endpoint leaves (backends/ebpf/driver/sockets.py), and removes those that closed.
 */
struct udp_socket {
	__u64 netns_cookie;
	struct pair pair;
	__u32 pad;
};

BPF_F_TABLE("hash", __u64, struct udp_socket, udp_sockets, 65536, BPF_F_NO_PREALLOC);

/* Of unconnected UDP sockets: the last three tell whether the endpoint is still a target. */
struct slot {
	struct pair pair;
	__u16 base;
	__u16 count;
	__u64 list; /* 0: tc serves this frontend's datagrams */
};

#define SLOTS 4

/* `version` is odd while one thread writes; others then leave the socket's datagram to tc. */
struct slots {
	__u64 version;
	struct slot slot[SLOTS];
};

BPF_SK_STORAGE(datagrams, struct slots);

static __always_inline int is_frontend(const struct pair *pair, const struct frontend_key *key)
{
	return pair->frontend_port == key->port && is_same_address(&pair->frontend, &key->address);
}

static __always_inline int is_endpoint(const struct pair *pair, const struct address *address,
				       __be16 port)
{
	return port && pair->endpoint_port == port && is_same_address(&pair->endpoint, address);
}

/* The slot of a frontend; SLOTS: it has none. */
static __always_inline __u32 slot_of(const struct slots *slots, const struct frontend_key *frontend)
{
	__u32 n;

#pragma unroll
	for (n = 0; n < SLOTS; n++)
		if (is_frontend(&slots->slot[n].pair, frontend))
			return n;
	return SLOTS;
}

static __always_inline __u32 slot_answering(const struct slots *slots,
					    const struct address *address, __be16 port)
{
	__u32 n;

#pragma unroll
	for (n = 0; n < SLOTS; n++)
		if (slots->slot[n].list && is_endpoint(&slots->slot[n].pair, address, port))
			return n;
	return SLOTS;
}

static __always_inline __u32 free_slot(const struct slots *slots)
{
	__u32 n;

#pragma unroll
	for (n = 0; n < SLOTS; n++)
		if (!slots->slot[n].pair.frontend_port)
			return n;
	return SLOTS;
}

/* Begin to write what nobody has written since the version was `seen`; 0: somebody has, or does. */
static __always_inline int begin_writing(struct slots *slots, __u64 seen)
{
	__u64 found = __sync_fetch_and_or(&slots->version, 1);

	if (found == seen)
		return !(seen & 1);
	if (!(found & 1))
		__sync_fetch_and_add(&slots->version, 1);
	return 0;
}

static __always_inline void end_writing(struct slots *slots)
{
	__sync_fetch_and_add(&slots->version, 1);
}

/* Ordered against the reads before and after it. */
static __always_inline __u64 version_of(struct slots *slots)
{
	return __sync_fetch_and_add(&slots->version, 0);
}
