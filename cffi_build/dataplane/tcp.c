/* Connections, from accept to their end. The address that a client connected to is the frontend's key; an endpoint is chosen and
 * connected to, another one where that fails; then pump.c moves bytes both ways until both have ended or one is broken. An association of
 * SCTP lives like a connection: sctp.c has what is different, its sockets and that it moves messages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tcp.h"

enum { ACCEPTED_AT_ONCE = 64, LISTENERS_MOST = 16, EMPTIED_MOST = 256, PAUSE_MS = 20, SHORT_MS = 10000, YOUNG_MS = 20000 };

uint32_t connections;
uint64_t accepted_total;
static struct list connecting = {&connecting, &connecting}, young = {&young, &young}, half_closed = {&half_closed, &half_closed};
static struct list old = {&old, &old};
static struct list more = {&more, &more}, dead = {&dead, &dead}; /* by their `ready` */
static struct watched listeners[LISTENERS_MOST];
static uint32_t n_listeners;
static int64_t paused_until, short_until, drained_at;

/* ---- the end */

static void reset_socket(int fd) {
    struct linger l = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}

static void close_side(struct side *s, bool reset) {
    pump_release(s);
    sctp_release(s);
    if (s->w.fd < 0)
        return;
    if (reset)
        reset_socket(s->w.fd);
    else
        close(s->w.fd);
    s->w.fd = -1;
}

static void end(struct connection *c, bool reset) {
    if (c->stage == DEAD)
        return;
    if (c->stage == OPEN)
        c->backend->active--;
    close_side(c->side, reset);
    close_side(c->side + 1, reset);
    c->stage = DEAD;
    c->frontend->active--;
    connections--;
    if (c->backend)
        backend_drop(c->backend);
    for (uint32_t k = 0; k < c->n_tried; k++)
        backend_drop(c->tried[k]);
    frontend_drop(c->frontend);
    c->source->connections--;
    source_drop(c->source);
    list_remove(&c->timer);
    list_remove(&c->ready);
    list_append(&dead, &c->ready);
}

void tcp_abort(struct connection *c) { end(c, true); }

void tcp_free_dead(void) {
    while (!list_empty(&dead)) {
        struct connection *c = CONTAINER(dead.next, struct connection, ready);
        list_remove(&c->ready);
        free(c);
    }
}

/* ---- open: bytes go both ways */

static void run(struct connection *c, int first) {
    bool again = false;
    for (int k = 0; k < 2; k++) {
        int from = k ? !first : first;
        enum pumped p = is_sctp(c) ? sctp_pump(c, from) : pump(c, from);
        if (p == PUMP_BROKEN) {
            end(c, true);
            return;
        }
        again |= p == PUMP_MORE;
    }
    if (c->side[0].shut && c->side[1].shut) {
        end(c, false);
        return;
    }
    if ((c->side[0].broken || c->side[1].broken) && !again) {
        end(c, true);
        return;
    }
    if ((c->side[0].shut || c->side[1].shut) && !c->half_closed) {
        c->half_closed = true;
        c->since = c->listed = now_ms;
        list_remove(&c->timer);
        list_append(&half_closed, &c->timer);
    }
    if (again && list_empty(&c->ready))
        list_append(&more, &c->ready);
}

bool tcp_has_more(void) { return !list_empty(&more); }

void tcp_continue(void) {
    struct list now;
    if (list_empty(&more))
        return;
    now = more; /* those that come to it meanwhile have their turn after the next events */
    now.next->before = now.before->next = &now;
    list_init(&more);
    while (!list_empty(&now)) {
        struct connection *c = CONTAINER(now.next, struct connection, ready);
        list_remove(&c->ready);
        run(c, 0);
    }
}

void tcp_open(struct connection *c) {
    struct side *client = c->side, *server = c->side + 1;
    c->stage = OPEN;
    c->backend->connected++;
    c->backend->active++;
    c->backend->silent_until = 0;
    c->since = c->opened = now_ms;
    list_remove(&c->timer);
    list_append(&young, &c->timer);
    for (; c->n_tried; c->n_tried--)
        backend_drop(c->tried[c->n_tried - 1]);
    if (c->frontend->affinity)
        affinity_set(c->frontend, &c->client, c->backend, affinity_end(c->frontend));
    client->readable = client->writable = server->writable = true;
    run(c, 0); /* what it has sent meanwhile; what comes from here on is an event */
    client->watched = true;
    if (c->stage == OPEN && !loop_add(&client->w, (client->watches_out ? EPOLLOUT : 0) | EPOLLIN | EPOLLRDHUP | EPOLLET))
        end(c, true);
}

void tcp_side_ready(struct watched *w, uint32_t events) {
    struct side *s = CONTAINER(w, struct side, w);
    struct connection *c = CONTAINER(s - s->number, struct connection, side);
    if (c->stage == CONNECTING) {
        connect_ready(c, events);
        return;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        s->readable = true;
    if (events & (EPOLLOUT | EPOLLERR))
        s->writable = true;
    if (events & (EPOLLRDHUP | EPOLLHUP))
        s->hung_up = true;
    if (events & EPOLLERR)
        s->broken = true;
    run(c, s->number);
}

/* ---- accept */

void tcp_is_connecting(struct connection *c) { list_append(&connecting, &c->timer); }

static void refuse(int fd, struct frontend *f) {
    if (f)
        f->refused++;
    reset_socket(fd);
}

static struct connection *new_connection(int fd, struct frontend *f, struct source *source, const struct address *client, uint16_t port) {
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->side[0].w = (struct watched){tcp_side_ready, fd};
    c->side[1].w = (struct watched){tcp_side_ready, -1};
    c->side[1].number = 1;
    c->frontend = f;
    c->source = source;
    c->client = *client;
    c->client_port = port;
    list_init(&c->timer);
    list_init(&c->ready);
    f->refs++;
    f->active++;
    f->accepted++;
    source->connections++;
    connections++;
    accepted_total++;
    return c;
}

static struct frontend *frontend_of(int fd) {
    struct sockaddr_storage local;
    socklen_t n = sizeof local;
    struct address to;
    uint16_t port;
    bool known = getsockname(fd, (struct sockaddr *)&local, &n) == 0 && address_read(&local, &to, &port);
    return known ? table_find(IPPROTO_TCP, &to, port) : NULL;
}

/* f: whose listener it came to, if that is a frontend's own. */
static void take(int fd, const struct sockaddr_storage *peer, struct frontend *f) {
    struct address client;
    uint16_t client_port;
    if (!address_read(peer, &client, &client_port)) {
        refuse(fd, f);
        return;
    }
    f = f ? f : frontend_of(fd);
    struct source *source = f ? source_take(&client) : NULL;
    if (!source) {
        refuse(fd, f);
        return;
    }
    struct connection *c = NULL;
    if (limit_connection(source, connections))
        c = new_connection(fd, f, source, &client, client_port);
    else
        refused_by_limit++;
    if (!c) {
        source_drop(source);
        refuse(fd, f);
        return;
    }
    tcp_is_connecting(c);
    if (is_sctp(c) && !sctp_begin(c))
        tcp_abort(c);
    else
        connect_next(c);
}

static void pause_listeners(bool pause) {
    for (uint32_t k = 0; k < n_listeners; k++)
        loop_change(listeners + k, pause ? 0 : EPOLLIN);
    own_pause(pause);
    paused_until = pause ? now_ms + PAUSE_MS : 0;
}

void tcp_pause(void) {
    pause_listeners(true);
    short_until = now_ms + SHORT_MS;
}

bool tcp_is_short(void) { return now_ms < short_until; }

/* false: there is none waiting, or nothing to take it with. f: as of take(). */
static bool accept_some(const struct watched *w, struct frontend *f) {
    for (int k = 0; k < ACCEPTED_AT_ONCE; k++) {
        struct sockaddr_storage peer;
        socklen_t n = sizeof peer;
        int fd = accept4(w->fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(fd, &peer, f);
        } else if (is_shortage(errno)) {
            tcp_pause();
        } else if (errno == EAGAIN) {
            return false;
        }
        if (paused_until)
            return false;
    }
    return true;
}

static void listener_ready(struct watched *w, uint32_t events) {
    (void)events;
    accept_some(w, NULL);
}

void tcp_take_of(const struct own_socket *o) { accept_some(&o->w, o->frontend); }

static void inherit(int fd) {
    int one = 1, idle = 60, interval = 10, count = 5, unsent = 256 << 10;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
}

/* In place of those that there are. What they had accepted but not handed out is handed out first: a socket that is somebody else's too
 * keeps its queue. */
bool tcp_listen(const int *fds, uint32_t n) {
    if (n > LISTENERS_MOST) /* false: all of them are the caller's still */
        return false;
    for (uint32_t k = 0; k < n_listeners; k++) {
        for (int i = 0; i < EMPTIED_MOST && accept_some(listeners + k, NULL); i++)
            ;
        loop_remove(listeners + k);
        close(listeners[k].fd);
        listeners[k].fd = -1;
    }
    n_listeners = 0;
    for (uint32_t k = 0; k < n; k++) {
        inherit(fds[k]);
        listeners[k] = (struct watched){listener_ready, fds[k]};
        if (loop_add(listeners + k, EPOLLIN))
            continue;
        listeners[k].fd = -1;
        while (k) {
            loop_remove(listeners + --k);
            listeners[k].fd = -1;
        }
        return false;
    }
    n_listeners = n;
    return true;
}

uint32_t tcp_listeners(int *fds, uint32_t most) {
    uint32_t n = 0;
    for (; n < n_listeners && n < most; n++)
        fds[n] = listeners[n].fd;
    return n;
}

/* ---- what is done at a time */

/* Its time began when it went to the list's end, or at its last byte if that is later: then it goes to the end anew. */
static int64_t next_due(struct list *l, int64_t time, int64_t now, struct connection **due) {
    *due = NULL;
    while (!list_empty(l)) {
        struct connection *c = CONTAINER(l->next, struct connection, timer);
        if (c->since + time <= now) {
            *due = c;
            return 0;
        }
        if (c->listed >= c->since)
            return c->since + time - now;
        c->listed = c->since;
        list_remove(&c->timer);
        list_append(l, &c->timer);
    }
    return INT64_MAX;
}

static void grow_old(struct connection *c) {
    list_remove(&c->timer);
    list_append(&old, &c->timer);
    if (!is_sctp(c)) /* which asks its peer of itself */
        inherit(c->side[1].w.fd);
}

static void drain_gone(struct list *l, int64_t limit) {
    for (struct list *at = l->next, *next; at != l; at = next) {
        struct connection *c = CONTAINER(at, struct connection, timer);
        next = at->next;
        if (c->stage == OPEN && c->backend->gone && c->backend->gone_at <= limit)
            end(c, true);
    }
}

static int64_t drain(int64_t now) {
    if (!settings.drain_s || list_empty(&table.gone) || now < drained_at + 1000)
        return !settings.drain_s || list_empty(&table.gone) ? INT64_MAX : 1000;
    drained_at = now;
    struct list *const lists[] = {&young, &old, &half_closed};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        drain_gone(lists[k], now - 1000 * (int64_t)settings.drain_s);
    return 1000;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t tcp_timers(int64_t now) {
    struct connection *c;
    int64_t wait = INT64_MAX, next;
    while ((next = next_due(&connecting, settings.connect_ms, now, &c)), c)
        connect_failed(c, true);
    wait = least(wait, next);
    for (struct list *l = young.next; l != &young; l = young.next) {
        c = CONTAINER(l, struct connection, timer);
        if (c->opened + YOUNG_MS > now)
            break;
        grow_old(c);
    }
    while (settings.half_closed_s && ((next = next_due(&half_closed, 1000 * (int64_t)settings.half_closed_s, now, &c)), c))
        end(c, true);
    wait = least(wait, next);
    if (paused_until && now >= paused_until)
        pause_listeners(false);
    if (paused_until)
        wait = least(wait, paused_until - now);
    return least(wait, drain(now));
}
