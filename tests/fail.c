/* fail.c: one call of a program fails. Preloaded into it: FAIL="malloc 3" makes the third malloc
   fail, of all that the program and its libraries do; FAIL_MARK names a file that is created when
   that happens. Build: cc -shared -fPIC -o fail.so tests/fail.c -ldl                           */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);

/* 1 when this call of `name` is the one that fails */
static int fails(const char *name)
{
  static long called;
  const char *want = getenv("FAIL"), *mark = getenv("FAIL_MARK");
  size_t length = strlen(name);
  int file;
  if (!want || strncmp(want, name, length) || want[length] != ' ') return 0;
  if (++called != atol(want + length)) return 0;
  file = mark ? open(mark, O_CREAT | O_WRONLY, 0600) : -1;
  if (file >= 0) close(file);
  errno = strstr(name, "alloc") ? ENOMEM : ENOSPC;
  return 1;
}

void *malloc(size_t n) { return fails("malloc") ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return fails("calloc") ? NULL : __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return fails("realloc") ? NULL : __libc_realloc(p, n); }

#define REAL(name) static void *real; if (!real) real = dlsym(RTLD_NEXT, name)

FILE *fopen(const char *path, const char *mode)
{
  REAL("fopen");
  return fails("fopen") ? NULL : ((FILE *(*)(const char *, const char *))real)(path, mode);
}

size_t fread(void *p, size_t size, size_t n, FILE *f)
{
  REAL("fread");
  if (fails("fread")) n /= 2;
  return ((size_t (*)(void *, size_t, size_t, FILE *))real)(p, size, n, f);
}

size_t fwrite(const void *p, size_t size, size_t n, FILE *f)
{
  REAL("fwrite");
  if (fails("fwrite")) n /= 2;
  return ((size_t (*)(const void *, size_t, size_t, FILE *))real)(p, size, n, f);
}

int fsync(int file)
{
  REAL("fsync");
  return fails("fsync") ? -1 : ((int (*)(int))real)(file);
}

int rename(const char *from, const char *to)
{
  REAL("rename");
  return fails("rename") ? -1 : ((int (*)(const char *, const char *))real)(from, to);
}
