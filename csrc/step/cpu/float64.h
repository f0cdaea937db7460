// The passes over float64 parameters, whose state is float64 too: part of step/cpu/kernels.cpp, which says what may
// stand here. They are rare, so this is the rule in the plainest loop.
#pragma once

#include <cstdint>

#include "step/piece.h"

namespace pagedopt {
namespace PAGEDOPT_ISA {
namespace {

// Calls visit(i, new element, its move) for every element that the step moves.
template <class R, class Visit>
PAGEDOPT_HD void for_moved64(const Piece& piece, Visit visit) {
  const auto* const p = static_cast<const double*>(piece.param);
  const auto* const g = static_cast<const double*>(piece.grad);
  const CommonScalars<double> common = piece.scalars64.common;
  const auto own = piece.scalars64.of<R>();
  for (std::int64_t i = 0; i < piece.numel; ++i) {
    if (piece.skip_zeros && g[i] == 0.0) continue;
    Element<R, double> e{p[i], {}};
    for (int k = 0; k < kSlotsOf<R>; ++k) e.slot[k] = static_cast<const double*>(piece.slot[k])[i];
    const double move = update<R>(common, own, common.coupled_decay != 0.0, g[i], e);
    visit(i, e, move);
  }
}

template <class R>
void update64(const Piece& piece) {
  for_moved64<R>(piece, [&](std::int64_t i, const Element<R, double>& e, double) {
    static_cast<double*>(piece.param)[i] = e.p;
    for (int k = 0; k < kSlotsOf<R>; ++k) static_cast<double*>(piece.slot[k])[i] = e.slot[k];
  });
}

double square_sum64(const void* numbers, std::int64_t numel) {
  const auto* const x = static_cast<const double*>(numbers);
  double sum = 0.0;
  for (std::int64_t i = 0; i < numel; ++i) sum += x[i] * x[i];
  return sum;
}

Partial gradient_norm64(const Piece& piece) {
  Partial partial;
  partial.grad_square = square_sum64(piece.grad, piece.numel);
  return partial;
}

template <class R>
Partial measure64(const Piece& piece) {
  Partial partial;
  partial.param_square = square_sum64(piece.param, piece.numel);
  for_moved64<R>(piece, [&](std::int64_t, const Element<R, double>& e, double move) {
    if (!R::is_still(e.slot)) partial.move_square += move * move;
  });
  return partial;
}

}  // namespace
}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt
