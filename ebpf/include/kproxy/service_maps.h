/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps that hold the forwarding table. The loader may give each another size; a hash map takes
 * 16 bytes for each entry that it could have, an LPM nothing.
 */

#include <kproxy/service.h>

BPF_F_TABLE("hash", struct frontend_key, struct frontend, frontends, 131072, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct chunk_key, struct chunk, chunks, 131072, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct member_key, struct member, members, 131072, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct source_key, __u8, source_ranges, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct network_key, __u8, unclaimed_networks, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct network_key, __u8, node_port_networks, 65536, BPF_F_NO_PREALLOC);
BPF_TABLE("array", int, struct rules, table_rules, 1);
