/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs that the tc programs call for what is rare, or for what is new. */

#include <kproxy/exit.h>
#include <kproxy/work.h>

/* In the order of the programs in tc.bpf.c. */
enum stage {
	STAGE_SERVE,
	STAGE_ERROR,
	STAGE_CHOOSE,
	STAGE_OPEN,
	STAGE_REFUSE,
	STAGE_NEIGHBOUR,
};

BPF_PROG_ARRAY(stages, 16);

static __always_inline int hand_to(struct __sk_buff *skb, const struct packet *packet,
				   int at_egress, int stage)
{
	struct work *work = this_work();

	if (work) {
		work->packet = *packet;
		work->at_egress = at_egress;
		work->tries = 0;
		stages.call(skb, stage);
	}
	return done(STAGE_MISSING);
}

/* Refuse a packet by an answer; `mtu` is what would have fitted where it is TOO_BIG. */
static __always_inline int refuse_for(struct __sk_buff *skb, const struct packet *packet,
				      int at_egress, __u16 reason, __u32 mtu)
{
	struct work *work = this_work();

	if (work) {
		work->reason = reason;
		work->mtu = mtu;
	}
	return hand_to(skb, packet, at_egress, STAGE_REFUSE);
}
