/* Two listeners in one thread. The second is opened when the first has been served
   for a while: argv[2], in milliseconds. */
#include "server.h"

#define MOST 1024

int main(int argc, char **argv)
{
	struct pollfd set[MOST] = {{.events = POLLIN}, {.fd = -1, .events = POLLIN}};
	int port = atoi(argv[1]), count = 2;
	set[0].fd = listen_on("127.0.0.1", port);
	for (;;) {
		int n = poll(set, count, set[1].fd < 0 ? atoi(argv[2]) : -1);
		if (n < 0)
			die("poll");
		if (n == 0)
			set[1].fd = listen_on("::1", port);
		for (int i = count - 1; i > 1; i--)
			if (set[i].revents && !echo_some(set[i].fd)) {
				close(set[i].fd);
				set[i] = set[--count];
			}
		for (int i = 0; i < 2; i++)
			if (set[i].revents && count < MOST) {
				set[count] = (struct pollfd){.fd = accept(set[i].fd, NULL, NULL), .events = POLLIN};
				count++;
			}
	}
}
