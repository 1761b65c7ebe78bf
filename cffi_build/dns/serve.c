/* One question: from the table, from the cache, or from another server. */
#define _GNU_SOURCE
#include <string.h>

#include "dns.h"

enum { REFRESH_HITS = 2, REFRESH_PART = 10, REFRESH_LEAST_MS = 10000 };
struct server server = {.control = -1};

/* `usable`: it is what is answered. */
static void note(const struct query *q, const struct cached *c, int usable, struct look *l) {
    const int64_t now = server.now;
    const int stale = c && now >= c->until_ms;
    const int64_t until = !c ? now : stale || !usable ? c->stale_until_ms : c->until_ms;
    l->from = !usable ? FROM_OTHERS : stale ? FROM_OLD : FROM_CACHE;
    l->left = until > now ? (uint32_t)((until - now) / 1000) : 0;
    l->name_n = q->lower_n;
    memcpy(l->name, q->lower, q->lower_n);
}

int from_cache(const struct query *q, const struct peer *peer, int alias, struct found *f, uint8_t *out, size_t *n) {
    struct cached *c = cache_find(q->lower, q->lower_n, q->kind);
    const int64_t now = server.now;
    const int usable = c && c->alias == alias && (now < c->until_ms || (now < c->stale_until_ms && now < c->hold_ms));
    if (server.look)
        note(q, c, usable, server.look);
    if (!usable) {
        *n = 0;
        if (!server.look)
            wait_for(q, peer, alias, now, out, n);
        return 0;
    }
    const int stale = now >= c->until_ms;
    cache_found(c, now, stale, f);
    f->flags |= RA;
    server.n.hits[is_denial(f->rcode, f->an)]++;
    server.n.stale += (unsigned)stale;
    /* What is asked for often is asked anew before its time is over. */
    if (!stale && !server.look && ++c->hits >= REFRESH_HITS && !c->asked && c->until_ms - c->made_ms >= REFRESH_LEAST_MS &&
        c->until_ms - now < (c->until_ms - c->made_ms) / REFRESH_PART) {
        c->asked = 1;
        wait_refresh(c, now);
    }
    return 1;
}

/* index: of the query's kind, when it could be read. */
static size_t serve_one(const uint8_t *p, size_t n, const struct peer *peer, uint8_t *out, unsigned *index) {
    static struct query q;
    struct found f;
    int alias, may = 1;
    *index = KIND_UNREAD;
    if (!source_allowed(peer->source)) {
        server.n.dropped_source++;
        return 0;
    }
    if (!peer->tcp && !(may = source_may(peer->source, server.now))) {
        server.n.dropped_rate++;
        return 0;
    }
    const int wrong = query_read(p, n, &q);
    if (wrong) {
        server.n.malformed++;
        return wrong < 0 || may < 0 ? 0 : reply_bare(p, (unsigned)wrong, out);
    }
    *index = kind_index(q.kind), q.came_ns = server.now_ns;
    if (may < 0) {
        f = (struct found){.flags = TC};
        server.n.truncated++;
        return reply(&q, &f, 0, out, UDP_LEAST);
    }
    if (q.payload >= 0 && q.version) {
        f = (struct found){.rcode = BADVERS};
        server.n.malformed++;
        return reply(&q, &f, 0, out, UDP_LEAST);
    }
    const enum act act = answer(&server.table, &q, &f, &alias);
    size_t size = 0;
    if (act == ACT_REPLY && f.rcode == NXDOMAIN && !f.an && server.table.clients_n && path_walk(&q, peer, 1, out, &size)) {
        server.n.answers += size != 0;
        return size;
    }
    if (act == ACT_ASK && !server.forwards && !alias) {
        f.rcode = REFUSED; /* no zone of ours, and nobody to ask */
    } else if (act == ACT_ASK) {
        if (from_cache(&q, peer, alias, &f, out, &size))
            size = reply(&q, &f, server.turn++, out, reply_limit(&q, peer->tcp));
        server.n.answers += size != 0;
        return size;
    }
    if (server.forwards)
        f.flags |= RA;
    server.n.answers++;
    server.n.nxdomain += f.rcode == NXDOMAIN;
    server.n.nodata += f.rcode == NOERROR && !f.an;
    server.n.refused += f.rcode == REFUSED;
    size = reply(&q, &f, server.turn++, out, reply_limit(&q, peer->tcp));
    server.n.truncated += (be16(out + 2) & TC) != 0;
    return size;
}

size_t serve(const uint8_t *p, size_t n, const struct peer *peer, uint8_t *out) {
    unsigned index;
    const size_t size = serve_one(p, n, peer, out, &index);
    count_of(peer)[index]++;
    if (size && index != KIND_UNREAD && !server.look)
        count_reply(index);
    return size;
}

size_t look(const uint8_t *p, size_t n, const uint8_t source[16], uint8_t *out, struct look *l) {
    struct peer peer = {.tcp = 1};
    const struct counters counted = server.n;
    const unsigned turn = server.turn;
    memcpy(peer.source, source, sizeof peer.source);
    *l = (struct look){.from = FROM_TABLE};
    server.look = l;
    const size_t size = serve(p, n, &peer, out);
    server.look = NULL, server.n = counted, server.turn = turn;
    if (!size && l->from == FROM_TABLE)
        l->from = FROM_NOBODY;
    return size;
}
