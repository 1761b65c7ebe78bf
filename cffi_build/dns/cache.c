/* What other servers have said: a bounded number of bytes, of which the longest unused go first. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "dns.h"

enum { BUCKETS = 1 << 14 };
static struct cached *buckets[BUCKETS], *newest, *oldest;
static size_t bytes, entries[2], most = 16 << 20;

size_t cache_bytes(void) { return bytes; }
size_t cache_entries(int denials) { return entries[denials]; }
int is_denial(unsigned rcode, unsigned an) { return rcode != NOERROR || !an; }

static void unlink_use(struct cached *c) {
    *(c->newer ? &c->newer->older : &newest) = c->older;
    *(c->older ? &c->older->newer : &oldest) = c->newer;
}

static void link_use(struct cached *c) {
    c->newer = NULL, c->older = newest;
    *(newest ? &newest->newer : &oldest) = c;
    newest = c;
}

static void drop(struct cached *c) {
    struct cached **at = &buckets[c->hash % BUCKETS];
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    unlink_use(c);
    bytes -= c->size, entries[is_denial(c->rcode, c->an)]--;
    free(c);
}

void cache_limit(size_t n) {
    most = n;
    while (bytes > most)
        drop(oldest);
}

struct cached *cache_find(const uint8_t *name, size_t n, unsigned kind) {
    const uint32_t hash = hash_name(name, n, kind);
    for (struct cached *c = buckets[hash % BUCKETS]; c; c = c->next)
        if (c->hash == hash && c->kind == kind && c->name_n == n && !memcmp(c->bytes, name, n)) {
            if (c != newest)
                unlink_use(c), link_use(c);
            return c;
        }
    return NULL;
}

int cache_put(const uint8_t *name, size_t n, unsigned kind, const struct found *f, uint32_t ttl, uint32_t stale_s, int alias, int64_t now) {
    struct cached *old = cache_find(name, n, kind);
    if (old)
        drop(old);
    const size_t data = f->an_n + f->ns_n + f->ar_n, size = sizeof(struct cached) + n + data;
    if (!ttl || size > most / 8)
        return 0;
    while (bytes + size > most)
        drop(oldest);
    struct cached *c = malloc(size);
    if (!c)
        return 0;
    *c = (struct cached){.hash = hash_name(name, n, kind), .size = (uint32_t)size, .made_ms = now, .kind = (uint16_t)kind,
                         .rcode = (uint16_t)f->rcode, .an = (uint16_t)f->an, .ns = (uint16_t)f->ns, .ar = (uint16_t)f->ar,
                         .an_n = (uint16_t)f->an_n, .ns_n = (uint16_t)f->ns_n, .ar_n = (uint16_t)f->ar_n,
                         .alias = (uint8_t)alias, .name_n = (uint8_t)n};
    c->until_ms = now + (int64_t)ttl * 1000;
    c->stale_until_ms = c->until_ms + (int64_t)stale_s * 1000;
    memcpy(c->bytes, name, n);
    memcpy(c->bytes + n, f->data, data);
    c->next = buckets[c->hash % BUCKETS];
    buckets[c->hash % BUCKETS] = c;
    link_use(c);
    bytes += size, entries[is_denial(c->rcode, c->an)]++;
    return 1;
}

void cache_found(const struct cached *c, int64_t now, int stale, struct found *f) {
    *f = (struct found){.rcode = c->rcode, .an = c->an, .ns = c->ns, .ar = c->ar, .data = c->bytes + c->name_n,
                        .an_n = c->an_n, .ns_n = c->ns_n, .ar_n = c->ar_n};
    f->age = stale ? UINT32_MAX : (uint32_t)((now - c->made_ms) / 1000);
}

/* A new table may have other aliases; what other servers say of their own names stays. */
void cache_drop(int aliases_only) {
    for (struct cached *c = oldest, *next; c; c = next) {
        next = c->newer;
        if (!aliases_only || c->alias)
            drop(c);
    }
}
