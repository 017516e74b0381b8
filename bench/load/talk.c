/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Call who answers (see serve.c). Each call is a connection of its own, or a datagram and its answer.
 *
 *   talk connect SECONDS FIRST_PORT      open one after the other as fast as one thread can;
 *                                        print why each failed that did, and at last how many
 *                                        were opened in how many seconds
 *   talk ask PROTOCOL RATE SECONDS FIRST_PORT
 *                                        ask so many times a second, over TCP or UDP; print for each
 *                                        how many ns passed from when it was due until its answer, or
 *                                        why there was none
 *   talk hold COUNT SECONDS FIRST_PORT   open so many and go on talking over them; print for each
 *                                        what became of it: "held", or why it was not
 *
 * Whom to call is read from stdin, "ADDRESS PORT" a line, and called in turn. By SIGTERM `ask` and
 * `hold` take their seconds for over. Then each that is held has to answer once more.
 *
 * `ask` begins each call when it is due, whatever became of those before: a slow answer makes none
 * of the next ones wait (no coordinated omission). The caller closes by a reset, so neither side
 * keeps a TIME_WAIT, and takes its source ports one after the other from FIRST_PORT on: no two of
 * a run collide.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "address.h"

enum { LAST_PORT = 65535, MOST_EVENTS = 256 };
enum { HOLD_PAUSE_NS = 20000000, OUTPUT_BYTES = 1 << 20 };

static const uint64_t SECOND_NS = 1000000000, PATIENCE_NS = 2 * SECOND_NS;

static union address *targets;
static int target_count;
static int kind = SOCK_STREAM; /* of calls */
static volatile sig_atomic_t is_over;

/* A call that has no answer yet; `due_ns` is 0 where there is none. */
struct call {
	uint64_t due_ns;
	int socket;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void end(int signal)
{
	(void)signal;
	is_over = 1;
}

static int read_targets(void)
{
	char host[64];
	int port;

	while (scanf("%63s %d", host, &port) == 2) {
		targets = reallocarray(targets, (size_t)target_count + 1, sizeof(*targets));
		if (!targets)
			return 0;
		targets[target_count++] = address_of(host, port);
	}
	return target_count;
}

/* Begin a call, from a port that is free; return its socket, or -1. */
static int call(int number, int first_port, int flags)
{
	const struct linger reset = { .l_onoff = 1 };
	const union address *there = &targets[number % target_count];
	int ports = LAST_PORT - first_port + 1;
	union address here = anywhere(there->any.sa_family, first_port + number % ports);
	int client = socket(there->any.sa_family, kind | flags, 0), error;

	if (client < 0)
		return -1;
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (!bind(client, &here.any, sizeof(here)) &&
	    (!connect(client, &there->any, sizeof(*there)) || errno == EINPROGRESS))
		return client;
	error = errno;
	close(client);
	errno = error;
	return -1;
}

static void lost(int why)
{
	printf("%s\n", strerror(why));
}

static int connect_for(double seconds, int first_port)
{
	uint64_t began_ns = now_ns(), until_ns = began_ns + (uint64_t)(seconds * 1e9);
	int tried = 0, opened = 0, most = LAST_PORT - first_port + 1;

	for (; tried < most && now_ns() < until_ns; tried++) {
		int client = call(tried, first_port, 0);

		if (client < 0) {
			lost(errno);
			continue;
		}
		close(client);
		opened++;
	}
	if (!opened)
		return fail("connect");
	printf("%d %.9f\n", opened, (double)(now_ns() - began_ns) / 1e9);
	return 0;
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

		if (is_over && begun < total) {
			total = begun;
			last_ns = now_ns() + PATIENCE_NS;
		}
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

/*
 * A connection that is held. `asked_ns` is when it was asked what it did not answer yet, else 0;
 * `answered_ns` is when it was asked what it answered last.
 */
struct held {
	uint64_t asked_ns;
	uint64_t answered_ns;
	int socket;
	int error;
};

/* Take an answer if there is one, ask again if nothing is due, and notice what went wrong. */
static void go_on(struct held *one)
{
	char byte;
	ssize_t got = recv(one->socket, &byte, 1, MSG_DONTWAIT);

	if (got == 1) {
		one->answered_ns = one->asked_ns;
		one->asked_ns = 0;
	} else if (got == 0) {
		one->error = ECONNRESET;
	} else if (errno != EAGAIN) {
		one->error = errno;
	}
	if (!one->error && !one->asked_ns) {
		one->asked_ns = now_ns();
		if (send(one->socket, "?", 1, MSG_NOSIGNAL) != 1)
			one->error = errno;
	}
}

/* Go on with all; return how many have not answered yet what they were asked since then. */
static int go_on_with(struct held *connections, int count, uint64_t since_ns)
{
	const struct timespec pause = { .tv_nsec = HOLD_PAUSE_NS };
	int missing = 0;

	for (int n = 0; n < count; n++) {
		if (!connections[n].error)
			go_on(&connections[n]);
		missing += !connections[n].error && connections[n].answered_ns < since_ns;
	}
	nanosleep(&pause, NULL);
	return missing;
}

static int hold(int count, double seconds, int first_port)
{
	struct held *connections = calloc((size_t)count, sizeof(*connections));
	uint64_t over_ns, until_ns = now_ns() + (uint64_t)(seconds * 1e9);

	if (!connections)
		return fail("calloc");
	for (int n = 0; n < count; n++) {
		connections[n].socket = call(n, first_port, 0);
		if (connections[n].socket < 0)
			return fail("connect");
	}
	while (!is_over && now_ns() < until_ns)
		go_on_with(connections, count, 0);
	over_ns = now_ns();
	while (go_on_with(connections, count, over_ns) && now_ns() - over_ns < PATIENCE_NS)
		;
	for (int n = 0; n < count; n++) {
		struct held *one = &connections[n];

		if (!one->error && one->answered_ns < over_ns)
			one->error = ETIMEDOUT;
		puts(one->error ? strerror(one->error) : "held");
	}
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGTERM, end);
	setvbuf(stdout, NULL, _IOFBF, OUTPUT_BYTES); /* a full pipe would stop the calls */
	if (argc == 4 && !strcmp(argv[1], "connect") && read_targets())
		return connect_for(atof(argv[2]), atoi(argv[3]));
	if (argc == 6 && !strcmp(argv[1], "ask") && read_targets()) {
		kind = strcmp(argv[2], "UDP") ? SOCK_STREAM : SOCK_DGRAM;
		return ask(atof(argv[3]), atof(argv[4]), atoi(argv[5]));
	}
	if (argc == 5 && !strcmp(argv[1], "hold") && read_targets())
		return hold(atoi(argv[2]), atof(argv[3]), atoi(argv[4]));
	fprintf(stderr, "usage: talk connect SECONDS FIRST_PORT | "
			"ask PROTOCOL RATE SECONDS FIRST_PORT | hold COUNT SECONDS FIRST_PORT\n");
	return 2;
}
