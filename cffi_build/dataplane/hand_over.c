/* From a data plane that retires to the next one: sockets of UDP and SCTP with what waits in them, flows with their sockets, pins. Connections stay
 * with the one that has them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dp.h"

enum { PINS_MOST = 1 << 18 };

struct frontend *entry_frontend(const struct wire_entry *e, uint8_t protocol) {
    struct address a;
    memcpy(a.b, e->frontend, sizeof a.b);
    return table_find(protocol, &a, e->frontend_port);
}

uint32_t give(uint16_t kind, struct wire_entry *entries, int *fds, uint32_t most) {
    uint32_t n = 0;
    while (n < most && (kind == WIRE_GIVE_SOCKETS ? own_give(entries + n, fds + n) : flow_give(entries + n, fds + n)))
        n += fds[n] >= 0;
    return n;
}

/* The descriptors are ours. What has no place here any more is closed, which is no fault. */
const char *take_entries(uint16_t kind, const uint8_t *body, uint32_t size, int *fds, uint32_t n_fds) {
    bool whole = size == n_fds * sizeof(struct wire_entry);
    for (uint32_t k = 0; k < n_fds; k++) {
        struct wire_entry e;
        if (whole)
            memcpy(&e, body + k * sizeof e, sizeof e);
        if (!whole || !(kind == WIRE_TAKE_SOCKETS ? own_adopt(&e, fds[k]) : flow_take(&e, fds[k])))
            close(fds[k]);
    }
    return whole ? NULL : "entries and descriptors that are not as many";
}

int give_pins(void) {
    size_t size = (affinity_count() + 1) * sizeof(struct wire_entry);
    int fd = memfd_create("pins", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    void *p = ftruncate(fd, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        close(fd);
        errno = ENOMEM;
        return -1;
    }
    size_t n = affinity_give(p, affinity_count(), now_ms);
    munmap(p, size);
    if (ftruncate(fd, (off_t)(n * sizeof(struct wire_entry)))) {
        close(fd);
        return -1;
    }
    return fd;
}

static void take_pin(const struct wire_entry *e) {
    struct frontend *f = entry_frontend(e, e->protocol);
    struct backend *b = table_find_backend(e->set, e->endpoint, e->endpoint_port);
    struct address client;
    memcpy(client.b, e->client, sizeof client.b);
    if (!f || !f->affinity || !b)
        return;
    int64_t until = now_ms + e->ms;
    affinity_set(f, &client, b, until < affinity_end(f) ? until : affinity_end(f));
}

/* Read by pread(2) and not mapped: it need not be sealed, nor as long as it says. */
const char *take_pins(int fd) {
    struct wire_entry e[64];
    for (off_t at = 0; at < (off_t)(PINS_MOST * sizeof *e);) {
        ssize_t n = pread(fd, e, sizeof e, at);
        if (n < 0)
            return "pins that can't be read";
        for (size_t k = 0; k < (size_t)n / sizeof *e; k++)
            take_pin(e + k);
        if ((size_t)n < sizeof e)
            return NULL;
        at += n;
    }
    return "more pins than there may be";
}
