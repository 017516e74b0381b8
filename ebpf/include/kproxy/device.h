/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps that tell programs of the node that they run on, and how to ask them. */

#include <kproxy/device_layout.h>

BPF_F_TABLE("hash", __u32, struct device, devices, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct address, struct own_address, own_addresses, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct own_network_key, __u8, own_networks, 4096, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct masquerade_key, struct address, masquerade_addresses, 65536,
	    BPF_F_NO_PREALLOC);
BPF_TABLE("array", int, struct host, host, 1);

static __always_inline const struct host *host_settings(void)
{
	int only = 0;

	return host.lookup(&only);
}

/* Whether the node itself has an address. */
static __always_inline int is_own_address(const struct address *address)
{
	struct own_network_key network = { .bits = 8 * sizeof(*address), .address = *address };
	struct address exact = *address;

	return own_addresses.lookup(&exact) || own_networks.lookup(&network);
}

/* The address that MASQUERADE gives to what leaves by a device, or NULL: the node has none. */
static __always_inline const struct address *masquerade_address(__u32 device,
								 const struct address *towards)
{
	struct masquerade_key key = { .bits = 32 + 8 * sizeof(*towards),
				      .device = device,
				      .towards = *towards };
	const struct address *found = masquerade_addresses.lookup(&key);

	if (found)
		return found;
	key.device = MASQUERADE_ANY_DEVICE;
	return masquerade_addresses.lookup(&key);
}
