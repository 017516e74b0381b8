// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is attached to devices: one program a side, for both families, as each that a packet meets
 * takes its time, whatever it does. It leads to the family's own program (tc.bpf.c); where that is
 * not there, the packet goes its way.
 *
 * Each call has a constant index, which makes it a direct jump. Never `else`: the compiler makes one
 * call of two then, whose index it has to look up.
 */

#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/pkt_cls.h>

#include <kproxy/note.h>

/* The agent puts programs there (backends/ebpf/driver/gate.py). */
enum entry { ENTRY_INGRESS_IPV4, ENTRY_EGRESS_IPV4, ENTRY_INGRESS_IPV6, ENTRY_EGRESS_IPV6, ENTRIES };

BPF_PROG_ARRAY(entries, ENTRIES);

int gate_ingress(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		entries.call(skb, ENTRY_INGRESS_IPV4);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		entries.call(skb, ENTRY_INGRESS_IPV6);
	return TC_ACT_UNSPEC;
}

int gate_egress(struct __sk_buff *skb)
{
	/* It stays: a bridge and its port, or a tunnel and its underlay, are left one after the other. */
	if (skb->tc_index & FOREIGN)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_ARP))
		entries.call(skb, ENTRY_EGRESS_IPV4);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		entries.call(skb, ENTRY_EGRESS_IPV6);
	return TC_ACT_UNSPEC;
}
