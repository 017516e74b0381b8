/*
 * Open connections one after the other as fast as one thread can, or accept them.
 *
 *   connect serve PORT                          print "listening", accept until killed
 *   connect run ADDRESS PORT COUNT FIRST_PORT   print how many seconds it took
 *
 * The client closes by a reset, so neither side keeps a TIME_WAIT, and takes its source ports one
 * after the other from FIRST_PORT on, so that no two of a run collide.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 65535, LAST_PORT = 65535 };

static int fail(const char *what)
{
	fprintf(stderr, "connect: %s: %s\n", what, strerror(errno));
	return 1;
}

static struct sockaddr_in address_of(in_addr_t host, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	address.sin_addr.s_addr = host;
	address.sin_port = htons((uint16_t)port);
	return address;
}

static int serve(int port)
{
	struct sockaddr_in here = address_of(htonl(INADDR_ANY), port);
	int on = 1;
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	if (listener < 0)
		return fail("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, BACKLOG))
		return fail("listen");
	puts("listening");
	fflush(stdout);
	for (;;) {
		int client = accept(listener, NULL, NULL);

		if (client >= 0)
			close(client);
		else if (errno != ECONNABORTED && errno != EINTR)
			return fail("accept");
	}
}

static int open_and_reset(const struct sockaddr_in *there, int source_port)
{
	const struct linger reset = { .l_onoff = 1 };
	struct sockaddr_in here = address_of(htonl(INADDR_ANY), source_port);
	int client = socket(AF_INET, SOCK_STREAM, 0);

	if (client < 0)
		return fail("socket");
	setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (bind(client, (struct sockaddr *)&here, sizeof(here)))
		return fail("bind");
	if (connect(client, (const struct sockaddr *)there, sizeof(*there)))
		return fail("connect");
	close(client);
	return 0;
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run(const char *host, int port, int count, int first_port)
{
	struct sockaddr_in there = address_of(inet_addr(host), port);
	double began_s = now_s();

	if (first_port + count - 1 > LAST_PORT) {
		errno = EINVAL;
		return fail("not that many source ports");
	}
	for (int n = 0; n < count; n++) {
		if (open_and_reset(&there, first_port + n))
			return 1;
	}
	printf("%.6f\n", now_s() - began_s);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]));
	if (argc == 6 && !strcmp(argv[1], "run"))
		return run(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
	fprintf(stderr, "usage: connect serve PORT | run ADDRESS PORT COUNT FIRST_PORT\n");
	return 2;
}
