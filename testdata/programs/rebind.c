/* Closes its listener and opens another at the same address when it has got USR1,
   as a server may that reads its configuration anew. */
#include "server.h"

static volatile sig_atomic_t asked;

static void ask(int sig) { asked = 1; }

static void *serve(void *connection)
{
	echo((int)(long)connection);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
	int listener = listen_on("127.0.0.1", atoi(argv[1])), times = 0;
	sigaction(SIGUSR1, &action, NULL);
	for (;;) {
		pthread_t thread;
		int fd = accept(listener, NULL, NULL);
		if (fd < 0 || pthread_create(&thread, NULL, serve, (void *)(long)fd) != 0)
			die("accept");
		pthread_detach(thread);
		if (!asked)
			continue;
		asked = 0;
		close(listener);
		listener = listen_on("127.0.0.1", atoi(argv[1]));
		printf("generation %s bound again: %d\n", getenv("GRACE_GENERATION"), ++times);
		fflush(stdout);
	}
}
