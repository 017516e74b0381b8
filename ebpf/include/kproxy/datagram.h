/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unconnected UDP sockets: each datagram to a frontend goes where the one before it went, while
 * that endpoint is there, and replies show the frontend.
 *
 * Nothing is refused here. Elsewhere an unconnected socket learns of a refusal only if it asked for
 * errors (IP_RECVERR), and many an application gives up a socket on which sending fails.
 */

#include <kproxy/flow.h>
#include <kproxy/judge.h>
#include <kproxy/reason.h>
#include <kproxy/socket.h>

#define COUNTED REASONS

/* What is to be done with a datagram: `to` has port 0 unless it is translated. */
struct sending {
	struct target to;
	__u16 reason;
};

/* Put a slot in place, unless another one has its endpoint: one reply could mean two frontends. */
static __always_inline __u16 write_slot(struct slots *slots, const struct frontend_key *frontend,
					struct slot *slot)
{
	__u32 sharing = slot_answering(slots, &slot->pair.endpoint, slot->pair.endpoint_port);
	__u32 number = slot_of(slots, frontend);
	__u16 reason = CHOSEN;

	if (number == SLOTS)
		number = free_slot(slots);
	if (number >= SLOTS)
		return LEFT_SOCKET_FULL;
	if (slot->list && sharing != SLOTS && sharing != number) {
		slot->list = 0;
		reason = LEFT_SHARED_ENDPOINT;
	}
	slots->slot[number] = *slot;
	return reason;
}

static __always_inline __u16 keep(struct slots *slots, __u64 seen,
				  const struct frontend_key *frontend, struct slot *slot)
{
	__u16 reason;

	if (!begin_writing(slots, seen))
		return LEFT_BUSY;
	reason = write_slot(slots, frontend, slot);
	end_writing(slots);
	return reason;
}

static __always_inline int is_still_target(const struct slot *slot, const struct judgement *judgement)
{
	const struct frontend *frontend = judgement->met.frontend;
	const struct decision *decision = &judgement->decision;

	if (slot->list == frontend->list && slot->base == decision->base &&
	    slot->count == decision->count)
		return 1;
	return is_member(frontend, decision, &slot->pair.endpoint, slot->pair.endpoint_port);
}

/* How this socket's packets to an endpoint look, if it is known from where it sends. */
static __always_inline struct ends ends_of(struct bpf_sock_addr *ctx, const struct caller *caller,
					   const struct pair *pair)
{
	struct ends ends = { .source = caller->client.address,
			     .source_port = bpf_htons(ctx->sk->src_port),
			     .destination = pair->endpoint,
			     .destination_port = pair->endpoint_port };

	return ends;
}

/* Whether tc has a flow that looks the same: answers would show that one's frontend. */
static __always_inline int is_translated_by_tc(struct bpf_sock_addr *ctx,
					       const struct caller *caller,
					       const struct pair *pair)
{
	struct ends ends = ends_of(ctx, caller, pair);
	const struct flow *flow = flow_at(&ends, IPPROTO_UDP);

	return flow && !(flow->flags & FLOW_KERNELS);
}

/* Let tc know what looks like this, so that it gives no flow of its own the same looks. */
static __always_inline void claim(struct bpf_sock_addr *ctx, const struct caller *caller,
				  const struct pair *pair)
{
	struct ends ends = ends_of(ctx, caller, pair);
	struct flow_key key = flow_key_of(&ends, IPPROTO_UDP);
	struct flow flow = { .stamp = now(),
			     .id = bpf_get_prandom_u32(),
			     .client = ends.source,
			     .client_port = ends.source_port,
			     .stack_port = ends.source_port,
			     .frontend = ends.destination,
			     .frontend_port = ends.destination_port,
			     .side = CLIENT_SIDE,
			     .flags = FLOW_KERNELS };

	flows.insert(&key, &flow);
}

/*
 * Claim all that a socket sends or sent straight to endpoints, before tc sees any of its other
 * datagrams: it might translate them to one of these.
 */
static __always_inline void claim_all(struct bpf_sock_addr *ctx, const struct slots *slots,
				      const struct caller *caller)
{
	__u32 n;

	if (!caller->address_known)
		return;
	for (n = 0; n < SLOTS; n++)
		if (slots->slot[n & (SLOTS - 1)].pair.endpoint_port)
			claim(ctx, caller, &slots->slot[n & (SLOTS - 1)].pair);
}

/* Where the datagram goes, by the socket's slots or by a new one. */
static __always_inline struct sending send_by_slots(struct bpf_sock_addr *ctx,
						    struct slots *slots,
						    const struct judgement *judgement,
						    const struct frontend_key *frontend)
{
	struct slot slot = { .pair = { .frontend = frontend->address,
				       .frontend_port = frontend->port } };
	__u64 seen = version_of(slots);
	__u32 number = slot_of(slots, frontend);
	struct sending sending = { .reason = LEFT_BUSY };
	struct choice choice;
	__u16 kept;

	if (number < SLOTS)
		slot = slots->slot[number];
	if (version_of(slots) != seen || (seen & 1))
		return sending;
	sending.reason = LEFT_SHARED_ENDPOINT;
	if (number < SLOTS && !slot.list)
		return sending;
	if (number == SLOTS || !is_still_target(&slot, judgement)) {
		choice = pick(judgement->met.frontend, &judgement->decision,
			      &judgement->caller.client);
		sending.reason = choice.reason;
		if (choice.reason != CHOSEN)
			return sending;
		slot.pair.endpoint = choice.target.address;
		slot.pair.endpoint_port = choice.target.port;
		slot.list = 0;
	}
	sending.to.address = slot.pair.endpoint;
	sending.to.port = slot.pair.endpoint_port;
	sending.reason = CHOSEN;
	if (slot.list == judgement->met.frontend->list && slot.base == judgement->decision.base &&
	    slot.count == judgement->decision.count)
		return sending;
	if (slot.list || !is_translated_by_tc(ctx, &judgement->caller, &slot.pair))
		slot.list = judgement->met.frontend->list;
	else
		sending.reason = LEFT_SHARED_ENDPOINT;
	slot.base = judgement->decision.base;
	slot.count = judgement->decision.count;
	kept = keep(slots, seen, frontend, &slot);
	if (sending.reason == CHOSEN)
		sending.reason = kept;
	return sending;
}

/*
 * Whether another data path may know a flow of this socket to the frontend: whether it has sent
 * before, nothing tells.
 */
static __always_inline int may_have_a_flow(const struct slots *slots,
					   const struct frontend_key *frontend)
{
	const struct host *host = host_settings();

	return host && (host->flags & HOST_HAND_OVER) && slot_of(slots, frontend) == SLOTS;
}

/* What others have begun to serve goes on to pass, or its endpoint would change on the way. */
static __always_inline void leave_frontend(struct slots *slots, const struct frontend_key *frontend)
{
	struct slot slot = { .pair = { .frontend = frontend->address,
				       .frontend_port = frontend->port } };

	keep(slots, version_of(slots), frontend, &slot);
}

/* Called straight, an endpoint must answer as itself: its frontend's datagrams go by tc from now. */
static __always_inline void forget_endpoint(struct bpf_sock_addr *ctx,
					    const struct frontend_key *endpoint)
{
	struct slots *slots = datagrams.sk_storage_get(ctx->sk, 0, 0);
	__u32 number;
	__u64 seen;

	if (!slots)
		return;
	seen = version_of(slots);
	number = slot_answering(slots, &endpoint->address, endpoint->port);
	if (number >= SLOTS || !begin_writing(slots, seen))
		return;
	slots->slot[number].list = 0;
	end_writing(slots);
}

static __always_inline struct sending on_call_from_datagram(struct bpf_sock_addr *ctx,
							    const struct frontend_key *call,
							    const struct address *source)
{
	struct judgement judgement = judge(ctx, call, source);
	struct sending sending = { .reason = judgement.reason };
	int remembers = judgement.reason == CHOSEN || judgement.reason == LEFT_UNKNOWN_POD;
	struct slots *slots;

	if (!judgement.met.frontend) {
		forget_endpoint(ctx, call);
		return sending;
	}
	if (judgement.reason == NO_ENDPOINT || judgement.reason == UNKNOWN_PORT)
		sending.reason = LEFT_TO_TC;
	slots = datagrams.sk_storage_get(ctx->sk, 0, remembers ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!slots) {
		if (remembers)
			sending.reason = LEFT_NO_MEMORY;
		return sending;
	}
	if (judgement.reason == CHOSEN && may_have_a_flow(slots, call))
		sending.reason = HAND_OVER;
	if (sending.reason == LEFT_UNKNOWN_POD || sending.reason == HAND_OVER)
		leave_frontend(slots, call);
	if (sending.reason == CHOSEN) {
		sending = send_by_slots(ctx, slots, &judgement, call);
		if (!is_current(&judgement.met))
			sending.reason = TABLE_CHANGED;
	}
	if (sending.reason == CHOSEN)
		return sending;
	/* Counted here, the reason is of no interest to the loop: it keeps the verifier short. */
	count_reason(sending.reason);
	sending.reason = COUNTED;
	claim_all(ctx, slots, &judgement.caller);
	return sending;
}

static __always_inline struct target on_send(struct bpf_sock_addr *ctx, struct frontend_key *call,
					     const struct address *source)
{
	struct sending sending = { .reason = NOT_UNDERSTOOD };
	struct target untouched = {};

	call->protocol = protocol_of(ctx->type, ctx->protocol);
	if (call->protocol == IPPROTO_UDP)
		sending = on_call_from_datagram(ctx, call, source);
	if (sending.reason != CHOSEN) {
		if (sending.reason != COUNTED)
			count_reason(sending.reason);
		return untouched;
	}
	count_reason(SOCKET_TRANSLATED);
	return sending.to;
}

/* The frontend that an unconnected socket asked, if this endpoint answers for it; else port 0. */
static __always_inline struct target asked_by_datagram(struct bpf_sock_addr *ctx,
						       const struct address *endpoint, __be16 port)
{
	struct slots *slots = datagrams.sk_storage_get(ctx->sk, 0, 0);
	struct target frontend = {}, none = {};
	__u32 number;
	__u64 seen;

	if (!slots)
		return none;
	seen = version_of(slots);
	number = slot_answering(slots, endpoint, port);
	if (number >= SLOTS)
		return none;
	frontend.address = slots->slot[number].pair.frontend;
	frontend.port = slots->slot[number].pair.frontend_port;
	return version_of(slots) == seen ? frontend : none;
}
