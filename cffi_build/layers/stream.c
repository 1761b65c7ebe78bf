/* The blob, read, hashed and inflated. What form it has is told by its first bytes and not by the media type, as the
 * peers do: the digests of both sides of the decompression are checked anyway.
 *
 * Threaded, a ring of blocks lies between the thread that inflates and the one that takes the tar apart, which also
 * hashes the tar: so both have about as much to do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "layer.h"

enum { IN_SIZE = 256 * 1024, BLOCK = 256 * 1024, BLOCKS = 4, WINDOW_LOG_MOST = 27 };
enum form { PLAIN, GZIP, ZSTD };

struct stream {
    const struct limits *limits;
    int fd;
    bool hash_blob, threaded, started, border, ended;
    enum form form;
    atomic_ullong in;
    uint64_t out, taken;
    struct inflate_state *gz;
    ZSTD_DStream *zs;
    struct sha256_ctx blob, tar;
    size_t at, have; /* in `input` */
    uint8_t *input, *blocks;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t filled, freed;
    size_t length[BLOCKS];
    unsigned head, tail; /* blocks filled, blocks given back */
    bool lent;
};

/* Reads more; false at the end. Only what is used up goes. */
static bool refill(struct stream *s) {
    if (s->at > 0) {
        memmove(s->input, s->input + s->at, s->have - s->at);
        s->have -= s->at;
        s->at = 0;
    }
    ssize_t n;
    do
        n = read(s->fd, s->input + s->have, IN_SIZE - s->have);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        fail(errno, NULL, "reading the blob");
    if (n == 0)
        return false;
    if (s->hash_blob)
        sha256_update(&s->blob, (size_t)n, s->input + s->have);
    s->have += (size_t)n;
    s->in += (unsigned long long)n;
    if (s->in > s->limits->size)
        fail(EFBIG, NULL, "the blob is longer than the %llu bytes that its descriptor says",
             (unsigned long long)s->limits->size);
    return true;
}

static bool is_gzip(const uint8_t *p, size_t n) { return n >= 2 && p[0] == 0x1f && p[1] == 0x8b; }

static bool is_zstd(const uint8_t *p, size_t n) {
    return n >= 4 && ((p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd) ||
                      ((p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18));
}

static void begin(struct stream *s) {
    s->started = true;
    while (s->have < 4 && refill(s))
        ;
    if (is_gzip(s->input, s->have)) {
        s->form = GZIP;
        s->gz = malloc(sizeof *s->gz);
        if (!s->gz)
            fail(ENOMEM, NULL, "inflate");
        isal_inflate_init(s->gz);
    } else if (is_zstd(s->input, s->have)) {
        s->form = ZSTD;
        s->zs = ZSTD_createDStream();
        if (!s->zs || ZSTD_isError(ZSTD_DCtx_setParameter(s->zs, ZSTD_d_windowLogMax, WINDOW_LOG_MOST)))
            fail(ENOMEM, NULL, "zstd");
    }
    s->border = true;
}

/* One call of isal; false when a member has ended. */
static bool inflate_some(struct stream *s, uint8_t *out, size_t room, size_t *made) {
    s->gz->next_in = s->input + s->at;
    s->gz->avail_in = (uint32_t)(s->have - s->at);
    s->gz->next_out = out;
    s->gz->avail_out = (uint32_t)room;
    int r = isal_inflate(s->gz);
    if (r < 0)
        fail(EBADMSG, NULL, "the gzip stream is damaged (%s)", r == ISAL_INCORRECT_CHECKSUM ? "wrong checksum" : "inflate");
    s->at = s->have - s->gz->avail_in;
    *made = room - s->gz->avail_out;
    return s->gz->block_state != ISAL_BLOCK_FINISH;
}

static bool unzstd_some(struct stream *s, uint8_t *out, size_t room, size_t *made) {
    ZSTD_inBuffer in = {s->input, s->have, s->at};
    ZSTD_outBuffer to = {out, room, 0};
    size_t r = ZSTD_decompressStream(s->zs, &to, &in);
    if (ZSTD_isError(r))
        fail(EBADMSG, NULL, "the zstd stream is damaged (%s)", ZSTD_getErrorName(r));
    s->at = in.pos;
    *made = to.pos;
    return r != 0;
}

/* A stream may be several members, or frames, one after the other, and nothing else. */
static void begin_member(struct stream *s) {
    while (s->have - s->at < 4 && refill(s))
        ;
    const uint8_t *p = s->input + s->at;
    size_t n = s->have - s->at;
    if (n == 0) {
        s->ended = true;
    } else if (s->form == GZIP) {
        if (!is_gzip(p, n))
            fail(EBADMSG, NULL, "the gzip stream is followed by something else");
        isal_inflate_reset(s->gz);
        s->gz->crc_flag = ISAL_GZIP;
    } else if (!is_zstd(p, n)) {
        fail(EBADMSG, NULL, "the zstd stream is followed by something else");
    }
    s->border = false;
}

static size_t copy_some(struct stream *s, uint8_t *out, size_t room) {
    if (s->at == s->have && !refill(s)) {
        s->ended = true;
        return 0;
    }
    size_t n = s->have - s->at < room ? s->have - s->at : room;
    memcpy(out, s->input + s->at, n);
    s->at += n;
    return n;
}

/* Fills a block as far as there is something. A decoder that has all of the input may still hold output. */
static size_t fill(struct stream *s, uint8_t *out, size_t room) {
    size_t done = 0;
    if (!s->started)
        begin(s);
    while (done < room && !s->ended) {
        size_t made = 0;
        if (s->form == PLAIN) {
            made = copy_some(s, out + done, room - done);
        } else {
            if (s->border)
                begin_member(s);
            if (s->ended)
                break;
            bool more = s->at < s->have || refill(s);
            s->border = !(s->form == GZIP ? inflate_some : unzstd_some)(s, out + done, room - done, &made);
            if (!more && !s->border && made == 0)
                fail(EBADMSG, NULL, "the %s stream is cut short", s->form == GZIP ? "gzip" : "zstd");
        }
        done += made;
        s->out += made;
        if (s->out > s->limits->bytes)
            fail(EFBIG, NULL, "the layer is larger than %llu bytes, the limit", (unsigned long long)s->limits->bytes);
        if (s->out > s->limits->ratio_after && s->out / s->limits->ratio > s->in)
            fail(EFBIG, NULL, "the layer is more than %llu times as large as its blob, the limit",
                 (unsigned long long)s->limits->ratio);
    }
    return done;
}

static void *run_reader(void *argument) {
    struct stream *s = argument;
    for (size_t n = 1; n > 0;) {
        pthread_mutex_lock(&s->lock);
        while (s->head - s->tail == BLOCKS)
            pthread_cond_wait(&s->freed, &s->lock);
        unsigned slot = s->head % BLOCKS;
        pthread_mutex_unlock(&s->lock);
        n = fill(s, s->blocks + (size_t)slot * BLOCK, BLOCK);
        pthread_mutex_lock(&s->lock);
        s->length[slot] = n;
        s->head++;
        pthread_cond_signal(&s->filled);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

struct stream *stream_open(int fd, const struct limits *limits, bool hash_blob, bool threaded) {
    struct stream *s = calloc(1, sizeof *s);
    if (!s || !(s->input = malloc(IN_SIZE)) || !(s->blocks = malloc((size_t)(threaded ? BLOCKS : 1) * BLOCK)))
        fail(ENOMEM, NULL, "buffers");
    s->fd = fd;
    s->limits = limits;
    s->hash_blob = hash_blob;
    s->threaded = threaded;
    sha256_init(&s->blob);
    sha256_init(&s->tar);
    if (threaded) {
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->filled, NULL);
        pthread_cond_init(&s->freed, NULL);
        pthread_mutex_lock(&s->lock); /* until stream_go() */
        int error = pthread_create(&s->thread, NULL, run_reader, s);
        if (error)
            fail(error, NULL, "pthread_create");
    }
    return s;
}

void stream_go(struct stream *s) {
    if (s->threaded)
        pthread_mutex_unlock(&s->lock);
}

/* Gives the block back that was lent, and takes the next. The last, empty one is never given back: the end stays. */
static size_t take_block(struct stream *s, const uint8_t **bytes) {
    pthread_mutex_lock(&s->lock);
    if (s->lent) {
        s->tail++;
        s->lent = false;
        pthread_cond_signal(&s->freed);
    }
    while (s->head == s->tail)
        pthread_cond_wait(&s->filled, &s->lock);
    unsigned slot = s->tail % BLOCKS;
    size_t n = s->length[slot];
    s->lent = n > 0;
    pthread_mutex_unlock(&s->lock);
    *bytes = s->blocks + (size_t)slot * BLOCK;
    return n;
}

size_t stream_next(struct stream *s, const uint8_t **bytes) {
    size_t n;
    if (s->threaded) {
        n = take_block(s, bytes);
    } else {
        *bytes = s->blocks;
        n = fill(s, s->blocks, BLOCK);
    }
    sha256_update(&s->tar, n, *bytes);
    s->taken += n;
    return n;
}

uint64_t stream_in(struct stream *s) { return s->in; }
uint64_t stream_out(struct stream *s) { return s->taken; }

void stream_digests(struct stream *s, uint8_t blob[DIGEST], uint8_t tar[DIGEST]) {
    sha256_digest(&s->blob, DIGEST, blob);
    sha256_digest(&s->tar, DIGEST, tar);
}

void stream_close(struct stream *s) {
    if (s->threaded)
        pthread_join(s->thread, NULL);
    ZSTD_freeDStream(s->zs);
    free(s->gz);
    free(s->input);
    free(s->blocks);
    free(s);
}
