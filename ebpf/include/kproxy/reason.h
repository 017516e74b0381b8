/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Why a packet or a socket call got the treatment that it got: every way out of a program has one,
 * and is counted by it, for each CPU apart. The metrics' names: backends/ebpf/driver/reasons.py.
 */

enum reason {
	CHOSEN, /* a target was picked; what becomes of it has a reason of its own */

	/* Left as it is. */
	NOT_A_SERVICE, /* no frontend has the destination, and no flow the packet */
	NOT_UNDERSTOOD, /* neither TCP, UDP nor SCTP, VLAN-tagged, multicast, or cut short */
	NO_NODE_PORT_HERE, /* a NodePort's number at an address that holds none */
	FLOW_HERE_UNCHANGED, /* of a flow of ours, at a place where nothing is translated */
	FLOW_LEFT_ALONE, /* of a flow that the kernel's own tracking translates */
	HAND_OVER, /* a segment or a datagram that another data path may know the flow of */
	WITHDRAWN, /* new, while we take no new connections */
	LATER_FRAGMENT_ALONE, /* a fragment whose first one was not seen, or not translated */

	/* Left to tc by socket hooks, which act only on what they know to be the verdict. */
	LEFT_TO_TC, /* to be dropped, or refused by an answer */
	LEFT_HOOKS_OFF, /* by option */
	LEFT_POD_LOOPBACK, /* 127.0.0.1 in a pod is the pod itself */
	LEFT_UNKNOWN_POD,
	LEFT_MESHED_POD, /* it has nat rules of its own */
	LEFT_MASQUERADED,
	LEFT_SOURCE_RANGES,
	LEFT_UNKNOWN_SOURCE, /* of several addresses, and affinity goes by it */
	LEFT_SHARED_ENDPOINT, /* one socket could not tell the replies of two frontends apart */
	LEFT_SOCKET_FULL, /* an unconnected socket that speaks to more frontends than it has slots */
	LEFT_BOUND_DEVICE, /* a socket that sends by one device alone */
	LEFT_BUSY, /* a socket that two threads send by at once, to new frontends */
	LEFT_NO_MEMORY,

	/* Translated. */
	DESTINATION_TRANSLATED, /* to the endpoint, on the way in */
	DESTINATION_RESTORED, /* the client sees the frontend again */
	SOURCE_MASQUERADED, /* on the way out to the endpoint */
	SOURCE_RESTORED, /* the client's address again, on the way in from the endpoint */
	TRANSLATED_AT_ONCE, /* the node's own: both ends, and sent on to the endpoint's device */
	RESTORED_AT_ONCE,
	ERROR_TRANSLATED, /* an ICMP error and the packet that it is about */
	NEIGHBOUR_ANSWERED, /* the node's question who has a clusterIP of a network that it is in */
	SOCKET_TRANSLATED, /* by a socket hook, to the endpoint */
	SOCKET_RESTORED, /* by a socket hook, to the frontend that was asked */

	/* Refused: an answer says so. */
	NO_ENDPOINT,
	UNKNOWN_PORT, /* of a clusterIP */
	SOCKET_REFUSED, /* by a socket hook, in the call */
	NO_FLOW, /* a TCP segment that opens nothing, of a connection that nobody knows */
	TOO_BIG, /* for the device that leads to the endpoint */

	/* Dropped. */
	NO_LOCAL_ENDPOINT,
	SOURCE_NOT_ADMITTED,
	UNCLAIMED_ADDRESS, /* of a service network, and no Service's */
	TABLE_CHANGED, /* between two looks at it: the sender's repetition meets the new one */
	TABLE_BROKEN,
	FLOWS_FULL, /* no place for a new flow, and no half-open one to give up */
	NO_FREE_PORT, /* all that were tried to masquerade by are taken */
	PORT_TAKEN, /* masqueraded by the kernel, which does not know the flow that has the port */
	NO_ROUTE, /* to the endpoint */
	REFUSED_TOO_OFTEN, /* to be answered; or not to be answered at all, as a reset */
	NOT_REWRITTEN, /* the kernel refused to alter the packet */
	STAGE_MISSING, /* a tail call led nowhere */

	REASONS
};

BPF_TABLE("percpu_array", int, __u64, reasons, REASONS);

/* Count a way out. */
static __always_inline void count_reason(__u32 reason)
{
	int key = reason;
	__u64 *count = reasons.lookup(&key);

	if (count)
		(*count)++;
}
