/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ports of packets that come in fragments: only the first one has them, the others follow it.
 *
 * A later fragment that comes before its first one is nobody's: who drops it cuts foreign traffic,
 * who keeps it needs a queue. It passes as it is, and the datagram is lost where it was ours.
 */

#include <kproxy/packet.h>

/* What names a packet of which this is a part: RFC 791, RFC 8200. */
struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol; /* IPv4; of IPv6 fragments only the first one's is sure to be that of L4 */
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

BPF_TABLE("lru_hash", struct fragment_key, struct fragment, fragments, 16384);

static __always_inline struct fragment_key fragment_key_of(const struct packet *packet)
{
	struct fragment_key key = { .source = packet->ends.source,
				    .destination = packet->ends.destination,
				    .id = packet->fragment_id,
				    .protocol = KPROXY_FAMILY == 4 ? packet->protocol : 0 };

	return key;
}

/* Keep the ports of a first fragment as it came in, before it is rewritten; 0 or negative. */
static __always_inline int remember_fragment(const struct packet *packet)
{
	struct fragment_key key = fragment_key_of(packet);
	struct fragment fragment = { .source_port = packet->ends.source_port,
				     .destination_port = packet->ends.destination_port,
				     .protocol = packet->protocol };

	return fragments.update(&key, &fragment);
}

/* Give a later fragment the ports and the protocol of its first one; 0, or negative: unknown. */
static __always_inline int recall_fragment(struct packet *packet)
{
	struct fragment_key key = fragment_key_of(packet);
	const struct fragment *first = fragments.lookup(&key);

	if (!first)
		return -1;
	packet->ends.source_port = first->source_port;
	packet->ends.destination_port = first->destination_port;
	packet->protocol = first->protocol;
	return 0;
}
