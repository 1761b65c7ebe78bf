/* An image becomes the table, as a whole or not at all: all that may fail is made first (a `change`), and putting it in place can't.
 *
 * Who is the same stays the same thing: a frontend by (protocol, address, port), a set by its id, an endpoint of a set by its address and
 * port. So turns, pins, counters and connections go on over any number of images.
 */
#include <stdlib.h>
#include <string.h>

#include "image.h"

struct change {
    struct set **sets;          /* one a record of a set: the table's, or a fresh one that is in the table already */
    struct backend ***lists;    /* its new endpoints, each held */
    struct frontend **frontends;
    struct choice **choices;
};

static struct backend *same_backend(const struct set *s, const struct wire_endpoint *e, uint32_t at) {
    for (uint32_t k = 0; k < s->n; k++) { /* mostly at the same place */
        struct backend *b = s->backends[(at + k) % s->n];
        if (b->port == e->port && memcmp(b->address.b, e->address, sizeof e->address) == 0)
            return b;
    }
    return NULL;
}

static struct backend *new_backend(const struct wire_endpoint *e, uint64_t set) {
    struct backend *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    memcpy(b->address.b, e->address, sizeof e->address);
    b->port = e->port;
    b->set = set;
    list_init(&b->gone_list);
    return b;
}

static const char *make_list(const struct image *i, const struct wire_set *r, const struct set *old, struct backend ***list) {
    struct backend **made = *list = calloc(r->count ? r->count : 1, sizeof *made);
    for (uint32_t k = 0; made && k < r->count; k++) {
        const struct wire_endpoint *e = i->endpoints + r->first + k;
        struct backend *b = same_backend(old, e, k);
        if (!b && !(b = new_backend(e, r->id)))
            return "no memory";
        b->refs++;
        made[k] = b;
    }
    return made ? NULL : "no memory";
}

static const char *make_set(const struct image *i, uint32_t k, struct change *c) {
    const struct wire_set *r = i->sets + k;
    struct set *s = table_find_set(r->id);
    if (s && s->named)
        return "a set twice";
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s || !hash_put(&table.sets, &s->node, hash_bytes(&r->id, sizeof r->id))) {
            free(s);
            return "no memory";
        }
        s->id = r->id;
        s->fresh = true;
        s->refs = 1;
    }
    s->named = true;
    c->sets[k] = s;
    return make_list(i, r, s, c->lists + k);
}

static const char *make_choices(const struct image *i, const struct wire_frontend *r, struct choice **made) {
    *made = calloc(r->count, sizeof **made);
    for (uint32_t k = 0; *made && k < r->count; k++) {
        const struct wire_choice *w = i->choices + r->first + k;
        struct choice *c = *made + k;
        struct set *s = w->set ? table_find_set(w->set) : NULL;
        if (w->set && (!s || (i->head->flags & IMAGE_FULL && !s->named)))
            return "a choice's set, which there is not";
        c->action = w->action;
        c->replace_source = w->replace_source;
        c->prefixes = w->count ? malloc(w->count * sizeof *c->prefixes) : NULL;
        if (w->count && !c->prefixes)
            return "no memory";
        c->n_prefixes = w->count;
        if (w->count)
            memcpy(c->prefixes, i->prefixes + w->first, w->count * sizeof *c->prefixes);
        if ((c->set = s))
            s->refs++;
    }
    return *made ? NULL : "no memory";
}

static const char *make_frontend(const struct image *i, uint32_t k, struct change *c) {
    const struct wire_frontend *r = i->frontends + k;
    struct address a;
    memcpy(a.b, r->address, sizeof a.b);
    struct frontend *f = table_find(r->protocol, &a, r->port);
    if (f && f->named)
        return "a frontend twice";
    if (!f) {
        f = calloc(1, sizeof *f);
        if (!f || !hash_put(&table.frontends, &f->node, frontend_hash(r->protocol, &a, r->port))) {
            free(f);
            return "no memory";
        }
        f->address = a;
        f->port = r->port;
        f->protocol = r->protocol;
        f->refs = 1;
        f->fresh = f->gone = true;
    }
    f->named = true;
    c->frontends[k] = f;
    return r->flags & RECORD_GONE ? NULL : make_choices(i, r, c->choices + k);
}

/* ---- put in place */

static void let_go(struct backend *b, int64_t now) {
    b->gone_at = now;
    if (b->refs > 1 && list_empty(&b->gone_list))
        list_append(&table.gone, &b->gone_list);
    backend_drop(b);
}

static void put_list(struct set *s, struct backend **list, uint32_t n, int64_t now) {
    struct backend **old = s->backends;
    uint32_t old_n = s->n;
    for (uint32_t k = 0; k < old_n; k++)
        old[k]->gone = true;
    for (uint32_t k = 0; k < n; k++)
        list[k]->gone = false;
    s->backends = list;
    s->n = n;
    for (uint32_t k = 0; k < old_n; k++)
        if (old[k]->gone)
            let_go(old[k], now);
        else
            backend_drop(old[k]);
    free(old);
}

static void put_frontend(struct frontend *f, struct choice *choices, uint32_t n, uint32_t affinity) {
    for (uint32_t k = 0; k < n && k < f->n_choices; k++)
        choices[k].next = f->choices[k].next;
    free_choices(f->choices, f->n_choices);
    f->choices = choices;
    f->n_choices = n;
    f->affinity = affinity;
    f->named = f->fresh = false;
    f->gone = false;
    if (f->protocol != IPPROTO_TCP)
        own_put(f);
}

static void remove_frontend(struct frontend *f) {
    hash_remove(&table.frontends, &f->node);
    f->gone = true;
    own_gone(f);
    frontend_drop(f);
}

static void remove_set(struct set *s, int64_t now) {
    hash_remove(&table.sets, &s->node);
    put_list(s, NULL, 0, now);
    set_drop(s);
}

/* What a full image does not name. Before the rest, while `named` tells. */
static void remove_unnamed(int64_t now) {
    for (size_t k = 0; table.frontends.slots && k <= table.frontends.mask; k++)
        for (struct node *n = table.frontends.slots[k], *next; n; n = next) {
            next = n->next;
            if (!CONTAINER(n, struct frontend, node)->named)
                remove_frontend(CONTAINER(n, struct frontend, node));
        }
    for (size_t k = 0; table.sets.slots && k <= table.sets.mask; k++)
        for (struct node *n = table.sets.slots[k], *next; n; n = next) {
            next = n->next;
            if (!CONTAINER(n, struct set, node)->named)
                remove_set(CONTAINER(n, struct set, node), now);
        }
}

static void commit(const struct image *i, struct change *c, int64_t now) {
    const struct wire_image *h = i->head;
    if (h->flags & IMAGE_FULL)
        remove_unnamed(now);
    for (uint32_t k = 0; k < h->n_sets; k++) {
        struct set *s = c->sets[k];
        s->named = s->fresh = false;
        for (uint32_t e = 0; e < i->sets[k].count; e++) {
            uint16_t flags = i->endpoints[i->sets[k].first + e].flags;
            c->lists[k][e]->terminating = flags & ENDPOINT_TERMINATING;
            c->lists[k][e]->own = flags & ENDPOINT_OWN;
        }
        put_list(s, c->lists[k], i->sets[k].count, now);
        if (i->sets[k].flags & RECORD_GONE)
            remove_set(s, now);
    }
    for (uint32_t k = 0; k < h->n_frontends; k++)
        if (i->frontends[k].flags & RECORD_GONE)
            remove_frontend(c->frontends[k]);
        else
            put_frontend(c->frontends[k], c->choices[k], i->frontends[k].count, i->frontends[k].affinity);
    table.generation = h->generation;
}

static void take_back(const struct image *i, struct change *c) {
    for (uint32_t k = 0; c->frontends && k < i->head->n_frontends; k++) {
        struct frontend *f = c->frontends[k];
        if (c->choices)
            free_choices(c->choices[k], i->frontends[k].count);
        if (!f)
            continue;
        f->named = false;
        if (f->fresh)
            remove_frontend(f);
    }
    for (uint32_t k = 0; c->sets && k < i->head->n_sets; k++) {
        struct set *s = c->sets[k];
        for (uint32_t e = 0; c->lists && c->lists[k] && e < i->sets[k].count && c->lists[k][e]; e++)
            backend_drop(c->lists[k][e]);
        if (c->lists)
            free(c->lists[k]);
        if (!s)
            continue;
        s->named = false;
        if (s->fresh)
            remove_set(s, 0);
    }
}

static const char *make(const struct image *i, struct change *c) {
    const struct wire_image *h = i->head;
    const char *wrong = NULL;
    if (!c->sets || !c->lists || !c->frontends || !c->choices)
        return "no memory";
    for (uint32_t k = 0; k < h->n_sets && !wrong; k++)
        wrong = make_set(i, k, c);
    for (uint32_t k = 0; k < h->n_frontends && !wrong; k++)
        wrong = make_frontend(i, k, c);
    return wrong;
}

const char *table_apply(const uint8_t *bytes, size_t size, int64_t now) {
    struct image i;
    const char *wrong = image_check(bytes, size, &i);
    if (wrong)
        return wrong;
    if (!(i.head->flags & IMAGE_FULL) && i.head->base != table.generation)
        return "a change of another generation";
    struct change c = {calloc(i.head->n_sets + 1u, sizeof *c.sets), calloc(i.head->n_sets + 1u, sizeof *c.lists),
                       calloc(i.head->n_frontends + 1u, sizeof *c.frontends), calloc(i.head->n_frontends + 1u, sizeof *c.choices)};
    wrong = make(&i, &c);
    if (wrong)
        take_back(&i, &c);
    else
        commit(&i, &c, now);
    free(c.sets);
    free(c.lists);
    free(c.frontends);
    free(c.choices);
    return wrong;
}
