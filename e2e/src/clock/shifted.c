// Preloaded into a server, it makes the wall clock wrong by CLOCK_OFFSET_S seconds, or by as many as the file
// CLOCK_OFFSET_FILE says, which may change while the server runs. Time that only passes (the
// monotonic clocks) stays right, as on a machine whose clock was set wrong. It asks the kernel itself: servers read the
// clock before their C library is ready to look functions up.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t offset_s(void) {
    const char *path = getenv("CLOCK_OFFSET_FILE");
    int file = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        char written[32] = {0};
        long length = syscall(SYS_read, file, written, sizeof written - 1);
        syscall(SYS_close, file);
        if (length > 0) return atoll(written);
    }
    const char *text = getenv("CLOCK_OFFSET_S");
    return text ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
