// Kernels over a few primitives that each kernels_<isa>.cpp defines in its intrinsics before it includes this
// file:
//   F, I, U            vectors of `lanes` floats, int32, uint32 (compiler vectors: operators work on them)
//   set1, load, store, fma, load_bf16, store_bf16, store_upper, load_i8, exponents, bfp8_lane, bfp4_lane,
//   transpose_block part_pairs, join_pairs: two vectors of neighbours to even and odd ones, and back
// Everything here has internal linkage. Not a header of its own: no include guard's worth of reuse.

inline I as_int(F x) { return (I)x; }
inline F as_float(I x) { return (F)x; }
inline F as_float(U x) { return (F)x; }
inline F zero() { return F{}; }
inline F max2(F a, F b) { return a > b ? a : b; }
inline F min2(F a, F b) { return a < b ? a : b; }
inline F to_float(I x) { return __builtin_convertvector(x, F); }
inline F abs2(F x) { return as_float(as_int(x) & 0x7FFFFFFF); }

inline F load_part(const float* p, int64_t n, float fill) {
  float t[lanes];
  for (int i = 0; i < lanes; ++i) t[i] = i < n ? p[i] : fill;
  return load(t);
}
inline void store_part(float* p, F v, int64_t n) {
  float t[lanes];
  store(t, v);
  for (int i = 0; i < n; ++i) p[i] = t[i];
}

// The pairwise tree makes the order of a sum a property of the vector, not of the loop.
template <class Op>
inline float reduce(F v, Op op) {
  Four t = fold(v, op);
  t = op(t, __builtin_shufflevector(t, t, 2, 3, 0, 1));
  t = op(t, __builtin_shufflevector(t, t, 1, 0, 3, 2));
  return t[0];
}
inline float reduce_add(F v) {
  return reduce(v, [](auto a, auto b) { return a + b; });
}
inline float reduce_max(F v) {
  return reduce(v, [](auto a, auto b) { return a > b ? a : b; });
}

// --- functions ---

// e^x within 1.2 units in the last place: x = n ln 2 + r, then a polynomial of degree 6 (minimax on |r| <= ln
// 2 / 2).
inline F exp_(F x) {
  const F magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F lo = set1(-110.0f), hi = set1(90.0f);
  const F c = min2(hi, max2(lo, x));  // NaN passes
  const F shifted = fma(c, set1(1.44269504f), magic);
  const F n = shifted - magic;
  F r = fma(n, set1(-0.693359375f), c);
  r = fma(n, set1(2.12194440e-4f), r);
  F p = set1(0.001393388258293271f);
  p = fma(p, r, set1(0.008363335393369198f));
  p = fma(p, r, set1(0.041666463017463684f));
  p = fma(p, r, set1(0.16666576266288757f));
  p = fma(p, r, set1(0.5f));
  const F y = fma(r * r, p, r) + set1(1.0f);
  return scale_by_power(y, n);
}

inline F sigmoid_(F x) { return set1(1.0f) / (set1(1.0f) + exp_(-x)); }

inline F tanh_(F x) {
  const F a = abs2(x);
  const F t = x * x;
  F p = set1(-0.005094828084111214f);
  p = fma(p, t, set1(0.020032446831464767f));
  p = fma(p, t, set1(-0.05352945625782013f));
  p = fma(p, t, set1(0.1332847625017166f));
  p = fma(p, t, set1(-0.3333313465118408f));
  const F small = fma(x * t, p, x);
  const F big = set1(1.0f) - set1(2.0f) / (exp_(a + a) + set1(1.0f));
  const F signed_big = as_float(as_int(big) | (as_int(x) & (int)0x80000000));
  return a < set1(0.7f) ? small : signed_big;
}

// Absolute error below 1.5e-7.
inline F erf_(F x) {
  const F t = x * x;
  F p = set1(-9.673590284364764e-06f);
  p = fma(p, t, set1(0.00011268253729213029f));
  p = fma(p, t, set1(-0.0008484396385028958f));
  p = fma(p, t, set1(0.005221053492277861f));
  p = fma(p, t, set1(-0.026865437626838684f));
  p = fma(p, t, set1(0.11283782869577408f));
  p = fma(p, t, set1(-0.37612637877464294f));
  p = fma(p, t, set1(1.128379225730896f));
  const F small = x * p;
  const F a = min2(abs2(x), set1(4.0f));
  F q = set1(-9.19429908208258e-07f);
  q = fma(q, a, set1(3.216489858459681e-05f));
  q = fma(q, a, set1(-0.0004826005606446415f));
  q = fma(q, a, set1(0.004240228794515133f));
  q = fma(q, a, set1(-0.024995649233460426f));
  q = fma(q, a, set1(0.10766799747943878f));
  q = fma(q, a, set1(0.6342782974243164f));
  q = fma(q, a, set1(1.1288658380508423f));
  const F big = set1(1.0f) - exp_(-(a * q));
  const F signed_big = as_float(as_int(big) | (as_int(x) & (int)0x80000000));
  const F y = abs2(x) < set1(1.0f) ? small : signed_big;
  return x != x ? x : y;
}

struct Parameters {
  float a, b;
};

template <class Op>
inline void map(const float* x, float* y, int64_t n, Op op) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, op(load(x + i)));
  if (i < n) store_part(y + i, op(load_part(x + i, n - i, 0)), n - i);
}
// One value at a time, for functions that no hot loop has.
template <class Op>
inline void map_scalar(const float* x, float* y, int64_t n, Op op) {
  for (int64_t i = 0; i < n; ++i) y[i] = op(x[i]);
}

void unary(Fn fn, float a, float b, const float* x, float* y, int64_t n) {
  switch (fn) {
    case Fn::identity:
      return map(x, y, n, [](F v) { return v; });
    case Fn::silu:
      return map(x, y, n, [](F v) { return v / (set1(1.0f) + exp_(-v)); });
    case Fn::gelu:
      return map(x, y, n,
                 [](F v) { return set1(0.5f) * v * (set1(1.0f) + erf_(v * set1(0.70710678118654752f))); });
    case Fn::gelu_tanh:
      return map(x, y, n, [](F v) {
        const F inner = set1(0.7978845608028654f) * (v + set1(0.044715f) * v * v * v);
        return set1(0.5f) * v * (set1(1.0f) + tanh_(inner));
      });
    case Fn::relu:
      return map(x, y, n, [](F v) { return v < zero() ? zero() : v; });
    case Fn::relu2:
      return map(x, y, n, [](F v) {
        const F r = v < zero() ? zero() : v;
        return r * r;
      });
    case Fn::tanh:
      return map(x, y, n, [](F v) { return tanh_(v); });
    case Fn::sigmoid:
      return map(x, y, n, [](F v) { return sigmoid_(v); });
    case Fn::quick_gelu:
      return map(x, y, n, [](F v) { return v * sigmoid_(set1(1.702f) * v); });
    case Fn::softplus:
      return map_scalar(x, y, n, [](float v) { return v > 20.0f ? v : __builtin_log1pf(__builtin_expf(v)); });
    case Fn::exp:
      return map(x, y, n, [](F v) { return exp_(v); });
    case Fn::log:
      return map_scalar(x, y, n, [](float v) { return __builtin_logf(v); });
    case Fn::sqrt:
      return map_scalar(x, y, n, [](float v) { return __builtin_sqrtf(v); });
    case Fn::rsqrt:
      return map_scalar(x, y, n, [](float v) { return 1.0f / __builtin_sqrtf(v); });
    case Fn::neg:
      return map(x, y, n, [](F v) { return -v; });
    case Fn::abs:
      return map(x, y, n, [](F v) { return abs2(v); });
    case Fn::square:
      return map(x, y, n, [](F v) { return v * v; });
    case Fn::reciprocal:
      return map(x, y, n, [](F v) { return set1(1.0f) / v; });
    case Fn::sin:
      return map_scalar(x, y, n, [](float v) { return __builtin_sinf(v); });
    case Fn::cos:
      return map_scalar(x, y, n, [](float v) { return __builtin_cosf(v); });
    case Fn::elu:
      return map_scalar(x, y, n, [](float v) { return v > 0 ? v : __builtin_expm1f(v); });
    case Fn::hardswish:
      return map(x, y, n,
                 [](F v) { return v * min2(max2(v + set1(3.0f), zero()), set1(6.0f)) / set1(6.0f); });
    case Fn::xielu:
      return map_scalar(x, y, n, [a, b](float v) {
        const float low = v < -1e-6f ? v : -1e-6f;
        return v > 0 ? a * v * v + 0.5f * v : (__builtin_expm1f(low) - v) * b + 0.5f * v;
      });
    case Fn::clamp: {
      const F low = set1(a), high = set1(b);
      return map(x, y, n, [low, high](F v) {
        const F t = v < low ? low : v;
        return t > high ? high : t;
      });
    }
    case Fn::add_scalar: {
      const F s = set1(a);
      return map(x, y, n, [s](F v) { return v + s; });
    }
    case Fn::mul_scalar: {
      const F s = set1(a);
      return map(x, y, n, [s](F v) { return v * s; });
    }
    case Fn::pow_scalar:
      return map_scalar(x, y, n, [a](float v) { return __builtin_powf(v, a); });
    case Fn::floor:
      return map_scalar(x, y, n, [](float v) { return __builtin_floorf(v); });
    case Fn::sign:
      return map(x, y, n, [](F v) {
        const F s = v > zero() ? set1(1.0f) : (v < zero() ? set1(-1.0f) : v);
        return s;
      });
    case Fn::log1p:
      return map_scalar(x, y, n, [](float v) { return __builtin_log1pf(v); });
    case Fn::expm1:
      return map_scalar(x, y, n, [](float v) { return __builtin_expm1f(v); });
  }
}

// `Get` yields the second operand's vector or scalar at an index.
template <class Op>
inline void zip(const float* a, const float* b, float* y, int64_t n, Op op) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, op(load(a + i), load(b + i)));
  if (i < n) store_part(y + i, op(load_part(a + i, n - i, 1), load_part(b + i, n - i, 1)), n - i);
}

template <class Zip>
inline void binary_with(Fn2 fn, Zip zip_with) {
  const F one = set1(1.0f), none = zero();
  switch (fn) {
    case Fn2::add:
      return zip_with([](F a, F b) { return a + b; });
    case Fn2::subtract:
      return zip_with([](F a, F b) { return a - b; });
    case Fn2::multiply:
      return zip_with([](F a, F b) { return a * b; });
    case Fn2::divide:
      return zip_with([](F a, F b) { return a / b; });
    // NaN wins, as in PyTorch.
    case Fn2::maximum:
      return zip_with([](F a, F b) { return a != a ? a : (a > b ? a : b); });
    case Fn2::minimum:
      return zip_with([](F a, F b) { return a != a ? a : (a < b ? a : b); });
    case Fn2::eq:
      return zip_with([one, none](F a, F b) { return a == b ? one : none; });
    case Fn2::lt:
      return zip_with([one, none](F a, F b) { return a < b ? one : none; });
    case Fn2::gt:
      return zip_with([one, none](F a, F b) { return a > b ? one : none; });
    case Fn2::le:
      return zip_with([one, none](F a, F b) { return a <= b ? one : none; });
    case Fn2::ge:
      return zip_with([one, none](F a, F b) { return a >= b ? one : none; });
  }
}
void binary(Fn2 fn, const float* a, const float* b, float* y, int64_t n) {
  binary_with(fn, [=](auto op) { zip(a, b, y, n, op); });
}
void binary_scalar(Fn2 fn, const float* a, float b, float* y, int64_t n) {
  const F s = set1(b);
  binary_with(fn, [=](auto op) { map(a, y, n, [=](F v) { return op(v, s); }); });
}

void bf16_to_f32(const uint16_t* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, load_bf16(x + i));
  if (i < n) {
    uint16_t t[lanes] = {};
    __builtin_memcpy(t, x + i, (size_t)(n - i) * 2);
    store_part(y + i, load_bf16(t), n - i);
  }
}

void f32_to_bf16(const float* x, uint16_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_bf16(y + i, load(x + i));
  if (i < n) {
    uint16_t t[lanes];
    store_bf16(t, load_part(x + i, n - i, 0));
    __builtin_memcpy(y + i, t, (size_t)(n - i) * 2);
  }
}

void f32_to_bf16_rows(const float* x, int64_t ldx, uint16_t* y, int64_t ldy, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r) f32_to_bf16(x + r * ldx, y + r * ldy, n);
}

// [exponent]: 2^(exponent - 127 - (bits - 1)), exact: it may be a denormal. Exponent 0 holds zeros only. Of
// bfp4_b (bits 3) and bfp8_b (bits 7).
struct BlockScales {
  float of[256];
};
constexpr BlockScales block_scales(int mantissa_bits) {
  BlockScales scales{};
  for (int e = 1; e < 256; ++e) {
    const int power = e - (mantissa_bits - 1);  // biased
    scales.of[e] = __builtin_bit_cast(float, power > 0 ? (uint32_t)power << 23 : 1u << (22 + power));
  }
  return scales;
}
constexpr BlockScales bfp4_scales = block_scales(3), bfp8_scales = block_scales(7);

// With exponent 255 a value whose leading magnitude bit is set is an Inf or NaN again.
inline void restore_infinities(const int8_t* values, int64_t n, int mantissa_bits, float* y) {
  const int leading = 1 << (mantissa_bits - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int magnitude = values[i] < 0 ? -values[i] : values[i];
    if ((magnitude & leading) == 0) continue;
    const uint32_t bits = (values[i] < 0 ? 0x80000000u : 0u) | 0x7F800000u |
                          (uint32_t)(magnitude & (leading - 1)) << (24 - mantissa_bits);
    __builtin_memcpy(y + i, &bits, 4);
  }
}

inline void put(float* p, F v) { store(p, v); }
inline void put(uint16_t* p, F v) { store_upper(p, v); }
inline void put_one(float* p, float v) { *p = v; }
inline void put_one(uint16_t* p, float v) { *p = (uint16_t)(__builtin_bit_cast(uint32_t, v) >> 16); }
template <class T>
void block_rows_to(const uint8_t* row, int64_t rows, int64_t n, int mantissa_bits, T* y, int64_t ldy) {
  const int64_t blocks = (n + 15) / 16;
  const float* scales = (mantissa_bits == 7 ? bfp8_scales : bfp4_scales).of;
  for (int64_t r = 0; r < rows; ++r, row += blocks * 17, y += ldy) {
    const int8_t* values = (const int8_t*)(row + blocks);
    for (int64_t b = 0; b < blocks; ++b) {
      const F scale = set1(scales[row[b]]);
      const int64_t at = b * 16, count = n - at < 16 ? n - at : 16;
      if (count == 16 && row[b] != 255) {
#pragma GCC unroll 4
        for (int i = 0; i < 16; i += lanes) put(y + at + i, load_i8(values + at + i) * scale);
        continue;
      }
      float t[16];
      for (int i = 0; i < 16; i += lanes) store(t + i, load_i8(values + at + i) * scale);
      if (row[b] == 255) restore_infinities(values + at, count, mantissa_bits, t);
      for (int64_t i = 0; i < count; ++i) put_one(y + at + i, t[i]);
    }
  }
}
void block_rows_to_f32(const uint8_t* row, int64_t rows, int64_t n, int mantissa_bits, float* y,
                       int64_t ldy) {
  block_rows_to(row, rows, n, mantissa_bits, y, ldy);
}
void block_rows_to_bf16(const uint8_t* row, int64_t rows, int64_t n, int mantissa_bits, uint16_t* y,
                        int64_t ldy) {
  block_rows_to(row, rows, n, mantissa_bits, y, ldy);
}

// --- reductions over a row ---

float sum(const float* x, int64_t n) {
  F s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = s0 + load(x + i);
    s1 = s1 + load(x + i + lanes);
    s2 = s2 + load(x + i + 2 * lanes);
    s3 = s3 + load(x + i + 3 * lanes);
  }
  for (; i + lanes <= n; i += lanes) s0 = s0 + load(x + i);
  if (i < n) s1 = s1 + load_part(x + i, n - i, 0);
  return reduce_add((s0 + s1) + (s2 + s3));
}

float sum_squares(const float* x, float mean, int64_t n) {
  const F m = set1(mean);
  F s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const F a = load(x + i) - m, b = load(x + i + lanes) - m, c = load(x + i + 2 * lanes) - m,
            d = load(x + i + 3 * lanes) - m;
    s0 = fma(a, a, s0);
    s1 = fma(b, b, s1);
    s2 = fma(c, c, s2);
    s3 = fma(d, d, s3);
  }
  for (; i + lanes <= n; i += lanes) {
    const F a = load(x + i) - m;
    s0 = fma(a, a, s0);
  }
  if (i < n) {
    const F a = load_part(x + i, n - i, mean) - m;
    s1 = fma(a, a, s1);
  }
  return reduce_add((s0 + s1) + (s2 + s3));
}

float max(const float* x, int64_t n) {
  F m = set1(-__builtin_inff());
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) m = max2(load(x + i), m);
  if (i < n) m = max2(load_part(x + i, n - i, -__builtin_inff()), m);
  return reduce_max(m);
}

int64_t argmax(const float* x, int64_t n) {
  const float top = max(x, n);
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == top) return i;
  }
  return 0;
}

void normalize(const float* x, float mean, float scale, const float* weight, float plus_one,
               const float* bias, float* y, int64_t n) {
  const F m = set1(mean), s = set1(scale), one = set1(plus_one);
  const auto step = [&](F v, F w, F b) {
    F r = (v - m) * s;
    if (weight != nullptr) r = r * (w + one);
    return bias != nullptr ? r + b : r;
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    store(y + i, step(load(x + i), weight != nullptr ? load(weight + i) : zero(),
                      bias != nullptr ? load(bias + i) : zero()));
  }
  if (i < n) {
    store_part(y + i,
               step(load_part(x + i, n - i, 0), weight != nullptr ? load_part(weight + i, n - i, 0) : zero(),
                    bias != nullptr ? load_part(bias + i, n - i, 0) : zero()),
               n - i);
  }
}

float exp_sum(const float* x, float top, float* y, int64_t n) {
  const F m = set1(top);
  F s = zero();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const F e = exp_(load(x + i) - m);
    store(y + i, e);
    s = s + e;
  }
  if (i < n) {
    const F e = exp_(load_part(x + i, n - i, -__builtin_inff()) - m);
    store_part(y + i, e, n - i);
    float t[lanes];
    store(t, e);
    for (int j = (int)(n - i); j < lanes; ++j) t[j] = 0;
    s = s + load(t);
  }
  return reduce_add(s);
}

void rope_half(const float* x, const float* cos, const float* sin, float* y, int64_t half) {
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    const F a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i);
    store(y + i, a * c - b * s);
    store(y + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    y[i] = a * cos[i] - b * sin[i];
    y[half + i] = b * cos[i] + a * sin[i];
  }
}

void rope_half_bf16(const uint16_t* x, const float* cos, const float* sin, uint16_t* y, int64_t half) {
  for (int64_t i = 0; i < half; i += lanes) {
    const F a = load_bf16(x + i), b = load_bf16(x + half + i), c = load(cos + i), s = load(sin + i);
    store_bf16(y + i, a * c - b * s);
    store_bf16(y + half + i, b * c + a * s);
  }
}

void rope_interleaved(const float* x, const float* cos, const float* sin, float* y, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cos[i] - b * sin[i];
    y[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void transpose(const float* x, int64_t ldx, float* y, int64_t ldy, int64_t rows, int64_t cols) {
  int64_t r = 0;
  for (; r + transpose_size <= rows; r += transpose_size) {
    int64_t c = 0;
    for (; c + transpose_size <= cols; c += transpose_size)
      transpose_block(x + r * ldx + c, ldx, y + c * ldy + r, ldy);
    for (; c < cols; ++c) {
      for (int i = 0; i < transpose_size; ++i) y[c * ldy + r + i] = x[(r + i) * ldx + c];
    }
  }
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) y[c * ldy + r] = x[r * ldx + c];
  }
}

// Whole blocks are read and written in ascending order of columns: what stands for rows that are not there
// lands where the next column goes. The last block takes a detour, so that nothing is written behind y.
void interleave(const float* x, int64_t ldx, float* y, int64_t rows, int64_t cols) {
  int64_t c = 0;
  if (rows <= transpose_size) {
    for (; c + 2 * transpose_size <= cols; c += transpose_size)
      transpose_block(x + c, ldx, y + c * rows, rows);
    if (c + transpose_size <= cols) {
      float t[transpose_size * transpose_size];
      transpose_block(x + c, ldx, t, transpose_size);
      for (int i = 0; i < transpose_size; ++i, ++c) {
        for (int64_t r = 0; r < rows; ++r) y[c * rows + r] = t[i * transpose_size + r];
      }
    }
  }
  for (; c < cols; ++c) {
    for (int64_t r = 0; r < rows; ++r) y[c * rows + r] = x[r * ldx + c];
  }
}

// --- matrix products ---

constexpr int panel_vectors = panel_width / lanes;

// `Rows` rows times `Vectors` vectors of outputs in registers.
template <int Rows, int Vectors>
inline void gemm_tile(const float* x, int64_t ldx, const float* w, int64_t ldw, int64_t k, float* c,
                      int64_t ldc, bool accumulate) {
  F acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) acc[r][v] = accumulate ? load(c + r * ldc + v * lanes) : zero();
  }
  for (int64_t i = 0; i < k; ++i) {
    F b[Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) b[v] = load(w + i * ldw + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const F a = set1(x[i * ldx + r]);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) acc[r][v] = fma(a, b[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) store(c + r * ldc + v * lanes, acc[r][v]);
  }
}

template <int Rows>
void gemm_rows_of(const float* x, const float* w, int64_t ldw, int64_t k, float* c, int64_t ldc,
                  bool accumulate) {
  for (int v = 0; v < panel_vectors; v += gemm_vectors) {
    gemm_tile<Rows, gemm_vectors>(x, Rows, w + v * lanes, ldw, k, c + v * lanes, ldc, accumulate);
  }
}

template <int Rows>
inline void gemm_dispatch(int rows, const float* x, const float* w, int64_t ldw, int64_t k, float* c,
                          int64_t ldc, bool accumulate) {
  if (rows == Rows) return gemm_rows_of<Rows>(x, w, ldw, k, c, ldc, accumulate);
  if constexpr (Rows > 1) gemm_dispatch<Rows - 1>(rows, x, w, ldw, k, c, ldc, accumulate);
}
void gemm(int rows, const float* x, const float* w, int64_t ldw, int64_t k, float* c, int64_t ldc,
          bool accumulate) {
  gemm_dispatch<most_rows>(rows, x, w, ldw, k, c, ldc, accumulate);
}

// Two vectors of consecutive inputs of `lanes` outputs from pairs of bf16.
inline void split_pairs(const uint8_t* p, F& even, F& odd) {
  U raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  even = as_float(raw << 16);
  odd = as_float(raw & 0xFFFF0000u);
}

// What a tile of each format says about one vector of outputs, as F times a scale per (half, input):
//   group        consecutive inputs that one load yields
//   unit         the scale's constant factor
struct Bf16Tile {
  static constexpr int group = 2;
  static constexpr bool scaled = false;
  static constexpr float unit = 1;
  static void decode(const uint8_t* tile, int g, int v, F* out) {
    split_pairs(tile + (size_t)g * 128 + (size_t)v * lanes * 4, out[0], out[1]);
  }
};
struct Bfp8Tile {
  static constexpr int group = 4;
  static constexpr bool scaled = true;
  static constexpr float unit =
      0x1p-30f;  // lanes hold the value times 2^24, blocks are scaled by 2^(e - 127 - 6)
  static void decode(const uint8_t* tile, int g, int v, F* out) {
    const uint8_t* p = tile + 64 + (size_t)g * 128 + (size_t)v * lanes * 4;
    bfp8_lanes(p, out);
  }
};
struct Bfp4Tile {
  static constexpr int group = 8;
  static constexpr bool scaled = true;
  static constexpr float unit = 0x1p-2f;
  static void decode(const uint8_t* tile, int g, int v, F* out) {
    const uint8_t* p = tile + 64 + (size_t)g * 128 + (size_t)v * lanes * 4;
    bfp4_lanes(p, out);
  }
};

// The two lines of a later tile that stand where p is in this one come out of memory meanwhile.
inline void prefetch_tiles(const uint8_t* p, size_t tile_bytes) {
  constexpr size_t distance = 8;
  __builtin_prefetch(p + distance * tile_bytes);
  __builtin_prefetch(p + distance * tile_bytes + 64);
}

template <class Tile>
void expand(const uint8_t* tiles, int64_t count, float* y) {
  constexpr size_t bytes = Tile::group == 2 ? 2048 : Tile::group == 4 ? 1088 : 576;
  for (int64_t t = 0; t < count; ++t, tiles += bytes, y += tile_depth * panel_width) {
    float scales[2][tile_depth];
    if constexpr (Tile::scaled) {
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < tile_depth; i += lanes)
          store(scales[h] + i, exponents(tiles + h * tile_depth + i) * set1(Tile::unit));
      }
    }
    for (int g = 0; g < tile_depth / Tile::group; ++g) {
      prefetch_tiles(tiles + g * 128, bytes);
#pragma GCC unroll 16
      for (int v = 0; v < panel_vectors; ++v) {
        F out[Tile::group];
        Tile::decode(tiles, g, v, out);
#pragma GCC unroll 16
        for (int i = 0; i < Tile::group; ++i) {
          const int k = g * Tile::group + i;
          if constexpr (Tile::scaled) out[i] = out[i] * set1(scales[v * lanes / 16][k]);
          store(y + k * panel_width + v * lanes, out[i]);
        }
      }
    }
  }
}

template <class Tile, int Rows, int Panels>
void direct_tile(const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes, int64_t tiles, float* c,
                 int64_t ldc) {
  constexpr size_t bytes = Tile::group == 2 ? 2048 : Tile::group == 4 ? 1088 : 576;
  F acc[Rows][Panels][panel_vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int p = 0; p < Panels; ++p) {
#pragma GCC unroll 16
      for (int v = 0; v < panel_vectors; ++v) acc[r][p][v] = zero();
    }
  }
  for (int64_t t = 0; t < tiles; ++t, w += bytes, x += tile_depth) {
    float scaled[Rows][Panels][2][tile_depth];
    if constexpr (Tile::scaled) {
      for (int p = 0; p < Panels; ++p) {
        for (int h = 0; h < 2; ++h) {
          for (int i = 0; i < tile_depth; i += lanes) {
            const F e = exponents(w + (size_t)p * panel_bytes + h * tile_depth + i);
            for (int r = 0; r < Rows; ++r)
              store(scaled[r][p][h] + i, load(x + r * ldx + i) * set1(Tile::unit) * e);
          }
        }
      }
    }
    for (int g = 0; g < tile_depth / Tile::group; ++g) {
#pragma GCC unroll 16
      for (int p = 0; p < Panels; ++p) {
        const uint8_t* tile = w + (size_t)p * panel_bytes;
        __builtin_prefetch(tile + bytes + (size_t)g * 128 + 1024);
        __builtin_prefetch(tile + bytes + (size_t)g * 128 + 1088);
#pragma GCC unroll 16
        for (int v = 0; v < panel_vectors; ++v) {
          F out[Tile::group];
          Tile::decode(tile, g, v, out);
#pragma GCC unroll 16
          for (int i = 0; i < Tile::group; ++i) {
            const int k = g * Tile::group + i;
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) {
              const F a = set1(Tile::scaled ? scaled[r][p][v * lanes / 16][k] : x[r * ldx + k]);
              acc[r][p][v] = fma(a, out[i], acc[r][p][v]);
            }
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int p = 0; p < Panels; ++p) {
#pragma GCC unroll 16
      for (int v = 0; v < panel_vectors; ++v) store(c + r * ldc + p * panel_width + v * lanes, acc[r][p][v]);
    }
  }
}

// f32 needs no decoding.
struct F32Tile {};
template <int Rows, int Panels>
void direct_f32(const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes, int64_t tiles, float* c,
                int64_t ldc) {
  F acc[Rows][Panels][panel_vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int p = 0; p < Panels; ++p) {
#pragma GCC unroll 16
      for (int v = 0; v < panel_vectors; ++v) acc[r][p][v] = zero();
    }
  }
  for (int64_t k = 0; k < tiles * tile_depth; ++k) {
#pragma GCC unroll 16
    for (int p = 0; p < Panels; ++p) {
      const float* row = (const float*)(w + (size_t)p * panel_bytes) + k * panel_width;
#pragma GCC unroll 16
      for (int v = 0; v < panel_vectors; ++v) {
        const F b = load(row + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) acc[r][p][v] = fma(set1(x[r * ldx + k]), b, acc[r][p][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int p = 0; p < Panels; ++p) {
#pragma GCC unroll 16
      for (int v = 0; v < panel_vectors; ++v) store(c + r * ldc + p * panel_width + v * lanes, acc[r][p][v]);
    }
  }
}

template <class Tile, int Rows, int Panels>
inline void direct_panels_of(int panels, const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes,
                             int64_t tiles, float* c, int64_t ldc) {
  if (panels == Panels) {
    if constexpr (__is_same(Tile, F32Tile)) {
      direct_f32<Rows, Panels>(x, ldx, w, panel_bytes, tiles, c, ldc);
    } else {
      direct_tile<Tile, Rows, Panels>(x, ldx, w, panel_bytes, tiles, c, ldc);
    }
    return;
  }
  if constexpr (Panels > 1)
    direct_panels_of<Tile, Rows, Panels - 1>(panels, x, ldx, w, panel_bytes, tiles, c, ldc);
}

template <class Tile, int Rows>
inline void direct_rows_of(int rows, int panels, const float* x, int64_t ldx, const uint8_t* w,
                           size_t panel_bytes, int64_t tiles, float* c, int64_t ldc) {
  if (rows == Rows)
    return direct_panels_of<Tile, Rows, panels_for[Rows]>(panels, x, ldx, w, panel_bytes, tiles, c, ldc);
  if constexpr (Rows > 1) direct_rows_of<Tile, Rows - 1>(rows, panels, x, ldx, w, panel_bytes, tiles, c, ldc);
}

template <class Tile>
void direct(int rows, int panels, const float* x, int64_t ldx, const uint8_t* w, size_t panel_bytes,
            int64_t tiles, float* c, int64_t ldc) {
  direct_rows_of<Tile, most_direct_rows>(rows, panels, x, ldx, w, panel_bytes, tiles, c, ldc);
}

#include "kernels_attention.h"

constexpr Kernels table() {
  Kernels k{};
  k.bf16_to_f32 = bf16_to_f32;
  k.f32_to_bf16 = f32_to_bf16;
  k.f32_to_bf16_rows = f32_to_bf16_rows;
  k.block_rows_to_f32 = block_rows_to_f32;
  k.block_rows_to_bf16 = block_rows_to_bf16;
  k.unary = unary;
  k.binary = binary;
  k.binary_scalar = binary_scalar;
  k.sum = sum;
  k.sum_squares = sum_squares;
  k.max = max;
  k.normalize = normalize;
  k.exp_sum = exp_sum;
  k.rope_half = rope_half;
  k.rope_half_bf16 = rope_half_bf16;
  k.rope_interleaved = rope_interleaved;
  k.argmax = argmax;
  k.softmax_block = softmax_block;
  k.add_values = add_values;
  k.add_block_values = add_block_values;
  k.finite_blocks = finite_blocks;
  k.transpose = transpose;
  k.interleave = interleave;
  k.gemm_rows = most_rows;
  k.gemm = gemm;
  k.expand[1] = expand<Bf16Tile>;
  k.expand[2] = expand<Bfp8Tile>;
  k.expand[3] = expand<Bfp4Tile>;
  k.direct_rows = most_direct_rows;
  for (int r = 1; r <= most_direct_rows; ++r) k.direct_panels[r] = panels_for[r];
  k.direct[0] = direct<F32Tile>;
  k.direct[1] = direct<Bf16Tile>;
  k.direct[2] = direct<Bfp8Tile>;
  k.direct[3] = direct<Bfp4Tile>;
  return k;
}
