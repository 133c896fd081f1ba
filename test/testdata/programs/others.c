/* A dual-stack TCP listener, and beside it sockets that are nobody else's
   business: UDP and TCP on any port. */
#include "server.h"

static void expect(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "others: %s\n", what);
	exit(3);
}

static void check_untouched(int fd)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, &size);
	expect(value == 0, "SO_REUSEPORT is set on a socket with any port");
}

static struct sockaddr_in address_of(int fd)
{
	struct sockaddr_in at;
	socklen_t size = sizeof at;
	if (getsockname(fd, (struct sockaddr *)&at, &size) < 0)
		die("getsockname");
	expect(at.sin_port != 0, "no port was given");
	return at;
}

static void check_udp(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char text[8];
	if (bind_to(fd, "127.0.0.1", 0) < 0)
		die("bind of UDP");
	struct sockaddr_in at = address_of(fd);
	check_untouched(fd);
	expect(sendto(fd, "ping", 4, 0, (struct sockaddr *)&at, sizeof at) == 4, "sendto");
	expect(recv(fd, text, sizeof text, 0) == 4, "recv");
}

static void check_any_port(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
	if (bind_to(fd, "127.0.0.1", 0) < 0 || listen(fd, 1) < 0)
		die("bind to any port");
	struct sockaddr_in at = address_of(fd);
	check_untouched(fd);
	expect(connect(client, (struct sockaddr *)&at, sizeof at) == 0, "connect");
	expect(accept(fd, NULL, NULL) >= 0, "accept");
	close(client);
}

int main(int argc, char **argv)
{
	int listener = make_socket(AF_INET6), off = 0;
	if (setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
		die("IPV6_V6ONLY");
	check_udp();
	check_any_port();
	if (bind_to(listener, "::", atoi(argv[1])) < 0)
		die("bind");
	if (listen(listener, 128) < 0)
		die("listen");
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		echo_in_child(listener, fd);
	}
}
