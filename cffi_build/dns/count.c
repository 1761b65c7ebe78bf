/* What CoreDNS counts by its labels: queries by transport, family and type, and how long a reply took by type. */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "dns.h"

static unsigned fresh[KINDS], fresh_n; /* replies that are on their way since the clock was read last */

unsigned kind_index(unsigned kind) {
    /* In the order of KINDS in pyrun/dns/responder.py. */
    static const uint8_t indexes[256] = {[1] = 2, [2] = 3, [5] = 4, [6] = 5, [12] = 6, [15] = 7, [16] = 8, [28] = 9, [33] = 10,
        [43] = 11, [46] = 12, [47] = 13, [48] = 14, [50] = 15, [65] = 16, [251] = 17, [252] = 18, [255] = 19};
    return kind < sizeof indexes && indexes[kind] ? indexes[kind] : KIND_OTHER;
}

uint64_t *count_of(const struct peer *peer) {
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    return server.n.queries[peer->tcp != 0][memcmp(peer->source, v4, sizeof v4) != 0];
}

int64_t clock_read(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return server.now_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void add(unsigned index, int64_t took, unsigned replies) {
    unsigned i = 0;
    while (i < TIMES - 1 && took > (int64_t)TIME_LEAST_NS << i)
        i++;
    server.n.times[index][i] += replies;
    server.n.time_ns[index] += (uint64_t)took * replies;
}

void count_reply(unsigned index) { fresh[index]++, fresh_n++; }

void count_waited(unsigned kind, int64_t came_ns) { add(kind_index(kind), server.now_ns - came_ns, 1); }

void count_sent(void) {
    const int64_t came = server.now_ns;
    if (!fresh_n)
        return;
    const int64_t took = clock_read() - came;
    for (unsigned i = 0; i < KINDS; i++)
        if (fresh[i])
            add(i, took, fresh[i]), fresh[i] = 0;
    fresh_n = 0;
}
