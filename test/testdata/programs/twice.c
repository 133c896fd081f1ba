/* Finds out what becomes of a second bind of the same address, and prints it
   before it serves. */
#include "server.h"

static const char *second(const char *ip, int port, int option)
{
	int fd = socket(strchr(ip, ':') ? AF_INET6 : AF_INET, SOCK_STREAM, 0), on = 1, off = 0;
	if (strchr(ip, ':'))
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (option)
		setsockopt(fd, SOL_SOCKET, option, &on, sizeof on);
	int failed = bind_to(fd, ip, port) < 0 || listen(fd, 1) < 0;
	const char *what = failed ? strerrorname_np(errno) : "0";
	close(fd);
	return what;
}

int main(int argc, char **argv)
{
	int port = atoi(argv[1]), listener = listen_on("127.0.0.1", port);
	printf("second bind: plain %s", second("127.0.0.1", port, 0));
	printf(", reuseaddr %s", second("127.0.0.1", port, SO_REUSEADDR));
	printf(", reuseport %s", second("127.0.0.1", port, SO_REUSEPORT));
	printf(", 0.0.0.0 %s", second("0.0.0.0", port, 0));
	printf(", [::] %s", second("::", port, 0));
	printf(", other address %s\n", second("127.0.0.2", port, 0));
	fflush(stdout);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd >= 0)
			echo(fd);
	}
}
