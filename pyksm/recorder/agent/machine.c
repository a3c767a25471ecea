/*
 * Swap areas, reclaim by memcg pressure, ksmd's scans and migration from outside.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#define MPOL_MF_MOVE_ALL 4

/* ---- swap areas ---- */

static struct {
	char path[128];
	bool on;
} areas[MAX_AREAS];
static unsigned areas_known;

int area_define(const char *path)
{
	if (areas_known == MAX_AREAS || strlen(path) >= sizeof(areas[0].path))
		return ENOSPC;
	strcpy(areas[areas_known++].path, path);
	return 0;
}

unsigned area_count(void)
{
	return areas_known;
}

bool area_is_on(unsigned area)
{
	return area < areas_known && areas[area].on;
}

/* What mkswap writes: the size in the header is what the kernel goes by, not the device's. */
static int write_header(const char *path, uint64_t npages)
{
	static union {
		char bytes[PAGE];
		struct {
			char boot[1024];
			uint32_t version, last_page, bad_pages;
		} info;
	} header;
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno;
	memset(&header, 0, sizeof(header));
	header.info.version = 1;
	header.info.last_page = (uint32_t)(npages - 1);
	memcpy(header.bytes + PAGE - 10, "SWAPSPACE2", 10);
	if (pwrite(fd, &header, PAGE, 0) != (ssize_t)PAGE || fsync(fd))
		err = errno ? errno : EIO;
	close(fd);
	return err;
}

int area_on(unsigned area, uint64_t npages, int64_t priority)
{
	int flags = priority < 0 ? 0 : SWAP_FLAG_PREFER | (int)priority;
	int err;

	if (area >= areas_known)
		return ENODEV;
	if (priority > 0x7fff || npages > UINT32_MAX)
		return EINVAL;
	err = write_header(areas[area].path, npages);
	if (err)
		return err;
	if (swapon(areas[area].path, flags))
		return errno;
	areas[area].on = true;
	return 0;
}

int area_off(unsigned area)
{
	if (!area_is_on(area))
		return EINVAL;
	if (swapoff(areas[area].path))
		return errno;
	areas[area].on = false;
	return 0;
}

void area_off_all(void)
{
	for (unsigned k = 0; k < areas_known; k++)
		area_off(k);
}

int area_used(unsigned area, uint64_t *pages)
{
	static char text[8192];
	char *line = text;
	size_t length = strlen(areas[area].path);

	if (file_read("/proc/swaps", text, sizeof(text)) <= 0)
		return EIO;
	while (line && *line) {
		char *next = strchr(line, '\n');
		unsigned long long size, used;

		if (!strncmp(line, areas[area].path, length) && line[length] <= ' ' &&
		    sscanf(line + length, " %*s %llu %llu", &size, &used) == 2) {
			*pages = used / (PAGE / 1024);
			return 0;
		}
		line = next ? next + 1 : NULL;
	}
	return ENOENT;
}

/* ---- reclaim ---- */

static char group[160];
static char group_procs[192], group_reclaim[192], group_high[192], group_limit[192], group_cpu[192];

int group_define(const char *directory)
{
	if (strlen(directory) >= sizeof(group))
		return ENAMETOOLONG;
	strcpy(group, directory);
	snprintf(group_procs, sizeof(group_procs), "%s/cgroup.procs", group);
	snprintf(group_reclaim, sizeof(group_reclaim), "%s/memory.reclaim", group);
	snprintf(group_high, sizeof(group_high), "%s/memory.high", group);
	snprintf(group_cpu, sizeof(group_cpu), "%s/cpu.stat", group);
	snprintf(group_limit, sizeof(group_limit), "%s/memory.limit_in_bytes", group);
	return access(group_procs, W_OK) ? errno : 0;
}

int group_enter(void)
{
	return *group ? file_write(group_procs, "0") : 0;
}

/*
 * What reclaim has seen of a group's pages (the balance of its costs) stays with the group, and would weigh in the next
 * scenario. So that gets a group of its own, by the same name and with the same swappiness (v1; v2 has none). One that
 * somebody is still in stays: who has been killed takes a moment to go.
 */
void group_renew(void)
{
	char path[192], swappiness[32];
	bool known;
	int tries = 0;

	if (!*group)
		return;
	snprintf(path, sizeof(path), "%s/memory.swappiness", group);
	known = file_read(path, swappiness, sizeof(swappiness)) > 0;
	while (rmdir(group)) {
		if (errno != EBUSY || ++tries == 1000)
			return;
		usleep(1000);
	}
	if (mkdir(group, 0755))
		perror(group);
	else if (known)
		file_write(path, swappiness);
}

/*
 * Reclaim goes by the sizes of the group's lists as its statistics have them, and these are brought
 * up to date every two seconds or after many changes: with few pages it may take an active list for
 * empty. Reading cpu.stat brings them up to date (all controllers', up to 6.15).
 */
static void refresh_group(void)
{
	char text[512];

	file_read(group_cpu, text, sizeof(text));
}

#define LAG_MS 2100

/* In a cgroup v1 there is no such file to read: since 5.13 one has to wait for the two seconds. */
static bool statistics_lag(void)
{
	struct utsname name;
	int major = 0, minor = 0;

	if (!access(group_cpu, R_OK) || uname(&name) ||
	    sscanf(name.release, "%d.%d", &major, &minor) != 2)
		return false;
	return major > 5 || (major == 5 && minor >= 13);
}

/*
 * Pressure once. memory.reclaim came with 5.19 and goes on until as much is free; before it the
 * limit is lowered, which reclaims on its own account, and put back.
 */
static void reclaim(uint64_t pages)
{
	char bytes[32];

	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)pages * PAGE);
	if (!access(group_reclaim, W_OK)) {
		file_write(group_reclaim, bytes);
	} else if (!access(group_high, W_OK)) {
		file_write(group_high, "0");
		file_write(group_high, "max");
	} else {
		file_write(group_limit, "4096");
		file_write(group_limit, "-1");
	}
}

static void clear_accessed_bits(void)
{
	char path[64];

	for (unsigned slot = 0; slot < MAX_PROCESSES; slot++) {
		if (process_exists(slot)) {
			snprintf(path, sizeof(path), "/proc/%d/clear_refs", process_pid(slot));
			file_write(path, "1");
		}
	}
}

static void page_out(const struct span *span)
{
	static struct answer answer;
	struct request request = {
		.op = P_MADVISE, .addr = span->addr, .npages = span->npages, .arg = MADV_PAGEOUT
	};

	process_do(span->slot, &request, &answer); /* EINVAL before 5.4: pressure does it */
}

/* Pages on their way to the device cannot be freed yet: turns in the meantime would be in vain. */
static void wait_for_writes(void)
{
	double begin = milliseconds();

	while (facts_writeback() && milliseconds() - begin < 1000)
		usleep(200);
}

/*
 * A page that another CPU has in a batch of its own, as it has those whose write it saw end, cannot
 * be freed. Whoever moves pages has all CPUs give up theirs first.
 */
static void drain_other_cpus(void)
{
	static char page[PAGE] __attribute__((aligned(PAGE)));
	void *address = page;
	int node = 0, status;

	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		syscall(SYS_move_pages, 0, 1UL, &address, &node, &status, 0);
}

int machine_swapout(const struct span *spans, unsigned named, unsigned all)
{
	uint64_t before[3] = { 0 };
	unsigned fruitless = 0;

	for (unsigned k = 0; k < named; k++)
		page_out(&spans[k]);
	/* Pressure that finds them still being written takes others in their place. */
	wait_for_writes();
	while (fruitless < 16) {
		uint64_t wanted = facts_resident(spans, named ? named : all);
		uint64_t now[3] = { facts_resident(spans, all), facts_swapcached(),
				    facts_vmstat("pswpout") };

		if (!wanted && !now[1])
			break;
		fruitless = memcmp(now, before, sizeof(now)) ? 0 : fruitless + 1;
		memcpy(before, now, sizeof(now));
		clear_accessed_bits();
		refresh_group();
		/* With pages named the others go only as they must: each turn is one call's worth. */
		reclaim(named ? 1 : now[0] + now[1]);
		wait_for_writes();
		if (fruitless) {
			drain_other_cpus();
			usleep(fruitless == 8 && statistics_lag() ? LAG_MS * 1000 : 1000);
		}
	}
	return 0;
}

/* ---- ksmd ---- */

#define NAP_MS 10
#define WHOLE_SCAN "1000000"

static pid_t ksmd;

/* 0 where it cannot be seen from here. */
static pid_t find_ksmd(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	while (proc && !found && (entry = readdir(proc))) {
		char path[300], name[32];

		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
		    file_read(path, name, sizeof(name)) > 0 && !strcmp(name, "ksmd\n"))
			found = atoi(entry->d_name);
	}
	if (proc)
		closedir(proc);
	return found;
}

/* Whether ksmd sleeps: naps between scans, or has nothing to walk. */
static bool ksmd_sleeps(void)
{
	char path[64], text[512];
	const char *state;

	if (!ksmd)
		ksmd = find_ksmd();
	snprintf(path, sizeof(path), "/proc/%d/stat", ksmd);
	if (!ksmd || file_read(path, text, sizeof(text)) <= 0)
		return true;
	state = strrchr(text, ')');
	return state && state[2] == 'S';
}

int machine_scan(uint64_t scans, uint64_t *done)
{
	const char *pages_to_scan = KSM_DIRECTORY "/pages_to_scan";
	int64_t begin = file_number(KSM_DIRECTORY "/full_scans"), seen = begin;
	int64_t patience = ksmd || find_ksmd() ? 8 * NAP_MS : 100 * NAP_MS;
	double idle_since = milliseconds();
	char kept[64] = "";

	if (begin < 0)
		return ENOENT;
	if (file_read(pages_to_scan, kept, sizeof(kept)) > 0)
		file_write(pages_to_scan, WHOLE_SCAN);
	if (scans)
		file_write(KSM_DIRECTORY "/run", "1");
	while ((uint64_t)(seen - begin) < scans) {
		int64_t now;

		usleep(300);
		now = file_number(KSM_DIRECTORY "/full_scans");
		if (now != seen || !ksmd_sleeps())
			idle_since = milliseconds();
		else if (milliseconds() - idle_since > (double)patience)
			break;
		seen = now;
	}
	file_write(KSM_DIRECTORY "/run", "0");
	*done = (uint64_t)(file_number(KSM_DIRECTORY "/full_scans") - begin);
	if (*kept)
		file_write(pages_to_scan, kept);
	return 0;
}

/* ---- migration ---- */

int machine_migrate(const struct span *span, int node, int *status)
{
	void **addresses = calloc(span->npages, sizeof(*addresses));
	int *nodes = calloc(span->npages, sizeof(*nodes));
	int err = addresses && nodes ? 0 : ENOMEM;

	for (uint64_t k = 0; !err && k < span->npages; k++) {
		addresses[k] = (void *)(span->addr + k * PAGE);
		nodes[k] = node;
		status[k] = -ENOENT;
	}
	if (!err && syscall(SYS_move_pages, process_pid(span->slot), span->npages, addresses, nodes,
			    status, MPOL_MF_MOVE_ALL) < 0)
		err = errno;
	free(addresses);
	free(nodes);
	return err;
}
