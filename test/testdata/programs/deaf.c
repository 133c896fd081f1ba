/* Waits for connections as a server does, and takes none. */
#include "server.h"

int main(int argc, char **argv)
{
	struct pollfd listener = {.fd = listen_on("127.0.0.1", atoi(argv[1])), .events = POLLIN};
	poll(&listener, 1, -1);
	for (;;)
		pause();
}
