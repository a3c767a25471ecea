/* SPDX-License-Identifier: MIT */
/* What a race's program needs as the init of a guest: files, how long to try, an end. */
#ifndef PYKSM_RACE_GUEST_H
#define PYKSM_RACE_GUEST_H

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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

/* The drivers of the disk, in order, and the disk as a swap area; devices come a moment later. */
static inline void swap_on(void)
{
	struct dirent **name;
	int names = scandir("/modules", &name, NULL, alphasort);

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	for (int i = 0; i < names; i++) {
		char path[300];
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", name[i]->d_name);
		fd = name[i]->d_name[0] == '.' ? -1 : open(path, O_RDONLY);
		if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0))
			perror(path);
	}
	for (int i = 0; i < 100 && swapon("/dev/vda", 0); i++)
		usleep(50000);
	put("/proc/sys/vm/page-cluster", "0");
}

static inline void empty_swap(void)
{
	if (swapoff("/dev/vda") || swapon("/dev/vda", 0))
		perror("swap");
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
