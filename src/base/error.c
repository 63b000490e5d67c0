/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/error.h"

G_DEFINE_QUARK(cohort - error, error)

const char *error_class_name(const GError *err)
{
    static const char *const names[] = {
        [ERROR_GENERIC] = "GenericError",
        [ERROR_COMMAND_NOT_FOUND] = "CommandNotFound",
        [ERROR_DEVICE_NOT_FOUND] = "DeviceNotFound",
        [ERROR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
    };

    if (err->domain != COHORT_ERROR) {
        return names[ERROR_GENERIC];
    }
    return names[err->code];
}

static void G_GNUC_PRINTF(3, 0) set_sentence(GError **err,
                                             enum error_class class,
                                             const char *format,
                                             va_list arguments)
{
    if (err != NULL) {
        *err = g_error_new_valist(COHORT_ERROR, (int)class, format, arguments);
    }
}

int error_set(GError **err, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    set_sentence(err, ERROR_GENERIC, format, arguments);
    va_end(arguments);
    return code;
}

int error_set_errno(GError **err, int code, const char *format, ...)
{
    va_list arguments;

    if (err != NULL) {
        va_start(arguments, format);
        g_autofree char *sentence = g_strdup_vprintf(format, arguments);
        va_end(arguments);
        g_set_error(err, COHORT_ERROR, ERROR_GENERIC, "%s: %s", sentence,
                    g_strerror(-code));
    }
    return code;
}

int error_set_class(GError **err,
                    int code,
                    enum error_class class,
                    const char *format,
                    ...)
{
    va_list arguments;

    va_start(arguments, format);
    set_sentence(err, class, format, arguments);
    va_end(arguments);
    return code;
}
