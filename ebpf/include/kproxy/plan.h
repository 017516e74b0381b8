/* SPDX-License-Identifier: GPL-2.0-only */
/* What a new flow will look like: all its views but for the ports that are free. */

#include <kproxy/redirect.h>
#include <kproxy/route.h>
#include <kproxy/work.h>

static __always_inline int is_from_pod_device(__u32 ifindex)
{
	const struct device *device = devices.lookup(&ifindex);
	__u32 bridge;

	if (!device || device->flags & DEVICE_POD || !device->bridge)
		return device && device->flags & DEVICE_POD;
	bridge = device->bridge;
	device = devices.lookup(&bridge);
	return device && device->flags & DEVICE_POD;
}

/* Write down the flow to be born: CHOSEN, or why it cannot be. */
static __always_inline __u16 plan_flow(struct __sk_buff *skb, struct work *work,
				       const struct choice *choice)
{
	struct flow *draft = &work->draft;
	struct ends *ends = &work->packet.ends;
	int own = is_own_address(&choice->target.address);
	struct route route = { .device = own ? LOOPBACK_DEVICE : 0 };
	struct address source = ends->source;
	const struct address *node;

	__builtin_memset(draft, 0, sizeof(*draft));
	draft->stamp = now();
	draft->route_stamp = draft->stamp;
	draft->id = bpf_get_prandom_u32();
	draft->device = skb->ifindex;
	draft->client = ends->source;
	draft->client_port = ends->source_port;
	draft->frontend = ends->destination;
	draft->frontend_port = ends->destination_port;
	draft->endpoint = choice->target.address;
	draft->endpoint_port = choice->target.port;
	draft->node = ends->source;
	if (work->at_egress) {
		draft->flags |= FLOW_AT_ONCE;
		__builtin_memset(&source, 0, sizeof(source));
	}
	if (choice->masquerade && (work->at_egress || !own))
		draft->flags |= FLOW_MASQUERADED;
	if (!draft->flags)
		return CHOSEN;
	if (!own)
		route = route_to(skb, skb->ifindex, &source, &draft->endpoint);
	draft->route = route.device;
	if (!route.device)
		return NO_ROUTE;
	if (!(draft->flags & FLOW_MASQUERADED))
		return CHOSEN;
	node = masquerade_of(&route, &draft->endpoint);
	if (!node && !own)
		return NO_ROUTE;
	draft->node = node ? *node : draft->endpoint;
	return CHOSEN;
}
