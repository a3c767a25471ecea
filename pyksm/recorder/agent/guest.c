/*
 * Init of a booted guest: file systems, modules, the port that the recorder speaks over. It leaves
 * by a reset, at which qemu (-no-reboot) ends.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void attach(const char *type, const char *where, const char *options)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, options) && errno != EBUSY)
		fprintf(stderr, "agent: mount %s: %s\n", type, strerror(errno));
}

static int by_name(const struct dirent **one, const struct dirent **two)
{
	return strcmp((*one)->d_name, (*two)->d_name);
}

static int no_dots(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Named so that alphabetical order is the order of their dependencies. */
static void load_modules(void)
{
	struct dirent **entries;
	int count = scandir("/modules", &entries, no_dots, by_name);

	for (int k = 0; k < count; k++) {
		char path[300];
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", entries[k]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			fprintf(stderr, "agent: %s: %s\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		unlink(path);
	}
}

/* The virtio port named pyksm; -1 where there is none (yet). */
static int open_port(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	int fd = -1;

	while (ports && fd < 0 && (entry = readdir(ports))) {
		char path[300], name[32];

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		if (file_read(path, name, sizeof(name)) <= 0 || strcmp(name, "pyksm\n"))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (ports)
		closedir(ports);
	return fd;
}

static void define_areas(void)
{
	for (char letter = 'a'; letter <= 'z'; letter++) {
		char path[16];

		snprintf(path, sizeof(path), "/dev/vd%c", letter);
		if (!access(path, F_OK))
			area_define(path);
	}
}

static void define_group(void)
{
	char text[256];

	attach("cgroup2", "/sys/fs/cgroup", NULL);
	if (file_read("/sys/fs/cgroup/cgroup.controllers", text, sizeof(text)) > 0 &&
	    strstr(text, "memory")) {
		file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
		mkdir("/sys/fs/cgroup/scenario", 0755);
		group_define("/sys/fs/cgroup/scenario");
		return;
	}
	umount("/sys/fs/cgroup");
	mkdir("/group", 0755);
	if (mount("cgroup", "/group", "cgroup", 0, "memory")) {
		fprintf(stderr, "agent: memory cgroups: %s\n", strerror(errno));
		return;
	}
	mkdir("/group/scenario", 0755);
	group_define("/group/scenario");
}

int guest_setup(void)
{
	int port = -1;

	attach("devtmpfs", "/dev", NULL);
	attach("proc", "/proc", NULL);
	attach("sysfs", "/sys", NULL);
	attach("debugfs", "/sys/kernel/debug", NULL);
	if (!access("/sys/kernel/tracing", F_OK))
		attach("tracefs", "/sys/kernel/tracing", NULL);
	load_modules();
	for (int k = 0; k < 100 && port < 0; k++) {
		port = open_port();
		if (port < 0)
			usleep(10000);
	}
	if (port < 0)
		fprintf(stderr, "agent: no virtio port, expected a kernel with virtio_console\n");
	define_areas();
	define_group();
	return port;
}

void guest_end(void)
{
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
