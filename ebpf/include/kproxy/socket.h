/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is remembered of a socket's translation, so that it sees the frontends that it asked, and
 * goes when the socket goes. Storage in a socket itself would cost each connection more than all
 * else that a hook does: only unconnected ones have it, which live longer than a connection.
 */

#include <kproxy/choose.h>

/* A frontend, and the endpoint that answers for it. */
struct pair {
	struct address frontend;
	struct address endpoint;
	__be16 frontend_port; /* 0: this is none */
	__be16 endpoint_port;
};

/*
 * Connected sockets, by cookie, until they close. What closes unseen (sockets of the kernel's own,
 * or while nothing is attached) the agent takes out. It also destroys those of UDP when their
 * endpoint leaves: no program sees what they send later (backends/ebpf/driver/sockets.py).
 * Memory is there beforehand for those of TCP: to find some costs each connection 150 ns. More than
 * there is room for are left to tc.
 */
struct connected {
	__u64 netns_cookie;
	struct pair pair;
	__u32 pad;
};

BPF_TABLE("hash", __u64, struct connected, tcp_sockets, 32768);
BPF_F_TABLE("hash", __u64, struct connected, udp_sockets, 65536, BPF_F_NO_PREALLOC);

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

/*
 * How many connected sockets there are of those whose cookies end alike. The kernel gives cookies
 * in a row, so these words are near each other, and entries of a hash map are not: a socket that
 * was never translated is told by less than a cache miss. It may be too many, as what the agent
 * takes out stays counted, but never too few.
 */
#define COOKIE_ENDS 65536
BPF_TABLE("array", int, __u64, connected_counts, COOKIE_ENDS);

static __always_inline __u64 *connected_count(__u64 cookie)
{
	int end = cookie & (COOKIE_ENDS - 1);

	return connected_counts.lookup(&end);
}

static __always_inline const struct connected *connected_at(__u64 cookie, __u8 protocol)
{
	const __u64 *count = connected_count(cookie);

	if (!count || !*count)
		return NULL;
	if (protocol == IPPROTO_TCP)
		return tcp_sockets.lookup(&cookie);
	return udp_sockets.lookup(&cookie);
}

static __always_inline void forget_connected(__u64 cookie, __u8 protocol)
{
	__u64 *count = connected_count(cookie);

	if (!count || !*count)
		return;
	if (protocol == IPPROTO_TCP ? !tcp_sockets.delete(&cookie) : !udp_sockets.delete(&cookie))
		__sync_fetch_and_add(count, -1);
}

/* 0, or negative: there is no room. */
static __always_inline int remember_connected(__u64 cookie, __u8 protocol,
					      struct connected *socket)
{
	__u64 *count = connected_count(cookie);
	int result;

	if (!count)
		return -1;
	forget_connected(cookie, protocol);
	__sync_fetch_and_add(count, 1);
	result = protocol == IPPROTO_TCP ? tcp_sockets.insert(&cookie, socket) :
					   udp_sockets.insert(&cookie, socket);
	if (result)
		__sync_fetch_and_add(count, -1);
	return result;
}
