/* Datagrams, many at a time: from a frontend's socket to those of the flows, and back from the frontend's address. What the kernel has
 * joined on the way in (GRO) it takes apart on the way out (GSO), so that a burst of one sender's costs one of everything.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"

enum { BATCH = 32, ROUNDS = 4, DATAGRAM = 65536, RETRY_MS = 500, CONTROL = 64 };

static uint8_t data[BATCH][DATAGRAM];
static union {
    struct cmsghdr align;
    char bytes[CONTROL];
} control[BATCH];
static struct sockaddr_storage names[BATCH];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];
static struct list waiting = {&waiting, &waiting}, dead = {&dead, &dead};
static int64_t retry_at;

/* ---- a batch in, and out */

static int receive(int fd, bool named) {
    for (int k = 0; k < BATCH; k++) {
        parts[k] = (struct iovec){data[k], DATAGRAM};
        messages[k].msg_hdr = (struct msghdr){.msg_name = named ? names + k : NULL, .msg_namelen = named ? sizeof names[k] : 0,
                                              .msg_iov = parts + k, .msg_iovlen = 1, .msg_control = control + k,
                                              .msg_controllen = sizeof control[k]};
    }
    return recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
}

/* The size of the datagrams that it was joined of; 0: it is one. */
static int segment_of(struct msghdr *h) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            return size;
        }
    return 0;
}

/* What has been received becomes what is to be sent. */
static void turn(struct mmsghdr *m, void *name, socklen_t name_n) {
    struct msghdr *h = &m->msg_hdr;
    int segment = segment_of(h);
    h->msg_iov->iov_len = m->msg_len;
    h->msg_name = name;
    h->msg_namelen = name_n;
    h->msg_flags = 0;
    if (segment <= 0 || (unsigned)segment >= m->msg_len) {
        h->msg_control = NULL;
        h->msg_controllen = 0;
        return;
    }
    uint16_t size = (uint16_t)segment;
    h->msg_controllen = CMSG_SPACE(sizeof size);
    struct cmsghdr *c = CMSG_FIRSTHDR(h);
    *c = (struct cmsghdr){.cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof size)};
    memcpy(CMSG_DATA(c), &size, sizeof size);
}

/* One by one, where the way out has no room for them joined. */
static void send_apart(int fd, const struct msghdr *h) {
    uint16_t size;
    memcpy(&size, CMSG_DATA(CMSG_FIRSTHDR(h)), sizeof size);
    for (size_t at = 0; at < h->msg_iov->iov_len; at += size) {
        size_t left = h->msg_iov->iov_len - at;
        sendto(fd, (uint8_t *)h->msg_iov->iov_base + at, left < size ? left : size, MSG_DONTWAIT | MSG_NOSIGNAL, h->msg_name, h->msg_namelen);
    }
}

/* A full queue loses datagrams, here as on a wire. true: somebody told that there is nobody at its port. */
static bool send_all(int fd, struct mmsghdr *m, int n) {
    bool refused = false;
    while (n > 0) {
        int sent = sendmmsg(fd, m, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            m += sent;
            n -= sent;
            continue;
        }
        if (errno == ECONNREFUSED) { /* of one before; this one has not been sent yet */
            refused = true;
            continue;
        }
        if (m->msg_hdr.msg_control && (errno == EINVAL || errno == EIO || errno == EMSGSIZE))
            send_apart(fd, &m->msg_hdr);
        m++;
        n--;
    }
    return refused;
}

/* ---- from clients */

static void forward(struct udp_frontend *u, int n) {
    struct flow *run = NULL;
    int first = 0;
    for (int k = 0; k < n; k++) {
        struct address client;
        uint16_t port;
        struct flow *f = address_read(names + k, &client, &port) ? flow_get(u, &client, port) : NULL;
        if (f)
            u->frontend->bytes[0] += messages[k].msg_len;
        turn(messages + k, NULL, 0);
        if (f == run)
            continue;
        if (run && run->w.fd >= 0 && send_all(run->w.fd, messages + first, k - first))
            run->refused = true;
        run = f;
        first = k;
    }
    if (run && run->w.fd >= 0 && send_all(run->w.fd, messages + first, n - first))
        run->refused = true;
}

static void frontend_ready(struct watched *w, uint32_t events) {
    (void)events;
    struct udp_frontend *u = CONTAINER(w, struct udp_frontend, w);
    for (int round = 0; round < ROUNDS; round++) {
        int n = receive(w->fd, true);
        if (n < 0 && errno != EAGAIN)
            continue; /* an error of one that we had sent: it is taken off, and what is there is read */
        if (n > 0)
            forward(u, n);
        if (n < BATCH)
            return;
    }
}

/* ---- from endpoints */

void udp_answer_ready(struct watched *w, uint32_t events) {
    (void)events;
    struct flow *f = CONTAINER(w, struct flow, w);
    struct sockaddr_storage to;
    socklen_t name_n = address_write(&f->client, f->port, &to);
    for (int round = 0; round < ROUNDS; round++) {
        int n = receive(w->fd, false);
        if (n < 0 && errno == ECONNREFUSED) {
            f->refused = true; /* the client's next datagram goes to another endpoint */
            f->backend->failed++;
            continue;
        }
        if (n <= 0)
            return;
        for (int k = 0; k < n; k++) {
            f->of->frontend->bytes[1] += messages[k].msg_len;
            turn(messages + k, &to, name_n);
        }
        send_all(f->of->w.fd, messages, n);
        flow_answered(f);
        if (n < BATCH)
            return;
    }
}

/* ---- the sockets of frontends */

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

static bool try_open(struct udp_frontend *u) {
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
        return;
    }
    if (!(u = calloc(1, sizeof *u)))
        return;
    u->w = (struct watched){frontend_ready, -1};
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
