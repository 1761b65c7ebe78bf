/* The probes: when each is due, its connection, and what the agent is told. One at a time of each; a slot sleeps between them. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum { CONTROL = 3, EVENTS = 64, BUFFER = MOST_HEAD + MOST_BODY + 4 };

struct slot {
    struct watch w;
    uint8_t *request; /* NULL: nothing is asked */
    uint8_t *buffer;  /* while one runs */
    struct answer answer;
    size_t sent, came;
    int64_t due, by; /* ms */
    uint64_t begun_ns, from_ns; /* the same moment, by the wall clock and by the one that nobody sets */
    int fd; /* -1: none runs */
};

static struct slot slots[SLOTS];
static unsigned used; /* none is used behind these */
static int epoll_fd;
static int64_t now;

static uint64_t clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void hang_up(struct slot *s) {
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    free(s->buffer);
    s->buffer = NULL;
}

static void idle(struct slot *s) {
    hang_up(s);
    free(s->request);
    s->request = NULL;
    while (used && !slots[used - 1].request)
        used--;
}

static int is_wanted(const struct slot *s) {
    return __atomic_load_n(&shared[s->w.slot].wanted, __ATOMIC_ACQUIRE) == s->w.generation;
}

/* What is not good is the last that we have to say of it. It waits for an agent that is slow. */
static void tell(struct slot *s, enum told kind, int value) {
    const struct tell t = {s->w.slot, s->w.generation, kind, value, s->begun_ns};
    if (is_wanted(s) && send(CONTROL, &t, sizeof t, MSG_NOSIGNAL) < 0)
        die("the agent is gone", errno);
    idle(s);
}

static const uint64_t bounds_ns[BUCKETS - 1] = {5000000,   10000000,  25000000,   50000000,   100000000,  250000000,
                                                500000000, 1000000000, 2500000000, 5000000000, 10000000000};

static void measure(const struct slot *s, struct shared *ours) {
    const uint64_t took = clock_ns(CLOCK_MONOTONIC) - s->from_ns;
    unsigned at = 0;
    while (at < BUCKETS - 1 && took > bounds_ns[at])
        at++;
    ours->took[at]++;
    ours->took_ns += took;
}

static void good(struct slot *s) {
    struct shared *ours = &shared[s->w.slot];
    hang_up(s);
    s->due += s->w.period_ms;
    if (s->due < now)
        s->due = now;
    if (is_wanted(s)) {
        measure(s, ours);
        __atomic_store_n(&ours->last_ns, s->begun_ns, __ATOMIC_RELAXED);
        __atomic_store_n(&ours->runs, ours->runs + 1, __ATOMIC_RELEASE);
    }
}

/* Asked again, it says whether there is a connection. 0, or the errno. */
static int connects(const struct slot *s) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(s->w.port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(s->w.port)};
    memcpy(&v4.sin_addr, s->w.address, 4);
    memcpy(&v6.sin6_addr, s->w.address, 16);
    const int is_v4 = s->w.family == 4;
    const struct sockaddr *to = is_v4 ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6;
    return connect(s->fd, to, is_v4 ? sizeof v4 : sizeof v6) == 0 || errno == EISCONN ? 0 : errno;
}

static int is_shortage(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

static int is_under_way(int error) { return error == EINPROGRESS || error == EALREADY || error == EINTR; }

/* 1: it is sent, 0: not yet, -1: it has been told of. What a connection fails by is said here first. */
static int sends(struct slot *s) {
    while (s->sent < s->w.request) {
        const ssize_t n = send(s->fd, s->request + s->sent, s->w.request - s->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            s->sent = s->w.request; /* it may have answered before it hung up */
        else if (n < 0) {
            tell(s, s->sent ? TOLD_READ : TOLD_CONNECT, errno);
            return -1;
        } else
            s->sent += (size_t)n;
    }
    return 1;
}

static void reads(struct slot *s) {
    for (;;) {
        const ssize_t n = recv(s->fd, s->buffer + s->came, BUFFER - s->came, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            return tell(s, TOLD_READ, errno);
        s->came += (size_t)n;
        switch (http_look(&s->answer, s->buffer, s->came, n == 0)) {
        case HTTP_MORE: continue;
        case HTTP_GOOD: return good(s);
        case HTTP_STATUS: return tell(s, TOLD_STATUS, (int)s->answer.status);
        case HTTP_STRANGE: return tell(s, TOLD_STRANGE, 0);
        case HTTP_EOF: return tell(s, TOLD_EOF, 0);
        }
    }
}

/* Something has happened on its connection. */
static void proceed(struct slot *s) {
    if (s->w.request) {
        if (sends(s) > 0)
            reads(s);
        return;
    }
    const int error = connects(s);
    if (!error)
        good(s);
    else if (!is_under_way(error))
        tell(s, TOLD_CONNECT, error);
}

/* To an address of this machine there is a connection at once, and to wait for no more than the answer. */
static void begin(struct slot *s) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u32 = s->w.slot};
    if (!is_wanted(s))
        return idle(s);
    s->begun_ns = clock_ns(CLOCK_REALTIME);
    s->from_ns = clock_ns(CLOCK_MONOTONIC);
    s->due = now; /* from which the next one counts */
    s->by = now + s->w.timeout_ms;
    s->sent = s->came = 0;
    s->answer = (struct answer){0};
    s->fd = socket(s->w.family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return tell(s, is_shortage(errno) ? TOLD_SHORTAGE : TOLD_STRANGE, errno);
    s->buffer = s->w.request ? malloc(BUFFER) : NULL;
    if (s->w.request && !s->buffer)
        return tell(s, TOLD_SHORTAGE, ENOMEM);
    int error = connects(s);
    if (!s->w.request && is_under_way(error))
        error = connects(s);
    if (error && !is_under_way(error))
        return tell(s, TOLD_CONNECT, error);
    if (!s->w.request && !error)
        return good(s);
    const int sent = s->w.request ? sends(s) : 0;
    if (sent < 0)
        return;
    if (!sent)
        event.events |= EPOLLOUT;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event))
        tell(s, TOLD_SHORTAGE, errno);
}

/* ---- what the agent wants */

static void take(const struct watch *w, const uint8_t *request) {
    struct slot *s = &slots[w->slot];
    struct shared *ours = &shared[w->slot];
    idle(s);
    s->w = *w;
    ours->runs = ours->last_ns = ours->took_ns = 0;
    memset(ours->took, 0, sizeof ours->took);
    __atomic_store_n(&ours->of, w->generation, __ATOMIC_RELEASE);
    s->request = malloc(w->request + 1);
    if (!s->request) {
        s->begun_ns = 0;
        return tell(s, TOLD_SHORTAGE, ENOMEM);
    }
    memcpy(s->request, request, w->request);
    s->due = now + w->first_ms;
    if (w->slot >= used)
        used = w->slot + 1;
}

static void hear(void) {
    static struct {
        struct watch w;
        uint8_t request[MOST_REQUEST];
    } message;
    for (;;) {
        const ssize_t n = recv(CONTROL, &message, sizeof message, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) /* it has ended: whoever comes next begins anew */
            _exit(0);
        const struct watch *w = &message.w;
        if ((size_t)n < sizeof *w || w->request > MOST_REQUEST || (size_t)n != sizeof *w + w->request || w->slot >= SLOTS ||
            (w->family != 4 && w->family != 6) || !w->period_ms || !w->timeout_ms)
            die("the agent is of another version", 0);
        take(w, message.request);
    }
}

/* ---- the loop */

/* Begins what is due and ends what took too long. How long nothing is to be done, in ms; -1: until somebody says so. */
static int timers(void) {
    int64_t next = -1;
    for (unsigned i = 0; i < used; i++) {
        struct slot *s = &slots[i];
        if (!s->request)
            continue;
        if (s->fd < 0 && s->due <= now)
            begin(s);
        else if (s->fd >= 0 && s->by <= now)
            tell(s, TOLD_TIMEOUT, 0);
        if (!s->request)
            continue;
        const int64_t at = s->fd < 0 ? s->due : s->by;
        if (next < 0 || at < next)
            next = at;
    }
    return next < 0 ? -1 : next <= now ? 0 : next - now > 1000000 ? 1000000 : (int)(next - now);
}

void prepare(void) {
    struct epoll_event control = {.events = EPOLLIN, .data.u32 = SLOTS};
    for (unsigned i = 0; i < SLOTS; i++)
        slots[i].fd = -1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, CONTROL, &control))
        die("epoll", errno);
}

void loop(void) {
    struct epoll_event events[EVENTS];
    for (;;) {
        now = (int64_t)(clock_ns(CLOCK_MONOTONIC) / 1000000);
        const int n = epoll_wait(epoll_fd, events, EVENTS, timers());
        if (n < 0 && errno != EINTR)
            die("epoll_wait", errno);
        now = (int64_t)(clock_ns(CLOCK_MONOTONIC) / 1000000);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u32 == SLOTS)
                hear();
            else if (slots[events[i].data.u32].fd >= 0)
                proceed(&slots[events[i].data.u32]);
        }
    }
}
