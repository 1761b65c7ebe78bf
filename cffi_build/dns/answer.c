/* From a query to the bytes of its reply. pyrun/dns/respond.py says the same in Python, and tests hold the two together. */
#define _GNU_SOURCE
#include <string.h>

#include "dns.h"

/* RFC 8482: no list of all that there is. Owner, type, class, TTL (set below), data. */
static const uint8_t NO_ANY[] = {0xc0, HEAD, 0, T_HINFO, 0, 1, 0, 0, 0, 0, 0, 9, 7, 'R', 'F', 'C', '8', '4', '8', '2', 0};

static void negative(const struct table *t, const struct query *q, unsigned rcode, struct found *f) {
    size_t at;
    const struct zone *zone = table_zone(t, q->lower, q->lower_n, &at);
    f->rcode = rcode;
    if (!zone)
        return;
    f->soa = zone_soa(zone), f->soa_n = zone->soa_n, f->soa_at = HEAD + at;
}

enum act answer(const struct table *t, const struct query *q, struct found *f, int *alias) {
    static uint8_t no_any[sizeof NO_ANY];
    size_t at;
    *f = (struct found){0}, *alias = 0;
    if ((f->rcode = (unsigned)query_refused(q)))
        return ACT_REPLY;
    const struct node *node = table_node(t, q->lower, q->lower_n);
    if (node || table_zone(t, q->lower, q->lower_n, &at))
        f->flags = AA;
    if (q->kind == T_ANY) {
        memcpy(no_any, NO_ANY, sizeof NO_ANY);
        put32(no_any + 6, t->ttl);
        f->data = no_any, f->an = 1, f->an_n = sizeof no_any;
        return ACT_REPLY;
    }
    if (!node) {
        if (!(f->flags & AA))
            return ACT_ASK;
        negative(t, q, NXDOMAIN, f);
        return ACT_REPLY;
    }
    const struct answer_head *a = node_answer(node, q->kind, &f->data);
    if (!a) {
        if (node->flags & NODE_FORWARD) {
            *alias = 1;
            return ACT_ASK;
        }
        negative(t, q, NOERROR, f);
        return ACT_REPLY;
    }
    f->rcode = a->rcode;
    f->an = a->an, f->ns = a->ns, f->ar = a->ar, f->an_n = a->an_n, f->ns_n = a->ns_n, f->ar_n = a->ar_n;
    f->lead = a->lead, f->stride = a->stride, f->turn = a->turn;
    return ACT_REPLY;
}

size_t reply_limit(const struct query *q, int tcp) {
    if (tcp)
        return TCP_MOST;
    return q->payload < UDP_LEAST ? UDP_LEAST : q->payload > UDP_MOST ? UDP_MOST : (size_t)q->payload;
}

size_t reply_bare(const uint8_t *p, unsigned rcode, uint8_t *out) {
    server.n.unread[rcode]++; /* there is none beyond REFUSED */
    memset(out, 0, HEAD);
    memcpy(out, p, 2);
    put16(out + 2, QR | (be16(p + 2) & (OPCODE | RD)) | rcode);
    return HEAD;
}

/* The answers, and where their number and size allow it with another one first each time. */
static size_t put_answers(uint8_t *out, const struct found *f, unsigned turn) {
    const size_t first = f->turn > 1 ? f->lead + (size_t)f->stride * (turn % f->turn) : 0;
    if (!first || first == f->lead) {
        memcpy(out, f->data, f->an_n);
        return f->an_n;
    }
    memcpy(out, f->data, f->lead);
    memcpy(out + f->lead, f->data + first, f->an_n - first);
    memcpy(out + f->lead + f->an_n - first, f->data + f->lead, first - f->lead);
    return f->an_n;
}

/* As many whole records as fit: some resolvers make do with them. */
static size_t fitting(const uint8_t *p, size_t n, size_t room, unsigned *count) {
    size_t at = 0;
    for (*count = 0; at < n; ++*count) {
        const size_t end = record_end(p, at, n);
        if (!end || end > room)
            break;
        at = end;
    }
    return at;
}

static void grow_old(uint8_t *p, size_t n, uint32_t age) {
    for (size_t at = 0; at < n;) {
        const size_t end = record_end(p, at, n);
        if (!end)
            return;
        while (p[at] && p[at] < 0xc0)
            at += 1 + (size_t)p[at];
        at += p[at] ? 2 : 1;
        const uint32_t ttl = be32(p + at + 4);
        put32(p + at + 4, age == UINT32_MAX ? STALE_TTL : ttl > age ? ttl - age : 0);
        at = end;
    }
}

/* The records stand behind another name than the one for which they were made: the pointers of owners follow. 0: one can't. */
static int relocate(uint8_t *p, size_t n, const struct query *q) {
    for (size_t at = 0, end; at < n; at = end) {
        if (!(end = record_end(p, at, n)))
            return 0;
        while (p[at] && p[at] < 0xc0)
            at += 1 + (size_t)p[at];
        if (!p[at])
            continue;
        const unsigned to = be16(p + at) & 0x3fff, moved = to + q->name_n + (to < HEAD + 0u + q->lower_n ? 16u : 12u);
        if (moved > 0x3fff)
            return 0;
        put16(p + at, 0xc000 | moved);
    }
    return 1;
}

enum { ALIAS_SIZE = 12 }; /* of a CNAME record without its data; its owner is the question's name */

static size_t put_alias(const struct query *q, uint8_t *p) {
    const uint8_t head[ALIAS_SIZE] = {0xc0, HEAD, 0, T_CNAME, 0, 1, 0, 0, 0, 0, 0, q->lower_n};
    memcpy(p, head, sizeof head);
    put32(p + 6, server.table.ttl);
    memcpy(p + sizeof head, q->lower, q->lower_n);
    return sizeof head + q->lower_n;
}

static size_t reply_with(const struct query *q, const struct found *f, unsigned turn, uint8_t *out, size_t limit, int alias) {
    const size_t question = HEAD + q->name_n + 4u, opt = q->payload >= 0 ? OPT_SIZE : 0;
    size_t room = limit - question - opt, ns_n = f->soa_n ? f->soa_n : f->ns_n, ar_n = f->ar_n;
    unsigned an = f->an, ns = f->soa_n ? 1 : f->ns, ar = f->ar, flags = QR | (q->flags & (RD | CD)) | f->flags;
    uint8_t *p = out + question;
    if (alias)
        p += put_alias(q, p), room -= ALIAS_SIZE + q->lower_n;
    uint8_t *const records = p;
    if (f->an_n + ns_n + ar_n > room)
        ar = 0, ar_n = 0; /* nobody misses what is additional (RFC 2181 9) */
    if (f->an_n + ns_n > room) {
        uint8_t whole[TCP_MOST];
        put_answers(whole, f, turn);
        const size_t fits = fitting(whole, f->an_n, room, &an);
        memcpy(p, whole, fits);
        p += fits;
        flags |= TC, ns = 0, ns_n = 0;
    } else {
        if (f->an_n)
            p += put_answers(p, f, turn);
        if (f->soa_n) {
            memcpy(p, f->soa, f->soa_n);
            put16(p, 0xc000 | (unsigned)f->soa_at);
        } else if (ns_n)
            memcpy(p, f->data + f->an_n, ns_n);
        p += ns_n;
        if (ar_n)
            memcpy(p, f->data + f->an_n + f->ns_n, ar_n);
        p += ar_n;
    }
    if (f->age)
        grow_old(records, (size_t)(p - records), f->age);
    if (alias && !relocate(records, (size_t)(p - records), q))
        return 0;
    put16(out, q->id);
    put16(out + 2, flags | (alias ? AA : 0) | (f->rcode & 15));
    server.n.rcodes[f->rcode == BADVERS ? REFUSED + 1 : f->rcode <= REFUSED ? f->rcode : FORMERR]++;
    put16(out + 4, 1), put16(out + 6, an + (alias != 0)), put16(out + 8, ns), put16(out + 10, ar + (opt != 0));
    memcpy(out + HEAD, q->name, q->name_n);
    put16(out + HEAD + q->name_n, q->kind);
    put16(out + HEAD + q->name_n + 2, q->cls);
    if (opt) {
        const uint8_t bytes[OPT_SIZE] = {0, 0, T_OPT, UDP_MOST >> 8, UDP_MOST & 255, (uint8_t)(f->rcode >> 4), 0, (uint8_t)(q->edns >> 8)};
        memcpy(p, bytes, sizeof bytes);
        p += sizeof bytes;
    }
    return (size_t)(p - out);
}

/* A step of a search path that leads somewhere is an alias of the question's name; what it says else is said without a record. */
size_t reply(const struct query *q, const struct found *f, unsigned turn, uint8_t *out, size_t limit) {
    struct found bare = {.rcode = f->rcode, .flags = f->flags};
    if (!q->step)
        return reply_with(q, f, turn, out, limit, 0);
    if (f->rcode != NOERROR)
        return reply_with(q, &bare, turn, out, limit, 0);
    if (HEAD + q->name_n + 4u + OPT_SIZE + ALIAS_SIZE + q->lower_n > limit) {
        bare.flags |= TC;
        return reply_with(q, &bare, turn, out, limit, 0);
    }
    const size_t n = reply_with(q, f, turn, out, limit, 1);
    bare.rcode = NXDOMAIN; /* so that the asker walks on by itself */
    return n ? n : reply_with(q, &bare, turn, out, limit, 0);
}
