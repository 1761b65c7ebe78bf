/* What pyrun-layer tells its parent: lines of words, names in hex, because a name may hold any byte. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "layer.h"

enum { IMPLIED_MOST = 256 * 1024 };

static atomic_flag told = ATOMIC_FLAG_INIT;

static void tell(const char *line, size_t length) {
    while (length > 0) {
        ssize_t n = write(REPORT, line, length);
        if (n <= 0)
            _exit(3); /* nobody listens */
        line += n;
        length -= (size_t)n;
    }
}

void hex(char *out, const uint8_t *bytes, size_t length) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < length; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * length] = 0;
}

_Noreturn void fail(int error, const char *entry, const char *format, ...) {
    /* The other thread may fail too: the first one is heard, and ends us. */
    if (atomic_flag_test_and_set(&told))
        for (;;)
            pause();
    char line[2 * PATH_MOST + 600], name[2 * PATH_MOST + 2] = "-";
    if (entry)
        hex(name, (const uint8_t *)entry, strnlen(entry, PATH_MOST));
    int at = snprintf(line, sizeof line, "error %d %s ", error, *name ? name : "-");
    va_list list;
    va_start(list, format);
    vsnprintf(line + at, sizeof line - (size_t)at - 1, format, list);
    va_end(list);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 32)
            *c = '?';
    strcat(line, "\n");
    tell(line, strlen(line));
    _exit(1);
}

void report_implied(const char *path) {
    static uint64_t sum;
    char line[2 * PATH_MOST + 16] = "implied ";
    size_t length = strnlen(path, PATH_MOST - 1);
    if ((sum += length) > IMPLIED_MOST)
        return;
    hex(line + 8, (const uint8_t *)path, length);
    strcat(line, "\n");
    tell(line, strlen(line));
}

void report_progress(uint64_t in, uint64_t out, uint64_t entries) {
    char line[100];
    int n = snprintf(line, sizeof line, "progress %llu %llu %llu\n", (unsigned long long)in, (unsigned long long)out,
                     (unsigned long long)entries);
    tell(line, (size_t)n);
}

void report_done(const char *format, ...) {
    char line[1024];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    tell(line, (size_t)n);
}
