/* SPDX-License-Identifier: BSD-3-Clause */
/* A temporary directory for one test: setup and teardown for cmocka, whose
 * *state is the struct. */
#ifndef TESTS_REPO_SCRATCH_H
#define TESTS_REPO_SCRATCH_H

struct scratch {
    char *path;
    int fd;
};

int scratch_setup(void **state);
int scratch_teardown(void **state);

#endif
