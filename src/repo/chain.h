/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The content of one disk at one point: its image, and below it those of the
 * points that it builds on.
 *
 * Which images these are is told by the manifests; that each image names the
 * same one as its backing file is checked. One owner at a time. Blocking.
 */
#ifndef REPO_CHAIN_H
#define REPO_CHAIN_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "repo/image.h"
#include "repo/repository.h"

/* The typedef exists for g_autoptr(chain_auto) only. */
typedef struct chain chain_auto;
struct chain;

/* `point` need not be published. NULL with err set; the sentence names the
 * point whose image is at fault. */
struct chain *chain_open(const struct repository *repository,
                         const struct manifest *point,
                         const char *node,
                         GError **err);
void chain_close(struct chain *chain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(chain_auto, chain_close)

/* What is at `offset`: IMAGE_DATA or IMAGE_ZERO, for how long, and in which
 * point's image (borrowed). */
int chain_map(struct chain *chain,
              uint64_t offset,
              uint64_t bytes,
              struct image_run *ret_run,
              const char **ret_point,
              GError **err);

/* As chain_map(), in the topmost image alone. */
int chain_map_top(struct chain *chain,
                  uint64_t offset,
                  uint64_t bytes,
                  struct image_run *ret_run,
                  GError **err);

/* Reads. `*ret_is_zero` when no image holds data there; what is in the buffer is
 * then of no meaning (filling it would cost more than all else for a large,
 * sparse disk). */
int chain_read(struct chain *chain,
               uint64_t offset,
               void *buffer,
               size_t bytes,
               bool *ret_is_zero,
               GError **err);

/* The name that an increment on top of `previous` gives its backing file; a new
 * string: "../POINT/NODE.qcow2". */
char *chain_backing_name(const struct manifest *previous, const char *node);

#endif
