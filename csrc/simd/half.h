// 16-bit floating-point numbers, and their conversion one at a time.
#pragma once
#include <stdint.h>

namespace {

struct f16 {  // IEEE 754 binary16
  uint16_t bits;
};
struct bf16 {  // the upper half of a float
  uint16_t bits;
};

struct bf16_pair {  // neighbours, multiplied by two others and summed in one step
  bf16 first, second;
};

inline float widen(bf16 x) { return __builtin_bit_cast(float, uint32_t(x.bits) << 16); }

inline float widen(f16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  if (rest >= 0x7c00) return __builtin_bit_cast(float, sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // As a float with the same fields, 2^112 times too small: normal or not, one product sets it right.
  const float small = __builtin_bit_cast(float, rest << 13);
  return __builtin_bit_cast(float, sign | __builtin_bit_cast(uint32_t, small * 0x1p112f));
}

// To the nearest, ties to even.
inline void narrow(float x, bf16& out) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  out.bits = x != x ? uint16_t(bits >> 16 | 0x40) : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline void narrow(float x, f16& out) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x), sign = bits >> 16 & 0x8000;
  const float magnitude = __builtin_bit_cast(float, bits & 0x7fffffff);
  uint32_t rest;
  if (x != x) {
    rest = 0x7e00;
  } else if (magnitude >= 65520.0f) {  // halfway from the largest to the next
    rest = 0x7c00;
  } else if (magnitude < 0x1p-14f) {  // in units of 2^-24: adding 2^23 of them rounds
    rest = __builtin_bit_cast(uint32_t, magnitude + 0.5f) - __builtin_bit_cast(uint32_t, 0.5f);
  } else {
    const uint32_t m = (bits & 0x7fffffff) - (112u << 23);
    rest = (m + 0xfff + (m >> 13 & 1)) >> 13;
  }
  out.bits = uint16_t(sign | rest);
}

}  // namespace
