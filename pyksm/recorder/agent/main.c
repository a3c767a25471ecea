#include "agent.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * As init of a guest: sets the guest up and serves its port. Else `agent serve`: speaks over
 * standard input and output, and ends when its input does.
 */
int main(int argc, char **argv)
{
	int port;

	signal(SIGPIPE, SIG_IGN);
	if (getpid() != 1) {
		if (argc != 2 || strcmp(argv[1], "serve") != 0) {
			fprintf(stderr, "usage: %s serve\n", argv[0]);
			return 2;
		}
		link_setup(STDIN_FILENO, STDOUT_FILENO);
		protocol_serve();
		return 0;
	}
	port = guest_setup();
	if (port >= 0) {
		link_setup(port, port);
		protocol_serve();
	}
	guest_end();
}
