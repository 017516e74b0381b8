/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a socket hook knows of a call's verdict. Where it does not know, the call is left to tc, for
 * one of the reasons that begin with LEFT.
 */

#include <kproxy/choose.h>
#include <kproxy/pods.h>

#define SOCKET_STREAM 1 /* SOCK_STREAM, SOCK_DGRAM: linux/net.h has them for the kernel alone */
#define SOCKET_DATAGRAM 2
#define SOCKET_CONNECTED 1 /* TCP_ESTABLISHED, also of UDP */

/* Who calls; `reason` is CHOSEN unless that leaves the call to tc. */
struct caller {
	struct client client;
	__u8 host; /* of the node's own network namespace */
	__u8 bound; /* to an address */
	__u8 address_known;
	__u16 reason;
};

/* What a call deserves, before a target is picked. */
struct judgement {
	struct meeting met;
	struct decision decision; /* a copy: Linux 6.1 could not tell a pointer from none by `reason` */
	struct caller caller;
	__u16 reason; /* CHOSEN, NO_ENDPOINT and UNKNOWN_PORT are for the hook to carry out */
};

static __always_inline struct caller host_caller(const struct address *source)
{
	struct caller caller = { .host = 1, .reason = CHOSEN };

	caller.bound = is_specified(source);
	caller.address_known = caller.bound;
	if (caller.bound) {
		caller.client = client_of(source, 0);
	} else {
		caller.client.origin = FROM_NODE;
		caller.client.own = 1;
	}
	return caller;
}

static __always_inline int are_pods_told_by_network(void)
{
	int only = 0;
	const struct rules *rules = table_rules.lookup(&only);

	return !rules || rules->local_pods == PODS_BY_NETWORK;
}

static __always_inline struct caller pod_caller(__u64 netns_cookie, const struct address *source)
{
	struct caller caller = { .reason = LEFT_UNKNOWN_POD };
	const struct pod *pod = pods.lookup(&netns_cookie);
	struct address address;

	if (!pod) {
		report_pod(netns_cookie);
		return caller;
	}
	if (!(pod->flags & POD_KNOWN))
		return caller;
	caller.reason = CHOSEN;
	if (pod->flags & POD_MESHED)
		caller.reason = LEFT_MESHED_POD;
	caller.bound = is_specified(source);
	address = caller.bound ? *source : pod->address;
	caller.address_known = is_specified(&address);
	if (!caller.address_known && are_pods_told_by_network())
		caller.reason = LEFT_UNKNOWN_SOURCE;
	if (is_loopback_address(&address))
		caller.reason = LEFT_POD_LOOPBACK;
	/* Most are, and to know whether the address is the node's own takes two more looks. */
	if (is_local_pod(&address, pod->flags & POD_DEVICE)) {
		caller.client.address = address;
		caller.client.origin = FROM_POD;
	} else {
		caller.client = client_of(&address, 0);
	}
	return caller;
}

static __always_inline __u16 may_translate(const struct frontend *frontend,
					   const struct decision *decision,
					   const struct caller *caller)
{
	__u16 reason = reason_of(frontend, decision);

	if (reason == NO_LOCAL_ENDPOINT)
		return LEFT_TO_TC;
	if (reason != CHOSEN)
		return reason;
	/* Unbound, the node gets the address that it would be masqueraded by. */
	if (decision->masquerade && (!caller->host || caller->bound))
		return LEFT_MASQUERADED;
	if (frontend->affinity_s && !caller->address_known)
		return LEFT_UNKNOWN_SOURCE;
	return CHOSEN;
}

/* `source`: what the socket is bound to, else unspecified. */
static __always_inline struct judgement judge(struct bpf_sock_addr *ctx,
					      const struct frontend_key *destination,
					      const struct address *source)
{
	const struct host *host = host_settings();
	struct judgement judgement = { .reason = LEFT_HOOKS_OFF };
	__u64 netns_cookie = bpf_get_netns_cookie(ctx);
	const struct frontend *frontend;
	int is_host;

	if (!host || host->socket_hooks == SOCKET_HOOKS_OFF)
		return judgement;
	is_host = netns_cookie == host->netns_cookie;
	if (!is_host && host->socket_hooks == SOCKET_HOOKS_HOST)
		return judgement;
	judgement.reason = WITHDRAWN;
	if (host->flags & HOST_WITHDRAWN)
		return judgement;
	judgement.reason = LEFT_POD_LOOPBACK;
	if (!is_host && is_loopback_address(&destination->address))
		return judgement;
	judgement.met = meet(destination, is_host);
	judgement.reason = judgement.met.reason;
	frontend = judgement.met.frontend;
	if (!frontend)
		return judgement;
	judgement.caller = is_host ? host_caller(source) : pod_caller(netns_cookie, source);
	judgement.reason = judgement.caller.reason;
	if (judgement.reason != CHOSEN)
		return judgement;
	judgement.reason = LEFT_SOURCE_RANGES;
	if (frontend->flags & FRONTEND_SOURCES)
		return judgement;
	judgement.reason = LEFT_BOUND_DEVICE;
	if (ctx->sk->bound_dev_if)
		return judgement;
	judgement.decision = *decision_for(frontend, judgement.caller.client.origin);
	judgement.reason = may_translate(frontend, &judgement.decision, &judgement.caller);
	return judgement;
}

/* The socket's protocol as frontends have it; 0: none of them. */
static __always_inline __u8 protocol_of(__u32 type, __u32 protocol)
{
	if (type == SOCKET_STREAM && protocol == IPPROTO_TCP)
		return IPPROTO_TCP;
	if (type == SOCKET_DATAGRAM && protocol == IPPROTO_UDP)
		return IPPROTO_UDP;
	return 0;
}
