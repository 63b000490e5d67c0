/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Entries have different lengths, so the table's length is known only when the
 * last one has been read. It is read in growing pieces, never more than the
 * file has or the limit allows.
 */
#include "drivers/qcow2/snapshot.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "block/driver.h"

/* "Snapshot table entry": byte offsets. */
enum {
    ENTRY_L1_OFFSET = 0,
    ENTRY_L1_COUNT = 8,
    ENTRY_ID_BYTES = 12,
    ENTRY_NAME_BYTES = 14,
    ENTRY_DATE_SECONDS = 16,
    ENTRY_DATE_NANOSECONDS = 20,
    ENTRY_GUEST_CLOCK = 24,
    ENTRY_VM_STATE_BYTES = 32,
    ENTRY_EXTRA_BYTES = 36,
    /* Extra data, from its start. */
    EXTRA_VM_STATE_BYTES = 0,
    EXTRA_SIZE = 8,
    EXTRA_INSTRUCTION_COUNT = 16,
    EXTRA_BYTES_MAX = 1024, /* a bound of ours, as large as QEMU's */
    ENTRY_ALIGNMENT = 8,
    READ_BYTES = 64 * 1024,
};

struct table_reader {
    struct block_node *file;
    const struct qcow2_header *header;
    const char *name;
    GByteArray *table; /* what has been read of it */
    uint64_t position; /* of the next entry */
};

/* Makes the table's first `end` bytes be there. */
static int co_have(struct table_reader *reader, uint64_t end, GError **err)
{
    uint64_t file_bytes = block_size(reader->file);
    uint64_t offset = reader->header->snapshots_offset;
    uint64_t have = reader->table->len;
    uint64_t wanted;
    int ret;

    if (end <= have) {
        return 0;
    }
    if (end > QCOW2_SNAPSHOT_TABLE_BYTES_MAX) {
        return error_set(err, -EFBIG,
                         "image '%s': its snapshot table is larger than the "
                         "%" G_GUINT64_FORMAT " bytes supported",
                         reader->name, QCOW2_SNAPSHOT_TABLE_BYTES_MAX);
    }
    if (!bytes_range_within(offset, end, file_bytes)) {
        return error_set(err, -EINVAL,
                         "image '%s': its snapshot table reaches behind the "
                         "end of the file",
                         reader->name);
    }
    wanted = min_u64(max_u64(end, have + READ_BYTES), file_bytes - offset);
    g_byte_array_set_size(reader->table, (guint)wanted);
    struct iovec iov = { reader->table->data + have, wanted - have };
    ret = co_block_child_preadv(reader->file, offset + have, wanted - have,
                                &iov, 1);
    if (ret < 0) {
        return error_set_errno(err, ret,
                               "image '%s': cannot read its snapshot table",
                               reader->name);
    }
    return 0;
}

static void load_extra(const struct table_reader *reader,
                       const uint8_t *extra,
                       uint32_t bytes,
                       struct qcow2_snapshot *snapshot)
{
    snapshot->size_bytes = reader->header->size_bytes;
    if (bytes >= EXTRA_VM_STATE_BYTES + 8) {
        snapshot->vm_state_bytes = load_be64(extra + EXTRA_VM_STATE_BYTES);
    }
    if (bytes >= EXTRA_SIZE + 8) {
        snapshot->size_bytes = load_be64(extra + EXTRA_SIZE);
    }
    if (bytes >= EXTRA_INSTRUCTION_COUNT + 8) {
        snapshot->instruction_count =
            load_be64(extra + EXTRA_INSTRUCTION_COUNT);
        /* All ones: was not counted. */
        snapshot->has_instruction_count =
            snapshot->instruction_count != UINT64_MAX;
    }
}

static int co_load_entry(struct table_reader *reader,
                         struct qcow2_snapshot *snapshot,
                         GError **err)
{
    uint64_t start = reader->position;
    uint64_t end = start + QCOW2_SNAPSHOT_ENTRY_BYTES;
    int ret = co_have(reader, end, err);

    if (ret < 0) {
        return ret;
    }
    const uint8_t *entry = reader->table->data + start;
    uint32_t extra_bytes = load_be32(entry + ENTRY_EXTRA_BYTES);
    uint16_t id_bytes = load_be16(entry + ENTRY_ID_BYTES);
    uint16_t name_bytes = load_be16(entry + ENTRY_NAME_BYTES);
    if (extra_bytes > EXTRA_BYTES_MAX) {
        return error_set(err, -EINVAL,
                         "image '%s': a snapshot has %" G_GUINT32_FORMAT
                         " bytes of extra data, more than the %d supported",
                         reader->name, extra_bytes, EXTRA_BYTES_MAX);
    }
    end += extra_bytes;
    ret = co_have(reader, end + id_bytes + name_bytes, err);
    if (ret < 0) {
        return ret;
    }
    entry = reader->table->data + start; /* may have got another place */
    snapshot->l1_offset = load_be64(entry + ENTRY_L1_OFFSET);
    snapshot->l1_count = load_be32(entry + ENTRY_L1_COUNT);
    snapshot->date_seconds = load_be32(entry + ENTRY_DATE_SECONDS);
    snapshot->date_nanoseconds = load_be32(entry + ENTRY_DATE_NANOSECONDS);
    snapshot->guest_clock_nanoseconds = load_be64(entry + ENTRY_GUEST_CLOCK);
    snapshot->vm_state_bytes = load_be32(entry + ENTRY_VM_STATE_BYTES);
    load_extra(reader, entry + QCOW2_SNAPSHOT_ENTRY_BYTES, extra_bytes,
               snapshot);
    const char *strings = (const char *)reader->table->data + end;
    snapshot->id = g_strndup(strings, id_bytes);
    snapshot->name = g_strndup(strings + id_bytes, name_bytes);
    reader->position = round_up(end + id_bytes + name_bytes, ENTRY_ALIGNMENT);
    return 0;
}

int co_qcow2_snapshots_load(struct block_node *file,
                            const struct qcow2_header *header,
                            const char *name,
                            struct qcow2_snapshots **ret_snapshots,
                            GError **err)
{
    struct qcow2_snapshots *snapshots = g_new0(struct qcow2_snapshots, 1);
    struct table_reader reader = {
        .file = file,
        .header = header,
        .name = name,
        .table = g_byte_array_new(),
    };
    int ret = 0;

    /* The header was checked: the count is bounded. It may still be a lie, so
     * the array grows with what is there. */
    for (uint32_t i = 0; ret == 0 && i < header->snapshot_count; i++) {
        if (is_power_of_two(i) || i == 0) {
            snapshots->snapshots =
                g_renew(struct qcow2_snapshot, snapshots->snapshots,
                        MAX(2 * (size_t)i, 2));
        }
        snapshots->snapshots[i] = (struct qcow2_snapshot){ 0 };
        ret = co_load_entry(&reader, &snapshots->snapshots[i], err);
        snapshots->count += ret == 0;
    }
    snapshots->table_bytes = reader.position;
    g_byte_array_unref(reader.table);
    if (ret < 0) {
        qcow2_snapshots_free(snapshots);
        return ret;
    }
    *ret_snapshots = snapshots;
    return 0;
}

void qcow2_snapshots_free(struct qcow2_snapshots *snapshots)
{
    if (snapshots == NULL) {
        return;
    }
    for (uint32_t i = 0; i < snapshots->count; i++) {
        g_free(snapshots->snapshots[i].id);
        g_free(snapshots->snapshots[i].name);
    }
    g_free(snapshots->snapshots);
    g_free(snapshots);
}

const struct qcow2_snapshot *qcow2_snapshot_find(
    const struct qcow2_snapshots *snapshots,
    const char *id_or_name)
{
    for (uint32_t i = 0; i < snapshots->count; i++) {
        if (strcmp(snapshots->snapshots[i].id, id_or_name) == 0) {
            return &snapshots->snapshots[i];
        }
    }
    for (uint32_t i = 0; i < snapshots->count; i++) {
        if (strcmp(snapshots->snapshots[i].name, id_or_name) == 0) {
            return &snapshots->snapshots[i];
        }
    }
    return NULL;
}

int qcow2_snapshot_check(const struct qcow2_snapshot *snapshot,
                         const struct qcow2_header *header,
                         const char *name,
                         GError **err)
{
    uint64_t cluster_bytes = UINT64_C(1) << header->cluster_bits;

    if (snapshot->size_bytes > LIMIT_DISK_BYTES ||
        snapshot->l1_count > QCOW2_L1_COUNT_MAX ||
        snapshot->l1_count < qcow2_l1_count_for(header, snapshot->size_bytes) ||
        snapshot->l1_offset == 0 || snapshot->l1_offset % cluster_bytes != 0 ||
        snapshot->l1_offset >> QCOW2_OFFSET_BITS_MAX != 0) {
        return error_set(err, -EINVAL,
                         "image '%s': snapshot '%s' cannot have a disk of "
                         "%" G_GUINT64_FORMAT " bytes with an L1 table of "
                         "%" G_GUINT32_FORMAT
                         " entries at offset %" G_GUINT64_FORMAT,
                         name, snapshot->id, snapshot->size_bytes,
                         snapshot->l1_count, snapshot->l1_offset);
    }
    return 0;
}
