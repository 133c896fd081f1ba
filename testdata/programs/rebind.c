/* Closes its listener and opens another at the same address whenever it gets USR1,
   as a server may that reads its configuration anew. */
#include "server.h"

static volatile sig_atomic_t asked;

static void ask(int sig) { asked = 1; }

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = ask}; /* without SA_RESTART */
	int listener = listen_on("127.0.0.1", atoi(argv[1]));
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd >= 0)
			echo_in_child(listener, fd);
		if (!asked)
			continue;
		asked = 0;
		close(listener);
		listener = listen_on("127.0.0.1", atoi(argv[1]));
		puts("bound again");
		fflush(stdout);
	}
}
