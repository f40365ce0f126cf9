// The kernels of attention over the primitives of kernels_impl.h, which includes this file.

// One pass of the online softmax (Milakov and Gimelshein 2018) over the keys of a block.
float softmax_block(float* scores, const ScoreRule& rule, float* top, float* sum) {
  const F scale = set1(rule.scale), none = set1(-__builtin_inff());
  I index;
  for (int i = 0; i < lanes; ++i) index[i] = i;
  const int first = rule.begin / lanes * lanes, last = (rule.end + lanes - 1) / lanes * lanes;
  F block_top = none;
  for (int j = first; j < last; j += lanes) {
    F s = load(scores + j) * scale;
    if (rule.softcap != 0) s = set1(rule.softcap) * tanh_(s / set1(rule.softcap));
    if (rule.slope != 0) {
      float positions[lanes];
      for (int i = 0; i < lanes; ++i) positions[i] = (float)(rule.first_key + j + i);
      s = s + set1(rule.slope) * load(positions);
    }
    const int64_t n = rule.end - j;
    if (rule.mask != nullptr) s = s + (n >= lanes ? load(rule.mask + j) : load_part(rule.mask + j, n, 0));
    if (j < rule.begin || n < lanes) {
      const I k = index + j;
      s = as_float(((k >= rule.begin) & (k < rule.end)) ? as_int(s) : as_int(none));
    }
    store(scores + j, s);
    block_top = max2(s, block_top);
  }
  const float before = *top, here = reduce_max(block_top), after = here > before ? here : before;
  const bool nothing = here == -__builtin_inff();
  for (int j = 0; j < key_block; j += lanes) {
    if (nothing || j < first || j >= last) store(scores + j, zero());
  }
  if (nothing) return 1;
  F total = zero();
  for (int j = first; j < last; j += lanes) {
    const F e = exp_(load(scores + j) - set1(after));
    store(scores + j, e);
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

// `Rows` rows times `Loads` times 2 * lanes columns. Sums stand in the order that split_pairs() gives: those
// of even columns apart from those of odd ones.
template <int Rows, int Loads>
inline void add_values_tile(const float* weights, const uint16_t* const* halves, int64_t ldv, int begin,
                            int end, const float* shrink, float* c, int64_t ldc) {
  F acc[Rows][2 * Loads];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int l = 0; l < Loads; ++l) {
      const float* p = c + r * ldc + l * 2 * lanes;
      part_pairs(load(p), load(p + lanes), acc[r][2 * l], acc[r][2 * l + 1]);
      acc[r][2 * l] = acc[r][2 * l] * set1(shrink[r]);
      acc[r][2 * l + 1] = acc[r][2 * l + 1] * set1(shrink[r]);
    }
  }
  for (int half = begin / panel_width; half * panel_width < end; ++half) {
    const int first = half * panel_width, last = first + panel_width < end ? first + panel_width : end;
    int i = begin > first ? begin : first;
    for (const uint16_t* v = halves[half] + (i - first) * ldv; i < last; ++i, v += ldv) {
      F b[2 * Loads];
#pragma GCC unroll 2
      for (int l = 0; l < Loads; ++l)
        split_pairs((const uint8_t*)(v + l * 2 * lanes), b[2 * l], b[2 * l + 1]);
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
    for (int l = 0; l < Loads; ++l) {
      F low, high;
      join_pairs(acc[r][2 * l], acc[r][2 * l + 1], low, high);
      store(c + r * ldc + l * 2 * lanes, low);
      store(c + r * ldc + l * 2 * lanes + lanes, high);
    }
  }
}

template <int Rows>
void add_values_rows(const float* weights, const uint16_t* const* halves, int64_t ldv, int begin, int end,
                     const float* shrink, int64_t columns, float* c, int64_t ldc) {
  constexpr int loads = Rows * 4 <= most_rows * gemm_vectors ? 2 : 1;
  int64_t column = 0;
  const auto step = [&](auto tile, int width) {
    for (; column + width <= columns; column += width) {
      const uint16_t* from[2] = {halves[0] + column, halves[1] + column};
      tile(weights, from, ldv, begin, end, shrink, c + column, ldc);
    }
  };
  step(add_values_tile<Rows, loads>, loads * 2 * lanes);
  if constexpr (loads > 1) step(add_values_tile<Rows, 1>, 2 * lanes);
}

template <int Rows>
inline void add_values_dispatch(int rows, const float* weights, const uint16_t* const* halves, int64_t ldv,
                                int begin, int end, const float* shrink, int64_t columns, float* c,
                                int64_t ldc) {
  if (rows == Rows) return add_values_rows<Rows>(weights, halves, ldv, begin, end, shrink, columns, c, ldc);
  if constexpr (Rows > 1)
    add_values_dispatch<Rows - 1>(rows, weights, halves, ldv, begin, end, shrink, columns, c, ldc);
}
void add_values(int rows, const float* weights, const uint16_t* const* halves, int64_t ldv, int begin,
                int end, const float* shrink, int64_t columns, float* c, int64_t ldc) {
  add_values_dispatch<most_rows>(rows, weights, halves, ldv, begin, end, shrink, columns, c, ldc);
}
