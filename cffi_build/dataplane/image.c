/* The decoder of images. It is the one place that looks at lengths, counts and references; what it has let pass is used as it is. */
#include <string.h>

#include "image.h"

static bool within(uint32_t first, uint32_t count, uint32_t most) { return first <= most && count <= most - first; }

static bool host_bits_zero(const struct wire_prefix *p) {
    for (unsigned bit = p->length; bit < 128; bit++)
        if (p->address[bit / 8] & 0x80 >> bit % 8)
            return false;
    return true;
}

static const char *check_frontend(const struct image *i, const struct wire_frontend *f) {
    if (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP && f->protocol != IPPROTO_SCTP)
        return "a frontend's protocol";
    if (!f->port || f->flags & ~RECORD_GONE)
        return "a frontend's port or flags";
    if (f->flags & RECORD_GONE)
        return f->count ? "choices of a frontend that is gone" : NULL;
    if (!f->count || !within(f->first, f->count, i->head->n_choices))
        return "a frontend's choices";
    for (uint32_t k = 0; k < f->count; k++)
        if ((i->choices[f->first + k].count == 0) != (k + 1 == f->count))
            return "not the last choice, and that alone, is for any source";
    return NULL;
}

static const char *check_arrays(const struct image *i) {
    const struct wire_image *h = i->head;
    for (uint32_t k = 0; k < h->n_sets; k++) {
        const struct wire_set *s = i->sets + k;
        if (!s->id || s->flags & ~RECORD_GONE || !within(s->first, s->count, h->n_endpoints))
            return "a set";
        if (s->flags & RECORD_GONE && s->count)
            return "endpoints of a set that is gone";
    }
    for (uint32_t k = 0; k < h->n_endpoints; k++)
        if (!i->endpoints[k].port || i->endpoints[k].flags & ~(ENDPOINT_TERMINATING | ENDPOINT_OWN))
            return "an endpoint";
    for (uint32_t k = 0; k < h->n_choices; k++) {
        const struct wire_choice *c = i->choices + k;
        if (c->action > ACT_DROP || c->replace_source > 1 || !within(c->first, c->count, h->n_prefixes))
            return "a choice";
        if ((c->action == ACT_FORWARD) != (c->set != 0))
            return "a choice's set";
    }
    for (uint32_t k = 0; k < h->n_prefixes; k++)
        if (i->prefixes[k].length > 128 || !host_bits_zero(i->prefixes + k))
            return "a prefix";
    for (uint32_t k = 0; k < h->n_frontends; k++) {
        const char *wrong = check_frontend(i, i->frontends + k);
        if (wrong)
            return wrong;
    }
    return NULL;
}

const char *image_check(const uint8_t *p, size_t size, struct image *i) {
    const struct wire_image *h = (const void *)p;
    if (size < sizeof *h || h->magic != WIRE_MAGIC)
        return "no image";
    if (h->version != WIRE_VERSION)
        return "an image of another version";
    if (h->flags & ~IMAGE_FULL || h->reserved)
        return "an image's flags";
    uint64_t sets = sizeof *h, endpoints = sets + (uint64_t)h->n_sets * sizeof *i->sets;
    uint64_t frontends = endpoints + (uint64_t)h->n_endpoints * sizeof *i->endpoints;
    uint64_t choices = frontends + (uint64_t)h->n_frontends * sizeof *i->frontends;
    uint64_t prefixes = choices + (uint64_t)h->n_choices * sizeof *i->choices;
    if (prefixes + (uint64_t)h->n_prefixes * sizeof *i->prefixes != size)
        return "an image's size";
    *i = (struct image){h, (const void *)(p + sets), (const void *)(p + endpoints), (const void *)(p + frontends),
                        (const void *)(p + choices), (const void *)(p + prefixes)};
    return check_arrays(i);
}
