/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose socket a hook sees: network namespaces that called a Service, and what the agent found out
 * about them (backends/ebpf/driver/pods.py packs it).
 */

#include <kproxy/address.h>

enum pod_flags {
	POD_KNOWN = 1, /* without it tc serves the namespace */
	POD_DEVICE = 2, /* its packets come in by a device with DEVICE_POD */
	POD_MESHED = 4, /* it has nat rules of its own, which must see the frontends */
};

struct pod {
	struct address address; /* unspecified: it has several */
	__u32 flags;
};

/* Asks the agent to look at a namespace; `process` is in it, by its number on the host. */
struct pod_report {
	__u64 netns_cookie;
	__u64 process;
};

BPF_F_TABLE("hash", __u64, struct pod, pods, 16384, BPF_F_NO_PREALLOC);
BPF_RINGBUF_OUTPUT(pod_reports, 4);

/* Report a namespace that is not in the map: once, until the agent takes it out again. */
static __always_inline void report_pod(__u64 netns_cookie)
{
	struct pod_report report = { .netns_cookie = netns_cookie,
				     .process = bpf_get_current_pid_tgid() >> 32 };
	struct pod unknown = {};

	if (pods.insert(&netns_cookie, &unknown))
		return;
	if (pod_reports.ringbuf_output(&report, sizeof(report), 0))
		pods.delete(&netns_cookie);
}
