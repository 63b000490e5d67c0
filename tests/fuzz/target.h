/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fuzz target: what libFuzzer calls, and what replay.c calls with the corpus
 * and with random changes of it in every test run.
 *
 * A target aborts (g_assert) on a broken promise and returns 0 otherwise. It
 * keeps nothing between calls.
 */
#ifndef TESTS_FUZZ_TARGET_H
#define TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
