/* The sockets of UDP frontends: one each on its address and port, so that answers come from where the question went. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"

enum { RETRY_MS = 500 };

struct adopted { /* a socket of the data plane before us, whose frontend has not come yet */
    struct node node;
    struct address address;
    uint16_t port;
    int fd;
};
static struct hash adopted;
static struct list waiting = {&waiting, &waiting}, dead = {&dead, &dead};
static int64_t retry_at;
static size_t given_slot;

static bool wants_socket(const struct frontend *f) {
    for (uint32_t k = 0; k < f->n_choices; k++)
        if (f->choices[k].action == ACT_FORWARD)
            return true;
    return false;
}

static int open_socket(const struct frontend *f) {
    struct sockaddr_storage at;
    socklen_t n = address_write(&f->address, f->port, &at);
    bool v4 = at.ss_family == AF_INET;
    int one = 1, fd = socket(at.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_FREEBIND : IPV6_FREEBIND, &one, sizeof one); /* the route to it may be on its way */
    if (!v4)
        setsockopt(fd, SOL_IPV6, IPV6_V6ONLY, &one, sizeof one);
    setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&at, n)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* ---- those of the data plane before us */

static struct adopted *find_adopted(const struct address *a, uint16_t port, uint64_t hash) {
    for (struct node *n = hash_first(&adopted, hash); n; n = n->next) {
        struct adopted *at = CONTAINER(n, struct adopted, node);
        if (n->hash == hash && at->port == port && address_equal(&at->address, a))
            return at;
    }
    return NULL;
}

static int take_adopted(const struct frontend *f) {
    struct adopted *a = adopted.count ? find_adopted(&f->address, f->port, frontend_hash(IPPROTO_UDP, &f->address, f->port)) : NULL;
    if (!a)
        return -1;
    int fd = a->fd;
    hash_remove(&adopted, &a->node);
    free(a);
    return fd;
}

bool udp_adopt(const struct wire_entry *e, int fd) {
    struct adopted *a = calloc(1, sizeof *a);
    if (!a)
        return false;
    memcpy(a->address.b, e->frontend, sizeof a->address.b);
    a->port = e->frontend_port;
    a->fd = fd;
    uint64_t hash = frontend_hash(IPPROTO_UDP, &a->address, a->port);
    if (find_adopted(&a->address, a->port, hash) || !hash_put(&adopted, &a->node, hash)) {
        free(a);
        return false;
    }
    return true;
}

void udp_adopt_no_more(void) {
    for (size_t k = 0; adopted.count && k <= adopted.mask; k++)
        while (adopted.slots[k]) {
            struct adopted *a = CONTAINER(adopted.slots[k], struct adopted, node);
            hash_remove(&adopted, &a->node);
            close(a->fd);
            free(a);
        }
}

/* ---- as frontends come and go */

static bool try_open(struct udp_frontend *u) {
    u->w.fd = take_adopted(u->frontend);
    if (u->w.fd < 0)
        u->w.fd = open_socket(u->frontend);
    if (u->w.fd >= 0 && loop_add(&u->w, EPOLLIN))
        return true;
    if (u->w.fd >= 0)
        close(u->w.fd);
    u->w.fd = -1;
    return false;
}

void udp_put(struct frontend *f) {
    struct udp_frontend *u = f->udp;
    if (!wants_socket(f)) { /* nobody listens then, which the kernel says by ICMP */
        udp_gone(f);
        return;
    }
    if (u) {
        u->version++;
        if (u->given && loop_add(&u->w, EPOLLIN)) /* the next one came to nothing */
            u->given = false;
        return;
    }
    if (!(u = calloc(1, sizeof *u)))
        return;
    u->w = (struct watched){udp_frontend_ready, -1};
    u->frontend = f;
    list_init(&u->flows);
    list_init(&u->waiting);
    f->udp = u;
    if (!try_open(u)) {
        dprintf(STDERR_FILENO, "pyrun-dataplane: UDP port %u of a service is taken: %s; trying again\n", f->port, strerror(errno));
        list_append(&waiting, &u->waiting);
        retry_at = now_ms + RETRY_MS;
    }
}

void udp_gone(struct frontend *f) {
    struct udp_frontend *u = f->udp;
    if (!u)
        return;
    while (!list_empty(&u->flows))
        flow_end(CONTAINER(u->flows.next, struct flow, of_frontend));
    list_remove(&u->waiting);
    if (u->w.fd >= 0) {
        loop_remove(&u->w);
        close(u->w.fd);
    }
    u->w.fd = -1;
    f->udp = NULL;
    list_append(&dead, &u->waiting); /* an event of this batch may be for it */
}

void udp_free_dead(void) {
    while (!list_empty(&dead)) {
        struct udp_frontend *u = CONTAINER(dead.next, struct udp_frontend, waiting);
        list_remove(&u->waiting);
        free(u);
    }
}

/* Of all frontends: who retires has no more datagrams to carry. */
void udp_close(void) {
    for (size_t k = 0; table.frontends.slots && k <= table.frontends.mask; k++)
        for (struct node *n = table.frontends.slots[k]; n; n = n->next)
            udp_gone(CONTAINER(n, struct frontend, node));
}

/* Sockets of which flows are left stay until these have been given away: their answers go through them. */
bool udp_give(struct wire_entry *e, int *fd) {
    for (; table.frontends.slots && given_slot <= table.frontends.mask; given_slot++)
        for (struct node *n = table.frontends.slots[given_slot]; n; n = n->next) {
            struct frontend *f = CONTAINER(n, struct frontend, node);
            if (!f->udp || f->udp->given || f->udp->w.fd < 0)
                continue;
            *e = (struct wire_entry){.frontend_port = f->port, .protocol = IPPROTO_UDP};
            memcpy(e->frontend, f->address.b, sizeof e->frontend);
            *fd = dup(f->udp->w.fd);
            loop_remove(&f->udp->w);
            f->udp->given = true;
            return *fd >= 0;
        }
    given_slot = 0;
    return false;
}

int64_t udp_timers(int64_t now) {
    int64_t wait = flow_timers(now);
    if (list_empty(&waiting))
        return wait;
    if (now >= retry_at) {
        for (struct list *l = waiting.next, *next; l != &waiting; l = next) {
            next = l->next;
            if (try_open(CONTAINER(l, struct udp_frontend, waiting)))
                list_remove(l);
        }
        retry_at = now + RETRY_MS;
    }
    return !list_empty(&waiting) && RETRY_MS < wait ? RETRY_MS : wait;
}
