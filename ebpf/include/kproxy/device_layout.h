/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What programs know of the node that they run on: the agent follows it by netlink, and packs it
 * (backends/ebpf/driver/device_layout.py).
 *
 * Addresses are in network order, all else in the machine's. No implicit padding; what pads is zero.
 */

#include <kproxy/address.h>

enum device_flags {
	DEVICE_POD = 1, /* interface detection: what comes in here comes from a local pod */
	DEVICE_ETHERNET = 2, /* packets begin with an Ethernet header; else with that of IP */
	DEVICE_BRIDGE = 4,
	DEVICE_LOOPBACK = 8,
};

/* A device that programs are attached to, by ifindex. */
struct device {
	__u32 flags;
	__u32 bridge; /* ifindex of the bridge that this is a port of; 0: of none */
	__u8 mac[6]; /* zero without DEVICE_ETHERNET */
	__u8 pad[2];
};

/* A local address of the node, as the kernel's local routing table has it, wherever it is from. */
struct own_address {
	__u32 device; /* ifindex that the address is at */
};

/* Larger local networks, 127.0.0.0/8 included (LPM). */
struct own_network_key {
	__u32 bits;
	struct address address;
};

/*
 * What MASQUERADE picks at a device (LPM): `bits` counts the 32 of `device` too. `towards` is the
 * next hop in IPv4 and the destination in IPv6, as in the kernel. A device without an address has
 * no entry, but gets what MASQUERADE_ANY_DEVICE has.
 */
#define MASQUERADE_ANY_DEVICE 0

struct masquerade_key {
	__u32 bits;
	__u32 device;
	struct address towards;
};

enum host_flags {
	HOST_HAND_OVER = 1, /* a TCP segment of no flow passes: another data path may know its flow */
	HOST_WITHDRAWN = 2, /* new flows pass, open ones are served */
};

enum socket_hooks { SOCKET_HOOKS_ALL, SOCKET_HOOKS_HOST, SOCKET_HOOKS_OFF };

/* Ranges are inclusive, in the machine's order. */
struct host {
	__u64 netns_cookie; /* of the node's own network namespace */
	__u32 flags;
	__u32 mark; /* the bit that translated packets carry for the FORWARD rule; 0: there is none */
	__u16 local_ports_first; /* ip_local_port_range */
	__u16 local_ports_last;
	__u16 node_ports_first; /* where NodePorts are allocated; some may lie elsewhere */
	__u16 node_ports_last;
	__u8 socket_hooks;
	__u8 pad[7];
};
