/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Integers from outside: byte order, checked arithmetic, rounding.
 *
 * Wire and disk formats are read and written through these, never by casting
 * a struct onto bytes. Pointers need no alignment.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

#define BYTES_DEFINE(bits, order)                                       \
 static inline uint##bits##_t load_##order##bits(const void *from)      \
 {                                                                      \
  uint##bits##_t raw;                                                   \
  memcpy(&raw, from, sizeof(raw));                                      \
  return order##bits##toh(raw);                                         \
 }                                                                      \
 static inline void store_##order##bits(void *to, uint##bits##_t value) \
 {                                                                      \
  uint##bits##_t raw = hto##order##bits(value);                         \
  memcpy(to, &raw, sizeof(raw));                                        \
 }

BYTES_DEFINE(16, be)
BYTES_DEFINE(32, be)
BYTES_DEFINE(64, be)
BYTES_DEFINE(16, le)
BYTES_DEFINE(32, le)
BYTES_DEFINE(64, le)
#undef BYTES_DEFINE

/* Does [offset, offset + bytes) lie within [0, size)? Safe for any input. */
static inline bool bytes_range_within(uint64_t offset,
                                      uint64_t bytes,
                                      uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

static inline bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* `alignment` is a power of two; the caller has ruled out overflow. */
static inline uint64_t round_down(uint64_t value, uint64_t alignment)
{
    return value & ~(alignment - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t alignment)
{
    return round_down(value + alignment - 1, alignment);
}

static inline uint64_t divide_round_up(uint64_t value, uint64_t divisor)
{
    return value / divisor + (value % divisor != 0);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
