/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/version.h"

#include "base/json.h"

struct json_value *qmp_version_info(void)
{
    struct json_value *info = json_dict_new();
    struct json_value *qemu = json_dict_new();

    json_dict_set_int(qemu, "micro", QMP_QEMU_MICRO);
    json_dict_set_int(qemu, "minor", QMP_QEMU_MINOR);
    json_dict_set_int(qemu, "major", QMP_QEMU_MAJOR);
    json_dict_set(info, "qemu", qemu);
    json_dict_set_string(info, "package", QMP_PACKAGE);
    return info;
}
