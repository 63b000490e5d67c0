/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zstd: a stream is taken apart into frames first, each then decoded in one
 * step straight into the output. Decoding it as a stream would allocate the
 * window that the frame asks for, up to 128 MiB.
 */
#define ZLIB_CONST /* zlib's input is const */

#include "drivers/qcow2/codec.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/* What QEMU reads and writes: raw deflate, window of 2^12 bytes. */
#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEMORY      9
#define ZSTD_LEVEL          3

static int inflate_raw(const uint8_t *in,
                       size_t in_bytes,
                       uint8_t *out,
                       size_t out_bytes)
{
    z_stream stream = { .next_in = in,
                        .avail_in = (uInt)in_bytes,
                        .next_out = out,
                        .avail_out = (uInt)out_bytes };
    int result;

    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
        return -ENOMEM;
    }
    result = inflate(&stream, Z_FINISH);
    (void)inflateEnd(&stream); /* cannot fail on a sound stream */
    if (result == Z_MEM_ERROR) {
        return -ENOMEM;
    }
    /* Z_BUF_ERROR with all made: the stream has no end mark there. */
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) &&
                   stream.avail_out == 0
               ? 0
               : -EIO;
}

static int decode_frames(const uint8_t *in,
                         size_t in_bytes,
                         uint8_t *out,
                         size_t out_bytes)
{
    while (out_bytes > 0) {
        size_t frame = ZSTD_findFrameCompressedSize(in, in_bytes);
        size_t made;

        if (ZSTD_isError(frame)) {
            return -EIO;
        }
        made = ZSTD_decompress(out, out_bytes, in, frame);
        if (ZSTD_isError(made)) {
            return ZSTD_getErrorCode(made) == ZSTD_error_memory_allocation
                       ? -ENOMEM
                       : -EIO;
        }
        in += frame;
        in_bytes -= frame;
        out += made;
        out_bytes -= made;
    }
    return 0;
}

int qcow2_decompress(enum qcow2_compression type,
                     const uint8_t *in,
                     size_t in_bytes,
                     uint8_t *out,
                     size_t out_bytes)
{
    return type == QCOW2_COMPRESSION_ZSTD
               ? decode_frames(in, in_bytes, out, out_bytes)
               : inflate_raw(in, in_bytes, out, out_bytes);
}

static int deflate_raw(const uint8_t *in,
                       size_t in_bytes,
                       uint8_t *out,
                       size_t out_max,
                       size_t *ret_bytes)
{
    z_stream stream = { .next_in = in,
                        .avail_in = (uInt)in_bytes,
                        .next_out = out,
                        .avail_out = (uInt)out_max };
    int result;

    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                     -DEFLATE_WINDOW_BITS, DEFLATE_MEMORY,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return -ENOMEM;
    }
    result = deflate(&stream, Z_FINISH);
    (void)deflateEnd(&stream); /* says only whether input was left */
    if (result != Z_STREAM_END) {
        return result == Z_OK || result == Z_BUF_ERROR ? -ENOSPC : -EIO;
    }
    *ret_bytes = out_max - stream.avail_out;
    return 0;
}

static int encode_frame(const uint8_t *in,
                        size_t in_bytes,
                        uint8_t *out,
                        size_t out_max,
                        size_t *ret_bytes)
{
    size_t made = ZSTD_compress(out, out_max, in, in_bytes, ZSTD_LEVEL);

    if (ZSTD_isError(made)) {
        ZSTD_ErrorCode code = ZSTD_getErrorCode(made);

        if (code == ZSTD_error_dstSize_tooSmall) {
            return -ENOSPC;
        }
        return code == ZSTD_error_memory_allocation ? -ENOMEM : -EIO;
    }
    *ret_bytes = made;
    return 0;
}

int qcow2_compress(enum qcow2_compression type,
                   const uint8_t *in,
                   size_t in_bytes,
                   uint8_t *out,
                   size_t out_max,
                   size_t *ret_bytes)
{
    return type == QCOW2_COMPRESSION_ZSTD
               ? encode_frame(in, in_bytes, out, out_max, ret_bytes)
               : deflate_raw(in, in_bytes, out, out_max, ret_bytes);
}
