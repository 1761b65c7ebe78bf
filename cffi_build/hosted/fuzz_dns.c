/* The fuzzer of pyrun-dns: libFuzzer drives its real decoders. The first byte says which.
 *
 * A query is served from a table and a cache that are there; a table is opened, and when it is taken, asked; a control message is taken, and
 * the query behind it served. What comes out must be a message no longer than its limit, with the question as it came, of whole records.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../dns/dns.h"

enum { QUERY, TABLE, CONTROL };
static const uint8_t *good;
static size_t good_n;

static void fail(const char *why) {
    fprintf(stderr, "%s\n", why);
    abort();
}

/* ---- what the rest of the program would do */
void die(const char *what, int error) {
    fprintf(stderr, "%s %d\n", what, error);
    abort();
}
void watch(int fd, unsigned kind, unsigned index, unsigned events, int change) { (void)fd, (void)kind, (void)index, (void)events, (void)change; }
void stop_serving(void) {}
void udp_add(int fd) { close(fd); }
void udp_send(const struct peer *peer, const uint8_t *p, size_t n) {
    (void)peer;
    if (n > UDP_MOST || n < HEAD || !(p[2] & 0x80))
        fail("a reply to one who waits is too long, or none");
}
void peer_source(struct peer *peer) { memset(peer->source, 0, 16); }

static void *mapped(const uint8_t *p, size_t n) {
    void *map = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        fail("mmap");
    memcpy(map, p, n);
    return map;
}

static void take_table(const uint8_t *p, size_t n) {
    size_t where;
    if (!n)
        return;
    uint8_t *map = mapped(p, n);
    if (table_open(&server.table, map, n, &where)) {
        munmap(map, n);
        if (where > n)
            fail("the fault is outside of the table");
    }
}

static void ask(const uint8_t *p, size_t n, int tcp) {
    static uint8_t out[TCP_MOST];
    struct peer peer = {.tcp = 0};
    (void)tcp;
    const size_t size = serve(p, n, &peer, out);
    if (!size)
        return;
    if (size > UDP_MOST || size < HEAD || memcmp(out, p, 2) || !(out[2] & 0x80))
        fail("this is no reply to that query");
    size_t at = HEAD;
    if (be16(out + 4)) {
        const size_t name = name_size(out + HEAD, size - HEAD);
        if (!name || memcmp(out + HEAD, p + HEAD, name + 4))
            fail("the question did not come back");
        at += name + 4;
    }
    for (unsigned records = be16(out + 6) + be16(out + 8) + be16(out + 10); records; records--)
        if (!(at = record_end(out, at, size)))
            fail("a record is cut");
    if (at != size)
        fail("bytes behind the last record");
}

/* Every name of a table is asked, in types that it may have. */
static void ask_all(void) {
    static const uint8_t kinds[] = {1, 5, 28, 33, 255};
    uint8_t query[HEAD + NAME_MOST + 4] = {0, 1, 1, 0, 0, 1};
    for (uint32_t i = 0; server.table.map && i <= server.table.mask && i < 4096; i++) {
        if (!server.table.slots[i].at)
            continue;
        const struct node *node = (const void *)(server.table.map + server.table.slots[i].at);
        memcpy(query + HEAD, node->name, node->name_n);
        for (size_t k = 0; k < sizeof kinds; k++) {
            put16(query + HEAD + node->name_n, kinds[k]);
            put16(query + HEAD + node->name_n + 2, 1);
            ask(query, HEAD + node->name_n + 4u, 0);
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const uint8_t everyone[18];
    const char *path = getenv("PYRUN_FUZZ_TABLE");
    (void)argc, (void)argv;
    source_prefixes(everyone, sizeof everyone);
    server.control = -1, server.forwards = 1, server.now = 1000;
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (file) {
        static uint8_t bytes[1 << 20];
        good_n = fread(bytes, 1, sizeof bytes, file);
        good = bytes;
        fclose(file);
        take_table(good, good_n);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static _Alignas(8) uint8_t bytes[1 << 16];
    if (n < 4 || n > sizeof bytes)
        return 0;
    const int what = p[0] % 3;
    server.now += p[1] * 100;
    if (what == QUERY) {
        uint8_t *exact = malloc(n - 4); /* of just this size, so that a byte too far is seen */
        memcpy(exact, p + 4, n - 4);
        ask(exact, n - 4, 0);
        free(exact);
    } else if (what == TABLE) {
        take_table(p + 4, n - 4);
        ask_all();
        table_close(&server.table);
        if (good)
            take_table(good, good_n);
    } else {
        size_t message = (size_t)p[2] << 8 | p[3];
        message = message > n - 4 ? n - 4 : message;
        memcpy(bytes, p + 4, message);
        control_message(bytes, message, NULL, 0);
        ask(p + 4 + message, n - 4 - message, 0);
        static const uint8_t everyone[18];
        source_prefixes(everyone, sizeof everyone);
        source_rate(0);
        server.forwards = 1;
    }
    wait_timers(server.now);
    return 0;
}
