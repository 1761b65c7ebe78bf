/* Connections: messages with their length in front (RFC 7766). Bounded by source, in time and in what is kept for one. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dns.h"

enum { CONNECTIONS = 1024, OF_A_SOURCE = 100, IDLE_MS = 10000, QUERY_MOST = 2048, UNSENT_MOST = 256 << 10, WAITING_MOST = 64 };
static struct connection {
    int fd, used, waiting, ended, blocked;
    uint64_t number;
    int64_t last;
    uint8_t source[16];
    size_t in_n, out_n;
    uint8_t *out;
    uint8_t in[2 + QUERY_MOST];
} connections[CONNECTIONS];
static int count;
static uint64_t numbers;

int tcp_count(void) { return count; }

void tcp_listen(int fd) {
    if (server.tcp_n == SOCKETS_MOST)
        return;
    server.tcp[server.tcp_n] = fd;
    watch(fd, KIND_TCP_LISTENER, (unsigned)server.tcp_n++, EPOLLIN, EPOLL_CTL_ADD);
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c->out);
    c->used = 0, c->out = NULL;
    count--;
}

static struct connection *place_for(const uint8_t source[16]) {
    struct connection *free = NULL;
    int same = 0;
    for (int i = 0; i < CONNECTIONS; i++) {
        if (!connections[i].used)
            free = free ? free : &connections[i];
        else
            same += !memcmp(connections[i].source, source, 16);
    }
    return same < OF_A_SOURCE ? free : NULL;
}

void tcp_accept(int index) {
    for (int round = 0; round < 16; round++) {
        struct peer peer = {0};
        socklen_t n = sizeof peer.address;
        const int fd = accept4(server.tcp[index], &peer.address.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        peer_source(&peer);
        struct connection *c = source_allowed(peer.source) ? place_for(peer.source) : NULL;
        if (!c) {
            server.n.tcp_refused++;
            close(fd);
            continue;
        }
        c->fd = fd, c->used = 1, c->waiting = c->ended = c->blocked = 0, c->in_n = c->out_n = 0;
        c->number = ++numbers, c->last = server.now;
        memcpy(c->source, peer.source, 16);
        count++;
        server.n.tcp_accepted++;
        watch(fd, KIND_TCP, (unsigned)(c - connections), EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void rearm(struct connection *c) {
    /* One that is blocked has whole queries here, for which no event would come. */
    const unsigned events = (c->out_n || (c->blocked && c->waiting < WAITING_MOST) ? EPOLLOUT : 0u) | (c->ended || c->blocked || c->out_n ? 0u : EPOLLIN);
    watch(c->fd, KIND_TCP, (unsigned)(c - connections), events, EPOLL_CTL_MOD);
}

/* Sends the message, or keeps what the other side does not take yet. 0 when the connection had to go. */
static int put(struct connection *c, const uint8_t *p, size_t n) {
    uint8_t head[2];
    size_t sent = 0;
    put16(head, (unsigned)n);
    if (!c->out_n) {
        struct iovec iov[2] = {{head, 2}, {(void *)(uintptr_t)p, n}};
        const struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        const ssize_t done = sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno != EAGAIN && errno != EINTR)
            return drop(c), 0;
        sent = done > 0 ? (size_t)done : 0;
        if (sent == n + 2) {
            c->last = server.now;
            return 1;
        }
    }
    if (c->out_n + n + 2 > UNSENT_MOST)
        return drop(c), 0;
    uint8_t *more = realloc(c->out, c->out_n + n + 2);
    if (!more)
        return drop(c), 0;
    c->out = more;
    if (sent < 2)
        memcpy(c->out + c->out_n, head + sent, 2 - sent), c->out_n += 2 - sent, sent = 2;
    memcpy(c->out + c->out_n, p + sent - 2, n + 2 - sent);
    c->out_n += n + 2 - sent;
    return 1;
}

/* Answers the whole queries that have come. 0 when the connection is gone. */
static int take(struct connection *c) {
    static uint8_t out[TCP_MOST];
    size_t at = 0;
    struct peer peer = {.tcp = 1, .socket = (int)(c - connections), .number = c->number};
    memcpy(peer.source, c->source, 16);
    while (!c->out_n && c->waiting < WAITING_MOST && c->in_n - at >= 2) {
        const size_t n = be16(c->in + at);
        if (n > QUERY_MOST || n < HEAD)
            return drop(c), 0;
        if (c->in_n - at - 2 < n)
            break;
        const size_t before = wait_count(), size = serve(c->in + at + 2, n, &peer, out);
        at += 2 + n;
        c->last = server.now;
        c->waiting += wait_count() > before;
        if (size && !put(c, out, size))
            return 0;
    }
    memmove(c->in, c->in + at, c->in_n - at);
    c->in_n -= at;
    c->blocked = c->waiting >= WAITING_MOST;
    return 1;
}

static void go_on(struct connection *c) {
    const int there = take(c);
    count_sent();
    if (!there)
        return;
    if (c->ended && !c->out_n && !c->waiting) {
        drop(c);
        return;
    }
    rearm(c);
}

static int flush(struct connection *c) {
    const ssize_t done = send(c->fd, c->out, c->out_n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0)
        return errno == EAGAIN || errno == EINTR ? 1 : (drop(c), 0);
    c->last = server.now;
    memmove(c->out, c->out + done, c->out_n - (size_t)done);
    c->out_n -= (size_t)done;
    return 1;
}

void tcp_event(int index, unsigned events) {
    struct connection *c = &connections[index];
    if (!c->used)
        return;
    if (events & EPOLLERR) {
        drop(c);
        return;
    }
    if (c->out_n && !flush(c))
        return;
    if ((events & (EPOLLIN | EPOLLHUP)) && !c->ended && c->in_n < sizeof c->in) {
        const ssize_t n = recv(c->fd, c->in + c->in_n, sizeof c->in - c->in_n, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            drop(c);
            return;
        }
        c->ended = n == 0;
        c->in_n += n > 0 ? (size_t)n : 0;
    }
    go_on(c);
}

void tcp_send(const struct peer *peer, const uint8_t *p, size_t n) {
    struct connection *c = &connections[peer->socket];
    if (!c->used || c->number != peer->number)
        return; /* it has gone meanwhile */
    c->waiting--;
    if (!put(c, p, n))
        return;
    if (c->ended && !c->out_n && !c->waiting && !c->blocked)
        drop(c);
    else if (c->out_n || c->blocked)
        rearm(c);
}

int64_t tcp_timers(int64_t now) {
    static int64_t due = -1;
    if (!count)
        return due = -1;
    if (due >= 0 && now < due)
        return due;
    due = now + IDLE_MS;
    for (int i = 0; i < CONNECTIONS; i++) {
        struct connection *c = &connections[i];
        if (c->used && now >= c->last + IDLE_MS)
            drop(c);
        else if (c->used && c->last + IDLE_MS < due)
            due = c->last + IDLE_MS;
    }
    return due;
}
