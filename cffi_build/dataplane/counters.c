/* What was counted, for who asks: a memfd with a record a frontend and one an endpoint. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dp.h"

static uint32_t count_endpoints(void) {
    uint32_t n = 0;
    for (size_t k = 0; table.sets.slots && k <= table.sets.mask; k++)
        for (struct node *s = table.sets.slots[k]; s; s = s->next)
            n += CONTAINER(s, struct set, node)->n;
    for (struct list *l = table.gone.next; l != &table.gone; l = l->next)
        n++;
    return n;
}

static void put_frontend(const struct frontend *f, struct wire_frontend_counters *c) {
    *c = (struct wire_frontend_counters){.port = f->port, .protocol = f->protocol, .active = f->active, .accepted = f->accepted,
                                         .failed = f->failed, .refused = f->refused, .bytes_in = f->bytes[0], .bytes_out = f->bytes[1],
                                         .retried = f->retried, .error = f->own ? f->own->error : 0};
    memcpy(c->address, f->address.b, sizeof c->address);
}

static void put_backend(const struct backend *b, struct wire_endpoint_counters *c) {
    *c = (struct wire_endpoint_counters){.set = b->set, .port = b->port, .active = b->active, .connected = b->connected, .failed = b->failed,
                                         .flags = (uint16_t)((b->terminating ? ENDPOINT_TERMINATING : 0) | (b->gone ? RECORD_GONE << 8 : 0))};
    memcpy(c->address, b->address.b, sizeof c->address);
}

static void fill(uint8_t *p, uint32_t n_frontends, uint32_t n_endpoints) {
    struct wire_counters head = {WIRE_MAGIC, WIRE_VERSION, 0, n_frontends, n_endpoints};
    memcpy(p, &head, sizeof head);
    struct wire_frontend_counters *f = (void *)(p + sizeof head);
    for (size_t k = 0; table.frontends.slots && k <= table.frontends.mask; k++)
        for (struct node *n = table.frontends.slots[k]; n; n = n->next)
            put_frontend(CONTAINER(n, struct frontend, node), f++);
    struct wire_endpoint_counters *e = (void *)f;
    for (size_t k = 0; table.sets.slots && k <= table.sets.mask; k++)
        for (struct node *n = table.sets.slots[k]; n; n = n->next) {
            const struct set *s = CONTAINER(n, struct set, node);
            for (uint32_t i = 0; i < s->n; i++)
                put_backend(s->backends[i], e++);
        }
    for (struct list *l = table.gone.next; l != &table.gone; l = l->next)
        put_backend(CONTAINER(l, struct backend, gone_list), e++);
}

/* -1 and errno. */
int counters_memfd(void) {
    uint32_t n_frontends = (uint32_t)table.frontends.count, n_endpoints = count_endpoints();
    size_t size = sizeof(struct wire_counters) + n_frontends * sizeof(struct wire_frontend_counters) +
                  n_endpoints * sizeof(struct wire_endpoint_counters);
    int fd = memfd_create("counters", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    void *p = ftruncate(fd, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    fill(p, n_frontends, n_endpoints);
    munmap(p, size);
    return fd;
}
