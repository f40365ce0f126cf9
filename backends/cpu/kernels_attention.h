// The kernels of attention over the primitives of kernels_impl.h, which includes this file.

// One pass of the online softmax (Milakov and Gimelshein 2018) over the keys of a block.
float softmax_block(float* scores, const ScoreRule& rule, float* top, float* sum) {
  constexpr int vectors = key_block / lanes;
  const F none = set1(-__builtin_inff());
  F s[vectors];
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) s[v] = load(scores + v * lanes) * set1(rule.scale);
  if (rule.softcap != 0) {
    for (F& x : s) x = set1(rule.softcap) * tanh_(x / set1(rule.softcap));
  }
  I index;
  for (int i = 0; i < lanes; ++i) index[i] = i;
  if (rule.slope != 0) {
    for (int v = 0; v < vectors; ++v) {
      float positions[lanes];
      for (int i = 0; i < lanes; ++i) positions[i] = (float)(rule.first_key + v * lanes + i);
      s[v] = s[v] + set1(rule.slope) * load(positions);
    }
  }
  if (rule.mask != nullptr) {
    for (int v = 0; v * lanes < rule.end; ++v) {
      const float* mask = rule.mask + v * lanes;
      const int64_t n = rule.end - v * lanes;
      s[v] = s[v] + (n >= lanes ? load(mask) : load_part(mask, n, 0));
    }
  }
  if (rule.begin > 0 || rule.end < key_block) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      const I k = index + v * lanes;
      s[v] = as_float(((k >= rule.begin) & (k < rule.end)) ? as_int(s[v]) : as_int(none));
    }
  }
  F block_top = none;
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) block_top = max2(s[v], block_top);
  const float before = *top, here = reduce_max(block_top), after = here > before ? here : before;
  if (here == -__builtin_inff()) {
    for (int v = 0; v < vectors; ++v) store(scores + v * lanes, zero());
    return 1;
  }
  F total = zero();
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    const F e = exp_(s[v] - set1(after));
    store(scores + v * lanes, e);
    total = total + e;
  }
  *top = after;
  if (after == before || before == -__builtin_inff()) {
    *sum += reduce_add(total);
    return 1;
  }
  const float shrink = exp_(set1(before - after))[0];
  *sum = *sum * shrink + reduce_add(total);
  return shrink;
}

// Where values come from: a row of 2 * lanes columns as two vectors, and sums in the order of such vectors.
struct Bf16Values {  // even columns apart from odd ones
  const uint16_t* const* halves;
  int64_t ld;
  void read(int half, int inside, int64_t column, F& a, F& b) const {
    split_pairs((const uint8_t*)(halves[half] + inside * ld + column), a, b);
  }
  static void load_sums(const float* p, F& a, F& b) { part_pairs(load(p), load(p + lanes), a, b); }
  static void store_sums(float* p, F a, F b) {
    F low, high;
    join_pairs(a, b, low, high);
    store(p, low);
    store(p + lanes, high);
  }
};
struct BlockValues {
  const uint8_t* const* halves;
  int64_t blocks;  // of a row
  const float* scales;
  void read(int half, int inside, int64_t column, F& a, F& b) const {
    const uint8_t* row = halves[half] + inside * blocks * 17;
    const int8_t* p = (const int8_t*)row + blocks + column;
    a = load_i8(p) * set1(scales[row[column / 16]]);
    b = load_i8(p + lanes) * set1(scales[row[(column + lanes) / 16]]);
  }
  static void load_sums(const float* p, F& a, F& b) {
    a = load(p);
    b = load(p + lanes);
  }
  static void store_sums(float* p, F a, F b) {
    store(p, a);
    store(p + lanes, b);
  }
};

template <int Rows, int Loads, class Values>
inline void add_values_tile(const float* weights, const Values& values, int64_t column, int begin, int end,
                            const Fetch& fetch, const float* shrink, float* c, int64_t ldc) {
  F acc[Rows][2 * Loads];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int l = 0; l < Loads; ++l) {
      Values::load_sums(c + r * ldc + column + l * 2 * lanes, acc[r][2 * l], acc[r][2 * l + 1]);
      acc[r][2 * l] = acc[r][2 * l] * set1(shrink[r]);
      acc[r][2 * l + 1] = acc[r][2 * l + 1] * set1(shrink[r]);
    }
  }
  for (int half = begin / panel_width; half * panel_width < end; ++half) {
    const int first = half * panel_width, last = first + panel_width < end ? first + panel_width : end;
    for (int i = begin > first ? begin : first; i < last; ++i) {
      if (column == 0 && i - begin < fetch.lines)
        __builtin_prefetch((const uint8_t*)fetch.from + (i - begin) * 64, 0, 2);
      F b[2 * Loads];
#pragma GCC unroll 2
      for (int l = 0; l < Loads; ++l)
        values.read(half, i - first, column + l * 2 * lanes, b[2 * l], b[2 * l + 1]);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const F a = set1(weights[r * key_block + i]);
#pragma GCC unroll 4
        for (int l = 0; l < 2 * Loads; ++l) acc[r][l] = fma(a, b[l], acc[r][l]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int l = 0; l < Loads; ++l)
      Values::store_sums(c + r * ldc + column + l * 2 * lanes, acc[r][2 * l], acc[r][2 * l + 1]);
  }
}

template <int Rows, class Values>
inline void add_values_rows(int rows, const float* weights, const Values& values, int begin, int end,
                            const Fetch& fetch, const float* shrink, int64_t columns, float* c, int64_t ldc) {
  if (rows == Rows) {
    constexpr int loads = Rows * 4 <= most_rows * gemm_vectors ? 2 : 1;
    int64_t column = 0;
    for (; column + loads * 2 * lanes <= columns; column += loads * 2 * lanes)
      add_values_tile<Rows, loads>(weights, values, column, begin, end, fetch, shrink, c, ldc);
    for (; column < columns; column += 2 * lanes)
      add_values_tile<Rows, 1>(weights, values, column, begin, end, fetch, shrink, c, ldc);
    return;
  }
  if constexpr (Rows > 1)
    add_values_rows<Rows - 1>(rows, weights, values, begin, end, fetch, shrink, columns, c, ldc);
}
void add_values(int rows, const float* weights, const uint16_t* const* halves, int64_t ldv, int begin,
                int end, const Fetch& fetch, const float* shrink, int64_t columns, float* c, int64_t ldc) {
  add_values_rows<most_rows>(rows, weights, Bf16Values{halves, ldv}, begin, end, fetch, shrink, columns, c,
                             ldc);
}
void add_block_values(int rows, const float* weights, const uint8_t* const* halves, int64_t blocks,
                      int mantissa_bits, int begin, int end, const Fetch& fetch, const float* shrink,
                      int64_t columns, float* c, int64_t ldc) {
  const BlockValues values{halves, blocks, (mantissa_bits == 7 ? bfp8_scales : bfp4_scales).of};
  add_values_rows<most_rows>(rows, weights, values, begin, end, fetch, shrink, columns, c, ldc);
}

bool finite_blocks(const uint8_t* rows, int64_t count, int64_t blocks) {
  typedef uint8_t B __attribute__((vector_size(16)));
  for (int64_t b = 0; b < blocks; b += 16) {  // what follows the exponents is read and does not count
    B top = {};
    for (int64_t r = 0; r < count; ++r) {
      B e;
      __builtin_memcpy(&e, rows + r * blocks * 17 + b, sizeof e);
      top = e > top ? e : top;
    }
    for (int64_t i = b; i < blocks && i < b + 16; ++i) {
      if (top[i - b] == 255) return false;
    }
  }
  return true;
}
