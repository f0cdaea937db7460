#include "memory/pages.h"

namespace pagedopt {

Tier PageTable::tier(PageIndex page) const noexcept {
  switch (state(page)) {
    case PageState::fresh: return Tier::fresh;
    case PageState::evicted: return Tier::lower;
    default: return Tier::upper;
  }
}

bool PageTable::is_leaving(PageIndex page) const noexcept {
  const PageState now = state(page);
  return now == PageState::evicting || now == PageState::remapping;
}

PageTable::Pin PageTable::pin(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    switch (state_of(word)) {
      case PageState::resident:
      case PageState::evicting:
        if (swap(page, word, (word + kOnePin) | kDirty)) return word & kDirty ? Pin::pinned : Pin::first;
        break;
      case PageState::fresh:
        if (word & kWanted) return Pin::wait;
        if (swap(page, word, with(word + kOnePin, PageState::resident) | kDirty)) {
          ++upper_;
          return Pin::pinned;
        }
        break;
      case PageState::evicted:
        if (word & kWanted) return Pin::wait;
        if (swap(page, word, (word + kOnePin) | kCached)) return Pin::direct;
        break;
      default: return Pin::wait;
    }
  }
}

bool PageTable::touch(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    switch (state_of(word)) {
      case PageState::fresh: return true;
      case PageState::resident:
      case PageState::evicting:
        if (swap(page, word, word | kDirty)) return true;
        break;
      default: return false;
    }
  }
}

void PageTable::take_fresh(PageIndex page) noexcept {
  Word word = load(page);
  while (state_of(word) == PageState::fresh && (word & kLive)) {
    if (!swap(page, word, with(word, PageState::resident) | kDirty)) continue;
    ++upper_;
    return;
  }
}

void PageTable::set_wanted(PageIndex page, bool wanted) noexcept {
  if (wanted)
    words_[page].fetch_or(kWanted);
  else
    words_[page].fetch_and(~kWanted);
}

void PageTable::set_live(PageIndex page, bool keep) noexcept {
  const Word before = words_[page].fetch_or(keep ? kLive | kKeep : kLive);
  if (keep && state_of(before) == PageState::fresh) {
    transition(page, PageState::resident, kDirty);
    ++upper_;
  }
}

void PageTable::transition(PageIndex page, PageState state, Word set, Word clear) noexcept {
  Word word = load(page);
  while (!swap(page, word, (with(word, state) | set) & ~clear)) {
  }
}

PageTable::Source PageTable::begin_prefetch(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    const bool possible = word < kOnePin && (word & kLive);
    const PageState state = state_of(word);
    if (!possible || (state != PageState::fresh && state != PageState::evicted)) return Source::none;
    if (!swap(page, word, with(word, PageState::prefetching))) continue;
    ++upper_;
    if (state == PageState::fresh) return Source::zeros;
    --lower_;
    return Source::lower;
  }
}

void PageTable::finish_prefetch(PageIndex page, Source source, bool lower_keeps_copy) noexcept {
  const bool dirty = source == Source::zeros || !lower_keeps_copy;
  transition(page, PageState::resident, dirty ? kDirty : 0, dirty ? kWanted : kWanted | kDirty);
}

void PageTable::cancel_prefetch(PageIndex page, Source source) noexcept {
  transition(page, source == Source::zeros ? PageState::fresh : PageState::evicted, 0, kWanted);
  --upper_;
  if (source == Source::lower) ++lower_;
}

void PageTable::begin_lower(PageIndex page) noexcept {
  transition(page, PageState::evicted, 0, kWanted | kDirty);
  --upper_;
  ++lower_;
}

PageTable::Content PageTable::begin_evict(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    if (word >= kOnePin || (word & kKeep) || !(word & kLive)) return Content::busy;
    const PageState state = state_of(word);
    if (state == PageState::fresh) {
      if (!swap(page, word, with(word, PageState::remapping))) continue;
      ++upper_;
      return Content::zeros;
    }
    if (state != PageState::resident) return Content::busy;
    const bool dirty = word & kDirty;
    const PageState next = dirty ? PageState::evicting : PageState::remapping;
    if (swap(page, word, with(word, next) & ~kDirty)) return dirty ? Content::dirty : Content::clean;
  }
}

bool PageTable::begin_remap(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    const bool used = word >= kOnePin || (word & kDirty);
    const Word next = used ? with(word, PageState::resident) | kDirty : with(word, PageState::remapping);
    if (swap(page, word, next)) return !used;
  }
}

void PageTable::finish_evict(PageIndex page) noexcept {
  transition(page, PageState::evicted);
  --upper_;
  ++lower_;
}

void PageTable::cancel_evict(PageIndex page, Content content) noexcept {
  if (content == Content::zeros) {
    transition(page, PageState::fresh);
    --upper_;
  } else {
    transition(page, PageState::resident, kDirty);
  }
}

bool PageTable::begin_discard(PageIndex page) noexcept {
  Word word = load(page);
  for (;;) {
    const PageState state = state_of(word);
    if (state == PageState::prefetching || state == PageState::evicting || state == PageState::remapping) return false;
    if (!swap(page, word, static_cast<Word>(PageState::remapping))) continue;
    if (state == PageState::evicted) --lower_;
    if (state != PageState::resident) ++upper_;
    return true;
  }
}

void PageTable::finish_discard(PageIndex page) noexcept {
  words_[page].store(static_cast<Word>(PageState::fresh), std::memory_order_release);
  --upper_;
}

bool PageTable::is_valid(PageIndex end) const noexcept {
  std::int64_t upper = 0, lower = 0;
  for (PageIndex page = 0; page < end; ++page) {
    const Word word = load(page);
    const PageState state = state_of(word);
    if (state == PageState::resident) ++upper;
    if (state == PageState::evicted) ++lower;
    if (state == PageState::evicting || state == PageState::remapping || state == PageState::prefetching) return false;
    if (state != PageState::fresh && !(word & kLive)) return false;
    if ((word & kKeep) && state != PageState::resident) return false;
  }
  return upper == upper_.load() && lower == lower_.load();
}

}  // namespace pagedopt
