/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Functions of the kernel that are no helpers have no number of their own. A declaration
 *
 *	static int (*const bpf_name)(...) = KFUNC(n);
 *
 * gives one a number among ours, and the loader puts the kernel's in its place, found by the name
 * (backends/ebpf/compiler.py, backends/kernel/bpf/kfuncs.py). Where the kernel has no such
 * function, a call returns 0.
 */

#define KFUNC(number) (void *)(0x6b660000 + number)
