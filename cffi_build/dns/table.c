/* The table: one sealed memfd, checked once from its first to its last byte, and an index of our own over it. The index's hash has a secret
 * seed, so that nobody can choose names that fall on each other.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "dns.h"

enum { MAGIC = 0x544e4450, VERSION = 1, WITH_PATHS = 2, TABLE_HEAD = 32, PATHS_HEAD = 8 };
static uint64_t seed[2] = {0x243f6a8885a308d3, 0x13198a2e03707344};

void hash_seed(void) {
    if (getrandom(seed, sizeof seed, 0) != sizeof seed)
        die("getrandom", 0);
    seed[1] |= 1;
}

/* Multiply and fold, eight bytes at a time. */
uint32_t hash_name(const uint8_t *name, size_t n, unsigned kind) {
    uint64_t h = seed[0] ^ (uint64_t)kind << 32 ^ n, w;
    while (n) {
        const size_t take = n < 8 ? n : 8;
        w = 0;
        memcpy(&w, name, take);
        const __uint128_t m = (__uint128_t)(h ^ w) * seed[1];
        h = (uint64_t)m ^ (uint64_t)(m >> 64) ^ seed[0];
        name += take, n -= take;
    }
    h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

static size_t padded(size_t n) { return (n + 3) & ~(size_t)3; }

const uint8_t *zone_soa(const struct zone *zone) { return zone->name + padded(zone->name_n); }

/* Whether a section is so many whole records, which is what a reply's truncation and a cache's ages walk along. */
static int section_fits(const uint8_t *p, size_t n, unsigned records) {
    size_t at = 0;
    for (; records; records--)
        if (!(at = record_end(p, at, n)))
            return 0;
    return at == n;
}

static const char *check_zone(const struct zone *z, size_t left) {
    if (left < sizeof *z || z->size < sizeof *z || z->size > left || z->size % 4)
        return "a zone's size";
    if (z->size < sizeof *z + padded(z->name_n) || name_size(z->name, z->name_n) != z->name_n)
        return "a zone's name";
    if (z->size < sizeof *z + padded(z->name_n) + z->soa_n || z->soa_n < 2 || !section_fits(zone_soa(z), z->soa_n, 1))
        return "a zone's SOA";
    return NULL;
}

static const char *check_node(const struct node *node, size_t left, unsigned zones) {
    if (left < sizeof *node || node->size < sizeof *node || node->size > left || node->size % 4)
        return "a node's size";
    if (node->size < sizeof *node + padded(node->name_n) || name_size(node->name, node->name_n) != node->name_n)
        return "a node's name";
    if (node->zone > zones)
        return "a node's zone";
    size_t room = node->size - sizeof *node - padded(node->name_n);
    if (room < node->answers * sizeof(struct answer_head))
        return "a node's answers";
    const struct answer_head *a = (const void *)(node->name + padded(node->name_n));
    const uint8_t *data = (const uint8_t *)(a + node->answers);
    room -= node->answers * sizeof *a;
    for (unsigned i = 0; i < node->answers; i++, a++) {
        const size_t size = (size_t)a->an_n + a->ns_n + a->ar_n;
        if (size > room || size > TCP_MOST - HEAD - NAME_MOST - 4 - OPT_SIZE)
            return "an answer's size";
        if (!section_fits(data, a->an_n, a->an) || !section_fits(data + a->an_n, a->ns_n, a->ns) ||
            !section_fits(data + a->an_n + a->ns_n, a->ar_n, a->ar))
            return "an answer's records";
        if (a->turn && a->lead + (size_t)a->stride * a->turn != a->an_n)
            return "an answer's turns";
        data += size, room -= size;
    }
    return NULL;
}

static const char *check_path(const struct path *path, size_t left) {
    if (left < sizeof *path || path->size < sizeof *path || path->size > left || path->size % 4)
        return "a path's size";
    const size_t room = path->size - sizeof *path;
    size_t at = 0;
    for (unsigned i = 0; i < path->names_n; i++) {
        const size_t n = name_size(path->names + at, room - at);
        if (!n)
            return "a path's name";
        at += n;
    }
    return path->names_n < 2 || path->names_n > 64 ? "a path's names" : NULL;
}

/* Who has which path, behind the nodes: from `at` to the table's end. */
static const char *open_paths(struct table *t, size_t at, size_t *where) {
    const char *why;
    if (t->paths_n > (t->size - at) / sizeof(struct path) || t->clients_n > (t->size - at) / sizeof(struct client))
        return *where = at, "the counts";
    if (t->paths_n && !(t->paths = calloc(t->paths_n, sizeof *t->paths)))
        return "no memory for the paths";
    for (uint32_t i = 0; i < t->paths_n; i++) {
        t->paths[i] = (const void *)(t->map + at);
        if ((why = check_path(t->paths[i], t->size - at)))
            return *where = at, why;
        at += t->paths[i]->size;
    }
    *where = at;
    if (t->size - at != t->clients_n * sizeof *t->clients)
        return "bytes behind the last node";
    t->clients = (const void *)(t->map + at);
    for (uint32_t i = 0; i < t->clients_n; i++)
        if (t->clients[i].path >= t->paths_n || (i && memcmp(t->clients[i - 1].address, t->clients[i].address, 16) >= 0))
            return *where = at + i * sizeof *t->clients, "a client";
    return NULL;
}

static void index_node(struct table *t, uint32_t at) {
    const struct node *node = (const void *)(t->map + at);
    const uint32_t hash = hash_name(node->name, node->name_n, 0);
    uint32_t i = hash & t->mask;
    while (t->slots[i].at)
        i = (i + 1) & t->mask;
    t->slots[i] = (struct slot){hash, at};
}

const char *table_open(struct table *t, const uint8_t *map, size_t size, size_t *where) {
    struct table new = {.map = map, .size = size};
    *where = 0;
    uint32_t head[8];
    if (size < TABLE_HEAD || size > UINT32_MAX)
        return "the size";
    memcpy(head, map, sizeof head);
    if (head[0] != MAGIC || (head[1] != VERSION && head[1] != WITH_PATHS) || head[4] != size)
        return "the head";
    new.generation = (uint64_t)head[3] << 32 | head[2];
    new.zones_n = head[5], new.nodes_n = head[6], new.ttl = head[7];
    if (new.zones_n > ZONES_MOST || new.nodes_n > size / sizeof(struct node))
        return "the counts";
    size_t at = TABLE_HEAD;
    if (head[1] == WITH_PATHS) {
        if (size - at < PATHS_HEAD)
            return "the head";
        memcpy(head, map + at, PATHS_HEAD);
        new.paths_n = head[0], new.clients_n = head[1];
        at += PATHS_HEAD;
    }
    const char *why;
    for (uint32_t i = 0; i < new.zones_n; i++) {
        new.zones[i] = (const void *)(map + at);
        if ((why = check_zone(new.zones[i], size - at)))
            return *where = at, why;
        at += new.zones[i]->size;
    }
    for (new.mask = 15; new.mask < 2 * (uint64_t)new.nodes_n; new.mask = new.mask * 2 + 1)
        ;
    const size_t slots = (new.mask + (size_t)1) * sizeof *new.slots;
    new.slots = mmap(NULL, slots, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (new.slots == MAP_FAILED)
        return "no memory for the index";
    for (uint32_t i = 0; i < new.nodes_n; i++) {
        const struct node *node = (const void *)(map + at);
        if ((why = check_node(node, size - at, new.zones_n)))
            return munmap(new.slots, slots), *where = at, why;
        index_node(&new, (uint32_t)at);
        at += node->size;
    }
    if ((why = open_paths(&new, at, where)))
        return free(new.paths), munmap(new.slots, slots), why;
    *where = 0;
    table_close(t);
    *t = new;
    return NULL;
}

void table_close(struct table *t) {
    if (!t->map)
        return;
    free(t->paths);
    munmap(t->slots, (t->mask + (size_t)1) * sizeof *t->slots);
    munmap((void *)(uintptr_t)t->map, t->size);
    *t = (struct table){0};
}

const struct node *table_node(const struct table *t, const uint8_t *name, size_t n) {
    if (!t->map)
        return NULL;
    const uint32_t hash = hash_name(name, n, 0);
    for (uint32_t i = hash & t->mask; t->slots[i].at; i = (i + 1) & t->mask) {
        const struct node *node = (const void *)(t->map + t->slots[i].at);
        if (t->slots[i].hash == hash && node->name_n == n && !memcmp(node->name, name, n))
            return node;
    }
    return NULL;
}

const struct path *table_path(const struct table *t, const uint8_t address[16]) {
    for (uint32_t low = 0, high = t->clients_n; low < high;) {
        const uint32_t middle = low + (high - low) / 2;
        const int order = memcmp(address, t->clients[middle].address, 16);
        if (!order)
            return t->paths[t->clients[middle].path];
        *(order < 0 ? &high : &low) = order < 0 ? middle : middle + 1;
    }
    return NULL;
}

/* The zone that a name is in; `at` is where in the name the zone's begins. Zones come with the longest first. */
const struct zone *table_zone(const struct table *t, const uint8_t *name, size_t n, size_t *at) {
    for (uint32_t i = 0; i < t->zones_n; i++) {
        const struct zone *z = t->zones[i];
        if (z->name_n > n || memcmp(name + n - z->name_n, z->name, z->name_n))
            continue;
        for (*at = 0; *at < n - z->name_n; *at += 1 + (size_t)name[*at])
            ;
        if (*at == n - z->name_n)
            return z;
    }
    return NULL;
}

/* Of this kind; if there is none, that for every other kind (type 0); else NULL. */
const struct answer_head *node_answer(const struct node *node, unsigned kind, const uint8_t **data) {
    const struct answer_head *a = (const void *)(node->name + padded(node->name_n));
    const uint8_t *p = (const uint8_t *)(a + node->answers);
    for (unsigned i = 0; i < node->answers; i++, a++) {
        if (a->type == kind || !a->type) {
            *data = p;
            return a;
        }
        p += (size_t)a->an_n + a->ns_n + a->ar_n;
    }
    return NULL;
}
