/* Which words a piece of a log may have: a Bloom filter of its tokens, which are runs of letters, digits, underscores and
 * bytes above 127, letters of ASCII in lower case. Both who writes and who asks call this, so nothing else need agree. */
#include "tokens.h"

enum { WORD = 1, UPPER = 2 };

static uint8_t kinds[256];

__attribute__((constructor)) static void fill_kinds(void) {
    for (int c = 0; c < 256; c++) {
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c >= 0x80) {
            kinds[c] = WORD;
        } else if (c >= 'A' && c <= 'Z') {
            kinds[c] = WORD | UPPER;
        }
    }
}

/* filter: `size` bytes, a power of two that is at least 8. Three bits of each token are set (murmur3's finaliser mixes). */
void add_tokens(const uint8_t *data, size_t length, uint8_t *filter, size_t size) {
    const uint64_t bits = (uint64_t)size * 8 - 1;
    size_t at = 0;
    while (at < length) {
        if (!kinds[data[at]]) {
            at++;
            continue;
        }
        uint64_t hash = 0xcbf29ce484222325u;
        for (uint8_t kind; at < length && (kind = kinds[data[at]]); at++) {
            hash = (hash ^ (data[at] | (kind & UPPER ? 0x20 : 0))) * 0x100000001b3u;
        }
        hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
        hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
        hash ^= hash >> 33;
        for (int turn = 0; turn < 3; turn++, hash >>= 21) {
            const uint64_t bit = hash & bits;
            filter[bit >> 3] |= (uint8_t)(1u << (bit & 7));
        }
    }
}
