/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/bytes.h"
#include "qcow2/world.h"

uint64_t oracle_stamp(unsigned int sector, unsigned int version)
{
    return ((uint64_t)(sector + 1) << 32) | version;
}

void oracle_fill(uint8_t *bytes, unsigned int sector, unsigned int version)
{
    for (unsigned int at = 0; at < SECTOR_BYTES; at += 8) {
        store_le64(bytes + at, oracle_stamp(sector, version));
    }
}

static bool base_has(const struct world *world, unsigned int sector)
{
    return world->shape.has_base && sector < world->shape.base_sectors;
}

static bool base_may_show(const struct world *world,
                          unsigned int sector,
                          uint64_t stamp)
{
    return base_has(world, sector) && stamp == oracle_stamp(sector, 0);
}

/* May the sector hold `version`? */
static bool version_allows(const struct world *world,
                           unsigned int sector,
                           unsigned int version,
                           uint64_t stamp)
{
    if (version == 0) {
        return base_has(world, sector) ? base_may_show(world, sector, stamp)
                                       : stamp == 0;
    }
    switch ((enum content)world->sectors[sector].contents->data[version]) {
    case CONTENT_ZERO: return stamp == 0;
    case CONTENT_DISCARDED:
        return stamp == 0 || base_may_show(world, sector, stamp) ||
               version_allows(world, sector, version - 1, stamp);
    case CONTENT_STAMP: break;
    }
    return stamp == oracle_stamp(sector, version);
}

unsigned int oracle_find(const struct world *world,
                         unsigned int sector,
                         unsigned int least,
                         unsigned int most,
                         const uint8_t *bytes)
{
    uint64_t stamp = load_le64(bytes);

    for (unsigned int at = 8; at < SECTOR_BYTES; at += 8) {
        if (load_le64(bytes + at) != stamp) {
            return ORACLE_NONE; /* a sector is never torn */
        }
    }
    for (unsigned int version = least; version <= most; version++) {
        if (version_allows(world, sector, version, stamp)) {
            return version;
        }
    }
    return ORACLE_NONE;
}
