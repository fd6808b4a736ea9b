/* gguf.h - the container of GGUF files, versions 2 and 3: metadata by key, tensors by name.

   Opening a file checks all of its structure, so that whoever asks later gets pieces that lie
   inside the file: names, counts and types, every dimension, every offset. What a key or a tensor
   means is the matter of model.h and tokenizer.h. What is kept points into the file's bytes.

   One .c file defines ENGINE_IMPLEMENTATION before it includes this (or a header that does). */
#ifndef EXAMPLES_GGUF_H
#define EXAMPLES_GGUF_H

#include "file.h"
#include "matrix.h"

/* GGUF's types of metadata */
enum {
  GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
  GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64
};

/* The most entries, the longest names. Real files stay far below. */
enum { GGUF_MOST = 65536, GGUF_KEY = 65535, GGUF_NAME = 64, GGUF_DIMS = 4 };

/* instead of an int that a missing key leaves as it is; instead of a count */
enum { GGUF_REQUIRED = -0x7fffffff, GGUF_ANY = -1 };

typedef struct gguf_text { const unsigned char *at; size_t len; } gguf_text;

typedef struct gguf_value {
  gguf_text name;
  uint32_t type, element;  /* element: the type of an array's */
  uint64_t count;          /* of an array; else 1 */
  cursor data;             /* its bytes, all of them inside the file */
} gguf_value;

typedef struct gguf_tensor {
  gguf_text name;
  int type;                  /* one that matrix_format_of knows */
  uint64_t dims[GGUF_DIMS];  /* fastest first: 1 to FILE_LARGEST, 1 where there is none */
  uint64_t size, offset;
  const unsigned char *data; /* [size] */
  int taken;                 /* set by gguf_take_tensor */
} gguf_tensor;

typedef struct gguf {
  size_t n_values, n_tensors;
  gguf_value *values;         /* in the file's order */
  gguf_tensor *tensors;
  gguf_text **keys, **names;  /* the same by name, sorted */
} gguf;

/* 1 when the bytes begin as a GGUF file does */
int gguf_begins(const unsigned char *bytes, size_t size);

/* Returns 0, or -1 and says why; then there is nothing to close. The bytes must outlive it. */
int gguf_open(gguf *g, const unsigned char *bytes, size_t size, engine_error *error);
void gguf_close(gguf *g);

/* A key's value; NULL when there is none. */
const gguf_value *gguf_find(const gguf *g, const char *key);

/* These take a value of one type. Without the key, *value stays what the caller made it, unless
   that is GGUF_REQUIRED (for real numbers, anything below 0). Return 0, or -1 and say why. */
int gguf_int(const gguf *g, const char *key, int least, int most, int *value, engine_error *error);
int gguf_float(const gguf *g, const char *key, float *value, engine_error *error);
int gguf_bool(const gguf *g, const char *key, int *value, engine_error *error);

/* A key's string, of length 0 when there is none. */
int gguf_string(const gguf *g, const char *key, gguf_text *value, engine_error *error);

/* A key's array of `count` (or any number if that is GGUF_ANY) elements of one type. *data
   has them one after another; it is set to NULL bytes when there is no such key. */
int gguf_array(const gguf *g, const char *key, uint32_t element, int count, cursor *data,
               engine_error *error);

/* The next string of an array of them. */
gguf_text gguf_next(cursor *strings);

/* A tensor by name, marked as taken; NULL when there is none. And the first not taken. */
gguf_tensor *gguf_take_tensor(gguf *g, const char *name);
const gguf_tensor *gguf_left_tensor(const gguf *g);

int gguf_is(gguf_text text, const char *name);

/* A name out of a file as a sentence may show it: short, without control characters. SHOWN's lives
   to the end of the block it stands in. */
enum { GGUF_SHOWN = 72 };
char *gguf_show(char shown[GGUF_SHOWN], gguf_text text);
#define SHOWN(text) gguf_show((char[GGUF_SHOWN]){ 0 }, text)

#ifdef ENGINE_IMPLEMENTATION
#include <stdlib.h>
#include <string.h>

/* ==== names ==== */

int gguf_is(gguf_text text, const char *name)
{
  size_t n = strlen(name);
  return text.len == n && memcmp(text.at, name, n) == 0;
}

char *gguf_show(char shown[GGUF_SHOWN], gguf_text text)
{
  size_t room = GGUF_SHOWN - 4, n = text.len < room ? text.len : room;
  for (size_t i = 0; i < n; i++)
    shown[i] = (char)(text.at[i] < ' ' || text.at[i] > '~' ? '?' : text.at[i]);
  strcpy(shown + n, text.len > room ? "..." : "");
  return shown;
}

static int gguf_order(gguf_text a, gguf_text b)
{
  size_t n = a.len < b.len ? a.len : b.len;
  int order = memcmp(a.at, b.at, n);
  if (order) return order;
  return a.len < b.len ? -1 : a.len > b.len;
}

static void gguf_sift(gguf_text **names, size_t i, size_t n)
{
  for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
    if (child + 1 < n && gguf_order(*names[child], *names[child + 1]) < 0) child++;
    if (gguf_order(*names[i], *names[child]) >= 0) return;
    gguf_text *moved = names[i];
    names[i] = names[child];
    names[child] = moved;
    i = child;
  }
}

/* heapsort: n log n whatever names a file has */
static void gguf_sort(gguf_text **names, size_t n)
{
  for (size_t i = n / 2; i-- > 0;) gguf_sift(names, i, n);
  while (n > 1) {
    gguf_text *largest = names[0];
    names[0] = names[--n];
    names[n] = largest;
    gguf_sift(names, 0, n);
  }
}

static gguf_text *gguf_lookup(gguf_text *const *names, size_t n, const char *name)
{
  gguf_text wanted = { (const unsigned char *)name, strlen(name) };
  size_t least = 0;
  while (n > 0) {
    size_t middle = least + n / 2;
    int order = gguf_order(wanted, *names[middle]);
    if (order == 0) return names[middle];
    if (order > 0) least = middle + 1;
    n = order > 0 ? n - n / 2 - 1 : n / 2;
  }
  return NULL;
}

static int gguf_sort_names(gguf_text **names, size_t n, const char *what, engine_error *error)
{
  gguf_sort(names, n);
  for (size_t i = 1; i < n; i++)
    if (gguf_order(*names[i - 1], *names[i]) == 0)
      return engine_fail(error, "two %s are named %s", what, SHOWN(*names[i]));
  return 0;
}

/* ==== numbers and strings ==== */

static int take_u64(cursor *c, uint64_t *value)
{
  uint32_t low, high;
  if (c->left < 8 || take_u32(c, &low) || take_u32(c, &high)) return -1;
  *value = (uint64_t)high << 32 | low;
  return 0;
}

static int gguf_take_text(cursor *c, gguf_text *text)
{
  uint64_t n;
  cursor at = *c;
  if (take_u64(&at, &n) || take_bytes(&at, n, &text->at)) return -1;
  text->len = (size_t)n;
  *c = at;
  return 0;
}

gguf_text gguf_next(cursor *strings)
{
  gguf_text text = { (const unsigned char *)"", 0 };
  gguf_take_text(strings, &text);
  return text;
}

static int gguf_take_name(cursor *c, gguf_text *name, const char *what, size_t longest,
                          engine_error *error)
{
  cursor at = *c;
  uint64_t len;
  if (take_u64(&at, &len))
    return engine_fail(error, "the file ends before the name of a %s", what);
  if (len == 0) return engine_fail(error, "a %s has no name", what);
  if (len > longest)
    return engine_fail(error, "the name of a %s is %llu bytes long, at most %llu are read", what,
                       (unsigned long long)len, (unsigned long long)longest);
  if (gguf_take_text(c, name))
    return engine_fail(error, "the file ends inside the name of a %s", what);
  return 0;
}

/* ==== metadata ==== */

enum { GGUF_TYPES = 13 };

static const struct { const char *name; int bytes; } gguf_types[GGUF_TYPES] = {
  { "uint8", 1 },  { "int8", 1 }, { "uint16", 2 }, { "int16", 2 }, { "uint32", 4 },
  { "int32", 4 },  { "float32", 4 }, { "bool", 1 }, { "string", 0 }, { "array", 0 },
  { "uint64", 8 }, { "int64", 8 }, { "float64", 8 }
};

static int gguf_take_array_head(cursor *c, gguf_value *v, engine_error *error)
{
  const char *key = SHOWN(v->name);
  if (take_u32(c, &v->element) || take_u64(c, &v->count))
    return engine_fail(error, "the file ends inside the array %s", key);
  if (v->element == GGUF_ARRAY)
    return engine_fail(error, "the array %s is one of arrays, which are not read", key);
  if (v->element >= GGUF_TYPES)
    return engine_fail(error, "the array %s has elements of the unknown type %lu", key,
                       (unsigned long)v->element);
  uint64_t least = v->element == GGUF_STRING ? 8 : (uint64_t)gguf_types[v->element].bytes;
  if (v->count > c->left / least)
    return engine_fail(error, "the array %s promises %llu elements, more than the file has room "
                       "for", key, (unsigned long long)v->count);
  return 0;
}

static int gguf_take_data(cursor *c, gguf_value *v, engine_error *error)
{
  const unsigned char *skipped;
  gguf_text text;
  v->element = v->type;
  v->count = 1;
  if (v->type == GGUF_ARRAY && gguf_take_array_head(c, v, error)) return -1;
  v->data = *c;
  if (v->element != GGUF_STRING) {
    uint64_t bytes = v->count * (uint64_t)gguf_types[v->element].bytes;
    if (take_bytes(c, bytes, &skipped))
      return engine_fail(error, "the file ends inside the value of %s", SHOWN(v->name));
  }
  for (uint64_t i = 0; v->element == GGUF_STRING && i < v->count; i++)
    if (gguf_take_text(c, &text))
      return engine_fail(error, "the file ends inside string %llu of %s", (unsigned long long)i,
                         SHOWN(v->name));
  v->data.left -= c->left;
  return 0;
}

static int gguf_take_value(cursor *c, gguf_value *v, engine_error *error)
{
  if (gguf_take_name(c, &v->name, "key", GGUF_KEY, error)) return -1;
  if (take_u32(c, &v->type))
    return engine_fail(error, "the file ends before the type of %s", SHOWN(v->name));
  if (v->type >= GGUF_TYPES)
    return engine_fail(error, "the value of %s is of the unknown type %lu",
                       SHOWN(v->name), (unsigned long)v->type);
  return gguf_take_data(c, v, error);
}

const gguf_value *gguf_find(const gguf *g, const char *key)
{
  return (const gguf_value *)gguf_lookup(g->keys, g->n_values, key);
}

/* *v is the value, or NULL when the key is missing and need not be there */
static int gguf_typed(const gguf *g, const char *key, uint32_t type, int required,
                      const gguf_value **v, engine_error *error)
{
  *v = gguf_find(g, key);
  if (!*v && required) return engine_fail(error, "the file does not say %s", key);
  if (*v && (*v)->type != type)
    return engine_fail(error, "%s is of type %s, it must be %s", key, gguf_types[(*v)->type].name,
                       gguf_types[type].name);
  return 0;
}

int gguf_int(const gguf *g, const char *key, int least, int most, int *value, engine_error *error)
{
  const gguf_value *v;
  uint32_t number = 0;
  if (gguf_typed(g, key, GGUF_U32, *value == GGUF_REQUIRED, &v, error)) return -1;
  if (!v) return 0;
  cursor data = v->data;
  take_u32(&data, &number);
  if (number < (uint32_t)least || number > (uint32_t)most)
    return engine_fail(error, "%s is %lu, it must be %d to %d", key, (unsigned long)number, least,
                       most);
  *value = (int)number;
  return 0;
}

int gguf_float(const gguf *g, const char *key, float *value, engine_error *error)
{
  const gguf_value *v;
  if (gguf_typed(g, key, GGUF_F32, *value < 0.0f, &v, error)) return -1;
  if (!v) return 0;
  cursor data = v->data;
  take_f32(&data, value);
  if (!is_finite(*value)) return engine_fail(error, "%s is not finite", key);
  return 0;
}

int gguf_bool(const gguf *g, const char *key, int *value, engine_error *error)
{
  const gguf_value *v;
  if (gguf_typed(g, key, GGUF_BOOL, *value == GGUF_REQUIRED, &v, error)) return -1;
  if (!v) return 0;
  if (*v->data.at > 1)
    return engine_fail(error, "%s is %d, a bool is 0 or 1", key, (int)*v->data.at);
  *value = *v->data.at;
  return 0;
}

int gguf_string(const gguf *g, const char *key, gguf_text *value, engine_error *error)
{
  const gguf_value *v;
  value->at = (const unsigned char *)"";
  value->len = 0;
  if (gguf_typed(g, key, GGUF_STRING, 0, &v, error)) return -1;
  if (!v) return 0;
  cursor data = v->data;
  *value = gguf_next(&data);
  return 0;
}

int gguf_array(const gguf *g, const char *key, uint32_t element, int count, cursor *data,
               engine_error *error)
{
  const gguf_value *v;
  data->at = NULL;
  data->left = 0;
  if (gguf_typed(g, key, GGUF_ARRAY, 0, &v, error)) return -1;
  if (!v) return 0;
  if (v->element != element)
    return engine_fail(error, "the elements of %s are of type %s, they must be %s", key,
                       gguf_types[v->element].name, gguf_types[element].name);
  if (count != GGUF_ANY && v->count != (uint64_t)count)
    return engine_fail(error, "%s has %llu elements, it must have %d", key,
                       (unsigned long long)v->count, count);
  *data = v->data;
  return 0;
}

/* ==== tensors ==== */

static const char *gguf_tensor_type(uint32_t type)
{
  static const char *const names[] = {
    "F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K",
    "Q4_K", "Q5_K", "Q6_K", "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
    "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"
  };
  return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

static int gguf_take_dims(cursor *c, gguf_tensor *t, engine_error *error)
{
  const char *name = SHOWN(t->name);
  uint32_t n_dims;
  if (take_u32(c, &n_dims))
    return engine_fail(error, "the file ends before the shape of %s", name);
  if (n_dims < 1 || n_dims > GGUF_DIMS)
    return engine_fail(error, "tensor %s has %lu dimensions, it must be 1 to %d", name,
                       (unsigned long)n_dims, GGUF_DIMS);
  for (uint32_t i = 0; i < GGUF_DIMS; i++) {
    t->dims[i] = 1;
    if (i < n_dims && take_u64(c, &t->dims[i]))
      return engine_fail(error, "the file ends inside the shape of %s", name);
    if (t->dims[i] < 1 || t->dims[i] > FILE_LARGEST)
      return engine_fail(error, "dimension %lu of tensor %s is %llu, it must be 1 to %d",
                         (unsigned long)i, name, (unsigned long long)t->dims[i], FILE_LARGEST);
  }
  return 0;
}

static int gguf_size(gguf_tensor *t, uint32_t type, engine_error *error)
{
  const char *name = SHOWN(t->name);
  const matrix_format *f = matrix_format_of(type);
  uint64_t rows = 0;
  t->size = 0;
  if (!f)
    return engine_fail(error, "tensor %s is of type %s (%lu), which is not read", name,
                       gguf_tensor_type(type), (unsigned long)type);
  if (t->dims[0] % (uint64_t)f->cols)
    return engine_fail(error, "the rows of tensor %s are %llu long, no multiple of %s's blocks of "
                       "%d", name, (unsigned long long)t->dims[0], f->name, f->cols);
  t->type = f->type;
  if (add_product(&rows, t->dims[1], t->dims[2], t->dims[3]) ||
      add_product(&t->size, rows, t->dims[0] / (uint64_t)f->cols, (uint64_t)f->bytes))
    return engine_fail(error, "the dimensions of tensor %s multiply to more than 64 bits",
                       name);
  return 0;
}

static int gguf_take_tensor_head(cursor *c, gguf_tensor *t, engine_error *error)
{
  uint32_t type;
  if (gguf_take_name(c, &t->name, "tensor", GGUF_NAME, error) || gguf_take_dims(c, t, error))
    return -1;
  if (take_u32(c, &type) || take_u64(c, &t->offset))
    return engine_fail(error, "the file ends before the type and place of %s",
                       SHOWN(t->name));
  return gguf_size(t, type, error);
}

/* `bytes` filled up to a multiple of the alignment, a power of two; -1 if 64 bits do not hold it */
static int gguf_fill_up(uint64_t *bytes, uint64_t alignment)
{
  if (*bytes > UINT64_MAX - (alignment - 1)) return -1;
  *bytes = (*bytes + alignment - 1) & ~(alignment - 1);
  return 0;
}

/* Tensors lie one behind the other, each filled up to the alignment, and nothing else follows: so
   no header can make us ask for much more memory than its file has bytes. */
static int gguf_place(gguf *g, cursor *c, uint64_t alignment, engine_error *error)
{
  uint64_t end = 0;
  const unsigned char *data = c->at;
  for (size_t i = 0; i < g->n_tensors; i++) {
    gguf_tensor *t = &g->tensors[i];
    const char *name = SHOWN(t->name);
    uint64_t last = end;
    if (gguf_fill_up(&end, alignment))
      return engine_fail(error, "the tensors' sizes add up to more than 64 bits");
    if (t->offset != end)
      return engine_fail(error, "tensor %s lies at %llu, it must be %llu, where the last one ends "
                         "(%llu) and the alignment", name, (unsigned long long)t->offset,
                         (unsigned long long)end, (unsigned long long)last);
    if (add_product(&end, t->size, 1, 1))
      return engine_fail(error, "the tensors' sizes add up to more than 64 bits");
    if (end > c->left)
      return engine_fail(error, "the file is too short: tensor %s ends at byte %llu of its data, "
                         "%llu follow", name, (unsigned long long)end,
                         (unsigned long long)c->left);
    t->data = data + t->offset;
  }
  if (c->left - end >= alignment)
    return engine_fail(error, "the file is too long: its tensors end at byte %llu of its data, "
                       "%llu follow", (unsigned long long)end, (unsigned long long)c->left);
  return 0;
}

gguf_tensor *gguf_take_tensor(gguf *g, const char *name)
{
  gguf_tensor *t = (gguf_tensor *)gguf_lookup(g->names, g->n_tensors, name);
  if (t) t->taken = 1;
  return t;
}

const gguf_tensor *gguf_left_tensor(const gguf *g)
{
  for (size_t i = 0; i < g->n_tensors; i++)
    if (!g->tensors[i].taken) return &g->tensors[i];
  return NULL;
}

/* ==== the file ==== */

int gguf_begins(const unsigned char *bytes, size_t size)
{
  return size >= 4 && memcmp(bytes, "GGUF", 4) == 0;
}

static int gguf_version(cursor *c, engine_error *error)
{
  const unsigned char *magic;
  uint32_t version;
  if (take_bytes(c, 4, &magic) || !gguf_begins(magic, 4))
    return engine_fail(error, "this is no GGUF file (they begin with GGUF)");
  if (take_u32(c, &version)) return engine_fail(error, "the file ends before its version");
  if (version == 2 || version == 3) return 0;
  if (version == 0x02000000u || version == 0x03000000u)
    return engine_fail(error, "this GGUF file is big-endian; little-endian ones are read");
  return engine_fail(error, "this GGUF file is of version %lu; 2 and 3 are read",
                     (unsigned long)version);
}

/* an entry takes at least so many bytes: that bounds what a count can make us ask for */
static int gguf_count(cursor *c, const char *what, size_t least, size_t *count,
                      engine_error *error)
{
  uint64_t n;
  if (take_u64(c, &n)) return engine_fail(error, "the file ends before its number of %s", what);
  if (n > GGUF_MOST)
    return engine_fail(error, "the file promises %llu %s, at most %d are read",
                       (unsigned long long)n, what, GGUF_MOST);
  if (n > c->left / least)
    return engine_fail(error, "the file promises %llu %s, more than it has room for",
                       (unsigned long long)n, what);
  *count = (size_t)n;
  return 0;
}

static int gguf_allocate(gguf *g, engine_error *error)
{
  g->values = calloc(g->n_values + 1, sizeof *g->values);
  g->tensors = calloc(g->n_tensors + 1, sizeof *g->tensors);
  g->keys = calloc(g->n_values + 1, sizeof *g->keys);
  g->names = calloc(g->n_tensors + 1, sizeof *g->names);
  if (!g->values || !g->tensors || !g->keys || !g->names)
    return engine_fail(error, "no memory for the file's index");
  for (size_t i = 0; i < g->n_values; i++) g->keys[i] = &g->values[i].name;
  for (size_t i = 0; i < g->n_tensors; i++) g->names[i] = &g->tensors[i].name;
  return 0;
}

static int gguf_alignment(const gguf *g, int *alignment, engine_error *error)
{
  *alignment = 32;
  if (gguf_int(g, "general.alignment", 8, 65536, alignment, error)) return -1;
  if (*alignment & (*alignment - 1))
    return engine_fail(error, "general.alignment is %d, it must be a power of two", *alignment);
  return 0;
}

static int gguf_take_all(gguf *g, cursor *c, const unsigned char *bytes, engine_error *error)
{
  int alignment;
  const unsigned char *filling;
  for (size_t i = 0; i < g->n_values; i++)
    if (gguf_take_value(c, &g->values[i], error)) return -1;
  if (gguf_sort_names(g->keys, g->n_values, "keys", error)) return -1;
  if (gguf_alignment(g, &alignment, error)) return -1;
  for (size_t i = 0; i < g->n_tensors; i++)
    if (gguf_take_tensor_head(c, &g->tensors[i], error)) return -1;
  if (gguf_sort_names(g->names, g->n_tensors, "tensors", error)) return -1;
  uint64_t at = (uint64_t)(c->at - bytes), start = at;
  if (gguf_fill_up(&start, (uint64_t)alignment) || take_bytes(c, start - at, &filling)) {
    if (g->n_tensors == 0) return 0;
    return engine_fail(error, "the file is too short: it ends before its tensors' data");
  }
  return gguf_place(g, c, (uint64_t)alignment, error);
}

int gguf_open(gguf *g, const unsigned char *bytes, size_t size, engine_error *error)
{
  cursor c = { bytes, size };
  memset(g, 0, sizeof *g);
  if (gguf_version(&c, error) == 0 && gguf_count(&c, "tensors", 33, &g->n_tensors, error) == 0 &&
      gguf_count(&c, "keys", 14, &g->n_values, error) == 0 && gguf_allocate(g, error) == 0 &&
      gguf_take_all(g, &c, bytes, error) == 0)
    return 0;
  gguf_close(g);
  return -1;
}

void gguf_close(gguf *g)
{
  free(g->values);
  free(g->tensors);
  free(g->keys);
  free(g->names);
  memset(g, 0, sizeof *g);
}

#endif /* ENGINE_IMPLEMENTATION */
#endif /* EXAMPLES_GGUF_H */
