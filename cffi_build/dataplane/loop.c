/* The event loop: epoll, the clock, and what has to be done at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

#include "dp.h"

enum { EVENTS = 128, TICK_MS = 1000 };

int64_t now_ms;
struct wire_settings settings = {
    .connect_ms = 1000, .tries = 3, .half_closed_s = 900, .drain_s = 0, .udp_new_s = 30, .udp_stream_s = 180,
    .udp_flows = 16384, .udp_source = 1024, .port_low = 61000, .port_high = 64999,
};
static int epoll_fd = -1;
static bool ended, is_retiring;
static int64_t retire_by;

int64_t clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void loop_init(void) {
    now_ms = clock_ms();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail(errno, "epoll_create1");
}

bool loop_add(struct watched *w, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = w};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, w->fd, &e) == 0;
}

bool loop_change(struct watched *w, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = w};
    return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, w->fd, &e) == 0;
}

/* Before it is closed, where another process has it too: for as long as anybody has it, epoll would tell of it. */
void loop_remove(struct watched *w) { epoll_ctl(epoll_fd, EPOLL_CTL_DEL, w->fd, NULL); }

void loop_end(void) { ended = true; }
bool retiring(void) { return is_retiring; }

void retire(int64_t limit_s) {
    is_retiring = true;
    retire_by = limit_s > 0 ? now_ms + 1000 * limit_s : INT64_MAX;
}

static int64_t sooner(int64_t a, int64_t b) { return a < b ? a : b; }

void loop_run(void) {
    struct epoll_event events[EVENTS];
    int64_t next_tick = now_ms + TICK_MS, wait = 0;
    while (!ended) {
        int n = epoll_wait(epoll_fd, events, EVENTS, (int)wait);
        if (n < 0 && errno != EINTR)
            fail(errno, "epoll_wait");
        now_ms = clock_ms();
        for (int k = 0; k < n; k++) {
            struct watched *w = events[k].data.ptr;
            if (w->fd >= 0) /* it may have been closed by an event before this one; its memory lasts until the end of the batch */
                w->ready(w, events[k].events);
        }
        tcp_continue();
        wait = sooner(tcp_timers(now_ms), own_timers(now_ms));
        if (now_ms >= next_tick) {
            affinity_tick(now_ms);
            next_tick = now_ms + TICK_MS;
        }
        tcp_free_dead();
        flow_free_dead();
        own_free_dead();
        if (is_retiring && ((!connections && !udp_flows) || now_ms >= retire_by))
            return;
        wait = tcp_has_more() ? 0 : sooner(wait, connections || affinity_count() || udp_flows || is_retiring ? TICK_MS : 60000);
    }
}
