/* pyrun-layer VERB KEY=NUMBER...: what it does is told by its parent in numbers, what it does it to in descriptors.
 *
 *   unpack  the blob (0) into the directory (3)      remove  all that is in the directory (3)
 *   image   the blob (0) into a file "image" in it   sync    the file system of the directory (3)
 *   digest  of what is in the directory (3)          digest-image  of its file "image"
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer.h"

struct options {
    struct limits limits;
    uint64_t parent, hash, threads, content;
};

static void parse(int argc, char **argv, struct options *o) {
    const struct {
        const char *key;
        uint64_t *value;
    } keys[] = {
        {"bytes", &o->limits.bytes},     {"ratio", &o->limits.ratio}, {"ratio_after", &o->limits.ratio_after},
        {"entries", &o->limits.entries}, {"path", &o->limits.path},   {"header", &o->limits.header},
        {"size", &o->limits.size},       {"parent", &o->parent},      {"hash", &o->hash},
        {"threads", &o->threads},        {"content", &o->content},
    };
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '='), *end;
        size_t at = 0, n = sizeof keys / sizeof *keys;
        if (value)
            *value++ = 0;
        while (at < n && strcmp(keys[at].key, argv[i]) != 0)
            at++;
        if (!value || at == n || (*keys[at].value = strtoull(value, &end, 10), *end))
            fail(EINVAL, NULL, "pyrun-layer: option %d is not one of this version", i);
    }
}

/* It ends with the one who asked for it: a blob must not go on to be unpacked where the next daemon sweeps. */
static void bind_to_parent(const struct options *o) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        fail(errno, NULL, "PR_SET_PDEATHSIG");
    if (o->parent && (uint64_t)getppid() != o->parent)
        _exit(3);
}

static void unpack(const struct options *o, bool as_image) {
    struct sandbox box;
    struct tree tree = {0};
    struct image *image = NULL;
    struct counts counts = {0};
    uint8_t blob[DIGEST], tar[DIGEST], content[DIGEST];
    char blob_hex[2 * DIGEST + 1], tar_hex[2 * DIGEST + 1], content_hex[2 * DIGEST + 1] = "-";
    int file = -1;
    sandbox_before_threads(&box, DIRECTORY);
    struct stream *stream = stream_open(BLOB, &o->limits, o->hash != 0, o->threads > 1);
    sandbox_with_threads();
    stream_go(stream);
    if (as_image) {
        file = open_beneath(DIRECTORY, "image", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0400, RESOLVE_BENEATH);
        if (file < 0)
            fail(errno, NULL, "creating the layer's image");
        image = image_open(file, &o->limits);
    } else {
        tree_open(&tree, DIRECTORY, &o->limits);
    }
    struct writer *writer = image ? image_writer(image) : &tree.writer;
    untar(stream, writer, &o->limits, &counts);
    if (image)
        image_finish(image);
    else
        tree_close(&tree);
    stream_digests(stream, blob, tar);
    hex(blob_hex, blob, DIGEST);
    hex(tar_hex, tar, DIGEST);
    if (o->content) {
        content_digest(as_image, content);
        hex(content_hex, content, DIGEST);
    }
    report_done("done in=%llu out=%llu entries=%llu bytes=%llu inodes=%llu devices=%llu implied=%llu landlock=%d blob=%s tar=%s content=%s\n",
                (unsigned long long)stream_in(stream), (unsigned long long)stream_out(stream),
                (unsigned long long)counts.entries, (unsigned long long)tree.bytes, (unsigned long long)tree.inodes,
                (unsigned long long)counts.devices, (unsigned long long)writer->implied, box.landlock,
                o->hash ? blob_hex : "-", tar_hex, content_hex);
    if (image)
        image_close(image);
}

int main(int argc, char **argv) {
    struct options o = {.limits = {.bytes = UINT64_MAX, .ratio = 200, .ratio_after = 64 << 20, .entries = 2000000,
                                   .path = PATH_MOST - 1, .header = 64 << 10, .size = UINT64_MAX},
                        .threads = 2};
    const char *verb = argc > 1 ? argv[1] : "";
    struct stat st;
    umask(0);
    signal(SIGPIPE, SIG_IGN);
    parse(argc, argv, &o);
    bind_to_parent(&o);
    if (o.limits.ratio == 0 || fstat(DIRECTORY, &st) || !S_ISDIR(st.st_mode))
        fail(EINVAL, NULL, "pyrun-layer is started by pyrun, with a directory as descriptor 3");
    if (strcmp(verb, "unpack") == 0 || strcmp(verb, "image") == 0) {
        unpack(&o, *verb == 'i');
        return 0;
    }
    struct sandbox box;
    char at[256] = "", content_hex[2 * DIGEST + 1] = "-";
    sandbox_before_threads(&box, DIRECTORY);
    sandbox_with_threads();
    int error = 0;
    if (strcmp(verb, "remove") == 0)
        error = remove_contents(DIRECTORY, NULL, at);
    else if (strcmp(verb, "sync") == 0)
        error = syncfs(DIRECTORY) ? errno : 0;
    else if (strcmp(verb, "digest") == 0 || strcmp(verb, "digest-image") == 0) {
        uint8_t content[DIGEST];
        content_digest(verb[6] != 0, content);
        hex(content_hex, content, DIGEST);
    } else
        error = ENOSYS;
    if (error)
        fail(error, at, "%s", verb);
    report_done("done landlock=%d content=%s\n", box.landlock, content_hex);
    return 0;
}
