/* SPDX-License-Identifier: MIT */
/* Coroutines: stacks of their own, and the switch from one to another. */
#ifndef PYKSM_CONTEXT_H
#define PYKSM_CONTEXT_H

#include <stddef.h>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define CONTEXT_BY_HAND 1
#else
#include <ucontext.h>
#endif

struct context {
#ifdef CONTEXT_BY_HAND
	void *sp; /* where the registers that a callee keeps lie */
#else
	ucontext_t uc;
#endif
};

typedef void (*context_fn)(void *arg);

/* A coroutine that calls fn(arg) when it is first switched to; fn must not return. */
void context_make(struct context *c, void *stack, size_t size, context_fn fn, void *arg);
/* Leave from and go on with to. */
void context_switch(struct context *from, struct context *to);

#endif
