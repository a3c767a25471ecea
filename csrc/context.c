/* SPDX-License-Identifier: MIT */
/*
 * By hand on x86-64, because ucontext asks the kernel for the signal mask at each switch; there it is six
 * registers. Elsewhere, and where AddressSanitizer has to be told of stacks, by ucontext.
 */
#include <stdint.h>

#include "context.h"

#ifdef CONTEXT_BY_HAND
void pyksm_context_swap(void **from, void *to);
void pyksm_context_begin(void);

/* What the psABI has a callee keep; then the other stack. begin finds fn in r12 and its argument in r13. */
__asm__(".text\n"
	".hidden pyksm_context_swap\n"
	".globl pyksm_context_swap\n"
	".type pyksm_context_swap, @function\n"
	"pyksm_context_swap:\n"
	"	endbr64\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size pyksm_context_swap, .-pyksm_context_swap\n"
	".hidden pyksm_context_begin\n"
	".globl pyksm_context_begin\n"
	".type pyksm_context_begin, @function\n"
	"pyksm_context_begin:\n"
	"	endbr64\n"
	"	movq %r13, %rdi\n"
	"	callq *%r12\n"
	"	ud2\n"
	".size pyksm_context_begin, .-pyksm_context_begin\n");

void context_make(struct context *c, void *stack, size_t size, context_fn fn, void *arg)
{
	uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
	uintptr_t *sp =
		(uintptr_t *)top - 9; /* begin finds the stack aligned, two words below top */

	sp[0] = sp[1] = 0; /* r15, r14 */
	sp[2] = (uintptr_t)arg;
	sp[3] = (uintptr_t)fn;
	sp[4] = sp[5] = 0; /* rbx, rbp */
	sp[6] = (uintptr_t)pyksm_context_begin;
	sp[7] = sp[8] = 0;
	c->sp = sp;
}

void context_switch(struct context *from, struct context *to)
{
	pyksm_context_swap(&from->sp, to->sp);
}

#else
static void begin(unsigned int fn_high, unsigned int fn_low, unsigned int arg_high,
		  unsigned int arg_low)
{
	context_fn fn = (context_fn)((uintptr_t)fn_high << 32 | fn_low);

	fn((void *)((uintptr_t)arg_high << 32 | arg_low));
}

void context_make(struct context *c, void *stack, size_t size, context_fn fn, void *arg)
{
	uint64_t f = (uintptr_t)fn, a = (uintptr_t)arg;

	getcontext(&c->uc);
	c->uc.uc_stack.ss_sp = stack;
	c->uc.uc_stack.ss_size = size;
	c->uc.uc_link = NULL;
	makecontext(&c->uc, (void (*)(void))begin, 4, (unsigned int)(f >> 32), (unsigned int)f,
		    (unsigned int)(a >> 32), (unsigned int)a);
}

void context_switch(struct context *from, struct context *to)
{
	swapcontext(&from->uc, &to->uc);
}
#endif
