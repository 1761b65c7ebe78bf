/* An answer of HTTP/1 that is plain beyond doubt: a head of whole lines, a body by Content-Length or up to the end. Anything else (redirects,
 * interim answers, transfer encodings, lines that are folded or end otherwise) is HTTP_STRANGE, which is no fault of the server. */
#include <string.h>

#include "probe.h"

static int is_token(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* name: in small letters, with its length. */
static int is_named(const uint8_t *p, size_t n, const char *name) {
    if (n != strlen(name))
        return 0;
    for (size_t i = 0; i < n; i++)
        if ((p[i] | 0x20) != (uint8_t)name[i])
            return 0;
    return 1;
}

static int take_length(struct answer *a, const uint8_t *p, size_t n) {
    int64_t length = 0;
    if (n == 0 || n > 9 || a->length >= 0)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_digit(p[i]))
            return 0;
        length = length * 10 + (p[i] - '0');
    }
    a->length = length;
    return 1;
}

/* One line without its end. */
static int take_header(struct answer *a, const uint8_t *p, size_t n) {
    size_t name = 0;
    while (name < n && is_token(p[name]))
        name++;
    if (name == 0 || name == n || p[name] != ':')
        return 0;
    const uint8_t *value = p + name + 1;
    size_t left = n - name - 1;
    for (size_t i = 0; i < left; i++)
        if (value[i] < 0x20 ? value[i] != '\t' : value[i] == 0x7f)
            return 0;
    while (left && (*value == ' ' || *value == '\t'))
        value++, left--;
    while (left && (value[left - 1] == ' ' || value[left - 1] == '\t'))
        left--;
    if (is_named(p, name, "content-length"))
        return take_length(a, value, left);
    return !is_named(p, name, "transfer-encoding") && !is_named(p, name, "upgrade");
}

static int take_status(struct answer *a, const uint8_t *p, size_t n) {
    if (n < 12 || memcmp(p, "HTTP/1.", 7) || (p[7] != '0' && p[7] != '1') || p[8] != ' ' || (n > 12 && p[12] != ' '))
        return 0;
    if (!is_digit(p[9]) || !is_digit(p[10]) || !is_digit(p[11]))
        return 0;
    for (size_t i = 12; i < n; i++)
        if (p[i] < 0x20 || p[i] == 0x7f)
            return 0;
    a->status = (uint32_t)(p[9] - '0') * 100 + (uint32_t)(p[10] - '0') * 10 + (uint32_t)(p[11] - '0');
    return (a->status >= 200 && a->status < 300) || (a->status >= 400 && a->status < 600);
}

/* The length of a head that is whole, 0 before. */
static size_t end_of_head(struct answer *a, const uint8_t *p, size_t n) {
    size_t i = a->looked < 3 ? 0 : a->looked - 3;
    for (; i + 4 <= n && i < MOST_HEAD; i++)
        if (p[i] == '\r' && !memcmp(p + i, "\r\n\r\n", 4))
            return i + 4;
    a->looked = (uint32_t)n;
    return 0;
}

static int take_head(struct answer *a, const uint8_t *p, size_t n) {
    a->length = -1;
    for (size_t begin = 0, i = 0; i + 1 < n; i++) {
        if (p[i] != '\r' || p[i + 1] != '\n')
            continue;
        if (i == begin) /* the empty line */
            return i + 2 == n && begin > 0;
        if (!(begin ? take_header(a, p + begin, i - begin) : take_status(a, p, i)))
            return 0;
        begin = i + 2;
        i++;
    }
    return 0;
}

enum http http_look(struct answer *a, const uint8_t *p, size_t n, int ended) {
    if (!a->head) {
        const size_t head = end_of_head(a, p, n);
        if (!head)
            return n >= MOST_HEAD ? HTTP_STRANGE : !ended ? HTTP_MORE : n ? HTTP_STRANGE : HTTP_EOF;
        if (!take_head(a, p, head))
            return HTTP_STRANGE;
        a->head = (uint32_t)head;
        if (a->status == 204)
            a->length = 0;
    }
    const size_t body = n - a->head;
    if (body < MOST_BODY && (a->length < 0 ? !ended : body < (uint64_t)a->length))
        return ended ? HTTP_EOF : HTTP_MORE;
    return a->status < 300 ? HTTP_GOOD : HTTP_STATUS;
}
