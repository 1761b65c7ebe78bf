/* pyrun-dns UID GID: descriptor 3 is the unix socket on which it listens for who controls it. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dns.h"

enum { CONTROL_LISTENER = 3, EVENTS = 64, DRAIN_MS = 10000 };

void die(const char *what, int error) {
    char line[200];
    const int n = snprintf(line, sizeof line, "pyrun-dns: %s%s%s\n", what, error ? ": " : "", error ? strerror(error) : "");
    if (write(2, line, n > 0 ? (size_t)n : 0) < 0)
        _exit(2);
    _exit(1);
}

void watch(int fd, unsigned kind, unsigned index, unsigned events, int change) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
    if (epoll_ctl(server.epoll, change, fd, &event) && errno != ENOENT)
        die("epoll_ctl", errno);
}

/* Another process has the same sockets now. What is waited for is still answered through them. */
void stop_serving(void) {
    for (int i = 0; i < server.udp_n && !server.draining; i++)
        epoll_ctl(server.epoll, EPOLL_CTL_DEL, server.udp[i].fd, NULL);
    for (int i = 0; i < server.tcp_n && !server.draining; i++)
        epoll_ctl(server.epoll, EPOLL_CTL_DEL, server.tcp[i], NULL);
    server.draining = 1;
    server.drain_until = server.now + DRAIN_MS;
}

static int patience(void) {
    const int64_t due[3] = {wait_timers(server.now), tcp_timers(server.now), server.draining ? server.drain_until : -1};
    int64_t first = -1;
    for (int i = 0; i < 3; i++)
        if (due[i] >= 0 && (first < 0 || due[i] < first))
            first = due[i];
    return first < 0 ? -1 : first <= server.now ? 1 : (int)(first - server.now) + 1;
}

static void handle(const struct epoll_event *event) {
    const int index = (int)(event->data.u64 & 0xffffffff);
    switch (event->data.u64 >> 32) {
    case KIND_CONTROL_LISTENER: control_accept(); break;
    case KIND_CONTROL: control_event(); break;
    case KIND_UDP: udp_read(index); break;
    case KIND_TCP_LISTENER: tcp_accept(index); break;
    case KIND_TCP: tcp_event(index, event->events); break;
    }
}

int main(int argc, char **argv) {
    struct epoll_event events[EVENTS];
    if (argc != 3)
        die("usage: pyrun-dns UID GID, with a listening unix socket as descriptor 3", 0);
    signal(SIGPIPE, SIG_IGN);
    if (syscall(SYS_close_range, CONTROL_LISTENER + 1, ~0U, 0))
        die("close_range", errno);
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll < 0)
        die("epoll_create1", errno);
    hash_seed();
    server.now = clock_read() / 1000000;
    server.control_listener = CONTROL_LISTENER;
    watch(CONTROL_LISTENER, KIND_CONTROL_LISTENER, 0, EPOLLIN, EPOLL_CTL_ADD);
    sandbox((unsigned)strtoul(argv[1], NULL, 10), (unsigned)strtoul(argv[2], NULL, 10));
    for (;;) {
        const int n = epoll_wait(server.epoll, events, EVENTS, patience());
        server.now = clock_read() / 1000000;
        if (n < 0 && errno != EINTR)
            die("epoll_wait", errno);
        for (int i = 0; i < n; i++)
            handle(&events[i]);
        if (server.draining && ((!tcp_count() && !wait_count()) || server.now >= server.drain_until))
            return 0;
    }
}
