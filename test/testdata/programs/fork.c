/* A server as they were written in 1998: a process for each connection. With -d
   it becomes a daemon first. It never heard of TERM. */
#include "server.h"

static void become_daemon(void)
{
	if (fork() > 0)
		_exit(0);
	setsid();
	if (fork() > 0)
		_exit(0);
	chdir("/");
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	open("/dev/null", O_RDWR);
	dup(0);
	dup(0);
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[2], "-d") == 0)
		become_daemon();
	int listener = listen_on("127.0.0.1", atoi(argv[1]));
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		echo_in_child(listener, fd);
	}
}
