/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The programs that write the generated pages of docs/reference/.
 *
 *     PROGRAM          prints the page
 *     PROGRAM FILE     ends with code 1 if FILE is not what it would print
 */
#ifndef BASE_REFERENCE_PAGE_H
#define BASE_REFERENCE_PAGE_H

/* The rest of main(): returns its exit code. `recipe` is the command that makes
 * the page anew. */
int reference_page_main(int argc,
                        char **argv,
                        const char *page,
                        const char *recipe);

#endif
