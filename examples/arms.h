/* arms.h - runs side by side, each arm a process of its own, so that its memory is its own.

   An arm tells through a pipe how far it is. Whoever started it draws a line for each: on a terminal
   again and again, elsewhere now and then. POSIX. */
#ifndef EXAMPLES_ARMS_H
#define EXAMPLES_ARMS_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ==== processes ==== */

enum { MOST_ARMS = 32 };

typedef struct arm_process {
  pid_t id;             /* 0 = not yet started */
  int pipe_end, done;
  double begun, shown;  /* when it was started, and its last plain line printed */
} arm_process;

typedef struct arms {
  arm_process of[MOST_ARMS];
  int n, started, ended;
  double quiet;         /* seconds between two plain lines of an arm */
  void *run;            /* what the three are told; i is the arm */
  void (*work)(void *run, int i, int pipe_end);    /* all that it does, in its process */
  int (*hear)(void *run, int i, int pipe_end);     /* takes a message; 1 when there is none more */
  void (*line)(const void *run, int i);            /* how far it is, to standard error */
} arms;

static inline double clock_seconds(clockid_t id)
{
  struct timespec t;
  clock_gettime(id, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int arms_start(arms *a, int i)
{
  arm_process *p = &a->of[i];
  int ends[2];
  if (pipe(ends)) return -1;
  fflush(NULL);
  p->id = fork();
  if (p->id < 0) return -1;
  if (p->id == 0) {
    close(ends[0]);
    a->work(a->run, i, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  p->pipe_end = ends[0];
  p->begun = p->shown = clock_seconds(CLOCK_MONOTONIC);
  return 0;
}

static inline void arms_hear(arms *a, int i, int terminal)
{
  arm_process *p = &a->of[i];
  p->done = a->hear(a->run, i, p->pipe_end);
  if (p->done) {
    close(p->pipe_end);
    waitpid(p->id, NULL, 0);
    a->ended++;
  }
  if (terminal || (!p->done && clock_seconds(CLOCK_MONOTONIC) < p->shown + a->quiet)) return;
  p->shown = clock_seconds(CLOCK_MONOTONIC);
  a->line(a->run, i);
  fprintf(stderr, "\n");
}

static inline void arms_draw(const arms *a, int again)
{
  if (again) fprintf(stderr, "\033[%dA", a->n);
  for (int i = 0; i < a->n; i++) {
    a->line(a->run, i);
    fprintf(stderr, "\033[K\n");
  }
}

/* Starts arms while fewer than at_a_time run, waits until one speaks, hears all that do. 1; 0 when
   none runs and none was to be started; -1 and errno. */
static inline int arms_step(arms *a, int at_a_time)
{
  struct pollfd polls[MOST_ARMS];
  int terminal = isatty(STDERR_FILENO);
  if (terminal && a->started == 0) arms_draw(a, 0);
  while (a->started < a->n && a->started - a->ended < at_a_time)
    if (arms_start(a, a->started++)) return -1;
  if (a->started == a->ended) return 0;
  for (int i = 0; i < a->n; i++) {
    polls[i].fd = a->of[i].id && !a->of[i].done ? a->of[i].pipe_end : -1; /* poll passes over -1 */
    polls[i].events = POLLIN;
    polls[i].revents = 0;
  }
  if (poll(polls, (nfds_t)a->n, -1) < 0 && errno != EINTR) return -1;
  for (int i = 0; i < a->n; i++)
    if (polls[i].revents) arms_hear(a, i, terminal);
  if (terminal) arms_draw(a, 1);
  return 1;
}

/* One message from a pipe, or 0: it ended without a last word, since its process was killed. */
static inline int arms_message(int pipe_end, void *message, size_t size)
{
  return read(pipe_end, message, size) == (ssize_t)size;
}

static inline int64_t peak_rss(void)
{
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage)) return 0;
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return (int64_t)usage.ru_maxrss * 1024;
#endif
}

#endif
