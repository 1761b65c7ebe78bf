/* The fuzzer of pyrun-probe's reader of answers. The first byte says in which pieces the rest comes: what it says in the end must be what it says
 * of all at once, and it must not say good before it has the whole of what it has been promised. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../probe/probe.h"

static void fail(const char *why) {
    fprintf(stderr, "%s\n", why);
    abort();
}

static enum http in_pieces(const uint8_t *p, size_t n, size_t piece, struct answer *a) {
    memset(a, 0, sizeof *a);
    for (size_t came = piece; came < n; came += piece) {
        uint8_t *copy = malloc(came); /* so that a byte behind is seen */
        memcpy(copy, p, came);
        const enum http found = http_look(a, copy, came, 0);
        free(copy);
        if (found == HTTP_EOF)
            fail("an end that did not come");
        if (found != HTTP_MORE)
            return found;
    }
    const enum http found = http_look(a, p, n, 0);
    return found == HTTP_MORE ? http_look(a, p, n, 1) : found;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct answer whole, parts;
    if (n < 1)
        return 0;
    const size_t piece = p[0] % 61 + 1;
    p++, n--;
    if (n > MOST_HEAD + MOST_BODY)
        n = MOST_HEAD + MOST_BODY;
    const enum http at_once = in_pieces(p, n, n + 1, &whole), slowly = in_pieces(p, n, piece, &parts);
    if (at_once == HTTP_MORE || slowly == HTTP_MORE)
        fail("no end of it");
    if (at_once != slowly)
        fail("another word for other pieces");
    if (at_once == HTTP_GOOD || at_once == HTTP_STATUS) {
        if (whole.head > n || whole.head < 16 || memcmp(p + whole.head - 4, "\r\n\r\n", 4))
            fail("a head that is none");
        if ((at_once == HTTP_GOOD) != (whole.status >= 200 && whole.status < 300) || whole.status >= 600)
            fail("a status that is another");
        if (whole.length >= 0 && n - whole.head < MOST_BODY && n - whole.head < (uint64_t)whole.length)
            fail("a body that is not there");
    }
    return 0;
}
