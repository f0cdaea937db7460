#include "ptx_compute.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "rules/codec.h"

namespace ptx {
namespace {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
__extension__ using i128 = __int128;
__extension__ using u128 = unsigned __int128;

// ---- registers as values ----

template <class T>
T value_of(u64 bits) {
  if constexpr (std::is_same_v<T, bool>) {
    return (bits & 1) != 0;
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(bits);
  } else {
    T value;
    std::memcpy(&value, &bits, sizeof value);  // x86 and ARM: the low bytes come first
    return value;
  }
}

template <class T>
u64 bits_of(T value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? 1 : 0;
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<std::make_unsigned_t<T>>(value);
  } else {
    u64 bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
}

template <class F>
void for_lanes(u32 active, F f) {
  if (active == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
  } else {
    for (; active != 0; active &= active - 1) f(__builtin_ctz(active));
  }
}

template <class F, class R, class... A, std::size_t... i>
Compute each_lane(F f, R (F::*)(A...) const, std::index_sequence<i...>) {
  return {sizeof...(A), [f](u64* const* to, const u64* const* from, u32 active) {
            u64* const result = to[0];
            const u64* const operands[] = {from[i]...};
            for_lanes(active, [&](int lane) { result[lane] = bits_of<R>(f(value_of<A>(operands[i][lane])...)); });
          }};
}

// From a lambda of a lane's operands, whose types say what of the registers they are.
template <class F, class R, class... A>
Compute each_of(F f, R (F::*call)(A...) const) {
  return each_lane(f, call, std::index_sequence_for<A...>{});
}
template <class F>
Compute each(F f) {
  return each_of(f, &F::operator());
}

const Compute kCopy = each([](u64 x) { return x; });

// ---- integers ----

template <class T>
struct Twice;
template <>
struct Twice<i16> {
  using type = i32;
};
template <>
struct Twice<u16> {
  using type = u32;
};
template <>
struct Twice<i32> {
  using type = i64;
};
template <>
struct Twice<u32> {
  using type = u64;
};
template <>
struct Twice<i64> {
  using type = i128;
};
template <>
struct Twice<u64> {
  using type = u128;
};

template <class T>
void add_order(Computes& to, const std::string& type) {
  to["setp.eq." + type] = each([](T a, T b) { return a == b; });
  to["setp.ne." + type] = each([](T a, T b) { return a < b || a > b; });
  to["setp.lt." + type] = each([](T a, T b) { return a < b; });
  to["setp.le." + type] = each([](T a, T b) { return a <= b; });
  to["setp.gt." + type] = each([](T a, T b) { return a > b; });
  to["setp.ge." + type] = each([](T a, T b) { return a >= b; });
}

template <class T>
void add_integers(Computes& to, const std::string& type) {
  using U = std::make_unsigned_t<T>;
  using Wide = typename Twice<T>::type;
  constexpr u32 bits = 8 * sizeof(T);
  add_order<T>(to, type);
  to["add." + type] = each([](T a, T b) { return static_cast<T>(U(a) + U(b)); });
  to["sub." + type] = each([](T a, T b) { return static_cast<T>(U(a) - U(b)); });
  to["neg." + type] = each([](T a) { return static_cast<T>(U(0) - U(a)); });
  to["min." + type] = each([](T a, T b) { return a < b ? a : b; });
  to["max." + type] = each([](T a, T b) { return a > b ? a : b; });
  to["mul.lo." + type] = each([](T a, T b) { return static_cast<T>(Wide{a} * b); });
  to["mul.hi." + type] = each([](T a, T b) { return static_cast<T>(Wide{a} * b >> bits); });
  to["mad.lo." + type] = each([](T a, T b, T c) { return static_cast<T>(static_cast<U>(Wide{a} * b) + U(c)); });
  to["shr." + type] = each([](T a, u32 by) {
    const T none = a < 0 ? T(-1) : T(0);
    return by < bits ? static_cast<T>(a >> by) : none;
  });
  to["selp." + type] = each([](T a, T b, bool first) { return first ? a : b; });
  to["mov." + type] = kCopy;
}

template <class T>
void add_wide(Computes& to, const std::string& type) {
  using Wide = typename Twice<T>::type;
  to["mul.wide." + type] = each([](T a, T b) { return static_cast<Wide>(Wide{a} * b); });
}

template <class U>
void add_bits(Computes& to, const std::string& type) {
  to["setp.eq." + type] = each([](U a, U b) { return a == b; });
  to["setp.ne." + type] = each([](U a, U b) { return a != b; });
  to["and." + type] = each([](U a, U b) { return static_cast<U>(a & b); });
  to["or." + type] = each([](U a, U b) { return static_cast<U>(a | b); });
  to["xor." + type] = each([](U a, U b) { return static_cast<U>(a ^ b); });
  to["not." + type] = each([](U a) { return static_cast<U>(~a); });
  to["shl." + type] = each([](U a, u32 by) { return static_cast<U>(by < 8 * sizeof(U) ? u64{a} << by : 0); });
  to["selp." + type] = each([](U a, U b, bool first) { return first ? a : b; });
  to["mov." + type] = kCopy;
}

void add_predicates(Computes& to) {
  to["and.pred"] = each([](bool a, bool b) { return a && b; });
  to["or.pred"] = each([](bool a, bool b) { return a || b; });
  to["xor.pred"] = each([](bool a, bool b) { return a != b; });
  to["not.pred"] = each([](bool a) { return !a; });
  to["mov.pred"] = kCopy;
}

// Of each byte of the result a nibble of `selector` says which byte of b:a it is; with 8, that byte's sign.
u32 permuted(u32 a, u32 b, u32 selector) {
  const u64 both = u64{b} << 32 | a;
  u32 to = 0;
  for (int i = 0; i < 4; ++i) {
    const u32 nibble = selector >> (4 * i) & 15;
    const u32 byte = static_cast<u32>(both >> (8 * (nibble & 7))) & 255;
    to |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
  }
  return to;
}

// f of the halves, each with its own.
template <class F>
u32 of_halves(u32 a, u32 b, F f) {
  const auto high = static_cast<u16>(f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16)));
  return u32{high} << 16 | static_cast<u16>(f(static_cast<u16>(a), static_cast<u16>(b)));
}

// `count` bits of x from `first` on.
u32 bits_within(u32 x, u32 first, u32 count) {
  first &= 255, count &= 255;
  if (first > 31 || count == 0) return 0;
  return x >> first & (count > 31 ? ~u32{0} : (u32{1} << count) - 1);
}

template <class From>
void add_integer_conversions(Computes& to, const std::string& from) {
  to["cvt.u16." + from] = to["cvt.s16." + from] = each([](From x) { return static_cast<u16>(x); });
  to["cvt.u32." + from] = to["cvt.s32." + from] = each([](From x) { return static_cast<u32>(x); });
  to["cvt.u64." + from] = to["cvt.s64." + from] = each([](From x) { return static_cast<u64>(x); });
  to["cvt.rn.f32." + from] = each([](From x) { return static_cast<float>(x); });
  to["cvt.rn.f64." + from] = each([](From x) { return static_cast<double>(x); });
}

// ---- numbers ----

// A result that is not a number is this one, in float32.
float result_of(float x) { return x == x ? x : value_of<float>(0x7fffffff); }
double result_of(double x) { return x; }

// As IEEE 754's minimumNumber: of a number and none, the number; -0 is below +0.
template <class T>
T least_of(T a, T b) {
  if (a != a || b != b) return result_of(a != a ? b : a);
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
T most_of(T a, T b) {
  if (a != a || b != b) return result_of(a != a ? b : a);
  return a > b || (a == b && !std::signbit(a)) ? a : b;
}

// Held to [0, 1]; what is not a number is 0.
float held(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

template <class T>
void add_numbers(Computes& to, const std::string& type) {
  add_order<T>(to, type);
  to["setp.equ." + type] = each([](T a, T b) { return !(a < b || a > b); });
  to["setp.neu." + type] = each([](T a, T b) { return !(a == b); });
  to["setp.ltu." + type] = each([](T a, T b) { return !(a >= b); });
  to["setp.leu." + type] = each([](T a, T b) { return !(a > b); });
  to["setp.gtu." + type] = each([](T a, T b) { return !(a <= b); });
  to["setp.geu." + type] = each([](T a, T b) { return !(a < b); });
  to["setp.num." + type] = each([](T a, T b) { return a == a && b == b; });
  to["setp.nan." + type] = each([](T a, T b) { return a != a || b != b; });
  to["add.rn." + type] = to["add." + type] = each([](T a, T b) { return result_of(a + b); });
  to["sub.rn." + type] = to["sub." + type] = each([](T a, T b) { return result_of(a - b); });
  to["mul.rn." + type] = to["mul." + type] = each([](T a, T b) { return result_of(a * b); });
  to["fma.rn." + type] = each([](T a, T b, T c) { return result_of(std::fma(a, b, c)); });
  to["div.rn." + type] = each([](T a, T b) { return result_of(a / b); });
  to["rcp.rn." + type] = each([](T a) { return result_of(T(1) / a); });
  to["sqrt.rn." + type] = each([](T a) { return result_of(std::sqrt(a)); });
  to["min." + type] = each([](T a, T b) { return least_of(a, b); });
  to["max." + type] = each([](T a, T b) { return most_of(a, b); });
  to["neg." + type] = each([](T a) { return -a; });
  to["abs." + type] = each([](T a) { return std::fabs(a); });
  to["selp." + type] = each([](T a, T b, bool first) { return first ? a : b; });
  to["mov." + type] = kCopy;
}

i64 truncated(double x) {  // held to what there is; what is not a number is the least
  if (!(x >= -0x1p63)) return std::numeric_limits<i64>::min();
  return x < 0x1p63 ? static_cast<i64>(x) : std::numeric_limits<i64>::max();
}

u32 pair_of(u16 high, u16 low) { return u32{high} << 16 | low; }

void add_number_conversions(Computes& to) {
  using pagedopt::from_bf16, pagedopt::from_f16, pagedopt::to_bf16, pagedopt::to_f16;
  to["cvt.sat.f32.f32"] = each([](float x) { return held(x); });
  to["fma.rn.sat.f32"] = each([](float a, float b, float c) { return held(std::fma(a, b, c)); });
  to["cvt.f64.f32"] = each([](float x) { return static_cast<double>(x); });
  to["cvt.rn.f32.f64"] = each([](double x) { return result_of(static_cast<float>(x)); });
  to["cvt.rzi.f64.f64"] = each([](double x) { return std::trunc(x); });
  to["cvt.rzi.s64.f64"] = each([](double x) { return truncated(x); });
  to["cvt.f32.bf16"] = each([](u16 x) { return from_bf16(x); });
  to["cvt.f32.f16"] = each([](u16 x) { return result_of(from_f16(x)); });
  to["cvt.rn.bf16.f32"] = each([](float x) { return to_bf16(x); });
  to["cvt.rn.f16.f32"] = each([](float x) { return to_f16(x); });
  to["cvt.rn.bf16x2.f32"] = each([](float a, float b) { return pair_of(to_bf16(a), to_bf16(b)); });
  to["cvt.rn.f16x2.f32"] = each([](float a, float b) { return pair_of(to_f16(a), to_f16(b)); });
}

// ---- approximations ----

float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// A positive or negative result of an approximate instruction; `seed` is drawn from.
float off_by_one(float exact, Approximate approximate, u32 seed) {
  if (exact == 0.0f || !std::isfinite(exact) || approximate == Approximate::exactly) return flushed(exact);
  const int units = approximate == Approximate::below ? -1 : approximate == Approximate::above ? 1 : seed % 3 - 1;
  return flushed(value_of<float>(bits_of(exact) + static_cast<u64>(units)));
}

void add_approximations(Computes& to, Approximate approximate) {
  to["rcp.approx.ftz.f32"] = each([approximate](float x) {
    return off_by_one(result_of(1.0f / flushed(x)), approximate, static_cast<u32>(bits_of(x)));
  });
  to["sqrt.approx.ftz.f32"] = each([approximate](float x) {
    return off_by_one(result_of(std::sqrt(flushed(x))), approximate, static_cast<u32>(bits_of(x)));
  });
  // 20 bits of the mantissa: a first guess that others make exact.
  to["rcp.approx.ftz.f64"] = each([](double x) { return value_of<double>(bits_of(1.0 / x) & ~u64{0xffffffff}); });
}

}  // namespace

Computes make_computes(Approximate approximate) {
  Computes to;
  add_integers<i16>(to, "s16"), add_integers<u16>(to, "u16");
  add_integers<i32>(to, "s32"), add_integers<u32>(to, "u32");
  add_integers<i64>(to, "s64"), add_integers<u64>(to, "u64");
  add_wide<i16>(to, "s16"), add_wide<u16>(to, "u16"), add_wide<i32>(to, "s32"), add_wide<u32>(to, "u32");
  add_bits<u16>(to, "b16"), add_bits<u32>(to, "b32"), add_bits<u64>(to, "b64");
  add_predicates(to);
  add_integer_conversions<i8>(to, "s8"), add_integer_conversions<u8>(to, "u8");
  add_integer_conversions<i16>(to, "s16"), add_integer_conversions<u16>(to, "u16");
  add_integer_conversions<i32>(to, "s32"), add_integer_conversions<u32>(to, "u32");
  add_integer_conversions<i64>(to, "s64"), add_integer_conversions<u64>(to, "u64");
  add_numbers<float>(to, "f32"), add_numbers<double>(to, "f64");
  add_number_conversions(to);
  add_approximations(to, approximate);
  to["prmt.b32"] = each([](u32 a, u32 b, u32 selector) { return permuted(a, b, selector); });
  to["min.u16x2"] = each([](u32 a, u32 b) { return of_halves(a, b, [](u16 x, u16 y) { return x < y ? x : y; }); });
  to["max.u16x2"] = each([](u32 a, u32 b) { return of_halves(a, b, [](u16 x, u16 y) { return x > y ? x : y; }); });
  to["bfe.u32"] = each([](u32 x, u32 first, u32 count) { return bits_within(x, first, count); });
  to["cvta.to.global.u64"] = to["cvta.global.u64"] = kCopy;
  return to;
}

Compute packing(int bits, std::size_t count) {
  const int part = bits / static_cast<int>(count);
  return {count, [=](u64* const* to, const u64* const* from, u32 active) {
            for_lanes(active, [&](int lane) {
              u64 all = 0;
              for (std::size_t i = 0; i < count; ++i) all |= (from[i][lane] & ((u64{1} << part) - 1)) << (part * i);
              to[0][lane] = all;
            });
          }};
}

Compute unpacking(int bits, std::size_t count) {
  const int part = bits / static_cast<int>(count);
  return {1, [=](u64* const* to, const u64* const* from, u32 active) {
            for_lanes(active, [&](int lane) {
              const u64 all = from[0][lane];
              for (std::size_t i = 0; i < count; ++i) to[i][lane] = all >> (part * i) & ((u64{1} << part) - 1);
            });
          }};
}

}  // namespace ptx
