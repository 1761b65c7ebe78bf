/* The bytes of one direction. What comes in small pieces is copied through one buffer that all connections share; who fills it is a bulk
 * flow, whose bytes are spliced through a pipe and never seen here. Neither is held by a connection that has nothing under way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"

enum { BUFFER = 32 << 10, PIPE = 512 << 10, ROUNDS = 16, POOL = 32, UNSENT_MOST = 256 << 10 };

static uint8_t buffer[BUFFER];
static struct pipe *pool;
static uint32_t pooled, pipes, pipes_limit;

void pump_init(uint32_t most) { pipes_limit = most; }

static struct pipe *take_pipe(void) {
    struct pipe *p = pool;
    if (p) {
        pool = p->next;
        pooled--;
        return p;
    }
    int fds[2];
    if (pipes >= pipes_limit || !(p = calloc(1, sizeof *p)))
        return NULL;
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC)) {
        free(p);
        return NULL;
    }
    fcntl(fds[1], F_SETPIPE_SZ, PIPE); /* where a user's share of pipes is used up it stays at 64 KiB */
    p->out = fds[0];
    p->in = fds[1];
    pipes++;
    return p;
}

static void give_pipe(struct pipe *p) {
    if (p->held || pooled >= POOL) {
        close(p->in);
        close(p->out);
        free(p);
        pipes--;
        return;
    }
    p->next = pool;
    pool = p;
    pooled++;
}

void pump_release(struct side *s) {
    if (s->pipe)
        give_pipe(s->pipe);
    free(s->kept);
    s->pipe = NULL;
    s->kept = NULL;
}

static bool keep(struct side *s, const uint8_t *from, uint32_t n) {
    s->kept = malloc(n);
    if (!s->kept)
        return false;
    memcpy(s->kept, from, n);
    s->kept_from = 0;
    s->kept_to = n;
    return true;
}

/* The other side takes no more now: from here on we want to be told when it does. */
enum pumped pump_blocked(struct side *to) {
    to->writable = false;
    if (to->watches_out)
        return PUMP_WAIT;
    to->watches_out = true;
    if (!to->watched) /* a server that speaks first, and much: the client is about to be */
        return PUMP_WAIT;
    return loop_change(&to->w, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) ? PUMP_WAIT : PUMP_BROKEN;
}

/* What is under way goes on: PUMP_MORE when it has gone. */
static enum pumped flush(struct side *from, struct side *to) {
    while (from->kept) {
        ssize_t n = send(to->w.fd, from->kept + from->kept_from, from->kept_to - from->kept_from, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN ? pump_blocked(to) : PUMP_BROKEN;
        from->kept_from += (uint32_t)n;
        if (from->kept_from == from->kept_to) {
            free(from->kept);
            from->kept = NULL;
        }
    }
    while (from->pipe && from->pipe->held) {
        ssize_t n = splice(from->pipe->out, NULL, to->w.fd, NULL, from->pipe->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0)
            return errno == EAGAIN ? pump_blocked(to) : PUMP_BROKEN;
        from->pipe->held -= (uint32_t)n;
    }
    return PUMP_MORE;
}

static ssize_t read_bulk(struct side *from) {
    ssize_t n = splice(from->w.fd, NULL, from->pipe->in, NULL, PIPE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n > 0)
        from->pipe->held += (uint32_t)n;
    return n;
}

/* Short of a whole buffer it is drained, but for an end which came in the same event: that is only seen by reading on. */
static ssize_t read_small(struct side *from, struct side *to) {
    ssize_t n = recv(from->w.fd, buffer, BUFFER, MSG_DONTWAIT);
    if (n <= 0)
        return n;
    if (n < BUFFER && !from->hung_up)
        from->readable = false;
    ssize_t sent = send(to->w.fd, buffer, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN)
        return -1;
    sent = sent < 0 ? 0 : sent;
    if (sent < n && !keep(from, buffer + sent, (uint32_t)(n - sent))) {
        errno = ENOMEM;
        return -1;
    }
    return n;
}

static void become_bulk(struct side *from, struct side *to) {
    int most = UNSENT_MOST;
    from->bulk = true;
    setsockopt(to->w.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most);
}

static void drained(struct side *from, uint64_t moved) {
    from->readable = false;
    if (moved < BUFFER)
        from->bulk = false;
    if (from->pipe) {
        give_pipe(from->pipe);
        from->pipe = NULL;
    }
}

/* At most so many rounds, so that one flow does not keep the others waiting: PUMP_MORE when there may be more. */
enum pumped pump(struct connection *c, int number) {
    struct side *from = c->side + number, *to = c->side + !number;
    uint64_t moved = 0;
    for (int round = 0; round < ROUNDS; round++) {
        if (from->kept || from->pipe) {
            if (!to->writable)
                return PUMP_WAIT;
            enum pumped p = flush(from, to);
            if (p != PUMP_MORE)
                return p;
        }
        if (from->eof) {
            pump_release(from);
            if (!to->shut) {
                to->shut = true;
                if (from->shut)
                    return PUMP_WAIT; /* both have ended: closing says so to both */
                shutdown(to->w.fd, SHUT_WR);
            }
            return PUMP_WAIT;
        }
        if (!from->readable || !to->writable)
            return PUMP_WAIT;
        if (from->bulk && !from->pipe && !(from->pipe = take_pipe()))
            from->bulk = false;
        ssize_t n = from->bulk ? read_bulk(from) : read_small(from, to);
        if (n > 0) {
            moved += (uint64_t)n;
            c->frontend->bytes[number] += (uint64_t)n;
            c->since = now_ms;
            if (n == BUFFER && !from->bulk)
                become_bulk(from, to);
        } else if (n == 0) {
            from->eof = true;
        } else if (errno == EAGAIN) {
            drained(from, moved);
            return PUMP_WAIT;
        } else {
            return PUMP_BROKEN;
        }
    }
    return PUMP_MORE;
}
