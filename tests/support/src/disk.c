/* A disk as a test wants it, for one database of the process that this is preloaded into (ld.so(8), LD_PRELOAD).
 *
 *   DISK_OF      what the names of the database's files begin with
 *   DISK_RECORD  a file to which each write to them, each truncation, and each beginning and end of a sync is added, in order
 *   DISK_SYNC_MS how long a sync takes
 *   DISK_FAILS   while there is a file of this name, writes and syncs fail as on a disk that fails
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *of, *fails;
static long sync_ms;
static int record = -1;
static uint64_t syncs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("DISK_RECORD"), *wait = getenv("DISK_SYNC_MS");
  of = getenv("DISK_OF");
  fails = getenv("DISK_FAILS");
  if (wait) sync_ms = atol(wait);
  if (file) record = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Which of the database's files this is: 0, or 1 for its log; -1 for any other. */
static int which(int fd) {
  char link[40], path[4096];
  size_t length = of ? strlen(of) : 0;
  if (!length) return -1;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t read = readlink(link, path, sizeof path - 1);
  if (read < (ssize_t)length || strncmp(path, of, length)) return -1;
  path[read] = 0;
  if (!strcmp(path + length, "-shm")) return -1;
  return path[length] ? 1 : 0;
}

static uint64_t note(char kind, int file, uint64_t offset, const void *data, uint64_t length) {
  int was = errno;
  uint64_t id = 0;
  pthread_mutex_lock(&lock);
  if (kind == 'b') offset = id = ++syncs;
  if (record >= 0) {
    uint64_t head[4] = {(unsigned char)kind, (uint64_t)file, offset, length};
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, data ? length : 0}};
    if (syscall(SYS_writev, record, parts, 2) < 0) abort();
  }
  pthread_mutex_unlock(&lock);
  errno = was;
  return id;
}

static int refused(void) {
  if (!fails || access(fails, F_OK)) return 0;
  errno = EIO;
  return 1;
}

ssize_t write(int fd, const void *data, size_t length) {
  int file = which(fd);
  if (file >= 0) {
    if (refused()) return -1;
    note('w', file, (uint64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR), data, length);
  }
  return syscall(SYS_write, fd, data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  int file = which(fd);
  if (file >= 0) {
    if (refused()) return -1;
    note('w', file, (uint64_t)offset, data, length);
  }
  return syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

int ftruncate64(int fd, off64_t length) {
  int file = which(fd);
  if (file >= 0) {
    if (refused()) return -1;
    note('t', file, 0, NULL, (uint64_t)length);
  }
  return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_file(long call, int fd) {
  int file = which(fd);
  if (file < 0) return (int)syscall(call, fd);
  if (refused()) return -1;
  uint64_t id = note('b', file, 0, NULL, 0);
  struct timespec wait = {sync_ms / 1000, sync_ms % 1000 * 1000000};
  if (sync_ms) nanosleep(&wait, NULL);
  int done = (int)syscall(call, fd);
  if (!done) note('e', file, id, NULL, 0);
  return done;
}

int fsync(int fd) { return sync_file(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_file(SYS_fdatasync, fd); }
