/*
 * The agent: a small static program that does a scenario's work in the kernel at hand.
 *
 * One server process speaks with the recorder (protocol.c); each process of a scenario is a child
 * of it (process.c) that holds the memory in question and does what only its owner can do. The
 * agent knows nothing of scenarios: names, errors of a scenario's own making and the numbering of
 * frames and slots are the recorder's, which is Python.
 */
#ifndef PYKSM_AGENT_H
#define PYKSM_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define AGENT_PROTOCOL 1
#define PAGE 4096u
#define MAX_PROCESSES 256
#define MAX_AREAS 32

/* The addresses of scenarios' regions; whatever lies outside is the agent's own. */
#define REGIONS_BEGIN (4ULL << 30)
#define REGIONS_END (1ULL << 46)

/* ---- process.c: what the owner of memory does ---- */

enum process_op {
	P_MMAP,
	P_MUNMAP,
	P_MREMAP,
	P_MADVISE,
	P_MPROTECT,
	P_MLOCK,
	P_MUNLOCK,
	P_WRITE,
	P_POKE,
	P_READ,
	P_PIN,
	P_UNPIN,
	P_FORK,
	P_EXIT,
	P_PRCTL,
};

/* Pages that one read request may ask for: the answer is one message. */
#define READ_PAGES 512

struct request {
	enum process_op op;
	uint64_t addr, npages, arg, arg2;
};

struct answer {
	int err; /* an errno, 0: fine; of several pages the first */
	int64_t value;
	uint32_t crc[READ_PAGES];
	uint8_t bad[READ_PAGES];
};

bool process_exists(unsigned slot);
pid_t process_pid(unsigned slot);
int process_spawn(unsigned slot);
int process_fork(unsigned slot, unsigned child);
int process_exit(unsigned slot);
/* Has that process carry out a request; an errno where there is none or it died of it. */
int process_do(unsigned slot, const struct request *request, struct answer *answer);
void process_kill_all(void);
void process_setup(void);

/* ---- machine.c: what the whole machine does ---- */

struct span {
	unsigned slot;
	uint64_t addr, npages;
};

int area_define(const char *path);
int area_on(unsigned area, uint64_t npages, int64_t priority);
int area_off(unsigned area);
void area_off_all(void);
int area_used(unsigned area, uint64_t *pages);
unsigned area_count(void);
bool area_is_on(unsigned area);

int group_define(const char *directory);
int group_enter(void);
void group_renew(void);
/* Reclaims until none of the named spans (all, where ``named`` is 0) nor the swap cache is left. */
int machine_swapout(const struct span *spans, unsigned named, unsigned all);
/* Lets ksmd do that many full scans; ``done`` says how many ended. */
int machine_scan(uint64_t scans, uint64_t *done);
int machine_migrate(const struct span *span, int node, int *status);

/* ---- facts.c: what can be seen without touching a page ---- */

#define KSM_DIRECTORY "/sys/kernel/mm/ksm"

void facts_setup(void);
void facts_hello(void);
void facts_observe(const struct span *spans, unsigned count);
uint64_t facts_resident(const struct span *spans, unsigned count);
uint64_t facts_swapcached(void);
uint64_t facts_vmstat(const char *name);
uint64_t facts_writeback(void);

/* ---- calls.c: how often kernel functions are called ---- */

int calls_define(char *const *names, unsigned count);
void calls_begin(void);
void calls_end(void);

/* ---- link.c: lines to and from the recorder ---- */

void link_setup(int in, int out);
/* The next line without its end; NULL where the recorder has gone. */
char *link_line(void);
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
void link_flush(void);

/* ---- files.c ---- */

/* The whole of a small file, a NUL behind it; a negative errno where it cannot be read. */
ssize_t file_read(const char *path, char *buffer, size_t size);
int file_write(const char *path, const char *text);
int file_write_as(const char *path, const char *text, int flags); /* those of open(2) */
int64_t file_number(const char *path);
double milliseconds(void);

/* ---- guest.c: being init of a booted guest ---- */

int guest_setup(void);
__attribute__((noreturn)) void guest_end(void);

/* ---- protocol.c ---- */

void protocol_serve(void);

#endif
