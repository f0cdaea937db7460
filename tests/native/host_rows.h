// Parameters with their state in ordinary memory, and 16-bit numbers from their definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/workers.h"
#include "check.h"
#include "hypers.h"
#include "step/step.h"

namespace pagedopt {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline Workers workers;

inline void best_isa() { set_isa(isas().front()); }

// ---- 16-bit numbers, from their definition ----

struct Format {
  int mantissa_bits, least_exponent;
  double largest;
};
constexpr Format kBf16{7, -126, 3.3895313892515355e38}, kF16{10, -14, 65504.0};

// x rounded to nearest even in the format.
inline double rounded(double x, const Format& format) {
  if (!std::isfinite(x) || x == 0.0) return x;
  const int exponent = std::max(std::ilogb(x), format.least_exponent);
  const double unit = std::ldexp(1.0, exponent - format.mantissa_bits);
  const double y = std::nearbyint(x / unit) * unit;
  return std::abs(y) > format.largest ? std::copysign(kInf, y) : y;
}

inline double round_to(double x, Dtype dtype) {
  return dtype == Dtype::f32 ? static_cast<double>(static_cast<float>(x))
                             : rounded(x, dtype == Dtype::bf16 ? kBf16 : kF16);
}

// The nearest code to x / absmax among the neighbours of x in the sorted map; ties away from zero. v > 0 never takes
// code 0.
inline int nearest_code(double x, double absmax, bool is_signed) {
  const float* value = code_map(is_signed).value;
  const auto above =
      std::lower_bound(value, value + 256, x, [&](float entry, double wanted) { return entry * absmax < wanted; }) -
      value;
  const int least = !is_signed && x > 0.0 ? 1 : 0;
  int best = -1;
  for (int code = std::max<int>(least, static_cast<int>(above) - 1);
       code <= std::min<int>(255, std::max<int>(least, static_cast<int>(above))); ++code) {
    const double distance = std::abs(value[code] * absmax - x),
                 least_distance = best < 0 ? kInf : std::abs(value[best] * absmax - x);
    if (distance < least_distance || (distance == least_distance && std::abs(value[code]) > std::abs(value[best])))
      best = code;
  }
  return best;
}

// ---- rows of the step ----

struct Case {
  std::string name;
  Dtype dtype = Dtype::f32;
  Codec codec = Codec::f32;
  Hyper hyper = hyper_of();
  std::int64_t numel = 1003;
  double grad_scale = 1.0, spread = 1.0;
  unsigned steps = 4;
};

// A parameter with its state in ordinary memory.
struct Tensor {
  explicit Tensor(const Case& c)
      : rule(c.hyper.rule), codec(c.codec), dtype(c.dtype), numel(c.numel), param(c.numel * 4), grad(c.numel * 4) {
    std::mt19937 random(5);
    std::normal_distribution<double> normal;
    for (std::int64_t i = 0; i < numel; ++i) put(param, i, normal(random));
    for (auto& bytes : slot) bytes.assign(codec == Codec::f32 ? numel * 4 : numel, std::byte{0});
    for (int i = 0; i < kMostSlots; ++i)
      if (codec != Codec::f32 && is_signed(rule, i)) std::fill(slot[i].begin(), slot[i].end(), std::byte{127});
    for (auto& values : absmax) values.assign(codec == Codec::blockwise8 ? (numel + 255) / 256 : 1, 0.0F);
    gnorms.assign(kGnormHistory, 0.0F);
  }

  void put(std::vector<std::byte>& bytes, std::int64_t i, double x) {
    const auto value = static_cast<float>(x);
    const std::uint16_t half = dtype == Dtype::bf16 ? to_bf16(value) : to_f16(value);
    if (dtype == Dtype::f32)
      std::memcpy(&bytes[i * 4], &value, 4);
    else
      std::memcpy(&bytes[i * 2], &half, 2);
  }

  double get(const std::vector<std::byte>& bytes, std::int64_t i) const {
    float value;
    std::uint16_t half;
    std::memcpy(&value, &bytes[dtype == Dtype::f32 ? i * 4 : 0], 4);
    std::memcpy(&half, &bytes[i * 2], 2);
    return dtype == Dtype::f32 ? value : dtype == Dtype::bf16 ? from_bf16(half) : from_f16(half);
  }

  std::vector<double> moment(int which) const {
    std::vector<float> x(numel);
    if (codec == Codec::f32)
      std::memcpy(x.data(), slot[which].data(), numel * 4);
    else
      decode(codes(which), absmax[which].data(), numel, x.data(), is_signed(rule, which),
             codec == Codec::blockwise8 ? 256 : std::max<std::int64_t>(numel, 1));
    return {x.begin(), x.end()};
  }

  const std::uint8_t* codes(int which) const { return reinterpret_cast<const std::uint8_t*>(slot[which].data()); }

  Row row(std::uint32_t group = 0) {
    Row r;
    r.param = param.data();
    r.grad = grad.data();
    for (int i = 0; i < kMostSlots; ++i) {
      r.slot[i] = slot[i].data();
      r.absmax[i] = codec == Codec::f32 ? nullptr : absmax[i].data();
    }
    r.step = &step;
    r.gnorm_history = gnorms.data();
    r.numel = numel;
    r.group = group;
    r.dtype = dtype;
    r.codec = codec;
    return r;
  }

  RuleId rule;
  Codec codec;
  Dtype dtype;
  std::int64_t numel;
  std::vector<std::byte> param, grad, slot[kMostSlots];
  std::vector<float> absmax[kMostSlots], gnorms;
  float step = 0.0F;
};

inline void new_gradient(Tensor& tensor, const Case& c, unsigned t) {
  std::mt19937 random(100 + t);
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < tensor.numel; ++i) {
    const double scale = 0.1 * std::pow(10.0, -c.spread * static_cast<double>(random() % 1000) / 1000);
    tensor.put(tensor.grad, i, random() % 7 == 0 ? 0.0 : normal(random) * scale * (1 + t % 3) / c.grad_scale);
  }
}

}  // namespace pagedopt
