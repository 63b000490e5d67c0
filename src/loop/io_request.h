/* SPDX-License-Identifier: BSD-3-Clause */
/* Submitting one operation to the current loop's backend and waiting for it. */
#ifndef LOOP_IO_REQUEST_H
#define LOOP_IO_REQUEST_H

#include "loop/loop_priv.h"

struct io_waiter {
    struct io_request request; /* the caller fills in the operation */
    struct coroutine *coroutine;
};

/* Submits, yields until it is done, returns the result. */
int64_t co_io_submit(struct io_waiter *waiter);

#endif
