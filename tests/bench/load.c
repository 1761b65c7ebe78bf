/* Clients and a server for tests/bench/proxy.py: what is sent, how often, and the time that answers took.
 *
 * load serve ADDRESS PORT                         answers on TCP and UDP with what it got; 'S' first: takes all and answers the end
 * load stream ADDRESS PORT SECONDS                → bytes a second that have arrived
 * load connections ADDRESS PORT SECONDS COUNT     → a second: connect, 64 bytes there and back, close; COUNT at a time
 * load requests ADDRESS PORT SECONDS COUNT        → a second: 64 bytes there and back, on COUNT connections that stay
 * load datagrams ADDRESS PORT SECONDS COUNT WINDOW → answers a second to 64 bytes, of COUNT sockets with WINDOW under way each; lost
 * load latency ADDRESS PORT SECONDS               → µs, p50 and p99, of a request, then of a connection with one
 * load idle ADDRESS PORT 0 COUNT                  opens COUNT, prints "open", and ends with its standard input
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, BLOCK = 256 << 10, BATCH = 64, MOST = 1 << 20, SILENCE_MS = 200 };

static struct sockaddr_in at;
static char block[BLOCK];
static double until;

static void check(bool right, const char *what) {
    if (right)
        return;
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int connected(int kind) {
    int one = 1, fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);
    check(fd >= 0, "socket");
    if (kind == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    check(connect(fd, (struct sockaddr *)&at, sizeof at) == 0, "connect");
    return fd;
}

static void exchange(int fd) {
    char answer[SIZE];
    check(send(fd, block, SIZE, 0) == SIZE, "send");
    check(recv(fd, answer, SIZE, MSG_WAITALL) == SIZE, "recv");
}

/* ---- the server */

static void answer_datagrams(int fd) {
    static char data[BATCH][2048];
    static struct sockaddr_in from[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr m[BATCH];
    for (int k = 0; k < BATCH; k++) {
        parts[k] = (struct iovec){data[k], sizeof data[k]};
        m[k] = (struct mmsghdr){.msg_hdr = {.msg_name = from + k, .msg_namelen = sizeof from[k], .msg_iov = parts + k, .msg_iovlen = 1}};
    }
    int n = recvmmsg(fd, m, BATCH, MSG_DONTWAIT, NULL);
    for (int k = 0; k < n; k++)
        parts[k].iov_len = m[k].msg_len;
    for (int done = 0, sent; done < n; done += sent > 0 ? sent : 1)
        sent = sendmmsg(fd, m + done, (unsigned)(n - done), MSG_DONTWAIT);
}

static void answer(int fd, char *sink) {
    ssize_t n = recv(fd, block, BLOCK, MSG_DONTWAIT);
    if (n > 0 && !*sink)
        *sink = block[0] == 'S' ? 's' : 'r';
    if (n > 0 && *sink == 'r')
        n = send(fd, block, (size_t)n, MSG_NOSIGNAL);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        close(fd);
        *sink = 0;
    }
}

static void serve(void) {
    static char sinks[MOST];
    struct epoll_event events[BATCH], e = {.events = EPOLLIN};
    int one = 1, poll = epoll_create1(0), tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0), room = 4 << 20;
    setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    check(bind(tcp, (struct sockaddr *)&at, sizeof at) == 0 && listen(tcp, 4096) == 0, "listen");
    check(bind(udp, (struct sockaddr *)&at, sizeof at) == 0, "bind");
    int both[] = {tcp, udp};
    for (int k = 0; k < 2; k++) {
        e.data.fd = both[k];
        epoll_ctl(poll, EPOLL_CTL_ADD, both[k], &e);
    }
    for (;;) {
        int n = epoll_wait(poll, events, BATCH, -1);
        for (int k = 0; k < n; k++) {
            int fd = events[k].data.fd;
            if (fd == udp) {
                answer_datagrams(fd);
            } else if (fd != tcp) {
                answer(fd, sinks + fd);
            } else if ((e.data.fd = accept4(tcp, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                epoll_ctl(poll, EPOLL_CTL_ADD, e.data.fd, &e);
            }
        }
    }
}

/* ---- clients */

static void stream(double seconds) {
    int fd = connected(SOCK_STREAM);
    double begun = now(), sent = 0;
    block[0] = 'S';
    until = begun + seconds;
    while (now() < until) {
        ssize_t n = send(fd, block, BLOCK, MSG_NOSIGNAL);
        check(n > 0, "send");
        sent += (double)n;
    }
    shutdown(fd, SHUT_WR);
    check(recv(fd, block, 1, 0) == 0, "the end of the stream");
    printf("%f\n", sent / (now() - begun));
}

static bool reopen(int poll, int old) {
    int one = 1;
    if (old >= 0)
        close(old);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    setsockopt(e.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    check(connect(e.data.fd, (struct sockaddr *)&at, sizeof at) == 0 || errno == EINPROGRESS, "connect");
    return epoll_ctl(poll, EPOLL_CTL_ADD, e.data.fd, &e) == 0;
}

/* fresh: a connection for each request. */
static void requests(double seconds, int count, bool fresh) {
    static bool asked[MOST];
    struct epoll_event events[BATCH];
    int poll = epoll_create1(0);
    for (int k = 0; k < count; k++)
        check(reopen(poll, -1), "epoll_ctl");
    double begun = now(), done = 0, failed = 0;
    for (until = begun + seconds; now() < until;) {
        int n = epoll_wait(poll, events, BATCH, 100);
        for (int k = 0; k < n; k++) {
            int fd = events[k].data.fd;
            ssize_t got = asked[fd] ? recv(fd, block, SIZE, 0) : 0;
            bool wrong = events[k].events & (EPOLLERR | EPOLLHUP) || (asked[fd] && got <= 0 && !(got < 0 && errno == EAGAIN));
            if (asked[fd] && !wrong && got < SIZE)
                continue;
            done += got == SIZE;
            failed += wrong;
            bool renew = wrong || (fresh && got == SIZE);
            asked[fd] = !renew;
            if (renew)
                check(reopen(poll, fd), "epoll_ctl");
            else
                send(fd, block, SIZE, MSG_NOSIGNAL);
        }
    }
    check(failed <= done / 1000, "too many failed");
    printf("%f\n", done / (now() - begun));
}

static void datagrams(double seconds, int count, int window) {
    struct epoll_event events[BATCH];
    static char data[BATCH][SIZE];
    int poll = epoll_create1(0);
    struct iovec parts[BATCH];
    struct mmsghdr m[BATCH];
    for (int k = 0; k < BATCH; k++) {
        parts[k] = (struct iovec){data[k], SIZE};
        m[k] = (struct mmsghdr){.msg_hdr = {.msg_iov = parts + k, .msg_iovlen = 1}};
    }
    int *fds = calloc((size_t)count, sizeof *fds), *under_way = calloc((size_t)MOST, sizeof *under_way);
    window = window < BATCH ? window : BATCH;
    for (int k = 0; k < count; k++) {
        fds[k] = connected(SOCK_DGRAM);
        epoll_ctl(poll, EPOLL_CTL_ADD, fds[k], &(struct epoll_event){.events = EPOLLIN, .data.fd = fds[k]});
        under_way[fds[k]] = sendmmsg(fds[k], m, (unsigned)window, 0);
    }
    double begun = now(), got = 0, lost = 0;
    for (until = begun + seconds; now() < until;) {
        int n = epoll_wait(poll, events, BATCH, SILENCE_MS);
        for (int k = 0; k < n; k++) {
            int fd = events[k].data.fd, some = recvmmsg(fd, m, BATCH, MSG_DONTWAIT, NULL);
            if (some <= 0)
                continue;
            got += some;
            under_way[fd] += sendmmsg(fd, m, (unsigned)some, 0) - some;
        }
        for (int k = 0; n == 0 && k < count; k++) { /* what is under way is lost */
            lost += under_way[fds[k]];
            under_way[fds[k]] = sendmmsg(fds[k], m, (unsigned)window, 0);
        }
    }
    printf("%f %f\n", got / (now() - begun), lost);
}

static int by_size(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static void latency(double seconds) {
    double *took = calloc(MOST, sizeof *took);
    for (int fresh = 0; fresh < 2; fresh++) {
        int n = 0, fd = connected(SOCK_STREAM);
        exchange(fd);
        for (until = now() + seconds; n < MOST && now() < until; n++) {
            double begun = now();
            if (fresh) {
                close(fd);
                fd = connected(SOCK_STREAM);
            }
            exchange(fd);
            took[n] = (now() - begun) * 1e6;
        }
        close(fd);
        qsort(took, (size_t)n, sizeof *took, by_size);
        printf("%f %f ", took[n / 2], took[n - 1 - n / 100]);
    }
    printf("\n");
}

static void idle(int count) {
    for (int k = 0; k < count; k++)
        exchange(connected(SOCK_STREAM));
    printf("open\n");
    fflush(stdout);
    while (read(0, block, BLOCK) > 0)
        ;
}

int main(int argc, char **argv) {
    check(argc >= 4, "load WHAT ADDRESS PORT …");
    at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    check(inet_pton(AF_INET, argv[2], &at.sin_addr) == 1, "ADDRESS");
    const char *what = argv[1];
    double seconds = argc > 4 ? atof(argv[4]) : 1;
    int count = argc > 5 ? atoi(argv[5]) : 1, window = argc > 6 ? atoi(argv[6]) : 1;
    if (!strcmp(what, "serve"))
        serve();
    else if (!strcmp(what, "stream"))
        stream(seconds);
    else if (!strcmp(what, "connections") || !strcmp(what, "requests"))
        requests(seconds, count, what[0] == 'c');
    else if (!strcmp(what, "datagrams"))
        datagrams(seconds, count, window);
    else if (!strcmp(what, "latency"))
        latency(seconds);
    else if (!strcmp(what, "idle"))
        idle(count);
    else
        return 1;
    return 0;
}
