/* tests/fuzz_gguf.c - libFuzzer: any bytes as a GGUF model, as its tokenizer, and a short text.

   build  clang -g -O1 -std=c99 -fsanitize=fuzzer,address,undefined -I. -Iexamples \
            tests/fuzz_gguf.c -o fuzz_gguf -lm
   seeds  build/tests/gguf FOLDER writes the sound files of tests/gguf.c there */
#define LONGCTX_IMPLEMENTATION
#define ENGINE_IMPLEMENTATION
#include "engine.h"
#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size);

static void step(const model *m)
{
  engine e;
  engine_error error;
  int tokens[3] = { 0, m->vocab_size - 1, 0 };
  longctx_desc desc = engine_desc(m, 4);
  desc.max_batch = 3;
  size_t bytes = longctx_size(&desc);
  if (bytes == 0 || bytes > 1 << 24 || m->vocab_size > 4096 || engine_init(&e, m, 3, &error))
    return;
  void *memory = malloc(bytes);
  float *logits = malloc((size_t)m->vocab_size * 3 * sizeof *logits);
  longctx *context = memory ? longctx_init(memory, bytes, &desc) : NULL;
  if (context && logits) engine_forward(&e, context, tokens, 3, logits, 3);
  free(logits);
  free(memory);
  engine_free(&e);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size)
{
  static const char *text = "abab ab's 12\n \xe2\x82\xac<0x0A></s>";
  model m;
  tokenizer t;
  engine_error error;
  size_t n, vocab = 12;
  if (model_parse(&m, bytes, size, &error) == 0) {
    vocab = (size_t)m.vocab_size;
    step(&m);
    model_free(&m);
  }
  if (tokenizer_parse(&t, bytes, size, (int)vocab, &error) == 0) {
    int len, *tokens = tokenizer_encode(&t, text, strlen(text), &n, &error);
    for (size_t i = 1; tokens && i < n; i++) tokenizer_decode(&t, tokens[i - 1], tokens[i], &len);
    free(tokens);
    tokenizer_free(&t);
  }
  return 0;
}
