/* naive.h: the attention loop that most engines have, to be measured against. */
#ifndef NAIVE_H
#define NAIVE_H

/* One query per head against n keys: q [n_heads][head_dim], k and v [n][n_kv_heads][head_dim],
   scores [n], out [n_heads][head_dim]; float32, already rotated. */
void naive_attend(int n_heads, int n_kv_heads, int head_dim, int n, const float *q, const float *k,
                  const float *v, float *scores, float *out);

#endif
