/* The tar: libarchive reads it, and each entry becomes a call to the writer, or is refused by name.
 *
 * libarchive runs in the C locale: in one with UTF-8 it changes names of pax records to composed characters. In the C
 * locale it warns that it can't convert, and leaves the bytes as they are, which is what we want.
 */
#define _GNU_SOURCE
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer.h"

#define WHITEOUT ".wh."
#define META ".wh..wh."
enum { PROGRESS_NS = 100 * 1000 * 1000 };

struct reader {
    struct stream *stream;
    struct writer *writer;
    const struct limits *limits;
    struct counts *counts;
    int64_t told_ns;
};

static ssize_t give(struct archive *a, void *data, const void **bytes) {
    (void)a;
    struct reader *r = data;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    if (ns - r->told_ns > PROGRESS_NS) {
        r->told_ns = ns;
        report_progress(stream_in(r->stream), stream_out(r->stream), r->counts->entries);
    }
    return (ssize_t)stream_next(r->stream, (const uint8_t **)bytes);
}

/* The name without what says nothing: leading slashes, "." and what a ".." takes back. One that leads out is refused. */
static void clean(const char *name, const char *of, const struct limits *limits, char out[PATH_MOST]) {
    if (!name || !*name)
        fail(EINVAL, of, "an entry without a name");
    if (strlen(name) > limits->path || strlen(name) >= PATH_MOST)
        fail(ENAMETOOLONG, name, "a name longer than %llu bytes, the limit", (unsigned long long)limits->path);
    size_t length = 0;
    for (const char *from = name; *from;) {
        size_t n = (size_t)(strchrnul(from, '/') - from);
        if (n == 2 && from[0] == '.' && from[1] == '.') {
            if (length == 0)
                fail(EINVAL, of, "a name that leads out of the layer");
            while (length > 0 && out[--length] != '/')
                ;
        } else if (n > 0 && !(n == 1 && *from == '.')) {
            if (length > 0)
                out[length++] = '/';
            memcpy(out + length, from, n);
            length += n;
        }
        from += n + (from[n] == '/');
    }
    out[length] = 0;
}

/* What an image may set: its own, and what makes programs and files work. Not trusted.*, with which overlayfs is told
 * things; not user.overlay.*, the same for mounts without privilege; not the labels of security modules, which are the
 * host's to give. */
static bool is_taken(const char *name) {
    return strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0 ||
           strcmp(name, "system.posix_acl_default") == 0 ||
           (strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0);
}

void each_xattr(const struct meta *meta, take_xattr *take, void *to, const char *path) {
    const char *name;
    const void *value;
    size_t size;
    if (!meta->xattrs)
        return;
    archive_entry_xattr_reset(meta->xattrs);
    while (archive_entry_xattr_next(meta->xattrs, &name, &value, &size) == ARCHIVE_OK)
        if (is_taken(name))
            take(to, name, value, size, path);
}

void count_entry(struct writer *w, const char *path) {
    if (++w->entries > w->limits->entries)
        fail(EFBIG, path, "the layer has more than %llu entries, the limit", (unsigned long long)w->limits->entries);
}

static struct timespec time_of(time_t seconds, long ns) {
    return (struct timespec){seconds, ns >= 0 && ns < 1000000000 ? ns : 0};
}

static struct meta meta_of(struct archive_entry *e, const char *path) {
    int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
    if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
        fail(EINVAL, path, "an owner out of range: %lld:%lld", (long long)uid, (long long)gid);
    struct meta meta = {.uid = (uint32_t)uid, .gid = (uint32_t)gid, .mode = archive_entry_perm(e)};
    meta.times[1] = time_of(archive_entry_mtime(e), archive_entry_mtime_nsec(e));
    meta.times[0] = archive_entry_atime_is_set(e) ? time_of(archive_entry_atime(e), archive_entry_atime_nsec(e))
                                                  : meta.times[1];
    if (archive_entry_xattr_count(e) > 0)
        meta.xattrs = e;
    return meta;
}

static void write_all(int fd, const uint8_t *bytes, size_t length, int64_t at, const char *path) {
    while (length > 0) {
        ssize_t n = pwrite(fd, bytes, length, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fail(n ? errno : EIO, path, "writing the file");
        bytes += n;
        length -= (size_t)n;
        at += n;
    }
}

static void take_file(struct reader *r, struct archive *a, struct archive_entry *e, const char *path) {
    struct meta meta = meta_of(e, path);
    int64_t size = archive_entry_size(e), end = 0, at;
    int status;
    struct place place = r->writer->file(r->writer, path, size, &meta);
    const void *bytes;
    size_t length;
    while ((status = archive_read_data_block(a, &bytes, &length, &at)) == ARCHIVE_OK) {
        if (at < end || at > size || (int64_t)length > size - at)
            fail(EBADMSG, path, "data that is not where its header says");
        write_all(place.fd, bytes, length, place.base + at, path);
        end = at + (int64_t)length;
    }
    if (status != ARCHIVE_EOF)
        fail(EBADMSG, path, "%s", archive_error_string(a) ? archive_error_string(a) : "the tar is damaged");
    r->writer->file_done(r->writer, place, path, &meta, size, end);
}

/* `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that they have in the directory. */
static bool take_whiteout(struct reader *r, char *path, const char *of) {
    for (const char *from = path; (from = strstr(from, WHITEOUT)); from++)
        if ((from == path || from[-1] == '/') && strchr(from, '/'))
            fail(EINVAL, of, "an entry beneath a whiteout");
    char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (strncmp(name, WHITEOUT, 4) != 0)
        return false;
    if (strcmp(name, META ".opq") == 0) {
        name[name > path ? -1 : 0] = 0;
        r->writer->opaque(r->writer, path);
        return true;
    }
    const char *hidden = name + 4;
    if (strncmp(name, META, 8) == 0 || !*hidden || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
        fail(EINVAL, of, "a whiteout that says nothing we know");
    memmove(name, hidden, strlen(hidden) + 1);
    r->writer->whiteout(r->writer, path);
    return true;
}

static void take(struct reader *r, struct archive *a, struct archive_entry *e) {
    const char *of = archive_entry_pathname(e), *target;
    char path[PATH_MOST], to[PATH_MOST];
    clean(of, of, r->limits, path);
    count_entry(r->writer, of);
    r->counts->entries++;
    if (take_whiteout(r, path, of))
        return;
    struct meta meta = meta_of(e, of);
    mode_t type = archive_entry_filetype(e);
    if (!*path && (type != AE_IFDIR || archive_entry_hardlink(e)))
        fail(EINVAL, of, "an entry in the place of the layer's root");
    if ((target = archive_entry_hardlink(e))) {
        clean(target, of, r->limits, to);
        r->writer->link(r->writer, path, to);
        return;
    }
    switch (type) {
    case AE_IFREG:
        take_file(r, a, e, path);
        break;
    case AE_IFDIR:
        r->writer->directory(r->writer, path, &meta);
        break;
    case AE_IFLNK:
        target = archive_entry_symlink(e);
        if (!target || !*target || strlen(target) > r->limits->path || strlen(target) >= PATH_MOST)
            fail(EINVAL, of, "a symbolic link to nothing, or to more than %llu bytes", (unsigned long long)r->limits->path);
        r->writer->symlink(r->writer, path, target, &meta);
        break;
    case AE_IFIFO:
        r->writer->fifo(r->writer, path, &meta);
        break;
    case AE_IFCHR:
    case AE_IFBLK:
        /* A device is the node's to give. No whiteout either: in a directory of one layer alone it would be listed. */
        r->writer->drop(r->writer, path);
        r->counts->devices++;
        break;
    default:
        fail(EINVAL, of, "an entry of a kind that a layer can't have (mode %o)", type);
    }
}

static bool is_only_about_locale(struct archive *a) {
    const char *said = archive_error_string(a);
    return said && strstr(said, "can't be converted from UTF-8 to current locale");
}

static struct archive *reading;

void untar_abandon(void) {
    if (reading)
        archive_read_free(reading);
    reading = NULL;
}

void untar(struct stream *stream, struct writer *writer, const struct limits *limits, struct counts *counts) {
    struct reader r = {.stream = stream, .writer = writer, .limits = limits, .counts = counts};
    struct archive *a = reading = archive_read_new();
    struct archive_entry *e;
    if (!a || archive_read_support_format_tar(a) || archive_read_support_format_empty(a) ||
        archive_read_open(a, &r, NULL, give, NULL))
        fail(EBADMSG, NULL, "%s", a && archive_error_string(a) ? archive_error_string(a) : "libarchive");
    int status;
    while ((status = archive_read_next_header(a, &e)) != ARCHIVE_EOF) {
        const char *name = status == ARCHIVE_FATAL ? NULL : archive_entry_pathname(e);
        if (status != ARCHIVE_OK && !(status == ARCHIVE_WARN && is_only_about_locale(a)))
            fail(EBADMSG, name, "%s", archive_error_string(a) ? archive_error_string(a) : "the tar is damaged");
        int64_t headers = archive_filter_bytes(a, -1) - archive_read_header_position(a);
        if (headers > (int64_t)limits->header)
            fail(EFBIG, name, "an entry with %lld bytes of headers, more than %llu, the limit", (long long)headers,
                 (unsigned long long)limits->header);
        take(&r, a, e);
    }
    untar_abandon();
    const uint8_t *rest; /* of the last block, and what may follow it: the digest is of all */
    while (stream_next(stream, &rest) > 0)
        ;
}
