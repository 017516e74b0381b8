/* SPDX-License-Identifier: GPL-2.0-only */
/* How the tc programs end. */

#include <kproxy/reason.h>

/* The one way out: count it, and say what becomes of the packet. */
static __always_inline int done(__u16 reason)
{
	count_reason(reason);
	switch (reason) {
	case NO_ENDPOINT:
	case UNKNOWN_PORT:
	case NO_FLOW:
	case TOO_BIG:
	case NO_LOCAL_ENDPOINT:
	case SOURCE_NOT_ADMITTED:
	case UNCLAIMED_ADDRESS:
	case TABLE_CHANGED:
	case TABLE_BROKEN:
	case FLOWS_FULL:
	case NO_FREE_PORT:
	case PORT_TAKEN:
	case NO_ROUTE:
	case REFUSED_TOO_OFTEN:
	case NOT_REWRITTEN:
	case STAGE_MISSING:
		return TC_ACT_SHOT;
	default:
		return TC_ACT_UNSPEC;
	}
}

/* Whether the sender gets an answer. */
static __always_inline int is_refused(__u16 reason)
{
	return reason == NO_ENDPOINT || reason == UNKNOWN_PORT || reason == NO_FLOW;
}

/* The way out of what goes on by another device. */
static __always_inline int sent(__u16 reason, int action)
{
	return action == TC_ACT_REDIRECT ? (count_reason(reason), action) : done(NO_ROUTE);
}
