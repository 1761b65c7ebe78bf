/* The fuzzer of the unpacker: libFuzzer gives the blob, the real sources write into a directory of a tmpfs, under ASan.
 *
 * The first byte of the input says whether the checksums of tar headers are made right, without which hardly an input
 * would get past the first header, and which of the two writers takes the entries. After each run the directory is
 * emptied by the same code that removes layers, and what lies beside it must be as it was: one file, by its inode and
 * times, and no other. landlock keeps a bug from the rest of the machine. fail() jumps back here, so what it leaves behind
 * is put away here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../layers/layer.h"
#include "options.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void untar_abandon(void);

enum { HEADER = 512, CHECKSUM = 148, CHECKSUM_END = 156, MAGIC = 257 };
enum { WRITES = LANDLOCK_ACCESS_FS_WRITE_FILE | ((1 << 13) - (1 << 4)) | LANDLOCK_ACCESS_FS_REFER }; /* and all that makes and removes */

static jmp_buf back;
static int top_fd, layer_fd;
static struct stat canary;

_Noreturn void fail(int error, const char *entry, const char *format, ...) {
    char text[2 * PATH_MOST];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list); /* what it would say is read as well */
    va_end(list);
    longjmp(back, 1 + (error != 0 && entry != NULL));
}

static void allow(int rules, int fd) {
    struct landlock_path_beneath_attr beneath = {.allowed_access = WRITES, .parent_fd = fd};
    if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
        abort();
}

static void restrict_writes(void) {
    struct landlock_ruleset_attr handled = {.handled_access_fs = WRITES};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    if (rules < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        abort();
    int here = open(".", O_RDONLY | O_CLOEXEC);
    allow(rules, top_fd);
    allow(rules, here); /* the corpus, what a crash was made of */
    if (syscall(SYS_landlock_restrict_self, rules, 0))
        abort();
    close(here);
    close(rules);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *top = getenv("PYRUN_FUZZ_DIRECTORY"); /* an empty one, on a tmpfs */
    if (!top || (top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || mkdirat(top_fd, "layer", 0700))
        abort();
    layer_fd = openat(top_fd, "layer", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int secret = openat(top_fd, "canary", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (layer_fd < 0 || secret < 0 || fstat(secret, &canary))
        abort();
    close(secret);
    restrict_writes();
    umask(0);
    return 0;
}

static void make_checksums_right(uint8_t *tar, size_t size) {
    for (size_t at = 0; at + HEADER <= size; at += HEADER) {
        uint8_t *header = tar + at;
        if (memcmp(header + MAGIC, "ustar", 5) != 0)
            continue;
        unsigned sum = 0;
        memset(header + CHECKSUM, ' ', CHECKSUM_END - CHECKSUM);
        for (size_t i = 0; i < HEADER; i++)
            sum += header[i];
        snprintf((char *)header + CHECKSUM, 8, "%06o", sum & 0777777);
    }
}

static void check_outside(void) {
    struct stat now;
    int entries = 0;
    if (fstatat(top_fd, "canary", &now, AT_SYMLINK_NOFOLLOW) || now.st_ino != canary.st_ino || now.st_size != 0 ||
        now.st_mode != canary.st_mode || now.st_nlink != 1 || now.st_ctim.tv_nsec != canary.st_ctim.tv_nsec)
        abort();
    char buffer[4096] __attribute__((aligned(8)));
    lseek(top_fd, 0, SEEK_SET);
    for (long n; (n = syscall(SYS_getdents64, top_fd, buffer, sizeof buffer)) > 0;)
        for (long at = 0; at < n; at += *(unsigned short *)(void *)(buffer + at + 16))
            entries++;
    if (entries != 4)
        abort();
}

static void run(int blob, bool as_image) {
    static struct stream *stream;
    static struct tree tree;
    static struct image *image;
    struct limits limits = {.bytes = 1 << 20, .ratio = 200, .ratio_after = 1 << 18, .entries = 200, .path = PATH_MOST - 1,
                            .header = 64 << 10, .size = UINT64_MAX};
    struct counts counts = {0};
    uint8_t digest[DIGEST];
    if (setjmp(back) == 0) {
        stream = NULL;
        image = NULL;
        stream = stream_open(blob, &limits, true, false);
        if (as_image) {
            image = image_open(openat(layer_fd, "image", O_RDWR | O_CREAT | O_CLOEXEC, 0400), &limits);
            untar(stream, image_writer(image), &limits, &counts);
            image_finish(image);
        } else {
            tree_open(&tree, layer_fd, &limits);
            untar(stream, &tree.writer, &limits, &counts);
            tree_close(&tree);
        }
        stream_digests(stream, digest, digest);
    }
    untar_abandon();
    if (image)
        image_close(image);
    if (stream)
        stream_close(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return -1;
    int blob = memfd_create("blob", MFD_CLOEXEC);
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    if (copy[0] & 1)
        make_checksums_right(copy + 1, size - 1);
    if (blob < 0 || write(blob, copy + 1, size - 1) != (ssize_t)(size - 1))
        abort();
    bool as_image = copy[0] & 2;
    free(copy);
    lseek(blob, 0, SEEK_SET);
    run(blob, as_image);
    check_outside();
    char at[256];
    errno = remove_contents(layer_fd, NULL, at);
    if (errno) {
        perror(at);
        abort();
    }
    syscall(SYS_close_range, layer_fd + 1, ~0U, 0); /* what fail() left open */
    return 0;
}

/* What tree.c and untar.c would tell the parent. */
void report_implied(const char *path) { (void)strlen(path); }
void report_progress(uint64_t in, uint64_t out, uint64_t entries) { (void)in, (void)out, (void)entries; }
