/* SPDX-License-Identifier: MIT */
/* Statements as tasks carry them out: of a program of ops, one after the other (pyksm_tasks.h). */
#include <stdio.h>

#include "face.h"
#include "judge.h"

/* ---- one op ---- */
/* The tables are what tasks share beside the machine. */
static int pid_of(struct pyksm *m, const struct pyksm_program *p, int32_t process)
{
	if (process < 0 || (uint32_t)process >= p->nr_pids)
		return 0;
	trace_shared(m, &p->pids[process], false);
	return p->pids[process];
}

static int area_of(struct pyksm *m, const struct pyksm_program *p, int32_t area)
{
	if (area < 0 || (uint32_t)area >= p->nr_areas)
		return -1;
	trace_shared(m, &p->areas[area], false);
	return p->areas[area];
}

static void set_pid(struct pyksm *m, struct pyksm_program *p, int32_t process, int pid)
{
	if (process < 0 || (uint32_t)process >= p->nr_pids)
		return;
	trace_shared(m, &p->pids[process], true);
	p->pids[process] = pid;
}

static void set_area(struct pyksm *m, struct pyksm_program *p, int32_t area, int type)
{
	if (area < 0 || (uint32_t)area >= p->nr_areas)
		return;
	trace_shared(m, &p->areas[area], true);
	p->areas[area] = type;
}

static int note_pid(struct pyksm *m, struct pyksm_program *p, int32_t process, int pid)
{
	if (pid > 0)
		set_pid(m, p, process, pid);
	return pid < 0 ? pid : 0;
}

static int op_exit(struct pyksm *m, struct pyksm_program *p, const struct pyksm_op *op)
{
	int err = pyksm_exit(m, pid_of(m, p, op->process));

	if (!err)
		set_pid(m, p, op->process, 0);
	return err;
}

static int op_swapon(struct pyksm *m, struct pyksm_program *p, const struct pyksm_op *op)
{
	int type = pyksm_swapon(m, op->npages, op->arg, NULL);

	if (type >= 0)
		set_area(m, p, op->area, type);
	return type < 0 ? type : 0;
}

static int op_swapoff(struct pyksm *m, struct pyksm_program *p, const struct pyksm_op *op)
{
	int err = pyksm_swapoff(m, area_of(m, p, op->area));

	if (!err)
		set_area(m, p, op->area, -1);
	return err;
}

/* Word k of a page: the contract's pattern(V), 0 for all where V is 0. */
void fill_pattern(unsigned char *page, size_t page_size, uint64_t value)
{
	for (size_t k = 0; k < page_size / sizeof(uint64_t); k++) {
		uint64_t word = value ? value * 0x9E3779B97F4A7C15u + k : 0;

		for (int i = 0; i < 8; i++)
			page[k * 8 + (size_t)i] = (unsigned char)(word >> 8 * i);
	}
}

static int op_write(struct pyksm *m, const struct pyksm_program *p, const struct pyksm_op *op)
{
	unsigned char page[PAGE_SIZE];
	int first = 0;

	for (uint64_t i = 0; i < op->npages; i++) {
		int32_t status = 0;
		int err;

		fill_pattern(page, m->page_size, op->value + (op->arg ? i : 0));
		err = pyksm_write_pages(m, pid_of(m, p, op->process), op->addr + (i << PAGE_SHIFT),
					1, page, &status);
		if (op->status)
			op->status[i] = err;
		first = first ? first : err;
	}
	return first;
}

static int op_read(struct pyksm *m, const struct pyksm_program *p, const struct pyksm_op *op)
{
	unsigned char page[PAGE_SIZE];
	int first = 0;

	for (uint64_t i = 0; i < op->npages; i++) {
		int32_t status = 0;
		unsigned char *to = op->data ? op->data + i * m->page_size : page;
		int err = pyksm_read_pages(m, pid_of(m, p, op->process),
					   op->addr + (i << PAGE_SHIFT), 1, to, &status);

		if (op->status)
			op->status[i] = err;
		first = first ? first : err;
	}
	return first;
}

static int op_swapout(struct pyksm *m, const struct pyksm_program *p, const struct pyksm_op *op)
{
	struct pyksm_range range = { pid_of(m, p, op->process), 0, op->addr, op->npages };

	return pyksm_swapout(m, &range, op->npages ? 1 : 0);
}

static int op_scan(struct pyksm *m, struct pyksm_op *op)
{
	int scans = op->value > INT32_MAX ? -EINVAL : pyksm_ksm_scan(m, (uint32_t)op->value);

	op->ret = scans > 0 ? scans : 0;
	return scans < 0 ? scans : 0;
}

static int carry_out(struct pyksm *m, struct pyksm_program *p, struct pyksm_op *op)
{
	int pid = pid_of(m, p, op->process);

	switch (op->kind) {
	case PYKSM_OP_SPAWN:
		return note_pid(m, p, op->process, pyksm_spawn(m));
	case PYKSM_OP_MMAP: {
		int64_t addr = pyksm_mmap(m, pid, op->addr, op->npages, op->arg);

		return addr < 0 ? (int)addr : 0;
	}
	case PYKSM_OP_WRITE:
		return op_write(m, p, op);
	case PYKSM_OP_POKE: {
		unsigned char byte = (unsigned char)op->value;

		return pyksm_write(m, pid, op->addr + op->to, &byte, 1);
	}
	case PYKSM_OP_READ:
		return op_read(m, p, op);
	case PYKSM_OP_FORK:
		return note_pid(m, p, op->child, pyksm_fork(m, pid));
	case PYKSM_OP_EXIT:
		return op_exit(m, p, op);
	case PYKSM_OP_MUNMAP:
		return pyksm_munmap(m, pid, op->addr, op->npages);
	case PYKSM_OP_MREMAP:
		return pyksm_mremap(m, pid, op->addr, op->npages, op->to);
	case PYKSM_OP_MADVISE:
		return pyksm_madvise(m, pid, op->addr, op->npages, op->arg);
	case PYKSM_OP_MPROTECT:
		return pyksm_mprotect(m, pid, op->addr, op->npages, op->arg);
	case PYKSM_OP_MLOCK:
		return pyksm_mlock(m, pid, op->addr, op->npages);
	case PYKSM_OP_MUNLOCK:
		return pyksm_munlock(m, pid, op->addr, op->npages);
	case PYKSM_OP_MIGRATE:
		return pyksm_migrate(m, pid, op->addr, op->npages, op->arg, op->status);
	case PYKSM_OP_PIN:
		return op->arg ? pyksm_pin_user_pages(m, pid, op->addr, op->npages)
			       : pyksm_pin(m, pid, op->addr, op->npages);
	case PYKSM_OP_UNPIN:
		return pyksm_unpin(m, pid, op->addr, op->npages);
	case PYKSM_OP_SWAPON:
		return op_swapon(m, p, op);
	case PYKSM_OP_SWAPOFF:
		return op_swapoff(m, p, op);
	case PYKSM_OP_SWAPOUT:
		return op_swapout(m, p, op);
	case PYKSM_OP_KSM:
		return pyksm_ksm_write(m, op->key, (int64_t)op->value);
	case PYKSM_OP_SCAN:
		return op_scan(m, op);
	case PYKSM_OP_PRCTL:
		return pyksm_prctl_memory_merge(m, pid, op->arg);
	case PYKSM_OP_CLEAR_REFS:
		return pyksm_clear_refs(m, pid, op->arg);
	case PYKSM_OP_SLEEP:
		return pyksm_sleep(m, (int64_t)op->value);
	case PYKSM_OP_INJECT:
		return pyksm_inject(m, op->arg, op->value);
	default:
		return -EINVAL;
	}
}

void op_run(struct pyksm *m, struct pyksm_program *p, struct pyksm_op *op)
{
	int type = area_of(m, p, op->area);

	op->err = 1;
	op->ret = 0;
	op->begin = m->sched ? m->sched->steps : 0;
	op->key[PYKSM_OP_KEY - 1] = '\0';
	if (p->judge)
		judge_begin(p->judge, m, p, op);
	op->err = carry_out(m, p, op);
	op->end = m->sched ? m->sched->steps : 0;
	if (p->judge && op->kind == PYKSM_OP_SWAPOFF)
		judge_swapoff_ended(p->judge, m, op, type);
	if (p->judge)
		judge_end(p->judge, m, p, op);
}

int pyksm_run_op(struct pyksm *m, struct pyksm_program *program, struct pyksm_op *op)
{
	if (!m || !program || !op)
		return -EINVAL;
	op_run(m, program, op);
	return op->err;
}

/* ---- tasks that follow a schedule ---- */
struct follow {
	struct pyksm_program *program;
	struct pyksm_task *tasks;
	const struct pyksm_segment *segment;
	uint32_t nr_segments, at, op[MAX_TASKS];
	uint32_t passed; /* how often the point of this piece has been come to */
	bool begun; /* this piece has */
	struct pyksm_outcome *out;
};

static void run_ops(struct pyksm *m, int task, void *arg)
{
	struct follow *f = arg;

	for (uint32_t i = 0; i < f->tasks[task].nr; i++) {
		f->op[task] = i;
		if (i)
			sched_point(m, PT_TASK_NEXT_OP);
		op_run(m, f->program, &f->tasks[task].ops[i]);
	}
}

/* Is this where the piece that is being followed ends? Where it begins does not count. */
static bool piece_ends(struct follow *f, const struct sched *s)
{
	const struct pyksm_segment *piece = &f->segment[f->at];
	const struct task *t = &s->task[piece->task];
	bool first = !f->begun;

	f->begun = true;
	if (first || !piece->count)
		return false;
	if (piece->point >= 0 && (t->done || (int)t->point != piece->point))
		return false;
	return ++f->passed == piece->count;
}

static int misfit(struct follow *f, struct sched *s, const char *why)
{
	const struct pyksm_segment *piece = &f->segment[f->at];

	snprintf(s->text, PYKSM_TEXT, "piece %u of the schedule: task %d %s", f->at + 1,
		 piece->task, why);
	return -1;
}

/* One of them by lot: xorshift64*, Marsaglia's with Vigna's multiplier. */
int draw(uint64_t *state, uint32_t enabled)
{
	uint32_t left;

	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	left = (uint32_t)(*state * 0x2545F4914F6CDD1Du >> 33) %
	       (uint32_t)__builtin_popcount(enabled);
	while (left--)
		enabled &= enabled - 1;
	return __builtin_ctz(enabled);
}

/* The task of the piece under way; when all are over the current one, else the lowest that can. */
static int follow(void *arg, struct sched *s, uint32_t enabled)
{
	struct follow *f = arg;

	while (f->at < f->nr_segments) {
		const struct pyksm_segment *piece = &f->segment[f->at];
		const struct task *t = &s->task[piece->task];
		bool can = enabled >> piece->task & 1;

		if (!piece_ends(f, s)) {
			if (can)
				return piece->task;
			if (piece->count)
				return misfit(f, s,
					      t->done ? "has ended before that"
						      : "has to wait before that");
		}
		f->at++;
		f->passed = 0;
		f->begun = false;
	}
	if (f->out->seed)
		return draw(&f->out->seed, enabled);
	if (s->current != NO_TASK && enabled >> s->current & 1)
		return s->current;
	return __builtin_ctz(enabled);
}

static int choose_and_note(void *arg, struct sched *s, uint32_t enabled)
{
	struct follow *f = arg;
	int next = follow(arg, s, enabled);

	if (next >= 0)
		record_choice(f->out, s, next, enabled, f->op[next]);
	return next;
}

static void note_step(void *arg, struct sched *s, int task)
{
	const struct follow *f = arg;

	(void)task;
	record_step(f->out, s, f->program);
}

static int check_schedule(const struct pyksm_segment *schedule, uint32_t nr_segments, uint32_t nr)
{
	for (uint32_t i = 0; i < nr_segments; i++)
		if (schedule[i].task < 0 || (uint32_t)schedule[i].task >= nr ||
		    schedule[i].point < -1 || schedule[i].point >= NR_POINTS)
			return -EINVAL;
	return 0;
}

int pyksm_run_tasks(struct pyksm *m, struct pyksm_program *program, struct pyksm_task *tasks,
		    uint32_t nr, const struct pyksm_segment *schedule, uint32_t nr_segments,
		    struct pyksm_outcome *out)
{
	struct follow f = { program, tasks, schedule, nr_segments, 0, { 0 }, 0, false, out };
	struct sched *s;
	int err = 0;

	if (!m || !program || !out || !nr || nr > MAX_TASKS || !tasks || m->sched)
		return -EINVAL;
	err = check_schedule(schedule, nr_segments, nr);
	if (err || m->dead)
		return err ? err : -EIO;
	s = sched_new(m);
	if (!s)
		return -ENOMEM;
	s->choose = choose_and_note;
	s->choose_arg = &f;
	s->stepped = note_step;
	if (out->max_steps)
		s->max_steps = out->max_steps;
	for (uint32_t i = 0; i < nr && !err; i++) {
		for (uint32_t k = 0; k < tasks[i].nr; k++)
			tasks[i].ops[k].err = 1;
		err = sched_add(s, run_ops, &f);
	}
	if (!err) {
		record_begin(out, m, program);
		sched_run(s);
		record_end(out, s);
		out->end = (int32_t)s->end;
		out->steps = s->steps;
		out->preemptions = s->preemptions;
		memcpy(out->text, s->text, PYKSM_TEXT);
	}
	/* Tasks that did not end have locks, references and memory that nobody gives back. */
	if (!err && s->end != PYKSM_END_DONE)
		m->dead = true;
	sched_free(s);
	return err;
}

int pyksm_nr_task_points(void)
{
	return NR_POINTS;
}

const char *pyksm_task_point_name(int index)
{
	return index >= 0 && index < NR_POINTS ? point_name((enum sched_point)index) : NULL;
}

#define BUG_NAME(name) name,
static const char *const bug_names[] = { PYKSM_BUGS(BUG_NAME) };
#undef BUG_NAME

int pyksm_nr_bugs(void)
{
	return NR_BUGS;
}

const char *pyksm_bug_name(int index)
{
	return index >= 0 && index < NR_BUGS ? bug_names[index] : NULL;
}
