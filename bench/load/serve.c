/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answer calls: each byte by one, over TCP and UDP.
 *
 *   serve PORT [ADDRESS]   print "listening", and serve until killed. ADDRESS is of IPv6, where
 *                          ::ffff:A.B.C.D stands for A.B.C.D; without, all of both families
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "address.h"

enum { BACKLOG = 65535, MOST_EVENTS = 256 };

/* Accept all that wait; they are heard of by `poll`. */
static int accept_all(int listener, int poll)
{
	for (;;) {
		struct epoll_event event = { .events = EPOLLIN };

		event.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (event.data.fd < 0)
			return errno == EAGAIN || errno == ECONNABORTED ? 0 : -1;
		epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
	}
}

static void answer(int client)
{
	char byte;

	if (recv(client, &byte, 1, 0) != 1 || send(client, &byte, 1, MSG_NOSIGNAL) != 1)
		close(client);
}

/* Answer datagrams from the address that each was sent to: the route would choose another one. */
static void answer_all(int socket)
{
	for (;;) {
		char byte;
		union address peer;
		struct iovec bytes = { .iov_base = &byte, .iov_len = 1 };
		_Alignas(struct cmsghdr) char told[CMSG_SPACE(sizeof(struct in6_pktinfo))];
		struct msghdr message = {
			.msg_name = &peer,
			.msg_namelen = sizeof(peer),
			.msg_iov = &bytes,
			.msg_iovlen = 1,
			.msg_control = told,
			.msg_controllen = sizeof(told),
		};

		if (recvmsg(socket, &message, MSG_DONTWAIT) < 0)
			return;
		((struct in6_pktinfo *)CMSG_DATA(CMSG_FIRSTHDR(&message)))->ipi6_ifindex = 0;
		sendmsg(socket, &message, 0);
	}
}

/* Return a socket of both families that `poll` watches, or -1. */
static int opened(int type, const union address *here, int poll)
{
	struct epoll_event event = { .events = EPOLLIN };
	int on = 1;

	event.data.fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0);
	setsockopt(event.data.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(event.data.fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
	if (bind(event.data.fd, &here->any, sizeof(*here)) ||
	    (type == SOCK_STREAM && listen(event.data.fd, BACKLOG)) ||
	    epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event))
		return -1;
	return event.data.fd;
}

static int serve(const union address *here)
{
	struct epoll_event events[MOST_EVENTS];
	int poll = epoll_create1(0);
	int listener = opened(SOCK_STREAM, here, poll), datagrams = opened(SOCK_DGRAM, here, poll);

	if (listener < 0 || datagrams < 0)
		return fail("listen");
	puts("listening");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(poll, events, MOST_EVENTS, -1);

		for (int n = 0; n < count; n++) {
			if (events[n].data.fd == datagrams)
				answer_all(datagrams);
			else if (events[n].data.fd != listener)
				answer(events[n].data.fd);
			else if (accept_all(listener, poll))
				return fail("accept");
		}
	}
}

int main(int argc, char **argv)
{
	union address here;

	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: serve PORT [ADDRESS]\n");
		return 2;
	}
	here = address_of(argc == 3 ? argv[2] : "::", atoi(argv[1]));
	return serve(&here);
}
