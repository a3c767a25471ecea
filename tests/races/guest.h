/* SPDX-License-Identifier: MIT */
/* What a race's program needs as the init of a guest: files, how long to try, an end. */
#ifndef PYKSM_RACE_GUEST_H
#define PYKSM_RACE_GUEST_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MOVE 2 /* MPOL_MF_MOVE */
#define MOVE_ALL 4

static time_t deadline;

static void begin(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	deadline = time(NULL) + (argc > 1 ? atoi(argv[1]) : 60);
}

static int in_time(void)
{
	return time(NULL) < deadline;
}

static int end(void)
{
	sleep(1); /* the console is slower than we are */
	reboot(RB_POWER_OFF);
	return 0;
}

static inline void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

static inline long get(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		perror(path);
	close(fd);
	return atol(text);
}

static inline char *map(size_t pages)
{
	char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);

	if (at == MAP_FAILED)
		abort();
	madvise(at, pages * PAGE, MADV_NOHUGEPAGE); /* EINVAL where there are none */
	return at;
}

#endif
