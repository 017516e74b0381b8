/*
 * Send UDP packets of 64 bytes through an interface as fast as one thread can.
 *
 *   packets INTERFACE MAC SOURCE DESTINATION FLOWS SECONDS     print how many seconds it took
 *
 * The flows differ in source port and in the last bits of the destination, and take turns. The 64
 * bytes count the frame check sequence, as is usual.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, DESTINATIONS = 100, FIRST_PORT = 20000, PORT = 9999, PAYLOAD = 18 };

struct frame {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
	char payload[PAYLOAD];
} __attribute__((packed));

_Static_assert(sizeof(struct frame) + ETH_FCS_LEN == ETH_ZLEN + ETH_FCS_LEN, "64 on the wire");

static int fail(const char *what)
{
	fprintf(stderr, "packets: %s: %s\n", what, strerror(errno));
	return 1;
}

static uint16_t checksum(struct iphdr header)
{
	uint16_t words[sizeof(header) / sizeof(uint16_t)];
	uint32_t sum = 0;

	memcpy(words, &header, sizeof(header));
	for (size_t n = 0; n < sizeof(words) / sizeof(*words); n++)
		sum += words[n];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~(sum + (sum >> 16));
}

static void fill(struct frame *frame, const char *source, const char *destination, int flow)
{
	uint32_t first = ntohl(inet_addr(destination));

	frame->ethernet.h_proto = htons(ETH_P_IP);
	frame->ip.version = 4;
	frame->ip.ihl = sizeof(frame->ip) / 4;
	frame->ip.tot_len = htons(sizeof(*frame) - sizeof(frame->ethernet));
	frame->ip.ttl = 64;
	frame->ip.protocol = IPPROTO_UDP;
	frame->ip.saddr = inet_addr(source);
	frame->ip.daddr = htonl(first + (uint32_t)(flow % DESTINATIONS));
	frame->ip.check = checksum(frame->ip);
	frame->udp.source = htons((uint16_t)(FIRST_PORT + flow / DESTINATIONS));
	frame->udp.dest = htons(PORT);
	frame->udp.len = htons(sizeof(frame->udp) + PAYLOAD);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Send every frame in turn, in batches, until the time is up; return how long it took, or -1. */
static double send_for(int out, struct frame *frames, int flows, double seconds)
{
	struct mmsghdr messages[BATCH] = {};
	struct iovec parts[BATCH];
	double began_s = now_s();
	int flow = 0;

	for (int n = 0; n < BATCH; n++) {
		messages[n].msg_hdr.msg_iov = &parts[n];
		messages[n].msg_hdr.msg_iovlen = 1;
	}
	while (now_s() - began_s < seconds) {
		for (int n = 0; n < BATCH; n++) {
			parts[n] = (struct iovec){ &frames[flow], sizeof(*frames) };
			flow = flow + 1 == flows ? 0 : flow + 1;
		}
		if (sendmmsg(out, messages, BATCH, 0) < 0 && errno != ENOBUFS)
			return -1;
	}
	return now_s() - began_s;
}

static int open_interface(const char *name)
{
	struct sockaddr_ll there = {
		.sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex(name),
	};
	int on = 1;
	int out = socket(AF_PACKET, SOCK_RAW, 0);

	if (out < 0 || setsockopt(out, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) ||
	    bind(out, (struct sockaddr *)&there, sizeof(there)))
		return -1;
	return out;
}

int main(int argc, char **argv)
{
	struct frame *frames;
	double took_s;
	int flows, out;

	if (argc != 7) {
		fprintf(stderr, "usage: packets INTERFACE MAC SOURCE DESTINATION FLOWS SECONDS\n");
		return 2;
	}
	flows = atoi(argv[5]);
	frames = calloc((size_t)flows, sizeof(*frames));
	if (!frames)
		return fail("calloc");
	for (int n = 0; n < flows; n++) {
		uint8_t *mac = frames[n].ethernet.h_dest;

		if (sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2,
			   mac + 3, mac + 4, mac + 5) != ETH_ALEN)
			return fail("no MAC address");
		fill(&frames[n], argv[3], argv[4], n);
	}
	out = open_interface(argv[1]);
	if (out < 0)
		return fail(argv[1]);
	took_s = send_for(out, frames, flows, atof(argv[6]));
	if (took_s < 0)
		return fail("sendmmsg");
	printf("%.6f\n", took_s);
	return 0;
}
