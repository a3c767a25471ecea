#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

ssize_t file_read(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t got = 0;

	if (fd < 0)
		return -errno;
	while (got + 1 < size) {
		ssize_t part = read(fd, buffer + got, size - 1 - got);
		if (part < 0) {
			int err = errno;
			close(fd);
			return -err;
		}
		if (part == 0)
			break;
		got += (size_t)part;
	}
	close(fd);
	buffer[got] = '\0';
	return (ssize_t)got;
}

int file_write(const char *path, const char *text)
{
	return file_write_as(path, text, O_WRONLY);
}

int file_write_as(const char *path, const char *text, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		err = errno;
	close(fd);
	return err;
}

int64_t file_number(const char *path)
{
	char text[64];

	if (file_read(path, text, sizeof(text)) <= 0)
		return -1;
	return strtoll(text, NULL, 10);
}

double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}
