/* pyrun-probe: asks over and over what a probe of HTTP or TCP asks, as long as the answer is good, and says nothing.
 *
 * The agent hands it a probe that has succeeded, and hears of it again when it does not: what that means, and when else a probe runs, is the
 * agent's. An answer that is not as plain as most are it does not judge: it says so, and the agent asks by itself.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>

enum { SLOTS = 2048, MOST_REQUEST = 8192, MOST_HEAD = 16384, MOST_BODY = 10240 };

/* From the agent, followed by the request; none: TCP is asked, and that is connecting. */
struct watch {
    uint32_t slot, generation, period_ms, first_ms, timeout_ms;
    uint16_t family, port; /* 4 or 6; of the host's order */
    uint8_t address[16];
    uint32_t request;
};

/* To the agent. The slot is idle then. A shortage is ours, and says nothing of the server. */
enum told { TOLD_STATUS = 1, TOLD_CONNECT, TOLD_READ, TOLD_EOF, TOLD_TIMEOUT, TOLD_STRANGE, TOLD_SHORTAGE };
struct tell {
    uint32_t slot, generation, kind;
    int32_t value; /* the status, or an errno */
    uint64_t begun_ns;
};

/* What both have mapped, one for each slot. wanted: the generation, which the agent writes; the rest is ours, and counts for the generation `of`. */
enum { BUCKETS = 12 }; /* as Prometheus has them where nobody says which: 5 ms to 10 s, and more */
struct shared {
    uint32_t wanted, of;
    uint64_t runs, last_ns, took_ns; /* good answers; when the last one was begun, by the wall clock; how long all took */
    uint32_t took[BUCKETS];          /* how many of them took so long */
};

/* ---- http.c: of strangers' bytes */
enum http { HTTP_MORE, HTTP_GOOD, HTTP_STATUS, HTTP_STRANGE, HTTP_EOF };
struct answer {
    uint32_t looked; /* bytes in which no head ends */
    uint32_t head;   /* its length, 0 before it has come */
    uint32_t status;
    int64_t length;  /* of the body; -1: until the end */
};
/* What the n bytes that have come are; ended: no more will. a: zeroed before the first. */
enum http http_look(struct answer *a, const uint8_t *p, size_t n, int ended);

/* ---- the rest */
extern struct shared *shared;
void die(const char *what, int error) __attribute__((noreturn));
void sandbox(unsigned uid, unsigned gid);
void prepare(void);
void loop(void) __attribute__((noreturn));

#endif
