/* Datagrams, many at a time. A socket that is bound to one address answers from it; one that has many is told which was asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "dns.h"

enum { BATCH = 64, QUERY_MOST = 1500, ROUNDS = 4, CONTROL = 64 };
static struct mmsghdr in[BATCH], out[BATCH];
static struct iovec in_iov[BATCH], out_iov[BATCH];
static struct peer peers[BATCH];
static uint8_t in_bytes[BATCH][QUERY_MOST], out_bytes[BATCH][UDP_MOST];
static union { struct cmsghdr head; uint8_t bytes[CONTROL]; } in_control[BATCH], out_control[BATCH];

void udp_add(int fd) {
    struct sockaddr_in6 own;
    socklen_t n = sizeof own;
    const int one = 1, index = server.udp_n;
    if (index == SOCKETS_MOST || getsockname(fd, (void *)&own, &n))
        return;
    server.udp[index].fd = fd;
    server.udp[index].family = own.sin6_family;
    server.udp[index].wildcard = own.sin6_family == AF_INET ? ((struct sockaddr_in *)&own)->sin_addr.s_addr == INADDR_ANY
                                                            : IN6_IS_ADDR_UNSPECIFIED(&own.sin6_addr);
    if (server.udp[index].wildcard) {
        if (own.sin6_family == AF_INET)
            setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
        else
            setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
    }
    server.udp_n++;
    watch(fd, KIND_UDP, (unsigned)index, EPOLLIN, EPOLL_CTL_ADD);
}

void peer_source(struct peer *peer) {
    if (peer->address.any.sa_family == AF_INET6) {
        memcpy(peer->source, &peer->address.v6.sin6_addr, 16);
        return;
    }
    memset(peer->source, 0, 10);
    memset(peer->source + 10, 0xff, 2);
    memcpy(peer->source + 12, &peer->address.v4.sin_addr, 4);
}

static void read_local(struct msghdr *from, struct peer *peer) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(from); c; c = CMSG_NXTHDR(from, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
            memcpy(&peer->local.v4, CMSG_DATA(c), sizeof peer->local.v4);
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
            memcpy(&peer->local.v6, CMSG_DATA(c), sizeof peer->local.v6);
    }
}

static void write_head(struct msghdr *to, const struct peer *peer, struct cmsghdr *c) {
    to->msg_name = (void *)&peer->address;
    to->msg_namelen = peer->address.any.sa_family == AF_INET ? sizeof peer->address.v4 : sizeof peer->address.v6;
    to->msg_control = NULL, to->msg_controllen = 0;
    if (!server.udp[peer->socket].wildcard)
        return;
    if (server.udp[peer->socket].family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = peer->local.v4.ipi_addr};
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO};
        memcpy(CMSG_DATA(c), &info, sizeof info);
        to->msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        struct in6_pktinfo info = peer->local.v6;
        if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
            info.ipi6_ifindex = 0;
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof info), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO};
        memcpy(CMSG_DATA(c), &info, sizeof info);
        to->msg_controllen = CMSG_SPACE(sizeof info);
    }
    to->msg_control = c;
}

static void prepare(int index) {
    for (int i = 0; i < BATCH; i++) {
        in_iov[i] = (struct iovec){in_bytes[i], QUERY_MOST};
        in[i].msg_hdr = (struct msghdr){.msg_name = &peers[i].address, .msg_namelen = sizeof peers[i].address,
                                        .msg_iov = &in_iov[i], .msg_iovlen = 1};
        if (server.udp[index].wildcard)
            in[i].msg_hdr.msg_control = &in_control[i], in[i].msg_hdr.msg_controllen = CONTROL;
    }
}

/* What the kernel can't send now is lost, as datagrams may be: whoever asked asks again. */
static void flush(int fd, int n) {
    for (int sent = 0; sent < n;) {
        const int done = sendmmsg(fd, out + sent, (unsigned)(n - sent), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done > 0) {
            sent += done;
            continue;
        }
        if (errno == EINTR)
            continue;
        server.n.send_failed++;
        sent++; /* that one has an address which the kernel refuses; the next may have none */
    }
}

static int answer_batch(int index, int n) {
    int ready = 0;
    for (int i = 0; i < n; i++) {
        struct peer *peer = &peers[i];
        peer->socket = index, peer->tcp = 0;
        if (in[i].msg_hdr.msg_flags & MSG_TRUNC) {
            server.n.malformed++;
            continue;
        }
        if (server.udp[index].wildcard)
            read_local(&in[i].msg_hdr, peer);
        peer_source(peer);
        const size_t size = serve(in_bytes[i], in[i].msg_len, peer, out_bytes[ready]);
        if (!size)
            continue;
        out_iov[ready] = (struct iovec){out_bytes[ready], size};
        out[ready].msg_hdr = (struct msghdr){.msg_iov = &out_iov[ready], .msg_iovlen = 1};
        write_head(&out[ready].msg_hdr, peer, &out_control[ready].head);
        ready++;
    }
    return ready;
}

void udp_read(int index) {
    for (int round = 0; round < ROUNDS; round++) {
        prepare(index);
        const int n = recvmmsg(server.udp[index].fd, in, BATCH, MSG_DONTWAIT, NULL);
        if (n <= 0)
            return;
        flush(server.udp[index].fd, answer_batch(index, n));
        count_sent();
        if (n < BATCH)
            return;
    }
}

void udp_send(const struct peer *peer, const uint8_t *p, size_t n) {
    union { struct cmsghdr head; uint8_t bytes[CONTROL]; } control;
    struct iovec iov = {(void *)(uintptr_t)p, n};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    write_head(&message, peer, &control.head);
    if (sendmsg(server.udp[peer->socket].fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        server.n.send_failed++;
}
