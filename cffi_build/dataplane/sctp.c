/* SCTP, by one-to-one sockets (RFC 6458 4; sctp(7)). What moves are messages, each as a whole with its stream, payload protocol and order:
 * the kernel takes no message in parts, so one that comes in parts is kept until its end is there. That is bounded, for each and in total.
 *
 * An association has no half: what ends it is told to the other side once that has everything, and what comes from there meanwhile has
 * nowhere to go. Each of both has one address on our side, as the other would else find ways past the frontend's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dp.h"

#include <linux/sctp.h> /* which wants socket.h before it */

enum { PIECE = 64 << 10, ROUNDS = 16, BACKLOG = 1024 };
enum { MESSAGE_MOST = 1 << 20, HELD_MOST = 64 << 20 }; /* HELD: of all associations */
enum { STREAMS_MOST = 2048 }; /* each way: the kernel has memory for each of them */

struct message { /* what came from a side and the other has not taken */
    uint32_t size, room;
    struct sctp_sndinfo how;
    bool whole;
    uint8_t bytes[];
};

static uint8_t piece[PIECE];
static uint32_t held;

/* ---- sockets */

static int open_socket(int family, uint16_t out, uint16_t in) {
    struct sctp_initmsg streams = {.sinit_num_ostreams = out, .sinit_max_instreams = in};
    struct sctp_event cut = {.se_type = SCTP_PARTIAL_DELIVERY_EVENT, .se_on = 1}, changed = {.se_type = SCTP_ASSOC_CHANGE, .se_on = 1};
    uint32_t point = PIECE, most = MESSAGE_MOST;
    int one = 1, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_SCTP);
    if (fd < 0)
        return -1;
    /* Else a message that fills the buffer of the socket is given out only when its sender has tried again, a second later. */
    setsockopt(fd, IPPROTO_SCTP, SCTP_PARTIAL_DELIVERY_POINT, &point, sizeof point);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &most, sizeof most); /* a message may be as large as that; net.core.wmem_max bounds it */
    if (setsockopt(fd, IPPROTO_SCTP, SCTP_INITMSG, &streams, sizeof streams) ||
        setsockopt(fd, IPPROTO_SCTP, SCTP_RECVRCVINFO, &one, sizeof one) || setsockopt(fd, IPPROTO_SCTP, SCTP_EVENT, &cut, sizeof cut) ||
        setsockopt(fd, IPPROTO_SCTP, SCTP_EVENT, &changed, sizeof changed) ||
        setsockopt(fd, IPPROTO_SCTP, SCTP_NODELAY, &one, sizeof one)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int closed(int fd, int error) {
    close(fd);
    errno = error;
    return -1;
}

int sctp_listen(const struct sockaddr_storage *at, socklen_t n) {
    bool v4 = at->ss_family == AF_INET;
    int one = 1, fd = open_socket(at->ss_family, STREAMS_MOST, STREAMS_MOST);
    if (fd < 0)
        return -1;
    setsockopt(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_FREEBIND : IPV6_FREEBIND, &one, sizeof one); /* the route to it may be on its way */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* associations of one before us may still be there */
    if (bind(fd, (const struct sockaddr *)at, n) || listen(fd, BACKLOG))
        return closed(fd, errno);
    return fd;
}

/* To the one address of ours from which the endpoint is reached: an association of any address would offer all of the node's. */
static bool bind_one(int fd, const struct sockaddr_storage *to, socklen_t n) {
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    int way = socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (way < 0)
        return false;
    bool known = connect(way, (const struct sockaddr *)to, n) == 0 && getsockname(way, (struct sockaddr *)&from, &size) == 0;
    int error = errno;
    close(way);
    errno = error;
    if (!known)
        return false;
    if (from.ss_family == AF_INET)
        ((struct sockaddr_in *)&from)->sin_port = 0;
    else
        ((struct sockaddr_in6 *)&from)->sin6_port = 0;
    return bind(fd, (struct sockaddr *)&from, size) == 0;
}

/* With as many streams as the client has. */
int sctp_connect(const struct connection *c, const struct sockaddr_storage *to, socklen_t n) {
    int fd = open_socket(to->ss_family, c->streams[0], c->streams[1]);
    if (fd < 0)
        return -1;
    if (!bind_one(fd, to, n) || (connect(fd, (const struct sockaddr *)to, n) && errno != EINPROGRESS))
        return closed(fd, errno);
    return fd;
}

/* An accepted socket has the options of its listener. */
bool sctp_begin(struct connection *c) {
    struct sctp_status s = {0};
    socklen_t n = sizeof s;
    if (getsockopt(c->side[0].w.fd, IPPROTO_SCTP, SCTP_STATUS, &s, &n))
        return false;
    c->streams[0] = s.sstat_instrms;
    c->streams[1] = s.sstat_outstrms;
    return true;
}

/* ---- messages */

void sctp_release(struct side *s) {
    if (!s->message)
        return;
    held -= s->message->room;
    free(s->message);
    s->message = NULL;
}

static bool keep(struct side *s, const struct sctp_sndinfo *how, const uint8_t *from, uint32_t n, bool whole) {
    struct message *m = s->message;
    uint32_t size = m ? m->size : 0, room = m ? m->room : 0;
    if (n > MESSAGE_MOST - size)
        return false;
    if (n > room - size) {
        uint32_t more = room ? 2 * room : whole ? n : 2 * PIECE;
        more = more < MESSAGE_MOST ? more : MESSAGE_MOST;
        if (more - room > HELD_MOST - held || !(m = realloc(m, sizeof *m + more)))
            return false;
        held += more - room;
        m->room = more;
        s->message = m;
    }
    memcpy(m->bytes + size, from, n);
    m->size = size + n;
    m->how = *how;
    m->whole = whole;
    return true;
}

static ssize_t send_one(int fd, const struct sctp_sndinfo *how, const uint8_t *bytes, uint32_t n) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof *how)];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)bytes, n};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    *c = (struct cmsghdr){.cmsg_level = IPPROTO_SCTP, .cmsg_type = SCTP_SNDINFO, .cmsg_len = CMSG_LEN(sizeof *how)};
    memcpy(CMSG_DATA(c), how, sizeof *how);
    return sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum pumped flush(struct side *from, struct side *to) {
    struct message *m = from->message;
    if (send_one(to->w.fd, &m->how, m->bytes, m->size) < 0)
        return errno == EAGAIN ? pump_blocked(to) : PUMP_BROKEN;
    sctp_release(from);
    return PUMP_MORE;
}

/* What it was sent with; false: it is no data. */
static bool read_how(struct msghdr *h, struct sctp_sndinfo *how) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_level == IPPROTO_SCTP && c->cmsg_type == SCTP_RCVINFO) {
            struct sctp_rcvinfo i;
            memcpy(&i, CMSG_DATA(c), sizeof i);
            *how = (struct sctp_sndinfo){.snd_sid = i.rcv_sid, .snd_ppid = i.rcv_ppid, .snd_flags = i.rcv_flags & SCTP_UNORDERED};
            return true;
        }
    return false;
}

/* What the kernel tells of an association: that the rest of a message will not come, as its sender has given it up; and that all has been
 * said and heard after a shutdown of ours, of which a socket that is read from tells nothing else. */
static enum pumped hear(struct side *from, size_t n) {
    struct sctp_assoc_change change;
    uint16_t type = 0;
    if (n >= sizeof type)
        memcpy(&type, piece, sizeof type);
    if (type == SCTP_PARTIAL_DELIVERY_EVENT)
        sctp_release(from);
    if (type != SCTP_ASSOC_CHANGE || n < sizeof change)
        return PUMP_MORE;
    memcpy(&change, piece, sizeof change);
    from->eof = from->eof || change.sac_state == SCTP_SHUTDOWN_COMP;
    return change.sac_state == SCTP_COMM_LOST ? PUMP_BROKEN : PUMP_MORE;
}

/* A message, or a part of one. */
static enum pumped move(struct connection *c, struct side *from, struct side *to) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct sctp_rcvinfo))];
    } control;
    struct sctp_sndinfo how;
    struct iovec part = {piece, sizeof piece};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(from->w.fd, &h, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) {
        from->readable = false;
        return PUMP_WAIT;
    }
    if (n < 0)
        return PUMP_BROKEN;
    if (h.msg_flags & MSG_NOTIFICATION)
        return hear(from, (size_t)n);
    if (n == 0) {
        from->eof = true;
        return PUMP_MORE;
    }
    if (!read_how(&h, &how))
        return PUMP_BROKEN;
    c->frontend->bytes[from->number] += (uint64_t)n;
    c->since = now_ms;
    if (to->eof)
        return PUMP_MORE;
    bool whole = h.msg_flags & MSG_EOR;
    if (whole && !from->message) {
        if (send_one(to->w.fd, &how, piece, (uint32_t)n) >= 0)
            return PUMP_MORE;
        if (errno != EAGAIN)
            return PUMP_BROKEN;
    }
    if (keep(from, &how, piece, (uint32_t)n, whole))
        return PUMP_MORE;
    refused_by_limit++;
    return PUMP_BROKEN;
}

/* At most so many rounds: PUMP_MORE when there may be more. */
enum pumped sctp_pump(struct connection *c, int number) {
    struct side *from = c->side + number, *to = c->side + !number;
    enum pumped p = PUMP_MORE;
    for (int round = 0; round < ROUNDS && p == PUMP_MORE; round++) {
        if (from->message && from->message->whole && !to->eof) {
            p = to->writable ? flush(from, to) : PUMP_WAIT;
            continue;
        }
        if (from->eof) {
            sctp_release(from);
            if (!to->shut && !from->shut)
                shutdown(to->w.fd, SHUT_WR);
            to->shut = true;
            return PUMP_WAIT;
        }
        p = from->readable && (to->writable || to->eof) ? move(c, from, to) : PUMP_WAIT;
    }
    return p;
}
