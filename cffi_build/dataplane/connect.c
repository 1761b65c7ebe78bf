/* The way to an endpoint: whose turn it is, with which source address, and the next one where it fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tcp.h"

enum { SILENT_MS = 5000 };
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif

/* The client's own address, unless the answer would not come back through us: to itself, from a program of the node, or to an address
 * that is each host's own. */
bool keeps_source(const struct choice *ch, const struct backend *b, const struct address *client) {
    return !ch->replace_source && !b->own && !address_equal(client, &b->address) && !address_is_loopback(client) &&
           address_is_v4(client) == address_is_v4(&b->address);
}

/* Ports of a range that clients do not use themselves, as a connection of theirs to that endpoint may have the same. */
bool bind_source(int fd, const struct address *client, bool range) {
    struct sockaddr_storage from;
    int one = 1;
    uint32_t ports = settings.port_low | (uint32_t)settings.port_high << 16;
    socklen_t n = address_write(client, 0, &from);
    bool v4 = address_is_v4(client);
    if (setsockopt(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, &one, sizeof one))
        return false;
    setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (range && settings.port_low)
        setsockopt(fd, SOL_IP, IP_LOCAL_PORT_RANGE, &ports, sizeof ports); /* since 6.3 */
    return bind(fd, (struct sockaddr *)&from, n) == 0;
}

static int tcp_socket(int family) {
    int one = 1, most = BUFFER_MOST, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &most, sizeof most);
    return fd;
}

/* 0: under way or there; else an errno. */
static int start(struct connection *c, struct backend *b, bool keep, bool range) {
    struct sockaddr_storage to;
    socklen_t n = address_write(&b->address, b->port, &to);
    int fd = is_sctp(c) ? sctp_connect(c, &to, n) : tcp_socket(to.ss_family);
    if (fd < 0)
        return errno;
    int error = keep && !bind_source(fd, &c->client, range) ? errno : 0;
    if (!error && !is_sctp(c) && connect(fd, (struct sockaddr *)&to, n) && errno != EINPROGRESS)
        error = errno;
    struct side *s = c->side + 1;
    s->w.fd = fd;
    if (!error && !loop_add(&s->w, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
        error = errno;
    if (error) {
        close(fd);
        s->w.fd = -1;
    }
    s->watched = s->watches_out = true;
    return error;
}

/* Endpoints in turn, until a connect is under way or there is none to try any more. */
void connect_next(struct connection *c) {
    struct choice *ch = c->frontend->gone ? NULL : choose(c->frontend, &c->client);
    uint32_t most = settings.tries < TRIES_MOST ? settings.tries : TRIES_MOST;
    while (ch && c->n_tried < most) {
        struct backend *b = choose_backend(c->frontend, ch, &c->client, c->tried, c->n_tried, now_ms);
        if (!b)
            break;
        bool keep = !is_sctp(c) && keeps_source(ch, b, &c->client); /* answers to it would not find a socket of SCTP */
        int error = start(c, b, keep, true);
        if (error == EADDRNOTAVAIL && keep) /* the range is used up for this endpoint: of all ports, then */
            error = start(c, b, keep, false);
        c->since = c->listed = now_ms;
        if (!error) {
            c->backend = b;
            return;
        }
        if (is_shortage(error)) { /* of ours: no other endpoint helps, and none is at fault */
            refused_by_limit++;
            c->frontend->refused++;
            tcp_pause();
            tcp_abort(c);
            return;
        }
        b->failed++;
        c->frontend->retried++;
        c->tried[c->n_tried++] = b; /* held by it */
    }
    if (ch && ch->action == ACT_FORWARD)
        c->frontend->failed++;
    else
        c->frontend->refused++;
    tcp_abort(c);
}

/* silent: it did not answer in its time. */
void connect_failed(struct connection *c, bool silent) {
    struct side *s = c->side + 1;
    close(s->w.fd);
    s->w.fd = -1;
    c->backend->failed++;
    if (silent)
        c->backend->silent_until = now_ms + SILENT_MS;
    c->frontend->retried++;
    c->tried[c->n_tried++] = c->backend;
    c->backend = NULL;
    list_remove(&c->timer);
    tcp_is_connecting(c);
    connect_next(c);
}

void connect_ready(struct connection *c, uint32_t events) {
    struct side *s = c->side + 1;
    int error = 0;
    socklen_t n = sizeof error;
    if (events & (EPOLLERR | EPOLLHUP)) {
        if (getsockopt(s->w.fd, SOL_SOCKET, SO_ERROR, &error, &n))
            error = errno;
        if (error && error != ECONNRESET) {
            connect_failed(c, false);
            return;
        }
        if (error) { /* it had taken the connection and is done with it: as if we had been there */
            tcp_abort(c);
            return;
        }
    }
    if (!(events & EPOLLOUT))
        return;
    s->readable = events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP);
    s->hung_up = events & (EPOLLRDHUP | EPOLLHUP);
    tcp_open(c);
}
