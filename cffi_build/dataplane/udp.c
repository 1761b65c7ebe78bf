/* Datagrams, many at a time: from a frontend's socket to those of the flows, and back from the frontend's address. What the kernel has
 * joined on the way in (GRO) it takes apart on the way out (GSO), so that a burst of one sender's costs one of everything.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"

enum { BATCH = 32, ROUNDS = 4, DATAGRAM = 65536, CONTROL = 64 };

static uint8_t data[BATCH][DATAGRAM];
static union {
    struct cmsghdr align;
    char bytes[CONTROL];
} control[BATCH];
static struct sockaddr_storage names[BATCH];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];

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

static void forward(struct own_socket *u, int n) {
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

void udp_frontend_ready(struct watched *w, uint32_t events) {
    (void)events;
    struct own_socket *u = CONTAINER(w, struct own_socket, w);
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
