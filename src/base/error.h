/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Errors for people: one GError domain whose codes are QMP's error classes.
 *
 * A function that fails returns a negative errno and, where a person or a
 * client will read it, fills a GError with one sentence: what failed, on what,
 * why. Callers add context with g_prefix_error(); whoever ends the error's
 * journey reports it, once. `err` may always be NULL.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <glib.h>

#define COHORT_ERROR error_quark()

/* QMP's error classes; see error_class_name(). */
enum error_class {
    ERROR_GENERIC,
    ERROR_COMMAND_NOT_FOUND,
    ERROR_DEVICE_NOT_FOUND,
    ERROR_DEVICE_NOT_ACTIVE,
};

GQuark error_quark(void);

/* The wire name of an error's class; "GenericError" for a foreign domain. */
const char *error_class_name(const GError *err);

/* Sets `err` to the sentence, class GenericError. Returns `code`, a negative
 * errno, so that `return error_set(err, -EINVAL, "...")` reads well. */
int error_set(GError **err, int code, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* As error_set(), and appends ": " and the text of errno `-code`. */
int error_set_errno(GError **err, int code, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* As error_set(), with a class of its own. */
int error_set_class(GError **err,
                    int code,
                    enum error_class class,
                    const char *format,
                    ...) G_GNUC_PRINTF(4, 5);

#endif
