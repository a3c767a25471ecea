/*
 * The protocol. A request is a line of words; numbers are decimal, addresses hexadecimal. The
 * answer is lines of words, the last of them "= ERRNO" (0: fine). Requests are carried out one
 * after the other.
 *
 *   hello                                what kernel and machine this is
 *   set PATH VALUE | get PATH            write or read a small file
 *   area PATH | group DIRECTORY          a further swap area; the memory cgroup to use
 *   calls NAME...                        count calls of these kernel functions from now on
 *   reset                                no process, no area, a group like new
 *   spawn P | fork P Q | exit P          processes by number
 *   mmap P ADDR N NODE (-1: any) | munmap P ADDR N | mremap P ADDR N TO
 *   madvise P ADDR N ADVICE | mprotect P ADDR N PROT | pin P ADDR N | unpin P ADDR N
 *   mlock P ADDR N | munlock P ADDR N
 *   write P ADDR N VALUE STEP | poke P ADDR BYTE | read P ADDR N
 *   prctl P OPTION ARG2 ARG3 ARG4 | clear_refs P WHAT | sleep MILLISECONDS
 *   migrate P ADDR N NODE
 *   swapon AREA N PRIORITY | swapoff AREA
 *   swapout NAMED (P ADDR N)...          the first NAMED spans are wanted out, 0: all
 *   ksm KEY VALUE | scan N
 *   observe (P ADDR N)...
 *   bye
 */
#include "agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SPANS 4096
#define MAX_WORDS (3 * MAX_SPANS + 8)

static char *words[MAX_WORDS];
static unsigned count;
static struct span spans[MAX_SPANS];
static struct answer answer;

static uint64_t number(unsigned at)
{
	return at < count ? strtoull(words[at], NULL, 10) : 0;
}

static uint64_t address(unsigned at)
{
	return at < count ? strtoull(words[at], NULL, 16) : 0;
}

/* Spans from word ``at`` to the end; their number. */
static unsigned read_spans(unsigned at)
{
	unsigned got = 0;

	for (; at + 2 < count && got < MAX_SPANS; at += 3)
		spans[got++] =
			(struct span){ (unsigned)number(at), address(at + 1), number(at + 2) };
	return got;
}

/* ---- one function a request; each gives an errno ---- */

static int do_hello(void)
{
	facts_hello();
	return 0;
}

static int do_set(void)
{
	return count == 3 ? file_write(words[1], words[2]) : EINVAL;
}

static int do_get(void)
{
	char text[1024];
	ssize_t got = count == 2 ? file_read(words[1], text, sizeof(text)) : -EINVAL;

	if (got < 0)
		return (int)-got;
	text[strcspn(text, "\n")] = '\0';
	say("value %s\n", text);
	return 0;
}

static int do_area(void)
{
	return count == 2 ? area_define(words[1]) : EINVAL;
}

static int do_group(void)
{
	return count == 2 ? group_define(words[1]) : EINVAL;
}

static int do_calls(void)
{
	return calls_define(words + 1, count - 1);
}

static int do_reset(void)
{
	process_kill_all();
	area_off_all();
	group_renew();
	return 0;
}

static int do_spawn(void)
{
	return process_spawn((unsigned)number(1));
}

static int do_fork(void)
{
	return process_fork((unsigned)number(1), (unsigned)number(2));
}

static int do_exit(void)
{
	return process_exit((unsigned)number(1));
}

static int in_process(enum process_op op, uint64_t arg, uint64_t arg2)
{
	struct request request = {
		.op = op, .addr = address(2), .npages = number(3), .arg = arg, .arg2 = arg2
	};

	return process_do((unsigned)number(1), &request, &answer);
}

static int do_mmap(void)
{
	return in_process(P_MMAP, (uint64_t)strtoll(count > 4 ? words[4] : "-1", NULL, 10), 0);
}

static int do_munmap(void)
{
	return in_process(P_MUNMAP, 0, 0);
}

static int do_mremap(void)
{
	return in_process(P_MREMAP, address(4), 0);
}

static int do_madvise(void)
{
	return in_process(P_MADVISE, number(4), 0);
}

static int do_mprotect(void)
{
	return in_process(P_MPROTECT, number(4), 0);
}

static int do_mlock(void)
{
	return in_process(P_MLOCK, 0, 0);
}

static int do_munlock(void)
{
	return in_process(P_MUNLOCK, 0, 0);
}

static int do_pin(void)
{
	return in_process(P_PIN, 0, 0);
}

static int do_unpin(void)
{
	return in_process(P_UNPIN, 0, 0);
}

static int do_write(void)
{
	return in_process(P_WRITE, number(4), number(5));
}

static int do_poke(void)
{
	struct request request = {
		.op = P_POKE, .addr = address(2), .npages = 1, .arg = number(3)
	};

	return process_do((unsigned)number(1), &request, &answer);
}

static int do_read(void)
{
	struct request request = { .op = P_READ, .addr = address(2) };
	uint64_t left = number(3);
	int first = 0;

	say("crc");
	for (; left && first != EOWNERDEAD; left -= request.npages) {
		int err;

		request.npages = left < READ_PAGES ? left : READ_PAGES;
		err = process_do((unsigned)number(1), &request, &answer);
		if (err && !first)
			first = err;
		for (uint64_t k = 0; k < request.npages && err != EOWNERDEAD; k++) {
			if (answer.bad[k])
				say(" -");
			else
				say(" %08x", answer.crc[k]);
		}
		request.addr += request.npages * PAGE;
	}
	say("\n");
	return first;
}

static int do_prctl(void)
{
	struct request request = { .op = P_PRCTL,
				   .addr = number(2),
				   .npages = number(3),
				   .arg = number(4),
				   .arg2 = number(5) };
	int err = process_do((unsigned)number(1), &request, &answer);

	say("value %lld\n", (long long)answer.value);
	return err;
}

static int do_clear_refs(void)
{
	char path[64];
	unsigned slot = (unsigned)number(1);

	if (count != 3 || !process_exists(slot))
		return EINVAL;
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", process_pid(slot));
	return file_write(path, words[2]);
}

static int do_sleep(void)
{
	usleep((useconds_t)number(1) * 1000);
	return 0;
}

static int do_migrate(void)
{
	struct span span = { (unsigned)number(1), address(2), number(3) };
	int *status = calloc(span.npages, sizeof(*status));
	int err = status ? machine_migrate(&span, (int)number(4), status) : ENOMEM;

	if (status) {
		say("status");
		for (uint64_t k = 0; k < span.npages; k++)
			say(" %d", status[k]);
		say("\n");
	}
	free(status);
	return err;
}

static int do_swapon(void)
{
	return area_on((unsigned)number(1), number(2),
		       strtoll(count > 3 ? words[3] : "-1", NULL, 10));
}

static int do_swapoff(void)
{
	return area_off((unsigned)number(1));
}

static int do_swapout(void)
{
	unsigned all = read_spans(2), named = (unsigned)number(1);

	return named <= all ? machine_swapout(spans, named, all) : EINVAL;
}

static int do_ksm(void)
{
	char path[256] = KSM_DIRECTORY "/";

	if (count != 3 || strchr(words[1], '/') || strlen(words[1]) > 128)
		return EINVAL;
	strcat(path, words[1]);
	return file_write(path, words[2]);
}

static int do_scan(void)
{
	uint64_t done = 0;
	int err = machine_scan(number(1), &done);

	say("scans %llu\n", (unsigned long long)done);
	return err;
}

static int do_observe(void)
{
	facts_observe(spans, read_spans(1));
	return 0;
}

static const struct {
	const char *name;
	int (*function)(void);
	bool counted; /* time and calls are said with it */
} requests[] = {
	{ "hello", do_hello, false },
	{ "set", do_set, false },
	{ "get", do_get, false },
	{ "area", do_area, false },
	{ "group", do_group, false },
	{ "calls", do_calls, false },
	{ "reset", do_reset, false },
	{ "spawn", do_spawn, false },
	{ "fork", do_fork, false },
	{ "exit", do_exit, false },
	{ "mmap", do_mmap, false },
	{ "munmap", do_munmap, false },
	{ "mremap", do_mremap, false },
	{ "madvise", do_madvise, false },
	{ "mprotect", do_mprotect, false },
	{ "mlock", do_mlock, false },
	{ "munlock", do_munlock, false },
	{ "pin", do_pin, false },
	{ "unpin", do_unpin, false },
	{ "write", do_write, false },
	{ "poke", do_poke, false },
	{ "read", do_read, false },
	{ "clear_refs", do_clear_refs, false },
	{ "sleep", do_sleep, false },
	{ "prctl", do_prctl, false },
	{ "migrate", do_migrate, true },
	{ "swapon", do_swapon, false },
	{ "swapoff", do_swapoff, true },
	{ "swapout", do_swapout, true },
	{ "ksm", do_ksm, true },
	{ "scan", do_scan, true },
	{ "observe", do_observe, false },
};

static int carry_out(void)
{
	for (unsigned k = 0; k < sizeof(requests) / sizeof(requests[0]); k++) {
		double begin = milliseconds();
		int err;

		if (strcmp(requests[k].name, words[0]))
			continue;
		if (requests[k].counted)
			calls_begin();
		err = requests[k].function();
		if (requests[k].counted) {
			say("ms %.1f\n", milliseconds() - begin);
			calls_end();
		}
		return err;
	}
	return ENOSYS;
}

void protocol_serve(void)
{
	char *line, *rest;

	process_setup();
	facts_setup();
	while ((line = link_line())) {
		count = 0;
		for (char *word = strtok_r(line, " ", &rest); word && count < MAX_WORDS;
		     word = strtok_r(NULL, " ", &rest))
			words[count++] = word;
		if (!count)
			continue;
		if (!strcmp(words[0], "bye"))
			break;
		say("= %d\n", carry_out());
		link_flush();
	}
	process_kill_all();
	area_off_all();
}
