/* One thread and epoll, which knows the listener before it is bound. */
#include "server.h"

int main(int argc, char **argv)
{
	int listener = make_socket(AF_INET), set = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
	fcntl(listener, F_SETFL, O_NONBLOCK);
	if (epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) < 0)
		die("epoll_ctl");
	if (bind_to(listener, "127.0.0.1", atoi(argv[1])) < 0)
		die("bind");
	if (listen(listener, 128) < 0)
		die("listen");
	for (;;) {
		if (epoll_wait(set, &event, 1, -1) < 1)
			continue;
		int fd = event.data.fd;
		if (fd != listener) {
			if (!echo_some(fd))
				close(fd);
		} else if ((fd = accept(listener, NULL, NULL)) >= 0) {
			event.data.fd = fd;
			if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
				die("epoll_ctl");
		}
	}
}
