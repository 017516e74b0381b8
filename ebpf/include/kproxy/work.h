/* SPDX-License-Identifier: GPL-2.0-only */
/* What one stage of the tc programs hands to the next; nothing comes between them on a CPU. */

#include <kproxy/choose.h>
#include <kproxy/flow.h>

struct work {
	struct packet packet;
	struct flow draft; /* of a flow to be born */
	struct flow former; /* of a flow to be given up */
	__u32 mtu;
	__u16 reason; /* enum reason: why the packet is refused */
	__u8 at_egress;
	__u8 tries;
};

BPF_TABLE("percpu_array", int, struct work, works, 1);

static __always_inline struct work *this_work(void)
{
	int only = 0;

	return works.lookup(&only);
}
