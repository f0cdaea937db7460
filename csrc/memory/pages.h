// The page table: one atomic word a page, and every legal transition of it.
//
//   fresh ----populate----> prefetching ----> resident          pins count users; a pinned page never leaves its tier
//   evicted ---prefetch---> prefetching ----> resident          `dirty`: changed since the lower tier last had it
//   resident -> evicting -> remapping ------> evicted           (evicting: being written, still usable; a use keeps it)
//   fresh -----place------> remapping ------> evicted
//   fresh -> resident, prefetching ---------> evicted           where the upper tier has no memory for it
//
// Invariants, of a page at rest (fault() checks them):
//   not live => fresh, and no flag is set but `wanted`      kept => resident
//   evicted => not dirty                                    pinned => not fresh
// and of all pages: upper() and lower() count their states.
//
// Locks: none. A transition is one compare-and-swap of the word, which holds state, pins and flags together: it
// succeeds only if none of them changed since it was decided on. Moves begin by a transition to a state that no other
// move begins from, so a page has one mover at a time.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/check.h"
#include "base/units.h"
#include "base/zeroed.h"

namespace pagedopt {

enum class PageState : std::uint32_t { fresh, resident, evicting, remapping, evicted, prefetching };

class PageTable {
 public:
  explicit PageTable(std::size_t page_count) : words_(page_count) {}

  std::size_t size() const noexcept { return words_.size(); }
  PageState state(PageIndex page) const noexcept { return state_of(load(page)); }
  bool wanted(PageIndex page) const noexcept { return load(page) & kWanted; }
  bool kept(PageIndex page) const noexcept { return load(page) & kKeep; }
  bool live(PageIndex page) const noexcept { return load(page) & kLive; }
  Tier tier(PageIndex page) const noexcept;  // whose memory it takes: in motion counts as upper
  bool is_leaving(PageIndex page) const noexcept;

  // Pages in (or on their way to or from) the upper tier: what counts against the budget.
  std::int64_t upper() const noexcept { return upper_.load(); }
  std::int64_t lower() const noexcept { return lower_.load(); }

  enum class Pin : std::uint8_t { pinned, first, direct, wait };
  // Takes a pin if the page can be used now: `pinned` where it is (or will be) in the upper tier, `direct` in the lower
  // one. `first`: pinned, and it was unchanged until now. `wait`: it is in motion, or a prefetch of it is pending.
  Pin pin(PageIndex page) noexcept;
  // Somebody without a pin touches the page. True if it stays, changed; false if it is in motion or in the lower tier.
  bool touch(PageIndex page) noexcept;
  // A fresh page may have content, because somebody without a pin wrote to it: from here on it is resident.
  void take_fresh(PageIndex page) noexcept;
  // Release: whoever moves the page next has begun after what was written to it.
  void unpin(PageIndex page) noexcept {
    PAGEDOPT_PRE(is_pinned(page));
    words_[page].fetch_sub(kOnePin, std::memory_order_release);
  }

  void set_wanted(PageIndex page, bool wanted) noexcept;
  // An extent uses the page; a kept page is resident from the start, and stays. pre: it is not live
  void set_live(PageIndex page, bool keep) noexcept;

  enum class Source { none, zeros, lower };
  Source begin_prefetch(PageIndex page) noexcept;  // none: not possible now
  void finish_prefetch(PageIndex page, Source source, bool lower_keeps_copy) noexcept;
  void cancel_prefetch(PageIndex page, Source source) noexcept;
  // A page that was fresh, and is in use or on its way up, is in the lower tier instead: the upper one has no memory.
  void begin_lower(PageIndex page) noexcept;

  enum class Content { busy, zeros, clean, dirty };
  Content begin_evict(PageIndex page) noexcept;  // busy: not possible now. zeros and clean go straight to remapping
  bool begin_remap(PageIndex page) noexcept;     // evicting -> remapping; false: used meanwhile, resident again
  void finish_evict(PageIndex page) noexcept;
  void cancel_evict(PageIndex page, Content content) noexcept;

  // Claims a page nobody uses, so that its content can be discarded; false while it is in motion.
  bool begin_discard(PageIndex page) noexcept;
  void finish_discard(PageIndex page) noexcept;

  // Whether the page was worked on in the lower tier since the last call: the page cache may hold it.
  bool take_cached(PageIndex page) noexcept { return words_[page].fetch_and(~kCached) & kCached; }

  bool is_pinned(PageIndex page) const noexcept { return load(page) >= kOnePin; }
  // In the upper tier, unchanged since it arrived.
  bool is_clean(PageIndex page) const noexcept { return state(page) == PageState::resident && !(load(page) & kDirty); }
  // What does not hold of a page, or of the sums of pages [0, end); null if all does. pre: nothing is in motion; no
  // page from `end` on was ever in use
  const char* fault(PageIndex page) const noexcept;
  const char* fault_of_sums(PageIndex end) const noexcept;

 private:
  friend struct MemoryTest;
  using Word = std::uint32_t;
  static constexpr Word kStateMask = 7, kDirty = 8, kCached = 16, kWanted = 32, kKeep = 64, kLive = 128, kOnePin = 256;
  static_assert(static_cast<Word>(PageState::prefetching) <= kStateMask);

  static PageState state_of(Word word) noexcept { return static_cast<PageState>(word & kStateMask); }
  static Word with(Word word, PageState state) noexcept { return (word & ~kStateMask) | static_cast<Word>(state); }
  Word load(PageIndex page) const noexcept { return words_[page].load(std::memory_order_acquire); }
  bool swap(PageIndex page, Word& expected, Word desired) noexcept {
    return words_[page].compare_exchange_weak(expected, desired, std::memory_order_acq_rel, std::memory_order_acquire);
  }
  void transition(PageIndex page, PageState state, Word set = 0, Word clear = 0) noexcept;

  Zeroed<std::atomic<Word>> words_;
  std::atomic<std::int64_t> upper_{0};
  std::atomic<std::int64_t> lower_{0};
};

}  // namespace pagedopt
