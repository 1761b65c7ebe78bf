/* What tcp.c and connect.c tell each other. */
#ifndef PYRUN_DATAPLANE_TCP_H
#define PYRUN_DATAPLANE_TCP_H

#include "dp.h"

void connect_next(struct connection *c); /* it may be dead afterwards */
void connect_failed(struct connection *c, bool silent);
void connect_ready(struct connection *c, uint32_t events);
void tcp_is_connecting(struct connection *c); /* its time begins */
void tcp_open(struct connection *c);
void tcp_side_ready(struct watched *w, uint32_t events);

#endif
