/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel's own connection tracking knows. It tells nothing of SCTP. */

#include <kproxy/kfunc.h>
#include <kproxy/packet.h>

#define ENOENT 2

struct nf_conn;

/* As the kernel has it from 5.18 on; the longer one of later kernels adds the zone. */
struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

_Static_assert(sizeof(struct bpf_ct_opts) == 12, "the kernel tells versions apart by the size");

static struct nf_conn *(*const bpf_skb_ct_lookup)(struct __sk_buff *skb,
						  struct bpf_sock_tuple *tuple, __u32 tuple_size,
						  struct bpf_ct_opts *opts,
						  __u32 opts_size) = KFUNC(1);
static void (*const bpf_ct_release)(struct nf_conn *connection) = KFUNC(2);
static int (*const bpf_ct_change_timeout)(struct nf_conn *connection,
					  __u32 timeout_ms) = KFUNC(3);

#if KPROXY_FAMILY == 4
#define TUPLE_SIZE sizeof(((struct bpf_sock_tuple *)0)->ipv4)
#else
#define TUPLE_SIZE sizeof(((struct bpf_sock_tuple *)0)->ipv6)
#endif

/* Both ends of a packet, as the kernel's functions take them, with TUPLE_SIZE. */
static __always_inline struct bpf_sock_tuple tuple_of(const struct ends *ends)
{
	struct bpf_sock_tuple tuple = {};

#if KPROXY_FAMILY == 4
	tuple.ipv4.saddr = ends->source.word[0];
	tuple.ipv4.daddr = ends->destination.word[0];
	tuple.ipv4.sport = ends->source_port;
	tuple.ipv4.dport = ends->destination_port;
#else
	__builtin_memcpy(tuple.ipv6.saddr, &ends->source, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, &ends->destination, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = ends->source_port;
	tuple.ipv6.dport = ends->destination_port;
#endif
	return tuple;
}

/* How the kernel tracks a packet as it is here; the first where it cannot be asked. */
enum tracking { TRACKING_UNKNOWN, NOT_TRACKED, TRACKED_FORWARD, TRACKED_BACK };

static __always_inline enum tracking tracking_of(struct __sk_buff *skb, const struct ends *ends,
						 __u8 protocol)
{
	struct bpf_ct_opts opts = { .netns_id = BPF_F_CURRENT_NETNS, .l4proto = protocol };
	struct bpf_sock_tuple tuple = tuple_of(ends);
	struct nf_conn *connection;

	connection = bpf_skb_ct_lookup(skb, &tuple, TUPLE_SIZE, &opts, sizeof(opts));
	if (!connection)
		return opts.error == -ENOENT ? NOT_TRACKED : TRACKING_UNKNOWN;
	bpf_ct_release(connection);
	return opts.dir ? TRACKED_BACK : TRACKED_FORWARD;
}

/*
 * Have the kernel forget the connection of a packet that leaves if it masqueraded that: it tracks
 * the answers to it as they are here, and not the packet. Whether it did.
 */
static __always_inline int forget_masqueraded(struct __sk_buff *skb, const struct ends *ends,
					      __u8 protocol)
{
	struct bpf_ct_opts opts = { .netns_id = BPF_F_CURRENT_NETNS, .l4proto = protocol };
	struct ends answer = { .source = ends->destination,
			       .source_port = ends->destination_port,
			       .destination = ends->source,
			       .destination_port = ends->source_port };
	struct bpf_sock_tuple tuple = tuple_of(&answer);
	struct nf_conn *connection;

	if (tracking_of(skb, ends, protocol) > NOT_TRACKED)
		return 0;
	connection = bpf_skb_ct_lookup(skb, &tuple, TUPLE_SIZE, &opts, sizeof(opts));
	if (!connection)
		return 0;
	bpf_ct_change_timeout(connection, 0);
	bpf_ct_release(connection);
	return 1;
}
