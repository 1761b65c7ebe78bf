/* An image, taken apart: pointers into it. */
#ifndef PYRUN_DATAPLANE_IMAGE_H
#define PYRUN_DATAPLANE_IMAGE_H

#include "dp.h"

struct image {
    const struct wire_image *head;
    const struct wire_set *sets;
    const struct wire_endpoint *endpoints;
    const struct wire_frontend *frontends;
    const struct wire_choice *choices;
    const struct wire_prefix *prefixes;
};

/* NULL, or what is wrong with it: all that can be said without the table. `p` is aligned to 8. */
const char *image_check(const uint8_t *p, size_t size, struct image *i);

#endif
