/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The options of the handshake, each with its answer; the table is at the end.
 *
 * An option whose data is malformed is refused with an error reply and may be
 * tried again; only EXPORT_NAME, which has no error reply, ends the connection.
 *
 * Source: "The NBD protocol", sections "Option types" and "Option reply types".
 */
#include <errno.h>
#include <string.h>

#include "nbd/negotiate_priv.h"
#include "nbd/protocol.h"

/* A cursor over an option's data; what does not fit sets `bad`. */
struct option_reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const uint8_t *take_bytes(struct option_reader *reader, size_t bytes)
{
    const uint8_t *at = reader->at;

    if (reader->bad || bytes > reader->left) {
        reader->bad = true;
        return NULL;
    }
    reader->at += bytes;
    reader->left -= bytes;
    return at;
}

static uint32_t take_u32(struct option_reader *reader)
{
    const uint8_t *at = take_bytes(reader, 4);

    return at ? load_be32(at) : 0;
}

static uint16_t take_u16(struct option_reader *reader)
{
    const uint8_t *at = take_bytes(reader, 2);

    return at ? load_be16(at) : 0;
}

/* A string of `bytes`: a new one, or NULL if it is none (the protocol's
 * "Conventions": no NUL in it, at most 4096 bytes, UTF-8). */
static char *take_string(struct option_reader *reader, uint32_t bytes)
{
    const uint8_t *at = take_bytes(reader, bytes);

    if (!at || bytes > LIMIT_NBD_NAME_BYTES ||
        !g_utf8_validate((const char *)at, (gssize)bytes, NULL)) {
        reader->bad = true;
        return NULL;
    }
    return g_strndup((const char *)at, bytes);
}

static struct option_reader option_reader(struct handshake *handshake)
{
    return (struct option_reader){ .at = handshake->data,
                                   .left = handshake->bytes };
}

static void append_u16(GByteArray *array, uint16_t value)
{
    uint8_t raw[2];

    store_be16(raw, value);
    g_byte_array_append(array, raw, sizeof(raw));
}

static void append_u32(GByteArray *array, uint32_t value)
{
    uint8_t raw[4];

    store_be32(raw, value);
    g_byte_array_append(array, raw, sizeof(raw));
}

static void append_u64(GByteArray *array, uint64_t value)
{
    uint8_t raw[8];

    store_be64(raw, value);
    g_byte_array_append(array, raw, sizeof(raw));
}

static void append_string(GByteArray *array, const char *string)
{
    g_byte_array_append(array, (const guint8 *)string, (guint)strlen(string));
}

/* Appends an option reply's header; `bytes` of data are to follow. */
static void begin_reply(struct handshake *handshake,
                        uint32_t type,
                        size_t bytes)
{
    append_u64(handshake->reply, NBD_OPTION_REPLY_MAGIC);
    append_u32(handshake->reply, handshake->option);
    append_u32(handshake->reply, type);
    append_u32(handshake->reply, (uint32_t)bytes);
}

static int answer_ack(struct handshake *handshake)
{
    begin_reply(handshake, NBD_REPLY_ACK, 0);
    return OPTION_ANSWERED;
}

int option_refuse(struct handshake *handshake,
                  uint32_t type,
                  const char *sentence)
{
    begin_reply(handshake, type, strlen(sentence));
    append_string(handshake->reply, sentence);
    return OPTION_ANSWERED;
}

static int answer_malformed(struct handshake *handshake)
{
    return option_refuse(handshake, NBD_REPLY_ERROR_INVALID,
                         "the data of this option is malformed");
}

static int answer_unknown_export(struct handshake *handshake, const char *name)
{
    g_autofree char *sentence =
        g_strdup_printf("there is no export named '%.256s'", name);

    return option_refuse(handshake, NBD_REPLY_ERROR_UNKNOWN, sentence);
}

static uint16_t flags_now(const struct handshake *handshake,
                          const struct nbd_offer *offer)
{
    return handshake->agreement.structured
               ? (uint16_t)(offer->flags | NBD_FLAG_SEND_DF)
               : offer->flags;
}

/* Contexts are selected for one export; with another they do not hold. */
static void settle_contexts(struct handshake *handshake, const char *name)
{
    if (!handshake->context_export ||
        strcmp(handshake->context_export, name) != 0) {
        handshake->agreement.allocation = false;
    }
}

static int co_answer_export_name(struct handshake *handshake)
{
    static const uint8_t zeroes[NBD_EXPORT_REPLY_ZEROES];
    const struct handshake *h = handshake;
    struct option_reader reader = option_reader(handshake);
    g_autofree char *name = take_string(&reader, h->bytes);
    const struct nbd_offer *offer;
    int ret;

    /* This option knows no error reply: dropping the client is the answer. */
    if (!name) {
        return -EPROTO;
    }
    offer = h->catalog->find(h->catalog->opaque, name);
    if (!offer) {
        return -ENOENT;
    }
    settle_contexts(handshake, name);
    h->catalog->claim(h->catalog->opaque, offer);
    append_u64(h->reply, offer->size_bytes);
    append_u16(h->reply, flags_now(h, offer));
    if (!h->no_zeroes) {
        g_byte_array_append(h->reply, zeroes, sizeof(zeroes));
    }
    ret = co_handshake_send(handshake);
    return ret < 0 ? ret : OPTION_FINISHED;
}

static int co_answer_abort(struct handshake *handshake)
{
    answer_ack(handshake);
    /* The client may be gone already; that is as good. */
    (void)co_handshake_send(handshake);
    return -ECONNABORTED;
}

static int answer_list(struct handshake *handshake)
{
    const struct nbd_catalog *catalog = handshake->catalog;
    const struct nbd_offer *offer = NULL;

    if (handshake->bytes != 0) {
        return answer_malformed(handshake);
    }
    while ((offer = catalog->next(catalog->opaque, offer))) {
        size_t name_bytes = strlen(offer->name);
        const char *description = offer->description ? offer->description : "";

        begin_reply(handshake, NBD_REPLY_SERVER,
                    4 + name_bytes + strlen(description));
        append_u32(handshake->reply, (uint32_t)name_bytes);
        append_string(handshake->reply, offer->name);
        append_string(handshake->reply, description);
    }
    return answer_ack(handshake);
}

static int answer_starttls(struct handshake *handshake)
{
    return option_refuse(handshake, NBD_REPLY_ERROR_POLICY,
                         "this server is not set up for TLS");
}

/* The reply of one information type; nothing if we have nothing to say. */
static void append_info(struct handshake *handshake,
                        const struct nbd_offer *offer,
                        uint16_t info)
{
    GByteArray *reply = handshake->reply;
    const char *text = info == NBD_INFO_NAME ? offer->name : offer->description;

    switch (info) {
    case NBD_INFO_EXPORT:
        begin_reply(handshake, NBD_REPLY_INFO, 12);
        append_u16(reply, info);
        append_u64(reply, offer->size_bytes);
        append_u16(reply, flags_now(handshake, offer));
        break;
    case NBD_INFO_BLOCK_SIZE:
        begin_reply(handshake, NBD_REPLY_INFO, 14);
        append_u16(reply, info);
        append_u32(reply, NBD_BLOCK_MINIMUM);
        append_u32(reply, NBD_BLOCK_PREFERRED);
        append_u32(reply, LIMIT_NBD_PAYLOAD_BYTES);
        break;
    case NBD_INFO_NAME:
    case NBD_INFO_DESCRIPTION:
        if (text) {
            begin_reply(handshake, NBD_REPLY_INFO, 2 + strlen(text));
            append_u16(reply, info);
            append_string(reply, text);
        }
        break;
    default: break; /* of a newer protocol: the client must do without */
    }
}

/* INFO and GO: the same question, but GO means it. */
static int co_answer_info(struct handshake *handshake)
{
    const struct handshake *h = handshake;
    struct option_reader reader = option_reader(handshake);
    g_autofree char *name = take_string(&reader, take_u32(&reader));
    uint16_t count = take_u16(&reader);
    const struct nbd_offer *offer;
    bool told[NBD_INFO_BLOCK_SIZE + 1] = { [NBD_INFO_EXPORT] = true };
    int ret;

    if (reader.bad || reader.left != count * (size_t)2) {
        return answer_malformed(handshake);
    }
    offer = h->catalog->find(h->catalog->opaque, name);
    if (!offer) {
        return answer_unknown_export(handshake, name);
    }
    append_info(handshake, offer, NBD_INFO_EXPORT);
    for (uint16_t i = 0; i < count; i++) {
        uint16_t info = take_u16(&reader);

        if (info < G_N_ELEMENTS(told) && !told[info]) {
            told[info] = true;
            append_info(handshake, offer, info);
        }
    }
    answer_ack(handshake);
    if (h->option == NBD_OPTION_INFO) {
        return OPTION_ANSWERED;
    }
    settle_contexts(handshake, name);
    h->catalog->claim(h->catalog->opaque, offer);
    ret = co_handshake_send(handshake);
    return ret < 0 ? ret : OPTION_FINISHED;
}

static int answer_structured_reply(struct handshake *handshake)
{
    if (handshake->bytes != 0) {
        return answer_malformed(handshake);
    }
    handshake->agreement.structured = true;
    return answer_ack(handshake);
}

/* Does any of the `count` queries that follow ask for base:allocation? In a
 * list "base:" stands for all of its name space, and no query for everything.
 * Contexts of name spaces that we do not know are no error. */
static bool queries_match(struct option_reader *reader,
                          uint32_t count,
                          bool listing)
{
    bool match = listing && count == 0;

    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        g_autofree char *query = take_string(reader, take_u32(reader));

        if (query && (strcmp(query, NBD_CONTEXT_ALLOCATION) == 0 ||
                      (listing && strcmp(query, "base:") == 0))) {
            match = true;
        }
    }
    return match;
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
static int answer_meta_context(struct handshake *handshake)
{
    bool listing = handshake->option == NBD_OPTION_LIST_META_CONTEXT;
    const struct nbd_catalog *catalog = handshake->catalog;
    struct option_reader reader = option_reader(handshake);
    g_autofree char *name = NULL;
    bool match;

    if (!listing) {
        handshake->agreement.allocation = false;
    }
    if (!handshake->agreement.structured) {
        return option_refuse(handshake, NBD_REPLY_ERROR_INVALID,
                             "negotiate structured replies first");
    }
    name = take_string(&reader, take_u32(&reader));
    match = queries_match(&reader, take_u32(&reader), listing);
    if (reader.bad || reader.left != 0) {
        return answer_malformed(handshake);
    }
    if (!catalog->find(catalog->opaque, name)) {
        return answer_unknown_export(handshake, name);
    }
    if (match) {
        begin_reply(handshake, NBD_REPLY_META_CONTEXT,
                    4 + strlen(NBD_CONTEXT_ALLOCATION));
        append_u32(handshake->reply, listing ? 0 : NBD_CONTEXT_ALLOCATION_ID);
        append_string(handshake->reply, NBD_CONTEXT_ALLOCATION);
    }
    if (!listing) {
        handshake->agreement.allocation = match;
        g_free(handshake->context_export);
        handshake->context_export = g_steal_pointer(&name);
    }
    return answer_ack(handshake);
}

static const struct option_answer option_answers[] = {
    { NBD_OPTION_EXPORT_NAME, co_answer_export_name },
    { NBD_OPTION_ABORT, co_answer_abort },
    { NBD_OPTION_LIST, answer_list },
    { NBD_OPTION_STARTTLS, answer_starttls },
    { NBD_OPTION_INFO, co_answer_info },
    { NBD_OPTION_GO, co_answer_info },
    { NBD_OPTION_STRUCTURED_REPLY, answer_structured_reply },
    { NBD_OPTION_LIST_META_CONTEXT, answer_meta_context },
    { NBD_OPTION_SET_META_CONTEXT, answer_meta_context },
};

const struct option_answer *option_answer_find(uint32_t option)
{
    for (size_t i = 0; i < G_N_ELEMENTS(option_answers); i++) {
        if (option_answers[i].option == option) {
            return &option_answers[i];
        }
    }
    return NULL;
}
