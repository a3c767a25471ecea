/*
 * Lines of text both ways. The buffers are kept from children (MADV_DONTFORK), which lock what
 * memory they have and would each lock a copy.
 */
#include "agent.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IN_SIZE (1u << 20)
#define OUT_SIZE (1u << 16)

static int in_fd, out_fd;
static char *in, *out;
static size_t in_begin, in_end, out_end;

static char *private_buffer(size_t size)
{
	char *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buffer == MAP_FAILED)
		abort();
	madvise(buffer, size, MADV_DONTFORK);
	return buffer;
}

void link_setup(int from, int to)
{
	in_fd = from;
	out_fd = to;
	in = private_buffer(IN_SIZE);
	out = private_buffer(OUT_SIZE);
}

char *link_line(void)
{
	for (;;) {
		char *begin = in + in_begin;
		char *end = memchr(begin, '\n', in_end - in_begin);
		ssize_t got;

		if (end) {
			*end = '\0';
			in_begin = (size_t)(end + 1 - in);
			return begin;
		}
		memmove(in, begin, in_end - in_begin);
		in_end -= in_begin;
		in_begin = 0;
		if (in_end == IN_SIZE)
			return NULL; /* no line is that long: whoever speaks is not a recorder */
		got = read(in_fd, in + in_end, IN_SIZE - in_end);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return NULL;
		in_end += (size_t)got;
	}
}

void link_flush(void)
{
	size_t done = 0;

	while (done < out_end) {
		ssize_t part = write(out_fd, out + done, out_end - done);
		if (part < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (part <= 0)
			break;
		done += (size_t)part;
	}
	out_end = 0;
}

void say(const char *format, ...)
{
	va_list args;
	int length;

	if (OUT_SIZE - out_end < 4096)
		link_flush();
	va_start(args, format);
	length = vsnprintf(out + out_end, OUT_SIZE - out_end, format, args);
	va_end(args);
	if (length > 0)
		out_end += (size_t)length < OUT_SIZE - out_end ? (size_t)length
							       : OUT_SIZE - out_end - 1;
}
