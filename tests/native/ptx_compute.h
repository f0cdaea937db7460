// What instructions do that a lane does by itself: arithmetic, conversions, moves between registers. The whole name of
// an instruction (`fma.rn.f32`) decides; a name that is not in the table is not known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace ptx {

inline constexpr int kLanes = 32;
inline constexpr std::uint32_t kAllLanes = 0xffffffffu;

// Registers are 64 bits a lane, of which an instruction uses as many as its type has.
struct Compute {
  std::size_t operands = 0;
  std::function<void(std::uint64_t* const* to, const std::uint64_t* const* from, std::uint32_t active_lanes)> run;
};

// Where approximate instructions are, of the one unit in the last place that PTX allows them.
enum class Approximate { exactly, below, above, drawn };

using Computes = std::map<std::string, Compute>;
Computes make_computes(Approximate approximate);

// `mov` between one register and the parts of `bits` that it is made of.
Compute packing(int bits, std::size_t count);
Compute unpacking(int bits, std::size_t count);

}  // namespace ptx
