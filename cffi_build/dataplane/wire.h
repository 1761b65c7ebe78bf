/* The format that Python and the data plane share: pyrun/proxy/encode.py and messages.py write it. All integers are little-endian,
 * all records of a fixed size, without holes. An address is 16 bytes, an IPv4 one ::ffff:a.b.c.d; a prefix of one is 96 bits longer.
 *
 * A request is one SEQPACKET datagram: a head, then its body. An image (what APPLY carries) is the body, or where that would be long a
 * memfd sealed against writing. Every request has one reply.
 */
#ifndef PYRUN_DATAPLANE_WIRE_H
#define PYRUN_DATAPLANE_WIRE_H

#include <stdint.h>

enum { WIRE_MAGIC = 0x50445850, WIRE_VERSION = 1 }; /* "PXDP" */
enum { WIRE_MESSAGE = 65536, WIRE_FDS = 64 };

enum wire_kind {
    WIRE_HELLO = 1,    /* → a state */
    WIRE_SETTINGS = 2, /* body: settings */
    WIRE_LISTEN = 3,   /* descriptors: TCP sockets that listen, in place of those that there are; none: accept no more */
    WIRE_APPLY = 4,    /* an image, in the body or as a descriptor */
    WIRE_COUNTERS = 5, /* → a memfd of counters */
    WIRE_GIVE = 6,     /* → the descriptors of the listeners */
    WIRE_RETIRE = 7,   /* accept no more; end after the last connection, or after `value` seconds (0: no limit) */
    WIRE_END = 8,      /* end now */
    WIRE_KEEP = 9,     /* descriptors that are held for who comes next, and a body that says which they are; in place of those before */
    WIRE_KEPT = 10,    /* → these */
    /* From one that retires to the next, by way of Python; what is given away is gone here. Each answer is a part, an empty one the end. */
    WIRE_GIVE_SOCKETS = 11, /* → entries of UDP and SCTP frontends, and their sockets */
    WIRE_TAKE_SOCKETS = 12, /* before APPLY, which closes what it does not need */
    WIRE_GIVE_FLOWS = 13,   /* → entries of UDP flows, and their sockets */
    WIRE_TAKE_FLOWS = 14,   /* after APPLY */
    WIRE_GIVE_PINS = 15,    /* → a memfd with entries */
    WIRE_TAKE_PINS = 16,    /* after APPLY */
};

struct wire_entry { /* a socket of a frontend, a flow, or a pin */
    uint64_t set;
    uint8_t frontend[16], client[16], endpoint[16];
    uint16_t frontend_port, client_port, endpoint_port;
    uint8_t protocol, answered;
    uint32_t ms, reserved; /* of a flow: unused for so long; of a pin: valid for so long */
};

struct wire_request {
    uint32_t magic;
    uint16_t version, kind;
    uint64_t value;
};

struct wire_reply {
    uint32_t magic;
    uint16_t version, kind;
    int32_t error; /* an errno, and then text says of what */
    uint32_t size; /* of the body */
    uint64_t generation;
    char text[104];
};

/* short: it had no descriptor or memory for a connection within the last seconds; waiting: a frontend has not got its socket */
enum { WIRE_RETIRING = 1, WIRE_SHORT = 2, WIRE_WAITING = 4 };

struct wire_state {
    uint64_t generation, connections, flows, frontends, sets, accepted, refused_by_limit;
    uint32_t pid, flags, listeners, limit; /* flags: WIRE_RETIRING, WIRE_SHORT, WIRE_WAITING; limit: connections at a time */
};

struct wire_settings {
    uint32_t connect_ms;    /* that an endpoint may be silent */
    uint32_t tries;         /* endpoints that one connection tries */
    uint32_t half_closed_s; /* without a byte, after which a half-closed connection is reset; 0: never */
    uint32_t drain_s;       /* after which connections to an endpoint that is gone are reset; 0: never */
    uint32_t udp_new_s;     /* a flow without an answer is forgotten */
    uint32_t udp_stream_s;  /* one with an answer */
    uint32_t udp_flows;     /* at a time */
    uint32_t udp_source;    /* of one client's address */
    uint16_t port_low, port_high; /* of connections with the client's address; 0: the node's range */
    uint32_t max_connections; /* 0: as many as descriptors allow */
};

enum { IMAGE_FULL = 1 }; /* what it does not name is removed; else it stays */
enum { RECORD_GONE = 1 };
enum { ENDPOINT_TERMINATING = 1, ENDPOINT_OWN = 2 }; /* own: the address is the node's */
enum action { ACT_FORWARD = 0, ACT_REJECT = 1, ACT_DROP = 2 };

struct wire_image {
    uint32_t magic;
    uint16_t version, flags;
    uint64_t generation, base; /* base: the generation that a partial image changes */
    uint32_t n_sets, n_endpoints, n_frontends, n_choices, n_prefixes, reserved;
}; /* then the arrays, in this order */

struct wire_set {
    uint64_t id;
    uint32_t first, count, flags, reserved; /* endpoints */
};

struct wire_endpoint {
    uint8_t address[16];
    uint16_t port, flags;
    uint32_t reserved;
};

struct wire_frontend {
    uint8_t address[16];
    uint16_t port;
    uint8_t protocol, flags;
    uint32_t affinity, first, count; /* affinity: seconds, 0: none; choices */
};

struct wire_choice {
    uint64_t set;
    uint32_t first, count; /* prefixes; none: any source */
    uint8_t action, replace_source;
    uint16_t reserved;
    uint32_t reserved2;
};

struct wire_prefix {
    uint8_t address[16];
    uint8_t length, reserved[3];
};

/* Counters: this head, then frontends, then endpoints. */
struct wire_counters {
    uint32_t magic;
    uint16_t version, reserved;
    uint32_t n_frontends, n_endpoints;
};

struct wire_frontend_counters {
    uint8_t address[16];
    uint16_t port;
    uint8_t protocol, error; /* error: an errno, why it has no socket; 0: it has, or needs none */
    uint32_t active;
    uint64_t accepted, failed, refused, bytes_in, bytes_out, retried; /* failed: no endpoint took it */
};

struct wire_endpoint_counters {
    uint64_t set;
    uint8_t address[16];
    uint16_t port, flags; /* flags: of the endpoint, and RECORD_GONE << 8 */
    uint32_t active;
    uint64_t connected, failed;
};

_Static_assert(sizeof(struct wire_request) == 16 && sizeof(struct wire_reply) == 128, "messages");
_Static_assert(sizeof(struct wire_state) == 72 && sizeof(struct wire_settings) == 40, "bodies");
_Static_assert(sizeof(struct wire_entry) == 72, "entry");
_Static_assert(sizeof(struct wire_image) == 48 && sizeof(struct wire_set) == 24 && sizeof(struct wire_endpoint) == 24, "image");
_Static_assert(sizeof(struct wire_frontend) == 32 && sizeof(struct wire_choice) == 24 && sizeof(struct wire_prefix) == 20, "image");
_Static_assert(sizeof(struct wire_counters) == 16 && sizeof(struct wire_frontend_counters) == 72 && sizeof(struct wire_endpoint_counters) == 48, "counters");

#endif
