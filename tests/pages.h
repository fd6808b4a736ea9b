/* pages.h: memory between two pages that may not be touched, where the system can do that.
   A program that includes it defines _DEFAULT_SOURCE first (MAP_ANONYMOUS). */
#ifndef PAGES_H
#define PAGES_H

#if defined(__unix__) || defined(__APPLE__)
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#define HAVE_PAGES 1

typedef struct guarded { char *base; size_t length; } guarded;

/* The last `bytes` bytes before a page that may not be touched; one such page lies before, too. */
static inline void *guard(guarded *g, size_t bytes)
{
  size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
  g->length = inner + 2 * page;
  g->base = (char *)mmap(NULL, g->length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (g->base == (char *)MAP_FAILED ||
      mprotect(g->base + page, inner, PROT_READ | PROT_WRITE) != 0) {
    printf("no guard pages\n");
    exit(1);
  }
  return g->base + page + inner - bytes;
}

static inline void unguard(guarded *g) { munmap(g->base, g->length); }
#endif
#endif
