/* Reading a query. What is no query is refused by its rcode, and what is a reply gets none: two servers would go on for ever. */
#define _GNU_SOURCE
#include <string.h>

#include "dns.h"

void lower_name(uint8_t *to, const uint8_t *from, size_t n) {
    /* Lengths of labels are below 64, so no letters. */
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)(from[i] + ((uint8_t)(from[i] - 'A') < 26 ? 32 : 0));
}

size_t name_size(const uint8_t *p, size_t n) {
    size_t at = 0;
    while (at < n && at < NAME_MOST) {
        const size_t label = p[at];
        if (label > 63)
            return 0;
        at += 1 + label;
        if (!label)
            return at;
    }
    return 0;
}

size_t record_end(const uint8_t *p, size_t at, size_t n) {
    for (;;) {
        if (at >= n)
            return 0;
        const size_t label = p[at];
        if (label >= 0xc0) {
            at += 2;
            break;
        }
        if (label > 63)
            return 0;
        at += 1 + label;
        if (!label)
            break;
    }
    if (at > n || n - at < 10)
        return 0;
    const size_t data = be16(p + at + 8);
    at += 10;
    return n - at < data ? 0 : at + data;
}

int query_read(const uint8_t *p, size_t n, struct query *q) {
    if (n < HEAD)
        return -1;
    q->id = be16(p), q->flags = be16(p + 2);
    if (q->flags & QR)
        return -1;
    if (q->flags & OPCODE)
        return (q->flags & OPCODE) == 5 << 11 ? REFUSED : NOTIMP;
    if (be16(p + 4) != 1 || be16(p + 6))
        return FORMERR;
    const size_t name = name_size(p + HEAD, n - HEAD);
    if (!name || n - HEAD - name < 4)
        return FORMERR;
    q->name_n = q->lower_n = (uint8_t)name, q->step = 0;
    memcpy(q->name, p + HEAD, name);
    lower_name(q->lower, q->name, name);
    size_t at = HEAD + name;
    q->kind = be16(p + at), q->cls = be16(p + at + 2);
    q->payload = -1, q->version = 0, q->edns = 0;
    if (be16(p + 8)) /* of a zone that somebody has already (RFC 1995) */
        return q->kind == T_IXFR ? REFUSED : FORMERR;
    at += 4;
    for (unsigned more = be16(p + 10); more; more--) {
        const size_t end = record_end(p, at, n);
        if (!end)
            return FORMERR;
        size_t fixed = at;
        while (p[fixed] && p[fixed] < 0xc0)
            fixed += 1 + p[fixed];
        fixed += p[fixed] ? 2 : 1;
        if (be16(p + fixed) == T_OPT) {
            if (q->payload >= 0 || p[at])
                return FORMERR;
            q->payload = be16(p + fixed + 2);
            q->version = p[fixed + 5];
            q->edns = be16(p + fixed + 6) & DO; /* RFC 3225 3 */
        }
        at = end;
    }
    return 0;
}

int query_refused(const struct query *q) {
    if (q->kind == 0 || q->kind == T_OPT)
        return FORMERR;
    return q->cls != 1 || (q->kind >= T_META && q->kind < T_ANY) ? REFUSED : 0;
}
