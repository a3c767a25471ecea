/*
 * How often kernel functions are called: kprobe events count their hits even with tracing off.
 * Functions that the kernel does not have, or has inlined, are left out.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CALLS 64
#define NAME_SIZE 64
#define GROUP "pyksm"

static struct {
	char name[NAME_SIZE];
	long long before, hits;
} calls[MAX_CALLS];
static unsigned known;
static const char *tracing;

static int find_tracing(void)
{
	if (!access("/sys/kernel/tracing/kprobe_events", W_OK))
		tracing = "/sys/kernel/tracing";
	else if (!access("/sys/kernel/debug/tracing/kprobe_events", W_OK))
		tracing = "/sys/kernel/debug/tracing";
	return tracing ? 0 : ENOENT;
}

static int in_tracing(const char *name, const char *text, int flags)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", tracing, name);
	return file_write_as(path, text, flags);
}

int calls_define(char *const *names, unsigned count)
{
	char text[2 * NAME_SIZE + 32];

	if (find_tracing())
		return ENOENT;
	known = 0;
	for (unsigned k = 0; k < count && known < MAX_CALLS; k++) {
		if (strlen(names[k]) >= NAME_SIZE)
			continue;
		snprintf(text, sizeof(text), "p:" GROUP "/%s %s\n", names[k], names[k]);
		if (!in_tracing("kprobe_events", text, O_WRONLY | O_APPEND)) {
			strcpy(calls[known].name, names[k]);
			calls[known++].before = 0;
		}
	}
	in_tracing("tracing_on", "0", O_WRONLY);
	return known ? in_tracing("events/" GROUP "/enable", "1", O_WRONLY) : ENOENT;
}

static void read_hits(void)
{
	char path[128], line[256], name[NAME_SIZE];
	long long hits;
	FILE *file;

	snprintf(path, sizeof(path), "%s/kprobe_profile", tracing);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %lld", name, &hits) != 2)
			continue;
		for (unsigned k = 0; k < known; k++)
			if (!strcmp(calls[k].name, name))
				calls[k].hits = hits;
	}
	if (file)
		fclose(file);
}

void calls_begin(void)
{
	if (!known)
		return;
	read_hits();
	for (unsigned k = 0; k < known; k++)
		calls[k].before = calls[k].hits;
}

void calls_end(void)
{
	if (!known)
		return;
	read_hits();
	say("counted\n");
	for (unsigned k = 0; k < known; k++)
		if (calls[k].hits != calls[k].before)
			say("calls %s %lld\n", calls[k].name, calls[k].hits - calls[k].before);
}
