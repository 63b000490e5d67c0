/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A context that does not run keeps its registers on its own stack, so all
 * that is left to remember is the stack pointer. A new context gets a stack
 * that looks as if it had been switched away from just before `entry`.
 */
#include "loop/context.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
# define WITH_ASAN 1
#elif defined(__has_feature)
# if __has_feature(address_sanitizer)
#  define WITH_ASAN 1
# endif
#endif
#if defined(__SANITIZE_THREAD__)
# define WITH_TSAN 1
#elif defined(__has_feature)
# if __has_feature(thread_sanitizer)
#  define WITH_TSAN 1
# endif
#endif

#ifdef WITH_ASAN
# include <sanitizer/asan_interface.h>
# include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
# include <sanitizer/tsan_interface.h>
#endif

/* Saves the registers, stores the stack pointer in `*save`, goes on at `load`. */
void context_switch_stacks(void **save, void *load)
    __attribute__((visibility("hidden")));

#if defined(__x86_64__)
/* It leaves with a jump: the processor predicts a `ret` from the calls it has
 * seen, and those were on the other stack. */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl context_switch_stacks\n"
        ".hidden context_switch_stacks\n"
        ".type context_switch_stacks, @function\n"
        "context_switch_stacks:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    jmpq *%rcx\n"
        ".size context_switch_stacks, . - context_switch_stacks\n");

/* r15 r14 r13 r12 rbx rbp | entry | 0: the end of every backtrace. After the
 * jump the stack pointer is 8 short of a multiple of 16, as at any function. */
# define FRAME_WORDS 8
# define FRAME_ENTRY 6

#elif defined(__aarch64__)
__asm__(".text\n"
        ".p2align 4\n"
        ".globl context_switch_stacks\n"
        ".hidden context_switch_stacks\n"
        ".type context_switch_stacks, %function\n"
        "context_switch_stacks:\n"
        "    stp x29, x30, [sp, #-160]!\n"
        "    stp x19, x20, [sp, #16]\n"
        "    stp x21, x22, [sp, #32]\n"
        "    stp x23, x24, [sp, #48]\n"
        "    stp x25, x26, [sp, #64]\n"
        "    stp x27, x28, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #16]\n"
        "    ldp x21, x22, [sp, #32]\n"
        "    ldp x23, x24, [sp, #48]\n"
        "    ldp x25, x26, [sp, #64]\n"
        "    ldp x27, x28, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    ldp x29, x30, [sp], #160\n"
        "    ret\n"
        ".size context_switch_stacks, . - context_switch_stacks\n");

/* x29 = 0 ends every backtrace; x30 is where `ret` goes. */
# define FRAME_WORDS 20
# define FRAME_ENTRY 1

#else
# error "No context switch for this processor yet: see loop/context.h."
#endif

void context_init(struct context *context,
                  void *stack_lowest,
                  size_t stack_bytes,
                  void (*entry)(void))
{
    uintptr_t *frame = (uintptr_t *)stack_lowest;

    g_assert(stack_bytes % 16 == 0);
    frame += stack_bytes / sizeof(*frame) - FRAME_WORDS;
    memset(frame, 0, FRAME_WORDS * sizeof(*frame));
    frame[FRAME_ENTRY] = (uintptr_t)entry;

    *context = (struct context){
        .stack_pointer = frame,
        .stack_lowest = stack_lowest,
        .stack_bytes = stack_bytes,
    };
#ifdef WITH_TSAN
    context->fiber = __tsan_create_fiber(0);
#endif
}

void context_release(struct context *context)
{
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(context->stack_lowest, context->stack_bytes);
#endif
#ifdef WITH_TSAN
    __tsan_destroy_fiber(context->fiber);
#endif
    context->stack_pointer = NULL;
}

static inline void before_switch(struct context *from,
                                 struct context *to,
                                 void **save_fake_stack)
{
    to->arrived_from = from;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(save_fake_stack, to->stack_lowest,
                                   to->stack_bytes);
#else
    (void)save_fake_stack;
#endif
#ifdef WITH_TSAN
    from->fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
}

/* Where the previous stack lies is what is not known of a thread's own. */
void context_entered(struct context *self)
{
#ifdef WITH_ASAN
    struct context *previous = self->arrived_from;

    __sanitizer_finish_switch_fiber(self->fake_stack, &previous->stack_lowest,
                                    &previous->stack_bytes);
#else
    (void)self;
#endif
}

void context_switch(struct context *from, struct context *to)
{
    before_switch(from, to, &from->fake_stack);
    context_switch_stacks(&from->stack_pointer, to->stack_pointer);
    context_entered(from);
}

void context_leave(struct context *from, struct context *to)
{
    before_switch(from, to, NULL);
    context_switch_stacks(&from->stack_pointer, to->stack_pointer);
    g_assert_not_reached();
}
