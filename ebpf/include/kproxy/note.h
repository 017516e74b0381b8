/* SPDX-License-Identifier: GPL-2.0-only */
/* The programs' notes to themselves in tc_index, whose low bits others use. */

#define FOREIGN 0x8000 /* it came in as none of ours, and is to leave as such */
#define TRANSLATED 0x4000 /* what has a flow's port on the node has it by the programs */
