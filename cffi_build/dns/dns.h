/* pyrun-dns: answers questions out of a table that Python has compiled, and out of a cache of what Python has asked other servers.
 *
 * One thread and one event loop. It knows records and names, and no word of Kubernetes. Its sockets and its table come over the control
 * socket; it opens no file and makes no connection, and goes on with what it has when nobody is at the control socket's other end.
 */
#ifndef PYRUN_DNS_H
#define PYRUN_DNS_H
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { T_CNAME = 5, T_HINFO = 13, T_OPT = 41, T_META = 128, T_IXFR = 251, T_ANY = 255 };
enum { NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 16 };
enum { QR = 0x8000, AA = 0x0400, TC = 0x0200, RD = 0x0100, RA = 0x0080, CD = 0x0010, OPCODE = 0x7800, DO = 0x8000 };
enum { HEAD = 12, NAME_MOST = 255, UDP_LEAST = 512, UDP_MOST = 1232, TCP_MOST = 65535, OPT_SIZE = 11 };
enum { SOCKETS_MOST = 64, STALE_TTL = 30, ZONES_MOST = 255 };
enum { STALE_AFTER_MS = 1800, GIVE_UP_MS = 5000, STALE_HOLD_MS = 5000 };

/* ---- bytes; the sources of both are not trusted, so that lengths are checked before each */
static inline uint16_t be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t be32(const uint8_t *p) { return (uint32_t)be16(p) << 16 | be16(p + 2); }
static inline void put16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }
static inline void put32(uint8_t *p, uint32_t v) { put16(p, v >> 16), put16(p + 2, v & 0xffff); }

struct peer;
/* ---- query.c */
struct query {
    uint16_t id, flags, kind, cls, edns; /* edns: flags of the OPT record that come back */
    int payload;                         /* -1: without EDNS */
    uint8_t version, name_n, lower_n, step;
    int64_t came_ns;
    uint8_t name[NAME_MOST];  /* as it came */
    uint8_t lower[NAME_MOST]; /* as it is looked up: the same, or with `step` that name of the asker's search path */
};
int query_read(const uint8_t *p, size_t n, struct query *q); /* -1: no reply; 0: fine; else the rcode */
int query_refused(const struct query *q);                    /* the rcode, or 0 */
size_t name_size(const uint8_t *p, size_t n);                /* of an uncompressed name, 0: it is none */
size_t record_end(const uint8_t *p, size_t at, size_t n);    /* 0: no record there */
void lower_name(uint8_t *to, const uint8_t *from, size_t n);

/* ---- table.c: see pyrun/dns/encode.py for the layout */
struct answer_head {
    uint16_t type, rcode, an, ns, ar;
    uint16_t lead, stride, turn; /* after `lead` bytes `turn` records of `stride` bytes take turns in being the first */
    uint16_t an_n, ns_n, ar_n, unused;
};
struct node {
    uint32_t size;
    uint8_t name_n, zone, flags, answers; /* zone: its number from 1, 0: in none */
    uint8_t name[];
};
enum { NODE_FORWARD = 1 }; /* an alias that leads to names that other servers have */
struct zone {
    uint32_t size;
    uint8_t name_n, unused;
    uint16_t soa_n;
    uint8_t name[];
};
struct path { /* what a pod's resolver tries: the name that it begins with, and the others in order */
    uint32_t size;
    uint8_t names_n, unused[3];
    uint8_t names[];
};
struct client { uint8_t address[16]; uint32_t path; };
struct table {
    const uint8_t *map;
    size_t size;
    uint64_t generation;
    uint32_t zones_n, nodes_n, ttl, mask, paths_n, clients_n;
    const struct path **paths;
    const struct client *clients; /* by their addresses */
    const struct zone *zones[ZONES_MOST];
    struct slot { uint32_t hash, at; } *slots; /* open addressing, at most half full; at 0: free */
};
/* 0, or what is wrong with the table, and where; `t` is then unchanged. The map is the table's from then on. */
const char *table_open(struct table *t, const uint8_t *map, size_t size, size_t *where);
void table_close(struct table *t);
const struct node *table_node(const struct table *t, const uint8_t *name, size_t n);
const struct path *table_path(const struct table *t, const uint8_t address[16]);
const struct zone *table_zone(const struct table *t, const uint8_t *name, size_t n, size_t *at);
const struct answer_head *node_answer(const struct node *node, unsigned kind, const uint8_t **data);
const uint8_t *zone_soa(const struct zone *zone);
uint32_t hash_name(const uint8_t *name, size_t n, unsigned kind);
void hash_seed(void);

/* ---- answer.c */
struct found { /* what is said, as pieces of a reply */
    unsigned rcode, flags, an, ns, ar, lead, stride, turn;
    const uint8_t *data;
    size_t an_n, ns_n, ar_n;
    const uint8_t *soa;
    size_t soa_n, soa_at; /* where in the message the zone's name stands */
    uint32_t age;         /* seconds to take from each TTL; UINT32_MAX: all are STALE_TTL */
};
enum act { ACT_DROP, ACT_REPLY, ACT_ASK }; /* ASK: another server */
enum act answer(const struct table *t, const struct query *q, struct found *f, int *alias);
size_t reply(const struct query *q, const struct found *f, unsigned turn, uint8_t *out, size_t limit);
size_t reply_bare(const uint8_t *p, unsigned rcode, uint8_t *out);
size_t reply_limit(const struct query *q, int tcp);

/* ---- path.c */
int path_walk(struct query *q, const struct peer *peer, unsigned step, uint8_t *out, size_t *n);

/* ---- cache.c */
struct cached {
    struct cached *next, *newer, *older;
    uint32_t hash, size;
    int64_t made_ms, until_ms, stale_until_ms, hold_ms; /* hold: nobody is asked again before */
    uint16_t kind, rcode, an, ns, ar, an_n, ns_n, ar_n, hits;
    uint8_t alias, asked, name_n;
    uint8_t bytes[]; /* the name, then the records */
};
void cache_limit(size_t bytes);
struct cached *cache_find(const uint8_t *name, size_t n, unsigned kind);
int cache_put(const uint8_t *name, size_t n, unsigned kind, const struct found *f, uint32_t ttl, uint32_t stale_s, int alias, int64_t now);
void cache_found(const struct cached *c, int64_t now, int stale, struct found *f);
void cache_drop(int aliases_only);
size_t cache_bytes(void);
size_t cache_entries(int denials);
int is_denial(unsigned rcode, unsigned an); /* an answer without a record */

/* ---- limit.c */
struct source { uint64_t key; uint32_t tokens, stamp; uint16_t waiting, used; };
int source_allowed(const uint8_t address[16]);
int source_prefixes(const uint8_t *p, size_t n); /* 18 bytes each: address, bits, 0 */
void source_rate(uint32_t a_second);
struct source *source_of(const uint8_t address[16], int64_t now);
int source_may(const uint8_t address[16], int64_t now); /* 1: reply; 0: none; -1: with TC and nothing else */

/* ---- waiting.c */
struct peer { /* who asked, and where the reply goes */
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } address;
    uint8_t source[16]; /* the same, IPv4 mapped into IPv6 */
    int socket, tcp;    /* index of the UDP socket, or of the TCP connection with its number */
    uint64_t number;
    union { struct in_pktinfo v4; struct in6_pktinfo v6; } local; /* the address that was asked, where the socket has many */
};
void wait_for(const struct query *q, const struct peer *peer, int alias, int64_t now, uint8_t *out, size_t *out_n);
void wait_refresh(const struct cached *c, int64_t now);
void wait_answered(const uint8_t *name, size_t n, unsigned kind, const struct found *f, int failed, int64_t now);
void wait_nobody(int64_t now); /* Python is gone */
int64_t wait_timers(int64_t now); /* when to come again, -1: never */
size_t wait_count(void);
void peer_source(struct peer *peer);

/* ---- serve.c */
enum from { FROM_NOBODY, FROM_TABLE, FROM_CACHE, FROM_OLD, FROM_OTHERS };
struct look { /* left: seconds for which the answer is kept; of others, for which an old one is good where they are silent */
    uint8_t from, name_n; /* name: for which the cache was looked at */
    uint32_t left;
    uint8_t name[NAME_MOST];
};
/* What serve() would reply over TCP now: the same, but that nobody is asked or waits, and nothing is counted. */
size_t look(const uint8_t *p, size_t n, const uint8_t source[16], uint8_t *out, struct look *l);

/* ---- count.c */
enum { KIND_UNREAD, KIND_OTHER, KINDS = 20, TIMES = 17, TIME_LEAST_NS = 250000 }; /* CoreDNS' bounds: 0.25 ms, each twice the one before; the last: more */
unsigned kind_index(unsigned kind);
uint64_t *count_of(const struct peer *peer); /* queries of its transport and family, by kind_index() */
int64_t clock_read(void);                    /* into server.now_ns */
void count_reply(unsigned index);            /* one that goes out with the batch, of which count_sent() tells */
void count_sent(void);
void count_waited(unsigned kind, int64_t came_ns);

/* ---- udp.c, tcp.c, control.c, main.c */
extern struct server {
    struct table table;
    int epoll, control_listener, control, draining, forwards;
    int64_t now, now_ns, drain_until; /* now_ns: the same clock, read once more behind each batch */
    struct { int fd, wildcard, family; } udp[SOCKETS_MOST];
    int udp_n;
    int tcp[SOCKETS_MOST], tcp_n;
    unsigned turn;
    struct look *look; /* only while look() goes on */
    struct counters {
        uint64_t answers, nxdomain, nodata, dropped_source, dropped_rate, malformed, refused, truncated, asked, stale, failed,
            tcp_accepted, tcp_refused, send_failed, shared, autopath, misses, refreshed;
        uint64_t hits[2];                  /* of answers with a record, of denials */
        uint64_t rcodes[7], unread[7];     /* replies by NOERROR to REFUSED, and BADVERS; to what could not be read */
        uint64_t queries[2][2][KINDS];     /* UDP, TCP; IPv4, IPv6 */
        uint64_t times[KINDS][TIMES], time_ns[KINDS];
    } n;
} server;
enum { KIND_CONTROL_LISTENER, KIND_CONTROL, KIND_UDP, KIND_TCP_LISTENER, KIND_TCP };
/* 1: `f` is what the cache has; 0: `out` has a reply of *n bytes, or, where that is 0, the question waits. */
int from_cache(const struct query *q, const struct peer *peer, int alias, struct found *f, uint8_t *out, size_t *n);
/* One question out of bytes: the reply's size, 0: none now. */
size_t serve(const uint8_t *p, size_t n, const struct peer *peer, uint8_t *out);
void udp_add(int fd);
void udp_read(int index);
void udp_send(const struct peer *peer, const uint8_t *p, size_t n);
void tcp_listen(int fd);
void tcp_accept(int index);
void tcp_event(int index, unsigned events);
void tcp_send(const struct peer *peer, const uint8_t *p, size_t n);
int64_t tcp_timers(int64_t now);
int tcp_count(void);
void control_accept(void);
void control_event(void);
int control_ask(const uint8_t *name, size_t n, unsigned kind, unsigned flags, const uint8_t source[16]);
int control_message(const uint8_t *p, size_t n, int *fds, int fds_n);
void watch(int fd, unsigned kind, unsigned index, unsigned events, int change);
void stop_serving(void);
void sandbox(unsigned uid, unsigned gid);
void die(const char *what, int error);
#endif
