/* Hash tables whose keys a stranger may choose: so the hash is keyed, and a table grows with what is in it. Addresses. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "dp.h"

static uint64_t secret[2];

static uint64_t mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_bytes(const void *p, size_t n) {
    if (!secret[0] && getrandom(secret, sizeof secret, 0) != sizeof secret)
        abort();
    uint64_t h = secret[0] ^ n;
    const uint8_t *at = p;
    while (n) {
        uint64_t word = 0;
        size_t part = n < 8 ? n : 8;
        memcpy(&word, at, part);
        h = mix(h ^ word, secret[1] | 1) ^ secret[0];
        at += part;
        n -= part;
    }
    return mix(h, 0x9e3779b97f4a7c15u);
}

static bool grow(struct hash *h) {
    size_t n = h->slots ? 2 * (h->mask + 1) : 16;
    struct node **slots = calloc(n, sizeof *slots);
    if (!slots)
        return h->slots != NULL; /* chains grow longer */
    for (size_t i = 0; h->slots && i <= h->mask; i++)
        for (struct node *node = h->slots[i], *next; node; node = next) {
            next = node->next;
            node->next = slots[node->hash & (n - 1)];
            slots[node->hash & (n - 1)] = node;
        }
    free(h->slots);
    h->slots = slots;
    h->mask = n - 1;
    return true;
}

bool hash_put(struct hash *h, struct node *n, uint64_t hash) {
    if ((!h->slots || h->count > h->mask) && !grow(h))
        return false;
    n->hash = hash;
    n->next = h->slots[hash & h->mask];
    h->slots[hash & h->mask] = n;
    h->count++;
    return true;
}

void hash_remove(struct hash *h, struct node *n) {
    struct node **at = &h->slots[n->hash & h->mask];
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    h->count--;
}

static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool address_equal(const struct address *a, const struct address *b) { return memcmp(a, b, sizeof *a) == 0; }
bool address_is_v4(const struct address *a) { return memcmp(a, v4_mapped, sizeof v4_mapped) == 0; }

bool address_is_loopback(const struct address *a) {
    static const struct address one = {{[15] = 1}};
    return address_is_v4(a) ? a->b[12] == 127 : address_equal(a, &one);
}

bool address_in(const struct address *a, const struct wire_prefix *p) {
    unsigned whole = p->length / 8, rest = p->length % 8;
    return memcmp(a->b, p->address, whole) == 0 && (!rest || (uint8_t)((a->b[whole] ^ p->address[whole]) >> (8 - rest)) == 0);
}

bool address_read(const struct sockaddr_storage *from, struct address *a, uint16_t *port) {
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)from;
        memcpy(a->b, v4_mapped, sizeof v4_mapped);
        memcpy(a->b + 12, &in->sin_addr, 4);
        *port = ntohs(in->sin_port);
        return true;
    }
    if (from->ss_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *in6 = (const void *)from;
    memcpy(a->b, &in6->sin6_addr, sizeof a->b);
    *port = ntohs(in6->sin6_port);
    return true;
}

socklen_t address_write(const struct address *a, uint16_t port, struct sockaddr_storage *to) {
    if (address_is_v4(a)) {
        struct sockaddr_in *in = (void *)to;
        *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&in->sin_addr, a->b + 12, 4);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (void *)to;
    *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memcpy(&in6->sin6_addr, a->b, sizeof a->b);
    return sizeof *in6;
}
