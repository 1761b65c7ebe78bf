/* The sockets of frontends of UDP and SCTP: one each on its address and port. So answers to datagrams come from where the question went;
 * and SCTP's associations get here at all, as sk_lookup does not know it. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"

enum { RETRY_MS = 500, RETRY_MOST_MS = 4000 };

struct adopted { /* a socket of the data plane before us, whose frontend has not come yet */
    struct node node;
    struct address address;
    uint16_t port;
    uint8_t protocol;
    int fd;
};
uint32_t own_sockets;
static struct hash adopted;
static struct list waiting = {&waiting, &waiting}, dead = {&dead, &dead};
static int64_t retry_at, pause_ms = RETRY_MS;
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
    if (f->protocol == IPPROTO_SCTP)
        return sctp_listen(&at, n);
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

static struct adopted *find_adopted(uint8_t protocol, const struct address *a, uint16_t port, uint64_t hash) {
    for (struct node *n = hash_first(&adopted, hash); n; n = n->next) {
        struct adopted *at = CONTAINER(n, struct adopted, node);
        if (n->hash == hash && at->protocol == protocol && at->port == port && address_equal(&at->address, a))
            return at;
    }
    return NULL;
}

static int take_adopted(const struct frontend *f) {
    uint64_t hash = frontend_hash(f->protocol, &f->address, f->port);
    struct adopted *a = adopted.count ? find_adopted(f->protocol, &f->address, f->port, hash) : NULL;
    if (!a)
        return -1;
    int fd = a->fd;
    hash_remove(&adopted, &a->node);
    free(a);
    return fd;
}

bool own_adopt(const struct wire_entry *e, int fd) {
    struct adopted *a = calloc(1, sizeof *a);
    if (!a)
        return false;
    memcpy(a->address.b, e->frontend, sizeof a->address.b);
    a->port = e->frontend_port;
    a->protocol = e->protocol;
    a->fd = fd;
    uint64_t hash = frontend_hash(a->protocol, &a->address, a->port);
    if (find_adopted(a->protocol, &a->address, a->port, hash) || !hash_put(&adopted, &a->node, hash)) {
        free(a);
        return false;
    }
    return true;
}

void own_adopt_no_more(void) {
    for (size_t k = 0; adopted.count && k <= adopted.mask; k++)
        while (adopted.slots[k]) {
            struct adopted *a = CONTAINER(adopted.slots[k], struct adopted, node);
            hash_remove(&adopted, &a->node);
            close(a->fd);
            free(a);
        }
}

/* ---- as frontends come and go */

static void association_ready(struct watched *w, uint32_t events) {
    (void)events;
    tcp_take_of(CONTAINER(w, struct own_socket, w));
}

static bool try_open(struct own_socket *u) {
    u->w.fd = take_adopted(u->frontend);
    if (u->w.fd < 0)
        u->w.fd = open_socket(u->frontend);
    if (u->w.fd >= 0 && loop_add(&u->w, EPOLLIN)) {
        own_sockets++;
        u->error = 0;
        return true;
    }
    u->error = (uint8_t)errno; /* 133 is the last one */
    if (u->w.fd >= 0)
        close(u->w.fd);
    u->w.fd = -1;
    return false;
}

void own_put(struct frontend *f) {
    struct own_socket *u = f->own;
    if (!wants_socket(f)) { /* nobody listens then, which the kernel says by ICMP */
        own_gone(f);
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
    u->w = (struct watched){f->protocol == IPPROTO_SCTP ? association_ready : udp_frontend_ready, -1};
    u->frontend = f;
    list_init(&u->flows);
    list_init(&u->waiting);
    f->own = u;
    if (!try_open(u)) {
        say("%s port %u of a service is not to be had: %s; trying again", f->protocol == IPPROTO_SCTP ? "SCTP" : "UDP", f->port, strerror(u->error));
        list_append(&waiting, &u->waiting);
        pause_ms = RETRY_MS;
        retry_at = now_ms + pause_ms;
    }
}

void own_gone(struct frontend *f) {
    struct own_socket *u = f->own;
    if (!u)
        return;
    while (!list_empty(&u->flows))
        flow_end(CONTAINER(u->flows.next, struct flow, of_frontend));
    list_remove(&u->waiting);
    if (u->w.fd >= 0) {
        loop_remove(&u->w);
        close(u->w.fd);
        own_sockets--;
    }
    u->w.fd = -1;
    f->own = NULL;
    list_append(&dead, &u->waiting); /* an event of this batch may be for it */
}

void own_free_dead(void) {
    while (!list_empty(&dead)) {
        struct own_socket *u = CONTAINER(dead.next, struct own_socket, waiting);
        list_remove(&u->waiting);
        free(u);
    }
}

bool own_waits(void) { return !list_empty(&waiting); }

/* Of all frontends: who retires accepts nothing and has no more datagrams to carry. */
void own_close(void) {
    for (size_t k = 0; table.frontends.slots && k <= table.frontends.mask; k++)
        for (struct node *n = table.frontends.slots[k]; n; n = n->next)
            own_gone(CONTAINER(n, struct frontend, node));
}

void own_pause(bool pause) {
    for (size_t k = 0; table.frontends.slots && k <= table.frontends.mask; k++)
        for (struct node *n = table.frontends.slots[k]; n; n = n->next) {
            const struct frontend *f = CONTAINER(n, struct frontend, node);
            if (f->protocol == IPPROTO_SCTP && f->own && f->own->w.fd >= 0)
                loop_change(&f->own->w, pause ? 0 : EPOLLIN);
        }
}

/* Sockets of which flows are left stay until these have been given away: their answers go through them. */
bool own_give(struct wire_entry *e, int *fd) {
    for (; table.frontends.slots && given_slot <= table.frontends.mask; given_slot++)
        for (struct node *n = table.frontends.slots[given_slot]; n; n = n->next) {
            struct frontend *f = CONTAINER(n, struct frontend, node);
            if (!f->own || f->own->given || f->own->w.fd < 0)
                continue;
            *e = (struct wire_entry){.frontend_port = f->port, .protocol = f->protocol};
            memcpy(e->frontend, f->address.b, sizeof e->frontend);
            *fd = dup(f->own->w.fd);
            loop_remove(&f->own->w);
            f->own->given = true;
            return *fd >= 0;
        }
    given_slot = 0;
    return false;
}

int64_t own_timers(int64_t now) {
    int64_t wait = flow_timers(now);
    if (list_empty(&waiting))
        return wait;
    if (now >= retry_at) {
        for (struct list *l = waiting.next, *next; l != &waiting; l = next) {
            next = l->next;
            if (try_open(CONTAINER(l, struct own_socket, waiting)))
                list_remove(l);
        }
        pause_ms = 2 * pause_ms < RETRY_MOST_MS ? 2 * pause_ms : RETRY_MOST_MS;
        retry_at = now + pause_ms;
    }
    return !list_empty(&waiting) && retry_at - now < wait ? retry_at - now : wait;
}
