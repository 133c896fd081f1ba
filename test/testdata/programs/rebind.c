/* Closes its listener and opens another at the same address, a port or a path, when it
   has got USR1, as a server may that reads its configuration anew. With "shutdown" it
   shuts the first down before, and with "keep" it does not close it then. */
#include "server.h"
#include <sys/un.h>

static volatile sig_atomic_t asked;

static void ask(int sig) { asked = 1; }

static void *serve(void *connection)
{
	echo((int)(long)connection);
	return NULL;
}

static int open_listener(const char *at)
{
	struct sockaddr_un path = {.sun_family = AF_UNIX};
	int fd;
	if (at[0] != '/')
		return listen_on("127.0.0.1", atoi(at));
	strncpy(path.sun_path, at, sizeof path.sun_path - 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	unlink(at);
	if (bind(fd, (struct sockaddr *)&path, sizeof path) < 0 || listen(fd, 128) < 0)
		die("listen");
	return fd;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
	int listener = open_listener(argv[1]), times = 0;
	const char *way = argc > 2 ? argv[2] : "close";
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
		if (strcmp(way, "close") != 0)
			shutdown(listener, SHUT_RDWR);
		if (strcmp(way, "keep") != 0)
			close(listener);
		listener = open_listener(argv[1]);
		printf("generation %s bound again: %d\n", getenv("GRACE_GENERATION"), ++times);
		fflush(stdout);
	}
}
