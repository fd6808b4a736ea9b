/* faults.c: examples/04_save_restore.c when things go wrong: the process is killed while it saves,
   and every call that can fail fails once. The example itself is compiled in, with its own save.

     faults kill [N]   N processes are killed while they save (200)
     faults fail       every nth fopen, fwrite, fflush, fsync, fclose, rename, fread, fseek fails

   Link it with -Wl,--wrap=NAME for each of those eight (tests/faults.sh). */
#define main example_main
#include "../examples/04_save_restore.c"
#undef main
#include "t.h"
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* ---- calls that fail once -------------------------------------------------------------------- */

enum { FOPEN, FWRITE, FFLUSH, FSYNC, FCLOSE, RENAME, FREAD, FSEEK, N_CALLS };
static const char *const call_name[N_CALLS] = { "fopen", "fwrite", "fflush", "fsync", "fclose",
                                                "rename", "fread", "fseek" };
static long calls[N_CALLS], failing_call[N_CALLS];     /* counted; the one that fails, 0 = none   */
static int open_files;

static int fails(int call) { return ++calls[call] == failing_call[call]; }

static void arm(int call, long n)                      /* the nth from now on fails              */
{
  memset(calls, 0, sizeof calls);
  memset(failing_call, 0, sizeof failing_call);
  failing_call[call] = n;
  errno = 0;
}

FILE *__real_fopen(const char *path_name, const char *mode);
FILE *__wrap_fopen(const char *path_name, const char *mode);
size_t __real_fwrite(const void *p, size_t size, size_t n, FILE *f);
size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f);
size_t __real_fread(void *p, size_t size, size_t n, FILE *f);
size_t __wrap_fread(void *p, size_t size, size_t n, FILE *f);
int __real_fflush(FILE *f);
int __wrap_fflush(FILE *f);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fclose(FILE *f);
int __wrap_fclose(FILE *f);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_fseek(FILE *f, long at, int whence);
int __wrap_fseek(FILE *f, long at, int whence);

FILE *__wrap_fopen(const char *path_name, const char *mode)
{
  FILE *f = fails(FOPEN) ? NULL : __real_fopen(path_name, mode);
  open_files += f != NULL;
  return f;
}

size_t __wrap_fwrite(const void *p, size_t size, size_t n, FILE *f)
{
  return fails(FWRITE) ? __real_fwrite(p, size, n / 2, f) : __real_fwrite(p, size, n, f);
}

size_t __wrap_fread(void *p, size_t size, size_t n, FILE *f)
{
  size_t got = fails(FREAD) ? __real_fread(p, size, n / 2, f) : __real_fread(p, size, n, f);
  if (got < n && calls[FREAD] % 2) __real_fwrite("", 1, 1, f);   /* not writable: sets ferror    */
  return got;                                          /* else as of a file that became shorter  */
}

int __wrap_fclose(FILE *f)
{
  int closed = __real_fclose(f);                       /* whatever it says, the file is gone     */
  open_files--;
  return fails(FCLOSE) ? EOF : closed;
}

int __wrap_fflush(FILE *f) { return fails(FFLUSH) ? EOF : __real_fflush(f); }
int __wrap_fsync(int fd) { return fails(FSYNC) ? -1 : __real_fsync(fd); }

int __wrap_rename(const char *from, const char *to)
{
  return fails(RENAME) ? -1 : __real_rename(from, to);
}

int __wrap_fseek(FILE *f, long at, int whence)
{
  return fails(FSEEK) ? -1 : __real_fseek(f, at, whence);
}

/* ---- contexts of the example's desc ---------------------------------------------------------- */

static longctx_desc example_desc(void)
{
  longctx_desc desc = longctx_desc_make(LAYERS, HEADS, KV_HEADS, DIM, WINDOW);
  desc.sinks = SINKS;
  return desc;
}

static longctx *walk(longctx *context, int64_t position)
{
  float out[LAYERS * HEADS * DIM];
  while (longctx_position(context) < position)
    if (step(context, out)) FAIL("step");
  return context;
}

static longctx *context_at(int64_t position)           /* free() it                              */
{
  longctx_desc desc = example_desc();
  return walk(t_new(&desc), position);
}

/* ---- every nth call -------------------------------------------------------------------------- */

/* A save that fails says so, and the old file stands as it was. */
static void test_failing_saves(void)
{
  longctx *old = context_at(300), *later = context_at(301);
  size_t bytes;
  unsigned char *memory;
  longctx_desc desc = example_desc();
  int call, tried = 0;
  bytes = longctx_size(&desc);
  memory = (unsigned char *)t_memory(bytes);
  for (call = FOPEN; call <= RENAME; call++) {
    long n;
    for (n = 1; n < 10000; n++) {
      int saved, reached, files = open_files;
      longctx *loaded;
      arm(call, 0);
      t_case("%s %ld", call_name[call], n);
      CHECK_EQ(save(old), 0);
      arm(call, n);
      saved = save(later);
      reached = calls[call] >= n;
      arm(call, 0);
      CHECK_EQ(open_files, files);
      CHECK_EQ(saved, reached ? -1 : 0);
      loaded = load(memory, bytes, &desc);
      if (CHECK(loaded != NULL)) {
        CHECK_EQ(longctx_position(loaded), reached ? 300 : 301);
        CHECK(saves_the_same(reached ? old : later));
      }
      if (!reached) break;
      tried++;
    }
    CHECK(n > 1);                                      /* each of them is called at all          */
  }
  printf("%d failing calls of a save\n", tried);
  free(memory);
  free(old);
  free(later);
}

/* A restore that fails leaves the context as it was, or, once it has verified, empty. */
static void test_failing_reads(void)
{
  longctx *saved = context_at(300);
  longctx_desc desc = example_desc();
  size_t n_before, n_after, bytes = longctx_size(&desc);
  void *memory = t_memory(bytes);
  int call, tried = 0, reset = 0;
  arm(FOPEN, 0);
  CHECK_EQ(save(saved), 0);
  for (call = FREAD; call <= FSEEK; call++) {
    long n;
    for (n = 1; n < 100000; n++) {
      longctx *live = context_at(50), *loaded;
      unsigned char *before = t_state(live, &n_before), *after;
      int code, reached;
      FILE *file = fopen(path, "rb");
      t_case("%s %ld", call_name[call], n);
      if (!CHECK(file != NULL)) return;
      arm(call, n);
      code = longctx_restore(live, file);
      reached = calls[call] >= n;
      arm(call, 0);
      fclose(file);
      after = t_state(live, &n_after);
      if (!reached) {
        CHECK_EQ(code, LONGCTX_OK);
      } else {
        CHECK(code == LONGCTX_E_IO || code == LONGCTX_E_FORMAT);
        if (longctx_position(live) == 0) {
          CHECK_EQ(code, LONGCTX_E_IO);
          reset++;
        } else if (CHECK_EQ(n_before, n_after)) {
          CHECK_SAME(before, after, n_before);
        }
      }
      free(before);
      free(after);
      free(live);
      arm(call, n);
      loaded = load(memory, bytes, &desc);
      if (calls[call] >= n) CHECK(loaded == NULL);
      arm(call, 0);
      if (!reached) break;
      tried++;
    }
  }
  CHECK(tried > 2 && reset > 0 && reset < tried);
  printf("%d failing calls of a restore, %d of them after it had verified\n", tried, reset);
  free(memory);
  free(saved);
}

/* ---- killed ---------------------------------------------------------------------------------- */

static int save_in_place(const longctx *context)       /* what a careless program does           */
{
  FILE *file = fopen(path, "wb");
  int bad = !file || longctx_save(context, file);
  return (file && fclose(file)) || bad ? -1 : 0;
}

static int save_nothing(const longctx *context)
{
  (void)context;
  return 0;
}

/* A new file that has not got its name yet, and one that is not whole: killed inside a save. */
typedef struct remains { int beside, half; } remains;

static void look_beside(remains *r, size_t whole)
{
  struct stat s;
  if (stat(path_new, &s)) return;
  r->beside++;
  r->half += (size_t)s.st_size < whole;
}

/* Kills `n` processes that do nothing but save, and counts files that do not load; those that do
   must be what some save wrote, and never one older than an earlier one. */
static int kill_savers(int n, int (*saver)(const longctx *), remains *left)
{
  longctx *context = context_at(300);
  longctx_desc desc = example_desc();
  size_t bytes = longctx_size(&desc), whole = longctx_state_size(context);
  void *memory = t_memory(bytes);
  float out[LAYERS * HEADS * DIM];
  uint64_t seed = 9;
  int i, unreadable = 0;
  for (i = 0; i < n; i++) {
    struct timespec pause = { 0, 1000000 + 1000L * t_below(&seed, 20000) };
    int status;
    pid_t child;
    longctx *loaded;
    t_case("kill %d", i);
    CHECK_EQ(save(context), 0);
    child = fork();
    if (child < 0) { FAIL("fork"); break; }
    if (child == 0)
      for (;;)
        if (step(context, out) || saver(context)) _exit(1);
    nanosleep(&pause, NULL);
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    look_beside(left, whole);
    loaded = load(memory, bytes, &desc);
    if (!loaded) { unreadable++; continue; }
    if (!CHECK(longctx_position(loaded) >= longctx_position(context))) break;
    walk(context, longctx_position(loaded));
    CHECK(saves_the_same(context));
  }
  free(memory);
  free(context);
  return unreadable;
}

static void test_kills(int n)
{
  remains left = { 0, 0 }, ignored = { 0, 0 };
  int careless, unreadable = kill_savers(n, save, &left);
  CHECK_EQ(unreadable, 0);
  CHECK(left.beside > 0);                              /* else it was never killed in a save     */
  if (!freopen("/dev/null", "w", stderr)) FAIL("/dev/null");
  careless = kill_savers(n, save_in_place, &ignored);
  CHECK(careless > 0);                                 /* the test can see what it looks for     */
  CHECK_EQ(kill_savers(3, save_nothing, &ignored), 0);
  printf("%d kills, %d inside a save, %d with half a file: %d unreadable; saved in place %d\n", n,
         left.beside, left.half, unreadable, careless);
}

int main(int argc, char **argv)
{
  if (argc > 1 && strcmp(argv[1], "kill") == 0) {
    test_kills(argc > 2 ? atoi(argv[2]) : 200);
  } else {
    test_failing_saves();
    test_failing_reads();
  }
  remove(path);
  remove(path_new);
  return t_done();
}
