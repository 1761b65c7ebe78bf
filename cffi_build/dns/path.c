/* The search path of a pod, walked here (autopath): what its resolver would ask one after the other comes as one answer, an alias from the
 * name that it began with to the first one that there is. Each step is looked up, asked and kept by its own name, so nothing that is
 * kept belongs to a path, a namespace or an address.
 */
#define _GNU_SOURCE
#include <string.h>

#include "dns.h"

/* Makes `lower` that step's name. 0: the question does not begin this path, or the name would be too long. Step 0 is the question itself. */
static int take_step(struct query *q, const struct path *path, unsigned step) {
    const size_t suffix = name_size(path->names, NAME_MOST);
    lower_name(q->lower, q->name, q->name_n);
    q->lower_n = q->name_n, q->step = 0;
    size_t base = 0;
    while (base + suffix < q->name_n)
        base += 1 + (size_t)q->lower[base];
    if (!base || base + suffix != q->name_n || memcmp(q->lower + base, path->names, suffix))
        return 0;
    const uint8_t *name = path->names;
    for (unsigned i = 0; i < step; i++)
        name += name_size(name, NAME_MOST);
    const size_t n = name_size(name, NAME_MOST);
    if (base + n > NAME_MOST)
        return 0;
    memcpy(q->lower + base, name, n);
    q->lower_n = (uint8_t)(base + n), q->step = (uint8_t)step;
    return 1;
}

/* From this step on. 1: `out` has a reply of *n bytes, or, where that is 0, the question waits; 0: no step leads anywhere. */
int path_walk(struct query *q, const struct peer *peer, unsigned step, uint8_t *out, size_t *n) {
    const struct path *path = table_path(&server.table, peer->source);
    struct found f;
    int alias;
    for (; path && step < path->names_n; step++) {
        if (!take_step(q, path, step))
            continue;
        const enum act act = answer(&server.table, q, &f, &alias);
        if (act == ACT_ASK && !alias && !server.forwards)
            continue;
        if (act == ACT_ASK && !from_cache(q, peer, alias, &f, out, n))
            return 1;
        if (f.rcode == NXDOMAIN)
            continue;
        f.flags |= server.forwards ? RA : 0;
        server.n.autopath++;
        *n = reply(q, &f, server.turn++, out, reply_limit(q, peer->tcp));
        return 1;
    }
    lower_name(q->lower, q->name, q->name_n);
    q->lower_n = q->name_n, q->step = 0;
    return 0;
}
