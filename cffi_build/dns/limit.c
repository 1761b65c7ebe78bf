/* Who is answered, and how often. A source is an IPv4 address or an IPv6 /64. */
#define _GNU_SOURCE
#include <string.h>

#include "dns.h"

enum { PREFIXES_MOST = 1024, SETS = 1024, WAYS = 4, PREFIX_SIZE = 18 };
static struct { uint8_t address[16], bits; } prefixes[PREFIXES_MOST];
static size_t prefixes_n;
static uint32_t rate;
static struct source sources[SETS][WAYS];

static int inside(const uint8_t *a, const uint8_t *b, unsigned bits) {
    const unsigned whole = bits / 8, rest = bits % 8;
    return !memcmp(a, b, whole) && (!rest || (uint8_t)((a[whole] ^ b[whole]) >> (8 - rest)) == 0);
}

int source_allowed(const uint8_t address[16]) {
    for (size_t i = 0; i < prefixes_n; i++)
        if (inside(address, prefixes[i].address, prefixes[i].bits))
            return 1;
    return 0;
}

int source_prefixes(const uint8_t *p, size_t n) {
    if (n % PREFIX_SIZE || n / PREFIX_SIZE > PREFIXES_MOST)
        return -1;
    for (size_t i = 0; i < n / PREFIX_SIZE; i++)
        if (p[i * PREFIX_SIZE + 16] > 128)
            return -1;
    prefixes_n = n / PREFIX_SIZE;
    for (size_t i = 0; i < prefixes_n; i++) {
        memcpy(prefixes[i].address, p + i * PREFIX_SIZE, 16);
        prefixes[i].bits = p[i * PREFIX_SIZE + 16];
    }
    return 0;
}

void source_rate(uint32_t a_second) { rate = a_second; }

/* NULL where every place of its set is one of a source that waits for an answer. */
struct source *source_of(const uint8_t address[16], int64_t now) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const size_t n = memcmp(address, mapped, sizeof mapped) ? 8 : 16;
    const uint64_t key = (uint64_t)hash_name(address, n, 1) << 32 | hash_name(address, n, 2) | 1;
    struct source *set = sources[key >> 40 & (SETS - 1)], *free = NULL;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
        if (!set[i].waiting && (!free || set[i].stamp < free->stamp))
            free = &set[i];
    }
    if (free)
        *free = (struct source){.key = key, .tokens = rate, .stamp = (uint32_t)now};
    return free;
}

int source_may(const uint8_t address[16], int64_t now) {
    struct source *s = rate ? source_of(address, now) : NULL;
    if (!s)
        return 1;
    const uint64_t more = (uint64_t)((uint32_t)now - s->stamp) * rate / 1000;
    if (more) {
        const uint64_t full = 2 * (uint64_t)rate, tokens = s->tokens + more;
        s->tokens = (uint32_t)(tokens > full ? full : tokens);
        s->stamp = (uint32_t)now;
    }
    if (s->tokens) {
        s->tokens--;
        return 1;
    }
    return ++s->used % 2 ? -1 : 0; /* every other one may come again over TCP, which proves its address */
}
