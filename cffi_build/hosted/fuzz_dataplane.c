/* The fuzzer of the data plane's decoder and of everything that an image changes: libFuzzer drives the real sources, without sockets.
 *
 * The input is images, each behind a length of 4 bytes. Between them clients are given endpoints, hold some, and are pinned. What must
 * hold: an image that is refused changes nothing; one that is taken is what the table has; and when all is let go of, nothing is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../dataplane/image.h"

int64_t now_ms = 1000;
struct wire_settings settings;
static int sockets;
enum { HELD = 32 };
static struct backend *held[HELD];
static uint32_t n_held;

void own_put(struct frontend *f) {
    if (f->gone)
        abort();
    if (!f->own)
        sockets++;
    f->own = (void *)&sockets;
}

void own_gone(struct frontend *f) {
    if (f->own)
        sockets--;
    f->own = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void die(const char *why) {
    fprintf(stderr, "%s\n", why);
    abort();
}

static void hold_some(struct frontend *f, const struct address *client) {
    struct choice *c = choose(f, client);
    if (!c)
        die("a client that no choice is for");
    struct backend *b = choose_backend(f, c, client, NULL, 0, now_ms);
    if (!b)
        return;
    if (b->gone)
        die("an endpoint that is gone");
    if (f->affinity)
        affinity_set(f, client, b, affinity_end(f));
    if (f->affinity && choose_backend(f, c, client, NULL, 0, now_ms) != b)
        die("another than the pinned one");
    if (f->affinity)
        backend_drop(b);
    if (n_held < HELD)
        held[n_held++] = b;
    else
        backend_drop(b);
}

static void use(void) {
    for (size_t k = 0; table.frontends.slots && k <= table.frontends.mask; k++)
        for (struct node *n = table.frontends.slots[k]; n; n = n->next) {
            struct frontend *f = CONTAINER(n, struct frontend, node);
            struct address client = f->address;
            if (f->gone || f->named || f->fresh || table_find(f->protocol, &f->address, f->port) != f)
                die("a frontend that is not as it should be");
            hold_some(f, &client);
            client.b[15] ^= 0x55;
            hold_some(f, &client);
        }
    now_ms += 500;
    affinity_tick(now_ms);
}

static void apply(const uint8_t *bytes, size_t n) {
    uint8_t *copy = malloc(n ? n : 1); /* exactly as long, so that ASan sees its end */
    struct image i;
    uint64_t before = table.generation;
    size_t frontends = table.frontends.count, sets = table.sets.count;
    if (!copy)
        return;
    memcpy(copy, bytes, n);
    const char *unlike = image_check(copy, n, &i);
    const char *wrong = table_apply(copy, n, now_ms);
    if (unlike && !wrong)
        die("taken, but wrong");
    if (wrong && (table.generation != before || table.frontends.count != frontends || table.sets.count != sets))
        die("refused, but something has changed");
    if (!wrong && i.head->flags & IMAGE_FULL && table.frontends.count > i.head->n_frontends)
        die("taken whole, but there is more");
    free(copy);
}

static void let_go(void) {
    static const struct wire_image none = {.magic = WIRE_MAGIC, .version = WIRE_VERSION, .flags = IMAGE_FULL};
    while (n_held)
        backend_drop(held[--n_held]);
    apply((const uint8_t *)&none, sizeof none);
    now_ms += (int64_t)UINT32_MAX * 1000;
    while (affinity_count())
        affinity_tick(now_ms);
    if (table.frontends.count || table.sets.count || !list_empty(&table.gone) || sockets)
        die("something is left");
    now_ms = 1000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    while (size >= 4) {
        uint32_t n;
        memcpy(&n, data, sizeof n);
        data += 4;
        size -= 4;
        if (n > size)
            n = (uint32_t)size;
        apply(data, n);
        use();
        data += n;
        size -= n;
    }
    let_go();
    return 0;
}
