/* What the files of the data plane share. One thread: nothing here needs a lock, and an image is applied between two events. */
#ifndef PYRUN_DATAPLANE_DP_H
#define PYRUN_DATAPLANE_DP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "wire.h"

#define CONTAINER(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

/* ---- lists and hash tables: their links are in what they hold */

struct list {
    struct list *next, *before;
};
static inline void list_init(struct list *l) { l->next = l->before = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_remove(struct list *l) {
    l->before->next = l->next;
    l->next->before = l->before;
    list_init(l);
}
static inline void list_append(struct list *head, struct list *l) {
    l->before = head->before;
    l->next = head;
    head->before->next = l;
    head->before = l;
}

struct node {
    struct node *next;
    uint64_t hash;
};
struct hash {
    struct node **slots;
    size_t mask, count;
};
uint64_t hash_bytes(const void *p, size_t n); /* keyed by what nobody outside knows */
bool hash_put(struct hash *h, struct node *n, uint64_t hash); /* false: no memory */
void hash_remove(struct hash *h, struct node *n);
static inline struct node *hash_first(const struct hash *h, uint64_t hash) {
    return h->slots ? h->slots[hash & h->mask] : NULL;
}

/* ---- addresses */

struct address {
    uint8_t b[16];
};
bool address_equal(const struct address *a, const struct address *b);
bool address_is_v4(const struct address *a);
bool address_is_loopback(const struct address *a);
bool address_in(const struct address *a, const struct wire_prefix *p);
bool address_read(const struct sockaddr_storage *from, struct address *a, uint16_t *port);
socklen_t address_write(const struct address *a, uint16_t port, struct sockaddr_storage *to);

extern int64_t now_ms; /* of the batch of events that is being worked off */

/* ---- the table (table.c), and what is chosen from it (choose.c) */

struct backend { /* an endpoint of a set: as long as a set, a connection, a flow or a pin holds it */
    struct address address;
    uint16_t port;
    bool terminating, own, gone; /* own: its address is the node's */
    uint32_t refs, active;
    uint64_t connected, failed, set;
    int64_t gone_at, silent_until; /* ms */
    struct list gone_list;
};

struct set { /* as long as the table or a choice holds it; one that is in no table any more is empty */
    struct node node;
    uint64_t id;
    bool named, fresh; /* by the image that is being applied */
    uint32_t refs, n;
    struct backend **backends;
};

struct choice {
    struct set *set;
    uint32_t n_prefixes, next; /* next: whose turn it is */
    struct wire_prefix *prefixes;
    uint8_t action, replace_source;
};

struct frontend { /* as long as the table, a connection or a pin holds it */
    struct node node;
    struct address address;
    uint16_t port;
    uint8_t protocol;
    bool gone, named, fresh;
    uint32_t refs, affinity, n_choices, active;
    struct choice *choices;
    struct own_socket *own;
    uint64_t accepted, failed, refused, bytes[2], retried;
};

struct table { /* of one generation */
    struct hash frontends, sets;
    uint64_t generation;
    struct list gone; /* backends that are in no set any more, with connections */
};
extern struct table table;

/* NULL, or what is wrong with it: then nothing is changed. */
const char *table_apply(const uint8_t *image, size_t size, int64_t now);
struct set *table_find_set(uint64_t id);
uint64_t frontend_hash(uint8_t protocol, const struct address *a, uint16_t port);
void free_choices(struct choice *choices, uint32_t n);
void set_drop(struct set *s);
struct frontend *table_find(uint8_t protocol, const struct address *a, uint16_t port);
void frontend_drop(struct frontend *f);
void backend_drop(struct backend *b);

/* What is done for those that have a socket of their own, when they come, change and go (own_socket.c). */
void own_put(struct frontend *f);
void own_gone(struct frontend *f);

struct choice *choose(const struct frontend *f, const struct address *client);
/* The next endpoint in turn which is none of `tried`; NULL: there is none. Held for the caller. */
struct backend *choose_backend(struct frontend *f, struct choice *c, const struct address *client, struct backend *const *tried,
                               uint32_t n_tried, int64_t now);
void affinity_set(struct frontend *f, const struct address *client, struct backend *b, int64_t until);
static inline int64_t affinity_end(const struct frontend *f) { return now_ms + 1000 * (int64_t)f->affinity; }
void affinity_tick(int64_t now);
size_t affinity_give(struct wire_entry *to, size_t most, int64_t now);
size_t affinity_count(void);

/* ---- the loop (loop.c) */

struct watched {
    void (*ready)(struct watched *w, uint32_t events);
    int fd;
};
extern struct wire_settings settings;
void loop_init(void);
bool loop_add(struct watched *w, uint32_t events);
bool loop_change(struct watched *w, uint32_t events);
void loop_remove(struct watched *w);
void loop_run(void); /* until it is told to end */
void loop_end(void);
bool retiring(void);
void retire(int64_t limit_s);
int64_t clock_ms(void);

/* ---- limits (limits.c) */

struct source { /* a client with connections or flows: an address, of IPv6 its /64 */
    struct node node;
    struct address address;
    uint32_t connections, flows;
    struct list by_use; /* its flows */
};
extern uint32_t connection_limit;
extern uint64_t refused_by_limit;
void limits_init(void);
struct source *source_take(const struct address *client); /* NULL: no memory */
void source_drop(struct source *s);
size_t source_count(void);
bool limit_connection(const struct source *s, uint32_t connections); /* false: it has to be refused */
uint32_t limit_flows(void); /* at a time, of all clients */
bool is_shortage(int error); /* of descriptors or memory */

/* ---- TCP (tcp.c: from accept to the end; pump.c: the bytes) */

struct pipe {
    struct pipe *next;
    int in, out;
    uint32_t held;
};

struct side {
    struct watched w;
    uint8_t number; /* 0: the client's, 1: the endpoint's */
    bool readable, writable, hung_up, broken, watched, watches_out; /* watched: by epoll, and for room as well */
    bool eof;       /* it has sent its last byte */
    bool shut;      /* and so have we to it */
    bool bulk;      /* what comes from here goes through a pipe */
    struct pipe *pipe;
    uint8_t *kept;  /* what came from here and the other did not take */
    uint32_t kept_from, kept_to;
    struct message *message; /* the same of SCTP */
};

enum stage { CONNECTING, OPEN, DEAD };
enum { TRIES_MOST = 4 };

struct connection {
    struct side side[2];
    uint8_t stage, n_tried;
    bool half_closed;
    struct frontend *frontend;
    struct backend *backend, *tried[TRIES_MOST];
    struct source *source;
    struct address client;
    uint16_t client_port;
    uint16_t streams[2]; /* of SCTP: on which the client sends, and on which it is sent to */
    struct list timer, ready;
    int64_t since;  /* when the connect began; later, of the last byte */
    int64_t listed; /* what `since` was when it took its place among the timers */
    int64_t opened;
};

extern uint32_t connections;
extern uint64_t accepted_total;
bool tcp_listen(const int *fds, uint32_t n);
uint32_t tcp_listeners(int *fds, uint32_t most);
int64_t tcp_timers(int64_t now); /* → ms until it wants to be called again */
void tcp_continue(void);         /* connections whose budget was used up */
bool tcp_has_more(void);
void tcp_free_dead(void);
void tcp_abort(struct connection *c); /* RST to both */
void tcp_pause(void);                 /* accepts nothing for a moment, as there is nothing to do it with */
bool tcp_is_short(void);              /* that was so within the last seconds */
void tcp_take_of(const struct own_socket *o); /* what waits at a socket of SCTP */

/* The buffer of a socket to an endpoint, which the kernel doubles (and net.core.rmem_max bounds): what may lie in it when the client takes
 * no more. Left to itself it grows with the speed at which we read, to tcp_rmem's most. Endpoints are near, so that it is enough; clients
 * may be far away, and the buffer of their side is bounded by whoever made the listener. */
enum { BUFFER_MOST = 5 << 17 };
enum pumped { PUMP_WAIT, PUMP_MORE, PUMP_BROKEN };
enum pumped pump(struct connection *c, int from);
enum pumped pump_blocked(struct side *to); /* it takes no more now */
void pump_release(struct side *s);
void pump_init(uint32_t pipes_most);

bool keeps_source(const struct choice *ch, const struct backend *b, const struct address *client); /* connect.c */
bool bind_source(int fd, const struct address *client, bool range);

/* ---- SCTP (sctp.c: sockets and messages; the rest of a connection's life is tcp.c's and connect.c's) */

int sctp_listen(const struct sockaddr_storage *at, socklen_t n); /* -1 and errno, as below */
int sctp_connect(const struct connection *c, const struct sockaddr_storage *to, socklen_t n);
bool sctp_begin(struct connection *c); /* with the client's socket; false: it has gone */
enum pumped sctp_pump(struct connection *c, int from);
void sctp_release(struct side *s);
static inline bool is_sctp(const struct connection *c) { return c->frontend->protocol == IPPROTO_SCTP; }

/* ---- sockets of frontends that sk_lookup does not serve (own_socket.c): UDP, and SCTP, which it does not know */

struct own_socket { /* of a frontend with an endpoint, on its address and port */
    struct watched w;
    struct frontend *frontend;
    uint32_t version; /* of its choices */
    bool given;       /* to the next data plane */
    uint8_t error;    /* why it has no socket yet */
    struct list flows, waiting; /* waiting: for its address to be free */
};

extern uint32_t own_sockets; /* how many there are */
int64_t own_timers(int64_t now);
void own_pause(bool pause); /* nothing can be accepted, or can be again */
void own_free_dead(void);
void own_close(void);
bool own_waits(void); /* one has no socket yet */
bool own_give(struct wire_entry *e, int *fd); /* false: there is none left. The descriptor is the caller's */
bool own_adopt(const struct wire_entry *e, int fd);
void own_adopt_no_more(void);

/* ---- UDP (udp.c: datagrams; flow.c: who belongs to whom) */

struct flow { /* a client's address and port with one endpoint, over a socket of its own */
    struct watched w;
    struct node node;
    struct address client;
    uint16_t port;
    bool answered, refused;
    uint32_t version;
    int64_t used;
    struct own_socket *of;
    struct backend *backend;
    struct source *source;
    struct list by_use, of_frontend, of_source;
};

extern uint32_t udp_flows;
void udp_frontend_ready(struct watched *w, uint32_t events);
void udp_answer_ready(struct watched *w, uint32_t events);
struct flow *flow_get(struct own_socket *u, const struct address *client, uint16_t port); /* NULL: nobody takes it */
void flow_end(struct flow *f);
void flow_answered(struct flow *f);
int64_t flow_timers(int64_t now);
void flow_free_dead(void);
bool flow_give(struct wire_entry *e, int *fd);
bool flow_take(const struct wire_entry *e, int fd); /* false: there is no such frontend or endpoint any more */

/* ---- hand_over.c: what one data plane gives and the next one takes; NULL, or what is wrong */
uint32_t give(uint16_t kind, struct wire_entry *entries, int *fds, uint32_t most);
const char *take_entries(uint16_t kind, const uint8_t *body, uint32_t size, int *fds, uint32_t n_fds);
int give_pins(void);
const char *take_pins(int fd);
struct backend *table_find_backend(uint64_t set, const uint8_t *address, uint16_t port);
struct frontend *entry_frontend(const struct wire_entry *e, uint8_t protocol);

/* ---- control.c, counters.c, sandbox.c */
bool control_init(int fd);
int counters_memfd(void);
void sandbox(uint32_t uid, uint32_t gid);
_Noreturn void fail(int error, const char *what);
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

#endif
