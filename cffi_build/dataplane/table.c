/* The table: frontends and sets by their keys, and how long what is in it lives. */
#include <stdlib.h>
#include <string.h>

#include "dp.h"

struct table table = {.gone = {&table.gone, &table.gone}};

struct key {
    struct address address;
    uint16_t port, protocol;
};

uint64_t frontend_hash(uint8_t protocol, const struct address *a, uint16_t port) {
    struct key k = {*a, port, protocol};
    return hash_bytes(&k, sizeof k);
}

struct frontend *table_find(uint8_t protocol, const struct address *a, uint16_t port) {
    uint64_t hash = frontend_hash(protocol, a, port);
    for (struct node *n = hash_first(&table.frontends, hash); n; n = n->next) {
        struct frontend *f = CONTAINER(n, struct frontend, node);
        if (n->hash == hash && f->port == port && f->protocol == protocol && address_equal(&f->address, a))
            return f;
    }
    return NULL;
}

struct set *table_find_set(uint64_t id) {
    for (struct node *n = hash_first(&table.sets, hash_bytes(&id, sizeof id)); n; n = n->next)
        if (CONTAINER(n, struct set, node)->id == id)
            return CONTAINER(n, struct set, node);
    return NULL;
}

struct backend *table_find_backend(uint64_t id, const uint8_t *address, uint16_t port) {
    struct set *s = table_find_set(id);
    for (uint32_t k = 0; s && k < s->n; k++)
        if (s->backends[k]->port == port && memcmp(s->backends[k]->address.b, address, sizeof s->backends[k]->address.b) == 0)
            return s->backends[k];
    return NULL;
}

void backend_drop(struct backend *b) {
    if (--b->refs)
        return;
    list_remove(&b->gone_list);
    free(b);
}

void set_drop(struct set *s) {
    if (--s->refs)
        return;
    free(s->backends);
    free(s);
}

void free_choices(struct choice *choices, uint32_t n) {
    for (uint32_t k = 0; choices && k < n; k++) {
        free(choices[k].prefixes);
        if (choices[k].set)
            set_drop(choices[k].set);
    }
    free(choices);
}

void frontend_drop(struct frontend *f) {
    if (--f->refs)
        return;
    free_choices(f->choices, f->n_choices);
    free(f);
}
