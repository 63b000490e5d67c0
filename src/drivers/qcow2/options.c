/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/options.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/drivers.h"

#define L2_CACHE_BYTES       (32 * MIB)
#define L2_SLICE_BYTES       (4 * KIB)
#define REFCOUNT_CACHE_BYTES (4 * MIB)
#define L2_SLICE_BYTES_MIN   512

static const char *const overlap_check_words[] = { "constant", "cached", NULL };

static const struct schema_type overlap_check_type = {
    .kind = SCHEMA_ENUM,
    .name = "Qcow2OverlapCheckMode",
    .doc = "What writes are kept away from. Both mean the same here: all "
           "metadata in use, which is known without asking the file.",
    .values = overlap_check_words,
};

static const struct schema_member members[] = {
    { .name = "file",
      .type = &blockdev_ref_type,
      .doc = "Where the image is.",
      .required = true },
    { .name = "backing",
      .type = &blockdev_ref_or_null_type,
      .doc = "What the image does not hold is read from here; null: is zero.",
      .fallback = "what the image names" },
    { .name = "data-file",
      .type = &blockdev_ref_type,
      .doc = "The external data file, for an image that has one.",
      .fallback = "what the image names" },
    { .name = "lazy-refcounts",
      .type = &schema_bool,
      .doc = "Taken as in QEMU (version 3 images only), and without effect: "
             "refcounts are written in batches, and always in time.",
      .fallback = "what the image says" },
    { .name = "pass-discard-request",
      .type = &schema_bool,
      .doc = "Does what a guest discards give space back in the file?",
      .fallback = "true if discard=unmap" },
    { .name = "pass-discard-other",
      .type = &schema_bool,
      .doc = "... and what becomes free otherwise?",
      .fallback = "false" },
    { .name = "discard-no-unref",
      .type = &schema_bool,
      .doc = "Discarded clusters keep their place in the file.",
      .fallback = "false" },
    { .name = "overlap-check",
      .type = &overlap_check_type,
      .fallback = "cached" },
    { .name = "cache-size",
      .type = &schema_size,
      .doc = "Bytes for both caches below together." },
    { .name = "l2-cache-size",
      .type = &schema_size,
      .doc = "Bytes at most for L2 tables in memory.",
      .fallback = "32 MiB" },
    { .name = "l2-cache-entry-size",
      .type = &schema_size,
      .doc = "How much of an L2 table is read and written at a time: a power "
             "of two from 512 to the cluster size.",
      .fallback = "4 KiB, or a smaller cluster" },
    { .name = "refcount-cache-size",
      .type = &schema_size,
      .doc = "Bytes at most for refcount blocks in memory.",
      .fallback = "4 MiB" },
    { .name = "x-cohort-snapshot",
      .type = &schema_string,
      .doc = "Show this internal snapshot (its id, or else its name) instead "
             "of the active state. Needs read-only." },
    { .name = NULL },
};

const struct schema_type driver_qcow2_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsQcow2",
    .members = members,
};

/* Two of the three sizes settle the third; one alone settles one cache. */
static int read_cache_sizes(const struct json_value *options,
                            const char *name,
                            struct qcow2_options *ret,
                            GError **err)
{
    bool has_total = json_dict_get(options, "cache-size") != NULL;
    bool has_l2 = json_dict_get(options, "l2-cache-size") != NULL;
    bool has_refcount = json_dict_get(options, "refcount-cache-size") != NULL;
    uint64_t total = json_dict_uint(options, "cache-size", 0);
    uint64_t l2 = json_dict_uint(options, "l2-cache-size", L2_CACHE_BYTES);
    uint64_t refcount =
        json_dict_uint(options, "refcount-cache-size", REFCOUNT_CACHE_BYTES);

    if (has_total && has_l2 && has_refcount) {
        return error_set(err, -EINVAL,
                         "node '%s': of 'cache-size', 'l2-cache-size' and "
                         "'refcount-cache-size' only two can be given",
                         name);
    }
    if (has_total &&
        ((has_l2 && l2 > total) || (has_refcount && refcount > total))) {
        return error_set(err, -EINVAL,
                         "node '%s': one cache cannot be larger than the "
                         "'cache-size' of %" G_GUINT64_FORMAT " bytes",
                         name, total);
    }
    if (has_total && has_refcount) {
        l2 = total - refcount;
    } else if (has_total && has_l2) {
        refcount = total - l2;
    } else if (has_total) {
        refcount = min_u64(refcount, total / 8);
        l2 = total - refcount;
    }
    ret->l2_cache_bytes = l2;
    ret->refcount_cache_bytes = refcount;
    return 0;
}

static int read_slice_size(const struct json_value *options,
                           const struct qcow2_header *header,
                           const char *name,
                           struct qcow2_options *ret,
                           GError **err)
{
    uint64_t cluster_bytes = UINT64_C(1) << header->cluster_bits;
    uint64_t bytes = json_dict_uint(options, "l2-cache-entry-size",
                                    min_u64(L2_SLICE_BYTES, cluster_bytes));

    if (!is_power_of_two(bytes) || bytes < L2_SLICE_BYTES_MIN ||
        bytes > cluster_bytes) {
        return error_set(err, -EINVAL,
                         "node '%s': 'l2-cache-entry-size' is a power of two "
                         "from %d to the cluster size, %" G_GUINT64_FORMAT
                         ", not %" G_GUINT64_FORMAT,
                         name, L2_SLICE_BYTES_MIN, cluster_bytes, bytes);
    }
    ret->l2_slice_bytes = (uint32_t)bytes;
    return 0;
}

int qcow2_options_read(const struct json_value *options,
                       const struct qcow2_header *header,
                       const char *name,
                       struct qcow2_options *ret_options,
                       GError **err)
{
    const char *discard = json_dict_string(options, "discard", "ignore");
    int ret;

    if (json_dict_bool(options, "lazy-refcounts", false) &&
        header->version < 3) {
        return error_set(err, -EINVAL,
                         "node '%s': 'lazy-refcounts' needs an image of "
                         "version 3, this one has %u",
                         name, header->version);
    }
    ret_options->pass_discard_request = json_dict_bool(
        options, "pass-discard-request", strcmp(discard, "unmap") == 0);
    ret_options->pass_discard_other =
        json_dict_bool(options, "pass-discard-other", false);
    ret_options->discard_no_unref =
        json_dict_bool(options, "discard-no-unref", false);
    ret_options->snapshot =
        json_dict_string(options, "x-cohort-snapshot", NULL);
    ret = read_cache_sizes(options, name, ret_options, err);
    return ret < 0 ? ret
                   : read_slice_size(options, header, name, ret_options, err);
}
