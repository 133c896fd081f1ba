/* What the C programs have in common: nothing here knows of grace. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline int make_socket(int family)
{
	int fd = socket(family, SOCK_STREAM, 0), on = 1;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		die("socket");
	return fd;
}

static inline int bind_to(int fd, const char *ip, int port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	if (inet_pton(AF_INET, ip, &v4.sin_addr) == 1)
		return bind(fd, (struct sockaddr *)&v4, sizeof v4);
	inet_pton(AF_INET6, ip, &v6.sin6_addr);
	return bind(fd, (struct sockaddr *)&v6, sizeof v6);
}

static inline int listen_on(const char *ip, int port)
{
	int fd = make_socket(strchr(ip, ':') ? AF_INET6 : AF_INET), on = 1;
	if (strchr(ip, ':') && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
		die("IPV6_V6ONLY");
	if (bind_to(fd, ip, port) < 0)
		die("bind");
	if (listen(fd, 128) < 0)
		die("listen");
	return fd;
}

/* echo_some returns 0 at the end of the connection. */
static inline int echo_some(int fd)
{
	char text[4096];
	ssize_t n = read(fd, text, sizeof text);
	for (ssize_t done = 0; done < n;) {
		ssize_t m = write(fd, text + done, n - done);
		if (m < 0)
			return 0;
		done += m;
	}
	return n > 0;
}

static inline void echo(int fd)
{
	while (echo_some(fd))
		;
	close(fd);
}

/* echo_in_child leaves the connection to a process of its own. */
static inline void echo_in_child(int listener, int fd)
{
	if (fork() == 0) {
		close(listener);
		echo(fd);
		_exit(0);
	}
	close(fd);
}
