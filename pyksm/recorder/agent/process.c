/*
 * The processes of a scenario. Each waits at its own socket for requests of the server; the
 * sockets are made before the first process, so that nothing has to be passed around on a fork.
 * All are children of the server (CLONE_PARENT), whoever they were forked from, and every one
 * locks the little memory that the agent itself needs, so that reclaim takes the scenario's only.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MPOL_BIND
#define MPOL_BIND 2
#endif

#define GOLDEN 0x9E3779B97F4A7C15ULL
#define MAX_PINS 1024
#define NO_NODE UINT64_MAX

static struct {
	int server, own;
} sockets[MAX_PROCESSES];
static pid_t pids[MAX_PROCESSES]; /* 0: no such process */

/* ---- in the process ---- */

static sigjmp_buf no_access;
static volatile int access_error;
static uint32_t crc_table[256];
static struct answer reply;
static bool no_huge_pages; /* already, for the whole process (3.15 on) */
static struct {
	uint64_t addr;
	int ends[2];
} pins[MAX_PINS];

static void cannot_access(int signal)
{
	access_error = signal == SIGBUS ? EIO : EFAULT;
	siglongjmp(no_access, 1);
}

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

static void lock(uint64_t begin, uint64_t size)
{
	mlock((void *)begin, size);
}

static void never_merge(uint64_t begin, uint64_t size)
{
	madvise((void *)begin, size, MADV_UNMERGEABLE);
}

/* For all that is mapped outside the regions: the program, its data, heap and stack. */
static void with_own_memory(void (*visit)(uint64_t begin, uint64_t size))
{
	static char maps[8192];
	char *line = maps;

	if (file_read("/proc/self/maps", maps, sizeof(maps)) <= 0)
		return;
	while (line && *line) {
		char *next = strchr(line, '\n');
		uint64_t begin = strtoull(line, &line, 16);
		uint64_t end = strtoull(line + 1, NULL, 16);

		if ((end <= REGIONS_BEGIN || begin >= REGIONS_END) && begin < 1ULL << 47)
			visit(begin, end - begin);
		line = next ? next + 1 : NULL;
	}
}

/* pattern(value + k): all zeros for 0 itself, not for a sum that wraps. */
static void write_page(uint64_t *page, uint64_t value, uint64_t k)
{
	uint64_t word = (value + k) * GOLDEN;
	bool zeros = !value && !k;

	for (unsigned at = 0; at < PAGE / 8; at++)
		((volatile uint64_t *)page)[at] = zeros ? 0 : word + at;
}

static uint32_t crc_page(const uint8_t *page)
{
	uint32_t crc = UINT32_MAX;

	for (unsigned k = 0; k < PAGE; k++)
		crc = crc_table[(crc ^ ((const volatile uint8_t *)page)[k]) & 255] ^ crc >> 8;
	return ~crc;
}

static void make_crc_table(void)
{
	for (uint32_t k = 0; k < 256; k++) {
		uint32_t value = k;
		for (int bit = 0; bit < 8; bit++)
			value = value & 1 ? value >> 1 ^ 0xEDB88320u : value >> 1;
		crc_table[k] = value;
	}
}

/* One page read, written or poked; an errno where it cannot be accessed. */
static int touch(const struct request *request, uint64_t k)
{
	uint64_t addr = request->addr + k * PAGE;

	if (sigsetjmp(no_access, 1))
		return access_error;
	if (request->op == P_WRITE)
		write_page((uint64_t *)addr, request->arg, request->arg2 ? k : 0);
	else if (request->op == P_POKE)
		*(volatile uint8_t *)addr = (uint8_t)request->arg;
	else
		reply.crc[k] = crc_page((const uint8_t *)addr);
	return 0;
}

static int touch_all(const struct request *request)
{
	int first = 0;

	for (uint64_t k = 0; k < request->npages; k++) {
		int err = touch(request, k);
		if (request->op == P_READ)
			reply.bad[k] = err != 0;
		if (err && !first)
			first = err;
	}
	return first;
}

static int map(const struct request *request)
{
	void *addr = (void *)request->addr;
	size_t size = request->npages * PAGE;
	void *got = mmap(addr, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (got == MAP_FAILED)
		return errno;
	if (!no_huge_pages)
		madvise(addr, size, MADV_NOHUGEPAGE);
	if (request->arg != NO_NODE) {
		unsigned long mask[16] = { 0 };
		mask[request->arg / 64 % 16] = 1UL << request->arg % 64;
		if (syscall(SYS_mbind, addr, size, MPOL_BIND, mask, sizeof(mask) * 8, 0)) {
			int err = errno;
			munmap(addr, size);
			return err;
		}
	}
	return 0;
}

/* A pipe for each page: so that any one of them can be let go. */
static int pin_page(uint64_t addr)
{
	struct iovec page = { .iov_base = (void *)addr, .iov_len = PAGE };
	unsigned k = 0;

	while (k < MAX_PINS && pins[k].addr)
		k++;
	if (k == MAX_PINS)
		return ENOMEM;
	if (pipe2(pins[k].ends, O_CLOEXEC))
		return errno;
	if (vmsplice(pins[k].ends[1], &page, 1, SPLICE_F_NONBLOCK) != (ssize_t)PAGE) {
		int err = errno;
		close(pins[k].ends[0]);
		close(pins[k].ends[1]);
		return err;
	}
	pins[k].addr = addr;
	return 0;
}

static bool is_pinned(uint64_t addr)
{
	for (unsigned k = 0; k < MAX_PINS; k++)
		if (pins[k].addr == addr)
			return true;
	return false;
}

static int unpin_page(uint64_t addr)
{
	for (unsigned k = MAX_PINS; k-- > 0;) {
		if (pins[k].addr == addr) {
			pins[k].addr = 0;
			close(pins[k].ends[0]);
			close(pins[k].ends[1]);
			return 0;
		}
	}
	return EINVAL;
}

/* All or none: what was pinned before one fails is let go again. */
static int pin_all(const struct request *request)
{
	for (uint64_t k = 0; k < request->npages; k++) {
		int err = pin_page(request->addr + k * PAGE);
		if (err) {
			while (k-- > 0)
				unpin_page(request->addr + k * PAGE);
			return err;
		}
	}
	return 0;
}

/* All or none, as the model has it. */
static int unpin_all(const struct request *request)
{
	for (uint64_t k = 0; k < request->npages; k++)
		if (!is_pinned(request->addr + k * PAGE))
			return EINVAL;
	for (uint64_t k = 0; k < request->npages; k++)
		unpin_page(request->addr + k * PAGE);
	return 0;
}

static int call(const struct request *request)
{
	void *addr = (void *)request->addr;
	size_t size = request->npages * PAGE;
	int failed = 0;

	switch (request->op) {
	case P_MUNMAP:
		failed = munmap(addr, size);
		break;
	case P_MREMAP:
		failed = mremap(addr, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
				(void *)request->arg) == MAP_FAILED;
		break;
	case P_MADVISE:
		failed = madvise(addr, size, (int)request->arg);
		break;
	case P_MPROTECT:
		failed = mprotect(addr, size, (int)request->arg);
		break;
	case P_MLOCK:
		failed = mlock(addr, size);
		break;
	case P_MUNLOCK:
		failed = munlock(addr, size);
		break;
	case P_PRCTL:
		failed = prctl((int)request->addr, request->npages, request->arg, request->arg2, 0);
		reply.value = failed;
		failed = failed < 0;
		if (!failed && request->addr == PR_SET_MEMORY_MERGE && request->npages)
			with_own_memory(never_merge); /* the scenario's memory is meant */
		break;
	default:
		return EINVAL;
	}
	return failed ? errno : 0;
}

/* The child goes on as the process of slot ``arg``. */
static bool fork_here(const struct request *request, unsigned *slot)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);

	if (pid) {
		reply.err = pid < 0 ? errno : 0;
		reply.value = pid;
		return true;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	*slot = (unsigned)request->arg;
	for (unsigned k = 0; k < MAX_PINS; k++) {
		if (pins[k].addr) { /* pins are the parent's alone */
			pins[k].addr = 0;
			close(pins[k].ends[0]);
			close(pins[k].ends[1]);
		}
	}
	with_own_memory(lock);
	reply.err = 0;
	return true; /* its first message says that it is there */
}

static bool carry_out(const struct request *request, unsigned *slot)
{
	switch (request->op) {
	case P_EXIT:
		_exit(0);
	case P_FORK:
		return fork_here(request, slot);
	case P_MMAP:
		reply.err = map(request);
		break;
	case P_WRITE:
	case P_POKE:
	case P_READ:
		reply.err = touch_all(request);
		break;
	case P_PIN:
		reply.err = pin_all(request);
		break;
	case P_UNPIN:
		reply.err = unpin_all(request);
		break;
	default:
		reply.err = call(request);
		break;
	}
	return true;
}

static void listen_to_server(unsigned slot)
{
	struct request request;

	for (;;) {
		if (send(sockets[slot].own, &reply, sizeof(reply), 0) < 0)
			_exit(1);
		if (recv(sockets[slot].own, &request, sizeof(request), 0) != sizeof(request))
			_exit(1);
		carry_out(&request, &slot);
	}
}

static void live(unsigned slot)
{
	struct sigaction action = { .sa_handler = cannot_access };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	no_huge_pages = !prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	make_crc_table();
	reply.err = group_enter();
	with_own_memory(lock);
	listen_to_server(slot);
}

/* ---- in the server ---- */

void process_setup(void)
{
	struct rlimit files = { 4096, 4096 };

	setrlimit(RLIMIT_NOFILE, &files);
	for (unsigned k = 0; k < MAX_PROCESSES; k++) {
		int pair[2];
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
			abort();
		sockets[k].server = pair[0];
		sockets[k].own = pair[1];
	}
}

bool process_exists(unsigned slot)
{
	return slot < MAX_PROCESSES && pids[slot] > 0;
}

pid_t process_pid(unsigned slot)
{
	return process_exists(slot) ? pids[slot] : 0;
}

static void drain(unsigned slot)
{
	static struct answer old;

	while (recv(sockets[slot].server, &old, sizeof(old), MSG_DONTWAIT) > 0)
		;
	while (recv(sockets[slot].own, &old, sizeof(old), MSG_DONTWAIT) > 0)
		;
}

/* Waits for a message; EOWNERDEAD where the process ended instead (the OOM killer's, say). */
static int hear(unsigned slot, struct answer *answer)
{
	struct pollfd ready = { .fd = sockets[slot].server, .events = POLLIN };

	for (;;) {
		if (poll(&ready, 1, 50) > 0) {
			if (recv(sockets[slot].server, answer, sizeof(*answer), 0) ==
			    sizeof(*answer))
				return 0;
			return EIO;
		}
		if (pids[slot] > 0 && waitpid(pids[slot], NULL, WNOHANG) == pids[slot]) {
			pids[slot] = 0;
			drain(slot);
			return EOWNERDEAD;
		}
	}
}

int process_spawn(unsigned slot)
{
	static struct answer answer;
	pid_t pid;
	int err;

	if (slot >= MAX_PROCESSES || pids[slot])
		return EMFILE;
	pid = fork();
	if (pid < 0)
		return errno;
	if (pid == 0)
		live(slot);
	pids[slot] = pid;
	err = hear(slot, &answer);
	return err ? err : answer.err;
}

int process_do(unsigned slot, const struct request *request, struct answer *answer)
{
	int err;

	if (!process_exists(slot))
		return EOWNERDEAD;
	if (send(sockets[slot].server, request, sizeof(*request), 0) < 0)
		return errno;
	err = hear(slot, answer);
	return err ? err : answer->err;
}

int process_fork(unsigned slot, unsigned child)
{
	static struct answer answer;
	struct request request = { .op = P_FORK, .arg = child };
	int err;

	if (child >= MAX_PROCESSES || pids[child])
		return EMFILE;
	err = process_do(slot, &request, &answer);
	if (err)
		return err;
	pids[child] = (pid_t)answer.value;
	err = hear(child, &answer);
	return err ? err : answer.err;
}

int process_exit(unsigned slot)
{
	struct request request = { .op = P_EXIT };

	if (!process_exists(slot))
		return EOWNERDEAD;
	if (send(sockets[slot].server, &request, sizeof(request), 0) < 0)
		return errno;
	waitpid(pids[slot], NULL, 0);
	pids[slot] = 0;
	drain(slot);
	return 0;
}

void process_kill_all(void)
{
	for (unsigned k = 0; k < MAX_PROCESSES; k++)
		if (pids[k] > 0)
			kill(pids[k], SIGKILL);
	for (unsigned k = 0; k < MAX_PROCESSES; k++) {
		if (pids[k] > 0)
			waitpid(pids[k], NULL, 0);
		pids[k] = 0;
		drain(k);
	}
}
