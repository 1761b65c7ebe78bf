/* The fuzzer of what the data plane is asked: libFuzzer sends messages with descriptors to the real control.c, behind which is all of the
 * real data plane but its loop, in a network namespace of its own.
 *
 * The input is messages: kind, what is wrong with it, descriptors (up to 7, each of a kind by two bits of the next two bytes), a length of
 * two bytes, the body. What must hold: each message has one answer, a refused image changes nothing, and at the end, when all is let go of,
 * no descriptor, flow, pin, frontend or set is left.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <sched.h>

#include "../dataplane/control.c"

enum { UDP_SOCKET, TCP_LISTENER, SEALED, MEMFD, HEAD = 6 };
static int to_it = -1;
static uint32_t descriptors;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void say(const char *format, ...) {
    (void)format;
}

void fail(int error, const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    abort();
}

/* Sockets and memfds: libFuzzer has pipes of its own, to its symbolizer. */
static uint32_t count_descriptors(void) {
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char to[16] = "";
        if (readlinkat(dirfd(d), e->d_name, to, sizeof to - 1) > 0 && (!strncmp(to, "socket:", 7) || !strncmp(to, "/memfd:", 7)))
            n++;
    }
    if (d)
        closedir(d);
    return n;
}

static int made(unsigned kind, const uint8_t *body, size_t n) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = -1;
    if (kind == UDP_SOCKET || kind == TCP_LISTENER) {
        fd = socket(AF_INET, (kind == UDP_SOCKET ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
        if (fd >= 0 && (bind(fd, (struct sockaddr *)&any, sizeof any) || (kind == TCP_LISTENER && listen(fd, 1))))
            fail(errno, "a socket of the fuzzer");
        return fd;
    }
    fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write(fd, body, n) != (ssize_t)n || (kind == SEALED && fcntl(fd, F_ADD_SEALS, SEALS)))
        fail(errno, "a memfd of the fuzzer");
    return fd;
}

/* Answers, until there is none: how many. Their descriptors are closed. */
static int answers(void) {
    static uint8_t bytes[WIRE_MESSAGE];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(WIRE_FDS * sizeof(int))];
    } rights;
    for (int n = 0;; n++) {
        struct iovec into = {bytes, sizeof bytes};
        struct msghdr h = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = rights.bytes, .msg_controllen = sizeof rights};
        struct message m = {.n_fds = 0};
        struct wire_reply r;
        ssize_t got = recvmsg(to_it, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got < 0)
            return n;
        take_rights(&h, &m);
        for (uint32_t k = 0; k < m.n_fds; k++)
            close(m.fds[k]);
        memcpy(&r, bytes, sizeof r);
        if ((size_t)got < sizeof r || (size_t)got != sizeof r + r.size || r.magic != WIRE_MAGIC || r.text[sizeof r.text - 1])
            fail(0, "an answer that is none");
    }
}

static void ask(uint16_t kind, unsigned wrong, const int *fds, uint32_t n_fds, const uint8_t *body, size_t n) {
    struct wire_request head = {WIRE_MAGIC + (wrong & 1), WIRE_VERSION + (wrong >> 1 & 1), kind, 0};
    struct iovec parts[] = {{&head, wrong & 4 ? 9 : sizeof head}, {(void *)(uintptr_t)body, n}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } rights;
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
    uint64_t generation = table.generation;
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
    if (sendmsg(to_it, &m, 0) < 0)
        fail(errno, "sendmsg");
    callers[0].ready(callers, EPOLLIN);
    if (callers[0].fd < 0 || answers() != 1)
        fail(0, "not one answer");
    if (kind != WIRE_APPLY && table.generation != generation)
        fail(0, "another generation without an image");
    now_ms += 100;
    tcp_timers(now_ms);
    own_timers(now_ms);
    affinity_tick(now_ms);
    tcp_free_dead();
    flow_free_dead();
    own_free_dead();
}

static void let_go(void) {
    static const struct wire_image none = {.magic = WIRE_MAGIC, .version = WIRE_VERSION, .flags = IMAGE_FULL};
    const struct wire_settings first = {.connect_ms = 1000, .tries = 3, .udp_new_s = 30, .udp_stream_s = 180, .udp_flows = 64, .udp_source = 16};
    ask(WIRE_APPLY, 0, NULL, 0, (const uint8_t *)&none, sizeof none);
    ask(WIRE_LISTEN, 0, NULL, 0, NULL, 0);
    ask(WIRE_KEEP, 0, NULL, 0, NULL, 0);
    ask(WIRE_SETTINGS, 0, NULL, 0, (const uint8_t *)&first, sizeof first);
    now_ms += (int64_t)UINT32_MAX * 1000;
    while (affinity_count())
        affinity_tick(now_ms);
    now_ms = 1000;
    if (table.frontends.count || table.sets.count || !list_empty(&table.gone) || udp_flows || source_count())
        fail(0, "something is left");
    uint32_t now = count_descriptors();
    if (descriptors && now != descriptors)
        fail(0, "a descriptor is left");
    descriptors = now;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    int pair[2];
    (void)argc, (void)argv;
    if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET))
        fail(errno, "a network namespace");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        fail(errno, "socketpair");
    to_it = pair[0];
    limits_init();
    loop_init();
    now_ms = 1000;
    for (int k = 1; k < CALLERS_MOST; k++)
        callers[k].fd = -1;
    callers[0] = (struct watched){caller_ready, pair[1]};
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!descriptors)
        let_go();
    while (size >= HEAD) {
        int fds[8];
        uint32_t n_fds = data[2] & 7;
        size_t n = (size_t)(data[4] | data[5] << 8);
        const uint8_t *head = data;
        data += HEAD;
        size -= HEAD;
        n = n > size ? size : n;
        for (uint32_t k = 0; k < n_fds; k++)
            fds[k] = made(k ? head[3] >> (2 * (k & 3)) & 3 : head[2] >> 3 & 3, data, n);
        /* what is in a memfd is not in the message as well */
        bool apart = n_fds && (head[2] >> 3 & 3) >= SEALED;
        ask(head[0] % 20, head[1] & 0xf0 ? 0 : head[1], fds, n_fds, data, apart ? 0 : n);
        for (uint32_t k = 0; k < n_fds; k++)
            close(fds[k]);
        data += n;
        size -= n;
    }
    let_go();
    return 0;
}
