/* The table of flows: which endpoint a client's datagrams go to. It is bounded, in total and for each client; where there is no room the
 * longest unused one goes, and of those without an answer first, since answers can't be forged by a sender of forged addresses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"

enum { LOOKED_AT = 16, TRIES = 3 };

uint32_t udp_flows;
static struct hash flows;
static struct list fresh = {&fresh, &fresh}, answered = {&answered, &answered}, dead = {&dead, &dead};

static uint64_t flow_hash(const struct own_socket *u, const struct address *client, uint16_t port) {
    struct {
        struct address client;
        uint64_t port;
        const struct own_socket *of;
    } key = {*client, port, u};
    return hash_bytes(&key, sizeof key);
}

void flow_end(struct flow *f) {
    if (f->w.fd < 0)
        return;
    close(f->w.fd);
    f->w.fd = -1;
    hash_remove(&flows, &f->node);
    list_remove(&f->by_use);
    list_remove(&f->of_frontend);
    list_remove(&f->of_source);
    f->backend->active--;
    f->of->frontend->active--;
    backend_drop(f->backend);
    f->source->flows--;
    source_drop(f->source);
    udp_flows--;
    list_append(&dead, &f->by_use); /* an event of this batch may be for it */
}

void flow_free_dead(void) {
    while (!list_empty(&dead)) {
        struct flow *f = CONTAINER(dead.next, struct flow, by_use);
        list_remove(&f->by_use);
        free(f);
    }
}

static void use(struct flow *f) {
    f->used = now_ms;
    list_remove(&f->by_use);
    list_append(f->answered ? &answered : &fresh, &f->by_use);
    list_remove(&f->of_source);
    list_append(&f->source->by_use, &f->of_source);
}

void flow_answered(struct flow *f) {
    f->answered = true;
    use(f);
}

static void make_room_in(const struct source *s) {
    struct flow *victim = NULL;
    int looked = 0;
    for (struct list *l = s->by_use.next; l != &s->by_use && looked < LOOKED_AT; l = l->next, looked++) {
        struct flow *f = CONTAINER(l, struct flow, of_source);
        if (!victim || !f->answered)
            victim = f;
        if (!f->answered)
            break;
    }
    if (victim)
        flow_end(victim);
}

static void make_room(const struct source *s) {
    if (s->flows > settings.udp_source) /* it is counted already */
        make_room_in(s);
    if (udp_flows >= limit_flows() && !list_empty(&fresh))
        flow_end(CONTAINER(fresh.next, struct flow, by_use));
    else if (udp_flows >= limit_flows() && !list_empty(&answered))
        flow_end(CONTAINER(answered.next, struct flow, by_use));
}

/* A socket that is connected to the endpoint; -1: it can't be, by errno. */
static int connect_to(const struct backend *b, const struct address *client, bool keep) {
    struct sockaddr_storage to;
    socklen_t n = address_write(&b->address, b->port, &to);
    int one = 1, fd = socket(to.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
    if ((keep && !bind_source(fd, client, true)) || connect(fd, (struct sockaddr *)&to, n)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* An endpoint, held, and the socket to it. not: one that has just refused. */
static struct backend *find_endpoint(struct frontend *f, const struct address *client, struct backend *not, int *fd) {
    struct choice *ch = choose(f, client);
    struct backend *tried[TRIES] = {not};
    for (uint32_t n = not != NULL; ch && n < TRIES; n++) {
        struct backend *b = choose_backend(f, ch, client, tried, n, now_ms);
        if (!b)
            return NULL;
        *fd = connect_to(b, client, keeps_source(ch, b, client));
        if (*fd >= 0)
            return b;
        bool is_ours = is_shortage(errno); /* no other endpoint helps, and none is at fault */
        b->failed += !is_ours;
        f->retried += !is_ours;
        backend_drop(b);
        if (is_ours)
            return NULL;
        tried[n] = b;
    }
    return NULL;
}

/* b: held, and the flow's from now on, as is fd. NULL: neither is. */
static struct flow *add(struct own_socket *u, const struct address *client, uint16_t port, struct backend *b, struct source *s, int fd) {
    struct flow *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->w = (struct watched){udp_answer_ready, fd};
    if (!hash_put(&flows, &f->node, flow_hash(u, client, port))) {
        free(f);
        return NULL;
    }
    if (!loop_add(&f->w, EPOLLIN)) {
        hash_remove(&flows, &f->node);
        free(f);
        return NULL;
    }
    f->client = *client;
    f->port = port;
    f->of = u;
    f->version = u->version;
    f->backend = b;
    f->source = s;
    list_init(&f->by_use);
    list_init(&f->of_source);
    list_init(&f->of_frontend);
    list_append(&u->flows, &f->of_frontend);
    b->active++;
    u->frontend->active++;
    s->flows++;
    udp_flows++;
    return f;
}

static struct flow *new_flow(struct own_socket *u, const struct address *client, uint16_t port, struct backend *not) {
    struct source *s = source_take(client);
    if (!s)
        return NULL;
    s->flows++; /* so that making room does not free it */
    make_room(s);
    s->flows--;
    int fd = -1;
    struct backend *b = find_endpoint(u->frontend, client, not, &fd);
    struct flow *f = b ? add(u, client, port, b, s, fd) : NULL;
    if (f) {
        b->connected++;
        u->frontend->accepted++;
        if (u->frontend->affinity)
            affinity_set(u->frontend, client, b, affinity_end(u->frontend));
        return f;
    }
    if (b) {
        backend_drop(b);
        close(fd);
    }
    source_drop(s);
    u->frontend->failed++;
    return NULL;
}

/* Whether its endpoint is still one of those that its client may have. */
static bool still_right(struct flow *f) {
    if (f->refused || f->backend->gone)
        return false;
    if (f->version == f->of->version)
        return true;
    f->version = f->of->version;
    const struct choice *ch = choose(f->of->frontend, &f->client);
    for (uint32_t k = 0; ch && ch->set && k < ch->set->n; k++)
        if (ch->set->backends[k] == f->backend)
            return true;
    return false;
}

struct flow *flow_get(struct own_socket *u, const struct address *client, uint16_t port) {
    uint64_t hash = flow_hash(u, client, port);
    struct flow *f = NULL;
    for (struct node *n = hash_first(&flows, hash); n && !f; n = n->next) {
        struct flow *at = CONTAINER(n, struct flow, node);
        if (n->hash == hash && at->of == u && at->port == port && address_equal(&at->client, client))
            f = at;
    }
    if (f && !still_right(f)) {
        struct backend *not = f->refused ? f->backend : NULL;
        flow_end(f);
        f = new_flow(u, client, port, not);
    } else if (!f) {
        f = new_flow(u, client, port, NULL);
    }
    if (f)
        use(f);
    return f;
}

static int64_t expire(struct list *l, int64_t time, int64_t now) {
    while (!list_empty(l)) {
        struct flow *f = CONTAINER(l->next, struct flow, by_use);
        if (f->used + time > now)
            return f->used + time - now;
        flow_end(f);
    }
    return INT64_MAX;
}

int64_t flow_timers(int64_t now) {
    int64_t a = expire(&fresh, 1000 * (int64_t)settings.udp_new_s, now);
    int64_t b = expire(&answered, 1000 * (int64_t)settings.udp_stream_s, now);
    return a < b ? a : b;
}

bool flow_give(struct wire_entry *e, int *fd) {
    struct list *l = !list_empty(&answered) ? &answered : &fresh;
    if (list_empty(l))
        return false;
    struct flow *f = CONTAINER(l->next, struct flow, by_use);
    *e = (struct wire_entry){.set = f->backend->set, .frontend_port = f->of->frontend->port, .client_port = f->port,
                             .endpoint_port = f->backend->port, .protocol = IPPROTO_UDP, .answered = f->answered,
                             .ms = (uint32_t)(now_ms - f->used)};
    memcpy(e->frontend, f->of->frontend->address.b, sizeof e->frontend);
    memcpy(e->client, f->client.b, sizeof e->client);
    memcpy(e->endpoint, f->backend->address.b, sizeof e->endpoint);
    *fd = dup(f->w.fd);
    loop_remove(&f->w);
    flow_end(f);
    return true;
}

bool flow_take(const struct wire_entry *e, int fd) {
    struct frontend *of = entry_frontend(e, IPPROTO_UDP);
    struct backend *b = table_find_backend(e->set, e->endpoint, e->endpoint_port);
    struct address client;
    memcpy(client.b, e->client, sizeof client.b);
    struct source *s = of && of->own && b && udp_flows < limit_flows() ? source_take(&client) : NULL;
    if (!s)
        return false;
    struct flow *f = add(of->own, &client, e->client_port, b, s, fd);
    if (!f) {
        source_drop(s);
        return false;
    }
    b->refs++;
    f->version--; /* looked at again before it is used */
    f->answered = e->answered;
    use(f);
    f->used -= e->ms;
    return true;
}
