/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Call over TCP, or answer calls. Each call is a connection of its own.
 *
 *   talk serve PORT [ADDRESS]                print "listening"; answer each byte by one, until killed
 *   talk connect SECONDS FIRST_PORT          open one after the other as fast as one thread can;
 *                                            print how many in how many seconds
 *   talk ask RATE SECONDS FIRST_PORT         ask so many times a second; print for each how many ns
 *                                            passed from when it was due until its answer, or why
 *                                            there was none
 *   talk hold COUNT SECONDS FIRST_PORT       open so many and go on talking over them; print for
 *                                            each what became of it: "held", or why it was not
 *
 * Whom to call is read from stdin, "ADDRESS PORT" a line, and called in turn.
 *
 * `ask` begins each call when it is due, whatever became of those before: a slow answer makes none
 * of the next ones wait (no coordinated omission). The caller closes by a reset, so neither side
 * keeps a TIME_WAIT, and takes its source ports one after the other from FIRST_PORT on: no two of
 * a run collide.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 65535, LAST_PORT = 65535, MOST_TARGETS = 1024, MOST_EVENTS = 256 };
enum { HOLD_PAUSE_NS = 20000000 };

static const uint64_t SECOND_NS = 1000000000, PATIENCE_NS = 2 * SECOND_NS;

static struct sockaddr_in targets[MOST_TARGETS];
static int target_count;

/* A call that has no answer yet; `due_ns` is 0 where there is none. */
struct call {
	uint64_t due_ns;
	int socket;
};

static int fail(const char *what)
{
	fprintf(stderr, "talk: %s: %s\n", what, strerror(errno));
	return 1;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static struct sockaddr_in address_of(in_addr_t host, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	address.sin_addr.s_addr = host;
	address.sin_port = htons((uint16_t)port);
	return address;
}

static int read_targets(void)
{
	char host[64];
	int port;

	while (target_count < MOST_TARGETS && scanf("%63s %d", host, &port) == 2)
		targets[target_count++] = address_of(inet_addr(host), port);
	return target_count;
}

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

static int serve(int port, in_addr_t host)
{
	struct sockaddr_in here = address_of(host, port);
	struct epoll_event events[MOST_EVENTS] = { { .events = EPOLLIN } };
	int on = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int poll = epoll_create1(0);

	if (listener < 0 || poll < 0)
		return fail("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, BACKLOG))
		return fail("listen");
	events[0].data.fd = listener;
	epoll_ctl(poll, EPOLL_CTL_ADD, listener, &events[0]);
	puts("listening");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(poll, events, MOST_EVENTS, -1);

		for (int n = 0; n < count; n++) {
			if (events[n].data.fd != listener)
				answer(events[n].data.fd);
			else if (accept_all(listener, poll))
				return fail("accept");
		}
	}
}

/* Begin a call, from a port that is free; return its socket, or -1. */
static int call(int number, int first_port, int flags)
{
	const struct linger reset = { .l_onoff = 1 };
	const struct sockaddr_in *there = &targets[number % target_count];
	int ports = LAST_PORT - first_port + 1;
	struct sockaddr_in here = address_of(htonl(INADDR_ANY), first_port + number % ports);
	int client = socket(AF_INET, SOCK_STREAM | flags, 0);

	if (client < 0)
		return -1;
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (!bind(client, (struct sockaddr *)&here, sizeof(here)) &&
	    (!connect(client, (const struct sockaddr *)there, sizeof(*there)) ||
	     errno == EINPROGRESS))
		return client;
	close(client);
	return -1;
}

static int connect_for(double seconds, int first_port)
{
	uint64_t began_ns = now_ns(), until_ns = began_ns + (uint64_t)(seconds * 1e9);
	int count = 0, most = LAST_PORT - first_port + 1;

	while (count < most && now_ns() < until_ns) {
		int client = call(count, first_port, 0);

		if (client < 0)
			return fail("connect");
		close(client);
		count++;
	}
	printf("%d %.9f\n", count, (double)(now_ns() - began_ns) / 1e9);
	return 0;
}

static void lost(int why)
{
	printf("%s\n", strerror(why));
}

/* Go on with a call: ask once it is connected, and take the answer. */
static int heard(struct call *call, uint32_t events)
{
	char byte;
	int error = 0;
	socklen_t size = sizeof(error);

	if (events & (EPOLLERR | EPOLLHUP)) {
		getsockopt(call->socket, SOL_SOCKET, SO_ERROR, &error, &size);
		lost(error ? error : ECONNRESET);
	} else if (!(events & EPOLLIN)) {
		return 0;
	} else if (recv(call->socket, &byte, 1, 0) == 1) {
		printf("%llu\n", (unsigned long long)(now_ns() - call->due_ns));
	} else {
		lost(ECONNRESET);
	}
	close(call->socket);
	call->due_ns = 0;
	return 1;
}

static void ask_once_connected(int poll, struct call *call, int number)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = (uint32_t)number };

	epoll_ctl(poll, EPOLL_CTL_MOD, call->socket, &event);
	send(call->socket, "?", 1, MSG_NOSIGNAL);
}

static uint64_t due_ns(uint64_t began_ns, int number, double rate)
{
	return began_ns + (uint64_t)(number * 1e9 / rate);
}

/* Wait for events, but no longer than that. */
static int wait_until(int poll, struct epoll_event *events, uint64_t until_ns)
{
	uint64_t now = now_ns(), left_ns = until_ns > now ? until_ns - now : 0;
	struct timespec left = {
		.tv_sec = (time_t)(left_ns / SECOND_NS),
		.tv_nsec = (long)(left_ns % SECOND_NS),
	};

	return epoll_pwait2(poll, events, MOST_EVENTS, &left, NULL);
}

static int ask(double rate, double seconds, int first_port)
{
	int total = (int)(rate * seconds), begun = 0, open = 0;
	struct call *calls = calloc((size_t)total, sizeof(*calls));
	struct epoll_event events[MOST_EVENTS];
	int poll = epoll_create1(0);
	uint64_t began_ns = now_ns(), last_ns = began_ns + (uint64_t)(seconds * 1e9) + PATIENCE_NS;

	if (!calls || poll < 0)
		return fail("calloc");
	while ((begun < total || open) && now_ns() < last_ns) {
		int count;

		while (begun < total) {
			struct epoll_event event = { .events = EPOLLOUT };

			calls[begun].due_ns = due_ns(began_ns, begun, rate);
			if (calls[begun].due_ns > now_ns())
				break;
			calls[begun].socket = call(begun, first_port, SOCK_NONBLOCK);
			event.data.u32 = (uint32_t)begun;
			if (calls[begun].socket < 0) {
				lost(errno);
				calls[begun].due_ns = 0;
			} else {
				epoll_ctl(poll, EPOLL_CTL_ADD, calls[begun].socket, &event);
				open++;
			}
			begun++;
		}
		count = wait_until(poll, events, begun < total ? due_ns(began_ns, begun, rate) : last_ns);
		for (int n = 0; n < count; n++) {
			struct call *one = &calls[events[n].data.u32];

			if (events[n].events == EPOLLOUT)
				ask_once_connected(poll, one, (int)events[n].data.u32);
			else
				open -= heard(one, events[n].events);
		}
	}
	for (int n = 0; n < begun; n++) {
		if (calls[n].due_ns)
			lost(ETIMEDOUT);
	}
	return 0;
}

/* A connection that is held; `asked_ns` is when it was asked what it did not answer yet, else 0. */
struct held {
	uint64_t asked_ns;
	int socket;
	int error;
};

/* Take an answer if there is one, ask again if nothing is due, and notice what went wrong. */
static void go_on(struct held *one)
{
	char byte;
	ssize_t got = recv(one->socket, &byte, 1, MSG_DONTWAIT);

	if (got == 1)
		one->asked_ns = 0;
	else if (got == 0)
		one->error = ECONNRESET;
	else if (errno != EAGAIN)
		one->error = errno;
	if (!one->error && !one->asked_ns) {
		one->asked_ns = now_ns();
		if (send(one->socket, "?", 1, MSG_NOSIGNAL) != 1)
			one->error = errno;
	}
}

static int hold(int count, double seconds, int first_port)
{
	const struct timespec pause = { .tv_nsec = HOLD_PAUSE_NS };
	struct held *connections = calloc((size_t)count, sizeof(*connections));
	uint64_t until_ns = now_ns() + (uint64_t)(seconds * 1e9);

	if (!connections)
		return fail("calloc");
	for (int n = 0; n < count; n++) {
		connections[n].socket = call(n, first_port, 0);
		if (connections[n].socket < 0)
			return fail("connect");
	}
	while (now_ns() < until_ns) {
		for (int n = 0; n < count; n++) {
			if (!connections[n].error)
				go_on(&connections[n]);
		}
		nanosleep(&pause, NULL);
	}
	for (int n = 0; n < count; n++) {
		struct held *one = &connections[n];

		if (!one->error && one->asked_ns && now_ns() - one->asked_ns > PATIENCE_NS / 2)
			one->error = ETIMEDOUT;
		puts(one->error ? strerror(one->error) : "held");
	}
	return 0;
}

int main(int argc, char **argv)
{
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]), argc == 4 ? inet_addr(argv[3]) : htonl(INADDR_ANY));
	if (argc == 4 && !strcmp(argv[1], "connect") && read_targets())
		return connect_for(atof(argv[2]), atoi(argv[3]));
	if (argc == 5 && !strcmp(argv[1], "ask") && read_targets())
		return ask(atof(argv[2]), atof(argv[3]), atoi(argv[4]));
	if (argc == 5 && !strcmp(argv[1], "hold") && read_targets())
		return hold(atoi(argv[2]), atof(argv[3]), atoi(argv[4]));
	fprintf(stderr, "usage: talk serve PORT [ADDRESS] | connect SECONDS FIRST_PORT | "
			"ask RATE SECONDS FIRST_PORT | hold COUNT SECONDS FIRST_PORT\n");
	return 2;
}
