/* Which endpoint a client gets: by its address the choice, then its pin, then strictly the next in turn. */
#include <stdlib.h>
#include <string.h>

#include "dp.h"

enum { PINS_MOST = 1 << 18, SWEPT_AT_ONCE = 256 };

struct pin { /* a client of a frontend with affinity, and its endpoint */
    struct node node;
    struct list used; /* the longest unused first */
    struct address client;
    struct frontend *frontend;
    struct backend *backend;
    int64_t until;
};
static struct hash pins;
static struct list by_use = {&by_use, &by_use};

struct choice *choose(const struct frontend *f, const struct address *client) {
    for (uint32_t k = 0; k < f->n_choices; k++) {
        struct choice *c = f->choices + k;
        if (!c->n_prefixes)
            return c;
        for (uint32_t p = 0; p < c->n_prefixes; p++)
            if (address_in(client, c->prefixes + p))
                return c;
    }
    return NULL;
}

static uint64_t pin_hash(const struct frontend *f, const struct address *client) {
    struct {
        struct address client;
        const struct frontend *frontend;
    } key = {*client, f};
    return hash_bytes(&key, sizeof key);
}

static struct pin *find_pin(const struct frontend *f, const struct address *client, uint64_t hash) {
    for (struct node *n = hash_first(&pins, hash); n; n = n->next) {
        struct pin *p = CONTAINER(n, struct pin, node);
        if (n->hash == hash && p->frontend == f && address_equal(&p->client, client))
            return p;
    }
    return NULL;
}

static void unpin(struct pin *p) {
    hash_remove(&pins, &p->node);
    list_remove(&p->used);
    backend_drop(p->backend);
    frontend_drop(p->frontend);
    free(p);
}

static bool is_in(const struct set *s, const struct backend *b) {
    for (uint32_t k = 0; k < s->n; k++)
        if (s->backends[k] == b)
            return true;
    return false;
}

static bool was_tried(const struct backend *b, struct backend *const *tried, uint32_t n) {
    for (uint32_t k = 0; k < n; k++)
        if (tried[k] == b)
            return true;
    return false;
}

static struct backend *hold(struct backend *b) {
    b->refs++;
    return b;
}

static struct backend *pinned_backend(struct frontend *f, const struct set *s, const struct address *client, int64_t now) {
    struct pin *p = f->affinity ? find_pin(f, client, pin_hash(f, client)) : NULL;
    if (!p)
        return NULL;
    if (p->until < now || p->backend->gone) {
        unpin(p);
        return NULL;
    }
    return is_in(s, p->backend) ? p->backend : NULL;
}

/* Who was silent a moment ago is passed over once, where there is another: each such turn costs its client a second. */
static struct backend *in_turn(struct choice *c, struct backend *const *tried, uint32_t n_tried, int64_t now) {
    struct set *s = c->set;
    struct backend *silent = NULL;
    for (uint32_t k = 0; k < s->n; k++) {
        uint32_t at = (c->next + k) % s->n;
        struct backend *b = s->backends[at];
        if (was_tried(b, tried, n_tried))
            continue;
        if (b->silent_until > now) {
            if (!silent)
                silent = b;
            continue;
        }
        c->next = at + 1;
        return b;
    }
    return silent;
}

struct backend *choose_backend(struct frontend *f, struct choice *c, const struct address *client, struct backend *const *tried,
                               uint32_t n_tried, int64_t now) {
    if (c->action != ACT_FORWARD || !c->set->n)
        return NULL;
    struct backend *b = n_tried ? NULL : pinned_backend(f, c->set, client, now);
    if (!b)
        b = in_turn(c, tried, n_tried, now);
    return b ? hold(b) : NULL;
}

/* until: ms */
void affinity_set(struct frontend *f, const struct address *client, struct backend *b, int64_t until) {
    uint64_t hash = pin_hash(f, client);
    struct pin *p = find_pin(f, client, hash);
    if (!p) {
        if (pins.count >= PINS_MOST)
            unpin(CONTAINER(by_use.next, struct pin, used));
        p = calloc(1, sizeof *p);
        if (!p || !hash_put(&pins, &p->node, hash)) {
            free(p); /* without a pin it is served as well */
            return;
        }
        p->client = *client;
        p->frontend = f;
        f->refs++;
        list_init(&p->used);
    }
    if (p->backend != b) {
        b->refs++;
        if (p->backend)
            backend_drop(p->backend);
        p->backend = b;
    }
    p->until = until;
    list_remove(&p->used);
    list_append(&by_use, &p->used);
}

/* Removes what has run out, some at a time: what is unused for longest may have a longer time than what comes behind it. */
void affinity_tick(int64_t now) {
    struct list *l = by_use.next;
    for (int k = 0; k < SWEPT_AT_ONCE && l != &by_use; k++) {
        struct pin *p = CONTAINER(l, struct pin, used);
        l = l->next;
        if (p->until < now || p->frontend->gone || p->backend->gone)
            unpin(p);
    }
}

size_t affinity_count(void) { return pins.count; }

size_t affinity_give(struct wire_entry *to, size_t most, int64_t now) {
    size_t n = 0;
    for (struct list *l = by_use.next; l != &by_use && n < most; l = l->next) {
        const struct pin *p = CONTAINER(l, struct pin, used);
        if (p->until <= now || p->frontend->gone || p->backend->gone)
            continue;
        struct wire_entry e = {.set = p->backend->set, .frontend_port = p->frontend->port, .endpoint_port = p->backend->port,
                               .protocol = p->frontend->protocol, .ms = (uint32_t)(p->until - now)};
        memcpy(e.frontend, p->frontend->address.b, sizeof e.frontend);
        memcpy(e.client, p->client.b, sizeof e.client);
        memcpy(e.endpoint, p->backend->address.b, sizeof e.endpoint);
        to[n++] = e;
    }
    return n;
}
