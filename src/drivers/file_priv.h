/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state of a `file` or `host_device` node, shared by src/drivers/file_*.c.
 * Home thread of the node, but for what runs on the offload pool (said there).
 */
#ifndef DRIVERS_FILE_PRIV_H
#define DRIVERS_FILE_PRIV_H

#include "drivers/drivers.h"
#include "loop/co_lock.h"
#include "loop/inline_writer.h"
#include "loop/offload.h"

/* Cached reads up to this size are done inline if they can be. */
#define FILE_INLINE_READ_BYTES (256 * KIB)

/* file_state.writes when it is opened: what was there before us counts as not
 * durable. */
#define FILE_WRITES_AT_OPEN 1

/* An answer about an extent that still holds. */
struct file_extent {
    uint64_t offset;
    uint64_t end;
    unsigned int status;
};

/* Sequential reading, and how far the kernel has been told of it. */
struct file_ahead {
    uint64_t next;    /* where the stream goes on */
    uint64_t run;     /* bytes read in sequence so far */
    uint64_t horizon; /* asked for up to here */
    uint64_t asked_offset;
    bool under_way;
};

/* What has been written since the kernel was last told to begin with it. */
struct file_behind {
    uint64_t start; /* lowest offset ... */
    uint64_t end;   /* ... and highest end */
    uint64_t bytes;
    uint64_t sent_start;
    uint64_t sent_bytes;
    bool under_way;
};

struct file_state {
    struct block_node *node; /* that this is the state of */
    int fd;
    char *filename; /* owned */
    uint64_t size_bytes;
    bool is_device;
    bool direct;
    bool writable;
    bool locks;             /* not locking=off */
    unsigned int claims[2]; /* of formats on it, by enum block_claim */
    uint32_t offset_alignment_bytes;
    uint32_t memory_alignment_bytes;
    struct offload_pool *threads; /* owned; NULL: a file that will not hang */
    struct inline_writer inline_writer;
    bool no_zero_range; /* the file system has refused it */
    bool no_punch_hole;
    bool flush_failed;         /* for good */
    uint64_t writes;           /* how many, to know what a flush covers */
    uint64_t writes_flushed;   /* ... of which durable */
    struct file_extent extent; /* cached; empty: none */
    struct file_ahead ahead;
    struct file_behind behind;
    unsigned int background_calls;
    struct co_queue background_ended;
};

/* file_lock.c. All run on the offload pool. Takes the locks that tell other
 * processes what we do with the image. */
int file_lock_take(int fd,
                   const char *filename,
                   bool writable,
                   bool required,
                   GError **err);
/* All of them, before closing: a descriptor's locks live on for as long as anything
 * has the open file, be it a request of io_uring that is not put away yet. */
void file_lock_release(int fd);
/* For a reader: nobody else may write to it from now on; nobody does. */
int file_lock_begin_unwritten(int fd, const char *filename, GError **err);
void file_lock_end_unwritten(int fd);
/* May the file get another size now? Refused while somebody else relies on it,
 * reader or writer; if not, tells others until file_lock_end_resize(). */
int file_lock_begin_resize(int fd, const char *filename, GError **err);
void file_lock_end_resize(int fd);

/* file_probe.c, offload pool: what O_DIRECT on `fd` asks for. */
int file_probe_direct(int fd,
                      bool is_device,
                      uint32_t *ret_offset_alignment_bytes,
                      uint32_t *ret_memory_alignment_bytes);

/* file_call.c: what waits, by io_uring or on the file's own threads. Results as
 * of the functions of loop/io.h. */
ssize_t co_file_transfer(struct file_state *state,
                         bool is_write,
                         uint64_t offset,
                         const struct iovec *iov,
                         int iov_count,
                         int rw_flags);
int co_file_sync(struct file_state *state);
int co_file_reserve(struct file_state *state,
                    int mode,
                    uint64_t offset,
                    uint64_t bytes);
/* As co_offload(), on the file's own threads if it has some. */
int co_file_call(struct file_state *state,
                 int (*call)(void *opaque),
                 void *opaque);

/* file_background.c: runs `call(state)` on the offload pool; `*under_way` is
 * true (it must be false before) until it has ended. */
void file_background_start(struct file_state *state,
                           int (*call)(void *opaque),
                           bool *under_way);
/* Waits for all of them. */
void co_file_background_finish(struct file_state *state);

/* file_ahead.c: a cached read has taken place or is about to. */
void file_ahead_note(struct file_state *state, uint64_t offset, uint64_t bytes);

/* file_cache.c, see block_driver.co_forget_cache. */
int co_file_forget_cache(struct block_node *node);

/* file_behind.c: a cached write that will be flushed soon has taken place. */
void file_behind_note(struct file_state *state,
                      uint64_t offset,
                      uint64_t bytes);

/* file_io.c */
int file_try_read(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  const struct iovec *iov,
                  int iov_count);
int file_try_write(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   const struct iovec *iov,
                   int iov_count);
int co_file_read(struct block_node *node,
                 uint64_t offset,
                 uint64_t bytes,
                 const struct iovec *iov,
                 int iov_count);
int co_file_write(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  const struct iovec *iov,
                  int iov_count,
                  unsigned int flags);
int co_file_flush(struct block_node *node);
/* file_copy.c */
int co_file_copy_in(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    int fd,
                    uint64_t file_offset);
int file_try_map(struct block_node *node,
                 uint64_t offset,
                 uint64_t bytes,
                 int *ret_fd,
                 uint64_t *ret_file_offset);
/* Whatever changes content calls this before and after. */
void file_note_change(struct file_state *state);

/* file_space.c */
int co_file_write_zeroes(struct block_node *node,
                         uint64_t offset,
                         uint64_t bytes,
                         unsigned int flags);
int co_file_discard(struct block_node *node, uint64_t offset, uint64_t bytes);
int co_file_status(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   struct block_extent *ret);
int co_file_claim(struct block_node *node,
                  enum block_claim claim,
                  bool begin,
                  GError **err);
int co_file_truncate(struct block_node *node,
                     uint64_t size_bytes,
                     bool shrink,
                     GError **err);
void co_file_info(struct block_node *node, struct json_value *image);

#endif
