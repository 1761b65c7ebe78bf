/* Questions that are being asked of other servers, and who waits for each. Equal ones are asked once.
 *
 * A wait ends with an answer, after 1.8 s with an old one where there is one (RFC 8767), or after 5 s with SERVFAIL.
 */
#define _GNU_SOURCE
#include <string.h>

#include "dns.h"

/* A source has at most ASKED_OF_ONE questions that it began, and WAITERS_OF_ONE waits for any. Places are counted from 1: 0 is none. */
enum { QUESTIONS = 4097, WAITERS = (1 << 15) + 1, BUCKETS = 4096, ASKED_OF_ONE = 512, WAITERS_OF_ONE = 1 << 14 };
enum { NONE = 0, FLAG_REFRESH = 1, FLAG_ALIAS = 2 };
static struct question {
    int next, newer, older, waiters; /* of its bucket or of the free; by age; first */
    uint16_t kind;
    uint8_t name_n, alias, stale_told;
    int64_t made;
    uint8_t name[NAME_MOST];
} questions[QUESTIONS];
static struct waiter {
    int next;
    uint16_t id, flags, edns;
    int payload;
    int64_t came_ns;
    struct peer peer;
    uint8_t step, name_n, name[NAME_MOST]; /* as it came; `step` of a search path is the name that is asked for */
} waiters[WAITERS];
static int buckets[BUCKETS], oldest, newest, free_question, free_waiter, questions_ever = 1, waiters_ever = 1;
static size_t waiting;
static int64_t next_due = -1;

size_t wait_count(void) { return waiting; }

/* What was never used is not on the free list, and stays untouched memory. */
static int take_question(void) {
    const int i = free_question;
    if (i == NONE)
        return questions_ever < QUESTIONS ? questions_ever++ : NONE;
    free_question = questions[i].next;
    return i;
}

static int take_waiter(void) {
    const int i = free_waiter;
    if (i == NONE)
        return waiters_ever < WAITERS ? waiters_ever++ : NONE;
    free_waiter = waiters[i].next;
    return i;
}

static int find(const uint8_t *name, size_t n, unsigned kind) {
    for (int i = buckets[hash_name(name, n, kind) % BUCKETS]; i != NONE; i = questions[i].next)
        if (questions[i].kind == kind && questions[i].name_n == n && !memcmp(questions[i].name, name, n))
            return i;
    return NONE;
}

static int begin(const uint8_t *name, size_t n, unsigned kind, int alias, int64_t now) {
    const int i = take_question();
    if (i == NONE)
        return NONE;
    struct question *q = &questions[i];
    const uint32_t bucket = hash_name(name, n, kind) % BUCKETS;
    *q = (struct question){.next = buckets[bucket], .older = newest, .kind = (uint16_t)kind,
                           .name_n = (uint8_t)n, .alias = (uint8_t)alias, .made = now};
    memcpy(q->name, name, n);
    buckets[bucket] = i;
    *(newest == NONE ? &oldest : &questions[newest].newer) = i;
    newest = i;
    if (next_due < 0)
        next_due = now + STALE_AFTER_MS;
    return i;
}

static void end(int i) {
    struct question *q = &questions[i];
    int *at = &buckets[hash_name(q->name, q->name_n, q->kind) % BUCKETS];
    while (*at != i)
        at = &questions[*at].next;
    *at = q->next;
    *(q->newer == NONE ? &newest : &questions[q->newer].older) = q->older;
    *(q->older == NONE ? &oldest : &questions[q->older].newer) = q->newer;
    q->next = free_question;
    free_question = i;
}

static int add_waiter(int i, const struct query *q, const struct peer *peer, int64_t now) {
    struct source *source = source_of(peer->source, now);
    if (!source || source->waiting >= WAITERS_OF_ONE)
        return -1;
    const int w = take_waiter();
    if (w == NONE)
        return -1;
    waiters[w] = (struct waiter){.next = questions[i].waiters, .id = q->id, .flags = q->flags, .edns = q->edns, .payload = q->payload,
                                .peer = *peer, .came_ns = q->came_ns, .step = q->step, .name_n = q->name_n};
    memcpy(waiters[w].name, q->name, q->name_n);
    questions[i].waiters = w;
    source->waiting++;
    waiting++;
    return 0;
}

/* The reply to one who waits; 0: it waits for the next name of its search path now. */
static size_t tell_one(const struct waiter *one, const struct question *asked, const struct found *f, uint8_t *out) {
    static struct query q;
    struct found none;
    size_t n = 0;
    int alias;
    q = (struct query){.id = one->id, .flags = one->flags, .kind = asked->kind, .cls = 1, .edns = one->edns, .payload = one->payload,
                       .name_n = one->name_n, .lower_n = asked->name_n, .step = one->step, .came_ns = one->came_ns};
    memcpy(q.name, one->name, one->name_n);
    memcpy(q.lower, asked->name, asked->name_n);
    if (q.step && f->rcode == NXDOMAIN) {
        if (path_walk(&q, &one->peer, q.step + 1u, out, &n))
            return n;
        if (answer(&server.table, &q, &none, &alias) == ACT_ASK)
            none = (struct found){.rcode = SERVFAIL}; /* the table has changed meanwhile */
        none.flags |= server.forwards ? RA : 0;
        f = &none;
    } else
        server.n.autopath += q.step && f->rcode == NOERROR;
    return reply(&q, f, server.turn++, out, reply_limit(&q, one->peer.tcp));
}

/* Tells all who wait for a question. */
static void tell(int i, const struct found *f, int64_t now) {
    static uint8_t out[TCP_MOST];
    static struct waiter one;
    struct question *asked = &questions[i];
    for (int w; (w = asked->waiters) != NONE;) {
        one = waiters[w];
        asked->waiters = one.next;
        waiters[w].next = free_waiter;
        free_waiter = w;
        struct source *source = source_of(one.peer.source, now);
        if (source && source->waiting)
            source->waiting--;
        waiting--;
        const size_t n = tell_one(&one, asked, f, out);
        if (!n)
            continue;
        (one.peer.tcp ? tcp_send : udp_send)(&one.peer, out, n);
        server.n.answers++;
        count_waited(asked->kind, one.came_ns);
    }
}

/* An old answer where there is one, else SERVFAIL. */
static void best(const uint8_t *name, size_t n, unsigned kind, int64_t now, struct found *f) {
    struct cached *c = cache_find(name, n, kind);
    if (c && now < c->stale_until_ms) {
        cache_found(c, now, now >= c->until_ms, f);
        server.n.stale += now >= c->until_ms;
    } else {
        *f = (struct found){.rcode = SERVFAIL};
        server.n.failed++;
    }
    f->flags |= server.forwards ? RA : 0;
}

void wait_for(const struct query *q, const struct peer *peer, int alias, int64_t now, uint8_t *out, size_t *out_n) {
    struct found f;
    int i = find(q->lower, q->lower_n, q->kind);
    *out_n = 0;
    server.n.misses++;
    if (i != NONE) {
        server.n.shared++;
        if (!questions[i].stale_told && !add_waiter(i, q, peer, now))
            return;
    } else if (server.forwards) {
        const struct source *source = source_of(peer->source, now);
        if (source && source->waiting < ASKED_OF_ONE && (i = begin(q->lower, q->lower_n, q->kind, alias, now)) != NONE) {
            if (control_ask(q->lower, q->lower_n, q->kind, alias ? FLAG_ALIAS : 0, peer->source))
                end(i);
            else {
                server.n.asked++;
                if (!add_waiter(i, q, peer, now))
                    return;
            }
        }
    }
    best(q->lower, q->lower_n, q->kind, now, &f);
    *out_n = reply(q, &f, server.turn++, out, reply_limit(q, peer->tcp));
}

void wait_refresh(const struct cached *c, int64_t now) {
    static const uint8_t nobody[16];
    if (!server.forwards || find(c->bytes, c->name_n, c->kind) != NONE)
        return;
    const int i = begin(c->bytes, c->name_n, c->kind, c->alias, now);
    server.n.refreshed += i != NONE;
    if (i != NONE && control_ask(c->bytes, c->name_n, c->kind, FLAG_REFRESH | (c->alias ? FLAG_ALIAS : 0), nobody))
        end(i);
}

void wait_answered(const uint8_t *name, size_t n, unsigned kind, const struct found *f, int failed, int64_t now) {
    struct found instead;
    const int i = find(name, n, kind);
    if (failed) {
        struct cached *c = cache_find(name, n, kind);
        if (c)
            c->hold_ms = now + STALE_HOLD_MS;
        best(name, n, kind, now, &instead);
        f = &instead;
    }
    if (i == NONE)
        return;
    tell(i, f, now);
    end(i);
}

static void give_up(int i, int64_t now) {
    struct found f;
    const struct question *q = &questions[i];
    struct cached *c = cache_find(q->name, q->name_n, q->kind);
    if (c)
        c->hold_ms = now + STALE_HOLD_MS;
    if (q->waiters != NONE) {
        best(q->name, q->name_n, q->kind, now, &f);
        tell(i, &f, now);
    }
    end(i);
}

void wait_nobody(int64_t now) {
    while (oldest != NONE)
        give_up(oldest, now);
}

int64_t wait_timers(int64_t now) {
    if (next_due >= 0 && now < next_due)
        return next_due;
    next_due = -1;
    for (int i = oldest, newer; i != NONE; i = newer) {
        struct question *q = &questions[i];
        newer = q->newer;
        if (now >= q->made + GIVE_UP_MS) {
            give_up(i, now);
            continue;
        }
        if (!q->stale_told && now >= q->made + STALE_AFTER_MS) {
            const struct cached *c = cache_find(q->name, q->name_n, q->kind);
            if (c && now < c->stale_until_ms) {
                struct found f;
                best(q->name, q->name_n, q->kind, now, &f);
                tell(i, &f, now);
                q->stale_told = 1; /* who asks meanwhile gets the old one at once */
            }
        }
        const int64_t due = q->made + (now < q->made + STALE_AFTER_MS ? STALE_AFTER_MS : GIVE_UP_MS);
        if (next_due < 0 || due < next_due)
            next_due = due;
    }
    return next_due;
}
