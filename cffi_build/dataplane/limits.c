/* Who has how much: descriptors are what an attacker can use up, so near their end each client has a share of them, and the listener
 * never stops. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "dp.h"

enum { SPARE = 128, PIPES_MOST = 256, SHARE_LEAST = 16, CEILING_LEAST = 16, V6_PREFIX = 8 };

uint32_t connection_limit;
uint64_t refused_by_limit;
static uint32_t ceiling, flow_ceiling; /* what the descriptors allow */
static struct hash sources;

void limits_init(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r))
        fail(errno, "getrlimit");
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    uint64_t files = r.rlim_cur > 1u << 24 ? 1u << 24 : r.rlim_cur;
    uint32_t pipes = files / 16 < PIPES_MOST ? (uint32_t)files / 16 : PIPES_MOST;
    flow_ceiling = (uint32_t)files / 4;
    uint64_t rest = files - flow_ceiling;
    ceiling = rest > SPARE + 2 * pipes + 64 ? (uint32_t)((rest - SPARE - 2 * pipes) / 2) : CEILING_LEAST;
    connection_limit = ceiling;
    pump_init(pipes);
}

static struct address network(const struct address *client) {
    struct address a = *client;
    if (!address_is_v4(client))
        memset(a.b + V6_PREFIX, 0, sizeof a.b - V6_PREFIX);
    return a;
}

struct source *source_take(const struct address *client) {
    struct address a = network(client);
    uint64_t hash = hash_bytes(&a, sizeof a);
    for (struct node *n = hash_first(&sources, hash); n; n = n->next)
        if (n->hash == hash && address_equal(&CONTAINER(n, struct source, node)->address, &a))
            return CONTAINER(n, struct source, node);
    struct source *s = calloc(1, sizeof *s);
    if (!s || !hash_put(&sources, &s->node, hash)) {
        free(s);
        return NULL;
    }
    s->address = a;
    list_init(&s->by_use);
    return s;
}

/* When its last connection or flow has gone. */
void source_drop(struct source *s) {
    if (s->connections || s->flows)
        return;
    hash_remove(&sources, &s->node);
    free(s);
}

size_t source_count(void) { return sources.count; }

/* Sockets of frontends have descriptors too: those that do not fit beside take them from connections, which have two. */
static uint32_t ceiling_now(void) {
    uint32_t taken = own_sockets > SPARE / 2 ? (own_sockets - SPARE / 2) / 2 : 0;
    return ceiling > taken + CEILING_LEAST ? ceiling - taken : CEILING_LEAST;
}

/* From nine tenths on, a client may have half of what an equal share would be: whoever has little still gets in. */
bool limit_connection(const struct source *s, uint32_t open) {
    uint32_t most = ceiling_now();
    connection_limit = settings.max_connections && settings.max_connections < most ? settings.max_connections : most;
    if (open < connection_limit / 10 * 9)
        return true;
    uint32_t share = connection_limit / (2 * (uint32_t)sources.count + 1);
    return open < connection_limit && s->connections < (share > SHARE_LEAST ? share : SHARE_LEAST);
}

/* The machine's, or of our descriptors: it will be there again. */
bool is_shortage(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS; }

uint32_t limit_flows(void) { return settings.udp_flows < flow_ceiling ? settings.udp_flows : flow_ceiling; }
