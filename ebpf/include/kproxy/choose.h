/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a new connection deserves: frontend, decision, target. Socket hooks and tc share it, with its
 * client affinity, so that both answer alike. The order of the questions is that of resolve().
 */

#include <kproxy/same_address.h>
#include <kproxy/service_maps.h>
#include <kproxy/device.h>
#include <kproxy/reason.h>

/* Who opens a connection. */
struct client {
	struct address address;
	__u8 origin; /* enum origin */
	__u8 own; /* the address is the node's own, wherever the packet comes from */
};

/* The frontend that a destination meets; NULL: none, for the reason. */
struct meeting {
	const struct frontend *frontend;
	struct frontend_key key;
	__u16 reason; /* enum reason: CHOSEN where there is a frontend */
};

struct choice {
	__u64 service; /* 0: none, as at a clusterIP's other ports */
	struct target target; /* of USE_FORWARD */
	__u16 reason; /* enum reason; CHOSEN is the one of USE_FORWARD */
	__u8 masquerade;
	__u8 via;
};

/* Which endpoint a client had last, per service port with affinity. */
struct affinity_key {
	__u64 service;
	struct address client;
	__u32 pad[KPROXY_FAMILY == 4];
};

struct affinity {
	struct address address;
	__be16 port;
	__u16 pad;
	__u32 stamp_s;
};

BPF_TABLE("lru_hash", struct affinity_key, struct affinity, affinity, 65536);

static __always_inline int is_specified(const struct address *address)
{
	const struct address unspecified = {};

	return !is_same_address(address, &unspecified);
}

static __always_inline int is_in_pod_network(const struct rules *rules, const struct address *source)
{
	__be32 difference = 0;
	int i;

#pragma unroll
	for (i = 0; i < ADDRESS_WORDS; i++)
		difference |= (source->word[i] & rules->pod_mask.word[i]) ^
			      rules->pod_network.word[i];
	return !difference;
}

/* `from_pod_device`: it came in by a device with DEVICE_POD. */
static __always_inline int is_local_pod(const struct address *source, int from_pod_device)
{
	int only = 0;
	const struct rules *rules = table_rules.lookup(&only);

	if (!rules || rules->local_pods == PODS_UNDETECTED)
		return 0;
	return rules->local_pods == PODS_BY_NETWORK ? is_in_pod_network(rules, source) :
						      from_pod_device;
}

static __always_inline struct client client_of(const struct address *source, int from_pod_device)
{
	struct client client = { .address = *source, .own = is_own_address(source) };

	client.origin = client.own ? FROM_NODE : FROM_OUTSIDE;
	if (is_local_pod(source, from_pod_device))
		client.origin = FROM_POD;
	return client;
}

static __always_inline int is_loopback_address(const struct address *address)
{
#if KPROXY_FAMILY == 4
	return (address->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
#else
	return !(address->word[0] | address->word[1] | address->word[2]) &&
	       address->word[3] == bpf_htonl(1);
#endif
}

static __always_inline int admits_node_ports(const struct address *address)
{
	struct network_key key = { .bits = 8 * sizeof(*address), .address = *address };
	const __u8 *admits = node_port_networks.lookup(&key);

	return admits && *admits;
}

/*
 * Whether addresses of a service network that no Service has are to be dropped is not asked here
 * (`is_unclaimed`): it costs most, and most packets are of no Service.
 */
static __always_inline struct meeting meet(const struct frontend_key *destination, int client_is_own)
{
	const struct address *address = &destination->address;
	struct meeting met = { .key = *destination, .reason = NOT_A_SERVICE };
	struct frontend_key node_port = { .port = destination->port,
					  .protocol = destination->protocol };

	if (!is_specified(address)) /* no packet has it, and it is the key of NodePorts */
		return met;
	met.reason = CHOSEN;
	met.frontend = frontends.lookup(&met.key);
	if (met.frontend)
		return met;
	met.frontend = frontends.lookup(&node_port);
	if (met.frontend && is_own_address(address)) {
		met.key = node_port;
		if (admits_node_ports(address) && (client_is_own || !is_loopback_address(address)))
			return met;
		met.frontend = NULL;
		met.reason = NO_NODE_PORT_HERE;
		return met;
	}
	met.key.port = 0;
	met.key.protocol = 0;
	met.frontend = frontends.lookup(&met.key);
	if (met.frontend && !is_own_address(address))
		return met;
	met.frontend = NULL;
	met.reason = NOT_A_SERVICE;
	return met;
}

/* Whether an address that meets no frontend is one of a service network that nobody has. */
static __always_inline int is_unclaimed(const struct address *address)
{
	struct network_key key = { .bits = 8 * sizeof(*address), .address = *address };
	const __u8 *unclaimed = unclaimed_networks.lookup(&key);

	return unclaimed && *unclaimed == UNCLAIMED_DROP && !is_own_address(address);
}

static __always_inline int admits_source(const struct frontend *frontend,
					 const struct address *source)
{
	struct source_key key = { .bits = 64 + 8 * sizeof(*source), .address = *source };

	if (!(frontend->flags & FRONTEND_SOURCES))
		return 1;
	key.service[0] = frontend->service;
	key.service[1] = frontend->service >> 32;
	return source_ranges.lookup(&key) != NULL;
}

static __always_inline const struct decision *decision_for(const struct frontend *frontend,
							   __u8 origin)
{
	if (origin == FROM_POD)
		return &frontend->by_origin[FROM_POD];
	if (origin == FROM_NODE)
		return &frontend->by_origin[FROM_NODE];
	return &frontend->by_origin[FROM_OUTSIDE];
}

/* CHOSEN where a target is to be picked. */
static __always_inline __u16 reason_of(const struct frontend *frontend,
				       const struct decision *decision)
{
	if (decision->use == USE_REJECT)
		return frontend->service ? NO_ENDPOINT : UNKNOWN_PORT;
	if (decision->use == USE_DROP)
		return NO_LOCAL_ENDPOINT;
	return CHOSEN;
}

/* Seconds since boot, by the tick: the programs cannot know how many jiffies a second has. */
static __always_inline __u32 seconds(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000;
}

static __always_inline int is_member(const struct frontend *frontend,
				     const struct decision *decision, const struct address *address,
				     __be16 port)
{
	struct member_key key = { .list = frontend->list, .address = *address, .port = port };
	const struct member *member = members.lookup(&key);

	return member && member->position - decision->base < decision->count;
}

/* The target at a random position; its port is 0 where the list has been taken away. */
static __always_inline struct target random_target(__u64 list, __u16 base, __u16 count)
{
	__u32 position = base + ((__u64)bpf_get_prandom_u32() * count >> 32);
	struct chunk_key key = { .list = list, .number = position / TARGETS_PER_CHUNK };
	struct target none = {};
	const struct chunk *chunk = chunks.lookup(&key);

	return chunk ? chunk->targets[position % TARGETS_PER_CHUNK] : none;
}

/* What the client had within the time-out, if it still is one of the targets; port 0 if not. */
static __always_inline struct target kept_target(const struct frontend *frontend,
						 const struct decision *decision,
						 const struct affinity_key *client)
{
	struct affinity_key key = *client;
	struct affinity *last = affinity.lookup(&key);
	struct target target = {};
	__u32 now_s = seconds();

	if (!last || now_s - last->stamp_s > frontend->affinity_s)
		return target;
	target.address = last->address;
	target.port = last->port;
	if (!is_member(frontend, decision, &target.address, target.port)) {
		target.port = 0;
		return target;
	}
	last->stamp_s = now_s;
	return target;
}

static __always_inline struct target target_by_affinity(const struct frontend *frontend,
							const struct decision *decision,
							const struct address *client)
{
	struct affinity_key key = { .service = frontend->service, .client = *client };
	struct target target = kept_target(frontend, decision, &key);
	struct affinity last = {};

	if (target.port)
		return target;
	target = random_target(frontend->list, decision->base, decision->count);
	if (!target.port)
		return target;
	last.address = target.address;
	last.port = target.port;
	last.stamp_s = seconds();
	affinity.update(&key, &last);
	return target;
}

/* Pick a target for a decision to forward. */
static __always_inline struct choice pick(const struct frontend *frontend,
					  const struct decision *decision,
					  const struct client *client)
{
	struct choice choice = { .service = frontend->service,
				 .masquerade = decision->masquerade,
				 .via = frontend->via,
				 .reason = CHOSEN };

	if (frontend->affinity_s)
		choice.target = target_by_affinity(frontend, decision, &client->address);
	else
		choice.target = random_target(frontend->list, decision->base, decision->count);
	if (!choice.target.port)
		choice.reason = TABLE_BROKEN;
	if (is_same_address(&choice.target.address, &client->address))
		choice.masquerade = 1;
	return choice;
}

/*
 * Whether what was read of a frontend holds. The memory of an entry that the agent replaces may be
 * reused at once, and the list that it led to goes away: so this is asked after the last look.
 */
static __always_inline int is_current(const struct meeting *met)
{
	struct frontend_key key = met->key;

	return frontends.lookup(&key) == met->frontend;
}

static __always_inline struct choice choose_at(const struct frontend *frontend,
					       const struct client *client)
{
	struct choice choice = { .service = frontend->service, .via = frontend->via };
	const struct decision *decision = decision_for(frontend, client->origin);

	choice.reason = SOURCE_NOT_ADMITTED;
	if (!admits_source(frontend, &client->address))
		return choice;
	choice.reason = reason_of(frontend, decision);
	return choice.reason == CHOSEN ? pick(frontend, decision, client) : choice;
}

/* The whole of it, for who knows the packet's source. After TABLE_CHANGED it is worth another try. */
static __always_inline struct choice choose(const struct frontend_key *destination,
					    const struct client *client)
{
	struct meeting met = meet(destination, client->own);
	struct choice choice = { .reason = met.reason };

	if (met.frontend) {
		choice = choose_at(met.frontend, client);
		if (!is_current(&met))
			choice.reason = TABLE_CHANGED;
	} else if (met.reason == NOT_A_SERVICE && is_unclaimed(&destination->address)) {
		choice.reason = UNCLAIMED_ADDRESS;
	}
	return choice;
}
