/* What Python asks, and the answers. The listening socket was given to us; who connects to it has to be root, or who started us.
 * A caller that goes away changes nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dp.h"

enum { CALLERS_MOST = 8, KEPT_MOST = 1024, IMAGE_MOST = 256 << 20, SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW };

struct message {
    struct wire_request head;
    const uint8_t *body;
    uint32_t size, n_fds;
    int fds[WIRE_FDS];
};

static struct watched listener, callers[CALLERS_MOST];
static uint32_t allowed_uid;
static uint8_t kept_body[KEPT_MOST];
static uint32_t kept_size, n_kept;
static int kept[WIRE_FDS];
static _Alignas(8) uint8_t received[WIRE_MESSAGE];

/* ---- replies */

static void send_reply(int fd, uint16_t kind, int error, const char *text, const void *body, uint32_t size, const int *fds, uint32_t n_fds) {
    struct wire_reply r = {.magic = WIRE_MAGIC, .version = WIRE_VERSION, .kind = kind, .error = error, .size = size, .generation = table.generation};
    struct iovec parts[] = {{&r, sizeof r}, {(void *)(uintptr_t)body, size}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WIRE_FDS * sizeof(int))];
    } rights;
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = size ? 2 : 1};
    snprintf(r.text, sizeof r.text, "%s", text ? text : "");
    if (n_fds) {
        memset(&rights, 0, sizeof rights);
        m.msg_control = rights.bytes;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT); /* who does not read its answers has lost them */
}

/* ---- requests: NULL, or what is wrong */

static const char *apply_memfd(int fd) {
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS)
        return "an image that is no sealed memfd";
    if (fstat(fd, &st) || st.st_size <= 0 || st.st_size > IMAGE_MOST)
        return "an image's size";
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        return "no memory";
    const char *wrong = table_apply(p, (size_t)st.st_size, now_ms);
    munmap(p, (size_t)st.st_size);
    return wrong;
}

static const char *apply(const struct message *m) {
    if (m->n_fds > 1 || (m->n_fds == 1) == (m->size != 0))
        return "an image: in the message or as a descriptor";
    const char *wrong = m->n_fds ? apply_memfd(m->fds[0]) : table_apply(m->body, m->size, now_ms);
    if (!wrong)
        own_adopt_no_more();
    return wrong;
}

static const char *set(const struct message *m) {
    struct wire_settings s;
    if (m->size != sizeof s)
        return "settings of another size";
    memcpy(&s, m->body, sizeof s);
    if (!s.connect_ms || s.connect_ms > 600000 || !s.tries || s.tries > TRIES_MOST)
        return "connect_ms or tries";
    if (s.port_low > s.port_high || (s.port_high && !s.port_low))
        return "ports";
    if (!s.udp_new_s || !s.udp_stream_s)
        return "udp_new_s or udp_stream_s";
    settings = s;
    return NULL;
}

static bool is_listener(int fd) {
    int listens = 0, type = 0;
    socklen_t n = sizeof listens, n2 = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens &&
           getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &type, &n2) == 0 && type == IPPROTO_TCP && fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

static const char *listen_on(struct message *m) {
    for (uint32_t k = 0; k < m->n_fds; k++)
        if (!is_listener(m->fds[k]))
            return "a descriptor that is no TCP socket that listens";
    if (!tcp_listen(m->fds, m->n_fds))
        return "the sockets that listen";
    m->n_fds = 0; /* ours from now on */
    return NULL;
}

static const char *keep(struct message *m) {
    if (m->size > sizeof kept_body)
        return "more to keep than there is room for";
    for (uint32_t k = 0; k < n_kept; k++)
        close(kept[k]);
    memcpy(kept, m->fds, sizeof kept);
    n_kept = m->n_fds;
    m->n_fds = 0;
    memcpy(kept_body, m->body, m->size);
    kept_size = m->size;
    return NULL;
}

static void send_given(int fd, uint16_t kind) {
    static struct wire_entry entries[WIRE_FDS];
    int fds[WIRE_FDS];
    uint32_t n = give(kind, entries, fds, WIRE_FDS);
    send_reply(fd, kind, 0, NULL, entries, n * sizeof *entries, fds, n);
    for (uint32_t k = 0; k < n; k++)
        close(fds[k]);
}

static void send_memfd(int fd, uint16_t kind, int made) {
    send_reply(fd, kind, made < 0 ? errno : 0, made < 0 ? "no memory" : NULL, NULL, 0, &made, made >= 0);
    if (made >= 0)
        close(made);
}

static struct wire_state state(void) {
    int fds[WIRE_FDS];
    uint32_t flags = (retiring() ? WIRE_RETIRING : 0) | (tcp_is_short() ? WIRE_SHORT : 0) | (own_waits() ? WIRE_WAITING : 0);
    return (struct wire_state){table.generation, connections, udp_flows, table.frontends.count, table.sets.count, accepted_total,
                               refused_by_limit, (uint32_t)getpid(), flags, tcp_listeners(fds, WIRE_FDS), connection_limit};
}

static void answer(int fd, struct message *m) {
    const char *wrong = NULL;
    uint16_t kind = m->head.kind;
    switch (kind) {
    case WIRE_HELLO: {
        struct wire_state s = state();
        send_reply(fd, kind, 0, NULL, &s, sizeof s, NULL, 0);
        return;
    }
    case WIRE_SETTINGS: wrong = set(m); break;
    case WIRE_LISTEN: wrong = listen_on(m); break;
    case WIRE_APPLY: wrong = apply(m); break;
    case WIRE_COUNTERS: send_memfd(fd, kind, counters_memfd()); return;
    case WIRE_GIVE_PINS: send_memfd(fd, kind, give_pins()); return;
    case WIRE_GIVE_SOCKETS:
    case WIRE_GIVE_FLOWS: send_given(fd, kind); return;
    case WIRE_KEPT: send_reply(fd, kind, 0, NULL, kept_body, kept_size, kept, n_kept); return;
    case WIRE_KEEP: wrong = keep(m); break;
    case WIRE_TAKE_SOCKETS:
    case WIRE_TAKE_FLOWS:
        wrong = take_entries(kind, m->body, m->size, m->fds, m->n_fds);
        m->n_fds = 0;
        break;
    case WIRE_TAKE_PINS: wrong = m->n_fds == 1 ? take_pins(m->fds[0]) : "pins without a descriptor"; break;
    case WIRE_GIVE: {
        int fds[WIRE_FDS];
        uint32_t n = tcp_listeners(fds, WIRE_FDS);
        send_reply(fd, kind, 0, NULL, NULL, 0, fds, n);
        return;
    }
    case WIRE_RETIRE:
        tcp_listen(NULL, 0);
        own_close();
        retire(m->head.value > INT32_MAX ? INT32_MAX : (int64_t)m->head.value);
        break;
    case WIRE_END: loop_end(); break;
    default: wrong = "a request of a kind that there is not";
    }
    send_reply(fd, kind, wrong ? EINVAL : 0, wrong, NULL, 0, NULL, 0);
}

/* ---- callers */

static void take_rights(struct msghdr *h, struct message *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            uint32_t n = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            for (uint32_t k = 0; k < n; k++) {
                int fd;
                memcpy(&fd, CMSG_DATA(c) + k * sizeof fd, sizeof fd);
                if (m->n_fds < WIRE_FDS)
                    m->fds[m->n_fds++] = fd;
                else
                    close(fd);
            }
        }
}

static void caller_ready(struct watched *w, uint32_t events) {
    (void)events;
    static struct message m;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WIRE_FDS * sizeof(int))];
    } rights;
    struct iovec into = {received, sizeof received};
    struct msghdr h = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = rights.bytes, .msg_controllen = sizeof rights};
    ssize_t n = recvmsg(w->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close(w->fd);
        w->fd = -1;
        return;
    }
    m = (struct message){.n_fds = 0};
    take_rights(&h, &m);
    memcpy(&m.head, received, (size_t)n < sizeof m.head ? (size_t)n : sizeof m.head);
    m.body = received + sizeof m.head;
    m.size = (size_t)n < sizeof m.head ? 0 : (uint32_t)((size_t)n - sizeof m.head);
    if ((size_t)n < sizeof m.head || h.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || m.head.magic != WIRE_MAGIC)
        send_reply(w->fd, m.head.kind, EINVAL, "no request", NULL, 0, NULL, 0);
    else if (m.head.version != WIRE_VERSION)
        send_reply(w->fd, m.head.kind, EPROTO, "a request of another version", NULL, 0, NULL, 0);
    else
        answer(w->fd, &m);
    for (uint32_t k = 0; k < m.n_fds; k++)
        close(m.fds[k]);
}

static void listener_ready(struct watched *w, uint32_t events) {
    (void)events;
    struct ucred peer;
    socklen_t n = sizeof peer;
    int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    bool ok = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && (peer.uid == 0 || peer.uid == allowed_uid);
    for (int k = 0; ok && k < CALLERS_MOST; k++)
        if (callers[k].fd < 0) {
            callers[k] = (struct watched){caller_ready, fd};
            if (loop_add(callers + k, EPOLLIN))
                return;
            callers[k].fd = -1;
            break;
        }
    close(fd);
}

bool control_init(int fd) {
    allowed_uid = geteuid();
    for (int k = 0; k < CALLERS_MOST; k++)
        callers[k].fd = -1;
    listener = (struct watched){listener_ready, fd};
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && loop_add(&listener, EPOLLIN);
}
