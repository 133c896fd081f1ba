/* A thread for each connection; at TERM the listener is shut down, which wakes
   accept, and what was accepted is finished. */
#include "server.h"

static int listener, open_connections;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t closed = PTHREAD_COND_INITIALIZER;

static void *serve(void *fd)
{
	echo((int)(long)fd);
	pthread_mutex_lock(&lock);
	open_connections--;
	pthread_cond_signal(&closed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void stop(int sig) { shutdown(listener, SHUT_RDWR); }

int main(int argc, char **argv)
{
	listener = listen_on("127.0.0.1", atoi(argv[1]));
	signal(SIGTERM, stop);
	for (int fd; (fd = accept(listener, NULL, NULL)) >= 0 || errno == EINTR;) {
		pthread_t thread;
		if (fd < 0)
			continue;
		pthread_mutex_lock(&lock);
		open_connections++;
		pthread_mutex_unlock(&lock);
		if (pthread_create(&thread, NULL, serve, (void *)(long)fd) != 0)
			die("pthread_create");
		pthread_detach(thread);
	}
	pthread_mutex_lock(&lock);
	while (open_connections > 0)
		pthread_cond_wait(&closed, &lock);
	return 0;
}
