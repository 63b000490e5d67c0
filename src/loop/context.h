/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Execution contexts: a stack and where to go on with it.
 *
 * A switch saves the registers that the calling convention preserves, changes
 * the stack pointer and returns on the other stack: no system call. (x86-64:
 * System V ABI 1.0, section 3.2.1; AArch64: AAPCS64, section 6.1. The floating
 * point control words stay as they are: nothing here changes them.) Address-
 * and ThreadSanitizer are told of each switch.
 *
 * A context runs on one thread at a time; the caller sees to that.
 */
#ifndef LOOP_CONTEXT_H
#define LOOP_CONTEXT_H

#include <stddef.h>

struct context {
    void *stack_pointer; /* while it does not run */
    /* Who switched here last. */
    struct context *arrived_from;
    /* For the sanitizers. */
    const void *stack_lowest;
    size_t stack_bytes;
    void *fake_stack;
    void *fiber;
};

/* Prepares a context that begins with `entry`, which must first call
 * context_entered() and must not return. `stack_lowest` is borrowed. */
void context_init(struct context *context,
                  void *stack_lowest,
                  size_t stack_bytes,
                  void (*entry)(void));
/* Its stack may then be unmapped or used anew. */
void context_release(struct context *context);

/* Goes on in `to`; returns when someone switches back to `from`, which needs no
 * context_init() when it is the thread's own stack. */
void context_switch(struct context *from, struct context *to);
void context_entered(struct context *self);
/* As context_switch(), for good. */
void context_leave(struct context *from, struct context *to)
    __attribute__((noreturn));

#endif
