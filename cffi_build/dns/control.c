/* What Python says, and what is asked of it: little-endian records in SEQPACKET messages (pyrun/dns/responder.py has the other end). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dns.h"

enum { MESSAGE_MOST = 128 << 10, FDS_MOST = 64 };
enum { OP_CONFIG = 1, OP_TABLE, OP_ANSWER, OP_SOCKETS, OP_STOP, OP_STATUS, OP_GIVE, OP_FLUSH, OP_LOOK };
enum { OP_HELLO = 101, OP_DONE, OP_ASK, OP_STATUS_IS, OP_GIVEN, OP_LOOKED };
enum { ANSWER_FAILED = 1, ANSWER_ALIAS = 2 };

static int tell(const void *p, size_t n, const int *fds, int fds_n) {
    union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)]; } control;
    struct iovec iov = {(void *)(uintptr_t)p, n};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds_n) {
        control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fds_n), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * (size_t)fds_n);
        message.msg_control = &control, message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds_n);
    }
    return sendmsg(server.control, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n ? 0 : -1;
}

static void control_close(void) {
    if (server.control < 0)
        return;
    close(server.control);
    server.control = -1;
    wait_nobody(server.now);
}

/* The newest one is listened to: the one before it may hang. */
void control_accept(void) {
    const int fd = accept4(server.control_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    control_close();
    server.control = fd;
    watch(fd, KIND_CONTROL, 0, EPOLLIN, EPOLL_CTL_ADD);
    const struct { uint32_t op, protocol; uint64_t generation; uint32_t pid, sockets; } hello = {
        OP_HELLO, DNS_PROTOCOL, server.table.generation, (uint32_t)getpid(), (uint32_t)(server.udp_n + server.tcp_n)};
    if (tell(&hello, sizeof hello, NULL, 0))
        control_close();
}

int control_ask(const uint8_t *name, size_t n, unsigned kind, unsigned flags, const uint8_t source[16]) {
    struct { uint32_t op; uint16_t kind; uint8_t flags, name_n, source[16], name[NAME_MOST]; } ask = {OP_ASK, (uint16_t)kind, (uint8_t)flags, (uint8_t)n, {0}, {0}};
    if (server.control < 0)
        return -1;
    memcpy(ask.source, source, 16);
    memcpy(ask.name, name, n);
    return tell(&ask, offsetof(__typeof__(ask), name) + n, NULL, 0);
}

static void done(uint32_t op, uint32_t status, uint64_t detail, const char *why) {
    struct { uint32_t op, of, status, unused; uint64_t detail; char why[104]; } say = {OP_DONE, op, status, 0, detail, {0}};
    strncpy(say.why, why, sizeof say.why - 1);
    tell(&say, sizeof say, NULL, 0);
}

static void take_table(int fd) {
    struct stat st;
    size_t where = 0;
    const int wanted = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    const char *why = NULL;
    uint8_t *map = MAP_FAILED;
    if ((fcntl(fd, F_GET_SEALS) & wanted) != wanted)
        why = "the table's file is not sealed";
    else if (fstat(fd, &st) || st.st_size <= 0 || (map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        why = "the table can't be mapped";
    else if ((why = table_open(&server.table, map, (size_t)st.st_size, &where)))
        munmap(map, (size_t)st.st_size);
    if (!why)
        cache_drop(1);
    done(OP_TABLE, why != NULL, why ? where : server.table.generation, why ? why : "");
}

struct answer_message {
    uint64_t generation;
    uint32_t ttl, stale;
    uint16_t kind, rcode, an, ns, ar, an_n, ns_n, ar_n;
    uint8_t flags, name_n, unused[6];
    uint8_t name[];
};

static int sections_fit(const uint8_t *p, const struct answer_message *m) {
    const size_t ends[3] = {m->an_n, (size_t)m->an_n + m->ns_n, (size_t)m->an_n + m->ns_n + m->ar_n};
    const unsigned counts[3] = {m->an, m->ns, m->ar};
    size_t at = 0;
    for (int s = 0; s < 3; s++) {
        for (unsigned i = counts[s]; i; i--)
            if (!(at = record_end(p, at, ends[s])))
                return 0;
        if (at != ends[s])
            return 0;
    }
    return 1;
}

static int take_answer(const uint8_t *p, size_t n) {
    const struct answer_message *m = (const void *)p;
    if (n < sizeof *m || n - sizeof *m < m->name_n || name_size(m->name, m->name_n) != m->name_n)
        return -1;
    const size_t data = n - sizeof *m - m->name_n, most = TCP_MOST - HEAD - NAME_MOST - 4 - OPT_SIZE;
    if (data != (size_t)m->an_n + m->ns_n + m->ar_n || data > most || !sections_fit(m->name + m->name_n, m))
        return -1;
    struct found f = {.rcode = m->rcode & 15u, .flags = RA, .an = m->an, .ns = m->ns, .ar = m->ar, .data = m->name + m->name_n,
                      .an_n = m->an_n, .ns_n = m->ns_n, .ar_n = m->ar_n};
    const int failed = m->flags & ANSWER_FAILED, alias = (m->flags & ANSWER_ALIAS) != 0;
    const struct cached *old = cache_find(m->name, m->name_n, m->kind);
    const int keep = !failed || !old || server.now >= old->stale_until_ms;
    if (keep && (!alias || m->generation == server.table.generation))
        cache_put(m->name, m->name_n, m->kind, &f, m->ttl, m->stale, alias, server.now);
    wait_answered(m->name, m->name_n, m->kind, &f, failed, server.now);
    return 0;
}

static int take_config(const uint8_t *p, size_t n) {
    uint32_t v[4];
    if (n < sizeof v || source_prefixes(p + sizeof v, n - sizeof v))
        return -1;
    memcpy(v, p, sizeof v);
    source_rate(v[0]);
    server.forwards = v[1] != 0;
    cache_limit(v[2]);
    done(OP_CONFIG, 0, 0, "");
    return 0;
}

static void take_socket(int fd) {
    int kind = 0;
    socklen_t n = sizeof kind;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &n))
        kind = 0;
    if (kind == SOCK_DGRAM)
        udp_add(fd);
    else if (kind == SOCK_STREAM)
        tcp_listen(fd);
    else
        close(fd);
}

static void give(void) {
    int fds[FDS_MOST], n = 0;
    const uint32_t op = OP_GIVEN;
    for (int i = 0; i < server.udp_n && n < FDS_MOST; i++)
        fds[n++] = server.udp[i].fd;
    for (int i = 0; i < server.tcp_n && n < FDS_MOST; i++)
        fds[n++] = server.tcp[i];
    tell(&op, sizeof op, fds, n);
}

static void status(void) {
    struct { uint32_t op, connections; uint64_t generation, names, cache[2], cache_bytes, waiting; struct counters n; } s = {
        OP_STATUS_IS, (uint32_t)tcp_count(), server.table.generation, server.table.nodes_n,
        {cache_entries(0), cache_entries(1)}, cache_bytes(), wait_count(), server.n};
    tell(&s, sizeof s, NULL, 0);
}

/* p: 16 bytes of who would ask, and a query. */
static int take_look(const uint8_t *p, size_t n) {
    struct head { uint32_t op; uint8_t from, name_n; uint16_t reply_n; uint64_t generation; uint32_t left, unused; } head;
    static uint8_t bytes[sizeof head + NAME_MOST + TCP_MOST], reply[TCP_MOST];
    struct look l;
    if (n < 16)
        return -1;
    const size_t reply_n = look(p + 16, n - 16, p, reply, &l);
    head = (struct head){OP_LOOKED, l.from, l.name_n, (uint16_t)reply_n, server.table.generation, l.left, 0};
    memcpy(bytes, &head, sizeof head);
    memcpy(bytes + sizeof head, l.name, l.name_n);
    memcpy(bytes + sizeof head + l.name_n, reply, reply_n);
    tell(bytes, sizeof head + l.name_n + reply_n, NULL, 0);
    return 0;
}

/* One message; the descriptors are this function's. -1: it is none of the protocol. */
int control_message(const uint8_t *p, size_t n, int *fds, int fds_n) {
    uint32_t op;
    if (n < 8)
        return -1;
    memcpy(&op, p, sizeof op);
    p += 8, n -= 8;
    if (op == OP_SOCKETS) {
        for (int i = 0; i < fds_n; i++)
            take_socket(fds[i]);
        done(op, 0, (uint64_t)(server.udp_n + server.tcp_n), "");
        return 0;
    }
    if (op == OP_TABLE && fds_n == 1) {
        take_table(fds[0]);
        close(fds[0]);
        return 0;
    }
    for (int i = 0; i < fds_n; i++)
        close(fds[i]);
    switch (op) {
    case OP_CONFIG: return take_config(p, n);
    case OP_ANSWER: return take_answer(p, n);
    case OP_STOP: done(op, 0, 0, ""); stop_serving(); return 0;
    case OP_STATUS: status(); return 0;
    case OP_GIVE: give(); return 0;
    case OP_LOOK: return take_look(p, n);
    case OP_FLUSH: cache_drop(0); done(op, 0, 0, ""); return 0;
    default: return -1;
    }
}

void control_event(void) {
    static _Alignas(8) uint8_t bytes[MESSAGE_MOST];
    union { struct cmsghdr head; uint8_t bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)]; } control;
    for (int round = 0; round < 64 && server.control >= 0; round++) {
        struct iovec iov = {bytes, sizeof bytes};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        const ssize_t n = recvmsg(server.control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        int fds[FDS_MOST], fds_n = 0;
        for (struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL; c; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                fds_n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(fds, CMSG_DATA(c), sizeof(int) * (size_t)fds_n);
            }
        if (n <= 0 || control_message(bytes, (size_t)n, fds, fds_n)) {
            control_close();
            return;
        }
    }
}
