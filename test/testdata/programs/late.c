/* Tries to bind and to listen once more whenever it gets USR1, and prints what
   becomes of it. */
#include "server.h"

static volatile sig_atomic_t asked;

static void ask(int sig) { asked = 1; }

static void open_late(int port)
{
	int bound = make_socket(AF_INET), unbound = make_socket(AF_INET);
	const char *binding = bind_to(bound, "127.0.0.1", port) < 0 ? strerrorname_np(errno) : "0";
	const char *listening = listen(unbound, 1) < 0 ? strerrorname_np(errno) : "0";
	printf("late bind: %s, late listen: %s\n", binding, listening);
	fflush(stdout);
	close(bound);
	close(unbound);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = ask}; /* without SA_RESTART */
	int listener = listen_on("127.0.0.1", atoi(argv[1]));
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (asked) {
			asked = 0;
			open_late(atoi(argv[2]));
		}
		if (fd < 0)
			continue;
		echo_in_child(listener, fd);
	}
}
