/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one source of chance: everything a run does follows from its seed.
 *
 * The generator is xorshift64* (G. Marsaglia, "Xorshift RNGs", 2003; S. Vigna,
 * "An experimental exploration of Marsaglia's xorshift generators, scrambled",
 * 2016): fast, and good enough to choose with.
 */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state; /* never 0 */
};

/* Neighbouring seeds give unrelated sequences. */
static inline void random_init(struct random *random, uint64_t seed)
{
    uint64_t mixed = seed + UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    mixed ^= mixed >> 31;
    random->state = mixed != 0 ? mixed : 1;
}

static inline uint64_t random_next(struct random *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * UINT64_C(0x2545f4914f6cdd1d);
}

/* From 0 to `bound` - 1; `bound` > 0. */
static inline uint64_t random_below(struct random *random, uint64_t bound)
{
    return (random_next(random) >> 11) % bound;
}

/* From `least` to `most`, both included. */
static inline uint64_t random_between(struct random *random,
                                      uint64_t least,
                                      uint64_t most)
{
    return least + random_below(random, most - least + 1);
}

/* True once in `one_in` times. */
static inline bool random_once_in(struct random *random, uint64_t one_in)
{
    return random_below(random, one_in) == 0;
}

static inline bool random_percent(struct random *random, unsigned int percent)
{
    return random_below(random, 100) < percent;
}

#endif
