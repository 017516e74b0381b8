// SPDX-License-Identifier: GPL-2.0-only
/*
 * Socket hooks: a local client's call to a frontend is turned into one to the endpoint, and its
 * packets cost nothing.
 *
 * A hook acts only on what it knows to be the verdict, and leaves all else to tc; so no verdict
 * depends on whether hooks are attached. An endpoint that chooses itself is the one exception: it
 * sees its own address. The unit of IPv4 also serves the IPv4-mapped addresses of IPv6 sockets.
 */

#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>
#include <uapi/asm-generic/errno.h>

#include <kproxy/judge.h>
#include <kproxy/reason.h>
#include <kproxy/socket.h>
#include <kproxy/datagram.h>

#define PROCEED 1
#define REFUSE 0
#define ADDRESSES_OF_IPV6 10 /* AF_INET6: linux/socket.h has it for the kernel alone */

static __always_inline void forget_peer(struct bpf_sock_addr *ctx)
{
	__u8 protocol = protocol_of(ctx->type, ctx->protocol);

	if (protocol)
		forget_connected(bpf_get_socket_cookie(ctx), protocol);
}

static __always_inline __u16 remember_peer(struct bpf_sock_addr *ctx,
					   const struct frontend_key *frontend,
					   const struct target *target)
{
	struct connected socket = { .netns_cookie = bpf_get_netns_cookie(ctx),
				    .pair = { .frontend = frontend->address,
					      .endpoint = target->address,
					      .frontend_port = frontend->port,
					      .endpoint_port = target->port } };

	if (remember_connected(bpf_get_socket_cookie(ctx), frontend->protocol, &socket))
		return LEFT_NO_MEMORY;
	return CHOSEN;
}

static __always_inline struct choice choose_for_connect(struct bpf_sock_addr *ctx,
							const struct frontend_key *destination,
							const struct address *source)
{
	struct judgement judgement = judge(ctx, destination, source);
	struct choice choice = { .reason = judgement.reason };

	if (!judgement.met.frontend)
		return choice;
	if (judgement.reason == CHOSEN)
		choice = pick(judgement.met.frontend, &judgement.decision, &judgement.caller.client);
	if (!is_current(&judgement.met))
		choice.reason = TABLE_CHANGED;
	/* No packet follows the connect of UDP: it is how the source towards an address is learned. */
	if (choice.reason == UNKNOWN_PORT && destination->protocol == IPPROTO_UDP)
		choice.reason = LEFT_TO_TC;
	if (choice.reason == CHOSEN)
		choice.reason = remember_peer(ctx, destination, &choice.target);
	return choice;
}

static __always_inline struct choice on_connect(struct bpf_sock_addr *ctx,
						struct frontend_key *destination,
						const struct address *source)
{
	struct choice choice = { .reason = NOT_UNDERSTOOD };

	destination->protocol = protocol_of(ctx->type, ctx->protocol);
	if (destination->protocol)
		choice = choose_for_connect(ctx, destination, source);
	if (choice.reason == CHOSEN) {
		count_reason(SOCKET_TRANSLATED);
		return choice;
	}
	forget_peer(ctx);
	forget_endpoint(ctx, destination);
	if (choice.reason == NO_ENDPOINT || choice.reason == UNKNOWN_PORT) {
		bpf_set_retval(-ECONNREFUSED);
		choice.reason = SOCKET_REFUSED;
	}
	count_reason(choice.reason);
	return choice;
}

/* Who the peer or a datagram's sender is to the socket: the frontend that it asked, or port 0. */
static __always_inline struct target frontend_of(struct bpf_sock_addr *ctx,
						 const struct address *address, __be16 port)
{
	__u8 protocol = protocol_of(ctx->type, ctx->protocol);
	const struct connected *socket;
	struct target frontend = {};

	/* A UDP socket is disconnected without a hook; one of TCP has no peer then. */
	if (!protocol || (protocol == IPPROTO_UDP && ctx->sk->state != SOCKET_CONNECTED))
		return frontend;
	socket = connected_at(bpf_get_socket_cookie(ctx), protocol);
	if (!socket || !is_endpoint(&socket->pair, address, port))
		return frontend;
	frontend.address = socket->pair.frontend;
	frontend.port = socket->pair.frontend_port;
	count_reason(SOCKET_RESTORED);
	return frontend;
}

static __always_inline struct target on_receive(struct bpf_sock_addr *ctx,
						const struct address *address, __be16 port)
{
	struct target frontend = frontend_of(ctx, address, port);

	if (frontend.port)
		return frontend;
	frontend = asked_by_datagram(ctx, address, port);
	if (frontend.port)
		count_reason(SOCKET_RESTORED);
	return frontend;
}

/* A socket closes. */
int release(struct bpf_sock *ctx)
{
	__u8 protocol = protocol_of(ctx->type, ctx->protocol);

	if (protocol && (KPROXY_FAMILY == 4 || ctx->family == ADDRESSES_OF_IPV6))
		forget_connected(bpf_get_socket_cookie(ctx), protocol);
	return PROCEED;
}

#if KPROXY_FAMILY == 4
static __always_inline struct frontend_key call_of_4(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = { .port = ctx->user_port };

	call.address.word[0] = ctx->user_ip4;
	return call;
}

static __always_inline struct address source_of_4(struct bpf_sock_addr *ctx)
{
	struct address source = {};

	source.word[0] = ctx->sk->src_ip4;
	return source;
}

static __always_inline int is_mapped(struct bpf_sock_addr *ctx)
{
	return !ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff);
}

static __always_inline struct frontend_key call_of_mapped(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = { .port = ctx->user_port };

	call.address.word[0] = ctx->user_ip6[3];
	return call;
}

static __always_inline void set_4(struct bpf_sock_addr *ctx, const struct target *to)
{
	ctx->user_ip4 = to->address.word[0];
	ctx->user_port = to->port;
}

static __always_inline void set_mapped(struct bpf_sock_addr *ctx, const struct target *to)
{
	ctx->user_ip6[3] = to->address.word[0];
	ctx->user_port = to->port;
}

int connect4(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = call_of_4(ctx);
	struct address source = source_of_4(ctx);
	struct choice choice = on_connect(ctx, &call, &source);

	if (choice.reason == CHOSEN)
		set_4(ctx, &choice.target);
	return choice.reason == SOCKET_REFUSED ? REFUSE : PROCEED;
}

int connect6_mapped(struct bpf_sock_addr *ctx)
{
	struct address source = source_of_4(ctx);
	struct frontend_key call;
	struct choice choice;

	if (!is_mapped(ctx)) {
		forget_peer(ctx);
		return PROCEED;
	}
	call = call_of_mapped(ctx);
	choice = on_connect(ctx, &call, &source);
	if (choice.reason == CHOSEN)
		set_mapped(ctx, &choice.target);
	return choice.reason == SOCKET_REFUSED ? REFUSE : PROCEED;
}

/* Also for IPv6 sockets: the kernel unmaps the address before it asks. */
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = call_of_4(ctx);
	struct address source = source_of_4(ctx);
	struct target to;

	if (ctx->msg_src_ip4)
		source.word[0] = ctx->msg_src_ip4;
	to = on_send(ctx, &call, &source);
	if (to.port)
		set_4(ctx, &to);
	return PROCEED;
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct frontend_key from = call_of_4(ctx);
	struct target frontend = on_receive(ctx, &from.address, from.port);

	if (frontend.port)
		set_4(ctx, &frontend);
	return PROCEED;
}

int recvmsg6_mapped(struct bpf_sock_addr *ctx)
{
	struct frontend_key from = call_of_mapped(ctx);
	struct target frontend;

	if (!is_mapped(ctx))
		return PROCEED;
	frontend = on_receive(ctx, &from.address, from.port);
	if (frontend.port)
		set_mapped(ctx, &frontend);
	return PROCEED;
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer = call_of_4(ctx);
	struct target frontend = frontend_of(ctx, &peer.address, peer.port);

	if (frontend.port)
		set_4(ctx, &frontend);
	return PROCEED;
}

int getpeername6_mapped(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer = call_of_mapped(ctx);
	struct target frontend;

	if (!is_mapped(ctx))
		return PROCEED;
	frontend = frontend_of(ctx, &peer.address, peer.port);
	if (frontend.port)
		set_mapped(ctx, &frontend);
	return PROCEED;
}
#else
static __always_inline struct frontend_key call_of_6(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = { .port = ctx->user_port };

	call.address.word[0] = ctx->user_ip6[0];
	call.address.word[1] = ctx->user_ip6[1];
	call.address.word[2] = ctx->user_ip6[2];
	call.address.word[3] = ctx->user_ip6[3];
	return call;
}

static __always_inline struct address source_of_6(struct bpf_sock_addr *ctx)
{
	struct address source;

	source.word[0] = ctx->sk->src_ip6[0];
	source.word[1] = ctx->sk->src_ip6[1];
	source.word[2] = ctx->sk->src_ip6[2];
	source.word[3] = ctx->sk->src_ip6[3];
	return source;
}

static __always_inline void set_6(struct bpf_sock_addr *ctx, const struct target *to)
{
	ctx->user_ip6[0] = to->address.word[0];
	ctx->user_ip6[1] = to->address.word[1];
	ctx->user_ip6[2] = to->address.word[2];
	ctx->user_ip6[3] = to->address.word[3];
	ctx->user_port = to->port;
}

int connect6(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = call_of_6(ctx);
	struct address source = source_of_6(ctx);
	struct choice choice = on_connect(ctx, &call, &source);

	if (choice.reason == CHOSEN)
		set_6(ctx, &choice.target);
	return choice.reason == SOCKET_REFUSED ? REFUSE : PROCEED;
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct frontend_key call = call_of_6(ctx);
	struct address source = source_of_6(ctx), chosen;
	struct target to;

	chosen.word[0] = ctx->msg_src_ip6[0];
	chosen.word[1] = ctx->msg_src_ip6[1];
	chosen.word[2] = ctx->msg_src_ip6[2];
	chosen.word[3] = ctx->msg_src_ip6[3];
	to = on_send(ctx, &call, is_specified(&chosen) ? &chosen : &source);
	if (to.port)
		set_6(ctx, &to);
	return PROCEED;
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct frontend_key from = call_of_6(ctx);
	struct target frontend = on_receive(ctx, &from.address, from.port);

	if (frontend.port)
		set_6(ctx, &frontend);
	return PROCEED;
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	struct frontend_key peer = call_of_6(ctx);
	struct target frontend = frontend_of(ctx, &peer.address, peer.port);

	if (frontend.port)
		set_6(ctx, &frontend);
	return PROCEED;
}
#endif
