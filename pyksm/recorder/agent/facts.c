/*
 * Raw facts for an observation, as the kernel's files have them: the recorder makes sense of them.
 * No page of a scenario is touched.
 */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PM_PRESENT (1ULL << 63)
#define PM_PFN ((1ULL << 55) - 1)
#define KPF_KSM (1ULL << 21)
#define CHUNK 256

static uint64_t zero_pfn;
static bool ksm_flag_means_ksm;
static int flags_fd = -1, counts_fd = -1;

static uint64_t page_word(int fd, uint64_t index)
{
	uint64_t word;

	return pread(fd, &word, sizeof(word), (off_t)(index * sizeof(word))) == sizeof(word) ? word
											     : 0;
}

static int open_pagemap(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/*
 * A page of our own that nobody has merged: 6.12 has the flag there too. And a page only read:
 * the zero page, which 3.10 has no flag for.
 */
void facts_setup(void)
{
	volatile char *own =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap = open_pagemap(getpid());
	uint64_t word;

	flags_fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	counts_fd = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC);
	if (own == MAP_FAILED || pagemap < 0)
		return;
	madvise((void *)own, 2 * PAGE, MADV_NOHUGEPAGE);
	own[0] = 1;
	(void)own[PAGE];
	word = page_word(pagemap, (uint64_t)own / PAGE);
	ksm_flag_means_ksm = !(page_word(flags_fd, word & PM_PFN) & KPF_KSM);
	zero_pfn = page_word(pagemap, (uint64_t)own / PAGE + 1) & PM_PFN;
	close(pagemap);
	munmap((void *)own, 2 * PAGE);
}

static void say_zones(void)
{
	static char text[65536];
	char *line = text;
	int node = -1;
	unsigned long long spanned = 0, start;

	if (file_read("/proc/zoneinfo", text, sizeof(text)) <= 0)
		return;
	while (line && *line) {
		char *next = strchr(line, '\n');

		sscanf(line, "Node %d, zone", &node);
		sscanf(line, " spanned %llu", &spanned);
		if (sscanf(line, " start_pfn: %llu", &start) == 1 && spanned)
			say("zone %d %llu %llu\n", node, start, spanned);
		line = next ? next + 1 : NULL;
	}
}

void facts_hello(void)
{
	struct utsname name;

	uname(&name);
	say("protocol %d\nrelease %s\nareas %u\n", AGENT_PROTOCOL, name.release, area_count());
	say("zero_pfn %llu\nksm_flag %d\n", (unsigned long long)zero_pfn, ksm_flag_means_ksm);
	say("page_facts %d\n", flags_fd >= 0 && counts_fd >= 0 && zero_pfn);
	say("has_ksm %d\nhas_swap %d\n", !access(KSM_DIRECTORY "/run", W_OK),
	    !access("/proc/swaps", R_OK));
	say_zones();
}

static void say_page(uint64_t word)
{
	if (word & PM_PRESENT)
		say(" %llx,%llx,%llu", (unsigned long long)word,
		    (unsigned long long)page_word(flags_fd, word & PM_PFN),
		    (unsigned long long)page_word(counts_fd, word & PM_PFN));
	else
		say(" %llx", (unsigned long long)word);
}

/* The pagemap of a span, CHUNK words at a time; zeros where it ends or cannot be read. */
static void pagemap_of(const struct span *span, void (*visit)(uint64_t word))
{
	int pagemap = open_pagemap(process_pid(span->slot));

	for (uint64_t page = 0; page < span->npages; page += CHUNK) {
		uint64_t rest = span->npages - page, size = rest < CHUNK ? rest : CHUNK;
		uint64_t words[CHUNK] = { 0 };
		off_t where = (off_t)((span->addr / PAGE + page) * 8);

		if (pagemap >= 0 && pread(pagemap, words, size * 8, where) < 0)
			memset(words, 0, sizeof(words));
		for (uint64_t k = 0; k < size; k++)
			visit(words[k]);
	}
	if (pagemap >= 0)
		close(pagemap);
}

static void pages_of(const struct span *span)
{
	say("pages %u %llx", span->slot, (unsigned long long)span->addr);
	pagemap_of(span, say_page);
	say("\n");
}

/* Where a process has mappings, and how many KSM pages in each (a number from 6.8 on). */
static void mappings_of(unsigned slot)
{
	char path[64], line[512];
	unsigned long long begin, end, kib;
	bool open_line = false;
	FILE *smaps;

	snprintf(path, sizeof(path), "/proc/%d/smaps", process_pid(slot));
	smaps = fopen(path, "re");
	while (smaps && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%llx-%llx %*s", &begin, &end) == 2 && strchr(line, '-')) {
			if (open_line)
				say("\n");
			open_line = begin >= REGIONS_BEGIN && begin < REGIONS_END;
			if (open_line)
				say("mapping %u %llx %llx", slot, begin, end);
		} else if (open_line && sscanf(line, "KSM: %llu kB", &kib) == 1) {
			say(" %llu", kib / (PAGE / 1024));
		}
	}
	if (open_line)
		say("\n");
	if (smaps)
		fclose(smaps);
}

/* 6.8 on; the agent's own mappings are as good as any. */
static bool smaps_says_ksm(void)
{
	static char text[4096];

	return file_read("/proc/self/smaps", text, sizeof(text)) > 0 && strstr(text, "\nKSM:");
}

/* Lines "name number" of a file, each said behind ``what``. */
static void numbers_of(const char *path, const char *what)
{
	char line[256], name[128];
	long long number;
	FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%127[^: \t]%*[: \t]%lld", name, &number) == 2)
			say("%s %s %lld\n", what, name, number);
	}
	if (file)
		fclose(file);
}

/* The files of KSM that nobody can write are its counts. */
static void ksm_counts(void)
{
	DIR *directory = opendir(KSM_DIRECTORY);
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		char path[300];
		struct stat status;

		snprintf(path, sizeof(path), KSM_DIRECTORY "/%s", entry->d_name);
		if (!stat(path, &status) && S_ISREG(status.st_mode) && !(status.st_mode & 0222))
			say("ksm %s %lld\n", entry->d_name, (long long)file_number(path));
	}
	if (directory)
		closedir(directory);
}

/* Counters are gathered per CPU and may lag behind; the file came with 4.7. */
static void refresh_counters(void)
{
	file_write("/proc/sys/vm/stat_refresh", "1");
}

void facts_observe(const struct span *spans, unsigned count)
{
	uint64_t used;

	refresh_counters();
	say("says_ksm_pages %d\n", smaps_says_ksm());
	for (unsigned k = 0; k < count; k++)
		pages_of(&spans[k]);
	for (unsigned slot = 0; slot < MAX_PROCESSES; slot++) {
		if (process_exists(slot)) {
			char path[64], what[32];

			mappings_of(slot);
			snprintf(path, sizeof(path), "/proc/%d/ksm_stat", process_pid(slot));
			snprintf(what, sizeof(what), "ksm_stat %u", slot);
			numbers_of(path, what);
		}
	}
	for (unsigned area = 0; area < area_count(); area++)
		if (area_is_on(area) && !area_used(area, &used))
			say("swap %u %llu\n", area, (unsigned long long)used);
	ksm_counts();
	say("swapcached %llu\n", (unsigned long long)facts_swapcached());
	numbers_of("/proc/vmstat", "vmstat");
}

static uint64_t resident;

static void count_resident(uint64_t word)
{
	resident += word & PM_PRESENT && (word & PM_PFN) != zero_pfn;
}

uint64_t facts_resident(const struct span *spans, unsigned count)
{
	resident = 0;
	for (unsigned k = 0; k < count; k++)
		pagemap_of(&spans[k], count_resident);
	return resident;
}

/* A line "name: N kB" or "name N" of a file; 0 where there is none. */
static uint64_t number_in(const char *path, const char *name)
{
	static char text[32768];
	char *line = text;
	size_t length = strlen(name);

	if (file_read(path, text, sizeof(text)) <= 0)
		return 0;
	while (line && *line) {
		char *next = strchr(line, '\n');

		if (!strncmp(line, name, length) && (line[length] == ' ' || line[length] == ':'))
			return strtoull(line + length + 1, NULL, 10);
		line = next ? next + 1 : NULL;
	}
	return 0;
}

uint64_t facts_swapcached(void)
{
	refresh_counters();
	return number_in("/proc/meminfo", "SwapCached") / (PAGE / 1024);
}

uint64_t facts_vmstat(const char *name)
{
	return number_in("/proc/vmstat", name);
}

uint64_t facts_writeback(void)
{
	refresh_counters();
	return number_in("/proc/vmstat", "nr_writeback");
}
