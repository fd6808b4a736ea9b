/* words.h - lists of names, and figures in words. */
#ifndef EXAMPLES_WORDS_H
#define EXAMPLES_WORDS_H

#include <stdio.h>
#include <string.h>

/* 1 where "a,b" names it, or where there is no list */
static inline int listed(const char *list, const char *name)
{
  size_t n = strlen(name);
  for (const char *at = list; at; at = strchr(at, ',')) {
    while (*at == ',' || *at == ' ') at++;
    if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == 0)) return 1;
  }
  return !list;
}

/* 1234567 as 1,234,567 */
static inline const char *commas(char text[32], double value)
{
  char plain[32];
  int n = snprintf(plain, sizeof plain, "%.0f", value), out = 0;
  for (int i = 0; i < n; i++) {
    if (i > 0 && (n - i) % 3 == 0) text[out++] = ',';
    text[out++] = plain[i];
  }
  text[out] = 0;
  return text;
}

static inline const char *bytes_text(char text[32], double value)
{
  if (value < 1e6) snprintf(text, 32, "%.1f KB", value / 1e3);
  else if (value < 1e9) snprintf(text, 32, "%.1f MB", value / 1e6);
  else snprintf(text, 32, "%.1f GB", value / 1e9);
  return text;
}

#endif
