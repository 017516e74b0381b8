/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Addresses of both families, for talk.c and serve.c.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Return any address of a family. The port has one place in both. */
static union address anywhere(sa_family_t family, int port)
{
	union address address = { .v6 = { .sin6_family = family } };

	address.v6.sin6_port = htons((uint16_t)port);
	return address;
}

static union address address_of(const char *host, int port)
{
	union address address = anywhere(strchr(host, ':') ? AF_INET6 : AF_INET, port);

	if (address.any.sa_family == AF_INET6)
		inet_pton(AF_INET6, host, &address.v6.sin6_addr);
	else
		inet_pton(AF_INET, host, &address.v4.sin_addr);
	return address;
}

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 1;
}
