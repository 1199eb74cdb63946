/* Disk faults for a hub that runs with this library in LD_PRELOAD. FAULTS names a file that contains the current fault:
   "slow" makes each fsync take two seconds, "held" makes it wait for another fault or none, "read-only" and "broken" make each
   write to a database fail. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is(const char *fault) {
    char text[32] = "";
    FILE *file = fopen(getenv("FAULTS"), "r");
    if (file) {
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    return strcmp(text, fault) == 0;
}

static int is_database(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, ".db") != NULL;
}

static int slow(const char *name, int fd) {
    if (is_database(fd)) {
        if (is("slow")) sleep(2);
        while (is("held")) usleep(1000);
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return slow("fsync", fd); }
int fdatasync(int fd) { return slow("fdatasync", fd); }

static ssize_t write_at(const char *name, int fd, const void *from, size_t count, off_t offset) {
    if (is_database(fd)) {
        if (is("read-only")) return errno = EROFS, -1;
        if (is("broken")) return errno = EIO, -1;
    }
    return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, name))(fd, from, count, offset);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t offset) {
    return write_at("pwrite", fd, from, count, offset);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off_t offset) {
    return write_at("pwrite64", fd, from, count, offset);
}
