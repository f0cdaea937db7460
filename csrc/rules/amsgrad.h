// AMSGrad (Reddi, Kale & Kumar 2018, algorithm 2, with Adam's bias corrections as torch has it): Adam that divides by
// the largest second moment so far.
#pragma once

#include "rules/adam.h"

namespace pagedopt {

struct AmsGrad : Adam {
  static constexpr Slot kSlots[] = {{"exp_avg", true}, {"exp_avg_sq", false}, {"max_exp_avg_sq", false}};

  template <class Real>
  PAGEDOPT_HD static Real update(const CommonScalars<Real>& common, const Scalars<Real>& s, Real g, Real (&slot)[3]) {
    moments(s, g, slot[0], slot[1]);
    slot[2] = larger(slot[1], slot[2]);
    return move(common, s, slot[0], slot[2]);
  }
};

}  // namespace pagedopt
